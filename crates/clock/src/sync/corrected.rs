//! The corrected clock: a hardware clock, a correction and a rate.

use mainstay_base::Instant;

use crate::Time;

/// Parts in a rate.
pub(super) const BILLION: i64 = 1_000_000_000;

/// A clock that is read from local time: C = H + offset, at a rate that may differ from that of H.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Corrected {
    /// The local time of the last correction.
    at: i64,
    /// What the clock said then.
    time: i64,
    /// How much faster it runs than local time, in parts of a billion.
    rate: i64,
}

impl Corrected {
    /// Local time and this many nanoseconds.
    #[must_use]
    pub const fn new(offset: i64) -> Self {
        Self { at: 0, time: offset, rate: 0 }
    }

    /// What it says at `local`, in nanoseconds; below zero before its origin.
    #[must_use]
    pub fn nanos(&self, local: Instant) -> i64 {
        let since = nanos(local) - self.at;
        self.time.saturating_add(since).saturating_add(scale(since, self.rate))
    }

    /// What it says at `local`; [`Time::ZERO`] before its origin.
    #[must_use]
    pub fn read(&self, local: Instant) -> Time {
        Time::from_nanos(u64::try_from(self.nanos(local)).unwrap_or(0))
    }

    /// The first local time at which it says `nanos` or more; the last moment that is counted with (292 years) if there is none before.
    #[must_use]
    pub fn when(&self, nanos: i64) -> Instant {
        let ahead = i128::from(nanos) - i128::from(self.time);
        let (billion, rate) = (i128::from(BILLION), i128::from(self.rate));
        let local = i128::from(self.at) + (ahead * billion).div_euclid(billion + rate);
        let mut local = Instant::from_nanos(u64::try_from(local.max(0)).unwrap_or(u64::MAX));
        // The quotient is rounded down, and so is what is read.
        while self.nanos(local) < nanos && i64::try_from(local.as_nanos()).is_ok() {
            local = Instant::from_nanos(local.as_nanos() + 1);
        }
        local
    }

    /// From `local` on it says `by` more than it would, and runs at `rate`.
    pub fn correct(&mut self, local: Instant, by: i64, rate: i64) {
        *self = Self { at: nanos(local), time: self.nanos(local).saturating_add(by), rate };
    }

    /// How much faster than local time it runs, in parts of a billion.
    #[must_use]
    pub const fn rate(&self) -> i64 {
        self.rate
    }
}

/// Nanoseconds of a moment.
pub(super) fn nanos(at: Instant) -> i64 {
    i64::try_from(at.as_nanos()).unwrap_or(i64::MAX)
}

fn scale(span: i64, rate: i64) -> i64 {
    (i128::from(span) * i128::from(rate)).div_euclid(i128::from(BILLION)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_that_is_never_reached_is_not_sought_for_ever() {
        assert!(Corrected::new(-1).when(i64::MAX).as_nanos() >= i64::MAX as u64);
        assert!(Corrected::new(i64::MIN / 2).when(i64::MAX).as_nanos() >= i64::MAX as u64);
    }

    #[test]
    fn the_first_moment_of_a_reading_is_found_at_any_rate() {
        for rate in [-500_000_000, -100_000, -1, 0, 1, 100_000, BILLION] {
            let mut clock = Corrected::new(-5);
            clock.correct(Instant::from_nanos(1_000), 77, rate);
            for reading in [1_072, 1_073, 5_000, 123_456_789] {
                let at = clock.when(reading);
                let before = Instant::from_nanos(at.as_nanos() - 1);
                assert!(clock.nanos(at) >= reading, "rate {rate}, reading {reading}");
                assert!(
                    clock.nanos(before) < reading || at.as_nanos() == 1_000,
                    "{rate} {reading}"
                );
            }
        }
    }
}
