//! What a replica tells its host.

use bytes::Bytes;
use mainstay_base::{MessageId, Position, SiteId};
use thiserror::Error;

use crate::compare::Verdict;
use crate::envelope::Session;
#[cfg(doc)]
use crate::{Envelope, Replica};

/// What became of a message; the same at all replicas (PD-31).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The command was executed, now or at an earlier try; this is its answer.
    Done(Bytes),
    /// The command was executed at an earlier try; its answer was too large to be saved.
    AnswerNotSaved,
    /// The client had said that it has the answer to this number. Not executed now.
    Acknowledged,
    /// The number is too far above what the client has acknowledged. Not executed; send it again later.
    TooManyOutstanding,
    /// The session is open.
    Opened(Session),
    /// The session was open and is closed.
    Closed,
    /// The session is not open: closed, evicted, or never opened. Not executed now; whether it was executed at an
    /// earlier try is not known any more.
    SessionExpired,
    /// The command's execution panicked, and an operator had it passed over: this copy, and with a session all others.
    /// The user's state has no trace of it.
    Skipped,
    /// The skip is accepted.
    SkipAccepted,
    /// The position that was to be skipped is not one that halts the group. Nothing changed.
    NotPoisoned,
    /// The view is in the order, now or before.
    ViewNoted,
    /// Not an envelope. Nothing was executed.
    Malformed,
}

/// What the replica tells its host, in order. Nothing waits for the host; drain to `None` once a turn.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Output {
    /// What became of a message of this site, to be passed on when the message has reached the group's level.
    Reply {
        /// The message.
        message: MessageId,
        /// Its place.
        position: Position,
        /// What became of it.
        outcome: Outcome,
    },
    /// Many bytes were delivered since the last time: take a [`Replica::snapshot`] soon. The same at all replicas.
    CheckpointWanted {
        /// After the message here.
        position: Position,
    },
    /// The hash of the state, to be sent to the other members for [`Replica::hash_of`].
    HashAt {
        /// As of.
        position: Position,
        /// The hash.
        hash: u128,
    },
    /// The hashes of the members differ; see [`Verdict`] for who is wrong and who halts.
    Diverged {
        /// As of.
        position: Position,
        /// Who is wrong.
        verdict: Verdict,
        /// The members that differ from this replica.
        sites: Vec<SiteId>,
    },
    /// The execution of the command here panicked. The group stands still until the command is skipped.
    Poisoned {
        /// The command.
        position: Position,
    },
    /// The poison is to be skipped: restore a checkpoint below `skipping`, or [`Position::ZERO`] if there is none, and
    /// deliver everything behind it again, what was delivered since included. Nothing is answered twice.
    Rebuild {
        /// The command that will be passed over.
        skipping: Position,
    },
}

/// Whether a replica executes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Status {
    /// It executes what is delivered.
    Running,
    /// The command here panicked; it waits for [`Envelope::Skip`] of this position.
    Poisoned {
        /// The command.
        position: Position,
    },
    /// It has no state: [`Replica::begin_restore`] is next.
    Empty,
    /// Chunks are coming in.
    Restoring,
    /// Its state at this position is wrong, or may be; it answers nothing until it is restored from a right one.
    Diverged {
        /// As of.
        position: Position,
    },
}

/// Why a message was not taken. Nothing changed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliverError {
    /// A message before this one is missing. Deliver that one first.
    #[error("the next position is {expected:?}")]
    Gap {
        /// What is to come next.
        expected: Position,
    },
    /// The replica has no state, or a wrong one. Keep the message until it is restored.
    #[error("the replica does not execute: {0:?}")]
    NotRunning(Status),
}

/// Why there is no snapshot. Nothing changed; retry when the replica runs.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The replica has no state that is known to be right.
    #[error("the replica does not execute: {0:?}")]
    NotRunning(Status),
}
