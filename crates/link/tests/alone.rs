//! Links in actors of their own, over TCP on loopback.
#![cfg(feature = "actor")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use actix::{Actor, Context, Handler};
use bytes::Bytes;
use mainstay_base::{ClusterId, Duration};
use mainstay_link::Builder;
use mainstay_link::actor::{
    Ended, LinkEvent, LinkEvents, LinkHandle, LinkParts, MESSAGE_BYTES_MAX, Porter, SendCommand,
    SendError, StartError, open, start,
};
use mainstay_runtime::{Closed, Events};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

type Roster = BTreeMap<String, SocketAddr>;

fn roster() -> Roster {
    ["a", "b"].map(str::to_owned).into_iter().zip(mainstay_sim::free_addresses(2)).collect()
}

fn parts(name: &str, roster: &Roster) -> LinkParts {
    // Windows of two of the largest messages, so that they are soon full.
    let small = |config: Builder| config.window(2 << 20, 64 << 10);
    let cluster = ClusterId::from_entropy(1);
    let mut parts = LinkParts::tcp(cluster, name, roster.clone()).unwrap().configure(small);
    parts.unread_bytes = 64 << 10;
    parts
}

fn opened(name: &str, roster: &Roster) -> (LinkHandle, LinkEvents) {
    open(parts(name, roster)).unwrap()
}

async fn up(events: &mut LinkEvents) {
    until(events, |event| matches!(event, LinkEvent::Up { .. }).then_some(())).await;
}

/// The next event that this picks.
async fn until<T>(events: &mut LinkEvents, pick: impl Fn(LinkEvent) -> Option<T>) -> T {
    loop {
        if let Some(picked) = pick(events.next().await.unwrap()) {
            return picked;
        }
    }
}

fn acknowledged(all: u64) -> impl Fn(LinkEvent) -> Option<()> {
    move |event| match event {
        LinkEvent::Acknowledged { upto, .. } => (upto == all).then_some(()),
        _ => None,
    }
}

fn message(number: u64, size: usize) -> Bytes {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(size, 0);
    payload.into()
}

fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

async fn local<T>(test: impl Future<Output = T>) -> T {
    let test = tokio::time::timeout(Duration::from_secs(60), test);
    LocalSet::new().run_until(test).await.unwrap()
}

/// Counts what comes, and takes the next batch only when it is told to go on.
struct Reader {
    next: u64,
    batches: mpsc::UnboundedSender<u64>,
    hold: Vec<Events<LinkEvent>>,
    holds: bool,
}

impl Actor for Reader {
    type Context = Context<Self>;
}

impl Handler<Events<LinkEvent>> for Reader {
    type Result = ();

    fn handle(&mut self, events: Events<LinkEvent>, _: &mut Context<Self>) {
        for event in events.iter() {
            if let LinkEvent::Message { payload, .. } = event {
                self.next += 1;
                assert_eq!(number(payload), self.next, "MB-27");
            }
        }
        let end = if events.is_end() { u64::MAX } else { self.next };
        // Kept: the batch counts as unread.
        self.hold.extend(self.holds.then_some(events));
        let _ = self.batches.send(end);
    }
}

struct GoOn;

impl actix::Message for GoOn {
    type Result = ();
}

impl Handler<GoOn> for Reader {
    type Result = ();

    fn handle(&mut self, _: GoOn, _: &mut Context<Self>) {
        self.holds = false;
        self.hold.clear();
    }
}

/// Checks MB-27 over TCP, and that each message has its number.
#[tokio::test]
async fn what_is_sent_comes_once_and_in_order() {
    local(async {
        let roster = roster();
        let ((a, mut told_a), (b, mut told_b)) = (opened("a", &roster), opened("b", &roster));
        up(&mut told_a).await;
        up(&mut told_b).await;
        let sends = tokio::task::spawn_local(async move {
            for number in 1..=20_000 {
                let sent = a.send("b", message(number, 64)).await.unwrap();
                assert_eq!((sent.number, &*sent.to.name), (number, "b"));
            }
            a
        });
        for expected in 1..=20_000 {
            let got = until(&mut told_b, |event| match event {
                LinkEvent::Message { from, payload } => Some((from.name, number(&payload))),
                _ => None,
            });
            assert_eq!(got.await, ("a".into(), expected));
        }
        let a = sends.await.unwrap();
        until(&mut told_a, acknowledged(20_000)).await;
        let status = a.status().await.unwrap();
        assert_eq!(a.peers().collect::<Vec<_>>(), ["b"]);
        assert_eq!(status.peers[0].boot, Some(b.me().boot));
        assert!(status.peers[0].is_connected && status.peers[0].unsettled.is_empty());
        assert_eq!(status.stats.user_sent, 20_000);
    })
    .await;
}

/// An actor that does not read closes the window of its peer, whose sends wait; nothing is lost, and all goes on when it reads.
#[tokio::test]
async fn a_slow_actor_closes_the_window_and_loses_nothing() {
    const SIZE: usize = 16 << 10;
    const ALL: u64 = 1_000;
    local(async {
        let roster = roster();
        let (batches, mut read) = mpsc::unbounded_channel();
        let reader = Reader { next: 0, batches, hold: Vec::new(), holds: true }.start();
        let b = start(parts("b", &roster), reader.clone().recipient()).unwrap();
        let (a, mut told) = opened("a", &roster);
        up(&mut told).await;
        // What the actor has, what waits for it and what is in the inbox of the sender, and no more, goes out.
        let mut accepted = 0;
        loop {
            match a.send_now("b", message(accepted + 1, SIZE)).await {
                Ok(_) => accepted += 1,
                Err(SendError::Full(_)) if a.status().await.unwrap().stats.user_sent > 100 => break,
                Err(refused) => panic!("{refused}"),
            }
        }
        let bound = (2 << 20) / SIZE as u64;
        let given = (64 << 10) / SIZE as u64 + 1;
        assert!((bound..=bound + given).contains(&accepted), "{accepted}");
        let link = a.clone();
        let sends = tokio::task::spawn_local(async move {
            for number in accepted + 1..=ALL {
                link.send("b", message(number, SIZE)).await.unwrap();
            }
        });
        // The rest waits as long as nobody reads, over many heartbeats.
        while a.status().await.unwrap().stats.frames_received < 40 {
            tokio::task::yield_now().await;
        }
        assert!(!sends.is_finished());
        assert!(a.status().await.unwrap().peers[0].is_connected, "a slow reader is no dead peer");
        reader.do_send(GoOn);
        sends.await.unwrap();
        until(&mut told, acknowledged(ALL)).await;
        while read.recv().await.unwrap() < ALL {}
        assert!(b.status().await.unwrap().stats.dropped_untaken == 0);
    })
    .await;
}

/// Checks that actors send by messages: in the order in which the messages came, and what is refused comes back.
#[tokio::test]
async fn commands_are_messages() {
    local(async {
        let roster = roster();
        let ((a, mut told_a), (_b, mut told_b)) = (opened("a", &roster), opened("b", &roster));
        up(&mut told_a).await;
        let door = Porter::start(a).recipient::<SendCommand>();
        let answers: Vec<_> =
            (1..=3).map(|it| door.send(SendCommand::new("b", message(it, 64)))).collect();
        for (answer, expected) in answers.into_iter().zip(1..) {
            assert_eq!(answer.await.unwrap().unwrap().number, expected);
        }
        for expected in 1..=3 {
            let payload = until(&mut told_b, |event| match event {
                LinkEvent::Message { payload, .. } => Some(payload),
                _ => None,
            });
            assert_eq!(number(&payload.await), expected);
        }
        let refused = door.send(SendCommand::new("c", "nobody")).await.unwrap();
        assert_eq!(refused, Err(SendError::UnknownPeer("nobody".into())));
    })
    .await;
}

/// What cannot be sent comes back with the reason, and nothing of it is sent.
#[tokio::test]
async fn what_is_refused_comes_back() {
    local(async {
        let roster = roster();
        let (a, mut told) = opened("a", &roster);
        assert_eq!(a.send_now("b", "early").await, Err(SendError::NeverMet("early".into())));
        assert_eq!(a.send("c", "x").await, Err(SendError::UnknownPeer("x".into())));
        assert_eq!(a.send("a", "x").await, Err(SendError::UnknownPeer("x".into())));
        let large = Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1]);
        assert_eq!(a.send("b", large.clone()).await, Err(SendError::TooLarge(large.clone())));
        let (_b, mut told_b) = opened("b", &roster);
        let fits = large.slice(1..);
        // It waits for the first meeting.
        assert_eq!(a.send("b", fits.clone()).await.unwrap().number, 1);
        up(&mut told).await;
        let got = until(&mut told_b, |event| match event {
            LinkEvent::Message { payload, .. } => Some(payload),
            _ => None,
        });
        assert_eq!(got.await, fits);
        let mut stranger = parts("a", &self::roster());
        stranger.name = "x".into();
        let refused = open(stranger);
        assert!(matches!(refused, Err(StartError::NotInRoster(name)) if name == "x"));
        let tight = parts("a", &self::roster()).configure(|config| config.window(1 << 20, 9));
        assert!(matches!(open(tight), Err(StartError::Window)));
    })
    .await;
}

/// A link ends when it is asked to, when its handles are dropped, and when nobody reads; who uses it then is told.
#[tokio::test]
async fn a_link_that_has_ended_says_so() {
    local(async {
        let roster = roster();
        let (a, mut told) = opened("a", &roster);
        let weak = a.downgrade();
        a.stop();
        assert_eq!(a.closed().await, Closed::Stopped);
        assert_eq!(a.send("b", "late").await, Err(SendError::Ended("late".into())));
        assert_eq!(a.send_now("b", "late").await, Err(SendError::Ended("late".into())));
        assert_eq!(a.status().await, Err(Ended));
        assert_eq!(told.next().await, None);
        drop(a);
        assert!(weak.upgrade().is_none());

        let (a, told) = opened("a", &roster);
        drop(told);
        assert_eq!(a.closed().await, Closed::Stopped);

        let (batches, mut read) = mpsc::unbounded_channel();
        let reader = Reader { next: 0, batches, hold: Vec::new(), holds: false }.start();
        let b = start(parts("b", &roster), reader.recipient()).unwrap();
        let closed = b.closed();
        drop(b);
        assert_eq!(closed.await, Closed::Stopped);
        while read.recv().await.unwrap() != u64::MAX {}
    })
    .await;
}

/// A process of its own: what it says ends with it, in the middle of whatever it does.
struct Process {
    local: LocalSet,
}

impl Process {
    /// Reads nothing until it is told to.
    async fn start(roster: &Roster) -> (Self, oneshot::Sender<()>) {
        let local = LocalSet::new();
        let (go, goes) = oneshot::channel();
        let roster = roster.clone();
        local.spawn_local(async move {
            let (link, mut events) = opened("b", &roster);
            let _ = goes.await;
            while events.next().await.is_some() {}
            drop(link);
        });
        (Self { local }, go)
    }

    async fn during<T>(&self, it: impl Future<Output = T>) -> T {
        self.local.run_until(it).await
    }
}

/// When a peer is replaced the sender hears which of its messages were not acknowledged, and these are not sent again.
#[tokio::test]
async fn who_is_replaced_leaves_numbers_that_are_open() {
    const SIZE: usize = 60_000;
    local(async {
        let roster = roster();
        let (a, mut told) = opened("a", &roster);
        let (first, go) = Process::start(&roster).await;
        let sent = first.during(async {
            up(&mut told).await;
            let mut sent = 0;
            while a.send_now("b", message(sent + 1, SIZE)).await.is_ok() {
                sent += 1;
            }
            let acknowledged =
                |event| matches!(event, LinkEvent::Acknowledged { .. }).then_some(());
            until(&mut told, acknowledged).await;
            sent
        });
        let sent = sent.await;
        drop((go, first));
        until(&mut told, |event| matches!(event, LinkEvent::Down { .. }).then_some(())).await;
        let waits = {
            let a = a.clone();
            tokio::task::spawn_local(async move { a.send("b", "waits").await })
        };
        let (second, _go) = Process::start(&roster).await;
        let (old, new, unsettled) = second
            .during(until(&mut told, |event| match event {
                LinkEvent::Replaced { old, new, unsettled } => Some((old, new, unsettled)),
                LinkEvent::Acknowledged { upto, .. } => panic!("{upto} after the death"),
                _ => None,
            }))
            .await;
        assert!(old.boot != new.boot && old.name == new.name);
        assert_eq!(waits.await.unwrap(), Err(SendError::Replaced("waits".into())));
        // The first few were given to a reader that read nothing: they count as acknowledged.
        let given = unsettled.unknown.start - 1;
        assert!((1..=3).contains(&given), "{unsettled:?}");
        assert_eq!(unsettled.void.end, sent + 1);
        assert!(unsettled.unknown.end == unsettled.void.start);
        let sent = second.during(async {
            up(&mut told).await;
            a.send("b", "new").await
        });
        assert_eq!(sent.await.unwrap().number, 1);
    })
    .await;
}

/// A link that could not stay on its thread is refused.
#[tokio::test]
async fn outside_a_local_set_it_is_an_error() {
    let refused = LinkParts::tcp(ClusterId::from_entropy(1), "a", roster()).err().unwrap();
    assert!(matches!(refused, StartError::NoLocalSet(_)), "{refused}");
}
