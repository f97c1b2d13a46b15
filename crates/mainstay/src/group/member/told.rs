//! For tests: bytes that say where they are freed.

use std::sync::mpsc;
use std::thread::{self, ThreadId};

use bytes::Bytes;

struct Told(Vec<u8>, mpsc::Sender<ThreadId>);

impl AsRef<[u8]> for Told {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.1.send(thread::current().id());
    }
}

/// So many bytes; `to` is told the thread on which they are freed.
pub(super) fn bytes(count: usize, to: &mpsc::Sender<ThreadId>) -> Bytes {
    Bytes::from_owner(Told(vec![7; count], to.clone()))
}
