//! One node of the replicated directory. It says `ready ROLE ADDRESS` in a view of all, answers the line `status`, and ends
//! with its standard input.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay::{Config, Durability, Replicated};
use mainstay_directory::{Directory, host};
use mainstay_paradigm as paradigm;
use mainstay_runtime::TcpClients;
use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;

use crate::cluster::{self, Member, Seat};
use crate::process::{self, orders, say};

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
    /// Where its clients connect; by default at a free port.
    #[arg(long, default_value = "127.0.0.1:0")]
    clients: SocketAddr,
    #[command(flatten)]
    bounds: Bounds,
}

/// The bounds of the state; the same at all nodes.
#[derive(Clone, clap::Args)]
pub(crate) struct Bounds {
    /// What the directory holds, in bytes.
    #[arg(long, default_value_t = 1 << 30)]
    pub(crate) bytes_max: u64,
    /// A checkpoint is due after so many bytes of commands.
    #[arg(long, default_value_t = 64 << 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) checkpoint_bytes: u64,
}

impl Bounds {
    /// The settings of a replica.
    pub(crate) fn replica(&self) -> io::Result<paradigm::Config> {
        let config = paradigm::Config::builder().checkpoint_bytes(self.checkpoint_bytes);
        config.build().map_err(io::Error::other)
    }

    /// A state before the first command.
    pub(crate) fn directory(&self) -> Directory {
        Directory::new(self.bytes_max)
    }

    fn arguments(&self) -> [String; 2] {
        let Self { bytes_max, checkpoint_bytes } = self;
        [format!("--bytes-max={bytes_max}"), format!("--checkpoint-bytes={checkpoint_bytes}")]
    }
}

/// What a node answers to `status`.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Seen {
    /// The number of the last view it knows, and how many members that has.
    pub(crate) view: u64,
    pub(crate) members: usize,
    pub(crate) is_sequencer: bool,
    /// It has all the past of the group, and executes.
    pub(crate) whole: bool,
    pub(crate) position: u64,
    pub(crate) hash: u128,
    /// Checkpoints that its process has forced.
    pub(crate) checkpoints: u64,
    /// The longest turn of its process, with and without the time in which others had the processor.
    pub(crate) longest: Duration,
    pub(crate) longest_at_work: Duration,
}

impl Seen {
    pub(crate) fn of(status: &mainstay::Status) -> Self {
        let (site, replica) = (&status.site, &status.replica);
        let stack = site.stack.as_ref();
        let group = stack.and_then(|stack| stack.groups.values().next()).map(|it| &it.0);
        let sequencer = group.and_then(|group| group.sequencer);
        Self {
            view: stack.map_or(0, |stack| stack.view.number),
            members: stack.map_or(0, |stack| stack.members.len()),
            is_sequencer: sequencer.is_some_and(|it| it.node == site.node),
            whole: group.is_some_and(|group| group.whole) && replica.hash.is_some(),
            position: replica.position.0,
            hash: replica.hash.unwrap_or_default(),
            checkpoints: replica.checkpoints,
            longest: site.turns.longest,
            longest_at_work: site.turns.longest_at_work,
        }
    }

    fn line(&self) -> String {
        let Self { view, members, is_sequencer, whole, position, hash, checkpoints, .. } = self;
        let [longest, at_work] = [self.longest, self.longest_at_work].map(|it| it.as_nanos());
        format!(
            "status {view} {members} {is_sequencer} {whole} {position} {hash} {checkpoints} {longest} {at_work}"
        )
    }

    fn parse(words: &[String]) -> Option<Self> {
        let [view, members, is_sequencer, whole, position, hash, checkpoints, longest, at_work] =
            words
        else {
            return None;
        };
        let time = |text: &String| text.parse().ok().map(Duration::from_nanos);
        Some(Self {
            view: view.parse().ok()?,
            members: members.parse().ok()?,
            is_sequencer: is_sequencer.parse().ok()?,
            whole: whole.parse().ok()?,
            position: position.parse().ok()?,
            hash: hash.parse().ok()?,
            checkpoints: checkpoints.parse().ok()?,
            longest: time(longest)?,
            longest_at_work: time(at_work)?,
        })
    }
}

/// Three nodes. Dropping them kills them and removes what they wrote.
pub(crate) struct Nodes {
    pub(crate) members: Vec<Member>,
    /// Behind the processes: they end first.
    home: TempDir,
}

impl Nodes {
    /// Starts them and waits until they are ready.
    pub(crate) fn start(place: &Place, durability: Durability) -> io::Result<Self> {
        Self::start_with(place, durability, &[])
    }

    /// The same on disk, with other bounds.
    pub(crate) fn start_bounded(place: &Place, bounds: &Bounds) -> io::Result<Self> {
        Self::start_with(place, Durability::Disk, &bounds.arguments())
    }

    fn start_with(place: &Place, durability: Durability, more: &[String]) -> io::Result<Self> {
        let home = place.new_dir()?;
        let members = cluster::start(|name| {
            let mut arguments = vec!["node".to_owned()];
            if durability == Durability::Disk {
                arguments.push(format!("--data-dir={}", home.path().join(name).display()));
            }
            arguments.extend_from_slice(more);
            arguments
        })?;
        Ok(Self { members, home })
    }

    /// Where the nodes have their directories, each under its name.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// How each node is.
    pub(crate) fn seen(&mut self) -> io::Result<Vec<Seen>> {
        let unknown = || io::Error::other("a node did not say how it is");
        let ask =
            |member: &mut Member| Seen::parse(&member.process.ask("status")?).ok_or_else(unknown);
        self.members.iter_mut().map(ask).collect()
    }

    /// Kills these, as a crash does: all get the signal before one is waited for.
    pub(crate) fn kill(&mut self, which: &[usize]) -> io::Result<()> {
        which.iter().try_for_each(|it| self.members[*it].process.signal("KILL"))?;
        which.iter().try_for_each(|it| self.members[*it].process.kill())
    }

    /// Starts these again, with their clients at the old address.
    pub(crate) fn restart(&mut self, which: &[usize]) -> io::Result<()> {
        which.iter().try_for_each(|it| {
            let member = &mut self.members[*it];
            let clients = member.clients.map(|address| format!("--clients={address}"));
            member.restart(clients.as_slice())
        })
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
    process::run(serve(options))
}

async fn serve(options: Options) -> io::Result<()> {
    let Options { seat, data_dir, clients, bounds } = options;
    let members = seat.nodes().len();
    let mut config = Config::new(seat.cluster, &seat.name, seat.nodes()).bootstrap(true);
    config = config.replica(bounds.replica()?);
    config = match data_dir {
        Some(path) => config.durability(Durability::Disk).data_dir(path),
        None => config.durability(Durability::Memory),
    };
    let listener = TcpClients::new(clients).map_err(io::Error::other)?;
    let address = listener.local_addr().map_err(io::Error::other)?;
    let node = Replicated::start(config, move || bounds.directory()).map_err(io::Error::other)?;
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
        result = answer(&node, &mut orders) => result,
    }
}

/// Answers `status` until the end of the input; there are no other orders.
async fn answer(node: &Replicated<Directory>, orders: &mut Receiver<String>) -> io::Result<()> {
    while let Some("status") = orders.recv().await.as_deref() {
        let status = node.status().await.map_err(|_| io::Error::other("the node has closed"))?;
        say(&Seen::of(&status).line());
    }
    Ok(())
}

/// Waits until the node executes commands in a view of all; whether it gives out the positions.
async fn until_ready(node: &Replicated<Directory>, members: usize) -> io::Result<bool> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_answers_is_read_as_it_was_meant() {
        let (longest, longest_at_work) =
            (Duration::from_nanos(1_234_567), Duration::from_millis(1));
        let seen = Seen {
            view: 7,
            members: 3,
            is_sequencer: false,
            whole: true,
            position: 20_000,
            hash: u128::MAX,
            checkpoints: 2,
            longest,
            longest_at_work,
        };
        let words: Vec<_> = seen.line().split(' ').skip(1).map(str::to_owned).collect();
        assert_eq!(Seen::parse(&words), Some(seen));
        assert_eq!(Seen::parse(&words[1..]), None);
    }
}
