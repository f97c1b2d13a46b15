//! What the users of all nodes saw, and where the nodes stand.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_base::{BootId, GroupId, MessageId};
use mainstay_membership::{Role, View};
use mainstay_sim::World;

use super::{Site, State, Told};

/// What the users saw, over all nodes and in the order of time.
#[derive(Default)]
pub struct Users {
    pub states: BTreeMap<(GroupId, u64), u64>,
    pub acked: BTreeMap<GroupId, u64>,
    pub reads: BTreeMap<(BootId, u64), u64>,
    pub replayed: BTreeSet<(GroupId, MessageId)>,
    /// The views of the sites, by number.
    pub views: BTreeMap<u64, View>,
    pub answered: u64,
    pub lost: bool,
}

impl Users {
    /// Equal numbers mean equal views, reasons included; equal positions mean equal states; no read is older than what was acknowledged before it began.
    pub fn watch(&mut self, world: &mut World<Site>) {
        for (boot, _, told) in world.take_events() {
            match told {
                Told::At(group, State { position, digest }) => {
                    let known = *self.states.entry((group, position)).or_insert(digest);
                    if known != digest && !self.lost {
                        world.fail(format!("two states at {position}"));
                    }
                }
                Told::Acked(group, position) => {
                    let acked = self.acked.entry(group).or_default();
                    *acked = position.max(*acked);
                }
                Told::ReadBegan(group, token) => {
                    let acked = self.acked.get(&group).copied().unwrap_or_default();
                    self.reads.insert((boot, token), acked);
                }
                Told::ReadReady(_, token, position) => {
                    self.answered += 1;
                    let least = self.reads[&(boot, token)];
                    if position < least && !self.lost {
                        world.fail(format!("a read of {position} began after {least}"));
                    }
                }
                Told::MaybeLost(_) => self.lost = true,
                Told::View(view) => {
                    let number = view.id.number;
                    let known = self.views.entry(number).or_insert_with(|| (*view).clone());
                    if *known != *view {
                        world.fail(format!("MB-1: two views {number}: {known:?}, {view:?}"));
                    }
                }
                Told::Replayed(group, message) => {
                    self.replayed.insert((group, message));
                }
            }
        }
    }
}

/// All nodes are whole members of one view, and have delivered all that is known.
pub fn all_are_one(world: &World<Site>, nodes: usize) -> bool {
    let at = |index: usize| world.node(index).filter(|_| world.is_up(index));
    let settled = |index: usize| {
        at(index).is_some_and(|site| {
            let membership = site.stack.core().membership();
            membership.role() == Role::Member
                && membership.view().members.len() == nodes
                && site.stack.core().groups().all(|(_, group)| {
                    let status = group.status();
                    status.whole && !status.blocked && status.delivered == status.known
                })
        })
    };
    (0..nodes).all(settled)
        && (1..nodes).all(|index| {
            let (a, b) = (at(0).unwrap(), at(index).unwrap());
            a.stack.core().membership().view().id == b.stack.core().membership().view().id
        })
}

/// Where every node stands.
pub fn standing(world: &World<Site>) -> String {
    let mut text = String::new();
    for site in (0..world.roster().len()).filter_map(|index| world.node(index)) {
        let (core, membership) = (site.stack.core(), site.stack.core().membership());
        let suspected: Vec<_> = membership.suspected().collect();
        text += &format!(
            "{:?} {:?} of {:?} {:?}, suspects {suspected:?}, voter {}, minority {}\n",
            core.me(),
            membership.role(),
            membership.view().id,
            membership.view().members,
            membership.is_voter(),
            membership.in_minority(),
        );
        for (_, group) in core.groups() {
            text += &format!("    {:?}\n    {:?}\n", group.status(), group.stats());
        }
    }
    text
}
