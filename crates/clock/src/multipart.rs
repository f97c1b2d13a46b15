//! Multipart timestamps: which updates a state has (Liskov and Ladin 1986; Ladin and others, lazy replication, 1992).
//!
//! A service is replicated so that each replica takes updates alone and tells the others later. A client must not see its
//! own update undone when it asks another replica. So each answer has a timestamp, and the client gives it along with its
//! next question: *answer from a state that has at least this*. A timestamp has one part for each replica: part i says
//! "the first so many updates that replica i took". Timestamps are compared and merged like vector stamps; they count
//! updates where those count events.
//!
//! The steps at replica i. An update that is to follow `after`: raise part i, which makes the update's number, and answer
//! `after` with part i replaced by that number: greater than `after`, and the replica need not have all that `after`
//! asks for. Gossip: merge the other's timestamp. A question with t: answer if t ≤ own, else wait for gossip
//! ([`Clock::has`]).
//!
//! What all replicas are known to have may be forgotten: [`Table`].
//!
//! Numbers must not come twice though a replica restarts: they come out of a [`Reserve`], and skipped ones do no harm
//! (HA-21).

use mainstay_base::service::Wire;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::reserve::Reserve;
use crate::{COUNT_MAX, MEMBERS_MAX, Rank, Relation, counts};

/// One part for each replica of a configured list, by rank. On the wire as it is; [`Clock`] and [`Table`] check what they
/// are given.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp {
    parts: Vec<u64>,
}

impl Wire for Timestamp {}

impl Timestamp {
    /// No update at all, with so many replicas.
    ///
    /// # Errors
    /// [`PartsError::Count`]: none, or more than [`MEMBERS_MAX`].
    pub fn zero(replicas: usize) -> Result<Self, PartsError> {
        let fits = (1..=MEMBERS_MAX).contains(&replicas);
        let error = PartsError::Count { ours: MEMBERS_MAX, theirs: replicas };
        fits.then(|| Self { parts: vec![0; replicas] }).ok_or(error)
    }

    /// By rank.
    #[must_use]
    pub fn parts(&self) -> &[u64] {
        &self.parts
    }

    /// How it stands to `other`.
    ///
    /// # Errors
    /// [`PartsError::Count`].
    pub fn relation(&self, other: &Self) -> Result<Relation, PartsError> {
        self.check(other)?;
        Ok(counts::relation(&self.parts, &other.parts))
    }

    /// Makes it the least timestamp that neither exceeds.
    ///
    /// # Errors
    /// [`PartsError`]; it is as before.
    pub fn merge(&mut self, other: &Self) -> Result<(), PartsError> {
        self.check(other)?;
        counts::merge(&mut self.parts, &other.parts);
        Ok(())
    }

    fn check(&self, other: &Self) -> Result<(), PartsError> {
        let (ours, theirs) = (self.parts.len(), other.parts.len());
        if ours != theirs {
            return Err(PartsError::Count { ours, theirs });
        }
        match other.parts.iter().position(|part| *part > COUNT_MAX) {
            Some(rank) => Err(PartsError::TooLarge(Rank::of(rank))),
            None => Ok(()),
        }
    }
}

/// Why a timestamp does not fit. Nothing changed; who gave it is at fault.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartsError {
    /// It has another number of parts.
    #[error("{theirs} parts where there are {ours}")]
    Count {
        /// As many as there are replicas.
        ours: usize,
        /// As many as it has.
        theirs: usize,
    },
    /// A part is above [`COUNT_MAX`], which no counting reaches.
    #[error("the part of {0:?} is more than any that counting reaches")]
    TooLarge(Rank),
    /// No replica has that rank.
    #[error("there is no replica {0:?}")]
    Rank(Rank),
}

/// Why an update got no timestamp. The replica is as before.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IssueError {
    /// The timestamp that it is to follow does not fit.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// It is to follow updates of this replica that there were none of: the client is at fault, or the replica has
    /// forgotten some.
    #[error("to follow update {theirs} of this replica, which had {ours}")]
    Unheard {
        /// How many there were.
        ours: u64,
        /// How many the client has heard of.
        theirs: u64,
    },
    /// No number may be used until the next limit is stored ([`Clock::to_store`]). A retry is safe.
    #[error("the next range of numbers is not stored yet")]
    NotStored,
}

/// What one replica has: the timestamp of its state.
///
/// ```
/// use mainstay_clock::multipart::{Clock, Timestamp};
/// use mainstay_clock::{Rank, reserve::Reserve};
/// use std::num::NonZeroU64;
///
/// let thousand = NonZeroU64::new(1000).expect("not zero");
/// let clock = |rank| Clock::recover(Rank(rank), Timestamp::zero(2)?, Reserve::recover(thousand, None));
/// let (mut one, mut other) = (clock(0)?, clock(1)?);
/// let limit = one.to_store().expect("numbers are stored before their use");
/// one.stored(limit);
///
/// // A client writes at one replica and reads at the other.
/// let nothing = Timestamp::zero(2)?;
/// let written = one.issue(&nothing)?;
/// assert_eq!(written.parts(), [1, 0]);
/// assert!(!other.has(&written)?, "it has to wait for gossip");
/// other.learn(one.now())?;
/// assert!(other.has(&written)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Clock {
    own: Rank,
    now: Timestamp,
    numbers: Reserve,
    #[cfg(feature = "test-util")]
    fault: Option<crate::fault::Fault>,
}

impl Clock {
    /// The replica with that rank, whose state has the updates of `now`: those it kept, or none.
    ///
    /// # Errors
    /// [`PartsError::Rank`]: `now` has no part for it.
    pub fn recover(own: Rank, now: Timestamp, numbers: Reserve) -> Result<Self, PartsError> {
        if own.index() >= now.parts.len() {
            return Err(PartsError::Rank(own));
        }
        Ok(Self {
            own,
            now,
            numbers,
            #[cfg(feature = "test-util")]
            fault: None,
        })
    }

    /// Breaks it.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    #[must_use]
    pub fn broken(self, fault: Option<crate::fault::Fault>) -> Self {
        Self { fault, ..self }
    }

    /// Takes an update that is to follow `after`, and answers its timestamp, which is greater.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue(&mut self, after: &Timestamp) -> Result<Timestamp, IssueError> {
        self.now.check(after)?;
        let own = self.own.index();
        let (ours, theirs) = (self.numbers.used(), after.parts[own]);
        if theirs > ours {
            return Err(IssueError::Unheard { ours, theirs });
        }
        let number = self.numbers.take().ok_or(IssueError::NotStored)?;
        self.now.parts[own] = number;
        let mut issued = after.clone();
        if mainstay_base::fault!(self, MultipartForgetsDependency) {
            issued.parts.fill(0);
        }
        issued.parts[own] = number;
        Ok(issued)
    }

    /// Takes in what another replica has, with the updates themselves.
    ///
    /// # Errors
    /// [`PartsError`].
    pub fn learn(&mut self, theirs: &Timestamp) -> Result<(), PartsError> {
        self.now.merge(theirs)
    }

    /// Whether the state has all that `wanted` asks for.
    ///
    /// # Errors
    /// [`PartsError`].
    pub fn has(&self, wanted: &Timestamp) -> Result<bool, PartsError> {
        self.now.check(wanted)?;
        Ok(counts::relation(&wanted.parts, &self.now.parts).is_covered())
    }

    /// Of the state.
    #[must_use]
    pub fn now(&self) -> &Timestamp {
        &self.now
    }

    /// See [`Reserve::to_store`].
    pub fn to_store(&mut self) -> Option<u64> {
        self.numbers.to_store()
    }

    /// See [`Reserve::stored`].
    pub fn stored(&mut self, limit: u64) {
        self.numbers.stored(limit);
    }
}

/// What each replica is known to have, by its own word: older than the truth, never newer.
///
/// ```
/// use mainstay_clock::Rank;
/// use mainstay_clock::multipart::{Table, Timestamp};
///
/// let mut table = Table::new(2)?;
/// let mut one = Timestamp::zero(2)?;
/// assert_eq!(table.everywhere(), one);
/// one = mainstay_base::codec::decode(&mainstay_base::codec::encode(&[3_u64, 1]))?;
/// table.record(Rank(0), &one)?;
/// assert_eq!(table.everywhere().parts(), [0, 0], "the other one has said nothing yet");
/// table.record(Rank(1), &one)?;
/// assert_eq!(table.everywhere().parts(), [3, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Timestamp>,
    #[cfg(feature = "test-util")]
    fault: Option<crate::fault::Fault>,
}

impl Table {
    /// Nothing is known of so many replicas.
    ///
    /// # Errors
    /// [`PartsError::Count`].
    pub fn new(replicas: usize) -> Result<Self, PartsError> {
        Ok(Self {
            rows: vec![Timestamp::zero(replicas)?; replicas],
            #[cfg(feature = "test-util")]
            fault: None,
        })
    }

    /// Breaks it.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    #[must_use]
    pub fn broken(self, fault: Option<crate::fault::Fault>) -> Self {
        Self { fault, ..self }
    }

    /// A replica says what it has. An older word than the last one changes nothing.
    ///
    /// # Errors
    /// [`PartsError`].
    pub fn record(&mut self, replica: Rank, has: &Timestamp) -> Result<(), PartsError> {
        let row = self.rows.get_mut(replica.index()).ok_or(PartsError::Rank(replica))?;
        row.merge(has)
    }

    /// What all of them have.
    #[must_use]
    pub fn everywhere(&self) -> Timestamp {
        let one = mainstay_base::fault!(self, MultipartBelievesOne);
        let least = |rank: usize| {
            let parts = self.rows.iter().map(|row| row.parts[rank]);
            if one { parts.max() } else { parts.min() }.unwrap_or(0)
        };
        Timestamp { parts: (0..self.rows.len()).map(least).collect() }
    }
}
