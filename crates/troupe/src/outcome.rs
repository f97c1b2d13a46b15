//! What a caller is told.

use bytes::Bytes;
use mainstay_rpc::Executed;
use thiserror::Error;

use crate::Refusal;

/// How a call ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// With a value.
    Done(Bytes),
    /// With an error of the procedure, which was executed.
    Remote(Bytes),
    /// Of [`Collator::Each`](crate::Collator::Each): all replicas have answered.
    Complete,
    /// Without a result.
    Failed(Failure),
}

/// Why a call has no result.
#[derive(Error, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The deadline passed. The call goes on: all replicas execute it that do not fail.
    #[error("the deadline passed")]
    Deadline,
    /// Nobody is known to be a member of the troupe until the deadline.
    #[error("no replica of the troupe is known")]
    NotBound,
    /// Two replicas have different results.
    #[error("two replicas have different results")]
    Differ,
    /// No result has a majority.
    #[error("no result has a majority")]
    NoMajority,
    /// All replicas say that there is none; the first one says why.
    #[error("no replica has a result: {0:?}")]
    Refused(Refusal),
    /// This node is not, or not any more, a replica of the troupe that makes the call.
    #[error("this node is no replica of the troupe that calls")]
    NotMember,
    /// The execution that makes it is over, or of a troupe that this node has left.
    #[error("the execution that made this call is over")]
    Orphan,
    /// A call of a troupe that commits is undone when replicas differ in their order, and what it calls cannot be undone.
    #[error("an execution that may be undone calls nobody")]
    Tentative,
    /// Calls are nested too deep.
    #[error("calls are nested too deep")]
    TooDeep,
    /// The arguments have more bytes than a call may.
    #[error("the arguments are too large")]
    TooLarge,
    /// A call with this number was made here already.
    #[error("a call of this thread has this number already")]
    Twice,
    /// As many calls are open, or troupes known, as may be. Later there may be room.
    #[error("as many calls are open, or troupes known, as may be")]
    Full,
    /// The service of troupes has ended at this node.
    #[error("the service of troupes has ended here")]
    Ended,
}

/// A call has no result.
#[derive(Error, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[error("{reason} (executed: {executed:?})")]
pub struct Failure {
    /// What is known of its execution, at each replica of the server.
    pub executed: Executed,
    /// Why.
    pub reason: Reason,
}

impl Failure {
    /// It was not executed by this call.
    #[must_use]
    pub const fn not_at_all(reason: Reason) -> Self {
        Self { executed: Executed::NotAtAll, reason }
    }

    pub(crate) const fn unknown(reason: Reason) -> Self {
        Self { executed: Executed::NotMoreThanOnce, reason }
    }
}
