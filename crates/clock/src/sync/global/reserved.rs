//! How far ahead a reading is stored, so that no later process goes back (CLK-10).

use mainstay_base::Duration;
use mainstay_base::service::Io;

use super::course::Course;
use crate::sync::config::long;

/// The shortest span that a reading is stored ahead: a write for each half of it.
const STEP_MIN: Duration = Duration::from_millis(1);
/// The longest: after a crash the clock stands still for as long.
const STEP_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is stored, and what is being.
#[derive(Debug)]
pub(super) struct Reserved {
    /// `None`: nothing is stored.
    step: Option<i64>,
    /// What is being written, or was last.
    asked: i64,
    io: Io,
    /// The oldest record that is needed.
    keeps: Io,
    writes: u64,
}

impl Reserved {
    /// Nothing is being written; all up to `floor` is stored by the record `last`.
    pub(super) fn new(step: Option<Duration>, floor: i64, last: Io) -> Self {
        let step = step.map(|step| long(step.clamp(STEP_MIN, STEP_MAX)));
        Self { step, asked: floor, io: last, keeps: last, writes: 0 }
    }

    /// Whether the clock stops at what is stored.
    pub(super) fn caps(&self) -> bool {
        self.step.is_some()
    }

    /// What is to be stored now: half of what is stored is used up. While the clock waits what it waits for counts: so what is stored is no further
    /// ahead of the time than one step, however often a process begins anew.
    pub(super) fn due(&self, course: &Course, local: i64, waits: bool) -> Option<i64> {
        let (step, half) = (self.step?, self.half()?);
        let reading = if waits { course.followed(local) } else { course.uncapped(local) };
        // What is followed is rounded.
        let is_due = reading.saturating_add(2) >= half && !self.is_writing(course);
        is_due.then(|| reading.saturating_add(step))
    }

    /// It is being stored, as the record `io`.
    pub(super) fn stores(&mut self, limit: i64, io: Io) {
        (self.asked, self.io) = (limit, io);
        self.writes += 1;
    }

    /// What the clock may say from here on, now that the records up to `io` are stable.
    pub(super) fn written(&mut self, io: Io) -> Option<i64> {
        if io < self.io || self.step.is_none() {
            return None;
        }
        self.keeps = self.io;
        Some(self.asked)
    }

    /// What is to be written again, so that the records up to `upto` need not be kept.
    pub(super) fn again(&self, upto: Io) -> Option<i64> {
        (self.keeps <= upto && self.asked > 0).then_some(self.asked)
    }

    /// The local time at which more is to be stored.
    pub(super) fn deadline(&self, course: &Course) -> Option<i64> {
        if self.is_writing(course) {
            return None;
        }
        course.used_when(self.half()?)
    }

    /// Whether the next limit is being written.
    pub(super) fn is_writing(&self, course: &Course) -> bool {
        self.asked > course.cap
    }

    pub(super) fn keeps(&self) -> Io {
        if self.keeps == Io::ZERO { Io::MAX } else { self.keeps }
    }

    /// Forced writes so far.
    pub(super) fn writes(&self) -> u64 {
        self.writes
    }

    fn half(&self) -> Option<i64> {
        Some(self.asked.saturating_sub(self.step? / 2))
    }
}
