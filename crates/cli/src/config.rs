//! The configuration of one node: a file, above it the environment, above that the flags.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_base::ClusterId;
use mainstay_directory::host;
use mainstay_runtime::Pulse;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::log::Level;
use crate::trace::{Head, TraceFile};

/// `MAINSTAY__RESP=127.0.0.1:7000` overrides the key `resp`.
pub(crate) const ENVIRONMENT: &str = "MAINSTAY__";
/// The one override that fits all nodes of a cluster: from which level on they log.
pub(crate) const LOG: &str = "MAINSTAY__LOG";

/// The overrides of the environment, by key.
pub(crate) fn environment() -> Vec<(String, String)> {
    let key = |name: &str| name.strip_prefix(ENVIRONMENT).map(str::to_lowercase);
    std::env::vars().filter_map(|(name, value)| Some((key(&name)?, value))).collect()
}

/// What survives the restart of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    /// An acknowledged write is at a majority of the nodes.
    Memory,
    /// An acknowledged write is forced to the disks of a majority.
    Disk,
}

/// Whether clients may send commands as lines of words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Inline {
    #[default]
    On,
    Off,
}

impl Inline {
    fn is_on(&self) -> bool {
        *self == Self::On
    }
}

/// The keys of the file. Unknown ones are refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeConfig {
    /// The cluster's id, a UUID.
    pub(crate) cluster: String,
    /// The name of this node.
    pub(crate) node: String,
    /// Where the other nodes reach it.
    pub(crate) listen: SocketAddr,
    /// Where clients connect.
    pub(crate) resp: SocketAddr,
    /// Where it answers `GET /status`.
    pub(crate) admin: SocketAddr,
    /// What it must not forget; relative to the file.
    pub(crate) data_dir: PathBuf,
    /// The same at all nodes.
    pub(crate) durability: Durability,
    /// From which level on it writes to standard error.
    #[serde(default)]
    pub(crate) log: Level,
    /// Whether clients may send commands as lines of words.
    #[serde(default, skip_serializing_if = "Inline::is_on")]
    pub(crate) inline: Inline,
    /// The directory where it keeps a trace of what it does, relative to the file; none is kept without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<PathBuf>,
    /// The other nodes, and where they listen.
    #[serde(default)]
    pub(crate) peers: BTreeMap<String, SocketAddr>,
}

impl NodeConfig {
    /// Reads `path`, with `overrides` by key above it; the last one of a key counts.
    pub(crate) fn read(path: &Path, overrides: &[(String, String)]) -> Result<Self, Failure> {
        let wrong = |text: &dyn std::fmt::Display| {
            Failure::usage(format!("{}: {}", path.display(), text.to_string().trim_end()))
        };
        let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
        let mut table: toml::Table = text.parse().map_err(|error| wrong(&error))?;
        for (key, value) in overrides {
            table.insert(key.clone(), value.clone().into());
        }
        let mut config: Self = table.try_into().map_err(|error| wrong(&error))?;
        config.check().map_err(|error| wrong(&error))?;
        if let Some(directory) = path.parent() {
            config.data_dir = directory.join(&config.data_dir);
            config.trace = config.trace.map(|trace| directory.join(trace));
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let Self { node, listen, .. } = self;
        self.cluster_id()?;
        if self.peers.contains_key(node) {
            return Err(format!("peers names this node, {node:?}, itself"));
        }
        if let Some((peer, _)) = self.peers.iter().find(|(_, address)| *address == listen) {
            return Err(format!("peer {peer:?} has the address of this node, {listen}"));
        }
        Ok(())
    }

    fn cluster_id(&self) -> Result<ClusterId, String> {
        let cluster = &self.cluster;
        ClusterId::parse(cluster).ok_or_else(|| format!("cluster {cluster:?} is not a UUID"))
    }

    /// Begins a trace, if one is wanted.
    pub(crate) fn begin_trace(&self) -> Result<Option<Arc<TraceFile>>, Failure> {
        let Some(directory) = &self.trace else { return Ok(None) };
        let nodes = self.peers.keys().chain([&self.node]);
        let head = Head::new(&self.cluster, &self.node, nodes.cloned().collect());
        let begun = TraceFile::create(directory, &head).map(Some);
        begun.map_err(|error| Failure::usage(format!("trace: {}: {error}", directory.display())))
    }

    /// The settings of the port for clients.
    pub(crate) fn clients(&self) -> host::Options {
        let mut options = host::Options::default();
        options.inline = self.inline.is_on();
        options
    }

    /// The settings of the facade.
    pub(crate) fn settings(
        &self,
        bootstrap: bool,
        pulse: Arc<Pulse>,
    ) -> Result<mainstay::Config, Failure> {
        let mut nodes = self.peers.clone();
        nodes.insert(self.node.clone(), self.listen);
        let durability = match self.durability {
            Durability::Memory => mainstay::Durability::Memory,
            Durability::Disk => mainstay::Durability::Disk,
        };
        let cluster = self.cluster_id().map_err(Failure::usage)?;
        Ok(mainstay::Config::new(cluster, &self.node, nodes)
            .durability(durability)
            .data_dir(&self.data_dir)
            .bootstrap(bootstrap)
            .pulse(pulse))
    }
}
