//! MC-10: one order at all members.

use std::collections::BTreeMap;

use mainstay_base::trace::{Event, GroupWord, What};
use mainstay_base::{BootId, GroupId, MessageId, Order, Position, ViewId};

use crate::context::{EventRef, Key, Losses, Sites, name, show, violation};
use crate::property::{Property, Violation};

/// MC-10: a position of a group holds one message everywhere, a message has one position, and a member delivers the
/// positions one after the other, except where it takes over state or an operator accepted a loss.
#[derive(Default)]
pub struct TotalOrder {
    sites: Sites,
    losses: Losses,
    next: BTreeMap<(BootId, GroupId), Place>,
    at: BTreeMap<(GroupId, Position), Vec<Placed>>,
    of: BTreeMap<Key, Vec<Placed>>,
}

/// Where a member stands.
struct Place {
    last: Position,
    event: EventRef,
    /// After a loss the order may go on from here as well.
    lost_from: Option<Position>,
}

#[derive(Clone, Copy)]
struct Placed {
    message: MessageId,
    position: Position,
    view: ViewId,
    event: EventRef,
}

impl TotalOrder {
    fn check_step(&mut self, event: &Event, new: Placed, group: GroupId) -> Result<(), Violation> {
        let place = self.next.entry((event.boot, group)).or_insert_with(|| Place {
            last: Position::ZERO,
            event: name(event),
            lost_from: None,
        });
        let after_loss = place.lost_from.is_some_and(|from| new.position >= from);
        if new.position.0 != place.last.0 + 1 && !after_loss {
            let text = format!(
                "{} delivered at position {} by a member that stood at {}",
                show(new.message),
                new.position.0,
                place.last.0
            );
            return Err(violation(Self::ID, text, [name(event), place.event]));
        }
        *place = Place { last: new.position, event: name(event), lost_from: None };
        Ok(())
    }

    /// Remembers a placement; contradictions inside one view cannot be explained by a loss.
    fn place(&mut self, group: GroupId, new: Placed) -> Result<(), Violation> {
        let at = self.at.entry((group, new.position)).or_default();
        if let Some(old) = at.iter().find(|old| old.message != new.message && old.view == new.view)
        {
            return Err(clash(new, *old));
        }
        if !at.iter().any(|old| old.message == new.message && old.view == new.view) {
            at.push(new);
        }
        let of = self.of.entry((group, new.message)).or_default();
        if let Some(old) =
            of.iter().find(|old| old.position != new.position && old.view == new.view)
        {
            return Err(moved(new, *old));
        }
        if !of.iter().any(|old| old.position == new.position && old.view == new.view) {
            of.push(new);
        }
        Ok(())
    }

    fn on_delivered(
        &mut self,
        event: &Event,
        group: GroupId,
        order: Order,
        placed: Option<Placed>,
    ) -> Result<(), Violation> {
        match (order, placed) {
            (Order::Total, Some(new)) => {
                self.check_step(event, new, group)?;
                self.place(group, new)
            }
            (Order::Fifo, None) => Ok(()),
            (Order::Total, None) => {
                let text = "a message in total order delivered without a position".to_owned();
                Err(violation(Self::ID, text, [name(event)]))
            }
            (Order::Fifo, Some(_)) => {
                let text = "a FIFO message delivered at a position".to_owned();
                Err(violation(Self::ID, text, [name(event)]))
            }
        }
    }

    fn on_restored(
        &mut self,
        event: &Event,
        group: GroupId,
        position: Position,
    ) -> Result<(), Violation> {
        let new = Place { last: position, event: name(event), lost_from: None };
        match self.next.insert((event.boot, group), new) {
            Some(old) if old.last > position && old.lost_from.is_none() => {
                let text =
                    format!("went back from position {} to state as of {}", old.last.0, position.0);
                Err(violation(Self::ID, text, [name(event), old.event]))
            }
            _ => Ok(()),
        }
    }
}

fn clash(new: Placed, old: Placed) -> Violation {
    let text = format!(
        "position {} holds {} here and {} elsewhere",
        new.position.0,
        show(new.message),
        show(old.message)
    );
    violation(TotalOrder::ID, text, [new.event, old.event])
}

fn moved(new: Placed, old: Placed) -> Violation {
    let text = format!(
        "{} is at position {} here and at {} elsewhere",
        show(new.message),
        new.position.0,
        old.position.0
    );
    violation(TotalOrder::ID, text, [new.event, old.event])
}

impl Property for TotalOrder {
    const ID: &'static str = "MC-10";
    const SAYS: &'static str =
        "a position holds one message everywhere; each member delivers the positions without a gap";

    fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        self.losses.observe(event, &self.sites);
        match &event.what {
            What::Group(GroupWord::Installed { group, position, .. }) => {
                self.next.entry((event.boot, *group)).or_insert_with(|| Place {
                    last: *position,
                    event: name(event),
                    lost_from: None,
                });
            }
            What::Group(GroupWord::Restored { group, position }) => {
                self.on_restored(event, *group, *position)?
            }
            What::Group(GroupWord::MaybeLost { group, from }) => {
                let place = self.next.entry((event.boot, *group)).or_insert_with(|| Place {
                    last: Position::ZERO,
                    event: name(event),
                    lost_from: None,
                });
                place.lost_from = Some(*from);
            }
            What::Group(GroupWord::Delivered { group, view, message, order, position }) => {
                let placed = position.map(|position| Placed {
                    message: *message,
                    position,
                    view: *view,
                    event: name(event),
                });
                self.on_delivered(event, *group, *order, placed)?;
            }
            _ => {}
        }
        self.sites.observe(event);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Violation> {
        let era =
            |group: GroupId, placed: &Placed| self.losses.era(group, placed.position, placed.view);
        for ((group, _), all) in &self.at {
            for (index, new) in all.iter().enumerate() {
                for old in all[..index].iter().filter(|old| old.message != new.message) {
                    if era(*group, new) == era(*group, old) {
                        return Err(clash(*new, *old));
                    }
                }
            }
        }
        for ((group, _), all) in &self.of {
            for (index, new) in all.iter().enumerate() {
                for old in all[..index].iter().filter(|old| old.position != new.position) {
                    let (earlier, later) =
                        if new.view.number < old.view.number { (new, old) } else { (old, new) };
                    let since = earlier.view.number;
                    let lost = self.losses.gave_up(*group, earlier.position, since)
                        && later.view.number > since;
                    if !lost {
                        return Err(moved(*new, *old));
                    }
                }
            }
        }
        Ok(())
    }
}
