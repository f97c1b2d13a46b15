//! What the present state of a replica came from: an earlier state, and the messages since.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use mainstay_base::{MessageId, Position};
use mainstay_paradigm::{Replica, Snapshot, SnapshotStream, StateMachine};

/// Bytes of messages from which on an earlier state is replaced by the present one (64 MiB).
const BYTES_MAX: usize = 64 << 20;
/// Payloads up to here are copied together, since they keep the buffer of a whole read alive (64 KiB).
const COPIED_MAX: usize = 64 << 10;
/// Bytes of a block of copies (256 KiB).
const BLOCK_BYTES: usize = 256 << 10;
/// Messages of a history that is over which are let go in a turn.
const RELEASED_MESSAGES: usize = 4_096;
/// Chunks of its state which are let go in a turn.
const RELEASED_CHUNKS: usize = 4;

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
    retired: Option<Retired<U>>,
}

/// A history that is over. It goes in slices: to let go of a state of a million entries at once takes longer than a
/// member may be silent.
struct Retired<U> {
    base: Option<SnapshotStream<U>>,
    messages: VecDeque<(MessageId, Bytes)>,
}

impl<U: Snapshot> History<U> {
    /// Of a replica without a state.
    pub(crate) fn new() -> Self {
        Self {
            base: None,
            first: Position::ZERO,
            messages: VecDeque::new(),
            bytes: 0,
            block: BytesMut::new(),
            retired: None,
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

    /// Time to begin with a newer state: at the bound, or at twice the bound if the last history is still here then.
    pub(crate) fn is_long(&self) -> bool {
        self.bytes > BYTES_MAX * if self.retired.is_some() { 2 } else { 1 }
    }

    /// Begins anew with the present state of `replica`, and retires what was.
    pub(crate) fn renew<S: StateMachine<Snapshot = U>>(&mut self, replica: &mut Replica<S>) {
        let Self { base, messages, .. } = std::mem::replace(self, Self::of(replica));
        self.retired = Some(Retired { base, messages });
    }

    /// Lets go of the next slice of what is retired.
    pub(crate) fn release(&mut self) {
        if let Some(retired) = &mut self.retired {
            let kept = retired.messages.len().saturating_sub(RELEASED_MESSAGES);
            retired.messages.truncate(kept);
            for _ in 0..RELEASED_CHUNKS {
                // A snapshot needs no more what it has given out.
                retired.base.take_if(|base| !matches!(base.next_chunk(), Ok(Some(_))));
            }
            self.retired.take_if(|retired| retired.base.is_none() && retired.messages.is_empty());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use mainstay_base::{ClusterId, Incarnation, NodeId, SiteId};
    use mainstay_paradigm::{Config, RestoreError};

    use super::*;

    /// A state of so many pieces, of which each snapshot has its own.
    struct Pieces {
        count: usize,
        alive: Rc<Cell<usize>>,
    }

    struct Piece(Rc<Cell<usize>>);

    struct Frozen(std::vec::IntoIter<Piece>);

    impl Drop for Piece {
        fn drop(&mut self) {
            self.0.update(|alive| alive - 1);
        }
    }

    impl StateMachine for Pieces {
        type Snapshot = Frozen;

        fn apply(&mut self, _at: Position, _command: &[u8], _reply: &mut Vec<u8>) {}

        fn begin_snapshot(&mut self) -> Frozen {
            self.alive.update(|alive| alive + self.count);
            let pieces: Vec<_> = (0..self.count).map(|_| Piece(Rc::clone(&self.alive))).collect();
            Frozen(pieces.into_iter())
        }

        fn reset(&mut self) {}

        fn restore_chunk(&mut self, _chunk: &[u8]) -> Result<(), RestoreError> {
            Ok(())
        }

        fn state_hash(&self) -> u128 {
            0
        }
    }

    impl Snapshot for Frozen {
        fn next_chunk(&mut self, _max: usize) -> Option<Bytes> {
            self.0.next().map(|_| Bytes::from_static(b"x"))
        }
    }

    /// Checks that a history which is over is let go of wholly, in small slices, whatever its size.
    #[test]
    fn a_history_that_is_over_goes_in_slices() {
        let (count, alive) = (1_000, Rc::<Cell<usize>>::default());
        let machine = Pieces { count, alive: Rc::clone(&alive) };
        let mut replica = Replica::new(Config::builder().build().unwrap(), machine);
        let mut history = History::of(&mut replica);
        let node = NodeId::new(ClusterId::from_entropy(1), "a");
        let sender = SiteId { node, incarnation: Incarnation(1) };
        let payload = Bytes::from(vec![0; COPIED_MAX + 1]);
        let mut position = history.first;
        while !history.is_long() {
            history.push(position, MessageId { sender, sequence: position.0 }, &payload);
            position = position.next();
        }
        history.renew(&mut replica);
        assert!(!history.is_long() && history.get(0).is_none(), "the new one is empty");
        assert_eq!(alive.get(), 2 * count);
        let mut before = alive.get();
        while history.retired.is_some() {
            history.release();
            assert!(before - alive.get() <= RELEASED_CHUNKS, "a slice is small");
            before = alive.get();
        }
        assert_eq!(alive.get(), count, "the state of the new one is left");
    }
}
