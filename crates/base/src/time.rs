//! Time as an argument.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment, in nanoseconds since the origin of the host's time source.
///
/// Unlike `std::time::Instant` it can be made in a test, printed, stored and replayed. Moments of different hosts are
/// not comparable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Instant(u64);

impl Instant {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The moment `nanos` after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to here, zero if `earlier` is later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// # Panics
    /// Past the end of time (584 years after the origin).
    fn add(self, by: Duration) -> Self {
        let nanos = u64::try_from(by.as_nanos()).expect("a duration of less than 584 years");
        Self(self.0.checked_add(nanos).expect("a moment less than 584 years after the origin"))
    }
}

impl Sub<Self> for Instant {
    type Output = Duration;

    /// # Panics
    /// If `earlier` is later than `self`.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.checked_sub(earlier.0).expect("time does not go back"))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}ms", self.0 as f64 / 1e6)
    }
}
