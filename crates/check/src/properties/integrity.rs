//! MC-2: nothing out of nothing, nothing twice.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_base::trace::{Event, GroupWord, What};
use mainstay_base::{BootId, MessageId, Order, SiteId};

use crate::context::{EventRef, Key, Sites, name, show, violation};
use crate::property::{Property, Violation};

/// MC-2: a boot delivers a message at most once, only if its sender cast it, and under the order it was cast for.
///
/// A cast may be repeated under its own id (after a view change), but not for another order.
#[derive(Default)]
pub struct Integrity {
    sites: Sites,
    /// Those whose casts are all in the trace; `None` for everybody.
    whole: Option<BTreeSet<SiteId>>,
    casts: BTreeMap<Key, (Order, EventRef)>,
    delivered: BTreeMap<(BootId, Key), EventRef>,
    /// One delivery of each message and order, to be matched with its cast at the end.
    orders: BTreeMap<(Key, Order), EventRef>,
}

impl Integrity {
    /// For traces that end too early: of the sites that are not in `whole`, the casts after the last one recorded are
    /// not known.
    #[must_use]
    pub fn of_whole(whole: BTreeSet<SiteId>) -> Self {
        Self { whole: Some(whole), ..Self::default() }
    }

    /// Whether the cast may have been made without being in the trace.
    fn may_be_unrecorded(&self, (group, message): Key) -> bool {
        let MessageId { sender, sequence } = message;
        let later = (group, MessageId { sender, sequence })
            ..=(group, MessageId { sender, sequence: u64::MAX });
        self.whole.as_ref().is_some_and(|whole| !whole.contains(&sender))
            && self.casts.range(later).next().is_none()
    }

    fn on_cast(&mut self, event: &Event, key: Key, order: Order) -> Result<(), Violation> {
        let sender = key.1.sender;
        let own = self.sites.site(event.boot);
        if sender.node != event.boot.node || own.is_some_and(|own| own != sender) {
            let text = format!("{} cast in the name of another site", show(key.1));
            return Err(violation(Self::ID, text, [name(event)]));
        }
        let (first, at) = *self.casts.entry(key).or_insert_with(|| (order, name(event)));
        if first != order {
            let text = format!("{} cast as {first:?} and as {order:?}", show(key.1));
            return Err(violation(Self::ID, text, [name(event), at]));
        }
        Ok(())
    }

    fn on_delivered(&mut self, event: &Event, key: Key, order: Order) -> Result<(), Violation> {
        if let Some(first) = self.delivered.insert((event.boot, key), name(event)) {
            let text = format!("{} delivered twice", show(key.1));
            return Err(violation(Self::ID, text, [name(event), first]));
        }
        self.orders.entry((key, order)).or_insert_with(|| name(event));
        self.check_order(key, order, name(event))
    }

    fn check_order(&self, key: Key, order: Order, at: EventRef) -> Result<(), Violation> {
        match self.casts.get(&key) {
            Some((cast, from)) if *cast != order => {
                let text = format!("{} cast as {cast:?}, delivered as {order:?}", show(key.1));
                Err(violation(Self::ID, text, [at, *from]))
            }
            _ => Ok(()),
        }
    }
}

impl Property for Integrity {
    const ID: &'static str = "MC-2";
    const SAYS: &'static str = "a boot delivers a message at most once, only if it was cast, and under the order it was cast for";

    fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        match &event.what {
            What::Group(GroupWord::Cast { group, message, order }) => {
                self.on_cast(event, (*group, *message), *order)?;
            }
            What::Group(GroupWord::Delivered { group, message, order, .. }) => {
                self.on_delivered(event, (*group, *message), *order)?;
            }
            _ => {}
        }
        self.sites.observe(event);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Violation> {
        for ((key, order), at) in &self.orders {
            if !self.casts.contains_key(key) && !self.may_be_unrecorded(*key) {
                let text = format!("{} delivered but never cast", show(key.1));
                return Err(violation(Self::ID, text, [*at]));
            }
            self.check_order(*key, *order, *at)?;
        }
        Ok(())
    }
}
