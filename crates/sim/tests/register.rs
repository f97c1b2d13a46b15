//! The replicated register in the swarm: the right one holds, the one with the planted bug is found and shrunk.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::collections::BTreeMap;

use mainstay_base::{Duration, Rng};
use mainstay_sim::{Atlas, FaultEvent, Options, Seen, Stats, Wire, World, schedule, shrink};
use support::{Event, RETRY, Replica, Setup};

const NODES: usize = 3;

/// One run: the world, and what the client knows.
struct Run {
    world: World<Replica>,
    /// Of each operation, the highest value that was acknowledged when it began.
    begun: BTreeMap<u64, u64>,
    acknowledged: u64,
    operations: u64,
    reads: u64,
    rng: Rng,
}

impl Run {
    fn new(seed: u64, acks_early: bool, options: Options, schedule: Vec<FaultEvent>) -> Self {
        let setup = Setup { acks_early };
        Self {
            world: World::with_schedule(seed, NODES, setup, options, schedule),
            begun: BTreeMap::new(),
            acknowledged: 0,
            operations: 0,
            reads: 0,
            rng: Rng::new(seed).stream("client"),
        }
    }

    /// Begins an operation, if the node is free.
    fn begin(&mut self, node: usize, is_read: bool) {
        let op = self.operations + 1;
        let begun = self.world.call(node, |replica, now| {
            let free = !replica.register.is_busy();
            if free && is_read {
                replica.read(now, op);
            } else if free {
                replica.write(now, op, op);
            }
            free
        });
        if begun == Some(true) {
            self.operations = op;
            self.begun.insert(op, self.acknowledged);
        }
    }

    /// Takes the answers: a read answers no less than what was acknowledged when it began.
    fn answers(&mut self) {
        for (_, _, event) in self.world.take_events() {
            let (Event::Written { op, value } | Event::Read { op, value }) = event;
            self.acknowledged = self.acknowledged.max(value);
            if let Event::Read { .. } = event {
                self.reads += 1;
                let floor = self.begun[&op];
                if value < floor {
                    self.world.fail(format!("a read answers {value}, {floor} was acknowledged"));
                }
            }
        }
    }

    /// Reads at each node of `at` until `limit`.
    fn read_all(&mut self, at: &[usize], limit: Duration) -> Result<(), String> {
        let idle = |world: &World<Replica>| {
            at.iter().all(|node| world.node(*node).is_some_and(|it| !it.register.is_busy()))
        };
        self.world.run_until(idle, limit).map_err(|stuck| stuck.to_string())?;
        self.answers();
        at.iter().for_each(|node| self.begin(*node, true));
        self.world.run_until(idle, limit).map_err(|stuck| stuck.to_string())?;
        self.answers();
        self.world.violation().map_or(Ok(()), |violation| Err(violation.to_owned()))
    }
}

/// Faults; then a core of two must answer; then all.
fn run(
    seed: u64,
    acks_early: bool,
    options: &Options,
    schedule: &[FaultEvent],
) -> Result<(Stats, u128, Seen, u64), String> {
    let mut run = Run::new(seed, acks_early, options.clone(), schedule.to_vec());
    let fault = |stuck: mainstay_sim::Stuck| stuck.to_string();
    // The fewer writes, the longer one that was lost is missed.
    let rarity = run.rng.between(2, 20);
    for _ in 0..120 {
        let wait = Duration::from_micros(run.rng.below(35_000));
        run.world.run(wait).map_err(fault)?;
        run.answers();
        let (node, is_read) = (run.rng.below(NODES as u64) as usize, !run.rng.chance(1, rarity));
        run.begin(node, is_read);
    }
    // Told of broken connections, connected, then two phases of a question, a write and an answer.
    let delay = options.calm_delay_max();
    let stale = (delay + options.delay) * 64;
    let limit =
        stale + options.telling + options.reconnect + RETRY + (delay + options.disk * 100) * 8;
    let core = run.world.pick_core(2);
    run.world.heal_core(&core);
    run.read_all(&core, limit * 2)?;
    run.world.heal();
    run.read_all(&[0, 1, 2], limit * 2)?;
    Ok((run.world.stats(), run.world.hash(), run.world.seen().clone(), run.reads))
}

fn options(seed: u64) -> Options {
    let wire = if seed.is_multiple_of(2) { Wire::Datagram } else { Wire::Channel };
    Options::from_seed(seed, wire, Atlas { down: 1, lost: 0 })
}

/// The right register loses nothing under any faults within its model, a healed majority answers within the bound, and
/// in the end all do.
#[test]
fn a_right_register_is_never_found_wrong() {
    let (mut seen, mut sum, mut reads) = (Seen::default(), Stats::default(), 0);
    for seed in 0..1_000 {
        let options = options(seed);
        match run(seed, false, &options, &schedule(seed, NODES, &options)) {
            Ok((stats, _, now, answered)) => {
                seen.add(&now);
                reads += answered;
                sum.faults += stats.faults;
                sum.skipped += stats.skipped;
                sum.restarts += stats.restarts;
                sum.lost += stats.lost;
                sum.duplicated += stats.duplicated;
                sum.broken += stats.broken;
                sum.steps += stats.steps;
            }
            Err(violation) => panic!("seed {seed}, {options}: {violation}"),
        }
    }
    println!("{sum:?}, {reads} reads");
    seen.assert_all(&["recovered from a disk", "nobody to send to"]);
    assert!(sum.faults > 5_000 && sum.skipped > 100 && sum.restarts > 1_000, "{sum:?}");
    assert!(sum.lost > 10_000 && sum.duplicated > 10_000 && sum.broken > 1_000, "{sum:?}");
    assert!(reads > 20_000);
}

/// Checks OV-3: a seed is a run. Equal seeds give equal hashes, different seeds do not.
#[test]
fn equal_seeds_are_equal_runs() {
    let mut hashes = Vec::new();
    for seed in 0..40 {
        let options = options(seed);
        let schedule = schedule(seed, NODES, &options);
        let once = || run(seed, false, &options, &schedule).unwrap();
        let (first, second) = (once(), once());
        assert_eq!(first, second, "seed {seed}");
        hashes.push(first.1);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 40);
}

/// The planted bug is found within 200 schedules, and shrinks to at most 5 faults, each of which it needs.
#[test]
fn a_planted_bug_is_found_and_shrunk() {
    let found = (0..200).find_map(|seed| {
        let options = options(seed);
        let schedule = schedule(seed, NODES, &options);
        let error = run(seed, true, &options, &schedule).err()?;
        Some((seed, options, schedule, error))
    });
    let (seed, options, schedule, error) = found.expect("a swarm finds the planted bug");
    assert!(error.contains("was acknowledged"), "{error}");
    let fails = |part: &[FaultEvent]| run(seed, true, &options, part).is_err();
    let left = shrink(schedule.clone(), fails);
    println!("seed {seed}, {options}\n{error}\n{} faults, left:", schedule.len());
    left.iter().for_each(|event| println!("  {event}"));
    assert!((1..=5).contains(&left.len()), "{} left of {}", left.len(), schedule.len());
    assert!(run(seed, false, &options, &left).is_ok(), "the right register bears these faults");
}
