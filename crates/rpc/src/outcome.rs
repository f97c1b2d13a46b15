//! What a caller asks for, and what it is told.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Refusal;

/// What a call promises. The names are those of the survey; today's names differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Semantics {
    /// Sent once, answered never, executed never or once. Its only outcome is that it was sent, or that it was not. Today: *one-way*, or
    /// *fire and forget*.
    #[serde(rename = "m")]
    Maybe,
    /// Executed once or more often where there is a result; else nothing is known. The server keeps nothing, so a late copy may be
    /// executed after a later call. Today: *at-least-once* as well. Only for procedures that are idempotent.
    #[serde(rename = "l")]
    AtLeastOnce,
    /// Executed exactly once where there is a result; else at most once, perhaps in part. Today: *at-most-once*.
    #[serde(rename = "e")]
    ExactlyOnce,
    /// As `ExactlyOnce`, and where there is no result the effect is whole or not there at all. Today: *atomic*, or a transaction.
    /// What serves the procedure must see to that.
    #[serde(rename = "a")]
    AtMostOnce,
}

impl Semantics {
    /// What is known of the execution of a call that was sent and has no result.
    #[must_use]
    pub const fn unknown(self) -> Executed {
        match self {
            Self::Maybe | Self::AtLeastOnce => Executed::Unknown,
            Self::ExactlyOnce => Executed::NotMoreThanOnce,
            Self::AtMostOnce => Executed::NoneOrComplete,
        }
    }
}

/// What is known of the execution of a call without a result (RPC-74).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Executed {
    /// It was not, and will not be. Trying again is safe.
    NotAtAll,
    /// Never, once, or more often, perhaps in part.
    Unknown,
    /// Never or once, perhaps in part.
    NotMoreThanOnce,
    /// Not at all or once and as a whole.
    NoneOrComplete,
}

/// Why a call has no result.
#[derive(Error, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// The deadline was past already, or is so near that a server could not keep it.
    #[error("the deadline is past, or too near")]
    TooLate,
    /// The server did not answer any of so many attempts.
    #[error("the server does not answer")]
    Unreachable,
    /// The server was restarted and remembers nothing, or is not there any more.
    #[error("the server was restarted, or is gone")]
    ServerLost,
    /// The service of calls at this node was ended, or began anew.
    #[error("the service of calls has ended here")]
    Ended,
    /// It was taken back.
    #[error("the call was taken back")]
    Cancelled,
    /// The execution of which it is a part is over.
    #[error("the execution that made this call is over")]
    Orphan,
    /// The server is this node: nothing is sent.
    #[error("the server is this node")]
    ToSelf,
    /// No node has this name.
    #[error("the name means no node")]
    Unresolved,
    /// An interceptor of this node forbids it.
    #[error("an interceptor forbids it")]
    Forbidden,
    /// As many calls are open as may be. Later there may be room.
    #[error("as many calls are open as may be")]
    Full,
    /// The arguments have more bytes than a call may.
    #[error("the arguments are too large")]
    TooLarge,
    /// Calls with names are nested too deep.
    #[error("calls are nested too deep")]
    TooDeep,
    /// The server says why.
    #[error("the server refuses: {0:?}")]
    Refused(Refusal),
}

/// A call has no result.
#[derive(Error, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[error("{reason} (executed: {executed:?})")]
pub struct Failure {
    /// What is known of its execution.
    pub executed: Executed,
    /// Why.
    pub reason: Reason,
}

impl Failure {
    /// It was not executed, and will not be.
    #[must_use]
    pub const fn not_at_all(reason: Reason) -> Self {
        Self { executed: Executed::NotAtAll, reason }
    }
}

/// Why what a node served is served there no more, as a watch of it is told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Parting {
    /// The node has withdrawn it. It goes on.
    #[serde(rename = "w")]
    Withdrawn,
    /// The actor that served it has ended. The node goes on.
    #[serde(rename = "e")]
    Ended,
    /// It was not served when the watch began.
    #[serde(rename = "n")]
    NotServed,
    /// The node, or its service of calls, was restarted or is gone.
    #[serde(rename = "l")]
    Lost,
    /// The node was not connected for as long as a call without a sign is attempted ([`Config::attempts`](crate::Config::attempts)): it may serve it still.
    #[serde(rename = "u")]
    Unreachable,
    /// There are as many watches as may be, here ([`Config::calls_max`](crate::Config::calls_max)) or there ([`Config::window`](crate::Config::window)). Nothing is known.
    #[serde(rename = "f")]
    Full,
    /// The service of calls at this node has ended. Nothing is known.
    #[serde(rename = "h")]
    Here,
}
