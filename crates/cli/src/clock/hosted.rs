//! The clock service of a node of a cluster: the section `[clock]` of its configuration.

use std::time::Duration;

use mainstay_clock::sync::global::Setup;
use mainstay_clock::sync::{Config, ConfigError, Delay, Drift, Plan};
use serde::{Deserialize, Serialize};

use super::{ALGORITHMS, kind};

/// The name of the service on a node.
pub(crate) const INSTANCE: &str = "clock";

/// The keys of the section: the same at all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClockConfig {
    /// By which the clocks of the nodes are kept together.
    pub(crate) algorithm: String,
    /// How many of them may be faulty.
    pub(crate) faulty: usize,
    /// From one correction to the next.
    #[serde(default = "period_ms")]
    pub(crate) period_ms: u64,
    /// How long a message takes at least.
    #[serde(default = "delay_min_us")]
    pub(crate) delay_min_us: u64,
    /// How long it takes at most, with what else the machine does.
    #[serde(default = "delay_max_us")]
    pub(crate) delay_max_us: u64,
    /// How far the rate of a clock may be from that of real time.
    #[serde(default = "drift_ppm")]
    pub(crate) drift_ppm: u16,
}

fn period_ms() -> u64 {
    1_000
}

fn delay_min_us() -> u64 {
    1
}

fn delay_max_us() -> u64 {
    20_000
}

fn drift_ppm() -> u16 {
    200
}

impl ClockConfig {
    /// What is to be mounted on each of `nodes` nodes.
    pub(crate) fn setup(&self, nodes: usize) -> Result<Setup, String> {
        if !ALGORITHMS.contains(&&*self.algorithm) {
            let known = ALGORITHMS.join(", ");
            return Err(format!("clock: no algorithm {:?}; there are {known}", self.algorithm));
        }
        let text = |error: ConfigError| format!("clock: {error}");
        let mut config = Config::lan(kind(&self.algorithm).map_err(text)?, nodes, self.faulty);
        config.drift = Drift::per_billion(u32::from(self.drift_ppm) * 1_000);
        let micros = Duration::from_micros;
        config.delay = Delay { min: micros(self.delay_min_us), max: micros(self.delay_max_us) };
        config.period = Duration::from_millis(self.period_ms);
        Plan::new(config).and_then(Setup::new).map_err(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_theory_forbids_is_refused_with_the_reason() {
        let config = |algorithm: &str, faulty| {
            toml::from_str::<ClockConfig>(&format!("algorithm = {algorithm:?}\nfaulty = {faulty}"))
                .unwrap()
        };
        assert!(config("midpoint", 1).setup(4).is_ok());
        let refused = |algorithm, faulty, nodes| {
            config(algorithm, faulty).setup(nodes).map(drop).unwrap_err()
        };
        let why = refused("midpoint", 1, 3);
        assert!(why.contains("3 clocks do not withstand 1 faulty ones"), "{why}");
        let why = refused("sundial", 0, 3);
        assert!(why.contains("no algorithm \"sundial\"; there are midpoint"), "{why}");
        let short = ClockConfig { period_ms: 1, ..config("midpoint", 0) };
        let why = short.setup(3).map(drop).unwrap_err();
        assert!(why.contains("shorter than a round"), "{why}");
    }
}
