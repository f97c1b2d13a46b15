//! What an algorithm is configured with, and why a configuration is refused.

use mainstay_base::Duration;
use thiserror::Error;

use super::bounds::Bounds;
use super::corrected::BILLION;
pub use super::kind::{Function, Kind};
use super::reading::Reading;

/// How often a master says that it is one within the patience of its followers.
pub(super) const BEATS: u32 = 4;

/// Most nodes whose clocks are kept together.
pub const NODES_MAX: usize = 64;

/// The longest period, delay, skew, and any other span: they add up without overflow.
const SPAN_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Most attempts of a period, and most rounds that are missed.
const COUNT_MAX: u32 = 1_000;

/// Most values in a relay of an oral agreement: at up to 9 bytes each they fit into a datagram of 60,000 bytes.
const RELAYED_MAX: usize = 6_600;

/// How far the rate of a hardware clock may be from that of real time, in parts of a billion: ρ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Drift(u32);

impl Drift {
    /// The largest: a hundredth.
    pub const MAX: Self = Self(10_000_000);

    /// So many parts of a billion.
    #[must_use]
    pub const fn per_billion(parts: u32) -> Self {
        Self(parts)
    }

    /// In parts of a billion.
    #[must_use]
    pub const fn parts(self) -> u32 {
        self.0
    }

    /// What a clock gains or loses in `span`, rounded up.
    pub(super) fn of(self, span: i64) -> i64 {
        let exact = i128::from(span) * i128::from(self.0);
        (exact + i128::from(BILLION) - 1).div_euclid(i128::from(BILLION)) as i64
    }

    /// `span` at the fastest: times 1 + ρ.
    pub(super) fn stretch(self, span: i64) -> i64 {
        span + self.of(span)
    }

    /// `span` at the slowest: over 1 + ρ.
    pub(super) fn shrink(self, span: i64) -> i64 {
        let whole = i128::from(BILLION) + i128::from(self.0);
        (i128::from(span) * i128::from(BILLION) / whole) as i64
    }

    /// What two clocks drift apart in `span`.
    pub(super) fn apart(self, span: i64) -> i64 {
        2 * self.of(span)
    }
}

/// How long a message takes between correct processes, from the reading that it carries to what counts as its arrival.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delay {
    /// At least.
    pub min: Duration,
    /// At most; a message that takes longer counts as lost.
    pub max: Duration,
}

impl Delay {
    pub(super) fn min_nanos(self) -> i64 {
        long(self.min)
    }

    pub(super) fn max_nanos(self) -> i64 {
        long(self.max)
    }
}

/// Nanoseconds of a span that was checked.
pub(super) fn long(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

/// A span of so many nanoseconds; none if negative.
pub(super) fn span(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// What an algorithm is configured with. A [`Plan`] is made of it, if theory allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// How many clocks there are: n.
    pub nodes: usize,
    /// How many of them may be faulty in a round, messages that are lost included: f. With [`Kind::Probabilistic`] it is how many masters are lost within
    /// (f + 1) times as long as a read counts (a period, all attempts, and four times the patience), each that has come back counted anew.
    pub faulty: usize,
    /// Of the hardware clocks.
    pub drift: Drift,
    /// Of the messages.
    pub delay: Delay,
    /// How long a datagram may wait at the receiver after it was stamped, where that is not part of the delay. Default 0.
    pub queue: Duration,
    /// From one correction to the next: P.
    pub period: Duration,
    /// How far clocks may be apart at the start.
    pub initial: Duration,
    /// How far apart clocks may get, if the plan is to be refused where they may get further.
    pub precision: Option<Duration>,
    /// Rounds without enough answers after which a clock counts as lost. Default 3.
    pub misses_max: u32,
    /// The algorithm.
    pub kind: Kind,
    /// A defect, for tests.
    #[cfg(feature = "test-util")]
    pub fault: Option<crate::fault::Fault>,
}

impl Config {
    /// Nodes on a local network: 100 ppm of drift, delays up to 1 ms, a period of 1 s, clocks within 1 ms at the start.
    #[must_use]
    pub fn lan(kind: Kind, nodes: usize, faulty: usize) -> Self {
        Self {
            nodes,
            faulty,
            drift: Drift::per_billion(100_000),
            delay: Delay { min: Duration::from_micros(50), max: Duration::from_millis(1) },
            queue: Duration::ZERO,
            period: Duration::from_secs(1),
            initial: Duration::from_millis(1),
            precision: None,
            misses_max: 3,
            kind,
            #[cfg(feature = "test-util")]
            fault: None,
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let Self { nodes, faulty, drift, delay, .. } = self;
        if *nodes == 0 || *nodes > NODES_MAX {
            return Err(ConfigError::Nodes(*nodes));
        }
        let (least, why) = self.kind.nodes_min(*faulty);
        if *nodes < least && !mainstay_base::fault!(self, AnyNumberFaulty) {
            return Err(ConfigError::TooManyFaulty { nodes: *nodes, faulty: *faulty, least, why });
        }
        if *drift > Drift::MAX {
            return Err(ConfigError::Drift(*drift));
        }
        if delay.min > delay.max || delay.max.is_zero() {
            return Err(ConfigError::Delay(*delay));
        }
        let spans = [delay.max, self.queue, self.period, self.initial].into_iter();
        if let Some(span) = spans.chain(self.kind.spans()).find(|span| *span > SPAN_MAX) {
            return Err(ConfigError::TooLong(span));
        }
        if self.misses_max > COUNT_MAX {
            return Err(ConfigError::TooOften(self.misses_max));
        }
        self.check_kind()
    }

    fn check_kind(&self) -> Result<(), ConfigError> {
        self.kind.check_reading()?;
        match self.kind {
            Kind::Hardware { master: Some(master), .. } if master >= self.nodes => {
                Err(ConfigError::Master(master))
            }
            Kind::Agreement { signed: false, .. } => {
                let factors = self.nodes.saturating_sub(self.faulty)..self.nodes;
                let values = factors.fold(1, usize::saturating_mul);
                match values > RELAYED_MAX {
                    true => Err(ConfigError::TooLarge { nodes: self.nodes, faulty: self.faulty }),
                    false => Ok(()),
                }
            }
            Kind::Probabilistic { attempts, error_max, patience, stamp, .. } => {
                let drift = self.drift.of(self.delay.min_nanos());
                let least = span(3 * drift + 2);
                // What a master says is answered before it says it again.
                let trip = self.drift.stretch(2 * (self.delay.max_nanos() + stamp.queue(self)));
                let patience_min = span(trip) * BEATS;
                if attempts == 0 {
                    Err(ConfigError::NoAttempt)
                } else if attempts > COUNT_MAX {
                    Err(ConfigError::TooOften(attempts))
                } else if error_max < least {
                    Err(ConfigError::BelowBound { wanted: error_max, least })
                } else if patience < patience_min {
                    Err(ConfigError::Period { period: patience, least: patience_min })
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }

    /// (1 - 1/n) of the uncertainty of delays, below which no algorithm gets (CLK-8).
    fn least(&self) -> Duration {
        let spread = self.delay.max - self.delay.min;
        let nodes = self.nodes as u32;
        spread * (nodes - 1) / nodes
    }
}

/// A configuration that theory allows, and the bounds that follow from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    config: Config,
    bounds: Bounds,
}

impl Plan {
    /// Looks whether an algorithm can do what is configured.
    ///
    /// # Errors
    /// [`ConfigError`]: it cannot, and why.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let (least, internal) = (config.least(), !matches!(config.kind, Kind::External { .. }));
        if let Some(wanted) = config.precision
            && internal
            && wanted < least
            && !mainstay_base::fault!(config, ClaimsTooMuch)
        {
            return Err(ConfigError::BelowBound { wanted, least });
        }
        let bounds = Bounds::of(&config)?;
        if let Some(wanted) = config.precision
            && wanted < bounds.precision
        {
            return Err(ConfigError::OutOfReach { wanted, reached: bounds.precision });
        }
        if config.period < bounds.period_min {
            return Err(ConfigError::Period { period: config.period, least: bounds.period_min });
        }
        Ok(Self { config, bounds })
    }

    /// A plan that theory forbids, with bounds from elsewhere: to see it fail.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    #[must_use]
    pub const fn against_theory(config: Config, bounds: Bounds) -> Self {
        Self { config, bounds }
    }

    /// What it is made of.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What follows from it.
    #[must_use]
    pub const fn bounds(&self) -> &Bounds {
        &self.bounds
    }
}

fn names(readings: &[Reading]) -> String {
    match readings {
        [] => "nothing".to_owned(),
        all => all.iter().map(|it| it.name()).collect::<Vec<_>>().join(" or "),
    }
}

/// Why a configuration is refused.
#[derive(Error, Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no algorithm of that name.
    #[error("no algorithm is called {0:?}; there are {names}", names = Kind::NAMES.join(", "))]
    Unknown(String),
    /// There is no way to read clocks of that name.
    #[error("no reading is called {0:?}; there are {names}", names = Reading::NAMES.join(", "))]
    UnknownReading(String),
    /// The algorithm does not read clocks in that way.
    #[error(
        "{algorithm} does not read clocks by {}, but by {}: {why}", .reading.name(), names(.takes)
    )]
    Reading {
        /// What the algorithm is called.
        algorithm: &'static str,
        /// What was wanted.
        reading: Reading,
        /// How it can read them; none: it reads none.
        takes: &'static [Reading],
        /// Why.
        why: &'static str,
    },
    /// Nothing stamps what comes over connections.
    #[error(
        "{0} by {reading} needs datagrams by UDP, which are stamped: over connections nothing is",
        reading = .1.name()
    )]
    Unstamped(&'static str, Reading),
    /// The algorithm needs a feature of the crate that is off.
    #[error("the algorithm needs the feature {0:?} of this crate")]
    NotBuilt(&'static str),
    /// No nodes, or too many.
    #[error("{0} nodes, where 1 to {NODES_MAX} may be")]
    Nodes(usize),
    /// So many faulty clocks cannot be withstood (CLK-9).
    #[error("{nodes} clocks do not withstand {faulty} faulty ones, {least} would: {why}")]
    TooManyFaulty {
        /// How many there are.
        nodes: usize,
        /// How many may be faulty.
        faulty: usize,
        /// How many there would have to be.
        least: usize,
        /// Why.
        why: &'static str,
    },
    /// No clock drifts that much.
    #[error("a drift of {} parts of a billion, where {} may be", .0.parts(), Drift::MAX.parts())]
    Drift(Drift),
    /// The bounds are no bounds.
    #[error("delays from {:?} to {:?} are none", .0.min, .0.max)]
    Delay(Delay),
    /// Longer than anything that is computed with.
    #[error("{0:?} is longer than {SPAN_MAX:?}")]
    TooLong(Duration),
    /// More attempts in a period, or more missed rounds, than are computed with.
    #[error("{0} attempts or missed rounds, where {COUNT_MAX} may be")]
    TooOften(u32),
    /// What nodes pass on in an agreement without signatures would not fit into a datagram.
    #[error(
        "with {nodes} nodes, {faulty} of them faulty, what is passed on fits into no datagram: \
         take signatures"
    )]
    TooLarge {
        /// How many there are.
        nodes: usize,
        /// How many may be faulty.
        faulty: usize,
    },
    /// No algorithm gets there (CLK-8).
    #[error(
        "a precision of {wanted:?} is below {least:?}, which follows from the uncertainty of delays"
    )]
    BelowBound {
        /// What was wanted.
        wanted: Duration,
        /// What no algorithm gets below.
        least: Duration,
    },
    /// This algorithm does not get there.
    #[error("a precision of {wanted:?} is not reached; {reached:?} would be")]
    OutOfReach {
        /// What was wanted.
        wanted: Duration,
        /// What is reached.
        reached: Duration,
    },
    /// Clocks drift faster than the algorithm brings them together.
    #[error("clocks drift further apart in a period than a correction brings them together")]
    Diverges,
    /// A round does not fit into a period.
    #[error("a period of {period:?} is shorter than a round, which takes {least:?}")]
    Period {
        /// What was wanted.
        period: Duration,
        /// What is needed.
        least: Duration,
    },
    /// All clocks together may run away from the reference faster than the master pulls them back.
    #[error("a pull of {pull:?} in a period is less than what clocks may gain in it, {least:?}")]
    Pull {
        /// What was wanted.
        pull: Duration,
        /// What is needed.
        least: Duration,
    },
    /// The master is none of the nodes.
    #[error("the master is at place {0}, where no node is")]
    Master(usize),
    /// It would never be tried.
    #[error("no attempt is allowed")]
    NoAttempt,
    /// It needs the keys of all nodes, and has none or others.
    #[error("the algorithm is signed, and there are no keys for all nodes")]
    Keys,
    /// The keys are those of another place than the own one: they are in another order than the nodes.
    #[error("the keys are those of place {keys}, and the own place is {place}")]
    KeysOf {
        /// The own place.
        place: usize,
        /// That of the keys.
        keys: usize,
    },
    /// The group has another number of nodes than the plan.
    #[error("the group has {nodes} nodes, and the plan is for {planned}")]
    Group {
        /// How many there are.
        nodes: usize,
        /// How many are planned.
        planned: usize,
    },
    /// The clock of this node follows no reference with that algorithm.
    #[error("{0} has no use for a reference at this node")]
    NoReference(&'static str),
    /// The reference is further off than the plan says of references.
    #[error(
        "a reference that is up to {least:?} off, with its reading, where the plan says {error:?}"
    )]
    Reference {
        /// What the plan says.
        error: Duration,
        /// What it has to say.
        least: Duration,
    },
    /// Its clock cannot be followed: it is the own node, or none of the roster.
    #[error("the clock of {0:?} cannot be followed: it is the own node, or none of the roster")]
    NoPeer(mainstay_base::NodeId),
    /// The own place is none of the nodes.
    #[error("the own place is {0}, where no node is")]
    Place(usize),
}
