//! Views as the site hands them in, and who gives out positions in one.

use std::collections::BTreeSet;
use std::hash::Hasher as _;

use mainstay_base::{BootId, BootNonce, Fingerprinter, GroupId, NodeId, Position, SiteId, ViewId};
use serde::{Deserialize, Serialize};

/// A member of a site view: the site, and the boot that the view admitted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// The site.
    pub site: SiteId,
    /// The nonce of its boot.
    pub nonce: BootNonce,
}

impl Peer {
    /// The boot that messages go to.
    #[must_use]
    pub fn boot(&self) -> BootId {
        BootId { node: self.site.node, nonce: self.nonce }
    }
}

/// A view of the sites, agreed elsewhere.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SiteView {
    /// The view.
    pub id: ViewId,
    /// All its members, oldest first.
    pub members: Vec<Peer>,
}

impl SiteView {
    /// Those of the members that are configured for a group: the members of its view, in rank order.
    #[must_use]
    pub fn of_group(&self, nodes: &BTreeSet<NodeId>) -> Vec<Peer> {
        self.members.iter().filter(|peer| nodes.contains(&peer.site.node)).copied().collect()
    }

    /// Whether `boot` is a member.
    #[must_use]
    pub fn has(&self, boot: BootId) -> bool {
        self.members.iter().any(|peer| peer.boot() == boot)
    }
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
    /// Who was in it and is no more.
    pub left: Vec<SiteId>,
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
