//! Views of the sites, as everybody but the agreement on them sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{BootId, BootNonce, Incarnation, NodeId, SiteId, ViewId};

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

/// A site, and what the configuration calls its node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub struct NamedSite {
    /// The name of its node.
    pub name: Arc<str>,
    /// The site: node and incarnation.
    pub site: SiteId,
}

impl NamedSite {
    /// A site by name.
    #[must_use]
    pub fn new(name: Arc<str>, site: SiteId) -> Self {
        Self { name, site }
    }
}

impl fmt::Display for NamedSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.site.incarnation.0)
    }
}

/// Why a site is no member any more. It is part of the view that left the site out, and so the same at all who install that view;
/// it says what some member had seen, which may be wrong: a site that was only slow looks like a dead one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reason {
    /// It said that it was closing.
    Closed,
    /// Nothing came from it to some member for the timeout.
    Silent,
    /// Its node refused a connection of some member: its process had ended.
    Refused,
    /// Its node runs under another boot, or was admitted under another incarnation.
    Restarted,
    /// It did not get on: the members would have had to keep too much for it.
    Slow,
    /// It did not hear the member that manages the views, which others did. So ends a member that was cut off from the oldest, and one that
    /// was well while the oldest was stopped for a while.
    Accuser,
    /// All members had failed, and it was not there when the nodes began anew.
    Absent,
}

impl Reason {
    /// A word for logs and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::Refused => "refused",
            Self::Restarted => "restarted",
            Self::Slow => "slow",
            Self::Accuser => "accuser",
            Self::Absent => "absent",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// For each node its last site that left, and why. With it a reason is known however many views were missed.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Departures(BTreeMap<NodeId, (Incarnation, Reason)>);

impl Departures {
    /// Why a site that was a member once is none in the view that these belong to; `None` if it is one, or never was.
    #[must_use]
    pub fn why(&self, site: SiteId) -> Option<Reason> {
        let (last, why) = *self.0.get(&site.node)?;
        match last.cmp(&site.incarnation) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal => Some(why),
            // A later site of its node has been a member since.
            std::cmp::Ordering::Greater => Some(Reason::Restarted),
        }
    }

    /// A site leaves.
    pub fn note(&mut self, site: SiteId, why: Reason) {
        self.0.insert(site.node, (site.incarnation, why));
    }

    /// How many nodes have lost a site.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// No site ever left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
    /// Who left last, of each node, and why.
    pub departures: Departures,
}

impl View {
    /// The state before the first view of a cluster of `roster`.
    #[must_use]
    pub fn empty(roster: impl IntoIterator<Item = NodeId>) -> Self {
        let (members, departures) = Default::default();
        Self { id: ViewId::NONE, members, roster: roster.into_iter().collect(), departures }
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
