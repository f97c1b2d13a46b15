//! Following a reference of the own node, as the clock of the operating system, whose error is stated.
//!
//! A reference that jumps further than that is believed when its next reading confirms it; a reading that is older than the last one, or so old that it
//! is worth less than the bound, counts for nothing. Nothing is said to others. If each clock is within E of the true time, any two are within 2E of each other (CLK-4); that is all there is
//! between them. A reference that is silent for some periods is lost; how far the clock may be wrong grows with the drift, all the time.

use mainstay_base::{Duration, Instant, fault};

use super::algorithm::Part;
use super::config::{Kind, long, span};
use super::core::{Core, Loss};
use super::corrected::nanos;
use super::message::Message;
use super::reading::{far, is_far};

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
        let error = Self::stated(core) + core.plan.config().drift.of(age) + 1;
        let is_old = now.saturating_since(at) > Self::patience(core);
        if is_old || self.read.is_some_and(|read| at <= read) {
            core.rejected.replayed += 1;
            return;
        }
        // The first reading is as right as any, unless the reference may be further than can be computed with.
        let jumps = self.read.is_some() && by.abs() > long(core.plan.bounds().correction);
        let is_outside = jumps || is_far(by);
        if is_outside {
            core.lose(Loss::Outside);
        }
        self.read = Some(at);
        core.correct(now, by, 0, 0, Some(span(error)));
        if !is_outside || fault!(core.plan.config(), BelievesAtOnce) {
            core.found();
        }
    }

    fn error(&self, core: &Core, now: Instant) -> Option<i64> {
        let age = nanos(now) - nanos(self.read?);
        if fault!(core.plan.config(), ErrorStandsStill) {
            return Some(Self::stated(core));
        }
        Some(Self::stated(core) + core.plan.config().drift.of(age) + 1)
    }
}
