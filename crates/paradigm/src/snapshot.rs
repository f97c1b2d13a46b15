//! The stream of a snapshot: header, records, the user's chunks, end.
//!
//! Each chunk starts with a byte that says its kind. 0, the header: MessagePack of version, position, settings, members
//! and counts. 1, records: a string of `length u32` little-endian and MessagePack, cut anywhere: the positions passed over,
//! then each session followed by its answers. 2: a chunk of the user's. 3, the end: MessagePack of the state's hash.
//! Equal states give equal bytes, so a transfer may go on from another sponsor (MB-80).

use bytes::Bytes;
use mainstay_base::{Position, codec};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::Config;
use crate::envelope::VIEW_MEMBERS_MAX;
use crate::replica::State;
use crate::sessions::{Answer, Frozen, Head, Sessions, size};
use crate::user::{Snapshot, StateMachine};
use crate::views::Members;

/// Largest chunk of a snapshot stream, in bytes (64 KiB): one is made or taken in within a turn, and of small entries it has
/// thousands.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;

const VERSION: u8 = 3;
const HEADER: u8 = 0;
const RECORDS: u8 = 1;
const USER: u8 = 2;
const END: u8 = 3;
/// Room in a record beside the answer in it.
const RECORD_OVERHEAD: usize = 128;

/// Why a stream cannot go on. The stream is of no use; the replica is untouched.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NextChunkError {
    /// The user's [`Snapshot`] broke its contract.
    #[error("the state machine gave a chunk of {size} bytes, at most {max} fit")]
    TooLarge {
        /// What it gave.
        size: usize,
        /// What it was allowed.
        max: usize,
    },
}

/// Why a state was not restored. The replica has no state now: begin anew, with a snapshot from elsewhere.
#[derive(Error, Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreError {
    /// The user's machine does not know the chunk.
    #[error("the state machine refuses a chunk: {0}")]
    Chunk(&'static str),
    /// No restore has begun, or it has failed.
    #[error("no restore is under way")]
    NotRestoring,
    /// The stream is one that this build does not know.
    #[error("the snapshot has version {0}, this build reads {VERSION}")]
    Version(u8),
    /// The sender's settings are others.
    #[error("the snapshot was made under other settings")]
    Config,
    /// Not a stream of this protocol, or chunks lost, doubled or out of order.
    #[error("not a snapshot: {0}")]
    Malformed(&'static str),
    /// The stream is of another position than the one asked for.
    #[error("the snapshot is of position {0:?}")]
    Position(Position),
    /// All chunks are there and the state is not the sender's.
    #[error("the restored state has another hash than the sender's")]
    Hash,
}

#[derive(Clone, Serialize, Deserialize)]
struct Header {
    version: u8,
    position: Position,
    config: Config,
    members: Members,
    bytes_since: u64,
    skips: u64,
    sessions: u64,
}

#[derive(Serialize, Deserialize)]
enum Record {
    Skip(Position),
    Session { head: Head, answers: u64 },
    Answer { number: u64, reply: Answer },
}

/// A state on its way out, chunk by chunk. Independent of its replica from the start; made in O(1), but for the
/// positions passed over.
pub struct SnapshotStream<U> {
    header: Header,
    next: u8,
    skips: std::vec::IntoIter<Position>,
    sessions: Frozen,
    /// Those of the last session that are not encoded yet.
    answers: std::vec::IntoIter<(u64, Answer)>,
    /// Records encoded and not yet in a chunk.
    records: Vec<u8>,
    user: U,
    hash: u128,
}

impl<U: Snapshot> SnapshotStream<U> {
    pub(crate) fn new(config: &Config, state: &State, user: U, hash: u128) -> Self {
        let header = Header {
            version: VERSION,
            position: state.position,
            config: config.clone(),
            members: state.members.clone(),
            bytes_since: state.bytes_since,
            skips: state.skipped.len() as u64,
            sessions: state.sessions.len() as u64,
        };
        let skips = state.skipped.iter().copied().collect::<Vec<_>>().into_iter();
        let sessions = state.sessions.frozen();
        let answers = Vec::new().into_iter();
        Self { header, next: HEADER, skips, sessions, answers, records: Vec::new(), user, hash }
    }

    /// The state is as of here.
    #[must_use]
    pub fn position(&self) -> Position {
        self.header.position
    }

    /// The next chunk, of at most [`CHUNK_BYTES_MAX`]; `None` after the last one.
    ///
    /// # Errors
    /// [`NextChunkError`]: the user's snapshot broke its contract. Not safe to retry.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, NextChunkError> {
        if self.next == HEADER {
            self.next = RECORDS;
            return Ok(Some(chunk(HEADER, &codec::encode(&self.header))));
        }
        if self.next == RECORDS {
            self.fill();
            if !self.records.is_empty() {
                let rest = self.records.split_off(self.records.len().min(CHUNK_BYTES_MAX - 1));
                let full = std::mem::replace(&mut self.records, rest);
                return Ok(Some(chunk(RECORDS, &full)));
            }
            self.next = USER;
        }
        if self.next == USER {
            let max = CHUNK_BYTES_MAX - 1;
            match self.user.next_chunk(max) {
                Some(user) if user.len() > max => {
                    return Err(NextChunkError::TooLarge { size: user.len(), max });
                }
                Some(user) => return Ok(Some(chunk(USER, &user))),
                None => self.next = END,
            }
        }
        if self.next == END {
            self.next = END + 1;
            return Ok(Some(chunk(END, &codec::encode(&self.hash))));
        }
        Ok(None)
    }

    /// Encodes records until a chunk is full or there are no more.
    fn fill(&mut self) {
        while self.records.len() < CHUNK_BYTES_MAX {
            if let Some(position) = self.skips.next() {
                push(&mut self.records, &Record::Skip(position));
            } else if let Some((number, reply)) = self.answers.next() {
                push(&mut self.records, &Record::Answer { number, reply });
            } else if let Some((head, answers)) = self.sessions.next() {
                let count = answers.len() as u64;
                push(&mut self.records, &Record::Session { head, answers: count });
                self.answers = answers.into_iter();
            } else {
                return;
            }
        }
    }
}

fn chunk(kind: u8, body: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(1 + body.len());
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes.into()
}

fn push(into: &mut Vec<u8>, record: &Record) {
    let bytes = codec::encode(record);
    let length = u32::try_from(bytes.len()).expect("an answer is checked to fit when it is saved");
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(&bytes);
}

/// A state on its way in.
pub(crate) struct Restore {
    header: Option<Header>,
    kind: u8,
    state: State,
    records: Vec<u8>,
    /// The session whose answers are coming, and how many are.
    answers: Option<(Head, u64)>,
    hash: Option<u128>,
}

impl Restore {
    pub(crate) fn new() -> Self {
        let state = State::new();
        Self { header: None, kind: HEADER, state, records: Vec::new(), answers: None, hash: None }
    }

    /// Takes the next chunk in.
    pub(crate) fn chunk<S: StateMachine>(
        &mut self,
        config: &Config,
        machine: &mut S,
        chunk: &[u8],
    ) -> Result<(), RestoreError> {
        let (kind, body) = chunk.split_first().ok_or(RestoreError::Malformed("empty chunk"))?;
        if self.header.is_none() != (*kind == HEADER) || *kind < self.kind || self.hash.is_some() {
            return Err(RestoreError::Malformed("chunk out of order"));
        }
        if self.kind < USER && *kind >= USER {
            self.check_records()?;
        }
        self.kind = *kind;
        match *kind {
            HEADER => self.on_header(config, body),
            RECORDS => self.on_records(config, body),
            USER => machine.restore_chunk(body),
            END => {
                let hash = codec::decode(body).map_err(|_| RestoreError::Malformed("end"))?;
                self.hash = Some(hash);
                Ok(())
            }
            _ => Err(RestoreError::Malformed("unknown kind of chunk")),
        }
    }

    /// The state, if it is whole and as of `position`; with the sender's hash, unless it is the empty one.
    pub(crate) fn finish(self, position: Position) -> Result<(State, Option<u128>), RestoreError> {
        if self.header.is_none() && position == Position::ZERO {
            return Ok((self.state, None));
        }
        let hash = self.hash.ok_or(RestoreError::Malformed("the end is missing"))?;
        if self.state.position == position {
            Ok((self.state, Some(hash)))
        } else {
            Err(RestoreError::Position(self.state.position))
        }
    }

    fn on_header(&mut self, config: &Config, body: &[u8]) -> Result<(), RestoreError> {
        // An array whose first element is the version, in this and any later layout.
        match body {
            [0x90..=0x9f, VERSION, ..] => {}
            [0x90..=0x9f, version @ 0..=0x7f, ..] => return Err(RestoreError::Version(*version)),
            _ => return Err(RestoreError::Malformed("header")),
        }
        let header: Header = codec::decode(body).map_err(|_| RestoreError::Malformed("header"))?;
        if header.config != *config {
            return Err(RestoreError::Config);
        }
        if header.sessions > config.sessions_max as u64 || header.skips > config.skips_max as u64 {
            return Err(RestoreError::Malformed("more sessions or skips than settings allow"));
        }
        if header.members.sites.len() > VIEW_MEMBERS_MAX {
            return Err(RestoreError::Malformed("more members than a view may have"));
        }
        self.state.position = header.position;
        self.state.members = header.members.clone();
        self.state.bytes_since = header.bytes_since;
        self.header = Some(header);
        Ok(())
    }

    fn on_records(&mut self, config: &Config, body: &[u8]) -> Result<(), RestoreError> {
        let mut records = std::mem::take(&mut self.records);
        records.extend_from_slice(body);
        let mut rest = &records[..];
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            if length > config.answer_bytes_max.saturating_add(RECORD_OVERHEAD) {
                return Err(RestoreError::Malformed("record too large"));
            }
            let Some((record, behind)) = behind.split_at_checked(length) else { break };
            let record = codec::decode(record).map_err(|_| RestoreError::Malformed("record"))?;
            self.on_record(config, record)?;
            rest = behind;
        }
        self.records = rest.to_vec();
        Ok(())
    }

    fn on_record(&mut self, config: &Config, record: Record) -> Result<(), RestoreError> {
        let State { position, sessions, skipped, .. } = &mut self.state;
        let fits = match record {
            Record::Skip(skip) => {
                skip <= *position && skipped.len() < config.skips_max && skipped.insert(skip)
            }
            Record::Session { head, answers } => {
                let fits = self.answers.is_none()
                    && head.session.opened <= head.last_use
                    && head.last_use <= *position
                    && sessions.len() < config.sessions_max
                    && !sessions.is_taken(head.last_use, head.session.id);
                if fits {
                    sessions.insert(head);
                    self.answers = (answers > 0).then_some((head, answers));
                }
                fits
            }
            Record::Answer { number, reply } => self.answers.take().is_some_and(|(head, left)| {
                self.answers = (left > 1).then(|| (head, left - 1));
                answer_fits(config, sessions, &head, number, &reply)
                    && sessions.put(head.session.id, number, reply)
            }),
        };
        if fits { Ok(()) } else { Err(RestoreError::Malformed("a record contradicts the others")) }
    }

    /// All that the header promised is there.
    fn check_records(&self) -> Result<(), RestoreError> {
        let promised = self.header.as_ref().map(|header| (header.sessions, header.skips));
        let found = (self.state.sessions.len() as u64, self.state.skipped.len() as u64);
        if self.records.is_empty() && self.answers.is_none() && promised == Some(found) {
            Ok(())
        } else {
            Err(RestoreError::Malformed("records are missing"))
        }
    }
}

fn answer_fits(
    config: &Config,
    sessions: &Sessions,
    head: &Head,
    number: u64,
    reply: &Answer,
) -> bool {
    let size = size(reply);
    let within =
        number.checked_sub(head.acked).is_some_and(|n| (1..=config.answers_max).contains(&n));
    within
        && size <= config.answer_bytes_max
        && size <= config.saved_bytes_max.saturating_sub(sessions.saved_bytes())
}
