//! Exploration of membership and a group as one machine: FIFO channels in place of the link, silence as a free step.
//! `MAINSTAY_STATES` raises the bound of the scopes that are not finished here.
#![allow(missing_docs, reason = "a test file")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hash as _;

use bytes::Bytes;
use mainstay_base::trace::{Level, Order};
use mainstay_base::{
    BootId, BootNonce, ClusterId, Duration, Fingerprint as _, Fingerprinter, GroupId, Instant,
    Machine as _, MessageId, NodeId, Position,
};
use mainstay_membership::{self as membership, Role};
use mainstay_multicast::{self as multicast, Durability, Event};
use mainstay_sim::{Model, Report, Search, explore};
use mainstay_site::core::{Core, CoreConfig, Input, Output, Packet, Past, Record};

/// Longer than any run: in exploration silence is a step, not a time.
const NEVER: Duration = Duration::from_secs(1_000_000_000);

#[derive(Clone, Hash)]
enum Sent {
    Up,
    Packet(Packet),
}

#[derive(Clone)]
struct Site {
    boot: BootId,
    former: Vec<BootId>,
    core: Option<Core>,
    disk: Vec<Record>,
    writes: VecDeque<(u64, Record)>,
    now: Instant,
    /// How far this boot has delivered of each group; not there until its state is known.
    positions: BTreeMap<GroupId, u64>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Deliver { from: usize, to: usize },
    Write(usize),
    Timeout(usize),
    Cast(usize, GroupId),
    Crash(usize),
    Restart(usize),
    Suspect { by: usize, whom: usize },
    Lose { from: usize, to: usize },
}

/// What is known of a group by all that was delivered or acknowledged anywhere.
#[derive(Clone, Default, Hash)]
struct Known {
    /// What stands at each position.
    order: BTreeMap<u64, MessageId>,
    acked: BTreeSet<u64>,
    /// Where each view begins.
    cuts: BTreeMap<u64, u64>,
}

#[derive(Clone)]
struct Scope {
    durability: Durability,
    /// The groups, each with the indices of its nodes.
    groups: Vec<(GroupId, Vec<usize>)>,
    sites: Vec<Site>,
    channels: BTreeMap<(BootId, BootId), VecDeque<Sent>>,
    known: BTreeMap<GroupId, Known>,
    nonces: u128,
    /// Who is still to cast, and to which group.
    casts: Vec<(usize, GroupId)>,
    crashes: u32,
    restarts: u32,
    violation: Option<String>,
}

fn cluster() -> ClusterId {
    ClusterId::from_entropy(1)
}

fn group(name: &str) -> GroupId {
    GroupId::new(cluster(), name)
}

impl Scope {
    /// Three sites in a view, with one group of all.
    fn new(durability: Durability) -> Self {
        Self::with_groups(durability, &[("g", &[0, 1, 2])])
    }

    fn with_groups(durability: Durability, groups: &[(&str, &[usize])]) -> Self {
        let mut nodes: Vec<_> =
            (0..3).map(|index| NodeId::new(cluster(), &format!("n{index}"))).collect();
        nodes.sort();
        let site = |node: &NodeId| Site {
            boot: BootId { node: *node, nonce: BootNonce(0) },
            former: Vec::new(),
            core: None,
            disk: Vec::new(),
            writes: VecDeque::new(),
            now: Instant::ZERO,
            positions: BTreeMap::new(),
        };
        let groups: Vec<_> = groups.iter().map(|(name, of)| (group(name), of.to_vec())).collect();
        let mut scope = Self {
            durability,
            known: groups.iter().map(|(group, _)| (*group, Known::default())).collect(),
            groups,
            sites: nodes.iter().map(site).collect(),
            channels: BTreeMap::new(),
            nonces: 0,
            casts: Vec::new(),
            crashes: 0,
            restarts: 0,
            violation: None,
        };
        (0..3).for_each(|index| scope.start(index, true));
        scope.settle();
        for (group, of) in &scope.groups {
            assert!(of.iter().all(|index| scope.sites[*index].positions.get(group) == Some(&0)));
        }
        scope
    }

    fn config(&self, me: BootId) -> CoreConfig {
        let roster: BTreeSet<_> = self.sites.iter().map(|site| site.boot.node).collect();
        let level = match self.durability {
            Durability::Memory => Level::Majority,
            Durability::Disk => Level::Disk,
        };
        let node = |index: &usize| self.sites[*index].boot.node;
        let mine = self.groups.iter().filter(|(_, of)| of.iter().any(|it| node(it) == me.node));
        let groups = mine.map(|(group, of)| {
            let group = multicast::Config::new(*group, of.iter().map(node).collect())
                .durability(self.durability)
                .deliver_at(level)
                .stateful(false);
            group.build().unwrap()
        });
        let groups = groups.collect();
        let membership = membership::Config::default();
        let membership =
            membership.with_timeout(NEVER).unwrap().with_formation_wait(Duration::ZERO);
        CoreConfig { me, roster, membership, groups }
    }

    fn start(&mut self, index: usize, bootstrap: bool) {
        self.nonces += 1;
        let old = self.sites[index].boot;
        let boot = BootId { node: old.node, nonce: BootNonce(self.nonces) };
        let mut past = Past::new();
        self.sites[index].disk.iter().for_each(|record| past.record(record.clone()));
        let config = self.config(boot);
        let site = &mut self.sites[index];
        site.former.push(old);
        site.boot = boot;
        site.positions.clear();
        site.core = Some(Core::recover(config, past, bootstrap, site.now));
        self.channels.retain(|(_, to), _| *to != old);
        for other in (0..3).filter(|other| *other != index) {
            if self.sites[other].core.is_some() {
                let peer = self.sites[other].boot;
                self.channels.entry((boot, peer)).or_default().push_back(Sent::Up);
                self.channels.entry((peer, boot)).or_default().push_back(Sent::Up);
            }
        }
        self.turn(index);
    }

    fn input(&mut self, index: usize, input: Input) {
        let site = &mut self.sites[index];
        if let Some(core) = &mut site.core {
            core.handle(site.now, input);
            self.turn(index);
        }
    }

    fn turn(&mut self, index: usize) {
        let site = &mut self.sites[index];
        let Some(core) = &mut site.core else { return };
        core.end_turn(site.now);
        let mut outputs = Vec::new();
        while let Some(output) = core.poll_output() {
            outputs.push(output);
        }
        outputs.into_iter().for_each(|output| self.perform(index, output));
    }

    fn perform(&mut self, index: usize, output: Output) {
        let boot = self.sites[index].boot;
        match output {
            Output::Send { to, packet } => {
                if self.sites.iter().any(|site| site.boot == to && site.core.is_some()) {
                    let channel = self.channels.entry((boot, to)).or_default();
                    channel.push_back(Sent::Packet(packet));
                }
            }
            Output::Persist { io, record } => self.sites[index].writes.push_back((io, *record)),
            Output::Isolate { boot: dead } => {
                self.channels.remove(&(dead, boot));
            }
            Output::Killed => {
                self.sites[index].core = None;
                self.sites[index].writes.clear();
                self.restarts += 1;
                self.channels.retain(|(_, to), _| *to != boot);
            }
            Output::Group { group, event } => self.observe(index, group, event),
            Output::View { .. } | Output::Minority { .. } | Output::Cast { .. } => {}
        }
    }

    /// Checks MC-10, MC-17, MC-21 and MB-40: one order, no holes, every cut the same and behind all that was acknowledged.
    fn observe(&mut self, index: usize, group: GroupId, event: Event) {
        let mut found = None;
        let Known { order, acked, cuts } = self.known.get_mut(&group).unwrap();
        let positions = &mut self.sites[index].positions;
        match event {
            Event::Deliver(batch) => {
                for it in batch {
                    let position = it.position.unwrap().0;
                    let known = *order.entry(position).or_insert(it.message);
                    if known != it.message {
                        found = Some(format!("{:?} and {known:?} at {position}", it.message));
                    }
                    if positions.get(&group).is_some_and(|at| at + 1 != position) {
                        found = Some(format!("a hole before {position}"));
                    }
                    positions.insert(group, position);
                }
            }
            Event::View(view) => {
                let cut = *cuts.entry(view.id.number).or_insert(view.start.0);
                if cut != view.start.0 {
                    found = Some(format!("{:?} begins at {cut} and at {}", view.id, view.start.0));
                }
                if let Some(last) = acked.last()
                    && *last > view.start.0
                {
                    found =
                        Some(format!("{last} was acknowledged, {:?} begins before it", view.id));
                }
                if positions.get(&group).is_some_and(|at| *at != view.start.0) {
                    found = Some(format!("entered {:?} without all before it", view.id));
                }
                positions.insert(group, view.start.0);
            }
            Event::Reached { level, position: Position(position), .. }
                if level > Level::Delivered =>
            {
                acked.insert(position);
            }
            Event::MaybeLost { .. } => {
                // Said openly: from here on another history counts.
                let start = positions.get(&group).copied().unwrap_or_default();
                acked.retain(|position| *position <= start);
                order.retain(|position, _| *position <= start);
            }
            _ => {}
        }
        if let Some(what) = found {
            let boot = self.sites[index].boot;
            self.violation.get_or_insert_with(|| format!("{boot:?}: {what}"));
        }
    }

    fn deliver(&mut self, from: usize, to: usize) {
        let pair = (self.sites[from].boot, self.sites[to].boot);
        let Some(sent) = self.channels.get_mut(&pair).and_then(VecDeque::pop_front) else {
            return;
        };
        match sent {
            Sent::Up => {
                let former = self.sites[from].former.clone();
                let site = &mut self.sites[to];
                if let Some(core) = &mut site.core {
                    for boot in former {
                        core.handle(site.now, Input::Peer(membership::Input::Gone { boot }));
                    }
                }
                self.input(to, Input::Peer(membership::Input::Up { boot: pair.0 }));
            }
            Sent::Packet(packet) => self.input(to, Input::Packet { from: pair.0, packet }),
        }
    }

    fn available(&self) -> Vec<Step> {
        let writing = self.sites.iter().position(|site| !site.writes.is_empty());
        // A write that no crash can interrupt any more commutes with all that others do.
        if let Some(index) = writing.filter(|_| self.crashes == 0) {
            return vec![Step::Write(index)];
        }
        let mut steps = Vec::new();
        for from in 0..3 {
            for to in 0..3 {
                self.between(from, to, &mut steps);
            }
        }
        let mut busy = steps.iter().any(|step| matches!(step, Step::Deliver { .. }));
        for (index, site) in self.sites.iter().enumerate() {
            match &site.core {
                None if self.restarts > 0 => steps.push(Step::Restart(index)),
                None => {}
                Some(_) => {
                    if !site.writes.is_empty() {
                        steps.push(Step::Write(index));
                        busy = true;
                    }
                    if self.crashes > 0 {
                        steps.push(Step::Crash(index));
                    }
                    let casts = self.casts.iter().filter(|(who, _)| *who == index);
                    steps.extend(casts.map(|(who, group)| Step::Cast(*who, *group)));
                }
            }
        }
        for (index, site) in self.sites.iter().enumerate().filter(|_| !busy) {
            let due = site.core.as_ref().and_then(|core| core.poll_timeout());
            if due.is_some_and(|at| at < Instant::ZERO + NEVER / 2) {
                steps.push(Step::Timeout(index));
            }
        }
        steps
    }

    fn between(&self, from: usize, to: usize, steps: &mut Vec<Step>) {
        let pair = (self.sites[from].boot, self.sites[to].boot);
        let waiting = self.channels.get(&pair).is_some_and(|channel| !channel.is_empty());
        let dead = self.sites[from].core.is_none();
        if waiting && self.sites[to].writes.is_empty() {
            steps.push(Step::Deliver { from, to });
        }
        if waiting && dead {
            steps.push(Step::Lose { from, to });
        }
        if let Some(core) = &self.sites[to].core
            && dead
            && core.membership().view().boots().chain(core.membership().peers()).any(|boot| {
                boot.node == pair.0.node && !core.membership().suspected().any(|it| it == boot)
            })
        {
            steps.push(Step::Suspect { by: to, whom: from });
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Deliver { from, to } => self.deliver(from, to),
            Step::Write(index) => {
                if let Some((io, record)) = self.sites[index].writes.pop_front() {
                    self.sites[index].disk.push(record);
                    self.input(index, Input::Persisted { io });
                }
            }
            Step::Timeout(index) => {
                let site = &mut self.sites[index];
                if let Some(core) = &mut site.core
                    && let Some(at) = core.poll_timeout()
                {
                    site.now = site.now.max(at);
                    core.handle_timeout(site.now);
                    self.turn(index);
                }
            }
            Step::Cast(index, group) => {
                self.casts.retain(|it| *it != (index, group));
                let (order, level) = (Order::Total, Level::Majority);
                let payload = Bytes::from_static(b"x");
                self.input(index, Input::Cast { group, token: 0, order, level, payload });
            }
            Step::Crash(index) => {
                self.crashes -= 1;
                let site = &mut self.sites[index];
                site.core = None;
                site.writes.clear();
                let boot = site.boot;
                self.channels.retain(|(_, to), _| *to != boot);
            }
            Step::Restart(index) => {
                self.restarts -= 1;
                self.start(index, false);
            }
            Step::Suspect { by, whom } => {
                let node = self.sites[whom].boot.node;
                let boots = [&self.sites[whom].former[..], &[self.sites[whom].boot]].concat();
                let site = &mut self.sites[by];
                if let Some(core) = &mut site.core {
                    let met: BTreeSet<_> = core.membership().peers().collect();
                    for boot in boots {
                        // Of one never met only its silence tells.
                        let input = match met.contains(&boot) {
                            true => membership::Input::Down { boot },
                            false => membership::Input::Suspect { boot },
                        };
                        core.handle(site.now, Input::Peer(input));
                    }
                }
                self.input(by, Input::Peer(membership::Input::Refused { node }));
            }
            Step::Lose { from, to } => {
                self.channels.remove(&(self.sites[from].boot, self.sites[to].boot));
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            let steps = self.available();
            let wanted = |step: &&Step| {
                matches!(step, Step::Deliver { .. } | Step::Write(_) | Step::Timeout(_))
            };
            let Some(step) = steps.iter().find(wanted) else { return };
            self.take(*step);
        }
        panic!("it never comes to rest");
    }
}

impl Model for Scope {
    type Step = Step;

    fn steps(&self, into: &mut Vec<Step>) {
        into.extend(self.available());
    }

    fn apply(&mut self, step: &Step) -> Result<(), String> {
        self.take(*step);
        self.violation.take().map_or(Ok(()), Err)
    }

    fn fingerprint(&self) -> u128 {
        let mut hash = Fingerprinter::new();
        for site in &self.sites {
            (site.boot, &site.disk, &site.positions, site.core.is_some()).hash(&mut hash);
            site.writes.iter().for_each(|(_, record)| record.hash(&mut hash));
            if let Some(core) = &site.core {
                core.fingerprint(&mut hash);
            }
        }
        for (pair, channel) in self.channels.iter().filter(|(_, channel)| !channel.is_empty()) {
            (pair, channel).hash(&mut hash);
        }
        self.known.hash(&mut hash);
        (&self.casts, self.crashes, self.restarts).hash(&mut hash);
        hash.finish128()
    }

    /// Nothing is left to happen: a quorum that lives is in one view and has delivered the same.
    fn check_end(&self) -> Result<(), String> {
        let living: Vec<_> =
            self.sites.iter().filter_map(|site| Some((site, site.core.as_ref()?))).collect();
        let settled = living.iter().all(|(_, core)| {
            let view = core.membership().view();
            core.membership().role() == Role::Member && view.members.len() == living.len()
        });
        let equal = self.groups.iter().all(|(group, _)| {
            let at: BTreeSet<_> =
                living.iter().filter_map(|(site, _)| site.positions.get(group)).collect();
            at.len() <= 1
        });
        if living.len() >= 2 && !(settled && equal) {
            return Err("a living quorum has not come to one view and one position".to_owned());
        }
        Ok(())
    }
}

fn run(name: &str, scope: Scope, states: usize) -> Report {
    let bound = std::env::var("MAINSTAY_STATES").ok().and_then(|text| text.parse().ok());
    let report = explore(scope, Search::Breadth, bound.unwrap_or(states));
    println!("{name}: {report:?}");
    report
}

fn passes(report: &Report) {
    if let Some(violation) = &report.violation {
        panic!("{violation}");
    }
}

/// Checks MB-1, MB-40, MC-10, MC-17, MC-21 completely: three members of a group on disk, one casts, one crashes, each at
/// every step.
#[test]
fn a_cast_and_a_crash_at_every_step() {
    for durability in [Durability::Memory, Durability::Disk] {
        let scope = Scope { casts: vec![(0, group("g"))], crashes: 1, ..Scope::new(durability) };
        let report = run(&format!("{durability:?}, 1 cast, 1 crash"), scope, 200_000);
        passes(&report);
        assert!(report.complete);
    }
}

/// The same up to a bound with two crashes and a restart.
#[test]
fn a_cast_two_crashes_and_a_restart() {
    let scope = Scope {
        casts: vec![(1, group("g"))],
        crashes: 2,
        restarts: 1,
        ..Scope::new(Durability::Disk)
    };
    passes(&run("disk, 1 cast, 2 crashes, 1 restart", scope, 20_000));
}

/// The same, completely, with two groups that share one site: each keeps to its own order whatever the other does
/// (MB-40, MC-10, MC-17, MC-21).
#[test]
fn two_groups_of_different_sites() {
    let mut scope = Scope::with_groups(Durability::Disk, &[("g", &[0, 1]), ("h", &[1, 2])]);
    (scope.casts, scope.crashes) = (vec![(0, group("g")), (1, group("h"))], 1);
    let report = run("disk, two groups, 2 casts, 1 crash", scope, 200_000);
    passes(&report);
    assert!(report.complete);
}
