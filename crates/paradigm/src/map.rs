//! A map for state machines.

use std::cell::Cell;
use std::fmt;
use std::hash::Hasher as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use mainstay_base::{Fingerprinter, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::RestoreError;
use crate::state::State;
use crate::trie::{self, Trie, hash_of};
use crate::user::Snapshot;

/// Largest encoding of an entry of a [`Map`], in bytes (1 MiB).
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

/// What it takes to find a key, in nominal nanoseconds: it is seldom in the processor's cache.
const LOOKUP: u64 = 1_500;
/// What it takes to walk on to the next entry, in nominal nanoseconds.
const STEP: u64 = 100;
/// In front of an entry in a snapshot: the length of its encoding, `u32` little-endian.
const LENGTH_SIZE: usize = 4;

/// An entry is larger than a [`Map`] allows. The map is unchanged; a retry fails in the same way.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[error("the entry takes {size} bytes, at most {ENTRY_BYTES_MAX} fit")]
pub struct EntryTooLarge {
    /// The bytes of its encoding.
    pub size: usize,
}

struct Entry<K, V> {
    hash: u64,
    share: u128,
    pair: Arc<(K, V)>,
}

impl<K, V> Clone for Entry<K, V> {
    fn clone(&self) -> Self {
        Self { hash: self.hash, share: self.share, pair: Arc::clone(&self.pair) }
    }
}

impl<K: Ord, V> trie::Item for Entry<K, V> {
    type Key = K;

    fn hash(&self) -> u64 {
        self.hash
    }

    fn key(&self) -> &K {
        &self.pair.0
    }
}

/// What a [`Map`] may have as keys: any type that is ordered and goes through serde.
pub trait MapKey: Ord + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Ord + Clone + Serialize + DeserializeOwned + Send + Sync + 'static> MapKey for T {}

/// What a [`Map`] may have as values: any type that goes through serde.
pub trait MapValue: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> MapValue for T {}

/// A map whose snapshot and hash cost O(1), for the state of a [`StateMachine`](crate::StateMachine).
///
/// Equal contents have equal hashes and equal snapshots, whatever led there. A write behind a snapshot copies a bounded
/// number of pointers, however large the map is. Keys and values are encoded with serde, which must be the same for equal
/// ones: no hash tables within. They are nested at most [`codec::DEPTH_MAX`] deep, and an entry's encoding is at most
/// [`ENTRY_BYTES_MAX`] long. What is in the map is walked in the order of the keys' hashes: the same at all replicas, but
/// not that of the keys.
///
/// It counts its work: a key looked up 1,500 nominal nanoseconds, an entry walked over 100, a byte encoded 2, and what
/// is copied behind a snapshot.
pub struct Map<K, V> {
    trie: Trie<Entry<K, V>>,
    /// The sum of the entries' hashes.
    sum: u128,
    work: Cell<u64>,
    /// The start of an entry whose rest is in a later chunk of a snapshot.
    partial: Vec<u8>,
}

/// Shares all entries; made in O(1).
impl<K: MapKey, V: MapValue> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self {
            trie: self.trie.clone(),
            sum: self.sum,
            work: self.work.clone(),
            partial: self.partial.clone(),
        }
    }
}

impl<K: MapKey, V: MapValue> Default for Map<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: MapKey, V: MapValue> Map<K, V> {
    /// An empty map.
    #[must_use]
    pub const fn new() -> Self {
        Self { trie: Trie::new(), sum: 0, work: Cell::new(0), partial: Vec::new() }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.trie.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trie.is_empty()
    }

    /// The value at `key`.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.count(LOOKUP);
        self.trie.get(key_hash(key), key).map(|entry| &entry.pair.1)
    }

    /// Whether there is a value at `key`.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Puts a value at `key`; answers the one that was there.
    ///
    /// # Panics
    /// If the entry is larger than [`ENTRY_BYTES_MAX`], or its `Serialize` fails. In the execution of a command a panic
    /// halts the group: use [`try_insert`](Self::try_insert) where clients decide the size.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.try_insert(key, value).expect("an entry of a map is at most 1 MiB long")
    }

    /// As [`insert`](Self::insert), with a word for what is too large.
    ///
    /// # Errors
    /// [`EntryTooLarge`].
    ///
    /// # Panics
    /// If the `Serialize` of the key or the value fails.
    pub fn try_insert(&mut self, key: K, value: V) -> Result<Option<V>, EntryTooLarge> {
        let hash = key_hash(&key);
        let encoded = codec::encode(&(&key, &value));
        let size = encoded.len();
        if size > ENTRY_BYTES_MAX {
            return Err(EntryTooLarge { size });
        }
        self.count(LOOKUP + 2 * size as u64);
        let share = share(&encoded);
        let old = self.trie.insert(Entry { hash, share, pair: Arc::new((key, value)) });
        self.sum = self.sum.wrapping_add(share);
        Ok(old.map(|old| self.take(old)))
    }

    /// Changes the value at `key`, if there is one; answers what `change` does.
    ///
    /// # Panics
    /// As [`insert`](Self::insert), if the value has become too large.
    pub fn update<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        let mut value = self.get(key)?.clone();
        let answer = change(&mut value);
        self.insert(key.clone(), value);
        Some(answer)
    }

    /// Takes out the value at `key`.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.count(LOOKUP);
        let old = self.trie.remove(key_hash(key), key)?;
        Some(self.take(old))
    }

    /// The entries, in the order of the keys' hashes.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.trie.iter().map(|entry| {
            self.count(STEP);
            (&entry.pair.0, &entry.pair.1)
        })
    }

    /// The value of an entry that is out of the map.
    fn take(&mut self, old: Entry<K, V>) -> V {
        self.sum = self.sum.wrapping_sub(old.share);
        match Arc::try_unwrap(old.pair) {
            Ok((_, value)) => value,
            Err(shared) => shared.1.clone(),
        }
    }

    fn count(&self, nanos: u64) {
        self.work.set(self.work.get() + nanos);
    }
}

impl<K: MapKey + fmt::Debug, V: MapValue + fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: MapKey, V: MapValue> State for Map<K, V> {
    type Snapshot = MapSnapshot<K, V>;

    fn begin_snapshot(&mut self) -> MapSnapshot<K, V> {
        MapSnapshot { items: self.trie.clone().into_items(), rest: Bytes::new() }
    }

    fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        let mut bytes = std::mem::take(&mut self.partial);
        bytes.extend_from_slice(chunk);
        let mut rest = &bytes[..];
        while let Some((length, behind)) = rest.split_first_chunk::<LENGTH_SIZE>() {
            let length = u32::from_le_bytes(*length) as usize;
            if length > ENTRY_BYTES_MAX {
                return Err(RestoreError::Chunk("an entry is too large"));
            }
            let Some((entry, behind)) = behind.split_at_checked(length) else { break };
            let (key, value) =
                codec::decode(entry).map_err(|_| RestoreError::Chunk("not an entry"))?;
            let old = self.try_insert(key, value);
            if old.is_ok_and(|old| old.is_some()) {
                return Err(RestoreError::Chunk("a key that is there twice"));
            }
            rest = behind;
        }
        self.partial = rest.to_vec();
        Ok(())
    }

    fn state_hash(&self) -> u128 {
        let mut hasher = Fingerprinter::new();
        hasher.write_u64(self.len() as u64);
        hasher.write_u64(self.partial.len() as u64);
        hasher.write_u128(self.sum);
        hasher.finish128()
    }

    fn work(&self) -> u64 {
        self.work.get() + self.trie.work()
    }
}

/// A [`Map`] at one position, on its way out: a string of entries by ascending hash of the key, cut anywhere. An entry is
/// the length of its MessagePack (`u32`, little-endian), and that.
pub struct MapSnapshot<K, V> {
    items: trie::Items<Entry<K, V>>,
    /// Of an entry that is not out wholly.
    rest: Bytes,
}

impl<K: MapKey, V: MapValue> Snapshot for MapSnapshot<K, V> {
    fn next_chunk(&mut self, max: usize) -> Option<Bytes> {
        let mut chunk = BytesMut::from(&self.rest.split_to(self.rest.len().min(max))[..]);
        while chunk.len() < max {
            let Some(item) = self.items.next() else { break };
            let (key, value) = &*item.pair;
            let encoded = codec::encode(&(key, value));
            let length = u32::try_from(encoded.len()).expect("an entry is at most 1 MiB long");
            chunk.extend_from_slice(&length.to_le_bytes());
            chunk.extend_from_slice(&encoded);
        }
        if chunk.len() > max {
            self.rest = chunk.split_off(max).freeze();
        }
        (!chunk.is_empty()).then(|| chunk.freeze())
    }
}

fn key_hash<K: Serialize>(key: &K) -> u64 {
    hash_of(&codec::encode(key))
}

fn share(encoded: &[u8]) -> u128 {
    let mut hasher = Fingerprinter::new();
    hasher.write(encoded);
    hasher.finish128()
}
