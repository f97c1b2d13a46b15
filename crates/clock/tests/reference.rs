//! Clock services that read a reference by themselves: a clock of the own node, or the clock of another node, which follows a reference itself or is kept together with
//! others. CLK-4, CLK-41.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod seats;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_base::service::Service;
use mainstay_base::{Duration, Instant, NodeId, Rng};
use mainstay_clock::fault::Fault as Broken;
use mainstay_clock::sync::global::{Config, Event, Global, ReadClock, ReferenceClock};
use mainstay_clock::sync::{
    self, Delay, Drift, Function, Kind, Mount, Origin, Plan, Reading, Verdict,
};
use mainstay_sim::service::{ServiceNode, Setup};
use mainstay_sim::{Clock, Fault, Stuck, World};

use seats::{EPOCH, Seats, each, instance, truth};

const NODES: usize = 5;
/// How far the reference of the first node may be from the true time.
const ERROR: Duration = Duration::from_millis(2);

/// What a node follows.
#[derive(Clone, Copy)]
enum What {
    Nothing,
    /// A clock of its own, which is so far off.
    Own(i64),
    /// The same, which is off from the sixth second on.
    Stepped(i64),
    Peer(usize),
}

/// What a node does.
#[derive(Clone)]
struct Part {
    kind: Kind,
    group: Vec<usize>,
    what: What,
}

impl Part {
    /// Of several that go by intervals one may be wrong.
    fn faulty(&self) -> usize {
        usize::from(matches!(self.kind, Kind::Interval { .. }) && self.group.len() > 1)
    }
}

/// A clock of a node whose hardware drifts so much: it is `off` the true time, `from` so long after the beginning.
fn own(local: Arc<AtomicU64>, drift: i64, (off, from): (i64, i64)) -> ReadClock {
    Arc::new(move || {
        let at = local.load(Ordering::Relaxed);
        let passed = i128::from(at) - EPOCH.as_nanos() as i128;
        let real = passed * 1_000_000_000 / (1_000_000_000 + i128::from(drift));
        let off = if real < i128::from(from) { 0 } else { off };
        let value = EPOCH.as_nanos() as i128 + real + i128::from(off);
        Some((Instant::from_nanos(at), value as i64, ERROR))
    })
}

struct Run {
    world: World<ServiceNode<Event>>,
    seats: Seats,
    parts: Vec<Part>,
    period: Duration,
}

impl Run {
    fn new(seed: u64, parts: Vec<Part>, broken: Option<Broken>) -> Self {
        let mut rng = Rng::new(seed).stream("references");
        let period = Duration::from_millis(rng.between(600, 1_200));
        let drift = rng.between(0, 200_000);
        let min = Duration::from_micros(rng.between(10, 500));
        let delay = Delay { min, max: Duration::from_micros(rng.between(600, 2_000)) };
        let drifts: Vec<i64> =
            (0..NODES).map(|_| rng.below(2 * drift + 1) as i64 - drift as i64).collect();
        let plan = move |part: &Part| {
            let mut config = sync::Config::lan(part.kind.clone(), part.group.len(), part.faulty());
            (config.period, config.delay) = (period, delay);
            config.drift = Drift::per_billion(drift as u32 + 1);
            config.fault = broken;
            Plan::new(config).unwrap()
        };
        let network = seats::network(plan(&parts[0]).config());
        let seats = seats::seats(NODES);
        let (shared, all, hardware) = (Seats::clone(&seats), parts.clone(), drifts.clone());
        let setup = Setup::new(move |node| {
            let part = &all[node.index];
            let seat = &mut shared.borrow_mut()[node.index];
            let clock = seat.boot(node.now);
            let nodes: Vec<NodeId> = part.group.iter().map(|it| node.roster[*it]).collect();
            let origin = match part.what {
                What::Nothing => Origin::Together(0),
                _ => Origin::Apart(0),
            };
            let plan = Arc::new(plan(part));
            let mount = Mount { plan, nodes: nodes.into(), origin, keys: None };
            let mut config = Config::new(mount, clock).unwrap();
            config.reserve = None;
            (config.answers, config.fault) = (true, broken);
            config.reference = match part.what {
                What::Nothing => None,
                What::Own(off) | What::Stepped(off) => {
                    let is_stepped = matches!(part.what, What::Stepped(_));
                    let from = if is_stepped { 6_000_000_000 } else { i64::MIN };
                    let local = Arc::clone(&seat.local);
                    Some(ReferenceClock::Own(own(local, hardware[node.index], (off, from))))
                }
                What::Peer(of) => Some(ReferenceClock::Peer(node.roster[of])),
            };
            node.mount::<Global>(instance(), config);
            node.read::<Global>(instance(), |event| event);
        });
        let setup = setup.clocks(move |node| Clock::new(EPOCH, drifts[node]));
        let world = World::with_schedule(seed, NODES, setup, network, Vec::new());
        Self { world, seats, parts, period }
    }

    /// Runs for so many periods; what a clock says of what it follows is so at each step.
    fn periods(&mut self, periods: u32) -> Result<(), String> {
        let (seats, parts) = (Seats::clone(&self.seats), self.parts.clone());
        let mut found = None;
        let look = |world: &World<ServiceNode<Event>>| {
            found = look(world, &seats, &parts).err();
            found.is_some()
        };
        match self.world.run_until(look, self.period * periods) {
            Ok(()) | Err(Stuck::TimedOut { .. }) => {}
            Err(stuck) => return Err(stuck.to_string()),
        }
        found.map_or(Ok(()), Err)
    }

    /// Answers that a node did not believe.
    fn refused(&self, node: usize) -> u64 {
        let service = self.world.node(node).and_then(|it| it.service::<Global>(instance()));
        service.map_or(0, |it| it.synced().algorithm().rejected().inaccurate)
    }

    /// Each service lists its reference: whose it is, and what it is good for.
    fn listed(&self, expected: [Verdict; NODES]) -> Result<(), String> {
        for (node, part) in self.parts.iter().enumerate() {
            let service = self.world.node(node).and_then(|it| it.service::<Global>(instance()));
            let status = service.map(Service::status).and_then(|it| it.reference);
            let Some(listed) = status else { return Err(format!("{node} lists none")) };
            let is_peer = matches!(part.what, What::Peer(_));
            if listed.verdict != expected[node]
                || listed.node.is_some() != is_peer
                || listed.reads == 0
            {
                return Err(format!("{node} lists {listed:?}"));
            }
        }
        Ok(())
    }

    fn synchronised(&self) -> [bool; NODES] {
        std::array::from_fn(|node| {
            self.seats.borrow()[node].at(self.world.local(node)).is_synchronised()
        })
    }
}

/// What a clock follows is within its error, by its algorithm and by what its readers are told.
fn look(world: &World<ServiceNode<Event>>, seats: &Seats, parts: &[Part]) -> Result<(), String> {
    let seats = seats.borrow();
    for (node, seat) in seats.iter().enumerate() {
        seat.at(world.local(node));
    }
    let reading = |node: usize| seats[node].at(world.local(node)).now().0.as_nanos() as i64;
    let is_common = parts.iter().any(|part| matches!(part.what, What::Nothing));
    let followed: Vec<i64> = if is_common {
        let kept = |node: &usize| matches!(parts[*node].what, What::Nothing);
        (0..NODES).filter(kept).map(reading).collect()
    } else {
        vec![truth(world)]
    };
    for (node, part) in parts.iter().enumerate() {
        let Some(service) = world.node(node).and_then(|it| it.service::<Global>(instance())) else {
            continue;
        };
        let (algorithm, local) = (service.synced().algorithm(), world.local(node));
        if matches!(part.what, What::Nothing) || !algorithm.is_synchronised() {
            continue;
        }
        let (clock, error) = (algorithm.clock().nanos(local), algorithm.error(local).unwrap());
        let bounded = seats[node].at(local).now_bounded();
        for value in &followed {
            if (clock - value).abs() > error {
                return Err(format!("CLK-4: {node} is {} off, and says {error}", clock - value));
            }
            let is_inside = bounded.is_ok_and(|it| {
                it.earliest.as_nanos() <= *value as u64 && *value as u64 <= it.latest.as_nanos()
            });
            if bounded.is_ok() && !is_inside {
                return Err(format!("CLK-4: {node} says {bounded:?} at {value}"));
            }
        }
    }
    Ok(())
}

fn external(error: Duration) -> Kind {
    Kind::External { error }
}

/// One node has a clock of its own; another one follows that, a third one the second, and a fourth one, which goes by intervals, the first.
fn chain(seed: u64, broken: Option<Broken>) -> Result<(), String> {
    let mut rng = Rng::new(seed).stream("chain");
    let most = ERROR.as_nanos() as i64 - 2;
    let off = *rng.pick(&[most, -most, 0]).unwrap();
    let milli = Duration::from_millis;
    let part = |node: usize, kind: Kind, what: What| Part { kind, group: vec![node], what };
    let parts = vec![
        part(0, external(ERROR), What::Own(off)),
        part(1, external(milli(6)), What::Peer(0)),
        part(2, external(milli(12)), What::Peer(1)),
        part(3, Kind::interval(milli(1)), What::Peer(0)),
        // The error of what it follows is more than it wants.
        part(4, external(milli(1)), What::Peer(0)),
    ];
    let mut run = Run::new(seed, parts, broken);
    run.periods(12)?;
    let follow = [true, true, true, true, false];
    if run.synchronised() != follow {
        return Err(format!("not all follow: {:?}", run.synchronised()));
    }
    if run.refused(4) < 5 {
        return Err(format!("{} answers were refused", run.refused(4)));
    }
    let mut expected = [Verdict::Used; NODES];
    expected[NODES - 1] = Verdict::Far;
    run.listed(expected)?;
    // Who is cut off from what it follows knows it, and so does who follows that one. Intervals grow.
    run.world.inject(Fault::Partition { side: vec![0], length: run.period * 9 });
    run.periods(8)?;
    if run.synchronised() != [true, false, false, true, false] {
        return Err(format!("CLK-41: {:?}", run.synchronised()));
    }
    run.periods(12)?;
    match run.synchronised() == follow {
        true => Ok(()),
        false => Err(format!("not all came back: {:?}", run.synchronised())),
    }
}

/// Four clocks are kept together; a fifth one, which is none of them, follows one of the four.
fn outsider(seed: u64) -> Result<(), String> {
    let kind = Kind::Averaging { function: Function::Midpoint, reading: Reading::ARRIVAL };
    let kept = Part { kind, group: (0..4).collect(), what: What::Nothing };
    let follows = external(Duration::from_millis(60));
    let mut parts = vec![kept; 4];
    parts.push(Part { kind: follows, group: vec![4], what: What::Peer(seed as usize % 4) });
    let mut run = Run::new(seed, parts, None);
    run.periods(16)?;
    match run.synchronised() == [true; NODES] {
        true => Ok(()),
        false => Err(format!("not all follow: {:?}", run.synchronised())),
    }
}

/// Four clocks go by intervals, each with a clock of its own, of which one is an hour off, from the beginning or later on.
fn one_is_wrong(seed: u64, broken: Option<Broken>) -> Result<(), String> {
    let hour = 3_600_000_000_000 * if seed.is_multiple_of(4) { -1 } else { 1 };
    let wrong = if seed.is_multiple_of(2) { What::Own(hour) } else { What::Stepped(hour) };
    let most = ERROR.as_nanos() as i64 - 2;
    let mut rng = Rng::new(seed).stream("wrong");
    let mut part = |node: usize| Part {
        kind: Kind::interval(Duration::from_millis(1)),
        group: (0..4).collect(),
        what: if node as u64 == seed % 4 {
            wrong
        } else {
            What::Own(*rng.pick(&[most, -most, 0]).unwrap())
        },
    };
    let mut parts: Vec<Part> = (0..4).map(&mut part).collect();
    parts.push(Part { kind: external(ERROR), group: vec![4], what: What::Own(0) });
    let mut run = Run::new(seed, parts, broken);
    run.periods(20)?;
    if run.synchronised() != [true; NODES] {
        return Err(format!("not all are synchronised: {:?}", run.synchronised()));
    }
    let mut expected = [Verdict::Used; NODES];
    expected[seed as usize % 4] = Verdict::Outvoted;
    run.listed(expected)
}

/// Checks CLK-4: a reference is one interval more, and is voted out like any other.
#[test]
fn a_reference_that_is_wrong_is_voted_out() {
    each(40, |seed| one_is_wrong(seed, None));
    let broken = Some(Broken::BelievesReference);
    let found = (0..10).find_map(|seed| one_is_wrong(seed, broken).err()).expect("it is noticed");
    assert!(found.starts_with("CLK-4: "), "{found}");
}

/// Three clocks are kept together, a fourth one follows one of them, and a fifth one the fourth: it is as far off the common time as it says, and takes
/// it for no true time.
fn beyond(seed: u64, broken: Option<Broken>) -> Result<(), String> {
    let kind = Kind::Averaging { function: Function::Midpoint, reading: Reading::ARRIVAL };
    let kept = Part { kind, group: (0..3).collect(), what: What::Nothing };
    let wants_truth = seed.is_multiple_of(2);
    let follows = external(Duration::from_millis(60));
    let last = match wants_truth {
        true => Kind::interval(Duration::from_millis(1)),
        false => external(Duration::from_millis(72)),
    };
    let mut parts = vec![kept; 3];
    parts.push(Part { kind: follows, group: vec![3], what: What::Peer(seed as usize % 3) });
    parts.push(Part { kind: last, group: vec![4], what: What::Peer(3) });
    let mut run = Run::new(seed, parts, broken);
    run.periods(16)?;
    match run.synchronised() == [true, true, true, true, !wants_truth] {
        true => Ok(()),
        false => Err(format!("CLK-4: the common time is taken for: {:?}", run.synchronised())),
    }
}

/// Checks CLK-4: who follows a clock that follows a common time follows that, and takes it for no true time.
#[test]
fn a_common_time_is_no_true_time_however_often_it_is_passed_on() {
    each(40, |seed| beyond(seed, None));
    let broken = Some(Broken::ForgetsRate);
    let found = (0..10).find_map(|seed| beyond(seed, broken).err()).expect("it is noticed");
    assert!(found.starts_with("CLK-4: "), "{found}");
}

/// Checks CLK-4, CLK-41: each clock is within its error of the true time, also where it has that from another node.
#[test]
fn clocks_follow_a_clock_of_their_node_or_another_node() {
    each(60, |seed| chain(seed, None));
}

/// Checks CLK-4: a node outside follows clocks that are kept together, within its error.
#[test]
fn a_clock_outside_follows_those_that_are_kept_together() {
    each(60, outsider);
}

/// Checks CLK-4: the error of the clock that is followed is a part of the own one.
#[test]
fn a_follower_that_forgets_the_error_of_what_it_follows_is_noticed() {
    let broken = Some(Broken::ForgetsPeerError);
    let found = (0..40).find_map(|seed| chain(seed, broken).err()).expect("it is noticed");
    assert!(found.starts_with("CLK-4: "), "{found}");
}
