//! Views of the sites.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
pub use mainstay_base::Member;
use mainstay_base::{BootId, Departures, Incarnation, NodeId, Reason, SiteId, ViewId};
use serde::{Deserialize, Serialize};

/// A numbered list of the working sites.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct View {
    /// Number (consecutive; 0 is the empty state before the first view) and the proposer's nonce.
    pub id: ViewId,
    /// In age order: the oldest first, sites of one view by node id (BJ85 §4.2).
    pub members: Vec<Member>,
    /// The configured nodes; quorums are majorities of it, never of the members.
    pub roster: BTreeSet<NodeId>,
    /// The highest incarnation ever given to each node (MB-14).
    pub incarnations: BTreeMap<NodeId, Incarnation>,
    /// Who left last, of each node, and why.
    pub departures: Departures,
    /// What the layer above wants agreed together with the view; opaque here.
    pub annex: Bytes,
}

impl View {
    /// The state before the first view of a cluster of `roster`.
    #[must_use]
    pub fn empty(roster: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            id: ViewId::NONE,
            members: Vec::new(),
            roster: roster.into_iter().collect(),
            incarnations: BTreeMap::new(),
            departures: Departures::default(),
            annex: Bytes::new(),
        }
    }

    /// The view as everybody but the agreement on it sees it.
    #[must_use]
    pub fn to_base(&self) -> mainstay_base::View {
        let (members, roster) = (self.members.clone(), self.roster.clone());
        let departures = self.departures.clone();
        mainstay_base::View { id: self.id, members, roster, departures }
    }

    /// How many of the roster make a majority.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.roster.len() / 2 + 1
    }

    /// The member that `boot` is, if it is one.
    #[must_use]
    pub fn member(&self, boot: BootId) -> Option<&Member> {
        self.members.iter().find(|member| member.boot() == boot)
    }

    /// Place in the age order, the oldest at 0.
    #[must_use]
    pub fn rank(&self, boot: BootId) -> Option<usize> {
        self.members.iter().position(|member| member.boot() == boot)
    }

    /// The boots of the members, oldest first.
    pub fn boots(&self) -> impl Iterator<Item = BootId> + '_ {
        self.members.iter().map(Member::boot)
    }

    /// The next view: only `members` of this one and `joiners` are in it. A joiner gets the next incarnation of its
    /// node, is the youngest, and its node's former incarnation is out. `left` says why the others leave.
    pub(crate) fn successor(
        &self,
        nonce: u64,
        keep: &BTreeSet<BootId>,
        join: &BTreeSet<BootId>,
        left: &BTreeMap<BootId, Reason>,
    ) -> Self {
        let mut next = self.clone();
        next.id = ViewId { number: self.id.number + 1, nonce };
        next.members.retain(|member| {
            let is_replaced = join.iter().any(|boot| boot.node == member.site.node);
            let stays = keep.contains(&member.boot()) && !is_replaced;
            if !stays {
                let why = left.get(&member.boot()).copied().unwrap_or(Reason::Absent);
                let why = if is_replaced { Reason::Restarted } else { why };
                next.departures.note(member.site, why);
            }
            stays
        });
        for boot in join {
            let incarnation = next.incarnations.get(&boot.node).copied().unwrap_or_default().next();
            next.incarnations.insert(boot.node, incarnation);
            let site = SiteId { node: boot.node, incarnation };
            next.members.push(Member { site, nonce: boot.nonce });
        }
        next
    }
}
