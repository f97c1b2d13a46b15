//! The clock service, mounted on nodes beside membership.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use actix::{Actor, Context, Handler};
use common::{Cluster, NAMES};
use mainstay::{
    ClusterId, Config, DatagramKey, DatagramKeys, Durability, Mounting, Node, Placement, Porter,
    ReachError, Recipient, StartError,
};
use mainstay_base::NodeId;
use mainstay_clock::Time;
use mainstay_clock::sync::global::{CancelAlarm, ClockHandle, Global, SetAlarm, Setup, WaitError};
use mainstay_clock::sync::{self, ConfigError, Delay, Function, Kind, Plan, Reading};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

fn plan(reading: Reading) -> Plan {
    let kind = Kind::Averaging { function: Function::Midpoint, reading };
    let mut config = sync::Config::lan(kind, 3, 0);
    // Three nodes share a thread with the test, and a processor with others.
    config.delay = Delay { min: Duration::from_micros(1), max: Duration::from_millis(40) };
    config.period = Duration::from_millis(800);
    Plan::new(config).unwrap()
}

fn config(name: &str, nodes: &BTreeMap<String, SocketAddr>) -> Config {
    Config::new(ClusterId::from_entropy(5), name, nodes.clone()).durability(Durability::Memory)
}

fn start(
    name: &str,
    nodes: &BTreeMap<String, SocketAddr>,
    placement: Option<Placement>,
) -> (Node, ClockHandle) {
    start_with(config(name, nodes), Reading::ROUND_TRIP, placement)
}

fn start_with(
    config: Config,
    reading: Reading,
    placement: Option<Placement>,
) -> (Node, ClockHandle) {
    let mut builder = Node::builder(config).unwrap();
    let setup = Setup::new(plan(reading)).unwrap();
    let mounted = setup.clone();
    let config = move |node: &Mounting<'_>| mounted.config(node);
    let service = match placement {
        None => builder.mount::<Global>("clock", config),
        Some(at) => builder.mount_beside::<Global>("clock", at, config),
    };
    (builder.start().unwrap(), setup.handle(service))
}

/// Nodes that do not trust each other's wall clocks come to one time, and one that is started again learns it from the others.
#[tokio::test]
async fn clocks_of_nodes_agree_and_one_that_comes_back_joins_them() {
    agree_and_join(None).await;
}

/// The same with each clock in an actor of its own: on the node's thread, and on another one.
#[tokio::test]
async fn clocks_beside_their_nodes_agree_and_join() {
    agree_and_join(Some(Placement::Local)).await;
    agree_and_join(Some(Placement::Thread)).await;
}

/// Counts what it is told.
struct Bell(mpsc::UnboundedSender<u32>);

impl Bell {
    fn hung() -> (Recipient<Ring>, mpsc::UnboundedReceiver<u32>) {
        let (tell, told) = mpsc::unbounded_channel();
        (Self(tell).start().recipient(), told)
    }
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct Ring(u32);

impl Actor for Bell {
    type Context = Context<Self>;
}

impl Handler<Ring> for Bell {
    type Result = ();

    fn handle(&mut self, Ring(number): Ring, _: &mut Context<Self>) {
        self.0.send(number).unwrap();
    }
}

/// An actor that has recipients of the clock sets what another one is told, and takes some of it back.
async fn rings_by_messages(clock: &ClockHandle) {
    let door = Porter::start(clock.clone());
    let (to, mut told) = Bell::hung();
    let alarms: Recipient<SetAlarm<Ring>> = door.clone().recipient();
    let set = async |millis, number| {
        let at = clock.now().0.saturating_add(Duration::from_millis(millis));
        let alarm = SetAlarm { at, to: to.clone(), message: Ring(number) };
        alarms.send(alarm).await.unwrap().unwrap()
    };
    let late = set(1_000_000, 1).await;
    set(10, 2).await;
    assert!(door.send(CancelAlarm(late)).await.unwrap());
    assert!(!door.send(CancelAlarm(late)).await.unwrap());
    assert_eq!(timeout(LIMIT, told.recv()).await.unwrap(), Some(2));
}

async fn synchronised(clocks: Vec<ClockHandle>) {
    let all = async {
        while !clocks.iter().all(|clock| clock.is_synchronised()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, all).await.expect("in time");
}

/// Nodes with keys of datagrams read clocks by UDP: what has no key is refused there, and an address that is taken is told.
#[tokio::test]
async fn clocks_of_nodes_with_keys_are_read_by_datagrams() {
    let nodes = Cluster::new(Durability::Memory).nodes;
    let node = |name: &str| NodeId::new(ClusterId::from_entropy(5), name);
    let keyed = |name: &str, secret: u8| {
        let all = NAMES.map(node);
        let keys = DatagramKeys::shared(&DatagramKey([secret; 32]), node(name), all);
        config(name, &nodes).datagrams(keys)
    };
    let taken = UdpSocket::bind(nodes["a"]).unwrap();
    let refused = Node::builder(keyed("a", 1)).map(drop).unwrap_err();
    assert!(matches!(refused, StartError::Datagrams { .. }), "{refused}");
    drop(taken);
    // Nothing stamps what comes over connections.
    let stamped = Reading::STAMPED_ROUND_TRIP;
    let (me, all) = (node("a"), NAMES.map(node));
    let mut setup = Setup::new(plan(stamped)).unwrap();
    assert_eq!(setup.check(me, &all), Err(ConfigError::Unstamped("midpoint", stamped)));
    setup.stamps = true;
    assert_eq!(setup.check(me, &all), Ok(()));
    let run = async {
        let secret = |name: &str| if name == "c" { 2 } else { 1 };
        let mut all: Vec<_> =
            NAMES.map(|name| start_with(keyed(name, secret(name)), stamped, None)).into();
        let forged = async {
            loop {
                let status = all[0].0.status().await.unwrap();
                if status.refused.get("datagram-forged") > Some(&2) {
                    return;
                }
            }
        };
        timeout(LIMIT, forged).await.expect("what has another key is refused");
        assert!(all.iter().all(|(_, clock)| !clock.is_synchronised()));
        let (left, _) = all.pop().unwrap();
        left.close().await;
        all.push(start_with(keyed("c", 1), stamped, None));
        synchronised(all.iter().map(|(_, clock)| clock.clone()).collect()).await;
        for (node, _) in all {
            node.close().await;
        }
    };
    LocalSet::new().run_until(run).await;
}

async fn agree_and_join(placement: Option<Placement>) {
    let nodes = Cluster::new(Durability::Memory).nodes;
    let run = async {
        let start = |name: &str| start(name, &nodes, placement);
        let mut all: Vec<_> = NAMES.map(start).into();
        synchronised(all.iter().map(|(_, clock)| clock.clone()).collect()).await;
        let (left, clock) = all.pop().unwrap();
        let last = clock.now();
        left.close().await;
        all.push(start("c"));
        synchronised(vec![all[2].1.clone()]).await;
        assert!(all[2].1.now() > last, "it goes on in time and version");
        let promise = all[2].1.service().status().await.unwrap().promise;
        for _ in 0..100 {
            let (first, between, last) = (all[2].1.now().0, all[0].1.now().0, all[2].1.now().0);
            assert!(between.saturating_add(promise.precision) >= first);
            assert!(last.saturating_add(promise.precision) >= between);
        }
        rings_by_messages(&all[0].1).await;
        let door = Porter::start(all[0].1.clone());
        for (node, _) in all {
            node.close().await;
        }
        let at = Time::from_nanos(1);
        let told = door.send(SetAlarm { at, to: Bell::hung().0, message: Ring(3) }).await.unwrap();
        assert_eq!(told, Err(WaitError::Reach(ReachError::Closed)));
    };
    LocalSet::new().run_until(run).await;
}
