//! The link of one node to all its peers: inputs, outputs, dispatch.

mod conn;
mod data;
mod guest;
mod hello;
mod peer;
mod state;
mod timers;
mod turn;
mod window;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use mainstay_base::{BootId, BootNonce, ConnId, Frame, Instant, Machine, NodeId, Rng};

use crate::{Config, Stats};
use conn::Conn;
use peer::Peer;

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A connection stands.
    Opened {
        /// Its name, never used again.
        conn: ConnId,
        /// The node dialled; `None` if the connection was accepted.
        dialled: Option<NodeId>,
    },
    /// A frame came, checked by its checksum.
    Received {
        /// On which connection.
        conn: ConnId,
        /// The frame.
        frame: Frame,
    },
    /// A connection is gone, for whatever reason.
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// A dial was answered *connection refused*: no process listens there.
    Refused {
        /// The node dialled.
        node: NodeId,
    },
    /// A dial failed otherwise: no evidence of anything.
    Unreachable {
        /// The node dialled.
        node: NodeId,
    },
    /// The user wants to send a message; it is accepted silently or given back by [`Event::NotSent`].
    Send {
        /// To the boot of this node that is known now.
        to: NodeId,
        /// If given, only to this boot.
        boot: Option<BootNonce>,
        /// Whose message; not 0.
        channel: u16,
        /// The encoded part.
        meta: Bytes,
        /// The raw part, shared and not copied.
        payload: Bytes,
    },
    /// The user has taken the oldest message of this boot that it had not taken yet; to be said once for each
    /// [`Event::Deliver`] if the settings [wait for it](crate::Builder::taken_by_user), and ignored if they do not.
    Taken {
        /// Whose.
        from: BootId,
    },
    /// The session of a guest is over: its user cannot go on with it. The guest is told, and may begin anew.
    Forget {
        /// Which; nothing happens if it is none, or has no session.
        guest: BootId,
    },
    /// From now on this boot is dead to this site: its frames are dropped, it is answered *you are dead*, nothing of it
    /// is delivered any more, and what was meant for it counts as sent (MB-8, MB-26).
    Isolate {
        /// Which; it need not be known yet.
        boot: BootId,
    },
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Output {
    /// Open a connection; to be answered by exactly one of `Opened`, `Refused` and `Unreachable`.
    Dial {
        /// To this node.
        node: NodeId,
    },
    /// Write a frame.
    Transmit {
        /// On this connection.
        conn: ConnId,
        /// The frame.
        frame: Frame,
    },
    /// Close a connection, when what was transmitted is written; need not be answered by `Closed`.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// Tell the user.
    Event(Event),
}

/// What the user is told.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A boot is connected. The first one of a boot opens its session.
    Up {
        /// Which.
        boot: BootId,
        /// What both ends speak.
        features: u64,
        /// The highest version that both ends speak.
        version: u8,
        /// One of the two ends is a guest.
        guest: bool,
    },
    /// A boot is not connected any more; its session is kept.
    Down {
        /// Which.
        boot: BootId,
    },
    /// The node was started anew: the old boot is gone, all that was not delivered to or from it is void. Followed by
    /// [`Event::Up`] of the new one. Given in place of `Down` of the old one.
    Replaced {
        /// The boot known until now.
        old: BootId,
        /// The boot known from now on.
        new: BootId,
        /// What of the messages accepted for the old one it did not acknowledge. Empty if it was isolated before.
        unsettled: Unsettled,
    },
    /// The session with a boot is over although the boot may live: it was a guest's, which was not connected for too long. What
    /// was not delivered to or from it is void. If the boot comes back it begins anew: [`Event::Up`].
    Gone {
        /// Which.
        boot: BootId,
        /// What of the messages accepted for it it did not acknowledge.
        unsettled: Unsettled,
    },
    /// A message came, in the order of sending, once.
    Deliver {
        /// From whom.
        from: BootId,
        /// Whose message.
        channel: u16,
        /// The encoded part.
        meta: Bytes,
        /// The raw part.
        payload: Bytes,
    },
    /// Something came from this boot in this turn; any frame of its session counts. At most one a turn and boot.
    Heard {
        /// From whom.
        from: BootId,
    },
    /// The node refuses connections: evidence for a suspicion, no more.
    Refused {
        /// Which.
        node: NodeId,
    },
    /// A peer told this boot that it is dead (MB-7).
    Dead {
        /// Who.
        by: BootId,
    },
    /// The first `upto` messages accepted for this boot are *sent*: received by it, or void since it was isolated or
    /// replaced (MB-26). At most one a turn and boot.
    Sent {
        /// To whom.
        to: BootId,
        /// How many, counted from the first message of the session.
        upto: u64,
    },
    /// A message was not accepted; here it is again.
    NotSent {
        /// Why.
        why: NotSent,
        /// To whom.
        to: NodeId,
        /// Whose message.
        channel: u16,
        /// The encoded part.
        meta: Bytes,
        /// The raw part.
        payload: Bytes,
    },
    /// After a refusal by [`NotSent::Full`]: half of the window is free again.
    Ready {
        /// To whom.
        to: BootId,
    },
    /// A connection was closed for what the other end said of itself.
    Mismatch {
        /// The connection.
        conn: ConnId,
        /// What does not match.
        why: Mismatch,
    },
}

/// Messages to a boot that it has not acknowledged, by their numbers: from 1, in the order in which they were accepted.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Unsettled {
    /// Handed to the transport: it may have received these, or some of the first of them, or none.
    pub unknown: Range<u64>,
    /// The rest: these never left this node.
    pub void: Range<u64>,
}

impl Unsettled {
    /// Nothing is: all has been acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unknown.is_empty() && self.void.is_empty()
    }
}

/// Why a message was not accepted. Nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NotSent {
    /// The window is full: nothing is accepted before [`Event::Ready`].
    Full,
    /// No boot of the node is known yet: wait for [`Event::Up`].
    NoSession,
    /// Another boot of the node is known now than the one named.
    OtherBoot,
    /// The known boot of the node is isolated.
    Isolated,
    /// The node is not a configured peer: the caller's fault.
    UnknownNode,
    /// Larger than a frame may be: the caller's fault.
    TooLarge,
    /// Channel 0 is the link's own: the caller's fault.
    Reserved,
}

/// What in a hello does not match. The peer or its configuration is at fault; the connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mismatch {
    /// Another cluster.
    Cluster,
    /// Meant for another node.
    Addressee,
    /// The sender is not a configured peer.
    UnknownNode,
    /// Another node than the one dialled.
    OtherNode,
    /// No common version.
    Version,
    /// The answer is for another boot of this node.
    Boot,
    /// It has received more than was sent.
    Expectation,
    /// The sender is a guest, and guests are not admitted here, or there are too many; or it has the name of a node.
    Guest,
}

/// The machine. See the crate's documentation.
#[derive(Clone, Debug)]
pub struct Link {
    config: Config,
    rng: Rng,
    now: Instant,
    /// When this node last took a turn after it had been late.
    awake: Instant,
    /// Counts connections in the order in which they opened.
    serial: u64,
    conns: BTreeMap<ConnId, Conn>,
    peers: BTreeMap<NodeId, Peer>,
    out: VecDeque<Output>,
    draining: bool,
    /// Connections opened up to this one cannot begin the session of a guest: one may have been given up since.
    forgotten: u64,
    stats: Stats,
}

impl Link {
    /// A link that knows of no connection; dials are due at once.
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Instant) -> Self {
        let peers = config.peers.iter().map(|&node| (node, Peer::new(node, config.redial_min)));
        let mut link = Self {
            rng: Rng::new(seed).stream("link"),
            now,
            awake: now,
            serial: 0,
            conns: BTreeMap::new(),
            peers: peers.collect(),
            out: VecDeque::new(),
            draining: false,
            forgotten: 0,
            stats: Stats::default(),
            config,
        };
        link.start_dials(now);
        link
    }

    fn advance(&mut self, now: Instant) {
        assert!(self.now <= now, "time does not go back");
        debug_assert!(!self.draining, "a turn begins when the outputs of the last one are drained");
        if now.saturating_since(self.now) > self.config.hold / 2 {
            self.awake = now;
        }
        self.now = now;
    }

    fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }
}

impl Machine for Link {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Instant, input: Input) {
        self.advance(now);
        match input {
            Input::Received { conn, frame } => self.on_received(conn, frame),
            Input::Send { to, boot, channel, meta, payload } => {
                self.on_send(to, boot, channel, meta, payload);
            }
            Input::Opened { conn, dialled } => self.on_opened(conn, dialled),
            Input::Closed { conn } => self.on_closed(conn),
            Input::Refused { node } => self.on_dial_failed(node, true),
            Input::Unreachable { node } => self.on_dial_failed(node, false),
            Input::Taken { from } => self.on_taken(from),
            Input::Isolate { boot } => self.on_isolate(boot),
            Input::Forget { guest } => self.on_forget(guest),
        }
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        self.on_timeout();
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }

    fn end_turn(&mut self, now: Instant) {
        self.advance(now);
        self.on_end_turn();
        self.draining = !self.out.is_empty();
    }

    fn poll_output(&mut self) -> Option<Output> {
        let output = self.out.pop_front();
        self.draining &= output.is_some();
        output
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let peers = self.peers.values().flat_map(|peer| peer.timers.iter());
        let conns = self.conns.values().flat_map(|conn| [conn.hello_at, conn.limit]);
        peers.chain(conns).flatten().min()
    }
}
