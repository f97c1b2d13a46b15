//! Counters.

/// What a group has seen and done since it was made. Counters only grow; reading them changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Messages cast.
    pub cast: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Casts refused for want of budget.
    pub full: u64,
    /// Frames kept for a later view.
    pub kept_aside: u64,
    /// Dropped: of a view that is over, or after the wedge.
    pub dropped_stale: u64,
    /// Dropped: of a boot that is not a member.
    pub dropped_stranger: u64,
    /// Dropped: contradicts what was said before, or the protocol.
    pub dropped_garbage: u64,
    /// Dropped: no room for more frames of later views.
    pub dropped_full: u64,
    /// Requests for messages that a cut names.
    pub fetches: u64,
    /// Views of the group installed.
    pub views: u64,
}
