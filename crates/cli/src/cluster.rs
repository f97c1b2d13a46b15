//! The directory of a cluster on this machine: a directory for each node, with its configuration and its data.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mainstay_base::ClusterId;
use mainstay_runtime::{Entropy as _, OsEntropy};

use crate::config::{Durability, Inline, NodeConfig};
use crate::failure::Failure;
use crate::log::Level;
use crate::node::BOOTSTRAP;
use crate::report::Report;

const FILE: &str = "mainstay.toml";
/// Below the ports that the system gives to those who dial, so that a node finds its ports free when it comes back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The nodes of a cluster in the order of their names.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<NodeConfig>,
    directory: PathBuf,
    /// It was made just now: no node has ever run.
    made: bool,
    /// The ports of new nodes, held until they are started.
    held: Vec<TcpListener>,
}

impl Cluster {
    /// Makes the directory with so many nodes, or reads what is there.
    pub(crate) fn open(
        directory: &Path,
        nodes: Option<usize>,
        durability: Option<Durability>,
    ) -> Result<Self, Failure> {
        let shown = directory.display();
        let wrong = |error: io::Error| Failure::usage(format!("{shown}: {error}"));
        let made = !directory.join("n1").exists();
        let mut held = Vec::new();
        if made {
            fs::create_dir_all(directory).map_err(wrong)?;
            if fs::read_dir(directory).map_err(wrong)?.next().is_some() {
                return Err(Failure::usage(format!("{shown} is not empty and holds no cluster")));
            }
            held = make(directory, nodes.unwrap_or(3), durability.unwrap_or(Durability::Disk))?;
        }
        let cluster = Self { made, held, ..Self::read(directory)? };
        if nodes.is_some_and(|nodes| nodes != cluster.nodes.len()) {
            let count = cluster.nodes.len();
            return Err(Failure::usage(format!("{shown} holds a cluster of {count} nodes")));
        }
        if durability.is_some_and(|durability| durability != cluster.nodes[0].durability) {
            return Err(Failure::usage(format!("{shown} holds a cluster of another durability")));
        }
        Ok(cluster)
    }

    /// Reads what is there.
    pub(crate) fn read(directory: &Path) -> Result<Self, Failure> {
        let mut nodes = Vec::new();
        loop {
            let path = directory.join(format!("n{}", nodes.len() + 1)).join(FILE);
            if !path.exists() {
                break;
            }
            nodes.push(NodeConfig::read(&path, &[])?);
        }
        if nodes.is_empty() {
            return Err(Failure::usage(format!("{} holds no cluster", directory.display())));
        }
        let directory = directory.to_owned();
        Ok(Self { nodes, directory, made: false, held: Vec::new() })
    }

    /// Whether it was made just now.
    pub(crate) fn is_new(&self) -> bool {
        self.made
    }

    /// Gives the ports of all nodes free, before the first one is started: a process that is being started holds what
    /// this one holds, for a moment even after it runs.
    pub(crate) fn release(&mut self) {
        self.held.clear();
    }

    /// Takes back a cluster that was made just now, if it was; no node may run. It can be made again, with other ports.
    pub(crate) fn unmake(self) -> Result<bool, Failure> {
        for node in self.nodes.iter().filter(|_| self.made) {
            let home = self.directory.join(&node.node);
            fs::remove_dir_all(&home)
                .map_err(|error| Failure::usage(format!("{}: {error}", home.display())))?;
        }
        Ok(self.made)
    }

    /// Where the configuration of a node is.
    pub(crate) fn config(&self, node: usize) -> PathBuf {
        self.directory.join(&self.nodes[node].node).join(FILE)
    }

    /// What each node says of itself.
    pub(crate) fn reports(&self) -> Vec<io::Result<Report>> {
        self.nodes.iter().map(|node| Report::of(node.admin)).collect()
    }
}

/// Writes the configurations; answers the ports of the nodes, still held.
fn make(
    directory: &Path,
    count: usize,
    durability: Durability,
) -> Result<Vec<TcpListener>, Failure> {
    let wrong = |error: io::Error| Failure::usage(format!("{}: {error}", directory.display()));
    let cluster = ClusterId::from_entropy(OsEntropy.draw().map_err(Failure::halted)?).to_string();
    let mut free = free_ports(OsEntropy.draw().map_err(Failure::halted)?);
    let mut held = Vec::new();
    let mut addresses = BTreeMap::new();
    for number in 1..=count {
        let listeners: Vec<_> = free.by_ref().take(3).collect();
        let [listen, resp, admin] = &listeners[..] else {
            return Err(Failure::usage("there are too few free ports"));
        };
        let address = |listener: &TcpListener| listener.local_addr().map_err(wrong);
        let name = format!("n{number}");
        addresses.insert(name, (address(listen)?, address(resp)?, address(admin)?));
        held.extend(listeners);
    }
    let nodes: BTreeMap<String, SocketAddr> =
        addresses.iter().map(|(name, (listen, ..))| (name.clone(), *listen)).collect();
    // The first node last: where it is, all are.
    for (name, (listen, resp, admin)) in addresses.iter().rev() {
        let mut peers = nodes.clone();
        peers.remove(name);
        let config = NodeConfig {
            cluster: cluster.clone(),
            node: name.clone(),
            listen: *listen,
            resp: *resp,
            admin: *admin,
            data_dir: "data".into(),
            durability,
            inline: Inline::default(),
            log: Level::default(),
            trace: None,
            peers,
            clock: None,
            from: BTreeMap::new(),
        };
        let home = directory.join(name);
        let text = toml::to_string(&config).map_err(Failure::halted)?;
        fs::create_dir(&home)
            .and_then(|()| fs::write(home.join(BOOTSTRAP), ""))
            .and_then(|()| fs::write(home.join(FILE), text))
            .map_err(wrong)?;
    }
    Ok(held)
}

/// Listens at one free port after the other, below those that the system gives to whoever dials. Two that look at the same moment begin at different places.
pub(crate) fn free_ports(entropy: u128) -> impl Iterator<Item = TcpListener> {
    let size = u128::from(PORTS.end - PORTS.start);
    let port = move |step: u128| PORTS.start + ((entropy % size + step) % size) as u16;
    (0..size).filter_map(move |step| TcpListener::bind((Ipv4Addr::LOCALHOST, port(step))).ok())
}

/// Whether all say that they execute commands, in a view of all.
pub(crate) fn all_ready(reports: &[io::Result<Report>]) -> bool {
    reports.iter().all(|report| {
        report
            .as_ref()
            .is_ok_and(|report| report.reachable && report.members.len() == reports.len())
    })
}

/// A moment that something must not go beyond.
pub(crate) fn left(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No process is started while this one holds ports of another: held until [`Cluster::release`], then all are free.
    #[test]
    fn the_ports_of_all_are_free_before_the_first_is_started() {
        let home = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::open(home.path(), Some(3), None).unwrap();
        let ports = cluster.nodes.iter().flat_map(|node| [node.listen, node.resp, node.admin]);
        let ports: Vec<_> = ports.collect();
        assert!(ports.iter().all(|port| TcpListener::bind(port).is_err()));
        cluster.release();
        assert!(ports.iter().all(|port| TcpListener::bind(port).is_ok()));
    }
}
