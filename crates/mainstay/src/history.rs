//! What the present state of a replica came from: an earlier state, and the messages since.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use mainstay_base::{MessageId, Position};
use mainstay_paradigm::{Replica, SnapshotStream, StateMachine};

/// Bytes of messages from which on an earlier state is replaced by the present one (64 MiB).
const BYTES_MAX: usize = 64 << 20;
/// Payloads up to here are copied together, since they keep the buffer of a whole read alive (64 KiB).
const COPIED_MAX: usize = 64 << 10;
/// Bytes of a block of copies (256 KiB).
const BLOCK_BYTES: usize = 256 << 10;

/// How far a replica has got with being rebuilt from its history.
pub(crate) enum Rebuild<U> {
    /// The earlier state is being read.
    Restore(Box<SnapshotStream<U>>),
    /// The message with this index is next.
    Replay(usize),
}

/// Kept in memory, whatever the durability: a replica that is to be rebuilt needs neither disk nor peers.
pub(crate) struct History<U> {
    base: Option<SnapshotStream<U>>,
    /// The messages behind the base, without a gap.
    first: Position,
    messages: VecDeque<(MessageId, Bytes)>,
    bytes: usize,
    block: BytesMut,
}

impl<U> History<U> {
    /// Of a replica without a state.
    pub(crate) fn new() -> Self {
        Self {
            base: None,
            first: Position::ZERO,
            messages: VecDeque::new(),
            bytes: 0,
            block: BytesMut::new(),
        }
    }

    /// Begins with the present state of `replica`; empty, if it has none.
    pub(crate) fn of<S: StateMachine<Snapshot = U>>(replica: &mut Replica<S>) -> Self {
        let mut history = Self::new();
        history.first = replica.position().next();
        history.set_base(replica);
        history
    }

    /// The present state of `replica` is the one that the messages follow.
    pub(crate) fn set_base<S: StateMachine<Snapshot = U>>(&mut self, replica: &mut Replica<S>) {
        self.base = replica.snapshot().ok();
    }

    pub(crate) fn take_base(&mut self) -> Option<SnapshotStream<U>> {
        self.base.take()
    }

    /// Takes the next message in; one that is here already, or that nothing leads to, is passed over.
    pub(crate) fn push(&mut self, position: Position, message: MessageId, payload: &Bytes) {
        if self.base.is_none() || position.0 != self.first.0 + self.messages.len() as u64 {
            return;
        }
        let payload = if payload.len() > COPIED_MAX { payload.clone() } else { self.copy(payload) };
        self.bytes += size_of::<(MessageId, Bytes)>() + payload.len();
        self.messages.push_back((message, payload));
    }

    fn copy(&mut self, payload: &[u8]) -> Bytes {
        if self.block.capacity() < payload.len() {
            self.block = BytesMut::with_capacity(BLOCK_BYTES);
        }
        self.block.extend_from_slice(payload);
        self.block.split().freeze()
    }

    pub(crate) fn get(&self, index: usize) -> Option<(Position, MessageId, Bytes)> {
        let (message, payload) = self.messages.get(index)?;
        Some((Position(self.first.0 + index as u64), *message, payload.clone()))
    }

    /// Time to begin with a newer state.
    pub(crate) fn is_long(&self) -> bool {
        self.bytes > BYTES_MAX
    }
}
