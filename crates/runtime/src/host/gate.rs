//! Admission before the mailbox: places and bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Semaphore, TryAcquireError, watch};

use super::handle::Closed;
use super::turns::Turns;
use crate::beacon::Pulse;

/// What handles and host share: who may come in, and how it ended.
pub(super) struct Gate {
    places: Semaphore,
    bytes: Semaphore,
    places_max: usize,
    bytes_max: usize,
    stopping: AtomicBool,
    /// Somebody wants a turn, whatever the mailbox holds.
    wanted: AtomicBool,
    pub(super) pulse: Arc<Pulse>,
    pub(super) turns: Turns,
    pub(super) closed: watch::Sender<Option<Closed>>,
}

/// Why there is no admission.
pub(super) enum NoEntry {
    Full,
    Closed,
}

impl From<TryAcquireError> for NoEntry {
    fn from(error: TryAcquireError) -> Self {
        match error {
            TryAcquireError::NoPermits => Self::Full,
            TryAcquireError::Closed => Self::Closed,
        }
    }
}

impl Gate {
    pub(super) fn new(places_max: usize, bytes_max: usize, pulse: Arc<Pulse>) -> Self {
        let bytes_max = bytes_max.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        assert!(places_max > 0 && bytes_max > 0, "a mailbox has room for an input");
        Self {
            places: Semaphore::new(places_max),
            bytes: Semaphore::new(bytes_max),
            places_max,
            bytes_max,
            stopping: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            pulse,
            turns: Turns::default(),
            closed: watch::Sender::new(None),
        }
    }

    pub(super) async fn enter(self: &Arc<Self>, weight: usize) -> Result<Admission, NoEntry> {
        let weight = weight.min(self.bytes_max);
        self.places.acquire().await.map_err(|_| NoEntry::Closed)?.forget();
        let mut admission = Admission { gate: Arc::clone(self), places: 1, bytes: 0 };
        self.bytes.acquire_many(weight as u32).await.map_err(|_| NoEntry::Closed)?.forget();
        admission.bytes = weight;
        Ok(admission)
    }

    pub(super) fn try_enter(self: &Arc<Self>, weight: usize) -> Result<Admission, NoEntry> {
        let weight = weight.min(self.bytes_max);
        self.places.try_acquire()?.forget();
        let mut admission = Admission { gate: Arc::clone(self), places: 1, bytes: 0 };
        self.bytes.try_acquire_many(weight as u32)?.forget();
        admission.bytes = weight;
        Ok(admission)
    }

    /// An admission to nothing, into which others are merged.
    pub(super) fn nothing(self: &Arc<Self>) -> Admission {
        Admission { gate: Arc::clone(self), places: 0, bytes: 0 }
    }

    /// Refuses whoever has not been admitted.
    pub(super) fn close(&self) {
        self.places.close();
        self.bytes.close();
    }

    /// Asks the host to stop.
    pub(super) fn stop(&self) {
        self.close();
        self.stopping.store(true, Ordering::Release);
        self.pulse.wake.notify_one();
    }

    /// Asks the host for a turn.
    pub(super) fn want(&self) {
        if !self.wanted.swap(true, Ordering::AcqRel) {
            self.pulse.wake.notify_one();
        }
    }

    /// Whether a turn was asked for since the last call.
    pub(super) fn take_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::AcqRel)
    }

    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether nobody is between admission and machine.
    pub(super) fn is_empty(&self) -> bool {
        self.places.available_permits() == self.places_max
    }

    pub(super) fn is_closed(&self) -> bool {
        self.places.is_closed()
    }

    pub(super) fn bytes_admitted(&self) -> usize {
        self.bytes_max - self.bytes.available_permits()
    }
}

/// Places and bytes that are given back when it is dropped.
pub(super) struct Admission {
    gate: Arc<Gate>,
    places: usize,
    bytes: usize,
}

impl Admission {
    /// Takes over what `other` holds, so that many are given back at once.
    pub(super) fn merge(&mut self, mut other: Self) {
        self.places += std::mem::take(&mut other.places);
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives back what it holds.
    pub(super) fn release(&mut self) {
        let (places, bytes) = (std::mem::take(&mut self.places), std::mem::take(&mut self.bytes));
        if places == 0 && bytes == 0 {
            return;
        }
        self.gate.bytes.add_permits(bytes);
        self.gate.places.add_permits(places);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let held = self.places > 0;
        self.release();
        // Somebody who was admitted did not come in: a host that stops waits for it.
        if held && self.gate.stopping() {
            self.gate.pulse.wake.notify_one();
        }
    }
}
