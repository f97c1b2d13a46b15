//! What a client is told once.

use std::collections::BTreeSet;

use mainstay_base::{ClusterId, Duration, NodeId};
use thiserror::Error;

/// The settings of a [`Client`](super::Client).
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) cluster: ClusterId,
    pub(super) nodes: BTreeSet<NodeId>,
    pub(super) in_flight: u64,
    pub(super) calls_max: usize,
    pub(super) bytes_max: usize,
    pub(super) connect_within: Duration,
    pub(super) try_for: Duration,
    pub(super) status_every: Duration,
    pub(super) keep_alive: Duration,
    pub(super) backoff: (Duration, Duration),
}

/// Why settings do not fit together. Nothing was made.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is nobody to ask.
    #[error("a client needs at least one node")]
    NoNodes,
    /// A setting is zero that bounds something needed.
    #[error("{0} is zero")]
    Zero(&'static str),
    /// The shortest pause is longer than the longest.
    #[error("the first pause is longer than the longest one")]
    Backoff,
}

impl Config {
    /// The usual settings of a client of `nodes`.
    #[must_use]
    pub fn new(cluster: ClusterId, nodes: BTreeSet<NodeId>) -> Self {
        Self {
            cluster,
            nodes,
            in_flight: 32,
            calls_max: 1_024,
            bytes_max: 16 << 20,
            connect_within: Duration::from_secs(1),
            try_for: Duration::from_secs(3),
            status_every: Duration::from_secs(5),
            keep_alive: Duration::from_secs(60),
            backoff: (Duration::from_millis(10), Duration::from_secs(1)),
        }
    }

    /// Most calls that wait for an answer from a node; not above the replicas' `answers_max`. Default 32.
    #[must_use]
    pub fn in_flight(mut self, count: u64) -> Self {
        self.in_flight = count;
        self
    }

    /// Most calls, and most of their bytes, at a time; beyond, calls are refused. Default 1,024 and 16 MiB.
    #[must_use]
    pub fn bounds(mut self, calls: usize, bytes: usize) -> Self {
        (self.calls_max, self.bytes_max) = (calls, bytes);
        self
    }

    /// How long a node may take for the connection with its hello, and for an answer, until another one is asked.
    /// Default 1 s and 3 s; the second should be longer than the deadline of the nodes.
    #[must_use]
    pub fn patience(mut self, connect: Duration, answer: Duration) -> Self {
        (self.connect_within, self.try_for) = (connect, answer);
        self
    }

    /// How often an idle connection is tried, and how often an idle session is used so that it is not evicted. Default
    /// 5 s and 60 s.
    #[must_use]
    pub fn idle(mut self, connection: Duration, session: Duration) -> Self {
        (self.status_every, self.keep_alive) = (connection, session);
        self
    }

    /// The pause after the first failure of a node or refusal of a call, doubled by each further one up to the second.
    /// Jittered. Default 10 ms and 1 s.
    #[must_use]
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.backoff = (first, most);
        self
    }

    /// Whether the settings fit together.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let zeros = [
            ("in_flight", self.in_flight == 0),
            ("the number of calls", self.calls_max == 0),
            ("the bytes of calls", self.bytes_max == 0),
            ("the patience with connections", self.connect_within.is_zero()),
            ("the patience with answers", self.try_for.is_zero()),
            ("the idle time of connections", self.status_every.is_zero()),
            ("the idle time of sessions", self.keep_alive.is_zero()),
            ("the first pause", self.backoff.0.is_zero()),
        ];
        match zeros.iter().find(|(_, zero)| *zero) {
            _ if self.nodes.is_empty() => Err(ConfigError::NoNodes),
            Some((name, _)) => Err(ConfigError::Zero(name)),
            None if self.backoff.0 > self.backoff.1 => Err(ConfigError::Backoff),
            None => Ok(()),
        }
    }
}
