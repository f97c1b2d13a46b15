//! A process group on its node: casts go in, the stream of events goes out, and states go both ways.
//!
//! # States
//! The actor keeps the state, the house keeps it safe. Whenever somebody needs it, the actor is asked at one place of its
//! stream ([`GroupEvent::StateWanted`]); what it gives is the state as of that place, whenever it comes. A joiner gets it chunk
//! by chunk. A group on disk writes it as a checkpoint, once the own log has all messages up to that place, and cuts the log
//! behind it. A state that another member gave is of a past that the own log does not have: it is forced as the only
//! checkpoint before the member says that it is whole ([`AppPort::restored`]), and no user can say so for it.

mod casts;
mod listeners;
mod parts;
#[cfg(test)]
mod told;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use mainstay_base::{Duration, Instant, Order, Position, SiteId, Work};
use mainstay_multicast::{self as multicast, Delivery, Durability, MESSAGE_OVERHEAD};
use mainstay_runtime::{Inbox, Intake};
use mainstay_site::{AppPort, Application, CheckpointDone};

use casts::Casts;
use listeners::{Listeners, Log};
use parts::{Parts, Pieces};

use super::book::{Book, NotReached};
use super::{
    Ask, Cast, Given, GroupConfig, GroupEvent, GroupView, Message, Names, State, StatePart,
    StateRequest,
};
use crate::outcome::AcceptLossError;

/// A state, however large, is written again after so many bytes of messages (256 MiB): a start reads them all.
const LOG_BYTES_MAX: usize = 256 << 20;
/// So many messages of the own log are counted in a turn.
const COUNTED: usize = 16 << 10;
const COUNT_NOMINAL: Duration = Duration::from_nanos(10);

/// Who waits for a state that was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Joiner,
    Checkpoint,
}

/// States on their way.
#[derive(Default)]
struct States {
    /// Asked for and not given, by number.
    wanted: VecDeque<(u64, Position, Wanted)>,
    asked: u64,
    /// On its way to joiners.
    given: Option<(Position, Parts)>,
    /// For a checkpoint, as soon as the own log has all of it.
    checkpoint: Option<(Position, Parts)>,
    /// What a sponsor has given so far.
    arriving: Pieces,
    /// A sponsor's state that is to be forced.
    transferred: Option<(Position, Pieces)>,
    /// A checkpoint is being written; of a sponsor's state.
    writing: Option<Option<(Position, Pieces)>>,
    /// Bytes of messages since the state was last asked for.
    delivered_bytes: usize,
    /// Messages of the own log that are not counted in yet.
    uncounted: Option<Log>,
    /// Of the newest checkpoint on disk.
    newest: Option<Position>,
    /// Bytes of the state, when it was last read to its end.
    size: Arc<AtomicUsize>,
}

/// The application of a process group.
pub(crate) struct GroupMember {
    name: Arc<str>,
    config: Arc<GroupConfig>,
    names: Names,
    asks: Intake<Ask>,
    /// For requests to come back by.
    back: Inbox<Ask>,
    casts: Casts,
    listeners: Listeners,
    states: States,
    /// Own position: of the last message in total order that was told.
    position: Position,
    site: Option<SiteId>,
    me: mainstay_base::NodeId,
    /// It was told how this boot comes to its state.
    begun: bool,
    /// Nobody keeps the state here any more.
    left: bool,
    disk_short: bool,
    /// It was told that the majority is lost.
    minority: bool,
}

impl GroupMember {
    pub(crate) fn new(
        name: Arc<str>,
        config: Arc<GroupConfig>,
        me: mainstay_base::NodeId,
        names: Names,
        intake: Intake<Cast>,
        (back, asks): (Inbox<Ask>, Intake<Ask>),
        book: Arc<Book>,
    ) -> Self {
        let casts = Casts::new(intake, book);
        let listeners = Listeners::new();
        Self {
            name,
            config,
            names,
            asks,
            back,
            casts,
            listeners,
            states: States::default(),
            position: Position::ZERO,
            site: None,
            me,
            begun: false,
            left: false,
            disk_short: false,
            minority: false,
        }
    }

    fn is_disk(&self) -> bool {
        self.config.durability == Durability::Disk
    }

    fn deliver(&mut self, batch: Vec<Delivery>) {
        for delivery in batch {
            self.position = delivery.position.unwrap_or(self.position);
            self.states.delivered_bytes += delivery.payload.len() + MESSAGE_OVERHEAD;
            if delivery.order == Order::Fifo && self.site == Some(delivery.message.sender) {
                self.casts.on_fifo();
            }
            self.listeners.push(GroupEvent::Deliver(Message::from(delivery)));
        }
    }

    /// The messages of the own log, however many: they are looked at a slice a turn.
    fn deliver_log(&mut self, entries: Vec<Delivery>) {
        let last = entries.iter().rev().find_map(|entry| entry.position);
        self.position = last.unwrap_or(self.position);
        let log = Log::new(entries);
        self.states.uncounted = Some(log.clone());
        self.listeners.push_log(log);
    }

    /// True: there is more to count.
    fn count_log(&mut self) -> bool {
        let Some(log) = &mut self.states.uncounted else { return false };
        let next = log.take(COUNTED);
        if next.is_empty() {
            self.states.uncounted = None;
            return false;
        }
        let nominal = COUNT_NOMINAL.saturating_mul(next.len() as u32);
        self.listeners.charge(Work { nominal, steps: next.len() as u64, bytes: 0 });
        let bytes = next.iter().map(|it| it.payload.len() + MESSAGE_OVERHEAD).sum::<usize>();
        self.states.delivered_bytes += bytes;
        true
    }

    fn begin(&mut self, position: Position, pieces: &Pieces) {
        self.begun = true;
        self.position = position;
        self.states.wanted.clear();
        (self.states.given, self.states.checkpoint) = (None, None);
        self.states.size.store(pieces.bytes(), Ordering::Relaxed);
        if self.config.stateful && self.config.state_in_parts {
            StatePart::of(pieces.iter().collect())
                .for_each(|it| self.listeners.push(GroupEvent::StatePart(it)));
        } else if self.config.stateful {
            self.listeners.push(GroupEvent::State(State::new(pieces.iter().collect())));
        }
    }

    fn on_view(&mut self, view: multicast::GroupView, port: &AppPort<'_>) {
        let whole = port.status().is_some_and(|group| group.whole);
        if whole && !self.begun {
            // The group is made: there is nothing that anybody could give.
            self.begin(view.start, &Pieces::default());
        }
        if self.site.is_none() {
            // A former boot was in a minority: who is admitted is not.
            self.tell_minority(false);
        }
        let me = self.me;
        self.site = view.members.iter().copied().find(|site| site.node == me);
        let named = |sites: &[SiteId]| sites.iter().map(|site| (self.names)(*site)).collect();
        let told = GroupView {
            id: view.id,
            members: named(&view.members),
            joined: named(&view.joined),
            left: view.left.iter().map(|(site, why)| ((self.names)(*site), *why)).collect(),
            start: view.start,
            me: view.members.iter().position(|site| site.node == me),
        };
        self.listeners.push(GroupEvent::View(Arc::new(told)));
    }

    fn tell_minority(&mut self, on: bool) {
        if std::mem::replace(&mut self.minority, on) != on {
            let told = if on { GroupEvent::MajorityLost } else { GroupEvent::MajorityBack };
            self.listeners.push(told);
        }
    }

    fn want(&mut self, position: Position, wanted: Wanted) {
        if self.left {
            return;
        }
        self.states.asked += 1;
        let number = self.states.asked;
        self.states.wanted.push_back((number, position, wanted));
        let request = StateRequest::new(number, position, self.back.clone());
        self.listeners.push(GroupEvent::StateWanted(request));
    }

    /// Bytes of messages after which a checkpoint is due.
    fn checkpoint_after(&self) -> usize {
        let size = self.states.size.load(Ordering::Relaxed);
        self.config.checkpoint_bytes.max(size.min(LOG_BYTES_MAX))
    }

    /// Asks for the state when the log has grown long.
    fn want_checkpoint(&mut self) {
        let states = &self.states;
        let is_on_its_way = states.checkpoint.is_some()
            || states.writing.is_some()
            || states.uncounted.is_some()
            || states.wanted.iter().any(|(_, _, wanted)| *wanted == Wanted::Checkpoint);
        if !self.is_disk()
            || self.left
            || !self.begun
            || is_on_its_way
            || states.delivered_bytes < self.checkpoint_after()
        {
            return;
        }
        self.states.delivered_bytes = 0;
        if self.config.stateful {
            self.want(self.position, Wanted::Checkpoint);
        } else {
            self.states.checkpoint = Some((self.position, Parts::of([Bytes::new()])));
        }
    }

    /// Somebody has given the state, or will not.
    fn on_state(&mut self, number: u64, state: Option<Given>, port: &mut AppPort<'_>) {
        let state = state.map(|state| Parts::given(state, &self.states.size));
        let Some(at) = self.states.wanted.iter().position(|(it, ..)| *it == number) else { return };
        let Some((_, position, wanted)) = self.states.wanted.remove(at) else { return };
        match (state, wanted) {
            (Some(state), Wanted::Joiner) => {
                self.states.given = Some((position, state));
                self.give_chunk(position, port);
            }
            (Some(state), Wanted::Checkpoint) => {
                self.states.checkpoint = Some((position, state));
            }
            (None, _) => {
                tracing::warn!(
                    group = &*self.name,
                    ?position,
                    "nobody gives the state of the group"
                );
            }
        }
    }

    fn give_chunk(&mut self, position: Position, port: &mut AppPort<'_>) {
        let Some((at, parts)) = &mut self.states.given else { return };
        if *at != position {
            return;
        }
        match parts.next() {
            Ok((chunk, last)) => {
                port.snapshot_chunk(position, chunk, last);
                if last {
                    self.states.given = None;
                }
            }
            Err(why) => {
                let group = &*self.name;
                tracing::warn!(group, ?position, why, "the state of the group cannot be read");
                self.states.given = None;
            }
        }
    }

    fn on_part(
        &mut self,
        (position, offset, bytes, last): (Position, u64, Bytes, bool),
        port: &mut AppPort<'_>,
    ) {
        if offset == 0 {
            // The own checkpoint is of a past that the group went on without.
            drop(port.take_checkpoint().map(Pieces::from));
            self.states.arriving = Pieces::default();
            self.states.transferred = None;
        }
        let upto = offset + bytes.len() as u64;
        self.states.arriving.push(bytes);
        port.chunk_taken(position, upto);
        if last {
            let pieces = std::mem::take(&mut self.states.arriving);
            self.begin(position, &pieces);
            self.listeners.end_past();
            if self.is_disk() {
                self.states.transferred = Some((position, pieces));
            } else {
                port.restored(position);
            }
        }
    }

    /// Begins the checkpoint that is due, one at a time.
    fn write_checkpoint(&mut self, port: &mut AppPort<'_>) {
        if self.states.writing.is_some() {
            return;
        }
        if let Some((position, pieces)) = self.states.transferred.take_if(|_| !self.disk_short) {
            let source = Box::new(Parts::of(pieces.iter()));
            self.states.writing = Some(Some((position, pieces)));
            port.checkpoint(position, true, source);
        } else if self.states.transferred.is_none()
            && let Some((position, parts)) =
                self.states.checkpoint.take_if(|(position, _)| *position <= port.forced())
        {
            self.states.writing = Some(None);
            port.checkpoint(position, false, Box::new(parts));
        }
    }

    fn take_in(&mut self, port: &mut AppPort<'_>) {
        let mut asks = Vec::new();
        self.asks.take(usize::MAX, &mut asks);
        for (ask, _place) in asks {
            match ask {
                Ask::Subscribe(_) if self.left && self.config.stateful => {}
                Ask::Subscribe(subscriber) => self.listeners.subscribe(subscriber),
                // The end of the turn looks who has it.
                Ask::Room => {}
                Ask::State { number, state } => self.on_state(number, state, port),
                Ask::AcceptLoss(asked) => {
                    let answer = match port.is_up() {
                        false => Err(AcceptLossError::Restarting),
                        true if port.accept_loss() => Ok(()),
                        true => Err(AcceptLossError::NothingToAccept),
                    };
                    // Nobody waits any more: then nobody is answered.
                    let _ = asked.send(answer);
                }
            }
        }
        self.casts.take_in();
        self.cast(port);
    }

    fn cast(&mut self, port: &mut AppPort<'_>) {
        if self.left {
            self.casts.waiting.clear();
        } else if !self.disk_short {
            self.casts.cast(port);
        }
    }

    fn leave(&mut self) {
        if !std::mem::replace(&mut self.left, true) {
            let group = &*self.name;
            tracing::error!(group, "nobody keeps the state of the group at this node any more");
            self.listeners.close();
            self.states = States::default();
            self.casts.book.end(NotReached::Left);
        }
    }
}

impl Application for GroupMember {
    fn on_event(&mut self, event: multicast::Event, port: &mut AppPort<'_>) {
        use multicast::Event;
        match event {
            Event::Deliver(batch) => self.deliver(batch),
            Event::View(view) => self.on_view(view, port),
            Event::Restored { from_checkpoint, checkpoint, entries } => {
                let none = Pieces::default();
                let own = Pieces::from(port.take_checkpoint().unwrap_or_default());
                self.begin(checkpoint, if from_checkpoint { &own } else { &none });
                self.states.newest = from_checkpoint.then_some(checkpoint);
                self.deliver_log(entries);
                self.listeners.end_past();
            }
            Event::RestoreChunk { position, offset, bytes, last } => {
                self.on_part((position, offset, bytes, last), port);
            }
            Event::Reached { level, upto, .. } => {
                let is_disk = self.is_disk();
                self.casts.on_reached(level, upto, is_disk);
            }
            Event::Blocked { view } => {
                let group = &*self.name;
                tracing::warn!(
                    group,
                    ?view,
                    "the group stands still: it waits for what failed last, or for a majority of its nodes"
                );
                self.listeners.push(GroupEvent::Blocked);
            }
            Event::MaybeLost { from } => {
                let group = &*self.name;
                if self.is_disk() {
                    tracing::warn!(
                        group,
                        ?from,
                        "messages may be lost; none that a majority had forced, unless that was accepted or disks are lost"
                    );
                } else {
                    tracing::error!(group, ?from, "acknowledged messages may be lost");
                }
                self.listeners.push(GroupEvent::MaybeLost(from));
            }
            Event::SnapshotWanted { position } if self.config.stateful => {
                self.want(position, Wanted::Joiner);
            }
            Event::SnapshotWanted { position } => {
                port.snapshot_chunk(position, Bytes::new(), true);
            }
            Event::ChunkWanted { position } => self.give_chunk(position, port),
            Event::Slow { site } => {
                let member = (self.names)(site).name;
                tracing::warn!(group = &*self.name, %member, "a member does not get on");
            }
            Event::SlowOver { .. }
            | Event::ReadReady { .. }
            | Event::ReadFailed { .. }
            | Event::Holding { .. } => {}
        }
    }

    fn woken(&mut self, port: &mut AppPort<'_>) {
        self.take_in(port);
    }

    fn compact(&mut self, _port: &mut AppPort<'_>) {
        if self.states.newest != Some(self.position) {
            self.states.delivered_bytes = self.checkpoint_after();
        }
    }

    fn on_checkpoint(&mut self, done: CheckpointDone, port: &mut AppPort<'_>) {
        if done.written {
            self.states.newest = Some(done.position);
        }
        match self.states.writing.take() {
            Some(Some((position, _))) if done.written => port.restored(position),
            // There was no room. A newer state may have come meanwhile.
            Some(Some(transferred)) => {
                self.states.transferred.get_or_insert(transferred);
            }
            Some(None) | None => {}
        }
    }

    fn restarted(&mut self, _now: Instant) {
        self.casts.restarted();
        self.states = States { asked: self.states.asked, ..States::default() };
        (self.begun, self.site) = (false, None);
        self.listeners.push(GroupEvent::Died);
    }

    fn end_turn(&mut self, port: &mut AppPort<'_>) {
        if self.casts.more {
            self.take_in(port);
        }
        self.cast(port);
        let counts =
            if port.is_spent() { self.states.uncounted.is_some() } else { self.count_log() };
        self.want_checkpoint();
        self.write_checkpoint(port);
        let is_kept = self.listeners.hand_out(self.config.unread_bytes, port.is_spent());
        if !self.left && !is_kept && self.config.stateful {
            self.leave();
        }
        if std::mem::take(&mut self.casts.moved) {
            self.casts.book.tell();
        }
        if self.casts.more || counts || self.listeners.more() {
            port.again();
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn is_ready(&self) -> bool {
        self.begun && !self.left
    }

    fn waits(&self) -> bool {
        let states = &self.states;
        !self.casts.waiting.is_empty()
            || states.checkpoint.is_some()
            || states.transferred.is_some()
    }

    fn on_minority(&mut self, on: bool) {
        self.tell_minority(on);
    }

    fn disk_short(&mut self, short: bool) {
        self.disk_short = short;
    }

    fn take_work(&mut self) -> Work {
        self.listeners.take_work()
    }
}

impl Drop for GroupMember {
    fn drop(&mut self) {
        self.casts.book.end(NotReached::Closed);
    }
}
