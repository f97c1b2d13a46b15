//! Checkpoint files: a whole state at a position, written in chunks, complete or not there.
//!
//! The file is the header that all files have, with the position as its number; then chunks `len u32, crc32c u32,
//! bytes`; then the end `0xffff_ffff, crc32c u32, count of chunks u64`. The checksums run on: each starts from the one
//! before, the first from the header's, so a chunk missing, doubled or out of order is seen. A checkpoint is written
//! as a temporary file and gets its name when it is complete and stable.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::format::{HEADER_SIZE, Header, HeaderError, u32_at, u64_at};
use crate::medium::Medium;
use crate::{Owner, VERSION};

const MAGIC: [u8; 8] = *b"MSTSCKPT";
const PREFIX: &str = "checkpoint-";
const TEMPORARY: &str = ".tmp";
/// Bytes in front of a chunk: len u32, crc32c u32.
const CHUNK_HEADER_SIZE: usize = 8;
/// Stands where the len of a next chunk would.
const END: u32 = u32::MAX;
/// After so many bytes what was written is made stable (8 MiB): all of a large state in one go would keep the log, on the same
/// disk, waiting for as long as that takes.
const SYNC_BYTES: u64 = 8 << 20;
/// Bytes that are read at once (1 MiB).
const WINDOW: usize = 1 << 20;

/// Largest chunk (16 MiB).
pub const CHUNK_BYTES_MAX: usize = 16 << 20;
/// How many checkpoints are kept.
pub const KEPT_COUNT: usize = 2;

/// Why the checkpoints did not open. Complete checkpoints are untouched; opening again is safe.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum OpenCheckpointsError {
    /// The medium failed.
    #[error("the medium failed while checkpoints were opened")]
    Io(#[from] io::Error),
}

/// Why no checkpoint could be read. Nothing changed.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum ReadCheckpointError {
    /// The medium failed. A retry is safe.
    #[error("the medium failed while a checkpoint was read")]
    Io(#[from] io::Error),
    /// An earlier commit had an unknown outcome. Open the checkpoints anew.
    #[error("the checkpoints failed earlier")]
    Poisoned,
    /// There are checkpoints and none of them reads back. A retry finds the same; the site has to get its state from
    /// elsewhere.
    #[error("all checkpoints are damaged, the newest is {0}")]
    Damaged(u64),
    /// The layout is one that this build does not know. Read it with the build that wrote it.
    #[error("checkpoint {position} has version {version}, this build reads {VERSION}")]
    Version {
        /// Which checkpoint.
        position: u64,
        /// What its header says.
        version: u32,
    },
    /// Intact, but of another owner: the wrong directory was given.
    #[error("checkpoint {position} belongs to {owner}")]
    Foreign {
        /// Which checkpoint.
        position: u64,
        /// Whose it is.
        owner: Owner,
    },
}

/// Why a checkpoint was not begun, written or committed.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum WriteCheckpointError {
    /// An earlier commit had an unknown outcome. Nothing changed now. Open the checkpoints anew.
    #[error("the checkpoints failed earlier")]
    Poisoned,
    /// The position is not above the newest checkpoint's. Nothing changed; retry with a higher one.
    #[error("position {position} is not above the newest checkpoint, {newest}")]
    NotNewer {
        /// What was asked for.
        position: u64,
        /// What there is.
        newest: u64,
    },
    /// A checkpoint of this position is being written. Nothing changed; finish or abandon that one.
    #[error("a checkpoint at {0} is being written")]
    InProgress(u64),
    /// The chunk is larger than [`CHUNK_BYTES_MAX`]. Nothing changed; retry with smaller ones.
    #[error("a chunk of {0} bytes, the limit is {CHUNK_BYTES_MAX}")]
    TooLarge(usize),
    /// The medium failed before the checkpoint got its name: the older ones stand. Abandon the writer; beginning
    /// again is safe.
    #[error("the medium failed, the older checkpoints stand")]
    NotWritten(#[source] io::Error),
    /// The medium failed while the checkpoint got its name. After the next opening it is there or not. These checkpoints
    /// are poisoned; a retry is of no use.
    #[error("the medium failed, the outcome is unknown")]
    Unknown(#[source] io::Error),
}

/// A checkpoint that was read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// What the writer was begun with.
    pub position: u64,
    /// The chunks as they were written.
    pub chunks: Vec<Bytes>,
    /// Positions of newer checkpoints that were complete once and are damaged now.
    pub damaged: Vec<u64>,
}

/// The checkpoints on a [`Medium`], alone in using the file names that begin with `checkpoint-`.
#[derive(Debug)]
pub struct Checkpoints {
    medium: Arc<dyn Medium>,
    owner: Owner,
    /// Positions of complete checkpoints.
    positions: BTreeSet<u64>,
    poisoned: bool,
}

/// A checkpoint being written; owned, so that the chunks can be spread over time. Dropping it leaves a temporary file
/// that the next opening removes, [`Checkpoints::abandon`] removes it at once.
#[derive(Debug)]
#[must_use = "a checkpoint that is not committed is lost"]
pub struct CheckpointWriter {
    medium: Arc<dyn Medium>,
    position: u64,
    size: u64,
    /// So much of it is stable.
    synced: u64,
    crc: u32,
    count: u64,
    failed: bool,
}

impl Checkpoints {
    /// Opens the checkpoints, removing what a crash left unfinished and all but the newest [`KEPT_COUNT`]. On return
    /// the complete ones are stable.
    ///
    /// # Errors
    /// [`OpenCheckpointsError`].
    pub fn open(medium: Arc<dyn Medium>, owner: Owner) -> Result<Self, OpenCheckpointsError> {
        let mut positions = BTreeSet::new();
        for name in medium.list()? {
            match parse_name(&name) {
                Some((position, false)) => {
                    positions.insert(position);
                }
                Some((_, true)) => medium.remove(&name)?,
                None => {}
            }
        }
        // Older ones go only when the newer ones are sure to stay.
        medium.sync_dir()?;
        let mut checkpoints = Self { medium, owner, positions, poisoned: false };
        if checkpoints.remove_old()? {
            checkpoints.medium.sync_dir()?;
        }
        Ok(checkpoints)
    }

    /// The position of the newest complete checkpoint.
    #[must_use]
    pub fn newest(&self) -> Option<u64> {
        self.positions.last().copied()
    }

    /// The positions of the checkpoints kept, ascending. A log may be truncated up to the first of them.
    #[must_use]
    pub fn positions(&self) -> Vec<u64> {
        self.positions.iter().copied().collect()
    }

    /// Reads the newest complete checkpoint, or the one before if that is damaged; `None` if there is none at all.
    ///
    /// # Errors
    /// [`ReadCheckpointError`].
    pub fn read_newest(&self) -> Result<Option<Checkpoint>, ReadCheckpointError> {
        if self.poisoned {
            return Err(ReadCheckpointError::Poisoned);
        }
        let mut damaged = Vec::new();
        for &position in self.positions.iter().rev() {
            match self.read(position)? {
                Some(chunks) => return Ok(Some(Checkpoint { position, chunks, damaged })),
                None => damaged.push(position),
            }
        }
        damaged.first().map_or(Ok(None), |newest| Err(ReadCheckpointError::Damaged(*newest)))
    }

    /// Begins a checkpoint. `position` is the caller's: usually the lsn that the state includes.
    ///
    /// # Errors
    /// [`WriteCheckpointError`].
    pub fn begin(&mut self, position: u64) -> Result<CheckpointWriter, WriteCheckpointError> {
        self.check_usable(position)?;
        let name = temporary(position);
        match self.medium.create(&name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(WriteCheckpointError::InProgress(position));
            }
            Err(error) => return Err(WriteCheckpointError::NotWritten(error)),
        }
        let header = Header { magic: MAGIC, owner: self.owner, number: position };
        let mut writer = CheckpointWriter {
            medium: Arc::clone(&self.medium),
            position,
            size: 0,
            synced: 0,
            crc: header.seed(),
            count: 0,
            failed: false,
        };
        match writer.append(&header.encode()) {
            Ok(()) => Ok(writer),
            Err(error) => {
                // What is left if this fails too is removed by the next opening.
                let _ = self.medium.remove(&name);
                Err(error)
            }
        }
    }

    /// Makes the checkpoint complete and stable, then removes those that are too old.
    ///
    /// # Errors
    /// [`WriteCheckpointError`]. An older checkpoint that cannot be removed is no error: the next commit or opening
    /// tries again.
    pub fn commit(&mut self, mut writer: CheckpointWriter) -> Result<(), WriteCheckpointError> {
        self.check_usable(writer.position)?;
        writer.finish()?;
        let position = writer.position;
        self.poisoned = true;
        self.medium
            .rename(&temporary(position), &name(position))
            .map_err(WriteCheckpointError::Unknown)?;
        self.medium.sync_dir().map_err(WriteCheckpointError::Unknown)?;
        self.poisoned = false;
        self.positions.insert(position);
        // The names are synced with the next commit: an old checkpoint that comes back does no harm.
        let _ = self.remove_old();
        Ok(())
    }

    /// Gives up a checkpoint that was begun.
    ///
    /// # Errors
    /// [`WriteCheckpointError::NotWritten`]: a temporary file may be left, which the next opening removes.
    pub fn abandon(&mut self, writer: CheckpointWriter) -> Result<(), WriteCheckpointError> {
        self.medium.remove(&temporary(writer.position)).map_err(WriteCheckpointError::NotWritten)
    }

    fn check_usable(&self, position: u64) -> Result<(), WriteCheckpointError> {
        if self.poisoned {
            return Err(WriteCheckpointError::Poisoned);
        }
        match self.newest() {
            Some(newest) if position <= newest => {
                Err(WriteCheckpointError::NotNewer { position, newest })
            }
            _ => Ok(()),
        }
    }

    /// Removes all but the newest; answers whether there was something to remove.
    fn remove_old(&mut self) -> io::Result<bool> {
        let mut removed = false;
        while self.positions.len() > KEPT_COUNT {
            let oldest = *self.positions.first().expect("more than none");
            match self.medium.remove(&name(oldest)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => removed = true,
            }
            self.positions.remove(&oldest);
        }
        Ok(removed)
    }

    /// The chunks of one checkpoint; `None` if it is damaged.
    fn read(&self, position: u64) -> Result<Option<Vec<Bytes>>, ReadCheckpointError> {
        let name = name(position);
        let mut file = Reader::new(&*self.medium, &name)?;
        let Some(header) = file.take(HEADER_SIZE)? else { return Ok(None) };
        match Header::decode(&header, MAGIC, self.owner) {
            Ok(header) if header.number == position => Ok(chunks(&mut file, header.seed())?),
            Ok(_) | Err(HeaderError::Damaged) => Ok(None),
            Err(HeaderError::Version(version)) => {
                Err(ReadCheckpointError::Version { position, version })
            }
            Err(HeaderError::Foreign(owner)) => {
                Err(ReadCheckpointError::Foreign { position, owner })
            }
        }
    }
}

impl CheckpointWriter {
    /// The position the checkpoint will have.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Writes a next chunk; nothing is stable before the commit.
    ///
    /// # Errors
    /// [`WriteCheckpointError`]; after `NotWritten` this writer can only be abandoned.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), WriteCheckpointError> {
        if chunk.len() > CHUNK_BYTES_MAX {
            return Err(WriteCheckpointError::TooLarge(chunk.len()));
        }
        let size = u32::try_from(chunk.len()).expect("just checked").to_le_bytes();
        self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, &size), chunk);
        self.count += 1;
        let mut bytes = Vec::with_capacity(CHUNK_HEADER_SIZE + chunk.len());
        bytes.extend_from_slice(&size);
        bytes.extend_from_slice(&self.crc.to_le_bytes());
        bytes.extend_from_slice(chunk);
        self.append(&bytes)
    }

    fn finish(&mut self) -> Result<(), WriteCheckpointError> {
        let (end, count) = (END.to_le_bytes(), self.count.to_le_bytes());
        self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, &end), &count);
        let bytes = [&end[..], &self.crc.to_le_bytes(), &count].concat();
        self.append(&bytes)?;
        self.medium.sync_data(&temporary(self.position)).map_err(WriteCheckpointError::NotWritten)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), WriteCheckpointError> {
        if self.failed {
            let error = io::Error::other("an earlier write of this checkpoint failed");
            return Err(WriteCheckpointError::NotWritten(error));
        }
        self.failed = true;
        self.medium
            .write_at(&temporary(self.position), self.size, bytes)
            .map_err(WriteCheckpointError::NotWritten)?;
        self.size += bytes.len() as u64;
        if self.size - self.synced >= SYNC_BYTES {
            let synced = self.medium.sync_data(&temporary(self.position));
            synced.map_err(WriteCheckpointError::NotWritten)?;
            self.synced = self.size;
        }
        self.failed = false;
        Ok(())
    }
}

/// Reads a file from its front, some of it at a time. What it gives out is memory of its own: chunks are freed one by
/// one, as the state grows out of them.
struct Reader<'a> {
    medium: &'a dyn Medium,
    name: &'a str,
    /// Bytes of the file, and how many of them were read.
    size: u64,
    offset: u64,
    /// Read and not given out; the part before `at` is.
    window: Vec<u8>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(medium: &'a dyn Medium, name: &'a str) -> io::Result<Self> {
        let size = medium.len(name)?;
        Ok(Self { medium, name, size, offset: 0, window: Vec::new(), at: 0 })
    }

    /// The next bytes; `None` if the file has fewer.
    fn take(&mut self, count: usize) -> io::Result<Option<Bytes>> {
        let missing = count.saturating_sub(self.window.len() - self.at);
        if missing as u64 > self.size - self.offset {
            return Ok(None);
        }
        if missing > 0 {
            self.window.drain(..self.at);
            self.at = 0;
            let left = usize::try_from(self.size - self.offset).unwrap_or(usize::MAX);
            let more =
                self.medium.read_at(self.name, self.offset, left.min(missing.max(WINDOW)))?;
            if more.len() < missing {
                let kind = io::ErrorKind::UnexpectedEof;
                return Err(io::Error::new(kind, "file became shorter while it was read"));
            }
            self.offset += more.len() as u64;
            self.window.extend_from_slice(&more);
        }
        let bytes = Bytes::copy_from_slice(&self.window[self.at..self.at + count]);
        self.at += count;
        Ok(Some(bytes))
    }

    fn is_at_end(&self) -> bool {
        self.offset == self.size && self.at == self.window.len()
    }
}

/// The chunks behind the header, if all is intact.
fn chunks(file: &mut Reader<'_>, seed: u32) -> io::Result<Option<Vec<Bytes>>> {
    let mut crc = seed;
    let mut chunks = Vec::new();
    loop {
        let Some(head) = file.take(CHUNK_HEADER_SIZE)? else { return Ok(None) };
        let (size, expected) = (u32_at(&head, 0), u32_at(&head, 4));
        let length = if size == END { 8 } else { size as usize };
        let Some(chunk) = file.take(length)? else { return Ok(None) };
        crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &head[..4]), &chunk);
        if crc != expected {
            return Ok(None);
        }
        if size == END {
            let whole = u64_at(&chunk, 0) == chunks.len() as u64 && file.is_at_end();
            return Ok(whole.then_some(chunks));
        }
        chunks.push(chunk);
    }
}

fn name(position: u64) -> String {
    format!("{PREFIX}{position:016x}")
}

fn temporary(position: u64) -> String {
    format!("{PREFIX}{position:016x}{TEMPORARY}")
}

/// The position of the checkpoint file of that name, and whether it is a temporary one.
fn parse_name(text: &str) -> Option<(u64, bool)> {
    let digits = text.strip_prefix(PREFIX)?;
    let stem = digits.strip_suffix(TEMPORARY);
    let position = u64::from_str_radix(stem.unwrap_or(digits), 16).ok()?;
    let canonical = if stem.is_some() { temporary(position) } else { name(position) };
    (canonical == text).then_some((position, stem.is_some()))
}

#[cfg(test)]
mod tests;
