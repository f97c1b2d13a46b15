//! What services spend.

/// What an instance has spent, at all nodes together since the world began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Costs {
    /// Messages sent: one for each boot that it goes to; not counted again when a link sends it again.
    pub messages: u64,
    /// Their bytes, both parts.
    pub bytes: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Turns that wrote records: each is one forced write.
    pub forced: u64,
    /// The longest chain of messages of which each was sent in the turn in which the one before came.
    pub rounds: u32,
}
