//! A process group: its handle, and what its members are told.

mod book;
mod commands;
mod member;

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use mainstay_base::service::Chunks;
use mainstay_base::{GroupId, Level, MessageId, Order, Position, Reason, SiteId, ViewId};
use mainstay_multicast::{self as multicast, Durability, MESSAGE_OVERHEAD};
use mainstay_runtime::{Events, Inbox, Recipient, SendError, Subscriber};
use mainstay_site::Member;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::config::UNSTABLE_BYTES;
use crate::outcome::AcceptLossError;
pub(crate) use book::Book;
pub use book::{NotReached, Receipt};
pub use commands::CastCommand;
pub(crate) use member::GroupMember;

/// Most bytes of casts that the group has not taken yet (8 MiB).
pub(crate) const CASTS_BYTES: usize = 8 << 20;
/// What a question or an answer counts for in its inbox.
const ASK_BYTES: usize = 64;
/// Most bytes that a message may have (512 KiB).
pub const MESSAGE_BYTES_MAX: usize = 512 << 10;

/// The settings of a process group. They must be the same at all nodes; so must its name. Where a cluster is made that is checked. The
/// group goes on without a node that is started later without it, or with other settings: the log of each node warns of it, and the status
/// has it ([`StackStatus::absent`](mainstay_site::StackStatus::absent)).
#[derive(Clone, Debug)]
pub struct GroupConfig {
    pub(crate) durability: Durability,
    pub(crate) deliver_at: Level,
    pub(crate) stateful: bool,
    pub(crate) state_in_parts: bool,
    pub(crate) unread_bytes: usize,
    pub(crate) checkpoint_bytes: usize,
}

impl GroupConfig {
    /// Nothing is left of the group when all its members have failed. Messages are delivered when a majority of the nodes has
    /// received them.
    #[must_use]
    pub fn memory() -> Self {
        Self {
            durability: Durability::Memory,
            deliver_at: Level::Majority,
            stateful: true,
            state_in_parts: false,
            unread_bytes: 64 << 20,
            checkpoint_bytes: 16 << 20,
        }
    }

    /// Each node keeps the messages in its log, and checkpoints of the state. Messages are delivered when a majority of the nodes has
    /// received them; [`Receipt::disk`] tells when it has forced them. When all nodes were stopped at once, what was not forced may be gone:
    /// then the group says [`MaybeLost`](GroupEvent::MaybeLost), whether or not it is. What is cast in FIFO order is not kept. The node needs a directory
    /// ([`Config::data_dir`](crate::Config::data_dir)).
    #[must_use]
    pub fn disk() -> Self {
        Self { durability: Durability::Disk, ..Self::memory() }
    }

    /// How far a message in total order has to have got before it is delivered. `Disk` needs a group on
    /// [disk](Self::disk). Default `Majority`.
    #[must_use]
    pub fn deliver_at(mut self, level: Level) -> Self {
        self.deliver_at = level;
        self
    }

    /// The members keep no state: who joins needs nothing but the messages that follow. Default: they do.
    #[must_use]
    pub fn stateless(mut self) -> Self {
        self.stateful = false;
        self
    }

    /// Actors are told a state part by part ([`GroupEvent::StatePart`]), as they read it, and not in one piece
    /// ([`GroupEvent::State`]): for states of more than some megabytes. Only this node is concerned, and only stateful groups. Default: in
    /// one piece.
    #[must_use]
    pub fn state_in_parts(mut self) -> Self {
        self.state_in_parts = true;
        self
    }

    /// An actor that is told more while so many bytes of messages are unread loses its subscription. A message counts 256 bytes
    /// more than it has, every other event 256; a state counts no more, however large it is: it, and what the own log has when the node is started,
    /// waits for the actor. Default 64 MiB.
    #[must_use]
    pub fn unread_bytes(mut self, most: usize) -> Self {
        self.unread_bytes = most;
        self
    }

    /// On disk, the state is asked for after so many bytes of messages, so that the log can be cut; and not before as many as the state had when
    /// it was given or told last, up to 256 MiB, so that large states are not written over and over. Default 16 MiB.
    #[must_use]
    pub fn checkpoint_bytes(mut self, bytes: usize) -> Self {
        self.checkpoint_bytes = bytes.max(1);
        self
    }

    pub(crate) fn build(
        &self,
        group: GroupId,
        nodes: impl Iterator<Item = mainstay_base::NodeId>,
    ) -> Result<multicast::Config, multicast::ConfigError> {
        multicast::Config::new(group, nodes.collect())
            .durability(self.durability)
            .deliver_at(self.deliver_at)
            .stateful(self.stateful)
            .payload_max(MESSAGE_BYTES_MAX)
            .unstable_bytes(UNSTABLE_BYTES)
            .build()
    }
}

/// A message as it is delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Message {
    /// Who cast it, and its number there.
    pub id: MessageId,
    /// In which order.
    pub order: Order,
    /// Its place in the total order; `None` for FIFO.
    pub position: Option<Position>,
    /// The view that it is delivered in.
    pub view: ViewId,
    /// What was cast.
    pub payload: Bytes,
}

impl From<multicast::Delivery> for Message {
    fn from(delivery: multicast::Delivery) -> Self {
        let multicast::Delivery { message: id, order, position, view, payload, .. } = delivery;
        Self { id, order, position, view, payload }
    }
}

/// A view of the group. All its members that go on to the next view deliver the same messages in it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GroupView {
    /// The view of the sites that gives it. Its number is a fencing token: it only grows.
    pub id: ViewId,
    /// The members, the oldest first; the place in this list is the rank.
    pub members: Vec<Member>,
    /// Of these, who was not in the last view that this member was told.
    pub joined: Vec<Member>,
    /// Who was in that and is no more, and why: the same at all members.
    pub left: Vec<(Member, Reason)>,
    /// The first position of the view is the one after this.
    pub start: Position,
    /// The rank of this node. `None` never happens to a member.
    pub me: Option<usize>,
}

/// As `view 3: ann/1 bob/1`.
impl fmt::Display for GroupView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "view {}:", self.id.number)?;
        self.members.iter().try_for_each(|member| write!(f, " {member}"))
    }
}

/// The state of a group, as a member gave it.
#[derive(Clone, Default, Debug)]
pub struct State {
    parts: Vec<Bytes>,
}

impl State {
    pub(crate) fn new(parts: Vec<Bytes>) -> Self {
        Self { parts }
    }

    /// It is the one that every group begins with.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(Bytes::is_empty)
    }

    /// Its bytes, in parts.
    #[must_use]
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// Its bytes in one piece: a copy, unless it has one part.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match &self.parts[..] {
            [one] => one.clone(),
            parts => {
                let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
                parts.iter().for_each(|part| whole.extend_from_slice(part));
                whole.freeze()
            }
        }
    }
}

/// A part of the state of a group; [`GroupConfig::state_in_parts`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StatePart {
    /// At most 256 KiB, in the order in which they were given.
    pub bytes: Bytes,
    /// A state begins: what was told before is void.
    pub is_first: bool,
    /// The state is complete. If a state begins instead, the one before is void and never complete.
    pub is_last: bool,
}

impl StatePart {
    /// The parts of a state; at least one, perhaps an empty one.
    pub(crate) fn of(mut parts: Vec<Bytes>) -> impl Iterator<Item = Self> {
        if parts.is_empty() {
            parts.push(Bytes::new());
        }
        let last = parts.len() - 1;
        let part = move |(at, bytes)| Self { bytes, is_first: at == 0, is_last: at == last };
        parts.into_iter().enumerate().map(part)
    }
}

/// What a group tells the actors that [subscribed](GroupHandle::subscribe), in this order.
#[derive(Debug)]
#[non_exhaustive]
pub enum GroupEvent {
    /// The messages that were told before are void: the state of the group is this, and the messages that follow come on top. It
    /// comes before the first message; again when the node was declared dead and begins anew. What the own log has is told
    /// before the first view; a state that another member gave comes behind the view that the member joined in. Not in a
    /// stateless group.
    ///
    /// An actor on the thread of its node that takes a state in holds the node up, and the others declare the node dead when that takes
    /// longer than their patience (250 ms by default). For a state of more than some megabytes: [`GroupConfig::state_in_parts`], or an actor on
    /// another arbiter.
    State(State),
    /// As [`State`](Self::State), part by part, if the group was opened [so](GroupConfig::state_in_parts). No message is told before the
    /// last part.
    StatePart(StatePart),
    /// A view begins; all messages of the former one were delivered. Views of before a restart are not told again: after one the first
    /// is the one that takes this node in anew, and `left` is empty in it.
    View(Arc<GroupView>),
    /// A message.
    Deliver(Message),
    /// A joiner or the own log needs the state, as of exactly this place in the stream: [give](StateRequest::give) it, now or
    /// later. The first actor that subscribed is asked.
    StateWanted(StateRequest),
    /// The others declared this node dead: it takes no part, and the messages that it was told last may be told again or be void. It begins
    /// anew by itself, as it does when it is started: a state comes, and then the first view that has it again. Whoever did something as a
    /// member of the last view, as its first one does, stops that here.
    Died,
    /// The group stands still: it waits for members that failed last and may have more of its past, or until a majority of its
    /// nodes take part in it.
    Blocked,
    /// This node hears too few of the others for a majority of the nodes: it stays in its last view, nothing is delivered in total order, and
    /// what is cast waits. The others may have made another view meanwhile, and with that another first member.
    MajorityLost,
    /// A majority is heard again, after [`MajorityLost`](Self::MajorityLost), and the group goes on. If the node was declared dead meanwhile
    /// it begins anew, and this is told just before the first view that has it again.
    MajorityBack,
    /// Messages from this position on may be lost, acknowledged ones too, but where nobody accepted a loss and no disk is
    /// lost none whose receipt has said [`Receipt::disk`]: an operator accepted that, or all nodes are there and no
    /// majority of them knows how far the group had got. So it is after a restart of all nodes of a group on disk that delivers below
    /// `Disk`: what was on its way then may be gone. With [`deliver_at(Disk)`](GroupConfig::deliver_at) nothing that was delivered is.
    MaybeLost(Position),
}

impl GroupEvent {
    /// What it counts for while it is unread.
    pub(crate) fn weight(&self) -> usize {
        Self::weight_of(match self {
            Self::Deliver(message) => message.payload.len(),
            Self::StatePart(part) => part.bytes.len(),
            _ => 0,
        })
    }

    pub(crate) const fn weight_of(payload: usize) -> usize {
        256 + payload
    }
}

/// Somebody needs the state. When it is dropped nobody gets it: a joiner waits for the next view, the log is not cut.
pub struct StateRequest {
    number: u64,
    position: Position,
    asks: Option<Inbox<Ask>>,
}

impl StateRequest {
    fn new(number: u64, position: Position, asks: Inbox<Ask>) -> Self {
        Self { number, position, asks: Some(asks) }
    }

    /// All messages in total order up to here were told before.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The state as of the place in the stream where this was asked: what every member would give there.
    ///
    /// The request is `Send` and can wait; the group goes on meanwhile. An actor on the thread of its node that writes a large state in its handler
    /// holds the node up, and when that takes longer than the patience of the others (250 ms by default) they declare it dead: for a state of more than some
    /// megabytes there is [`give_chunks`](Self::give_chunks).
    pub fn give(mut self, state: impl Into<Bytes>) {
        self.answer(Some(Given::Whole(state.into())));
    }

    /// As [`give`](Self::give), for a state that is written piece by piece: of a copy that is cheap to make, as [`Map`](crate::Map) has one. For a checkpoint
    /// the pieces are read on another thread, for a joiner in turns of the node, one at a time: a piece should take no longer than some milliseconds, and
    /// have at most 256 KiB. An error is as if nothing was given; what a joiner has of it is void.
    pub fn give_chunks(mut self, state: impl Chunks + 'static) {
        self.answer(Some(Given::Chunks(Box::new(state))));
    }

    fn answer(&mut self, state: Option<Given>) {
        if let Some(asks) = self.asks.take() {
            // A node that has ended needs no state.
            let _ = asks.try_send(ASK_BYTES, Ask::State { number: self.number, state });
        }
    }
}

impl Drop for StateRequest {
    fn drop(&mut self) {
        self.answer(None);
    }
}

impl fmt::Debug for StateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateRequest").field("position", &self.position).finish_non_exhaustive()
    }
}

/// A message on its way to the group.
pub(crate) struct Cast {
    order: Order,
    level: Level,
    payload: Bytes,
}

/// A state, as an actor gives it.
pub(crate) enum Given {
    Whole(Bytes),
    Chunks(Box<dyn Chunks>),
}

/// What else a handle may want.
pub(crate) enum Ask {
    Subscribe(Subscriber<GroupEvent>),
    /// An actor has read so much that there is room for more.
    Room,
    State {
        number: u64,
        state: Option<Given>,
    },
    AcceptLoss(oneshot::Sender<Result<(), AcceptLossError>>),
}

/// Why a message was not cast. Nothing changed.
#[derive(Error, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CastError {
    /// Too much waits to be cast: [`GroupHandle::cast`] waits for room. To try again is safe.
    #[error("too much waits to be cast")]
    Full(Bytes),
    /// It is larger than [`MESSAGE_BYTES_MAX`]: the caller's fault.
    #[error("a message of {0} bytes is too large")]
    TooLarge(usize),
    /// The level is not to be had: above `Delivered` for FIFO, or `Disk` in a group that is not on disk. The caller's fault.
    #[error("level {0:?} is not to be had for this message")]
    Level(Level),
    /// A group on disk that has a state keeps nothing of FIFO messages, so its members would not have the same state after a restart. The
    /// caller's fault: cast it in total order.
    #[error("a group on disk that has a state takes no messages in FIFO order")]
    Fifo,
    /// Nobody keeps the state of the group at this node any more, until the node is started again.
    #[error("nobody keeps the state of the group at this node any more")]
    Left,
    /// The node has ended.
    #[error("the node has ended")]
    Closed,
}

/// A process group on its node: cheap to clone, `Send` and `Sync`. It does not keep the node running.
///
/// | order | levels that a [`Receipt`] can wait for |
/// |---|---|
/// | `Fifo`; not in a group on disk that has a state | `Delivered` |
/// | `Total` | `Delivered`, `Majority`, `Safe`; in a group on disk `Disk` |
#[derive(Clone)]
pub struct GroupHandle {
    pub(crate) name: Arc<str>,
    pub(crate) casts: Inbox<Cast>,
    pub(crate) asks: Inbox<Ask>,
    pub(crate) book: Arc<Book>,
    pub(crate) config: Arc<GroupConfig>,
}

impl GroupHandle {
    /// The name of the group.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Casts a message: it is delivered at all members, this one too, in the order that is asked for. Waits while too much waits to
    /// be cast, and not for the group: what is cast while there is no view waits for one. Casts of one task are in the order
    /// of the calls.
    ///
    /// The receipt tells how far the message has got. It can be dropped.
    ///
    /// # Errors
    /// [`CastError`], never `Full`.
    pub async fn cast(
        &self,
        payload: impl Into<Bytes>,
        order: Order,
    ) -> Result<Receipt, CastError> {
        self.cast_for(payload, order, Level::Delivered).await
    }

    /// As [`cast`](Self::cast), for a caller who is going to wait for `level`: the others report at once, where they otherwise
    /// report every 10 ms or 256 KiB.
    ///
    /// # Errors
    /// [`CastError`], never `Full`.
    pub async fn cast_for(
        &self,
        payload: impl Into<Bytes>,
        order: Order,
        level: Level,
    ) -> Result<Receipt, CastError> {
        let cast = self.check(payload.into(), order, level)?;
        let sent = self.casts.send(cast.payload.len() + MESSAGE_OVERHEAD, cast).await;
        self.receipt(order, sent)
    }

    /// As [`cast`](Self::cast), if there is room now: for actors.
    ///
    /// # Errors
    /// [`CastError`]; `Full` gives the bytes back.
    pub fn try_cast(&self, payload: impl Into<Bytes>, order: Order) -> Result<Receipt, CastError> {
        self.try_cast_for(payload, order, Level::Delivered)
    }

    /// As [`cast_for`](Self::cast_for), if there is room now.
    ///
    /// # Errors
    /// [`CastError`]; `Full` gives the bytes back.
    pub fn try_cast_for(
        &self,
        payload: impl Into<Bytes>,
        order: Order,
        level: Level,
    ) -> Result<Receipt, CastError> {
        let cast = self.check(payload.into(), order, level)?;
        let sent = self.casts.try_send(cast.payload.len() + MESSAGE_OVERHEAD, cast);
        self.receipt(order, sent)
    }

    fn check(&self, payload: Bytes, order: Order, level: Level) -> Result<Cast, CastError> {
        if self.book.has_left() {
            return Err(CastError::Left);
        }
        if payload.len() > MESSAGE_BYTES_MAX {
            return Err(CastError::TooLarge(payload.len()));
        }
        let config = &self.config;
        if order == Order::Fifo && config.stateful && config.durability == Durability::Disk {
            return Err(CastError::Fifo);
        }
        if !book::is_to_be_had(order, level, self.config.durability) {
            return Err(CastError::Level(level));
        }
        Ok(Cast { order, level, payload })
    }

    fn receipt(
        &self,
        order: Order,
        sent: Result<u64, SendError<Cast>>,
    ) -> Result<Receipt, CastError> {
        match sent {
            Ok(number) => Ok(Receipt::new(number, order, Arc::clone(&self.book))),
            Err(SendError::Full(cast)) => Err(CastError::Full(cast.payload)),
            Err(SendError::Closed(_)) => Err(CastError::Closed),
        }
    }

    /// From here on an actor is told what happens in the group. Whatever happened before the first subscription is kept for it, up
    /// to [`GroupConfig::unread_bytes`]; later ones hear what follows. In a stateless group nothing of it is kept once it was more than that,
    /// and the first one hears what follows, too.
    ///
    /// Where there is a state the first one keeps the state of the group at this node. If it goes, or does not read, or nobody has subscribed when the bound is
    /// reached, the node has no state to give and its log is not cut any more. It is still a member that receives what others cast, and a joiner may ask it in vain; but it is not
    /// [ready](crate::Node::ready) any more, and casts are refused ([`CastError::Left`]), until it is started again. Watch for that: the log of such a node grows
    /// with what others cast until the disk is full, and then the node ends with all that it hosts.
    ///
    /// A batch of [`Events`] has at most 2,048 events, or 512 KiB and one event more. An actor on the thread of its node holds the node up for as long as it
    /// works on a batch; one that needs more than some milliseconds for it belongs on another arbiter.
    ///
    /// # Errors
    /// [`CastError::Left`], [`CastError::Closed`].
    pub fn subscribe(&self, to: Recipient<Events<GroupEvent>>) -> Result<(), CastError> {
        if self.book.has_left() {
            return Err(CastError::Left);
        }
        let asks = self.asks.clone();
        // An inbox that is full wakes the group as well.
        let room = move || drop(asks.try_send(ASK_BYTES, Ask::Room));
        let subscriber = Subscriber::waking(to, self.config.unread_bytes, GroupEvent::weight, room);
        match self.asks.try_send(ASK_BYTES, Ask::Subscribe(subscriber)) {
            Ok(_) => Ok(()),
            Err(SendError::Full(_)) => Err(CastError::Full(Bytes::new())),
            Err(SendError::Closed(_)) => Err(CastError::Closed),
        }
    }
}

impl fmt::Debug for GroupHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupHandle").field("name", &self.name).finish_non_exhaustive()
    }
}

impl GroupHandle {
    /// An operator's word: rather let the group go on than wait for nodes that may have more of its past. Acknowledged messages
    /// may be lost. It counts at the next view and is used up by it: a minority of the group's nodes stands still again in the
    /// view after, and acknowledges nothing at a majority.
    ///
    /// # Errors
    /// [`AcceptLossError`]: where neither the group is blocked nor the node in a minority there is nothing to accept.
    pub async fn accept_loss(&self) -> Result<(), AcceptLossError> {
        let (tell, told) = oneshot::channel();
        let sent = self.asks.send(ASK_BYTES, Ask::AcceptLoss(tell)).await;
        sent.map_err(|_| AcceptLossError::Closed)?;
        told.await.unwrap_or(Err(AcceptLossError::Unknown))
    }
}

/// Names of sites for views of groups.
pub(crate) type Names = Arc<dyn Fn(SiteId) -> Member + Send + Sync>;
