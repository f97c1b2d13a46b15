//! MC-3 and MC-6: all or none, and all if the sender lives. Both are judged at the end of a quiescent trace.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_base::trace::{Event, GroupWord, What};
use mainstay_base::{BootId, GroupId, Order, Position, SiteId, ViewId};

use crate::context::{EventRef, Key, Sites, name, show, violation};
use crate::property::{Property, Violation};

/// Who has what; the common part of the two checkers.
#[derive(Default)]
struct Ledger {
    sites: Sites,
    casts: BTreeMap<Key, (EventRef, Order)>,
    /// Of each message, one for each boot; they are few.
    deliveries: BTreeMap<Key, Vec<(BootId, Delivery)>>,
    restored: BTreeMap<(BootId, GroupId), (Position, u64)>,
    /// The first view of the group that each boot installed.
    first: BTreeMap<(BootId, GroupId), u64>,
    views: BTreeMap<(GroupId, ViewId), (Vec<SiteId>, EventRef)>,
    /// What each boot was told may be lost: positions from here on, of views before this one.
    lost: BTreeMap<(BootId, GroupId), Vec<(Position, u64)>>,
}

#[derive(Clone, Copy)]
struct Delivery {
    view: ViewId,
    position: Option<Position>,
    event: EventRef,
}

impl Ledger {
    fn observe(&mut self, event: &Event) {
        self.sites.observe(event);
        match &event.what {
            What::Group(GroupWord::Cast { group, message, order }) => {
                self.casts.entry((*group, *message)).or_insert_with(|| (name(event), *order));
            }
            What::Group(GroupWord::Delivered { group, message, view, position, .. }) => {
                let delivery = Delivery { view: *view, position: *position, event: name(event) };
                let all = self.deliveries.entry((*group, *message)).or_default();
                if !all.iter().any(|(boot, _)| *boot == event.boot) {
                    all.push((event.boot, delivery));
                }
            }
            What::Group(GroupWord::Installed { group, view, members, .. }) => {
                self.first.entry((event.boot, *group)).or_insert(view.number);
                let known = || (members.clone(), name(event));
                self.views.entry((*group, *view)).or_insert_with(known);
            }
            What::Group(GroupWord::Restored { group, position }) => {
                let view = self.sites.group_view(event.boot, *group);
                let number = view.map_or(0, |now| now.view.number);
                let best = self.restored.entry((event.boot, *group)).or_default();
                *best = ((best.0).max(*position), best.1.max(number));
            }
            What::Group(GroupWord::MaybeLost { group, from }) => {
                let view = self.sites.group_view(event.boot, *group);
                let number = view.map_or(0, |now| now.view.number);
                self.lost.entry((event.boot, *group)).or_default().push((*from, number));
            }
            _ => {}
        }
    }

    /// How many positions of each group are part of a state that somebody took over, and were delivered by nobody. The last
    /// member that has a message may restart before it delivers it; then the message comes with its log.
    fn unseen(&self) -> BTreeMap<GroupId, u64> {
        let mut seen = BTreeMap::<GroupId, BTreeSet<Position>>::new();
        for ((group, _), deliveries) in &self.deliveries {
            let positions = deliveries.iter().filter_map(|(_, delivery)| delivery.position);
            seen.entry(*group).or_default().extend(positions);
        }
        let mut unseen = BTreeMap::new();
        for ((_, group), (restored, _)) in &self.restored {
            let seen = seen.get(group).map_or(0, |seen| seen.range(..=*restored).count() as u64);
            let most: &mut u64 = unseen.entry(*group).or_default();
            *most = (*most).max(restored.0.saturating_sub(seen));
        }
        unseen
    }

    /// A correct member of the view of `delivery` that neither delivered the message nor took over state with it, nor was
    /// told that it may be lost. A boot that learns late that it was admitted begins with a later view: nothing in FIFO order of an earlier one is for it.
    fn missing(&self, key: &Key, delivery: Delivery) -> Option<(SiteId, EventRef)> {
        let (members, installed) = self.views.get(&(key.0, delivery.view))?;
        let have = self.deliveries.get(key);
        let lacks =
            |boot: BootId| have.is_none_or(|have| !have.iter().any(|(has, _)| *has == boot));
        let begins_later = |boot: BootId| {
            self.first.get(&(boot, key.0)).is_some_and(|first| delivery.view.number < *first)
        };
        let covered = |boot: BootId| match (self.restored.get(&(boot, key.0)), delivery.position) {
            (_, None) if begins_later(boot) => true,
            (None, _) => false,
            (Some((restored, _)), Some(position)) => position <= *restored,
            (Some((_, view)), None) => delivery.view.number <= *view,
        };
        let is_lost = |boot: BootId| {
            self.lost.get(&(boot, key.0)).into_iter().flatten().any(|(from, view)| {
                delivery.view.number < *view && delivery.position.is_none_or(|at| at >= *from)
            })
        };
        let correct = self.sites.correct().into_iter();
        correct.filter(|(_, site)| members.contains(site)).find_map(|(boot, site)| {
            let seen = self.sites.group_view(boot, key.0).map_or(*installed, |now| now.event);
            (lacks(boot) && !covered(boot) && !is_lost(boot)).then_some((site, seen))
        })
    }
}

/// MC-3: a message that one correct member delivered is delivered by all correct members of that view of the group, or
/// is part of the state they took over. *Correct* is who neither crashed nor was killed by the end of the trace.
#[derive(Default)]
pub struct Atomicity {
    ledger: Ledger,
}

impl Property for Atomicity {
    const ID: &'static str = "MC-3";
    const SAYS: &'static str = "what one correct member delivers all correct members of the view deliver or have in their state";

    fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        self.ledger.observe(event);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Violation> {
        for (key, deliveries) in &self.ledger.deliveries {
            for (boot, delivery) in deliveries {
                if !self.ledger.sites.is_correct(*boot) {
                    continue;
                }
                if let Some((site, seen)) = self.ledger.missing(key, *delivery) {
                    let text = format!(
                        "{} delivered here but not by {site:?}, a correct member of {:?}",
                        show(key.1),
                        delivery.view
                    );
                    return Err(violation(Self::ID, text, [delivery.event, seen]));
                }
            }
        }
        Ok(())
    }
}

/// MC-6: what a correct member casts, all correct members of the view in which it is delivered deliver, or have in the
/// state they took over.
#[derive(Default)]
pub struct Validity {
    ledger: Ledger,
}

impl Property for Validity {
    const ID: &'static str = "MC-6";
    const SAYS: &'static str = "what a correct member casts is delivered by all correct members";

    fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        self.ledger.observe(event);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Violation> {
        let ledger = &self.ledger;
        let mut unseen = ledger.unseen();
        for (key, (cast, order)) in &ledger.casts {
            if !ledger.sites.is_correct(cast.0) {
                continue;
            }
            let deliveries = ledger.deliveries.get(key).into_iter().flatten();
            let deliveries = deliveries.map(|(_, delivery)| delivery);
            let Some(latest) = deliveries.max_by_key(|delivery| delivery.view.number) else {
                let correct = ledger.sites.correct();
                let member = |(boot, _): &(BootId, SiteId)| {
                    ledger.sites.group_view(*boot, key.0).map(|now| now.event)
                };
                let hidden =
                    unseen.get_mut(&key.0).filter(|left| *order == Order::Total && **left > 0);
                if let Some(left) = hidden {
                    *left -= 1;
                } else if let Some(seen) = correct.iter().find_map(member) {
                    let text = format!("{} cast by a correct site, never delivered", show(key.1));
                    return Err(violation(Self::ID, text, [*cast, seen]));
                }
                continue;
            };
            if let Some((site, _)) = ledger.missing(key, *latest) {
                let text = format!(
                    "{} cast by a correct site but not delivered by {site:?}, a correct member of {:?}",
                    show(key.1),
                    latest.view
                );
                return Err(violation(Self::ID, text, [*cast, latest.event]));
            }
        }
        Ok(())
    }
}
