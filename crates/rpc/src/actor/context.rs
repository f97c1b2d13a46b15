//! What an execution knows of its call.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mainstay_base::{Instant, NodeId};
use mainstay_runtime::ActorMessage;

use super::handle::Shared;
use super::local::LONGEST;
use super::stop::Stop;
use super::trace::Trace;
use super::{Caller, Procedure};
use crate::{Semantics, Ticket};

/// Who calls, how long there is time, and whether the execution is still wanted. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub(super) client: NodeId,
    /// 0 for a call of the own node.
    pub(super) life: u64,
    pub(super) ticket: Option<Ticket>,
    pub(super) semantics: Semantics,
    pub(super) until: Instant,
    pub(super) bytes: Bytes,
    pub(super) trace: Option<Trace>,
    #[cfg(feature = "tracing")]
    pub(super) span: tracing::Span,
    pub(super) stop: Stop,
    /// Counts the calls of the execution.
    pub(super) level: Arc<Level>,
    pub(super) shared: Arc<Shared>,
}

/// Numbers the calls of an execution, for the names of those to other nodes: in the order in which they are made, to whatever node, so that an
/// execution elsewhere has the same numbers.
#[derive(Debug, Default)]
pub(super) struct Level {
    /// Of an execution for the own node: its numbers.
    above: Vec<u64>,
    made: AtomicU64,
    /// It has offered streams.
    #[cfg(feature = "streams")]
    pub(super) has_offered: std::sync::atomic::AtomicBool,
}

impl Level {
    pub(super) fn below(above: Vec<u64>) -> Arc<Self> {
        Arc::new(Self { above, ..Self::default() })
    }

    /// The numbers of another call.
    pub(super) fn next(&self) -> Vec<u64> {
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        [&self.above[..], &[number]].concat()
    }
}

impl Context {
    /// The node that calls.
    #[must_use]
    pub fn client(&self) -> NodeId {
        self.client
    }

    /// What the caller was promised.
    #[must_use]
    pub fn semantics(&self) -> Semantics {
        self.semantics
    }

    /// The time that is left; after it the execution is stopped.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.until.saturating_since(self.shared.now())
    }

    /// Bytes that the caller gave along: a trace context for instance.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The trace of which the execution is a part, and its span in it. `None`: nobody has given one along.
    #[must_use]
    pub fn trace(&self) -> Option<Trace> {
        self.trace
    }

    /// The span of the execution. Functions run in it; an actor that takes [`Incoming`] enters it where it likes.
    #[cfg(feature = "tracing")]
    #[must_use]
    pub fn span(&self) -> &tracing::Span {
        &self.span
    }

    /// Nobody wants the result any more: the deadline is past, the caller has given up or failed. Whatever is done from here on must
    /// have no effect, since a later call may have begun elsewhere.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }

    /// Waits until the execution is not wanted any more.
    pub async fn stopped(&self) {
        self.stop.stopped().await;
    }

    /// Calls another node as a part of this execution: with no more time than is left to it, and taken back if it is stopped. If another caller that wants
    /// the execution by its [name](crate::Orphans::Adoption) has more time, its calls have it too, but those to the own node.
    #[must_use]
    pub fn to(&self, server: NodeId) -> Caller {
        let mut caller = Caller::new(Arc::clone(&self.shared), server);
        caller.parent = self.ticket;
        // A call of the own node has no ticket by which the service would take back what it called.
        caller.stop = self.ticket.is_none().then(|| self.stop.clone());
        // With a ticket the service knows how much is left, also when the execution was given more since.
        let is_known = self.ticket.is_some() && server != self.shared.me;
        caller.deadline = if is_known { LONGEST } else { self.left() };
        caller.level = Some(Arc::clone(&self.level));
        caller.context = self.bytes.clone();
        caller.trace = self.trace;
        caller
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("client", &self.client).finish_non_exhaustive()
    }
}

/// A call with its context, for actors that want to know it. It derefs to the procedure.
#[derive(Debug)]
pub struct Incoming<P, C = Context> {
    /// The arguments.
    pub arguments: P,
    /// Who calls, and whether the execution is wanted.
    pub context: C,
}

impl<P: Procedure, C: 'static> ActorMessage for Incoming<P, C> {
    type Result = P::Result;
}

impl<P, C> Deref for Incoming<P, C> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.arguments
    }
}
