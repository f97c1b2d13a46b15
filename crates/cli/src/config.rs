//! The configuration of one node: a file, above it the environment, above that the flags.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use mainstay::DatagramKeys;
use mainstay_base::ClusterId;
use mainstay_check::file::Head;
use mainstay_clock::sync::global::Setup;
use mainstay_directory::host;
use mainstay_runtime::Pulse;
use serde::{Deserialize, Serialize};

use crate::clock::hosted::{ClockConfig, Nodes};
use crate::failure::Failure;
use crate::log::Level;
use crate::trace::TraceFile;

/// `MAINSTAY__RESP=127.0.0.1:7000` overrides the key `resp`.
pub(crate) const ENVIRONMENT: &str = "MAINSTAY__";
/// The one override that fits all nodes of a cluster: from which level on they log.
pub(crate) const LOG: &str = "MAINSTAY__LOG";

/// What is above the file: a key, its value, and where it is from.
pub(crate) struct Override {
    key: String,
    value: String,
    /// What is to be blamed for it: the variable or the flag.
    from: String,
}

impl Override {
    /// A flag of the command line, as it is written there.
    pub(crate) fn flag(flag: &str, value: String) -> Self {
        let key = flag.trim_start_matches('-').replace('-', "_");
        Self { key, value, from: flag.to_owned() }
    }

    /// Variables with the prefix. All others may hold whatever the system lets them.
    pub(crate) fn environment() -> Result<Vec<Self>, Failure> {
        let of_node = |(name, value): (OsString, OsString)| {
            if !name.as_encoded_bytes().starts_with(ENVIRONMENT.as_bytes()) {
                return None;
            }
            let shown = name.to_string_lossy().into_owned();
            Some(match (name.to_str(), value.into_string()) {
                (Some(name), Ok(value)) => {
                    let key = name[ENVIRONMENT.len()..].to_lowercase();
                    Ok(Self { key, value, from: shown })
                }
                _ => Err(Failure::usage(format!("{shown}: not UTF-8"))),
            })
        };
        std::env::vars_os().filter_map(of_node).collect()
    }

    /// Whether a file with nothing wrong in it and this would be a configuration.
    fn check(&self) -> Result<(), Failure> {
        let wrong = |why: &dyn fmt::Display| {
            let why = why.to_string().replace('\n', " ");
            Failure::usage(format!("{}: {}", self.from, why.trim_end()))
        };
        let mut table: toml::Table = SOUND.parse().map_err(|error| wrong(&error))?;
        table.insert(self.key.clone(), self.value.clone().into());
        let config: NodeConfig = table.try_into().map_err(|error| wrong(&error))?;
        config.check().map_err(|why| wrong(&why))
    }
}

/// A configuration that each override is tried with.
const SOUND: &str = r#"
cluster = "00000000-0000-0000-0000-000000000001"
node = ""
listen = "127.0.0.1:1"
resp = "127.0.0.1:2"
admin = "127.0.0.1:3"
data_dir = "data"
durability = "disk"
"#;

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
    /// The clocks of the nodes are kept together; not without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) clock: Option<ClockConfig>,
    /// What is from elsewhere than the file, by key.
    #[serde(skip)]
    pub(crate) from: BTreeMap<String, String>,
}

fn overrides_of(from: &BTreeMap<String, String>) -> String {
    from.values().cloned().collect::<Vec<_>>().join(" ")
}

impl NodeConfig {
    /// Reads `path`, with `overrides` by key above it; the last one of a key counts.
    pub(crate) fn read(path: &Path, overrides: &[Override]) -> Result<Self, Failure> {
        let wrong = |text: &dyn fmt::Display| {
            Failure::usage(format!("{}: {}", path.display(), text.to_string().trim_end()))
        };
        let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
        let mut table: toml::Table = text.parse().map_err(|error| wrong(&error))?;
        let mut from = BTreeMap::new();
        for over in overrides {
            over.check()?;
            table.insert(over.key.clone(), over.value.clone().into());
            from.insert(over.key.clone(), over.from.clone());
        }
        let mut config: Self = table.try_into().map_err(|error| wrong(&error))?;
        config.from = from;
        config.check().map_err(|error| match &*overrides_of(&config.from) {
            "" => wrong(&error),
            // Each alone is sound: it does not fit the rest.
            names => wrong(&format!("with {names}: {error}")),
        })?;
        if let Some(directory) = path.parent() {
            config.data_dir = directory.join(&config.data_dir);
            config.trace = config.trace.map(|trace| directory.join(trace));
            config.clock.iter_mut().for_each(|clock| clock.relative_to(directory));
        }
        config.clock_setup().map_err(|error| wrong(&error))?;
        config.datagrams().map_err(|error| wrong(&error))?;
        Ok(config)
    }

    /// Where a key is to be mended, given the file.
    pub(crate) fn place(&self, file: &Path, key: &str) -> String {
        self.from.get(key).map_or_else(|| format!("{}: {key}", file.display()), String::clone)
    }

    /// Puts directories that are no UTF-8 above all; relative ones are taken from where the file is, too.
    pub(crate) fn with_directories(
        mut self,
        file: &Path,
        data: Option<&Path>,
        trace: Option<&Path>,
    ) -> Self {
        let at = |directory: &Path| file.parent().unwrap_or_else(|| Path::new("")).join(directory);
        self.data_dir = data.map_or(self.data_dir, at);
        self.trace = trace.map(at).or(self.trace);
        self
    }

    fn check(&self) -> Result<(), String> {
        let Self { node, listen, .. } = self;
        self.cluster_id()?;
        if let Some(clock) = &self.clock {
            clock.setup(&self.nodes()?)?;
        }
        if self.peers.contains_key(node) {
            return Err(format!("peers names this node, {node:?}, itself"));
        }
        if let Some((peer, _)) = self.peers.iter().find(|(_, address)| *address == listen) {
            return Err(format!("peer {peer:?} has the address of this node, {listen}"));
        }
        let own = [("listen", *listen), ("resp", self.resp), ("admin", self.admin)];
        let doubled = own.iter().enumerate().find_map(|(at, (key, address))| {
            let same = own[..at].iter().find(|(_, other)| other == address && address.port() != 0);
            same.map(|(other, _)| (key, other, address))
        });
        if let Some((key, other, address)) = doubled {
            return Err(format!("{key} and {other} have one address, {address}"));
        }
        for (peer, address) in &self.peers {
            if let Some((other, _)) =
                self.peers.iter().find(|(it, at)| *it < peer && *at == address)
            {
                return Err(format!("peers {other:?} and {peer:?} have one address, {address}"));
            }
            if !address.ip().is_loopback() {
                return Err(format!(
                    "peer {peer:?} at {address}: not loopback, and frames go no further until there is TLS"
                ));
            }
            if address.port() == 0 {
                return Err(format!("peer {peer:?} at {address}: port 0 cannot be dialled"));
            }
        }
        Ok(())
    }

    fn cluster_id(&self) -> Result<ClusterId, String> {
        let cluster = &self.cluster;
        ClusterId::parse(cluster).ok_or_else(|| format!("cluster {cluster:?} is not a UUID"))
    }

    fn nodes(&self) -> Result<Nodes<'_>, String> {
        let names = self.peers.keys().chain([&self.node]).map(String::as_str).collect();
        Ok(Nodes { cluster: self.cluster_id()?, me: &self.node, names })
    }

    /// The keys of the datagrams of the clock, if those go by UDP.
    pub(crate) fn datagrams(&self) -> Result<Option<DatagramKeys>, String> {
        let Some(clock) = &self.clock else { return Ok(None) };
        clock.datagrams(&self.nodes()?)
    }

    /// The clock to be mounted, if one is wanted.
    pub(crate) fn clock_setup(&self) -> Result<Option<Setup>, String> {
        let Some(clock) = &self.clock else { return Ok(None) };
        clock.setup_with_keys(&self.nodes()?).map(Some)
    }

    /// Begins a trace, if one is wanted.
    pub(crate) fn begin_trace(&self) -> Result<Option<Arc<TraceFile>>, Failure> {
        let Some(directory) = &self.trace else { return Ok(None) };
        let nodes = self.peers.keys().chain([&self.node]);
        let cluster = self.cluster_id().map_err(Failure::usage)?;
        let groups = [mainstay::Config::GROUP.to_owned()];
        let head = Head::new(cluster, &self.node, nodes.cloned(), groups, unix_ms());
        let begun = TraceFile::create(directory, &head).map(Some);
        let place = format!("trace: {}", directory.display());
        begun.map_err(|error| Failure::file(place, &error))
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
        let settings = mainstay::Config::new(cluster, &self.node, nodes)
            .durability(durability)
            .data_dir(&self.data_dir)
            .bootstrap(bootstrap)
            .pulse(pulse);
        Ok(match self.datagrams().map_err(Failure::usage)? {
            Some(keys) => settings.datagrams(keys),
            None => settings,
        })
    }
}

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
