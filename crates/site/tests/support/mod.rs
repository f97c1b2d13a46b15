//! Whole sites in the simulated world: the Stack, its log and a small replicated state on each node.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

pub mod flood;
pub mod users;

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash as _, Hasher as _};
use std::ops::Range;

use bytes::Bytes;
use mainstay_base::rack::{LogEntry, Mounted, fold};
use mainstay_base::service::{Service as _, Start as Begin};
use mainstay_base::{
    ClusterId, Duration, Fingerprinter, Frame, GroupId, Instance, Instant, Level, Machine as _,
    MessageId, NodeId, Order, Position, Rng, codec,
};
use mainstay_link as link;
use mainstay_membership as membership;
use mainstay_multicast::{self as multicast, Durability, Event};
use mainstay_service::services;
use mainstay_sim::{Effects, Node, Peer, Refusal, Start};
use mainstay_site::core::{self, Past, Record};
use mainstay_site::trace::Recorder;
use mainstay_site::{CoreConfig, Input, Output, Stack};

use flood::Flood;

pub fn cluster() -> ClusterId {
    ClusterId::from_entropy(1)
}

fn instance() -> Instance {
    Instance::new(cluster(), "flood")
}

/// What all nodes of a run share.
#[derive(Clone, Debug)]
pub struct Setup {
    pub durability: Durability,
    pub deliver_at: Level,
    /// Names of the groups, each with the indices of its nodes; empty for all.
    pub groups: Vec<(&'static str, Vec<usize>)>,
    /// Mean time between two casts of a node; none are cast if it is zero.
    pub cast_every: Duration,
    /// Nothing is cast after this time, also by nodes that start later.
    pub cast_until: Instant,
    pub membership_fault: Option<membership::Fault>,
    /// A site takes part in views before the past of its groups is read from the log.
    pub unread_past: bool,
    /// A service is mounted that sends as much as it may.
    pub flood: bool,
    /// Nodes that lack the groups where they are started within a time.
    pub lack: Vec<(usize, Range<Instant>)>,
    /// Nodes that have the groups with another level of delivery.
    pub others: Vec<usize>,
}

impl Setup {
    pub fn one_group(durability: Durability, deliver_at: Level) -> Self {
        Self {
            durability,
            deliver_at,
            groups: vec![("g", Vec::new())],
            cast_every: Duration::from_millis(8),
            cast_until: Instant::ZERO + Duration::from_secs(5),
            membership_fault: None,
            unread_past: false,
            flood: false,
            lack: Vec::new(),
            others: Vec::new(),
        }
    }

    /// The level at which the groups deliver at a node.
    fn level_at(&self, index: usize) -> Level {
        match self.others.contains(&index) {
            true if self.deliver_at == Level::Delivered => Level::Majority,
            true => Level::Delivered,
            false => self.deliver_at,
        }
    }
}

/// A digest of all that was delivered, in order: what a user's state would be.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct State {
    pub position: u64,
    pub digest: u64,
}

impl State {
    /// Whether the position follows the last one.
    #[must_use]
    fn apply(&mut self, message: MessageId, position: u64, payload: &[u8]) -> bool {
        let follows = position == self.position + 1;
        let mut hash = Fingerprinter::new();
        (self.digest, message, position, payload).hash(&mut hash);
        *self = Self { position, digest: hash.finish() };
        follows
    }

    fn encode(self) -> Bytes {
        codec::encode(&(self.position, self.digest))
    }

    fn decode(bytes: &[u8]) -> Self {
        let (position, digest) = codec::decode(bytes).expect("a snapshot of our own");
        Self { position, digest }
    }
}

/// The disk: the site's log, and a checkpoint of each group.
#[derive(Clone, Default)]
pub struct Disk {
    pub records: Vec<Record>,
    /// The log of the mounted services.
    pub services: Vec<LogEntry>,
    pub checkpoints: BTreeMap<GroupId, State>,
}

pub enum Write {
    Record(Box<Record>),
    Services(Vec<LogEntry>),
    Checkpoint(GroupId, State),
}

#[derive(Clone, Debug)]
pub enum Told {
    /// The state of a group here, when all in a batch was applied.
    At(GroupId, State),
    /// The user was told that its message at this position is safe.
    Acked(GroupId, u64),
    ReadBegan(GroupId, u64),
    ReadReady(GroupId, u64, u64),
    MaybeLost(GroupId),
    /// The view of the sites, with who left and why.
    View(Box<membership::View>),
    /// The user's state was made from a log that has this message.
    Replayed(GroupId, MessageId),
}

/// What the node does when a write is done.
enum Then {
    Persisted(u64),
    Services(u64),
    Restored(GroupId, Position),
    Checkpointed(GroupId, Position),
}

#[derive(Default)]
struct App {
    state: State,
    checkpointed: u64,
    incoming: Vec<u8>,
    /// The other half of a snapshot that is being sent.
    rest: Option<(Position, Bytes)>,
}

pub struct Site {
    pub stack: Stack,
    apps: BTreeMap<GroupId, App>,
    durability: Durability,
    rng: Rng,
    cast_every: Duration,
    cast_until: Instant,
    next_cast: Option<Instant>,
    disk: Disk,
    token: u64,
    io: u64,
    then: VecDeque<(u64, Then)>,
    feed: VecDeque<core::Input>,
    told: Vec<Told>,
    recorder: Recorder,
    killed: bool,
}

impl Site {
    pub fn group(&self, name: &str) -> &multicast::Group {
        self.stack.core().group(GroupId::new(cluster(), name)).unwrap()
    }

    pub fn state(&self, name: &str) -> State {
        self.apps[&GroupId::new(cluster(), name)].state
    }

    pub fn cast(
        &mut self,
        now: Instant,
        group: GroupId,
        order: Order,
        level: Level,
        payload: Bytes,
    ) {
        self.token += 1;
        let token = self.token;
        let input = core::Input::Cast { group, token, order, level, payload };
        self.stack.handle(now, Input::Core(input));
    }

    pub fn accept_loss(&mut self, now: Instant, group: GroupId) {
        self.stack.handle(now, Input::Core(core::Input::AcceptLoss { group }));
    }

    pub fn read(&mut self, now: Instant, group: GroupId) {
        self.token += 1;
        self.told.push(Told::ReadBegan(group, self.token));
        let read = core::Input::Read { group, token: self.token };
        self.stack.handle(now, Input::Core(read));
    }

    fn act(&mut self, now: Instant) {
        let groups: Vec<_> = self.apps.keys().copied().collect();
        let group = *self.rng.pick(&groups).unwrap();
        if self.rng.chance(1, 4) {
            self.read(now, group);
        } else {
            for _ in 0..=self.rng.below(3) {
                let order = if self.rng.chance(1, 6) { Order::Fifo } else { Order::Total };
                let level = match (order, self.durability) {
                    (Order::Fifo, _) => Level::Delivered,
                    (_, Durability::Memory) => {
                        *self.rng.pick(&[Level::Majority, Level::Safe]).unwrap()
                    }
                    (_, Durability::Disk) => {
                        *self.rng.pick(&[Level::Majority, Level::Safe, Level::Disk]).unwrap()
                    }
                };
                let length = self.rng.below(60) as usize;
                self.cast(now, group, order, level, Bytes::from(vec![7; length]));
            }
        }
        let wait = 1 + self.rng.below(2 * self.cast_every.as_micros() as u64);
        let next = now + Duration::from_micros(wait);
        self.next_cast = (next < self.cast_until).then_some(next);
    }

    fn write(&mut self, write: Write, then: Then, out: &mut Effects<Self>) {
        self.io += 1;
        self.then.push_back((self.io, then));
        out.write(self.io, write);
    }

    fn on_event(&mut self, group: GroupId, event: Event, out: &mut Effects<Self>) {
        let app = self.apps.get_mut(&group).unwrap();
        match event {
            Event::Deliver(batch) => {
                for it in batch {
                    if let Some(position) = it.position
                        && !app.state.apply(it.message, position.0, &it.payload)
                    {
                        out.fail(format!("a hole before {position:?}"));
                    }
                }
                out.event(Told::At(group, app.state));
                self.maybe_checkpoint(group, out);
            }
            Event::Restored { from_checkpoint, checkpoint, entries } => {
                app.state = State::default();
                if from_checkpoint {
                    app.state = self.disk.checkpoints[&group];
                    assert_eq!(app.state.position, checkpoint.0);
                }
                for it in entries {
                    out.event(Told::Replayed(group, it.message));
                    if !app.state.apply(it.message, it.position.unwrap().0, &it.payload) {
                        out.fail(format!("a hole in the log before {:?}", it.position));
                    }
                }
                out.event(Told::At(group, app.state));
                out.seen("restored from its own log");
            }
            Event::RestoreChunk { position, offset, bytes, last } => {
                if offset == 0 {
                    app.incoming.clear();
                }
                app.incoming.extend_from_slice(&bytes);
                let offset = offset + bytes.len() as u64;
                self.feed.push_back(core::Input::ChunkTaken { group, position, offset });
                if last {
                    app.state = State::decode(&app.incoming);
                    assert_eq!(app.state.position, position.0);
                    out.event(Told::At(group, app.state));
                    out.seen("restored by transfer");
                    let state = app.state;
                    match self.durability {
                        Durability::Memory => {
                            self.feed.push_back(core::Input::Restored { group, position });
                        }
                        Durability::Disk => {
                            let then = Then::Restored(group, position);
                            self.write(Write::Checkpoint(group, state), then, out);
                        }
                    }
                }
            }
            Event::SnapshotWanted { position } => {
                if app.state.position != position.0 {
                    out.fail("the state at the boundary of a view is not as of the cut");
                }
                let mut chunk = app.state.encode();
                let rest = chunk.split_off(chunk.len() / 2);
                app.rest = Some((position, rest));
                let last = false;
                self.feed.push_back(core::Input::SnapshotChunk { group, position, chunk, last });
            }
            Event::ChunkWanted { position } => {
                if let Some((of, chunk)) = app.rest.take_if(|(of, _)| *of == position) {
                    let (position, last) = (of, true);
                    self.feed.push_back(core::Input::SnapshotChunk {
                        group,
                        position,
                        chunk,
                        last,
                    });
                }
            }
            Event::Reached { level, position, .. } if level > Level::Delivered => {
                out.event(Told::Acked(group, position.0));
            }
            Event::MaybeLost { .. } => {
                out.event(Told::MaybeLost(group));
                out.seen("maybe lost");
            }
            Event::ReadReady { token, position } => {
                if app.state.position < position.0 {
                    out.fail("a read is answered before what it must see is applied");
                }
                out.event(Told::ReadReady(group, token, position.0));
            }
            Event::Blocked { .. } => out.seen("blocked"),
            _ => {}
        }
    }

    fn maybe_checkpoint(&mut self, group: GroupId, out: &mut Effects<Self>) {
        let forced = self.stack.core().group(group).unwrap().status().forced;
        let app = self.apps.get_mut(&group).unwrap();
        let due = app.state.position >= app.checkpointed + 40 && app.state.position <= forced;
        if self.durability == Durability::Disk && due {
            app.checkpointed = app.state.position;
            let state = app.state;
            let then = Then::Checkpointed(group, Position(state.position));
            self.write(Write::Checkpoint(group, state), then, out);
        }
    }

    /// What mounted services want.
    fn serve(&mut self, out: &mut Effects<Self>) {
        while let Some(output) = self.stack.services_mut().poll_output() {
            match output {
                services::Output::Write { io, entries, .. } => {
                    self.write(Write::Services(entries), Then::Services(io), out);
                }
                services::Output::Written { .. }
                | services::Output::Dismounted { .. }
                | services::Output::Stopped { .. } => {}
                services::Output::Effect(_)
                | services::Output::Again(_)
                | services::Output::Late(_) => {
                    out.fail("nobody wants that here");
                }
            }
        }
        self.stack.services().check_invariants();
    }

    /// The flooding service.
    pub fn flood(&self) -> Option<flood::Seen> {
        let rack = self.stack.services().rack();
        rack.get::<Flood>(instance()).map(|mounted| mounted.service().status())
    }

    fn on_core(&mut self, output: core::Output, out: &mut Effects<Self>) {
        self.recorder.observe(self.stack.core(), &output, &mut |what| out.trace(what));
        match output {
            core::Output::Persist { io, record } => {
                self.write(Write::Record(record), Then::Persisted(io), out);
            }
            core::Output::Killed => {
                out.seen("killed");
                self.killed = true;
            }
            core::Output::Minority { on } => {
                if on {
                    out.seen("minority");
                }
            }
            core::Output::Group { group, event } => self.on_event(group, event, out),
            core::Output::View { view, .. } => out.event(Told::View(view)),
            core::Output::Cast { .. }
            | core::Output::Suspected { .. }
            | core::Output::Absent { .. } => {}
            core::Output::Send { .. } | core::Output::Isolate { .. } => {
                unreachable!("the Stack keeps these")
            }
        }
    }
}

impl Node for Site {
    type Setup = Setup;
    type Message = Frame;
    type Durable = Disk;
    type Write = Write;
    type Event = Told;

    fn start(start: Start<'_, Self>) -> Self {
        let Start { boot, roster, setup, durable, now, seed, index, .. } = start;
        let peers = roster.iter().copied().filter(|node| *node != boot.node).collect();
        let link = link::Config::for_test(cluster(), boot, peers).window(8 << 20, 4_096);
        let mut groups = Vec::new();
        for (name, nodes) in &setup.groups {
            let lacks = setup.lack.iter().any(|(node, time)| *node == index && time.contains(&now));
            if lacks || !nodes.is_empty() && !nodes.contains(&index) {
                continue;
            }
            let nodes = if nodes.is_empty() { (0..roster.len()).collect() } else { nodes.clone() };
            let nodes = nodes.iter().map(|index| roster[*index]).collect();
            let config = multicast::Config::new(GroupId::new(cluster(), name), nodes)
                .durability(setup.durability)
                .deliver_at(setup.level_at(index));
            groups.push(config.build().unwrap());
        }
        let apps = groups.iter().map(|config| (config.group(), App::default())).collect();
        let mut membership = membership::Config::default();
        if let Some(fault) = setup.membership_fault {
            membership = membership.with_fault(fault);
        }
        let roster = roster.iter().copied().collect();
        let config = CoreConfig { me: boot, roster, membership, groups };
        let mut past = Past::new();
        let is_read =
            |record: &&Record| !setup.unread_past || matches!(record, Record::Membership(_));
        durable.records.iter().filter(is_read).for_each(|record| {
            // What is on a disk is bytes.
            let (kind, body) = record.encode();
            past.record(Record::decode(kind, body).unwrap());
        });
        for (group, state) in &durable.checkpoints {
            past.checkpoint(*group, Position(state.position));
        }
        let bootstrap = now == Instant::ZERO;
        let stack = Stack::recover(link.build().unwrap(), config, past, bootstrap, now, seed);
        let mut stack = stack;
        if setup.flood {
            let instance = instance();
            let past = fold::<Flood>(instance, &durable.services).unwrap();
            let start = Begin { me: boot, instance, past, checkpoint: None, now, seed };
            let flood = Mounted::<Flood>::recover((), start);
            stack.services_mut().mount(now, flood).unwrap();
        }
        let cast_every = setup.cast_every;
        Self {
            stack,
            apps,
            durability: setup.durability,
            rng: Rng::new(seed).stream("user"),
            cast_every,
            cast_until: setup.cast_until,
            next_cast: Some(now + cast_every)
                .filter(|next| !cast_every.is_zero() && *next < setup.cast_until),
            disk: durable,
            token: 0,
            io: 0,
            then: VecDeque::new(),
            feed: VecDeque::new(),
            told: Vec::new(),
            recorder: Recorder::new(),
            killed: false,
        }
    }

    fn receive(&mut self, now: Instant, from: Peer, frame: Frame) {
        let conn = from.conn;
        self.stack.handle(now, Input::Link(link::Input::Received { conn, frame }));
    }

    fn opened(&mut self, now: Instant, peer: Peer, dialled: bool) {
        let dialled = dialled.then_some(peer.boot.node);
        self.stack.handle(now, Input::Link(link::Input::Opened { conn: peer.conn, dialled }));
    }

    fn closed(&mut self, now: Instant, peer: Peer) {
        self.stack.handle(now, Input::Link(link::Input::Closed { conn: peer.conn }));
    }

    fn refused(&mut self, now: Instant, node: NodeId, why: Refusal) {
        let input = match why {
            Refusal::Refused => link::Input::Refused { node },
            Refusal::Unreachable => link::Input::Unreachable { node },
        };
        self.stack.handle(now, Input::Link(input));
    }

    fn written(&mut self, now: Instant, io: u64) {
        while self.then.front().is_some_and(|(number, _)| *number <= io) {
            let (_, then) = self.then.pop_front().unwrap();
            let input = match then {
                Then::Services(io) => {
                    self.stack.services_mut().written(now, io);
                    continue;
                }
                Then::Persisted(io) => core::Input::Persisted { io },
                Then::Restored(group, position) => core::Input::Restored { group, position },
                Then::Checkpointed(group, position) => {
                    core::Input::Checkpointed { group, position }
                }
            };
            self.stack.handle(now, Input::Core(input));
        }
    }

    fn timeout(&mut self, now: Instant) {
        self.stack.handle_timeout(now);
        if self.next_cast.is_some_and(|at| at <= now) {
            self.act(now);
        }
    }

    fn end_turn(&mut self, now: Instant, out: &mut Effects<Self>) {
        loop {
            self.stack.end_turn(now);
            self.told.drain(..).for_each(|told| out.event(told));
            while let Some(output) = self.stack.poll_output() {
                match output {
                    Output::Dial { node } => out.dial(node),
                    Output::Transmit { conn, frame } => out.send_on(conn, frame),
                    Output::Close { conn } => out.close(conn),
                    Output::Core(output) => self.on_core(output, out),
                }
            }
            self.serve(out);
            if self.killed {
                out.exit(Duration::from_millis(20));
                return;
            }
            if self.feed.is_empty() {
                return;
            }
            for input in std::mem::take(&mut self.feed) {
                self.stack.handle(now, Input::Core(input));
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.stack.poll_timeout(), self.next_cast].into_iter().flatten().min()
    }

    fn apply(durable: &mut Disk, write: Write) {
        match write {
            Write::Record(record) => durable.records.push(*record),
            Write::Services(entries) => durable.services.extend(entries),
            Write::Checkpoint(group, state) => {
                durable.checkpoints.insert(group, state);
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.stack.core().membership().is_voter()
            && self.stack.core().groups().all(|(_, group)| group.status().whole)
    }

    fn hash_message(frame: &Frame, into: &mut Fingerprinter) {
        frame.meta.hash(into);
        frame.payload.hash(into);
    }
}
