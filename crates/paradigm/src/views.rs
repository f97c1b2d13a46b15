//! Who is a member, as part of the replicated state.

use std::hash::Hasher;

use mainstay_base::{Departures, Reason, SiteId};
use serde::{Deserialize, Serialize};

/// The members of the group have changed, at this place in the order of the commands.
///
/// Told to [`StateMachine::view`](crate::StateMachine::view). Views are told in the order of their numbers, each once at
/// most; some may be left out, when several follow each other at once: then `joined` and `left` are of all of them
/// together. A view is told a little after it began: commands of one who joins may come before it, those of one who has
/// left never come behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MembersChanged {
    /// The number of the view; higher than those told before.
    pub number: u64,
    /// Who works, oldest first.
    pub members: Vec<SiteId>,
    /// Of these, who was not among those told before. A node that started anew is another site, which joined.
    pub joined: Vec<SiteId>,
    /// Who was among those told before and is no more, in their order, and why: the same at all replicas.
    pub left: Vec<(SiteId, Reason)>,
}

/// The view that was told last; number 0 and nobody before the first.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Members {
    pub(crate) number: u64,
    pub(crate) sites: Vec<SiteId>,
}

impl Members {
    /// What changes if `next` follows, which says with `departures` who left and why; `None` if it does not follow.
    pub(crate) fn change_to(&self, next: &Self, departures: &Departures) -> Option<MembersChanged> {
        let joined = next.sites.iter().filter(|site| !self.sites.contains(site)).copied();
        let gone = self.sites.iter().filter(|site| !next.sites.contains(site)).copied();
        let why = |site| departures.why(site).unwrap_or(Reason::Absent);
        (next.number > self.number).then(|| MembersChanged {
            number: next.number,
            members: next.sites.clone(),
            joined: joined.collect(),
            left: gone.map(|site| (site, why(site))).collect(),
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
