//! Three members on this machine.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use mainstay_base::ClusterId;
use mainstay_runtime::{Entropy as _, OsEntropy};

use crate::process::Process;

const NAMES: [&str; 3] = ["n1", "n2", "n3"];
/// Below the ports that the system gives to those who dial.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// What a member is told of the cluster.
#[derive(clap::Args)]
pub(crate) struct Seat {
    /// The cluster's id.
    #[arg(long, value_parser = |text: &str| ClusterId::parse(text).ok_or("not a UUID"))]
    pub(crate) cluster: ClusterId,
    /// This member's name.
    #[arg(long)]
    pub(crate) name: String,
    /// Each member as NAME=ADDRESS.
    #[arg(long = "node", value_parser = node)]
    nodes: Vec<(String, SocketAddr)>,
}

fn node(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("not NAME=ADDRESS")?;
    let address = address.parse().map_err(|_| format!("not an address: {address:?}"))?;
    Ok((name.to_owned(), address))
}

impl Seat {
    /// All members.
    pub(crate) fn nodes(&self) -> BTreeMap<String, SocketAddr> {
        self.nodes.iter().cloned().collect()
    }

    /// Where this member listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        let unknown = || io::Error::other("the member is not among the nodes");
        self.nodes().get(&self.name).copied().ok_or_else(unknown)
    }
}

/// A member that is in a view of all.
pub(crate) struct Member {
    pub(crate) process: Process,
    /// It gives out the positions.
    pub(crate) is_sequencer: bool,
    /// Where its clients connect, if it has any.
    pub(crate) clients: Option<SocketAddr>,
    pub(crate) cluster: ClusterId,
    pub(crate) name: &'static str,
    arguments: Vec<String>,
}

impl Member {
    /// Starts its process again once that has ended, with these arguments more. It does not wait for anything.
    pub(crate) fn restart(&mut self, more: &[String]) -> io::Result<()> {
        self.process = Process::start(&[self.arguments.as_slice(), more].concat())?;
        Ok(())
    }
}

/// Starts three members and waits until each is in a view of all. `arguments` of a name come before those of its seat.
pub(crate) fn start(arguments: impl Fn(&str) -> Vec<String>) -> io::Result<Vec<Member>> {
    let cluster = ClusterId::from_entropy(OsEntropy.draw().map_err(io::Error::other)?);
    let ports = free_ports(NAMES.len());
    let nodes: Vec<String> =
        NAMES.iter().zip(&ports).map(|(name, port)| format!("{name}=127.0.0.1:{port}")).collect();
    let mut processes = Vec::new();
    for name in NAMES {
        let mut all = arguments(name);
        all.extend([format!("--cluster={cluster}"), format!("--name={name}")]);
        all.extend(nodes.iter().map(|node| format!("--node={node}")));
        processes.push((name, Process::start(&all)?, all));
    }
    let ready = |(name, mut process, arguments): (_, Process, _)| {
        let said = process.hear_after("view", "ready")?;
        let is_sequencer = said.first().is_some_and(|role| role == "sequencer");
        let clients = said.get(1).and_then(|address| address.parse().ok());
        Ok(Member { process, is_sequencer, clients, cluster, name, arguments })
    };
    processes.into_iter().map(ready).collect()
}

/// What a member says when it is in a view of all.
pub(crate) fn ready(is_sequencer: bool) -> String {
    format!("ready {}", if is_sequencer { "sequencer" } else { "follower" })
}

/// Ports that nobody listens at, all different.
fn free_ports(count: usize) -> Vec<u16> {
    let size = u32::from(PORTS.end - PORTS.start);
    // Programs started one after the other do not look at the same ports.
    let begin = std::process::id().wrapping_mul(37) % size;
    let ports = (0..size).map(|step| PORTS.start + ((begin + step) % size) as u16);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.filter(is_free).take(count).collect()
}
