//! A node starts from any runtime, and says so where it cannot.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::time::Duration;

use common::{Cluster, Journal, place};
use mainstay::{
    Client, ClientConfig, Closed, ConnectError, Durability, Node, Outcome, Replicated, StartError,
};

/// Three nodes, each on a thread of its own; their handles work from the threads of this runtime.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_runtime_with_several_threads() {
    let cluster = Cluster::new(Durability::Memory);
    let mut nodes = Vec::new();
    for name in common::NAMES {
        let config = cluster.config(name).bootstrap(true);
        let spawned = Node::spawn(config, |node| node.replicate("journal", Journal::default));
        nodes.push(spawned.await.unwrap());
    }
    for (node, _) in &nodes {
        node.ready().await.unwrap();
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (number, (_, journal)) in (0_u64..).zip(nodes.iter().cycle().take(30)) {
        let journal = journal.clone();
        tasks.spawn(async move { journal.execute(&number.to_le_bytes()).await });
    }
    let outcomes: Vec<Outcome> = tasks.join_all().await;
    assert!(outcomes.iter().all(|outcome| place(outcome).is_some()), "{outcomes:?}");
    for (node, _) in nodes {
        assert_eq!(node.close().await, Closed::Stopped);
    }
    // What they had is free as soon as they have closed.
    for name in common::NAMES {
        for _ in 0..10 {
            let (node, ()) = Node::spawn(cluster.config(name), |_| Ok(())).await.unwrap();
            assert_eq!(node.close().await, Closed::Stopped);
        }
    }
}

/// Under actix there is a `LocalSet` already.
#[actix::test]
async fn under_actix() {
    let cluster = Cluster::new(Durability::Memory);
    let nodes = cluster.all();
    for node in &nodes {
        node.node().unwrap().ready().await.unwrap();
    }
    assert!(place(&nodes[0].execute(&1_u64.to_le_bytes()).await).is_some());
}

/// Where no task can be kept on the thread, the start is an error and no panic of the caller.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_a_local_set_it_is_an_error() {
    let cluster = Cluster::new(Durability::Memory);
    let refused = Replicated::start(cluster.config("a"), Journal::default).unwrap_err();
    assert!(matches!(refused, StartError::NoLocalSet), "{refused}");
    // The address is free again.
    let config = cluster.config("a").bootstrap(true);
    let (node, ()) = Node::spawn(config, |_| Ok(())).await.unwrap();
    assert_eq!(node.close().await, Closed::Stopped);
}

/// What fails on the thread of a spawned node is told to who spawned it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spawn_tells_why_it_failed() {
    let cluster = Cluster::new(Durability::Memory);
    let spawned = Node::spawn(cluster.config("a"), |node| {
        node.replicate("one", Journal::default)?;
        node.replicate("one", Journal::default)
    });
    let refused = spawned.await.err().unwrap();
    assert!(matches!(refused, StartError::Taken(_)), "{refused}");
}

/// A client on a thread of its own serves the threads of any runtime, and its thread ends with it. Where it is to stay on a thread that has no
/// `LocalSet` that is an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_runs_anywhere() {
    let cluster = Cluster::new(Durability::Memory);
    let (node, journal) = Node::spawn(cluster.config("a").bootstrap(true), |node| {
        node.replicate("journal", Journal::default)
    })
    .await
    .unwrap();
    let free = "127.0.0.1:0".parse().unwrap();
    let served = journal.serve(free, |journal, _| vec![journal.entries.len() as u8]).await.unwrap();
    let config = ClientConfig::new(cluster.id, [("a".to_owned(), served)].into())
        .deadline(Duration::from_millis(200));
    let refused = Client::connect(config.clone()).unwrap_err();
    assert!(matches!(refused, ConnectError::NoLocalSet(_)), "{refused}");
    let client = Client::spawn(config).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..30_u64 {
        let client = client.clone();
        tasks.spawn(async move { client.execute(&number.to_le_bytes()).await });
    }
    let outcomes: Vec<Outcome> = tasks.join_all().await;
    // One node of three is no majority: it refuses, and all are told so.
    // A try without an answer at the deadline is unknown.
    let is_done = |outcome: &Outcome| matches!(outcome, Outcome::Done(_));
    assert!(outcomes.len() == 30 && !outcomes.iter().any(is_done), "{outcomes:?}");
    client.clone().close().await;
    assert_eq!(client.status().await, None);
    assert_eq!(node.close().await, Closed::Stopped);
}

/// What a task on any thread of a runtime may await can be sent there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_handles_answer_can_be_sent() {
    fn sent<T: Send>(future: T) -> T {
        future
    }
    let cluster = Cluster::new(Durability::Memory);
    let spawned = sent(Node::spawn(cluster.config("a").bootstrap(true), |node| {
        let group = node.group("group", mainstay::GroupConfig::memory())?;
        Ok((group, node.replicate("journal", Journal::default)?))
    }));
    let (node, (group, journal)) = spawned.await.unwrap();
    let free = "127.0.0.1:0".parse().unwrap();
    let served = sent(journal.serve(free, |_, _| Vec::new())).await.unwrap();
    let config = ClientConfig::new(cluster.id, [("a".to_owned(), served)].into());
    let client = sent(Client::spawn(config)).await.unwrap();
    drop(sent(group.cast("to nobody", mainstay::Order::Total)));
    drop(sent(client.execute(&1_u64.to_le_bytes())));
    drop(sent(journal.execute(&1_u64.to_le_bytes())));
    drop(sent(node.ready()));
    sent(client.close()).await;
    assert_eq!(sent(node.close()).await, Closed::Stopped);
}
