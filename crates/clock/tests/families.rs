//! The clock service with each family of algorithms, a liar among the nodes, and one node that is paused for less than it is told of, or crashes and
//! comes back at any moment of a round with a wall clock that is an hour off: CLK-1, CLK-2, CLK-3, CLK-10.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_agreement::sign::Keyring;
use mainstay_base::service::Service as _;
use mainstay_base::{ClusterId, Duration, Instance, Instant, Rng};
use mainstay_clock::fault::Fault as Broken;
use mainstay_clock::sync::global::{Config, Event, Global, GlobalClock, Promise};
use mainstay_clock::sync::{self, Function, Kind, Message, Mount, Origin, Plan, Reading};
use mainstay_sim::service::{ServiceNode, Setup};
use mainstay_sim::{Atlas, Clock, Disk, Fault, Moment, Options, Stuck, Wire, World};

const EPOCH: Duration = Duration::from_secs(1_000);
const NODES: usize = 7;
const LIAR: usize = 6;
const HOUR: i64 = 3_600_000_000_000;

fn instance() -> Instance {
    Instance::new(ClusterId::from_entropy(1), "clock")
}

fn kinds() -> Vec<Kind> {
    let averaging = |function, reading| Kind::Averaging { function, reading };
    vec![
        averaging(Function::Midpoint, Reading::ARRIVAL),
        averaging(Function::Average, Reading::ARRIVAL),
        averaging(Function::Fast, Reading::ROUND_TRIP),
        averaging(Function::Egocentric, Reading::ARRIVAL),
        Kind::Agreement { signed: false },
        Kind::Agreement { signed: true },
        Kind::Srikanth { signed: false },
        Kind::Srikanth { signed: true },
        Kind::Halpern,
    ]
}

/// A clock that is an hour ahead, of which it is sure.
fn lie(message: Message) -> Message {
    match message {
        Message::Tick { round, value, pull, .. } => {
            Message::Tick { round, value: value + HOUR, sure: true, pull }
        }
        Message::Reply { nonce, value, error, held, .. } => {
            Message::Reply { nonce, value: value + HOUR, error, term: 0, held }
        }
        other => other,
    }
}

#[derive(Clone, Default)]
struct Seat {
    clock: GlobalClock,
    local: Arc<AtomicU64>,
    boots: u64,
}

#[derive(Clone, Copy)]
struct Seen {
    boots: u64,
    real: u64,
    time: u64,
    synchronised: bool,
}

struct Run {
    world: World<ServiceNode<Event>>,
    seats: Rc<RefCell<Vec<Seat>>>,
    plan: Arc<Plan>,
    promise: Promise,
    seen: Vec<Option<Seen>>,
    /// The first node is wrong, and does not know yet.
    exempt: bool,
}

impl Run {
    fn new(seed: u64, kind: Kind, broken: Option<Broken>) -> Self {
        let mut rng = Rng::new(seed).stream("families");
        let mut config = sync::Config::lan(kind, NODES, 2);
        config.period = Duration::from_millis(500);
        config.fault = broken;
        let plan = Arc::new(Plan::new(config).unwrap());
        let config = plan.config().clone();
        let seats: Rc<RefCell<Vec<Seat>>> =
            Rc::new(RefCell::new((0..NODES).map(|_| Seat::default()).collect()));
        let initial = config.initial.as_nanos() as u64 + 1;
        let skews: Vec<i64> = (0..NODES).map(|_| rng.below(initial) as i64).collect();
        let (inner, shared) = (Arc::clone(&plan), Rc::clone(&seats));
        let setup = Setup::new(move |node| {
            let seat = &mut shared.borrow_mut()[node.index];
            seat.clock = GlobalClock::new();
            seat.boots += 1;
            let local = Arc::clone(&seat.local);
            local.store(node.now.as_nanos(), Ordering::Relaxed);
            let read = move || Instant::from_nanos(local.load(Ordering::Relaxed));
            seat.clock.attach(Arc::new(read));
            // The wall clock was set meanwhile.
            let off = if seat.boots > 1 { HOUR } else { 0 };
            let mount = Mount {
                plan: Arc::clone(&inner),
                nodes: node.roster.into(),
                origin: Origin::Together(skews[node.index] + off),
                keys: Some(Keyring::ideal(node.index, NODES, 11)),
            };
            let mut config = Config::new(mount, seat.clock.clone()).unwrap();
            config.reserve = Some(inner.config().period * 4);
            config.fault = broken;
            node.mount::<Global>(instance(), config);
            node.read::<Global>(instance(), |event| event);
            if node.index == LIAR {
                node.twist::<Global>(instance(), |_, message| vec![lie(message)]);
            }
        });
        let drift = u64::from(config.drift.parts()) * 9 / 10;
        let drifts: Vec<i64> =
            (0..NODES).map(|_| rng.below(2 * drift + 1) as i64 - drift as i64).collect();
        let setup = setup.clocks(move |node| Clock::new(EPOCH, drifts[node]));
        let mut options = Options::calm(Wire::Channel);
        options.delay = config.delay.min;
        options.spread = config.delay.max - options.delay;
        options.atlas = Atlas { down: 1, lost: 0 };
        options.reconnect = Duration::from_millis(1);
        options.telling = Duration::from_millis(1);
        let world = World::with_schedule(seed, NODES, setup, options, Vec::new());
        let promise = Promise::of(&plan).unwrap();
        Self { world, seats, plan, promise, seen: vec![None; NODES], exempt: false }
    }

    fn is_synchronised(&self, node: usize) -> bool {
        let seat = &self.seats.borrow()[node];
        seat.local.store(self.world.local(node).as_nanos(), Ordering::Relaxed);
        seat.clock.is_synchronised()
    }

    /// Runs for so many periods, and looks at each step.
    fn periods(&mut self, periods: f64) -> Result<(), String> {
        let (seats, promise, exempt) = (Rc::clone(&self.seats), self.promise, self.exempt);
        let (mut seen, mut found) = (std::mem::take(&mut self.seen), None);
        let look = |world: &World<ServiceNode<Event>>| {
            found = look(world, &seats.borrow(), &promise, exempt, &mut seen).err();
            found.is_some()
        };
        match self.world.run_until(look, self.plan.config().period.mul_f64(periods)) {
            Ok(()) | Err(Stuck::TimedOut { .. }) => {}
            Err(stuck) => return Err(stuck.to_string()),
        }
        self.seen = seen;
        found.map_or(Ok(()), Err)
    }

    /// All correct clocks are synchronised within so many periods.
    fn comes_back(&mut self, periods: u32) -> Result<(), String> {
        for _ in 0..periods {
            if (0..LIAR).all(|node| self.is_synchronised(node)) {
                return Ok(());
            }
            self.periods(1.0)?;
        }
        let why = |node: &usize| {
            let status = self.world.node(*node)?.service::<Global>(instance())?.status();
            Some((*node, status.unsynchronised?))
        };
        let lost: Vec<_> = (0..LIAR).filter_map(|node| why(&node)).collect();
        if lost.is_empty() { Ok(()) } else { Err(format!("not all came back: {lost:?}")) }
    }
}

fn look(
    world: &World<ServiceNode<Event>>,
    seats: &[Seat],
    promise: &Promise,
    exempt: bool,
    seen: &mut [Option<Seen>],
) -> Result<(), String> {
    let (mut low, mut high) = (u64::MAX, 0);
    for node in 0..LIAR {
        if world.node(node).is_none() {
            continue;
        }
        let seat = &seats[node];
        seat.local.store(world.local(node).as_nanos(), Ordering::Relaxed);
        let (time, synchronised) = (seat.clock.now().0.as_nanos(), seat.clock.is_synchronised());
        let now = Seen { boots: seat.boots, real: world.now().as_nanos(), time, synchronised };
        let last = seen[node].replace(now).unwrap_or(now);
        if time < last.time {
            return Err(format!("CLK-1, CLK-10: {node} goes back by {}", last.time - time));
        }
        let (spent, passed) = (time - last.time, now.real - last.real);
        let most = u128::from(passed) * u128::from(promise.rate) / 1_000_000_000 + 3;
        let is_promised = last.boots == now.boots && last.synchronised && synchronised;
        if is_promised && world.is_up(node) && u128::from(spent.abs_diff(passed)) > most {
            return Err(format!("CLK-3: {node} makes {spent} of {passed} ns"));
        }
        if synchronised && !(exempt && node == 0) {
            (low, high) = (low.min(time), high.max(time));
        }
        // Synchronised or not, it does not follow a liar, nor a wall clock that was set.
        let truth = (EPOCH.as_nanos() as u64) + now.real;
        if time > truth + (HOUR / 4) as u64 {
            return Err(format!("CLK-1: {node} is {} ns ahead", time - truth));
        }
    }
    if low <= high && u128::from(high - low) > promise.precision.as_nanos() {
        return Err(format!("CLK-2: a skew of {}, {:?} at most", high - low, promise.precision));
    }
    Ok(())
}

/// Node 0 crashes, and begins again at any moment of a round.
fn crashes(seed: u64, broken: Option<Broken>) -> Result<(), String> {
    let all = kinds();
    let kind = all[seed as usize % all.len()].clone();
    let what = format!("{kind:?}");
    let mut rng = Rng::new(seed).stream("crash");
    let mut run = Run::new(seed, kind, broken);
    let period = run.plan.config().period;
    let go = |run: &mut Run, rng: &mut Rng| {
        run.periods(3.0 + rng.below(1_000) as f64 / 1_000.0)?;
        // Now and then it begins just when a round comes.
        let into = Duration::from_micros(rng.below(20_000));
        let round =
            period - Duration::from_nanos(run.world.now().as_nanos() % period.as_nanos() as u64);
        let length = if rng.chance(1, 2) { round + period + into } else { period + into * 20 };
        let moment = Moment::Now;
        run.world.inject(Fault::Crash { node: 0, length, disk: Disk::Kept, moment });
        run.periods(4.0)?;
        run.comes_back(run.plan.bounds().joining + 10)
    };
    go(&mut run, &mut rng)
        .and_then(|()| go(&mut run, &mut rng))
        .map_err(|it| format!("{what}: {it}"))
}

/// Node 0 is paused for two fifths of a period: it is not told.
fn pauses(seed: u64, broken: Option<Broken>) -> Result<(), String> {
    let all = kinds();
    let kind = all[seed as usize % all.len()].clone();
    let what = format!("{kind:?}");
    let mut rng = Rng::new(seed).stream("pause");
    let mut run = Run::new(seed, kind, broken);
    let mut go = || {
        for _ in 0..3 {
            run.periods(2.55 + rng.below(50) as f64 / 100.0)?;
            let length = run.plan.config().period.mul_f64(0.4);
            run.world.inject(Fault::Pause { node: 0, length });
            run.exempt = true;
            for step in 0..40 {
                run.periods(0.05)?;
                // As soon as it has lost the others, or a round is over, it counts again.
                run.exempt &= step < 32 && run.is_synchronised(0);
            }
            run.exempt = false;
            run.comes_back(run.plan.bounds().joining + 4)?;
        }
        Ok(())
    };
    go().map_err(|it: String| format!("{what}: {it}"))
}

fn each(seeds: u64, check: impl Fn(u64) -> Result<(), String> + Sync) {
    let next = AtomicU64::new(0);
    let failed = std::sync::Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || failed.lock().unwrap().is_some() {
                        break;
                    }
                    if let Err(what) = check(seed) {
                        *failed.lock().unwrap() = Some(format!("seed {seed}: {what}"));
                    }
                }
            });
        }
    });
    assert_eq!(failed.into_inner().unwrap(), None);
}

/// Checks CLK-1, CLK-2, CLK-3, CLK-10, CLK-21 for a node that begins again.
#[test]
fn a_node_comes_back_at_any_moment_of_a_round() {
    each(180, |seed| crashes(seed, None));
}

/// Checks CLK-2, CLK-3 for a node that sleeps for less than it is told of.
#[test]
fn a_node_that_is_paused_for_less_than_it_is_told_of() {
    each(90, |seed| pauses(seed, None));
}

fn noticed(broken: Broken, by: &str, check: fn(u64, Option<Broken>) -> Result<(), String>) {
    let found = (0..90).find_map(|seed| check(seed, Some(broken)).err());
    let found = found.unwrap_or_else(|| panic!("{broken:?} is not noticed"));
    assert!(found.contains(by), "{broken:?} is noticed as {found}");
}

/// Checks CLK-2: the wall clock of one that comes back is an hour off.
#[test]
fn a_wall_clock_that_is_taken_for_the_common_time_is_noticed() {
    noticed(Broken::TogetherAgain, "CLK-1:", crashes);
}

/// Checks CLK-2: a time that nothing has confirmed is noticed.
#[test]
fn a_time_that_is_believed_at_once_is_noticed() {
    noticed(Broken::BelievesAtOnce, "CLK-", pauses);
}
