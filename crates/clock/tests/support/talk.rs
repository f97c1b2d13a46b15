//! Random conversations over context graphs, beside a model that keeps the whole past of each message.
//!
//! The network loses, repeats and reorders. In some runs one process crashes in the middle, the others mask it out, each
//! at its own moment and with one last number, and later it comes back.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_base::{ClusterId, Incarnation, NodeId, Rng, SiteId, ViewId};
use mainstay_clock::graph::{Config, Graph, Id, Links, Received, Wave};
use mainstay_clock::{Members, Rank, Relation, vector};

use super::{Fault, broken};

/// What a run had in it.
#[derive(Default, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) sent: usize,
    pub(crate) held: usize,
    pub(crate) copies: usize,
    pub(crate) asked: usize,
    pub(crate) full: usize,
    pub(crate) nulls: usize,
    pub(crate) waves: usize,
    pub(crate) wide: usize,
    pub(crate) masked: usize,
    pub(crate) returned: usize,
    pub(crate) awaited: usize,
    pub(crate) attached_max: usize,
}

/// What is known of a message without the graph.
struct Told {
    /// All that happened before it.
    past: BTreeSet<Id>,
    depth: u64,
    stamp: vector::Stamp,
    body: u64,
}

struct Process {
    graph: Graph<u64>,
    /// Counts messages; `None` after a return, whose knowledge came by other means.
    clock: Option<vector::Clock>,
    /// What is attached, by the model.
    has: BTreeSet<Id>,
    taken: BTreeSet<Id>,
    waves: Vec<Wave>,
    stable: BTreeSet<Id>,
}

/// How far the departure of the one who crashed has got.
enum Stage {
    All,
    /// Crashed with this last message; those who have not masked it out yet.
    Leaving(u64, Vec<usize>),
    Out(u64),
    /// Those who have not masked it in yet.
    Returning(Vec<usize>),
}

struct Run {
    rng: Rng,
    seed: u64,
    by_waves: bool,
    loses: bool,
    window: usize,
    sites: Vec<SiteId>,
    members: Members,
    processes: Vec<Option<Process>>,
    told: BTreeMap<Id, Told>,
    flying: Vec<(usize, Links, u64)>,
    crashing: usize,
    stage: Stage,
    /// Of the former life of the one who comes back.
    last: u64,
    receipts: usize,
    outcome: Outcome,
}

/// One conversation, judged.
pub(crate) fn run(seed: u64, fault: Option<Fault>) -> Result<Outcome, String> {
    let rng = Rng::new(seed);
    let mut shape = rng.stream("shape");
    let count = shape.between(2, 5) as usize;
    let cluster = ClusterId::from_entropy(1);
    let site = |index| SiteId {
        node: NodeId::new(cluster, &format!("n{index}")),
        incarnation: Incarnation(1),
    };
    let sites: Vec<_> = (0..count).map(site).collect();
    let members = Members::new(ViewId { number: 1, nonce: 0 }, sites.clone()).expect("distinct");
    let window = shape.between(2, 12) as usize;
    let by_waves = shape.chance(2, 3);
    let config = Config::default().window(window);
    let config = if by_waves { config.with_waves() } else { config };
    let process = |own: &SiteId| {
        let graph = Graph::new(config, &members, *own).expect("a member");
        let clock = vector::Clock::new(members.clone(), *own, vector::Counting::Sends);
        Some(Process {
            graph: broken!(graph, fault),
            clock: clock.ok(),
            has: BTreeSet::new(),
            taken: BTreeSet::new(),
            waves: Vec::new(),
            stable: BTreeSet::new(),
        })
    };
    let mut run = Run {
        rng: rng.stream("run"),
        seed,
        by_waves,
        loses: true,
        window,
        processes: sites.iter().map(process).collect(),
        sites,
        members,
        told: BTreeMap::new(),
        flying: Vec::new(),
        crashing: shape.below(count as u64) as usize,
        stage: Stage::All,
        last: 0,
        receipts: 0,
        outcome: Outcome::default(),
    };
    let crash_at = if count > 2 && shape.chance(2, 3) { shape.between(100, 300) } else { u64::MAX };
    let back_at = crash_at.saturating_add(shape.between(100, 300));
    run.go(crash_at, back_at).map_err(|violation| format!("seed {seed}: {violation}"))?;
    Ok(run.outcome)
}

impl Run {
    fn go(&mut self, crash_at: u64, back_at: u64) -> Result<(), String> {
        for step in 0..700 {
            if step == crash_at {
                self.crash();
            }
            self.one(step > back_at)?;
        }
        self.loses = false;
        // What is heard of nothing any more is sent again, so that the last messages come, too.
        for _ in 0..60 {
            for at in 0..self.processes.len() {
                self.send(at)?;
                self.ask(at)?;
                self.repeat_leaves(at);
            }
            self.masks(crash_at < u64::MAX)?;
            while let Some((to, links, body)) = self.flying.pop() {
                self.receive(to, links, body)?;
            }
        }
        self.agree()
    }

    fn one(&mut self, may_return: bool) -> Result<(), String> {
        let at = self.rng.below(self.processes.len() as u64) as usize;
        match self.rng.below(100) {
            0..30 => self.send(at)?,
            30..85 => self.fly()?,
            85..93 => self.ask(at)?,
            93..97 => self.repeat_leaves(at),
            _ => self.masks(may_return)?,
        }
        Ok(())
    }

    fn alive(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.processes.len()).filter(|at| self.processes[*at].is_some())
    }

    fn send(&mut self, at: usize) -> Result<(), String> {
        let Some(process) = &mut self.processes[at] else { return Ok(()) };
        let number = self.rng.next_u64();
        let sent = process.graph.send(number).ok();
        self.outcome.full += usize::from(sent.is_none());
        let sent = sent.or_else(|| process.graph.acknowledge(number));
        let Some(links) = sent else { return Ok(()) };
        self.outcome.nulls += usize::from(links.null);
        let past = process.has.clone();
        let depth = past.iter().map(|id| self.told[id].depth).max().unwrap_or(0) + 1;
        let clock = process.clock.as_mut().map(vector::Clock::send);
        let any = self.told.values().next().map(|told| told.stamp.clone());
        let stamp = clock.or(any).expect("the first message has a clock");
        self.told.insert(links.id(), Told { past, depth, stamp, body: number });
        process.has.insert(links.id());
        self.outcome.sent += 1;
        self.spread(at, &links, number);
        self.take(at)?;
        self.judge(at)
    }

    fn spread(&mut self, from: usize, links: &Links, body: u64) {
        for to in (0..self.processes.len()).filter(|to| *to != from) {
            if !self.loses || self.rng.chance(3, 4) {
                self.flying.push((to, links.clone(), body));
            }
        }
    }

    fn repeat_leaves(&mut self, at: usize) {
        let Some(process) = &self.processes[at] else { return };
        let leaves: Vec<_> = process.graph.leaves().collect();
        let leaves = leaves.into_iter().filter_map(|id| process.graph.message(id));
        let leaves: Vec<_> = leaves.map(|(links, body)| (links, *body)).collect();
        leaves.into_iter().for_each(|(links, body)| self.spread(at, &links, body));
    }

    fn fly(&mut self) -> Result<(), String> {
        if self.flying.is_empty() {
            return Ok(());
        }
        let chosen = self.rng.below(self.flying.len() as u64) as usize;
        let (to, links, body) = if self.rng.chance(9, 10) {
            self.flying.swap_remove(chosen)
        } else {
            self.outcome.copies += 1;
            self.flying[chosen].clone()
        };
        self.receive(to, links, body)
    }

    fn receive(&mut self, to: usize, links: Links, body: u64) -> Result<(), String> {
        let id = links.id();
        let masked = matches!(self.stage, Stage::Out(_));
        let Some(process) = &mut self.processes[to] else { return Ok(()) };
        let rejected = masked && !self.told.contains_key(&id);
        match process.graph.receive(links, body) {
            Ok(Received::Held) => self.outcome.held += 1,
            Ok(Received::Attached(_)) if rejected => {
                return Err(format!("MC-42: {id:?} is behind the mask"));
            }
            Ok(Received::Attached(_) | Received::Duplicate) => {}
            // Part of somebody's leaving or coming back; the rest of the run tells whether it was right.
            Err(_) if self.outcome.masked > 0 => {}
            Err(error) => return Err(format!("{id:?} is refused at {to}: {error}")),
        }
        self.take(to)?;
        self.receipts += 1;
        if self.receipts.is_multiple_of(3) { self.judge(to) } else { Ok(()) }
    }

    fn take(&mut self, at: usize) -> Result<(), String> {
        let Some(process) = &mut self.processes[at] else { return Ok(()) };
        while let Some(id) = process.graph.poll_attached() {
            let told = self.told.get(&id).ok_or("a message that nobody sent")?;
            process.has.insert(id);
            if process.graph.message(id).is_none_or(|(_, body)| *body != told.body) {
                return Err(format!("MC-42: {id:?} is taken at {at} and not there"));
            }
            if id.rank.index() != at
                && let Some(clock) = &mut process.clock
            {
                clock.receive(&told.stamp).map_err(|error| error.to_string())?;
            }
            if !told.past.is_subset(&process.taken) {
                return Err(format!("MC-42: {id:?} comes at {at} before what happened before it"));
            }
            process.taken.insert(id);
        }
        while let Some(wave) = process.graph.poll_wave() {
            let of_it = self.told.iter().filter(|(_, told)| told.depth == wave.depth);
            if !of_it.map(|(id, _)| id).eq(&wave.messages) {
                return Err(format!("MC-45: {wave:?} is not all of its depth, at {at}"));
            }
            if wave.messages.iter().any(|id| process.graph.message(*id).is_none()) {
                return Err(format!("MC-45: {wave:?} is taken at {at} and not there"));
            }
            self.outcome.wide += usize::from(wave.messages.len() > 1);
            process.waves.push(wave);
        }
        Ok(())
    }

    /// Compares a graph with the model.
    fn judge(&mut self, at: usize) -> Result<(), String> {
        let Some(process) = &mut self.processes[at] else { return Ok(()) };
        let graph = &process.graph;
        graph.check_invariants();
        let ranks = (0..self.sites.len()).map(|rank| Rank(rank as u16));
        let active: Vec<_> = ranks.filter(|rank| !graph.is_masked_out(*rank)).collect();
        let present = |id: &&Id| graph.message(**id).is_some();
        let present: Vec<Id> = process.has.iter().filter(present).copied().collect();
        for id in &present {
            let told = &self.told[id];
            if graph.depth(*id) != Some(told.depth) {
                return Err(format!("MC-45: depth of {id:?} is {:?}", graph.depth(*id)));
            }
            for other in &present {
                let before = self.told[other].past.contains(id);
                if graph.precedes(*id, *other) != Some(before) {
                    return Err(format!("CLK-35: {id:?} before {other:?}: {before} by the trace"));
                }
                if self.outcome.returned == 0 && id != other {
                    let relation = told.stamp.relation(&self.told[other].stamp);
                    if (relation == Ok(Relation::Before)) != before {
                        return Err(format!("CLK-35: {id:?} and {other:?} by vector"));
                    }
                }
            }
            let follows = |rank: &Rank| {
                *rank == id.rank
                    || process
                        .has
                        .iter()
                        .any(|next| next.rank == *rank && self.told[next].past.contains(id))
            };
            if active.iter().all(follows) {
                process.stable.insert(*id);
            }
            if graph.is_stable(*id) != process.stable.contains(id) {
                return Err(format!("MC-43: {id:?} is stable at {at}: {}", graph.is_stable(*id)));
            }
        }
        let stats = graph.stats();
        self.outcome.attached_max = self.outcome.attached_max.max(stats.attached);
        self.outcome.awaited += usize::from(graph.awaited().next().is_some());
        let bound = stats.unstable + self.sites.len();
        // Nothing is forgotten while somebody comes back.
        let whole = graph.newest(Rank(self.crashing as u16)) > self.last
            || matches!(self.stage, Stage::Leaving(..) | Stage::Out(_));
        if whole && graph.awaited().next().is_none() && stats.attached > bound {
            return Err(format!("memory: {stats:?} with {} participants", self.sites.len()));
        }
        if stats.attached + stats.held > self.window * self.sites.len() * self.sites.len() {
            return Err(format!("memory: {stats:?} with a window of {}", self.window));
        }
        Ok(())
    }

    /// Asks for what is missing, of whom the graph says.
    fn ask(&mut self, at: usize) -> Result<(), String> {
        if self.processes[at].is_none() {
            return Ok(());
        }
        let others: Vec<_> = self.alive().filter(|it| *it != at).collect();
        let survivor = self.rng.pick(&others).map(|it| Rank(*it as u16));
        let Some(process) = &self.processes[at] else { return Ok(()) };
        let mut wanted: Vec<_> = process.graph.missing().map(|it| (it.id, it.ask)).collect();
        let awaited = process.graph.awaited().filter_map(|id| Some((id, survivor?)));
        wanted.extend(awaited);
        for (id, mut ask) in wanted {
            if self.processes[ask.index()].is_none() || ask.index() == at {
                ask = survivor.unwrap_or(ask);
            }
            let Some(asked) = &self.processes[ask.index()] else { continue };
            if let Some((links, body)) = asked.graph.message(id) {
                self.outcome.asked += 1;
                let answer = (at, links, *body);
                self.flying.push(answer);
            } else if matches!(self.stage, Stage::All) && self.outcome.masked == 0 {
                return Err(format!("MC-44: {ask:?} is asked for {id:?} and does not have it"));
            }
        }
        Ok(())
    }

    fn crash(&mut self) {
        self.processes[self.crashing] = None;
        let rank = Rank(self.crashing as u16);
        let newest = |process: &mut Process| process.graph.wedge(rank).expect("a participant");
        let last = self.processes.iter_mut().flatten().map(newest).max().unwrap_or(0);
        // Nobody who is left has the rest.
        self.told.retain(|id, _| id.rank != rank || id.number <= last);
        self.stage = Stage::Leaving(last, self.alive().collect());
        self.outcome.masked += 1;
    }

    /// One step of somebody's leaving or coming back.
    fn masks(&mut self, may_return: bool) -> Result<(), String> {
        let rank = Rank(self.crashing as u16);
        match &mut self.stage {
            Stage::Leaving(last, left) => {
                let last = *last;
                let Some(at) = left.pop() else {
                    self.stage = Stage::Out(last);
                    return Ok(());
                };
                let process = self.processes[at].as_mut().expect("a survivor");
                process.graph.mask_out(rank, last).map_err(|error| error.to_string())?;
                self.take(at)?;
                self.judge(at)
            }
            Stage::Out(last) if may_return => {
                let last = *last;
                let complete = |process: &Process| process.graph.newest(rank) == last;
                if self.processes.iter().flatten().all(complete) {
                    self.last = last;
                    self.stage = Stage::Returning(self.alive().collect());
                }
                Ok(())
            }
            Stage::Returning(left) => {
                let Some(at) = left.pop() else { return self.come_back(rank) };
                // What is stable so far stays so, and the model sees it now.
                self.judge(at)?;
                let process = self.processes[at].as_mut().expect("a survivor");
                let second = Incarnation(2);
                process.graph.mask_in(rank, second).map_err(|error| error.to_string())?;
                self.judge(at)
            }
            _ => Ok(()),
        }
    }

    fn come_back(&mut self, rank: Rank) -> Result<(), String> {
        let donors: Vec<_> = self.alive().collect();
        let donor = *self.rng.pick(&donors).expect("somebody is left");
        self.judge(donor)?;
        let donor = self.processes[donor].as_ref().expect("it is alive");
        let back = Process {
            graph: donor.graph.taken_over(rank),
            clock: None,
            has: donor.has.clone(),
            taken: donor.taken.clone(),
            waves: donor.waves.clone(),
            stable: donor.stable.clone(),
        };
        self.processes[rank.index()] = Some(back);
        self.stage = Stage::All;
        self.outcome.returned += 1;
        Ok(())
    }

    /// At the end all have the same, in the same waves.
    fn agree(&mut self) -> Result<(), String> {
        let alive: Vec<_> = self.alive().collect();
        let process = |at: usize| self.processes[at].as_ref().expect("it is alive");
        let longest = alive.iter().map(|at| process(*at)).max_by_key(|it| it.waves.len());
        let waves = &longest.expect("somebody is alive").waves;
        for at in &alive {
            let own = &process(*at).waves;
            if own[..] != waves[..own.len()] {
                return Err(format!("MC-45: the waves of {at} differ (seed {})", self.seed));
            }
            if self.by_waves && (own.len() + 8 < waves.len() || own.len() < 50) {
                return Err(format!("liveness: {at} has {} of {} waves", own.len(), waves.len()));
            }
            if process(*at).taken.len() + 8 * alive.len() < self.told.len() {
                return Err(format!("liveness: {at} has {} messages", process(*at).taken.len()));
            }
            let stats = process(*at).graph.stats();
            if stats.held > 4 * alive.len() {
                return Err(format!("liveness: {at} still holds {stats:?}"));
            }
        }
        self.outcome.waves = waves.len();
        Ok(())
    }
}
