//! Opening a log: what is read, what is cut, what is refused.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::{Log, Lsn, OpenError, Options, Record, Recovered, finish_segment, segment};
use crate::format::{HEADER_SIZE, Header, HeaderError};
use crate::medium::{Medium, read_all};

/// Opens the log. Each step is idempotent, so a crash at any call of the medium is mended by opening again (ST-5).
pub(super) fn open(
    medium: Arc<dyn Medium>,
    options: Options,
) -> Result<(Log, Recovered), OpenError> {
    let segments = segments(&*medium)?;
    let mut found = Found { records: Vec::new(), next: segments[0], discarded_bytes: 0 };
    let (last, whole) =
        segments.split_last().expect("there is a segment, made just now if need be");
    for first in whole {
        found.read_whole(&*medium, &options, *first)?;
    }
    let (seed, size) = found.read_last(&*medium, &options, *last)?;
    // Names that a killed process left un-synced are shown, but not yet stable.
    medium.sync_dir()?;
    let log = Log {
        medium,
        options,
        segments,
        seed,
        size,
        filled: size,
        forced: found.next.before(),
        pending: VecDeque::new(),
        pending_bytes: 0,
        poisoned: false,
    };
    Ok((log, Recovered { records: found.records, discarded_bytes: found.discarded_bytes }))
}

/// Reads a log that is being written: its end is where the checksums end.
pub(super) fn peek(medium: &dyn Medium, options: &Options) -> Result<Vec<Record>, OpenError> {
    let names = medium.list()?;
    let mut segments: Vec<Lsn> =
        names.iter().filter_map(|name| segment::parse_name(name)).collect();
    segments.sort_unstable();
    let last = segments.last().copied();
    let mut found = Found { records: Vec::new(), next: Lsn::ZERO, discarded_bytes: 0 };
    for first in segments {
        let name = segment::name(first);
        let bytes = match read_all(medium, &name) {
            Ok(bytes) => Bytes::from(bytes),
            // They are removed from the front: what was read is not needed either.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                found.records.clear();
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if !found.records.is_empty() {
            found.check_order(first)?;
        }
        match read_header(&bytes, options, first, &name) {
            Ok(header) => {
                (_, found.next) = segment::scan(&bytes, header.seed(), first, &mut found.records);
            }
            // It is being made.
            Err(OpenError::Damaged { .. }) if Some(first) == last => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found.records)
}

/// The segments, ascending; the file of the first one is made if there is none.
fn segments(medium: &dyn Medium) -> Result<Vec<Lsn>, OpenError> {
    let names = medium.list()?;
    let mut segments: Vec<Lsn> =
        names.iter().filter_map(|name| segment::parse_name(name)).collect();
    segments.sort_unstable();
    if segments.is_empty() {
        let first = Lsn::ZERO.next();
        medium.create(&segment::name(first))?;
        segments.push(first);
    }
    Ok(segments)
}

/// What has been read so far.
struct Found {
    records: Vec<Record>,
    next: Lsn,
    discarded_bytes: u64,
}

impl Found {
    /// Reads a segment with one behind it: all of it was stable before that one was made.
    fn read_whole(
        &mut self,
        medium: &dyn Medium,
        options: &Options,
        first: Lsn,
    ) -> Result<(), OpenError> {
        let name = segment::name(first);
        self.check_order(first)?;
        let bytes = Bytes::from(read_all(medium, &name)?);
        let header = read_header(&bytes, options, first, &name)?;
        let (end, next) = segment::scan(&bytes, header.seed(), first, &mut self.records);
        self.next = next;
        // What should stand where there are only zeros is missed by the segment behind this one.
        if segment::is_blank(&bytes[end..]) { Ok(()) } else { Err(damaged(name, end)) }
    }

    /// Reads the last segment, cuts its torn tail, finishes its making; answers seed and size.
    fn read_last(
        &mut self,
        medium: &dyn Medium,
        options: &Options,
        first: Lsn,
    ) -> Result<(u32, u64), OpenError> {
        let name = segment::name(first);
        self.check_order(first)?;
        let bytes = Bytes::from(read_all(medium, &name)?);
        let header = match read_header(&bytes, options, first, &name) {
            Ok(header) => header,
            // Records are written only behind a stable header: this is a segment whose making was interrupted.
            Err(OpenError::Damaged { .. }) if bytes.len() <= HEADER_SIZE => {
                let header = segment::header(options.owner, first);
                finish_segment(medium, &name, &header)?;
                return Ok((header.seed(), HEADER_SIZE as u64));
            }
            Err(error) => return Err(error),
        };
        let seed = header.seed();
        let (end, next) = segment::scan(&bytes, seed, first, &mut self.records);
        self.next = next;
        if end < bytes.len() {
            if segment::is_stable_before(&bytes, seed, end, next) {
                return Err(damaged(name, end));
            }
            if !segment::is_blank(&bytes[end..]) {
                self.discarded_bytes = (bytes.len() - end) as u64;
            }
            medium.truncate(&name, end as u64)?;
        }
        // A process before us may have failed to sync what reads show: pages called clean are not written by a sync,
        // so make them dirty first. The bytes are the same, a crash in between tears nothing.
        medium.write_at(&name, 0, &bytes[..end])?;
        medium.sync_data(&name)?;
        Ok((seed, end as u64))
    }

    /// Demands that the segment begins where the one before it ended.
    fn check_order(&self, first: Lsn) -> Result<(), OpenError> {
        if first == self.next { Ok(()) } else { Err(damaged(segment::name(first), 0)) }
    }
}

fn read_header(
    bytes: &[u8],
    options: &Options,
    first: Lsn,
    name: &str,
) -> Result<Header, OpenError> {
    let segment = || name.to_owned();
    match Header::decode(bytes, segment::MAGIC, options.owner) {
        Ok(header) if header.number == first.0 => Ok(header),
        Ok(_) | Err(HeaderError::Damaged) => Err(damaged(segment(), 0)),
        Err(HeaderError::Version(version)) => {
            Err(OpenError::Version { segment: segment(), version })
        }
        Err(HeaderError::Foreign(owner)) => Err(OpenError::Foreign { segment: segment(), owner }),
    }
}

fn damaged(segment: String, offset: usize) -> OpenError {
    OpenError::Damaged { segment, offset: offset as u64 }
}
