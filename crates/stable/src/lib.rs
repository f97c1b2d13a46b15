//! Stable storage: an append log with group commit, checkpoint files and atomic cells, on a directory of files.
//!
//! What a call of this crate has answered is kept across crashes; what a crash interrupted is found whole or not at all;
//! what the device has spoiled is refused, never handed out. All of it is written against [`Medium`]: [`FileMedium`] is
//! a directory of the file system, [`MemoryMedium`] one in memory that enumerates what a crash may leave. There is no
//! clock, no randomness and no thread in here: calls block, and a host that must not block makes them on a thread of
//! its own.
//!
//! ```
//! use std::sync::Arc;
//!
//! use mainstay_stable::{Cell, Checkpoints, Crash, Log, MemoryMedium, Options, Owner};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let owner = Owner(*b"the-node-in-here");
//! let medium = MemoryMedium::new();
//! let (mut log, _) = Log::open(Arc::new(medium.clone()), Options::new(owner))?;
//! log.append(1, "deposit 5".into())?;
//! let lsn = log.append(1, "deposit 7".into())?;
//! assert_eq!(log.force()?, lsn); // one write and one sync for both
//! log.append(1, "never forced".into())?;
//!
//! let mut checkpoints = Checkpoints::open(Arc::new(medium.clone()), owner)?;
//! let mut writer = checkpoints.begin(lsn.0)?;
//! writer.write(b"balance 12")?;
//! checkpoints.commit(writer)?;
//! Cell::open(Arc::new(medium.clone()), "roster", owner)?.write(b"a b c")?;
//!
//! let medium = medium.crash(Crash::LOSE); // the power fails, what was not synced is gone
//! let (_, recovered) = Log::open(Arc::new(medium.clone()), Options::new(owner))?;
//! assert_eq!(recovered.records.len(), 2);
//! let newest = Checkpoints::open(Arc::new(medium.clone()), owner)?.read_newest()?;
//! assert_eq!(newest.ok_or("no checkpoint")?.position, lsn.0);
//! let roster = Cell::open(Arc::new(medium), "roster", owner)?.read()?;
//! assert_eq!(roster.as_deref(), Some(&b"a b c"[..]));
//! # Ok(())
//! # }
//! ```

mod cell;
mod checkpoint;
mod format;
mod log;
mod medium;
mod store;

pub use cell::{Cell, OpenCellError, ReadCellError, VALUE_BYTES_MAX, WriteCellError};
pub use checkpoint::{
    CHUNK_BYTES_MAX, Checkpoint, CheckpointWriter, Checkpoints, KEPT_COUNT, OpenCheckpointsError,
    ReadCheckpointError, WriteCheckpointError,
};
pub use format::{HEADER_SIZE, Owner, VERSION};
pub use log::{
    AppendError, ForceError, KIND_MAX, Log, Lsn, OpenError, Options, Record, Recovered,
    TruncateError,
};
#[cfg(unix)]
pub use medium::file::{FileMedium, FileMediumError};
pub use medium::memory::{CUT_SIZE_MAX, Calls, Crash, Fault, Kept, MemoryMedium, SUBSET_COUNT_MAX};
pub use medium::{Medium, NAME_SIZE_MAX, check_name};
pub use store::{CommitError, GroupCommit, OpenStoreError, Store, StoreCheckpointError, StorePast};
