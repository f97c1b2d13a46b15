//! The election of a master: at most one at a time answers, whatever is lost or late.
//!
//! *Steps.* A master says so four times within `patience`, and each who follows it answers. A follower promises with its answer to
//! vote for nobody else for `patience`. While a majority has answered something that the master said less than `patience` ago, by its own
//! clock and with the drift taken off, no other one can be elected: that is its lease, and it answers questions while it has it. A follower that
//! hears nothing for `patience`, and a little longer by its place, asks for votes in a higher term; who promised nothing votes once a term.
//!
//! Who was alone has voted for itself in terms that nobody knows of. It says so to the master, who has itself elected again in a higher one;
//! for that its followers may vote.
//!
//! A clock that is not synchronised stands only when nobody else has for a while, since all will follow it. Nothing is stored: who starts
//! anew promises `patience` to a master whom it may have forgotten.

use mainstay_base::{Duration, Instant, Rng, fault};

use super::config::{BEATS, long, span};
use super::core::Core;
use super::message::Message;

/// Terms that one may be ahead: a liar cannot use them up.
const TERMS_MAX: u64 = 1 << 32;
/// How many times `patience` passes before one that is not synchronised stands.
const LAST_RESORT: u32 = 3;

/// The places of fewer nodes are as far apart as those of so many.
const PLACES_MIN: usize = 8;
/// The spread of candidacies doubles with each that failed, so often.
const DOUBLED_MAX: u32 = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Follower,
    Candidate,
    Master,
}

/// An election at one node.
#[derive(Clone, Debug)]
pub(super) struct Election {
    me: usize,
    patience: Duration,
    role: Role,
    term: u64,
    master: Option<usize>,
    /// The last word of a master, or the last vote.
    heard: Instant,
    /// Since when nobody is followed.
    alone: Instant,
    /// The last term in which it voted.
    voted: u64,
    votes: Vec<bool>,
    /// The beat that is under way, when it was sent, and who answered.
    beat: u64,
    sent: Instant,
    answered: Vec<bool>,
    /// Until when no other master can be.
    lease: Instant,
    next: Instant,
    /// Candidacies without a majority since a master was last followed.
    failed: u32,
    rng: Rng,
}

impl Election {
    pub(super) fn new(core: &Core, now: Instant, patience: Duration, rng: Rng) -> Self {
        let none = || vec![false; core.nodes()];
        let mut made = Self {
            me: core.me,
            patience,
            role: Role::Follower,
            term: 0,
            master: None,
            heard: now,
            alone: now,
            voted: 0,
            votes: none(),
            beat: 0,
            sent: now,
            answered: none(),
            lease: now,
            next: now,
            failed: 0,
            rng,
        };
        made.wait(now);
        made
    }

    /// Who is followed; the own place while this is the master.
    pub(super) fn master(&self) -> Option<usize> {
        self.master
    }

    /// Whether this is the master, and no other one can be (the re-check).
    pub(super) fn is_master(&self, now: Instant) -> bool {
        self.role == Role::Master && now < self.lease
    }

    /// Whether this took itself for the master when it last looked.
    pub(super) fn was_master(&self) -> bool {
        self.role == Role::Master
    }

    pub(super) fn term(&self) -> u64 {
        self.term
    }

    /// Whether `from` is the master that is followed, in this term.
    pub(super) fn follows(&self, from: usize, term: u64) -> bool {
        self.master == Some(from) && self.term == term
    }

    pub(super) fn deadline(&self) -> Instant {
        self.next
    }

    /// Waits for a master's word: a little longer at higher places, so that not all stand at once, and by less than `patience` in all. Where many have
    /// the same delay to each other that is not enough, and the votes are split: then they are spread further.
    fn wait(&mut self, now: Instant) {
        let spread = (long(self.patience).unsigned_abs() / 4) << self.failed.min(DOUBLED_MAX);
        let jitter = self.rng.below(spread + 1);
        let stagger = self.patience * self.me as u32 / self.votes.len().max(PLACES_MIN) as u32;
        self.next = now + self.patience + stagger + Duration::from_nanos(jitter);
    }

    pub(super) fn begin_anew(&mut self, now: Instant) {
        self.step_down(now);
        self.heard = now;
    }

    fn step_down(&mut self, now: Instant) {
        self.role = Role::Follower;
        self.master = None;
        (self.lease, self.alone) = (now, now);
        self.wait(now);
    }

    pub(super) fn on_deadline(&mut self, core: &mut Core, now: Instant) {
        match self.role {
            Role::Master => {
                let is_over =
                    now >= self.lease && now.saturating_since(self.heard) >= self.patience;
                if is_over && !fault!(core.plan.config(), NoMasterRecheck) {
                    self.step_down(now);
                } else {
                    self.say(core, now);
                }
            }
            Role::Follower | Role::Candidate => self.stand(core, now),
        }
    }

    fn stand(&mut self, core: &mut Core, now: Instant) {
        if self.master.take().is_some() {
            self.alone = now;
        }
        let is_last_resort = now.saturating_since(self.alone) >= self.patience * LAST_RESORT;
        if !core.is_synchronised() && !is_last_resort {
            self.role = Role::Follower;
            self.lease = self.lease.min(now);
            return self.wait(now);
        }
        if self.role == Role::Candidate {
            self.failed += 1;
        }
        self.role = Role::Candidate;
        self.term = self.term.max(self.voted) + 1;
        self.voted = self.term;
        self.votes.fill(false);
        self.votes[self.me] = true;
        core.send_all(&Message::Candidate { term: self.term });
        self.wait(now);
        self.count(core, now);
    }

    fn is_majority(core: &Core, voices: &[bool]) -> bool {
        voices.iter().filter(|it| **it).count() > core.nodes() / 2
    }

    fn count(&mut self, core: &mut Core, now: Instant) {
        if self.role == Role::Candidate && Self::is_majority(core, &self.votes) {
            self.role = Role::Master;
            (self.master, self.failed) = (Some(self.me), 0);
            (self.heard, self.lease) = (now, now);
            self.say(core, now);
        }
    }

    /// "I am master still."
    fn say(&mut self, core: &mut Core, now: Instant) {
        self.beat += 1;
        self.sent = now;
        self.answered.fill(false);
        self.answered[self.me] = true;
        core.send_all(&Message::Master { term: self.term, beat: self.beat });
        self.next = now + self.patience / BEATS;
        self.extend(core);
    }

    /// A majority follows: nobody else is elected within `patience` of what they answered.
    fn extend(&mut self, core: &Core) {
        if Self::is_majority(core, &self.answered) {
            let drift = core.plan.config().drift;
            let safe = drift.shrink(drift.shrink(long(self.patience)));
            self.lease = self.lease.max(self.sent + span(safe));
            self.heard = self.sent;
        }
    }

    pub(super) fn on_message(
        &mut self,
        core: &mut Core,
        now: Instant,
        from: usize,
        message: &Message,
    ) {
        match *message {
            Message::Candidate { term } => self.on_candidate(core, now, from, term),
            Message::Vote { term } if self.role == Role::Candidate && term == self.term => {
                self.votes[from] = true;
                self.count(core, now);
            }
            Message::Master { term, beat } => self.on_master(core, now, from, (term, beat)),
            Message::Follow { term, beat } if self.role == Role::Master && term == self.term => {
                if beat == self.beat {
                    self.answered[from] = true;
                    self.extend(core);
                }
            }
            Message::Ahead { term } if self.role == Role::Master && term >= self.term => {
                // A word of before its own election, which was sent again, is no reason for another one.
                if term > self.term && term <= self.term.saturating_add(TERMS_MAX) {
                    self.term = term;
                    self.stand(core, now);
                }
            }
            Message::Vote { .. } | Message::Ahead { .. } | Message::Follow { .. } => {
                core.rejected.usurped += 1
            }
            _ => core.rejected.foreign += 1,
        }
    }

    fn on_candidate(&mut self, core: &mut Core, now: Instant, from: usize, term: u64) {
        let is_fresh = now.saturating_since(self.heard) < self.patience;
        let is_promised = is_fresh && self.master != Some(from);
        if term > self.term.saturating_add(TERMS_MAX) {
            core.rejected.future += 1;
        } else if term <= self.voted.max(self.term) || is_promised || self.is_master(now) {
            core.rejected.usurped += 1;
        } else {
            self.voted = term;
            self.term = self.term.max(term);
            if self.role != Role::Follower {
                self.step_down(now);
            }
            // The master of before is of a lower term, and its answers count no more: whoever is elected in this one is followed.
            if self.master.take().is_some() {
                self.alone = now;
            }
            self.heard = now;
            self.wait(now);
            core.send(from, Message::Vote { term });
        }
    }

    fn on_master(&mut self, core: &mut Core, now: Instant, from: usize, word: (u64, u64)) {
        let (term, beat) = word;
        let is_known = self.master.is_none_or(|master| master == from);
        let is_newer = term > self.term || (term == self.term && is_known);
        if term > self.term.saturating_add(TERMS_MAX) {
            core.rejected.future += 1;
            return;
        }
        if !is_newer || term < self.voted || self.is_master(now) {
            core.rejected.usurped += 1;
            let known = self.term.max(self.voted);
            if known > term && !self.is_master(now) {
                core.send(from, Message::Ahead { term: known });
            }
            return;
        }
        self.role = Role::Follower;
        self.term = term;
        (self.master, self.failed) = (Some(from), 0);
        self.heard = now;
        self.wait(now);
        core.send(from, Message::Follow { term, beat });
    }
}
