//! What a replica is told once, valid by construction.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The settings of a [`Replica`](crate::Replica); made by a [`Builder`], immutable afterwards.
///
/// They decide outcomes, so all replicas of a group have the same: they are part of hash and snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Config {
    pub(crate) sessions_max: usize,
    pub(crate) answers_max: u64,
    pub(crate) answer_bytes_max: usize,
    pub(crate) saved_bytes_max: usize,
    pub(crate) skips_max: usize,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) hash_every: u64,
    pub(crate) hashes_max: usize,
}

/// Why settings do not fit together. Nothing was made; the caller's settings are at fault.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting is zero that counts something needed.
    #[error("{0} is zero")]
    Zero(&'static str),
    /// One session alone could hold more than all may.
    #[error("saved_bytes_max is less than answers_max times answer_bytes_max")]
    SavedBytes,
}

impl Config {
    /// The default settings, to be changed.
    pub fn builder() -> Builder {
        Builder(Self {
            sessions_max: 65_536,
            answers_max: 64,
            answer_bytes_max: 1 << 20,
            saved_bytes_max: 64 << 20,
            skips_max: 1_024,
            checkpoint_bytes: 64 << 20,
            hash_every: 4_096,
            hashes_max: 16,
        })
    }

    fn check(&self) -> Result<(), ConfigError> {
        let counts = [
            ("sessions_max", self.sessions_max == 0),
            ("answers_max", self.answers_max == 0),
            ("skips_max", self.skips_max == 0),
            ("checkpoint_bytes", self.checkpoint_bytes == 0),
            ("hash_every", self.hash_every == 0),
            ("hashes_max", self.hashes_max == 0),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, zero)| *zero) {
            return Err(ConfigError::Zero(name));
        }
        let one = (self.answer_bytes_max as u64).saturating_mul(self.answers_max);
        if one > self.saved_bytes_max as u64 { Err(ConfigError::SavedBytes) } else { Ok(()) }
    }
}

/// Changes settings, then checks them together.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder(Config);

impl Builder {
    /// How many sessions are open at most (65,536); beyond, the one not used for longest is evicted.
    pub fn sessions_max(mut self, count: usize) -> Self {
        self.0.sessions_max = count;
        self
    }

    /// How many commands of a session may be unacknowledged (64).
    pub fn answers_max(mut self, count: u64) -> Self {
        self.0.answers_max = count;
        self
    }

    /// Largest answer that is saved, in bytes (1 MiB), and how much all saved answers may hold together (64 MiB);
    /// beyond, the session not used for longest is evicted.
    pub fn answer_bytes(mut self, one_max: usize, all_max: usize) -> Self {
        self.0.answer_bytes_max = one_max;
        self.0.saved_bytes_max = all_max;
        self
    }

    /// How many commands may ever be passed over as poison (1,024); beyond, a poisoned group stays halted.
    pub fn skips_max(mut self, count: usize) -> Self {
        self.0.skips_max = count;
        self
    }

    /// A checkpoint is wanted after so many bytes of messages (64 MiB).
    pub fn checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.0.checkpoint_bytes = bytes;
        self
    }

    /// The state's hash is told at each multiple of this position (4,096), and so many of them are remembered of each
    /// member (16).
    pub fn hashes(mut self, every: u64, kept: usize) -> Self {
        self.0.hash_every = every;
        self.0.hashes_max = kept;
        self
    }

    /// The settings.
    ///
    /// # Errors
    /// [`ConfigError`]: they do not fit together.
    pub fn build(self) -> Result<Config, ConfigError> {
        self.0.check()?;
        Ok(self.0)
    }
}
