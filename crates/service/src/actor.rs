//! Services in an actor of their own, over a link of their own: with or without a disk, without membership.

mod beside;
mod commands;
mod datagrams;
mod desk;
mod disk;
mod handle;
mod hosting;
mod late;
mod mounting;
mod queue;
mod reach;
mod wiring;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use mainstay_base::{BootId, BootNonce, ClusterId, Duration, NodeId, Rng};
use mainstay_link as link;
use mainstay_runtime::{
    Datagrams, Disk, Entropy, EntropyError, FileDisk, HostOptions, NoLocalSet, OsEntropy, Tcp,
    TcpError, TcpOptions, TimeSource, TokioTime, Transport, host, local_set,
};
use thiserror::Error;

pub use commands::Give;
pub use desk::{Desk, Front, OpenError, Work};
pub use disk::{DiskError, ServiceStorage};
pub use handle::{AgainError, ReachError, ServiceHandle, StationHandle};
pub use hosting::{Answer, Begun, Ended, Hosting};
pub use late::{MountLateError, OpenStorage};
pub use mainstay_base::service::RECORD_BYTES_MAX;
pub use mounting::{Mount, Mounting, Planned, ServicesError};
pub use queue::CommandQueue;
pub use reach::Reach;

use crate::{Input, MountError, Station, mux};
use wiring::Wiring;

/// Most accepted connections of the transport.
const ACCEPTED_MAX: usize = 4096;

/// What a station is made of.
pub struct StationParts {
    /// The cluster: nodes of another one are turned away.
    pub cluster: ClusterId,
    /// What the node is called; in the roster.
    pub name: String,
    /// All nodes, and where each listens for the others.
    pub roster: BTreeMap<String, SocketAddr>,
    /// Most guests at a time: processes outside the roster that reach the services which are
    /// [open](Mounting::open_to_guests) to them. Default 0.
    pub guests: usize,
    /// This process is a guest of the nodes of the roster, where it is not. It reaches what they have opened to guests, and hears no other
    /// guest.
    pub is_guest: bool,
    /// Frames to and from the others.
    pub transport: Box<dyn Transport>,
    /// Datagrams of services. `None`, the default: they go over the connections.
    pub datagrams: Option<Box<dyn Datagrams>>,
    /// Where services keep what they write. `None`: what they write is stable at once, and gone with the process.
    pub disk: Option<Box<dyn Disk>>,
    /// So many bytes at the end of the disk are kept free, or an eighth of the disk if that is less: no checkpoint is written there, and services
    /// are told to begin nothing that is to be written ([`In::DiskShort`](mainstay_base::service::In::DiskShort)). A disk that is full all the same ends the
    /// station. Default 64 MiB.
    pub disk_reserve: u64,
    /// The clock.
    pub time: Rc<dyn TimeSource>,
    /// Nonces and seeds.
    pub entropy: Box<dyn Entropy>,
    /// The bounds of the host.
    pub options: HostOptions,
}

impl StationParts {
    /// Parts for this process: TCP, the system's clock and entropy; a disk in `directory` if there is one.
    ///
    /// # Errors
    /// [`StartError::NotInRoster`], [`StartError::Tcp`]; outside a `LocalSet` it is [`StartError::NoLocalSet`].
    pub fn tcp(
        cluster: ClusterId,
        name: impl Into<String>,
        roster: BTreeMap<String, SocketAddr>,
        directory: Option<PathBuf>,
    ) -> Result<Self, StartError> {
        local_set()?;
        let name = name.into();
        let listen = roster.get(&name).ok_or_else(|| StartError::NotInRoster(name.clone()))?;
        let time = Rc::new(TokioTime::new());
        let mut options = TcpOptions::listening(*listen);
        // The link bounds its connections by what it is to have, and closes those that say nothing first.
        options.accepted_max = ACCEPTED_MAX;
        let tcp = Tcp::new(options, time.clone())?;
        let mut parts = Self::new(cluster, name, roster, Box::new(tcp), time, Box::new(OsEntropy));
        parts.disk = directory.map(|path| Box::new(FileDisk::new(path)) as Box<dyn Disk>);
        Ok(parts)
    }

    /// Parts for a guest of `nodes`, over TCP: a process outside their roster, which they admit ([`guests`](Self::guests)). Nothing listens
    /// in it. Its name is drawn: each run is another guest. A guest that is not connected to a node for 10 s is forgotten there:
    /// its services are told that the node's instances are gone for it, and what was under way is void.
    ///
    /// # Errors
    /// [`StartError::Tcp`], [`StartError::Entropy`]; outside a `LocalSet` it is [`StartError::NoLocalSet`].
    pub fn tcp_guest(
        cluster: ClusterId,
        nodes: BTreeMap<String, SocketAddr>,
    ) -> Result<Self, StartError> {
        local_set()?;
        let time = Rc::new(TokioTime::new());
        let tcp = Tcp::new(TcpOptions::default(), time.clone())?;
        let name = format!("guest {:032x}", OsEntropy.draw()?);
        let parts = Self::new(cluster, name, nodes, Box::new(tcp), time, Box::new(OsEntropy));
        Ok(Self { is_guest: true, ..parts })
    }

    /// Parts with the defaults, without a disk.
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
            guests: 0,
            is_guest: false,
            transport,
            datagrams: None,
            disk: None,
            disk_reserve: 64 << 20,
            time,
            entropy,
            options: HostOptions::default(),
        }
    }
}

/// Why a station did not start. Nothing runs; what is on disk is as it was, but for directories newly made.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The node is not in the roster, or a guest is. The configuration is at fault.
    #[error("{0:?} is not in the roster, or is a guest and in it")]
    NotInRoster(String),
    /// The numbers for the link do not fit together. The configuration is at fault.
    #[error(transparent)]
    Link(#[from] link::ConfigError),
    /// The services do not begin.
    #[error(transparent)]
    Services(#[from] ServicesError),
    /// The address of the node cannot be used.
    #[error(transparent)]
    Tcp(#[from] TcpError),
    /// No nonce could be drawn.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// It is to run on this thread, and cannot.
    #[error(transparent)]
    NoLocalSet(#[from] NoLocalSet),
}

/// Starts a station on the caller's `LocalSet`. It stops when the last handle is dropped.
///
/// Reads the log before it returns. A failed write and a panic of a service halt the station; nothing that was not forced was
/// told to be stable.
///
/// # Errors
/// [`StartError`].
pub fn start(
    parts: StationParts,
    mount: impl FnOnce(&mut Mounting<'_>) -> Result<(), MountError>,
) -> Result<StationHandle, StartError> {
    local_set()?;
    let StationParts { cluster, name, roster, transport, disk, disk_reserve, .. } = parts;
    let StationParts { time, mut entropy, options, datagrams, guests, is_guest, .. } = parts;
    if roster.contains_key(&name) == is_guest {
        return Err(StartError::NotInRoster(name));
    }
    let node = NodeId::new(cluster, &name);
    let me = BootId { node, nonce: BootNonce(entropy.draw()?) };
    let seed = entropy.draw()? as u64;
    let nodes: Vec<NodeId> = roster.keys().map(|name| NodeId::new(cluster, name)).collect();
    let peers = nodes.iter().copied().filter(|peer| *peer != node).collect();
    let config = link::Config::lan(cluster, me, peers)
        .redial(Duration::from_millis(10), Duration::from_millis(50))
        .guests(guests, [mux::CHANNEL], mux::GUEST_KEEP);
    let config = if is_guest { config.as_guest() } else { config }.build()?;
    let planned = Planned::gather(cluster, me, nodes, seed, time.reader(), mount)
        .map_err(ServicesError::Mount)?;
    let storage = disk.map(|disk| open(disk.into(), disk_reserve, node)).transpose();
    let reach = Reach::new(cluster);
    let storage = storage.map_err(ServicesError::Disk)?;
    let mut hosting =
        Hosting::new(wiring::input, &planned, storage, datagrams, &reach, Rc::clone(&time));
    let read = hosting.reading(planned)?()?;
    let now = time.now();
    let mut station = Station::new(config, Rng::new(seed).next_u64(), now);
    if is_guest {
        station.services_mut().be_guest();
    }
    for mount in hosting.begin(read) {
        mount(station.services_mut(), now).map_err(ServicesError::Mount)?;
    }
    let addresses = roster.iter().map(|(name, at)| (NodeId::new(cluster, name), *at)).collect();
    let wiring = Wiring { transport, addresses, hosting };
    let host = host::start(station, wiring, time, options);
    reach.lead(host.downgrade(), Input::Service);
    Ok(StationHandle::new(host, reach))
}

fn open(disk: Rc<dyn Disk>, reserve: u64, node: NodeId) -> Result<ServiceStorage, DiskError> {
    let home = disk.open(None)?;
    ServiceStorage::open(disk, home, reserve, node)
}
