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

use mainstay_base::{Duration, Instant, Rng, fault};

use super::algorithm::{Part, Referred};
use super::config::{Function, Kind, long, span};
use super::core::{Core, Loss};
use super::corrected::{BILLION, nanos};
use super::functions;
use super::message::Message;
use super::reading::{Question, Reading, Stamp, Way, by_arrival, by_round_trip, far};

/// In place of the term of a master: the answer of a clock that is synchronised.
const SURE: u64 = 0;
/// The same, of one that is not.
const UNSURE: u64 = 1;
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
    /// How much further than by the last pull it would have had to go then.
    left: i64,
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
    /// The round began so late that words which waited meanwhile have an arrival that means nothing.
    late: bool,
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
                    left: 0,
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
            late: false,
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

    /// Whether it is so long after `due`, on the own clock, that the process has slept.
    fn is_late(core: &Core, now: Instant, due: i64) -> bool {
        now.saturating_since(core.clock.when(due)) > core.plan.config().delay.max
    }

    fn on_begin(&mut self, core: &mut Core, now: Instant) {
        self.phase = Phase::Collecting;
        // A question is asked after the sleep.
        let is_late = Self::is_late(core, now, self.begins(core));
        self.late = is_late && self.reading.way == Way::Arrival;
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

    /// Whether the word counts in this round or the next one.
    fn on_tick(
        &mut self,
        core: &mut Core,
        at: Instant,
        from: usize,
        tick: (u64, i64, bool),
    ) -> bool {
        let (round, value, sure) = tick;
        if self.reading.way != Way::Arrival {
            core.rejected.foreign += 1;
            return false;
        }
        if at < self.deaf {
            core.rejected.untimely += 1;
            return false;
        }
        if self.phase == Phase::Learning {
            if sure {
                self.learn_from(core, at, from, round, value);
            }
            return false;
        }
        // Sure clocks count sure ones only; where none is sure, all count.
        if !sure && core.is_synchronised() {
            return false;
        }
        if sure && self.unsure {
            self.learn_from(core, at, from, round, value);
            if self.are_elsewhere(core, at, round) {
                // Somebody is there to learn from after all.
                self.begin_anew(core, at);
                return false;
            }
        }
        let Some(ahead) = round.checked_sub(self.round) else {
            core.rejected.replayed += 1;
            return false;
        };
        self.note(at, from, round, value);
        if ahead > 1 {
            core.rejected.future += 1;
            self.look_ahead(core, at);
            return false;
        }
        if self.estimates[ahead as usize][from].is_some() {
            core.rejected.replayed += 1;
            return false;
        }
        let sample = by_arrival(core, at, value);
        core.note(from, at, sample.difference, sample.error);
        self.estimates[ahead as usize][from] = Some(sample.difference);
        true
    }

    /// Whether enough others are together in a round, and not near to this clock.
    fn are_elsewhere(&self, core: &Core, now: Instant, round: u64) -> bool {
        let own = core.nanos(now).saturating_sub(nanos(now));
        let near = core.plan.bounds().precision_nanos() + Self::spread(core);
        let words = self.together(core, round, nanos(now)).into_iter();
        words.filter(|word| word.offset.saturating_sub(own).saturating_abs() > near).count()
            >= Self::enough(core)
    }

    /// Keeps the newest word of another one.
    fn note(&mut self, at: Instant, from: usize, round: u64, value: i64) {
        if self.words[from].is_none_or(|word| word.round < round) {
            let offset = value.saturating_sub(nanos(at));
            self.words[from] = Some(Word { round, at: nanos(at), offset });
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
        if self.together(core, round, nanos(at)).len() == Self::enough(core) {
            // The others of this round must come within the same span, be it after the end of the wait.
            self.until = at + span(Self::spread(core));
        }
    }

    /// So many others of one round are heard, whoever is faulty.
    fn enough(core: &Core) -> usize {
        core.nodes() - 1 - core.faulty()
    }

    /// The words of a round come within this span.
    fn spread(core: &Core) -> i64 {
        Self::window(core) + long(core.plan.bounds().agreed)
    }

    /// The words of a round that came together with one at `at`.
    fn together(&self, core: &Core, round: u64, at: i64) -> Vec<Word> {
        let span = Self::spread(core);
        let is_with = |word: &&Word| word.round == round && (word.at - at).abs() <= span;
        self.words.iter().flatten().filter(is_with).copied().collect()
    }

    /// The newest round that was heard whole: all words of correct clocks came after it began to listen, and before now.
    fn heard_whole(&self, core: &Core, now: Instant) -> Vec<Word> {
        let span = Self::spread(core);
        let from = nanos(self.deaf) + span;
        let is_whole = |words: &Vec<Word>| {
            words.len() >= Self::enough(core) && words.iter().all(|word| word.at >= from)
        };
        let ended = self.words.iter().flatten().filter(|word| word.at + span <= nanos(now));
        let rounds = ended.map(|word| self.together(core, word.round, word.at));
        let key = |words: &Vec<Word>| (words.len(), words.first().map(|word| word.round));
        rounds.filter(is_whole).max_by_key(key).unwrap_or_default()
    }

    /// The time for learning is over.
    fn on_learnt(&mut self, core: &mut Core, now: Instant) {
        let enough = Self::enough(core);
        let offsets: Vec<i64> = match self.reading.way {
            Way::Arrival => {
                let delay = core.plan.config().delay;
                let middle = delay.min_nanos() + (delay.max_nanos() - delay.min_nanos()) / 2;
                let words = self.heard_whole(core, now).into_iter();
                words.map(|word| word.offset.saturating_add(middle)).collect()
            }
            Way::RoundTrip => {
                let own = core.nanos(now) - nanos(now);
                self.estimates[0].iter().flatten().map(|it| own.saturating_add(*it)).collect()
            }
        };
        if enough == 0 || offsets.len() < enough {
            return self.go_on_learning(core, now);
        }
        // This clock is one of the f; of those that were heard the others are fewer than half.
        let mut drops = core.faulty().min((offsets.len() - 1) / 2);
        if fault!(core.plan.config(), LearnsFromAny) {
            drops = 0;
        }
        let offset = functions::midpoint(offsets, drops);
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
        let late = self.late || Self::is_late(core, now, self.begins(core) + Self::window(core));
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
        let mut by = self.average(core, &all);
        if fault!(core.plan.config(), HalfWay) {
            by /= 2;
        }
        self.misses = 0;
        // A correct clock has all correct ones near it, and goes no further than the bound.
        let is_near = |it: &&Option<i64>| it.is_some_and(|it| it.abs() <= limit + read);
        let near = estimates.iter().filter(is_near).count();
        if !self.unsure && (by.abs() > limit || near < core.nodes() - core.faulty()) {
            core.lose(Loss::Outside);
            return self.begin_anew(core, now);
        }
        let (pulled, followed) = self.pulled(core, now);
        let rate = if self.rated { self.rate(core, by) } else { 0 };
        let error = self.error_of(core, now, followed);
        core.correct(now, by + pulled, rate, self.round, error);
        // The estimates of those that are ahead were made before the correction.
        for estimate in self.estimates[1].iter_mut().flatten() {
            *estimate = far(*estimate - by - pulled);
        }
        // Two groups of n - f that are apart cannot be: those who are near are the others.
        if !self.unsure || (by.abs() <= limit && near >= core.nodes() - core.faulty()) {
            if self.silent && fault!(core.plan.config(), JoinsTooLate) {
                return;
            }
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
        let arrives = fault!(core.plan.config(), ArrivesAtOnce);
        pull.left = if arrives { 0 } else { said.saturating_abs().saturating_sub(max).max(0) };
        (said.clamp(-max, max), true)
    }

    /// The macrotick: a clock that has to be corrected in one direction each time is made to run faster or slower.
    fn rate(&self, core: &Core, by: i64) -> i64 {
        let most = i64::from(core.plan.config().drift.parts());
        let period = long(core.plan.config().period);
        let step = i128::from(by) * i128::from(BILLION) / i128::from(8 * period);
        (core.clock.rate() + step as i64).clamp(-most, most)
    }

    fn error_of(&self, core: &Core, now: Instant, followed: bool) -> Option<Duration> {
        let accuracy = core.plan.bounds().accuracy?;
        let pull = self.pull.as_ref()?;
        let accuracy = accuracy.saturating_add(span(pull.left));
        let since = pull.followed?;
        if followed {
            return Some(accuracy);
        }
        Some(accuracy.saturating_add(span(grown(core, nanos(now) - since))))
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
        let at = self.reading.stamp.arrival(now, at);
        match message {
            Message::Tick { round, value, sure, pull } => {
                let is_taken = self.on_tick(core, at, from, (round, value, sure));
                if let Some(own) = &mut self.pull
                    && own.master == from
                    && round == self.round
                    && is_taken
                {
                    own.said = pull;
                }
            }
            Message::Request { nonce } if self.reading.way == Way::RoundTrip => {
                if core.is_synchronised() || self.unsure {
                    let value = core.nanos(now);
                    let held = now.saturating_since(at).as_nanos() as u64;
                    let term = if core.is_synchronised() { SURE } else { UNSURE };
                    core.send(from, Message::Reply { nonce, value, error: 0, term, held });
                }
            }
            Message::Reply { nonce, value, held, term, .. }
                if self.reading.way == Way::RoundTrip =>
            {
                // Sure clocks count sure ones only; where none is sure, all count.
                let counts_unsure = !core.is_synchronised() && self.phase != Phase::Learning;
                if term == SURE || counts_unsure {
                    self.on_reply(core, at, from, (nonce, value, held));
                }
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

    fn on_reference(&mut self, core: &mut Core, _now: Instant, read: Referred) {
        let Kind::Hardware { error, .. } = core.plan.config().kind else { return };
        if read.error.is_some_and(|stated| stated > long(error)) {
            core.rejected.inaccurate += 1;
        } else if let Some(pull) = &mut self.pull {
            pull.own = Some((read.at, read.value));
        }
    }

    fn is_unsure(&self) -> bool {
        self.unsure
    }

    fn error(&self, core: &Core, now: Instant) -> Option<i64> {
        let (accuracy, pull) = (core.plan.bounds().accuracy?, self.pull.as_ref()?);
        let since = pull.followed?;
        let error = long(accuracy).saturating_add(grown(core, nanos(now) - since));
        Some(error.saturating_add(pull.left))
    }
}
