//! A command whose execution panics, on three nodes in one process.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use common::{BOOM, Cluster, agreed, journal, load, place, ready, run, until};
use mainstay::{Durability, NotDone, Outcome, Status};
use mainstay_base::Position;
use mainstay_paradigm as paradigm;

fn poison(status: &Status) -> Option<Position> {
    match status.replica.replica {
        Some(paradigm::Status::Poisoned { position }) => Some(position),
        _ => None,
    }
}

/// All nodes stand still at one position and say so; after the skip all go on with equal states, and a second poison is
/// skipped as well. Checks PD-30 and PD-31 in the composition.
async fn poisoned_and_skipped(durability: Durability) {
    let mut cluster = Cluster::new(durability);
    cluster.checkpoint_bytes = 4 << 10;
    let mut nodes = cluster.all();
    for node in &nodes {
        ready(node, 3).await;
    }
    let mut places = load(&nodes[0], 0..1_000).await;
    assert_eq!(nodes[0].skip(Position(1)).await, Outcome::NotDone(NotDone::NotPoisoned));
    for round in 0..2 {
        let boom = tokio::task::spawn_local({
            let node = nodes[1].clone();
            async move { node.execute(&BOOM).await }
        });
        let status = until(&nodes[0], "poisoned", |status| poison(status).is_some()).await;
        let at = poison(&status).unwrap().0;
        // Views are in the order, too.
        assert!(at > 1_000 * (round + 1) && at < 1_000 * (round + 1) + 20, "{at}");
        for node in &nodes {
            let status = until(node, "poisoned", |status| poison(status).is_some()).await;
            assert_eq!(poison(&status), Some(Position(at)));
            let reason = NotDone::Poisoned(Position(at));
            assert_eq!(node.execute(&[1; 8]).await, Outcome::NotDone(reason));
            assert_eq!(node.read(|_| ()).await, Err(reason));
            assert_eq!(node.read_local(|_| ()).await, Err(reason));
            assert!(reason.to_string().contains(&format!("poison #{at}")));
        }
        let wrong = nodes[0].skip(Position(at - 1)).await;
        assert_eq!(wrong, Outcome::NotDone(NotDone::NotPoisoned));
        assert_eq!(nodes[2].skip(Position(at)).await, Outcome::Done(bytes::Bytes::new()));
        assert_eq!(boom.await.unwrap(), Outcome::NotDone(NotDone::Skipped));
        // The skip is in the order; each node goes on when it comes to it.
        for node in &nodes {
            until(node, "going on", |status| poison(status).is_none()).await;
        }
        let first = 1_000 * (round + 1);
        places.extend(load(&nodes[round as usize], first..first + 1_000).await);
    }
    assert_eq!(places.len(), 3_000);
    let first = journal(&nodes[0]).await;
    for (entry, place) in &places {
        assert_eq!(first[*place as usize - 1], *entry);
    }
    for node in &nodes {
        assert_eq!(journal(node).await, first);
        let status = node.status().await.unwrap().replica;
        assert_eq!((status.rebuilds, status.diverged, status.stats.panics), (2, 0, 2));
    }
    agreed(&nodes).await;
    if durability == Durability::Disk {
        for node in nodes {
            drop(node.close().await);
        }
        nodes = common::NAMES.map(|name| cluster.start(name));
        for node in &nodes {
            ready(node, 3).await;
            assert_eq!(journal(node).await, first);
        }
        agreed(&nodes).await;
        assert_eq!(place(&nodes[0].execute(&9u64.to_le_bytes()).await), Some(3_001));
    }
}

#[test]
fn poisoned_and_skipped_in_memory() {
    run(poisoned_and_skipped(Durability::Memory));
}

#[test]
fn poisoned_and_skipped_on_disk() {
    run(poisoned_and_skipped(Durability::Disk));
}

/// A node that restarts while the group stands still finds the poison in its log, and the skip sets it going too.
#[test]
fn a_restart_while_poisoned_stands_still_too() {
    run(async {
        let cluster = Cluster::new(Durability::Disk);
        let [a, b, c] = cluster.all();
        for node in [&a, &b, &c] {
            ready(node, 3).await;
        }
        let places = load(&a, 0..100).await;
        let boom = tokio::task::spawn_local({
            let a = a.clone();
            async move { a.execute(&BOOM).await }
        });
        let status = until(&a, "poisoned", |status| poison(status).is_some()).await;
        let at = poison(&status);
        for node in [&b, &c] {
            until(node, "poisoned", |status| poison(status) == at).await;
        }
        drop(c.close().await);
        let c = cluster.start("c");
        let whole = |status: &Status| {
            let stack = status.site.stack.as_ref();
            poison(status) == at && stack.is_some_and(|it| it.members.len() == 3)
        };
        until(&c, "poisoned again", whole).await;
        until(&a, "three members", whole).await;
        assert_eq!(a.skip(at.unwrap()).await, Outcome::Done(bytes::Bytes::new()));
        drop(boom);
        for node in [&a, &b, &c] {
            ready(node, 3).await;
        }
        assert_eq!(place(&c.execute(&7u64.to_le_bytes()).await), Some(101));
        let first = journal(&a).await;
        assert_eq!((places.len(), first.len()), (100, 101));
        assert_eq!(journal(&c).await, first);
    });
}
