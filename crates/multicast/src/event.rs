//! What a group asks for and tells.

use bytes::Bytes;
use mainstay_base::{BootId, Level, MessageId, Order, Position, SiteId, ViewId};
use thiserror::Error;

use crate::message::Message;
use crate::record::Record;
use crate::view::GroupView;

/// Bit 63 of the sequence number of a message in FIFO order: so the numbers of both lanes together are unique.
pub const FIFO: u64 = 1 << 63;

/// What is to be done, in this order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Output {
    /// Hand a message to the channel to a boot.
    Send {
        /// To whom.
        to: BootId,
        /// What.
        message: Message,
    },
    /// Append a record to the log, force it, and then call [`Group::persisted`](crate::Group::persisted).
    Persist {
        /// Names the write; rises.
        io: u64,
        /// What.
        record: Record,
    },
    /// Tell the layer above.
    Event(Event),
}

/// A message as it is delivered.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Delivery {
    /// Sender and number; see [`FIFO`].
    pub message: MessageId,
    /// Its order.
    pub order: Order,
    /// Its place if the order is total.
    pub position: Option<Position>,
    /// The view it is delivered in.
    pub view: ViewId,
    /// What was cast.
    pub payload: Bytes,
}

/// What the layer above is told, in this order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// Messages, in order; at most one batch a turn.
    Deliver(Vec<Delivery>),
    /// A view begins; all messages of the former are delivered.
    View(GroupView),
    /// A restarted member goes on from its own log: load the checkpoint, then apply the entries. Nothing was delivered
    /// at this boot before. In the first view of a group it is left out: a member that starts
    /// [`Fresh`](crate::Start::Fresh) has the empty state.
    Restored {
        /// There is a checkpoint; otherwise begin with the empty state.
        from_checkpoint: bool,
        /// The state of the checkpoint is as of this position.
        checkpoint: Position,
        /// What follows it, up to the first position of the next view.
        entries: Vec<Delivery>,
    },
    /// The group is not whole in this view, or a minority of its nodes carry it: it stands still until a later one.
    Blocked {
        /// The site view.
        view: ViewId,
    },
    /// Messages that had positions from here on may be lost, acknowledged ones too.
    MaybeLost {
        /// From here on.
        from: Position,
    },
    /// All own casts in total order up to a sequence number have reached a level, and are delivered here. At most one
    /// for each level and turn.
    Reached {
        /// The level.
        level: Level,
        /// The last sequence number.
        upto: u64,
        /// Its position.
        position: Position,
    },
    /// A read may be answered: the state here is at least as new as at the moment it was asked.
    ReadReady {
        /// The caller's name for it.
        token: u64,
        /// The state here is as of this position, or later.
        position: Position,
    },
    /// A read cannot be answered here; ask again elsewhere or later.
    ReadFailed {
        /// The caller's name for it.
        token: u64,
    },
    /// All that the cut names is here, and forced if the group is of durability `Disk`.
    Holding {
        /// The last of the views of the cut.
        view: ViewId,
    },
    /// Joiners need the state as of exactly this place in the stream of events; answer with
    /// [`Group::snapshot_chunk`](crate::Group::snapshot_chunk).
    SnapshotWanted {
        /// All up to here is delivered.
        position: Position,
    },
    /// The last part of the state has arrived: give the next.
    ChunkWanted {
        /// The state is as of this position.
        position: Position,
    },
    /// A joiner gets a part of the state. Offset 0 begins anew. Answer with
    /// [`Group::chunk_taken`](crate::Group::chunk_taken) when it is taken in: the next part comes after that. After the
    /// last one call [`Group::restored`](crate::Group::restored).
    RestoreChunk {
        /// The state is as of this position.
        position: Position,
        /// Bytes before this part.
        offset: u64,
        /// The part.
        bytes: Bytes,
        /// It is the last.
        last: bool,
    },
    /// Casts are refused, or soon will be, because this member does not get on.
    Slow {
        /// The member.
        site: SiteId,
    },
    /// The member has caught up, or the view is over.
    SlowOver {
        /// The member.
        site: SiteId,
    },
}

/// Why a message was not cast. Nothing changed.
#[derive(Error, Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CastError {
    /// The budget of unstable messages is used up. Cast it again later: the payload is given back.
    #[error("too many messages are not known to be at all members yet")]
    Full {
        /// What was to be cast.
        payload: Bytes,
    },
    /// Larger than the settings allow: the caller's fault.
    #[error("a payload of {0} bytes is too large")]
    TooLarge(usize),
    /// No view of the group has admitted this site yet. Cast it again after the first view.
    #[error("not a member of the group yet")]
    NotMember,
    /// The level is not to be had for this order or in this group: the caller's fault.
    #[error("level {0:?} is not to be had for this message")]
    Level(Level),
}
