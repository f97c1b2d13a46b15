//! The service of calls on nodes, beside membership: mounted, and in an actor of its own.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use actix::Message;
use common::{Cluster, NAMES};
use mainstay::{ClusterId, Config, Durability, Node, NodeId, Placement, Porter};
use mainstay_rpc::{CallError, ExactlyOnce, Executed, Maybe, Procedure, Rpc, RpcHandle};
use mainstay_service::StationParts;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

fn cluster() -> ClusterId {
    ClusterId::from_entropy(5)
}

#[derive(serde::Serialize, serde::Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Add(u64);

impl Procedure for Add {
    const NAME: &'static str = "test.add";
}

#[derive(serde::Serialize, serde::Deserialize, Message)]
#[rtype(result = "Result<(), String>")]
struct Hang;

impl Procedure for Hang {
    const NAME: &'static str = "test.hang";
}

async fn start(
    name: &str,
    nodes: &BTreeMap<String, SocketAddr>,
    placement: Option<Placement>,
) -> (Node, RpcHandle) {
    let config = Config::new(cluster(), name, nodes.clone()).durability(Durability::Memory);
    let mut builder = Node::builder(config).unwrap();
    let config = |_: &mainstay::Mounting<'_>| mainstay_rpc::Config::started_now();
    let service = match placement {
        None => builder.mount::<Rpc>("rpc", config),
        Some(at) => builder.mount_beside::<Rpc>("rpc", at, config),
    };
    let node = builder.start().unwrap();
    (node, RpcHandle::open(service, cluster(), name).await.unwrap())
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("in time")
}

/// Calls among three nodes; one that goes away fails what it executes, and is called again when it is back.
async fn scenario(placement: Option<Placement>) {
    let nodes = Cluster::new(Durability::Memory).nodes;
    let mut all = Vec::new();
    for name in NAMES {
        let (node, rpc) = start(name, &nodes, placement).await;
        rpc.serve_fn(|Add(number), _| async move { Ok(number + 1) }).await.unwrap();
        all.push((node, rpc));
    }
    for (node, _) in &all {
        within(node.ready()).await.unwrap();
    }
    for (_, rpc) in &all {
        for name in NAMES {
            let caller = rpc.to(NodeId::new(cluster(), name));
            assert_eq!(within(caller.exactly_once(Add(1))).await, Ok(2));
        }
    }
    // An actor that has recipients and no handles.
    let door = Porter::start(all[0].1.to(NodeId::new(cluster(), "b")));
    let exactly: mainstay::Recipient<ExactlyOnce<Add>> = door.clone().recipient();
    assert_eq!(within(exactly.send(ExactlyOnce(Add(2)))).await, Ok(Ok(3)));
    assert_eq!(within(door.send(Maybe(Add(2)))).await, Ok(Ok(())));
    let (begin, mut begun) = mpsc::unbounded_channel();
    let (left, rpc) = all.pop().unwrap();
    let hang = move |Hang, _| {
        let _ = begin.send(());
        std::future::pending::<Result<(), String>>()
    };
    rpc.serve_fn(hang).await.unwrap();
    let caller = all[0].1.to(NodeId::new(cluster(), "c"));
    let call = tokio::task::spawn_local(caller.exactly_once(Hang));
    within(begun.recv()).await.unwrap();
    left.close().await;
    drop(rpc);
    let Err(CallError::Failed(failure)) = within(call).await.unwrap() else {
        panic!("it has no result");
    };
    assert_eq!(failure.executed, Executed::NotMoreThanOnce);
    let (node, rpc) = start("c", &nodes, placement).await;
    rpc.serve_fn(|Add(number), _| async move { Ok(number + 2) }).await.unwrap();
    assert_eq!(within(caller.exactly_once(Add(1))).await, Ok(3));
    all.push((node, rpc));
    for (node, _) in all {
        node.close().await;
    }
}

/// A node that is closed within a time answers what it has accepted, and refuses the rest.
#[tokio::test]
async fn a_node_finishes_the_calls_that_it_has() {
    let run = async {
        let nodes = Cluster::new(Durability::Memory).nodes;
        let (a, client) = start("a", &nodes, None).await;
        let (b, server) = start("b", &nodes, None).await;
        let (begin, mut begun) = mpsc::unbounded_channel();
        let (open, opens) = tokio::sync::oneshot::channel::<()>();
        let opens = std::sync::Mutex::new(Some(opens));
        let wait = move |Hang, _| {
            let (begin, opens) = (begin.clone(), opens.lock().unwrap().take());
            async move {
                let _ = begin.send(());
                if let Some(opens) = opens {
                    let _ = opens.await;
                }
                Ok(())
            }
        };
        server.serve_fn(wait).await.unwrap();
        let caller = client.to(NodeId::new(cluster(), "b")).unordered();
        let call = tokio::task::spawn_local(caller.exactly_once(Hang));
        within(begun.recv()).await.unwrap();
        let closing = tokio::task::spawn_local(b.close_within(LIMIT));
        // It refuses from here on.
        while within(caller.exactly_once(Hang)).await.is_ok() {}
        open.send(()).unwrap();
        assert_eq!(within(call).await.unwrap(), Ok(()), "what was accepted is answered");
        assert_eq!(within(closing).await.unwrap(), mainstay::Closed::Stopped);
        a.close().await;
    };
    LocalSet::new().run_until(run).await;
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

/// A process outside the cluster calls a node of it, which has groups beside; membership does not notice it.
#[tokio::test]
async fn a_guest_calls_a_node() {
    let run = async {
        let nodes = Cluster::new(Durability::Memory).nodes;
        let mut all = Vec::new();
        for name in NAMES {
            let config = Config::new(cluster(), name, nodes.clone());
            let config = config.durability(Durability::Memory).guests(1);
            let mut builder = Node::builder(config).unwrap();
            let service = builder.mount::<Rpc>("rpc", |_| mainstay_rpc::Config::started_now());
            builder.open_to_guests::<Rpc>("rpc");
            let node = builder.start().unwrap();
            let rpc = RpcHandle::open(service, cluster(), name).await.unwrap();
            rpc.serve_fn(|Add(number), _| async move { Ok(number + 1) }).await.unwrap();
            all.push((node, rpc));
        }
        for (node, _) in &all {
            within(node.ready()).await.unwrap();
        }
        let parts = StationParts::tcp_guest(cluster(), nodes).unwrap();
        let name = parts.name.clone();
        let config = mainstay_rpc::Config::started_now();
        let guest =
            mainstay_service::start(parts, |node| node.mount::<Rpc>("rpc", config).map(drop))
                .unwrap();
        let rpc = RpcHandle::open(guest.service("rpc"), cluster(), &name).await.unwrap();
        for name in NAMES {
            let caller = rpc.to(NodeId::new(cluster(), name));
            assert_eq!(within(caller.exactly_once(Add(1))).await, Ok(2));
        }
        let status = within(all[0].0.status()).await.unwrap();
        assert_eq!(status.stack.unwrap().members.len(), 3);
    };
    LocalSet::new().run_until(run).await;
}

/// A handle that is opened where no task can be kept on its thread is an error and no panic; the service is as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_a_local_set_there_is_no_handle() {
    let nodes = Cluster::new(Durability::Memory).nodes;
    let config = Config::new(cluster(), "a", nodes).durability(Durability::Memory);
    let spawned = Node::spawn(config, |builder| {
        Ok(builder.mount::<Rpc>("rpc", |_| mainstay_rpc::Config::started_now()))
    });
    let (node, service) = spawned.await.unwrap();
    for _ in 0..2 {
        let refused = RpcHandle::open(service.clone(), cluster(), "a").await.err().unwrap();
        assert!(matches!(refused, mainstay_service::OpenError::NoLocalSet(_)), "{refused}");
    }
    let opened = LocalSet::new().run_until(RpcHandle::open(service, cluster(), "a")).await;
    drop(opened.unwrap());
    node.close().await;
}
