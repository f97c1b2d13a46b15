//! Intersection of intervals (Marzullo 1984): each clock says how wrong it may be, and wrong intervals are voted out.
//!
//! *Idea.* A clock is a pair ⟨C, E⟩: the true time is within E of C. E grows by the drift. Each period all others are asked; an answer ⟨c, e⟩
//! that took a round trip r is the interval from c - e + min to c + e + r - min. If at most f of m intervals are wrong, the true time is in
//! m - f of them. The smallest interval that holds all such points is found by one sweep over the sorted ends. Its middle is the new C and half
//! its width the new E, if that is less than E has grown to.
//!
//! A reference of the own node is one more interval: it is believed as far as the vote bears it out, and is what a clock says that knows nothing else.
//! References that many nodes have from one other are as many intervals, which are wrong together. A clock whose own interval is voted out was wrong: it takes what the others agree
//! on, and says so.
//!
//! An answer that does not come in time is left out; with fewer than 2f + 1 intervals nothing is concluded. No point in m - f intervals:
//! more are wrong than may be, and the clock says so.

use mainstay_base::{Duration, Instant, Rng, fault};

use super::algorithm::{Part, Referred};
use super::config::{Kind, long, span};
use super::core::{Core, Loss};
use super::corrected::nanos;
use super::message::Message;
use super::reading::{Question, Reading, Stamp, Way, far, is_far, stamps_error};

/// The error of a clock that knows nothing.
const NOTHING: i64 = i64::MAX / 8;

/// An interval, relative to the own clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) low: i64,
    pub(super) high: i64,
}

/// The smallest interval that holds all points which lie in at least `enough` of the intervals.
pub(super) fn intersection(spans: &[Span], enough: usize) -> Option<Span> {
    // At one point, what begins there counts before what ends there.
    let begins = spans.iter().map(|it| (it.low, 0));
    let mut ends: Vec<(i64, u8)> = begins.chain(spans.iter().map(|it| (it.high, 1))).collect();
    ends.sort_unstable();
    let (mut inside, mut found): (usize, Option<Span>) = (0, None);
    for (at, ends) in ends {
        if ends == 1 {
            if inside >= enough
                && let Some(found) = &mut found
            {
                found.high = at;
            }
            inside -= 1;
        } else {
            inside += 1;
            if inside >= enough && found.is_none() {
                found = Some(Span { low: at, high: at });
            }
        }
    }
    found
}

/// An interval clock at one node.
#[derive(Clone, Debug)]
pub(super) struct Interval {
    stamp: Stamp,
    /// E when it was last set.
    error: i64,
    /// When that was, by local time.
    since: Instant,
    /// What the others said, and when, by local time.
    answers: Vec<Option<(Span, Instant)>>,
    newest: Option<usize>,
    /// What the own reference said, and when, by local time.
    reference: Option<(Span, Instant)>,
    /// The last vote has left it out.
    outvoted: bool,
    question: Question,
    /// The end of this collection; else when the next one begins.
    collecting: bool,
    next: Instant,
    rng: Rng,
}

impl Interval {
    pub(super) fn new(
        core: &Core,
        now: Instant,
        (error, stamp): (Duration, Stamp),
        rng: Rng,
    ) -> Self {
        Self {
            stamp,
            error: long(error),
            since: now,
            answers: vec![None; core.nodes()],
            newest: None,
            reference: None,
            outvoted: false,
            question: Question::default(),
            collecting: false,
            next: now + core.plan.config().period,
            rng,
        }
    }

    /// E now.
    fn grown(&self, core: &Core, now: Instant) -> i64 {
        if fault!(core.plan.config(), ErrorStandsStill) {
            return self.error;
        }
        let age = nanos(now) - nanos(self.since);
        self.error.saturating_add(core.plan.config().drift.of(age) + 1)
    }

    /// What is known of the true time: by how much it is ahead of the own clock, and how far that may be wrong.
    fn known(&self, core: &Core, now: Instant) -> Option<(i64, i64)> {
        let own = self.grown(core, now);
        if own < NOTHING {
            return Some((0, own));
        }
        let (Span { low, high }, at) = self.reference?;
        let age = core.plan.config().drift.of(nanos(now) - nanos(at)) + 1;
        Some((low + (high - low) / 2, (high - low) / 2 + 1 + age))
    }

    fn on_reply(
        &mut self,
        core: &mut Core,
        (now, at): (Instant, Instant),
        from: usize,
        (nonce, value, error, held): (u64, i64, u64, u64),
    ) {
        if !self.question.take(core, from, nonce) {
            return;
        }
        let (delay, drift) = (core.plan.config().delay, core.plan.config().drift);
        let (Ok(error), Ok(waited)) = (i64::try_from(error), i64::try_from(held)) else {
            core.rejected.malformed += 1;
            return;
        };
        // What the question waited is taken for as short as it may have been.
        let (took, waited) = (nanos(at) - nanos(self.question.asked()), drift.shrink(waited));
        let trip = took.saturating_sub(drift.shrink(waited));
        if trip < drift.shrink(2 * delay.min_nanos()) || error >= NOTHING {
            core.rejected.untimely += 1;
            return;
        }
        let ahead = far(value.saturating_sub(core.nanos(at)));
        let error = error.saturating_add(stamps_error(now, at, held));
        let low = ahead.saturating_sub(error).saturating_add(delay.min_nanos());
        let most = drift.stretch(took) - waited + 1 - delay.min_nanos();
        let high = ahead.saturating_add(error).saturating_add(most);
        if high < low {
            core.rejected.untimely += 1;
            return;
        }
        core.note(from, at, low + (high - low) / 2, (high - low) / 2 + 1);
        self.answers[from] = Some((Span { low, high }, at));
        self.newest = Some(from);
    }

    fn on_collected(&mut self, core: &mut Core, now: Instant) {
        let drift = core.plan.config().drift;
        let own = self.grown(core, now);
        let widen = |(span, at): &(Span, Instant)| {
            let age = drift.of(nanos(now) - nanos(*at)) + 1;
            Span { low: span.low - age, high: span.high + age }
        };
        let mut spans: Vec<Span> =
            self.answers.iter().chain([&self.reference]).flatten().map(widen).collect();
        if fault!(core.plan.config(), NewestInterval) {
            let newest = self.newest.and_then(|it| self.answers[it].as_ref()).map(widen);
            if let Some(Span { low, high }) = newest {
                self.set(core, now, low + (high - low) / 2, (high - low) / 2 + 1);
            }
            return;
        }
        if own < NOTHING {
            spans.push(Span { low: -own, high: own });
        }
        if spans.len() < 2 * core.faulty() + 1 {
            return;
        }
        match intersection(&spans, spans.len() - core.faulty()) {
            None => core.lose(Loss::Inconsistent),
            Some(Span { low, high }) => {
                let misses = |it: &(Span, Instant)| {
                    let it = widen(it);
                    it.high < low || it.low > high
                };
                for (of, answer) in self.answers.iter().enumerate() {
                    if let Some(answer) = answer {
                        core.vote(of, misses(answer));
                    }
                }
                self.outvoted = self.reference.as_ref().is_some_and(misses);
                let half = (high - low) / 2 + 1;
                let is_outside = own < NOTHING && (low > own || high < -own);
                if is_outside {
                    core.lose(Loss::Outside);
                }
                if half < own || is_outside {
                    self.set(core, now, low + (high - low) / 2, half);
                }
            }
        }
    }

    fn set(&mut self, core: &mut Core, now: Instant, by: i64, error: i64) {
        if let Some((span, _)) = &mut self.reference {
            (span.low, span.high) = (span.low.saturating_sub(by), span.high.saturating_sub(by));
        }
        if is_far(by) {
            // As far as can be computed with: the true time may be further.
            (self.error, self.since, self.reference) = (NOTHING, now, None);
            return core.correct(now, by, 0, 0, None);
        }
        (self.error, self.since) = (error, now);
        core.correct(now, by, 0, 0, Some(span(error)));
        core.found();
    }
}

impl Part for Interval {
    fn on_message(
        &mut self,
        core: &mut Core,
        now: Instant,
        at: Instant,
        from: usize,
        message: Message,
    ) {
        let at = self.stamp.arrival(now, at);
        match message {
            Message::Request { nonce } => {
                if let Some((ahead, error)) = self.known(core, now) {
                    let value = core.nanos(now).saturating_add(ahead);
                    let error = error.unsigned_abs();
                    let held = now.saturating_since(at).as_nanos() as u64;
                    core.send(from, Message::Reply { nonce, value, error, term: 0, held });
                }
            }
            Message::Reply { nonce, value, error, held, .. } => {
                let held = if self.stamp == Stamp::Kernel { held } else { 0 };
                self.on_reply(core, (now, at), from, (nonce, value, error, held));
            }
            _ => core.rejected.foreign += 1,
        }
    }

    fn on_deadline(&mut self, core: &mut Core, now: Instant) {
        if self.collecting {
            self.on_collected(core, now);
            self.question.close();
            self.next = now + core.plan.config().period;
        } else {
            self.answers.fill(None);
            self.newest = None;
            let nonce = self.rng.next_u64();
            self.question.ask(core, now, nonce);
            let reading = Reading { way: Way::RoundTrip, stamp: self.stamp };
            self.next = now + span(reading.span(core.plan.config()));
        }
        self.collecting = !self.collecting;
    }

    fn deadline(&self, _core: &Core) -> Option<Instant> {
        Some(self.next)
    }

    fn begin_anew(&mut self, _core: &mut Core, now: Instant) {
        (self.error, self.since) = (NOTHING, now);
        (self.collecting, self.next) = (false, now);
        self.reference = None;
        self.question.close();
    }

    fn on_reference(&mut self, core: &mut Core, now: Instant, read: Referred) {
        let Kind::Interval { error, .. } = core.plan.config().kind else { return };
        let error = read.error.unwrap_or_else(|| long(error));
        if error >= NOTHING || self.reference.is_some_and(|(_, at)| read.at <= at) {
            core.rejected.replayed += 1;
            return;
        }
        let ahead = far(read.value.saturating_sub(core.nanos(read.at)));
        self.reference = Some((Span { low: ahead - error, high: ahead + error }, read.at));
        if fault!(core.plan.config(), BelievesReference) {
            self.set(core, now, ahead, error);
        }
    }

    fn error(&self, core: &Core, now: Instant) -> Option<i64> {
        Some(self.grown(core, now))
    }

    fn outvotes_reference(&self) -> bool {
        self.outvoted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sweep_finds_what_a_search_finds() {
        let mut rng = Rng::new(3);
        for _ in 0..3_000 {
            let count = rng.between(1, 7) as usize;
            let mut draw = || {
                let low = rng.below(40) as i64;
                Span { low, high: low + rng.below(20) as i64 }
            };
            let spans: Vec<Span> = (0..count).map(|_| draw()).collect();
            let enough = rng.between(1, count as u64) as usize;
            let holds = |at: &i64| {
                spans.iter().filter(|it| it.low <= *at && *at <= it.high).count() >= enough
            };
            let points: Vec<i64> = (0..60).filter(holds).collect();
            let found = intersection(&spans, enough);
            let expected = points.first().zip(points.last());
            assert_eq!(found.map(|it| (it.low, it.high)), expected.map(|it| (*it.0, *it.1)));
        }
    }
}
