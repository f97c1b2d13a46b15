//! The client against a model of nodes.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use support::clients::{Totals, run};

/// Checks PD-22. In every schedule each call has one outcome by its deadline; what is *done* was executed once and has
/// its own answer, what is *not done* was never executed, and nothing was executed twice.
#[test]
fn every_outcome_is_true() {
    let mut totals = Totals::default();
    for seed in 0..4_000 {
        #[cfg(feature = "test-util")]
        run(seed, None, &mut totals).unwrap();
        #[cfg(not(feature = "test-util"))]
        run(seed, &mut totals).unwrap();
    }
    println!("{totals:?}");
    assert!(totals.done > 20_000, "{totals:?}");
    assert!(totals.done_after_loss > 1_000, "{totals:?}");
    assert!(totals.duplicates > 100, "{totals:?}");
    assert!(totals.not_done > 1_000, "{totals:?}");
    assert!(totals.unknown_executed > 500, "{totals:?}");
    assert!(totals.unknown > totals.unknown_executed, "{totals:?}");
    assert!(totals.sessions > 4_000, "{totals:?}");
}
