//! A mounted service: its inputs and outputs with their types off.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::Breach;
use super::beside::{Aside, Report};
use crate::codec::DecodeError;
use crate::service::{
    Address, Ask, Chunks, Class, Dest, Figure, In, Io, Logged, MESSAGE_BYTES_MAX, Out, PeerChange,
    RECORD_BYTES_MAX, ReaderChange, ReaderId, Readers, Service, Start, Told, Wire as _,
};
use crate::{BootId, Instance, Instant, NodeId, View, ViewId, Work};

/// What a service wants of its host, with its types off.
pub enum Effect {
    /// Send a message to the instance of the same address elsewhere.
    Send {
        /// Which instance.
        from: Address,
        /// How urgent.
        class: Class,
        /// To whom.
        to: Dest,
        /// The encoded part.
        meta: Bytes,
        /// The raw part.
        payload: Bytes,
    },
    /// Send a datagram.
    Datagram {
        /// Which instance.
        from: Address,
        /// To which node.
        to: NodeId,
        /// The encoded part.
        meta: Bytes,
        /// The raw part.
        payload: Bytes,
    },
    /// Write a record. All records of a turn are written as one.
    Persist {
        /// Of which instance.
        from: Address,
        /// Its number there.
        io: Io,
        /// The encoded part.
        meta: Bytes,
        /// The raw part.
        payload: Bytes,
    },
    /// Write a checkpoint beside the turns.
    Checkpoint {
        /// Of which instance.
        from: Address,
        /// As of this position.
        position: u64,
        /// The older ones go first.
        alone: bool,
        /// The state.
        source: Box<dyn Chunks>,
    },
    /// Read the next chunk of the newest checkpoint.
    NextChunk {
        /// Of which instance.
        from: Address,
    },
    /// Do this beside the turns and give back what comes of it.
    Work {
        /// Of which instance.
        from: Address,
        /// A pure function.
        work: Box<dyn FnOnce() -> Done + Send>,
    },
    /// What the proxy of a service [beside](super::beside) the node wants.
    Aside {
        /// Which instance.
        from: Address,
        /// What.
        word: Aside,
    },
}

impl Effect {
    /// Which instance wants it.
    #[must_use]
    pub fn of(&self) -> Address {
        match self {
            Self::Send { from, .. }
            | Self::Datagram { from, .. }
            | Self::Persist { from, .. }
            | Self::Checkpoint { from, .. }
            | Self::NextChunk { from }
            | Self::Work { from, .. }
            | Self::Aside { from, .. } => *from,
        }
    }
}

/// What came of a job; for [`Rack::give`](super::Rack::give).
pub struct Done(Box<dyn Any + Send>);

/// An input of a service, with its types off. See [`In`] for each.
pub enum Given {
    /// [`In::Message`].
    Message {
        /// From this boot.
        from: BootId,
        /// The view in which it was sent.
        view: u64,
        /// The encoded part.
        meta: Bytes,
        /// The raw part.
        payload: Bytes,
    },
    /// [`In::Datagram`].
    Datagram {
        /// When the socket got it.
        at: Instant,
        /// From this node.
        from: NodeId,
        /// The encoded part.
        meta: Bytes,
        /// The raw part.
        payload: Bytes,
    },
    /// [`In::Full`].
    Full {
        /// To whom.
        to: BootId,
        /// The encoded part.
        meta: Bytes,
        /// The raw part.
        payload: Bytes,
    },
    /// [`In::Peer`].
    Peer(PeerChange),
    /// [`In::View`].
    View(Arc<View>),
    /// [`In::Room`].
    Room {
        /// To whom.
        to: BootId,
    },
    /// [`In::Written`].
    Written(Io),
    /// [`In::Compact`].
    Compact {
        /// The last record that pins the log.
        upto: Io,
    },
    /// [`In::Chunk`].
    Chunk(Option<Bytes>),
    /// [`In::Checkpointed`].
    Checkpointed {
        /// As of this position.
        position: u64,
        /// Whether it is stable.
        written: bool,
    },
    /// [`In::DiskShort`].
    DiskShort(bool),
    /// [`In::Done`].
    Done(Done),
    /// [`In::Reader`].
    Reader {
        /// Which.
        reader: ReaderId,
        /// What became of it.
        change: ReaderChange,
    },
    /// [`In::Close`].
    Close,
    /// For the proxy of a service [beside](super::beside) the node: what came of a turn there.
    Report(Box<Report>),
}

/// Takes events of a service; it must not block.
pub trait Reader<E>: 'static {
    /// Whether no other reader that says so may read the service as well. Default: it does not mind.
    fn is_exclusive(&self) -> bool {
        false
    }

    /// Takes all of these, in order.
    fn read(&mut self, events: Vec<E>) -> Offered;
}

/// How a reader is behind what it was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offered {
    /// It has room for more.
    Room,
    /// It has taken these, and has no room for more.
    Full,
    /// It is gone.
    Gone,
}

impl<E, F: FnMut(Vec<E>) -> Offered + 'static> Reader<E> for F {
    fn read(&mut self, events: Vec<E>) -> Offered {
        self(events)
    }
}

/// One thing of a log that several instances share.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum LogEntry {
    /// A record.
    Record {
        /// Of which instance.
        of: Address,
        /// Its number there.
        io: Io,
        /// The encoded part.
        meta: Bytes,
        /// The raw part.
        payload: Bytes,
    },
    /// What the instance wrote behind this it wrote knowing this view.
    Installed {
        /// Which instance.
        of: Address,
        /// The last view that it was told before.
        view: ViewId,
    },
}

/// A service that has its place on a rack, with those who read it.
pub struct Mounted<S: Service> {
    service: S,
    instance: Instance,
    agreed: u128,
    readers: BTreeMap<ReaderId, Subscription<S::Event>>,
    /// It is turned no more.
    breach: Option<Breach>,
    /// The last record that it wrote. Whether the first one follows its log is looked at by its host.
    last: Option<Io>,
}

struct Subscription<E> {
    reader: Box<dyn Reader<E>>,
    full: bool,
}

/// A record of the log that is none of its service: the service cannot be mounted, the node goes on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("record {} of {of:?} is not one of this service: {why}", io.0)]
pub struct BadRecord {
    /// Of which instance.
    pub of: Address,
    /// Its number there.
    pub io: Io,
    /// What is wrong with it.
    pub why: DecodeError,
}

/// Folds what a log holds for one instance of `S`. It takes time in proportion to the log: not on a node's thread.
///
/// # Errors
/// [`BadRecord`].
pub fn fold<'a, S: Service>(
    instance: Instance,
    log: impl IntoIterator<Item = &'a LogEntry>,
) -> Result<S::Past, BadRecord> {
    let own = Address { channel: S::CHANNEL, instance };
    let mut past = S::Past::default();
    for entry in log {
        match entry {
            LogEntry::Installed { of, view } if *of == own => {
                S::fold(&mut past, Logged::Installed(*view));
            }
            LogEntry::Record { of, io, meta, payload } if *of == own => {
                let record = S::Record::decode(meta, payload.clone()).map_err(|why| BadRecord {
                    of: own,
                    io: *io,
                    why,
                })?;
                S::fold(&mut past, Logged::Record(*io, record));
            }
            LogEntry::Record { .. } | LogEntry::Installed { .. } => {}
        }
    }
    Ok(past)
}

impl<S: Service> Mounted<S> {
    /// The service, begun.
    pub fn recover(config: S::Config, start: Start<S::Past>) -> Self {
        let (instance, agreed) = (start.instance, S::agreed(&config));
        let service = S::recover(config, start);
        Self { service, instance, agreed, readers: BTreeMap::new(), breach: None, last: None }
    }

    /// From here on this reader is told events, in order. One with the same id is replaced.
    pub fn subscribe(&mut self, id: ReaderId, reader: impl Reader<S::Event>) {
        let reader = Box::new(reader);
        self.readers.insert(id, Subscription { reader, full: false });
    }

    /// Whether a reader is there that suffers no other of its kind.
    pub fn has_exclusive(&self) -> bool {
        self.readers.values().any(|it| it.reader.is_exclusive())
    }

    /// The service itself.
    pub fn service(&self) -> &S {
        &self.service
    }

    /// Hands the events out. A reader that is told more than it has room for is gone. True if the service was told so.
    fn hand_out(&mut self, now: Instant, events: &[(Readers, S::Event)]) -> bool {
        let mut changes = Vec::new();
        for (id, subscription) in &mut self.readers {
            let is_for = |to: &Readers| matches!(to, Readers::All) || *to == Readers::One(*id);
            let own: Vec<_> =
                events.iter().filter(|(to, _)| is_for(to)).map(|(_, it)| it.clone()).collect();
            if own.is_empty() {
                continue;
            }
            let change = if subscription.full {
                Some(ReaderChange::Gone)
            } else {
                match subscription.reader.read(own) {
                    Offered::Room => None,
                    Offered::Full => Some(ReaderChange::Full),
                    Offered::Gone => Some(ReaderChange::Gone),
                }
            };
            subscription.full |= change == Some(ReaderChange::Full);
            changes.extend(change.map(|change| (*id, change)));
        }
        let touched = !changes.is_empty();
        for (reader, change) in changes {
            if change == ReaderChange::Gone {
                self.readers.remove(&reader);
            }
            self.service.handle(now, In::Reader { reader, change });
        }
        touched
    }
}

/// A mounted service with its types off: one dynamic call for a service and turn.
pub trait Tenant: Any {
    /// Where it is.
    fn address(&self) -> Address;
    /// See [`Service::agreed`].
    fn agreed(&self) -> u128;
    /// Takes an input in. False if the bytes are no message of it: nothing has happened then.
    fn give(&mut self, now: Instant, given: Given) -> bool;
    /// Takes commands of another service in; those of another kind are dropped, and false is the answer.
    fn asked(&mut self, now: Instant, ask: Ask) -> bool;
    /// Takes events of another service in.
    fn told(&mut self, now: Instant, told: Told);
    /// Ends its turn. So many services of the node listen to it.
    fn turn(&mut self, now: Instant, listeners: usize, turned: &mut Turned);
    /// When it is due.
    fn timeout(&self) -> Option<Instant>;
    /// What it did since the last call.
    fn take_work(&mut self) -> Work;
    /// The oldest record that it needs.
    fn keeps(&self) -> Io;
    /// Whether it leaves the rack after this turn. `closing`: it was told to come to its end.
    fn is_over(&self, closing: bool) -> bool;
    /// It has broken a rule of its host: nothing comes of it any more.
    fn stop(&mut self, breach: Breach);
    /// The rule that it broke.
    fn breach(&self) -> Option<Breach>;
    /// [`Service::NAME`] and [`Service::figures`].
    fn figures(&self) -> (&'static str, Vec<Figure>);
    /// Panics if it is not as it should be.
    fn check_invariants(&self);
    /// Itself, for those who know its type.
    fn as_any(&self) -> &dyn Any;
    /// The same.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

/// What came of a service's turn.
#[derive(Default)]
pub struct Turned {
    /// What is to be done, in order.
    pub effects: Vec<Effect>,
    pub(super) asks: Vec<Ask>,
    /// One for each service that listens.
    pub(super) told: Vec<Told>,
    pub(super) again: bool,
    /// It has taken something in since its turn ended.
    pub(super) touched: bool,
    /// Inputs that were none of the service; told late by one that is beside the node.
    pub(super) malformed: u64,
}

impl<S: Service> Mounted<S> {
    fn typed(given: Given) -> Option<In<S>> {
        let message = |meta: &Bytes, payload| S::Message::decode(meta, payload).ok();
        Some(match given {
            Given::Message { from, view, meta, payload } => {
                In::Message { from, view, message: message(&meta, payload)? }
            }
            Given::Datagram { at, from, meta, payload } => {
                In::Datagram { at, from, message: message(&meta, payload)? }
            }
            Given::Full { to, meta, payload } => In::Full { to, message: message(&meta, payload)? },
            Given::Peer(change) => In::Peer(change),
            Given::View(view) => In::View(view),
            Given::Room { to } => In::Room { to },
            Given::Written(io) => In::Written(io),
            Given::Compact { upto } => In::Compact { upto },
            Given::Chunk(chunk) => In::Chunk(chunk),
            Given::Checkpointed { position, written } => In::Checkpointed { position, written },
            Given::DiskShort(short) => In::DiskShort(short),
            Given::Done(Done(done)) => In::Done(*done.downcast().ok()?),
            Given::Reader { reader, change } => In::Reader { reader, change },
            Given::Close => In::Close,
            Given::Report(_) => return None,
        })
    }

    /// Stops the service if both parts have more bytes than that.
    fn sized(
        &mut self,
        (meta, payload): (Bytes, Bytes),
        most: usize,
        breach: fn(usize) -> Breach,
    ) -> Option<(Bytes, Bytes)> {
        let bytes = meta.len() + payload.len();
        if bytes > most {
            self.stop(breach(bytes));
            return None;
        }
        Some((meta, payload))
    }

    fn effect(&mut self, output: Out<S>, turned: &mut Turned) -> Option<(Readers, S::Event)> {
        let from = self.address();
        let effect = match output {
            Out::Send { to, message } => {
                let breach = |bytes| Breach::Message { bytes };
                let (meta, payload) = self.sized(message.encode(), MESSAGE_BYTES_MAX, breach)?;
                Effect::Send { from, class: S::CLASS, to, meta, payload }
            }
            Out::Datagram { to, message } => {
                let (meta, payload) = message.encode();
                Effect::Datagram { from, to, meta, payload }
            }
            Out::Persist { io, record } => {
                if let Some(last) = self.last.replace(io).filter(|last| last.next() != io) {
                    self.stop(Breach::Number { io, last });
                }
                let breach = |bytes| Breach::Record { bytes };
                let (meta, payload) = self.sized(record.encode(), RECORD_BYTES_MAX, breach)?;
                Effect::Persist { from, io, meta, payload }
            }
            Out::Checkpoint { position, alone, source } => {
                Effect::Checkpoint { from, position, alone, source }
            }
            Out::NextChunk => Effect::NextChunk { from },
            Out::Work(job) => {
                Effect::Work { from, work: Box::new(move || Done(Box::new(S::work(job)))) }
            }
            Out::Ask(ask) => {
                turned.asks.push(ask);
                return None;
            }
            Out::Event { to, event } => return Some((to, event)),
            Out::Again => {
                turned.again = true;
                return None;
            }
        };
        turned.effects.push(effect);
        None
    }
}

impl<S: Service> Tenant for Mounted<S> {
    fn address(&self) -> Address {
        Address { channel: S::CHANNEL, instance: self.instance }
    }

    fn agreed(&self) -> u128 {
        self.agreed
    }

    fn give(&mut self, now: Instant, given: Given) -> bool {
        if let Given::Reader { reader, change } = &given {
            match change {
                ReaderChange::Gone => drop(self.readers.remove(reader)),
                ReaderChange::Room | ReaderChange::Full => {
                    let Some(subscription) = self.readers.get_mut(reader) else { return false };
                    subscription.full = *change == ReaderChange::Full;
                }
            }
        }
        let Some(input) = Self::typed(given) else { return false };
        if self.breach.is_none() {
            self.service.handle(now, input);
        }
        true
    }

    fn asked(&mut self, now: Instant, ask: Ask) -> bool {
        let Ok(commands) = ask.commands.downcast::<Vec<S::Command>>() else { return false };
        if self.breach.is_some() {
            return false;
        }
        commands.into_iter().for_each(|command| self.service.handle(now, In::Command(command)));
        true
    }

    fn told(&mut self, now: Instant, told: Told) {
        if self.breach.is_none() {
            self.service.handle(now, In::Told(told));
        }
    }

    fn turn(&mut self, now: Instant, listeners: usize, turned: &mut Turned) {
        if self.breach.is_some() {
            return;
        }
        if self.service.poll_timeout().is_some_and(|due| due <= now) {
            self.service.handle_timeout(now);
        }
        self.service.end_turn(now);
        let mut events = Vec::new();
        while let Some(output) = self.service.poll_output() {
            events.extend(self.effect(output, turned));
        }
        if self.breach.is_some() {
            *turned = Turned::default();
            return;
        }
        if events.is_empty() {
            return;
        }
        turned.touched |= self.hand_out(now, &events);
        let all = events.into_iter().filter(|(to, _)| *to == Readers::All).map(|(_, it)| it);
        let all: Vec<S::Event> = all.collect();
        if !all.is_empty() {
            let from = self.address();
            let told = |events: Vec<S::Event>| Told { from, events: Box::new(events) };
            turned.told.extend((1..listeners).map(|_| told(all.clone())));
            turned.told.extend((listeners > 0).then(|| told(all)));
        }
    }

    fn timeout(&self) -> Option<Instant> {
        self.service.poll_timeout()
    }

    fn take_work(&mut self) -> Work {
        self.service.take_work()
    }

    fn keeps(&self) -> Io {
        self.service.keeps()
    }

    fn figures(&self) -> (&'static str, Vec<Figure>) {
        (S::NAME, self.service.figures())
    }

    fn is_over(&self, closing: bool) -> bool {
        closing || self.breach.is_some()
    }

    fn stop(&mut self, breach: Breach) {
        self.breach.get_or_insert(breach);
    }

    fn breach(&self) -> Option<Breach> {
        self.breach
    }

    fn check_invariants(&self) {
        self.service.check_invariants();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
