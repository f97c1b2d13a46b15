//! What is over, and large: to free it takes time in proportion to what it holds.

use super::Group;
use crate::epoch::Epoch;
use crate::event::Delivery;

/// From so many messages on they are not freed in the turn.
const COUNT_MIN: u64 = 4 << 10;
/// Kept at most, where nobody takes them.
const KEPT: usize = 4;

/// Messages that a group needs no more. Drop it where nobody waits.
#[derive(Clone, Debug)]
#[must_use = "what is large is best dropped on another thread"]
pub struct Retired {
    _epoch: Option<Epoch>,
    _past: Vec<Delivery>,
}

impl Group {
    /// What the group has stopped needing since the last call, if it is large. If nobody takes it, the group drops it.
    pub fn take_retired(&mut self) -> Option<Retired> {
        self.retired.pop()
    }

    pub(super) fn retire(&mut self, epoch: Option<Epoch>, past: Vec<Delivery>) {
        let count = epoch.as_ref().map_or(0, Epoch::count) + past.len() as u64;
        if count >= COUNT_MIN {
            self.retired.truncate(KEPT - 1);
            self.retired.insert(0, Retired { _epoch: epoch, _past: past });
        }
    }
}
