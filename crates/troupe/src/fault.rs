//! Ways to break troupes on purpose, so that tests can show that their checks notice.

/// One deliberate defect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A server executes the copy of each replica of the client (RPC-40).
    ExecutesCopies,
    /// The first answer is not enough (RPC-41).
    WaitsForAll,
    /// A majority, and unanimity, are not waited for (RPC-42, RPC-48).
    TakesFirst,
    /// Executions begin before the order says so (RPC-43).
    BeginsUnordered,
    /// An execution counts as soon as one server is ready (RPC-43, troupe commit).
    CommitsAlone,
    /// A result is dropped when one replica of the client has it (RPC-44).
    ForgetsResults,
    /// A result is kept when all replicas of the client have it (RPC-44).
    KeepsResults,
    /// A server answers the first replica of the client that asked, and no other one (RPC-45).
    AnswersOne,
    /// A call goes to the oldest server only (RPC-45, RPC-41).
    CallsOne,
    /// A server takes calls that name its troupe as it was before (RPC-46).
    IgnoresVersion,
    /// A client does not send again what was refused as stale (RPC-46).
    NeverRebinds,
    /// Each answer is acknowledged at once, by a message of its own (RPC-61).
    AcksEach,
    /// Nested calls are numbered by their node, not by the call that they are a part of (RPC-47).
    FlatIds,
    /// A new member begins without the state of the others (RPC-40, joining).
    JoinsEmpty,
    /// A state is given to all who want one, also to those that have heard the order from a later place on (RPC-43).
    GivesEarly,
    /// A new replica of a client goes on with what the older one has open when it gives its state, not with all that the state does not have.
    CarriesOpen,
    /// When a troupe has changed a call that is over makes room for the next one before others are sent again (RPC-46).
    SendsNextFirst,
    /// The oldest member begins anew without asking younger ones for a state.
    AsksOlder,
    /// A member gives its state in the middle of an execution.
    GivesBusy,
    /// A client stops once it has its outcome, and other servers are not told of the call.
    StopsAtOutcome,
    /// Nothing begins while a new member waits for a state, for however long.
    StaysFrozen,
    /// What is kept for new members without a state holds their client up.
    HoldsUp,
    /// What a node asks is answered although it takes nothing in, however much it is.
    OwesEverything,
    /// A node that drains leaves its troupes at once.
    LeavesEarly,
    /// A member that asks for a state counts as one that has it, if it had it in a former membership.
    RemembersFull,
    /// A node that was drained joins troupes.
    JoinsAgain,
    /// Who joins a troupe at a node that was drained is told that it was taken for dead.
    HidesClosing,
    /// A binding agent that is restarted asks nobody what it was.
    ForgetsTroupes,
}
