//! Stations with a clock service, and actors that hear of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use mainstay_base::{ClusterId, NodeId};
use mainstay_clock::Time;
use mainstay_clock::sync::global::{ClockHandle, Config, Event, Global, Setup};
use mainstay_clock::sync::{self, Delay, Function, Kind, Plan, Reading};
use mainstay_runtime::{Arrived, DatagramKey, DatagramKeys, Datagrams, TokioTime, Udp};
use mainstay_service::{Events, StationHandle, StationParts, start};
use mainstay_sim::free_addresses;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn cluster() -> ClusterId {
    ClusterId::from_entropy(3)
}

pub(crate) fn roster() -> BTreeMap<String, SocketAddr> {
    let named = |(index, address)| (format!("n{index}"), address);
    free_addresses(3).into_iter().enumerate().map(named).collect()
}

pub(crate) fn plan() -> Plan {
    let kind = Kind::Averaging { function: Function::Midpoint, reading: Reading::ROUND_TRIP };
    let mut config = sync::Config::lan(kind, 3, 0);
    // Three nodes share a thread with the test, and a processor with others.
    config.delay = Delay { min: Duration::from_micros(1), max: Duration::from_millis(40) };
    config.period = Duration::from_millis(800);
    Plan::new(config).unwrap()
}

/// UDP whose counts a test can see.
#[derive(Clone)]
pub(crate) struct Shared(Rc<RefCell<Udp>>);

impl Shared {
    /// Of a node that reaches the others at `addresses`.
    pub(crate) fn new(
        listen: SocketAddr,
        name: &str,
        addresses: &BTreeMap<String, SocketAddr>,
    ) -> Self {
        let node = |name: &str| NodeId::new(cluster(), name);
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
pub(crate) async fn record(from: std::net::UdpSocket, to: SocketAddr) {
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

/// A station with a clock service, changed before it starts.
pub(crate) fn mounted(
    roster: &BTreeMap<String, SocketAddr>,
    index: usize,
    setup: &Setup,
    change: impl FnOnce(&mut StationParts),
    configure: impl Fn(Config) -> Config + Send + 'static,
) -> (StationHandle, ClockHandle) {
    let name = format!("n{index}");
    let mut parts = StationParts::tcp(cluster(), &name, roster.clone(), None).unwrap();
    change(&mut parts);
    let inner = setup.clone();
    let mount = move |node: &mut mainstay_service::Mounting<'_>| {
        let config = configure(inner.config(node));
        node.mount::<Global>("clock", config).map(drop)
    };
    let station = start(parts, mount).unwrap();
    let clock = setup.handle(station.service("clock"));
    (station, clock)
}

pub(crate) fn together(plan: Plan) -> Setup {
    let mut setup = Setup::new(plan).unwrap();
    setup.together = true;
    setup
}

pub(crate) fn station(
    roster: &BTreeMap<String, SocketAddr>,
    index: usize,
    directory: Option<&Path>,
    datagrams: Option<Shared>,
) -> (StationHandle, ClockHandle) {
    let name = format!("n{index}");
    let directory = directory.map(|it| it.join(&name));
    let parts = StationParts::tcp(cluster(), &name, roster.clone(), directory).unwrap();
    let change = |it: &mut StationParts| {
        *it = parts;
        it.datagrams = datagrams.map(|it| Box::new(it) as _);
    };
    mounted(roster, index, &together(plan()), change, |config| config)
}

#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Strike(pub(crate) u32);

pub(crate) struct Bell {
    pub(crate) to: mpsc::UnboundedSender<Result<u32, Event>>,
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

pub(crate) async fn synchronised(clocks: &[&ClockHandle]) {
    let all = async {
        while !clocks.iter().all(|clock| clock.is_synchronised()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, all).await.expect("in time");
}

pub(crate) async fn next<T>(from: &mut mpsc::UnboundedReceiver<T>) -> T {
    timeout(LIMIT, from.recv()).await.expect("in time").expect("it lives")
}

pub(crate) fn later(clock: &ClockHandle, millis: u64) -> Time {
    clock.now().0.saturating_add(Duration::from_millis(millis))
}
