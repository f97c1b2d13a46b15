//! The disk of a node of services.

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstay_base::rack::LogEntry;
use mainstay_base::service::{Address, Io};

/// The log of all instances in the order of writing, and their newest checkpoints.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Image {
    /// One after the other; what nobody keeps is cut off at the front.
    pub log: Vec<LogEntry>,
    /// The position of the newest one of each instance, and its chunks.
    pub checkpoints: BTreeMap<Address, (u64, Vec<Bytes>)>,
    /// The number of the last record of each instance, cut off or not.
    pub last: BTreeMap<Address, Io>,
}

/// One forced write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Written {
    /// All records of a turn: all of them, or none, are there after a crash.
    Records(Vec<LogEntry>),
    /// A checkpoint takes the place of the older one.
    Checkpoint {
        /// Of which instance.
        of: Address,
        /// As of this position.
        position: u64,
        /// The state.
        chunks: Vec<Bytes>,
    },
    /// The front of the log is needed no more, up to what each instance keeps.
    Cut(BTreeMap<Address, Io>),
}

impl Image {
    /// Carries a write out.
    pub fn apply(&mut self, write: Written) {
        match write {
            Written::Records(entries) => {
                for entry in &entries {
                    if let LogEntry::Record { of, io, .. } = entry {
                        self.last.insert(*of, *io);
                    }
                }
                self.log.extend(entries);
            }
            Written::Checkpoint { of, position, chunks } => {
                self.checkpoints.insert(of, (position, chunks));
            }
            Written::Cut(keeps) => {
                let is_needed = |entry: &LogEntry| match entry {
                    LogEntry::Record { of, io, .. } => {
                        keeps.get(of).is_none_or(|keeps| io >= keeps)
                    }
                    LogEntry::Installed { .. } => false,
                };
                let front = self.log.iter().position(is_needed).unwrap_or(self.log.len());
                self.log.drain(..front);
            }
        }
    }
}
