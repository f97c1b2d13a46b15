//! The directory of a cluster on this machine: a directory for each node, with its configuration and its data.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mainstay_base::ClusterId;
use mainstay_runtime::{Entropy as _, OsEntropy};

use crate::config::{Durability, NodeConfig};
use crate::failure::Failure;
use crate::node::BOOTSTRAP;
use crate::report::Report;

const FILE: &str = "mainstay.toml";
/// Below the ports that the system gives to those who dial, so that a node finds its ports free when it comes back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The nodes of a cluster in the order of their names.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<NodeConfig>,
    directory: PathBuf,
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
        if !directory.join("n1").exists() {
            fs::create_dir_all(directory).map_err(wrong)?;
            if fs::read_dir(directory).map_err(wrong)?.next().is_some() {
                return Err(Failure::usage(format!("{shown} is not empty and holds no cluster")));
            }
            make(directory, nodes.unwrap_or(3), durability.unwrap_or(Durability::Disk))?;
        }
        let cluster = Self::read(directory)?;
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
        Ok(Self { nodes, directory: directory.to_owned() })
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

fn make(directory: &Path, count: usize, durability: Durability) -> Result<(), Failure> {
    let wrong = |error: io::Error| Failure::usage(format!("{}: {error}", directory.display()));
    let cluster = ClusterId::from_entropy(OsEntropy.draw().map_err(Failure::halted)?).to_string();
    let mut ports = free_ports(3 * count).into_iter();
    let mut address = || {
        let port = ports.next().ok_or_else(|| Failure::usage("there are too few free ports"))?;
        Ok::<_, Failure>(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    };
    let mut nodes: BTreeMap<String, SocketAddr> = BTreeMap::new();
    for number in 1..=count {
        nodes.insert(format!("n{number}"), address()?);
    }
    // The first node last: where it is, all are.
    for (name, listen) in nodes.iter().rev() {
        let mut peers = nodes.clone();
        peers.remove(name);
        let config = NodeConfig {
            cluster: cluster.clone(),
            node: name.clone(),
            listen: *listen,
            resp: address()?,
            admin: address()?,
            data_dir: "data".into(),
            durability,
            peers,
        };
        let home = directory.join(name);
        let text = toml::to_string(&config).map_err(Failure::halted)?;
        fs::create_dir(&home)
            .and_then(|()| fs::write(home.join(BOOTSTRAP), ""))
            .and_then(|()| fs::write(home.join(FILE), text))
            .map_err(wrong)?;
    }
    Ok(())
}

/// Ports that nobody listens at, all different.
fn free_ports(count: usize) -> Vec<u16> {
    let size = PORTS.end - PORTS.start;
    let begin = (std::process::id() % u32::from(size)) as u16;
    // Processes started one after the other do not look at the same ports.
    let ports = (0..size).map(|step| {
        PORTS.start + ((u32::from(begin) * 37 + u32::from(step)) % u32::from(size)) as u16
    });
    ports
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .take(count)
        .collect()
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
