//! The servers of the cluster, and the stream in it.

use std::io;
use std::path::Path;

use async_nats::ConnectOptions;
use async_nats::jetstream::stream::{Config, StorageType};
use async_nats::jetstream::{self, Context};
use peers_common::{Process, command, eventually, loopback_ports};

/// Where messages are published.
pub(crate) const SUBJECT: &str = "bench";
const COUNT: usize = 3;

/// Three running servers.
pub(crate) struct Servers {
    processes: Vec<Process>,
    ports: [u16; COUNT],
}

impl Servers {
    /// Starts them.
    pub(crate) fn start(dir: &Path) -> io::Result<Self> {
        let [a, b, c, x, y, z] = loopback_ports()?;
        let (ports, routes) = ([a, b, c], [x, y, z]);
        let urls = routes.map(|route| format!("\"nats://127.0.0.1:{route}\"")).join(", ");
        let mut processes = Vec::new();
        for (name, (port, route)) in ports.iter().zip(routes).enumerate() {
            let home = dir.join(format!("s{name}"));
            std::fs::create_dir(&home)?;
            let config = format!(
                "server_name: s{name}\nlisten: \"127.0.0.1:{port}\"\n\
                 jetstream {{ store_dir: \"{}\" }}\n\
                 cluster {{ name: bench, listen: \"127.0.0.1:{route}\", routes: [{urls}] }}\n",
                home.display()
            );
            let file = home.join("config");
            std::fs::write(&file, config)?;
            let mut server = command("nats-server");
            server.arg("-c").arg(file);
            processes.push(Process::start(server, &home.join("log"))?);
        }
        Ok(Self { processes, ports })
    }

    /// A connection to the server with this number, counted round; it stays at that server.
    pub(crate) async fn connect(&self, server: usize) -> io::Result<Context> {
        let address = format!("nats://127.0.0.1:{}", self.ports[server % COUNT]);
        let options = ConnectOptions::new().ignore_discovered_servers();
        options.connect(address).await.map(jetstream::new).map_err(io::Error::other)
    }

    /// Makes the stream as soon as the servers agree: which of them leads it.
    pub(crate) async fn make_stream(&self) -> io::Result<usize> {
        let config = || Config {
            name: SUBJECT.to_owned(),
            subjects: vec![SUBJECT.to_owned()],
            num_replicas: COUNT,
            storage: StorageType::File,
            ..Config::default()
        };
        let made = async || {
            let client = self.connect(0).await?;
            let stream = client.get_or_create_stream(config()).await.map_err(io::Error::other)?;
            let info = stream.get_info().await.map_err(io::Error::other)?;
            let cluster = info.cluster.unwrap_or_default();
            let current = cluster.replicas.iter().filter(|it| it.current).count();
            let names = (0..COUNT).map(|name| Some(format!("s{name}")));
            let leader = names.into_iter().position(|name| name == cluster.leader);
            leader.filter(|_| current == COUNT - 1).ok_or_else(|| io::Error::other("no leader"))
        };
        eventually("the stream", made).await
    }

    /// The process of this server, that it can be killed.
    pub(crate) fn take(&mut self, server: usize) -> Process {
        self.processes.remove(server)
    }

    /// That all still run.
    pub(crate) fn check(&mut self) -> io::Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)
    }
}
