//! What callers are told.

use bytes::Bytes;
use mainstay_paradigm as paradigm;
use thiserror::Error;

/// Why nothing was executed, and nothing will be: to try again is safe.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Too much is on its way.
    #[error("too much is on its way")]
    Full,
    /// The command is larger than a message may be. To try again is of no use.
    #[error("the command is too large")]
    TooLarge,
    /// It was not asked for in time.
    #[error("no answer in time")]
    Late,
    /// The execution panicked, and an operator had the command passed over.
    #[error("an operator had the command passed over")]
    Skipped,
    /// Not a command. To try again is of no use.
    #[error("not a command")]
    Malformed,
    /// The node has closed.
    #[error("the node has closed")]
    Closed,
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

/// What became of a payload that was put into the order as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It has its place, and this came of it.
    Ordered(paradigm::Outcome),
    /// It has no place and will not get one.
    NotDone(NotDone),
    /// It may have a place, or may still get one.
    Unknown,
}

impl From<Fate> for Outcome {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Ordered(paradigm::Outcome::Done(reply)) => Self::Done(reply),
            Fate::Ordered(paradigm::Outcome::Skipped) => Self::NotDone(NotDone::Skipped),
            Fate::Ordered(_) => Self::NotDone(NotDone::Malformed),
            Fate::NotDone(reason) => Self::NotDone(reason),
            Fate::Unknown => Self::Unknown,
        }
    }
}

/// Whoever waits for a fate. If it is dropped it says `Unknown`: nobody waits in vain.
pub(crate) struct Answer(Option<Box<dyn FnOnce(Fate) + Send>>);

impl Answer {
    pub(crate) fn new(tell: impl FnOnce(Fate) + Send + 'static) -> Self {
        Self(Some(Box::new(tell)))
    }

    pub(crate) fn tell(mut self, fate: Fate) {
        if let Some(tell) = self.0.take() {
            tell(fate);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(Fate::Unknown);
        }
    }
}
