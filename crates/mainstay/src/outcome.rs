//! What callers are told.

use bytes::Bytes;
use mainstay_paradigm as paradigm;
use mainstay_paradigm::client::{NotDone, Outcome};
use thiserror::Error;

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
        use paradigm::Outcome as Is;
        match fate {
            Fate::Ordered(Is::Done(reply)) => Self::Done(reply),
            Fate::Ordered(Is::Opened(_) | Is::Closed | Is::SkipAccepted | Is::ViewNoted) => {
                Self::Done(Bytes::new())
            }
            Fate::Ordered(Is::Skipped) => Self::NotDone(NotDone::Skipped),
            Fate::Ordered(Is::NotPoisoned) => Self::NotDone(NotDone::NotPoisoned),
            Fate::Ordered(Is::TooManyOutstanding) => Self::NotDone(NotDone::Full),
            Fate::Ordered(Is::Malformed) => Self::NotDone(NotDone::Malformed),
            Fate::NotDone(reason) => Self::NotDone(reason),
            // Executed without an answer to be had, or with a session that says no more: of this try or another.
            Fate::Ordered(_) | Fate::Unknown => Self::Unknown,
        }
    }
}

/// Why the loss of acknowledged commands was not accepted at a node.
#[derive(Error, Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AcceptLossError {
    /// The group is not blocked, and the node hears enough votes for a view. Nothing changed.
    #[error("there is nothing to accept: the group waits for no lost nodes; nothing changed")]
    NothingToAccept,
    /// This node was declared dead and starts anew. Nothing changed; to try again is safe.
    #[error("this node starts anew; nothing changed")]
    Restarting,
    /// The node has closed. Nothing changed.
    #[error("closed")]
    Closed,
    /// The node closed before it answered. It may have been accepted; to try again is safe.
    #[error("the node closed before it answered")]
    Unknown,
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
