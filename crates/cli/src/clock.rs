//! The clock service, shown with real processes of which one has a faulty clock.

pub(crate) mod demo;
mod faulty;
pub(crate) mod hosted;
pub(crate) mod key;
pub(crate) mod node;
mod plot;

use std::time::Duration;

use clap::ValueEnum;
use mainstay_clock::sync::global::LOOK_ERROR;
use mainstay_clock::sync::{Config, ConfigError, Delay, Drift, Kind, Plan, Reading};

/// Nodes of the demo; one of them is faulty.
const NODES: usize = 5;
/// The one whose clock is faulty: the last.
const FAULTY: usize = NODES - 1;
/// The one that has a reference, with algorithms that follow one.
const MASTER: usize = 0;
/// How far the wall clock, which is the reference, counts as being from the true time.
const WALL: Duration = Duration::from_millis(1);
/// Real clocks drift less; so much is simulated on top of that.
const DRIFT: u32 = 100_000;
/// All algorithms in the order in which they are shown, and what is wrong with the faulty clock if nothing else is wanted: each fault does something to
/// the algorithm.
const SHOWN: [(&str, Wrong); 13] = [
    ("midpoint", Wrong::Offset),
    ("average", Wrong::Race),
    ("cnv", Wrong::TwoFaced),
    ("fast", Wrong::Offset),
    ("com", Wrong::TwoFaced),
    ("csm", Wrong::Race),
    ("srikanth-toueg", Wrong::TwoFaced),
    ("srikanth-toueg-signed", Wrong::TwoFaced),
    ("halpern", Wrong::Race),
    ("cristian", Wrong::Silent),
    ("marzullo", Wrong::Offset),
    ("hardware", Wrong::TwoFaced),
    ("external", Wrong::Race),
];

/// What is wrong with a clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Wrong {
    /// It steps by a second.
    Offset,
    /// It runs twice as fast.
    Race,
    /// It says something else to each.
    TwoFaced,
    /// It says nothing any more.
    Silent,
}

impl Wrong {
    fn name(self) -> &'static str {
        match self {
            Self::Offset => "offset",
            Self::Race => "race",
            Self::TwoFaced => "two-faced",
            Self::Silent => "silent",
        }
    }

    /// Whether the algorithm withstands it, and it does something to it: a master that says the wrong time is followed, and where one node alone is followed
    /// the others say nothing of the time.
    fn is_withstood_by(self, algorithm: &str) -> bool {
        match algorithm {
            "cristian" => self == Self::Silent,
            "external" => matches!(self, Self::Offset | Self::Race),
            _ => true,
        }
    }
}

fn kind(algorithm: &str) -> Result<Kind, ConfigError> {
    let millis = Duration::from_millis;
    let mut kind = Kind::named(algorithm, None)?;
    match &mut kind {
        Kind::Averaging { reading, .. } => *reading = Reading::ROUND_TRIP,
        Kind::Probabilistic { error_max, attempts, patience, .. } => {
            (*error_max, *patience) = (millis(8), millis(500));
            // For longer than an election takes: a clock that has given up stands for master last.
            *attempts = 36;
        }
        Kind::Interval { error, .. } => *error = millis(1),
        Kind::Hardware { master, pull_max, error } => {
            (*master, *pull_max, *error) =
                (Some(MASTER), millis(30), WALL.saturating_add(LOOK_ERROR));
        }
        // With the error of the reading of those who follow the one that has it.
        Kind::External { error } => *error = millis(20),
        _ => {}
    }
    Ok(kind)
}

/// Five processes of one machine that has other things to do as well.
fn plan(algorithm: &str) -> Result<Plan, ConfigError> {
    let mut config = Config::lan(kind(algorithm)?, NODES, 1);
    config.drift = Drift::per_billion(2 * DRIFT);
    config.delay = Delay { min: Duration::from_micros(1), max: Duration::from_millis(20) };
    config.period = Duration::from_millis(800);
    Plan::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn theory_allows_what_is_shown() {
        let mut shown = SHOWN.map(|(name, _)| name);
        let mut names = Kind::NAMES.to_vec();
        shown.sort_unstable();
        names.sort_unstable();
        assert_eq!(shown[..], names);
        for (algorithm, wrong) in SHOWN {
            assert!(wrong.is_withstood_by(algorithm));
            let plan = plan(algorithm).expect(algorithm);
            mainstay_clock::sync::global::Promise::of(&plan).expect(algorithm);
        }
    }
}
