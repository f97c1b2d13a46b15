//! The medium below stable storage: one directory of named files.
//!
//! A medium is believed to do what POSIX says and no more: bytes are safe once [`Medium::sync_data`] has returned,
//! names once [`Medium::sync_dir`] has returned, a rename happens whole or not at all, and before that anything may be
//! lost, kept or kept in part. Everything above is written against this contract and checked against
//! [`MemoryMedium`](crate::MemoryMedium), which enumerates what a crash may leave.

use std::{fmt, io};

#[cfg(unix)]
pub(crate) mod file;
pub(crate) mod memory;

/// One directory of named files. Calls block; an implementation may be shared between threads.
///
/// Names are as [`check_name`] demands. After an error of a mutating call nothing may be assumed about what it changed.
pub trait Medium: fmt::Debug + Send + Sync {
    /// Makes an empty file. Its name is durable only after [`Medium::sync_dir`].
    ///
    /// # Errors
    /// `AlreadyExists`, or what the device says.
    fn create(&self, name: &str) -> io::Result<()>;

    /// Bytes of the file.
    ///
    /// # Errors
    /// `NotFound`, or what the device says.
    fn len(&self, name: &str) -> io::Result<u64>;

    /// Up to `size` bytes from `offset`; fewer only where the file ends.
    ///
    /// # Errors
    /// `NotFound`, or what the device says.
    fn read_at(&self, name: &str, offset: u64, size: usize) -> io::Result<Vec<u8>>;

    /// Writes at `offset`, making the file longer where needed. Durable only after [`Medium::sync_data`].
    ///
    /// # Errors
    /// `NotFound`, or what the device says; a part may have been written.
    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file to `size` bytes. Durable only after [`Medium::sync_data`].
    ///
    /// # Errors
    /// `NotFound`, or what the device says.
    fn truncate(&self, name: &str, size: u64) -> io::Result<()>;

    /// Returns when all bytes of the file, and its length, are on the medium.
    ///
    /// # Errors
    /// What the device says. What was not durable before may then be lost although later reads still show it:
    /// the caller must not try again.
    fn sync_data(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, replacing the file of that name. Durable only after [`Medium::sync_dir`].
    ///
    /// # Errors
    /// `NotFound`, or what the device says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable only after [`Medium::sync_dir`].
    ///
    /// # Errors
    /// `NotFound`, or what the device says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all files, ascending.
    ///
    /// # Errors
    /// What the device says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Returns when all creations, renames and removals so far are on the medium.
    ///
    /// # Errors
    /// What the device says; as for [`Medium::sync_data`].
    fn sync_dir(&self) -> io::Result<()>;
}

/// Most bytes of a file name.
pub const NAME_SIZE_MAX: usize = 128;

/// Demands that `name` is 1 to [`NAME_SIZE_MAX`] characters of `a-z`, `0-9`, `-`, `_` and `.`, not beginning with `.`,
/// and not the name of the lock file.
///
/// # Errors
/// `InvalidInput`.
pub fn check_name(name: &str) -> io::Result<()> {
    let plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    let fits = (1..=NAME_SIZE_MAX).contains(&name.len());
    if fits && name.bytes().all(plain) && !name.starts_with('.') && name != LOCK {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not a file name here: {name:?}")))
}

/// The file that keeps a second process out of a directory.
pub(crate) const LOCK: &str = "lock";

/// All bytes of the file.
pub(crate) fn read_all(medium: &dyn Medium, name: &str) -> io::Result<Vec<u8>> {
    let size = usize::try_from(medium.len(name)?)
        .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "file larger than memory"))?;
    let bytes = medium.read_at(name, 0, size)?;
    if bytes.len() == size {
        return Ok(bytes);
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "file became shorter while it was read"))
}
