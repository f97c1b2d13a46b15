//! The clock service, shown with real processes of which one has a faulty clock.

pub(crate) mod demo;
mod faulty;
pub(crate) mod hosted;
pub(crate) mod node;
mod plot;

use std::time::Duration;

use clap::ValueEnum;
use mainstay_clock::sync::{Config, ConfigError, Delay, Drift, Kind, Plan, Reading};

/// Nodes of the demo; one of them may be faulty.
const NODES: usize = 5;
/// Real clocks drift less; so much is simulated on top of that.
const DRIFT: u32 = 100_000;
/// The algorithms that withstand a clock that lies without keys, in the order in which they are shown.
const ALGORITHMS: [&str; 7] =
    ["midpoint", "average", "cnv", "fast", "com", "srikanth-toueg", "interval"];

/// What is wrong with a clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Wrong {
    /// It steps by a second.
    Offset,
    /// It runs twice as fast.
    Race,
    /// It says something else to each.
    TwoFaced,
}

impl Wrong {
    const ALL: [Self; 3] = [Self::Offset, Self::Race, Self::TwoFaced];

    fn name(self) -> &'static str {
        match self {
            Self::Offset => "offset",
            Self::Race => "race",
            Self::TwoFaced => "two-faced",
        }
    }
}

fn kind(algorithm: &str) -> Result<Kind, ConfigError> {
    match algorithm {
        "interval" => Ok(Kind::Interval { error: Duration::from_millis(1) }),
        other => Kind::named(other, Reading::ROUND_TRIP),
    }
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
        for algorithm in ALGORITHMS {
            let plan = plan(algorithm).expect(algorithm);
            mainstay_clock::sync::global::Promise::of(&plan).expect(algorithm);
        }
    }
}
