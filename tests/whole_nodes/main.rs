//! Whole nodes of the replicated directory, with their actors, on virtual time: kills, power failures, lost disks, cuts
//! and pauses, and what clients were told judged by the linearisability checker.
//!
//! `MAINSTAY_SEED` is the first seed and `MAINSTAY_SEEDS` how many there are. A run that fails prints its seed and faults.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![allow(unreachable_pub, reason = "the modules of one test")]

mod clients;
mod large;
mod model;
mod run;
mod several;

use large::Weight;
use mainstay::Durability;
use mainstay_base::{Duration, Instant};
use mainstay_sim::{Disk, Fault, FaultEvent, Moment};
use run::{Report, Setup, faults, look_at_once, run};

/// Runs a seed twice: it must go well, and the same way.
fn twice(seed: u64, setup: &Setup) -> Report {
    let once = || run(seed, setup, faults(seed, setup));
    let fail = |what: String| -> Report {
        let faults: Vec<String> = faults(seed, setup).iter().map(ToString::to_string).collect();
        panic!("seed {seed}, {setup:?}\n{}\n{what}", faults.join("\n"))
    };
    let report = once().unwrap_or_else(fail);
    let again = once().unwrap_or_else(fail);
    assert_eq!(report, again, "seed {seed} is not reproducible");
    report
}

fn swarm(setup: &Setup, count: u64) -> Vec<Report> {
    let reports: Vec<Report> =
        mainstay_sim::seeds(0..count).map(|seed| twice(seed, setup)).collect();
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!(
        "{} runs: {} events, {} answered, {} unknown, {} refused, {} faults, {} crashes ({} by power, {} in a write), \
         {} disks lost, {} restarts in the process, {} checkpoints, {} runs with possible loss",
        reports.len(),
        sum(|run| run.steps),
        sum(|run| run.answered as u64),
        sum(|run| run.unknown as u64),
        sum(|run| run.refused),
        sum(|run| run.stats.faults),
        sum(|run| run.stats.crashes),
        sum(|run| run.stats.power),
        sum(|run| run.stats.unfinished),
        sum(|run| run.stats.lost),
        sum(|run| run.restarts),
        sum(|run| run.checkpoints),
        sum(|run| u64::from(run.maybe_lost)),
    );
    reports
}

/// With disks nothing was lost, or the run had failed. If all restart in the middle of a view change the group may still
/// say that something may be lost: it does not know better. Nor may that be the usual case.
fn alarms_are_rare(reports: &[Report]) {
    let alarms = reports.iter().filter(|report| report.maybe_lost).count();
    assert!(alarms * 30 <= reports.len(), "{alarms} of {} runs", reports.len());
}

/// Checks PD-30, PD-31 and MC-10 in the composition: histories are linearisable, states equal, nothing acknowledged is
/// lost, with crashes of all nodes, and the loss of one disk at a time; and MB-23, with clocks that differ in their rate by
/// up to a fifth.
#[test]
fn three_nodes_on_disk() {
    alarms_are_rare(&swarm(&Setup::new(3, Durability::Disk), 60));
}

/// The same with five nodes, of whose disks two may be lost at a time.
#[test]
fn five_nodes_on_disk() {
    alarms_are_rare(&swarm(&Setup::new(5, Durability::Disk), 20));
}

/// The same in memory, where a minority may be lost at a time.
#[test]
fn three_nodes_in_memory() {
    alarms_are_rare(&swarm(&Setup::new(3, Durability::Memory), 30));
}

/// A state that takes three quarters of a second to restore, three times as long as a member may be silent.
const HEAVY: Weight =
    Weight { chunks: 750, faster: 9, first_snapshot_breaks: false, copied_at_once: false };
/// No turn is longer, whatever the size of the state.
const TURN_MAX: Duration = Duration::from_millis(10);

fn heavy(nodes: usize, durability: Durability) -> Setup {
    Setup { weight: HEAVY, ..Setup::new(nodes, durability) }
}

/// All nodes are killed at once, and nothing else happens to them.
fn all_killed(nodes: usize) -> Vec<FaultEvent> {
    let at = Instant::ZERO + Duration::from_millis(3_000);
    let killed = |node| {
        let (disk, moment) = (Disk::Kept, Moment::Now);
        let length = Duration::from_millis(20 + 40 * node as u64);
        FaultEvent { at, fault: Fault::Crash { node, length, disk, moment } }
    };
    (0..nodes).map(killed).collect()
}

/// Checks that a turn is bounded in work whatever the size of the state: with heavy states under all faults everything
/// holds that holds with light ones, and no turn is long (PD-30, PD-31, MC-10, MB-23).
#[test]
fn heavy_states_make_no_long_turns() {
    let all = [
        (3, Durability::Disk, 0..150),
        (3, Durability::Memory, 1_000..1_060),
        (5, Durability::Disk, 2_000..2_015),
    ];
    for (nodes, durability, range) in all {
        let setup = heavy(nodes, durability);
        for seed in mainstay_sim::seeds(range) {
            let report = match seed % 10 {
                0 => twice(seed, &setup),
                _ => run(seed, &setup, faults(seed, &setup)).unwrap_or_else(|what| {
                    let faults: Vec<_> =
                        faults(seed, &setup).iter().map(ToString::to_string).collect();
                    panic!("seed {seed}, {setup:?}\n{}\n{what}", faults.join("\n"));
                }),
            };
            assert!(report.longest <= TURN_MAX, "seed {seed}: {:?}", report.longest);
        }
    }
}

/// Checks that reads count, too: however many come at once, and however long each takes, no turn is long.
#[test]
fn many_reads_at_once_make_no_long_turn() {
    for local in [false, true] {
        let longest = look_at_once(None, local);
        assert!(longest <= TURN_MAX, "local {local}: {longest:?}");
        let longest = look_at_once(Some(Duration::from_secs(3_600)), local);
        assert!(longest > TURN_MAX, "local {local}: {longest:?}, and nothing is noticed");
    }
}

/// Checks that members which come back with a heavy state, all at once and under load, do not take each other for dead
/// (MB-21): they are heard while they restore.
#[test]
fn nobody_dies_of_a_heavy_state() {
    let setup = heavy(3, Durability::Disk);
    for seed in mainstay_sim::seeds(0..20) {
        let report = run(seed, &setup, all_killed(3)).unwrap();
        assert_eq!((report.restarts, report.silent), (0, 0), "seed {seed}: {report:?}");
        assert!(report.longest <= TURN_MAX, "seed {seed}: {:?}", report.longest);
    }
}

/// Checks that the same is noticed where a turn does all there is to do.
#[test]
fn turns_without_a_bound_are_noticed() {
    let turn_work = Some(Duration::from_secs(3_600));
    let setup = Setup { turn_work, ..heavy(3, Durability::Disk) };
    let report = run(0, &setup, all_killed(3)).unwrap();
    println!("{report:?}");
    assert!(report.longest > TURN_MAX);
    assert!(report.restarts > 0 || report.silent > 0, "{report:?}");
}

/// Checks that a snapshot of the user's that panics costs one checkpoint, and not all that follow.
#[test]
fn a_snapshot_that_panics_costs_one_checkpoint() {
    let weight = Weight { first_snapshot_breaks: true, chunks: 1, ..Weight::default() };
    let setup = Setup { weight, ..Setup::new(3, Durability::Disk) };
    let report = run(0, &setup, Vec::new()).unwrap();
    assert!(report.checkpoints > 0, "{report:?}");
}

/// Checks that a state is noticed whose first write behind a snapshot copies all of it.
#[test]
fn a_copy_of_the_whole_state_is_noticed() {
    let weight = Weight { copied_at_once: true, ..HEAVY };
    let setup = Setup { weight, ..Setup::new(3, Durability::Disk) };
    let report = run(0, &setup, Vec::new()).unwrap();
    println!("{report:?}");
    assert!(report.longest > TURN_MAX);
}

/// A broken variant must be noticed within so many seeds, by what clients were told.
fn is_noticed(setup: &Setup, most: u64) {
    let by_clients = |what: &String| what.contains("not linearisable") || what.contains("counter");
    let found = (0..most).find_map(|seed| {
        let found = run(seed, setup, faults(seed, setup)).err().filter(by_clients);
        found.map(|what| (seed, what))
    });
    println!("{found:?}");
    assert!(found.is_some(), "not noticed in {most} runs: {setup:?}");
}

/// Checks that clients which take the state of a node as it is for the present one are noticed.
#[test]
fn stale_reads_are_noticed() {
    is_noticed(&Setup { stale_reads: true, ..Setup::new(3, Durability::Disk) }, 20);
}

/// Checks that disks which say that they have forced what they have not are noticed.
#[test]
fn lying_disks_are_noticed() {
    is_noticed(&Setup { lying_disks: true, ..Setup::new(3, Durability::Disk) }, 40);
}
