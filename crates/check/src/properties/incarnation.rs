//! MB-14: an incarnation is used once.

use std::collections::BTreeMap;
use std::ops::Bound;

use mainstay_base::trace::{Event, GroupWord, MembershipWord, What};
use mainstay_base::{BootId, NodeId, SiteId};

use crate::context::{EventRef, Sites, name, violation};
use crate::property::{Property, Violation};

/// MB-14: along the sequence of views the incarnations of a node strictly increase; no view has two of them, none comes
/// back after it was left out, and none is shared by two boots.
#[derive(Default)]
pub struct Incarnations {
    sites: Sites,
    views: BTreeMap<u64, (Vec<SiteId>, EventRef)>,
    owners: BTreeMap<SiteId, (BootId, EventRef)>,
}

impl Incarnations {
    fn check_view(&self, members: &[SiteId], event: &Event) -> Result<(), Violation> {
        let mut seen: BTreeMap<NodeId, SiteId> = BTreeMap::new();
        for site in members {
            if site.incarnation.0 == 0 {
                let text = format!("{site:?}: incarnations begin with 1");
                return Err(violation(Self::ID, text, [name(event)]));
            }
            if let Some(other) = seen.insert(site.node, *site) {
                let text = format!("{other:?} and {site:?} are in one view");
                return Err(violation(Self::ID, text, [name(event)]));
            }
        }
        Ok(())
    }

    /// Compares a view that is new with all others: the views of a run are few.
    fn check_line(&self, number: u64, members: &[SiteId], event: &Event) -> Result<(), Violation> {
        let fail =
            |text: String, other: EventRef| Err(violation(Self::ID, text, [name(event), other]));
        for site in members {
            let mut absent = None;
            for (other, (theirs, at)) in self.views.range(..number).rev() {
                match theirs.iter().find(|their| their.node == site.node) {
                    Some(their) if their.incarnation > site.incarnation => {
                        let text = format!("{site:?} in view {number} after {their:?} in {other}");
                        return fail(text, *at);
                    }
                    Some(their) if their == site => {
                        if let Some((gone, left)) = absent {
                            let text = format!("{site:?} is back although it left in view {gone}");
                            return fail(text, left);
                        }
                    }
                    _ => absent = Some((*other, *at)),
                }
            }
            let later = (Bound::Excluded(number), Bound::Unbounded);
            let mut absent = None;
            for (other, (theirs, at)) in self.views.range(later) {
                match theirs.iter().find(|their| their.node == site.node) {
                    Some(their) if their.incarnation < site.incarnation => {
                        let text = format!("{their:?} in view {other} after {site:?} in {number}");
                        return fail(text, *at);
                    }
                    Some(their) if their == site => {
                        if let Some((gone, left)) = absent {
                            let text = format!("{site:?} came back although it left in {gone}");
                            return fail(text, left);
                        }
                    }
                    _ => absent = Some((*other, *at)),
                }
            }
        }
        self.check_bridged(number, members, event)
    }

    /// A site that is in a view before and in one after must be in this one.
    fn check_bridged(
        &self,
        number: u64,
        members: &[SiteId],
        event: &Event,
    ) -> Result<(), Violation> {
        let later = (Bound::Excluded(number), Bound::Unbounded);
        for (theirs, at) in self.views.range(later).map(|(_, view)| view) {
            for site in theirs.iter().filter(|site| !members.contains(site)) {
                let before = self.views.range(..number).map(|(_, view)| view);
                if before.into_iter().any(|(earlier, _)| earlier.contains(site)) {
                    let text = format!("{site:?} came back although view {number} is without it");
                    return Err(violation(Self::ID, text, [name(event), *at]));
                }
            }
        }
        Ok(())
    }
}

impl Property for Incarnations {
    const ID: &'static str = "MB-14";
    const SAYS: &'static str =
        "the incarnations of a node strictly increase along the views; no view has two of them";

    fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        let (What::Membership(MembershipWord::Installed { members, .. })
        | What::Group(GroupWord::Installed { members, .. })) = &event.what
        else {
            return Ok(());
        };
        self.check_view(members, event)?;
        self.sites.observe(event);
        if let Some(site) = self.sites.site(event.boot) {
            let (owner, at) = *self.owners.entry(site).or_insert_with(|| (event.boot, name(event)));
            if owner != event.boot {
                let text = format!("{site:?} is two boots");
                return Err(violation(Self::ID, text, [name(event), at]));
            }
        }
        let What::Membership(MembershipWord::Installed { view, .. }) = &event.what else {
            return Ok(());
        };
        match self.views.get(&view.number) {
            Some((known, _)) if known == members => Ok(()),
            Some(_) => self.check_line(view.number, members, event),
            None => {
                self.check_line(view.number, members, event)?;
                self.views.insert(view.number, (members.clone(), name(event)));
                Ok(())
            }
        }
    }

    fn finish(&mut self) -> Result<(), Violation> {
        Ok(())
    }
}
