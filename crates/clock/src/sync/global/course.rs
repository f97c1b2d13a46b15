//! The course of an adjusted clock: what it says at each local time, from the last change on.

use super::super::corrected::{BILLION, Corrected, nanos};
use mainstay_base::Instant;

/// Rates are parts of two to this power, so that a reading costs a multiplication and no division.
const RATE_BITS: u32 = 40;
/// The rate of a clock that stands still.
const STILL: i64 = -(1 << RATE_BITS);

/// Two legs: one that leads to the clock that is followed, and the way along with it from there.
///
/// It never goes back, whatever its numbers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Course {
    /// Local time of its beginning.
    pub(super) at: i64,
    /// What it says then.
    pub(super) time: i64,
    /// How much faster than local time the first leg runs.
    pub(super) slew: i64,
    /// Local time of the end of the first leg.
    pub(super) until: i64,
    /// What it says then.
    pub(super) then: i64,
    /// How much faster than local time the second leg runs.
    pub(super) rate: i64,
    /// It says no more than this.
    pub(super) cap: i64,
}

impl Course {
    /// Says `time`, until it is led on.
    pub(super) const fn still(at: i64, time: i64) -> Self {
        let (slew, until, rate) = (STILL, i64::MAX, STILL);
        Self { at, time, slew, until, then: time, rate, cap: i64::MAX }
    }

    /// Along with `target`, from a step at `at`.
    pub(super) fn along(at: i64, target: &Corrected) -> Self {
        let time = said(target, at);
        let rate = fixed(target.rate());
        Self { at, time, slew: rate, until: at, then: time, rate, cap: i64::MAX }
    }

    /// From `time` at the rate `slew` parts of a billion, until it meets `target` at `until`.
    pub(super) fn towards(at: i64, time: i64, slew: i64, until: i64, target: &Corrected) -> Self {
        let (then, rate) = (said(target, until).max(time), fixed(target.rate()));
        Self { at, time, slew: fixed(slew), until, then, rate, cap: i64::MAX }
    }

    /// From `time` on it stands still until `target` says as much.
    pub(super) fn waiting(at: i64, time: i64, target: &Corrected) -> Self {
        let until = nanos(target.when(time)).max(at);
        Self { slew: STILL, ..Self::towards(at, time, 0, until, target) }
    }

    /// What it says at `local`.
    pub(super) fn nanos(&self, local: i64) -> i64 {
        self.uncapped(local).min(self.cap)
    }

    /// The same, were there no cap.
    pub(super) fn uncapped(&self, local: i64) -> i64 {
        if local >= self.until {
            return self.then + passed(local - self.until, self.rate);
        }
        (self.time + passed((local - self.at).max(0), self.slew)).min(self.then)
    }

    /// Whether it stands still at `local` until what it follows has caught up with it.
    pub(super) fn is_waiting(&self, local: i64) -> bool {
        self.slew == STILL && local < self.until
    }

    /// What that says which it follows, before and after it meets it.
    pub(super) fn followed(&self, local: i64) -> i64 {
        if self.until == i64::MAX {
            return i64::MIN;
        }
        self.then.saturating_add(passed(local - self.until, self.rate))
    }

    /// The first local time at which this, or while it waits what it follows, says `reading` or more.
    pub(super) fn used_when(&self, reading: i64) -> Option<i64> {
        if self.slew == STILL && reading <= self.then && self.until < i64::MAX {
            let whole = (i128::from(self.rate) + (1 << RATE_BITS)).max(1);
            let left = (i128::from(self.then.saturating_sub(reading)) << RATE_BITS) / whole;
            return Some(self.until.saturating_sub(i64::try_from(left).unwrap_or(i64::MAX)));
        }
        self.when(reading)
    }

    /// The first local time at which it says `reading` or more; `None`: never, as things are.
    pub(super) fn when(&self, reading: i64) -> Option<i64> {
        if reading > self.cap {
            return None;
        }
        if reading <= self.time {
            return Some(self.at);
        }
        let first = after(self.at, reading - self.time, self.slew).filter(|it| *it < self.until);
        let found = match first {
            Some(local) if reading <= self.then => local,
            _ if reading <= self.then => self.until,
            _ => after(self.until, reading - self.then, self.rate)?,
        };
        (found < i64::MAX).then_some(found)
    }
}

fn said(target: &Corrected, local: i64) -> i64 {
    target.nanos(Instant::from_nanos(u64::try_from(local).unwrap_or(0)))
}

/// Parts of a billion as a rate, rounded down.
fn fixed(parts: i64) -> i64 {
    (i128::from(parts) << RATE_BITS).div_euclid(i128::from(BILLION)) as i64
}

/// What passes on a clock in `span`.
fn passed(span: i64, rate: i64) -> i64 {
    span + ((i128::from(span) * i128::from(rate)) >> RATE_BITS) as i64
}

/// The first local time from `from` on at which `ahead` has passed.
fn after(from: i64, ahead: i64, rate: i64) -> Option<i64> {
    let whole = i128::from(rate) + (1 << RATE_BITS);
    if whole <= 0 {
        return None;
    }
    let span = i64::try_from(((i128::from(ahead) << RATE_BITS) + whole - 1) / whole).ok()?;
    from.checked_add(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(offset: i64, rate: i64) -> Corrected {
        let mut target = Corrected::new(offset);
        target.correct(Instant::from_nanos(1_000), 0, rate);
        target
    }

    fn courses() -> Vec<Course> {
        let mut all = vec![Course::still(1_000, 77)];
        for rate in [-300_000, 0, 100_000] {
            let target = target(10_000, rate);
            all.push(Course::along(1_000, &target));
            all.push(Course::waiting(1_000, 14_000, &target));
            all.push(Course::towards(1_000, 10_000, 1_000_000, 1_001_000, &target));
            all.push(Course::towards(1_000, 12_000, -1_000_000, 1_001_000, &target));
            all.push(Course { cap: 13_000, ..Course::along(1_000, &target) });
        }
        all
    }

    /// CLK-1, for each leg and where they meet.
    #[test]
    fn a_course_never_goes_back() {
        for course in courses() {
            let mut last = course.nanos(0);
            for local in (0..3_000).chain(999_990..1_001_100) {
                let reading = course.nanos(local);
                assert!(reading >= last, "{course:?} at {local}: {reading} after {last}");
                last = reading;
            }
        }
    }

    #[test]
    fn the_first_moment_of_a_reading_is_found() {
        for course in courses() {
            for reading in [78, 10_500, 11_001, 12_990, 14_000, 14_001, 999_999, 2_000_000] {
                let Some(local) = course.when(reading) else {
                    assert!(course.nanos(1 << 40) < reading, "{course:?} says {reading} some time");
                    continue;
                };
                assert!(course.nanos(local) >= reading, "{course:?}: {reading} not at {local}");
                let is_first = local <= course.at || course.nanos(local - 1) < reading;
                assert!(is_first, "{course:?}: {reading} before {local}");
            }
        }
    }
}
