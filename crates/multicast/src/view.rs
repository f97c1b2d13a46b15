//! Views of a group, and who gives out positions in one.

use std::collections::BTreeSet;
use std::hash::Hasher as _;

use mainstay_base::{
    Departures, Fingerprinter, GroupId, Member, NodeId, Position, Reason, SiteId, View, ViewId,
};

/// The members of `view` that are configured for a group: those of the view of the group, in rank order.
#[must_use]
pub(crate) fn of_group(view: &View, nodes: &BTreeSet<NodeId>) -> Vec<Member> {
    view.members.iter().filter(|member| nodes.contains(&member.site.node)).copied().collect()
}

/// A view of a group, as its members are told.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GroupView {
    /// The site view that gives it.
    pub id: ViewId,
    /// The members, oldest first; the place in this list is the rank.
    pub members: Vec<SiteId>,
    /// Of these, who was not in the last view of the group that this member was told.
    pub joined: Vec<SiteId>,
    /// Who was in it and is no more, and why: the same at all members.
    pub left: Vec<(SiteId, Reason)>,
    /// Of each node the last site that left, and why.
    pub departures: Departures,
    /// The first position of the view is the one after this.
    pub start: Position,
}

/// How much a node wants to give out the positions of a group: the one with the highest weight does (rendezvous
/// hashing). SipHash-1-3 with 128 bits and zero keys over the 16 bytes of the group's id and the 16 of the node's: a
/// wire contract.
#[must_use]
pub fn weight(group: GroupId, node: NodeId) -> u128 {
    let mut hasher = Fingerprinter::new();
    hasher.write(group.as_bytes());
    hasher.write(node.as_bytes());
    hasher.finish128()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_base::ClusterId;

    /// Golden values: they may never change.
    #[test]
    fn the_weights_are_frozen() {
        let cluster = ClusterId::from_entropy(7);
        let group = GroupId::new(cluster, "g");
        let of = |name| format!("{:032x}", weight(group, NodeId::new(cluster, name)));
        let golden = ["f64b6831d6a6d6c15bd31b21e2050e2e", "e1faaf6965db1dc4fcbabd035d62ed54"];
        assert_eq!([of("n1"), of("n2")], golden);
    }
}
