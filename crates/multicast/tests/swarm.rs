//! Many seeds: crashes, restarts and view changes at any point, judged by the checkers. `SEEDS=4000` in the
//! environment makes it more than the usual 500.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use mainstay_base::Level;
use mainstay_multicast::Durability;
use support::{Options, Outcome, run};

fn swarm(durability: Durability, deliver_at: Level) -> Outcome {
    let mut sum = Outcome::default();
    let seeds = std::env::var("SEEDS").map_or(500, |it| it.parse().unwrap());
    for seed in 0..seeds {
        let it =
            run(Options::new(seed, durability, deliver_at)).unwrap_or_else(|it| panic!("{it}"));
        sum.cast += it.cast;
        sum.delivered += it.delivered;
        sum.views += it.views;
        sum.blocked += it.blocked;
        sum.lost += it.lost;
        sum.crashes += it.crashes;
        sum.transfers += it.transfers;
        sum.recoveries += it.recoveries;
        sum.fetches += it.fetches;
        sum.renumbered += it.renumbered;
        sum.aside += it.aside;
        sum.reads += it.reads;
        sum.failed_reads += it.failed_reads;
        sum.voters += it.voters;
    }
    println!("{durability:?} {deliver_at:?} {sum:?}");
    assert!(sum.cast > 10_000 && sum.delivered > 20_000 && sum.views > 3_000, "{sum:?}");
    assert!(sum.crashes > 1_000 && sum.transfers > 50 && sum.blocked > 50, "{sum:?}");
    assert!(sum.fetches > 300 && sum.renumbered > 100 && sum.aside > 300, "{sum:?}");
    assert!(sum.reads > 300 && sum.lost > 20, "{sum:?}");
    assert!(durability == Durability::Memory || sum.recoveries > 200 && sum.voters > 20, "{sum:?}");
    sum
}

/// Checks MC-2, MC-3, MC-6, MC-7, MC-10, MC-16 and MC-17 for survivors.
#[test]
fn memory_delivered() {
    swarm(Durability::Memory, Level::Delivered);
}

/// Checks MC-2, MC-3, MC-6, MC-7, MC-10, MC-16, MC-17 and MC-21.
#[test]
fn memory_majority() {
    swarm(Durability::Memory, Level::Majority);
}

/// Checks MC-2, MC-3, MC-6, MC-7, MC-10, MC-16, MC-17 and MC-21.
#[test]
fn memory_safe() {
    swarm(Durability::Memory, Level::Safe);
}

/// Checks MC-2, MC-3, MC-6, MC-7, MC-10, MC-16 and MC-17 for survivors.
#[test]
fn disk_delivered() {
    swarm(Durability::Disk, Level::Delivered);
}

/// Checks MC-2, MC-3, MC-6, MC-7, MC-10, MC-16, MC-17 and MC-21.
#[test]
fn disk_majority() {
    swarm(Durability::Disk, Level::Majority);
}

/// Checks MC-2, MC-3, MC-6, MC-7, MC-10, MC-16, MC-17 and MC-21.
#[test]
fn disk_safe() {
    swarm(Durability::Disk, Level::Safe);
}

/// Checks MC-2, MC-3, MC-6, MC-7, MC-10, MC-16, MC-17 and MC-21.
#[test]
fn disk_disk() {
    swarm(Durability::Disk, Level::Disk);
}

/// Checks OV-3.
#[test]
fn a_seed_gives_the_same_run_twice() {
    for seed in 0..20 {
        let once = || run(Options::new(seed, Durability::Disk, Level::Majority)).unwrap();
        assert_eq!(once(), once());
    }
}
