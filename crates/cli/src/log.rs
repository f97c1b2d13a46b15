//! What the program says to its operator: lines on standard error.

use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;

use crate::failure::Failure;

/// From which level on something is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Nothing is.
    Off,
    /// What needs an operator.
    Error,
    /// What should not happen, and is coped with.
    #[default]
    Warn,
    /// What happens seldom.
    Info,
    /// What happens with each connection.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// As it is written in a configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }

    /// Writes to standard error from here on, once in a process.
    pub(crate) fn begin(self) -> Result<(), Failure> {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .with_max_level(self.filter())
            .try_init()
            .map_err(Failure::halted)
    }
}
