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
//! One that knows no time takes T from f + 1 different signers.

use std::cmp::Ordering;

use mainstay_agreement::chain;
use mainstay_agreement::sign::{Keyring, Signature};
use mainstay_base::{Instant, fault};

use super::algorithm::Part;
use super::bounds;
use super::config::long;
use super::core::{Core, Loss};
use super::message::Message;
use super::srikanth::text;

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
    settling: u8,
    deaf: Instant,
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
            deaf: now,
        };
        let next = core.nanos(now).div_euclid(Self::period(core)) + 1;
        made.round = u64::try_from(next).unwrap_or(0);
        made
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
        self.started(core, round);
    }

    /// (b) Somebody else's has.
    fn on_signed(
        &mut self,
        core: &mut Core,
        now: Instant,
        round: u64,
        chain: Vec<(u16, Signature)>,
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
        if others.len() < chain.len() {
            self.misses = 0;
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
                // Others are alive.
                self.misses = 0;
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
        self.misses = 0;
        self.started(core, round);
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
            self.started(core, round);
        }
    }

    fn started(&mut self, core: &mut Core, round: u64) {
        self.round = round + 1;
        self.settling = self.settling.saturating_sub(1);
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
        _from: usize,
        message: Message,
    ) {
        match message {
            Message::Signed { .. } if now < self.deaf => core.rejected.untimely += 1,
            Message::Signed { round, chain } => self.on_signed(core, now, round, chain),
            _ => core.rejected.foreign += 1,
        }
    }

    fn on_deadline(&mut self, core: &mut Core, now: Instant) {
        self.on_reached(core, now);
    }

    fn deadline(&self, core: &Core) -> Option<Instant> {
        let time = Self::time(core, self.round).unwrap_or(i64::MAX);
        (!self.learning).then(|| core.clock.when(time))
    }

    fn begin_anew(&mut self, core: &mut Core, now: Instant) {
        (self.learning, self.settling, self.misses) = (true, 2, 0);
        self.signers.fill(None);
        self.deaf = now + core.plan.config().delay.max;
    }
}
