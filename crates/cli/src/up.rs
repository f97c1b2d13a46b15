//! `mainstay up`: a cluster of processes on this machine, in the foreground.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::{Cluster, all_ready, left};
use crate::config::Durability;
use crate::failure::Failure;
use crate::process::{Process, Said, stop_all};

/// Lines that wait to be printed; a process that prints more waits.
const LINES_MAX: usize = 1024;
/// How often the nodes are asked while they start.
const ASK: Duration = Duration::from_millis(50);
/// How long the start of all nodes may take.
const PATIENCE: Duration = Duration::from_secs(30);

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
}

/// What `up` waits for.
enum Event {
    Said(Said),
    Stop,
}

/// Runs until it is asked to stop; a node that ends by itself is reported and not started again.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let Service::Directory = options.service;
    let cluster = Cluster::open(&options.dir, options.nodes.map(usize::from), options.durability)?;
    let (said, lines) = mpsc::sync_channel(LINES_MAX);
    let (events, happened) = mpsc::sync_channel(LINES_MAX);
    on_signal(events.clone()).map_err(Failure::halted)?;
    std::thread::spawn(move || {
        lines.into_iter().all(|said| events.send(Event::Said(said)).is_ok())
    });
    let mut processes = Vec::new();
    for node in 0..cluster.nodes.len() {
        let process = Process::start(node, &cluster.config(node), said.clone());
        processes.push(process.map_err(Failure::halted)?);
    }
    let ran = attend(&cluster, &happened, &mut processes);
    stop_all(processes.iter_mut()).map_err(Failure::halted)?;
    ran
}

/// Prints what the nodes say until somebody asks to stop or all have ended.
fn attend(
    cluster: &Cluster,
    happened: &Receiver<Event>,
    processes: &mut [Process],
) -> Result<(), Failure> {
    let mut running = processes.len();
    let mut deadline = Some(Instant::now() + PATIENCE);
    while running > 0 {
        let event = match deadline {
            Some(_) => happened.recv_timeout(ASK),
            None => happened.recv().map_err(RecvTimeoutError::from),
        };
        match event {
            Ok(Event::Said(Said { line: Some(line), .. })) => print(&line),
            Ok(Event::Said(said)) => {
                running -= 1;
                let status = processes[said.node].wait().map_err(Failure::halted)?;
                let ended = Failure::ended(&cluster.nodes[said.node].node, status.code());
                if deadline.is_some() {
                    return Err(ended);
                }
                eprintln!("mainstay: {ended}");
            }
            Err(RecvTimeoutError::Timeout) if all_ready(&cluster.reports()) => {
                print("ready");
                deadline = None;
            }
            Err(RecvTimeoutError::Timeout) if deadline.and_then(left).is_none() => {
                return Err(Failure::unreachable("the nodes are not ready in time"));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
    Err(Failure::unreachable("all nodes have ended"))
}

/// Nobody may read it any more.
fn print(line: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
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
