//! The members of the cluster.

use std::io;
use std::path::{Path, PathBuf};

use etcd_client::Client;
use peers_common::{Process, command, eventually, loopback_ports};

const COUNT: usize = 3;

/// Three running members.
pub(crate) struct Members {
    processes: Vec<Process>,
    ports: [u16; COUNT],
    /// The arguments of each, and where it is.
    starts: Vec<(Vec<String>, PathBuf)>,
}

impl Members {
    /// Starts them, each with these options.
    pub(crate) fn start(dir: &Path, options: &[&str]) -> io::Result<Self> {
        let all: [u16; 2 * COUNT] = loopback_ports()?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let [a, b, c, x, y, z] = all;
        let (ports, peers) = ([a, b, c], [x, y, z]);
        let cluster: Vec<_> = peers
            .iter()
            .enumerate()
            .map(|(name, peer)| format!("m{name}={}", url(*peer)))
            .collect();
        let mut starts = Vec::new();
        for (name, (port, peer)) in ports.iter().zip(peers).enumerate() {
            let home = dir.join(format!("m{name}"));
            std::fs::create_dir(&home)?;
            let mut member = vec![format!("--name=m{name}")];
            for option in ["--listen-client-urls", "--advertise-client-urls"] {
                member.push(format!("{option}={}", url(*port)));
            }
            for option in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
                member.push(format!("{option}={}", url(peer)));
            }
            member.push(format!("--initial-cluster={}", cluster.join(",")));
            member.push("--initial-cluster-state=new".to_owned());
            member.extend(options.iter().map(|option| (*option).to_owned()));
            starts.push((member, home));
        }
        let mut members = Self { processes: Vec::new(), ports, starts };
        members.start_all()?;
        Ok(members)
    }

    /// Kills all that run.
    pub(crate) fn kill_all(&mut self) -> io::Result<()> {
        self.processes.iter_mut().try_for_each(Process::kill)
    }

    /// Starts all, each with what an earlier process has left.
    pub(crate) fn start_all(&mut self) -> io::Result<()> {
        self.processes.clear();
        for (arguments, home) in &self.starts {
            let mut member = command("etcd");
            member.args(arguments).arg("--data-dir").arg(home.join("data"));
            self.processes.push(Process::start(member, &home.join("log"))?);
        }
        Ok(())
    }

    /// A connection to the member with this number, counted round.
    pub(crate) async fn connect(&self, member: usize) -> io::Result<Client> {
        let address = format!("127.0.0.1:{}", self.ports[member % COUNT]);
        Client::connect([address], None).await.map_err(io::Error::other)
    }

    /// Which one all agree to be the leader.
    pub(crate) async fn leader(&self) -> io::Result<usize> {
        let agreed = async || {
            let (mut ids, mut leaders) = (Vec::new(), Vec::new());
            for member in 0..COUNT {
                let status = self.connect(member).await?.status().await;
                let status = status.map_err(io::Error::other)?;
                ids.push(status.header().map(|header| header.member_id()));
                leaders.push(Some(status.leader()));
            }
            let leader = ids.iter().position(|id| leaders.iter().all(|it| it == id));
            leader.ok_or_else(|| io::Error::other("the members agree on no leader"))
        };
        eventually("a leader", agreed).await
    }

    /// The process of this member, that it can be killed.
    pub(crate) fn take(&mut self, member: usize) -> Process {
        self.processes.remove(member)
    }

    /// That all still run.
    pub(crate) fn check(&mut self) -> io::Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)
    }
}
