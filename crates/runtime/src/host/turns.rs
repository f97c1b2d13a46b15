//! How long the turns of a host take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay_base::{Instant, Work};

use crate::ports::TimeSource;

/// What a turn counts beside its machine's own account: for each input, and for each byte of it.
const INPUT: Duration = Duration::from_micros(1);
const BYTE: Duration = Duration::from_nanos(1);
/// The processor's time is read so often at most.
const SAMPLE_EVERY: Duration = Duration::from_millis(1);
/// A turn that had a processor for so long is slow, however fast the host is otherwise.
const SLOW_AT_WORK: Duration = Duration::from_millis(20);
/// At most one slow turn in so long is told in the log; the others are counted.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long the turns of a host took so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct TurnStats {
    /// The longest one.
    pub longest: Duration,
    /// The longest one, counted without the time in which others had the processor; to the millisecond. Where the system
    /// does not say, all of it.
    pub longest_at_work: Duration,
    /// How many took longer than [`HostOptions::slow_turn`](super::HostOptions::slow_turn), or had a processor for more than
    /// 20 ms.
    pub slow: u64,
}

/// The same, shared between the host and its handles.
#[derive(Debug, Default)]
pub(super) struct Turns {
    longest_nanos: AtomicU64,
    at_work_nanos: AtomicU64,
    slow: AtomicU64,
}

impl Turns {
    pub(super) fn stats(&self) -> TurnStats {
        let length = |nanos: &AtomicU64| Duration::from_nanos(nanos.load(Ordering::Relaxed));
        TurnStats {
            longest: length(&self.longest_nanos),
            longest_at_work: length(&self.at_work_nanos),
            slow: self.slow.load(Ordering::Relaxed),
        }
    }
}

/// One host writes; handles only read.
fn raise(most: &AtomicU64, length: Duration) {
    let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    if nanos > most.load(Ordering::Relaxed) {
        most.store(nanos, Ordering::Relaxed);
    }
}

/// A turn under way.
pub(super) struct Turn {
    pub(super) began: Instant,
    pub(super) inputs: usize,
    pub(super) bytes: usize,
    /// What the machine lets it take in.
    pub(super) bytes_max: usize,
}

impl Turn {
    /// The whole work of the turn, with what its inputs count.
    pub(super) fn cost(&self, work: &Work) -> Duration {
        let inputs = u32::try_from(self.inputs).unwrap_or(u32::MAX);
        let bytes = u32::try_from(self.bytes).unwrap_or(u32::MAX);
        work.nominal.saturating_add(INPUT * inputs).saturating_add(BYTE * bytes)
    }
}

/// Observes the turns, and tells of slow ones, not too often.
#[derive(Default)]
pub(super) struct Watch {
    /// When the processor's time was last read, and what it was: to read it costs a call of the system.
    sampled: Option<(Instant, Duration)>,
    told: Option<Instant>,
    untold: u64,
}

impl Watch {
    /// A turn has ended at `now`.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        time: &dyn TimeSource,
        turn: &Turn,
        work: &Work,
        slow: Duration,
        turns: &Turns,
    ) {
        let took = now.saturating_since(turn.began);
        let at_work = self.at_work(now, time, took);
        raise(&turns.longest_nanos, took);
        raise(&turns.at_work_nanos, at_work);
        if took <= slow && at_work <= SLOW_AT_WORK {
            return;
        }
        turns.slow.fetch_add(1, Ordering::Relaxed);
        if self.told.is_some_and(|told| now.saturating_since(told) < TELL_EVERY) {
            self.untold += 1;
            return;
        }
        self.told = Some(now);
        let untold = std::mem::take(&mut self.untold);
        let Turn { inputs, bytes, .. } = *turn;
        tracing::warn!(?took, ?at_work, inputs, bytes, %work, untold, "a turn was long");
    }

    /// How long the turn had a processor: at most what the thread has had one since the last sample, which is not older
    /// than the turn by more than [`SAMPLE_EVERY`] and the thread's idle time.
    fn at_work(&mut self, now: Instant, time: &dyn TimeSource, took: Duration) -> Duration {
        let is_due = self.sampled.is_none_or(|(at, _)| now.saturating_since(at) >= SAMPLE_EVERY);
        if !is_due {
            return took;
        }
        let Some(had) = time.processor_time() else { return took };
        let before = self.sampled.replace((now, had)).map_or(had, |(_, before)| before);
        took.min(had.saturating_sub(before))
    }
}
