//! What a node must not forget.

use mainstay_base::NodeId;
use serde::{Deserialize, Serialize};

use crate::founding::Founders;
use crate::{Ballot, Extension, View};

/// The part of a machine that survives a crash: written whole, read back by [`Membership::recover`](crate::Membership).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Durable {
    /// This disk has seen all that its node ever promised: the node counts for quorums.
    pub voter: bool,
    /// The last committed view that the node knows.
    pub installed: View,
    /// The highest ballot it has promised to follow.
    pub promised: Ballot,
    /// What it has accepted to follow the installed view, and under which ballot.
    pub accepted: Option<(Ballot, Extension)>,
    /// With which disks it has made the cluster, if it has by [`Config::with_founding`](crate::Config::with_founding).
    pub founders: Founders,
}

impl Durable {
    /// A node that takes part in making the cluster. To be used once in the life of a node: on a disk that has lost what
    /// it promised it would break agreement; such a node starts with [`empty`](Self::empty).
    #[must_use]
    pub fn bootstrap(roster: impl IntoIterator<Item = NodeId>) -> Self {
        Self { voter: true, ..Self::empty(roster) }
    }

    /// A node without a past, or one that has lost it: it does not vote until a view that it had no vote in has admitted
    /// it and it was told to ([`Input::BecomeVoter`](crate::Input::BecomeVoter)).
    ///
    /// # Panics
    /// If the roster is empty.
    #[must_use]
    pub fn empty(roster: impl IntoIterator<Item = NodeId>) -> Self {
        let installed = View::empty(roster);
        let node = *installed.roster.first().expect("a cluster has a node");
        Self {
            voter: false,
            promised: Ballot { base: 0, round: 0, node },
            installed,
            accepted: None,
            founders: Founders::new(),
        }
    }
}
