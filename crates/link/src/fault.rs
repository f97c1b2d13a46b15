//! Ways to break a link on purpose, so that tests can show that their checks notice.

/// One deliberate defect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Delivers what comes, in whatever order and how often it comes.
    NoDuplicateSuppression,
    /// Never sends again on the same connection.
    NoResend,
    /// After a reconnect takes all it ever sent for received, whatever the hello says.
    IgnoresExpectation,
    /// Takes frames of any session.
    AcceptsOtherSessions,
    /// When a peer comes back with another nonce, sends it what was meant for its former boot.
    KeepsWindowOfReplaced,
    /// Acknowledges what its user has not taken.
    AcksUntaken,
    /// Goes on talking with an isolated boot.
    IgnoresIsolation,
    /// Lets a second boot of a node replace one that lives.
    AdmitsSecondBoot,
    /// Never lets another boot of a node take the place of the known one, alive or not, before it is isolated.
    NeverAdmitsAnother,
    /// Takes a guest whose session it has given up for one that it has never met.
    WelcomesForgotten,
    /// Believes a guest that says that this boot is dead.
    BelievesGuests,
    /// Delivers what guests say on any channel.
    HearsGuestsAnywhere,
}
