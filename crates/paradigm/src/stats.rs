//! Counters.

/// What a replica has seen and done since it was made. Counters only grow; they are no part of the replicated state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Commands handed to the user's machine, those applied again after a rebuild included.
    pub applied: u64,
    /// Retries answered from a saved answer.
    pub duplicates: u64,
    /// Commands refused because their session is not open.
    pub expired: u64,
    /// Sessions evicted to make room.
    pub evicted: u64,
    /// Payloads that are no envelope.
    pub malformed: u64,
    /// Deliveries at positions that the state contains already.
    pub stale: u64,
    /// Deliveries that came while the replica was poisoned and have to come again.
    pub held: u64,
    /// Times that `apply` panicked.
    pub panics: u64,
    /// Skips refused because `skips_max` commands were passed over before.
    pub skips_refused: u64,
    /// Hashes of others dropped: of a site that is no member, not at a multiple, or too old.
    pub hashes_dropped: u64,
}
