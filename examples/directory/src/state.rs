//! The directory: a map of keys to values, as a replicated state machine.

use std::cell::Cell;
use std::hash::Hasher as _;

use bytes::Bytes;
use mainstay_base::{Fingerprinter, Position};
use mainstay_paradigm::trie::{Item as _, hash_of};
use mainstay_paradigm::{RestoreError, Snapshot, StateMachine};
use thiserror::Error;

use crate::answer::{Answer, SHARED_BYTES_MIN};
use crate::command::Read;
use crate::item::{Item, Items, Map};
use crate::operation::{Kind, Operation};
use crate::resp::{BULK_BYTES_MAX, write};

/// Longest answer to a read, in bytes of values (64 MiB); a longer MGET is refused.
pub const REPLY_BYTES_MAX: usize = 64 << 20;
/// Longest answer to an MGET in the total order, in bytes of values (1 MiB): all replicas copy it.
pub const ORDERED_REPLY_BYTES_MAX: usize = 1 << 20;
const TOO_LARGE: &str = "ERR the values asked for are too large for one reply";
/// What an entry counts beside its key and value, in bytes.
const ENTRY_OVERHEAD: u64 = 128;
/// What it takes to find a key, in nominal nanoseconds: it is seldom in the processor's cache.
const LOOKUP: u64 = 1_500;
/// What it takes to remove an entry, and to give its memory back.
const REMOVAL: u64 = 2_000;
/// In front of an entry in a snapshot: length of the key, length of the value, `u32` little-endian.
const ENTRY_HEADER_SIZE: usize = 8;
/// Most room that is made for a chunk of a snapshot before it has anything (256 KiB).
const CHUNK_ROOM: usize = 256 << 10;

/// An answer is longer than there is room for. The state is as it was; read again with more room.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[error("the answer is {size} bytes long")]
pub struct NoRoom {
    /// Its bytes.
    pub size: usize,
}

/// Keys and values, bounded in bytes.
///
/// A snapshot is one pointer. A write behind it copies a bounded number of entries and pointers first, however large the
/// directory is. The hash is a wrapping sum over the entries, so it does not depend on how the state came about and
/// costs O(1) to read.
pub struct Directory {
    map: Map,
    /// What was done, in nominal nanoseconds; reads count too.
    work: Cell<u64>,
    sum: u128,
    bytes: u64,
    bytes_max: u64,
    /// The start of an entry whose rest is in a later chunk of a snapshot.
    partial: Vec<u8>,
}

impl Default for Directory {
    /// Empty, bounded at 1 GiB.
    fn default() -> Self {
        Self::new(1 << 30)
    }
}

impl Directory {
    /// An empty directory; keys and values, with 128 bytes for each entry, take up to `bytes_max`.
    ///
    /// The bound decides outcomes: all replicas have the same.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self {
            map: Map::new(),
            work: Cell::new(0),
            sum: 0,
            bytes: 0,
            bytes_max,
            partial: Vec::new(),
        }
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.entry(key).map(Item::value)
    }

    fn entry(&self, key: &[u8]) -> Option<&Item> {
        self.map.get(hash_of(key), key)
    }

    /// The answer to a read, as RESP, if it is at most `room` bytes. Large values are shared, not copied: what this costs
    /// depends on the keys and on the small values, a few MiB in all.
    ///
    /// # Errors
    /// [`NoRoom`]: the answer would be longer. To read again with more room is safe.
    pub fn read(&self, read: &Read, room: usize) -> Result<Answer, NoRoom> {
        let operation = read.operation();
        if !matches!(operation.kind(), Kind::Get | Kind::MGet) {
            let mut reply = Vec::new();
            self.query(&operation, &mut reply);
            return Ok(Bytes::from(reply).into());
        }
        let items: Vec<_> = operation.arguments().iter().map(|key| self.entry(key)).collect();
        self.count(LOOKUP * items.len() as u64);
        let mut small = Vec::new();
        if operation.kind() == Kind::MGet {
            let values = items.iter().flatten().map(|item| item.value().len()).sum::<usize>();
            if values > REPLY_BYTES_MAX {
                write::error(&mut small, TOO_LARGE);
                return Ok(Bytes::from(small).into());
            }
            write::array(&mut small, items.len());
        }
        let sizes = items.iter().map(|item| write::bulk_size(item.map(Item::value)));
        let size = small.len() + sizes.sum::<usize>();
        // What is larger is shared.
        self.count(size.min(items.len() * SHARED_BYTES_MIN) as u64);
        if size > room { Err(NoRoom { size }) } else { Ok(gather(small, &items)) }
    }

    fn count(&self, nanos: u64) {
        self.work.set(self.work.get() + nanos);
    }

    /// Answers an operation that changes nothing.
    fn query(&self, operation: &Operation<'_>, reply: &mut Vec<u8>) {
        self.count(LOOKUP * operation.arguments().len() as u64);
        match (operation.kind(), operation.arguments()) {
            (Kind::Get, [key, ..]) => value_or_null(reply, self.get(key)),
            (Kind::Exists, keys) => {
                let count = keys.iter().filter(|key| self.get(key).is_some()).count();
                write::integer(reply, count as i64);
            }
            (Kind::MGet, keys) => self.get_many(keys, reply),
            (Kind::DbSize, _) => write::integer(reply, self.len() as i64),
            _ => write::error(reply, "ERR not a read"),
        }
    }

    fn get_many(&self, keys: &[&[u8]], reply: &mut Vec<u8>) {
        let size = keys.iter().filter_map(|key| self.get(key)).map(<[u8]>::len).sum::<usize>();
        if size > ORDERED_REPLY_BYTES_MAX {
            write::error(reply, TOO_LARGE);
            return;
        }
        write::array(reply, keys.len());
        for key in keys {
            value_or_null(reply, self.get(key));
        }
    }

    fn execute(&mut self, operation: &Operation<'_>, reply: &mut Vec<u8>) {
        match (operation.kind(), operation.arguments()) {
            (Kind::Set, [key, value]) => match self.put(key, value) {
                Ok(()) => write::simple(reply, "OK"),
                Err(text) => write::error(reply, text),
            },
            (Kind::Incr, [key]) => match self.increment(key) {
                Ok(number) => write::integer(reply, number),
                Err(text) => write::error(reply, text),
            },
            (Kind::Del, keys) => {
                let count = keys.iter().filter(|key| self.delete(key)).count();
                write::integer(reply, count as i64);
            }
            _ => {
                self.query(operation, reply);
                self.count(reply.len() as u64);
            }
        }
    }

    fn increment(&mut self, key: &[u8]) -> Result<i64, &'static str> {
        let old = match self.get(key) {
            None => 0,
            Some(value) => number(value).ok_or("ERR value is not an integer or out of range")?,
        };
        let new = old.checked_add(1).ok_or("ERR increment or decrement would overflow")?;
        self.put(key, new.to_string().as_bytes())?;
        Ok(new)
    }

    /// Puts a value; an error if the directory would outgrow its bound.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if key.len() > BULK_BYTES_MAX || value.len() > BULK_BYTES_MAX {
            return Err("ERR key or value is too long");
        }
        let more = cost(key, value);
        if self.bytes + more > self.bytes_max {
            // It may not fit; what it replaces makes room.
            let freed = self.entry(key).map_or(0, |old| cost(key, old.value()));
            let bytes = self.bytes - freed + more;
            if bytes > self.bytes_max && bytes > self.bytes {
                return Err("OOM command not allowed when used memory > 'maxmemory'.");
            }
        }
        let hash = entry_hash(key, value);
        let old = self.map.insert(Item::new(key, value, hash));
        // Found, copied and hashed.
        self.count(LOOKUP + 2 * (key.len() + value.len()) as u64);
        let (freed, freed_hash) = old.map_or((0, 0), |old| (cost(key, old.value()), old.share()));
        self.bytes = self.bytes - freed + more;
        self.sum = self.sum.wrapping_sub(freed_hash).wrapping_add(hash);
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> bool {
        self.count(LOOKUP);
        let Some(old) = self.map.remove(hash_of(key), key) else { return false };
        self.count(REMOVAL + old.value().len() as u64 / 16);
        self.bytes -= cost(key, old.value());
        self.sum = self.sum.wrapping_sub(old.share());
        true
    }
}

impl StateMachine for Directory {
    type Snapshot = DirectorySnapshot;

    fn apply(&mut self, _at: Position, command: &[u8], reply: &mut Vec<u8>) {
        match Operation::decode(command) {
            Ok(operation) => self.execute(&operation, reply),
            Err(_) => write::error(reply, "ERR not an operation of the directory"),
        }
    }

    fn begin_snapshot(&mut self) -> DirectorySnapshot {
        DirectorySnapshot { items: self.map.clone().into_items(), next: None }
    }

    fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        let mut bytes = std::mem::take(&mut self.partial);
        bytes.extend_from_slice(chunk);
        let mut rest = &bytes[..];
        while let Some((header, behind)) = rest.split_first_chunk::<ENTRY_HEADER_SIZE>() {
            let lengths = u64::from_le_bytes(*header);
            let (key, value) = (lengths as u32 as usize, (lengths >> 32) as usize);
            if key > BULK_BYTES_MAX || value > BULK_BYTES_MAX {
                return Err(RestoreError::Chunk("an entry is too large"));
            }
            let Some((entry, behind)) = behind.split_at_checked(key + value) else { break };
            let (key, value) = entry.split_at(key);
            self.put(key, value).map_err(|_| RestoreError::Chunk("more than settings allow"))?;
            rest = behind;
        }
        self.partial = rest.to_vec();
        Ok(())
    }

    fn state_hash(&self) -> u128 {
        let mut hasher = Fingerprinter::new();
        hasher.write_u64(self.bytes_max);
        hasher.write_u64(self.bytes);
        hasher.write_u64(self.map.len() as u64);
        hasher.write_u64(self.partial.len() as u64);
        hasher.write_u128(self.sum);
        hasher.finish128()
    }

    /// Keys looked up (500 each, also those that are not there), entries removed (1,000 each), bytes copied and hashed (1 each), entries and pointers copied behind a snapshot (15 each), allocations of nodes (50
    /// each). It counts and measures nothing: it is the same in every run.
    fn work(&self) -> u64 {
        self.work.get() + self.map.work()
    }
}

/// The directory at one position, on its way out: a string of entries by ascending hash of the key, then key, cut
/// anywhere. An entry is the lengths of key and value, and the bytes of both.
pub struct DirectorySnapshot {
    items: Items,
    /// An entry that is not out wholly, and how much of it is.
    next: Option<(Item, usize)>,
}

impl Snapshot for DirectorySnapshot {
    fn next_chunk(&mut self, max: usize) -> Option<Bytes> {
        let mut chunk = Vec::with_capacity(max.min(CHUNK_ROOM));
        while chunk.len() < max {
            let next = self.next.take().or_else(|| self.items.next().map(|item| (item, 0)));
            let Some((item, given)) = next else { break };
            let lengths = item.key().len() as u64 | (item.value().len() as u64) << 32;
            let header = lengths.to_le_bytes();
            let (header, pair) = match given.checked_sub(header.len()) {
                None => (&header[given..], item.pair()),
                Some(given) => (&[][..], &item.pair()[given..]),
            };
            let room = max - chunk.len();
            let of_header = header.len().min(room);
            let of_pair = pair.len().min(room - of_header);
            chunk.extend_from_slice(&header[..of_header]);
            chunk.extend_from_slice(&pair[..of_pair]);
            if of_header + of_pair < header.len() + pair.len() {
                self.next = Some((item, given + of_header + of_pair));
            }
        }
        (!chunk.is_empty()).then(|| chunk.into())
    }
}

/// The answer that begins with `small`: large values in place, small ones copied together.
fn gather(mut small: Vec<u8>, items: &[Option<&Item>]) -> Answer {
    let mut pieces = Vec::new();
    for item in items {
        let shared = item
            .filter(|item| item.value().len() >= SHARED_BYTES_MIN)
            .and_then(|item| item.shared_value());
        let Some(value) = shared else {
            value_or_null(&mut small, item.map(Item::value));
            continue;
        };
        write::bulk_head(&mut small, value.len());
        pieces.extend([std::mem::take(&mut small).into(), value]);
        write::bulk_end(&mut small);
    }
    pieces.push(small.into());
    pieces.into_iter().collect()
}

fn value_or_null(reply: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => write::bulk(reply, value),
        None => write::null(reply),
    }
}

fn cost(key: &[u8], value: &[u8]) -> u64 {
    key.len() as u64 + value.len() as u64 + ENTRY_OVERHEAD
}

fn entry_hash(key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = Fingerprinter::new();
    hasher.write_u64(key.len() as u64);
    hasher.write(key);
    hasher.write(value);
    hasher.finish128()
}

/// A number as INCR writes it: no sign but a minus, no zero in front, no blank.
fn number(value: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == value).then_some(number)
}
