//! The agreement class (Lamport and Melliar-Smith 1985): all agree on the vector of all clocks, and take its median.
//!
//! *Idea.* If all correct processes have the same vector, in which the entries of correct clocks are right, then any function of it gives
//! the same clock; the median is a clock between correct ones. The vector is agreed by [interactive consistency](mainstay_agreement).
//! It needs no clocks that are together at the start: what is agreed is what each clock is ahead of the own one.
//!
//! *Runs.* A run begins when the own clock reaches kP; what others say of it before is kept. Its phases are counted by local time from
//! there, and are so long that in each what all correct ones say arrives. A clock that is not synchronised begins when another one
//! does, at once: so all correct ones begin within a delay where none is. (While none is, a liar can make them begin and be in
//! vain; it cannot once they are.)
//!
//! *COM* (oral, n ≥ 3f + 1). In phase 1 each says its clock. In phase h each says what the clocks that it heard of in phase h - 1 are ahead of *its own
//! clock*; who hears that adds what that clock is ahead of the own one. So clocks may move while they are passed on: differences do not. Values
//! at which two correct readers look are equal up to the errors of reading; in place of the majority there is the median.
//!
//! *CSM* (signed, n ≥ 2f + 1). Each signs its clock and says it. Whoever gets a clock with s signatures for the first time notes the time, adds its signature and passes
//! it on, up to f + 1 signatures. A clock with s signatures was on its way for s delays; it is taken until phase s ends, so that whoever it is passed on to
//! still takes it. Of a clock that is said to have two
//! values nothing is noted.

use mainstay_agreement::chain::{self, Heard};
use mainstay_agreement::oral::{Tree, median};
use mainstay_agreement::sign::{Keyring, Signature};
use mainstay_base::{Instant, fault};

use super::algorithm::Part;
use super::config::long;
use super::core::{Core, Loss};
use super::corrected::nanos;
use super::message::Message;
use super::reading::{Stamp, by_arrival, far};

/// A clock that came with signatures: what it said, and what it is ahead of the own one.
#[derive(Clone, Copy, Debug)]
struct Vouched {
    value: i64,
    ahead: i64,
}

/// What is known in a run.
#[derive(Clone, Debug)]
struct Run {
    round: u64,
    /// When it began here, by local time; it listens until then.
    began: Option<Instant>,
    /// It began, or a phase of it ended, so late that what waited meanwhile has an arrival that means nothing.
    late: bool,
    /// The phase under way, from 1.
    phase: usize,
    /// What each clock is ahead of the own one, as read.
    read: Vec<Option<i64>>,
    tree: Tree<i64>,
    heard: Vec<Heard<Vouched>>,
    /// Who has said something of each phase.
    said: Vec<Vec<bool>>,
}

/// COM or CSM at one node.
#[derive(Clone, Debug)]
pub(super) struct Agreement {
    signed: bool,
    stamp: Stamp,
    keys: Option<Keyring>,
    run: Option<Run>,
    /// The run that comes next.
    round: u64,
    /// The run that each other one began last.
    begun: Vec<u64>,
    /// Without a clock to go by, no run begins before, by local time.
    rest: Instant,
    /// What it has said last: the run, and the own clock.
    said: Option<(u64, i64)>,
    /// When the next one begins, by the own clock.
    next: i64,
    misses: u32,
    deaf: Instant,
    patience: u32,
    /// The last vector that was agreed, relative to the clock that was corrected by it.
    #[cfg(feature = "test-util")]
    vector: (u64, Vec<Option<i64>>),
}

impl Agreement {
    pub(super) fn new(
        core: &Core,
        now: Instant,
        (signed, stamp): (bool, Stamp),
        keys: Option<Keyring>,
    ) -> Self {
        let mut made = Self {
            signed,
            stamp,
            keys,
            run: None,
            round: 1,
            begun: vec![0; core.nodes()],
            rest: now,
            said: None,
            next: 0,
            misses: 0,
            deaf: now,
            patience: 0,
            #[cfg(feature = "test-util")]
            vector: (0, Vec::new()),
        };
        made.plan_next(core, now);
        made
    }

    /// The next run begins at the next multiple of the period that is not just now.
    fn plan_next(&mut self, core: &Core, now: Instant) {
        let period = long(core.plan.config().period);
        self.next = core.nanos(now).saturating_add(period / 2).div_euclid(period).saturating_add(1)
            * period;
    }

    fn text(round: u64, of: u16, value: i64) -> Vec<u8> {
        let mut text = b"mainstay clock csm".to_vec();
        text.extend(round.to_be_bytes());
        text.extend(of.to_be_bytes());
        text.extend(value.to_be_bytes());
        text
    }

    /// Listens for the next run.
    fn listen(&mut self, core: &Core) -> &mut Run {
        let (nodes, faulty, me) = (core.nodes(), core.faulty(), core.me);
        let round = self.round;
        self.run.get_or_insert_with(|| {
            let mut run = Run {
                round,
                began: None,
                late: false,
                phase: 1,
                read: vec![None; nodes],
                tree: Tree::new(nodes, faulty, me),
                heard: vec![Heard::default(); nodes],
                said: vec![vec![false; nodes]; faulty + 2],
            };
            run.read[me] = Some(0);
            run.tree.hear(me, 0);
            run.heard[me].keep(Vouched { value: 0, ahead: 0 }, |_, _| true);
            run
        })
    }

    /// The run begins here; `late`: long after it should have.
    fn begin(&mut self, core: &mut Core, now: Instant, late: bool) {
        let run = self.listen(core);
        (run.began, run.late) = (Some(now), late);
        let (round, me) = (run.round, core.me as u16);
        let (value, sure) = (core.nanos(now), core.is_synchronised());
        self.said = Some((round, value));
        match &self.keys {
            Some(keys) if self.signed => {
                let chain = chain::extend(keys, &Self::text(round, me, value), Vec::new());
                core.send_all(&Message::Vouched { round, of: me, value, chain });
            }
            _ => core.send_all(&Message::Tick { round, value, sure, pull: None }),
        }
        self.rest = now + core.plan.config().period / 2;
    }

    /// Another process has begun a run. Whether it is the one that is under way here now.
    fn begun_by(&mut self, core: &mut Core, now: Instant, from: usize, round: u64) -> bool {
        self.begun[from] = self.begun[from].max(round);
        if round < self.round {
            core.rejected.replayed += 1;
            return false;
        }
        if round > self.round {
            // More than f others are not all ahead of a correct one.
            if self.begun.iter().filter(|it| **it == round).count() <= core.faulty() {
                core.rejected.future += 1;
                return false;
            }
            if core.is_synchronised() {
                core.lose(Loss::Behind);
            }
            (self.run, self.round, self.rest) = (None, round, now);
        }
        self.listen(core);
        let has_begun = self.run.as_ref().is_some_and(|run| run.began.is_some());
        if !core.is_synchronised() && !has_begun && now >= self.rest {
            self.patience = 0;
            self.begin(core, now, false);
        }
        true
    }

    fn on_tick(
        &mut self,
        core: &mut Core,
        (now, at): (Instant, Instant),
        from: usize,
        (round, value): (u64, i64),
    ) {
        if !self.begun_by(core, now, from, round) {
            return;
        }
        let sample = by_arrival(core, at, value);
        core.note(from, at, sample.difference, sample.error);
        if let Some(run) = self.run.as_mut().filter(|run| run.phase == 1)
            && run.tree.hear(from, sample.difference)
        {
            run.read[from] = Some(sample.difference);
        } else {
            core.rejected.replayed += 1;
        }
    }

    fn on_relay(&mut self, core: &mut Core, from: usize, hop: usize, values: &[Option<i64>]) {
        let Some(run) = self.run.as_mut() else { return };
        // What comes after it was passed on would be known here alone.
        let is_timely = hop >= 2 && hop >= run.phase && hop < run.said.len();
        if !is_timely || std::mem::replace(&mut run.said[hop][from], true) {
            core.rejected.untimely += 1;
            return;
        }
        let Some(ahead) = run.read[from] else { return };
        if !run.tree.hear_all(hop, from, values, |value| far(value.saturating_add(ahead))) {
            core.rejected.malformed += 1;
        }
    }

    fn on_vouched(
        &mut self,
        core: &mut Core,
        now: Instant,
        from: usize,
        (round, of, value): (u64, u16, i64),
        chain: Vec<(u16, Signature)>,
    ) {
        let Some(keys) = self.keys.clone() else { return };
        let (first, text) = (usize::from(of), Self::text(round, of, value));
        // The own word, which others pass on to all: nothing is wrong with that, and nothing is new. Another one in its name is forged.
        if first == core.me && self.said == Some((round, value)) {
            return;
        }
        let length_max = core.faulty() + 1;
        let checks = !fault!(core.plan.config(), NoSignatureCheck);
        let bad = chain::check(&keys, Some(first), &text, &chain, length_max).is_err();
        if first >= core.nodes() || (bad && checks) {
            core.rejected.unsigned += 1;
            return;
        }
        if !self.begun_by(core, now, first, round) {
            return;
        }
        let config = core.plan.config();
        let (min, max) = (config.delay.min_nanos(), config.delay.max_nanos());
        let way = (min + (max - min) / 2) * chain.len() as i64;
        let ahead = far(value.saturating_add(way).saturating_sub(core.nanos(now)));
        if from == first && chain.len() == 1 {
            let sample = by_arrival(core, now, value);
            core.note(from, now, sample.difference, sample.error);
        }
        let Some(run) = self.run.as_mut() else { return };
        // What comes with fewer signatures than phases have begun could be known here alone: who is told of it now may have concluded.
        if chain.len() < run.phase {
            core.rejected.untimely += 1;
            return;
        }
        let is_new = run.heard[first].keep(Vouched { value, ahead }, |a, b| a.value == b.value);
        if is_new && chain.len() < length_max && !fault!(core.plan.config(), NoRelayOfVectors) {
            let chain = chain::extend(&keys, &text, chain);
            core.send_all(&Message::Vouched { round, of, value, chain });
        }
    }

    /// A phase is over.
    fn on_phase(&mut self, core: &mut Core, now: Instant, late: bool) {
        let Some(run) = self.run.as_mut() else { return };
        run.late |= late;
        let phases = core.faulty() + 1;
        let is_early = fault!(core.plan.config(), NoRelayOfVectors) && !self.signed;
        if run.phase < phases && !is_early {
            run.phase += 1;
            if !self.signed {
                let (hop, values) = (run.phase, run.tree.say(run.phase));
                run.tree.said(hop, &values);
                core.send_all(&Message::Relay { round: run.round, hop: hop as u8, values });
            }
            return;
        }
        let Some(run) = self.run.take() else { return };
        if run.late && !fault!(core.plan.config(), BelievesAtOnce) {
            self.round = run.round + 1;
            return self.on_missed(core, now);
        }
        let vector: Vec<Option<i64>> = if self.signed {
            run.heard.iter().map(|it| it.choice().map(|it| it.ahead)).collect()
        } else if is_early {
            run.read
        } else {
            run.tree.resolve(median)
        };
        self.conclude(core, now, run.round, &vector);
    }

    fn conclude(&mut self, core: &mut Core, now: Instant, round: u64, vector: &[Option<i64>]) {
        self.round = round + 1;
        let known = vector.iter().flatten().count();
        let enough = core.nodes() - core.faulty();
        let by = median(vector).filter(|_| known >= enough);
        let Some(by) = by else { return self.on_missed(core, now) };
        self.misses = 0;
        let is_outside = by.abs() > core.plan.bounds().precision_nanos();
        if is_outside {
            core.lose(Loss::Outside);
        }
        #[cfg(feature = "test-util")]
        {
            let relative = vector.iter().map(|it| it.map(|it| it.saturating_sub(by)));
            self.vector = (round, relative.collect());
        }
        core.correct(now, by, 0, round, None);
        self.plan_next(core, now);
        // What takes a clock that far may be a lie, or was read by a process that slept: the next run shows whether it is right.
        if !is_outside || fault!(core.plan.config(), BelievesAtOnce) {
            core.found();
        }
    }

    fn on_missed(&mut self, core: &mut Core, now: Instant) {
        self.misses += 1;
        if self.misses >= core.plan.config().misses_max {
            core.lose(Loss::Silence);
            return self.begin_anew(core, now);
        }
        self.plan_next(core, now);
    }

    /// The last vector, and its run.
    #[cfg(feature = "test-util")]
    pub(super) fn vector(&self) -> (u64, &[Option<i64>]) {
        (self.vector.0, &self.vector.1)
    }

    /// Until when a phase takes what is said in it.
    fn phase_ends(&self, core: &Core) -> Option<Instant> {
        let run = self.run.as_ref()?;
        let phase = core.plan.bounds().round / (core.faulty() as u32 + 1);
        Some(run.began? + phase * run.phase as u32)
    }
}

impl Part for Agreement {
    fn on_message(
        &mut self,
        core: &mut Core,
        now: Instant,
        at: Instant,
        from: usize,
        message: Message,
    ) {
        let at = self.stamp.arrival(now, at);
        if at < self.deaf {
            core.rejected.untimely += 1;
            return;
        }
        match message {
            Message::Tick { round, value, .. } if !self.signed => {
                self.on_tick(core, (now, at), from, (round, value));
            }
            Message::Relay { round, hop, values } if !self.signed => {
                if self.run.as_ref().is_some_and(|run| run.round == round) {
                    self.on_relay(core, from, usize::from(hop), &values);
                } else {
                    core.rejected.replayed += 1;
                }
            }
            Message::Vouched { round, of, value, chain } if self.signed => {
                self.on_vouched(core, now, from, (round, of, value), chain);
            }
            _ => core.rejected.foreign += 1,
        }
    }

    fn on_deadline(&mut self, core: &mut Core, now: Instant) {
        let due = self.deadline(core).unwrap_or(now);
        let config = core.plan.config();
        let late = nanos(now) - nanos(due) > long(config.delay.max) + self.stamp.queue(config);
        if self.phase_ends(core).is_some() {
            self.on_phase(core, now, late);
        } else if self.patience > 0 {
            // It listens for a run of the others before it begins one.
            self.patience = 0;
            self.plan_next(core, now);
        } else {
            self.begin(core, now, late);
        }
    }

    fn deadline(&self, core: &Core) -> Option<Instant> {
        if let Some(ends) = self.phase_ends(core) {
            return Some(ends);
        }
        if self.patience > 0 {
            return Some(self.deaf + core.plan.config().period * self.patience);
        }
        Some(core.clock.when(self.next))
    }

    fn begin_anew(&mut self, core: &mut Core, now: Instant) {
        self.run = None;
        self.begun.fill(0);
        (self.round, self.rest, self.misses, self.patience) = (1, now, 0, 2);
        self.deaf = now + core.plan.config().delay.max;
    }
}
