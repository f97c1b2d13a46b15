//! What callers are told.

use bytes::Bytes;
use mainstay_base::Position;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why nothing was executed, and nothing will be: to try again is safe.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NotDone {
    /// Too few nodes are heard.
    #[error("too few nodes are heard")]
    Minority,
    /// The group stands still: what failed last has to come back.
    #[error("the group waits for nodes that may have more of its past")]
    Blocked,
    /// This node is in no view of the group yet.
    #[error("this node is not a member yet")]
    NotMember,
    /// This node has no state, or no right one.
    #[error("this node has no state to answer from")]
    NoState,
    /// This node was declared dead and starts anew.
    #[error("this node starts anew")]
    Restarting,
    /// The execution of the command here panicked: the group stands still until an operator has it skipped.
    #[error("poison #{}: the group stands still until it is skipped", .0.0)]
    Poisoned(Position),
    /// This node does not stand at the poison command that is to be skipped. Nothing changed.
    #[error("no poison command here stops this node")]
    NotPoisoned,
    /// Too much is on its way. Nothing changed; to try again is safe, and helps when some of it has arrived.
    #[error("too much is on its way")]
    Full,
    /// The command is larger than a message may be. To try again is of no use.
    #[error("the command is too large")]
    TooLarge,
    /// It was not asked for in time.
    #[error("no answer in time")]
    Late,
    /// The execution panicked, and an operator had the command passed over. To try again panics again.
    #[error("an operator had the command passed over")]
    Skipped,
    /// Not a command, or a query that made its function panic. To try again is of no use.
    #[error("not a command")]
    Malformed,
    /// The node, or the client, has closed.
    #[error("closed")]
    Closed,
    /// The disk of this node is almost full. Nothing changed; reads go on.
    #[error("the disk of this node is almost full")]
    DiskShort,
}

impl NotDone {
    /// Another node may be able to do it now.
    #[must_use]
    pub fn is_elsewhere(self) -> bool {
        matches!(
            self,
            Self::Minority
                | Self::Blocked
                | Self::NotMember
                | Self::NoState
                | Self::Restarting
                | Self::Closed
                | Self::DiskShort
        )
    }

    /// No node will ever do it.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::TooLarge | Self::Skipped | Self::Malformed)
    }
}

/// What became of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was executed, at the level of the group's durability; this is its answer.
    Done(Bytes),
    /// It was not executed and will not be.
    NotDone(NotDone),
    /// It may have been executed, or may still be: the connection to its fate is lost.
    Unknown,
}

impl Outcome {
    /// The answer, or why there is none: for `?`.
    ///
    /// # Errors
    /// [`Failed::NotDone`], [`Failed::Unknown`].
    pub fn into_result(self) -> Result<Bytes, Failed> {
        match self {
            Self::Done(answer) => Ok(answer),
            Self::NotDone(reason) => Err(Failed::NotDone(reason)),
            Self::Unknown => Err(Failed::Unknown),
        }
    }
}

impl From<Outcome> for Result<Bytes, Failed> {
    fn from(outcome: Outcome) -> Self {
        outcome.into_result()
    }
}

/// Why a command has no answer.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failed {
    /// It was not executed and will not be. To try again is safe; whether it is of use, the reason says
    /// ([`NotDone::is_final`]).
    #[error("not done: {0}")]
    NotDone(NotDone),
    /// It may have been executed, or may still be. To try again may execute it twice.
    #[error("nobody knows whether it was done")]
    Unknown,
    /// It was executed, and its reply is not of the type that it should have: the nodes have another build of the state
    /// machine. To try again executes it again.
    #[error("done, but the reply is not of the expected type")]
    Reply,
}
