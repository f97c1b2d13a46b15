//! How a cluster is made: once, and by all of its nodes.
//!
//! A node that has no past can not tell a cluster that was never made from one whose disks were all lost but its own. So none
//! founds by itself. A node says which disk it has: a name that is drawn when a directory is made, and lost with it. It founds
//! when it hears all nodes of the roster, each without a past and with equal settings; it then writes down the names of all these disks,
//! and votes from there on. Others follow as soon as they hear one whose list has their own disk, be all others here or not.
//!
//! # Why no vote is lost
//! A vote that is forgotten could let two views with the number 1 be committed. Whoever votes has written down the list of disks
//! before. If it loses its disk it comes back under another name, which is in no list: those that have founded do not match, and it waits
//! until a view admits it, as every node without a past does. If so many disks are lost that nobody with a list is left, and the
//! rest has not seen a view, then nobody can know that there was a cluster; every other loss leaves somebody who does, and no
//! second cluster is made.
//!
//! A disk that is lost between the first and the last node that found is in no new list while a disk of the old one is there: those
//! whose disks are in that list make the cluster, and the lost one joins it. Only if they are no majority do they wait for a disk that is
//! no more: [`WaitsFor::OtherFounders`] says so at the others, and an operator starts all anew with empty directories, which hold
//! nothing yet.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_base::{NodeId, fault};
use serde::{Deserialize, Serialize};

use crate::io::Role;
use crate::membership::{After, Announced, Membership};

/// The disk of each founder.
pub type Founders = BTreeMap<NodeId, u128>;

/// What a node that would make the cluster says of itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Founding {
    /// Names its disk.
    pub disk: u128,
    /// A hash of what must be equal at all nodes.
    pub settings: u128,
    /// With whom it has founded; empty: it has not.
    pub founders: Founders,
}

/// Why a node does not found yet, for one of the others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum WaitsFor {
    /// It is not heard.
    NotHeard,
    /// Its settings are not equal: a configuration is at fault.
    OtherSettings,
    /// It has a past, or votes: there is a cluster, which will admit this node.
    Past,
    /// It was told to join a cluster, not to make one.
    Joins,
    /// It has founded with other disks than those that are here now: a disk was lost meanwhile.
    OtherFounders,
}

impl Membership {
    /// What this node says of itself, if it was told to take part in making the cluster.
    pub(crate) fn own_founding(&self) -> Option<Founding> {
        let (disk, settings) = self.config.founding?;
        Some(Founding { disk, settings, founders: self.durable.founders.clone() })
    }

    fn is_founding(&self) -> bool {
        self.config.founding.is_some()
            && self.role == Role::Outside
            && !self.durable.voter
            && self.view().id.number == 0
    }

    /// What each node said last that is heard.
    fn said(&self, node: NodeId) -> Option<&Announced> {
        let mut heard = self.heard().filter(|boot| boot.node == node);
        heard.find_map(|boot| self.peers.get(&boot)?.announced.as_ref())
    }

    /// The disks that are here, this node's among them, and what is wrong with others.
    fn disks(&self) -> (Founders, BTreeMap<NodeId, WaitsFor>) {
        let (mut disks, mut waits) = (Founders::new(), BTreeMap::new());
        let Some((own, settings)) = self.config.founding else { return (disks, waits) };
        disks.insert(self.me.node, own);
        for node in self.view().roster.iter().copied().filter(|node| *node != self.me.node) {
            let why = match self.said(node) {
                None => WaitsFor::NotHeard,
                Some(said) if said.installed > 0 => WaitsFor::Past,
                Some(Announced { founding: None, voter, .. }) => {
                    if *voter {
                        WaitsFor::Past
                    } else {
                        WaitsFor::Joins
                    }
                }
                Some(Announced { founding: Some(its), .. }) if its.settings != settings => {
                    WaitsFor::OtherSettings
                }
                Some(Announced { founding: Some(its), voter: true, .. })
                    if its.founders.is_empty() =>
                {
                    WaitsFor::Past
                }
                Some(Announced { founding: Some(its), .. }) => {
                    disks.insert(node, its.disk);
                    continue;
                }
            };
            waits.insert(node, why);
        }
        if fault!(self.config, FoundsWithMajority) && disks.len() >= self.view().quorum() {
            waits.clear();
        }
        if waits.is_empty() && !fault!(self.config, FoundsAnew) {
            for node in disks.keys() {
                let its = self.said(*node).and_then(|said| said.founding.as_deref());
                if its.is_some_and(|its| !its.founders.is_empty() && its.founders != disks) {
                    waits.insert(*node, WaitsFor::OtherFounders);
                }
            }
        }
        (disks, waits)
    }

    /// Why this node does not make the cluster, or join one; empty if it is not about to make one.
    #[must_use]
    pub fn founding_waits_for(&self) -> BTreeMap<NodeId, WaitsFor> {
        if self.is_founding() { self.disks().1 } else { BTreeMap::new() }
    }

    /// The list of one who has founded with this very disk: it needs no others to follow. Lists differ only if a disk was lost, and
    /// then none of them is followed.
    fn list_to_follow(&self) -> Option<Founders> {
        let (own, settings) = self.config.founding?;
        let said = self.heard().filter_map(|boot| self.peers.get(&boot)?.announced.as_ref());
        let lists = said.filter(|said| said.installed == 0).filter_map(|said| {
            let its = said.founding.as_deref()?;
            let names_me = its.founders.get(&self.me.node) == Some(&own);
            (names_me && its.settings == settings).then_some(&its.founders)
        });
        let lists: BTreeSet<_> = lists.collect();
        lists.first().filter(|_| lists.len() == 1).map(|list| (*list).clone())
    }

    /// Takes part in making the cluster, if all are here, or if one has founded with this node.
    pub(crate) fn found(&mut self) {
        if !self.is_founding() {
            return;
        }
        let all_here = || {
            let (disks, waits) = self.disks();
            waits.is_empty().then_some(disks)
        };
        let Some(founders) = self.list_to_follow().or_else(all_here) else { return };
        self.durable.founders = founders;
        self.durable.voter = true;
        let message = self.announcement();
        let after = self.connected().into_iter().map(|to| After::Say(to, message.clone()));
        let after = after.collect();
        self.force(after);
    }
}
