//! Two and three links over a nasty network, many seeds.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use support::{Outcome, swarm};

/// Checks MB-27, MB-25, MB-26, MB-7 and MB-8: what is sent between living boots is delivered once and in order, nothing
/// passes between other boots than those it was meant for, and isolated boots are told.
#[test]
fn loss_duplication_reordering_cuts_restarts_and_isolation_are_invisible() {
    let mut sum = Outcome::default();
    for seed in 0..2_500 {
        match swarm(seed, |builder| builder.build().unwrap()) {
            Ok(outcome) => {
                sum.delivered += outcome.delivered;
                sum.voided += outcome.voided;
                sum.restarts += outcome.restarts;
                sum.resent += outcome.resent;
                sum.duplicates += outcome.duplicates;
                sum.foreign += outcome.foreign;
                sum.told_dead += outcome.told_dead;
            }
            Err(violation) => panic!("{violation}"),
        }
    }
    println!("{sum:?}");
    assert!(sum.delivered > 100_000 && sum.voided > 1_000 && sum.restarts > 500, "{sum:?}");
    assert!(sum.resent > 10_000 && sum.duplicates > 10_000, "{sum:?}");
    assert!(sum.foreign > 100 && sum.told_dead > 100, "{sum:?}");
}

/// Checks OV-3.
#[test]
fn a_seed_gives_the_same_outputs_twice() {
    for seed in 0..50 {
        let run = || swarm(seed, |builder| builder.build().unwrap()).unwrap();
        assert_eq!(run(), run(), "seed {seed}");
    }
}
