//! What a run did: the events of the nodes, and a hash over every step of the scheduler.

use std::hash::{Hash as _, Hasher as _};

use mainstay_base::trace::{Event, What};
use mainstay_base::{BootId, Fingerprinter, Instant};

/// Events and hash of a run.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) events: Vec<Event>,
    pub(crate) hash: Fingerprinter,
}

impl Trace {
    /// One step of the scheduler.
    pub(crate) fn step(&mut self, at: Instant, kind: u8, who: usize, number: u64) {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&at.as_nanos().to_le_bytes());
        bytes[8..16].copy_from_slice(&((who as u64) << 8 | u64::from(kind)).to_le_bytes());
        bytes[16..].copy_from_slice(&number.to_le_bytes());
        self.hash.write(&bytes);
    }

    /// One event of a node.
    pub(crate) fn event(&mut self, boot: BootId, number: u64, at: Instant, what: What) {
        let event = Event { boot, number, at, what };
        event.hash(&mut self.hash);
        self.events.push(event);
    }
}
