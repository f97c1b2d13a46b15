//! Timers on a clock that is corrected meanwhile (CLK-40).
//!
//! A timer that is set for a reading T fires once, at a reading of T or later. A correction may pass over T: the clock says
//! less than T now and more at the next look. And a reading may go back below T after the timer fired, which is no reason
//! to fire again. So a timer is not a wait of T minus now: it is an entry that leaves with the first reading that is not
//! below T.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::Time;

/// Names a timer that was set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TimerId {
    at: Time,
    number: u64,
}

/// As many timers are set as may be. Nothing changed; a retry is safe when one has fired.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[error("{0} timers are set, and more may not be")]
pub struct TooMany(pub usize);

/// Timers, each with what it is for.
///
/// ```
/// use mainstay_clock::{Time, timers::Timers};
///
/// let mut timers = Timers::new(100);
/// timers.set(Time::from_nanos(50), "half past")?;
/// assert_eq!(timers.earliest(), Some(Time::from_nanos(50)));
/// assert_eq!(timers.fire(Time::from_nanos(49)), None);
/// // A correction takes the clock from 49 to 70.
/// assert_eq!(timers.fire(Time::from_nanos(70)), Some((Time::from_nanos(50), "half past")));
/// assert_eq!(timers.fire(Time::from_nanos(70)), None);
/// # Ok::<(), mainstay_clock::timers::TooMany>(())
/// ```
#[derive(Clone, Debug)]
pub struct Timers<T> {
    set: BTreeMap<TimerId, T>,
    number: u64,
    count_max: usize,
    #[cfg(feature = "test-util")]
    fault: Option<crate::fault::Fault>,
}

impl<T> Timers<T> {
    /// None is set, and at most so many may be at a time.
    #[must_use]
    pub fn new(count_max: usize) -> Self {
        Self {
            set: BTreeMap::new(),
            number: 0,
            count_max,
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

    /// Sets one for a reading; if that has passed, it fires at the next look.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn set(&mut self, at: Time, what: T) -> Result<TimerId, TooMany> {
        if self.set.len() >= self.count_max {
            return Err(TooMany(self.set.len()));
        }
        self.number += 1;
        let id = TimerId { at, number: self.number };
        self.set.insert(id, what);
        Ok(id)
    }

    /// Takes a timer back; `None` if it has fired.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        self.set.remove(&id)
    }

    /// The earliest reading for which one is set.
    #[must_use]
    pub fn earliest(&self) -> Option<Time> {
        self.set.first_key_value().map(|(id, _)| id.at)
    }

    /// The next one that is due at the reading `now`, and for which reading it was set: the earliest first, of one reading
    /// the one that was set first. To be called until it is `None`.
    pub fn fire(&mut self, now: Time) -> Option<(Time, T)> {
        let misses = mainstay_base::fault!(self, TimerMissesJump);
        let early = mainstay_base::fault!(self, TimerFiresEarly);
        let first = self.set.first_entry()?;
        let at = first.key().at;
        if (at > now && !early) || (misses && at < now) {
            return None;
        }
        Some((at, first.remove()))
    }

    /// How many are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// None is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}
