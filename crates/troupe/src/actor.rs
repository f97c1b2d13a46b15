//! The user's side: replicas whose procedures are served by actix actors, and who calls them.

mod caller;
mod commands;
mod context;
mod executor;
mod handle;
mod part;

use bytes::Bytes;
use mainstay_base::BootId;
use mainstay_rpc::{Error, Procedure, Value};
use mainstay_runtime::{ActorMessage, wall_clock};
use thiserror::Error;

pub use caller::Caller;
pub use commands::Call;
pub use context::{Context, Incoming};
pub use handle::TroupesHandle;
pub use mainstay_service::OpenError;
pub use part::{JoinError, Part, Replica};

use crate::{Config, Failure, Refusal};

/// A call without a value.
#[derive(Error, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CallError<E> {
    /// The procedure was executed and says this.
    #[error("the procedure says: {0}")]
    Remote(E),
    /// There is no result. [`Failure::executed`] says what is known, at each replica.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// What one replica of a server said, for a [collator by program](Caller::call_with).
pub struct Said<P: Procedure> {
    /// Which replica.
    pub from: BootId,
    /// What.
    pub result: Result<Value<P>, NotSaid<Error<P>>>,
}

/// What a replica said instead of a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NotSaid<E> {
    /// An error of the procedure.
    Remote(E),
    /// There is no result, and there will be none from it.
    Refused(Refusal),
}

/// The state of a troupe is wanted, for a new member: all that executions did that have been handled, and for a client how many calls it has made
/// ([`Caller::number`]). Equal at all members.
#[derive(Clone, Copy, Debug)]
pub struct GiveState;

impl ActorMessage for GiveState {
    type Result = Vec<u8>;
}

/// The state of an older member: it takes the place of the own one.
#[derive(Clone, Debug)]
pub struct TakeState(pub Bytes);

impl ActorMessage for TakeState {
    type Result = ();
}

/// Troupe commit: what became of an execution. The calls of a troupe come one at a time, so it is the last one that was handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decided {
    /// False: it is to be undone; the call comes again.
    pub counts: bool,
}

impl ActorMessage for Decided {
    type Result = ();
}

impl Config {
    /// The defaults, for a service that starts now.
    #[must_use]
    pub fn started_now(binder: mainstay_base::NodeId) -> Self {
        let life = u64::try_from(wall_clock().as_nanos()).unwrap_or(u64::MAX).max(1);
        Self::new(binder, life)
    }
}
