//! Services in the swarm: the right register holds beside one that watches it, broken ones are found and shrunk.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
#[path = "support/client.rs"]
mod client;
#[allow(unreachable_pub, reason = "shared by tests")]
#[path = "support/toy.rs"]
mod toy;

use std::collections::BTreeMap;
use std::hash::Hash as _;

use client::{Client, Hosts};
use mainstay_base::service::{Address, Service as _};
use mainstay_base::{ClusterId, Duration, Fingerprinter, Instance, Instant, NodeId, Rng};
use mainstay_sim::service::{Costs, Judge, Scope, ServiceNode, Setup, Views};
use mainstay_sim::{
    Action, Atlas, Beyond, Disk, Fault as Crash, FaultEvent, Moment, Options, Point, Report,
    Search, Seen, Stuck, Wire, World, explore, schedule, shrink,
};
use toy::{Command, Config, Event, Fault, Register, Watcher};

const NODES: usize = 3;

fn instance() -> Instance {
    Instance::new(ClusterId::from_entropy(1), "register")
}

fn setup(fault: Option<Fault>, views: Option<Views>, work: Duration) -> Setup<Event> {
    let setup = Setup::new(move |node| {
        let config = Config { nodes: node.roster.to_vec(), fault, work };
        node.mount::<Register>(instance(), config);
        node.mount::<Watcher>(instance(), instance());
        node.listen::<Register, Watcher>(instance(), instance());
        node.read::<Register>(instance(), |event| event);
    });
    let setup = setup.window(4).datagrams_lost(200).compact_after(10);
    match views {
        Some(views) => setup.views(views),
        None => setup,
    }
}

impl Hosts for ServiceNode<Event> {
    fn register(&self) -> Option<&Register> {
        self.service::<Register>(instance())
    }

    fn command(&mut self, now: Instant, command: Command) {
        Self::command::<Register>(self, now, instance(), command);
    }
}

struct Ran {
    hash: u128,
    seen: Seen,
    reads: u64,
    spent: Costs,
}

fn run(
    seed: u64,
    fault: Option<Fault>,
    options: &Options,
    schedule: &[FaultEvent],
) -> Result<Ran, String> {
    let mut rng = Rng::new(seed).stream("client");
    let views =
        (!seed.is_multiple_of(3)).then(|| Views { unjust: (seed % 3 - 1) * 2, ..Views::default() });
    let work = Duration::from_micros(rng.below(200));
    let setup = setup(fault, views, work);
    let spent = setup.costs();
    let (options, schedule) = (options.clone(), schedule.to_vec());
    let world: World<ServiceNode<Event>> =
        World::with_schedule(seed, NODES, setup, options.clone(), schedule);
    let mut run = Client::new(world, NODES, rng);
    run.work(120, Duration::from_millis(35), Duration::from_secs(20))?;
    let mut seen = run.world.seen().clone();
    for node in 0..NODES {
        let Some(node) = run.world.node(node) else { continue };
        let of = |is: bool, what| is.then_some(what);
        let register = node.service::<Register>(instance()).unwrap();
        let (asked, told) = node.service::<Watcher>(instance()).unwrap().status();
        let marks = [
            of(register.hints() > 0, "a datagram"),
            of(register.views() > 1, "several views"),
            of(asked > 0 && told > asked, "asked and told"),
        ];
        marks.into_iter().flatten().for_each(|what| seen.mark(what));
    }
    for node in 0..NODES {
        if !run.world.durable(node).checkpoints.is_empty() {
            seen.mark("a checkpoint");
        }
    }
    let address = Address { channel: Register::CHANNEL, instance: instance() };
    let spent = spent.borrow().get(&address).copied().unwrap_or_default();
    Ok(Ran { hash: run.world.hash(), seen, reads: run.reads, spent })
}

fn options(seed: u64) -> Options {
    Options::from_seed(seed, Wire::Channel, Atlas { down: 1, lost: 0 })
}

/// Checks OV-4 and OV-6: pauses, removals without reason and a network without bounds cost no acknowledged value, and the
/// healed nodes answer.
#[test]
fn a_right_register_is_never_found_wrong() {
    let (mut seen, mut reads) = (Seen::default(), 0);
    for seed in 0..300 {
        let options = options(seed);
        match run(seed, None, &options, &schedule(seed, NODES, &options)) {
            Ok(ran) => {
                seen.add(&ran.seen);
                reads += ran.reads;
            }
            Err(violation) => panic!("seed {seed}, {options}: {violation}"),
        }
    }
    println!("{reads} reads, {seen:?}");
    seen.assert_all(&["a datagram", "several views", "asked and told", "a checkpoint"]);
    assert!(reads > 3_000, "{reads}");
}

/// Checks OV-3: equal seeds give equal runs.
#[test]
fn equal_seeds_are_equal_runs() {
    let mut hashes = Vec::new();
    for seed in 0..20 {
        let options = options(seed);
        let schedule = schedule(seed, NODES, &options);
        let once = || run(seed, None, &options, &schedule).unwrap();
        let (first, second) = (once(), once());
        assert_eq!((first.hash, first.spent), (second.hash, second.spent), "seed {seed}");
        hashes.push(first.hash);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 20);
}

/// Each planted fault is found, and the schedule that finds it shrinks to a few faults that it needs.
#[test]
fn planted_faults_are_found_and_shrunk() {
    let all = [Fault::AcksEarly, Fault::NoWriteBack, Fault::ForgetsPast, Fault::KeepsTooLittle];
    for fault in all {
        let found = (0..3_000).find_map(|seed| {
            let options = options(seed);
            let schedule = schedule(seed, NODES, &options);
            let error = run(seed, Some(fault), &options, &schedule).err()?;
            Some((seed, options, schedule, error))
        });
        let (seed, options, schedule, error) = found.unwrap_or_else(|| panic!("{fault:?}"));
        // Records that are gone show in the numbers of the next ones as well.
        let is_noticed =
            error.contains("was acknowledged") || error.contains("persists Io(1) after");
        assert!(is_noticed, "{fault:?}, seed {seed}: {error}");
        let fails = |part: &[FaultEvent]| run(seed, Some(fault), &options, part).is_err();
        let left = shrink(schedule.clone(), fails);
        println!("{fault:?}: seed {seed}, {} faults, {} left", schedule.len(), left.len());
        assert!(
            left.len() <= schedule.len() / 2,
            "{fault:?}: {} left of {}",
            left.len(),
            schedule.len()
        );
        assert!(run(seed, None, &options, &left).is_ok(), "the right register bears these faults");
    }
}

/// Checks OV-13: a write of a calm register costs two rounds to all others and back, and one forced write a node.
#[test]
fn what_a_write_costs() {
    let setup = setup(None, None, Duration::ZERO);
    let spent = setup.costs();
    let mut world: World<ServiceNode<Event>> =
        World::new(1, NODES, setup, Options::calm(Wire::Channel));
    world.run(Duration::from_millis(100)).unwrap();
    let write = Command::Write { op: 1, value: 1 };
    world.call(0, |node, now| node.command::<Register>(now, instance(), write));
    world.run(Duration::from_millis(100)).unwrap();
    let address = Address { channel: Register::CHANNEL, instance: instance() };
    let costs = spent.borrow()[&address];
    // Forced writes part the chain of messages: the answer to a store is of another turn.
    assert_eq!((costs.messages, costs.forced, costs.rounds), (8, 3, 3));
    assert_eq!(costs.datagrams, 3);
    assert!(costs.bytes > 0);
}

type Small = World<ServiceNode<Event>>;

/// Node 0 writes and reads, in a calm world but for these faults; the world, and what was read.
fn scripted(fault: Option<Fault>, script: &[FaultEvent]) -> Result<(Small, Vec<u64>), String> {
    let mut options = Options::calm(Wire::Channel);
    options.atlas = Atlas { down: 2, lost: 0 };
    let setup = setup(fault, None, Duration::ZERO);
    let mut world: Small = World::with_schedule(1, NODES, setup, options, script.to_vec());
    world.capture();
    let mut read = Vec::new();
    for (at, command) in [
        (0, Command::Write { op: 1, value: 1 }),
        (1, Command::Read { op: 2 }),
        (2, Command::Write { op: 3, value: 3 }),
        (0, Command::Read { op: 4 }),
    ] {
        world.run(Duration::from_millis(300)).map_err(|stuck| stuck.to_string())?;
        world.call(at, |node, now| node.command::<Register>(now, instance(), command));
    }
    world.run(Duration::from_millis(300)).map_err(|stuck| stuck.to_string())?;
    let mut written = 0;
    for (_, _, event) in world.take_events() {
        match event {
            Event::Written { value, .. } => written = value,
            Event::Read { value, .. } if value < written => {
                return Err(format!("a read answers {value}, {written} was acknowledged"));
            }
            Event::Read { value, .. } => read.push(value),
        }
    }
    Ok((world, read))
}

fn crash(node: usize, at: Duration, moment: Moment) -> FaultEvent {
    let length = Duration::from_millis(50);
    let fault = Crash::Crash { node, length, disk: Disk::Kept, moment };
    FaultEvent { at: Instant::ZERO + at, fault }
}

/// Checks OV-1: what is beyond the model ends a strict world, with the fault and what is against it; another one leaves it out.
#[test]
fn what_is_beyond_the_model_is_refused() {
    let lost = Crash::Crash {
        node: 0,
        length: Duration::from_millis(50),
        disk: Disk::Empty,
        moment: Moment::At(Point { action: Action::Receive, number: 3 }),
    };
    let now = Duration::from_millis(10);
    let cases = [
        (vec![crash(0, now, Moment::Now)], None),
        (vec![crash(NODES, now, Moment::MidWrite)], Some(Beyond::Nobody)),
        (vec![crash(0, now, Moment::Now), crash(0, now, Moment::Now)], Some(Beyond::Down)),
        (
            vec![crash(0, now, Moment::Now), crash(1, now, Moment::Now)],
            Some(Beyond::TooManyDown(1)),
        ),
        (vec![FaultEvent { at: Instant::ZERO, fault: lost }], Some(Beyond::TooManyLost(0))),
    ];
    for (script, beyond) in cases {
        let mut options = Options::calm(Wire::Channel);
        options.atlas = Atlas { down: 1, lost: 0 };
        let world = || -> Small {
            let setup = setup(None, None, Duration::ZERO);
            World::with_schedule(1, NODES, setup, options.clone(), script.clone())
        };
        let write = Command::Write { op: 1, value: 1 };
        let run = |world: &mut Small| {
            world.run(now / 2).unwrap();
            world.call(1, |node, now| node.command::<Register>(now, instance(), write));
            world.run(Duration::from_millis(200))
        };
        let told = match run(&mut world().strict()) {
            Err(Stuck::Beyond { fault, why }) => Some((fault, why)),
            other => {
                assert_eq!(other, Ok(()));
                None
            }
        };
        assert_eq!(told.as_ref().map(|told| told.1), beyond, "{script:?}");
        let mut lenient = world();
        run(&mut lenient).unwrap();
        assert_eq!(lenient.stats().skipped, u64::from(beyond.is_some()), "{script:?}");
    }
}

/// Checks OV-10: each point of the run at which a node can crash has a name. None of them costs an acknowledged value, and one of
/// them shows a planted fault.
#[test]
fn a_crash_at_each_point_of_a_run() {
    let (calm, read) = scripted(None, &[]).unwrap();
    assert_eq!(read, [1, 3]);
    let (mut runs, mut noticed) = (0, 0);
    for node in 0..NODES {
        for (action, count) in calm.points(node) {
            for number in 1..=*count {
                let at_point = Moment::At(Point { action: *action, number });
                // One of the others crashes between the first write and the first read.
                let script = [
                    crash(node, Duration::ZERO, at_point),
                    crash((node + 1) % NODES, Duration::from_millis(450), Moment::Now),
                ];
                let (world, _) =
                    scripted(None, &script).unwrap_or_else(|it| panic!("{script:?}: {it}"));
                assert_eq!(world.stats().restarts, 2, "{script:?}");
                noticed += usize::from(scripted(Some(Fault::ForgetsPast), &script).is_err());
                runs += 1;
            }
        }
    }
    println!("{runs} points, a planted fault is noticed at {noticed}");
    assert!(runs > 60 && noticed > 0);
}

/// Checks OV-12: what a former boot said, and what was said already, changes nothing when it is said again.
#[test]
fn messages_that_come_again_change_nothing() {
    let moment = Moment::At(Point { action: Action::Receive, number: 30 });
    let (mut world, _) = scripted(None, &[crash(1, Duration::ZERO, moment)]).unwrap();
    let count = world.captured().len();
    assert!(count > 60);
    let sent = world.stats().sent;
    for index in 0..count {
        let to = world.captured()[index].to;
        assert!(world.replay(index, to));
    }
    world.run(Duration::from_millis(10)).unwrap();
    assert_eq!(world.take_events(), []);
    assert_eq!(world.stats().sent, sent, "nobody answers");
}

/// A read answers no less than what was acknowledged when it was given; all operations of nodes that did not crash are answered.
#[derive(Clone, Default)]
struct Regular {
    floors: BTreeMap<u64, u64>,
    acknowledged: u64,
}

impl Judge<Register> for Regular {
    fn commanded(&mut self, _: usize, command: &Command) {
        let (Command::Write { op, .. } | Command::Read { op }) = *command;
        self.floors.insert(op, self.acknowledged);
    }

    fn told(&mut self, _: usize, event: &Event) -> Result<(), String> {
        let (Event::Written { op, value } | Event::Read { op, value }) = *event;
        let floor = self.floors.remove(&op).unwrap_or(0);
        if matches!(event, Event::Read { .. }) && value < floor {
            return Err(format!("a read answers {value}, {floor} was acknowledged"));
        }
        self.acknowledged = self.acknowledged.max(value);
        Ok(())
    }

    fn fingerprint(&self, into: &mut Fingerprinter) {
        (&self.floors, self.acknowledged).hash(into);
    }
}

fn explored(fault: Option<Fault>) -> Report {
    let config = move |_: usize, roster: &[NodeId]| Config {
        nodes: roster.to_vec(),
        fault,
        work: Duration::ZERO,
    };
    let scope = Scope::<Register, _>::new(3, config, Regular::default())
        .command(0, Command::Write { op: 1, value: 1 })
        .command(1, Command::Read { op: 2 })
        .faults(1, 0);
    explore(scope, Search::Breadth, 1 << 20)
}

/// Every order of a write, a read and a crash, with the broken register found on the shortest way.
#[test]
fn every_order_of_a_small_scope() {
    let report = explored(None);
    println!("{} states, depth {}, {} ends", report.states, report.depth, report.ends);
    assert_eq!(report.violation, None);
    assert!(report.complete && report.states > 10_000, "{report:?}");
    let broken = explored(Some(Fault::AcksEarly));
    let violation = broken.violation.expect("it is found");
    println!("{violation}");
    assert!(violation.what.contains("was acknowledged"));
}
