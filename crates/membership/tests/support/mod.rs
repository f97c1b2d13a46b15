//! Nodes, their disks and lossless FIFO channels between boots, moved one step at a time.
//!
//! What the groups would say is modelled by text: a flush state names its boot, a cut is the list of the states. Every
//! install is held against a global table of the views and cuts by number.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hash as _;

use bytes::Bytes;
use mainstay_base::{
    BootId, BootNonce, ClusterId, Duration, Fingerprint as _, Fingerprinter, Instant, Machine as _,
    NodeId,
};
use mainstay_membership::{
    Config, Durable, Evidence, Input, Member, Membership, Message, Output, Role, View,
};
use mainstay_sim::Model;

impl Model for World {
    type Step = Step;

    fn steps(&self, into: &mut Vec<Step>) {
        into.extend(self.steps());
    }

    fn apply(&mut self, step: &Step) -> Result<(), String> {
        Self::apply(self, *step);
        self.violation.take().map_or(Ok(()), Err)
    }

    fn fingerprint(&self) -> u128 {
        Self::fingerprint(self)
    }

    /// Nothing is left to happen: a quorum that lives has come to one view.
    fn check_end(&self) -> Result<(), String> {
        let living: Vec<_> =
            (0..self.sites.len()).filter(|site| self.role(*site).is_some()).collect();
        let settled = living.iter().all(|site| {
            self.role(*site) == Some(Role::Member)
                && self.members(*site) == self.members(living[0])
                && self.view(*site).members.len() == living.len()
        });
        if living.len() * 2 > self.sites.len() && !settled {
            return Err(format!("stuck: {}", self.summary()));
        }
        Ok(())
    }
}

/// Longer than any run: in exploration silence is a step, not a time.
pub const NEVER: Duration = Duration::from_secs(1_000_000_000);

pub fn cluster() -> ClusterId {
    ClusterId::from_entropy(1)
}

/// Node ids of `count` nodes, sorted.
pub fn nodes(count: usize) -> Vec<NodeId> {
    let mut nodes: Vec<_> =
        (0..count).map(|number| NodeId::new(cluster(), &format!("n{number}"))).collect();
    nodes.sort();
    nodes
}

#[derive(Clone, Hash, Debug)]
pub enum Packet {
    Up,
    Message(Message),
}

#[derive(Clone, Debug)]
pub struct Site {
    pub boot: BootId,
    /// Earlier boots of the node.
    pub former: Vec<BootId>,
    pub machine: Option<Membership>,
    pub disk: Durable,
    pub writes: VecDeque<(u64, Durable)>,
    pub now: Instant,
    /// Views installed by this boot, in order, with the cut that led to each.
    pub installed: Vec<(View, Bytes)>,
    pub minority: bool,
    pub suspicions: Vec<(BootId, Evidence)>,
    pub isolated: BTreeSet<BootId>,
}

/// What can happen next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Step {
    Deliver {
        from: usize,
        to: usize,
    },
    Write(usize),
    Timeout(usize),
    Crash(usize),
    Restart(usize),
    /// `by` hears nothing of `whom` any more.
    Suspect {
        by: usize,
        whom: usize,
    },
    /// What a dead boot still had on the way is lost.
    Lose {
        from: usize,
        to: usize,
    },
}

#[derive(Clone, Debug)]
pub struct World {
    pub config: Config,
    pub sites: Vec<Site>,
    pub channels: BTreeMap<(BootId, BootId), VecDeque<Packet>>,
    /// By number: what was installed first under it.
    pub agreed: BTreeMap<u64, (View, Bytes)>,
    pub nonces: u128,
    /// How many crashes and wrong suspicions may still happen.
    pub crashes: u32,
    pub restarts: u32,
    pub accusations: u32,
    /// Timeouts may come before messages and writes that are on the way.
    pub hasty: bool,
    /// The nodes make the cluster together: what each disk is called.
    pub disks: Option<Vec<u128>>,
    pub violation: Option<String>,
}

impl World {
    pub fn new(count: usize, config: Config) -> Self {
        let roster = nodes(count);
        let mut world = Self {
            config,
            sites: Vec::new(),
            channels: BTreeMap::new(),
            agreed: BTreeMap::new(),
            nonces: 0,
            crashes: 0,
            restarts: 0,
            accusations: 0,
            hasty: true,
            disks: None,
            violation: None,
        };
        for node in &roster {
            let boot = BootId { node: *node, nonce: BootNonce(0) };
            world.sites.push(Site {
                boot,
                former: Vec::new(),
                machine: None,
                disk: Durable::bootstrap(roster.iter().copied()),
                writes: VecDeque::new(),
                now: Instant::ZERO,
                installed: Vec::new(),
                minority: false,
                suspicions: Vec::new(),
                isolated: BTreeSet::new(),
            });
        }
        world
    }

    /// Nodes without a past that are to make the cluster.
    pub fn founding(count: usize, config: Config) -> Self {
        let mut world = Self::new(count, config);
        world.disks = Some((0..count as u128).collect());
        for site in 0..count {
            world.sites[site].disk = Durable::empty(nodes(count));
        }
        world
    }

    /// All that a node writes is forced.
    pub fn settle_writes(&mut self, index: usize) {
        while !self.sites[index].writes.is_empty() {
            self.apply(Step::Write(index));
        }
    }

    /// A node that is down loses its disk.
    pub fn wipe(&mut self, index: usize) {
        self.sites[index].disk = Durable::empty(nodes(self.sites.len()));
        if let Some(disks) = &mut self.disks {
            disks[index] += 100;
        }
    }

    /// All nodes up, the first view installed by all, nothing on the way.
    pub fn formed(count: usize, config: Config) -> Self {
        let mut world = Self::new(count, config);
        for site in 0..count {
            world.start(site);
        }
        world.settle();
        assert!(
            world.sites.iter().all(|site| site.machine.as_ref().unwrap().role() == Role::Member)
        );
        world
    }

    pub fn start(&mut self, index: usize) {
        self.nonces += 1;
        let boot = BootId { node: self.sites[index].boot.node, nonce: BootNonce(self.nonces) };
        let old = self.sites[index].boot;
        let site = &mut self.sites[index];
        site.former.push(site.boot);
        site.boot = boot;
        site.installed.clear();
        site.minority = false;
        site.suspicions.clear();
        site.isolated.clear();
        let mut config = self.config.clone();
        if let Some(disks) = &self.disks {
            config = config.with_founding(disks[index], 1);
        }
        site.machine = Some(Membership::recover(config, boot, site.disk.clone(), site.now));
        self.channels.retain(|(_, to), _| *to != old);
        for other in 0..self.sites.len() {
            if other == index || self.sites[other].machine.is_none() {
                continue;
            }
            let peer = self.sites[other].boot;
            // The first sign of the new boot is also the word that the old one is gone.
            self.channels.entry((boot, peer)).or_default().push_back(Packet::Up);
            self.channels.entry((peer, boot)).or_default().push_back(Packet::Up);
        }
        self.turn(index);
    }

    pub fn crash(&mut self, index: usize, written: usize) {
        let site = &mut self.sites[index];
        site.machine = None;
        for (_, durable) in site.writes.drain(..).take(written) {
            site.disk = durable;
        }
        let boot = site.boot;
        self.channels.retain(|(_, to), _| *to != boot);
    }

    pub fn input(&mut self, index: usize, input: Input) {
        let site = &mut self.sites[index];
        let now = site.now;
        if let Some(machine) = &mut site.machine {
            machine.handle(now, input);
            self.turn(index);
        }
    }

    fn turn(&mut self, index: usize) {
        for round in 0.. {
            assert!(round < 1_000, "a turn that does not end: {}", self.summary());
            let now = self.sites[index].now;
            let Some(machine) = &mut self.sites[index].machine else {
                return;
            };
            machine.end_turn(now);
            let mut answers = Vec::new();
            while let Some(output) =
                self.sites[index].machine.as_mut().and_then(|machine| machine.poll_output())
            {
                self.perform(index, output, &mut answers);
            }
            if answers.is_empty() {
                return;
            }
            for answer in answers {
                if let Some(machine) = &mut self.sites[index].machine {
                    machine.handle(now, answer);
                }
            }
        }
    }

    fn perform(&mut self, index: usize, output: Output, answers: &mut Vec<Input>) {
        let boot = self.sites[index].boot;
        match output {
            Output::Send { to, message } => {
                let live = self.sites.iter().any(|site| site.boot == to && site.machine.is_some());
                if live {
                    let channel = self.channels.entry((boot, to)).or_default();
                    channel.push_back(Packet::Message(message));
                }
            }
            Output::Persist { io, durable } => {
                self.sites[index].writes.push_back((io, *durable));
            }
            Output::Wedge => {
                let state = Bytes::from(format!("{:x};", boot.nonce.0));
                answers.push(Input::Flushed { state });
            }
            Output::ComputeCut { states, .. } => {
                let cut: Vec<u8> = states.iter().flat_map(|(_, state)| state.to_vec()).collect();
                let annex = Bytes::from(cut.len().to_string());
                answers.push(Input::Cut { cut: Bytes::from(cut), annex });
            }
            Output::Hold { extension } => answers.push(Input::Held { view: extension.last().id }),
            Output::Install { base, extension, member } => {
                self.check_install(index, &base, &extension.views, &extension.cut, member);
                // Nothing to transfer: what a member was admitted with is complete at once.
                answers.push(Input::BecomeVoter);
            }
            Output::Isolate { boot } => {
                self.sites[index].isolated.insert(boot);
            }
            Output::Killed => {
                self.sites[index].machine = None;
                self.sites[index].writes.clear();
                self.restarts += 1;
                self.channels.retain(|(_, to), _| *to != boot);
            }
            Output::Minority { on } => self.sites[index].minority = on,
            Output::Suspected { boot, evidence } => {
                self.sites[index].suspicions.push((boot, evidence));
            }
        }
    }

    /// Checks MB-1 (which members and why others left), MB-2, MB-14, MB-30 and that a view has one cut.
    fn check_install(
        &mut self,
        index: usize,
        base: &View,
        views: &[View],
        cut: &Bytes,
        member: bool,
    ) {
        let boot = self.sites[index].boot;
        let mut complain = |what: String| {
            self.violation.get_or_insert_with(|| format!("{boot:?}: {what}"));
        };
        let mut before = base.clone();
        for view in views {
            if view.id.number != before.id.number + 1 {
                complain(format!("{:?} behind {:?}", view.id, before.id));
            }
            let (agreed, agreed_cut) =
                self.agreed.entry(view.id.number).or_insert_with(|| (view.clone(), cut.clone()));
            if agreed != view || agreed_cut != cut {
                complain(format!(
                    "installs {view:?} by {cut:?}, another has {agreed:?} by {agreed_cut:?}"
                ));
            }
            let gone = before.members.iter().filter(|it| view.member(it.boot()).is_none());
            for Member { site, .. } in gone {
                if view.departures.why(*site).is_none() {
                    complain(format!("{site:?} left, and nobody knows why"));
                }
            }
            if let Some(member) =
                view.members.iter().find(|it| view.departures.why(it.site).is_some())
            {
                complain(format!("{member:?} is a member and has left"));
            }
            let of_node: BTreeSet<_> = view.members.iter().map(|member| member.site.node).collect();
            if of_node.len() != view.members.len() {
                complain(format!("two incarnations of a node in {view:?}"));
            }
            for Member { site, .. } in &view.members {
                let known = before.members.iter().any(|old| old.site == *site);
                let used = before.incarnations.get(&site.node).copied().unwrap_or_default();
                if !known && site.incarnation <= used {
                    complain(format!("{site:?} was used before"));
                }
            }
            before = view.clone();
            self.sites[index].installed.push((view.clone(), cut.clone()));
        }
        if member != before.member(boot).is_some() {
            complain("is a member of a view that is without it".to_owned());
        }
    }

    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        // A write that no crash can interrupt any more commutes with all that others do.
        let writing = self.sites.iter().position(|site| !site.writes.is_empty());
        if let Some(index) = writing.filter(|_| self.crashes == 0 && !self.hasty) {
            return vec![Step::Write(index)];
        }
        for from in 0..self.sites.len() {
            for to in 0..self.sites.len() {
                self.steps_between(from, to, &mut steps);
            }
        }
        for (index, site) in self.sites.iter().enumerate() {
            match &site.machine {
                None if self.restarts > 0 => steps.push(Step::Restart(index)),
                None => {}
                Some(_) => {
                    if !site.writes.is_empty() {
                        steps.push(Step::Write(index));
                    }
                    if self.crashes > 0 {
                        steps.push(Step::Crash(index));
                    }
                }
            }
        }
        let busy = |step: &Step| matches!(step, Step::Deliver { .. } | Step::Write(_));
        if !self.hasty && steps.iter().any(busy) {
            return steps;
        }
        for (index, site) in self.sites.iter().enumerate() {
            let due = site.machine.as_ref().and_then(|machine| machine.poll_timeout());
            if due.is_some_and(|at| at < Instant::ZERO + NEVER / 2) {
                steps.push(Step::Timeout(index));
            }
        }
        steps
    }

    fn steps_between(&self, from: usize, to: usize, steps: &mut Vec<Step>) {
        let pair = (self.sites[from].boot, self.sites[to].boot);
        let waiting = self.channels.get(&pair).is_some_and(|channel| !channel.is_empty());
        if waiting && (self.hasty || self.sites[to].writes.is_empty()) {
            steps.push(Step::Deliver { from, to });
        }
        let dead = self.sites[from].machine.is_none();
        if waiting && dead {
            steps.push(Step::Lose { from, to });
        }
        if let Some(machine) = &self.sites[to].machine
            && from != to
        {
            let whom = self.sites[from].boot;
            let member = machine.view().member(whom).is_some();
            let known = machine.suspected().any(|boot| boot == whom);
            if !known && (dead || (member && self.accusations > 0)) {
                steps.push(Step::Suspect { by: to, whom: from });
            }
        }
    }

    pub fn apply(&mut self, step: Step) {
        match step {
            Step::Deliver { from, to } => self.deliver(from, to),
            Step::Write(index) => {
                if let Some((io, durable)) = self.sites[index].writes.pop_front() {
                    self.sites[index].disk = durable;
                    self.input(index, Input::Persisted { io });
                }
            }
            Step::Timeout(index) => self.timeout(index),
            Step::Crash(index) => {
                self.crashes -= 1;
                self.crash(index, 0);
            }
            Step::Restart(index) => {
                self.restarts -= 1;
                self.start(index);
            }
            Step::Suspect { by, whom } => {
                let boot = self.sites[whom].boot;
                if self.sites[whom].machine.is_some() {
                    self.accusations -= 1;
                    self.input(by, Input::Suspect { boot });
                } else {
                    self.fall_silent(by, whom);
                }
            }
            Step::Lose { from, to } => {
                self.channels.remove(&(self.sites[from].boot, self.sites[to].boot));
            }
        }
    }

    /// A dead node is noticed: those of its boots that were met by a refused connection, others by their silence.
    fn fall_silent(&mut self, by: usize, whom: usize) {
        let boots = [&self.sites[whom].former[..], &[self.sites[whom].boot]].concat();
        let site = &mut self.sites[by];
        if let Some(machine) = &mut site.machine {
            let met: BTreeSet<_> = machine.peers().collect();
            for boot in boots {
                let input = match met.contains(&boot) {
                    true => Input::Down { boot },
                    false => Input::Suspect { boot },
                };
                machine.handle(site.now, input);
            }
        }
        let node = self.sites[whom].boot.node;
        self.input(by, Input::Refused { node });
    }

    pub fn deliver(&mut self, from: usize, to: usize) {
        let pair = (self.sites[from].boot, self.sites[to].boot);
        let Some(packet) = self.channels.get_mut(&pair).and_then(VecDeque::pop_front) else {
            return;
        };
        if self.sites[to].isolated.contains(&pair.0) {
            return;
        }
        match packet {
            Packet::Up => {
                let former = self.sites[from].former.clone();
                let site = &mut self.sites[to];
                if let Some(machine) = &mut site.machine {
                    former
                        .iter()
                        .for_each(|boot| machine.handle(site.now, Input::Gone { boot: *boot }));
                }
                self.input(to, Input::Up { boot: pair.0 });
            }
            Packet::Message(message) => {
                self.input(to, Input::Message { from: pair.0, message });
            }
        }
    }

    pub fn timeout(&mut self, index: usize) {
        let site = &mut self.sites[index];
        let Some(machine) = &mut site.machine else { return };
        if let Some(at) = machine.poll_timeout() {
            site.now = site.now.max(at);
            machine.handle_timeout(site.now);
            self.turn(index);
        }
    }

    /// Delivers, writes and waits, in a fixed order, until nothing is left to do.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            let steps = self.steps();
            let now = |step: &&Step| matches!(step, Step::Deliver { .. } | Step::Write(_));
            let later = |step: &&Step| matches!(step, Step::Timeout(_));
            let next = steps.iter().find(now).or_else(|| steps.iter().find(later));
            let Some(step) = next else { return };
            self.apply(*step);
        }
        panic!("it never comes to rest: {self:?}");
    }

    /// The youngest of three members crashes and comes back, and one of the others is not reached; how many members there
    /// are when nothing else is left to happen.
    pub fn come_back_apart(&mut self) -> usize {
        let members = self.members(0);
        let (manager, apart, joiner) = (members[0], members[1], members[2]);
        self.crash(joiner, 0);
        for by in [manager, apart] {
            self.apply(Step::Suspect { by, whom: joiner });
        }
        self.settle();
        self.start(joiner);
        let goes_on = |step: &Step| match *step {
            Step::Deliver { from, to } => from == manager || to == manager,
            step => matches!(step, Step::Write(_)),
        };
        while let Some(step) = self.steps().into_iter().find(goes_on) {
            self.apply(step);
        }
        self.members(manager).len()
    }

    pub fn fingerprint(&self) -> u128 {
        let mut hash = Fingerprinter::new();
        for site in &self.sites {
            site.boot.hash(&mut hash);
            site.machine.is_some().hash(&mut hash);
            if let Some(machine) = &site.machine {
                machine.fingerprint(&mut hash);
            }
            (&site.disk, &site.isolated).hash(&mut hash);
            for (_, durable) in &site.writes {
                durable.hash(&mut hash);
            }
        }
        for (pair, channel) in self.channels.iter().filter(|(_, channel)| !channel.is_empty()) {
            (pair, channel).hash(&mut hash);
        }
        (&self.agreed, self.crashes, self.restarts, self.accusations).hash(&mut hash);
        hash.finish128()
    }

    /// Where everybody stands, a line each.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for (index, site) in self.sites.iter().enumerate() {
            let Some(machine) = &site.machine else {
                text += &format!("\n{index} down");
                continue;
            };
            let view = machine.view();
            let boots: Vec<_> = view.members.iter().map(|member| member.nonce.0).collect();
            let suspected: Vec<_> = machine.suspected().map(|boot| boot.nonce.0).collect();
            text += &format!(
                "\n{index} nonce {} {:?} view {} of {boots:?} suspects {suspected:?} wrote {:?} next {:?}",
                site.boot.nonce.0,
                machine.role(),
                view.id.number,
                site.disk,
                machine.poll_timeout()
            );
        }
        text
    }

    /// The scope of an exploration: 3 members with nothing on the way.
    pub fn scope(config: Config, crashes: u32, restarts: u32, accusations: u32) -> Self {
        Self { crashes, restarts, accusations, hasty: false, ..Self::formed(3, config) }
    }

    pub fn role(&self, index: usize) -> Option<Role> {
        self.sites[index].machine.as_ref().map(Membership::role)
    }

    pub fn view(&self, index: usize) -> &View {
        self.sites[index].machine.as_ref().unwrap().view()
    }

    /// The members of the view at `index`, by index of their node.
    pub fn members(&self, index: usize) -> Vec<usize> {
        let place =
            |node: NodeId| self.sites.iter().position(|site| site.boot.node == node).unwrap();
        self.view(index).members.iter().map(|member| place(member.site.node)).collect()
    }
}
