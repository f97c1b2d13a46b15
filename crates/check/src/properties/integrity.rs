//! MC-2: nothing out of nothing, nothing twice.

use std::collections::BTreeMap;

use mainstay_base::BootId;
use mainstay_base::trace::{Event, Order, What};

use crate::context::{EventRef, Key, Sites, name, show, violation};
use crate::property::{Property, Violation};

/// MC-2: a boot delivers a message at most once, only if its sender cast it, and under the order it was cast for.
///
/// A cast may be repeated under its own id (after a view change), but not for another order.
#[derive(Default)]
pub struct Integrity {
    sites: Sites,
    casts: BTreeMap<Key, (Order, EventRef)>,
    delivered: BTreeMap<(BootId, Key), EventRef>,
    /// One delivery of each message and order, to be matched with its cast at the end.
    orders: BTreeMap<(Key, Order), EventRef>,
}

impl Integrity {
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
            What::Cast { group, message, order } => {
                self.on_cast(event, (*group, *message), *order)?;
            }
            What::Delivered { group, message, order, .. } => {
                self.on_delivered(event, (*group, *message), *order)?;
            }
            _ => {}
        }
        self.sites.observe(event);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Violation> {
        for ((key, order), at) in &self.orders {
            if !self.casts.contains_key(key) {
                let text = format!("{} delivered but never cast", show(key.1));
                return Err(violation(Self::ID, text, [*at]));
            }
            self.check_order(*key, *order, *at)?;
        }
        Ok(())
    }
}
