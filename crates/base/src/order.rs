//! What a cast into a group promises: in which order it is delivered, and how far it has got.

use serde::{Deserialize, Serialize};

/// The order asked for a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Messages of one sender are delivered in send order.
    Fifo,
    /// One order at all members, that respects FIFO.
    Total,
}

/// How far an acknowledged message had got (glossary; view-synchrony §5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Level {
    /// In order at this member, perhaps nowhere else yet.
    Delivered,
    /// Received by a majority of the configured sites.
    Majority,
    /// Received by all members of the view, and by a majority of the configured sites.
    Safe,
    /// Forced to the logs of a majority of the configured sites.
    Disk,
}
