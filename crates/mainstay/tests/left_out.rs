//! A node that is started again without a group that it had: the others go on.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::time::Duration;

use common::{Cluster, Journal, NAMES, run};
use mainstay::{
    Durability, GroupConfig, GroupHandle, Level, Node, NodeId, Order, Outcome, Replicated, WaitsFor,
};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

fn start(cluster: &Cluster, name: &str, group: Option<GroupConfig>) -> (Node, Option<GroupHandle>) {
    let mut builder = Node::builder(cluster.config(name)).unwrap();
    let group = group.map(|config| builder.group("extra", config).unwrap());
    (builder.start().unwrap(), group)
}

/// Casts until one has reached all members of the group.
async fn goes_on(group: &GroupHandle) {
    let cast = async {
        let receipt = group.try_cast_for(b"it goes on".to_vec(), Order::Total, Level::Safe);
        receipt.unwrap().reached(Level::Safe).await.unwrap();
    };
    timeout(LIMIT, cast).await.expect("the group goes on without the node that lacks it");
}

/// Whichever node it is, the sequencer of the group too; later it comes back with the group.
fn left_out(again: Option<GroupConfig>) {
    run(async {
        for out in NAMES {
            let cluster = Cluster::new(Durability::Memory);
            let memory = || Some(GroupConfig::memory().stateless());
            let mut nodes: Vec<_> =
                NAMES.iter().map(|name| start(&cluster, name, memory())).collect();
            for (node, _) in &nodes {
                timeout(LIMIT, node.ready()).await.unwrap().unwrap();
            }
            let at = NAMES.iter().position(|name| *name == out).unwrap();
            let (node, group) = nodes.remove(at);
            drop(group);
            node.close().await;
            let (back, _) = start(&cluster, out, again.clone());
            let missing = NodeId::new(cluster.id, out);
            for (node, group) in &nodes {
                let seen = async {
                    loop {
                        let stack = node.status().await.unwrap().stack.unwrap();
                        if stack.absent.values().any(|absent| absent.contains_key(&missing)) {
                            break;
                        }
                        tokio::task::yield_now().await;
                    }
                };
                timeout(LIMIT, seen).await.expect("the status names the node");
                goes_on(group.as_ref().unwrap()).await;
            }
            back.close().await;
            let (back, group) = start(&cluster, out, memory());
            timeout(LIMIT, back.ready()).await.unwrap().unwrap();
            goes_on(group.as_ref().unwrap()).await;
        }
    });
}

/// A node without the group is neither its sequencer nor waited for.
#[test]
fn a_group_goes_on_without_a_node_that_lacks_it() {
    left_out(None);
}

/// Neither is one that has other settings.
#[test]
fn a_group_goes_on_without_a_node_that_has_other_settings() {
    left_out(Some(GroupConfig::memory()));
}

fn replica(cluster: &Cluster, name: &str, has: bool) -> (Node, Option<Replicated<Journal>>) {
    let mut builder = Node::builder(cluster.config(name)).unwrap();
    let machine = has.then(|| builder.replicate("journal", Journal::default).unwrap());
    (builder.start().unwrap(), machine)
}

async fn execute(machine: &Replicated<Journal>, entry: u64) {
    let done = timeout(LIMIT, machine.execute(&entry.to_le_bytes())).await;
    let done = done.expect("the state machine goes on without the node");
    assert!(matches!(done, Outcome::Done(_)), "{done:?}");
}

/// Whichever node comes back without the state machine, with its disk lost or none; later it comes back with it.
fn state_machine_left_out(durability: Durability) {
    run(async {
        for out in NAMES {
            let cluster = Cluster::new(durability);
            let mut nodes: Vec<_> =
                NAMES.iter().map(|name| replica(&cluster, name, true)).collect();
            for (node, _) in &nodes {
                timeout(LIMIT, node.ready()).await.unwrap().unwrap();
            }
            execute(nodes[0].1.as_ref().unwrap(), 1).await;
            let at = NAMES.iter().position(|name| *name == out).unwrap();
            let (node, machine) = nodes.remove(at);
            drop(machine);
            node.close().await;
            let lose_disk = || {
                if durability == Durability::Disk {
                    std::fs::remove_dir_all(cluster.dir(out)).unwrap();
                }
            };
            lose_disk();
            let (back, _) = replica(&cluster, out, false);
            timeout(LIMIT, back.ready()).await.unwrap().unwrap();
            let machines: Vec<_> =
                nodes.iter().map(|(_, machine)| machine.as_ref().unwrap()).collect();
            for entry in 2..6 {
                execute(machines[entry as usize % 2], entry).await;
            }
            back.close().await;
            lose_disk();
            let (back, machine) = replica(&cluster, out, true);
            timeout(LIMIT, back.ready()).await.unwrap().unwrap();
            let machine = machine.unwrap();
            execute(&machine, 6).await;
            let entries = machine.read(|journal: &Journal| journal.entries.clone()).await.unwrap();
            assert_eq!(entries, [1, 2, 3, 4, 5, 6], "{out} has all that was executed");
        }
    });
}

/// The others execute commands without it, and it has the state when it has the state machine again.
#[test]
fn a_state_machine_in_memory_goes_on_without_a_node_that_lacks_it() {
    state_machine_left_out(Durability::Memory);
}

/// The same on disk.
#[test]
fn a_state_machine_on_disk_goes_on_without_a_node_that_lacks_it() {
    state_machine_left_out(Durability::Disk);
}

async fn votes(node: &Node) {
    while !node.status().await.unwrap().stack.is_some_and(|stack| stack.voter) {
        tokio::task::yield_now().await;
    }
}

/// A group is added by starting the nodes again one by one with it: it begins as soon as a majority of the nodes have it.
#[test]
fn a_group_is_added_one_node_at_a_time() {
    run(async {
        for durability in [Durability::Memory, Durability::Disk] {
            let cluster = Cluster::new(durability);
            let config = || match durability {
                Durability::Memory => GroupConfig::memory().stateless(),
                Durability::Disk => GroupConfig::disk().stateless(),
            };
            let mut nodes: Vec<_> = NAMES.iter().map(|name| start(&cluster, name, None)).collect();
            for (node, _) in &nodes {
                timeout(LIMIT, node.ready()).await.unwrap().unwrap();
            }
            for (at, name) in NAMES.iter().enumerate() {
                let (node, _) = nodes.remove(0);
                node.close().await;
                let (node, group) = start(&cluster, name, Some(config()));
                // The first one is not ready: nobody else has the group. It counts for the cluster all the same.
                timeout(LIMIT, votes(&node)).await.expect("it votes");
                nodes.push((node, group));
                if at == 0 {
                    continue;
                }
                for (node, group) in nodes.iter().filter(|(_, group)| group.is_some()) {
                    timeout(LIMIT, node.ready()).await.unwrap().unwrap();
                    goes_on(group.as_ref().unwrap()).await;
                }
            }
        }
    });
}

/// A state machine is added in the same way, and the last node gets what was executed without it.
#[test]
fn a_state_machine_is_added_one_node_at_a_time() {
    run(async {
        for durability in [Durability::Memory, Durability::Disk] {
            let cluster = Cluster::new(durability);
            let mut nodes: Vec<_> =
                NAMES.iter().map(|name| replica(&cluster, name, false)).collect();
            for (node, _) in &nodes {
                timeout(LIMIT, node.ready()).await.unwrap().unwrap();
            }
            for (at, name) in NAMES.iter().enumerate() {
                let (node, _) = nodes.remove(0);
                node.close().await;
                let (node, machine) = replica(&cluster, name, true);
                timeout(LIMIT, votes(&node)).await.expect("it votes");
                nodes.push((node, machine));
                if at == 0 {
                    continue;
                }
                timeout(LIMIT, nodes[2].0.ready()).await.unwrap().unwrap();
                execute(nodes[2].1.as_ref().unwrap(), at as u64).await;
            }
            for (_, machine) in &nodes {
                let machine = machine.as_ref().unwrap();
                let entries = machine.read(|journal: &Journal| journal.entries.clone());
                assert_eq!(entries.await.unwrap(), [1, 2]);
            }
        }
    });
}

/// A node without a past that takes no part in one group counts for the cluster all the same: the others go on when one more fails.
#[test]
fn a_node_that_a_group_refuses_has_a_vote() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let both = |name: &str, config: GroupConfig| {
            let mut builder = Node::builder(cluster.config(name)).unwrap();
            let group = builder.group("extra", config).unwrap();
            let machine = builder.replicate("journal", Journal::default).unwrap();
            (builder.start().unwrap(), group, machine)
        };
        let right = || GroupConfig::memory().stateless();
        let mut nodes: Vec<_> = NAMES.iter().map(|name| both(name, right())).collect();
        for (node, ..) in &nodes {
            timeout(LIMIT, node.ready()).await.unwrap().unwrap();
        }
        execute(&nodes[0].2, 1).await;
        let (node, group, machine) = nodes.remove(0);
        drop((group, machine));
        node.close().await;
        let (back, _group, machine) = both(NAMES[0], GroupConfig::memory());
        timeout(LIMIT, votes(&back)).await.expect("it votes");
        let (node, ..) = nodes.remove(0);
        node.close().await;
        execute(&nodes[0].2, 2).await;
        execute(&machine, 3).await;
    });
}

/// A state machine and a process group of one name have nothing in common: the cluster is not made, and the status says so.
#[test]
fn a_group_is_no_state_machine_of_the_same_name() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let mut builder = Node::builder(cluster.config(NAMES[0])).unwrap();
        let _group = builder.group("journal", GroupConfig::memory()).unwrap();
        let first = builder.start().unwrap();
        let others: Vec<_> = NAMES[1..].iter().map(|name| replica(&cluster, name, true)).collect();
        let seen = async {
            loop {
                let stack = first.status().await.unwrap().stack.unwrap();
                let waits: Vec<WaitsFor> = stack.founding.into_values().collect();
                if waits == [WaitsFor::OtherSettings; 2] {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, seen).await.expect("the status says why no cluster is made");
        drop(others);
    });
}
