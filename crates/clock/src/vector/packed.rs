//! Vector stamps on the wire.

use mainstay_base::{ViewId, service::Wire};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{OtherView, Stamp};
use crate::{COUNT_MAX, Members, Rank};

/// A stamp, whole or as what has changed. A wire contract.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Packed {
    /// By rank.
    Whole {
        /// In this view.
        view: ViewId,
        /// One count for each member.
        counts: Vec<u64>,
    },
    /// Against the stamp before it on the same channel, in the same view.
    Changes {
        /// The sender's own count in that stamp.
        since: u64,
        /// By how much the counts of these ranks have grown; ranks go up.
        grown: Vec<(Rank, u64)>,
    },
}

impl Wire for Packed {}

/// Packs the stamps that one process sends to one other.
#[derive(Clone, Debug)]
pub struct Packer {
    own: Rank,
    last: Option<Stamp>,
}

impl Packer {
    /// For what the member with that rank sends.
    #[must_use]
    pub fn new(own: Rank) -> Self {
        Self { own, last: None }
    }

    /// The stamp of the next message. It is whole if it is the first one, the first of its view, or shorter so.
    ///
    /// # Panics
    /// If the packer's rank is none of the stamp's view: give it a new packer at a view change.
    pub fn pack(&mut self, stamp: &Stamp) -> Packed {
        let whole = || Packed::Whole { view: stamp.view, counts: stamp.counts.to_vec() };
        let last = self.last.replace(stamp.clone());
        let Some(last) = last.filter(|last| last.check_view(stamp).is_ok()) else { return whole() };
        let mut grown = Vec::new();
        for (rank, (now, before)) in stamp.counts.iter().zip(&last.counts).enumerate() {
            match now.checked_sub(*before) {
                Some(0) => {}
                Some(by) => grown.push((Rank::of(rank), by)),
                // An older stamp than the last one.
                None => return whole(),
            }
        }
        // A change has a rank, a number and the frame of both, about thrice what a count has.
        if grown.len() * 3 > stamp.counts.len() + 3 {
            return whole();
        }
        Packed::Changes { since: last.counts[self.own.index()], grown }
    }

    /// The next one is whole: the other end lost its place.
    pub fn restart(&mut self) {
        self.last = None;
    }
}

/// Why a packed stamp is refused. Nothing changed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnpackError {
    /// It is of another view.
    #[error(transparent)]
    OtherView(#[from] OtherView),
    /// It does not have one count for each member.
    #[error("{0} counts where there is one for each member")]
    Length(usize),
    /// What it is based on is not the stamp that came last: a message was lost, repeated or overtaken. The sender has to
    /// be asked for a whole one.
    #[error("a difference against count {since}, where the last stamp had {last:?}")]
    Base {
        /// The base that it names.
        since: u64,
        /// The sender's count in the last stamp; none came.
        last: Option<u64>,
    },
    /// A rank that no member has, or ranks that do not go up. The sender is at fault.
    #[error("{0:?} is not in its place")]
    Rank(Rank),
    /// A count is above [`COUNT_MAX`], which no counting reaches. The sender is at fault.
    #[error("the count of {0:?} is more than any that counting reaches")]
    TooLarge(Rank),
}

/// Unpacks the stamps that one other process sends to this one.
#[derive(Clone, Debug)]
pub struct Unpacker {
    members: Members,
    from: Rank,
    last: Option<Stamp>,
    #[cfg(feature = "test-util")]
    fault: Option<crate::fault::Fault>,
}

impl Unpacker {
    /// For what that member of the view sends. At a view change there has to be a new one.
    #[must_use]
    pub fn new(members: Members, from: Rank) -> Self {
        Self {
            members,
            from,
            last: None,
            #[cfg(feature = "test-util")]
            fault: None,
        }
    }

    /// Breaks it.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    #[must_use]
    pub fn broken(self, fault: Option<crate::fault::Fault>) -> Self {
        Self { fault, ..self }
    }

    /// The stamp.
    ///
    /// # Errors
    /// [`UnpackError`]. After [`UnpackError::Base`] a whole one is needed.
    pub fn unpack(&mut self, packed: Packed) -> Result<Stamp, UnpackError> {
        let counts = match packed {
            Packed::Whole { view, counts } => self.whole(view, counts)?,
            Packed::Changes { since, grown } => self.grown(since, &grown)?,
        };
        if let Some(rank) = counts.iter().position(|count| *count > COUNT_MAX) {
            return Err(UnpackError::TooLarge(Rank::of(rank)));
        }
        let stamp = Stamp { view: self.members.view(), counts };
        self.last = Some(stamp.clone());
        Ok(stamp)
    }

    fn whole(&self, view: ViewId, counts: Vec<u64>) -> Result<Box<[u64]>, UnpackError> {
        let ours = self.members.view();
        if view != ours {
            return Err(OtherView { ours, theirs: view }.into());
        }
        if counts.len() != self.members.len() {
            return Err(UnpackError::Length(counts.len()));
        }
        Ok(counts.into())
    }

    fn grown(&self, since: u64, grown: &[(Rank, u64)]) -> Result<Box<[u64]>, UnpackError> {
        let had = |last: &Stamp| last.counts.get(self.from.index()).copied();
        let last_count = self.last.as_ref().and_then(had);
        let any = mainstay_base::fault!(self, DeltaIgnoresBase);
        let base = self.last.as_ref().filter(|_| any || last_count == Some(since));
        let mut counts = base.ok_or(UnpackError::Base { since, last: last_count })?.counts.clone();
        let mut lowest = 0;
        for (rank, by) in grown {
            let place = counts.get_mut(rank.index()).filter(|_| rank.index() >= lowest);
            let count = place.ok_or(UnpackError::Rank(*rank))?;
            *count = count.checked_add(*by).ok_or(UnpackError::TooLarge(*rank))?;
            lowest = rank.index() + 1;
        }
        Ok(counts)
    }
}
