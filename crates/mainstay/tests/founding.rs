//! A cluster is made once, by all of its nodes, and nobody has to say so.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::time::Duration;

use common::{Cluster, Journal, NAMES, place, run};
use mainstay::{Durability, Founding, NodeId, Replicated, WaitsFor};
use tokio::time;

fn start(cluster: &Cluster, name: &str) -> Replicated<Journal> {
    Replicated::start(cluster.config(name), Journal::default).unwrap()
}

async fn ready(node: &Replicated<Journal>) {
    node.node().unwrap().ready().await.unwrap();
}

async fn waits_for(node: &Replicated<Journal>) -> std::collections::BTreeMap<NodeId, WaitsFor> {
    node.node().unwrap().status().await.unwrap().stack.unwrap().founding
}

/// Waits until the node says just this of why there is no cluster.
async fn until(cluster: &Cluster, node: &Replicated<Journal>, wanted: &[(&str, WaitsFor)]) {
    let wanted = wanted.iter().map(|(name, why)| (NodeId::new(cluster.id, name), *why)).collect();
    let mut tick = time::interval(Duration::from_millis(5));
    while waits_for(node).await != wanted {
        tick.tick().await;
    }
}

/// Three nodes as the first page starts them. (U1)
#[test]
fn three_nodes_make_a_cluster_by_themselves() {
    run(async {
        for durability in [Durability::Memory, Durability::Disk] {
            let cluster = Cluster::new(durability);
            let [a, b] = ["a", "b"].map(|name| start(&cluster, name));
            for node in [&a, &b] {
                until(&cluster, node, &[("c", WaitsFor::NotHeard)]).await;
            }
            let c = start(&cluster, "c");
            for node in [&a, &b, &c] {
                ready(node).await;
                assert!(waits_for(node).await.is_empty());
                assert!(place(&node.execute(&1_u64.to_le_bytes()).await).is_some());
                assert_eq!(node.status().await.unwrap().replica.maybe_lost, 0);
            }
        }
    });
}

/// Two of three lose their disks: they wait for the third, which knows the cluster, and make no other. (U1)
#[test]
fn two_lost_disks_make_no_second_cluster() {
    run(async {
        let cluster = Cluster::new(Durability::Disk);
        for node in NAMES.map(|name| start(&cluster, name)) {
            ready(&node).await;
            node.close().await;
        }
        for name in ["a", "b"] {
            std::fs::remove_dir_all(cluster.dir(name)).unwrap();
        }
        let [a, b] = ["a", "b"].map(|name| start(&cluster, name));
        for node in [&a, &b] {
            until(&cluster, node, &[("c", WaitsFor::NotHeard)]).await;
        }
        let c = start(&cluster, "c");
        for node in [&a, &b] {
            // It knows the view from c, and waits for votes that are lost.
            until(&cluster, node, &[]).await;
            let stack = node.node().unwrap().status().await.unwrap().stack.unwrap();
            assert!(stack.view.number > 0 && !stack.voter && stack.minority);
        }
        assert!(place(&c.execute(&1_u64.to_le_bytes()).await).is_none());
    });
}

/// Two nodes of a cluster in memory are started anew while the third is away: no second first view. (U4)
#[test]
fn a_cluster_in_memory_is_not_made_twice() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let nodes = NAMES.map(|name| start(&cluster, name));
        for node in &nodes {
            ready(node).await;
        }
        for node in nodes {
            node.close().await;
        }
        let [a, b] = ["a", "b"].map(|name| start(&cluster, name));
        for node in [&a, &b] {
            until(&cluster, node, &[("c", WaitsFor::NotHeard)]).await;
        }
    });
}

/// Nodes whose settings differ do not make a cluster, and say which node it is.
#[test]
fn unequal_settings_make_no_cluster() {
    run(async {
        let cluster = Cluster::new(Durability::Disk);
        let config = cluster.config("a").durability(Durability::Memory);
        let a = Replicated::start(config, Journal::default).unwrap();
        let joins = cluster.config("c").founding(Founding::Join);
        let c = Replicated::start(joins, Journal::default).unwrap();
        let b = start(&cluster, "b");
        let both = [("a", WaitsFor::OtherSettings), ("c", WaitsFor::Joins)];
        until(&cluster, &b, &both).await;
        let both = [("b", WaitsFor::OtherSettings), ("c", WaitsFor::Joins)];
        until(&cluster, &a, &both).await;
        assert!(waits_for(&c).await.is_empty());
    });
}
