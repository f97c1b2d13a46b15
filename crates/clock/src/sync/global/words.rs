//! What a clock service is told, what it tells, and how it is.

use mainstay_base::{Duration, Instant, NodeId};

use super::adjusted::Promise;
use crate::Time;
use crate::sync::{self, Correction, Loss, Rejected};

/// What others of the node tell the clock service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// A reference of this node was read.
    Reference {
        /// When, by local time.
        at: Instant,
        /// What it said, in nanoseconds.
        value: i64,
    },
    /// [`Event::Fired`] is wanted when the clock says `at` or more (CLK-40). A second one with the same token takes the place of the first.
    Timer {
        /// Comes back.
        token: u64,
        /// For which reading.
        at: Time,
    },
    /// A timer is not wanted any more.
    Cancel {
        /// Which.
        token: u64,
    },
    /// Somebody outside waits for a reading.
    #[doc(hidden)]
    Alarm {
        /// Who.
        id: u64,
        /// For which reading.
        at: Time,
    },
    /// Somebody outside waits no more.
    #[doc(hidden)]
    Silence {
        /// Who.
        id: u64,
    },
}

/// Why the adjusted clock is not synchronised.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Why {
    /// The algorithm says so.
    Lost(Loss),
    /// The clock is ahead of what it follows, and waits.
    Ahead,
    /// The clock has stepped forward, further than it could have walked: spans over this moment are not kept.
    Stepped,
    /// The disk is so slow that the clock has reached what is stored.
    Unstored,
}

impl Why {
    /// In a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost(loss) => loss.name(),
            Self::Ahead => "ahead",
            Self::Stepped => "stepped",
            Self::Unstored => "unstored",
        }
    }
}

/// What the clock service tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// From here on its promises hold.
    Synchronised,
    /// From here on they do not: who needs the common time takes no new work (CLK-41).
    Unsynchronised(Why),
    /// Another clock is followed, or none.
    MasterChanged(Option<NodeId>),
    /// A correction came. It is walked off, once the algorithm is synchronised.
    Resynced(Correction),
    /// A timer.
    Fired {
        /// Its token.
        token: u64,
        /// For which reading it was set.
        at: Time,
    },
    /// A timer was not set: as many are as may be.
    Refused {
        /// Its token.
        token: u64,
    },
}

/// How a clock service is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Of the last correction.
    pub version: u64,
    /// Why it is not synchronised; `None` while it is.
    pub unsynchronised: Option<Why>,
    /// What the adjusted clock promises.
    pub promise: Promise,
    /// What the algorithm promises.
    pub bounds: sync::Bounds,
    /// How far the time may be wrong now, as [`GlobalClock::now_bounded`](super::GlobalClock::now_bounded) says: from what the algorithm follows, or
    /// from the clocks of all correct nodes where it follows nothing. `None` while it is not synchronised.
    pub error: Option<Duration>,
    /// The last correction of a synchronised clock, in nanoseconds.
    pub correction: i64,
    /// The largest one: as far as this clock has measured that it was from the others.
    pub correction_worst: u64,
    /// Corrections so far.
    pub corrections: u64,
    /// Of these, those that were too large to be walked off.
    pub steps: u64,
    /// The other clocks, as they were read last.
    pub sources: Vec<(NodeId, sync::Source)>,
    /// Timers that are set.
    pub timers: usize,
    /// Forced writes so far.
    pub writes: u64,
    /// Readings of a reference that the service reads itself, so far.
    pub references: u64,
    /// The reference that the service reads itself, if there is one.
    pub reference: Option<ReferenceState>,
    /// What was refused.
    pub rejected: Rejected,
}

/// A reference, as it was read last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReferenceState {
    /// Whose clock it is; `None`: the wall clock of the own node.
    pub node: Option<NodeId>,
    /// How much it was ahead of the own clock of the algorithm, in nanoseconds; 0 before the first reading.
    pub offset: i64,
    /// How far it may have been from what it follows, in nanoseconds.
    pub error: u64,
    /// How long ago it was read; [`Duration::MAX`]: never.
    pub age: Duration,
    /// How often it was read.
    pub reads: u64,
    /// Used; too far off, by the plan; or not read for two periods.
    pub verdict: sync::Verdict,
}
