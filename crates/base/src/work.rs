//! How much a turn did, counted and not measured.

use core::fmt;

use crate::Duration;

/// What a machine did since it was last asked, in its own account.
///
/// A machine reads no clock. It counts what it does in *nominal time*: what the same steps take on an ordinary processor,
/// rounded up. A budget made of it bounds a turn in the same way at every run, and a simulator can let a long turn take
/// its time. [`Machine::take_work`](crate::Machine::take_work) yields it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Work {
    /// How long it takes, nominally.
    pub nominal: Duration,
    /// How many steps it was: commands executed, chunks of a state read or written.
    pub steps: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

impl Work {
    /// One step over so many bytes.
    #[must_use]
    pub const fn step(nominal: Duration, bytes: u64) -> Self {
        Self { nominal, steps: 1, bytes }
    }

    /// Adds other work to it.
    pub fn add(&mut self, other: Self) {
        self.nominal = self.nominal.saturating_add(other.nominal);
        self.steps += other.steps;
        self.bytes += other.bytes;
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} steps over {} bytes, nominally {:?}", self.steps, self.bytes, self.nominal)
    }
}
