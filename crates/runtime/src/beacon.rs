//! The liveness beacon: a thread of its own that tells whether the node's thread still turns.
//!
//! *Process dead* and *thread stuck* are two conditions. While the process lives, the beacon speaks; what it says shows
//! whether the thread is stuck. An idle host makes no turns, so the beacon asks it each period, and a host that can
//! still be scheduled answers by moving its counter.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use tokio::sync::Notify;

/// The turn counter of one host, shared with the beacon; two hosts must not share one.
#[derive(Debug, Default)]
pub struct Pulse {
    turns: AtomicU64,
    pub(crate) wake: Arc<Notify>,
}

impl Pulse {
    /// A pulse that has not beaten.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Turns ended, and questions of the beacon answered.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Asks the host for a sign of life.
    pub fn ask(&self) {
        self.wake.notify_one();
    }

    /// The thread has come round once more.
    pub(crate) fn beat(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the beacon says each period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beat {
    /// The host's turn counter.
    pub turns: u64,
    /// For how long the counter has not moved although it was asked to; zero if it moved since the last beat.
    pub stuck_for: Duration,
}

/// Since when the counter has been where it is.
#[derive(Clone, Copy, Debug)]
struct Watch {
    turns: u64,
    since: Instant,
}

impl Watch {
    fn observe(&mut self, now: Instant, turns: u64) -> Beat {
        if turns == self.turns {
            return Beat { turns, stuck_for: now.saturating_duration_since(self.since) };
        }
        *self = Self { turns, since: now };
        Beat { turns, stuck_for: Duration::ZERO }
    }
}

/// The running beacon; dropping it ends and joins its thread.
#[derive(Debug)]
pub struct Beacon {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Beacon {
    /// Calls `tell` on a thread of its own once in each `period`.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(
        pulse: Arc<Pulse>,
        period: Duration,
        mut tell: impl FnMut(Beat) + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let run = move || {
            let mut watch = Watch { turns: pulse.turns(), since: Instant::now() };
            pulse.ask();
            while stopped.recv_timeout(period) == Err(mpsc::RecvTimeoutError::Timeout) {
                tell(watch.observe(Instant::now(), pulse.turns()));
                pulse.ask();
            }
        };
        let thread = thread::Builder::new().name("mainstay-beacon".to_owned()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Beacon {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the beacon's callback panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that stuckness grows from the last movement and ends with the next one.
    #[test]
    fn a_counter_that_does_not_move_is_stuck_since_it_moved() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut watch = Watch { turns: 0, since: start };
        assert_eq!(watch.observe(start + second, 0), Beat { turns: 0, stuck_for: second });
        let moved = Beat { turns: 4, stuck_for: Duration::ZERO };
        assert_eq!(watch.observe(start + 2 * second, 4), moved);
        let stuck = Beat { turns: 4, stuck_for: 3 * second };
        assert_eq!(watch.observe(start + 5 * second, 4), stuck);
    }
}
