//! How a site is.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_base::rack::Breach;
use mainstay_base::service::{Address, Figures};
use mainstay_base::{
    BootId, BootNonce, Duration, GroupId, Incarnation, Instant, NodeId, SiteId, ViewId,
};
use mainstay_link as link;
use mainstay_membership::founding::WaitsFor;
use mainstay_membership::{self as membership, Evidence, Role};
use mainstay_multicast as multicast;
use mainstay_runtime::TurnStats;

use super::parts::Plan;
use crate::core::Absence;
use crate::stack::Stack;

/// How a site is, as of the end of a turn. Asking changes nothing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The node.
    pub node: NodeId,
    /// The present boot.
    pub nonce: BootNonce,
    /// How often this process was declared dead and started anew.
    pub restarts: u64,
    /// The configured nodes by name.
    pub roster: BTreeMap<String, NodeId>,
    /// What the groups are called.
    pub group_names: BTreeMap<GroupId, String>,
    /// What was refused of what other nodes and strangers sent since the process started, by reason: connections closed
    /// for it, hellos, messages. A reason that has not occurred is missing.
    pub refused: BTreeMap<&'static str, u64>,
    /// The last members that this process has suspected, up to 16, the newest last.
    pub suspicions: Vec<Suspicion>,
    /// How long the turns of this process took.
    pub turns: TurnStats,
    /// What the machines say; `None` while the log is read again.
    pub stack: Option<StackStatus>,
}

/// A member was thought to have failed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Suspicion {
    /// Which node.
    pub node: NodeId,
    /// What for.
    pub evidence: Evidence,
    /// How long ago.
    pub ago: Duration,
}

/// What the machines of a boot say.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StackStatus {
    /// Whether it takes part.
    pub role: Role,
    /// The incarnation that the view gave it; `None` while it takes no part.
    pub incarnation: Option<Incarnation>,
    /// It counts for quorums.
    pub voter: bool,
    /// Too few voters are heard for any view to follow: the groups of a member pause, and a site that is no member waits.
    pub minority: bool,
    /// How long that has been so; zero while it is not.
    pub minority_for: Duration,
    /// How many votes a view needs.
    pub quorum: usize,
    /// Configured nodes whose votes are not to be had, and whether each is heard all the same: it has no past, and votes
    /// again when a view has admitted it.
    pub votes_missing: BTreeMap<NodeId, bool>,
    /// The last committed view that it knows.
    pub view: ViewId,
    /// Its members, the oldest first.
    pub members: Vec<SiteId>,
    /// The oldest member that is not suspected here.
    pub manager: Option<BootId>,
    /// Members and peers thought to have failed.
    pub suspected: BTreeSet<BootId>,
    /// Members that it must reach before it is admitted, and does not; none while it takes part.
    pub unheard: BTreeSet<NodeId>,
    /// Of a node that would make the cluster with the others: who keeps it from that, and why. Empty once it is made.
    pub founding: BTreeMap<NodeId, WaitsFor>,
    /// Each group: sequencer, positions, alarms.
    pub groups: BTreeMap<GroupId, (multicast::Status, multicast::Stats)>,
    /// Nodes of the view that take no part in a group though it is configured for them, and why: the group goes on without them.
    pub absent: BTreeMap<GroupId, BTreeMap<NodeId, Absence>>,
    /// What went wrong at the membership.
    pub membership: membership::Stats,
    /// Counters of the link.
    pub link: link::Stats,
    /// Peers that a connection stands with.
    pub connected: BTreeSet<NodeId>,
    /// Peers whose last word was that another boot of this node is alive: another process runs under its name.
    pub refused_by: BTreeSet<NodeId>,
    /// What the services say of themselves, in the order of their addresses; without those that say nothing.
    pub services: Vec<Figures>,
    /// Packets that could not be read.
    pub malformed: u64,
    /// Packets for groups that are not here.
    pub dropped: u64,
    /// Services that broke a rule of their host and were stopped, and which. The newest of those of one boot, up to as many as can be mounted.
    pub stopped: BTreeMap<Address, Breach>,
}

/// Adds counts to those that are there.
pub(super) fn add(
    counts: &mut BTreeMap<&'static str, u64>,
    more: impl IntoIterator<Item = (&'static str, u64)>,
) {
    for (name, count) in more.into_iter().filter(|(_, count)| *count > 0) {
        *counts.entry(name).or_default() += count;
    }
}

impl Status {
    /// `refused` is what former boots of the process have refused.
    pub(super) fn of(
        now: Instant,
        plan: &Plan,
        nonce: BootNonce,
        restarts: u64,
        mut refused: BTreeMap<&'static str, u64>,
        suspicions: Vec<Suspicion>,
        stack: Option<&Stack>,
    ) -> Self {
        let node = plan.me();
        let me = BootId { node, nonce };
        let roster = plan.roster().clone();
        add(&mut refused, stack.into_iter().flat_map(Stack::refused));
        let stack = stack.map(|stack| StackStatus::of(stack, me, now));
        let turns = TurnStats::default();
        let group_names = plan.group_names().clone();
        Self { node, nonce, restarts, roster, group_names, refused, suspicions, turns, stack }
    }

    /// What the configuration calls a node. `None`: it is none of the configured ones.
    #[must_use]
    pub fn name(&self, node: NodeId) -> Option<&str> {
        self.roster.iter().find(|(_, it)| **it == node).map(|(name, _)| name.as_str())
    }

    /// The members of the last view by name, the oldest first; none while the log is read.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        let members = self.stack.iter().flat_map(|stack| &stack.members);
        members.filter_map(|site| self.name(site.node))
    }

    /// How the group is that has this name. `None`: there is none, or the log is being read.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&multicast::Status> {
        let (id, _) = self.group_names.iter().find(|(_, it)| *it == name)?;
        Some(&self.stack.as_ref()?.groups.get(id)?.0)
    }

    /// The node that gives out the positions of the group with this name. `None`: nobody does, the group stands still, or there is none.
    #[must_use]
    pub fn sequencer(&self, group: &str) -> Option<&str> {
        let group = self.group(group).filter(|group| !group.blocked && !group.refused)?;
        self.name(group.sequencer?.node)
    }
}

impl StackStatus {
    fn of(stack: &Stack, me: BootId, now: Instant) -> Self {
        let core = stack.core();
        let membership = core.membership();
        let view = membership.view();
        let missing_since = membership.votes_missing_since();
        let incarnation = view.member(me).map(|member| member.site.incarnation);
        let peers = || stack.link().config().peers().iter().copied();
        let groups = core.groups().map(|(id, group)| (*id, (group.status(), group.stats())));
        Self {
            role: membership.role(),
            incarnation,
            voter: membership.is_voter(),
            minority: missing_since.is_some(),
            minority_for: missing_since.map_or(Duration::ZERO, |at| now.saturating_since(at)),
            quorum: view.quorum(),
            votes_missing: membership.votes_missing().collect(),
            view: view.id,
            members: view.members.iter().map(|member| member.site).collect(),
            manager: membership.manager(),
            suspected: membership.suspected().collect(),
            unheard: membership.unheard().map(|boot| boot.node).collect(),
            founding: membership.founding_waits_for(),
            groups: groups.collect(),
            absent: core.absent().clone(),
            membership: membership.stats(),
            link: stack.link().stats(),
            connected: peers().filter(|node| stack.link().is_connected(*node)).collect(),
            refused_by: stack.link().refused_by().collect(),
            services: stack.services().rack().figures().collect(),
            malformed: stack.malformed(),
            dropped: core.dropped(),
            stopped: stack.services().stopped().collect(),
        }
    }
}
