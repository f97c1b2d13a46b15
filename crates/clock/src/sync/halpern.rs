//! The synchroniser of Halpern, Simons, Strong and Dolev (1984): the first to reach a round takes all others along. Signed.
//!
//! *Steps.* (a) When the clock reaches ET, the next expected time: sign ET, send it to all, ET += PER. (b) On a message with s signatures of
//! different processes, none its own, over T: if T = ET, and the clock says more than ET - s·D, set it to T, ET += PER, add the own
//! signature and pass the message on. Anything else is ignored.
//!
//! *Why.* Each signer was at most D early, so a message with s signatures is at most s·D early; a liar alone takes all along by D, f of
//! them by f·D, in each period: corrections go forward only, and the common clock may run faster than any hardware. That is the price for
//! withstanding any number of liars as long as the correct ones reach each other.
//!
//! One that knows no time takes T from f + 1 different signers, and counts itself in after a later round that they have signed, once it has listened
//! for longer than from one round to the next (as in [Srikanth and Toueg's](super::srikanth)). One that has heard nothing of the kind for some
//! periods speaks by its own clock. The others are alive while f + 1 of them sign the round, or as many as there are if f are silent.

use std::cmp::Ordering;

use mainstay_agreement::chain;
use mainstay_agreement::sign::{Keyring, Signature};
use mainstay_base::{Instant, fault};

use super::algorithm::Part;
use super::bounds;
use super::config::long;
use super::core::{Core, Loss};
use super::message::Message;
use super::reading::by_arrival;
use super::srikanth::{LEARN_MAX, listening, text};

/// The synchroniser at one node.
#[derive(Clone, Debug)]
pub(super) struct Halpern {
    keys: Option<Keyring>,
    /// D.
    early: i64,
    /// The next expected round; ET is that many periods.
    round: u64,
    /// Who signed the newest round, while it learns.
    signers: Vec<Option<u64>>,
    misses: u32,
    learning: bool,
    /// Rounds that are still to be signed by others until it counts.
    settling: u8,
    /// The last round that was.
    settled: u64,
    deaf: Instant,
    /// Until when it says nothing, by local time.
    silent: Instant,
    /// Until then a round of the others comes for certain, by local time.
    listened: Instant,
}

impl Halpern {
    pub(super) fn new(core: &Core, now: Instant, keys: Option<Keyring>) -> Self {
        let (early, _) = bounds::early(core.plan.config());
        let mut made = Self {
            keys,
            early,
            round: 0,
            signers: vec![None; core.nodes()],
            misses: 0,
            learning: false,
            settling: 0,
            settled: 0,
            deaf: now,
            silent: now,
            listened: now,
        };
        made.next_round(core, now);
        made
    }

    fn next_round(&mut self, core: &Core, now: Instant) {
        let next = core.nanos(now).div_euclid(Self::period(core)) + 1;
        self.round = u64::try_from(next).unwrap_or(0);
    }

    fn period(core: &Core) -> i64 {
        long(core.plan.config().period)
    }

    /// ET, or what a round says.
    fn time(core: &Core, round: u64) -> Option<i64> {
        Self::period(core).checked_mul(i64::try_from(round).ok()?)
    }

    /// (a) The clock has reached ET: this is a synchroniser.
    fn on_reached(&mut self, core: &mut Core, now: Instant) {
        let round = self.round;
        self.pass_on(core, round, Vec::new());
        // The own clock is right already; the version begins all the same.
        core.correct(now, 0, 0, round, None);
        self.misses += 1;
        if self.misses > core.plan.config().misses_max && core.nodes() > 1 {
            // It goes on by its own clock, and takes that of the others if they speak again.
            core.lose(Loss::Silence);
            self.settling = 2;
        }
        self.started(core, now, round);
    }

    /// (b) Somebody else's has.
    fn on_signed(
        &mut self,
        core: &mut Core,
        now: Instant,
        from: usize,
        (round, chain): (u64, Vec<(u16, Signature)>),
    ) {
        let checks = !fault!(core.plan.config(), NoSignatureCheck);
        let Some(keys) = &self.keys else { return };
        // A word that the own signature is part of is no news, but a sign of life.
        let mut others = chain.clone();
        others.retain(|(who, _)| usize::from(*who) != core.me);
        let is_true = chain::check(keys, None, &text("hssd", round), &others, core.nodes()).is_ok();
        let Some(time) = Self::time(core, round).filter(|_| is_true || !checks) else {
            core.rejected.unsigned += 1;
            return;
        };
        self.note(core, round, &others);
        // Whoever says so, or passes it on, has just set its clock to T. For people: the algorithm does not look at it.
        let sample = by_arrival(core, now, time);
        core.note(from, now, sample.difference, sample.error);
        if others.len() < chain.len() {
            self.look_alive(core, now, round);
            return;
        }
        let by = time.saturating_sub(core.nanos(now));
        if self.learning {
            return self.adopt(core, now, round, by);
        }
        let early = self.early.saturating_mul(chain.len() as i64);
        match round.cmp(&self.round) {
            Ordering::Less => {
                core.rejected.replayed += 1;
                if by < -core.plan.bounds().precision_nanos() {
                    return self.go_astray(core, now, round, by, Loss::Outside);
                }
                self.look_alive(core, now, round);
                return;
            }
            Ordering::Greater => {
                core.rejected.future += 1;
                return self.go_astray(core, now, round, by, Loss::Behind);
            }
            Ordering::Equal if by >= early && !fault!(core.plan.config(), NoTimelinessCheck) => {
                core.rejected.untimely += 1;
                return self.go_astray(core, now, round, by, Loss::Behind);
            }
            Ordering::Equal => {}
        }
        if !fault!(core.plan.config(), NoRelay) {
            self.pass_on(core, round, chain);
        }
        core.correct(now, by, 0, round, None);
        self.started(core, now, round);
    }

    /// Others are where this clock cannot be if it is right: with f + 1 of them it is not.
    fn go_astray(&mut self, core: &mut Core, now: Instant, round: u64, by: i64, why: Loss) {
        if self.backing(round) > core.faulty() {
            core.lose(why);
            self.settling = 2;
            self.adopt(core, now, round, by);
        }
    }

    /// How many have signed this round, and none since.
    fn backing(&self, round: u64) -> usize {
        self.signers.iter().flatten().filter(|it| **it == round).count()
    }

    fn note(&mut self, core: &Core, round: u64, chain: &[(u16, Signature)]) {
        for (who, _) in chain.iter().filter(|(who, _)| usize::from(*who) < core.nodes()) {
            let newest = &mut self.signers[usize::from(*who)];
            *newest = (*newest).max(Some(round));
        }
    }

    /// Takes a round over that f + 1 have signed.
    fn adopt(&mut self, core: &mut Core, now: Instant, round: u64, by: i64) {
        if self.backing(round) > core.faulty() {
            core.correct(now, by, 0, round, None);
            (self.learning, self.misses) = (false, 0);
            self.started(core, now, round);
        }
    }

    fn started(&mut self, core: &mut Core, now: Instant, round: u64) {
        self.round = round + 1;
        self.look_alive(core, now, round);
    }

    /// Others have signed the round that is under way: a liar alone is not enough, nor is a round that is over.
    fn look_alive(&mut self, core: &mut Core, now: Instant, round: u64) {
        let enough = (core.faulty() + 1).min(core.nodes() - 1 - core.faulty()).max(1);
        let is_current = round + 1 == self.round && round > self.settled;
        let heard = self.backing(round);
        let alone = core.nodes() == 1;
        if !is_current || (heard < enough && !alone) {
            return;
        }
        (self.misses, self.settled) = (0, round);
        let has_listened = now >= self.listened || fault!(core.plan.config(), BelievesAtOnce);
        self.settling = match self.settling {
            2.. => 1,
            1 if !has_listened => 1,
            _ => 0,
        };
        if self.settling == 0 {
            core.found();
        }
    }

    fn pass_on(&self, core: &mut Core, round: u64, chain: Vec<(u16, Signature)>) {
        if let Some(keys) = &self.keys {
            let chain = chain::extend(keys, &text("hssd", round), chain);
            core.send_all(&Message::Signed { round, chain });
        }
    }
}

impl Part for Halpern {
    fn on_message(
        &mut self,
        core: &mut Core,
        now: Instant,
        _at: Instant,
        from: usize,
        message: Message,
    ) {
        match message {
            Message::Signed { .. } if now < self.deaf => core.rejected.untimely += 1,
            Message::Signed { round, chain } => self.on_signed(core, now, from, (round, chain)),
            _ => core.rejected.foreign += 1,
        }
    }

    fn on_deadline(&mut self, core: &mut Core, now: Instant) {
        if self.learning {
            // Nobody is there to learn from.
            self.learning = false;
            self.next_round(core, now);
        } else {
            self.on_reached(core, now);
        }
    }

    fn deadline(&self, core: &Core) -> Option<Instant> {
        if self.learning {
            return Some(self.silent);
        }
        let time = Self::time(core, self.round).unwrap_or(i64::MAX);
        Some(core.clock.when(time))
    }

    fn begin_anew(&mut self, core: &mut Core, now: Instant) {
        (self.learning, self.settling, self.misses, self.settled) = (true, 2, 0, 0);
        self.signers.fill(None);
        self.deaf = now + core.plan.config().delay.max;
        self.silent = now + core.plan.config().period * LEARN_MAX;
        self.listened = self.deaf + listening(core);
    }
}
