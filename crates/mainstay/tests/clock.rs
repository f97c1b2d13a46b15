//! The clock service, mounted on nodes beside membership.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use common::{Cluster, NAMES};
use mainstay::{ClusterId, Config, Durability, Mounting, Node, Placement};
use mainstay_clock::sync::global::{ClockHandle, Global, Setup};
use mainstay_clock::sync::{self, Delay, Function, Kind, Plan, Reading};
use tokio::task::LocalSet;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

fn plan() -> Plan {
    let kind = Kind::Averaging { function: Function::Midpoint, reading: Reading::ROUND_TRIP };
    let mut config = sync::Config::lan(kind, 3, 0);
    // Three nodes share a thread with the test, and a processor with others.
    config.delay = Delay { min: Duration::from_micros(1), max: Duration::from_millis(40) };
    config.period = Duration::from_millis(800);
    Plan::new(config).unwrap()
}

fn start(
    name: &str,
    nodes: &BTreeMap<String, SocketAddr>,
    placement: Option<Placement>,
) -> (Node, ClockHandle) {
    let config =
        Config::new(ClusterId::from_entropy(5), name, nodes.clone()).durability(Durability::Memory);
    let mut builder = Node::builder(config).unwrap();
    let setup = Setup::new(plan()).unwrap();
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

async fn agree_and_join(placement: Option<Placement>) {
    let nodes = Cluster::new(Durability::Memory).nodes;
    let run = async {
        let start = |name: &str| start(name, &nodes, placement);
        let mut all: Vec<_> = NAMES.map(start).into();
        let synchronised = |clocks: Vec<ClockHandle>| async move {
            let all = async {
                while !clocks.iter().all(|clock| clock.is_synchronised()) {
                    tokio::task::yield_now().await;
                }
            };
            timeout(LIMIT, all).await.expect("in time");
        };
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
        for (node, _) in all {
            node.close().await;
        }
    };
    LocalSet::new().run_until(run).await;
}
