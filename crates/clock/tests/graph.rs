//! The context graph against a model that keeps everything.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use support::talk::{Outcome, run};

/// Checks CLK-35, MC-42, MC-43, MC-44 and MC-45 with loss, copies, reordering, a participant that leaves and comes back, and
/// that memory is bounded by what is unstable.
#[test]
fn the_graph_is_what_the_whole_past_says() {
    let mut sum = Outcome::default();
    for seed in mainstay_sim::seeds(0..80) {
        let outcome = run(seed, None).unwrap_or_else(|violation| panic!("{violation}"));
        sum.sent += outcome.sent;
        sum.held += outcome.held;
        sum.copies += outcome.copies;
        sum.asked += outcome.asked;
        sum.full += outcome.full;
        sum.nulls += outcome.nulls;
        sum.waves += outcome.waves;
        sum.wide += outcome.wide;
        sum.masked += outcome.masked;
        sum.returned += outcome.returned;
        sum.awaited += outcome.awaited;
        sum.attached_max = sum.attached_max.max(outcome.attached_max);
    }
    println!("{sum:?}");
    assert!(sum.sent > 10_000 && sum.held > 3_000 && sum.copies > 1_000, "{sum:?}");
    assert!(sum.asked > 2_000 && sum.full > 5_000 && sum.nulls > 500, "{sum:?}");
    assert!(sum.waves > 5_000 && sum.wide > 5_000, "{sum:?}");
    assert!(sum.masked > 20 && sum.returned == sum.masked && sum.awaited > 100, "{sum:?}");
}

/// Checks OV-3.
#[test]
fn a_seed_gives_the_same_conversation_twice() {
    for seed in 0..5 {
        assert_eq!(run(seed, None).unwrap(), run(seed, None).unwrap());
    }
}
