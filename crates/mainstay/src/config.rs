//! What a node is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use mainstay_base::{ClusterId, Duration, GroupId, Level, NodeId};
use mainstay_membership as membership;
use mainstay_multicast::{self as multicast, Durability};
use mainstay_paradigm as paradigm;
use mainstay_runtime::{DatagramKeys, Pulse, TcpError};
use mainstay_site::{self as site, Founding, TraceSink};
use thiserror::Error;

/// Most bytes of own commands that are not known to be at all members. The window of the link and the queue of a
/// connection are multiples of it: what is on the way to one peer fits.
pub(crate) const UNSTABLE_BYTES: usize = 8 << 20;
/// What stands on a group: a process group of the user's is 0.
const STATE_MACHINE: u16 = 1;

/// The settings of a [`Node`](crate::Node) and of the state machines on it. Cluster, nodes, durability and the replica's settings
/// must be the same at all nodes.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) cluster: ClusterId,
    pub(crate) name: String,
    pub(crate) nodes: BTreeMap<String, SocketAddr>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) datagrams: Option<DatagramKeys>,
    pub(crate) accepted_max: Option<usize>,
    pub(crate) guests: usize,
    pub(crate) disk_reserve: u64,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) founding: Founding,
    pub(crate) durability: Durability,
    pub(crate) timeout: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) deadline: Duration,
    pub(crate) replica: Option<paradigm::Config>,
    pub(crate) turn_work: Duration,
    pub(crate) pulse: Option<Arc<Pulse>>,
    pub(crate) trace: Option<Arc<dyn TraceSink>>,
}

/// Why a node did not start. Nothing runs; what is on disk is as it was, but for a directory newly made. The text has the
/// causes, each once, and there is no `source`.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum StartError {
    /// This node is not among the nodes. The settings are at fault.
    #[error("node {0:?} is not among the configured nodes")]
    NotConfigured(String),
    /// Frames in the clear do not leave this machine. The settings are at fault.
    #[error(
        "node {name:?} at {address}: not loopback, and frames go no further until there is TLS"
    )]
    PeerNotLoopback {
        /// Which of the others.
        name: String,
        /// Where it is said to be.
        address: SocketAddr,
    },
    /// Nobody can be dialled at port 0. The settings are at fault.
    #[error("node {name:?} at {address}: port 0 cannot be dialled")]
    PeerWithoutPort {
        /// Which of the others.
        name: String,
        /// Where it is said to be.
        address: SocketAddr,
    },
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] TcpError),
    /// It cannot have [datagrams](Config::datagrams) by UDP there.
    #[error("no datagrams at {address}: {error}")]
    Datagrams {
        /// Where it would have listened.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The timeouts do not fit together. The settings are at fault.
    #[error(transparent)]
    Membership(#[from] membership::ConfigError),
    /// The nodes do not make a group. The settings are at fault.
    #[error(transparent)]
    Group(#[from] multicast::ConfigError),
    /// The replica's settings do not fit together.
    #[error(transparent)]
    Replica(#[from] paradigm::ConfigError),
    /// A node would be suspected between two signs of life. The settings are at fault.
    #[error("the timeout of {timeout:?} is no longer than the heartbeat of {heartbeat:?}")]
    Timeouts {
        /// The silence after which a node is suspected.
        timeout: Duration,
        /// The longest time between two signs of life.
        heartbeat: Duration,
    },
    /// Two groups have the same name. The caller's fault.
    #[error("there is a group {0:?} already")]
    Taken(String),
    /// There are 64 groups on the node. The caller's fault.
    #[error("there are too many groups")]
    TooManyGroups,
    /// The node was started outside a `LocalSet` of a tokio runtime; see [`Node::spawn`](crate::Node::spawn). The hook for panics has printed one that was caught, since tokio
    /// has no other way to ask; a program that is built with `panic = "abort"` ends instead. The caller's fault.
    #[error("a node needs a LocalSet of a tokio runtime, or a thread of its own by Node::spawn")]
    NoLocalSet,
    /// A builder that does not listen has to be started with ports. The caller's fault.
    #[error("a builder without TCP is started with ports")]
    NoPorts,
    /// The thread of the node cannot be started, or has ended.
    #[error("no thread for the node: {0}")]
    Thread(io::Error),
    /// The site does not start.
    #[error(transparent)]
    Site(#[from] site::StartError),
}

impl Config {
    /// The others have to be such as TCP may dial.
    pub(crate) fn check_peers(&self) -> Result<(), StartError> {
        for (name, address) in self.nodes.iter().filter(|(name, _)| **name != self.name) {
            let (name, address) = (name.clone(), *address);
            if !address.ip().is_loopback() {
                return Err(StartError::PeerNotLoopback { name, address });
            }
            if address.port() == 0 {
                return Err(StartError::PeerWithoutPort { name, address });
            }
        }
        Ok(())
    }

    /// Settings of the node `name`, one of `nodes`, each with the address at which the others reach it. Durability
    /// [`Durability::Disk`]: [`data_dir`](Self::data_dir) is needed too.
    #[must_use]
    pub fn new(
        cluster: ClusterId,
        name: impl Into<String>,
        nodes: BTreeMap<String, SocketAddr>,
    ) -> Self {
        Self {
            cluster,
            name: name.into(),
            nodes,
            listen: None,
            datagrams: None,
            accepted_max: None,
            guests: 0,
            data_dir: None,
            disk_reserve: 64 << 20,
            founding: Founding::Together,
            durability: Durability::Disk,
            timeout: Duration::from_millis(250),
            heartbeat: Duration::from_millis(50),
            deadline: Duration::from_secs(2),
            replica: None,
            turn_work: paradigm::TURN_WORK,
            pulse: None,
            trace: None,
        }
    }

    /// Names of nodes, each with a free port of the loopback interface: for nodes of a trial in one process. Another program may take a port
    /// before the node listens there.
    ///
    /// # Errors
    /// The system has no ports to give.
    pub fn loopback<'a>(
        names: impl IntoIterator<Item = &'a str>,
    ) -> io::Result<BTreeMap<String, SocketAddr>> {
        let bind = |name: &'a str| Ok((name, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?));
        // All are bound until each has its own.
        let bound: Vec<_> = names.into_iter().map(bind).collect::<io::Result<_>>()?;
        bound.iter().map(|(name, port)| Ok(((*name).to_owned(), port.local_addr()?))).collect()
    }

    /// Where to listen, if it is not the address that the others know.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Datagrams of services, as those by which clocks are read, go by UDP, between the addresses at which nodes listen: one waits behind nothing, and the kernel
    /// stamps it. Each has a MAC under the key of its two nodes; what has none is refused and counted ([`Status`](crate::SiteStatus::refused)). All
    /// nodes have keys, or none. Default: they go over the connections. Nodes that are started with ports of their own
    /// ([`NodeBuilder::start_with`](crate::NodeBuilder::start_with)) have none by UDP.
    #[must_use]
    pub fn datagrams(mut self, keys: DatagramKeys) -> Self {
        self.datagrams = Some(keys);
        self
    }

    /// Most connections that others have opened to the address of this node, at a time; further ones are closed at once.
    /// Default 256, and two for each [guest](Self::guests). The others need two for each of them.
    #[must_use]
    pub fn accepted_max(mut self, count: usize) -> Self {
        self.accepted_max = Some(count);
        self
    }

    /// Most guests at a time: processes outside the cluster that reach the services of this node which are
    /// [open to them](crate::NodeBuilder::open_to_guests). Default 0: none is admitted.
    #[must_use]
    pub fn guests(mut self, count: usize) -> Self {
        self.guests = count;
        self
    }

    /// The directory of this node alone; made if it is missing, its parent must exist. Needed for durability disk. With
    /// durability memory and without a directory, a node that starts again has lost its vote until the others have
    /// given it the state.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// With less room than so many bytes on the disk of its directory, or than an eighth of that disk if that is smaller, a node refuses commands
    /// ([`NotDone::DiskShort`](crate::NotDone::DiskShort)), and goes on as a member that reads and
    /// logs what the others order; with less than half of it, it writes no checkpoint either. Mounted services are told, and begin nothing that is to be written. It takes commands again when an eighth of the reserve is free above it. Default 64 MiB.
    #[must_use]
    pub fn disk_reserve(mut self, bytes: u64) -> Self {
        self.disk_reserve = bytes;
        self
    }

    /// How a node that has no past comes into its cluster. Default [`Founding::Together`]: all nodes make it when all are there, and
    /// whoever comes without a past later joins it.
    #[must_use]
    pub fn founding(mut self, founding: Founding) -> Self {
        self.founding = founding;
        self
    }

    /// With `true`, [`Founding::WithoutWaiting`]: a majority of the nodes makes the cluster, the others may come later. For all its
    /// first nodes and their first start only; ignored where the directory exists already. `false` changes nothing.
    #[must_use]
    pub fn bootstrap(mut self, on: bool) -> Self {
        if on {
            self.founding = Founding::WithoutWaiting;
        }
        self
    }

    /// What a restart of a node leaves, and with it when a command is answered: at `Disk` when it is forced to the logs
    /// of a majority of the nodes, at `Memory` when a majority has received it. Default `Disk`.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Silence of a node after which it is suspected, and the longest time between two signs of life. Default 250 ms and
    /// 50 ms.
    #[must_use]
    pub fn timeouts(mut self, timeout: Duration, heartbeat: Duration) -> Self {
        (self.timeout, self.heartbeat) = (timeout, heartbeat);
        self
    }

    /// How long a command or a read may take before its caller is told that there is no answer. Default 2 s.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = limit;
        self
    }

    /// The replica's settings: how often a checkpoint is taken, among others.
    #[must_use]
    pub fn replica(mut self, config: paradigm::Config) -> Self {
        self.replica = Some(config);
        self
    }

    /// How much of its replica's work a node does between two looks at its peers, in nominal time: commands, chunks of a
    /// state that is restored or given to a joiner. One step is always done. A larger value makes longer turns; if they are
    /// too long, peers suspect the node. Default 2 ms ([`TURN_WORK`](paradigm::TURN_WORK)).
    #[must_use]
    pub fn turn_work(mut self, most: Duration) -> Self {
        self.turn_work = most;
        self
    }

    /// Counts the node's turns here, for a [`Beacon`](crate::Beacon) that tells whether its thread still comes
    /// round. One for each node. Default: nobody looks.
    #[must_use]
    pub fn pulse(mut self, pulse: Arc<Pulse>) -> Self {
        self.pulse = Some(pulse);
        self
    }

    /// Gets what the boots of the node do, in the words of the properties: views, casts, deliveries, acknowledgements.
    /// Checkers judge the traces of all nodes together. Default: nobody is told, at no cost.
    #[must_use]
    pub fn trace(mut self, sink: Arc<dyn TraceSink>) -> Self {
        self.trace = Some(sink);
        self
    }

    /// The name of the group that [`Replicated::start`](crate::Replicated::start) makes.
    pub const GROUP: &str = "state";

    pub(crate) fn me(&self) -> NodeId {
        NodeId::new(self.cluster, &self.name)
    }

    /// What the nodes are called.
    pub(crate) fn names(&self) -> BTreeMap<NodeId, Arc<str>> {
        let named = |name: &String| (NodeId::new(self.cluster, name), name.as_str().into());
        self.nodes.keys().map(named).collect()
    }

    pub(crate) fn level(&self) -> Level {
        match self.durability {
            Durability::Memory => Level::Majority,
            Durability::Disk => Level::Disk,
        }
    }

    /// The group of all nodes that a replicated state machine is on.
    pub(crate) fn group(&self, id: GroupId) -> Result<multicast::Config, multicast::ConfigError> {
        let nodes: BTreeSet<NodeId> =
            self.nodes.keys().map(|name| NodeId::new(self.cluster, name)).collect();
        multicast::Config::new(id, nodes)
            .durability(self.durability)
            .deliver_at(self.level())
            .unstable_bytes(UNSTABLE_BYTES)
            .application(STATE_MACHINE)
            .build()
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use mainstay_site::StorageError;
    use mainstay_site::identity::IdentityError;
    use mainstay_stable::{
        FileMediumError, OpenCellError, OpenCheckpointsError, OpenError, ReadCellError,
        ReadCheckpointError, WriteCellError,
    };

    use super::*;

    #[test]
    fn each_name_has_a_port_of_its_own() {
        let nodes = Config::loopback(["a", "b", "c", "d"]).expect("there are ports");
        let ports: BTreeSet<u16> = nodes.values().map(SocketAddr::port).collect();
        assert!(ports.len() == 4 && nodes.values().all(|it| it.ip().is_loopback()), "{nodes:?}");
    }

    /// Checks that whoever prints a `StartError`, with its sources or without, prints what the system said once.
    #[test]
    fn a_cause_is_told_once() {
        const CAUSE: &str = "out of luck";
        let io = || io::Error::other(CAUSE);
        let address = "127.0.0.1:1".parse().expect("an address");
        let storage: [StorageError; 9] = [
            OpenError::Io(io()).into(),
            StorageError::First(io()),
            FileMediumError::Io { path: PathBuf::new(), source: io() }.into(),
            OpenCheckpointsError::Io(io()).into(),
            ReadCheckpointError::Io(io()).into(),
            IdentityError::Open(OpenCellError::Io(io())).into(),
            IdentityError::Read(ReadCellError::Io(io())).into(),
            IdentityError::Write(WriteCellError::NotWritten(io())).into(),
            IdentityError::Write(WriteCellError::Unknown(io())).into(),
        ];
        let errors = storage.map(|error| StartError::Site(error.into())).into_iter();
        let own = [
            StartError::Listen(TcpError::Listen { address, error: io() }),
            StartError::Datagrams { address, error: io() },
        ];
        for error in errors.chain(own) {
            let alone = error.to_string();
            let mut all = alone.clone();
            let mut cause = error.source();
            while let Some(error) = cause {
                all = format!("{all}: {error}");
                cause = error.source();
            }
            for said in [alone, all] {
                assert_eq!(said.matches(CAUSE).count(), 1, "{error:?}: {said}");
            }
        }
    }
}
