//! What waits for the reader of a link.

use std::collections::{BTreeMap, VecDeque};

use mainstay_base::BootId;
use mainstay_base::rack::{Offered, Reader};
use mainstay_runtime::halt;

use super::event::{LinkEvent, event_weight};

/// Most changes of peers that may wait: a reader that has read nothing for so long is given up, and the link with it.
const CHANGES_MAX: usize = 1_024;
/// A batch ends behind so many bytes.
const BATCH_BYTES: usize = 64 << 10;
const BATCH_MAX: usize = 256;

/// Events on their way to the reader, in order. Messages wait unacknowledged, so the windows bound them.
pub(super) struct Outlet {
    reader: Box<dyn Reader<LinkEvent>>,
    is_full: bool,
    waiting: VecDeque<LinkEvent>,
    /// How far acknowledgements have got whose event waits: there is one for a boot at most.
    acknowledged: BTreeMap<BootId, u64>,
    changes: usize,
}

impl Outlet {
    pub(super) fn new(reader: impl Reader<LinkEvent>) -> Self {
        Self {
            reader: Box::new(reader),
            is_full: false,
            waiting: VecDeque::new(),
            acknowledged: BTreeMap::new(),
            changes: 0,
        }
    }

    pub(super) fn push(&mut self, event: LinkEvent) {
        match &event {
            LinkEvent::Message { .. } => {}
            LinkEvent::Acknowledged { to, upto } => {
                if self.acknowledged.insert(to.boot, *upto).is_some() {
                    return;
                }
            }
            LinkEvent::Replaced { old, .. } => {
                // They count in no window any more, so they may not stay.
                let of_old =
                    |it: &LinkEvent| matches!(it, LinkEvent::Message { from, .. } if from == old);
                self.waiting.retain(|it| !of_old(it));
                self.changes += 1;
            }
            _ => self.changes += 1,
        }
        if self.changes > CHANGES_MAX {
            halt("the reader of the link reads nothing");
        }
        self.waiting.push_back(event);
    }

    /// The reader has room again.
    pub(super) fn on_room(&mut self) {
        self.is_full = false;
    }

    /// Gives the reader what it has room for, and notes whose messages it took. False: it is gone.
    pub(super) fn hand_out(&mut self, taken: &mut Vec<BootId>) -> bool {
        while !self.is_full && !self.waiting.is_empty() {
            let batch = self.batch(taken);
            match self.reader.read(batch) {
                Offered::Room => {}
                Offered::Full => self.is_full = true,
                Offered::Gone => return false,
            }
        }
        true
    }

    fn batch(&mut self, taken: &mut Vec<BootId>) -> Vec<LinkEvent> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_MAX && bytes < BATCH_BYTES {
            let Some(mut event) = self.waiting.pop_front() else { break };
            match &mut event {
                LinkEvent::Message { from, .. } => taken.push(from.boot),
                LinkEvent::Acknowledged { to, upto } => {
                    *upto = self.acknowledged.remove(&to.boot).unwrap_or(*upto);
                }
                _ => self.changes -= 1,
            }
            bytes += event_weight(&event);
            batch.push(event);
        }
        batch
    }
}
