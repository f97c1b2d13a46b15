//! The stable log as the device of the log-writer thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_stable::{AppendError, Log, Lsn};

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
    cut: LogCut,
    /// What was cut off.
    first: Lsn,
}

/// Says from outside where the front of a [`StableLog`] may be cut off. It is obeyed behind the next force.
#[derive(Clone, Debug, Default)]
pub struct LogCut(Arc<AtomicU64>);

impl LogCut {
    /// Nothing before `lsn` is needed any more. What this relies on has to be stable already.
    pub fn before(&self, lsn: Lsn) {
        self.0.fetch_max(lsn.0, Ordering::Relaxed);
    }
}

impl StableLog {
    /// A device that appends to `log` under `kind` (at most [`mainstay_stable::KIND_MAX`], or every append fails).
    #[must_use]
    pub fn new(log: Log, kind: u8) -> Self {
        let first = log.first();
        Self { log, kind, cut: LogCut::default(), first }
    }
}

impl StableLog {
    /// For whoever knows what of the log is needed.
    #[must_use]
    pub fn cut(&self) -> LogCut {
        self.cut.clone()
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
        self.log.force().map_err(io::Error::other)?;
        let cut = Lsn(self.cut.0.load(Ordering::Relaxed));
        if cut > self.first {
            self.first = self.log.truncate_before(cut).map_err(io::Error::other)?.max(cut);
        }
        Ok(())
    }
}
