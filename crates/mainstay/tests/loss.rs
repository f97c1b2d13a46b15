//! An operator accepts the loss of acknowledged commands only where something waits for that.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use common::{Cluster, Journal, ready, run, until};
use mainstay::{AcceptLossError, Durability, Outcome, Replicated, Status};

const COMMAND: [u8; 8] = 7_u64.to_le_bytes();

fn is_blocked(status: &Status) -> bool {
    let stack = status.site.stack.as_ref();
    stack.is_some_and(|stack| stack.groups.values().any(|(it, _)| it.blocked))
}

/// Checks MC-21: a word that was said while nothing was lost is refused, and does not count when something is. The blocked
/// group goes on with a word that is said then.
#[test]
fn a_healthy_group_refuses_the_word_and_forgets_it() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let config = |name: &str| cluster.config(name).data_dir(cluster.dir(name)).bootstrap(true);
        let start = |name: &str| Replicated::start(config(name), Journal::default).unwrap();
        let [a, b, c] = common::NAMES.map(start);
        for node in [&a, &b, &c] {
            ready(node, 3).await;
        }
        assert!(matches!(a.execute(&COMMAND).await, Outcome::Done(_)));
        assert_eq!(a.accept_loss().await, Err(AcceptLossError::NothingToAccept));

        // At once: else the group goes on with one of them.
        let _ = tokio::join!(b.close(), c.close());
        let b = start("b");
        let status = until(&a, "it waits for c", is_blocked).await;
        assert_eq!(status.replica.maybe_lost, 0);
        assert_eq!(a.accept_loss().await, Ok(()));
        ready(&b, 2).await;
        let status = until(&a, "it goes on", |status| !is_blocked(status)).await;
        assert_eq!(status.replica.maybe_lost, 1);
        assert!(matches!(a.execute(&COMMAND).await, Outcome::Done(_)));
        for node in [a, b] {
            node.close().await;
        }
    });
}
