//! What an execution knows of its call.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::Caller;
use super::handle::Shared;
use crate::{CallId, Ticket, TroupeId, TroupeName};

/// Who calls, and which call it is: equal at all replicas. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub(super) caller: TroupeId,
    pub(super) id: CallId,
    pub(super) ticket: Ticket,
    pub(super) bytes: Bytes,
    pub(super) shared: Arc<Shared>,
}

impl Context {
    /// The troupe that calls.
    #[must_use]
    pub fn caller(&self) -> TroupeName {
        self.caller.name
    }

    /// The logical call.
    #[must_use]
    pub fn id(&self) -> &CallId {
        &self.id
    }

    /// Bytes that the caller gave along.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Calls another troupe as a part of this execution: all replicas make the call, and it is executed once by each replica there (RPC-47). They have to
    /// be made in the same order everywhere.
    #[must_use]
    pub fn to(&self, troupe: &str) -> Caller {
        Caller::new(&self.shared, None, "", TroupeName::new(troupe), Some(self.ticket))
            .context(self.bytes.clone())
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A call of a troupe with its context, for actors that want to know it. It derefs to the procedure.
pub type Incoming<P> = mainstay_rpc::Incoming<P, Context>;
