//! One node: its group, its disk, and the state machine above.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use mainstay_base::trace::{GroupWord, What};
use mainstay_base::{
    BootId, Fingerprinter, Level, MessageId, NodeId, Order, Position, SiteId, ViewId,
};
use mainstay_multicast::{Delivery, Event, Group, GroupView, Output, Record, Recovered, Replay};
use std::hash::{Hash as _, Hasher as _};

use super::{World, fifo_id, group_id};

/// Position and hash of all that was applied.
type State = (u64, u64);

enum Logged {
    Record(u16, Bytes),
    Installed(ViewId),
}

pub struct Slot {
    node: NodeId,
    boot: Option<BootId>,
    pub group: Option<Group>,
    site: Option<SiteId>,
    disk: Vec<Logged>,
    writing: VecDeque<(u64, u16, Bytes)>,
    checkpoint: State,
    app: State,
    /// Chunks of a snapshot to give, or got.
    giving: VecDeque<Bytes>,
    got: Vec<u8>,
    whole: bool,
    /// Told, but not shown to the checkers before the state is here.
    view: Option<GroupView>,
    /// Up, but no view is to admit it yet.
    pub outside: bool,
    pub holding: Option<ViewId>,
    own: BTreeMap<u64, Position>,
    acked: BTreeMap<Level, u64>,
    reads: BTreeMap<u64, (u64, u64)>,
    tokens: u64,
    pub blocked: bool,
    pub events: Vec<Event>,
}

impl Slot {
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            boot: None,
            group: None,
            site: None,
            disk: Vec::new(),
            writing: VecDeque::new(),
            checkpoint: (0, 0),
            app: (0, 0),
            giving: VecDeque::new(),
            got: Vec::new(),
            whole: false,
            view: None,
            outside: false,
            holding: None,
            own: BTreeMap::new(),
            acked: BTreeMap::new(),
            reads: BTreeMap::new(),
            tokens: 0,
            blocked: false,
            events: Vec::new(),
        }
    }

    pub fn begin(&mut self, boot: BootId, group: Group) {
        let disk = std::mem::take(&mut self.disk);
        let checkpoint = self.checkpoint;
        *self =
            Self { disk, checkpoint, boot: Some(boot), group: Some(group), ..Self::new(self.node) };
    }

    /// The node stops; `survive` says how many of so many writes on the way reach the disk.
    pub fn end(&mut self, survive: impl FnOnce(u64) -> u64) {
        for _ in 0..survive(self.writing.len() as u64) {
            self.force();
        }
        (self.group, self.boot) = (None, None);
    }

    pub fn boot(&self) -> Option<BootId> {
        self.boot
    }

    pub fn state(&self) -> State {
        self.app
    }

    pub fn has_reads(&self) -> bool {
        !self.reads.is_empty()
    }

    pub fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    /// The oldest write reaches the disk.
    pub fn force(&mut self) -> Option<u64> {
        let (io, kind, body) = self.writing.pop_front()?;
        self.disk.push(Logged::Record(kind, body));
        Some(io)
    }

    pub fn log_installed(&mut self, view: ViewId) {
        self.disk.push(Logged::Installed(view));
    }

    pub fn replay(&self) -> Recovered {
        let mut replay = Replay::new(group_id());
        for logged in &self.disk {
            match logged {
                Logged::Record(kind, body) => {
                    replay.record(Record::decode(*kind, body.clone()).unwrap());
                }
                Logged::Installed(view) => replay.installed(*view),
            }
        }
        replay.finish(Position(self.checkpoint.0))
    }

    /// A checkpoint of what is applied, if the log has it too.
    pub fn checkpoint(&mut self) -> Option<Position> {
        let forced = self.group.as_ref()?.status().forced;
        if !self.whole || self.app.0 > forced || self.app.0 < self.checkpoint.0 {
            return None;
        }
        self.checkpoint = self.app;
        Some(Position(self.app.0))
    }

    pub fn ask(&mut self, floor: u64, lost: u64) -> u64 {
        self.tokens += 1;
        self.reads.insert(self.tokens, (floor, lost));
        self.tokens
    }

    fn apply(&mut self, delivery: &Delivery) {
        let Some(position) = delivery.position else { return };
        assert_eq!(position.0, self.app.0 + 1, "no gap in what is applied at {:?}", self.boot);
        let mut hasher = Fingerprinter::new();
        (self.app.1, delivery.message, &delivery.payload).hash(&mut hasher);
        self.app = (position.0, hasher.finish());
    }

    pub fn on_event(&mut self, world: &mut World, event: Event) {
        let boot = self.boot.unwrap();
        self.events.push(event.clone());
        if matches!(event, Event::Deliver(_)) {
            self.show_if_whole(world);
        }
        match event {
            Event::Deliver(batch) => {
                batch.iter().for_each(|delivery| self.on_delivery(world, delivery));
            }
            Event::View(view) => self.on_view(world, view),
            Event::Restored { from_checkpoint, checkpoint, entries } => {
                self.app = if from_checkpoint { self.checkpoint } else { (0, 0) };
                assert_eq!(self.app.0, checkpoint.0);
                entries.iter().for_each(|delivery| self.apply(delivery));
                world.restored.extend(entries.iter().map(|delivery| delivery.message));
                self.whole = true;
                world.outcome.recoveries += u64::from(!entries.is_empty() || from_checkpoint);
            }
            Event::Blocked { .. } => {
                self.blocked = true;
                world.outcome.blocked += 1;
            }
            Event::MaybeLost { from } => {
                world.outcome.lost += 1;
                world.floor = world.floor.min(from.0 - 1);
                // A joiner takes over a state behind the loss: to the checkers it is in no view yet.
                for group in [group_id(), fifo_id()].into_iter().filter(|_| self.view.is_none()) {
                    world.note(boot, What::Group(GroupWord::MaybeLost { group, from }));
                }
            }
            Event::Reached { level, upto, position } => {
                self.on_reached(world, level, upto, position);
            }
            Event::ReadReady { token, position } => {
                let (floor, lost) = self.reads.remove(&token).unwrap();
                world.outcome.reads += 1;
                assert!(self.app.0 >= position.0);
                let fresh = self.app.0 >= floor || lost != world.outcome.lost;
                assert!(fresh, "a stale read: {} of {floor}", self.app.0);
            }
            Event::ReadFailed { token } => {
                self.reads.remove(&token).unwrap();
                world.outcome.failed_reads += 1;
            }
            Event::Holding { view } => self.holding = Some(view),
            Event::SnapshotWanted { position } => {
                assert_eq!(self.app.0, position.0);
                let mut bytes = Bytes::copy_from_slice(&self.app.1.to_le_bytes());
                self.giving = [bytes.split_to(3), bytes].into();
                self.give(world, position);
            }
            Event::ChunkWanted { position } => self.give(world, position),
            Event::RestoreChunk { position, offset, bytes, last } => {
                self.got.truncate(offset as usize);
                self.got.extend_from_slice(&bytes);
                let upto = offset + bytes.len() as u64;
                self.group.as_mut().unwrap().chunk_taken(world.now, position, upto);
                if last {
                    self.on_restored(world, position);
                }
            }
            Event::Slow { .. } | Event::SlowOver { .. } => {}
        }
    }

    fn give(&mut self, world: &World, position: Position) {
        let chunk = self.giving.pop_front().unwrap();
        let last = self.giving.is_empty();
        self.group.as_mut().unwrap().snapshot_chunk(world.now, position, chunk, last);
    }

    fn on_restored(&mut self, world: &mut World, position: Position) {
        self.app = (position.0, u64::from_le_bytes(self.got[..].try_into().unwrap()));
        self.checkpoint = self.app;
        world.outcome.transfers += 1;
        self.group.as_mut().unwrap().restored(world.now, position);
        self.show_if_whole(world);
    }

    /// To the checkers a joiner is a member as soon as it has the state.
    fn show_if_whole(&mut self, world: &mut World) {
        if !self.group.as_ref().is_some_and(|group| group.status().whole) {
            return;
        }
        let Some(view) = self.view.take() else { return };
        self.whole = true;
        self.show_view(world, &view);
        for group in [group_id(), fifo_id()] {
            let position = view.start;
            world.note(self.boot.unwrap(), What::Group(GroupWord::Restored { group, position }));
        }
    }

    fn on_view(&mut self, world: &mut World, view: GroupView) {
        self.blocked = false;
        let me = view.members.iter().find(|site| site.node == self.node).copied();
        self.site = me;
        let is_whole = self.group.as_ref().unwrap().status().whole;
        self.view = None;
        if is_whole {
            self.whole = true;
            if !world.options.stateful {
                self.app.0 = view.start.0;
            }
            self.show_view(world, &view);
        } else {
            self.whole = false;
            self.view = Some(view);
        }
    }

    fn show_view(&self, world: &mut World, view: &GroupView) {
        for group in [group_id(), fifo_id()] {
            let (members, position) = (view.members.clone(), view.start);
            let what =
                What::Group(GroupWord::Installed { group, view: view.id, members, position });
            world.note(self.boot.unwrap(), what);
        }
    }

    fn on_delivery(&mut self, world: &mut World, delivery: &Delivery) {
        self.apply(delivery);
        world.outcome.delivered += 1;
        let Delivery { message, order, position, view, .. } = delivery.clone();
        let group = if order == Order::Total { group_id() } else { fifo_id() };
        if let (Some(position), Some(site)) = (position, self.site)
            && message.sender == site
        {
            self.own.insert(message.sequence, position);
        }
        let what = What::Group(GroupWord::Delivered { group, view, message, order, position });
        world.note(self.boot.unwrap(), what);
    }

    fn on_reached(&mut self, world: &mut World, level: Level, upto: u64, position: Position) {
        let from = self.acked.insert(level, upto).unwrap_or(0);
        assert!(from < upto, "levels rise");
        if let Some(known) = self.own.get(&upto) {
            assert_eq!(*known, position);
        }
        let sender = self.site.unwrap();
        let news: Vec<_> = self.own.range(from + 1..=upto).map(|(of, at)| (*of, *at)).collect();
        for (sequence, position) in news {
            let message = MessageId { sender, sequence };
            if level >= Level::Majority {
                world.check_copies(position, level);
                world.floor = world.floor.max(position.0);
            }
            let what = What::Group(GroupWord::Acknowledged {
                group: group_id(),
                message,
                position,
                level,
            });
            world.note(self.boot.unwrap(), what);
        }
    }
}

impl World {
    /// Takes all outputs of a node.
    pub fn drain(&mut self, index: usize) {
        self.note_copies(index);
        while let Some(output) = self.group(index).poll_output() {
            match output {
                Output::Send { to, message } => {
                    let from = self.slots[index].boot().unwrap();
                    let is_up = self.slots.iter().any(|slot| slot.boot() == Some(to));
                    if is_up {
                        let frames = self.channels.entry((from, to)).or_default();
                        frames.push_back(message.encode());
                    }
                }
                Output::Persist { io, record } => {
                    let (kind, body) = record.encode();
                    self.slots[index].writing.push_back((io, kind, body));
                }
                Output::Event(event) => self.on_event(index, event),
            }
        }
    }
}
