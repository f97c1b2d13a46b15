//! Random runs of processes that all kinds of stamps watch. What happened before what is computed from the run itself.
//!
//! Messages get lost, repeated and reordered; processes crash and come back as another incarnation; views change at a
//! moment for all, and what is on its way then is refused. The clocks of the processes are a few hundred nanoseconds
//! apart, some move in steps, and in some runs one is far ahead.

use mainstay_base::{ClusterId, Duration, Incarnation, NodeId, Rng, SiteId, ViewId};
use mainstay_clock::vector::{Counting, ReceiveError};
use mainstay_clock::{Members, Relation, Time, hybrid, scalar, vector};

use super::{Fault, broken};

/// How far correct clocks are apart.
const PRECISION: u64 = 1_000;
/// How far ahead the wrong one is.
const WRONG: u64 = 50 * PRECISION;

/// A set of events.
#[derive(Clone, Default)]
struct Events(Vec<u64>);

impl Events {
    fn add(&mut self, event: usize) {
        self.0.resize(self.0.len().max(event / 64 + 1), 0);
        self.0[event / 64] |= 1 << (event % 64);
    }

    fn add_all(&mut self, other: &Self) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        self.0.iter_mut().zip(&other.0).for_each(|(one, other)| *one |= other);
    }

    fn has(&self, event: usize) -> bool {
        self.0.get(event / 64).is_some_and(|bits| bits >> (event % 64) & 1 == 1)
    }
}

struct Event {
    /// What happened before it: the transitive closure.
    past: Events,
    /// When it was.
    at: u64,
    /// Its process has the wrong clock.
    wrong: bool,
    scalar: scalar::Stamp,
    hybrid: hybrid::Stamp,
    all: vector::Stamp,
    /// Only of sendings.
    sent: Option<vector::Stamp>,
}

struct Process {
    site: SiteId,
    /// Its last event.
    last: Option<usize>,
    /// What its clock says more than is true, plus [`PRECISION`].
    ahead: u64,
    scalar: scalar::Clock,
    hybrid: hybrid::Clock,
    all: vector::Clock,
    sends: vector::Clock,
}

/// What a run had in it.
#[derive(Default, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) events: usize,
    pub(crate) copies: usize,
    pub(crate) late: usize,
    pub(crate) restarts: usize,
    pub(crate) views: usize,
    pub(crate) concurrent: usize,
    /// Pairs that the scalar orders, and that are concurrent.
    pub(crate) ordered_by_chance: usize,
    pub(crate) refused_ahead: usize,
    pub(crate) counted: usize,
}

struct Run {
    rng: Rng,
    now: u64,
    /// Clocks move in steps of so many nanoseconds.
    step: u64,
    fault: Option<Fault>,
    view: ViewId,
    processes: Vec<Process>,
    events: Vec<Event>,
    /// Sendings whose messages are on their way, with the rank of the receiver.
    flying: Vec<(usize, usize)>,
    outcome: Outcome,
}

fn site(index: usize, incarnation: u32) -> SiteId {
    let node = NodeId::new(ClusterId::from_entropy(1), &format!("n{index}"));
    SiteId { node, incarnation: Incarnation(incarnation) }
}

/// One run, judged.
pub(crate) fn run(seed: u64, fault: Option<Fault>) -> Result<Outcome, String> {
    let rng = Rng::new(seed);
    let mut shape = rng.stream("shape");
    let count = shape.between(2, 5) as usize;
    let step = *shape.pick(&[1, 1, 200]).expect("there are some");
    let wrong = shape.chance(1, 4).then(|| shape.below(count as u64) as usize);
    let mut run = Run {
        rng: rng.stream("run"),
        now: 10 * WRONG,
        step,
        fault,
        view: ViewId { number: 1, nonce: seed },
        processes: Vec::new(),
        events: Vec::new(),
        flying: Vec::new(),
        outcome: Outcome::default(),
    };
    let members = run.members((0..count).map(|index| site(index, 1)));
    for index in 0..count {
        let wrong = if wrong == Some(index) { WRONG } else { 0 };
        let ahead = shape.below(PRECISION - step) + step + PRECISION / 2 + wrong;
        let process = run.process(&members, site(index, 1), ahead);
        run.processes.push(process);
    }
    for _ in 0..150 {
        run.one().map_err(|violation| format!("seed {seed}: {violation}"))?;
    }
    run.judge().map_err(|violation| format!("seed {seed}: {violation}"))?;
    run.outcome.events = run.events.len();
    Ok(run.outcome)
}

impl Run {
    fn members(&self, sites: impl Iterator<Item = SiteId>) -> Members {
        Members::new(self.view, sites).expect("each node is there once")
    }

    fn process(&self, members: &Members, site: SiteId, ahead: u64) -> Process {
        let bound = Duration::from_nanos(PRECISION);
        let vector = |counting| {
            let clock = vector::Clock::new(members.clone(), site, counting).expect("a member");
            broken!(clock, self.fault)
        };
        Process {
            site,
            last: None,
            ahead,
            scalar: broken!(scalar::Clock::new(site), self.fault),
            hybrid: broken!(hybrid::Clock::new(site, bound, hybrid::Moment::ZERO), self.fault),
            all: vector(Counting::Events),
            sends: vector(Counting::Sends),
        }
    }

    fn reading(&self, rank: usize) -> Time {
        let ahead = self.processes[rank].ahead;
        Time::from_nanos((self.now + ahead - PRECISION) / self.step * self.step)
    }

    fn one(&mut self) -> Result<(), String> {
        self.now += self.rng.below(400);
        let rank = self.rng.below(self.processes.len() as u64) as usize;
        match self.rng.below(100) {
            0..25 => self.internal(rank),
            25..55 => self.send(rank),
            55..97 => self.receive(),
            97..99 => self.restart(rank),
            _ => self.leave_or_join(),
        }
    }

    fn internal(&mut self, rank: usize) -> Result<(), String> {
        let now = self.reading(rank);
        let process = &mut self.processes[rank];
        process.all.event();
        process.sends.event();
        let scalar = process.scalar.tick();
        let hybrid = process.hybrid.stamp(now).map_err(|error| format!("CLK-38: {error}"))?;
        self.record(rank, scalar, hybrid, None, None);
        Ok(())
    }

    fn send(&mut self, rank: usize) -> Result<(), String> {
        let now = self.reading(rank);
        let process = &mut self.processes[rank];
        process.all.send();
        let sent = process.sends.send();
        let scalar = process.scalar.tick();
        let hybrid = process.hybrid.stamp(now).map_err(|error| format!("CLK-38: {error}"))?;
        self.record(rank, scalar, hybrid, None, Some(sent));
        let event = self.events.len() - 1;
        for to in (0..self.processes.len()).filter(|to| *to != rank) {
            if self.rng.chance(3, 4) {
                self.flying.push((event, to));
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), String> {
        if self.flying.is_empty() {
            return Ok(());
        }
        let chosen = self.rng.below(self.flying.len() as u64) as usize;
        let (sending, rank) = self.flying[chosen];
        if self.rng.chance(4, 5) {
            self.flying.swap_remove(chosen);
        } else {
            self.outcome.copies += 1;
        }
        let now = self.reading(rank);
        let (process, message) = (&mut self.processes[rank], &self.events[sending]);
        let sent = message.sent.as_ref().expect("a sending");
        let hybrid = match process.hybrid.observe(now, message.hybrid.moment) {
            Ok(stamp) if message.all.view() == self.view => stamp,
            Ok(_) => {
                self.outcome.late += 1;
                let refused = process.all.receive(&message.all);
                return match refused {
                    Err(ReceiveError::OtherView(_)) => Ok(()),
                    taken => Err(format!("a stamp of another view: {taken:?}")),
                };
            }
            Err(_) => {
                self.outcome.refused_ahead += 1;
                return Ok(());
            }
        };
        process.all.receive(&message.all).map_err(|error| format!("CLK-32: {error}"))?;
        process.sends.receive(sent).map_err(|error| format!("CLK-32: {error}"))?;
        let scalar = process.scalar.observe(message.scalar.counter).map_err(|it| it.to_string())?;
        self.record(rank, scalar, hybrid, Some(sending), None);
        Ok(())
    }

    fn record(
        &mut self,
        rank: usize,
        scalar: scalar::Stamp,
        hybrid: hybrid::Stamp,
        received: Option<usize>,
        sent: Option<vector::Stamp>,
    ) {
        let process = &mut self.processes[rank];
        let mut past = Events::default();
        for before in process.last.into_iter().chain(received) {
            past.add_all(&self.events[before].past);
            past.add(before);
        }
        process.last = Some(self.events.len());
        self.outcome.counted += usize::from(hybrid.moment.count > 0);
        let (at, wrong) = (self.now, process.ahead > WRONG);
        let all = process.all.now().clone();
        self.events.push(Event { past, at, wrong, scalar, hybrid, all, sent });
    }

    /// A crash: another incarnation, that knows nothing, in another view.
    fn restart(&mut self, rank: usize) -> Result<(), String> {
        self.outcome.restarts += 1;
        let old = &self.processes[rank];
        let mut site = old.site;
        site.incarnation = site.incarnation.next();
        let sites: Vec<_> = self.processes.iter().map(|process| process.site).collect();
        let ahead = old.ahead;
        self.view.number += 1;
        let sites = sites.iter().enumerate().map(|(at, old)| if at == rank { site } else { *old });
        let members = self.members(sites);
        self.processes[rank] = self.process(&members, site, ahead);
        self.install(&members, rank)
    }

    /// The members are another set, in another order.
    fn leave_or_join(&mut self) -> Result<(), String> {
        if self.processes.len() > 2 && self.rng.chance(1, 2) {
            self.processes.remove(0);
        }
        self.processes.rotate_left(1);
        self.view.number += 1;
        let sites: Vec<_> = self.processes.iter().map(|process| process.site).collect();
        let members = self.members(sites.into_iter());
        // Ranks are others now, and what is on its way is of the old view.
        self.flying.clear();
        self.install(&members, usize::MAX)
    }

    fn install(&mut self, members: &Members, but: usize) -> Result<(), String> {
        self.outcome.views += 1;
        for (rank, process) in self.processes.iter_mut().enumerate() {
            if rank != but {
                process.all.install(members.clone()).map_err(|error| error.to_string())?;
                process.sends.install(members.clone()).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<(), String> {
        for (late, other) in self.events.iter().enumerate() {
            for (early, one) in self.events[..late].iter().enumerate() {
                let before = other.past.has(early);
                self.outcome.concurrent += usize::from(!before);
                judge_scalars(one, other, before)?;
                judge_vectors(one, other, before)?;
                let apart = one.scalar.counter != other.scalar.counter;
                self.outcome.ordered_by_chance += usize::from(!before && apart);
            }
            let (time, at) = (other.hybrid.moment.time.as_nanos(), other.at);
            if !other.wrong && time.abs_diff(at) > PRECISION {
                return Err(format!("CLK-38: a stamp of {time} at {at}"));
            }
        }
        Ok(())
    }
}

fn judge_scalars(one: &Event, other: &Event, before: bool) -> Result<(), String> {
    let (scalars, hybrids) = ((one.scalar, other.scalar), (one.hybrid, other.hybrid));
    if before && scalars.0.counter >= scalars.1.counter {
        return Err(format!("CLK-30: {:?} before {:?}", scalars.0, scalars.1));
    }
    if scalars.0 == scalars.1 {
        return Err(format!("CLK-31: {:?} twice", scalars.0));
    }
    if before && hybrids.0.moment >= hybrids.1.moment {
        return Err(format!("CLK-30 of hybrids: {:?} before {:?}", hybrids.0, hybrids.1));
    }
    if hybrids.0 == hybrids.1 {
        return Err(format!("CLK-31 of hybrids: {:?} twice", hybrids.0));
    }
    Ok(())
}

fn judge_vectors(one: &Event, other: &Event, before: bool) -> Result<(), String> {
    if one.all.view() != other.all.view() {
        let apart = one.all.relation(&other.all).is_err();
        return apart.then_some(()).ok_or_else(|| "stamps of two views compare".to_owned());
    }
    let expected = if before { Relation::Before } else { Relation::Concurrent };
    let pairs = [Some((&one.all, &other.all)), one.sent.as_ref().zip(other.sent.as_ref())];
    for (one, other) in pairs.into_iter().flatten() {
        let relation = one.relation(other).map_err(|error| error.to_string())?;
        if relation != expected {
            return Err(format!("CLK-32: {one:?} {relation:?} {other:?}, and is {expected:?}"));
        }
    }
    Ok(())
}
