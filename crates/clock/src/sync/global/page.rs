//! The page on which a service writes how its clock goes, and which anybody reads without a lock.
//!
//! A sequence lock of atomics: the writer makes the number odd, writes, and makes it even again; who reads looks at the number before and
//! after, and reads again if it was odd or has changed. Readers write nothing, so any number of them cost each other nothing.
//!
//! A turn of the service knows the time at which it began. Until it has written, others read the old course, perhaps beyond that time; where the
//! new course is the slower one, they would be behind what was read already. So the page has a floor: the old course at the moment of
//! writing. The local clock is looked at inside the lock, by writers and readers, so whoever reads the old course has looked before that moment.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering, fence};

use super::course::Course;

const WORDS: usize = 13;
/// A writer that runs is done long before a reader has looked so often.
const SPINS_MAX: u32 = 128;

/// What is on the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sheet {
    pub(super) course: Course,
    /// Nobody reads less.
    pub(super) floor: i64,
    pub(super) version: u64,
    /// How far the clock may be wrong at the local time `since`.
    pub(super) error: i64,
    pub(super) since: i64,
    /// How much that grows, in parts of a billion of the time that passes.
    pub(super) growth: i64,
    /// The local time until which it is synchronised, if it is not written again.
    pub(super) valid: i64,
}

impl Sheet {
    pub(super) const EMPTY: Self = Self {
        course: Course::still(0, 0),
        floor: 0,
        version: 0,
        error: i64::MAX,
        since: 0,
        growth: 0,
        valid: i64::MIN,
    };

    fn words(&self) -> [i64; WORDS] {
        let Course { at, time, slew, until, then, rate, cap } = self.course;
        let version = i64::try_from(self.version).unwrap_or(i64::MAX);
        let Self { floor, error, since, growth, valid, .. } = *self;
        [at, time, slew, until, then, rate, cap, floor, version, error, since, growth, valid]
    }

    fn of(words: [i64; WORDS]) -> Self {
        let [at, time, slew, until, then, rate, cap, floor, version, error, since, growth, valid] =
            words;
        let course = Course { at, time, slew, until, then, rate, cap };
        Self { course, floor, version: version.unsigned_abs(), error, since, growth, valid }
    }

    /// What the clock says at `local`.
    pub(super) fn nanos(&self, local: i64) -> i64 {
        self.course.nanos(local).max(self.floor)
    }

    /// Whether the clock is synchronised at `local`.
    pub(super) fn is_valid(&self, local: i64) -> bool {
        local < self.valid && self.course.nanos(local) < self.course.cap
    }

    /// How far the clock may be wrong at `local`.
    pub(super) fn error(&self, local: i64) -> i64 {
        self.error.saturating_add(self.drifted(local))
    }

    /// How far it may have drifted at `local` since its error was known.
    pub(super) fn drifted(&self, local: i64) -> i64 {
        let grown = i128::from((local - self.since).max(0)) * i128::from(self.growth);
        i64::try_from(grown / 1_000_000_000 + 1).unwrap_or(i64::MAX)
    }
}

#[derive(Debug)]
pub(super) struct Page {
    number: AtomicU64,
    words: [AtomicI64; WORDS],
}

impl Page {
    pub(super) fn new() -> Self {
        Self { number: AtomicU64::new(0), words: Sheet::EMPTY.words().map(AtomicI64::new) }
    }

    /// Writes. There is one writer at a time. `local` is asked when nobody reads the old sheet any more.
    pub(super) fn write(&self, sheet: Sheet, local: impl FnOnce() -> Option<i64>) {
        let old = self.load();
        let number = self.number.load(Ordering::Relaxed);
        self.number.store(number.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let read = local().map_or(old.floor, |local| old.nanos(local));
        let sheet = Sheet { floor: read.max(sheet.floor), ..sheet };
        for (word, value) in self.words.iter().zip(sheet.words()) {
            word.store(value, Ordering::Relaxed);
        }
        self.number.store(number.wrapping_add(2), Ordering::Release);
    }

    /// Reads, with the local time at which that was.
    pub(super) fn read(&self, local: impl Fn() -> Option<i64>) -> (Sheet, Option<i64>) {
        let mut spins = 0u32;
        loop {
            let number = self.number.load(Ordering::Acquire);
            let sheet = self.load();
            let at = local();
            fence(Ordering::SeqCst);
            if number.is_multiple_of(2) && self.number.load(Ordering::Relaxed) == number {
                return (sheet, at);
            }
            spins += 1;
            if spins < SPINS_MAX {
                std::hint::spin_loop();
            } else {
                // The writer has lost its processor in the middle, perhaps to this reader.
                std::thread::yield_now();
            }
        }
    }

    fn load(&self) -> Sheet {
        let mut words = [0; WORDS];
        for (into, word) in words.iter_mut().zip(&self.words) {
            *into = word.load(Ordering::Relaxed);
        }
        Sheet::of(words)
    }
}
