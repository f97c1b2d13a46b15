//! One value that is replaced atomically.
//!
//! The file is the header that all files have, with the size of the value, then the value, then a crc32c of the
//! value that starts from the header's. A write makes a temporary file, syncs it, renames it over the old one and syncs
//! the directory: until the rename is stable the old value stands, from then on the new one (ST-2).

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::format::{HEADER_SIZE, Header, HeaderError, u32_at};
use crate::medium::{Medium, check_name, read_all};
use crate::{Owner, VERSION};

const MAGIC: [u8; 8] = *b"MSTSCELL";

/// Largest value of a cell (16 MiB).
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// Why a cell did not open. The value is what it was; opening again is safe.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum OpenCellError {
    /// The medium failed, or the name is not one: see [`check_name`].
    #[error("the medium failed while the cell was opened")]
    Io(#[from] io::Error),
}

/// Why a cell could not be read. Nothing changed.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum ReadCellError {
    /// The medium failed. A retry is safe.
    #[error("the medium failed while the cell was read")]
    Io(#[from] io::Error),
    /// An earlier write had an unknown outcome. Open the cell anew and read that.
    #[error("the cell failed earlier")]
    Poisoned,
    /// The bytes are not what was written. A retry finds the same; a write replaces them.
    #[error("the cell is damaged")]
    Damaged,
    /// The layout is one that this build does not know. Read it with the build that wrote it.
    #[error("the cell has version {0}, this build reads {VERSION}")]
    Version(u32),
    /// Intact, but of another owner: the wrong directory was given.
    #[error("the cell belongs to {0}")]
    Foreign(Owner),
}

/// Why a cell was not written.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum WriteCellError {
    /// An earlier write had an unknown outcome. Nothing changed now. Open the cell anew.
    #[error("the cell failed earlier")]
    Poisoned,
    /// The value is larger than [`VALUE_BYTES_MAX`]. Nothing changed; a retry is of no use.
    #[error("a value of {0} bytes, the limit is {VALUE_BYTES_MAX}")]
    TooLarge(usize),
    /// The medium failed before the old value was touched: it stands. A retry is safe, it begins with a fresh file.
    #[error("the medium failed, the old value stands")]
    NotWritten(#[source] io::Error),
    /// The medium failed while the new value took the place of the old one. After the next opening the cell has one of
    /// the two. This cell is poisoned; a retry is of no use.
    #[error("the medium failed, the outcome is unknown")]
    Unknown(#[source] io::Error),
}

/// One value on a [`Medium`], written whole or not at all.
#[derive(Debug)]
pub struct Cell {
    medium: Arc<dyn Medium>,
    name: String,
    temporary: String,
    owner: Owner,
    /// A temporary file may be there.
    leftover: bool,
    poisoned: bool,
}

impl Cell {
    /// Opens the cell `name` (files `cell-<name>` and `cell-<name>.tmp`), tidying up after a crash: on return what
    /// [`Cell::read`] gives is stable. Two values for one cell must not be open at a time.
    ///
    /// # Errors
    /// [`OpenCellError`].
    pub fn open(medium: Arc<dyn Medium>, name: &str, owner: Owner) -> Result<Self, OpenCellError> {
        if name.contains('.') {
            // Else one cell's value could be another's temporary file.
            return Err(
                io::Error::new(io::ErrorKind::InvalidInput, "a dot in a cell's name").into()
            );
        }
        let (name, temporary) = (format!("cell-{name}"), format!("cell-{name}.tmp"));
        check_name(&temporary)?;
        if medium.list()?.contains(&temporary) {
            medium.remove(&temporary)?;
        }
        medium.sync_dir()?;
        Ok(Self { medium, name, temporary, owner, leftover: false, poisoned: false })
    }

    /// The value; `None` if none was ever written.
    ///
    /// # Errors
    /// [`ReadCellError`].
    pub fn read(&self) -> Result<Option<Bytes>, ReadCellError> {
        if self.poisoned {
            return Err(ReadCellError::Poisoned);
        }
        let bytes = match read_all(&*self.medium, &self.name) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ReadCellError::Io(error)),
        };
        let header = Header::decode(&bytes, MAGIC, self.owner).map_err(|error| match error {
            HeaderError::Damaged => ReadCellError::Damaged,
            HeaderError::Version(version) => ReadCellError::Version(version),
            HeaderError::Foreign(owner) => ReadCellError::Foreign(owner),
        })?;
        let rest = bytes.slice(HEADER_SIZE..);
        let size = rest.len().checked_sub(4).ok_or(ReadCellError::Damaged)?;
        let value = rest.slice(..size);
        let intact = header.number == size as u64
            && crc32c::crc32c_append(header.seed(), &value) == u32_at(&rest, size);
        if intact { Ok(Some(value)) } else { Err(ReadCellError::Damaged) }
    }

    /// Replaces the value; on return the new one is stable.
    ///
    /// # Errors
    /// [`WriteCellError`].
    pub fn write(&mut self, value: &[u8]) -> Result<(), WriteCellError> {
        if self.poisoned {
            return Err(WriteCellError::Poisoned);
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(WriteCellError::TooLarge(value.len()));
        }
        self.write_temporary(value).map_err(WriteCellError::NotWritten)?;
        self.poisoned = true;
        self.medium.rename(&self.temporary, &self.name).map_err(WriteCellError::Unknown)?;
        self.medium.sync_dir().map_err(WriteCellError::Unknown)?;
        self.poisoned = false;
        self.leftover = false;
        Ok(())
    }

    fn write_temporary(&mut self, value: &[u8]) -> io::Result<()> {
        if self.leftover {
            // The pages of a file whose sync failed must not be synced again: a new file has new ones.
            match self.medium.remove(&self.temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.leftover = true;
        self.medium.create(&self.temporary)?;
        let header = Header { magic: MAGIC, owner: self.owner, number: value.len() as u64 };
        let mut bytes = Vec::with_capacity(HEADER_SIZE + value.len() + 4);
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(&crc32c::crc32c_append(header.seed(), value).to_le_bytes());
        self.medium.write_at(&self.temporary, 0, &bytes)?;
        self.medium.sync_data(&self.temporary)
    }
}

#[cfg(test)]
mod tests;
