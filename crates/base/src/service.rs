//! The contract of a service: a machine with the ports of the house.
//!
//! A service is a protocol and nothing else. It gets what happened as [`In`]: peers come and go, messages arrive, writes are
//! stable, another service of its node told something. It answers with [`Out`]: send, persist, checkpoint, ask, tell. Who
//! carries that out is not its business: the same service is mounted on a node beside others, runs alone in an actor of
//! its own, or in a simulated world.
//!
//! # What a service may rely on
//! - Messages of one instance between two boots arrive once and in the order of sending, for as long as neither boot is
//!   [replaced](PeerChange::Replaced) and neither instance has [ended](PeerChange::Ended). A connection that breaks meanwhile costs time only.
//! - [`PeerChange::Up`] says that the other end has the same instance mounted. What is sent to a boot that is not up is
//!   refused by [`In::Full`], never lost in silence.
//! - After [`In::Full`] everything to that boot is refused until [`In::Room`]: there is no hole in the middle of a stream.
//! - At one node, peers, views, messages and what other services told come in one order. Across nodes nothing is
//!   promised but the sender's view, which each message brings along.
//! - A record is stable when [`In::Written`] says so, with all before it. What a promise to others depends on is sent after
//!   that, not before.
//!
//! # What a service owes
//! - It behaves alike for alike calls: no clock, no entropy but [`Start::seed`], no order that depends on a hash.
//! - Everything that it keeps is bounded. A turn is bounded in work, whatever the size of the state; what is long goes out
//!   as a [job](Out::Work).
//! - It numbers its records from 1 without a gap ([`Io`]), on from the last one that its folded past has, and answers
//!   [`In::Compact`] in time. The position of a checkpoint is the number of the last record that it covers, so that a
//!   service that begins from a checkpoint goes on behind it.
//! - A message has at most [`MESSAGE_BYTES_MAX`], a record at most [`RECORD_BYTES_MAX`]. A service that breaks this rule, or that of the
//!   numbers of its records, is stopped with the [breach](crate::rack::Breach) as the reason, and nothing else with it.
//! - Bytes of a peer that are no message never reach it. A message that makes no sense is dropped and counted.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::{BootId, Channel, Instance, Instant, Machine, NodeId, View, ViewId};

/// Most bytes of a message, both parts together (16 MiB).
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Most bytes of a record, both parts together (8 MiB).
pub const RECORD_BYTES_MAX: usize = 8 << 20;

/// How urgent the messages of a service are where connections and disks are shared: a lower class waits for a higher one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Agreement on views: everything waits for it.
    Views,
    /// Messages of groups.
    Groups,
    /// Calls and their answers.
    Calls,
    /// What is large and can wait: states, gossip.
    Bulk,
}

/// Where a service is: its kind, and which one of that kind. On the wire, in the log, in status and traces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Address {
    /// The kind.
    pub channel: Channel,
    /// Which one of it.
    pub instance: Instance,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x} {:?}", self.channel.0, self.instance)
    }
}

/// A kind of service, for machines and for people.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Kind {
    /// By this it is found.
    pub channel: Channel,
    /// What people call it.
    pub name: &'static str,
}

impl Kind {
    /// The kind of `S`.
    #[must_use]
    pub const fn of<S: Service>() -> Self {
        Self { channel: S::CHANNEL, name: S::NAME }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (channel {:#06x})", self.name, self.channel.0)
    }
}

/// The number of a record of one instance: 1, 2, 3, ...
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug, Default,
)]
pub struct Io(pub u64);

impl Io {
    /// Before the first record.
    pub const ZERO: Self = Self(0);
    /// Behind every record: nothing is needed any more.
    pub const MAX: Self = Self(u64::MAX);

    /// The next one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A message or a record: a part that serde writes, and a raw part that is shared with the socket and never copied.
///
/// `impl Wire for Message {}` suffices where there is no raw part. Wire types must not be recursive.
pub trait Wire: Serialize + DeserializeOwned + fmt::Debug + Send + 'static {
    /// The raw part. The field that it is from is skipped by serde. Default: none.
    fn payload(&self) -> Bytes {
        Bytes::new()
    }

    /// Puts the raw part in. `None`: it does not belong to such a value. Default: there must be none.
    #[must_use]
    fn with_payload(self, payload: Bytes) -> Option<Self> {
        payload.is_empty().then_some(self)
    }

    /// Both parts.
    fn encode(&self) -> (Bytes, Bytes) {
        (codec::encode(self), self.payload())
    }

    /// The value that these parts are.
    ///
    /// # Errors
    /// [`DecodeError`]: the bytes are of nothing that was encoded. No input makes it panic.
    fn decode(meta: &[u8], payload: Bytes) -> Result<Self, DecodeError> {
        codec::decode::<Self>(meta)?.with_payload(payload).ok_or(DecodeError::Type)
    }
}

/// For a service that has no messages, no records, no commands, no jobs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Never {}

impl Wire for Never {}

/// A protocol that the house can host. See the [module](self) for what both sides may rely on.
///
/// The supertrait says that its inputs and outputs are [`In`] and [`Out`] of itself, and nothing else.
pub trait Service: Machine<Input = In<Self>, Output = Out<Self>> + Sized + 'static {
    /// The kind; registered in [`Channel`].
    const CHANNEL: Channel;
    /// What people call the kind, in errors and logs: one short word, as `rpc`. Nothing that services say to each other has it.
    const NAME: &'static str;
    /// Of all its messages.
    const CLASS: Class;
    /// The kinds of services of its node that it asks or listens to. It is not mounted without one of each.
    const NEEDS: &'static [Kind] = &[];
    /// What it says to the same instance elsewhere.
    type Message: Wire;
    /// What it writes to its log.
    type Record: Wire;
    /// What users, and other services of the node, want of it. The caller's token is inside.
    type Command: Send + 'static;
    /// What it tells those who read it.
    type Event: Clone + Send + 'static;
    /// Work to be done beside the turns, and what comes of it: plain data both ways.
    type Job: Send + 'static;
    /// What comes of a job.
    type Done: Send + 'static;
    /// What is left of the log when it is read.
    type Past: Default + Send + 'static;
    /// What it is made with; handed to the node's thread.
    type Config: Send + 'static;
    /// How it is.
    type Status;

    /// A hash of what must be equal at both ends, or they do not hear each other. Default: nothing must.
    fn agreed(config: &Self::Config) -> u128 {
        let _ = config;
        0
    }

    /// Takes in the next thing that the log has, in the order in which it was written. It runs beside the node's thread,
    /// before [`recover`](Self::recover). Records older than [`keeps`](Self::keeps) said may come again.
    fn fold(past: &mut Self::Past, logged: Logged<Self::Record>);

    /// A service that begins, for the first time or again. It takes time that does not grow with what it has kept.
    fn recover(config: Self::Config, start: Start<Self::Past>) -> Self;

    /// Does a job. A pure function: it runs on any thread, and in a simulation at a drawn time.
    fn work(job: Self::Job) -> Self::Done;

    /// The oldest record that it still needs; [`Io::MAX`] if none. Asked at the end of each turn.
    fn keeps(&self) -> Io {
        Io::MAX
    }

    /// How it is now. Asking changes nothing.
    fn status(&self) -> Self::Status;

    /// What operators and their metrics are to see of it, as names and numbers. Asking changes nothing, and is rare: at each look at the
    /// status of the node, for one beside the node once a second while it has turns. Those of one name come one after the other. Default: none.
    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }

    /// Panics if it is not as it should be. The simulator calls it after each turn.
    fn check_invariants(&self) {}
}

/// One number that a service says of itself, for operators and metrics.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Figure {
    /// What it is: lower case words, joined by underscores, with the unit last, as `skew_worst_seconds`. A count that only grows ends in
    /// `_total`.
    pub name: &'static str,
    /// Which other node it is about, if it is about one.
    pub node: Option<NodeId>,
    /// Which of several under this name, or why it is so, in a word; empty if there is nothing to say.
    pub word: &'static str,
    /// The number; yes is 1 and no is 0. What is unbounded is infinite.
    pub value: f64,
}

impl Figure {
    /// A number of the service itself.
    #[must_use]
    pub const fn new(name: &'static str, value: f64) -> Self {
        Self { name, node: None, word: "", value }
    }

    /// The same about another node.
    #[must_use]
    pub const fn of(self, node: NodeId) -> Self {
        Self { node: Some(node), ..self }
    }

    /// The same with a word.
    #[must_use]
    pub const fn with(self, word: &'static str) -> Self {
        Self { word, ..self }
    }
}

/// What one service of a node says of itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Figures {
    /// Where it is.
    pub of: Address,
    /// What people call its kind: [`Service::NAME`].
    pub kind: &'static str,
    /// What it says.
    pub figures: Vec<Figure>,
}

/// What a log holds for one instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Logged<R> {
    /// A record of the instance.
    Record(Io, R),
    /// The records behind this were written knowing this view: it is the last one that the service had been [told](In::View). A view that it
    /// wrote nothing in is left out, and so is that of the first records of a log whose front was cut off.
    Installed(ViewId),
}

/// What a service begins with.
#[derive(Debug)]
pub struct Start<P> {
    /// The boot that it belongs to.
    pub me: BootId,
    /// Which one of its kind it is.
    pub instance: Instance,
    /// The folded log.
    pub past: P,
    /// The position of the newest checkpoint; [`Out::NextChunk`] asks for its chunks.
    pub checkpoint: Option<u64>,
    /// The time.
    pub now: Instant,
    /// For its randomness; another one at each start.
    pub seed: u64,
}

/// What a service is told.
pub enum In<S: Service> {
    /// A peer came, went, or is another one now.
    Peer(PeerChange),
    /// The node installed a view of the sites.
    View(Arc<View>),
    /// A message came.
    Message {
        /// From this boot.
        from: BootId,
        /// The number of the view that the sender had installed when it sent it; 0 without membership.
        view: u64,
        /// The message.
        message: S::Message,
    },
    /// A datagram came: perhaps late, twice, or in place of one that is lost.
    Datagram {
        /// When the socket got it.
        at: Instant,
        /// From this node.
        from: NodeId,
        /// The message.
        message: S::Message,
    },
    /// A message was not taken, and nothing to that boot is until [`In::Room`]. What was sent to several comes back for each
    /// of them that it was not taken for.
    Full {
        /// To whom.
        to: BootId,
        /// It.
        message: S::Message,
    },
    /// There is room for messages to this boot again.
    Room {
        /// To whom.
        to: BootId,
    },
    /// The records up to this one are stable.
    Written(Io),
    /// The log is long on account of the records up to this one: write again what is still needed of them, or take a
    /// checkpoint, so that [`Service::keeps`] passes it.
    Compact {
        /// The last of them.
        upto: Io,
    },
    /// The next chunk of the newest checkpoint; `None` after the last one. Answers [`Out::NextChunk`].
    Chunk(Option<Bytes>),
    /// A checkpoint is stable, or could not be written: then the older one stands.
    Checkpointed {
        /// As of this position.
        position: u64,
        /// Whether it is stable.
        written: bool,
    },
    /// Less of the disk than its reserve is free (`true`), or there is enough again. It is enough until the first word of it. Work that is
    /// to be written waits or is refused meanwhile: the reserve is for what has begun, and a node whose log fails ends.
    DiskShort(bool),
    /// A job is done.
    Done(S::Done),
    /// What another service of the node told in this turn.
    Told(Told),
    /// Somebody wants something.
    Command(S::Command),
    /// A reader of the events is full, has room again, or is gone.
    Reader {
        /// Which.
        reader: ReaderId,
        /// What became of it.
        change: ReaderChange,
    },
    /// It is to come to its end: nobody mounts it any more after this turn.
    Close,
}

/// What became of a peer. A boot outside the roster may be a guest, of whom no view ever speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PeerChange {
    /// It is connected, and has the same instance mounted, with equal settings where they must be equal.
    Up {
        /// Who.
        boot: BootId,
    },
    /// It is not connected. What was sent arrives if it comes back.
    Down {
        /// Who.
        boot: BootId,
    },
    /// Its instance has ended, and the boot lives on: the instance was dismounted, fell beside its node, or broke a rule of its host. What
    /// was not delivered to it or from it is void. Given in place of `Down`. When one is mounted there again the same boot comes
    /// [`Up`](Self::Up), and knows nothing of what was said before.
    Ended {
        /// Where it was.
        boot: BootId,
    },
    /// The boot is gone for good. What was not delivered to it or from it is void. Given in place of `Down`.
    Replaced {
        /// Who it was.
        old: BootId,
        /// Who is there in its place. `None`: nobody yet; a view left it out, or it acknowledged nothing for so long that the link gave it up.
        new: Option<BootId>,
    },
}

/// What a service wants to be done, in order.
pub enum Out<S: Service> {
    /// Send a message; refused by [`In::Full`] or delivered, unless the boot is replaced.
    Send {
        /// To whom.
        to: Dest,
        /// What.
        message: S::Message,
    },
    /// Send a datagram: it may be lost.
    Datagram {
        /// To which node.
        to: NodeId,
        /// What.
        message: S::Message,
    },
    /// Write a record; answered by [`In::Written`]. All records of a turn are written as one.
    Persist {
        /// The number after the last one's.
        io: Io,
        /// What.
        record: S::Record,
    },
    /// Write a checkpoint, beside the turns; one at a time. Answered by [`In::Checkpointed`].
    Checkpoint {
        /// As of this position; later ones have higher positions.
        position: u64,
        /// The older ones are of a past that counts no more: they go first.
        alone: bool,
        /// The state.
        source: Box<dyn Chunks>,
    },
    /// The next chunk of the newest checkpoint is wanted.
    NextChunk,
    /// Do a job beside the turns; answered by [`In::Done`].
    Work(S::Job),
    /// Another service of the node is to do something, in the same turn.
    Ask(Ask),
    /// Tell those who read the service.
    Event {
        /// Whom.
        to: Readers,
        /// What.
        event: S::Event,
    },
    /// There is more to do: another turn, after the others have had theirs.
    Again,
}

/// The outputs of a service between the end of a turn and the drain, and the numbers of its records.
///
/// It is empty between turns; so it can be cloned although outputs cannot, for the explorer.
pub struct Outbox<S: Service> {
    queue: VecDeque<Out<S>>,
    last: Io,
}

impl<S: Service> Outbox<S> {
    /// Nothing in it; the next record comes after `last`.
    #[must_use]
    pub fn new(last: Io) -> Self {
        Self { queue: VecDeque::new(), last }
    }

    /// Sends to one boot.
    pub fn send(&mut self, to: BootId, message: S::Message) {
        self.queue.push_back(Out::Send { to: Dest::Boot(to), message });
    }

    /// Sends to several boots, encoded once.
    pub fn send_all(&mut self, to: impl IntoIterator<Item = BootId>, message: S::Message) {
        let to: Arc<[BootId]> = to.into_iter().collect();
        if !to.is_empty() {
            self.queue.push_back(Out::Send { to: Dest::Boots(to), message });
        }
    }

    /// Writes a record; its number.
    pub fn persist(&mut self, record: S::Record) -> Io {
        self.last = self.last.next();
        self.queue.push_back(Out::Persist { io: self.last, record });
        self.last
    }

    /// The number of the last record.
    #[must_use]
    pub fn last(&self) -> Io {
        self.last
    }

    /// Tells all readers, and the services that listen.
    pub fn tell(&mut self, event: S::Event) {
        self.queue.push_back(Out::Event { to: Readers::All, event });
    }

    /// Any other output.
    pub fn put(&mut self, output: Out<S>) {
        self.queue.push_back(output);
    }

    /// For [`Machine::poll_output`].
    pub fn pop(&mut self) -> Option<Out<S>> {
        self.queue.pop_front()
    }
}

impl<S: Service> Default for Outbox<S> {
    /// Before the first record.
    fn default() -> Self {
        Self::new(Io::ZERO)
    }
}

impl<S: Service> Clone for Outbox<S> {
    /// # Panics
    /// If it is not empty: a service is cloned between turns.
    fn clone(&self) -> Self {
        assert!(self.queue.is_empty(), "a service is cloned between turns");
        Self { queue: VecDeque::new(), last: self.last }
    }
}

/// To whom a message goes. It is encoded once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Dest {
    /// One.
    Boot(BootId),
    /// Several, each once.
    Boots(Arc<[BootId]>),
}

impl Dest {
    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = BootId> + '_ {
        match self {
            Self::Boot(boot) => std::slice::from_ref(boot).iter().copied(),
            Self::Boots(boots) => boots.iter().copied(),
        }
    }
}

/// A state on its way into a checkpoint. It is read beside the turns.
pub trait Chunks: Send {
    /// The next chunk, of at most 16 MiB; `None` after the last one.
    ///
    /// # Errors
    /// What is wrong: the checkpoint is given up.
    fn next_chunk(&mut self) -> Result<Option<Bytes>, String>;
}

/// One who reads the events of a service: a user's subscription.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReaderId(pub u64);

/// What became of a reader.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReaderChange {
    /// It has no room: one that is told more all the same loses its subscription.
    Full,
    /// It has room again.
    Room,
    /// It is gone.
    Gone,
}

/// Who is told an event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Readers {
    /// All readers, and the services of the node that listen.
    All,
    /// One reader alone.
    One(ReaderId),
}

/// Commands to another service of the node: one box for all of a turn.
pub struct Ask {
    /// To whom.
    pub to: Address,
    pub(crate) commands: Box<dyn Any + Send>,
}

impl Ask {
    /// These commands, to this instance of `T`.
    #[must_use]
    pub fn of<T: Service>(instance: Instance, commands: Vec<T::Command>) -> Self {
        let to = Address { channel: T::CHANNEL, instance };
        Self { to, commands: Box::new(commands) }
    }
}

/// Events of another service of the node: one box for all of a turn.
pub struct Told {
    /// From whom.
    pub from: Address,
    pub(crate) events: Box<dyn Any + Send>,
}

impl Told {
    /// The events, if they are those of a `T`; else all of it back.
    ///
    /// # Errors
    /// It is of another kind of service.
    pub fn of<T: Service>(self) -> Result<Vec<T::Event>, Self> {
        let Self { from, events } = self;
        match events.downcast::<Vec<T::Event>>() {
            Ok(events) if from.channel == T::CHANNEL => Ok(*events),
            Ok(events) => Err(Self { from, events }),
            Err(events) => Err(Self { from, events }),
        }
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask").field("to", &self.to).finish_non_exhaustive()
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").field("from", &self.from).finish_non_exhaustive()
    }
}

impl<S: Service> fmt::Debug for In<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(change) => f.debug_tuple("Peer").field(change).finish(),
            Self::View(view) => f.debug_tuple("View").field(&view.id).finish(),
            Self::Message { from, view, message } => {
                write!(f, "Message({message:?} from {from:?} in view {view})")
            }
            Self::Datagram { from, message, .. } => {
                write!(f, "Datagram({message:?} from {from:?})")
            }
            Self::Full { to, message } => write!(f, "Full({message:?} to {to:?})"),
            Self::Room { to } => write!(f, "Room({to:?})"),
            Self::Written(io) => write!(f, "Written({})", io.0),
            Self::Compact { upto } => write!(f, "Compact({})", upto.0),
            Self::Chunk(chunk) => write!(f, "Chunk({:?})", chunk.as_ref().map(Bytes::len)),
            Self::Checkpointed { position, written } => {
                write!(f, "Checkpointed({position}, {written})")
            }
            Self::DiskShort(short) => write!(f, "DiskShort({short})"),
            Self::Done(_) => f.write_str("Done"),
            Self::Told(told) => told.fmt(f),
            Self::Command(_) => f.write_str("Command"),
            Self::Reader { reader, change } => write!(f, "Reader({}, {change:?})", reader.0),
            Self::Close => f.write_str("Close"),
        }
    }
}
