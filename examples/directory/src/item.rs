//! An entry of the directory.

use std::iter::repeat_n;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_paradigm::trie::{self, Trie, hash_of};

/// A key with its value, and its share in the sum of hashes, kept so that an old value need not be read again.
#[derive(Clone)]
pub(crate) struct Item {
    hash: u64,
    key_len: u32,
    share: u128,
    /// The key and the value behind it.
    pair: Arc<[u8]>,
}

pub(crate) type Map = Trie<Item>;
pub(crate) type Items = trie::Items<Item>;

impl Item {
    /// # Panics
    /// If the key is 4 GiB or longer; the directory takes none of more than 512 KiB.
    pub(crate) fn new(key: &[u8], value: &[u8], share: u128) -> Self {
        let mut pair: Arc<[u8]> = repeat_n(0, key.len() + value.len()).collect();
        let bytes = Arc::get_mut(&mut pair).expect("nobody else has it yet");
        bytes[..key.len()].copy_from_slice(key);
        bytes[key.len()..].copy_from_slice(value);
        let key_len = u32::try_from(key.len()).expect("a key is less than 4 GiB long");
        Self { hash: hash_of(key), key_len, share, pair }
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.pair[self.key_len as usize..]
    }

    pub(crate) fn share(&self) -> u128 {
        self.share
    }

    /// The key and the value behind it.
    pub(crate) fn pair(&self) -> &[u8] {
        &self.pair
    }

    /// The value without a copy: it keeps the item's bytes alive. None if these are many more than the value is.
    pub(crate) fn shared_value(&self) -> Option<Bytes> {
        let value = self.key_len as usize;
        let is_most = self.pair.len() - value >= value;
        is_most.then(|| Bytes::from_owner(Arc::clone(&self.pair)).slice(value..))
    }
}

impl trie::Item for Item {
    type Key = [u8];

    fn hash(&self) -> u64 {
        self.hash
    }

    fn key(&self) -> &[u8] {
        &self.pair[..self.key_len as usize]
    }
}
