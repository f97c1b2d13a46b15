//! What several checkers must know about a trace: which site a boot is, whether it failed, where its groups stand.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_base::trace::{Event, GroupWord, MembershipWord, ProcessWord, What};
use mainstay_base::{BootId, GroupId, MessageId, Position, SiteId, ViewId};

use crate::property::Violation;

/// The name of an event.
pub(crate) type EventRef = (BootId, u64);

/// A message is named by its group and its id: sites number what they send per group.
pub(crate) type Key = (GroupId, MessageId);

pub(crate) fn name(event: &Event) -> EventRef {
    (event.boot, event.number)
}

/// `node/incarnation.sequence`, shorter than the derived form.
pub(crate) fn show(message: MessageId) -> String {
    format!("{:?}.{}", message.sender, message.sequence)
}

pub(crate) fn violation(
    id: &'static str,
    message: String,
    events: impl IntoIterator<Item = EventRef>,
) -> Violation {
    Violation { id, message, events: events.into_iter().collect() }
}

/// The view of a group in which a boot is.
#[derive(Clone, Debug)]
pub(crate) struct GroupView {
    pub(crate) view: ViewId,
    pub(crate) members: Vec<SiteId>,
    pub(crate) event: EventRef,
}

#[derive(Default)]
struct Boot {
    site: Option<SiteId>,
    failed: bool,
    groups: BTreeMap<GroupId, GroupView>,
}

/// The boots of a trace as far as it has been observed.
#[derive(Default)]
pub(crate) struct Sites {
    boots: BTreeMap<BootId, Boot>,
}

impl Sites {
    /// Follows the trace; to be called after the checker has judged the event by what was before it.
    pub(crate) fn observe(&mut self, event: &Event) {
        let boot = self.boots.entry(event.boot).or_default();
        match &event.what {
            What::Process(ProcessWord::Crashed) | What::Membership(MembershipWord::Killed) => {
                boot.failed = true
            }
            What::Membership(MembershipWord::Installed { members, .. }) => {
                boot.learn(event.boot, members)
            }
            What::Group(GroupWord::Installed { group, view, members, .. }) => {
                boot.learn(event.boot, members);
                let now = GroupView { view: *view, members: members.clone(), event: name(event) };
                boot.groups.insert(*group, now);
            }
            _ => {}
        }
    }

    /// The site that the boot became with the first view it installed.
    pub(crate) fn site(&self, boot: BootId) -> Option<SiteId> {
        self.boots.get(&boot)?.site
    }

    /// The view of `group` in which `boot` is.
    pub(crate) fn group_view(&self, boot: BootId, group: GroupId) -> Option<&GroupView> {
        self.boots.get(&boot)?.groups.get(&group)
    }

    /// The boots that neither crashed nor were killed, with the sites they are.
    pub(crate) fn correct(&self) -> Vec<(BootId, SiteId)> {
        let alive = self.boots.iter().filter(|(_, boot)| !boot.failed);
        alive.filter_map(|(id, boot)| Some((*id, boot.site?))).collect()
    }

    pub(crate) fn is_correct(&self, boot: BootId) -> bool {
        self.boots.get(&boot).is_some_and(|known| !known.failed)
    }
}

impl Boot {
    fn learn(&mut self, id: BootId, members: &[SiteId]) {
        if self.site.is_none() {
            self.site = members.iter().copied().find(|site| site.node == id.node);
        }
    }
}

/// The losses that an operator accepted. What a loss gave up counts for views before it only.
///
/// A `MaybeLost` belongs to the group view its boot is in, or to the first it installs afterwards if it is in none.
#[derive(Default)]
pub(crate) struct Losses {
    known: BTreeSet<(GroupId, u64, Position)>,
    waiting: BTreeMap<(BootId, GroupId), Position>,
}

impl Losses {
    pub(crate) fn observe(&mut self, event: &Event, sites: &Sites) {
        match &event.what {
            What::Group(GroupWord::MaybeLost { group, from }) => {
                match sites.group_view(event.boot, *group) {
                    Some(now) => {
                        self.known.insert((*group, now.view.number, *from));
                    }
                    None => {
                        self.waiting.insert((event.boot, *group), *from);
                    }
                }
            }
            What::Group(GroupWord::Installed { group, view, .. }) => {
                if let Some(from) = self.waiting.remove(&(event.boot, *group)) {
                    self.known.insert((*group, view.number, from));
                }
            }
            _ => {}
        }
    }

    /// Places with equal eras must agree; a loss between two views separates what it gave up.
    pub(crate) fn era(&self, group: GroupId, position: Position, view: ViewId) -> usize {
        self.known
            .iter()
            .filter(|(of, since, from)| *of == group && *since <= view.number && *from <= position)
            .count()
    }

    /// Whether a loss after view `after` gave up `position`.
    pub(crate) fn gave_up(&self, group: GroupId, position: Position, after: u64) -> bool {
        self.known
            .iter()
            .any(|(of, since, from)| *of == group && *since > after && *from <= position)
    }
}
