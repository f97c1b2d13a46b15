//! What a test writes around its machine: the node, and the effects of its turns.

use std::cell::RefCell;
use std::rc::Rc;

use mainstay_base::trace::What;
use mainstay_base::{BootId, ConnId, Duration, Fingerprinter, Instant, NodeId};

use crate::Clock;

/// The adapter around one machine, or around several that live in one process.
///
/// The world calls the inputs ([`receive`](Self::receive), [`opened`](Self::opened), [`timeout`](Self::timeout), ...), then
/// [`end_turn`](Self::end_turn), in which the node drains its machine into the [`Effects`], then
/// [`poll_timeout`](Self::poll_timeout): the law of driving of [`mainstay_base::Machine`]. Several inputs may share one
/// turn ([`Options::batch`](crate::Options::batch)). A node must behave alike for alike calls: no clock, no randomness
/// but its seed.
pub trait Node: Sized {
    /// What the test hands to all nodes: roster roles, configuration, planted bugs. `()` if nothing.
    type Setup;
    /// What travels between nodes.
    type Message: Clone;
    /// The disk, as the adapter models it; the default is an empty one. It survives a crash.
    type Durable: Clone + Default;
    /// One forced write.
    type Write;
    /// What the node tells the test, beside the trace.
    type Event;

    /// The first start or a restart: the only way back after a crash is `start.durable`.
    fn start(start: Start<'_, Self>) -> Self;

    /// A message has come over an open connection.
    fn receive(&mut self, now: Instant, from: Peer, message: Self::Message);

    /// The deadline of [`poll_timeout`](Self::poll_timeout) has come, or had come when the deadline was moved.
    fn timeout(&mut self, now: Instant);

    /// Closes the turn: drains the machine into `out`, in the order of its outputs.
    fn end_turn(&mut self, now: Instant, out: &mut Effects<Self>);

    /// When [`timeout`](Self::timeout) wants to be called; asked after each turn.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Puts a write on the disk: called when it completes, or at a crash for those that made it.
    fn apply(durable: &mut Self::Durable, write: Self::Write);

    /// The write `io` is on the disk. Writes of a node complete in the order of their issue. Default: nothing.
    fn written(&mut self, _now: Instant, _io: u64) {}

    /// A connection is open at this end; `dialled`: this end asked for it. Default: nothing.
    fn opened(&mut self, _now: Instant, _peer: Peer, _dialled: bool) {}

    /// A connection is closed at this end by the peer or the network; not called for own closes. Default: nothing.
    fn closed(&mut self, _now: Instant, _peer: Peer) {}

    /// A dial has failed. Default: nothing.
    fn refused(&mut self, _now: Instant, _node: NodeId, _why: Refusal) {}

    /// Whether the node has its state back after a lost disk; until then the [`Atlas`](crate::Atlas) counts it as down
    /// and its disk as lost. Default: true.
    fn is_whole(&self) -> bool {
        true
    }

    /// Whether a message is a datagram whatever the [wire](crate::Wire) is: it may be lost, repeated and reordered as the options say, and a
    /// cut loses it. Default: no.
    fn is_datagram(_message: &Self::Message) -> bool {
        false
    }

    /// Writes the contents of a message into the trace hash. Default: nothing, so that only its path and time count.
    fn hash_message(_message: &Self::Message, _into: &mut Fingerprinter) {}
}

/// What a node is started with.
pub struct Start<'a, N: Node> {
    /// Its name for this run; the nonce is new at each start.
    pub boot: BootId,
    /// Its index in the world: its place in the roster.
    pub index: usize,
    /// All nodes, sorted.
    pub roster: &'a [NodeId],
    /// What the test handed to the world.
    pub setup: &'a N::Setup,
    /// The disk as the last boot left it, or what a fault has made of it.
    pub durable: N::Durable,
    /// Its clock; the world changes it.
    pub clock: Rc<RefCell<Clock>>,
    /// The time.
    pub now: Instant,
    /// For the randomness of this boot.
    pub seed: u64,
}

/// The other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Peer {
    /// Who is there.
    pub boot: BootId,
    /// The connection; both ends know it by the same number.
    pub conn: ConnId,
}

/// Why a dial failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Refusal {
    /// The node is down, and its computer said so.
    Refused,
    /// No answer came in time.
    Unreachable,
}

/// What a turn does, in order.
pub struct Effects<N: Node> {
    pub(crate) list: Vec<Effect<N>>,
}

pub(crate) enum Effect<N: Node> {
    Send { to: BootId, message: N::Message },
    SendOn { conn: ConnId, message: N::Message },
    Dial(NodeId),
    Close(ConnId),
    Write { io: u64, write: N::Write },
    Trace(What),
    Event(N::Event),
    Seen(&'static str),
    Exit(Duration),
    Fail(String),
}

impl<N: Node> Effects<N> {
    pub(crate) const fn new() -> Self {
        Self { list: Vec::new() }
    }

    /// Sends over the newest open connection with the boot `to`; lost, and counted, if there is none.
    pub fn send(&mut self, to: BootId, message: N::Message) {
        self.list.push(Effect::Send { to, message });
    }

    /// Sends over this connection; lost, and counted, if it is not open at this end.
    pub fn send_on(&mut self, conn: ConnId, message: N::Message) {
        self.list.push(Effect::SendOn { conn, message });
    }

    /// Asks for a connection with `node`: ends in [`Node::opened`] or [`Node::refused`]. For worlds whose
    /// [`Options::dials`](crate::Options::dials) is true; otherwise the world connects all living nodes by itself.
    pub fn dial(&mut self, node: NodeId) {
        self.list.push(Effect::Dial(node));
    }

    /// Closes this end; the peer is told behind what was sent before.
    pub fn close(&mut self, conn: ConnId) {
        self.list.push(Effect::Close(conn));
    }

    /// Issues a forced write; [`Node::written`] answers with `io`.
    pub fn write(&mut self, io: u64, write: N::Write) {
        self.list.push(Effect::Write { io, write });
    }

    /// Puts an event into the trace; the world gives boot, number and time. [`What::Process`] is
    /// the world's own word.
    pub fn trace(&mut self, what: What) {
        self.list.push(Effect::Trace(what));
    }

    /// Tells the test something: [`World::take_events`](crate::World::take_events).
    pub fn event(&mut self, event: N::Event) {
        self.list.push(Effect::Event(event));
    }

    /// Counts a rare situation in [`World::seen`](crate::World::seen).
    pub fn seen(&mut self, what: &'static str) {
        self.list.push(Effect::Seen(what));
    }

    /// Ends this boot; a new one starts from its disk after `pause`. The effects behind it are void.
    pub fn exit(&mut self, pause: Duration) {
        self.list.push(Effect::Exit(pause));
    }

    /// Reports a violated property: the run ends with [`Stuck::Violation`](crate::Stuck::Violation).
    pub fn fail(&mut self, what: impl Into<String>) {
        self.list.push(Effect::Fail(what.into()));
    }
}
