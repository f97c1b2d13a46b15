//! Deliberately broken variants, for the tests that prove that a checker or the explorer would find them.

/// What a broken machine does wrong.
#[cfg_attr(
    not(feature = "test-util"),
    allow(dead_code, unreachable_pub, reason = "constructed by tests only")
)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// Promises are said before they are on disk.
    PromiseNotForced,
    /// Acceptances are said before they are on disk.
    AcceptanceNotForced,
    /// The quorum is a majority of the members, not of the roster.
    QuorumOfTheView,
    /// An extension that was accepted under an earlier ballot is not proposed again.
    ForgetsAccepted,
    /// Accepts without waiting until everything up to the cut is here.
    AcceptsWithoutHolding,
    /// A node whose disk is lost votes at once.
    VotesWithoutPast,
    /// A node that hears all others founds, whatever disks they have founded with.
    FoundsAnew,
    /// A node that hears a majority founds.
    FoundsWithMajority,
    /// Who reaches the manager is admitted.
    AdmitsUnheard,
    /// A member takes its own reasons for those of the view.
    OwnReasons,
}
