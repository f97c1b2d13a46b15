//! The handle by which anybody on a node reads its adjusted clock.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use mainstay_base::{Duration, Instant};
use thiserror::Error;

use super::super::corrected::nanos;
use super::alarms::Alarms;
use super::course::Course;
use super::page::{Page, Sheet};
use crate::Time;

/// Courses that are remembered, for [`GlobalClock::elapsed_since`].
const LEGS_MAX: usize = 256;

/// Reads the local clock that the node's machines are driven by, from any thread.
pub type LocalTime = Arc<dyn Fn() -> Instant + Send + Sync>;

/// The adjusted clock of a node: `Send`, `Sync`, cheap to clone. Reading it sends no message and takes no lock.
///
/// It exists before the service that corrects it, and after: until the service has begun it says [`Time::ZERO`] and is not synchronised,
/// and when the service is gone it goes on alone until its last word is too old to count.
#[derive(Clone)]
pub struct GlobalClock {
    shared: Arc<Shared>,
}

struct Shared {
    local: OnceLock<LocalTime>,
    page: Page,
    /// The courses so far, each with the local time from which it held.
    legs: Mutex<VecDeque<(i64, Course)>>,
    alarms: Alarms,
    /// How far two clocks of the plan may be apart, in nanoseconds; not set before the service began, or where each says its own error.
    precision: OnceLock<i64>,
}

/// A reading, and when it was by the local clock.
///
/// Readings of one process are in the order of version and time (CLK-6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Now {
    /// Of the last correction.
    pub version: u64,
    /// What the clock said.
    pub time: Time,
    /// When, by the local clock of this process.
    pub local: Instant,
}

/// A span that holds the time.
///
/// Where the algorithm follows something (a master, the true time, a reference) it is that which is inside; where clocks are only kept
/// together, the adjusted clocks of all correct nodes are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Bounded {
    /// It is no earlier.
    pub earliest: Time,
    /// It is no later.
    pub latest: Time,
}

/// The clock is not synchronised: nothing is promised of its readings but that they do not go back. Waiting may help.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[error("the clock is not synchronised")]
pub struct Unsynchronised;

/// A reading is so old that the corrections since then are not known any more.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[error("the clock does not remember that far back")]
pub struct Forgotten;

impl GlobalClock {
    /// A clock that nobody corrects yet.
    #[must_use]
    pub fn new() -> Self {
        let (local, page, legs) = (OnceLock::new(), Page::new(), Mutex::default());
        let (alarms, precision) = (Alarms::default(), OnceLock::new());
        Self { shared: Arc::new(Shared { local, page, legs, alarms, precision }) }
    }

    /// Says how the local clock is read: that by which the node is driven. Only the first call counts.
    pub fn attach(&self, local: LocalTime) {
        let _ = self.shared.local.set(local);
    }

    /// The time, and the version of the last correction. It never goes back, on any thread (CLK-1).
    #[must_use]
    pub fn now(&self) -> (Time, u64) {
        let (sheet, local) = self.sheet();
        (time(sheet.nanos(local)), sheet.version)
    }

    /// The same, with the local time.
    #[must_use]
    pub fn read(&self) -> Now {
        let (sheet, local) = self.sheet();
        let at = Instant::from_nanos(u64::try_from(local).unwrap_or(0));
        Now { version: sheet.version, time: time(sheet.nanos(local)), local: at }
    }

    /// A span that holds the time.
    ///
    /// # Errors
    /// [`Unsynchronised`].
    pub fn now_bounded(&self) -> Result<Bounded, Unsynchronised> {
        let (sheet, local) = self.sheet();
        if !sheet.is_valid(local) {
            return Err(Unsynchronised);
        }
        let (now, error) = (sheet.nanos(local), sheet.error(local));
        Ok(Bounded {
            earliest: time(now.saturating_sub(error)),
            latest: time(now.saturating_add(error)),
        })
    }

    /// Whether the promises of the plan hold. A service that needs the common time takes no new work while they do not (CLK-41). False
    /// also if the service has not said anything for too long.
    #[must_use]
    pub fn is_synchronised(&self) -> bool {
        let (sheet, local) = self.sheet();
        sheet.is_valid(local)
    }

    /// It is surely not yet `at`. False while the clock is not synchronised.
    #[must_use]
    pub fn before(&self, at: Time) -> bool {
        self.now_bounded().is_ok_and(|now| now.latest < at)
    }

    /// `at` has surely passed. False while the clock is not synchronised.
    #[must_use]
    pub fn after(&self, at: Time) -> bool {
        self.now_bounded().is_ok_and(|now| now.earliest > at)
    }

    /// How long ago this process read the clock: by the hardware, so that corrections since then are not in it. The error is the drift times
    /// what has passed (CLK-5).
    #[must_use]
    pub fn elapsed(&self, since: &Now) -> Duration {
        self.read().local.saturating_since(since.local)
    }

    /// The same, since the clock said `at`; none if it has not said so yet.
    ///
    /// # Errors
    /// [`Forgotten`]: this was before the last 256 corrections, or before the process began.
    pub fn elapsed_since(&self, at: Time) -> Result<Duration, Forgotten> {
        let (_, local) = self.sheet();
        let at = i64::try_from(at.as_nanos()).unwrap_or(i64::MAX);
        let legs = self.legs();
        let (mut until, mut found) = (i64::MAX, None);
        for (from, course) in legs.iter().rev() {
            let began = course.nanos(*from);
            if began <= at {
                found = Some(course.when(at).unwrap_or(i64::MAX).max(*from).min(until));
            }
            // A clock that stood still said so before this course as well.
            if began < at {
                break;
            }
            until = *from;
        }
        let passed = |then: i64| u64::try_from(local.saturating_sub(then)).unwrap_or(0);
        found.map(|then| Duration::from_nanos(passed(then))).ok_or(Forgotten)
    }

    /// A hybrid clock of `site` on this one: a stamp that is further ahead than any correct clock can be is refused. The bound is the precision of the plan and,
    /// after a correction that was missed, what this clock may have drifted since.
    ///
    /// # Errors
    /// [`Unsynchronised`]: there is no bound; also with algorithms whose clocks each say how far they may be wrong (intersection of intervals), since nobody knows
    /// how far those of others may be.
    #[cfg(feature = "logical")]
    pub fn hybrid(
        &self,
        site: mainstay_base::SiteId,
        floor: crate::hybrid::Moment,
    ) -> Result<crate::hybrid::Clock, Unsynchronised> {
        let (sheet, local) = self.sheet();
        if !sheet.is_valid(local) {
            return Err(Unsynchronised);
        }
        let precision = *self.shared.precision.get().ok_or(Unsynchronised)?;
        let ahead_max = super::super::config::span(precision.saturating_add(sheet.drifted(local)));
        Ok(crate::hybrid::Clock::new(site, ahead_max, floor))
    }

    /// Two clocks of the plan differ by no more. Only the first word counts: a clock is of one plan.
    pub(super) fn promise(&self, precision: Duration) {
        if precision < Duration::MAX {
            let _ = self.shared.precision.set(super::super::config::long(precision));
        }
    }

    pub(super) fn alarms(&self) -> &Alarms {
        &self.shared.alarms
    }

    /// What nobody may be told to be later than, from here on.
    pub(super) fn floor(&self) -> i64 {
        let (sheet, local) = self.sheet();
        sheet.nanos(local)
    }

    /// The service has another course, from `from` on by the local clock.
    pub(super) fn write(&self, from: i64, sheet: Sheet) {
        let mut legs = self.legs();
        self.shared.page.write(sheet, || self.local());
        if legs.back().is_none_or(|(_, last)| *last != sheet.course) {
            legs.push_back((from, sheet.course));
        }
        if legs.len() > LEGS_MAX {
            legs.pop_front();
        }
    }

    fn local(&self) -> Option<i64> {
        self.shared.local.get().map(|local| nanos(local()))
    }

    fn sheet(&self) -> (Sheet, i64) {
        let (sheet, local) = self.shared.page.read(|| self.local());
        (sheet, local.unwrap_or(sheet.course.at))
    }

    fn legs(&self) -> MutexGuard<'_, VecDeque<(i64, Course)>> {
        self.shared.legs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn time(nanos: i64) -> Time {
    Time::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

impl Default for GlobalClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for GlobalClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (time, version) = self.now();
        f.debug_struct("GlobalClock").field("time", &time).field("version", &version).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::super::super::corrected::Corrected;
    use super::*;

    /// Checks CLK-1 on several threads, while the clock is made slower and faster by a service whose turns take long.
    #[test]
    fn readers_on_all_threads_see_it_go_on() {
        let (clock, ticks) = (GlobalClock::new(), Arc::new(AtomicU64::new(1_000)));
        let local = Arc::clone(&ticks);
        // A local clock that goes on by one with each look at it.
        let read = move || Instant::from_nanos(local.fetch_add(1, Ordering::SeqCst));
        clock.attach(Arc::new(read));
        let (last, worst, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let before = last.load(Ordering::SeqCst);
                        let now = clock.now().0.as_nanos();
                        worst.fetch_max(before.saturating_sub(now), Ordering::SeqCst);
                        last.fetch_max(now, Ordering::SeqCst);
                    }
                });
            }
            let mut course = Course::still(1_000, 5_000);
            for version in 0..20_000 {
                // The turn begins, and takes long.
                let at = ticks.load(Ordering::SeqCst) as i64;
                while ticks.fetch_add(1, Ordering::SeqCst) < at as u64 + 40 {
                    std::hint::spin_loop();
                }
                let target = Corrected::new(course.nanos(at) - at);
                let slew = if version % 2 == 0 { 900_000_000 } else { -900_000_000 };
                course = Course::towards(at, course.nanos(at), slew, at + 1_000, &target);
                clock.write(at, Sheet { course, version, ..Sheet::EMPTY });
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(last.into_inner() > 5_000, "it goes on");
        assert_eq!(worst.into_inner(), 0, "it went back by so much");
    }

    /// Checks CLK-38: the bound of a hybrid clock is how far others may be, not how far this one may be wrong. A clock that others follow says that it is right.
    #[cfg(feature = "logical")]
    #[test]
    fn a_stamp_is_refused_by_the_precision_of_all() {
        use crate::hybrid::{Moment, ObserveError};
        let cluster = mainstay_base::ClusterId::from_entropy(1);
        let node = mainstay_base::NodeId::new(cluster, "a");
        let site =
            mainstay_base::SiteId { node, incarnation: mainstay_base::Incarnation::default() };
        let clock = GlobalClock::new();
        clock.attach(Arc::new(|| Instant::from_nanos(1_000)));
        let course = Course::still(1_000, 5_000);
        clock.write(0, Sheet { course, error: 10, valid: i64::MAX, ..Sheet::EMPTY });
        let floor = Moment::default();
        assert_eq!(clock.hybrid(site, floor).err(), Some(Unsynchronised), "nobody said a bound");
        clock.promise(Duration::from_nanos(500));
        let mut hybrid = clock.hybrid(site, floor).unwrap_or_else(|error| panic!("{error}"));
        let ahead = |by: u64| Moment { time: Time::from_nanos(5_000 + by), ..floor };
        assert!(hybrid.observe(clock.now().0, ahead(499)).is_ok());
        let refused = hybrid.observe(clock.now().0, ahead(10_000));
        assert!(matches!(refused, Err(ObserveError::Ahead { .. })), "{refused:?}");
    }
}
