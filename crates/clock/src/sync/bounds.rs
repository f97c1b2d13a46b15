//! What follows from a configuration: how near clocks are, how far a correction goes, how long a round takes.
//!
//! Throughout: ε is the error of a reading, ρ the drift, β the skew of correct clocks when a round begins, W how long a round takes
//! by the own clock. Two clocks drift apart by at most 2ρ times the time that passes. The readings of a round are made at
//! different moments of it, so ε' = ε + 2ρ(W + β) is what two correct readers can be wrong about a third correct clock.

use mainstay_base::Duration;

use super::config::{Config, ConfigError, Drift, Function, Kind, long, span};
use super::corrected::BILLION;
use super::reading::{Reading, Stamp, Way};

/// Rounds of the computation of β, which depends on W, which depends on β.
const STEPS_MAX: usize = 1_000;
/// Clocks that far apart are not together.
const SKEW_MAX: i64 = 1 << 55;

/// What a [`Plan`](super::Plan) promises, as long as no more is faulty than it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Two synchronised correct clocks differ by no more, at any instant; [`Duration::MAX`] where each clock says by itself how far it may be
    /// wrong.
    pub precision: Duration,
    /// The same, of clocks whose corrections have the same version (or the same master).
    pub agreed: Duration,
    /// The error of a reading of a correct clock.
    pub reading: Duration,
    /// How long a round takes, from its first word to the correction.
    pub round: Duration,
    /// A correction of a clock that is synchronised goes no further, forward or back.
    pub correction: Duration,
    /// How far synchronised clocks may be from the reference that they follow, where they follow one.
    pub accuracy: Option<Duration>,
    /// How fast the distance from the true time may grow where no reference is followed, in parts of a billion of the time that passes;
    /// `None` where no such bound is known.
    pub rate: Option<u64>,
    /// Periods after which a clock that begins anew is synchronised, if the others are and are heard.
    pub joining: u32,
    /// The shortest period.
    pub period_min: Duration,
}

impl Bounds {
    pub(super) fn of(config: &Config) -> Result<Self, ConfigError> {
        match &config.kind {
            Kind::Averaging { function, reading } => {
                averaging(config, *function, *reading, config.drift, 0).map(|it| it.bounds)
            }
            Kind::Hardware { master, pull_max, error } => {
                hardware(config, master.is_some(), *pull_max, *error)
            }
            Kind::Agreement { signed, stamp } => agreement(config, *signed, *stamp),
            Kind::Srikanth { signed } => srikanth(config, *signed),
            Kind::Halpern => halpern(config),
            Kind::Probabilistic { .. } => probabilistic(config),
            Kind::Interval { stamp, .. } => Ok(interval(config, *stamp)),
            Kind::External { error } => Ok(external(config, *error)),
        }
    }

    /// [`precision`](Self::precision) in nanoseconds.
    pub(super) fn precision_nanos(&self) -> i64 {
        long(self.precision)
    }
}

struct Averaging {
    bounds: Bounds,
    error: i64,
}

/// How a convergence function brings clocks together: a skew β becomes at most β·num/den + add.
fn contraction(function: Function, nodes: i64, faulty: i64, error: i64) -> (i128, i128, i128) {
    let (n, f, error) = (i128::from(nodes), i128::from(faulty), i128::from(error));
    match function {
        // Correct readers differ by 2ε' on each of n - f, and by 3β + 2ε' on each of f, in a mean of n.
        Function::Egocentric => (3 * f, n, 2 * error),
        // A faulty value that both take is near to a correct one that both have; a refused one is replaced by a mean.
        Function::Fast => {
            let (num, den) = (f * (2 * n - f), n * (n - f));
            (num, den, 2 * error + (2 * error * num + den - 1) / den)
        }
        // With nothing to drop, all take the middle of the same.
        Function::Midpoint if f == 0 => (0, 1, 2 * error),
        Function::Midpoint => (1, 2, 2 * error),
        // The k-th lowest of n - f correct values and f lies is between the (k-f)-th and the k-th lowest correct one. Summed up over the n - 2f that are
        // left, these spans are the f highest correct values less the f lowest: fβ at most. An error of ε' moves each of what is left by
        // ε', and so their mean.
        Function::Average => (f, n - 2 * f, 2 * error),
    }
}

/// How far beyond the range of correct clocks a correction can take one.
fn overshoot(function: Function, nodes: i64, faulty: i64, error: i64, skew: i64) -> i64 {
    let part = |of: i64| (of * faulty + nodes - 1) / nodes;
    match function {
        Function::Egocentric => error + part(skew + error),
        Function::Fast => error + part(skew + 2 * error),
        Function::Midpoint | Function::Average => error,
    }
}

fn averaging(
    config: &Config,
    function: Function,
    reading: Reading,
    drift: Drift,
    pull: i64,
) -> Result<Averaging, ConfigError> {
    let (nodes, faulty) = (config.nodes as i64, config.faulty as i64);
    let (period, initial) = (long(config.period), long(config.initial));
    let read = reading.error(config.delay, drift);
    let mut skew = initial;
    for _ in 0..STEPS_MAX {
        let window = drift.stretch(skew + reading.span(config));
        let error = read + drift.apart(drift.stretch(window + skew));
        let grown = drift.apart(drift.stretch(period + 2 * (window + skew)));
        let (num, den, add) = contraction(function, nodes, faulty, error);
        if num >= den {
            return Err(ConfigError::Diverges);
        }
        let parted = add + i128::from(grown) + 2 * i128::from(pull);
        let fixed = (parted * den + den - num - 1) / (den - num) + 1;
        let Some(fixed) = i64::try_from(fixed).ok().filter(|fixed| *fixed <= SKEW_MAX) else {
            return Err(ConfigError::Diverges);
        };
        if fixed > skew {
            skew = fixed;
            continue;
        }
        let beyond = overshoot(function, nodes, faulty, error, skew) + pull;
        let precision = skew + beyond;
        let bounds = Bounds {
            precision: span(precision),
            agreed: span(skew),
            reading: span(read),
            round: span(window),
            correction: span(precision),
            accuracy: None,
            // A round may take all clocks along by as much as a reading is wrong.
            rate: Some(parts(beyond, period).saturating_add(u64::from(drift.parts()))),
            joining: 4,
            period_min: span(drift.stretch(window + 3 * precision)),
        };
        return Ok(Averaging { bounds, error });
    }
    Err(ConfigError::Diverges)
}

/// `nanos` in each `period`, in parts of a billion.
fn parts(nanos: i64, period: i64) -> u64 {
    let parts = i128::from(nanos) * i128::from(BILLION) / i128::from(period.max(1)) + 1;
    u64::try_from(parts).unwrap_or(u64::MAX)
}

fn hardware(
    config: &Config,
    has_master: bool,
    pull_max: Duration,
    error: Duration,
) -> Result<Bounds, ConfigError> {
    // The rate of a corrected clock is that of its hardware, and as much again at most.
    let drift = Drift::per_billion(2 * config.drift.parts());
    let pull = if has_master { long(pull_max) } else { 0 };
    let found = averaging(config, Function::Average, Reading::STAMPED, drift, pull)?;
    let mut bounds = found.bounds;
    if has_master {
        // What all clocks together may gain or lose in a period has to be less than what the master pulls.
        let least = drift.stretch(drift.of(long(config.period))) + 2 * found.error;
        if pull < least {
            return Err(ConfigError::Pull { pull: pull_max, least: span(least) });
        }
        // When the master speaks its clock is somewhere among those of the others, and the pull takes all of them as far as it. So each is from the
        // reference what it is from the master after its correction but for the pull, and what it drifts until the next one. What the master says may be of a reading of the reference that is a period old.
        let round = 2 * (long(bounds.round) + long(bounds.agreed));
        let lag = bounds.precision_nanos() - pull
            + drift.of(drift.stretch(2 * long(config.period) + round))
            + 2;
        bounds.accuracy = Some(error + span(lag));
    }
    Ok(bounds)
}

fn agreement(config: &Config, signed: bool, stamp: Stamp) -> Result<Bounds, ConfigError> {
    // What is stamped may wait, and so may the timer of a process.
    let (drift, queue) = (config.drift, stamp.queue(config));
    let delay = config.delay.max_nanos() + queue;
    let (phases, period) = (config.faulty as i64 + 1, long(config.period));
    let read = Reading::ARRIVAL.error(config.delay, drift);
    let mut skew = long(config.initial);
    for _ in 0..STEPS_MAX {
        // All begin within their skew, or within a delay where one makes the others begin; what they say takes another delay.
        let spread = drift.stretch((skew + queue).max(delay) + 2 * delay);
        let phase = drift.stretch(spread) + drift.apart(phases * spread) + 4;
        let round = phases * phase;
        let error = read + drift.apart(drift.stretch(round + 2 * delay));
        let (apart, beyond) = if signed {
            copies(config, round)
        } else {
            // A difference that is passed on is wrong by another reading at each hop, of which there are f + 1, and two readers are wrong in two
            // directions. A median of more right values than lies is between right ones, at each place of the tree.
            (2 * phases * error, phases * error)
        };
        let fixed = apart + drift.apart(drift.stretch(period + 2 * round));
        if fixed > SKEW_MAX {
            return Err(ConfigError::Diverges);
        }
        if fixed > skew {
            skew = fixed;
            continue;
        }
        return Ok(Bounds {
            precision: span(skew + beyond),
            agreed: span(skew),
            reading: span(read),
            round: span(round),
            correction: span(skew + beyond),
            accuracy: None,
            rate: Some(parts(beyond, period).saturating_add(u64::from(drift.parts()))),
            joining: 4,
            period_min: span(drift.stretch(2 * round + 2 * (skew + beyond))),
        });
    }
    Err(ConfigError::Diverges)
}

/// CSM: how far two correct readers may differ about one clock, and how far one may be wrong about a correct clock.
///
/// A copy with s signatures counts as s middles of a delay old. The first copies of two readers come within a delay of each other: each that has not
/// all signatures is passed on at once, and one that has all has that of a correct process, which passed it on. They may differ in f
/// signatures. Liars that are as quick as they like bring a correct clock with f + 1 signatures at once, f + 1 middles of a delay too
/// soon. One that is a delay old is wrong by less.
fn copies(config: &Config, round: i64) -> (i64, i64) {
    let (drift, faulty) = (config.drift, config.faulty as i64);
    let (min, max) = (config.delay.min_nanos(), config.delay.max_nanos());
    let middle = min + (max - min) / 2 + 1;
    // Clocks go apart between the moment at which one was read and the correction.
    let drifts = drift.apart(drift.stretch(round + 2 * max)) + 4;
    let apart = drift.stretch(faulty * middle + max) + 2 * drifts;
    (apart, drift.stretch((faulty + 1) * middle) + drifts)
}

/// What the algorithm of Srikanth and Toueg adds to the time of a round, so that no clock goes back: α.
pub(super) fn alpha(config: &Config, signed: bool) -> (i64, i64, i64) {
    let drift = config.drift;
    let hops = if signed { 1 } else { 2 };
    let delay = drift.stretch(hops * config.delay.max_nanos());
    let (period, initial) = (long(config.period), long(config.initial));
    // All accept a round within `delay`, and drift apart until the next one.
    let skew = delay.max(initial) + drift.apart(drift.stretch(2 * period));
    // When the slowest has reached the round, and its word has come, the fastest is that far beyond it.
    let alpha = drift.stretch(drift.stretch(skew) + delay) + 2;
    (alpha, skew, delay)
}

fn srikanth(config: &Config, signed: bool) -> Result<Bounds, ConfigError> {
    let (alpha, skew, delay) = alpha(config, signed);
    let drift = config.drift;
    let precision = alpha + skew + drift.stretch(delay) + 2;
    let period = long(config.period);
    let period_min = drift.stretch(2 * precision);
    if period <= alpha || period < period_min {
        return Err(ConfigError::Period { period: config.period, least: span(period_min) });
    }
    Ok(Bounds {
        precision: span(precision),
        agreed: span(skew),
        reading: span(delay),
        round: span(skew + delay),
        correction: span(precision),
        accuracy: None,
        // A clock gains a period in what is at least P - α by the fastest clock.
        rate: Some(
            parts(drift.stretch(alpha), period - alpha)
                .saturating_add(2 * u64::from(drift.parts())),
        ),
        joining: 3,
        period_min: span(period_min),
    })
}

/// How early a synchroniser may be for each signature that it brings: D. And the skew of correct clocks.
pub(super) fn early(config: &Config) -> (i64, i64) {
    let drift = config.drift;
    let delay = drift.stretch(config.delay.max_nanos());
    let skew =
        delay.max(long(config.initial)) + drift.apart(drift.stretch(2 * long(config.period)));
    (skew + 2, skew)
}

fn halpern(config: &Config) -> Result<Bounds, ConfigError> {
    let (early, skew) = early(config);
    let drift = config.drift;
    let delay = drift.stretch(config.delay.max_nanos());
    let jump = config.faulty as i64 * early + skew;
    let precision = jump + drift.stretch(delay) + 2;
    let period = long(config.period);
    let period_min = drift.stretch(2 * precision);
    if period <= jump || period < period_min {
        return Err(ConfigError::Period { period: config.period, least: span(period_min) });
    }
    Ok(Bounds {
        precision: span(precision),
        agreed: span(skew),
        reading: span(delay),
        round: span(delay),
        correction: span(precision),
        accuracy: None,
        // Faulty synchronisers may take f·D from each period.
        rate: Some(
            parts(drift.stretch(jump), period - jump).saturating_add(2 * u64::from(drift.parts())),
        ),
        joining: 3,
        period_min: span(period_min),
    })
}

/// The longest time from one good read to the next, or to the word that the clock is lost. While there is no master there is nobody to ask:
/// the time of an election counts as well.
pub(super) fn stale(config: &Config) -> i64 {
    let Kind::Probabilistic { error_max, attempts, wait, patience, stamp } = config.kind else {
        return 0;
    };
    let trip = trip(config, error_max, stamp);
    long(config.period) + i64::from(attempts) * long(wait) + trip + 4 * long(patience)
}

/// Until an answer is taken in that is good enough.
fn trip(config: &Config, error_max: Duration, stamp: Stamp) -> i64 {
    let way = long(error_max) + config.delay.min_nanos() + stamp.queue(config);
    config.drift.stretch(2 * way) + 2
}

fn probabilistic(config: &Config) -> Result<Bounds, ConfigError> {
    let Kind::Probabilistic { error_max, attempts, wait, stamp, .. } = config.kind else {
        unreachable!("only one kind has these bounds");
    };
    let drift = config.drift;
    let trial = i64::from(attempts) * long(wait);
    let trip = trip(config, error_max, stamp);
    if long(wait) < trip {
        return Err(ConfigError::Period { period: wait, least: span(trip) });
    }
    let (error, parted) = (long(error_max), drift.apart(drift.stretch(stale(config))));
    // Whoever has read no master yet is as far from all others as it began.
    let known = error.max(long(config.initial));
    let changes = config.faulty as i64;
    // Two read one master, or the one is the next master itself, or the one after that. A faulty master can hide from a clock that stays
    // synchronised for as long as its reading counts, and become the next one's: so each change of master may add a drift.
    let agreed = known + (error + parted) * changes.max(1);
    // A clock goes by a master that is gone, each later one has read the one before it, and the other clock has read the last.
    let precision = if changes == 0 { agreed } else { agreed + error + parted };
    Ok(Bounds {
        precision: span(precision),
        agreed: span(agreed),
        reading: error_max,
        round: span(trial),
        correction: span(precision),
        accuracy: Some(span(known + parted)),
        rate: Some(u64::from(drift.parts())),
        joining: 2,
        period_min: span(drift.stretch(trial + trip)),
    })
}

fn interval(config: &Config, stamp: Stamp) -> Bounds {
    let drift = config.drift;
    let trip = Reading { way: Way::RoundTrip, stamp }.span(config);
    Bounds {
        precision: Duration::MAX,
        agreed: Duration::MAX,
        reading: span(drift.stretch(2 * config.delay.max_nanos())),
        round: span(trip),
        correction: Duration::MAX,
        accuracy: None,
        rate: Some(u64::from(drift.parts())),
        joining: 2,
        period_min: span(drift.stretch(2 * trip)),
    }
}

fn external(config: &Config, error: Duration) -> Bounds {
    let drift = config.drift;
    let stale = drift.stretch(long(config.period) * i64::from(config.misses_max.max(1)));
    let accuracy = error + span(drift.of(stale) + 2);
    Bounds {
        precision: accuracy * 2,
        agreed: accuracy * 2,
        reading: error,
        round: Duration::ZERO,
        correction: accuracy * 2,
        accuracy: Some(accuracy),
        rate: Some(u64::from(drift.parts())),
        joining: 1,
        period_min: Duration::from_nanos(1),
    }
}
