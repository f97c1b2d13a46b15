//! MB-1 and MB-30: there is one sequence of views, and each site walks along it without a gap.

use std::collections::BTreeMap;

use mainstay_base::trace::{Event, GroupWord, MembershipWord, What};
use mainstay_base::{BootId, GroupId, NodeId, SiteId, ViewId};

use crate::context::{EventRef, Sites, name, violation};
use crate::property::{Property, Violation};

/// MB-1: equal numbers mean equal views, and each site installs consecutive numbers from its join on.
///
/// The numbers of a group's views are those of the site views that give them; a site may skip only group views of which
/// it is no member.
#[derive(Default)]
pub struct ViewSequence {
    sites: Sites,
    views: BTreeMap<u64, Known>,
    last: BTreeMap<BootId, (u64, EventRef)>,
    group_views: BTreeMap<(GroupId, u64), Known>,
    walks: BTreeMap<(BootId, GroupId), Vec<(u64, EventRef)>>,
}

struct Known {
    view: ViewId,
    members: Vec<SiteId>,
    event: EventRef,
}

impl Known {
    fn agrees(&self, view: ViewId, members: &[SiteId], event: &Event) -> Result<(), Violation> {
        if self.view == view && self.members == members {
            return Ok(());
        }
        Err(violation(
            ViewSequence::ID,
            format!("two different views with the number {}", view.number),
            [name(event), self.event],
        ))
    }
}

impl ViewSequence {
    fn on_installed(
        &mut self,
        event: &Event,
        view: ViewId,
        members: &[SiteId],
    ) -> Result<(), Violation> {
        if let Some((last, before)) = self.last.insert(event.boot, (view.number, name(event)))
            && view.number != last + 1
        {
            let text = format!("view {} installed after view {last}", view.number);
            return Err(violation(Self::ID, text, [name(event), before]));
        }
        self.views
            .entry(view.number)
            .or_insert_with(|| Known { view, members: members.to_vec(), event: name(event) })
            .agrees(view, members, event)
    }

    fn on_installed_group(
        &mut self,
        event: &Event,
        group: GroupId,
        view: ViewId,
        members: &[SiteId],
    ) -> Result<(), Violation> {
        let walk = self.walks.entry((event.boot, group)).or_default();
        if let Some((last, before)) = walk.last()
            && view.number <= *last
        {
            let text =
                format!("view {} of {group:?} installed after view {last} of it", view.number);
            return Err(violation(Self::ID, text, [name(event), *before]));
        }
        walk.push((view.number, name(event)));
        if let Some(known) = self.views.get(&view.number)
            && known.view != view
        {
            let text = format!("view {} of {group:?} is not the site view", view.number);
            return Err(violation(Self::ID, text, [name(event), known.event]));
        }
        self.group_views
            .entry((group, view.number))
            .or_insert_with(|| Known { view, members: members.to_vec(), event: name(event) })
            .agrees(view, members, event)
    }
}

impl Property for ViewSequence {
    const ID: &'static str = "MB-1";
    const SAYS: &'static str = "views with one number are one view; each site installs consecutive numbers from its join on";

    fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        match &event.what {
            What::Membership(MembershipWord::Installed { view, members, .. }) => {
                self.on_installed(event, *view, members)?
            }
            What::Group(GroupWord::Installed { group, view, members, .. }) => {
                self.on_installed_group(event, *group, *view, members)?;
            }
            _ => {}
        }
        self.sites.observe(event);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Violation> {
        for ((boot, group), walk) in &self.walks {
            let site = self.sites.site(*boot);
            for step in walk.windows(2) {
                let [(from, before), (to, after)] = step else { continue };
                let skipped = self.group_views.range((*group, from + 1)..(*group, *to));
                for ((_, number), known) in skipped {
                    if site.is_some_and(|site| known.members.contains(&site)) {
                        let text = format!("view {number} of {group:?} skipped by a member of it");
                        return Err(violation(Self::ID, text, [*after, *before, known.event]));
                    }
                }
            }
        }
        for ((group, number), known) in &self.group_views {
            if let Some(of_sites) = self.views.get(number)
                && of_sites.view != known.view
            {
                let text = format!("view {number} of {group:?} is not the site view");
                return Err(violation(Self::ID, text, [known.event, of_sites.event]));
            }
        }
        Ok(())
    }
}

/// MB-30: the committed sequences of any two sites are prefixes of one another.
///
/// A site's sequence starts with the views before its join, which it does not install; so all installed views must lie
/// on one line: one id, one list of members in age order and one roster for each number, whenever and wherever.
#[derive(Default)]
pub struct CommittedPrefix {
    line: BTreeMap<u64, Link>,
    ends: BTreeMap<BootId, (u64, EventRef)>,
}

struct Link {
    view: ViewId,
    members: Vec<SiteId>,
    roster: Vec<NodeId>,
    event: EventRef,
}

impl Property for CommittedPrefix {
    const ID: &'static str = "MB-30";
    const SAYS: &'static str = "the committed sequences of any two sites, members and roster included, are prefixes of one another";

    fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        let What::Membership(MembershipWord::Installed { view, members, roster }) = &event.what
        else {
            return Ok(());
        };
        if let Some((end, before)) = self.ends.insert(event.boot, (view.number, name(event)))
            && view.number <= end
        {
            let text = format!("view {} extends a sequence that has view {end}", view.number);
            return Err(violation(Self::ID, text, [name(event), before]));
        }
        let link = self.line.entry(view.number).or_insert_with(|| Link {
            view: *view,
            members: members.clone(),
            roster: roster.clone(),
            event: name(event),
        });
        let what = if link.view != *view {
            "coordinators"
        } else if link.members != *members {
            "members"
        } else if link.roster != *roster {
            "rosters"
        } else {
            return Ok(());
        };
        let text = format!("the sequences part at view {}: different {what}", view.number);
        Err(violation(Self::ID, text, [name(event), link.event]))
    }

    fn finish(&mut self) -> Result<(), Violation> {
        Ok(())
    }
}
