//! Participants leave and come back.

use mainstay_base::Incarnation;
use thiserror::Error;

use super::{Graph, Id};
use crate::{COUNT_MAX, Rank};

/// Why a participant is not masked out. Nothing changed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaskOutError {
    /// No participant has that rank.
    #[error("there is no {0:?}")]
    Rank(Rank),
    /// It is masked out already.
    #[error("{0:?} is masked out already")]
    Already(Rank),
    /// A later message of it is attached here: the number was not agreed with this process.
    #[error("{rank:?} is to end with message {last}, and message {newest} is attached")]
    Attached {
        /// Who.
        rank: Rank,
        /// What was said to be its last message.
        last: u64,
        /// What is here.
        newest: u64,
    },
    /// No counting reaches that number.
    #[error("no message has number {0}")]
    Number(u64),
}

/// Why a participant is not masked in. Nothing changed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaskInError {
    /// No participant has that rank.
    #[error("there is no {0:?}")]
    Rank(Rank),
    /// It takes part.
    #[error("{0:?} is not masked out")]
    NotMasked(Rank),
    /// The incarnation is not later than the one that left.
    #[error("{theirs:?} does not come after {ours:?}")]
    Incarnation {
        /// Who left.
        ours: Incarnation,
        /// Who is to come.
        theirs: Incarnation,
    },
    /// Messages of its former life are still missing here; a retry is safe when they have come.
    #[error("{missing} messages of the former life of {rank:?} are missing")]
    Awaited {
        /// Who.
        rank: Rank,
        /// How many.
        missing: u64,
    },
}

impl<T> Graph<T> {
    /// Attaches nothing more of a participant, and answers the number of its newest message: with this goes the agreement on
    /// its last one. [`mask_out`](Self::mask_out) ends it, or [`unwedge`](Self::unwedge). `None` if nobody has that rank.
    pub fn wedge(&mut self, rank: Rank) -> Option<u64> {
        let seat = self.seats.get_mut(rank.index())?;
        seat.wedged = true;
        Some(seat.newest())
    }

    /// A participant that was [wedged](Self::wedge) stays after all.
    pub fn unwedge(&mut self, rank: Rank) {
        if let Some(seat) = self.seats.get_mut(rank.index()) {
            seat.wedged = false;
            self.attach_held(Vec::new());
        }
    }

    /// A participant takes part no more: it counts for stability no longer, and its messages behind `last` are refused. All
    /// others have to say the same number: the greatest that any of them has.
    ///
    /// # Errors
    /// [`MaskOutError`].
    pub fn mask_out(&mut self, rank: Rank, last: u64) -> Result<(), MaskOutError> {
        let seat = self.seats.get_mut(rank.index()).ok_or(MaskOutError::Rank(rank))?;
        let newest = seat.newest();
        if seat.is_masked() {
            return Err(MaskOutError::Already(rank));
        }
        if last < newest {
            return Err(MaskOutError::Attached { rank, last, newest });
        }
        if last > COUNT_MAX {
            return Err(MaskOutError::Number(last));
        }
        seat.mask = Some(last);
        seat.wedged = false;
        self.refused += self.hold.drop_behind(rank, last);
        for rank in 0..self.seats.len() {
            self.count_stable(rank);
        }
        self.forget_all();
        self.attach_held(Vec::new());
        Ok(())
    }

    /// A participant comes back as another incarnation. It counts for stability from now on: nothing more becomes stable
    /// until its first message is here.
    ///
    /// # Errors
    /// [`MaskInError`].
    pub fn mask_in(&mut self, rank: Rank, incarnation: Incarnation) -> Result<(), MaskInError> {
        let seat = self.seats.get_mut(rank.index()).ok_or(MaskInError::Rank(rank))?;
        let (ours, newest) = (seat.incarnation(), seat.newest());
        let last = seat.mask.ok_or(MaskInError::NotMasked(rank))?;
        if incarnation <= ours {
            return Err(MaskInError::Incarnation { ours, theirs: incarnation });
        }
        if last > newest {
            return Err(MaskInError::Awaited { rank, missing: last - newest });
        }
        seat.mask = None;
        seat.begin_era(newest + 1, incarnation);
        Ok(())
    }

    /// Whether it is masked out; true of ranks that nobody has.
    #[must_use]
    pub fn is_masked_out(&self, rank: Rank) -> bool {
        self.seats.get(rank.index()).is_none_or(super::Seat::is_masked)
    }

    /// The messages of those masked out that are still to come: missing also if no message names them.
    pub fn awaited(&self) -> impl Iterator<Item = Id> + '_ {
        let seats = self.seats.iter().enumerate();
        seats.flat_map(|(rank, seat)| {
            let numbers = seat.newest() + 1..=seat.mask.unwrap_or(0);
            numbers.map(move |number| Id { rank: Rank::of(rank), number })
        })
    }
}
