//! The clock service with each family of algorithms, a liar among the nodes, and one node that is paused for less than it is told of, or crashes and
//! comes back at any moment of a round with a wall clock that is an hour off: CLK-1, CLK-2, CLK-3, CLK-10.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod seats;

use std::sync::Arc;

use mainstay_base::service::Service as _;
use mainstay_base::{Duration, Rng};
use mainstay_clock::fault::Fault as Broken;
use mainstay_clock::sync::global::{Event, Global, Promise};
use mainstay_clock::sync::{self, Function, Kind, Message, Origin, Plan, Reading};
use mainstay_sim::service::{ServiceNode, Setup};
use mainstay_sim::{Clock, Disk, Fault, Moment, Stuck, World};

use seats::{EPOCH, Seat, Seats, Seen, each, instance};

const NODES: usize = 7;
const LIAR: usize = 6;
const HOUR: i64 = 3_600_000_000_000;

fn kinds() -> Vec<Kind> {
    let averaging = |function, reading| Kind::Averaging { function, reading };
    vec![
        averaging(Function::Midpoint, Reading::ARRIVAL),
        averaging(Function::Average, Reading::ARRIVAL),
        averaging(Function::Fast, Reading::ROUND_TRIP),
        averaging(Function::Egocentric, Reading::ARRIVAL),
        Kind::agreement(false),
        Kind::agreement(true),
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

struct Run {
    world: World<ServiceNode<Event>>,
    seats: Seats,
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
        let seats = seats::seats(NODES);
        let initial = config.initial.as_nanos() as u64 + 1;
        let skews: Vec<i64> = (0..NODES).map(|_| rng.below(initial) as i64).collect();
        let (inner, shared) = (Arc::clone(&plan), Seats::clone(&seats));
        let setup = Setup::new(move |node| {
            let seat = &mut shared.borrow_mut()[node.index];
            let clock = seat.boot(node.now);
            // The wall clock was set meanwhile.
            let off = if seat.boots > 1 { HOUR } else { 0 };
            let origin = Origin::Together(skews[node.index] + off);
            let place = (node.roster, node.index);
            let config = seats::config(&inner, place, origin, clock, broken);
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
        let options = seats::network(&config);
        let world = World::with_schedule(seed, NODES, setup, options, Vec::new());
        let promise = Promise::of(&plan).unwrap();
        Self { world, seats, plan, promise, seen: vec![None; NODES], exempt: false }
    }

    fn is_synchronised(&self, node: usize) -> bool {
        self.seats.borrow()[node].at(self.world.local(node)).is_synchronised()
    }

    /// Runs for so many periods, and looks at each step.
    fn periods(&mut self, periods: f64) -> Result<(), String> {
        let (seats, promise, exempt) = (Seats::clone(&self.seats), self.promise, self.exempt);
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
    let mut readings = Vec::new();
    for node in (0..LIAR).filter(|node| world.node(*node).is_some()) {
        let now = Seen::look(world, node, &seats[node], promise, &mut seen[node])?;
        if now.synchronised && !(exempt && node == 0) {
            readings.push(now.time);
        }
        // Synchronised or not, it does not follow a liar, nor a wall clock that was set.
        let truth = seats::truth(world) as u64;
        if now.time > truth + (HOUR / 4) as u64 {
            return Err(format!("CLK-1: {node} is {} ns ahead", now.time - truth));
        }
    }
    seats::skew(&readings, promise).map(drop)
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
