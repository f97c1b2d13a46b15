//! The world: nodes on virtual time under one scheduler.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::rc::Rc;

use mainstay_base::trace::{Event, ProcessWord, What};
use mainstay_base::{BootId, BootNonce, ClusterId, ConnId, Duration, Instant, NodeId, Rng};

use crate::disk::DiskState;
use crate::faults::Faults;
use crate::network::Network;
use crate::node::{Effects, Peer, Refusal, Start};
use crate::trace::Trace;
use crate::{Action, Beyond, Clock, Fault, FaultEvent, Node, Options, Point, Seen, schedule};

/// The steps at one instant after which time is said to stand still.
const STILL_MAX: u32 = 1_000_000;

/// Simulated nodes, their network and their disks, on virtual time.
///
/// A run is a function of (seed, number of nodes, setup, options, schedule) and of what the test calls in: the same
/// again give the same trace, the same events and the same [`hash`](Self::hash). Nodes are named by index, in the order
/// of their ids. Memory grows with the trace, the untaken events and the number of connections made.
pub struct World<N: Node> {
    pub(crate) now: Instant,
    pub(crate) options: Options,
    pub(crate) roster: Vec<NodeId>,
    pub(crate) hosts: Vec<Host<N>>,
    pub(crate) network: Network<N::Message>,
    pub(crate) faults: Faults,
    pub(crate) stats: Stats,
    setup: N::Setup,
    seeds: Rng,
    queue: BinaryHeap<Reverse<(Instant, u64, Task)>>,
    number: u64,
    /// Steps since time moved.
    still: u32,
    trace: Trace,
    pub(crate) events: Vec<(BootId, Instant, N::Event)>,
    pub(crate) seen: Seen,
    violation: Option<String>,
    pub(crate) captured: Option<Vec<Captured<N::Message>>>,
    pub(crate) effects: Effects<N>,
}

/// A message that a node took in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Captured<M> {
    /// From this boot.
    pub from: BootId,
    /// By this node.
    pub to: usize,
    /// It.
    pub message: M,
}

/// A node of the roster, running or not.
pub(crate) struct Host<N: Node> {
    pub(crate) boot: BootId,
    pub(crate) generation: u64,
    pub(crate) machine: Option<N>,
    pub(crate) disk: DiskState<N>,
    pub(crate) clock: Rc<RefCell<Clock>>,
    /// Its disk was lost, and it was not whole since.
    pub(crate) lost: bool,
    /// The fault that it crashes by in its next write.
    pub(crate) doomed: Option<u32>,
    /// Those that it crashes by at a point of its run.
    pub(crate) doomed_at: BTreeMap<Point, u32>,
    /// How often it has done what.
    pub(crate) points: BTreeMap<Action, u64>,
    /// Pauses under way.
    pub(crate) pauses: u32,
    /// What came while it was paused.
    pub(crate) backlog: VecDeque<Task>,
    /// The earliest call of the timer in the queue.
    pub(crate) armed: Option<Instant>,
    /// Inputs were taken in, and the turn is not ended.
    pub(crate) open_turn: bool,
    /// Trace events of this boot.
    number: u64,
}

/// What is to be done at a time. `node`, `end`: at which node, at which end of the connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    Opened { conn: u32, end: u8 },
    Closed { conn: u32, end: u8 },
    Deliver { conn: u32, end: u8 },
    Datagram { conn: u32, end: u8, slot: u32 },
    Break { conn: u32, stalls: u32 },
    Connect { one: u16, other: u16 },
    Dial { from: u16, to: u16, generation: u64 },
    Refused { node: u16, to: u16, generation: u64, why: Refusal },
    Timer { node: u16 },
    EndTurn { node: u16, generation: u64 },
    Written { node: u16, generation: u64 },
    Restart { node: u16, generation: u64 },
    Begin { index: u32, epoch: u32 },
    End { index: u32, epoch: u32 },
}

/// Why a run did not get where the test wanted it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Stuck {
    /// The limit has come first. The world stands at the limit and can be run on.
    #[error("not reached until {at:?}; {report}")]
    TimedOut {
        /// The limit.
        at: Instant,
        /// The state of every node and connection.
        report: String,
    },
    /// A node has [reported](Effects::fail) a violated property, or lets no time pass. Running on answers the same.
    #[error("{what}; {report}")]
    Violation {
        /// Of which property.
        what: String,
        /// The state of every node and connection.
        report: String,
    },
    /// A fault is beyond the model, in a [strict](World::strict) world. Running on answers the same.
    #[error("the fault {fault} is beyond the model: {why}")]
    Beyond {
        /// Which.
        fault: Fault,
        /// What is against it.
        why: Beyond,
    },
}

/// What happened in a run, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Steps of the scheduler.
    pub steps: u64,
    /// Messages sent.
    pub sent: u64,
    /// Messages handed to nodes.
    pub delivered: u64,
    /// Messages lost: by chance, by a cut, with a connection, or sent without one.
    pub lost: u64,
    /// Messages repeated.
    pub duplicated: u64,
    /// Connections made.
    pub connected: u64,
    /// Connections broken.
    pub broken: u64,
    /// Forced writes completed.
    pub written: u64,
    /// Starts of nodes after the first.
    pub restarts: u64,
    /// Faults that took place.
    pub faults: u64,
    /// Faults that the atlas, or the state of the nodes, left out.
    pub skipped: u64,
}

impl<N: Node> World<N> {
    /// A world of `nodes` nodes with the [schedule](schedule()) of the seed. All nodes start at once, with empty disks.
    ///
    /// # Panics
    /// If there is no node, or more than 65,535.
    #[must_use]
    pub fn new(seed: u64, nodes: usize, setup: N::Setup, options: Options) -> Self {
        let schedule = schedule(seed, nodes, &options);
        Self::with_schedule(seed, nodes, setup, options, schedule)
    }

    /// The same with this schedule: for replay and for [`shrink`](crate::shrink).
    ///
    /// # Panics
    /// If there is no node, or more than 65,535.
    #[must_use]
    pub fn with_schedule(
        seed: u64,
        nodes: usize,
        setup: N::Setup,
        options: Options,
        schedule: Vec<FaultEvent>,
    ) -> Self {
        assert!((1..=usize::from(u16::MAX)).contains(&nodes), "1 to 65,535 nodes");
        let cluster = ClusterId::from_entropy(1);
        let mut roster: Vec<NodeId> =
            (0..nodes).map(|index| NodeId::new(cluster, &format!("n{index}"))).collect();
        roster.sort();
        let seeds = Rng::new(seed);
        let hosts = roster.iter().enumerate().map(|(index, node)| Host::new(&seeds, index, *node));
        let mut world = Self {
            now: Instant::ZERO,
            hosts: hosts.collect(),
            network: Network::new(&seeds, nodes),
            faults: Faults::new(seeds.stream("core"), nodes),
            stats: Stats::default(),
            options,
            roster,
            setup,
            seeds,
            queue: BinaryHeap::new(),
            number: 0,
            still: 0,
            trace: Trace::default(),
            events: Vec::new(),
            seen: Seen::default(),
            violation: None,
            captured: None,
            effects: Effects::new(),
        };
        for FaultEvent { at, fault } in schedule {
            world.plan(at, fault);
        }
        (0..nodes).for_each(|node| world.start(node));
        world
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// What this run may suffer.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// The ids of the nodes, sorted: a node's index is its place here.
    #[must_use]
    pub fn roster(&self) -> &[NodeId] {
        &self.roster
    }

    /// The machine of a node; `None` while it is down.
    #[must_use]
    pub fn node(&self, node: usize) -> Option<&N> {
        self.hosts.get(node)?.machine.as_ref()
    }

    /// The name of the running boot of a node, or of its last one.
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn boot(&self, node: usize) -> BootId {
        self.hosts[node].boot
    }

    /// What the clock of a node says now.
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn local(&self, node: usize) -> Instant {
        self.hosts[node].clock.borrow().local(self.now)
    }

    /// What is on the disk of a node.
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn durable(&self, node: usize) -> &N::Durable {
        &self.hosts[node].disk.durable
    }

    /// Whether the node runs and is not paused.
    #[must_use]
    pub fn is_up(&self, node: usize) -> bool {
        self.hosts.get(node).is_some_and(|host| host.machine.is_some() && host.pauses == 0)
    }

    /// The trace so far, for the checkers: the events of each boot are in order of their numbers.
    #[must_use]
    pub fn trace(&self) -> &[Event] {
        &self.trace.events
    }

    /// Over every step of the scheduler, every trace event and what [`Node::hash_message`] writes: equal runs have equal
    /// hashes.
    #[must_use]
    pub fn hash(&self) -> u128 {
        self.trace.hash.finish128()
    }

    /// Takes what the nodes told the test, in order.
    pub fn take_events(&mut self) -> Vec<(BootId, Instant, N::Event)> {
        std::mem::take(&mut self.events)
    }

    /// The rare situations reached; the test may mark its own.
    pub const fn seen(&mut self) -> &mut Seen {
        &mut self.seen
    }

    /// The run in numbers.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// How often a node has come to each kind of point so far; see [`Moment::At`](crate::Moment::At).
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn points(&self, node: usize) -> &BTreeMap<Action, u64> {
        &self.hosts[node].points
    }

    /// From here on every message that a node takes in is kept, for [`replay`](Self::replay).
    pub fn capture(&mut self) {
        self.captured.get_or_insert_default();
    }

    /// What was captured so far, in order.
    #[must_use]
    pub fn captured(&self) -> &[Captured<N::Message>] {
        self.captured.as_deref().unwrap_or_default()
    }

    /// Has a node take a captured message in again, as if it came from the same boot on a connection of its own. False if there is no such
    /// message, or if the node does not run.
    pub fn replay(&mut self, index: usize, node: usize) -> bool {
        let Some(Captured { from, message, .. }) = self.captured().get(index).cloned() else {
            return false;
        };
        let peer = Peer { boot: from, conn: ConnId(u64::MAX) };
        self.call(node, |machine, now| machine.receive(now, peer, message)).is_some()
    }

    /// The first property that a node reported as violated.
    #[must_use]
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// Reports a violated property that the test has found; the first one counts.
    pub fn fail(&mut self, what: impl Into<String>) {
        if self.violation.is_none() {
            self.violation = Some(format!("{:?}: {}", self.now, what.into()));
        }
    }

    /// A command from above: calls the machine and ends the turn, or leaves it open for more inputs as the options say.
    ///
    /// `None`, and nothing is called, if the node is down or paused.
    pub fn call<R>(
        &mut self,
        node: usize,
        command: impl FnOnce(&mut N, Instant) -> R,
    ) -> Option<R> {
        if !self.is_up(node) {
            return None;
        }
        self.trace.step(self.now, 32, node, 0);
        let answer = self.input(node, command);
        self.arm(node);
        answer
    }

    /// Runs for a time.
    ///
    /// # Errors
    /// [`Stuck::Violation`] and [`Stuck::Beyond`] as soon as there is one.
    pub fn run(&mut self, time: Duration) -> Result<(), Stuck> {
        let end = self.now + time;
        self.advance(|_| false, end).map(|_| ())
    }

    /// Runs until `reached`, which is asked after each step, for `limit` at most.
    ///
    /// # Errors
    /// [`Stuck::TimedOut`] at the limit, [`Stuck::Violation`] and [`Stuck::Beyond`] as soon as there is one.
    pub fn run_until(
        &mut self,
        reached: impl FnMut(&Self) -> bool,
        limit: Duration,
    ) -> Result<(), Stuck> {
        let at = self.now + limit;
        if self.advance(reached, at)? {
            return Ok(());
        }
        Err(Stuck::TimedOut { at, report: self.report() })
    }

    /// Runs up to `end`; answers whether it was reached.
    fn advance(
        &mut self,
        mut reached: impl FnMut(&Self) -> bool,
        end: Instant,
    ) -> Result<bool, Stuck> {
        loop {
            if let Some(what) = self.violation.clone() {
                return Err(Stuck::Violation { what, report: self.report() });
            }
            if let Some((fault, why)) = self.refused().cloned() {
                return Err(Stuck::Beyond { fault, why });
            }
            if reached(self) {
                return Ok(true);
            }
            if !self.step(end) {
                self.now = end;
                return Ok(false);
            }
        }
    }

    /// Does the next task up to `end`; answers whether there was one.
    fn step(&mut self, end: Instant) -> bool {
        let Some(Reverse((at, _, _))) = self.queue.peek() else { return false };
        if *at > end {
            return false;
        }
        let Some(Reverse((at, number, task))) = self.queue.pop() else { return false };
        self.still = if at > self.now { 0 } else { self.still + 1 };
        if self.still > STILL_MAX {
            self.fail(format!("time stands still: {STILL_MAX} steps at one instant"));
        }
        self.now = at;
        self.stats.steps += 1;
        match self.target(task) {
            Some(node) if self.hosts[node].pauses > 0 => self.hosts[node].backlog.push_back(task),
            target => {
                self.trace.step(at, task.kind(), target.unwrap_or(usize::MAX), number);
                self.perform(task);
                if let Err(what) = self.network.check_invariants(task.conn()) {
                    self.fail(format!("the network model: {what}"));
                }
            }
        }
        true
    }

    /// The node that must run for the task to be done.
    fn target(&self, task: Task) -> Option<usize> {
        match task {
            Task::Opened { conn, end }
            | Task::Closed { conn, end }
            | Task::Deliver { conn, end }
            | Task::Datagram { conn, end, .. } => Some(self.network.node_at(conn, end)),
            Task::Timer { node }
            | Task::EndTurn { node, .. }
            | Task::Written { node, .. }
            | Task::Refused { node, .. } => Some(usize::from(node)),
            Task::Dial { from, .. } => Some(usize::from(from)),
            Task::Break { .. }
            | Task::Connect { .. }
            | Task::Restart { .. }
            | Task::Begin { .. }
            | Task::End { .. } => None,
        }
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Opened { conn, end } => self.on_opened(conn, end),
            Task::Closed { conn, end } => self.on_closed(conn, end),
            Task::Deliver { conn, end } => self.on_deliver(conn, end),
            Task::Datagram { conn, end, slot } => self.on_datagram(conn, end, slot),
            Task::Break { conn, stalls } => self.on_break(conn, stalls),
            Task::Connect { one, other } => self.on_connect(one.into(), other.into()),
            Task::Dial { from, to, generation } => {
                if self.lives(from.into(), generation) {
                    self.on_dial(from.into(), to.into());
                }
            }
            Task::Refused { node, to, generation, why } => {
                if self.lives(node.into(), generation) {
                    let to = self.roster[usize::from(to)];
                    self.give(node.into(), |machine, now| machine.refused(now, to, why));
                }
            }
            Task::Timer { node } => self.on_timer(node.into()),
            Task::EndTurn { node, generation } => {
                if self.lives(node.into(), generation) && self.hosts[usize::from(node)].open_turn {
                    self.end_turn(node.into());
                    self.arm(node.into());
                }
            }
            Task::Written { node, generation } => {
                let node = usize::from(node);
                if self.lives(node, generation)
                    && let Some(io) = self.hosts[node].disk.complete()
                {
                    self.stats.written += 1;
                    self.give(node, |machine, now| machine.written(now, io));
                }
            }
            Task::Restart { node, generation } => {
                let node = usize::from(node);
                if self.hosts[node].generation == generation && self.node(node).is_none() {
                    self.start(node);
                }
            }
            Task::Begin { index, epoch } => self.on_begin(index, epoch),
            Task::End { index, epoch } => self.on_end(index, epoch),
        }
    }

    fn lives(&self, node: usize, generation: u64) -> bool {
        self.hosts[node].generation == generation && self.hosts[node].machine.is_some()
    }

    /// Puts a task into the queue.
    pub(crate) fn at(&mut self, at: Instant, task: Task) {
        self.number += 1;
        self.queue.push(Reverse((at, self.number, task)));
    }

    /// Writes the contents of a message into the trace hash.
    pub(crate) fn hash_message(&mut self, message: &N::Message) {
        N::hash_message(message, &mut self.trace.hash);
    }

    /// Starts the next boot of a node.
    pub(crate) fn start(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        host.generation += 1;
        // By node and generation, so that a fault less elsewhere does not change it.
        let mut rng = self.seeds.stream(&format!("boot {node} {}", host.generation));
        host.boot.nonce = BootNonce(rng.next_u128());
        (host.number, host.open_turn, host.armed) = (0, false, None);
        self.stats.restarts += u64::from(host.generation > 1);
        host.machine = Some(N::start(Start {
            boot: host.boot,
            index: node,
            roster: &self.roster,
            setup: &self.setup,
            durable: host.disk.durable.clone(),
            clock: Rc::clone(&host.clock),
            now: self.now,
            seed: rng.next_u64(),
        }));
        self.record(node, What::Process(ProcessWord::Started));
        self.end_turn(node);
        self.arm(node);
        self.reconnect_all(node);
    }

    /// Stops a node without a word.
    pub(crate) fn stop(&mut self, node: usize, disk: schedule::Disk) {
        self.record(node, What::Process(ProcessWord::Crashed));
        let host = &mut self.hosts[node];
        host.machine = None;
        host.pauses = 0;
        host.lost |= disk != schedule::Disk::Kept;
        host.disk.crash(disk);
        for task in std::mem::take(&mut host.backlog) {
            if let Task::Datagram { slot, .. } = task {
                self.network.take(slot);
                self.stats.lost += 1;
            }
        }
        self.hang_up_all(node);
    }

    pub(crate) fn record(&mut self, node: usize, what: What) {
        let host = &mut self.hosts[node];
        self.trace.event(host.boot, host.number, self.now, what);
        host.number += 1;
    }

    /// Begins a fault now, within the atlas; answers whether it took place, or, for a crash in a write, is to come.
    pub fn inject(&mut self, fault: Fault) -> bool {
        self.begin(fault)
    }

    /// The state of every node and connection, for a person.
    #[must_use]
    pub fn report(&self) -> String {
        let mut lines = vec![format!("at {:?}", self.now)];
        for (index, host) in self.hosts.iter().enumerate() {
            let state = match (&host.machine, host.pauses) {
                (None, _) => "down".to_owned(),
                (Some(_), 1..) => format!("paused, {} inputs wait", host.backlog.len()),
                (Some(machine), 0) => format!("up, timeout {:?}", machine.poll_timeout()),
            };
            let lost = if host.lost { ", disk lost" } else { "" };
            let (boot, unfinished) = (host.generation, host.disk.unfinished());
            lines.push(format!(
                "{index}: boot {boot}, {state}{lost}, {unfinished} writes unfinished{}",
                self.network.report(index)
            ));
        }
        lines.join("\n  ")
    }
}

impl<N: Node> Host<N> {
    fn new(seeds: &Rng, index: usize, node: NodeId) -> Self {
        Self {
            boot: BootId { node, nonce: BootNonce(0) },
            generation: 0,
            machine: None,
            disk: DiskState::new(seeds.stream(&format!("disk {index}"))),
            clock: Rc::default(),
            lost: false,
            doomed: None,
            doomed_at: BTreeMap::new(),
            points: BTreeMap::new(),
            pauses: 0,
            backlog: VecDeque::new(),
            armed: None,
            open_turn: false,
            number: 0,
        }
    }
}

impl Task {
    /// The connection that it is about.
    const fn conn(self) -> Option<u32> {
        match self {
            Self::Opened { conn, .. }
            | Self::Closed { conn, .. }
            | Self::Deliver { conn, .. }
            | Self::Datagram { conn, .. }
            | Self::Break { conn, .. } => Some(conn),
            _ => None,
        }
    }

    const fn kind(self) -> u8 {
        match self {
            Self::Opened { .. } => 0,
            Self::Closed { .. } => 1,
            Self::Deliver { .. } => 2,
            Self::Datagram { .. } => 3,
            Self::Break { .. } => 4,
            Self::Connect { .. } => 5,
            Self::Dial { .. } => 6,
            Self::Refused { .. } => 7,
            Self::Timer { .. } => 8,
            Self::EndTurn { .. } => 9,
            Self::Written { .. } => 10,
            Self::Restart { .. } => 11,
            Self::Begin { .. } => 12,
            Self::End { .. } => 13,
        }
    }
}
