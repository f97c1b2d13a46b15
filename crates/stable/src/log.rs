//! The append log: records in segments, forced in groups, cut at the torn end, refused when damaged.
//!
//! A record is `len u32, kind u8, lsn u64, crc32c u32, payload`, little-endian, behind the header that every file of
//! stable storage has; a segment is named by its first lsn. The checksum covers header and payload of the record and
//! starts from the checksum of the segment's header, so a record that belongs elsewhere does not pass.
//!
//! How is a torn tail told from damage? A force writes, then syncs; a next force does not begin before that, and a
//! next segment neither. So whatever stands before the first record of a force was stable when that record was
//! written. The top bit of `kind` marks these first records. A bad record with a marked record or a segment behind it
//! was stable once: that is damage, and the log refuses to open. A bad record without one may be what a crash left of
//! the last force, which never returned: it is cut off with everything behind it (ST-31).
//!
//! Space is filled with zeros ahead of the records, [`Options::fill_bytes`] at a time: a force that does not make the file
//! longer needs no journal of the file system, which is faster, and does not wait for the forces of other files. Zeros are
//! no record (a record's lsn is not 0), so behind the last one they are its end and no torn tail.
//!
//! A failed write or sync is final for this value: the system may have dropped the pages and calls them clean, so a
//! second sync would lie. For the same reason opening writes the bytes of the last segment once more before it syncs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::{fmt, io};

use bytes::Bytes;
use thiserror::Error;

use crate::format::{HEADER_SIZE, Header};
use crate::medium::Medium;
use crate::{Owner, VERSION};

mod recover;
mod segment;

use segment::RECORD_HEADER_SIZE;

/// Largest [`Record::kind`]; the top bit belongs to the log.
pub const KIND_MAX: u8 = 0x7f;

/// A batch larger than this part of [`Options::fill_bytes`] is written without zeros behind it.
const LARGE_PART: u64 = 8;

/// The place of a record in the log: the first is 1, each next one is higher by 1, none is used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The place before the first record: nothing.
    pub const ZERO: Self = Self(0);

    /// The place after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("fewer than 2^64 records in one log"))
    }

    fn before(self) -> Self {
        Self(self.0 - 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A record that was read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its place.
    pub lsn: Lsn,
    /// What the caller appended it as.
    pub kind: u8,
    /// Shares memory with the other records of its segment.
    pub payload: Bytes,
}

/// What [`Log::open`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// All records, in order without gaps; all of them are stable now.
    pub records: Vec<Record>,
    /// Bytes of a torn tail that were cut off; they belonged to a force that never returned.
    pub discarded_bytes: u64,
}

/// Whose log it is, and its bounds.
#[derive(Clone, Debug)]
pub struct Options {
    /// A log of another owner is refused.
    pub owner: Owner,
    /// Size from which a next segment is begun; a segment holds at least one record. Default 16 MiB.
    pub segment_bytes: u64,
    /// Largest payload that can be appended. Default 16 MiB.
    pub payload_bytes_max: u32,
    /// Most bytes, headers included, that may be appended without a force. Default 64 MiB.
    pub pending_bytes_max: u64,
    /// A force that outgrows the file fills it with zeros up to the next multiple of this, unless it writes a large part
    /// of that itself; 0: never. Default 1 MiB.
    pub fill_bytes: u64,
}

impl Options {
    /// The defaults, for that owner.
    #[must_use]
    pub fn new(owner: Owner) -> Self {
        Self {
            owner,
            segment_bytes: 16 << 20,
            payload_bytes_max: 16 << 20,
            pending_bytes_max: 64 << 20,
            fill_bytes: 1 << 20,
        }
    }
}

/// Why a log did not open. Nothing that was stable is lost by any of these.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The medium failed. A torn tail may have been cut; opening again is safe.
    #[error("the medium failed while the log was opened")]
    Io(#[from] io::Error),
    /// Bytes that were stable do not read back, or a segment is missing. Nothing changed; a retry finds the same. The
    /// site has to get its state from elsewhere.
    #[error("log segment {segment} is damaged at offset {offset}")]
    Damaged {
        /// The file.
        segment: String,
        /// Where the first bad record, or the header, begins.
        offset: u64,
    },
    /// The segment has a layout that this build does not know. Nothing changed; open it with the build that wrote it.
    #[error("log segment {segment} has version {version}, this build reads {VERSION}")]
    Version {
        /// The file.
        segment: String,
        /// What its header says.
        version: u32,
    },
    /// The segment is intact, but of another owner. Nothing changed; the wrong directory was given.
    #[error("log segment {segment} belongs to {owner}")]
    Foreign {
        /// The file.
        segment: String,
        /// Whose it is.
        owner: Owner,
    },
}

/// Why a record was not appended. Nothing changed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppendError {
    /// An earlier write or sync failed. A retry is of no use: open the log anew.
    #[error("the log failed earlier")]
    Poisoned,
    /// The payload is larger than [`Options::payload_bytes_max`]. A retry is of no use.
    #[error("a payload of {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Bytes of the payload.
        size: usize,
        /// What is allowed.
        limit: u32,
    },
    /// The kind is larger than [`KIND_MAX`]. A retry is of no use.
    #[error("record kind {0}, the largest is {KIND_MAX}")]
    Kind(u8),
    /// [`Options::pending_bytes_max`] is reached. Retry after a force.
    #[error("too many bytes are waiting for a force")]
    Full,
}

/// Why a force failed.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum ForceError {
    /// An earlier write or sync failed. Nothing changed now. A retry is of no use: open the log anew.
    #[error("the log failed earlier")]
    Poisoned,
    /// A write or sync failed just now. How many of the appended records are stable is unknown until the log is opened
    /// anew; what was forced before still is. This value is poisoned, a retry is of no use.
    #[error("the medium failed while the log was forced")]
    Io(#[from] io::Error),
}

/// Why the front of the log was not cut off.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum TruncateError {
    /// An earlier write or sync failed. Nothing changed now. A retry is of no use: open the log anew.
    #[error("the log failed earlier")]
    Poisoned,
    /// A removal or sync failed just now. Some of the segments may be gone, the log has no gap. This value is poisoned;
    /// open the log anew, then a retry is safe.
    #[error("the medium failed while the log was truncated")]
    Io(#[from] io::Error),
}

/// An append-only log on a [`Medium`], alone in using the file names that begin with `log-`.
///
/// Appending is volatile and cheap; [`Log::force`] makes everything appended so far stable with one write and one sync
/// (two of each, and a directory sync, when a segment is full). Group commit is the caller's: append for many, force
/// once, then answer all (ST-32). Dropping the log forces nothing.
#[derive(Debug)]
pub struct Log {
    medium: Arc<dyn Medium>,
    options: Options,
    /// The first lsn of every segment, ascending; never empty.
    segments: Vec<Lsn>,
    /// The seed of the checksums in the last segment.
    seed: u32,
    /// Bytes of the last segment that are header or records.
    size: u64,
    /// Length of its file: zeros stand behind `size`.
    filled: u64,
    forced: Lsn,
    pending: VecDeque<(u8, Bytes)>,
    pending_bytes: u64,
    poisoned: bool,
}

impl Log {
    /// Opens the log, making it if there is none. On return all recovered records are stable, even those whose force
    /// never returned.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(medium: Arc<dyn Medium>, options: Options) -> Result<(Self, Recovered), OpenError> {
        recover::open(medium, options)
    }

    /// Reads what is stable in a log that another value of this type is writing. Nothing is changed. Segments that are removed from
    /// the front meanwhile are left out; of what is written meanwhile a part may be there. What was forced before the call and is
    /// not removed is.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn peek(medium: &dyn Medium, options: Options) -> Result<Vec<Record>, OpenError> {
        recover::peek(medium, &options)
    }

    /// Appends a record in memory; it is stable once [`Log::force`] has answered its lsn or a higher one.
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn append(&mut self, kind: u8, payload: Bytes) -> Result<Lsn, AppendError> {
        if self.poisoned {
            return Err(AppendError::Poisoned);
        }
        if kind > KIND_MAX {
            return Err(AppendError::Kind(kind));
        }
        let (size, limit) = (payload.len(), self.options.payload_bytes_max);
        if size as u64 > u64::from(limit) {
            return Err(AppendError::TooLarge { size, limit });
        }
        let bytes = (RECORD_HEADER_SIZE + size) as u64;
        if self.pending_bytes + bytes > self.options.pending_bytes_max {
            return Err(AppendError::Full);
        }
        self.pending_bytes += bytes;
        self.pending.push_back((kind, payload));
        Ok(self.last())
    }

    /// Writes and syncs everything appended; answers the last stable lsn.
    ///
    /// # Errors
    /// [`ForceError`]. After the first one every call of this value answers that it is poisoned.
    pub fn force(&mut self) -> Result<Lsn, ForceError> {
        if self.poisoned {
            return Err(ForceError::Poisoned);
        }
        // Poisoned until proven otherwise, so that no way out of here can leave it usable by mistake.
        self.poisoned = true;
        self.write_pending()?;
        self.poisoned = false;
        Ok(self.forced)
    }

    /// Drops whole segments from the front, as long as all of their records lie before `lsn`; answers the first lsn
    /// that is left, or will be the first. What is forced at or after `lsn` stays.
    ///
    /// # Errors
    /// [`TruncateError`].
    pub fn truncate_before(&mut self, lsn: Lsn) -> Result<Lsn, TruncateError> {
        if self.poisoned {
            return Err(TruncateError::Poisoned);
        }
        while self.segments.get(1).is_some_and(|next| *next <= lsn) {
            self.poisoned = true;
            // One at a time and synced each: removals in one go may survive a crash in any order, and leave a gap.
            self.medium.remove(&segment::name(self.segments[0]))?;
            self.medium.sync_dir()?;
            self.segments.remove(0);
            self.poisoned = false;
        }
        Ok(self.first())
    }

    /// The lsn of the first record kept, or of the first to come if there is none.
    #[must_use]
    pub fn first(&self) -> Lsn {
        self.segments[0]
    }

    /// The last stable lsn; the one before [`Log::first`] if there is none.
    #[must_use]
    pub fn forced(&self) -> Lsn {
        self.forced
    }

    /// The last appended lsn, stable or not.
    #[must_use]
    pub fn last(&self) -> Lsn {
        Lsn(self.forced.0 + self.pending.len() as u64)
    }

    /// Whether a write or sync has failed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    fn write_pending(&mut self) -> io::Result<()> {
        let mut batch = Vec::new();
        let mut lsn = self.forced;
        for (kind, payload) in std::mem::take(&mut self.pending) {
            lsn = lsn.next();
            let filled = self.size + batch.len() as u64;
            let size = (RECORD_HEADER_SIZE + payload.len()) as u64;
            if filled > HEADER_SIZE as u64 && filled + size > self.options.segment_bytes {
                self.write_batch(&mut batch, lsn.before())?;
                self.begin_segment(lsn)?;
            }
            let first = batch.is_empty();
            segment::encode(&mut batch, self.seed, first, kind, lsn, &payload);
        }
        self.pending_bytes = 0;
        self.write_batch(&mut batch, lsn)
    }

    fn write_batch(&mut self, batch: &mut Vec<u8>, last: Lsn) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let name = segment::name(self.segments[self.segments.len() - 1]);
        let size = self.size + batch.len() as u64;
        if size > self.filled {
            self.filled = self.fill_to(size, batch.len() as u64);
            batch.resize((self.filled - self.size) as usize, 0);
        }
        self.medium.write_at(&name, self.size, batch)?;
        self.medium.sync_data(&name)?;
        self.size = size;
        self.forced = last;
        batch.clear();
        Ok(())
    }

    /// How long the file becomes that a batch of so many bytes makes at least `size` long. A large batch gains nothing
    /// from zeros behind it.
    fn fill_to(&self, size: u64, batch: u64) -> u64 {
        let fill = self.options.fill_bytes;
        if fill == 0 || batch > fill / LARGE_PART {
            return size;
        }
        size.next_multiple_of(fill).min(self.options.segment_bytes).max(size)
    }

    fn begin_segment(&mut self, first: Lsn) -> io::Result<()> {
        assert_eq!(self.forced, first.before(), "a segment begins when all before it is stable");
        let header = segment::header(self.options.owner, first);
        let name = segment::name(first);
        self.medium.create(&name)?;
        finish_segment(&*self.medium, &name, &header)?;
        self.segments.push(first);
        self.seed = header.seed();
        self.size = HEADER_SIZE as u64;
        self.filled = self.size;
        Ok(())
    }
}

/// Writes the header of a segment whose file exists, and makes both stable.
fn finish_segment(medium: &dyn Medium, name: &str, header: &Header) -> io::Result<()> {
    medium.write_at(name, 0, &header.encode())?;
    medium.sync_data(name)?;
    medium.sync_dir()
}

#[cfg(test)]
mod tests;
