//! The clock service in the simulated world of services: CLK-1, CLK-2, CLK-3, CLK-5, CLK-6, CLK-10, CLK-40, CLK-41, with crashes, cuts and pauses;
//! and that each check notices a broken variant.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod seats;

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_base::{Duration, Instant, Rng};
use mainstay_clock::Time;
use mainstay_clock::fault::Fault as Broken;
use mainstay_clock::sync::global::{
    Command, Event, Global, GlobalClock, Now, Promise, Status, Why,
};
use mainstay_clock::sync::{
    self, Delay, Drift, Function, Kind, Message, Origin, Plan, Reading, Stamp,
};
use mainstay_sim::service::{ServiceNode, Setup};
use mainstay_sim::{Clock, Disk, Fault, FaultEvent, Moment, Stuck, World};

use seats::{EPOCH, Seat, Seats, Seen, instance, stands_alone};

const NODES: usize = 4;
/// Periods from one fault to the next.
const EVERY: u32 = 24;
const ROUNDS: u32 = 4;

struct Set {
    node: usize,
    boots: u64,
    at: Time,
    fired: u32,
}

struct Run {
    world: World<ServiceNode<Event>>,
    seats: Seats,
    plan: Arc<Plan>,
    promise: Promise,
    faults: Vec<FaultEvent>,
    seen: Vec<Option<Seen>>,
    timers: BTreeMap<u64, Set>,
    looks: Vec<(usize, u64, u64, Now)>,
    worst: i64,
    liar: Option<usize>,
    rng: Rng,
}

fn averaging(rng: &mut Rng) -> Kind {
    let functions = [Function::Egocentric, Function::Fast, Function::Midpoint, Function::Average];
    let reading = *rng.pick(&[Reading::ARRIVAL, Reading::ROUND_TRIP]).unwrap();
    Kind::Averaging { function: *rng.pick(&functions).unwrap(), reading }
}

/// How far references are from the true time, and clocks at the start of those that hold it.
const ERROR: Duration = Duration::from_millis(2);

/// One of each other class.
fn others() -> [Kind; 6] {
    [
        Kind::agreement(false),
        Kind::agreement(true),
        Kind::Srikanth { signed: false },
        Kind::Probabilistic {
            error_max: Duration::from_millis(2),
            attempts: 20,
            wait: Duration::from_millis(10),
            patience: Duration::from_millis(60),
            stamp: Stamp::Turn,
        },
        Kind::interval(ERROR),
        Kind::External { error: ERROR },
    ]
}

fn plan(rng: &mut Rng, kind: Option<Kind>) -> Plan {
    let kind = kind.unwrap_or_else(|| averaging(rng));
    let mut config = sync::Config::lan(kind, NODES, 1);
    config.drift = Drift::per_billion(rng.between(0, 200_000) as u32);
    let max = Duration::from_micros(rng.between(500, 3_000));
    config.delay = Delay { min: Duration::from_micros(rng.between(1, 500)), max };
    config.period = Duration::from_millis(rng.between(200, 1_000));
    config.initial = Duration::from_micros(rng.between(0, 2_000));
    Plan::new(config).unwrap()
}

/// One fault after the other, each over before the next.
fn faults(rng: &mut Rng, period: Duration) -> Vec<FaultEvent> {
    let draw = |round: u32| {
        let at = Instant::ZERO + period * (round * EVERY) + period / 3 * round;
        let node = rng.below(NODES as u64) as usize;
        let disk = Disk::Kept;
        let moment = if rng.chance(1, 2) { Moment::MidWrite } else { Moment::Now };
        let fault = match rng.below(4) {
            // The first reading is being stored.
            _ if round == 0 => {
                Fault::Crash { node, length: period * 2, disk, moment: Moment::MidWrite }
            }
            0 | 1 => Fault::Crash { node, length: period * 2, disk, moment },
            2 => Fault::Pause { node, length: period * 10 },
            _ => Fault::Partition { side: vec![node], length: period * 10 },
        };
        FaultEvent { at, fault }
    };
    (0..ROUNDS).map(draw).collect()
}

fn victim(fault: &Fault) -> usize {
    match fault {
        Fault::Crash { node, .. } | Fault::Pause { node, .. } => *node,
        Fault::Partition { side, .. } => side[0],
        other => panic!("{other} is not drawn"),
    }
}

impl Run {
    fn new(seed: u64, broken: Option<Broken>) -> Self {
        Self::of(seed, broken, None)
    }

    /// With averaging, if no other class is wanted.
    fn of(seed: u64, broken: Option<Broken>, kind: Option<Kind>) -> Self {
        let mut rng = Rng::new(seed).stream("global");
        let plan = Arc::new(plan(&mut rng, kind));
        let faults = faults(&mut rng, plan.config().period);
        let drift = u64::from(plan.config().drift.parts()) * 9 / 10;
        let drifts = (0..NODES).map(|_| rng.below(2 * drift + 1) as i64 - drift as i64).collect();
        Self::with(seed, broken, plan, faults, drifts, None)
    }

    /// The last clock lies: it says that it is so far ahead to the first half of the nodes, and as far behind to the others.
    fn with(
        seed: u64,
        broken: Option<Broken>,
        plan: Arc<Plan>,
        faults: Vec<FaultEvent>,
        drifts: Vec<i64>,
        lie: Option<i64>,
    ) -> Self {
        let mut rng = Rng::new(seed).stream("run");
        let config = plan.config().clone();
        let seats = seats::seats(NODES);
        let initial = config.initial.as_nanos() as u64 + 1;
        let skews: Vec<i64> = (0..NODES).map(|_| rng.below(initial) as i64).collect();
        let (inner, shared) = (Arc::clone(&plan), Seats::clone(&seats));
        let setup = Setup::new(move |node| {
            let seat = &mut shared.borrow_mut()[node.index];
            let clock = seat.boot(node.now);
            let skew = skews[node.index];
            let origin = match seat.boots {
                1 => Origin::Together(skew),
                _ => Origin::Apart(skew + 43_200_000_000_000),
            };
            let place = (node.roster, node.index);
            let config = seats::config(&inner, place, origin, clock, broken);
            node.mount::<Global>(instance(), config);
            node.read::<Global>(instance(), |event| event);
            if let Some(lie) = lie.filter(|_| node.index == NODES - 1) {
                let roster = node.roster.to_vec();
                node.twist::<Global>(instance(), move |to, message| match message {
                    Message::Tick { round, value, sure, pull } => {
                        let off = if roster[..2].contains(&to) { lie } else { -lie };
                        vec![Message::Tick { round, value: value + off, sure, pull }]
                    }
                    other => vec![other],
                });
            }
        });
        let setup = setup.clocks(move |node| Clock::new(EPOCH, drifts[node]));
        let options = seats::network(&config);
        let world = World::with_schedule(seed, NODES, setup, options, faults.clone());
        Self {
            world,
            seats,
            promise: Promise::of(&plan).unwrap(),
            plan,
            faults,
            seen: vec![None; NODES],
            timers: BTreeMap::new(),
            looks: Vec::new(),
            worst: 0,
            liar: lie.map(|_| NODES - 1),
            rng,
        }
    }

    fn period(&self) -> Duration {
        self.plan.config().period
    }

    /// Who is faulty now, or still finds its way back.
    fn exempt(&self) -> Option<usize> {
        if self.liar.is_some() {
            return self.liar;
        }
        let now = self.world.now();
        let (joining, period) = (self.plan.bounds().joining, self.period());
        let is_under_way = |event: &&FaultEvent| {
            let until = event.at + period * (10 + joining + 2);
            now >= event.at && now < until
        };
        self.faults.iter().find(is_under_way).map(|event| victim(&event.fault))
    }

    fn clock(&self, node: usize) -> (GlobalClock, u64) {
        let seat = &self.seats.borrow()[node];
        (seat.at(self.world.local(node)).clone(), seat.boots)
    }

    fn status(&self, node: usize) -> Option<Status> {
        use mainstay_base::service::Service as _;
        Some(self.world.node(node)?.service::<Global>(instance())?.status())
    }

    fn slice(&mut self, time: Duration) -> Result<(), String> {
        let (seats, promise) = (Seats::clone(&self.seats), self.promise);
        let exempt = self.exempt();
        let mut seen = std::mem::take(&mut self.seen);
        let (mut found, mut worst) = (None, self.worst);
        let look = |world: &World<ServiceNode<Event>>| {
            found = look(world, &seats.borrow(), &promise, exempt, &mut seen, &mut worst).err();
            found.is_some()
        };
        match self.world.run_until(look, time) {
            Ok(()) | Err(Stuck::TimedOut { .. }) => {}
            Err(stuck) => return Err(stuck.to_string()),
        }
        (self.seen, self.worst) = (seen, worst);
        found.map_or(Ok(()), Err)
    }

    /// Some timers, at all distances, and readings to be compared later.
    fn ask(&mut self, step: u32) {
        for node in 0..NODES {
            if !self.world.is_up(node) {
                continue;
            }
            let (clock, boots) = self.clock(node);
            let now = clock.read();
            if clock.is_synchronised() {
                self.looks.push((node, boots, self.world.now().as_nanos(), now));
            }
            let token = u64::from(step) * NODES as u64 + node as u64;
            let span = self.period().as_nanos() as u64 * 3;
            let nanos = (now.time.as_nanos() + self.rng.below(span)).saturating_sub(span / 6);
            let at = Time::from_nanos(nanos);
            self.timers.insert(token, Set { node, boots, at, fired: 0 });
            let command = Command::Timer { token, at };
            self.world.call(node, |it, now| it.command::<Global>(now, instance(), command));
        }
    }

    /// CLK-5: what has passed is known, whatever corrections came meanwhile.
    fn check_elapsed(&mut self) -> Result<(), String> {
        let drift = u64::from(self.plan.config().drift.parts());
        for (node, boots, real, then) in std::mem::take(&mut self.looks) {
            let (clock, present) = self.clock(node);
            if present != boots {
                continue;
            }
            let passed = self.world.now().as_nanos() - real;
            let off = |said: Duration| (said.as_nanos() as u64).abs_diff(passed);
            let most = passed * drift / 1_000_000_000 + 20;
            if off(clock.elapsed(&then)) > most {
                return Err(format!("CLK-5: {node} is off by {} ns", off(clock.elapsed(&then))));
            }
            match clock.elapsed_since(then.time) {
                Ok(said) if off(said) <= most => {}
                other => return Err(format!("CLK-5: {node} says {other:?} for {passed} ns")),
            }
        }
        Ok(())
    }

    /// CLK-40, and CLK-6 by what is told.
    fn check_timers(&mut self) -> Result<(), String> {
        for (boot, _, event) in self.world.take_events() {
            let Event::Fired { token, at } = event else { continue };
            let set = self.timers.get_mut(&token).ok_or("a timer fires that nobody set")?;
            set.fired += 1;
            let (node, fired) = (set.node, set.fired);
            if self.world.roster()[node] != boot.node || at != set.at || fired > 1 {
                return Err(format!("CLK-40: timer {token} of {node} fires as {fired}. at {at:?}"));
            }
            let (clock, boots) = self.clock(node);
            if boots == self.timers[&token].boots && clock.now().0 < at {
                return Err(format!("CLK-40: timer {token} fires before {at:?}"));
            }
        }
        for (token, set) in &self.timers {
            let (clock, boots) = self.clock(set.node);
            let late = set.at.saturating_add(self.period() / 10);
            let is_due = boots == set.boots && clock.now().0 > late && self.world.is_up(set.node);
            if is_due && set.fired == 0 {
                return Err(format!(
                    "CLK-40: timer {token} for {:?} does not fire at {} {:?}",
                    set.at,
                    set.node,
                    self.status(set.node)
                ));
            }
        }
        Ok(())
    }

    /// CLK-41: whoever is cut off long enough knows it, and so do the readers of a node that does not run.
    fn check_lost(&self) -> Result<(), String> {
        let period = self.period();
        let lost = self.plan.config().misses_max + 3;
        for event in &self.faults {
            let since = self.world.now().saturating_since(event.at);
            let is_cut = since > period * lost && since < period * 10;
            let node = victim(&event.fault);
            if is_cut
                && !(self.stands_alone() && matches!(event.fault, Fault::Partition { .. }))
                && !matches!(event.fault, Fault::Crash { .. })
                && self.clock(node).0.is_synchronised()
            {
                return Err(format!("CLK-41: {node} does not know that it is alone"));
            }
        }
        Ok(())
    }

    fn stands_alone(&self) -> bool {
        stands_alone(&self.plan.config().kind)
    }

    /// Each node reads its reference, which is within the stated error; and what holds the true time is looked at (CLK-4, CLK-27).
    fn refer(&mut self) -> Result<(), String> {
        if !self.stands_alone() {
            return Ok(());
        }
        let (truth, error) = (seats::truth(&self.world), ERROR.as_nanos() as i64);
        for node in (0..NODES).filter(|node| self.world.is_up(*node)).collect::<Vec<_>>() {
            let value = truth + self.rng.below(2 * error as u64 + 1) as i64 - error;
            let at = self.world.local(node);
            let command = Command::Reference { at, value };
            self.world.call(node, |it, now| it.command::<Global>(now, instance(), command));
            let Ok(bounded) = self.clock(node).0.now_bounded() else { continue };
            let holds = bounded.earliest.as_nanos() <= truth as u64
                && truth as u64 <= bounded.latest.as_nanos();
            if !holds && self.exempt() != Some(node) {
                return Err(format!("CLK-4: {node} says {bounded:?} at {truth}"));
            }
        }
        Ok(())
    }

    /// While nothing is wrong, what a clock says holds the clock of the master, where there is one (CLK-22), and else the clocks of all (CLK-2).
    fn check_bounded(&self) -> Result<(), String> {
        if self.stands_alone() || self.exempt().is_some() {
            return Ok(());
        }
        let has_master = matches!(self.plan.config().kind, Kind::Probabilistic { .. });
        let mut held = Vec::new();
        for node in 0..NODES {
            let local = self.world.local(node);
            let service = self.world.node(node).and_then(|it| it.service::<Global>(instance()));
            let Some(algorithm) = service.map(|it| it.synced().algorithm()) else { continue };
            if !has_master {
                held.push(self.clock(node).0.now().0.as_nanos() as i64);
            } else if algorithm.error(local) == Some(0) {
                held.push(algorithm.clock().nanos(local));
            }
        }
        for node in 0..NODES {
            let Ok(bounded) = self.clock(node).0.now_bounded() else { continue };
            let (low, high) =
                (bounded.earliest.as_nanos() as i64, bounded.latest.as_nanos() as i64);
            if let Some(it) = held.iter().find(|it| **it < low || **it > high) {
                return Err(format!("CLK-2, CLK-22: {node} says {bounded:?}, and a clock {it}"));
            }
        }
        Ok(())
    }

    fn all(mut self) -> Result<Self, String> {
        let slices = ROUNDS * EVERY * 4;
        for step in 0..slices {
            self.refer()?;
            self.slice(self.period() / 4)?;
            self.check_bounded()?;
            self.check_timers()?;
            self.check_lost()?;
            if step % 24 == 23 {
                self.check_elapsed()?;
            }
            if step % 3 == 0 {
                self.ask(step);
            }
        }
        // A correction that is walked off for long may be under way.
        for _ in 0..if self.stands_alone() { 16 } else { 0 } {
            if (0..NODES).all(|node| self.clock(node).0.is_synchronised()) {
                break;
            }
            self.refer()?;
            self.slice(self.period() / 4)?;
        }
        if (0..NODES).any(|node| !self.clock(node).0.is_synchronised()) {
            let all: Vec<_> =
                (0..NODES).map(|node| self.status(node).map(|it| it.unsynchronised)).collect();
            return Err(format!("not all came back: {all:?}"));
        }
        Ok(self)
    }
}

/// CLK-1, CLK-2, CLK-3, CLK-6 at one moment.
fn look(
    world: &World<ServiceNode<Event>>,
    seats: &[Seat],
    promise: &Promise,
    exempt: Option<usize>,
    seen: &mut [Option<Seen>],
    worst: &mut i64,
) -> Result<(), String> {
    let mut readings = Vec::new();
    for node in (0..NODES).filter(|node| world.node(*node).is_some()) {
        let now = Seen::look(world, node, &seats[node], promise, &mut seen[node])?;
        if now.synchronised && exempt != Some(node) {
            readings.push(now.time);
        }
    }
    *worst = (*worst).max(seats::skew(&readings, promise)?);
    Ok(())
}

/// Checks CLK-1, CLK-2, CLK-3, CLK-5, CLK-6, CLK-7, CLK-10, CLK-40, CLK-41.
#[test]
fn adjusted_clocks_keep_their_promises_through_crashes_cuts_and_pauses() {
    let (mut crossed, mut used) = (0, 0);
    for seed in mainstay_sim::seeds(0..60) {
        let run = Run::new(seed, None).all().unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        assert!(run.worst > 0, "seed {seed}: clocks that never differ show nothing");
        used = used.max(run.worst * 1_000 / run.promise.precision.as_nanos() as i64);
        let fired = run.timers.values().filter(|set| set.fired == 1).count();
        assert!(fired > 200, "seed {seed}: {fired} timers");
        let boots: Vec<u64> = run.seats.borrow().iter().map(|seat| seat.boots).collect();
        let whole = boots.iter().position(|boots| *boots == 1);
        // A write for every second period.
        let writes = whole.map_or(50, |node| run.status(node).unwrap().writes);
        assert!((40..60).contains(&writes), "seed {seed}: {writes} writes");
        crossed += boots.iter().sum::<u64>() - NODES as u64;
    }
    assert!(crossed > 100, "{crossed} restarts");
    // Without liars, and with random delays.
    println!("{}.{} % of the promised precision", used / 10, used % 10);
    assert!(used > 200, "{used} of 1,000");
}

/// Checks CLK-1, CLK-2, CLK-3, CLK-4, CLK-5, CLK-6, CLK-10, CLK-40, CLK-41 with one of each other class.
#[test]
fn clocks_of_each_class_keep_their_promises_through_crashes_cuts_and_pauses() {
    for kind in others() {
        for seed in mainstay_sim::seeds(0..8) {
            let name = kind.name();
            let run = Run::of(seed, None, Some(kind.clone())).all();
            let run = run.unwrap_or_else(|what| panic!("{name}, seed {seed}: {what}"));
            assert!(run.worst > 0, "{name}, seed {seed}: clocks that never differ show nothing");
            let fired = run.timers.values().filter(|set| set.fired == 1).count();
            assert!(fired > 150, "{name}, seed {seed}: {fired} timers");
        }
    }
}

/// Checks CLK-2 where a liar pulls one half of the clocks ahead, which is fast and hears all soon, and the other one back; and that a good part of what is
/// promised is used so. (Clocks that walk do not show the moment at which one is corrected and another one is not.)
#[test]
fn a_liar_does_not_part_adjusted_clocks_and_the_promise_is_not_too_wide() {
    for function in [Function::Midpoint, Function::Average] {
        let mut used = 0;
        for seed in mainstay_sim::seeds(0..40) {
            let mut rng = Rng::new(seed).stream("adverse");
            let kind = Kind::Averaging { function, reading: Reading::ARRIVAL };
            let mut config = sync::Config::lan(kind, NODES, 1);
            let (min, max) = (Duration::from_micros(10), Duration::from_micros(1_000));
            config.delay = Delay { min, max };
            config.period = Duration::from_millis(300);
            config.initial = Duration::ZERO;
            let plan = Arc::new(Plan::new(config).unwrap());
            let is_fast = |node: usize| node < 2;
            let drift = |node| if is_fast(node) != rng.chance(1, 10) { 100_000 } else { -99_989 };
            let drifts = (0..NODES).map(drift).collect();
            let bound = plan.bounds().precision.as_nanos() as i64;
            let lie = bound * rng.between(20, 100) as i64 / 100;
            let mut run = Run::with(seed, None, plan, Vec::new(), drifts, Some(lie));
            for (from, to) in (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to))) {
                let soon = is_fast(to) != rng.chance(1, 8);
                run.world.set_way(from, to, if soon { min } else { max }, Duration::ZERO);
            }
            run.slice(run.period() * 12).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
            used = used.max(run.worst * 1_000 / run.promise.precision.as_nanos() as i64);
        }
        println!("{function:?}: {}.{} % of the promised precision", used / 10, used % 10);
        assert!(used >= 380, "{function:?}: {used} of 1,000");
    }
}

fn noticed(broken: Broken, by: &str) {
    let all = |seed| Run::new(seed, Some(broken)).all().err();
    let found = (0..40).filter_map(all).find(|found| found.contains(by));
    assert!(found.is_some(), "{broken:?} is not noticed by {by}");
}

/// Checks CLK-3, CLK-7: a correction that is a jump is noticed; back it does not show, since the page has a floor.
#[test]
fn a_correction_that_is_a_jump_is_noticed() {
    noticed(Broken::StepsBack, "CLK-3:");
}

/// Checks CLK-3: a clock that makes up for a correction too fast is noticed.
#[test]
fn a_correction_that_is_walked_off_too_fast_is_noticed() {
    noticed(Broken::WalksTooFast, "CLK-3");
}

/// Checks CLK-5: elapsed time by the wrong course is noticed.
#[test]
fn courses_that_begin_too_early_are_noticed() {
    noticed(Broken::LegsTooEarly, "CLK-5");
}

/// Checks CLK-6: versions that come again are noticed.
#[test]
fn versions_that_come_again_are_noticed() {
    noticed(Broken::VersionsWrap, "CLK-6");
}

#[test]
fn a_clock_that_forgets_what_is_stored_is_noticed() {
    noticed(Broken::ForgetsLimit, "CLK-1, CLK-10");
}

#[test]
fn readings_before_they_are_stored_are_noticed() {
    noticed(Broken::ReadsBeforeStored, "CLK-1, CLK-10");
}

#[test]
fn a_clock_that_is_never_unsynchronised_is_noticed() {
    noticed(Broken::NeverUnsynchronised, "CLK-41:");
}

#[test]
fn timers_that_fire_early_or_never_are_noticed() {
    noticed(Broken::TimerFiresEarly, "CLK-40");
    // It asks for a turn for ever, and does nothing in it.
    noticed(Broken::TimerMissesJump, "time stands still");
}

/// A clock that is ahead of the others waits until they are there, and does not go back.
#[test]
fn what_is_ahead_waits() {
    let mut run = Run::new(1, None);
    run.faults.clear();
    run.slice(run.period() * 4).unwrap();
    let (clock, _) = run.clock(2);
    let status = run.status(2).unwrap();
    assert_eq!((status.unsynchronised, clock.is_synchronised()), (None, true));
    // Its process ends just after a reading was stored far ahead.
    let crash =
        Fault::Crash { node: 2, length: run.period(), disk: Disk::Kept, moment: Moment::Now };
    run.faults.push(FaultEvent { at: run.world.now(), fault: crash.clone() });
    assert!(run.world.inject(crash));
    let mut waited = false;
    for _ in 0..80 {
        run.slice(run.period() / 4).unwrap();
        let why = run.status(2).and_then(|status| status.unsynchronised);
        waited |= why == Some(Why::Ahead);
    }
    assert!(waited, "it has waited");
    assert_eq!(run.status(2).unwrap().unsynchronised, None);
}
