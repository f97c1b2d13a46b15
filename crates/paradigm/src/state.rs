//! States that are put together from parts.

use std::hash::Hasher as _;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use mainstay_base::{Fingerprinter, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::RestoreError;
use crate::user::Snapshot;

/// Largest encoding of a [`Small`], in bytes (64 KiB): it is made at once, after each command that may have changed it, for each hash and for each
/// snapshot.
pub const SMALL_BYTES_MAX: usize = 64 << 10;

/// To encode a byte, in nominal nanoseconds.
const BYTE_NOMINAL: u64 = 2;

/// In front of a small value in a snapshot: the length of its encoding, `u32` little-endian.
const LENGTH_SIZE: usize = 4;

/// What a state machine keeps, as far as snapshots and hashes are concerned: the methods are those of
/// [`StateMachine`](crate::StateMachine), with the same contracts. A [`Map`](crate::Map) is one, a [`Small`], and a tuple of
/// two to six.
pub trait State: Send + 'static {
    /// What [`begin_snapshot`](Self::begin_snapshot) gives.
    type Snapshot: Snapshot;

    /// The state as it is now, in O(1).
    fn begin_snapshot(&mut self) -> Self::Snapshot;

    /// Takes in the next chunk of a snapshot.
    ///
    /// # Errors
    /// [`RestoreError::Chunk`]; no bytes may make it panic.
    fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError>;

    /// A hash of the state, in O(1); equal for equal contents.
    fn state_hash(&self) -> u128;

    /// A command has changed it. A panic here is one of the command: the command is the poison that is passed over, and not
    /// the state that all have. Default: nothing.
    fn settle(&mut self) {}

    /// How much it has done so far, in nominal nanoseconds. Default: nothing is counted.
    fn work(&self) -> u64 {
        0
    }
}

/// A small value of a state: counters, settings. It derefs to the value, and goes through serde.
///
/// Its encoding is at most [`SMALL_BYTES_MAX`] long. A command of [`Commands`](crate::Commands) that makes it larger panics, and halts
/// the group until it is passed over, as any command does that panics; a state machine of another kind calls [`State::settle`] after
/// each command for that. What grows is for a [`Map`](crate::Map).
#[derive(Clone, Debug, Default)]
pub struct Small<T> {
    value: T,
    /// What has come of it so far, while its snapshot comes in.
    partial: Vec<u8>,
    /// It may have changed since it was looked at.
    touched: bool,
    /// Of looking at it after each change, in nominal nanoseconds.
    work: u64,
}

impl<T: PartialEq> PartialEq for Small<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Small<T> {}

impl<T> Small<T> {
    /// A value of a state.
    pub const fn new(value: T) -> Self {
        Self { value, partial: Vec::new(), touched: true, work: 0 }
    }
}

impl<T> Deref for Small<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Small<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.touched = true;
        &mut self.value
    }
}

impl<T: Serialize> Small<T> {
    /// # Panics
    /// If it is too large.
    fn encoded(&self) -> Bytes {
        let bytes = codec::encode(&self.value);
        let size = bytes.len();
        assert!(
            size <= SMALL_BYTES_MAX,
            "{size} bytes in a `Small`, at most {SMALL_BYTES_MAX} fit"
        );
        bytes
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> State for Small<T> {
    type Snapshot = Bytes;

    fn begin_snapshot(&mut self) -> Bytes {
        let encoded = self.encoded();
        let length = (encoded.len() as u32).to_le_bytes();
        [&length[..], &encoded].concat().into()
    }

    fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        self.partial.extend_from_slice(chunk);
        let Some((length, encoded)) = self.partial.split_first_chunk::<LENGTH_SIZE>() else {
            return Ok(());
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > SMALL_BYTES_MAX || encoded.len() > length {
            return Err(RestoreError::Chunk("a small value of another length"));
        }
        if encoded.len() == length {
            let value = codec::decode(encoded);
            self.value = value.map_err(|_| RestoreError::Chunk("a small value of another type"))?;
            self.partial = Vec::new();
        }
        Ok(())
    }

    fn state_hash(&self) -> u128 {
        let mut hasher = Fingerprinter::new();
        hasher.write_u64(self.partial.len() as u64);
        hasher.write(&self.encoded());
        hasher.finish128()
    }

    fn settle(&mut self) {
        if std::mem::take(&mut self.touched) {
            self.work += BYTE_NOMINAL * self.encoded().len() as u64;
        }
    }

    fn work(&self) -> u64 {
        self.work
    }
}

/// The snapshot of a tuple of states: each chunk is the number of the part, one byte, and a chunk of that part; the parts
/// come one after the other.
pub struct Parts<P> {
    at: u8,
    parts: P,
}

macro_rules! tuple {
    ($($part:ident $index:tt),+) => {
        impl<$($part: Snapshot),+> Snapshot for Parts<($($part,)+)> {
            fn next_chunk(&mut self, max: usize) -> Option<Bytes> {
                loop {
                    let room = max.saturating_sub(1);
                    let chunk = match self.at {
                        $($index => self.parts.$index.next_chunk(room),)+
                        _ => return None,
                    };
                    match chunk {
                        Some(chunk) => return Some([&[self.at][..], &chunk].concat().into()),
                        None => self.at += 1,
                    }
                }
            }
        }

        impl<$($part: State),+> State for ($($part,)+) {
            type Snapshot = Parts<($($part::Snapshot,)+)>;

            fn begin_snapshot(&mut self) -> Self::Snapshot {
                Parts { at: 0, parts: ($(self.$index.begin_snapshot(),)+) }
            }

            fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
                match chunk.split_first() {
                    $(Some(($index, chunk)) => self.$index.restore_chunk(chunk),)+
                    _ => Err(RestoreError::Chunk("no part of this state")),
                }
            }

            fn state_hash(&self) -> u128 {
                let mut hasher = Fingerprinter::new();
                $(hasher.write_u128(self.$index.state_hash());)+
                hasher.finish128()
            }

            fn settle(&mut self) {
                $(self.$index.settle();)+
            }

            fn work(&self) -> u64 {
                0 $(+ self.$index.work())+
            }
        }
    };
}

tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
