//! The services of the workspace as actix actors on one node after the other, wired by `Recipient`.
//!
//! Built so far: common time (a clock on each node), membership (views), atomic multicast (a group), a replicated state machine with its
//! clients, remote procedure call. The rest of figure 3 of the survey (atomic actions, resilient processes) comes with its crates.
//!
//! `cargo run -p mainstay --example six`

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use actix::{Actor, Context, Handler, Recipient};
use bytes::Bytes;
use mainstay::{
    Client, ClientConfig, ClusterId, Config, Events, GroupConfig, GroupEvent, GroupHandle, Node,
    Order, Outcome, Position, Replicated, RestoreError, Snapshot, StateMachine, ViewChanged,
};
use mainstay_clock::sync::global::{ClockHandle, Global, Setup};
use mainstay_clock::sync::{self, Delay, Function, Kind, Plan, Reading};
use mainstay_rpc::{Procedure, Rpc, RpcHandle};

/// A replicated state machine: counts the members that were ever lost.
#[derive(Default)]
struct Lost(u64);

struct Once(Option<u64>);

impl Snapshot for Once {
    fn next_chunk(&mut self, _max: usize) -> Option<Bytes> {
        self.0.take().map(|count| Bytes::copy_from_slice(&count.to_le_bytes()))
    }
}

impl StateMachine for Lost {
    type Snapshot = Once;
    fn apply(&mut self, _at: Position, command: &[u8], reply: &mut Vec<u8>) {
        self.0 += command.len() as u64;
        reply.extend(self.0.to_le_bytes());
    }
    fn begin_snapshot(&mut self) -> Once {
        Once(Some(self.0))
    }
    fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        let bytes = chunk.try_into().map_err(|_| RestoreError::Chunk("not eight bytes"))?;
        self.0 = u64::from_le_bytes(bytes);
        Ok(())
    }
    fn state_hash(&self) -> u128 {
        self.0.into()
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

/// Hears the group; what it hears goes on to whoever wants to know.
struct Listener {
    news: Recipient<News>,
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct News(Bytes);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Events<GroupEvent>> for Listener {
    type Result = ();

    fn handle(&mut self, events: Events<GroupEvent>, _: &mut Context<Self>) {
        for event in events.iter() {
            if let GroupEvent::Deliver(message) = event {
                self.news.do_send(News(message.payload.clone()));
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

/// Counts the news in the replicated state machine; once, at the node that is told to.
struct Counter {
    lost: Option<Replicated<Lost>>,
    heard: u64,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<News> for Counter {
    type Result = ();

    fn handle(&mut self, News(text): News, _: &mut Context<Self>) {
        self.heard += 1;
        if let Some(lost) = self.lost.clone() {
            println!("{}", String::from_utf8_lossy(&text));
            actix::spawn(async move { drop(lost.execute(&[1]).await) });
        }
    }
}

impl Handler<Heard> for Counter {
    type Result = Result<u64, ()>;

    fn handle(&mut self, Heard: Heard, _: &mut Context<Self>) -> Self::Result {
        Ok(self.heard)
    }
}

async fn start(
    name: &'static str,
    nodes: &BTreeMap<String, SocketAddr>,
) -> Result<(Node, Replicated<Lost>, RpcHandle), Box<dyn Error>> {
    let cluster = ClusterId::from_entropy(6);
    let config = Config::new(cluster, name, nodes.clone()).durability(mainstay::Durability::Memory);
    let mut node = Node::builder(config)?;
    let group = node.group("news", GroupConfig::memory().stateless())?;
    let lost = node.replicate("lost", Lost::default)?;
    let counter = Counter { lost: Some(lost.clone()).filter(|_| name == "a"), heard: 0 }.start();
    let listener = Listener { news: counter.clone().recipient() }.start();
    group.subscribe(listener.recipient())?;
    let mut setup = clock()?;
    setup.together = true;
    let mounted = setup.clone();
    let clock = node.mount::<Global>("clock", move |node| mounted.config(node));
    let watcher = Watcher { name, group, clock: setup.handle(clock) }.start();
    let calls = node.mount::<Rpc>("rpc", |_| mainstay_rpc::Config::started_now());
    let node = node.start()?;
    let rpc = RpcHandle::open(calls, cluster, name).await?;
    rpc.serve(counter.recipient::<Heard>()).await?;
    node.views().subscribe(watcher.recipient()).await;
    Ok((node, lost, rpc))
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nodes = Config::loopback(["a", "b", "c"])?;
    let (a, lost, _serves) = start("a", &nodes).await?;
    let (b, _, rpc) = start("b", &nodes).await?;
    let (c, ..) = start("c", &nodes).await?;
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
    let heard = rpc.to_name("a")?.exactly_once(Heard).await.map_err(|it| format!("{it:?}"))?;
    println!(
        "one member was lost, and all know it; the first node has heard {heard} piece of news"
    );
    client.close().await;
    b.close().await;
    a.close().await;
    Ok(())
}
