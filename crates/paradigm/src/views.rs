//! Who is a member, as part of the replicated state.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::Arc;

use mainstay_base::{Departures, NamedSite, NodeId, Reason, SiteId};
use serde::{Deserialize, Serialize};

/// The members of the group have changed, at this place in the order of the commands.
///
/// Told to [`StateMachine::view`](crate::StateMachine::view). Views are told in the order of their numbers, each once at
/// most; some may be left out, when several follow each other at once: then `joined` and `left` are of all of them
/// together. A view is told a little after it began: commands of one who joins may come before it, those of one who has
/// left never come behind it.
///
/// The name of a member is what the configuration calls its node. A [`NodeId`] is made of the name, so all replicas that know the node
/// have the same name for it; it is `?` at one whose configuration lacks the node.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MembersChanged {
    /// The number of the view; higher than those told before.
    pub number: u64,
    /// Who works, oldest first.
    pub members: Vec<NamedSite>,
    /// Of these, who was not among those told before. A node that started anew is another site, which joined.
    pub joined: Vec<NamedSite>,
    /// Who was among those told before and is no more, in their order, and why: the same at all replicas.
    pub left: Vec<(NamedSite, Reason)>,
}

/// What the configuration calls the nodes.
#[derive(Clone, Default)]
pub(crate) struct Names(BTreeMap<NodeId, Arc<str>>);

impl Names {
    pub(crate) fn new(names: BTreeMap<NodeId, Arc<str>>) -> Self {
        Self(names)
    }

    fn of(&self, site: SiteId) -> NamedSite {
        let name = self.0.get(&site.node).map_or_else(|| "?".into(), Arc::clone);
        NamedSite::new(name, site)
    }
}

/// The view that was told last; number 0 and nobody before the first.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Members {
    pub(crate) number: u64,
    pub(crate) sites: Vec<SiteId>,
}

impl Members {
    /// What changes if `next` follows, which says with `departures` who left and why; `None` if it does not follow.
    pub(crate) fn change_to(
        &self,
        next: &Self,
        departures: &Departures,
        names: &Names,
    ) -> Option<MembersChanged> {
        let joined = next.sites.iter().filter(|site| !self.sites.contains(site)).copied();
        let gone = self.sites.iter().filter(|site| !next.sites.contains(site)).copied();
        let why = |site| departures.why(site).unwrap_or(Reason::Absent);
        (next.number > self.number).then(|| MembersChanged {
            number: next.number,
            members: next.sites.iter().map(|site| names.of(*site)).collect(),
            joined: joined.map(|site| names.of(site)).collect(),
            left: gone.map(|site| (names.of(site), why(site))).collect(),
        })
    }

    pub(crate) fn hash(&self, hasher: &mut impl Hasher) {
        hasher.write_u64(self.number);
        hasher.write_u64(self.sites.len() as u64);
        for site in &self.sites {
            hasher.write(site.node.as_bytes());
            hasher.write_u32(site.incarnation.0);
        }
    }
}
