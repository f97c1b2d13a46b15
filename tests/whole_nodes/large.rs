//! A directory that weighs more than it holds.
//!
//! To restore millions of entries, or to copy them behind a snapshot, takes seconds; thousands of runs with such states
//! would take days. So the weight alone is simulated: each chunk of ballast holds nothing and counts as a millisecond.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use mainstay::{RestoreError, Snapshot, StateMachine};
use mainstay_base::Position;
use mainstay_directory::{Directory, DirectorySnapshot};

/// What the user's machine counts, in nominal nanoseconds: a chunk of ballast that is restored, a piece of ballast that is
/// copied behind a snapshot, a command.
const CHUNK: u64 = 1_000_000;
const COPY: u64 = 500_000;
const COMMAND: u64 = 20_000;
const LOOK: u64 = 333_000;

/// In front of a chunk: whether it is ballast.
const BALLAST: u8 = 0;
const CONTENT: u8 = 1;

/// How heavy a state is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Weight {
    /// Chunks of it.
    pub chunks: u32,
    /// How many times faster the processor is that works on it, beside 1.
    pub faster: u32,
    /// The first snapshot that is read panics.
    pub first_snapshot_breaks: bool,
    /// The first command behind a snapshot copies all of them, not one.
    pub copied_at_once: bool,
}

pub struct Large {
    pub directory: Directory,
    weight: Weight,
    /// Shared with a snapshot.
    shared: u32,
    work: u64,
    /// Of those who look at it.
    looked: Cell<u64>,
    /// The next snapshot that is read panics.
    breaks: Arc<AtomicBool>,
}

impl Large {
    pub fn new(weight: Weight) -> Self {
        let breaks = Arc::new(AtomicBool::new(weight.first_snapshot_breaks));
        let directory = Directory::default();
        Self { directory, weight, shared: 0, work: 0, looked: Cell::new(0), breaks }
    }
}

impl Large {
    /// A read that takes a third of a millisecond.
    pub fn look(&self) {
        self.looked.set(self.looked.get() + LOOK);
    }
}

pub struct LargeSnapshot {
    ballast: u32,
    content: DirectorySnapshot,
    breaks: Arc<AtomicBool>,
}

impl Snapshot for LargeSnapshot {
    fn next_chunk(&mut self, max: usize) -> Option<Bytes> {
        assert!(!self.breaks.swap(false, Ordering::Relaxed), "as told");
        if let Some(left) = self.ballast.checked_sub(1) {
            self.ballast = left;
            return Some(Bytes::from_static(&[BALLAST]));
        }
        let chunk = self.content.next_chunk(max - 1)?;
        Some([&[CONTENT], &chunk[..]].concat().into())
    }
}

impl StateMachine for Large {
    type Snapshot = LargeSnapshot;

    fn apply(&mut self, at: Position, command: &[u8], reply: &mut Vec<u8>) {
        let copied = if self.weight.copied_at_once { self.shared } else { self.shared.min(1) };
        self.shared -= copied;
        let copied = COPY * u64::from(copied) / u64::from(self.weight.faster + 1);
        self.work += COMMAND + copied;
        self.directory.apply(at, command, reply);
    }

    fn begin_snapshot(&mut self) -> LargeSnapshot {
        self.shared = self.weight.chunks;
        let (ballast, breaks) = (self.weight.chunks, Arc::clone(&self.breaks));
        LargeSnapshot { ballast, content: self.directory.begin_snapshot(), breaks }
    }

    fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        match chunk.split_first() {
            Some((&BALLAST, [])) => {
                self.work += CHUNK / u64::from(self.weight.faster + 1);
                Ok(())
            }
            Some((&CONTENT, content)) => self.directory.restore_chunk(content),
            _ => Err(RestoreError::Chunk("neither ballast nor content")),
        }
    }

    fn state_hash(&self) -> u128 {
        self.directory.state_hash()
    }

    fn work(&self) -> u64 {
        self.work + self.looked.get() + self.directory.work()
    }
}
