//! The account of a turn: what it has done, and whether that is enough.

use mainstay_base::{Duration, Work};

/// How much a turn of a replica does, in nominal time (2 ms). Of what is left, the next turn does as much; in between the
/// node hears and is heard. One step more than this is always possible, so no step may be long.
pub const TURN_WORK: Duration = Duration::from_millis(2);

/// A command, beside its bytes and what the user's machine counts.
pub(crate) const COMMAND: Duration = Duration::from_micros(1);
/// A byte of a chunk that is restored: small entries are many.
pub(crate) const CHUNK_BYTE: Duration = Duration::from_nanos(16);
/// A byte of a command or of its reply.
const BYTE: Duration = Duration::from_nanos(1);

pub(crate) struct Account {
    pub(crate) most: Duration,
    turn: Work,
    /// Of the user's machine, as of the last step.
    counted: u64,
}

impl Default for Account {
    fn default() -> Self {
        Self { most: TURN_WORK, turn: Work::default(), counted: 0 }
    }
}

impl Account {
    pub(crate) fn is_spent(&self) -> bool {
        self.turn.nominal >= self.most
    }

    pub(crate) fn take(&mut self) -> Work {
        std::mem::take(&mut self.turn)
    }

    /// One step; `counted` is what the user's machine has done so far.
    pub(crate) fn add(&mut self, nominal: Duration, bytes: usize, counted: u64) {
        let own = Duration::from_nanos(counted.saturating_sub(self.counted));
        self.counted = counted;
        let of_bytes = BYTE.saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX));
        let nominal = nominal.saturating_add(of_bytes).saturating_add(own);
        self.turn.add(Work::step(nominal, bytes as u64));
    }

    /// Another machine counts from here on.
    pub(crate) fn restart(&mut self, counted: u64) {
        self.counted = counted;
    }
}
