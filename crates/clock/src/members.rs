//! Who takes part, each with a rank.

use std::fmt;
use std::sync::Arc;

use mainstay_base::{SiteId, View, ViewId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most members of one table: a stamp has a number for each.
pub const MEMBERS_MAX: usize = 1024;

/// The place of a process in [`Members`], from 0. It means something within one view only.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Rank(pub u16);

impl Rank {
    /// As an index.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.into()
    }

    /// Of an index below [`MEMBERS_MAX`].
    pub(crate) fn of(index: usize) -> Self {
        Self(u16::try_from(index).expect("a rank is below MEMBERS_MAX"))
    }
}

/// Why a table of members is refused. Nothing was made.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MembersError {
    /// A node is in it twice, as one incarnation or as two.
    #[error("a node is listed twice, at {0:?}")]
    Twice(Rank),
    /// There are none, or more than [`MEMBERS_MAX`].
    #[error("{0} members, where 1 to {MEMBERS_MAX} may be")]
    Count(usize),
}

/// The process is no member of the view.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[error("{0:?} is no member")]
pub struct NotAMember(pub SiteId);

/// The processes of one view, in an order that all members know. A copy of it is a pointer.
///
/// Stamps are arrays in this order, which is why they are small and quick to compare, and why stamps of two views do not
/// compare at all. A process that restarts is another site ([`SiteId`] has the incarnation) and gets an entry of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct Members {
    view: ViewId,
    sites: Arc<[SiteId]>,
}

impl Members {
    /// The members of `view`, by rank: all of them have to be given the same order.
    ///
    /// # Errors
    /// [`MembersError`].
    pub fn new(
        view: ViewId,
        sites: impl IntoIterator<Item = SiteId>,
    ) -> Result<Self, MembersError> {
        let sites: Arc<[SiteId]> = sites.into_iter().take(MEMBERS_MAX + 1).collect();
        if sites.is_empty() || sites.len() > MEMBERS_MAX {
            return Err(MembersError::Count(sites.len()));
        }
        let mut nodes: Vec<_> = sites.iter().map(|site| site.node).zip(0..).collect();
        nodes.sort_unstable();
        match nodes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(MembersError::Twice(Rank::of(pair[1].1))),
            None => Ok(Self { view, sites }),
        }
    }

    /// Those of an agreed view, in its age order.
    ///
    /// # Errors
    /// [`MembersError::Count`].
    pub fn of(view: &View) -> Result<Self, MembersError> {
        Self::new(view.id, view.members.iter().map(|member| member.site))
    }

    /// The view.
    #[must_use]
    pub fn view(&self) -> ViewId {
        self.view
    }

    /// How many.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// By rank.
    #[must_use]
    pub fn sites(&self) -> &[SiteId] {
        &self.sites
    }

    /// The rank of `site`.
    ///
    /// # Errors
    /// [`NotAMember`]; also for another incarnation of a member's node.
    pub fn rank(&self, site: SiteId) -> Result<Rank, NotAMember> {
        let index = self.sites.iter().position(|member| *member == site);
        index.map(Rank::of).ok_or(NotAMember(site))
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.view, self.sites)
    }
}
