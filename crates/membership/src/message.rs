//! What the machines of different nodes say to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher as _};

use bytes::Bytes;
use mainstay_base::{BootId, BootNonce, Fingerprinter, NodeId, Reason};
use serde::{Deserialize, Serialize};

use crate::View;
use crate::founding::Founding;

/// The right to fix what follows one committed view: of two ballots for one base, the greater wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Ballot {
    /// Number of the committed view that the proposal extends.
    pub base: u64,
    /// Grows with each attempt and each amendment.
    pub round: u32,
    /// Who proposes.
    pub node: NodeId,
}

impl Ballot {
    /// What the views proposed under this ballot by a boot are named with: no two attempts share a view id.
    pub(crate) fn nonce(&self, boot: BootNonce) -> u64 {
        let mut hash = Fingerprinter::new();
        (self.base, self.round, self.node, boot).hash(&mut hash);
        hash.finish()
    }
}

/// What may follow a committed view: one view or several, and the cut of the messages of the base view.
///
/// Messages of the base belong to the first of the views; the others are empty.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Extension {
    /// Not empty, numbered consecutively from the base.
    pub views: Vec<View>,
    /// Where each group's old view ends; opaque here.
    pub cut: Bytes,
}

impl Extension {
    /// The view that is in force when the extension is installed.
    ///
    /// # Panics
    /// If it has no views, which `is_well_formed` excludes for those from outside.
    #[must_use]
    pub fn last(&self) -> &View {
        self.views.last().expect("an extension has a view")
    }

    pub(crate) fn is_well_formed(&self, base: u64) -> bool {
        !self.views.is_empty() && numbered_from(base, &self.views)
    }
}

pub(crate) fn numbered_from(base: u64, views: &[View]) -> bool {
    views.iter().zip(1..).all(|(view, step)| Some(view.id.number) == base.checked_add(step))
}

/// Between the machines of two boots.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Message {
    /// Where the sender stands: said to each peer that comes up, and to all when it changes.
    Announce {
        /// The last committed view it knows.
        installed: View,
        /// It is a working member of that view.
        member: bool,
        /// Its disk holds its promises: it counts for quorums.
        voter: bool,
        /// Whom it reaches: whoever does not reach all members is not admitted.
        hears: BTreeSet<BootId>,
        /// It takes part in making the cluster.
        founding: Option<Box<Founding>>,
    },
    /// The members that the sender suspects, and why (all of them; replaces what it said before). With itself among them: it ends.
    Suspects(BTreeMap<BootId, Reason>),
    /// Phase one: stop the old view, promise the ballot, tell what you know.
    Propose {
        /// The attempt.
        ballot: Ballot,
        /// The committed view that is to be extended.
        base: View,
        /// The proposed views.
        views: Vec<View>,
    },
    /// Answer to [`Propose`](Self::Propose), forced to disk before it is said.
    Ack {
        /// The attempt.
        ballot: Ballot,
        /// What the sender has accepted for this base before.
        accepted: Option<(Ballot, Extension)>,
        /// What its groups know.
        state: Bytes,
        /// It counts for quorums.
        voter: bool,
    },
    /// The ballot is too low.
    Nack {
        /// The refused attempt.
        ballot: Ballot,
        /// What the sender has promised.
        promised: Ballot,
    },
    /// To the members of the last view: get hold of everything up to the cut.
    Hold {
        /// The attempt.
        ballot: Ballot,
        /// What shall follow the base.
        extension: Extension,
    },
    /// The sender holds everything up to the cut.
    Held {
        /// The attempt.
        ballot: Ballot,
    },
    /// Phase two: this is to follow the base. All members of its last view hold what the cut names, or have accepted it
    /// under an earlier ballot.
    Accept {
        /// The attempt.
        ballot: Ballot,
        /// What shall follow.
        extension: Extension,
    },
    /// The sender has accepted; forced to disk before it is said.
    Accepted {
        /// The attempt.
        ballot: Ballot,
        /// It counts for quorums.
        voter: bool,
    },
    /// The extension accepted under the ballot is committed.
    Commit {
        /// The attempt.
        ballot: Ballot,
    },
}
