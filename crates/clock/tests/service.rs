//! The clock service alone: stations on TCP, readers on other threads, actors that are sent messages at a time.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, Recipient};
use mainstay_base::{ClusterId, NodeId};
use mainstay_clock::Time;
use mainstay_clock::sync::global::{ClockHandle, Event, Global, Setup, WaitError};
use mainstay_clock::sync::{Config, Delay, Function, Kind, Plan, Reading, Source, Verdict};
use mainstay_runtime::{Arrived, DatagramKey, DatagramKeys, Datagrams, TokioTime, Udp};
use mainstay_service::{Events, StationHandle, StationParts, start};
use mainstay_sim::free_addresses;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

fn roster() -> BTreeMap<String, SocketAddr> {
    let named = |(index, address)| (format!("n{index}"), address);
    free_addresses(3).into_iter().enumerate().map(named).collect()
}

fn plan() -> Plan {
    let kind = Kind::Averaging { function: Function::Midpoint, reading: Reading::ROUND_TRIP };
    let mut config = Config::lan(kind, 3, 0);
    // Three nodes share a thread with the test, and a processor with others.
    config.delay = Delay { min: Duration::from_micros(1), max: Duration::from_millis(40) };
    config.period = Duration::from_millis(800);
    Plan::new(config).unwrap()
}

/// UDP whose counts a test can see.
#[derive(Clone)]
struct Shared(Rc<RefCell<Udp>>);

impl Shared {
    /// Of a node that reaches the others at `addresses`.
    fn new(listen: SocketAddr, name: &str, addresses: &BTreeMap<String, SocketAddr>) -> Self {
        let node = |name: &str| NodeId::new(ClusterId::from_entropy(3), name);
        // The key of two nodes is theirs alone.
        let key = |other: &str| {
            let (low, high) = (name.min(other).as_bytes()[1], name.max(other).as_bytes()[1]);
            DatagramKey([(low - b'0') * 16 + high; 32])
        };
        let others = addresses.keys().filter(|other| *other != name);
        let keys = DatagramKeys::new(others.map(|other| (node(other), key(other))));
        let addresses = addresses.iter().map(|(name, at)| (node(name), *at)).collect();
        let time = Rc::new(TokioTime::new());
        Self(Rc::new(RefCell::new(Udp::new(node(name), listen, addresses, &keys, time).unwrap())))
    }
}

impl Datagrams for Shared {
    fn start(&mut self, events: Box<dyn FnMut(Arrived)>) {
        self.0.borrow_mut().start(events);
    }

    fn send(&mut self, to: NodeId, body: &[u8]) {
        self.0.borrow_mut().send(to, body);
    }

    fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.0.borrow().refused()
    }
}

/// Passes on what comes, once more, and with a bit turned.
async fn record(from: std::net::UdpSocket, to: SocketAddr) {
    let from = tokio::net::UdpSocket::from_std(from).unwrap();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (length, _) = from.recv_from(&mut buffer).await.unwrap();
        for turned in [0, 0, 1] {
            buffer[length - 1] ^= turned;
            from.send_to(&buffer[..length], to).await.unwrap();
        }
    }
}

fn station(
    roster: &BTreeMap<String, SocketAddr>,
    index: usize,
    directory: Option<&Path>,
    datagrams: Option<Shared>,
) -> (StationHandle, ClockHandle) {
    let name = format!("n{index}");
    let directory = directory.map(|it| it.join(&name));
    let cluster = ClusterId::from_entropy(3);
    let mut parts = StationParts::tcp(cluster, &name, roster.clone(), directory).unwrap();
    parts.datagrams = datagrams.map(|it| Box::new(it) as _);
    let mut setup = Setup::new(plan()).unwrap();
    setup.together = true;
    let mount = |node: &mut mainstay_service::Mounting<'_>| {
        let config = setup.config(node);
        node.mount::<Global>("clock", config).map(drop)
    };
    let station = start(parts, mount).unwrap();
    let clock = setup.handle(station.service("clock"));
    (station, clock)
}

#[derive(Message)]
#[rtype(result = "()")]
struct Strike(u32);

struct Bell {
    to: mpsc::UnboundedSender<Result<u32, Event>>,
}

impl Actor for Bell {
    type Context = Context<Self>;
}

impl Handler<Strike> for Bell {
    type Result = ();

    fn handle(&mut self, Strike(number): Strike, _: &mut Context<Self>) {
        let _ = self.to.send(Ok(number));
    }
}

impl Handler<Events<Event>> for Bell {
    type Result = ();

    fn handle(&mut self, mut events: Events<Event>, _: &mut Context<Self>) {
        for event in events.take() {
            let _ = self.to.send(Err(event));
        }
    }
}

async fn synchronised(clocks: &[&ClockHandle]) {
    let all = async {
        while !clocks.iter().all(|clock| clock.is_synchronised()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, all).await.expect("in time");
}

async fn next<T>(from: &mut mpsc::UnboundedReceiver<T>) -> T {
    timeout(LIMIT, from.recv()).await.expect("in time").expect("it lives")
}

fn later(clock: &ClockHandle, millis: u64) -> Time {
    clock.now().0.saturating_add(Duration::from_millis(millis))
}

#[tokio::test]
async fn clocks_alone_agree_and_wake_who_waits() {
    let roster = roster();
    let run = async {
        let all: Vec<_> = (0..3).map(|index| station(&roster, index, None, None)).collect();
        let clocks: Vec<&ClockHandle> = all.iter().map(|(_, clock)| clock).collect();
        synchronised(&clocks).await;
        let promise = clocks[0].service().status().await.unwrap().promise;
        for _ in 0..100 {
            let (first, between, last) = (clocks[0].now().0, clocks[1].now().0, clocks[0].now().0);
            assert!(first <= last);
            assert!(between.saturating_add(promise.precision) >= first);
            assert!(last.saturating_add(promise.precision) >= between);
        }
        let bounded = clocks[2].now_bounded().unwrap();
        assert!(bounded.earliest < bounded.latest);
        assert!(clocks[2].before(later(clocks[2], 100_000)) && !clocks[2].after(bounded.latest));

        let at = later(clocks[0], 30);
        let now = timeout(LIMIT, clocks[0].sleep_until(at)).await.unwrap().unwrap();
        assert!(now.time >= at);
        let at = clocks[0].now().0;
        let past = timeout(LIMIT, clocks[0].wait_until_past(at)).await.unwrap().unwrap();
        assert!(past.earliest > at && clocks[0].after(at));

        let period = Duration::from_millis(20);
        let mut ticks = clocks[1].interval(period);
        let first = timeout(LIMIT, ticks.tick()).await.unwrap().unwrap();
        let second = timeout(LIMIT, ticks.tick()).await.unwrap().unwrap();
        assert!(first < second && second.as_nanos().is_multiple_of(20_000_000));

        // Whoever waits no longer leaves nothing behind.
        let waits = clocks[2].sleep_until(later(clocks[2], 1_000_000));
        assert!(timeout(Duration::from_millis(5), waits).await.is_err());
        let none = async {
            while clocks[2].service().status().await.unwrap().timers > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, none).await.expect("it is cancelled");
        let corrected = async {
            while clocks[0].service().status().await.unwrap().corrections < 2 {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, corrected).await.expect("they are corrected");
        assert!(clocks.iter().all(|clock| clock.is_synchronised()));
        let sources = clocks[0].service().status().await.unwrap().sources;
        assert_eq!(sources.len(), 2);
        assert!(sources.iter().all(|(_, source)| source.verdict == Verdict::Used), "{sources:?}");
    };
    LocalSet::new().run_until(run).await;
}

/// Over UDP, where a stranger sends what it has made up, repeats what it has recorded, and alters it.
#[tokio::test]
async fn clocks_agree_by_datagrams_that_nobody_can_forge() {
    let roster = roster();
    let run = async {
        let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        stranger.set_nonblocking(true).unwrap();
        // On the way to the first node.
        let mut past_it = roster.clone();
        past_it.insert("n0".to_owned(), stranger.local_addr().unwrap());
        let recording = tokio::task::spawn_local(record(stranger, roster["n0"]));
        let udp = |index: usize| {
            let name = format!("n{index}");
            Shared::new(roster[&name], &name, if index == 0 { &roster } else { &past_it })
        };
        let all_udp: Vec<Shared> = (0..3).map(udp).collect();
        let all: Vec<_> =
            (0..3).map(|it| station(&roster, it, None, Some(all_udp[it].clone()))).collect();
        let clocks: Vec<&ClockHandle> = all.iter().map(|(_, clock)| clock).collect();
        let liar = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let corrected = async {
            while clocks[0].service().status().await.unwrap().corrections < 2 {
                liar.send_to(&[1; 80], roster["n0"]).unwrap();
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, corrected).await.expect("they are corrected");
        synchronised(&clocks).await;
        let refused = all_udp[0].refused();
        for why in ["datagram-replayed", "datagram-forged", "datagram-astray"] {
            assert!(refused.contains_key(why), "{why} in {refused:?}");
        }
        let status = clocks[0].service().status().await.unwrap();
        assert_eq!(status.rejected, Default::default(), "nothing of it reached the clock");
        assert!(status.steps <= 1, "the one with which it begins");
        let is_used = |source: &Source| source.verdict == Verdict::Used;
        assert!(status.sources.iter().all(|(_, it)| is_used(it)), "{:?}", status.sources);
        recording.abort();
    };
    LocalSet::new().run_until(run).await;
}

#[tokio::test]
async fn an_actor_is_sent_what_was_set_once_and_hears_events() {
    let roster = roster();
    let run = async {
        let all: Vec<_> = (0..3).map(|index| station(&roster, index, None, None)).collect();
        let clock = &all[0].1;
        let (to, mut heard) = mpsc::unbounded_channel();
        let bell = Bell { to }.start();
        let strikes: Recipient<Strike> = bell.clone().recipient();
        clock.service().subscribe(bell.recipient(), 64).await.unwrap();
        synchronised(&[clock]).await;
        clock.at(later(clock, 40), strikes.clone(), Strike(2)).await.unwrap();
        clock.at(later(clock, 20), strikes.clone(), Strike(1)).await.unwrap();
        let taken = clock.at(later(clock, 30), strikes.clone(), Strike(9)).await.unwrap();
        assert!(clock.cancel(taken) && !clock.cancel(taken));
        clock.at(later(clock, 60), strikes, Strike(3)).await.unwrap();
        let (mut struck, mut told) = (Vec::new(), Vec::new());
        while struck.len() < 3 {
            match next(&mut heard).await {
                Ok(number) => struck.push(number),
                Err(event) => told.push(event),
            }
        }
        assert_eq!(struck, [1, 2, 3]);
        while !told.iter().any(|event| matches!(event, Event::Resynced(_))) {
            told.extend(next(&mut heard).await.err());
        }
        // Who waits when the service ends is told.
        let waits = clock.sleep_until(later(clock, 1_000_000));
        let ends = async {
            tokio::task::yield_now().await;
            clock.service().dismount().await.unwrap();
        };
        let (waited, ()) = timeout(LIMIT, async { tokio::join!(waits, ends) }).await.unwrap();
        assert_eq!(waited.unwrap_err(), WaitError::Ended);
    };
    LocalSet::new().run_until(run).await;
}

/// CLK-10 on a real disk: another process of the node begins above all that was read.
#[tokio::test]
async fn a_clock_that_is_started_again_does_not_go_back() {
    let (roster, directory) = (roster(), tempfile::tempdir().unwrap());
    let run = async {
        let mut last = Time::ZERO;
        for _ in 0..3 {
            let (station, clock) = station(&roster, 0, Some(directory.path()), None);
            let begins = async {
                while clock.now().0 == Time::ZERO {
                    tokio::task::yield_now().await;
                }
            };
            timeout(LIMIT, begins).await.expect("it begins");
            let now = clock.now().0;
            assert!(now >= last, "{now:?} after {last:?}");
            last = now;
            let closed = station.closed();
            station.stop();
            drop((station, clock));
            timeout(LIMIT, closed).await.unwrap();
        }
    };
    LocalSet::new().run_until(run).await;
}

/// A message that there is no room for is refused to who sets it: it would never come.
#[tokio::test]
async fn one_alarm_too_many_is_refused() {
    let roster = roster();
    let run = async {
        let cluster = ClusterId::from_entropy(3);
        let parts = StationParts::tcp(cluster, "n0", roster.clone(), None).unwrap();
        let mut setup = Setup::new(plan()).unwrap();
        setup.together = true;
        let mount = |node: &mut mainstay_service::Mounting<'_>| {
            let mut config = setup.config(node);
            config.timers_max = 1;
            node.mount::<Global>("clock", config).map(drop)
        };
        let station = start(parts, mount).unwrap();
        let clock = setup.handle(station.service("clock"));
        let (to, _heard) = mpsc::unbounded_channel();
        let strikes: Recipient<Strike> = Bell { to }.start().recipient();
        let begins = async {
            while clock.now().0 == Time::ZERO {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, begins).await.expect("it begins");
        let first = clock.at(later(&clock, 1_000_000), strikes.clone(), Strike(1)).await.unwrap();
        let second = clock.at(later(&clock, 1_000_000), strikes.clone(), Strike(2)).await;
        assert_eq!(second, Err(WaitError::TooMany));
        // When the first is taken back there is room again.
        assert!(clock.cancel(first));
        clock.at(later(&clock, 1_000_000), strikes, Strike(3)).await.unwrap();
        station.stop();
    };
    LocalSet::new().run_until(run).await;
}
