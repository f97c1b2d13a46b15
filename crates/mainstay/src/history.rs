//! What the present state of a replica came from: an earlier state, and the messages since.

use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use mainstay_base::{MessageId, Position};
use mainstay_paradigm::{Replica, Snapshot, SnapshotStream, StateMachine};
use mainstay_runtime::drop_beside;

/// Bytes of messages from which on an earlier state is replaced by the present one (64 MiB).
const BYTES_MAX: usize = 64 << 20;
/// Payloads up to here are copied together, since they keep the buffer of a whole read alive (64 KiB).
const COPIED_MAX: usize = 64 << 10;
/// Messages of a block.
const BLOCK_MESSAGES: usize = 1 << 10;
/// Blocks of a history that is over which are let go in a turn.
const RELEASED_BLOCKS: usize = 4;
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
    /// The messages behind the base, without a gap, in blocks of [`BLOCK_MESSAGES`]: one large table would have to be moved
    /// as a whole whenever it grows.
    first: Position,
    messages: Vec<Vec<(MessageId, Bytes)>>,
    bytes: usize,
    block: BytesMut,
    /// Of the former history: its messages, which go in slices, and whether its state is still being freed.
    former: Vec<Vec<(MessageId, Bytes)>>,
    freeing: Weak<()>,
}

impl<U: Snapshot> History<U> {
    /// Of a replica without a state.
    pub(crate) fn new() -> Self {
        Self {
            base: None,
            first: Position::ZERO,
            messages: Vec::new(),
            bytes: 0,
            block: BytesMut::new(),
            former: Vec::new(),
            freeing: Weak::new(),
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
        if self.base.is_none() || position.0 != self.first.0 + self.len() as u64 {
            return;
        }
        let payload = if payload.len() > COPIED_MAX { payload.clone() } else { self.copy(payload) };
        self.bytes += size_of::<(MessageId, Bytes)>() + payload.len();
        match self.messages.last_mut().filter(|block| block.len() < BLOCK_MESSAGES) {
            Some(block) => block.push((message, payload)),
            None => {
                let mut block = Vec::with_capacity(BLOCK_MESSAGES);
                block.push((message, payload));
                self.messages.push(block);
            }
        }
    }

    fn len(&self) -> usize {
        let last = self.messages.last().map_or(0, Vec::len);
        self.messages.len().saturating_sub(1) * BLOCK_MESSAGES + last
    }

    fn copy(&mut self, payload: &[u8]) -> Bytes {
        if self.block.capacity() < payload.len() {
            self.block = BytesMut::with_capacity(BLOCK_BYTES);
        }
        self.block.extend_from_slice(payload);
        self.block.split().freeze()
    }

    pub(crate) fn get(&self, index: usize) -> Option<(Position, MessageId, Bytes)> {
        let (message, payload) =
            self.messages.get(index / BLOCK_MESSAGES)?.get(index % BLOCK_MESSAGES)?;
        Some((Position(self.first.0 + index as u64), *message, payload.clone()))
    }

    /// Time to begin with a newer state: at the bound, or at twice the bound if the last history is still here then.
    pub(crate) fn is_long(&self) -> bool {
        let is_here = self.freeing.strong_count() > 0 || !self.former.is_empty();
        self.bytes > BYTES_MAX * if is_here { 2 } else { 1 }
    }

    /// Begins anew with the present state of `replica`. The state that was is freed on another thread: for a million entries
    /// that takes longer than a member may be silent. Its messages go a slice a turn ([`release`](Self::release)).
    pub(crate) fn renew<S: StateMachine<Snapshot = U>>(&mut self, replica: &mut Replica<S>) {
        let Self { base, messages, .. } = std::mem::replace(self, Self::of(replica));
        let freeing = Arc::new(());
        (self.former, self.freeing) = (messages, Arc::downgrade(&freeing));
        drop_beside((base, freeing));
    }

    /// Lets go of the next slice of the former messages.
    pub(crate) fn release(&mut self) {
        let kept = self.former.len().saturating_sub(RELEASED_BLOCKS);
        self.former.truncate(kept);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};

    use mainstay_base::{ClusterId, Incarnation, NodeId, SiteId};
    use mainstay_paradigm::{Config, RestoreError};

    use super::*;

    /// A state whose snapshots tell where they end, and do not end before they may.
    struct Told {
        told: mpsc::Sender<ThreadId>,
        may_end: Arc<std::sync::Mutex<mpsc::Receiver<()>>>,
        snapshots: Arc<AtomicUsize>,
    }

    struct Frozen {
        told: mpsc::Sender<ThreadId>,
        may_end: Arc<std::sync::Mutex<mpsc::Receiver<()>>>,
    }

    impl Drop for Frozen {
        fn drop(&mut self) {
            if self.may_end.lock().unwrap().recv().is_ok() {
                self.told.send(thread::current().id()).unwrap();
            }
        }
    }

    impl StateMachine for Told {
        type Snapshot = Frozen;

        fn apply(&mut self, _at: Position, _command: &[u8], _reply: &mut Vec<u8>) {}

        fn begin_snapshot(&mut self) -> Frozen {
            self.snapshots.fetch_add(1, Ordering::Relaxed);
            Frozen { told: self.told.clone(), may_end: Arc::clone(&self.may_end) }
        }

        fn restore_chunk(&mut self, _chunk: &[u8]) -> Result<(), RestoreError> {
            Ok(())
        }

        fn state_hash(&self) -> u128 {
            0
        }
    }

    impl Snapshot for Frozen {
        fn next_chunk(&mut self, _max: usize) -> Option<Bytes> {
            None
        }
    }

    fn fill(history: &mut History<Frozen>) {
        let node = NodeId::new(ClusterId::from_entropy(1), "a");
        let sender = SiteId { node, incarnation: Incarnation(1) };
        let payload = Bytes::from(vec![0; COPIED_MAX + 1]);
        let mut position = history.first;
        while history.bytes <= BYTES_MAX {
            history.push(position, MessageId { sender, sequence: position.0 }, &payload);
            position = position.next();
        }
    }

    /// Checks that a history which is over is freed on another thread, and that no third one begins before that.
    #[test]
    fn a_history_that_is_over_is_freed_elsewhere() {
        let ((told, ended), (let_end, may_end)) = (mpsc::channel(), mpsc::channel());
        let snapshots = Arc::<AtomicUsize>::default();
        let may_end = Arc::new(std::sync::Mutex::new(may_end));
        let machine = Told { told, may_end, snapshots: Arc::clone(&snapshots) };
        let mut replica = Replica::new(Config::builder().build().unwrap(), machine);
        let mut history = History::of(&mut replica);
        fill(&mut history);
        assert!(history.is_long());
        history.renew(&mut replica);
        assert!(!history.is_long() && history.get(0).is_none(), "the new one is empty");
        assert_eq!(snapshots.load(Ordering::Relaxed), 2);
        fill(&mut history);
        assert!(!history.is_long(), "the former one is still here");
        while !history.former.is_empty() {
            history.release();
        }
        assert!(!history.is_long(), "its state is still here");
        let_end.send(()).unwrap();
        assert_ne!(ended.recv().unwrap(), thread::current().id());
        while !history.is_long() {
            thread::yield_now();
        }
        drop(let_end);
    }
}
