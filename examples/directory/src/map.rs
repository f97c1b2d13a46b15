//! The map behind the directory: sorted maps that are copied when they are written while a snapshot has them.

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::sync::Arc;

use mainstay_base::Fingerprinter;

/// How many maps share the keys. A snapshot takes a pointer to each; the first write to one after that copies it, that
/// is a thousandth of the entries.
const SHARDS: usize = 1024;

/// A value, and its share in the sum of hashes, kept so that an old value need not be read again.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) value: Arc<[u8]>,
    pub(crate) hash: u128,
}

pub(crate) type Shard = BTreeMap<Arc<[u8]>, Entry>;

/// Which shard has a key depends on the key alone, so that equal contents have equal shards.
#[derive(Clone)]
pub(crate) struct Map {
    shards: Vec<Arc<Shard>>,
    len: usize,
}

impl Map {
    pub(crate) fn new() -> Self {
        Self { shards: vec![Arc::default(); SHARDS], len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.shards[index(key)].get(key)
    }

    pub(crate) fn insert(&mut self, key: &[u8], entry: Entry) {
        let shard = Arc::make_mut(&mut self.shards[index(key)]);
        match shard.get_mut(key) {
            Some(old) => *old = entry,
            None => {
                shard.insert(key.into(), entry);
                self.len += 1;
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let shard = &mut self.shards[index(key)];
        // One that has no such key is not copied.
        let has = shard.contains_key(key);
        let old = if has { Arc::make_mut(shard).remove(key) } else { None };
        self.len -= usize::from(has);
        old
    }

    pub(crate) fn into_shards(self) -> Vec<Arc<Shard>> {
        self.shards
    }
}

fn index(key: &[u8]) -> usize {
    let mut hasher = Fingerprinter::new();
    hasher.write(key);
    hasher.finish() as usize % SHARDS
}
