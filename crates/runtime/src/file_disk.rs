//! The disk of production: a directory of the file system.

use std::path::PathBuf;
use std::sync::Arc;

use mainstay_stable::{FileMedium, FileMediumError, Medium};

use crate::log_writer::{LogDevice, LogOptions, LogWriter};
use crate::ports::{Disk, Space, Store};

/// A directory of the file system: its log is written by a [`LogWriter`] with the usual bounds, other steps run on
/// tokio's threads for what blocks.
#[derive(Clone, Debug)]
pub struct FileDisk {
    path: PathBuf,
}

impl FileDisk {
    /// The disk at `path`; nothing is opened yet. The directory is made when it is missing, its parent must exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Disk for FileDisk {
    fn open(&self, inner: Option<&str>) -> Result<Arc<dyn Medium>, FileMediumError> {
        let medium = match inner {
            None => FileMedium::open(&self.path),
            Some(name) => FileMedium::open(self.path.join(name)),
        };
        Ok(Arc::new(medium?))
    }

    fn store(&self, device: Box<dyn LogDevice>) -> Box<dyn Store> {
        Box::new(LogWriter::new(device, LogOptions::default()))
    }

    fn space(&self) -> Option<Space> {
        let found = rustix::fs::statvfs(&self.path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Space { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
    }

    /// # Panics
    /// Outside a tokio runtime.
    fn run(&self, step: Box<dyn FnOnce() + Send>) {
        drop(tokio::task::spawn_blocking(step));
    }
}
