//! The averaging class: each period all clocks are read, and a function of the readings corrects the own one.
//!
//! *Problem.* A liar shows each reader another clock. Whoever takes the mean of what it sees goes wherever the liar wants.
//!
//! *Idea.* What is far out is cut off before the mean is taken, in a way that two correct readers, who see the same correct clocks and
//! up to f different lies, end nearer to each other than they began. Four ways are in [`functions`](super::functions).
//!
//! *Steps* (as Lundelius Welch and Lynch 1988 lay them out). At T = kP by the own clock say "T". Note for each other what its clock is ahead of
//! the own one. When all correct ones must have been heard, W after T, apply the function to the notes, correct, and wait for
//! (k+1)P. Who was not heard counts as a clock like the own one: it is among the f that are cut off.
//!
//! *What the papers leave out.* A clock that is not within β of the others gets it wrong, so each clock watches itself: a correction that
//! is larger than that of any correct clock, fewer than n - f clocks near to it, too few voices for some rounds, others that are rounds
//! ahead, time that goes back, a long sleep: then it is silent, learns the time from what n - 1 - f others say of one round, and speaks
//! again after the next round. Where nobody is to learn from, after a partition without a majority, it speaks all the same, and says
//! that it is unsure: sure clocks do not count it, unsure ones do.

use mainstay_base::{Instant, Rng, fault};

use super::algorithm::Part;
use super::config::{Function, Kind, long};
use super::core::{Core, Loss};
use super::corrected::{BILLION, nanos};
use super::functions;
use super::message::Message;
use super::reading::{Question, Reading, Stamp, Way, by_arrival, by_round_trip, far};

/// Periods without a word of the others after which one that would learn the time speaks by its own.
const LEARN_MAX: u32 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Until the round begins.
    Waiting,
    /// Until all must have been heard.
    Collecting,
    /// The time is to be learnt from the others.
    Learning,
}

/// The newest word of another clock.
#[derive(Clone, Copy, Debug)]
struct Word {
    round: u64,
    /// When it came, by local time.
    at: i64,
    /// What that clock was ahead of local time then.
    offset: i64,
}

/// What an external master says of the reference.
#[derive(Clone, Copy, Debug)]
struct Pull {
    master: usize,
    max: i64,
    /// What the reference is ahead of the own clock, at the master.
    own: Option<(Instant, i64)>,
    /// What the master said in this round.
    said: Option<i64>,
    /// When the reference was last followed, by local time.
    followed: Option<i64>,
}

/// An averaging algorithm at one node.
#[derive(Clone, Debug)]
pub(super) struct Averaging {
    function: Function,
    reading: Reading,
    phase: Phase,
    /// The round to be decided next; it begins at `round` times the period.
    round: u64,
    /// What is known of each clock in this round, and of those that are in the next one already.
    estimates: [Vec<Option<i64>>; 2],
    words: Vec<Option<Word>>,
    question: Question,
    /// Rounds without enough voices.
    misses: u32,
    /// It takes part in silence until this round is decided.
    silent: bool,
    /// It speaks, and says that it is not synchronised.
    unsure: bool,
    /// When learning, or waiting for somebody to learn from, ends.
    until: Instant,
    /// What comes before was on its way while the process slept.
    deaf: Instant,
    learnt: u32,
    rated: bool,
    pull: Option<Pull>,
    rng: Rng,
}

impl Averaging {
    pub(super) fn new(core: &Core, now: Instant, rng: Rng) -> Self {
        let (function, reading, pull) = match core.plan.config().kind {
            Kind::Averaging { function, reading } => (function, reading, None),
            Kind::Hardware { master, pull_max, .. } => {
                let max = long(pull_max);
                let pull = master.map(|master| Pull {
                    master,
                    max,
                    own: None,
                    said: None,
                    followed: None,
                });
                (Function::Average, Reading::STAMPED, pull)
            }
            _ => unreachable!("only averaging kinds make this part"),
        };
        let none = || vec![None; core.nodes()];
        let mut made = Self {
            function,
            reading,
            phase: Phase::Waiting,
            round: 0,
            estimates: [none(), none()],
            words: vec![None; core.nodes()],
            question: Question::default(),
            misses: 0,
            silent: false,
            unsure: false,
            until: now,
            deaf: now,
            learnt: 0,
            rated: matches!(core.plan.config().kind, Kind::Hardware { .. }),
            pull,
            rng,
        };
        made.next_round(core, now);
        made
    }

    fn begins(&self, core: &Core) -> i64 {
        long(core.plan.config().period)
            .saturating_mul(i64::try_from(self.round).unwrap_or(i64::MAX))
    }

    fn window(core: &Core) -> i64 {
        long(core.plan.bounds().round)
    }

    /// The next round is the first that begins after now.
    fn next_round(&mut self, core: &Core, now: Instant) {
        let period = long(core.plan.config().period);
        let next = core.nanos(now).div_euclid(period) + 1;
        self.round = u64::try_from(next).unwrap_or(0);
        self.phase = Phase::Waiting;
        self.estimates.iter_mut().for_each(|it| it.fill(None));
    }

    fn on_begin(&mut self, core: &mut Core, now: Instant) {
        self.phase = Phase::Collecting;
        let sure = core.is_synchronised();
        match self.reading.way {
            Way::Arrival if !self.silent => {
                let pull = self.own_pull(core);
                let value = core.nanos(now);
                core.send_all(&Message::Tick { round: self.round, value, sure, pull });
            }
            Way::Arrival => {}
            Way::RoundTrip => {
                let nonce = self.rng.next_u64();
                self.question.ask(core, now, nonce);
            }
        }
    }

    /// What the reference is ahead of the clock of the master, if this is the master and knows.
    fn own_pull(&mut self, core: &Core) -> Option<i64> {
        let period = core.plan.config().period;
        let pull = self.pull.as_mut().filter(|pull| pull.master == core.me)?;
        let (at, value) = pull.own?;
        let is_fresh = core.last() - nanos(at) <= long(period);
        pull.said = is_fresh.then(|| far(value.saturating_sub(core.nanos(at))));
        pull.said
    }

    fn on_tick(&mut self, core: &mut Core, at: Instant, from: usize, tick: (u64, i64, bool)) {
        let (round, value, sure) = tick;
        if self.reading.way != Way::Arrival {
            core.rejected.foreign += 1;
            return;
        }
        if at < self.deaf {
            core.rejected.untimely += 1;
            return;
        }
        if self.phase == Phase::Learning {
            if sure {
                self.learn_from(core, at, from, round, value);
            }
            return;
        }
        // Sure clocks count sure ones only; where none is sure, all count.
        if !sure && core.is_synchronised() {
            return;
        }
        if sure && self.unsure {
            // Somebody is there to learn from after all.
            self.learn_from(core, at, from, round, value);
            if self.together(core, round, nanos(at)).len() >= core.nodes() - 1 - core.faulty() {
                self.begin_anew(core, at);
            }
            return;
        }
        let ahead = match round.checked_sub(self.round) {
            None => {
                core.rejected.replayed += 1;
                if self.unsure && sure {
                    self.note(at, from, round, value);
                    self.look_behind(core, at);
                }
                return;
            }
            Some(ahead) => ahead,
        };
        self.note(at, from, round, value);
        if ahead > 1 {
            core.rejected.future += 1;
            return self.look_ahead(core, at);
        }
        if self.estimates[ahead as usize][from].is_some() {
            core.rejected.replayed += 1;
            return;
        }
        let sample = by_arrival(core, at, value);
        core.note(from, at, sample.difference, sample.error);
        self.estimates[ahead as usize][from] = Some(sample.difference);
    }

    /// Keeps the newest word of another one.
    fn note(&mut self, at: Instant, from: usize, round: u64, value: i64) {
        if self.words[from].is_none_or(|word| word.round < round) {
            let offset = value.saturating_sub(nanos(at));
            self.words[from] = Some(Word { round, at: nanos(at), offset });
        }
    }

    /// One that was alone, and is ahead, has always decided before the others speak: it would never hear them.
    fn look_behind(&mut self, core: &mut Core, now: Instant) {
        let recent = nanos(now) - long(core.plan.config().period);
        let is_late = |word: &&Word| word.round < self.round && word.at > recent;
        if self.words.iter().flatten().filter(is_late).count() > core.faulty() {
            self.begin_anew(core, now);
        }
    }

    /// More than f others cannot all be rounds ahead of a correct clock.
    fn look_ahead(&mut self, core: &mut Core, now: Instant) {
        let is_ahead = |word: &&Word| word.round > self.round + 1;
        if self.words.iter().flatten().filter(is_ahead).count() > core.faulty() {
            core.lose(Loss::Behind);
            self.begin_anew(core, now);
        }
    }

    /// While it learns: the words of one round, as they come.
    fn learn_from(&mut self, core: &mut Core, at: Instant, from: usize, round: u64, value: i64) {
        let offset = value.saturating_sub(nanos(at));
        self.words[from] = Some(Word { round, at: nanos(at), offset });
        self.learnt = 0;
        if self.together(core, round, nanos(at)).len() == core.nodes() - 1 - core.faulty() {
            // The others of this round must come within the same span.
            let wait = core.plan.bounds().round + core.plan.bounds().agreed;
            self.until = self.until.min(at + wait);
        }
    }

    /// The words of a round that came together with one at `at`.
    fn together(&self, core: &Core, round: u64, at: i64) -> Vec<Word> {
        let span = Self::window(core) + long(core.plan.bounds().agreed);
        let is_with = |word: &&Word| word.round == round && (word.at - at).abs() <= span;
        self.words.iter().flatten().filter(is_with).copied().collect()
    }

    /// The time for learning is over.
    fn on_learnt(&mut self, core: &mut Core, now: Instant) {
        let enough = core.nodes() - 1 - core.faulty();
        let mut offsets: Vec<i64> = match self.reading.way {
            Way::Arrival => {
                let newest = self.words.iter().flatten().map(|word| (word.round, word.at));
                let whole = newest.filter(|it| self.together(core, it.0, it.1).len() >= enough);
                let delay = core.plan.config().delay;
                let middle = delay.min_nanos() + (delay.max_nanos() - delay.min_nanos()) / 2;
                let words = whole.max().map(|it| self.together(core, it.0, it.1));
                words.into_iter().flatten().map(|word| word.offset.saturating_add(middle)).collect()
            }
            Way::RoundTrip => {
                let own = core.nanos(now) - nanos(now);
                self.estimates[0].iter().flatten().map(|it| own.saturating_add(*it)).collect()
            }
        };
        if enough == 0 || offsets.len() < enough {
            return self.go_on_learning(core, now);
        }
        // Who is missing is one of the f: any value will do.
        offsets.resize(core.nodes() - 1, offsets[0]);
        let offset = functions::midpoint(offsets, core.faulty());
        let by = far(offset.saturating_sub(core.nanos(now) - nanos(now)));
        let period = long(core.plan.config().period);
        let version =
            u64::try_from(core.nanos(now).saturating_add(by).div_euclid(period)).unwrap_or(0);
        core.correct(now, by, 0, version, None);
        self.next_round(core, now);
        (self.silent, self.unsure) = (true, false);
    }

    fn go_on_learning(&mut self, core: &mut Core, now: Instant) {
        self.learnt += 1;
        if self.learnt >= LEARN_MAX {
            // Nobody is there to learn from.
            (self.unsure, self.silent) = (true, false);
            return self.next_round(core, now);
        }
        let mut wait = core.plan.config().period;
        if self.reading.way == Way::RoundTrip {
            self.estimates[0].fill(None);
            let nonce = self.rng.next_u64();
            self.question.ask(core, now, nonce);
            wait = core.plan.bounds().round;
        }
        self.until = now + wait;
    }

    fn on_reply(&mut self, core: &mut Core, at: Instant, from: usize, reply: (u64, i64, u64)) {
        let (nonce, value, held) = reply;
        if !self.question.take(core, from, nonce) {
            return;
        }
        match by_round_trip(core, self.question.asked(), at, (value, held), false) {
            Some(sample) => {
                core.note(from, at, sample.difference, sample.error);
                self.estimates[0][from] = Some(sample.difference);
            }
            None => core.rejected.untimely += 1,
        }
    }

    /// All correct clocks must have been heard.
    fn on_decide(&mut self, core: &mut Core, now: Instant) {
        let due = core.clock.when(self.begins(core) + Self::window(core));
        let late = now.saturating_since(due) > core.plan.config().delay.max;
        let none = vec![None; core.nodes()];
        let mut estimates = std::mem::replace(&mut self.estimates[0], none);
        self.question.close();
        estimates[core.me] = Some(0);
        let heard = estimates.iter().flatten().count();
        let (round, enough) = (self.round, core.nodes() - core.faulty());
        // What a sleeper takes in has an arrival that means nothing, unless the socket stamped it.
        if heard < enough || (late && self.reading.stamp == Stamp::Turn) {
            self.on_missed(core, now);
        } else {
            self.apply(core, now, &estimates);
        }
        if self.phase == Phase::Learning {
            return;
        }
        self.round = round + 1;
        self.phase = Phase::Waiting;
        self.estimates.swap(0, 1);
        if self.begins(core) <= core.nanos(now) {
            self.next_round(core, now);
        }
    }

    fn on_missed(&mut self, core: &mut Core, now: Instant) {
        self.misses += 1;
        if self.misses >= core.plan.config().misses_max && !self.unsure {
            core.lose(Loss::Silence);
            return self.begin_anew(core, now);
        }
        if let Some(pull) = &mut self.pull {
            pull.said = None;
        }
    }

    fn apply(&mut self, core: &mut Core, now: Instant, estimates: &[Option<i64>]) {
        let limit = core.plan.bounds().precision_nanos();
        let read = 2 * long(core.plan.bounds().reading);
        let all: Vec<i64> = estimates.iter().map(|it| it.unwrap_or(0)).collect();
        let by = self.average(core, &all);
        self.misses = 0;
        // A correct clock has all correct ones near it, and goes no further than the bound.
        let is_near = |it: &&Option<i64>| it.is_some_and(|it| it.abs() <= limit + read);
        let near = estimates.iter().filter(is_near).count();
        if !self.unsure && (by.abs() > limit || near < core.nodes() - core.faulty()) {
            core.lose(Loss::Outside);
            return self.begin_anew(core, now);
        }
        let spread = all.iter().max().zip(all.iter().min()).map_or(0, |(max, min)| max - min);
        let (pulled, followed) = self.pulled(core, now);
        let rate = if self.rated { self.rate(core, by) } else { 0 };
        let error = self.error_of(core, now, followed);
        core.correct(now, by + pulled, rate, self.round, error);
        // The estimates of those that are ahead were made before the correction.
        for estimate in self.estimates[1].iter_mut().flatten() {
            *estimate = far(*estimate - by - pulled);
        }
        if !self.unsure || spread <= 2 * limit {
            (self.silent, self.unsure) = (false, false);
            core.found();
        }
    }

    fn average(&self, core: &Core, all: &[i64]) -> i64 {
        let config = core.plan.config();
        let drops = core.faulty() - usize::from(fault!(config, DropsTooFew) && core.faulty() > 0);
        if fault!(config, MeanForMidpoint) {
            return functions::mean(all);
        }
        let (skew, read) =
            (long(core.plan.bounds().agreed), self.reading.error(config.delay, config.drift));
        match self.function {
            Function::Egocentric => {
                let egocentric = !fault!(config, NoEgocentricLimit);
                functions::egocentric(all, if egocentric { skew + 2 * read } else { i64::MAX })
            }
            Function::Fast => functions::fast(all, skew + 4 * read, drops),
            Function::Midpoint => functions::midpoint(all.to_vec(), drops),
            Function::Average => functions::average(all.to_vec(), drops),
        }
    }

    /// How far the master pulls this clock now, and whether it said anything.
    fn pulled(&mut self, core: &Core, now: Instant) -> (i64, bool) {
        let unlimited = fault!(core.plan.config(), UnlimitedPull);
        let Some(pull) = &mut self.pull else { return (0, false) };
        let Some(said) = pull.said.take() else { return (0, false) };
        pull.followed = Some(nanos(now));
        let max = if unlimited { 1 << 60 } else { pull.max };
        (said.clamp(-max, max), true)
    }

    /// The macrotick: a clock that has to be corrected in one direction each time is made to run faster or slower.
    fn rate(&self, core: &Core, by: i64) -> i64 {
        let most = i64::from(core.plan.config().drift.parts());
        let period = long(core.plan.config().period);
        let step = i128::from(by) * i128::from(BILLION) / i128::from(8 * period);
        (core.clock.rate() + step as i64).clamp(-most, most)
    }

    fn error_of(
        &self,
        core: &Core,
        now: Instant,
        followed: bool,
    ) -> Option<mainstay_base::Duration> {
        let accuracy = core.plan.bounds().accuracy?;
        let since = self.pull.as_ref()?.followed?;
        if followed {
            return Some(accuracy);
        }
        Some(accuracy + super::config::span(grown(core, nanos(now) - since)))
    }
}

/// What all clocks together may run away from the true time in a span.
fn grown(core: &Core, span: i64) -> i64 {
    let rate = core.plan.bounds().rate.unwrap_or(0);
    (i128::from(span) * i128::from(rate) / i128::from(BILLION)) as i64 + 1
}

impl Part for Averaging {
    fn on_message(
        &mut self,
        core: &mut Core,
        now: Instant,
        at: Instant,
        from: usize,
        message: Message,
    ) {
        let at = if self.reading.stamp == Stamp::Kernel { at } else { now };
        match message {
            Message::Tick { round, value, sure, pull } => {
                if let Some(own) = &mut self.pull
                    && own.master == from
                    && round == self.round
                {
                    own.said = pull;
                }
                self.on_tick(core, at, from, (round, value, sure));
            }
            Message::Request { nonce } if self.reading.way == Way::RoundTrip => {
                if core.is_synchronised() || self.unsure {
                    let value = core.nanos(now);
                    let held = now.saturating_since(at).as_nanos() as u64;
                    core.send(from, Message::Reply { nonce, value, error: 0, term: 0, held });
                }
            }
            Message::Reply { nonce, value, held, .. } if self.reading.way == Way::RoundTrip => {
                self.on_reply(core, at, from, (nonce, value, held));
            }
            _ => core.rejected.foreign += 1,
        }
    }

    fn on_deadline(&mut self, core: &mut Core, now: Instant) {
        match self.phase {
            Phase::Waiting => self.on_begin(core, now),
            Phase::Collecting => self.on_decide(core, now),
            Phase::Learning => self.on_learnt(core, now),
        }
    }

    fn deadline(&self, core: &Core) -> Option<Instant> {
        Some(match self.phase {
            Phase::Waiting => core.clock.when(self.begins(core)),
            Phase::Collecting => core.clock.when(self.begins(core) + Self::window(core)),
            Phase::Learning => self.until,
        })
    }

    fn begin_anew(&mut self, core: &mut Core, now: Instant) {
        self.phase = Phase::Learning;
        self.words.fill(None);
        self.estimates.iter_mut().for_each(|it| it.fill(None));
        (self.silent, self.unsure, self.misses, self.learnt) = (true, false, 0, 0);
        // What waited while the process slept comes at once.
        self.deaf = now + core.plan.config().delay.max;
        self.until = now + core.plan.bounds().round;
        if self.reading.way == Way::Arrival {
            self.until = now + core.plan.config().period;
        }
    }

    fn on_reference(&mut self, _core: &mut Core, _now: Instant, at: Instant, value: i64) {
        if let Some(pull) = &mut self.pull {
            pull.own = Some((at, value));
        }
    }

    fn error(&self, core: &Core, now: Instant) -> Option<i64> {
        let (accuracy, since) = (core.plan.bounds().accuracy?, self.pull.as_ref()?.followed?);
        Some(long(accuracy) + grown(core, nanos(now) - since))
    }
}
