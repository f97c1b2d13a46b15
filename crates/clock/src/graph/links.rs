//! The names of messages, and what goes with them on the wire.

use mainstay_base::{Incarnation, service::Wire};
use serde::{Deserialize, Serialize};

use crate::{COUNT_MAX, Rank};

/// A message: whose, and the how many-th of that participant, from 1. The order is that within a wave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Id {
    /// Its sender.
    pub rank: Rank,
    /// Which of the messages of its sender.
    pub number: u64,
}

/// A message's name and its immediate predecessors. A wire contract.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Links {
    /// Who sends it.
    pub sender: Rank,
    /// In which life.
    pub incarnation: Incarnation,
    /// Which of its messages; counts on across incarnations.
    pub number: u64,
    /// It only says what its sender has.
    pub null: bool,
    /// The leaves that the sender had, at most one of each participant, by rank.
    pub before: Vec<Id>,
}

impl Wire for Links {}

impl Links {
    /// The name.
    #[must_use]
    pub fn id(&self) -> Id {
        Id { rank: self.sender, number: self.number }
    }

    /// Whether it can be a message among so many participants, whatever they have sent.
    pub(super) fn is_well_formed(&self, participants: usize) -> bool {
        let fits = |id: Id| id.rank.index() < participants && (1..=COUNT_MAX).contains(&id.number);
        fits(self.id())
            && self.before.iter().all(|id| fits(*id))
            && self.before.windows(2).all(|pair| pair[0].rank < pair[1].rank)
            && self.before.iter().all(|id| id.rank != self.sender || id.number + 1 == self.number)
    }
}
