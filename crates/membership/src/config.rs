//! The protocol's own numbers.

use mainstay_base::Duration;
use thiserror::Error;

use crate::fault::Fault;

/// When a member is suspected and how long to wait for others. Immutable and valid by construction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    pub(crate) timeout: Duration,
    pub(crate) formation_wait: Duration,
    pub(crate) retry_backoff: Duration,
    pub(crate) objection: bool,
    /// The name of the own disk, and a hash of what must be equal.
    pub(crate) founding: Option<(u128, u128)>,
    pub(crate) fault: Option<Fault>,
}

/// Why numbers do not make a configuration. Nothing was changed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A timeout of zero suspects everybody at once.
    #[error("the failure timeout must be longer than zero")]
    TimeoutZero,
}

impl Default for Config {
    /// For a local network with heartbeats every 50 ms: timeout 250 ms, formation wait 200 ms, backoff 20 ms, no
    /// objection phase.
    fn default() -> Self {
        Self {
            timeout: Duration::from_millis(250),
            formation_wait: Duration::from_millis(200),
            retry_backoff: Duration::from_millis(20),
            objection: false,
            founding: None,
            fault: None,
        }
    }
}

impl Config {
    /// Silence of a member after which it is suspected. It must exceed (m + 1) heartbeats plus the longest delay for m
    /// lost heartbeats to be harmless (MB-21).
    ///
    /// # Errors
    /// [`ConfigError::TimeoutZero`].
    pub fn with_timeout(mut self, timeout: Duration) -> Result<Self, ConfigError> {
        if timeout.is_zero() {
            return Err(ConfigError::TimeoutZero);
        }
        self.timeout = timeout;
        Ok(self)
    }

    /// Silence of a member after which it is suspected.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How long a node that finds no living view waits for more of the configured nodes before it forms one from those
    /// that are up; not waited for when all are.
    #[must_use]
    pub fn with_formation_wait(mut self, wait: Duration) -> Self {
        self.formation_wait = wait;
        self
    }

    /// First delay before a manager whose proposal was refused tries again; grows with its place in the view.
    #[must_use]
    pub fn with_retry_backoff(mut self, backoff: Duration) -> Self {
        self.retry_backoff = backoff;
        self
    }

    /// With the objection phase on, a member is removed only when no unsuspected member still hears it (MB-22); off
    /// (the default), the word of one member is enough, so that a broken link between two members cannot stall a group.
    #[must_use]
    pub fn with_objection(mut self, on: bool) -> Self {
        self.objection = on;
        self
    }

    /// The node takes part in making the cluster, together with all others; see [`founding`](crate::founding). `disk` names what
    /// it has promises on: drawn at random when that is made, kept as long as it lasts. `settings` is a hash of what must be
    /// equal at all nodes. Default: it joins a cluster that is made otherwise.
    #[must_use]
    pub fn with_founding(mut self, disk: u128, settings: u128) -> Self {
        self.founding = Some((disk, settings));
        self
    }

    /// A deliberately broken machine, for tests.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }
}
