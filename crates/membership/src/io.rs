//! What the machine is told, and what it asks for.

use bytes::Bytes;
use mainstay_base::{BootId, NodeId, Reason, ViewId};

use crate::{Durable, Extension, Message, View};

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A session with this boot is up, for the first time or again. What was said before is not lost.
    Up {
        /// The peer.
        boot: BootId,
    },
    /// The session is interrupted; the boot may be alive.
    Down {
        /// The peer.
        boot: BootId,
    },
    /// The boot is certainly dead: its node runs under another nonce.
    Gone {
        /// The former peer.
        boot: BootId,
    },
    /// The node refused a connection: evidence that it does not run, no proof.
    Refused {
        /// The node.
        node: NodeId,
    },
    /// Something arrived from the boot.
    Heard {
        /// The peer.
        boot: BootId,
    },
    /// The layer above wants the boot out, for good (a member that stays too slow, for example).
    Suspect {
        /// The boot to be removed.
        boot: BootId,
    },
    /// A peer has told this boot that it is dead (MB-7).
    Dead,
    /// This boot is about to end: it tells its peers, who need not wait until they miss it. Nothing else changes here.
    Leave,
    /// The layer above needs a new view although nobody came or went, to decide anew what a view decides.
    Renew,
    /// A message of the peer's machine.
    Message {
        /// Who said it.
        from: BootId,
        /// What.
        message: Message,
    },
    /// The durable state with this number is forced.
    Persisted {
        /// As in [`Output::Persist`].
        io: u64,
    },
    /// Answer to [`Output::Wedge`]: what the groups here know.
    Flushed {
        /// Opaque.
        state: Bytes,
    },
    /// Answer to [`Output::ComputeCut`].
    Cut {
        /// Where the old view ends; opaque.
        cut: Bytes,
        /// What goes with the new view; opaque.
        annex: Bytes,
    },
    /// Answer to [`Output::Hold`]: everything up to the cut is here, forced where it has to be.
    Held {
        /// The last view of the extension that was to be held.
        view: ViewId,
    },
    /// The state of the groups that the installed view admitted this boot to is here and forced: its promises count from
    /// now on. Ignored unless it is a member.
    BecomeVoter,
}

/// What is to be done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Say this to the peer; lossless and in order while both boots live.
    Send {
        /// To whom.
        to: BootId,
        /// What.
        message: Message,
    },
    /// Force this to disk, in the order of the numbers, and answer [`Input::Persisted`].
    Persist {
        /// The running number of the write.
        io: u64,
        /// Replaces what was written before.
        durable: Box<Durable>,
    },
    /// From here on nothing of the installed view is accepted, ordered or acknowledged: answer [`Input::Flushed`] with
    /// what the groups know. May come again before the next install.
    Wedge,
    /// Compute where the base view ends, from what the groups of the acknowledging boots know: answer [`Input::Cut`].
    ComputeCut {
        /// The committed view that ends.
        base: Box<View>,
        /// The views that shall follow.
        views: Vec<View>,
        /// What [`Input::Flushed`] said at each boot.
        states: Vec<(BootId, Bytes)>,
    },
    /// Get hold of everything up to the cut: answer [`Input::Held`]. A later one replaces it.
    Hold {
        /// What shall follow the installed view.
        extension: Box<Extension>,
    },
    /// The extension is committed.
    Install {
        /// The view before it.
        base: Box<View>,
        /// What follows.
        extension: Box<Extension>,
        /// This boot is a member of its last view; if not, it only takes note.
        member: bool,
    },
    /// Tell this boot that it is dead and accept nothing from it any more (MB-7, MB-8).
    Isolate {
        /// The removed boot.
        boot: BootId,
    },
    /// This boot is out. It must stop, and may come back under a new nonce. Nothing follows.
    Killed,
    /// This boot, a member, has begun to think that another has failed. It takes that back if the other is heard again, and
    /// says nothing then.
    Suspected {
        /// Which.
        boot: BootId,
        /// What for.
        evidence: Evidence,
    },
    /// With `on`, so few voters are heard that no view can follow: order, deliver and answer nothing until it is off (MB-11).
    Minority {
        /// Whether it began or ended.
        on: bool,
    },
}

/// Why a member is thought to have failed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Evidence {
    /// Nothing came from it for the timeout.
    Silence,
    /// Its node refused a connection.
    Refused,
    /// Its node runs under another nonce: it is certainly dead.
    Restarted,
    /// The layer above wants it out: it does not get on.
    Slow,
    /// It said that it ends.
    Closed,
}

impl From<Evidence> for Reason {
    fn from(evidence: Evidence) -> Self {
        match evidence {
            Evidence::Silence => Self::Silent,
            Evidence::Refused => Self::Refused,
            Evidence::Restarted => Self::Restarted,
            Evidence::Slow => Self::Slow,
            Evidence::Closed => Self::Closed,
        }
    }
}

impl Evidence {
    /// A word for logs and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Silence => "silent",
            Self::Refused => "refused",
            Self::Restarted => "restarted",
            Self::Slow => "slow",
            Self::Closed => "closed",
        }
    }
}

/// Whether this boot takes part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Not a member of the view that it knows; it votes if it is a voter.
    Outside,
    /// A member of the installed view.
    Member,
    /// Removed, for ever.
    Killed,
}

/// Counters of what peers did wrong; all zero among correct nodes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stats {
    /// Messages that contradict themselves or what is known.
    pub malformed: u64,
    /// Messages dropped because too many came while an install was being written.
    pub overrun: u64,
}
