//! The bytes of a segment.

use bytes::Bytes;

use super::{KIND_MAX, Lsn, Record};
use crate::Owner;
use crate::format::{HEADER_SIZE, Header, u32_at, u64_at};

pub(super) const MAGIC: [u8; 8] = *b"MSTSLOG\n";
/// Bytes in front of a payload: len u32, kind u8, lsn u64, crc32c u32.
pub(super) const RECORD_HEADER_SIZE: usize = 17;
/// Bit of the kind: the first record of a force, written when everything before it was stable.
const FIRST: u8 = 0x80;
const PREFIX: &str = "log-";

pub(super) fn header(owner: Owner, first: Lsn) -> Header {
    Header { magic: MAGIC, owner, number: first.0 }
}

pub(super) fn name(first: Lsn) -> String {
    format!("{PREFIX}{:016x}", first.0)
}

/// The first lsn of the segment of that name; `None` if it is not the name of a segment.
pub(super) fn parse_name(text: &str) -> Option<Lsn> {
    let lsn = Lsn(u64::from_str_radix(text.strip_prefix(PREFIX)?, 16).ok()?);
    (lsn > Lsn::ZERO && name(lsn) == text).then_some(lsn)
}

pub(super) fn encode(
    into: &mut Vec<u8>,
    seed: u32,
    first: bool,
    kind: u8,
    lsn: Lsn,
    payload: &[u8],
) {
    let start = into.len();
    let size = u32::try_from(payload.len()).expect("append has checked the size");
    into.extend_from_slice(&size.to_le_bytes());
    into.push(if first { kind | FIRST } else { kind });
    into.extend_from_slice(&lsn.0.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(seed, &into[start..]), payload);
    into.extend_from_slice(&crc.to_le_bytes());
    into.extend_from_slice(payload);
}

/// What stands at one offset of a segment.
struct Raw {
    kind: u8,
    /// Where the record ends.
    end: usize,
}

/// The intact record at `at`; `accept` is asked before the checksum is computed.
fn decode(bytes: &[u8], seed: u32, at: usize, accept: impl Fn(u8, Lsn) -> bool) -> Option<Raw> {
    let rest = bytes.get(at..)?;
    let (head, rest) = rest.split_at_checked(RECORD_HEADER_SIZE)?;
    let (kind, lsn) = (head[4], Lsn(u64_at(head, 5)));
    let size = usize::try_from(u32_at(head, 0)).ok()?;
    let payload = rest.get(..size)?;
    if !accept(kind, lsn) {
        return None;
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(seed, &head[..13]), payload);
    (crc == u32_at(head, 13)).then_some(Raw { kind, end: at + RECORD_HEADER_SIZE + size })
}

/// Reads records from behind the header on, the first being `lsn`, up to the first one that is not intact and in its
/// place; appends them to `records`. Answers where they end and which lsn would be next.
pub(super) fn scan(
    bytes: &Bytes,
    seed: u32,
    mut lsn: Lsn,
    records: &mut Vec<Record>,
) -> (usize, Lsn) {
    let mut at = HEADER_SIZE;
    while let Some(raw) = decode(bytes, seed, at, |_, found| found == lsn) {
        let payload = bytes.slice(at + RECORD_HEADER_SIZE..raw.end);
        records.push(Record { lsn, kind: raw.kind & KIND_MAX, payload });
        at = raw.end;
        lsn = lsn.next();
    }
    (at, lsn)
}

/// Whether nothing but the zeros that fill a segment stands there.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Whether a record that begins a force stands somewhere behind `from`, where the record `lsn` does not read back: then
/// that one was stable once.
pub(super) fn is_stable_before(bytes: &[u8], seed: u32, from: usize, lsn: Lsn) -> bool {
    (from + 1..bytes.len()).any(|at| {
        // As many records as the numbers say must fit in between. This also keeps the search linear: hardly any bytes
        // that are no record get as far as the checksum.
        let between = ((at - from) / RECORD_HEADER_SIZE) as u64;
        let accept =
            |kind, found: Lsn| kind & FIRST != 0 && found > lsn && found.0 - lsn.0 <= between;
        decode(bytes, seed, at, accept).is_some()
    })
}
