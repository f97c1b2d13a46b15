//! Numbers that no restart uses twice, though only one in many is stored (CLK-37, HA-21).
//!
//! A process that crashes forgets how far it has counted. Were it to begin anew, two of its events would bear one
//! stamp, and what others know about the first would be taken for knowledge about the second. Storing each number
//! before its use costs a forced write for each. Instead a *limit* is stored, some numbers ahead: up to it numbers may be
//! used without a write. After a crash counting goes on behind the stored limit, whether or not what is below it was
//! used. The numbers that are skipped do no harm, as nobody counts without gaps by them.
//!
//! The next limit is asked for when half of the present one is used up, so that the write has time.

use std::num::NonZeroU64;

/// Hands out numbers from 1, each once, also across restarts.
///
/// ```
/// use mainstay_clock::reserve::Reserve;
/// use std::num::NonZeroU64;
///
/// let hundred = NonZeroU64::new(100).expect("not zero");
/// let mut numbers = Reserve::recover(hundred, None);
/// assert_eq!(numbers.take(), None, "nothing is stored yet");
/// let limit = numbers.to_store().expect("so it has to be");
/// // The host writes `limit`, and says so when the medium has it.
/// numbers.stored(limit);
/// assert_eq!((numbers.take(), numbers.take()), (Some(1), Some(2)));
///
/// // A crash. What is left is what was stored.
/// let mut numbers = Reserve::recover(hundred, Some(limit));
/// let limit = numbers.to_store().expect("all of the old range counts as used");
/// numbers.stored(limit);
/// assert_eq!(numbers.take(), Some(101));
/// ```
#[derive(Clone, Debug)]
pub struct Reserve {
    every: u64,
    /// The last number that was handed out, or may have been before a restart.
    used: u64,
    /// Numbers up to here may be used.
    stored: u64,
    /// The limit that the host was last asked to store.
    asked: u64,
}

impl Reserve {
    /// Numbers behind the limit that was stored last; `None` at the first start. So many are reserved with each write.
    #[must_use]
    pub fn recover(every: NonZeroU64, stored: Option<u64>) -> Self {
        Self::at(every, stored.unwrap_or(0))
    }

    /// As [`recover`](Self::recover), broken: goes on where the last range began.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    #[must_use]
    pub fn recover_broken(
        every: NonZeroU64,
        stored: Option<u64>,
        fault: Option<crate::fault::Fault>,
    ) -> Self {
        let again = fault == Some(crate::fault::Fault::ReserveStartsAtStored);
        Self::at(every, stored.unwrap_or(0).saturating_sub(if again { every.get() } else { 0 }))
    }

    fn at(every: NonZeroU64, stored: u64) -> Self {
        Self { every: every.get(), used: stored, stored, asked: stored }
    }

    /// The next number; `None` until [`to_store`](Self::to_store) was answered by [`stored`](Self::stored).
    pub fn take(&mut self) -> Option<u64> {
        if self.used >= self.stored {
            return None;
        }
        self.used += 1;
        Some(self.used)
    }

    /// The last number that was handed out, or may have been before a restart; 0: none.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    /// A limit to be stored, once for each: when half of what is reserved is used, or less is left.
    pub fn to_store(&mut self) -> Option<u64> {
        let is_due = self.asked == self.stored && self.stored - self.used <= self.every / 2;
        let limit = self.stored.checked_add(self.every).filter(|_| is_due)?;
        self.asked = limit;
        Some(limit)
    }

    /// The medium has the limit. A lower one than before changes nothing; one that was not asked for neither.
    pub fn stored(&mut self, limit: u64) {
        if limit <= self.asked {
            self.stored = self.stored.max(limit);
        }
    }
}
