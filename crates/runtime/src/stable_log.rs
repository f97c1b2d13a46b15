//! The stable log as the device of the log-writer thread.

use std::io;

use mainstay_stable::{AppendError, Log};

use crate::log_writer::LogDevice;
use crate::ports::Record;

/// A [`mainstay_stable::Log`] under a [`LogWriter`](crate::LogWriter): group commit over checksummed segments.
///
/// All records are appended under one kind. A failed write or force poisons log and writer alike; the records are read
/// again by opening the log anew (ST-1, ST-10, ST-32).
#[derive(Debug)]
pub struct StableLog {
    log: Log,
    kind: u8,
}

impl StableLog {
    /// A device that appends to `log` under `kind` (at most [`mainstay_stable::KIND_MAX`], or every append fails).
    #[must_use]
    pub fn new(log: Log, kind: u8) -> Self {
        Self { log, kind }
    }
}

impl LogDevice for StableLog {
    fn append(&mut self, records: Vec<Record>) -> io::Result<()> {
        for record in records {
            match self.log.append(self.kind, record.clone()) {
                // The batch is larger than what the log holds back: what it has goes out first.
                Err(AppendError::Full) => {
                    self.force()?;
                    self.log.append(self.kind, record).map_err(io::Error::other)?;
                }
                appended => drop(appended.map_err(io::Error::other)?),
            }
        }
        Ok(())
    }

    fn force(&mut self) -> io::Result<()> {
        self.log.force().map(drop).map_err(io::Error::other)
    }
}
