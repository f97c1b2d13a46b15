//! What users put in at the ends of calls: what names mean, and who sees calls.

use std::time::Duration;

use mainstay_base::{ClusterId, NodeId};

use super::Context;
use crate::{Failure, Finish, Outcome, Semantics};

/// Maps names to nodes: to all that a call may go to, the best one first.
pub trait Resolver: Send + Sync {
    /// The nodes that are meant by `name`. None: the call fails, and nothing was sent.
    fn resolve(&self, name: &str) -> Vec<NodeId>;
}

/// A name is that of a node of the cluster.
pub(super) struct Nodes(pub(super) ClusterId);

impl Resolver for Nodes {
    fn resolve(&self, name: &str) -> Vec<NodeId> {
        vec![NodeId::new(self.0, name)]
    }
}

/// What an interceptor is told of a call.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CallInfo {
    /// The procedure.
    pub procedure: &'static str,
    /// The other end.
    pub node: NodeId,
    /// What is promised.
    pub semantics: Semantics,
}

/// Sees the calls of a node, at both ends: for authorisation, metrics, traces. It is called on the thread of the caller, or of the
/// handle, and must not block. Calls to the own node have results without their bytes.
pub trait Interceptor: Send + Sync {
    /// A call goes out; `context` goes along to the server.
    ///
    /// # Errors
    /// The call fails, and nothing was sent.
    fn call(&self, info: &CallInfo, context: &mut Vec<u8>) -> Result<(), Failure> {
        let _ = (info, context);
        Ok(())
    }

    /// A call of this node is over; not one that was forbidden, or whose future was dropped.
    fn called(&self, info: &CallInfo, outcome: &Outcome, took: Duration) {
        let _ = (info, outcome, took);
    }

    /// A call came and is about to be executed. False: it is refused, and not executed. It is asked once for each execution: not for a call that adopts one by
    /// its [name](crate::CallName::new).
    fn admit(&self, info: &CallInfo, context: &Context) -> bool {
        let _ = (info, context);
        true
    }

    /// An execution has ended by itself: also if its arguments were none. Not one that was dropped when it was stopped.
    fn executed(&self, info: &CallInfo, result: &Finish, took: Duration) {
        let _ = (info, result, took);
    }
}
