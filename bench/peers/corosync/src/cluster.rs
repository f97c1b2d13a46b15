//! Three daemons and a member of the group beside each.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use peers_common::{Process, Talker, command, run_to_end, wait_for};

use crate::net::{Net, address};

/// How many daemons there are.
pub(crate) const NODES: usize = 3;
const SOURCE: &str = include_str!("cpg.c");

/// How the daemons talk.
#[derive(Clone, Copy)]
pub(crate) struct Transport {
    pub(crate) name: &'static str,
    /// With a short token.
    pub(crate) tuned: bool,
}

/// A running cluster whose members all know one another.
pub(crate) struct Cluster {
    // Ended in this order: members, daemons, namespaces.
    pub(crate) members: Vec<Talker>,
    daemons: Vec<Process>,
    _net: Net,
}

/// What a member saw between two marks.
pub(crate) struct Mark {
    pub(crate) delivered: u64,
    pub(crate) time: Duration,
    pub(crate) views: u64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Mark {
    /// Messages a second.
    pub(crate) fn rate(&self) -> f64 {
        self.delivered as f64 / self.time.as_secs_f64()
    }

    fn read(words: &[String]) -> io::Result<Self> {
        let numbers: Result<Vec<u64>, _> = words.iter().map(|word| word.parse()).collect();
        match numbers.as_deref() {
            Ok(&[delivered, nanos, views, p50, p99]) => Ok(Self {
                delivered,
                time: Duration::from_nanos(nanos),
                views,
                p50: Duration::from_nanos(p50),
                p99: Duration::from_nanos(p99),
            }),
            _ => Err(io::Error::other(format!("not a mark: {words:?}"))),
        }
    }
}

impl Cluster {
    /// Starts all; the members get these arguments.
    pub(crate) fn start(dir: &Path, transport: Transport, arguments: &[&str]) -> io::Result<Self> {
        let program = build(dir)?;
        let net = Net::new(dir, NODES)?;
        let mut daemons = Vec::new();
        for (index, node) in net.nodes.iter().enumerate() {
            let home = dir.join(format!("n{index}"));
            std::fs::create_dir(&home)?;
            let file = home.join("corosync.conf");
            std::fs::write(&file, config(&home, transport))?;
            let mut daemon = node.command("corosync");
            daemon.arg("-f").arg("-c").arg(&file);
            daemons.push(Process::start(daemon, &home.join("log"))?);
        }
        let mut members = Vec::new();
        let mut views = Vec::new();
        for (index, (node, daemon)) in net.nodes.iter().zip(&mut daemons).enumerate() {
            let log = dir.join(format!("member{index}.log"));
            let start = || {
                daemon.check()?;
                let mut member = node.command(&program);
                member.args(arguments);
                let mut member = Talker::start(member, &log)?;
                // It ends without a word as long as the daemon does not answer.
                Ok(member.hear("view").ok().map(|view| (member, view)))
            };
            let (member, view) = wait_for("a daemon", start)?;
            members.push(member);
            views.push(view);
        }
        for (member, mut view) in members.iter_mut().zip(views) {
            while view != [NODES.to_string()] {
                view = member.hear("view")?;
            }
        }
        Ok(Self { members, daemons, _net: net })
    }

    /// What each member saw since the last mark.
    pub(crate) fn mark(&mut self) -> io::Result<Vec<Mark>> {
        for member in &mut self.members {
            member.tell("mark")?;
        }
        self.members.iter_mut().map(|member| Mark::read(&member.hear("mark")?)).collect()
    }

    /// Kills the last daemon.
    pub(crate) fn kill_last(&mut self) -> io::Result<()> {
        self.daemons.pop().map_or(Ok(()), |mut daemon| daemon.kill())
    }

    /// That all daemons still run.
    pub(crate) fn check(&mut self) -> io::Result<()> {
        self.daemons.iter_mut().try_for_each(Process::check)
    }
}

/// Waits until the member tells of a view of so many.
pub(crate) fn hear_view(member: &mut Talker, count: usize) -> io::Result<()> {
    while member.hear("view")? != [count.to_string()] {}
    Ok(())
}

/// Builds the member's program in `dir`: its path.
fn build(dir: &Path) -> io::Result<String> {
    let (source, program) = (dir.join("cpg.c"), dir.join("cpg"));
    std::fs::write(&source, SOURCE)?;
    let mut build = command("cc");
    build.args(["-O2", "-Wall", "-Wextra", "-o"]).arg(&program).arg(&source).arg("-lcpg");
    run_to_end(&mut build)?;
    Ok(program.display().to_string())
}

/// The configuration of a daemon.
fn config(home: &Path, transport: Transport) -> String {
    let Transport { name, tuned } = transport;
    let token = if tuned { "token: 300\n  token_coefficient: 0\n" } else { "" };
    let mut text = format!(
        "system {{\n  state_dir: {}\n}}\n\
         totem {{\n  version: 2\n  cluster_name: bench\n  transport: {name}\n  crypto_cipher: none\n  \
         crypto_hash: none\n  {token}}}\n\
         quorum {{\n  provider: corosync_votequorum\n}}\n\
         logging {{\n  to_stderr: yes\n  to_syslog: no\n  to_logfile: no\n}}\n\
         nodelist {{\n",
        home.display()
    );
    for node in 0..NODES {
        let (address, id) = (address(node), node + 1);
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "  node {{\n    ring0_addr: {address}\n    name: n{id}\n    nodeid: {id}\n  }}"
        );
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that only the tuned transport has a short token, and that every node is named.
    #[test]
    fn the_configuration_names_transport_token_and_nodes() {
        let of = |tuned| config(Path::new("/home"), Transport { name: "knet", tuned });
        assert!(!of(false).contains("token"));
        assert!(of(true).contains("token: 300\n  token_coefficient: 0\n"));
        assert_eq!(of(false).matches("ring0_addr").count(), NODES);
    }

    /// Checks that a mark is read in the order in which it is printed, and that other lines are none.
    #[test]
    fn a_mark_is_read_as_it_is_printed() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mark = Mark::read(&words("30 1000000000 1 5 9")).unwrap();
        assert_eq!((mark.rate(), mark.views), (30.0, 1));
        assert_eq!((mark.p50, mark.p99), (Duration::from_nanos(5), Duration::from_nanos(9)));
        assert!(Mark::read(&words("30")).is_err());
    }
}
