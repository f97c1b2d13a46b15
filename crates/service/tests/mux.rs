//! Streams over many schedules: once, in order, whole, bounded.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

#[test]
fn streams_hold_over_many_schedules() {
    let (mut delivered, mut refused) = (0, 0);
    for seed in 0..200 {
        let (some, back) = support::run(seed, 1_000, |_| {});
        delivered += some;
        refused += back;
    }
    println!("{delivered} delivered, {refused} refused");
    assert!(delivered > 5_000 && refused > 1_000, "both happen");
}
