//! What a site is started with.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use mainstay_base::{
    BootId, BootNonce, ClusterId, Duration, Fingerprinter, GroupId, NodeId, codec,
};
use mainstay_link as link;
use mainstay_membership as membership;
use mainstay_multicast::{self as multicast, Durability};
use mainstay_runtime::{
    Bell, Datagrams, Disk, Entropy, EntropyError, HostOptions, TimeSource, Transport, with_causes,
};
use mainstay_service::mux::{CHANNEL, GUEST_KEEP, LINK_BYTES};
use mainstay_service::{MountError, Mounting, Reach, ServicesError};
use thiserror::Error;

use super::storage::StorageError;
use super::trace::TraceSink;
use crate::core::CoreConfig;

/// The version of the messages between sites. 2: views say who left and why. 3: cuts say who carries a group.
const WIRE: u8 = 3;

/// How a node that has no past comes into its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub enum Founding {
    /// It makes the cluster with all other nodes, when it hears all of them and none has a past, and joins it otherwise. So a
    /// cluster is made once: nodes that have lost their disks wait for those that have not.
    #[default]
    Together,
    /// It joins a cluster that others make.
    Join,
    /// It takes part in making the cluster with whoever is there, a majority at least. To be said for all first nodes, and once
    /// in the life of each: a disk that is lost later must not be started so. Ignored where a directory exists already.
    WithoutWaiting,
}

/// Mounts the services of a node. Called for each boot of its process: at the start, and again after the boot was declared dead.
pub type MountServices = Box<dyn FnMut(&mut Mounting<'_>) -> Result<(), MountError>>;

/// All that a site is made of.
#[non_exhaustive]
pub struct SiteParts {
    /// The cluster.
    pub cluster: ClusterId,
    /// The name of this node.
    pub name: String,
    /// All configured nodes, this one too, and where the others listen.
    pub roster: BTreeMap<String, SocketAddr>,
    /// The groups that have this node among theirs.
    pub groups: Vec<multicast::Config>,
    /// What the groups are called, for the log. Default: nothing; a group is then told of by its id.
    pub group_names: BTreeMap<GroupId, String>,
    /// Groups that are not on disk here any more: what the disk has of them is not needed, and their checkpoints are removed. The start is
    /// refused if the log has messages of a group that is neither here nor on disk among `groups`; that may be so until the log is cut, so they
    /// stay here. Default: none.
    pub forgotten: BTreeSet<GroupId>,
    /// When a member is suspected.
    pub membership: membership::Config,
    /// The longest time without a frame to a connected peer. Default 50 ms.
    pub heartbeat: Duration,
    /// Most bytes on the way to one peer: beyond, the peer is given up. What the groups may have unstable must fit
    /// twice. Default 32 MiB.
    pub window_bytes: usize,
    /// Most guests at a time: processes outside the roster that reach the services which are [open](Mounting::open_to_guests) to
    /// them. Default 0.
    pub guests: usize,
    /// Where the node keeps what it must not forget; `None`: nowhere, for groups of durability `Memory` alone. A node
    /// that starts again without has lost its vote until the others have given it the state.
    pub disk: Option<Box<dyn Disk>>,
    /// With less room than this on the disk, in bytes, the application is told to refuse what is new; with less than
    /// half of it no checkpoint is written. An eighth of the disk, if that is less. With an eighth of it free above it
    /// there is enough again. Default 64 MiB.
    pub disk_reserve: u64,
    /// How the node comes into its cluster.
    pub founding: Founding,
    /// Frames to and from the others; listening where they expect it.
    pub transport: Box<dyn Transport>,
    /// The clock.
    pub time: Rc<dyn TimeSource>,
    /// Datagrams of mounted services. `None`, the default: they go over the connections.
    pub datagrams: Option<Box<dyn Datagrams>>,
    /// Boot nonces and seeds.
    pub entropy: Box<dyn Entropy>,
    /// The bounds of the host.
    pub options: HostOptions,
    /// The services that are mounted on the node, beside its groups. With a disk each goes on from what it has written; without
    /// one it begins anew with each boot. Default `None`: no services; what the disk has of some is kept.
    pub services: Option<MountServices>,
    /// Leads to the services; handles of them can be made before the site starts. Default: a new one.
    pub reach: Reach,
    /// Rung with a group when something comes into the inbox of its application. Default: a new one.
    pub bell: Bell<GroupId>,
    /// Gets what the site's boots do, in the words of the properties. Default `None`: nobody is told.
    pub trace: Option<Arc<dyn TraceSink>>,
}

impl SiteParts {
    /// Parts with the usual values: no groups, no disk.
    #[must_use]
    pub fn new(
        cluster: ClusterId,
        name: impl Into<String>,
        roster: BTreeMap<String, SocketAddr>,
        transport: Box<dyn Transport>,
        time: Rc<dyn TimeSource>,
        entropy: Box<dyn Entropy>,
    ) -> Self {
        Self {
            cluster,
            name: name.into(),
            roster,
            groups: Vec::new(),
            group_names: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            membership: membership::Config::default(),
            heartbeat: Duration::from_millis(50),
            window_bytes: 32 << 20,
            guests: 0,
            disk: None,
            disk_reserve: 64 << 20,
            founding: Founding::Together,
            transport,
            datagrams: None,
            time,
            entropy,
            options: HostOptions::default(),
            services: None,
            reach: Reach::new(cluster),
            bell: Bell::new(),
            trace: None,
        }
    }
}

/// Why a site did not start. Nothing runs; what is on disk is as it was, but for a directory newly made. The text has the
/// causes, each once, and there is no `source`.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The node is not in the roster. The configuration is at fault.
    #[error("node {0:?} is not in the roster")]
    NotInRoster(String),
    /// A group of durability `Disk` needs a disk. The configuration is at fault.
    #[error("durability disk needs a disk to write to")]
    NoDisk,
    /// The numbers for the link do not fit together. The configuration is at fault.
    #[error(transparent)]
    Link(#[from] link::ConfigError),
    /// What is on disk cannot be used.
    #[error("{}", with_causes(.0))]
    Storage(StorageError),
    /// The mounted services do not begin.
    #[error("{}", with_causes(.0))]
    Services(ServicesError),
    /// No nonce could be drawn.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl From<StorageError> for StartError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<ServicesError> for StartError {
    fn from(error: ServicesError) -> Self {
        Self::Services(error)
    }
}

/// What all boots of a site have in common.
pub(super) struct Plan {
    cluster: ClusterId,
    me: NodeId,
    roster: BTreeMap<String, NodeId>,
    groups: Vec<multicast::Config>,
    group_names: BTreeMap<GroupId, String>,
    membership: membership::Config,
    heartbeat: Duration,
    window_bytes: usize,
    guests: usize,
    traced: bool,
    founds: bool,
    /// The name of the disk, or of the process without one.
    pub(super) disk: u128,
}

impl Plan {
    pub(super) fn of(parts: &SiteParts) -> Result<Self, StartError> {
        if !parts.roster.contains_key(&parts.name) {
            return Err(StartError::NotInRoster(parts.name.clone()));
        }
        if parts.disk.is_none() && Self::disk_groups(&parts.groups).next().is_some() {
            return Err(StartError::NoDisk);
        }
        let cluster = parts.cluster;
        let named = |name: &String| (name.clone(), NodeId::new(cluster, name));
        let plan = Self {
            cluster,
            me: NodeId::new(cluster, &parts.name),
            roster: parts.roster.keys().map(named).collect(),
            groups: parts.groups.clone(),
            group_names: parts.group_names.clone(),
            membership: parts.membership.clone(),
            heartbeat: parts.heartbeat,
            window_bytes: parts.window_bytes,
            guests: parts.guests,
            traced: parts.trace.is_some(),
            founds: parts.founding == Founding::Together,
            disk: 0,
        };
        plan.link(BootNonce(0))?;
        Ok(plan)
    }

    pub(super) fn me(&self) -> NodeId {
        self.me
    }

    /// Whether what the boots do is recorded.
    pub(super) fn is_traced(&self) -> bool {
        self.traced
    }

    /// What the configuration calls a node.
    pub(super) fn name_of(&self, node: NodeId) -> &str {
        let named = self.roster.iter().find(|(_, it)| **it == node);
        named.map_or("?", |(name, _)| name)
    }

    pub(super) fn group_names(&self) -> &BTreeMap<GroupId, String> {
        &self.group_names
    }

    /// What the program calls a group, or its id.
    pub(super) fn group_name(&self, group: GroupId) -> String {
        let named = self.group_names.get(&group).cloned();
        named.unwrap_or_else(|| super::storage::hex(group))
    }

    pub(super) fn roster(&self) -> &BTreeMap<String, NodeId> {
        &self.roster
    }

    pub(super) fn nodes(&self) -> BTreeSet<NodeId> {
        self.roster.values().copied().collect()
    }

    pub(super) fn disk_groups(
        groups: &[multicast::Config],
    ) -> impl Iterator<Item = &multicast::Config> {
        groups.iter().filter(|group| group.durability() == Durability::Disk)
    }

    fn link(&self, nonce: BootNonce) -> Result<link::Config, link::ConfigError> {
        let me = BootId { node: self.me, nonce };
        let mut peers = self.nodes();
        peers.remove(&self.me);
        link::Config::lan(self.cluster, me, peers)
            .heartbeat(self.heartbeat)
            .window(self.window_bytes + LINK_BYTES, 256 << 10)
            .hold(self.membership.timeout())
            .versions(WIRE, WIRE)
            .guests(self.guests, [CHANNEL], GUEST_KEEP)
            // A lost peer is dialled by both sides soon: that a dial is refused is how a killed process is noticed before
            // the failure timeout.
            .redial(Duration::from_millis(10), Duration::from_millis(50))
            .build()
    }

    /// A hash of what must be equal at all nodes.
    fn settings(&self) -> u128 {
        let group = |group: &multicast::Config| {
            let (nodes, durability) = (group.nodes().clone(), group.durability());
            let what = (group.is_stateful(), group.application());
            (group.group(), nodes, durability, group.deliver_at(), what)
        };
        let groups: BTreeSet<_> = self.groups.iter().map(|it| codec::encode(&group(it))).collect();
        let mut hash = Fingerprinter::new();
        hash.write(&codec::encode(&(self.cluster, &self.roster)));
        groups.iter().for_each(|group| hash.write(group));
        hash.finish128()
    }

    /// The settings of one boot.
    pub(super) fn configs(&self, nonce: BootNonce) -> (link::Config, CoreConfig) {
        let link = self.link(nonce).expect("the same settings were built at the start");
        let mut membership = self.membership.clone();
        if self.founds {
            membership = membership.with_founding(self.disk, self.settings());
        }
        let core = CoreConfig {
            me: BootId { node: self.me, nonce },
            roster: self.nodes(),
            membership,
            groups: self.groups.clone(),
        };
        (link, core)
    }
}
