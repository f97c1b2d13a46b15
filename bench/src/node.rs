//! One node of the replicated directory. It says `ready ROLE ADDRESS` in a view of all, and ends with its standard input.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use mainstay::{Config, Durability, Node};
use mainstay_directory::{Directory, host};
use mainstay_runtime::TcpClients;
use tempfile::TempDir;
use tokio::task::LocalSet;

use crate::cluster::{self, Member, Seat};
use crate::process::{orders, say};

/// How often the node is asked while it starts.
const ASK: Duration = Duration::from_millis(20);

/// Where the nodes keep their data.
#[derive(Default, clap::Args)]
pub(crate) struct Place {
    /// On which disk: in a new directory below this one, removed at the end. Default: that for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Place {
    /// A new directory there.
    pub(crate) fn new_dir(&self) -> io::Result<TempDir> {
        match &self.dir {
            Some(dir) => TempDir::new_in(dir),
            None => TempDir::new(),
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    seat: Seat,
    /// What it must not forget; none: durability memory.
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Three nodes. Dropping them kills them and removes what they wrote.
pub(crate) struct Nodes {
    pub(crate) members: Vec<Member>,
    /// Behind the processes: they end first.
    _home: TempDir,
}

impl Nodes {
    /// Starts them and waits until they are ready.
    pub(crate) fn start(place: &Place, durability: Durability) -> io::Result<Self> {
        let home = place.new_dir()?;
        let members = cluster::start(|name| {
            let mut arguments = vec!["node".to_owned()];
            if durability == Durability::Disk {
                arguments.push(format!("--data-dir={}", home.path().join(name).display()));
            }
            arguments
        })?;
        Ok(Self { members, _home: home })
    }

    /// Where the clients of each node connect: the sequencer last, so that a single client is never at it.
    pub(crate) fn clients(&self) -> io::Result<Vec<SocketAddr>> {
        let unknown = || io::Error::other("a node did not say where its clients connect");
        let mut members: Vec<_> = self.members.iter().collect();
        members.sort_by_key(|member| member.is_sequencer);
        members.into_iter().map(|member| member.clients.ok_or_else(unknown)).collect()
    }
}

pub(crate) fn run(options: Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(options))
}

async fn serve(options: Options) -> io::Result<()> {
    let Options { seat, data_dir } = options;
    let members = seat.nodes().len();
    let mut config = Config::new(seat.cluster, &seat.name, seat.nodes()).bootstrap(true);
    config = match data_dir {
        Some(path) => config.durability(Durability::Disk).data_dir(path),
        None => config.durability(Durability::Memory),
    };
    let listener = TcpClients::new((Ipv4Addr::LOCALHOST, 0).into()).map_err(io::Error::other)?;
    let address = listener.local_addr().map_err(io::Error::other)?;
    let node = Node::start(config, Directory::default).map_err(io::Error::other)?;
    let clients = host::serve(node.clone(), Box::new(listener));
    let mut orders = orders();
    let told = async {
        let is_sequencer = until_ready(&node, members).await?;
        say(&format!("{} {address}", cluster::ready(is_sequencer)));
        std::future::pending().await
    };
    tokio::select! {
        () = clients => Ok(()),
        result = told => result,
        closed = node.closed() => Err(io::Error::other(format!("the node halted: {closed:?}"))),
        // No order is known here: it is the end of the input.
        _ = orders.recv() => Ok(()),
    }
}

/// Waits until the node executes commands in a view of all; whether it gives out the positions.
async fn until_ready(node: &Node<Directory>, members: usize) -> io::Result<bool> {
    loop {
        let status = node.status().await.map_err(|_| io::Error::other("the node has closed"))?;
        let group = status.site.stack.iter().flat_map(|stack| stack.groups.values()).next();
        if let Some((group, _)) = group
            && status.replica.hash.is_some()
            && group.members.len() == members
        {
            return Ok(group.sequencer.is_some_and(|site| site.node == status.site.node));
        }
        tokio::time::sleep(ASK).await;
    }
}
