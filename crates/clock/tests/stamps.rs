//! Stamps against what happened before what.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use support::trace::{Outcome, run};

/// Checks CLK-30, CLK-31, CLK-32, CLK-33, CLK-36, CLK-37 and CLK-38 with loss, copies, reordering, restarts and view changes.
#[test]
fn stamps_tell_what_happened_before_what() {
    let mut sum = Outcome::default();
    for seed in mainstay_sim::seeds(0..400) {
        let outcome = run(seed, None).unwrap_or_else(|violation| panic!("{violation}"));
        sum.events += outcome.events;
        sum.copies += outcome.copies;
        sum.late += outcome.late;
        sum.restarts += outcome.restarts;
        sum.views += outcome.views;
        sum.concurrent += outcome.concurrent;
        sum.ordered_by_chance += outcome.ordered_by_chance;
        sum.refused_ahead += outcome.refused_ahead;
        sum.counted += outcome.counted;
    }
    println!("{sum:?}");
    assert!(sum.events > 30_000 && sum.copies > 2_000 && sum.late > 100, "{sum:?}");
    assert!(sum.restarts > 500 && sum.views > 1_000 && sum.refused_ahead > 500, "{sum:?}");
    assert!(sum.concurrent > 100_000 && sum.ordered_by_chance > 100_000, "{sum:?}");
    assert!(sum.counted > 1_000, "{sum:?}");
}

/// Checks OV-3.
#[test]
fn a_seed_gives_the_same_run_twice() {
    for seed in 0..20 {
        assert_eq!(run(seed, None).unwrap(), run(seed, None).unwrap());
    }
}
