//! A machine to replicate, and short words for driving replicas.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

pub(crate) mod clients;

use std::collections::VecDeque;
use std::hash::Hasher as _;

use bytes::Bytes;
use mainstay_base::{ClusterId, Fingerprinter, Incarnation, MessageId, NodeId, Position, SiteId};
use mainstay_paradigm::{
    Builder, Config, Envelope, Outcome, Output, Replica, RestoreError, Session, Snapshot,
    StateMachine,
};

/// Keeps every command; the answer is how many there are, and the command.
///
/// `boom` leaves half of its work behind and panics; `dice` executes otherwise at machines of other salt, until a reset
/// mends them; `big N` is answered with so many bytes.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) lines: Vec<Vec<u8>>,
    hash: u128,
    salt: u8,
}

impl Ledger {
    fn add(&mut self, line: &[u8]) {
        let mut hasher = Fingerprinter::new();
        hasher.write_usize(self.lines.len());
        hasher.write(line);
        self.hash = self.hash.wrapping_add(hasher.finish128());
        self.lines.push(line.to_vec());
    }
}

/// One line a chunk, so that a transfer has many.
pub(crate) struct Lines(VecDeque<Vec<u8>>);

impl Snapshot for Lines {
    fn next_chunk(&mut self, max: usize) -> Option<Bytes> {
        let line = self.0.pop_front()?;
        assert!(line == b"oversize" || line.len() <= max);
        if line == b"oversize" { Some(vec![0; max + 1].into()) } else { Some(line.into()) }
    }
}

impl StateMachine for Ledger {
    type Snapshot = Lines;

    fn apply(&mut self, _at: Position, command: &[u8], reply: &mut Vec<u8>) {
        match command {
            b"boom" => {
                self.add(b"half");
                panic!("as told");
            }
            b"dice" => self.add(&[self.salt]),
            _ => self.add(command),
        }
        if let Some(size) = command.strip_prefix(b"big ") {
            reply.resize(std::str::from_utf8(size).unwrap().parse().unwrap(), b'x');
            return;
        }
        reply.extend_from_slice(format!("{} ", self.lines.len()).as_bytes());
        reply.extend_from_slice(command);
    }

    fn begin_snapshot(&mut self) -> Lines {
        Lines(self.lines.iter().cloned().collect())
    }

    fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        if chunk == b"bad" {
            return Err(RestoreError::Chunk("bad"));
        }
        self.add(chunk);
        Ok(())
    }

    fn state_hash(&self) -> u128 {
        self.hash
    }
}

/// Small bounds, so that tests reach them.
pub(crate) fn small() -> Builder {
    Config::builder().sessions_max(3).answers_max(4).answer_bytes(100, 1000).hashes(4, 3)
}

pub(crate) fn replica(salt: u8) -> Replica<Ledger> {
    replica_with(small(), salt)
}

pub(crate) fn replica_with(config: Builder, salt: u8) -> Replica<Ledger> {
    Replica::new(config.build().unwrap(), Ledger { salt, ..Ledger::default() })
}

pub(crate) fn site(name: &str) -> SiteId {
    let node = NodeId::new(ClusterId::from_entropy(1), name);
    SiteId { node, incarnation: Incarnation(1) }
}

pub(crate) fn anonymous(command: &str) -> Bytes {
    Envelope::Anonymous.encode(command.as_bytes())
}

pub(crate) fn open(id: u128) -> Bytes {
    Envelope::Open { id }.encode(b"")
}

pub(crate) fn command(session: Session, number: u64, acked_upto: u64, command: &str) -> Bytes {
    Envelope::Command { session, number, acked_upto }.encode(command.as_bytes())
}

pub(crate) fn skip(position: u64) -> Bytes {
    Envelope::Skip { position: Position(position) }.encode(b"")
}

/// Delivers one message of this site and gives what comes out.
pub(crate) fn deliver_at(
    replica: &mut Replica<Ledger>,
    position: u64,
    payload: &Bytes,
) -> Vec<Output> {
    let message = MessageId { sender: site("me"), sequence: position };
    replica.deliver(Position(position), message, payload.clone(), true).unwrap();
    drain(replica)
}

/// Delivers at the next position and gives the outcome.
pub(crate) fn ask(replica: &mut Replica<Ledger>, payload: &Bytes) -> Outcome {
    let position = replica.position().0 + 1;
    let outcomes = outcomes(deliver_at(replica, position, payload));
    let [(at, outcome)] = &outcomes[..] else { panic!("one answer, not {outcomes:?}") };
    assert_eq!(*at, position);
    outcome.clone()
}

pub(crate) fn opened(replica: &mut Replica<Ledger>, id: u128) -> Session {
    match ask(replica, &open(id)) {
        Outcome::Opened(session) => session,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn drain(replica: &mut Replica<Ledger>) -> Vec<Output> {
    std::iter::from_fn(|| replica.poll_output()).collect()
}

/// The answers among outputs.
pub(crate) fn outcomes(outputs: Vec<Output>) -> Vec<(u64, Outcome)> {
    let reply = |output| match output {
        Output::Reply { position, message, outcome } => {
            assert_eq!(message.sequence, position.0);
            Some((position.0, outcome))
        }
        _ => None,
    };
    outputs.into_iter().filter_map(reply).collect()
}

pub(crate) fn done(text: &str) -> Outcome {
    Outcome::Done(Bytes::copy_from_slice(text.as_bytes()))
}

/// The whole snapshot.
pub(crate) fn chunks(replica: &mut Replica<Ledger>) -> Vec<Bytes> {
    let mut stream = replica.snapshot().unwrap();
    std::iter::from_fn(|| stream.next_chunk().unwrap()).collect()
}

/// Restores a replica from chunks.
pub(crate) fn restore(replica: &mut Replica<Ledger>, chunks: &[Bytes], position: u64) {
    drop(replica.begin_restore(Ledger::default()));
    for chunk in chunks {
        replica.restore_chunk(chunk).unwrap();
    }
    replica.restored(Position(position)).unwrap();
}

/// A group's messages with every kind in them, none of them poison.
pub(crate) fn history() -> Vec<Bytes> {
    let session = |id: u128, opened| Session { id, opened: Position(opened) };
    vec![
        open(1),
        command(session(1, 1), 1, 0, "a"),
        anonymous("b"),
        open(2),
        command(session(2, 4), 2, 0, "c"),
        command(session(1, 1), 1, 0, "a"),
        Bytes::from_static(b"\xffgarbage"),
        command(session(2, 4), 3, 2, "big 101"),
        open(3),
        open(4),
        command(session(1, 1), 2, 1, "d"),
        Envelope::Close { session: session(2, 4) }.encode(b""),
        command(session(4, 10), 1, 0, "e"),
        skip(3),
        anonymous("f"),
    ]
}
