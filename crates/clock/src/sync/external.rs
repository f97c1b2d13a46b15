//! Following a reference of the own node, as the clock of the operating system, whose error is stated.
//!
//! Nothing is said to others. If each clock is within E of the true time, any two are within 2E of each other (CLK-4); that is all there is
//! between them. A reference that is silent for some periods is lost; how far the clock may be wrong grows with the drift, all the time.

use mainstay_base::{Duration, Instant};

use super::algorithm::Part;
use super::config::{Kind, long, span};
use super::core::{Core, Loss};
use super::logical::nanos;
use super::message::Message;
use super::reading::far;

/// A clock that follows a reference.
#[derive(Clone, Debug)]
pub(super) struct External {
    /// When the reference was last read, by local time.
    read: Option<Instant>,
    began: Instant,
}

impl External {
    pub(super) fn new(now: Instant) -> Self {
        Self { read: None, began: now }
    }

    fn stated(core: &Core) -> i64 {
        match core.plan.config().kind {
            Kind::External { error } => long(error),
            _ => unreachable!("only one kind makes this part"),
        }
    }

    fn patience(core: &Core) -> Duration {
        core.plan.config().period * core.plan.config().misses_max.max(1)
    }
}

impl Part for External {
    fn on_message(&mut self, core: &mut Core, _: Instant, _: Instant, _: usize, _: Message) {
        core.rejected.foreign += 1;
    }

    fn on_deadline(&mut self, core: &mut Core, now: Instant) {
        core.lose(Loss::Silence);
        self.began = now;
        self.read = None;
    }

    fn deadline(&self, core: &Core) -> Option<Instant> {
        Some(self.read.unwrap_or(self.began) + Self::patience(core))
    }

    fn begin_anew(&mut self, _: &mut Core, now: Instant) {
        (self.read, self.began) = (None, now);
    }

    fn on_reference(&mut self, core: &mut Core, now: Instant, at: Instant, value: i64) {
        let by = far(value.saturating_sub(core.nanos(at)));
        let age = nanos(now) - nanos(at);
        self.read = Some(at);
        let error = Self::stated(core) + core.plan.config().drift.of(age) + 1;
        core.correct(now, by, 0, 0, Some(span(error)));
        core.found();
    }

    fn error(&self, core: &Core, now: Instant) -> Option<i64> {
        let age = nanos(now) - nanos(self.read?);
        Some(Self::stated(core) + core.plan.config().drift.of(age) + 1)
    }
}
