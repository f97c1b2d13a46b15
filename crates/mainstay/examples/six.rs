//! The services of the workspace as actix actors on one node after the other, wired by `Recipient`.
//!
//! Built so far: common time (a clock on each node), membership (views), atomic multicast (a group), a replicated state machine with its
//! clients, remote procedure call (of one server, and of a troupe of servers), stable storage. The rest of figure 3 of the survey (atomic actions, resilient processes) comes with its crates.
//!
//! `cargo run -p mainstay --example six`

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use actix::{Actor, Context, Handler};
use bytes::Bytes;
use mainstay::{
    Client, ClientConfig, ClusterId, Commands, Config, Events, GroupConfig, GroupEvent,
    GroupHandle, Node, NodeId, Order, Outcome, Position, Replicated, Small, ViewChanged,
};
use mainstay_clock::sync::global::{ClockHandle, Global, Setup};
use mainstay_clock::sync::{self, Delay, Function, Kind, Plan, Reading};
use mainstay_rpc::{Procedure, Rpc, RpcHandle};
use mainstay_stable::{GroupCommit, Owner, Store};
use mainstay_troupe::{Replica, Troupes, TroupesHandle};

/// Whose journal it is.
const OWNER: Owner = Owner(*b"example-six-----");

/// A replicated state machine: counts the members that were ever lost.
#[derive(Default)]
struct Lost(Small<u64>);

impl Commands for Lost {
    type Command = u64;
    type Reply = ();
    type State = Small<u64>;

    fn execute(&mut self, _at: Position, more: u64) {
        *self.0 += more;
    }

    fn state(&self) -> &Small<u64> {
        &self.0
    }

    fn state_mut(&mut self) -> &mut Small<u64> {
        &mut self.0
    }
}

/// Hears the views; the oldest member tells the group of each member that left.
struct Watcher {
    name: &'static str,
    group: GroupHandle,
    clock: ClockHandle,
}

impl Actor for Watcher {
    type Context = Context<Self>;
}

impl Handler<Events<Arc<ViewChanged>>> for Watcher {
    type Result = ();

    fn handle(&mut self, events: Events<Arc<ViewChanged>>, _: &mut Context<Self>) {
        for view in events.iter() {
            let is_oldest = view.members.first().is_some_and(|it| &*it.name == self.name);
            for (member, why) in view.left.iter().filter(|_| is_oldest) {
                let (time, _) = self.clock.now();
                let news = format!("{time:?}: {member} left view {}: {why:?}", view.id.number);
                if let Err(error) = self.group.try_cast(news, Order::Total) {
                    eprintln!("not told: {error}");
                }
            }
        }
    }
}

/// Keeps the clock of a node together with the others.
fn clock() -> Result<Setup, sync::ConfigError> {
    let kind = Kind::Averaging { function: Function::Midpoint, reading: Reading::ROUND_TRIP };
    let mut config = sync::Config::lan(kind, 3, 0);
    let max = std::time::Duration::from_millis(30);
    config.delay = Delay { min: std::time::Duration::from_micros(1), max };
    Setup::new(Plan::new(config)?)
}

/// How much news the counter of a node has heard.
#[derive(actix::Message, serde::Serialize, serde::Deserialize)]
#[rtype(result = "Result<u64, ()>")]
struct Heard;

impl Procedure for Heard {
    const NAME: &'static str = "six.heard";
}

/// Hears the group. At the node that is told to, each piece of news is forced to disk and then counted in the replicated state machine.
struct Counter {
    keeps: Option<(Replicated<Lost>, GroupCommit)>,
    heard: u64,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Events<GroupEvent>> for Counter {
    type Result = ();

    fn handle(&mut self, events: Events<GroupEvent>, _: &mut Context<Self>) {
        for event in events.iter() {
            let GroupEvent::Deliver(message) = event else { continue };
            self.heard += 1;
            let Some((lost, journal)) = self.keeps.clone() else { continue };
            let news = message.payload.clone();
            println!("{}", String::from_utf8_lossy(&news));
            actix::spawn(async move {
                // It waits for the disk: not on the thread of the node.
                let kept = tokio::task::spawn_blocking(move || journal.append_forced(1, news));
                if let Ok(Ok(_)) = kept.await {
                    let _ = lost.send(1_u64).await;
                }
            });
        }
    }
}

impl Handler<Heard> for Counter {
    type Result = Result<u64, ()>;

    fn handle(&mut self, Heard: Heard, _: &mut Context<Self>) -> Self::Result {
        Ok(self.heard)
    }
}

/// What calls others, and is called by them as long as it lives.
struct Calls {
    rpc: RpcHandle,
    troupes: TroupesHandle,
    _counters: Replica,
}

async fn start(
    name: &'static str,
    nodes: &BTreeMap<String, SocketAddr>,
    journal: Option<GroupCommit>,
) -> Result<(Node, Replicated<Lost>, Calls), Box<dyn Error>> {
    let cluster = ClusterId::from_entropy(6);
    let config = Config::new(cluster, name, nodes.clone()).durability(mainstay::Durability::Memory);
    let mut node = Node::builder(config)?;
    let group = node.group("news", GroupConfig::memory().stateless())?;
    let lost = node.replicate("lost", Lost::default)?;
    let keeps = journal.map(|journal| (lost.clone(), journal));
    let counter = Counter { keeps, heard: 0 }.start();
    group.subscribe(counter.clone().recipient())?;
    let mut setup = clock()?;
    setup.together = true;
    let mounted = setup.clone();
    let clock = node.mount::<Global>("clock", move |node| mounted.config(node));
    let watcher = Watcher { name, group, clock: setup.handle(clock) }.start();
    let rpc = node.mount::<Rpc>("rpc", |_| mainstay_rpc::Config::started_now());
    let binder = NodeId::new(cluster, "a");
    let troupes =
        node.mount::<Troupes>("troupes", move |_| mainstay_troupe::Config::started_now(binder));
    let node = node.start()?;
    let rpc = RpcHandle::open(rpc, cluster, name).await?;
    rpc.serve(counter.clone().recipient::<Heard>()).await?;
    let troupes = TroupesHandle::open(troupes).await?;
    let counters = troupes.troupe("counters").serve(counter.recipient::<Heard>()).join().await?;
    node.views().subscribe(watcher.recipient()).await;
    Ok((node, lost, Calls { rpc, troupes, _counters: counters }))
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nodes = Config::loopback(["a", "b", "c"])?;
    let directory = tempfile::tempdir()?;
    let journal = Store::open(directory.path(), OWNER)?.0.into_group_commit();
    let (a, lost, _serves) = start("a", &nodes, Some(journal.clone())).await?;
    let (b, _, calls) = start("b", &nodes, None).await?;
    let (c, ..) = start("c", &nodes, None).await?;
    for node in [&a, &b, &c] {
        node.ready().await?;
    }
    // A client outside, on a session: what it sends is executed once, whatever fails.
    let served = lost.serve("127.0.0.1:0".parse()?, |lost, _| lost.0.to_le_bytes().to_vec());
    let endpoints = [("a".to_owned(), served.await?)].into();
    let client = Client::connect(ClientConfig::new(ClusterId::from_entropy(6), endpoints))?;
    c.close().await;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(5));
    while client.read(b"").await != Outcome::Done(Bytes::copy_from_slice(&1_u64.to_le_bytes())) {
        tick.tick().await;
    }
    let heard =
        calls.rpc.to_name("a")?.exactly_once(Heard).await.map_err(|it| format!("{it:?}"))?;
    println!("one member was lost, and all know it: {heard} piece of news at the first node");
    let heard = calls
        .troupes
        .to("counters")
        .call_with(Heard, |said, _| (said.len() >= 2).then_some(said.len()));
    println!("{} counters of a troupe were asked at once", heard.await?);
    println!("{} record of it on disk", journal.forced().0);
    client.close().await;
    b.close().await;
    a.close().await;
    Ok(())
}
