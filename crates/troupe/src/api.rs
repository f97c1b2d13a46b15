//! What users, and other services of the node, say to the service of troupes, and what it tells them.

use bytes::Bytes;
use mainstay_base::{BootId, Duration};
use mainstay_rpc::ProcedureId;

use crate::{Answer, Binding, CallId, Collator, Outcome, Refusal, TroupeId, TroupeName};

/// When a server begins a call of a troupe of clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Begin {
    /// With the first copy. Later ones that differ are refused ([`Refusal::Differs`]).
    #[default]
    First,
    /// When all replicas of the client, as its troupe is then, have sent it; if two differ it is not executed.
    All,
    /// When more than half of them have sent the same: others are masked.
    Majority,
}

/// In which order a server begins the calls of different clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Sequence {
    /// As they come, at each replica by itself. For calls that commute, and for servers with one client.
    #[default]
    Independent,
    /// As somebody else says: [`Event::Order`] is to be cast in total order, and [`Command::Ordered`] given at all replicas for what was delivered.
    Cast,
    /// Troupe commit: an execution counts when all replicas are at it; else it is undone, and begins again.
    Commit,
}

/// How a troupe serves. The same at all its replicas.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Serving {
    /// When calls begin.
    pub begin: Begin,
    /// In which order.
    pub sequence: Sequence,
    /// So many are executed at a time. Default 1: more is for executions that do not share data. With [`Sequence::Commit`] always 1.
    pub at_once: u32,
    /// With [`Sequence::Cast`]: the place of the order behind which this replica hears it, from its join on.
    pub from: u64,
}

impl Default for Serving {
    fn default() -> Self {
        Self { begin: Begin::First, sequence: Sequence::Independent, at_once: 1, from: 0 }
    }
}

/// A call that somebody wants.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Request {
    /// Comes back with the outcome. No two open calls of the service have the same.
    pub token: u64,
    /// The troupe that makes it; all its replicas make the same call. `None`: this node by itself.
    pub caller: Option<TroupeName>,
    /// The thread of calls; with its number the name of the call. Of no meaning for a nested call.
    pub thread: u64,
    /// Its number in the thread, from 1 on, greater than those before.
    pub number: u64,
    /// The troupe that is called.
    pub server: TroupeName,
    /// What is called.
    pub procedure: ProcedureId,
    /// Which version of it.
    pub version: u16,
    /// The arguments: equal at all replicas.
    pub arguments: Bytes,
    /// What the answers become.
    pub collator: Collator,
    /// The outcome is known after so long at the latest.
    pub deadline: Duration,
    /// The execution that makes it: then its troupe is the caller.
    pub parent: Option<Ticket>,
    /// Bytes that are handed to whoever executes: equal at all replicas.
    pub context: Bytes,
}

/// What others of the node want of the service.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Command {
    /// A call. It has one [`Event::Over`]. It is never taken back: others make it as well.
    Call(Request),
    /// This node is to be a replica of a troupe. [`Event::Joined`] says when it is; if that is not possible, [`Event::Left`].
    Join {
        /// Which.
        troupe: TroupeName,
        /// How it serves.
        serving: Serving,
    },
    /// It is to be none any more.
    Leave {
        /// Of which.
        troupe: TroupeName,
    },
    /// When nothing that has come is unanswered, and new members have the state, this node is to be a replica of nothing any more: [`Event::Drained`]. Calls that
    /// come meanwhile are taken, as its troupes need. From then on it joins no troupe ([`Event::Left`]).
    Drain,
    /// An execution has a result.
    Finished {
        /// Which.
        ticket: Ticket,
        /// What came of it.
        result: Finish,
    },
    /// Answers [`Event::StateWanted`]: the state after all executions that were told to have begun, and none besides.
    State {
        /// Of which troupe.
        troupe: TroupeName,
        /// It. `None`: there is none to be had.
        state: Option<Bytes>,
    },
    /// Answers [`Event::Restore`]: the state was taken in.
    Restored {
        /// Of which troupe.
        troupe: TroupeName,
    },
    /// The order has brought what [`Event::Order`] had of some replica.
    Ordered {
        /// Of which troupe.
        troupe: TroupeName,
        /// Its place; greater than those before.
        position: u64,
        /// What was cast.
        call: Bytes,
    },
}

/// What came of an execution.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Finish {
    /// A value.
    Value(Bytes),
    /// An error of the procedure.
    Error(Bytes),
    /// There is no result. The same at all replicas, or they come apart.
    Refused(Refusal),
}

/// Names an execution, in one life of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// A procedure is to be executed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Execution {
    /// Names it.
    pub ticket: Ticket,
    /// As a replica of this troupe.
    pub troupe: TroupeName,
    /// Who calls.
    pub caller: TroupeId,
    /// The logical call.
    pub id: CallId,
    /// Which procedure.
    pub procedure: ProcedureId,
    /// Which version of it.
    pub version: u16,
    /// The arguments.
    pub arguments: Bytes,
    /// As in [`Request::context`].
    pub context: Bytes,
}

/// What the service tells.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A call has its outcome.
    Over {
        /// Its token.
        token: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// Of a call with [`Collator::Each`]: a replica has answered.
    Answer {
        /// Its token.
        token: u64,
        /// Which replica.
        from: BootId,
        /// What it says.
        answer: Answer,
        /// So many replicas were sent it, as far as is known now.
        replicas: usize,
    },
    /// Somebody calls: the execution ends with [`Command::Finished`].
    Execute(Execution),
    /// Troupe commit: an execution that has a result counts, or is undone: then it will begin again with another ticket.
    Decided {
        /// Which.
        ticket: Ticket,
        /// False: its effect is to be undone.
        counts: bool,
    },
    /// This node is a replica now.
    Joined {
        /// Of which troupe.
        troupe: TroupeName,
        /// It begins with the first state: no other member had one.
        is_first: bool,
        /// Of the first state: the member that was to give one has gone, and no other one has it. What the troupe had is lost, if it had any.
        is_lost: bool,
    },
    /// This node is no replica any more: it has left, was taken for dead, or could not join. What it had as one is void.
    Left {
        /// Of which troupe.
        troupe: TroupeName,
    },
    /// After [`Command::Drain`]: it is.
    Drained,
    /// A new member needs the state: nothing begins until [`Command::State`] has it.
    StateWanted {
        /// Of which troupe.
        troupe: TroupeName,
    },
    /// The state of an older member: it takes the place of the own one. [`Command::Restored`] answers it.
    Restore {
        /// Of which troupe.
        troupe: TroupeName,
        /// It.
        state: Bytes,
    },
    /// A call is to be put into the total order of the troupe.
    Order {
        /// Which troupe.
        troupe: TroupeName,
        /// For [`Command::Ordered`] at all members.
        call: Bytes,
    },
    /// The membership of a troupe that this node is a member of, calls, or is called by has changed.
    Changed {
        /// Which troupe.
        troupe: TroupeName,
        /// How it is now.
        binding: Binding,
    },
}

/// What a node has done as a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Executions that have begun.
    pub executed: u64,
    /// Copies that were answered from what was kept.
    pub retained: u64,
    /// Copies that named the troupe as it was before.
    pub stale: u64,
    /// Copies that differ from what was executed.
    pub differing: u64,
    /// Copies that were refused otherwise.
    pub refused: u64,
    /// Results that were dropped before all had fetched them.
    pub forgotten: u64,
    /// Executions that were undone.
    pub undone: u64,
    /// What made no sense.
    pub dropped: u64,
}

/// How a service of troupes is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Calls of this node that some server has not answered.
    pub open: usize,
    /// Executions.
    pub executing: usize,
    /// Calls of others that are known: waiting, executed, or kept for their results.
    pub kept: usize,
    /// What was done as a server.
    pub served: Counts,
    /// Calls that were sent again since their troupe had changed (RPC-46).
    pub rebound: u64,
    /// Messages that were sent (RPC-61).
    pub sent: u64,
    /// As in [`Config::body_bytes_max`](crate::Config::body_bytes_max).
    pub body_bytes_max: usize,
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    pub fault: Option<crate::fault::Fault>,
}
