//! Views of the sites, as everybody but the agreement on them sees them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{BootId, BootNonce, NodeId, SiteId, ViewId};

/// A site as a view names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The site.
    pub site: SiteId,
    /// The nonce of the boot that the view admitted.
    pub nonce: BootNonce,
}

impl Member {
    /// The boot that the view admitted: who gets messages.
    #[must_use]
    pub fn boot(&self) -> BootId {
        BootId { node: self.site.node, nonce: self.nonce }
    }
}

/// A numbered list of the working sites.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct View {
    /// Its number, which is a fencing token, and the nonce of who proposed it.
    pub id: ViewId,
    /// In age order: the oldest first, sites of one view by node id.
    pub members: Vec<Member>,
    /// The configured nodes; quorums are majorities of it, never of the members.
    pub roster: BTreeSet<NodeId>,
}

impl View {
    /// The state before the first view of a cluster of `roster`.
    #[must_use]
    pub fn empty(roster: impl IntoIterator<Item = NodeId>) -> Self {
        Self { id: ViewId::NONE, members: Vec::new(), roster: roster.into_iter().collect() }
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

    /// Whether `boot` is a member.
    #[must_use]
    pub fn has(&self, boot: BootId) -> bool {
        self.member(boot).is_some()
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
}
