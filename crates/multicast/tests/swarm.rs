//! Many seeds: crashes, restarts and view changes at any point, judged by the checkers. `SEEDS=4000` in the
//! environment makes it more than the usual 500.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use mainstay_base::Level;
use mainstay_multicast::Durability;
use support::{Options, Outcome, left_out, run};

fn seeds() -> u64 {
    std::env::var("SEEDS").map_or(500, |it| it.parse().unwrap())
}

fn swarm(durability: Durability, deliver_at: Level) -> Outcome {
    let mut sum = Outcome::default();
    for seed in 0..seeds() {
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

/// Checks MC-2, MC-3, MC-6, MC-7, MC-10, MC-16, MC-17 and MC-21 where nodes come back without the group, and later with it.
#[test]
fn nodes_lack_the_group_at_times() {
    for (durability, level) in [
        (Durability::Memory, Level::Majority),
        (Durability::Disk, Level::Majority),
        (Durability::Disk, Level::Disk),
    ] {
        for seed in 0..seeds() / 2 {
            let options = Options { lacks: true, ..Options::new(seed, durability, level) };
            run(options).unwrap_or_else(|it| panic!("{it}"));
        }
    }
}

/// A group goes on without any one of its nodes that lacks it: what is cast becomes safe and is trimmed. The node has the state when
/// it comes back with the group, with its log of before or without it.
#[test]
fn a_group_goes_on_without_a_node_that_lacks_it() {
    for (durability, level) in [
        (Durability::Memory, Level::Majority),
        (Durability::Memory, Level::Safe),
        (Durability::Disk, Level::Majority),
        (Durability::Disk, Level::Disk),
    ] {
        for seed in 0..seeds() / 5 {
            let options = Options::new(seed, durability, level);
            left_out(options).unwrap_or_else(|it| panic!("{durability:?} {level:?} {it}"));
        }
    }
}
