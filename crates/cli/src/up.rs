//! `mainstay up`: a cluster of processes on this machine, in the foreground.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::{Cluster, all_ready, left};
use crate::config::Durability;
use crate::failure::Failure;
use crate::out::{announce, tell};
use crate::process::{Process, Said, stop_all};
use crate::report::{Report, silence};

/// Lines that wait to be printed; a process that prints more waits.
const LINES_MAX: usize = 1024;
/// So many sets of ports are tried for a new cluster.
const TRIES: u32 = 3;
/// How often the nodes are asked while they start.
const ASK: Duration = Duration::from_millis(50);
/// How long the start of all nodes of a new cluster may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// When it is said what a cluster that was there waits for.
const LATE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Service {
    /// The replicated directory.
    Directory,
}

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What the nodes run.
    #[arg(value_enum)]
    service: Service,
    /// How many nodes: three, unless the directory is there already.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: Option<u8>,
    /// The cluster's directory; made if it is missing.
    #[arg(long)]
    dir: PathBuf,
    /// What survives a restart: disk, unless the directory is there already.
    #[arg(long, value_enum)]
    durability: Option<Durability>,
    /// The directory where the nodes keep traces of what they do.
    #[arg(long)]
    trace: Option<PathBuf>,
}

/// What `up` waits for.
enum Event {
    Said(Said),
    Stop,
}

/// Runs until it is asked to stop; a node that ends by itself is reported and not started again.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let Service::Directory = options.service;
    let (events, happened) = mpsc::sync_channel(LINES_MAX);
    on_signal(events.clone()).map_err(Failure::halted)?;
    let mut tries = 0;
    loop {
        let nodes = options.nodes.map(usize::from);
        let mut cluster = Cluster::open(&options.dir, nodes, options.durability)?;
        let mut processes = start(&mut cluster, options.trace.as_deref(), &events)?;
        let ran = attend(&cluster, &happened, &mut processes);
        stop_all(processes.iter_mut()).map_err(Failure::halted)?;
        drop(processes);
        tries += 1;
        match ran {
            // Somebody else took a port that was free a moment ago. Nobody knows the new ports yet.
            Err(Ended::AtStart(failure)) if failure.is_usage() && tries < TRIES => {
                if !cluster.unmake()? {
                    return Err(failure);
                }
                // What the last processes said is of no interest.
                while matches!(happened.recv_timeout(ASK), Ok(Event::Said(_))) {}
            }
            Err(Ended::AtStart(failure) | Ended::Later(failure)) => return Err(failure),
            Ok(()) => return Ok(()),
        }
    }
}

/// Starts a process for each node.
fn start(
    cluster: &mut Cluster,
    trace: Option<&Path>,
    events: &SyncSender<Event>,
) -> Result<Vec<Process>, Failure> {
    let (said, lines) = mpsc::sync_channel(LINES_MAX);
    let events = events.clone();
    std::thread::spawn(move || {
        lines.into_iter().all(|said| events.send(Event::Said(said)).is_ok())
    });
    let mut processes = Vec::new();
    cluster.release();
    for node in 0..cluster.nodes.len() {
        let process = Process::start(node, &cluster.config(node), trace, said.clone());
        processes.push(process.map_err(Failure::halted)?);
    }
    Ok(processes)
}

/// Why it is over, and when.
enum Ended {
    /// Before all nodes were ready.
    AtStart(Failure),
    Later(Failure),
}

/// Prints what the nodes say until somebody asks to stop or all have ended.
fn attend(
    cluster: &Cluster,
    happened: &Receiver<Event>,
    processes: &mut [Process],
) -> Result<(), Ended> {
    let halted = |error: io::Error| Ended::Later(Failure::halted(error));
    let mut running = processes.len();
    let mut start = Start::new(cluster.is_new());
    while running > 0 {
        let event = match start.over {
            false => happened.recv_timeout(ASK),
            true => happened.recv().map_err(RecvTimeoutError::from),
        };
        match event {
            Ok(Event::Said(Said { line: Some(line), .. })) => start.said(line),
            Ok(Event::Said(said)) if processes[said.node].pid() == said.pid => {
                running -= 1;
                let status = processes[said.node].wait().map_err(halted)?;
                let ended = Failure::ended(&cluster.nodes[said.node].node, status.code());
                if !start.is_left_running() {
                    return Err(Ended::AtStart(ended));
                }
                tell!("mainstay: {ended}");
            }
            Ok(Event::Said(_)) => {}
            Err(RecvTimeoutError::Timeout) => {
                let reports = cluster.reports();
                if all_ready(&reports) {
                    start.ready();
                } else if left(start.deadline).is_none() {
                    start.late(cluster, &reports)?;
                }
            }
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
    Err(Ended::Later(Failure::unreachable("all nodes have ended")))
}

/// What the nodes say until all are ready: printed together, since the ports of a new cluster may be chosen once more.
struct Start {
    lines: Vec<String>,
    deadline: Instant,
    told: bool,
    over: bool,
}

impl Start {
    fn new(made: bool) -> Self {
        let deadline = Instant::now() + if made { PATIENCE } else { LATE };
        Self { lines: Vec::new(), deadline, told: false, over: false }
    }

    fn said(&mut self, line: String) {
        if self.is_left_running() {
            announce(line);
        } else {
            self.lines.push(line);
        }
    }

    fn ready(&mut self) {
        self.tell();
        announce("ready".to_owned());
        self.over = true;
    }

    /// A node that ends from here on is reported, and the others are left running.
    fn is_left_running(&self) -> bool {
        self.over || self.told
    }

    /// A new cluster has no reason to be late; one that was there may wait for an operator.
    fn late(&mut self, cluster: &Cluster, reports: &[io::Result<Report>]) -> Result<(), Ended> {
        let waits = waits(cluster, reports);
        if cluster.is_new() {
            let late = Failure::unreachable(format!("the nodes are not ready in time: {waits}"));
            return Err(Ended::AtStart(late));
        }
        if !self.told {
            self.tell();
            tell!("mainstay: the nodes are not ready yet and left running: {waits}");
        }
        Ok(())
    }

    fn tell(&mut self) {
        self.told = true;
        self.lines.sort();
        self.lines.drain(..).for_each(announce);
    }
}

/// What each node that is not ready says of itself.
fn waits(cluster: &Cluster, reports: &[io::Result<Report>]) -> String {
    let said = cluster.nodes.iter().zip(reports).filter_map(|(node, report)| {
        let why = match report {
            // Its process runs, since what ends is reported.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "it starts, and reads its log".to_owned()
            }
            Err(error) => silence(error),
            Ok(report) if !report.alarms.is_empty() => report.alarms.join(", "),
            Ok(report) if report.reachable => return None,
            Ok(_) => "it is not a member with a state yet".to_owned(),
        };
        Some(format!("{}: {why}", node.node))
    });
    said.collect::<Vec<_>>().join("; ")
}

/// Tells when the process is interrupted or terminated.
fn on_signal(events: SyncSender<Event>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    drop(guard);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        // Nobody waits any more.
        let _ = events.send(Event::Stop);
    });
    Ok(())
}
