//! How long the turns of a host take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay_base::{Instant, Work};

/// What a turn counts beside its machine's own account: for each input, and for each byte of it.
const INPUT: Duration = Duration::from_micros(1);
const BYTE: Duration = Duration::from_nanos(1);
/// At most one slow turn in so long is told in the log; the others are counted.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long the turns of a host took so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct TurnStats {
    /// The longest one.
    pub longest: Duration,
    /// How many took longer than [`HostOptions::slow_turn`](super::HostOptions::slow_turn).
    pub slow: u64,
}

/// The same, shared between the host and its handles.
#[derive(Debug, Default)]
pub(super) struct Turns {
    longest_nanos: AtomicU64,
    slow: AtomicU64,
}

impl Turns {
    pub(super) fn stats(&self) -> TurnStats {
        TurnStats {
            longest: Duration::from_nanos(self.longest_nanos.load(Ordering::Relaxed)),
            slow: self.slow.load(Ordering::Relaxed),
        }
    }
}

/// A turn under way.
pub(super) struct Turn {
    pub(super) began: Instant,
    pub(super) inputs: usize,
    pub(super) bytes: usize,
    /// What the machine lets it take in.
    pub(super) bytes_max: usize,
    /// How long the host has been at it, without what other tasks did in between.
    pub(super) busy: Duration,
}

impl Turn {
    /// The whole work of the turn, with what its inputs count.
    pub(super) fn cost(&self, work: &Work) -> Duration {
        let inputs = u32::try_from(self.inputs).unwrap_or(u32::MAX);
        let bytes = u32::try_from(self.bytes).unwrap_or(u32::MAX);
        work.nominal.saturating_add(INPUT * inputs).saturating_add(BYTE * bytes)
    }
}

/// Tells of slow turns, not too often.
#[derive(Default)]
pub(super) struct Watch {
    told: Option<Instant>,
    untold: u64,
}

impl Watch {
    /// A turn has ended at `now`.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        turn: &Turn,
        work: &Work,
        slow: Duration,
        turns: &Turns,
    ) {
        let nanos = u64::try_from(turn.busy.as_nanos()).unwrap_or(u64::MAX);
        // One host writes; handles only read.
        if nanos > turns.longest_nanos.load(Ordering::Relaxed) {
            turns.longest_nanos.store(nanos, Ordering::Relaxed);
        }
        if turn.busy <= slow {
            return;
        }
        turns.slow.fetch_add(1, Ordering::Relaxed);
        if self.told.is_some_and(|told| now.saturating_since(told) < TELL_EVERY) {
            self.untold += 1;
            return;
        }
        self.told = Some(now);
        let untold = std::mem::take(&mut self.untold);
        let (took, inputs, bytes) = (turn.busy, turn.inputs, turn.bytes);
        tracing::warn!(?took, inputs, bytes, %work, untold, "a turn was long");
    }
}
