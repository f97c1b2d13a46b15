//! The adjusted clock: it follows the clock of an algorithm, which jumps, and does not jump itself.
//!
//! *Problem.* A correction may be negative, and protocols break if time goes back. And whoever measures a span by two readings must
//! not find a correction in it.
//!
//! *Idea.* A correction is a slower or faster walk until the adjusted clock meets the corrected one. How much faster is fixed by the plan: the
//! largest correction of a synchronised clock is walked off in half a period, before the next one comes.
//!
//! What is further away than twice that cannot be walked off, and happens only to a clock that is not synchronised: one that begins, or was lost.
//! Forward it steps; where it is ahead, it stands still until it is caught up with. Until then it does not count as
//! synchronised.

use mainstay_base::{Duration, Instant};

use super::super::config::{ConfigError, Plan, long, span};
use super::super::corrected::{BILLION, Corrected, nanos};
use super::course::Course;

/// The slowest walk, in parts of a billion: a small correction is over soon.
const SLEW_MIN: i64 = 500_000;
/// The fastest.
const SLEW_MAX: i64 = 500_000_000;
/// The walk where corrections have no bound.
const SLEW_FREE: i64 = 10_000_000;

/// What an adjusted clock promises while it is synchronised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promise {
    /// Two adjusted clocks differ by no more, at any instant: the precision of the algorithm, and what clocks drift apart until a correction is
    /// walked off. [`Duration::MAX`] where each clock says by itself how far it may be wrong.
    pub precision: Duration,
    /// An adjusted clock is no further from the clock of its algorithm.
    pub lag: Duration,
    /// How much faster or slower than real time the clock may run, corrections that are walked off included, in parts of a billion: ρ̂.
    pub rate: u64,
}

impl Promise {
    /// Of adjusted clocks that follow the clocks of a plan.
    ///
    /// # Errors
    /// [`ConfigError::Period`]: corrections are too large to be walked off in half a period.
    pub fn of(plan: &Plan) -> Result<Self, ConfigError> {
        let (config, bounds) = (plan.config(), plan.bounds());
        let slew = slew(plan);
        if slew > SLEW_MAX {
            let least = span(reach(plan).saturating_mul(2 * BILLION / SLEW_MAX).saturating_add(2));
            return Err(ConfigError::Period { period: config.period, least });
        }
        let lag = span(reach(plan));
        let precision = match bounds.precision {
            Duration::MAX => Duration::MAX,
            // A clock that walks is between the one that was corrected, as it would have gone on, and the corrected one. So two are no further
            // apart than some two of these four. Those differ by the precision when one is corrected, as it holds between two corrections
            // of one round, and drift apart until the walk is over; a corrected rate may double the drift.
            precision => {
                let drift = 2 * config.drift.apart(config.drift.stretch(long(config.period)));
                precision.saturating_add(span(drift))
            }
        };
        // The walk is on top of the rate of the algorithm's clock, which hardware correction sets, and both on top of the drift.
        let drift = i64::from(config.drift.parts());
        let rate = slew + 3 * drift + slew * 3 * drift / BILLION + 1;
        Ok(Self { precision, lag, rate: rate.unsigned_abs() })
    }
}

/// The largest correction that is walked off in half a period.
fn reach(plan: &Plan) -> i64 {
    match plan.bounds().correction {
        Duration::MAX => walked(half(plan), SLEW_FREE),
        correction => long(correction),
    }
}

fn half(plan: &Plan) -> i64 {
    long(plan.config().period) / 2
}

fn walked(span: i64, slew: i64) -> i64 {
    (i128::from(span) * i128::from(slew) / i128::from(BILLION)) as i64
}

fn slew(plan: &Plan) -> i64 {
    if plan.bounds().correction == Duration::MAX {
        return SLEW_FREE;
    }
    let parts = i128::from(reach(plan)) * i128::from(BILLION) / i128::from(half(plan).max(1)) + 1;
    i64::try_from(parts).unwrap_or(i64::MAX).max(SLEW_MIN)
}

/// How a correction is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// It is walked off.
    Walked,
    /// By a step forward, or by standing still.
    Stepped,
}

/// A clock that follows another one.
#[derive(Clone, Debug)]
pub(super) struct Adjusted {
    pub(super) course: Course,
    slew: i64,
    reach: i64,
    begun: bool,
    /// The local time from which it is near to what it follows, and from which spans are kept.
    near: i64,
    /// How long it does not count as synchronised after a step.
    rest: i64,
    /// The last correction was a step forward.
    stepped: bool,
    #[cfg(feature = "test-util")]
    pub(super) fault: Option<crate::fault::Fault>,
}

impl Adjusted {
    /// One that says `floor` until it is led on.
    pub(super) fn new(now: Instant, floor: i64, plan: &Plan) -> Self {
        Self {
            course: Course::still(nanos(now), floor),
            slew: slew(plan),
            reach: reach(plan),
            begun: false,
            near: i64::MAX,
            rest: half(plan) / 2,
            stepped: false,
            #[cfg(feature = "test-util")]
            fault: None,
        }
    }

    /// From `now` on it follows `target`.
    pub(super) fn follow(&mut self, now: Instant, target: &Corrected) -> Taken {
        let (local, cap) = (nanos(now), self.course.cap);
        let own = self.course.uncapped(local);
        let off = target.nanos(now) - own;
        let (course, taken) = if mainstay_base::fault!(self, StepsBack) {
            (Course::along(local, target), Taken::Walked)
        } else if self.begun && off.abs() <= 2 * self.reach {
            (self.walk(local, own, off, target), Taken::Walked)
        } else if off >= 0 {
            (Course::along(local, target), Taken::Stepped)
        } else {
            (Course::waiting(local, own, target), Taken::Stepped)
        };
        if taken == Taken::Stepped || off.abs() > self.reach {
            self.near = course.until;
        }
        self.stepped = taken == Taken::Stepped && off >= 0 && self.begun;
        if self.stepped {
            // Whoever measured a span over this has to know.
            self.near = self.near.max(local.saturating_add(self.rest));
        }
        self.begun = true;
        self.course = Course { cap, ..course };
        taken
    }

    fn walk(&self, local: i64, own: i64, off: i64, target: &Corrected) -> Course {
        let pace =
            if mainstay_base::fault!(self, WalksTooFast) { 10 * self.slew } else { self.slew };
        let span = i128::from(off.abs()) * i128::from(BILLION) / i128::from(pace);
        let until = local.saturating_add(span as i64);
        let slew = target.rate() + pace * off.signum();
        Course::towards(local, own, slew, until, target)
    }

    /// Whether it has just stepped forward.
    pub(super) fn has_stepped(&self) -> bool {
        self.stepped
    }

    /// Whether it was led on since it was made.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// From when on it is near to what it follows.
    pub(super) fn near(&self) -> i64 {
        self.near
    }
}
