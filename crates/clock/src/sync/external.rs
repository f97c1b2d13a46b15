//! Following a reference whose error is stated: one of the own node, as the clock of the operating system, or [another node](super::peer).
//!
//! A reference that jumps further than the bound is believed when its next reading confirms it; a reading that is older than the last one, or so old that it
//! is worth less than the bound, counts for nothing. Nothing is said to others. If each clock is within E of the true time, any two are within 2E of each other (CLK-4); that is all there is
//! between them. A reference that is silent for some periods is lost; how far the clock may be wrong grows with the drift, all the time.
//! A reference that says its own error is not believed where that is more than the plan says of references.

use mainstay_base::{Duration, Instant, fault};

use super::algorithm::{Part, Referred};
use super::config::{Kind, long, span};
use super::core::{Core, Loss};
use super::corrected::nanos;
use super::message::Message;
use super::reading::{far, is_far};

/// A clock that follows a reference.
#[derive(Clone, Debug)]
pub(super) struct External {
    /// When the reference was last read, by local time, and how far it may have been wrong.
    read: Option<(Instant, i64)>,
    began: Instant,
    /// How fast it may run away from real time, in parts of a billion.
    rate: u64,
}

impl External {
    pub(super) fn new(now: Instant) -> Self {
        Self { read: None, began: now, rate: 0 }
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
        Some(self.read.map_or(self.began, |(at, _)| at) + Self::patience(core))
    }

    fn begin_anew(&mut self, _: &mut Core, now: Instant) {
        (self.read, self.began) = (None, now);
    }

    fn on_reference(&mut self, core: &mut Core, now: Instant, read: Referred) {
        let Referred { at, value, error, rate } = read;
        let by = far(value.saturating_sub(core.nanos(at)));
        let stated = error.unwrap_or_else(|| Self::stated(core));
        if stated > Self::stated(core) {
            core.rejected.inaccurate += 1;
            return;
        }
        let is_old = now.saturating_since(at) > Self::patience(core);
        if is_old || self.read.is_some_and(|(read, _)| at <= read) {
            core.rejected.replayed += 1;
            return;
        }
        // The first reading is as right as any, unless the reference may be further than can be computed with.
        let jumps = self.read.is_some() && by.abs() > long(core.plan.bounds().correction);
        let is_outside = jumps || is_far(by);
        if is_outside {
            core.lose(Loss::Outside);
        }
        (self.read, self.rate) = (Some((at, stated)), rate);
        let error = self.error(core, now).map(span);
        core.correct(now, by, 0, 0, error);
        if !is_outside || fault!(core.plan.config(), BelievesAtOnce) {
            core.found();
        }
    }

    fn error(&self, core: &Core, now: Instant) -> Option<i64> {
        let (at, stated) = self.read?;
        if fault!(core.plan.config(), ErrorStandsStill) {
            return Some(stated);
        }
        Some(stated + core.plan.config().drift.of(nanos(now) - nanos(at)) + 1)
    }

    fn runs(&self) -> u64 {
        self.rate
    }
}
