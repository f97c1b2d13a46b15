//! A node whose disk is almost full refuses commands, reads on, follows the others, and comes back by itself.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

#[allow(unreachable_pub, dead_code, reason = "shared by tests")]
#[path = "../../sim/tests/support/small.rs"]
mod small;

use std::rc::Rc;

use common::{Cluster, Journal, ready, run, until};
use mainstay::{Durability, NotDone, Outcome, Replicated};
use mainstay_runtime::{FileDisk, OsEntropy, Ports, Tcp, TcpOptions, TokioTime};
use small::{Free, Small};

fn on_small_disk(cluster: &Cluster, name: &str, free: &Rc<Free>) -> Replicated<Journal> {
    let time = Rc::new(TokioTime::new());
    let mut options = TcpOptions::listening(cluster.nodes[name]);
    options.queue_bytes_max = 256 << 20;
    let ports = Ports {
        transport: Box::new(Tcp::new(options, time.clone()).unwrap()),
        disk: Some(Box::new(Small(FileDisk::new(cluster.dir(name)), Rc::clone(free)))),
        time,
        entropy: Box::new(OsEntropy),
    };
    Replicated::start_with(cluster.config(name).bootstrap(true), Journal::default, ports).unwrap()
}

/// The default.
const RESERVE: u64 = 64 << 20;
const COMMAND: [u8; 8] = 7_u64.to_le_bytes();

async fn is_done(node: &Replicated<Journal>) -> bool {
    matches!(node.execute(&COMMAND).await, Outcome::Done(_))
}

#[test]
fn a_node_without_room_refuses_commands_and_follows_the_others() {
    run(async {
        let cluster = Cluster::new(Durability::Disk);
        let free = Free::new(u64::MAX);
        let a = on_small_disk(&cluster, "a", &free);
        let b = cluster.bootstrap("b");
        let c = cluster.bootstrap("c");
        for node in [&a, &b, &c] {
            ready(node, 3).await;
        }
        assert!(is_done(&a).await);

        free.set(RESERVE - 1);
        // Somebody else has filled it: the node writes nothing.
        until(&a, "it is short", |status| status.replica.disk_short).await;
        assert_eq!(a.execute(&COMMAND).await, Outcome::NotDone(NotDone::DiskShort));
        assert_eq!(a.read(|journal| journal.entries.len()).await, Ok(1));
        assert!(a.status().await.unwrap().replica.disk_short);

        assert!(is_done(&b).await);
        let at_b = b.status().await.unwrap().replica.position;
        until(&a, "a follows", |status| status.replica.position >= at_b).await;
        assert_eq!(a.read(|journal| journal.entries.len()).await, Ok(2));

        // Near the limit it would refuse and take commands in turn.
        free.set(RESERVE + RESERVE / 8 - 1);
        let looks = free.looks.get();
        let status = until(&a, "it looks", |_| free.looks.get() >= looks + 2).await;
        assert!(status.replica.disk_short);
        free.set(RESERVE + RESERVE / 8);
        until(&a, "there is room", |status| !status.replica.disk_short).await;
        free.set(RESERVE);
        let looks = free.looks.get();
        until(&a, "it looks", |_| free.looks.get() >= looks + 2).await;
        assert!(is_done(&a).await);
        for node in [a, b, c] {
            node.close().await;
        }
    });
}

/// A member that the group went on without gets the state from another one. Without room for it the member learns on, and keeps
/// what it has, until there is room.
#[test]
fn a_transferred_state_waits_for_room() {
    run(async {
        let cluster = Cluster::new(Durability::Disk);
        let free = Free::new(u64::MAX);
        let a = on_small_disk(&cluster, "a", &free);
        let b = cluster.bootstrap("b");
        let c = cluster.bootstrap("c");
        for node in [&a, &b, &c] {
            ready(node, 3).await;
        }
        assert!(is_done(&a).await);
        a.close().await;
        ready(&b, 2).await;
        assert!(is_done(&b).await);

        free.set(1);
        let a = on_small_disk(&cluster, "a", &free);
        ready(&b, 3).await;
        until(&a, "it has the state, and is short", |status| {
            status.replica.disk_short && status.replica.hash.is_some()
        })
        .await;
        assert!(is_done(&b).await);
        let is_whole = |status: &mainstay::Status| {
            let stack = status.site.stack.as_ref();
            stack.is_some_and(|stack| stack.groups.values().all(|(it, _)| it.whole))
        };
        assert!(!is_whole(&a.status().await.unwrap()), "nothing is forced yet");
        free.set(u64::MAX);
        ready(&a, 3).await;
        assert!(is_done(&a).await);
        for node in [a, b, c] {
            node.close().await;
        }
    });
}
