//! Hybrid stamps: the order of a scalar, at about the time of a clock (Kulkarni and others 2014).
//!
//! A synchronised clock tells when an event was, up to its precision; two events closer than that may have the wrong
//! order. A scalar stamp has the right order and no time. A hybrid stamp is a pair (time, count): the time is *the largest
//! reading that the event knows of*, its own clock's or that in a stamp it received; the count tells apart, in order,
//! events that know of the same largest reading.
//!
//! The steps. An event at reading p, after a last stamp (l, c): if p > l it is (p, 0), else (l, c + 1). A receipt of
//! (m, d): the time is the largest of p, l and m; the count is one more than the counts of those of l and m that have
//! this time, and 0 if only p has. So stamps grow along every chain (CLK-30). As each time was once read from some clock,
//! and that clock is at most the precision ahead of this one, a stamp is within the precision of the time (CLK-38).
//!
//! That last step rests on clocks that keep their precision. One process whose clock runs ahead would pull the stamps of
//! all along, for good. So a stamp that is further ahead of the own clock than the [bound](Clock::new) is refused, and
//! so is stamping at all while the own clock is so far behind the own last stamp, as it is after stepping back: such a
//! process is faulty, and knows it.
//!
//! Should a clock stand still, the count fills, and carries over into the time: the order is kept.

use std::fmt;

use mainstay_base::{Duration, SiteId, service::Wire};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Time;

/// When an event was, and its place among those of that time. What goes on the wire, where the frame says who sent it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Moment {
    /// The largest reading that the event knew of.
    pub time: Time,
    /// Its place among the events that knew of no larger one, from 0.
    pub count: u32,
}

impl Wire for Moment {}

impl Moment {
    /// Before every event.
    pub const ZERO: Self = Self { time: Time::ZERO, count: 0 };

    /// The next one. `None` behind the last moment there is.
    fn next(self) -> Option<Self> {
        match self.count.checked_add(1) {
            Some(count) => Some(Self { count, ..self }),
            None => {
                let nanos = self.time.as_nanos().checked_add(1)?;
                Some(Self { time: Time::from_nanos(nanos), count: 0 })
            }
        }
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}+{}", self.time, self.count)
    }
}

/// An event's place in a total order that follows causes: by moment, then by process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Stamp {
    /// When.
    pub moment: Moment,
    /// Whose event it is.
    pub site: SiteId,
}

impl Wire for Stamp {}

/// Why an event has no stamp. The clock is as before.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StampError {
    /// The own clock is further behind the last stamp than the bound: it stepped back, or stands still while others go
    /// on. This process is at fault; it can stamp again when its clock has caught up.
    #[error("this process's clock is {by:?} behind its last stamp, and may be {bound:?}")]
    Behind {
        /// So far.
        by: Duration,
        /// And no further.
        bound: Duration,
    },
}

/// Why a received stamp is refused. The clock is as before, and the message counts as not received.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ObserveError {
    /// It is further ahead of the own clock than the bound: one of the two clocks is wrong. It would be taken once the own
    /// clock has come near.
    #[error("a stamp is {by:?} ahead of this process's clock, and may be {bound:?}")]
    Ahead {
        /// So far.
        by: Duration,
        /// And no further.
        bound: Duration,
    },
    /// The receipt cannot be stamped.
    #[error(transparent)]
    Stamp(#[from] StampError),
}

/// The hybrid clock of one process: one moment.
///
/// ```
/// use mainstay_base::{ClusterId, Duration, Incarnation, NodeId, SiteId};
/// use mainstay_clock::Time;
/// use mainstay_clock::hybrid::{Clock, Moment, ObserveError};
///
/// let cluster = ClusterId::from_entropy(1);
/// let site = |name| SiteId { node: NodeId::new(cluster, name), incarnation: Incarnation(1) };
/// let bound = Duration::from_millis(10);
/// let mut a = Clock::new(site("a"), bound, Moment::ZERO);
/// let mut b = Clock::new(site("b"), bound, Moment::ZERO);
/// let ms = |ms: u64| Time::from_nanos(ms * 1_000_000);
///
/// // The clock of b is 3 ms behind, and yet what comes after has the greater stamp.
/// let sent = a.stamp(ms(103))?;
/// let received = b.observe(ms(100), sent.moment)?;
/// assert!(sent < received && received.moment.time == ms(103));
///
/// let wrong = Moment { time: ms(111), count: 0 };
/// assert!(matches!(b.observe(ms(100), wrong), Err(ObserveError::Ahead { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Clock {
    site: SiteId,
    ahead_max: Duration,
    last: Moment,
    #[cfg(feature = "test-util")]
    fault: Option<crate::fault::Fault>,
}

impl Clock {
    /// The clock of `site`, whose stamps are all above `floor`: what it kept from before a restart, or zero.
    ///
    /// No stamp may be further ahead of the clock than `ahead_max`: the precision of the clocks, and what it takes to
    /// be generous.
    #[must_use]
    pub fn new(site: SiteId, ahead_max: Duration, floor: Moment) -> Self {
        Self {
            site,
            ahead_max,
            last: floor,
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

    /// Stamps an event, or the sending of a message, when the process's clock says `now`.
    ///
    /// # Errors
    /// [`StampError`].
    pub fn stamp(&mut self, now: Time) -> Result<Stamp, StampError> {
        self.after(now, self.last)
    }

    /// Stamps the receipt of a message with that moment; of a copy, too.
    ///
    /// # Errors
    /// [`ObserveError`].
    pub fn observe(&mut self, now: Time, moment: Moment) -> Result<Stamp, ObserveError> {
        match self.excess(now, moment) {
            Some(by) if !mainstay_base::fault!(self, HybridUnbounded) => {
                Err(ObserveError::Ahead { by, bound: self.ahead_max })
            }
            _ => Ok(self.after(now, self.last.max(moment))?),
        }
    }

    /// The moment of the last event.
    #[must_use]
    pub fn last(&self) -> Moment {
        self.last
    }

    /// The least moment at `now` that is above `known`. The count of the greater of two moments is also the greater
    /// count of those with its time, so one comparison is all of the paper's cases.
    fn after(&mut self, now: Time, known: Moment) -> Result<Stamp, StampError> {
        let bare = Moment { time: now, count: 0 };
        let is_bare = bare > known || mainstay_base::fault!(self, HybridPhysicalOnly);
        let next = if is_bare { Some(bare) } else { known.next() };
        let checked = next.filter(|next| {
            is_bare
                || self.excess(now, *next).is_none()
                || mainstay_base::fault!(self, HybridUnbounded)
        });
        let Some(moment) = checked else {
            let by = known.time.saturating_since(now);
            return Err(StampError::Behind { by, bound: self.ahead_max });
        };
        self.last = moment;
        Ok(Stamp { moment, site: self.site })
    }

    /// How far it is ahead, if that is too far.
    fn excess(&self, now: Time, moment: Moment) -> Option<Duration> {
        let by = moment.time.saturating_since(now);
        (by > self.ahead_max).then_some(by)
    }
}
