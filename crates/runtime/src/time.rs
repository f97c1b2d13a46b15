//! Time from tokio.

use std::rc::Rc;
use std::sync::Arc;

use mainstay_base::{Duration, Instant};
use rustix::time::{ClockId, clock_gettime};

use crate::outside::{Across, LocalFuture, LocalReader, TimeSource};

/// tokio's clock: real time in production, virtual time where tokio's is paused. Its origin is its construction.
#[derive(Clone, Copy, Debug)]
pub struct TokioTime {
    origin: tokio::time::Instant,
}

impl TokioTime {
    /// A time source whose origin is now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }
}

/// What the wall clock of the host says: since 1970, as far as it is right. It may step in both directions.
#[must_use]
pub fn wall_clock() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Realtime)).unwrap_or_default()
}

impl Default for TokioTime {
    fn default() -> Self {
        Self::new()
    }
}

impl TimeSource for TokioTime {
    fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    fn sleep_until(&self, deadline: Instant) -> LocalFuture<()> {
        Box::pin(tokio::time::sleep_until(self.origin + (deadline - Instant::ZERO)))
    }

    fn across(&self) -> Option<Across> {
        let time = *self;
        Some(Box::new(move || Rc::new(time)))
    }

    fn reader(&self) -> Option<LocalReader> {
        let time = *self;
        Some(Arc::new(move || time.now()))
    }

    fn processor_time(&self) -> Option<Duration> {
        Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).ok()
    }
}
