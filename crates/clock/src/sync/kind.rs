//! Which algorithms there are, by name, with the numbers that each alone has.

use mainstay_base::Duration;

use super::config::ConfigError;
use super::reading::{Reading, Stamp, Way};

/// How far references are from the true time, by default.
const ERROR: Duration = Duration::from_millis(10);

/// How estimates become a correction: the convergence functions, by the names of Schneider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Function {
    /// The mean of all, where what differs too much from the own clock is replaced by it: interactive convergence, CNV (Lamport and
    /// Melliar-Smith 1985).
    Egocentric,
    /// The mean of those that are near to at least n - f: fast convergence (Mahaney and Schneider 1985).
    Fast,
    /// The middle between the extremes that are left after the f lowest and the f highest are dropped (Lundelius Welch and Lynch
    /// 1988).
    Midpoint,
    /// The mean of what is left after the f lowest and the f highest are dropped.
    Average,
}

/// Which algorithm, with the numbers that it alone has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Averaging by a convergence function.
    Averaging {
        /// Which.
        function: Function,
        /// How clocks are read.
        reading: Reading,
    },
    /// Averaging with stamps of hardware, correction of rates, and an external master (Kopetz and Ochsenreiter 1987, MARS).
    Hardware {
        /// The node that has a reference, if one has.
        master: Option<usize>,
        /// How far it may pull the others in a period.
        pull_max: Duration,
        /// How far the reference may be from the true time.
        error: Duration,
    },
    /// Agreement on the vector of clocks, and its median (Lamport and Melliar-Smith 1985).
    Agreement {
        /// With signatures (CSM), or without (COM).
        signed: bool,
        /// When a word counts as come.
        stamp: Stamp,
    },
    /// The first f + 1 to reach a period take all others along (Srikanth and Toueg 1987).
    Srikanth {
        /// With signatures, or with echoes.
        signed: bool,
    },
    /// The first to reach a period takes all others along (Halpern, Simons, Strong and Dolev 1984). Signed.
    Halpern,
    /// Reading a master until it is good enough (Cristian 1989), with an election of the master.
    Probabilistic {
        /// The largest error of a read that is taken.
        error_max: Duration,
        /// How often it is tried each period: k.
        attempts: u32,
        /// From one attempt to the next: W.
        wait: Duration,
        /// After so long without a word of a master another one is elected.
        patience: Duration,
        /// When a word counts as come.
        stamp: Stamp,
    },
    /// Intersection of intervals that hold the true time (Marzullo 1984).
    Interval {
        /// How far the clocks may be from the true time at the start.
        error: Duration,
        /// When a word counts as come.
        stamp: Stamp,
    },
    /// Following a reference of the own node, whose error is stated.
    External {
        /// How far the reference may be from the true time.
        error: Duration,
    },
}

impl Kind {
    /// The names that [`named`](Self::named) knows: one for each algorithm of this crate.
    pub const NAMES: &'static [&'static str] = &[
        "cnv",
        "fast",
        "midpoint",
        "average",
        "com",
        "csm",
        "srikanth-toueg",
        "srikanth-toueg-signed",
        "halpern",
        "cristian",
        "marzullo",
        "hardware",
        "external",
    ];

    /// COM, or CSM if it is signed, which stamps nothing.
    #[must_use]
    pub const fn agreement(signed: bool) -> Self {
        Self::Agreement { signed, stamp: Stamp::Turn }
    }

    /// Marzullo's, of clocks that are within `error` of the true time at the start, which stamps nothing.
    #[must_use]
    pub const fn interval(error: Duration) -> Self {
        Self::Interval { error, stamp: Stamp::Turn }
    }

    /// The kind of that name, for configurations in text. It reads clocks by `reading`, or in its own way where there is none (by arrival with averaging). Numbers that it alone has are those of a local network; whoever needs others sets them in the kind:
    ///
    /// | name | numbers |
    /// |---|---|
    /// | `cristian` | reads that are wrong by 1 ms at most, 10 attempts 20 ms apart, a patience of 500 ms |
    /// | `marzullo` | clocks within 10 ms of the true time at the start |
    /// | `hardware` | no master; one that is set pulls by 1 ms at most, and its reference is within 10 ms of the true time |
    /// | `external` | references within 10 ms of the true time |
    ///
    /// # Errors
    /// [`ConfigError::Unknown`]; [`ConfigError::Reading`]: the algorithm does not read clocks in that way.
    pub fn named(name: &str, reading: Option<Reading>) -> Result<Self, ConfigError> {
        let averaging = |function| Self::Averaging { function, reading: Reading::ARRIVAL };
        let mut kind = match name {
            "cnv" => averaging(Function::Egocentric),
            "fast" => averaging(Function::Fast),
            "midpoint" => averaging(Function::Midpoint),
            "average" => averaging(Function::Average),
            "com" => Self::agreement(false),
            "csm" => Self::agreement(true),
            "srikanth-toueg" => Self::Srikanth { signed: false },
            "srikanth-toueg-signed" => Self::Srikanth { signed: true },
            "halpern" => Self::Halpern,
            "cristian" => Self::Probabilistic {
                error_max: Duration::from_millis(1),
                attempts: 10,
                wait: Duration::from_millis(20),
                patience: Duration::from_millis(500),
                stamp: Stamp::Turn,
            },
            "marzullo" => Self::interval(ERROR),
            "hardware" => {
                let pull_max = Duration::from_millis(1);
                Self::Hardware { master: None, pull_max, error: ERROR }
            }
            "external" => Self::External { error: ERROR },
            _ => return Err(ConfigError::Unknown(name.to_owned())),
        };
        let Some(wanted) = reading else { return Ok(kind) };
        match &mut kind {
            Self::Averaging { reading, .. } => *reading = wanted,
            Self::Agreement { stamp, .. }
            | Self::Probabilistic { stamp, .. }
            | Self::Interval { stamp, .. } => *stamp = wanted.stamp,
            _ => {}
        }
        match kind.reading() == Some(wanted) {
            true => kind.check_reading().map(|()| kind),
            false => Err(kind.refuse(wanted)),
        }
    }

    /// Whether it can read clocks in the way in which it is to.
    pub(super) fn check_reading(&self) -> Result<(), ConfigError> {
        match self.reading() {
            Some(reading) if !self.readings().0.contains(&reading) => Err(self.refuse(reading)),
            _ => Ok(()),
        }
    }

    fn refuse(&self, reading: Reading) -> ConfigError {
        let (takes, why) = self.readings();
        ConfigError::Reading { algorithm: self.name(), reading, takes, why }
    }

    /// How it can read clocks, and why in no other way.
    const fn readings(&self) -> (&'static [Reading], &'static str) {
        match self {
            Self::Averaging { .. } => (&Reading::ALL, "there are no others"),
            Self::Hardware { .. } => (&[Reading::STAMPED], "its unit stamps what comes unasked"),
            Self::Agreement { signed: false, .. } => {
                (&[Reading::ARRIVAL, Reading::STAMPED], "a run has no phase for questions")
            }
            Self::Agreement { .. } => (
                &[Reading::ARRIVAL],
                "a word that is passed on has waited at each signer, and the next one does not see for how long",
            ),
            Self::Probabilistic { .. } => (
                &[Reading::ROUND_TRIP, Reading::STAMPED_ROUND_TRIP],
                "a round trip alone tells how good an answer is, and so when to ask again",
            ),
            Self::Interval { .. } => (
                &[Reading::ROUND_TRIP, Reading::STAMPED_ROUND_TRIP],
                "of a word that was not asked for nobody knows how late it is, and its interval would not hold the true time",
            ),
            Self::Srikanth { .. } | Self::Halpern | Self::External { .. } => {
                (&[], "it goes by rounds or a reference")
            }
        }
    }

    /// What it is called, in configurations and in the status of a node.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Averaging { function: Function::Egocentric, .. } => "cnv",
            Self::Averaging { function: Function::Fast, .. } => "fast",
            Self::Averaging { function: Function::Midpoint, .. } => "midpoint",
            Self::Averaging { function: Function::Average, .. } => "average",
            Self::Hardware { .. } => "hardware",
            Self::Agreement { signed: false, .. } => "com",
            Self::Agreement { signed: true, .. } => "csm",
            Self::Srikanth { signed: false } => "srikanth-toueg",
            Self::Srikanth { signed: true } => "srikanth-toueg-signed",
            Self::Halpern => "halpern",
            Self::Probabilistic { .. } => "cristian",
            Self::Interval { .. } => "marzullo",
            Self::External { .. } => "external",
        }
    }

    /// How it reads the clocks of others; `None`: it does not read them.
    #[must_use]
    pub const fn reading(&self) -> Option<Reading> {
        match self {
            Self::Averaging { reading, .. } => Some(*reading),
            Self::Hardware { .. } => Some(Reading::STAMPED),
            Self::Agreement { stamp, .. } => Some(Reading { way: Way::Arrival, stamp: *stamp }),
            Self::Probabilistic { stamp, .. } | Self::Interval { stamp, .. } => {
                Some(Reading { way: Way::RoundTrip, stamp: *stamp })
            }
            Self::Srikanth { .. } | Self::Halpern | Self::External { .. } => None,
        }
    }

    /// Whether it needs the keys of all nodes.
    #[must_use]
    pub const fn is_signed(&self) -> bool {
        matches!(
            self,
            Self::Agreement { signed: true, .. } | Self::Srikanth { signed: true } | Self::Halpern
        )
    }

    /// The fewest nodes that withstand `faulty` faulty ones, and why.
    pub(super) fn nodes_min(&self, faulty: usize) -> (usize, &'static str) {
        let least = |times: usize| faulty.saturating_mul(times).saturating_add(1);
        match self {
            Self::Averaging { .. } | Self::Hardware { .. } => {
                (least(3), "without signatures two-faced clocks must be fewer than a third")
            }
            Self::Agreement { signed: false, .. } | Self::Srikanth { signed: false } => {
                (least(3), "without signatures two-faced clocks must be fewer than a third")
            }
            Self::Agreement { signed: true, .. } | Self::Srikanth { signed: true } => {
                (least(2), "correct clocks must be a majority")
            }
            Self::Halpern => (least(1), "some clock must be correct"),
            Self::Probabilistic { .. } => (least(2), "a master needs a majority"),
            Self::Interval { .. } => (least(2), "right intervals must be a majority"),
            Self::External { .. } => (1, "there must be a clock"),
        }
    }

    /// The spans that it alone has; a missing one is zero.
    pub(super) fn spans(&self) -> [Duration; 3] {
        let zero = Duration::ZERO;
        match *self {
            Self::Averaging { .. }
            | Self::Agreement { .. }
            | Self::Srikanth { .. }
            | Self::Halpern => [zero; 3],
            Self::Hardware { pull_max, error, .. } => [pull_max, error, zero],
            Self::Probabilistic { error_max, wait, patience, .. } => [error_max, wait, patience],
            Self::Interval { error, .. } | Self::External { error } => [error, zero, zero],
        }
    }
}
