//! MC-7: the messages of one sender stay in order.

use std::collections::BTreeMap;

use mainstay_base::trace::{Event, GroupWord, What};
use mainstay_base::{BootId, GroupId, Order, SiteId};

use crate::context::{EventRef, Key, name, show, violation};
use crate::property::{Property, Violation};

/// MC-7: the messages of one sender in a group are cast and delivered in the order of their numbers.
#[derive(Default)]
pub struct FifoPerSender {
    per_order: bool,
    cast: BTreeMap<(BootId, GroupId, Option<Order>), (u64, EventRef)>,
    known: BTreeMap<Key, EventRef>,
    last: BTreeMap<Stream, (u64, EventRef)>,
}

/// What must be in order by itself at one boot.
type Stream = (BootId, GroupId, SiteId, Option<Order>);

impl FifoPerSender {
    /// For groups in which the messages of each order are numbered apart, and a FIFO message may overtake an ordered one
    /// of the same sender: each order by itself.
    #[must_use]
    pub fn per_order() -> Self {
        Self { per_order: true, ..Self::default() }
    }

    fn on_cast(&mut self, event: &Event, key: Key, order: Order) -> Result<(), Violation> {
        if self.known.contains_key(&key) {
            return Ok(());
        }
        self.known.insert(key, name(event));
        let sequence = key.1.sequence;
        let stream = (event.boot, key.0, self.per_order.then_some(order));
        match self.cast.insert(stream, (sequence, name(event))) {
            Some((last, before)) if sequence < last => {
                let text = format!("{} cast after number {last}", show(key.1));
                Err(violation(Self::ID, text, [name(event), before]))
            }
            _ => Ok(()),
        }
    }

    fn on_delivered(&mut self, event: &Event, key: Key, order: Order) -> Result<(), Violation> {
        let stream = self.per_order.then_some(order);
        let sequence = key.1.sequence;
        let stream = (event.boot, key.0, key.1.sender, stream);
        match self.last.insert(stream, (sequence, name(event))) {
            Some((last, before)) if sequence < last => {
                let text =
                    format!("{} delivered after number {last} of the same sender", show(key.1));
                Err(violation(Self::ID, text, [name(event), before]))
            }
            _ => Ok(()),
        }
    }
}

impl Property for FifoPerSender {
    const ID: &'static str = "MC-7";
    const SAYS: &'static str = "messages of one sender are delivered in send order";

    fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        match &event.what {
            What::Group(GroupWord::Cast { group, message, order }) => {
                self.on_cast(event, (*group, *message), *order)
            }
            What::Group(GroupWord::Delivered { group, message, order, .. }) => {
                self.on_delivered(event, (*group, *message), *order)
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), Violation> {
        Ok(())
    }
}
