//! A site of several groups in one process: channels, logs, an oracle for the views, and the checkers at the end.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses its part")]

mod change;
mod copies;
mod judge;
mod slot;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use copies::Copies;
use judge::survivors;
use mainstay_base::trace::{GroupWord, MembershipWord, ProcessWord, What};
use mainstay_base::{
    BootId, BootNonce, ClusterId, Duration, GroupId, Incarnation, Instant, Level, Member,
    MessageId, NodeId, Order, Rng, SiteId, View, trace,
};
use mainstay_check::{Report, check_all};
use mainstay_multicast::{
    Agreed, Builder, CastError, Config, Durability, Event, Group, Message, Start,
};
pub use slot::Slot;

pub fn cluster() -> ClusterId {
    ClusterId::from_entropy(7)
}

pub fn node(index: usize) -> NodeId {
    NodeId::new(cluster(), &format!("n{index}"))
}

pub fn group_id() -> GroupId {
    GroupId::new(cluster(), "g")
}

/// The lanes are independent: the checkers see each as a group of its own.
fn fifo_id() -> GroupId {
    GroupId::new(cluster(), "g/fifo")
}

/// What a run is about.
#[derive(Clone, Copy)]
pub struct Options {
    pub seed: u64,
    pub nodes: usize,
    pub durability: Durability,
    pub deliver_at: Level,
    pub stateful: bool,
    pub steps: usize,
    pub configure: fn(Builder) -> Builder,
    /// The oracle takes a majority of the new view for one of the old.
    pub quorum_of_view: bool,
    /// A node may come back without the group.
    pub lacks: bool,
}

impl Options {
    pub fn new(seed: u64, durability: Durability, deliver_at: Level) -> Self {
        Self {
            seed,
            nodes: 3 + (seed % 3) as usize,
            durability,
            deliver_at,
            stateful: !seed.is_multiple_of(7),
            steps: 150,
            configure: |it| it,
            quorum_of_view: false,
            lacks: false,
        }
    }
}

/// What happened in a run.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub cast: u64,
    pub delivered: u64,
    pub views: u64,
    pub blocked: u64,
    pub lost: u64,
    pub crashes: u64,
    pub transfers: u64,
    pub recoveries: u64,
    pub fetches: u64,
    pub renumbered: u64,
    pub aside: u64,
    pub reads: u64,
    pub failed_reads: u64,
    pub voters: u64,
    pub full: u64,
}

pub struct World {
    pub options: Options,
    pub rng: Rng,
    pub now: Instant,
    pub slots: Vec<Slot>,
    /// Nodes that are up without the group.
    pub bare: BTreeMap<usize, BootId>,
    pub channels: BTreeMap<(BootId, BootId), VecDeque<(Bytes, Bytes)>>,
    pub view: View,
    pub agreed: Agreed,
    incarnations: BTreeMap<NodeId, u32>,
    boots: u128,
    trace: Vec<trace::Event>,
    numbers: BTreeMap<BootId, u64>,
    /// Acknowledged to somebody, at majority or above.
    pub floor: u64,
    pub outcome: Outcome,
    /// Something else goes on during a view change.
    pub busy: bool,
    /// Told by restarted members as part of their state.
    pub restored: BTreeSet<MessageId>,
    pub copies: Copies,
}

impl World {
    /// All nodes up, in no view yet.
    pub fn new(options: Options) -> Self {
        let mut world = Self {
            options,
            rng: Rng::new(options.seed),
            now: Instant::ZERO,
            slots: Vec::new(),
            bare: BTreeMap::new(),
            channels: BTreeMap::new(),
            view: View::empty((0..options.nodes).map(node)),
            agreed: Agreed::first(&(0..options.nodes).map(node).collect()),
            incarnations: BTreeMap::new(),
            boots: 0,
            trace: Vec::new(),
            numbers: BTreeMap::new(),
            floor: 0,
            outcome: Outcome::default(),
            busy: true,
            restored: BTreeSet::new(),
            copies: Copies::default(),
        };
        for index in 0..options.nodes {
            world.slots.push(Slot::new(node(index)));
            world.boot(index, Start::Fresh);
        }
        world
    }

    pub fn config(&self) -> Config {
        let nodes = (0..self.options.nodes).map(node).collect();
        let builder = Config::new(group_id(), nodes)
            .durability(self.options.durability)
            .deliver_at(self.options.deliver_at)
            .stateful(self.options.stateful);
        (self.options.configure)(builder).build().unwrap()
    }

    fn boot(&mut self, index: usize, start: Start) {
        self.boots += 1;
        let boot = BootId { node: node(index), nonce: BootNonce(self.boots) };
        let group = Group::new(self.config(), boot, start);
        self.slots[index].begin(boot, group);
        self.note(boot, What::Process(ProcessWord::Started));
    }

    /// Brings a node back that is down.
    pub fn restart(&mut self, index: usize) {
        let start = match self.options.durability {
            Durability::Memory => Start::Empty,
            Durability::Disk => Start::Recovered(self.slots[index].replay()),
        };
        self.boot(index, start);
    }

    /// Brings a node back that is down, without the group.
    pub fn restart_bare(&mut self, index: usize) {
        self.boots += 1;
        let boot = BootId { node: node(index), nonce: BootNonce(self.boots) };
        self.bare.insert(index, boot);
        self.note(boot, What::Process(ProcessWord::Started));
    }

    /// Ends a node that is up without the group.
    pub fn crash_bare(&mut self, index: usize) {
        if let Some(boot) = self.bare.remove(&index) {
            self.note(boot, What::Process(ProcessWord::Crashed));
        }
    }

    /// Brings a node back that is down and has lost its disk.
    pub fn restart_empty(&mut self, index: usize) {
        self.slots[index] = Slot::new(node(index));
        self.boot(index, Start::Empty);
    }

    /// Ends a node: of its frames on the way, and of its writes, only the first some get through.
    pub fn crash(&mut self, index: usize, killed: bool) {
        let Some(boot) = self.slots[index].boot() else { return };
        self.outcome.crashes += 1;
        self.note_copies(index);
        self.count(index);
        self.note(
            boot,
            if killed {
                What::Membership(MembershipWord::Killed)
            } else {
                What::Process(ProcessWord::Crashed)
            },
        );
        let rng = &mut self.rng;
        self.slots[index].end(|len| rng.below(len + 1));
        self.channels.retain(|(_, to), _| *to != boot);
        for ((from, _), frames) in &mut self.channels {
            if *from == boot {
                frames.truncate(self.rng.below(frames.len() as u64 + 1) as usize);
            }
        }
        self.channels.retain(|_, frames| !frames.is_empty());
    }

    fn count(&mut self, index: usize) {
        if let Some(group) = &self.slots[index].group {
            let stats = group.stats();
            self.outcome.fetches += stats.fetches;
            self.outcome.aside += stats.kept_aside;
            assert_eq!(stats.dropped_garbage, 0, "seed {}", self.options.seed);
        }
    }

    pub fn note(&mut self, boot: BootId, what: What) {
        let number = self.numbers.entry(boot).or_default();
        *number += 1;
        self.trace.push(trace::Event { boot, number: *number, at: self.now, what });
    }

    pub fn live(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|index| self.slots[*index].group.is_some()).collect()
    }

    /// The live members of the site view.
    pub fn members(&self) -> Vec<usize> {
        let is_in = |index: &usize| self.slots[*index].boot().is_some_and(|it| self.view.has(it));
        self.live().into_iter().filter(is_in).collect()
    }

    pub fn group(&mut self, index: usize) -> &mut Group {
        self.slots[index].group.as_mut().unwrap()
    }

    /// Casts a message that nobody else casts.
    pub fn cast(&mut self, index: usize, order: Order, level: Level) {
        let payload = Bytes::from(vec![index as u8; 1 + self.rng.below(40) as usize]);
        let now = self.now;
        match self.group(index).cast(now, order, payload.clone(), level) {
            Ok(message) => {
                self.outcome.cast += 1;
                let boot = self.slots[index].boot().unwrap();
                let group = if order == Order::Total { group_id() } else { fifo_id() };
                self.note(boot, What::Group(GroupWord::Cast { group, message, order }));
            }
            Err(CastError::Full { payload: back }) => {
                assert_eq!(back, payload);
                self.outcome.full += 1;
            }
            Err(CastError::NotMember) => {}
            Err(error) => panic!("{error}"),
        }
    }

    pub fn end_turn(&mut self, index: usize) {
        let now = self.now;
        self.group(index).end_turn(now);
        self.drain(index);
    }

    /// Hands the next frame of a channel in.
    pub fn carry(&mut self, from: BootId, to: BootId) {
        let Some(frames) = self.channels.get_mut(&(from, to)) else { return };
        let Some((meta, payload)) = frames.pop_front() else { return };
        if frames.is_empty() {
            self.channels.remove(&(from, to));
        }
        let message = Message::decode(&meta, payload).unwrap();
        let index = (0..self.slots.len()).find(|it| self.slots[*it].boot() == Some(to)).unwrap();
        let now = self.now;
        self.group(index).receive(now, from, message);
        if self.rng.chance(1, 2) {
            self.end_turn(index);
        }
    }

    /// One step of anything that is not a view change.
    pub fn step(&mut self) {
        if !self.busy {
            return self.round();
        }
        self.now = self.now + Duration::from_micros(self.rng.below(2_000));
        let live = self.live();
        let Some(&index) = self.rng.pick(&live) else { return };
        match self.rng.below(20) {
            0..=9 => {
                let busy: Vec<_> = self.channels.keys().copied().collect();
                if let Some(&(from, to)) = self.rng.pick(&busy) {
                    for _ in 0..self.rng.between(1, 4) {
                        self.carry(from, to);
                    }
                }
            }
            10..=13 => {
                let order = if self.rng.chance(1, 4) { Order::Fifo } else { Order::Total };
                self.cast(index, order, Level::Delivered);
            }
            14 => {
                let level = Level::Majority;
                self.cast(index, Order::Total, level);
            }
            15..=16 => self.write(index),
            17 => {
                let now = self.now;
                self.group(index).handle_timeout(now);
                self.end_turn(index);
            }
            18 => self.ask(index),
            _ => self.checkpoint_or_pause(index),
        }
        if self.rng.chance(1, 3) && self.slots[index].group.is_some() {
            self.end_turn(index);
        }
    }

    fn ask(&mut self, index: usize) {
        let (now, floor, lost) = (self.now, self.floor, self.outcome.lost);
        let token = self.slots[index].ask(floor, lost);
        self.group(index).read(now, token);
        self.drain(index);
    }

    fn checkpoint_or_pause(&mut self, index: usize) {
        let now = self.now;
        match self.rng.below(3) {
            0 => self.group(index).pause(now),
            1 => self.group(index).resume(now),
            _ => {
                if let Some(position) = self.slots[index].checkpoint() {
                    self.group(index).checkpointed(now, position);
                    self.drain(index);
                }
            }
        }
    }

    /// Completes the oldest write of a node.
    pub fn write(&mut self, index: usize) {
        if let Some(io) = self.slots[index].force() {
            let now = self.now;
            self.group(index).persisted(now, io);
            self.drain(index);
        }
    }

    /// Everything moves by one, and nobody casts.
    pub fn round(&mut self) {
        let busy: Vec<_> = self.channels.keys().copied().collect();
        for (from, to) in busy {
            self.carry(from, to);
        }
        for index in self.live() {
            self.write(index);
            let now = self.now;
            self.group(index).handle_timeout(now);
            self.end_turn(index);
        }
        self.now = self.now + Duration::from_millis(5);
    }

    /// Until nothing moves any more.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..100_000 {
            if quiet > 5 {
                return;
            }
            let live = self.live();
            for &index in &live {
                let now = self.now;
                self.group(index).resume(now);
            }
            let writing = live.iter().any(|index| self.slots[*index].is_writing());
            let moved = !self.channels.is_empty() || writing;
            self.round();
            quiet = if moved { 0 } else { quiet + 1 };
        }
        panic!("seed {}: it does not come to rest", self.options.seed);
    }

    /// All nodes come back, and the run ends.
    pub fn finish(&mut self) -> Result<Outcome, String> {
        for index in 0..self.slots.len() {
            self.crash_bare(index);
            if self.slots[index].group.is_none() {
                self.restart(index);
            }
            self.slots[index].outside = false;
        }
        self.change_view(&mut |_| false);
        self.settle();
        for index in self.live() {
            self.count(index);
        }
        self.judge()?;
        Ok(self.outcome)
    }

    /// What only members took over that had restarted is delivered nowhere; the checkers would miss it.
    fn hide_restored(&mut self) {
        let delivered = self.trace.iter().filter_map(|event| match &event.what {
            What::Group(GroupWord::Delivered { group, message, .. }) if *group == group_id() => {
                Some(*message)
            }
            _ => None,
        });
        let delivered: BTreeSet<MessageId> = delivered.collect();
        let restored = &self.restored;
        self.trace.retain(|event| match &event.what {
            What::Group(GroupWord::Cast { group, message, .. }) => {
                *group != group_id() || delivered.contains(message) || !restored.contains(message)
            }
            _ => true,
        });
    }

    /// What concerns one group or none.
    fn of_group(&self, wanted: GroupId) -> Vec<trace::Event> {
        let is_part = |event: &&trace::Event| match &event.what {
            What::Group(GroupWord::Installed { group, .. })
            | What::Group(GroupWord::Cast { group, .. })
            | What::Group(GroupWord::Delivered { group, .. })
            | What::Group(GroupWord::Restored { group, .. })
            | What::Group(GroupWord::Acknowledged { group, .. })
            | What::Group(GroupWord::MaybeLost { group, .. }) => *group == wanted,
            _ => true,
        };
        self.trace.iter().filter(is_part).cloned().collect()
    }

    fn judge(&mut self) -> Result<(), String> {
        let seed = self.options.seed;
        self.hide_restored();
        // Delivery in FIFO order is never uniform.
        let uniform = self.options.deliver_at > Level::Delivered;
        let total = self.of_group(group_id());
        let mut found = if uniform { check_all(&total) } else { survivors(&total) };
        found.extend(survivors(&self.of_group(fifo_id())));
        // What all copies were lost of, nobody delivers.
        let lost = self.outcome.lost > 0;
        let found: Vec<_> = found.into_iter().filter(|it| !(lost && it.id == "MC-6")).collect();
        if !found.is_empty() {
            let mut report = Report::new(&self.trace).group(group_id(), "g");
            for index in 0..self.slots.len() {
                report = report.node(node(index), &format!("n{index}"));
            }
            return Err(format!("seed {seed}: {}", report.render(&found)));
        }
        let states: BTreeSet<_> = self.slots.iter().map(|slot| slot.state()).collect();
        if self.options.stateful && states.len() != 1 {
            return Err(format!("seed {seed}: states differ {states:?}"));
        }
        self.rests()
    }

    /// Whether all that was cast is delivered, safe and trimmed at all who have the group.
    pub fn rests(&self) -> Result<(), String> {
        for slot in &self.slots {
            let Some(status) = slot.group.as_ref().map(|group| group.status()) else { continue };
            let done =
                status.whole && status.trimmed == status.known && status.delivered == status.known;
            if !done || status.unstable_bytes > 0 || slot.has_reads() {
                return Err(format!("seed {}: not at rest: {status:?}", self.options.seed));
            }
        }
        Ok(())
    }

    fn next_member(&mut self, boot: BootId) -> Member {
        let last = self.incarnations.entry(boot.node).or_default();
        *last += 1;
        let site = SiteId { node: boot.node, incarnation: Incarnation(*last) };
        Member { site, nonce: boot.nonce }
    }

    fn on_event(&mut self, index: usize, event: Event) {
        let mut slot = std::mem::replace(&mut self.slots[index], Slot::new(node(index)));
        slot.on_event(self, event);
        self.slots[index] = slot;
    }
}

/// One run from a seed.
pub fn run(options: Options) -> Result<Outcome, String> {
    let mut world = World::new(options);
    world.change_view(&mut |_| false);
    for _ in 0..options.steps {
        world.step();
        if world.rng.chance(1, 25) {
            world.shake();
        }
    }
    world.finish()
}

/// A run from a seed in which one node after the other is restarted without the group and later with it. The group goes on
/// without the node, whichever it is.
pub fn left_out(options: Options) -> Result<Outcome, String> {
    let mut world = World::new(options);
    world.change_view(&mut |_| false);
    for out in 0..options.nodes {
        some_casts(&mut world);
        world.crash(out, false);
        if world.rng.chance(1, 2) {
            world.change_view(&mut |_| false);
        }
        world.restart_bare(out);
        world.change_view(&mut |_| false);
        some_casts(&mut world);
        world.settle();
        world.rests().map_err(|stuck| format!("stopped without node {out}: {stuck}"))?;
        world.crash_bare(out);
        if world.rng.chance(1, 2) {
            world.change_view(&mut |_| false);
        }
        match world.rng.chance(1, 2) {
            true => world.restart_empty(out),
            false => world.restart(out),
        }
        world.change_view(&mut |_| false);
        world.settle();
        world.rests()?;
    }
    if world.outcome.lost > 0 {
        return Err("lost, and no more than one node was away".to_owned());
    }
    world.finish()
}

fn some_casts(world: &mut World) {
    for index in world.live() {
        world.cast(index, Order::Total, Level::Safe);
        world.cast(index, Order::Fifo, Level::Delivered);
    }
    for _ in 0..40 {
        world.step();
    }
}
