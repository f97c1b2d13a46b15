//! Troupes on nodes, beside membership and groups: mounted, and in actors of their own; their order from a process group.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use common::{Cluster, NAMES};
use mainstay::{
    ClusterId, Config, Durability, Events, GroupConfig, GroupEvent, GroupHandle, Node, NodeId,
    Order, Placement,
};
use mainstay_rpc::Procedure;
use mainstay_troupe::{Collator, Replica, Troupes, TroupesHandle};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

fn cluster() -> ClusterId {
    ClusterId::from_entropy(5)
}

/// Its place in the order of all; executions do not commute.
#[derive(serde::Serialize, serde::Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Append(u64);

impl Procedure for Append {
    const NAME: &'static str = "journal.append";
}

type Journal = Arc<Mutex<Vec<u64>>>;

async fn start(
    name: &str,
    nodes: &BTreeMap<String, SocketAddr>,
    placement: Option<Placement>,
) -> (Node, TroupesHandle, GroupHandle) {
    let config = Config::new(cluster(), name, nodes.clone()).durability(Durability::Memory);
    let mut builder = Node::builder(config).unwrap();
    let group = builder.group("order", GroupConfig::memory().stateless()).unwrap();
    let config = |_: &mainstay::Mounting<'_>| mainstay_troupe::Config {
        settle: Duration::from_millis(50),
        ..mainstay_troupe::Config::started_now(NodeId::new(cluster(), "a"))
    };
    let service = match placement {
        None => builder.mount::<Troupes>("troupes", config),
        Some(at) => builder.mount_beside::<Troupes>("troupes", at, config),
    };
    let node = builder.start().unwrap();
    (node, TroupesHandle::open(service).await.unwrap(), group)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("in time")
}

/// Hands what a group delivers in total order to a troupe: all that it takes to order its calls.
struct Orderly {
    troupes: TroupesHandle,
    /// The place behind which this member hears the order.
    from: watch::Sender<Option<u64>>,
}

impl Actor for Orderly {
    type Context = Context<Self>;
}

impl Handler<Events<GroupEvent>> for Orderly {
    type Result = ();

    fn handle(&mut self, mut events: Events<GroupEvent>, _: &mut Context<Self>) {
        for event in events.take() {
            match event {
                GroupEvent::View(view) if self.from.borrow().is_none() => {
                    self.from.send_replace(Some(view.start.0));
                }
                GroupEvent::Deliver(message) => {
                    let position = message.position.unwrap().0;
                    self.troupes.ordered("journal", position, message.payload).unwrap();
                }
                _ => {}
            }
        }
    }
}

async fn journal(troupes: &TroupesHandle, group: GroupHandle) -> (Replica, Journal) {
    let (from, mut told) = watch::channel(None);
    let orderly = Orderly { troupes: troupes.clone(), from }.start();
    group.subscribe(orderly.recipient()).unwrap();
    let from = within(told.wait_for(Option::is_some)).await.unwrap().unwrap();
    let journal = Journal::default();
    let own = Arc::clone(&journal);
    let part = troupes.troupe("journal").serve_fn(move |Append(entry), _| {
        let mut entries = own.lock().unwrap();
        entries.push(entry);
        let place = entries.len() as u64;
        async move { Ok(place) }
    });
    // What is not cast now is cast again when it has not come.
    let part = part.order(from, move |call| drop(group.try_cast(call, Order::Total)));
    (within(part.join()).await.unwrap(), journal)
}

/// Checks RPC-43 with a real group: three clients call at once, and all replicas execute in one order; each is told the same place by all.
async fn scenario(placement: Option<Placement>) {
    let nodes = Cluster::new(Durability::Memory).nodes;
    let mut all = Vec::new();
    for name in NAMES {
        all.push(start(name, &nodes, placement).await);
    }
    for (node, ..) in &all {
        within(node.ready()).await.unwrap();
    }
    let mut journals = Vec::new();
    for (_, troupes, group) in &all {
        journals.push(journal(troupes, group.clone()).await);
    }
    let mut tasks = Vec::new();
    for (client, (_, troupes, _)) in all.iter().enumerate() {
        let caller = troupes.to("journal").collate(Collator::Unanimous);
        tasks.push(tokio::task::spawn_local(async move {
            let mut places = Vec::new();
            for number in 0..20 {
                let entry = (client as u64) << 32 | number;
                places.push((entry, within(caller.call(Append(entry))).await.unwrap()));
            }
            places
        }));
    }
    let mut places = BTreeMap::new();
    for task in tasks {
        for (entry, place) in within(task).await.unwrap() {
            assert!(places.insert(place, entry).is_none(), "one order at all");
        }
    }
    let order: Vec<u64> = places.into_values().collect();
    assert_eq!(order.len(), 60);
    for (_, journal) in &journals {
        assert_eq!(*journal.lock().unwrap(), order);
    }
    drop(journals);
    for (node, ..) in all {
        node.close().await;
    }
}

#[tokio::test]
async fn mounted_on_nodes() {
    LocalSet::new().run_until(scenario(None)).await;
}

#[tokio::test]
async fn beside_nodes() {
    let run = async {
        scenario(Some(Placement::Local)).await;
        scenario(Some(Placement::Thread)).await;
    };
    LocalSet::new().run_until(run).await;
}
