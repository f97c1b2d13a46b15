//! Trace events: what a run did, in the words of the properties.
//!
//! An event is named by (the boot that did it, its running number there); a receive names the send it belongs to by the
//! message's own id. Checkers (crate `check`) and diagrams read nothing else.

mod groups;
mod membership;
mod process;

use serde::{Deserialize, Serialize};

pub use groups::GroupWord;
pub use membership::MembershipWord;
pub use process::ProcessWord;

use crate::{BootId, Instant};

/// One event of a run.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Who did it.
    pub boot: BootId,
    /// Its running number at that boot, from 0.
    pub number: u64,
    /// When, by the time source of the boot (in a simulation all boots share one).
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What happened, by whose word it is; each service's words are an enum of their own. Complete: a checker handles every kind.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum What {
    /// The process.
    Process(ProcessWord),
    /// Membership.
    Membership(MembershipWord),
    /// A group.
    Group(GroupWord),
}
