//! Ways to break the channels on purpose, so that tests can show that their checks notice.

/// One deliberate defect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Takes what was meant for a service that is gone by now.
    MixesRuns,
    /// After a refusal takes the next message that fits: the stream has a hole.
    NoLatch,
    /// Never says that there is room again.
    NoRoom,
    /// Never says what was taken in.
    NoCredit,
    /// Never says what has come.
    NoCame,
    /// Sends however much is on the way.
    IgnoresCredit,
    /// A message of a new run may overtake the list that names the run.
    OvertakesList,
    /// Grants a service beside the node anew what it has not taken in.
    GrantsEarly,
    /// Takes of a service beside the node what it sent before it knew of the peer.
    TakesUnheard,
    /// Lets guests hear every instance.
    OpenToAll,
}
