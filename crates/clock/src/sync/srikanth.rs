//! The synchronisers of Srikanth and Toueg (1987): who reaches round k says so, and enough of them make all accept it.
//!
//! *Problem.* With averaging all clocks are read; and the rate of the common clock may be pulled by the liars. Here a clock only learns *that*
//! round k has come; and it comes neither before a correct clock has reached it nor later than the slowest one.
//!
//! *Steps, with signatures* (n ≥ 2f + 1). When the clock says kP: sign "round k" and send it to all. With f + 1 signatures of different
//! processes: accept, set the clock to kP + α, pass the f + 1 signatures on to all.
//!
//! *Steps, with echoes* (n ≥ 3f + 1). When the clock says kP: send init k to all. On init k of f + 1, or echo k of f + 1: send echo k to all,
//! once. On echo k of 2f + 1: accept, set the clock to kP + α.
//!
//! *Why.* Among f + 1 one is correct, so a round is not accepted before a correct clock has reached it (CLK-17). What makes one accept makes all
//! accept within a delay d (two delays with echoes, CLK-18). α is what the fastest clock can have gone beyond kP when it accepts,
//! so that no clock is set back; a smaller α is more accurate by α/P and goes back.
//!
//! *Left out by the paper.* A round that is never accepted (a partition) is given up when the next one is reached. One that knows no
//! time takes the first round that it can accept, and counts itself in after a later one, once it has listened for longer than from one
//! round to the next: signatures of rounds that are over stay valid, and a liar may send them again, but it cannot take those of the present round
//! away. One that has accepted nothing for some periods, as after a start of all, speaks by its own clock.

use std::collections::BTreeMap;

use mainstay_agreement::chain;
use mainstay_agreement::sign::{Keyring, Signature};
use mainstay_base::{Duration, Instant, fault};

use super::algorithm::Part;
use super::bounds;
use super::config::long;
use super::core::{Core, Loss};
use super::message::Message;
use super::reading::by_arrival;

/// The newest round of which a process has said something, and how often one needs to look.
type Newest<T> = Vec<Option<(u64, T)>>;

/// Srikanth and Toueg's synchroniser at one node.
#[derive(Clone, Debug)]
pub(super) struct Srikanth {
    signed: bool,
    keys: Option<Keyring>,
    alpha: i64,
    /// The round that was accepted last.
    accepted: u64,
    /// The next round that the own clock reaches.
    round: u64,
    /// The last round that was echoed.
    echoed: u64,
    inits: Newest<()>,
    echoes: Newest<()>,
    signatures: Newest<Signature>,
    /// Rounds that were reached and not accepted.
    misses: u32,
    /// The clock says nothing that counts: it says nothing.
    learning: bool,
    /// Rounds that are still to be accepted until it counts.
    settling: u8,
    deaf: Instant,
    /// Until when it speaks only of rounds that it has accepted, by local time.
    silent: Instant,
    /// Until then a round of the others comes for certain, by local time.
    listened: Instant,
}

/// Periods without a round after which one that would learn the time speaks by its own.
pub(super) const LEARN_MAX: u32 = 3;

/// Longer than from one round to the next, for one that begins to listen.
pub(super) fn listening(core: &Core) -> Duration {
    core.plan.config().period + core.plan.bounds().precision
}

/// What is signed for a round.
pub(super) fn text(name: &str, round: u64) -> Vec<u8> {
    let mut text = format!("mainstay clock {name} round ").into_bytes();
    text.extend(round.to_be_bytes());
    text
}

impl Srikanth {
    pub(super) fn new(core: &Core, now: Instant, signed: bool, keys: Option<Keyring>) -> Self {
        let config = core.plan.config();
        let (alpha, _, _) = bounds::alpha(config, signed);
        let mut made = Self {
            signed,
            keys,
            alpha: if fault!(config, AlphaTooSmall) { 0 } else { alpha },
            accepted: 0,
            round: 0,
            echoed: 0,
            inits: vec![None; core.nodes()],
            echoes: vec![None; core.nodes()],
            signatures: vec![None; core.nodes()],
            misses: 0,
            learning: false,
            settling: 0,
            deaf: now,
            silent: now,
            listened: now,
        };
        made.next_round(core, now);
        made
    }

    fn period(core: &Core) -> i64 {
        long(core.plan.config().period)
    }

    fn next_round(&mut self, core: &Core, now: Instant) {
        let next = core.nanos(now).div_euclid(Self::period(core)) + 1;
        self.round = u64::try_from(next).unwrap_or(0).max(self.accepted + 1);
    }

    /// How many say something of this very round.
    fn support<T>(newest: &Newest<T>, round: u64) -> usize {
        newest.iter().flatten().filter(|(it, _)| *it == round).count()
    }

    /// The own clock has reached the round.
    fn on_reached(&mut self, core: &mut Core, now: Instant) {
        let round = self.round;
        self.misses += 1;
        if self.misses > core.plan.config().misses_max {
            core.lose(Loss::Silence);
        }
        self.round += 1;
        match &self.keys {
            Some(keys) if self.signed => {
                let signature = keys.sign(&text("st", round));
                let chain = vec![(core.me as u16, signature)];
                core.send_all(&Message::Signed { round, chain });
                self.signatures[core.me] = Some((round, signature));
            }
            _ => {
                core.send_all(&Message::Init { round });
                self.inits[core.me] = Some((round, ()));
            }
        }
        self.look(core, now, round);
    }

    /// What a word says of its sender's clock: for people, the algorithm does not look at it. With its own word alone that is kP, with those of others kP + α; who
    /// echoes and has not said that it is there may be on either side.
    fn read(&self, core: &mut Core, now: Instant, from: usize, round: u64, word: &Message) {
        let (more, error) = match word {
            Message::Init { .. } => (0, 0),
            Message::Signed { chain, .. } => match chain[..] {
                [(who, _)] if usize::from(who) == from => (0, 0),
                _ => (self.alpha, 0),
            },
            _ if self.inits[from].is_some_and(|(it, ())| it == round) => return,
            _ => (0, long(core.plan.bounds().agreed)),
        };
        let begins = i64::try_from(round).unwrap_or(i64::MAX).saturating_mul(Self::period(core));
        let sample = by_arrival(core, now, begins.saturating_add(more));
        core.note(from, now, sample.difference, sample.error.saturating_add(error));
    }

    /// Notes a word, if it is news; else it is counted.
    fn note<T>(core: &mut Core, newest: &mut Newest<T>, from: usize, round: u64, word: T) -> bool {
        let is_new = newest[from].as_ref().is_none_or(|(last, _)| *last < round);
        if is_new {
            newest[from] = Some((round, word));
        } else {
            core.rejected.replayed += 1;
        }
        is_new
    }

    fn on_signed(
        &mut self,
        core: &mut Core,
        now: Instant,
        round: u64,
        chain: Vec<(u16, Signature)>,
    ) {
        let Some(keys) = &self.keys else {
            core.rejected.foreign += 1;
            return;
        };
        let (text, checks) = (text("st", round), !fault!(core.plan.config(), NoSignatureCheck));
        let others: Vec<_> =
            chain.into_iter().filter(|(who, _)| usize::from(*who) != core.me).collect();
        if checks && chain::check(keys, None, &text, &others, core.nodes()).is_err() {
            core.rejected.unsigned += 1;
            return;
        }
        for (who, signature) in &others {
            let who = usize::from(*who);
            if who < core.nodes() {
                Self::note(core, &mut self.signatures, who, round, *signature);
            }
        }
        self.look_at_signatures(core, now, round, &others);
    }

    /// Echoes, and accepts, if enough say so.
    fn look(&mut self, core: &mut Core, now: Instant, round: u64) {
        if round <= self.accepted {
            return;
        }
        let faulty = core.faulty();
        let early = usize::from(fault!(core.plan.config(), AcceptsTooEarly));
        if self.signed {
            return self.look_at_signatures(core, now, round, &[]);
        }
        let echoed = Self::support(&self.echoes, round);
        let is_due = Self::support(&self.inits, round) + early > faulty || echoed > faulty;
        if is_due && self.echoed < round && !self.learning {
            self.echoed = round;
            if !fault!(core.plan.config(), NoRelay) {
                core.send_all(&Message::Echo { round });
            }
            self.echoes[core.me] = Some((round, ()));
            return self.look(core, now, round);
        }
        if echoed + 2 * early > 2 * faulty {
            self.accept(core, now, round);
        }
    }

    /// The same, with signatures. Those that have just come count whatever their signers have said since: who passed them on has
    /// accepted them.
    fn look_at_signatures(
        &mut self,
        core: &mut Core,
        now: Instant,
        round: u64,
        come: &[(u16, Signature)],
    ) {
        let of_round = |(who, it): (usize, &Option<(u64, Signature)>)| {
            it.filter(|(of, _)| *of == round).map(|(_, signature)| (who as u16, signature))
        };
        let known = self.signatures.iter().enumerate().filter_map(of_round);
        let all: BTreeMap<u16, Signature> = known.chain(come.iter().copied()).collect();
        let early = usize::from(fault!(core.plan.config(), AcceptsTooEarly));
        if round <= self.accepted || all.len() + early <= core.faulty() {
            return;
        }
        self.accept(core, now, round);
        if self.accepted == round && !fault!(core.plan.config(), NoRelay) {
            let chain: Vec<_> = all.into_iter().take(core.faulty() + 1).collect();
            core.send_all(&Message::Signed { round, chain });
        }
    }

    fn accept(&mut self, core: &mut Core, now: Instant, round: u64) {
        let Ok(wide) = i64::try_from(round) else { return };
        let Some(begins) = Self::period(core).checked_mul(wide) else { return };
        let by = begins.saturating_add(self.alpha).saturating_sub(core.nanos(now));
        self.accepted = round;
        self.misses = 0;
        let is_outside = by.unsigned_abs() > core.plan.bounds().precision_nanos().unsigned_abs();
        core.correct(now, by, 0, round, None);
        self.next_round(core, now);
        self.learning = false;
        if is_outside && self.settling == 0 {
            core.lose(Loss::Outside);
            self.settling = 1;
        } else if self.settling > 0 {
            let has_listened = now >= self.listened || fault!(core.plan.config(), BelievesAtOnce);
            self.settling -= 1;
            let never = fault!(core.plan.config(), JoinsTooLate);
            if is_outside || !has_listened || never {
                self.settling = 1;
            }
        }
        if self.settling == 0 {
            core.found();
        }
    }
}

impl Part for Srikanth {
    fn on_message(
        &mut self,
        core: &mut Core,
        now: Instant,
        _at: Instant,
        from: usize,
        message: Message,
    ) {
        if now < self.deaf {
            core.rejected.untimely += 1;
            return;
        }
        let round = match message {
            Message::Init { round } | Message::Echo { round } if !self.signed => round,
            Message::Signed { round, .. } if self.signed => round,
            _ => {
                core.rejected.foreign += 1;
                return;
            }
        };
        if round >= self.accepted {
            self.read(core, now, from, round, &message);
        }
        if round <= self.accepted {
            core.rejected.replayed += 1;
            return;
        }
        match message {
            Message::Signed { chain, .. } => self.on_signed(core, now, round, chain),
            word => {
                let is_init = matches!(word, Message::Init { .. });
                let newest = if is_init { &mut self.inits } else { &mut self.echoes };
                if Self::note(core, newest, from, round, ()) {
                    self.look(core, now, round);
                }
            }
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
        let begins =
            Self::period(core).saturating_mul(i64::try_from(self.round).unwrap_or(i64::MAX));
        Some(core.clock.when(begins))
    }

    fn begin_anew(&mut self, core: &mut Core, now: Instant) {
        (self.learning, self.settling, self.misses) = (true, 2, 0);
        // A clock that ran away may have accepted what is still to come; what the liars say of that counts for nothing.
        (self.accepted, self.echoed) = (0, 0);
        self.inits.fill(None);
        self.echoes.fill(None);
        self.signatures.fill(None);
        self.deaf = now + core.plan.config().delay.max;
        self.silent = now + core.plan.config().period * LEARN_MAX;
        self.listened = self.deaf + listening(core);
    }
}
