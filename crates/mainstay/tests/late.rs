//! Services that are mounted while their node runs, on three nodes.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::time::Duration;

use common::{Cluster, NAMES, run};
use mainstay::service::{
    Address, Class, In, Io, Logged, Never, Out, Outbox, PeerChange, RECORD_BYTES_MAX, Service,
    Start, Wire,
};
use mainstay::{
    Breach, Channel, Closed, ClusterId, Config, Durability, Instance, Instant, Machine,
    MountLateError, Node, Placement, ReachError, ServiceHandle, Standing,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

/// Knows who is there, and counts what it was told to write.
struct Roll {
    out: Outbox<Self>,
    view: u64,
    up: usize,
    lines: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line(Vec<u8>);

impl Wire for Line {}

impl Machine for Roll {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, _: Instant, input: In<Self>) {
        match input {
            In::View(view) => self.view = view.id.number,
            In::Peer(PeerChange::Up { .. }) => self.up += 1,
            In::Peer(_) => self.up -= 1,
            In::Command(bytes) => drop(self.out.persist(Line(vec![0; bytes]))),
            In::Written(io) => self.lines = io.0,
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn end_turn(&mut self, _: Instant) {}

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

impl Service for Roll {
    const CHANNEL: Channel = Channel(0x4040);
    const NAME: &'static str = "roll";
    const CLASS: Class = Class::Calls;
    type Message = Never;
    type Record = Line;
    /// A line of so many bytes.
    type Command = usize;
    type Event = Never;
    type Job = Never;
    type Done = Never;
    type Past = Io;
    type Config = ();
    /// The number of the view, how many peers are up, how many lines are written.
    type Status = (u64, usize, u64);

    fn fold(past: &mut Io, logged: Logged<Line>) {
        if let Logged::Record(io, Line(_)) = logged {
            *past = io;
        }
    }

    fn recover((): (), start: Start<Io>) -> Self {
        let last = start.past;
        Self { out: Outbox::new(last), view: 0, up: 0, lines: last.0 }
    }

    fn work(job: Never) -> Never {
        match job {}
    }

    fn keeps(&self) -> Io {
        Io(1)
    }

    fn status(&self) -> (u64, usize, u64) {
        (self.view, self.up, self.lines)
    }
}

async fn until(roll: &ServiceHandle<Roll>, is_it: impl Fn((u64, usize, u64)) -> bool) {
    let wait = async {
        while !is_it(roll.status().await.unwrap()) {
            tokio::task::yield_now().await;
        }
    };
    if timeout(LIMIT, wait).await.is_err() {
        panic!("{:?}", roll.status().await);
    }
}

fn start(cluster: &Cluster, name: &str) -> Node {
    let config = Config::new(cluster.id, name, cluster.nodes.clone());
    Node::builder(config.data_dir(cluster.dir(name))).unwrap().start().unwrap()
}

/// A node that began without services mounts one: it is told the present view and the peers that have it too; what it writes is there at the next
/// start. One that nobody else has mounted says so. After the end of the node there is a word for that.
#[test]
fn a_service_is_mounted_on_nodes_that_run() {
    run(async {
        for placement in [None, Some(Placement::Thread)] {
            let cluster = Cluster::new(Durability::Disk);
            let nodes = NAMES.map(|name| start(&cluster, name));
            for node in &nodes {
                node.ready().await.unwrap();
            }
            let view = nodes[0].views().watch().unwrap().borrow().id.number;
            let mut rolls = Vec::new();
            for node in &nodes {
                rolls.push(match placement {
                    None => node.mount::<Roll>("roll", |_| ()).await.unwrap(),
                    Some(at) => node.mount_beside::<Roll>("roll", at, |_| ()).await.unwrap(),
                });
            }
            for roll in &rolls {
                roll.send(1).await.unwrap();
                roll.send(1).await.unwrap();
                until(roll, |it| it == (view, 2, 2)).await;
            }
            let alone = nodes[0].mount::<Roll>("alone", |_| ()).await.unwrap();
            let peers = alone.peers().await.unwrap();
            let is_missing = |(_, standing): &(_, Standing)| *standing == Standing::Missing;
            assert!(peers.len() == 2 && peers.iter().all(is_missing), "{peers:?}");
            for node in &nodes {
                assert_eq!(node.clone().close().await, Closed::Stopped);
            }
            let late = nodes[0].mount::<Roll>("late", |_| ()).await.unwrap_err();
            assert!(matches!(late, MountLateError::Reach(ReachError::Closed)), "{late}");
            drop(nodes);
            let node = start(&cluster, "a");
            let roll = node.mount::<Roll>("roll", |_| ()).await.unwrap();
            assert_eq!(roll.status().await.unwrap().2, 2, "before it is a member");
            node.close().await;
        }
    });
}

/// Any task of a program on several threads mounts a service on a node that runs on a thread of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_mounted_from_another_thread() {
    let nodes = Config::loopback(["a"]).unwrap();
    let config = Config::new(ClusterId::from_entropy(3), "a", nodes).durability(Durability::Memory);
    let (node, ()) = Node::spawn(config, |_| Ok(())).await.unwrap();
    let task = tokio::spawn(async move {
        node.ready().await.unwrap();
        let roll = node.mount::<Roll>("roll", |_| ()).await.unwrap();
        roll.send(1).await.unwrap();
        until(&roll, |it| it == (1, 0, 1)).await;
        assert_eq!(roll.dismount().await, Ok(true));
        node.close().await
    });
    assert_eq!(timeout(LIMIT, task).await.unwrap().unwrap(), Closed::Stopped);
}

/// A service that breaks a rule of its host is stopped alone, and the status of its node says which it is and what it did.
#[test]
fn the_status_of_a_node_names_a_service_that_was_stopped() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let nodes = NAMES.map(|name| start(&cluster, name));
        for node in &nodes {
            node.ready().await.unwrap();
        }
        let [good, bad] = ["good", "bad"].map(|name| nodes[0].mount::<Roll>(name, |_| ()));
        let (good, bad) = (good.await.unwrap(), bad.await.unwrap());
        let stopped = async || nodes[0].status().await.unwrap().stack.unwrap().stopped;
        assert!(stopped().await.is_empty());
        bad.send(RECORD_BYTES_MAX).await.unwrap();
        let breach = timeout(LIMIT, async {
            loop {
                if let Err(ReachError::Stopped(breach)) = bad.status().await {
                    break breach;
                }
            }
        });
        let breach = breach.await.unwrap();
        assert!(matches!(breach, Breach::Record { .. }), "{breach}");
        let of = Address { channel: Roll::CHANNEL, instance: Instance::new(cluster.id, "bad") };
        assert_eq!(stopped().await, [(of, breach)].into());
        good.send(1).await.unwrap();
        until(&good, |it| it.2 == 1).await;
        for node in nodes {
            assert_eq!(node.close().await, Closed::Stopped);
        }
    });
}
