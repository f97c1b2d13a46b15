//! What the service of calls is told, and what it tells.

use bytes::Bytes;
use mainstay_base::{Duration, NodeId};

use crate::server::Counts;
use crate::wire::{CallName, ProcedureId};
use crate::{Failure, Parting, Semantics};

/// A call that somebody wants.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Request {
    /// Comes back with the outcome. No two open calls of the service have the same.
    pub token: u64,
    /// The node.
    pub server: NodeId,
    /// What is called.
    pub procedure: ProcedureId,
    /// Which version of it.
    pub version: u16,
    /// What is promised.
    pub semantics: Semantics,
    /// The arguments.
    pub arguments: Bytes,
    /// The outcome is known after so long at the latest.
    pub deadline: Duration,
    /// Calls of a lane are executed one after the other, in the order of the commands. `None`: the call works on data of its own.
    pub lane: Option<u32>,
    /// The execution that calls. Its calls are taken back when it is ended.
    pub parent: Option<Ticket>,
    /// With a parent whose call has a name: the number of this call among those of the parent, from 1, calls to the own node counted as well. If an execution at the
    /// own node calls, that one's numbers come first. A name follows from them; without them there is none.
    pub numbers: Vec<u64>,
    /// Bytes that are handed to whoever executes: a trace context for instance.
    pub context: Bytes,
    /// Where orphans are adopted ([`Orphans::Adoption`](crate::Orphans::Adoption)): whoever calls by the same name has the result of the same execution. What an execution with a
    /// name calls has a name that follows from it. Elsewhere it means nothing.
    pub name: Option<Box<CallName>>,
}

/// What others of the node want of the service of calls.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Command {
    /// A call. Each has one [`Event::Over`].
    Call(Request),
    /// A call is not wanted any more: if it is open, it is over now.
    Cancel {
        /// Its token.
        token: u64,
    },
    /// A procedure is executed here, from now on.
    Serve {
        /// Which.
        procedure: ProcedureId,
        /// Its oldest version, and its newest one.
        versions: (u16, u16),
    },
    /// A procedure is not executed here any more.
    Withdraw {
        /// Which.
        procedure: ProcedureId,
    },
    /// What served a procedure has ended: as [`Withdraw`](Self::Withdraw), but those who watch it are told so.
    Gone {
        /// Which.
        procedure: ProcedureId,
    },
    /// The end of a procedure at a node is wanted to be known: one [`Event::Parted`], at once if it is not served there.
    Watch {
        /// Comes back. No two watches of the service have the same.
        token: u64,
        /// The node, perhaps this one.
        server: NodeId,
        /// What is watched.
        procedure: ProcedureId,
    },
    /// It is not any more.
    Unwatch {
        /// The token.
        token: u64,
    },
    /// An execution has a result, or was [stopped](Event::Stop).
    Finished {
        /// Which.
        ticket: Ticket,
        /// What came of it.
        result: Finish,
    },
    /// Something was made for a client in this life of it, and is to go with that life: [`Event::Forsaken`].
    Host {
        /// Whose.
        client: NodeId,
        /// In which life.
        life: u64,
    },
    /// It is gone: [`Event::Forsaken`] is not wanted.
    Unhost {
        /// Whose.
        client: NodeId,
        /// In which life.
        life: u64,
    },
    /// No call is taken any more; [`Event::Drained`] when those that were are over.
    Drain,
    /// The same at once: what has not begun is refused, and what is executed is ended.
    Close,
}

/// What came of an execution.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Finish {
    /// A value.
    Value(Bytes),
    /// An error of the procedure.
    Error(Bytes),
    /// The bytes are no arguments of the procedure: it was not executed.
    BadArguments,
    /// Nothing serves the procedure any more: it was not executed.
    NotServed,
    /// It is not admitted, and was not executed.
    Denied,
    /// Whatever executes it has failed or is gone, or was stopped.
    Failed,
}

/// Names an execution, in one life of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// A procedure is to be executed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Execution {
    /// Names it.
    pub ticket: Ticket,
    /// Who calls.
    pub client: NodeId,
    /// In which life.
    pub life: u64,
    /// Which procedure.
    pub procedure: ProcedureId,
    /// Which version of it.
    pub version: u16,
    /// What the caller was promised. For [`Semantics::AtMostOnce`] the effect must be whole or none.
    pub semantics: Semantics,
    /// The arguments.
    pub arguments: Bytes,
    /// It is stopped after so long.
    pub left: Duration,
    /// As in [`Request::context`].
    pub context: Bytes,
}

/// How a call ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// With a value; one of [`Semantics::Maybe`] was sent.
    Done(Bytes),
    /// With an error of the procedure, which was executed.
    Remote(Bytes),
    /// Without a result.
    Failed(Failure),
}

/// What the service of calls tells.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A call is over (RPC-9: once for each).
    Over {
        /// Its token.
        token: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// Somebody calls: the execution ends with [`Command::Finished`].
    Execute(Execution),
    /// An execution has to stop as soon as it can, and to have no effect from here on. It ends with [`Command::Finished`] as well: until then what
    /// must not run beside it waits. A ticket that is not known was never executed.
    Stop {
        /// Which.
        ticket: Ticket,
    },
    /// A server is connected and was heard: what waits for it is sent.
    Bound {
        /// Which node.
        server: NodeId,
    },
    /// A server is gone, and with it all that it executed, unless it stores results and comes back.
    Lost {
        /// Which node.
        server: NodeId,
    },
    /// A [watch](Command::Watch) is over.
    Parted {
        /// Its token.
        token: u64,
        /// Why.
        why: Parting,
    },
    /// After [`Command::Host`]: this life of a client is over, or the client was taken for dead, as what is executed for it is told by
    /// [`Event::Stop`] (RPC-71). Once for each life; after a call that came since, [`Command::Host`] asks for it again.
    Forsaken {
        /// Whose.
        client: NodeId,
        /// In which life.
        life: u64,
    },
    /// After [`Command::Drain`]: nothing is executed any more.
    Drained,
}

/// How a service of calls is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The crash count.
    pub life: u64,
    /// Calls of this node that are open.
    pub open: usize,
    /// Executions for others.
    pub executing: usize,
    /// Ends of procedures that this node watches, and that others watch here.
    pub watches: (usize, usize),
    /// Calls of others that are held, executed, or whose answer is kept.
    pub kept: usize,
    /// Clients of which something is remembered.
    pub clients: usize,
    /// What was done for others.
    pub served: Counts,
    /// Messages that were sent (RPC-61).
    pub sent: u64,
    /// As in [`Config::body_bytes_max`](crate::Config::body_bytes_max).
    pub body_bytes_max: usize,
    /// How long results are kept by the names of their calls, where [orphans are adopted](crate::Orphans::Adoption).
    pub keep: Option<Duration>,
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    pub fault: Option<crate::fault::Fault>,
}
