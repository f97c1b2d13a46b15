//! Probabilistic reading (Cristian 1989): the master is asked until an answer comes so fast that it must be precise.
//!
//! *Idea.* An answer that comes 2D after the question was on its way for between min and 2D - min. So the reader knows how far it can be wrong: by D - min.
//! The distribution of delays has no bound that one could rely on, but most messages are fast: whoever asks often enough gets an
//! answer that is precise enough, with any probability, and *knows* it.
//!
//! *Steps.* Once a period: ask. On an answer with D ≤ U take its middle, and correct. Else ask again after W, k times at most; then say that the clock
//! is lost. An answer that comes sooner than two messages can is of something that is broken (CLK-26).
//!
//! *The master* is elected by a [majority](super::election). It answers only while it knows that it is the master, and who asks takes
//! answers of the master that it follows and no other one's.

use mainstay_base::{Duration, Instant, Rng, fault};

use super::algorithm::Part;
use super::bounds::stale;
use super::config::{Kind, long, span};
use super::core::{Core, Loss, Output};
use super::corrected::nanos;
use super::election::Election;
use super::message::Message;
use super::reading::{Question, Stamp, by_round_trip, is_far, stamps_error};

/// The numbers of the plan.
#[derive(Clone, Copy, Debug)]
struct Wish {
    error_max: i64,
    attempts: u32,
    wait: Duration,
    stamp: Stamp,
}

/// A probabilistic clock at one node.
#[derive(Clone, Debug)]
pub(super) struct Probabilistic {
    wish: Wish,
    election: Election,
    question: Question,
    /// Of this period.
    attempts: u32,
    next: Instant,
    /// The last good read: when, how far it may be wrong, and of which master.
    read: Option<(Instant, i64, Option<usize>)>,
    /// When it was last known what the time is: by a good read, or as the master.
    known: Instant,
    followed: Option<usize>,
    rng: Rng,
}

impl Probabilistic {
    pub(super) fn new(core: &Core, now: Instant, rng: Rng) -> Self {
        let Kind::Probabilistic { error_max, attempts, wait, patience, stamp } =
            core.plan.config().kind
        else {
            unreachable!("only one kind makes this part");
        };
        Self {
            wish: Wish { error_max: long(error_max), attempts, wait, stamp },
            election: Election::new(core, now, patience, rng.stream("election")),
            question: Question::default(),
            attempts: 0,
            next: now + core.plan.config().period,
            read: None,
            known: now,
            followed: None,
            rng,
        }
    }

    /// What the election has come to.
    fn look(&mut self, core: &mut Core, now: Instant) {
        let master = self.election.master();
        if master == self.followed {
            return;
        }
        self.followed = master;
        core.say(Output::Master(master));
        self.question.close();
        (self.attempts, self.next) = (0, now);
        if master == Some(core.me) {
            // What it says is the time.
            self.read = None;
            core.found();
        }
    }

    fn on_attempt(&mut self, core: &mut Core, now: Instant) {
        let is_master = self.election.master() == Some(core.me);
        if is_master {
            (self.next, self.known) = (now + self.wish.wait, now);
            return;
        }
        let never = fault!(core.plan.config(), NeverLost);
        self.next = now + self.wish.wait;
        // A clock that is asked for another master tries again as often; what it has read is too old all the same.
        let since = (nanos(now) - nanos(self.known)).saturating_add(long(self.wish.wait));
        let master = self.election.master();
        if since > stale(core.plan.config()) && !never {
            core.lose(if master.is_some() { Loss::Unread } else { Loss::NoMaster });
        }
        // Nobody is there to ask: that is no attempt.
        let Some(master) = master else { return };
        let once = fault!(core.plan.config(), GivesUpEarly) && self.attempts > 0;
        if self.attempts >= self.wish.attempts || once {
            if !never {
                core.lose(Loss::Unread);
            }
            self.attempts = 0;
        }
        self.attempts += 1;
        let nonce = self.rng.next_u64();
        self.question.ask_one(core, now, nonce, master);
    }

    fn on_reply(
        &mut self,
        core: &mut Core,
        (now, at): (Instant, Instant),
        from: usize,
        (nonce, value, term, held): (u64, i64, u64, u64),
    ) {
        if !self.election.follows(from, term) && !fault!(core.plan.config(), NoMasterRecheck) {
            core.rejected.usurped += 1;
            return;
        }
        if !self.question.take(core, from, nonce) {
            return;
        }
        let believes = fault!(core.plan.config(), AcceptsImpossibleReads);
        let sample = by_round_trip(core, self.question.asked(), at, (value, held), believes);
        let Some(mut sample) = sample else {
            core.rejected.untimely += 1;
            return;
        };
        sample.error = sample.error.saturating_add(stamps_error(now, at, held));
        if sample.error > self.wish.error_max {
            if !fault!(core.plan.config(), AcceptsSlowReads) {
                core.rejected.untimely += 1;
                return;
            }
            sample.error = self.wish.error_max;
        }
        core.note(from, at, sample.difference, sample.error);
        if sample.difference.abs() > core.plan.bounds().precision_nanos() {
            core.lose(Loss::Outside);
        }
        self.question.close();
        self.attempts = 0;
        if is_far(sample.difference) {
            // As far as can be computed with: the master may be further.
            (self.read, self.next) = (None, now + self.wish.wait);
            return core.correct(now, sample.difference, 0, 0, None);
        }
        (self.read, self.known) = (Some((at, sample.error, self.followed)), at);
        let error = self.error(core, now).map(span);
        core.correct(now, sample.difference, 0, 0, error);
        self.next = now + core.plan.config().period;
        core.found();
    }
}

impl Part for Probabilistic {
    fn on_message(
        &mut self,
        core: &mut Core,
        now: Instant,
        at: Instant,
        from: usize,
        message: Message,
    ) {
        let at = self.wish.stamp.arrival(now, at);
        match message {
            Message::Request { nonce } => {
                let is_master = self.election.is_master(now);
                if is_master
                    || self.election.was_master() && fault!(core.plan.config(), NoMasterRecheck)
                {
                    let (value, term) = (core.nanos(now), self.election.term());
                    let held = now.saturating_since(at).as_nanos() as u64;
                    core.send(from, Message::Reply { nonce, value, error: 0, term, held });
                }
            }
            Message::Reply { nonce, value, term, held, .. } => {
                let held = if self.wish.stamp == Stamp::Kernel { held } else { 0 };
                self.on_reply(core, (now, at), from, (nonce, value, term, held));
            }
            message => {
                self.election.on_message(core, now, from, &message);
                self.look(core, now);
            }
        }
    }

    fn on_deadline(&mut self, core: &mut Core, now: Instant) {
        if self.election.deadline() <= now {
            self.election.on_deadline(core, now);
            self.look(core, now);
        }
        if self.next <= now {
            self.on_attempt(core, now);
        }
    }

    fn deadline(&self, _core: &Core) -> Option<Instant> {
        Some(self.election.deadline().min(self.next))
    }

    fn begin_anew(&mut self, core: &mut Core, now: Instant) {
        self.election.begin_anew(now);
        self.read = None;
        self.question.close();
        (self.attempts, self.next) = (0, now);
        self.look(core, now);
    }

    fn error(&self, core: &Core, now: Instant) -> Option<i64> {
        if self.election.is_master(now) {
            return Some(0);
        }
        let (at, error, of) = self.read?;
        // Another master has read the former one as this clock has; while none is known there may be one.
        let between = if self.followed != of { long(core.plan.bounds().agreed) } else { 0 };
        Some(error + between + core.plan.config().drift.apart(nanos(now) - nanos(at)) + 1)
    }
}
