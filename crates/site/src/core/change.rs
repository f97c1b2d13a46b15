//! The view change as the groups see it: wedge, cut, hold, install.

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstay_base::{BootId, GroupId, Instant, ViewId, codec};
use mainstay_membership::{self as membership, Extension, View};
use mainstay_multicast::{Agreed, Cut, FlushState};

use super::{Absence, Core, Output, Record, Writer};

/// For each group its latest view and who was in it: agreed with the site views, as their annex.
pub type Table = BTreeMap<GroupId, Agreed>;

impl Core {
    #[inline(never)]
    pub(super) fn on_membership(&mut self, now: Instant, output: membership::Output) {
        use membership::Output as Out;
        match output {
            Out::Send { to, message } => {
                let packet = super::Packet::View(message);
                self.outputs.push_back(Output::Send { to, packet });
            }
            Out::Persist { io, durable } => {
                self.persist(Writer::Membership(io), Record::Membership(durable));
            }
            Out::Wedge => self.wedge(now),
            Out::ComputeCut { base, views, states } => {
                let (cut, annex) = compute(&base, &views, &states);
                self.tell(now, membership::Input::Cut { cut, annex });
            }
            Out::Hold { extension } => self.hold(now, &extension),
            Out::Install { extension, member, .. } => self.install(now, &extension, member),
            Out::Isolate { boot } => self.outputs.push_back(Output::Isolate { boot }),
            Out::Killed => self.outputs.push_back(Output::Killed),
            Out::Suspected { boot, evidence } => {
                self.outputs.push_back(Output::Suspected { boot, evidence });
            }
            Out::Minority { on } => {
                self.pause_groups(now, on);
                self.outputs.push_back(Output::Minority { on });
            }
        }
    }

    fn pause_groups(&mut self, now: Instant, on: bool) {
        for group in self.groups.values_mut() {
            if on {
                group.pause(now);
            } else {
                group.resume(now);
            }
        }
    }

    fn wedge(&mut self, now: Instant) {
        let mut states = Vec::with_capacity(self.groups.len());
        for group in self.groups.values_mut() {
            group.wedge();
            states.push(group.flush());
        }
        let state = codec::encode(&states);
        self.tell(now, membership::Input::Flushed { state });
    }

    fn hold(&mut self, now: Instant, extension: &Extension) {
        let last = extension.last().id;
        let views: Vec<_> = extension.views.iter().map(View::to_base).collect();
        self.holding = Some((last, self.groups.keys().copied().collect()));
        let mut named = cuts(&extension.cut);
        for (id, group) in &mut self.groups {
            match named.remove(id) {
                Some(cut) => group.hold(now, &cut, &views),
                None => {
                    // Nobody of the group took part in the cut, not even this boot: there is nothing to hold.
                    if let Some((_, waits)) = &mut self.holding {
                        waits.remove(id);
                    }
                }
            }
        }
        self.finish_holding(now);
    }

    #[cold]
    pub(super) fn on_holding(&mut self, now: Instant, group: GroupId, view: ViewId) {
        if let Some((wanted, waits)) = &mut self.holding
            && *wanted == view
        {
            waits.remove(&group);
            self.finish_holding(now);
        }
    }

    fn finish_holding(&mut self, now: Instant) {
        if let Some((view, _)) = self.holding.take_if(|(_, waits)| waits.is_empty()) {
            self.tell(now, membership::Input::Held { view });
        }
    }

    fn install(&mut self, now: Instant, extension: &Extension, member: bool) {
        self.holding = None;
        for view in &extension.views {
            let member = view.member(self.me).is_some();
            self.outputs.push_back(Output::View { view: Box::new(view.clone()), member });
        }
        let views: Vec<_> = extension.views.iter().map(View::to_base).collect();
        let mut named = cuts(&extension.cut);
        self.note_absent(&named, &views);
        self.note_unborn(extension.last());
        let mut unheard = false;
        for (id, group) in &mut self.groups {
            if let Some(cut) = named.remove(id) {
                group.install(now, &cut, &views);
                unheard |= group.is_loss_accepted();
            }
        }
        if unheard {
            // The word came when the states for this view were gathered already: it counts at the next one.
            self.tell(now, membership::Input::Renew);
        }
        if member && self.membership.in_minority() {
            self.pause_groups(now, true);
        }
        // What was queued while the old view ended goes out with this turn.
        self.groups.values_mut().for_each(|group| group.end_turn(now));
    }

    /// Which groups have had no view yet: they have no past that could be lacking.
    fn note_unborn(&mut self, last: &View) {
        let table = table(last);
        let is_unborn = |id: &GroupId| table.as_ref().is_some_and(|table| !table.contains_key(id));
        self.unborn = self.groups.keys().copied().filter(is_unborn).collect();
    }

    /// Who takes no part in which group from here on.
    fn note_absent(&mut self, cuts: &BTreeMap<GroupId, Cut>, views: &[mainstay_base::View]) {
        self.absent.clear();
        let Some(last) = views.last() else { return };
        for (group, cut) in cuts {
            for (node, refused) in cut.absent(last) {
                let why = if refused { Absence::OtherSettings } else { Absence::Missing };
                self.absent.entry(*group).or_default().insert(node, why);
                self.outputs.push_back(Output::Absent { group: *group, node, why });
            }
        }
    }
}

/// The latest view of each group, as of a view. `None`: it cannot be read, and says nothing of any group.
fn table(of: &View) -> Option<Table> {
    if of.annex.is_empty() { Some(Table::new()) } else { codec::decode(&of.annex).ok() }
}

/// The cut of every group that somebody spoke for, and the table that goes with the last of the views. What cannot be
/// read in a state counts as nothing known: its sender contributes to no cut.
fn compute(base: &View, views: &[View], states: &[(BootId, Bytes)]) -> (Bytes, Bytes) {
    // Without knowing the latest view of a group nobody can say what must be in its cut: then no group goes on.
    let Some(mut table) = table(base) else { return (Bytes::new(), base.annex.clone()) };
    let mut of_group: BTreeMap<GroupId, Vec<(BootId, FlushState)>> = BTreeMap::new();
    for (boot, bytes) in states {
        let flushed: Vec<FlushState> = codec::decode(bytes).unwrap_or_default();
        for state in flushed {
            let of = of_group.entry(state.group).or_default();
            // What is said twice counts once.
            if of.last().is_none_or(|(last, _)| last != boot) {
                of.push((*boot, state));
            }
        }
    }
    let Some(last) = views.last().map(View::to_base) else {
        return (Bytes::new(), base.annex.clone());
    };
    let mut cuts = Vec::with_capacity(of_group.len());
    for (group, states) in of_group {
        let nodes = &states[0].1.settings.nodes;
        let agreed = table.get(&group).cloned().unwrap_or_else(|| Agreed::first(nodes));
        let cut = Cut::compute(&states, &agreed, &last);
        if let Some(agreed) = cut.agreed(&last) {
            table.insert(group, agreed);
        }
        cuts.push(cut);
    }
    (codec::encode(&cuts), codec::encode(&table))
}

fn cuts(bytes: &Bytes) -> BTreeMap<GroupId, Cut> {
    let cuts: Vec<Cut> = codec::decode(bytes).unwrap_or_default();
    cuts.into_iter().map(|cut| (cut.group, cut)).collect()
}

#[cfg(test)]
mod tests {
    use mainstay_base::{BootNonce, ClusterId, Incarnation, Level, Member, NodeId, SiteId};
    use mainstay_multicast::{Config, Group, Start};

    use super::*;

    /// A table that cannot be read is no empty one: then no group has a cut, and the table stays as it is (MB-37).
    #[test]
    fn an_unreadable_table_stops_the_groups() {
        let mut base = View::empty([]);
        base.annex = Bytes::from_static(b"no table");
        let next = View { annex: Bytes::new(), ..base.clone() };
        let (cut, annex) = compute(&base, &[next], &[]);
        assert!(cut.is_empty());
        assert_eq!(annex, base.annex);
    }

    /// What one boot says of a group counts once, however often it says it.
    #[test]
    fn a_boot_speaks_once_for_a_group() {
        let cluster = ClusterId::from_entropy(1);
        let nodes: Vec<_> = ["a", "b", "c"].map(|name| NodeId::new(cluster, name)).into();
        let id = GroupId::new(cluster, "g");
        let members = nodes.iter().map(|node| Member {
            site: SiteId { node: *node, incarnation: Incarnation(1) },
            nonce: BootNonce(1),
        });
        let members: Vec<_> = members.collect();
        let state = |boot: BootId, level: Level| {
            let config = Config::new(id, nodes.iter().copied().collect()).deliver_at(level);
            let mut group = Group::new(config.build().unwrap(), boot, Start::Fresh);
            group.wedge();
            group.flush()
        };
        let boots: Vec<_> = members.iter().map(Member::boot).collect();
        let often = vec![state(boots[0], Level::Delivered); 3];
        let mut states = vec![(boots[0], codec::encode(&often))];
        for boot in &boots[1..] {
            states.push((*boot, codec::encode(&vec![state(*boot, Level::Safe)])));
        }
        let view = View { members, ..View::empty(nodes.clone()) };
        let (bytes, _) = compute(&view, std::slice::from_ref(&view), &states);
        let cut = &cuts(&bytes)[&id];
        assert_eq!(cut.settings.deliver_at, Level::Safe);
        assert_eq!((cut.carriers.len(), cut.refused.len()), (2, 1));
    }
}
