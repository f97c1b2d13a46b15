//! Network and mount namespaces without names: each lives as long as a process in it.

use std::io;
use std::path::Path;
use std::process::Command;

use peers_common::{Talker, command, run_to_end};

/// A namespace, held by a process.
pub(crate) struct Namespace {
    holder: Talker,
}

impl Namespace {
    /// A new one with its loopback interface up and empty `/run` and `/dev/shm`, where daemons put their sockets.
    fn new(log: &Path) -> io::Result<Self> {
        let mut holder = command("unshare");
        holder.args(["--net", "--mount", "sh", "-c"]);
        holder.arg(
            "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /dev/shm && \
             ip link set lo up && echo ready && exec cat",
        );
        let mut holder = Talker::start(holder, log)?;
        holder.hear("ready")?;
        Ok(Self { holder })
    }

    /// `program` in this namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = command("nsenter");
        let pid = self.holder.process.id().to_string();
        command.args(["--target", &pid, "--net", "--mount", "--", program]);
        command
    }

    /// Does what these words tell `ip` in this namespace.
    fn ip(&self, words: &str) -> io::Result<()> {
        run_to_end(self.command("ip").args(words.split(' '))).map(drop)
    }
}

/// Namespaces that reach one another through a bridge.
pub(crate) struct Net {
    /// Each has the address of [`address`].
    pub(crate) nodes: Vec<Namespace>,
    _hub: Namespace,
}

/// The address of the node with this index.
pub(crate) fn address(node: usize) -> String {
    format!("10.77.0.{}", node + 1)
}

impl Net {
    /// So many nodes.
    pub(crate) fn new(dir: &Path, count: usize) -> io::Result<Self> {
        let hub = Namespace::new(&dir.join("hub.log"))?;
        hub.ip("link add br0 type bridge")?;
        hub.ip("link set br0 up")?;
        let mut nodes = Vec::new();
        for index in 0..count {
            let node = Namespace::new(&dir.join(format!("namespace{index}.log")))?;
            let pid = node.holder.process.id();
            hub.ip(&format!("link add v{index} type veth peer name eth0 netns {pid}"))?;
            hub.ip(&format!("link set v{index} master br0 up"))?;
            node.ip(&format!("address add {}/24 dev eth0", address(index)))?;
            node.ip("link set eth0 up")?;
            nodes.push(node);
        }
        Ok(Self { nodes, _hub: hub })
    }
}
