//! A run of real processes: one for each worker, on loopback, killed and stopped by signals. This process has the store and is the
//! client; it speaks with each worker by lines of JSON on its standard input and output.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::mpsc as channel;
use std::time::{Duration, Instant};

use actix::Actor;
use mainstay::{Config, GroupHandle, Level, Node, Order};
use mainstay_harness::{Entry, Run};
use mainstay_sim::{Disk, Fault};
use mainstay_stable::FileMedium;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::event::Event;
use crate::pool::{Job, Message};
use crate::resource::serve;
use crate::store::JobStore;
use crate::worker::{Out, Reply, Request, Worker};
use crate::{NODES, Planted, cluster, group_config, jobs, name};

/// A run that is not over by then ends as it is.
const MOST: Duration = Duration::from_secs(40);
/// After so long a client asks another worker.
const PATIENCE: Duration = Duration::from_secs(1);
/// Lines that are not read yet.
const LINES_MAX: usize = 1_024;

/// What a worker's process says.
#[derive(Serialize, Deserialize)]
enum Line {
    Said(Event),
    Ask { number: u64, request: Request },
}

/// What it is told.
#[derive(Serialize, Deserialize)]
enum Told {
    Submit(Job),
    Reply { number: u64, reply: Reply },
}

/// What is to be done at its time.
enum Action {
    Submit(Job),
    Kill(usize, bool),
    Start(usize),
    Stop(usize),
    Continue(usize),
}

/// A process that runs.
struct Process {
    child: Child,
    input: ChildStdin,
    /// Which of all that were started.
    number: u64,
}

/// The processes; they end with this value.
struct Processes {
    directory: PathBuf,
    addresses: String,
    planted: Option<&'static str>,
    running: [Option<Process>; NODES],
    started: u64,
    said: channel::SyncSender<Heard>,
}

/// Which worker, which of all processes, and what it says.
type Heard = (usize, u64, Line);

impl Processes {
    fn data(&self, node: usize) -> PathBuf {
        self.directory.join(name(node))
    }

    fn start(&mut self, node: usize) -> std::io::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("child").arg(node.to_string()).arg(self.data(node)).arg(&self.addresses);
        command.args(self.planted).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let both = input.zip(output).ok_or(std::io::ErrorKind::BrokenPipe);
        let (input, output) = both?;
        self.started += 1;
        let (said, number) = (self.said.clone(), self.started);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str(&line) else { continue };
                if said.send((node, number, line)).is_err() {
                    return;
                }
            }
        });
        self.running[node] = Some(Process { child, input, number });
        Ok(())
    }

    fn tell(&mut self, node: usize, told: &Told) {
        if let Some(Process { input, .. }) = &mut self.running[node]
            && let Ok(line) = serde_json::to_string(told)
        {
            // Whoever has been killed hears nothing.
            let _ = writeln!(input, "{line}");
        }
    }

    fn signal(&self, node: usize, signal: Signal) {
        if let Some(Process { child, .. }) = &self.running[node] {
            // It has ended already: then there is nothing to stop.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    /// SIGKILL, also to one that is stopped.
    fn kill(&mut self, node: usize) {
        if let Some(Process { mut child, .. }) = self.running[node].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        (0..NODES).for_each(|node| self.kill(node));
    }
}

/// Actions by their time, and by the order in which they were entered.
#[derive(Default)]
struct Agenda(BTreeMap<(Duration, usize), Action>, usize);

impl Agenda {
    fn enter(&mut self, at: Duration, action: Action) {
        self.1 += 1;
        self.0.insert((at, self.1), action);
    }

    fn of(run: &Run) -> Result<Self, String> {
        let mut agenda = Self::default();
        for (at, job) in jobs(run.seed) {
            agenda.enter(at, Action::Submit(job));
        }
        for event in &run.faults {
            let at = event.at - mainstay_base::Instant::ZERO;
            match event.fault {
                Fault::Crash { node, length, disk, .. } if node < NODES => {
                    agenda.enter(at, Action::Kill(node, disk != Disk::Kept));
                    agenda.enter(at + length, Action::Start(node));
                }
                Fault::Pause { node, length } if node < NODES => {
                    agenda.enter(at, Action::Stop(node));
                    agenda.enter(at + length, Action::Continue(node));
                }
                _ => return Err(format!("real processes crash and pause only: {event}")),
            }
        }
        Ok(agenda)
    }
}

/// One run.
pub(crate) fn run(run: &Run) -> Result<Vec<Entry<Event>>, String> {
    let agenda = Agenda::of(run)?;
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let medium = FileMedium::open(directory.path().join("store"));
    let store = JobStore::open(Arc::new(medium.map_err(|error| error.to_string())?));
    let planted = run.broken.and_then(Planted::named);
    let store = store.map_err(|error| error.to_string())?.planted(planted);
    let (said, heard) = channel::sync_channel(LINES_MAX);
    let mut processes = Processes {
        directory: directory.path().to_path_buf(),
        addresses: addresses().map_err(|error| error.to_string())?,
        planted: run.broken,
        running: [const { None }; NODES],
        started: 0,
        said,
    };
    for node in 0..NODES {
        processes.start(node).map_err(|error| error.to_string())?;
    }
    conduct(agenda, &mut processes, store, &heard).map_err(|error| error.to_string())
}

/// Addresses that are free now, with commas between them.
fn addresses() -> std::io::Result<String> {
    let free = |_| TcpListener::bind("127.0.0.1:0");
    let free = (0..NODES).map(free).collect::<std::io::Result<Vec<_>>>()?;
    let texts = free.iter().map(|it| Ok(it.local_addr()?.to_string()));
    Ok(texts.collect::<std::io::Result<Vec<_>>>()?.join(","))
}

/// Does what is on the agenda, and serves the store, until all is done.
fn conduct(
    mut agenda: Agenda,
    processes: &mut Processes,
    mut store: JobStore,
    heard: &channel::Receiver<Heard>,
) -> std::io::Result<Vec<Entry<Event>>> {
    let (start, mut log, mut submitted) = (Instant::now(), Vec::new(), BTreeSet::new());
    let mut turn = 0;
    loop {
        let now = start.elapsed();
        let is_done = store.results().len() as u64 >= crate::JOBS;
        if now > MOST || (agenda.0.is_empty() && is_done) {
            return Ok(log);
        }
        let next = agenda.0.first_key_value().map_or(MOST, |((at, _), _)| *at);
        if next <= now {
            match agenda.0.pop_first().map(|(_, action)| action) {
                Some(Action::Submit(job)) if !submitted.contains(&job.id) => {
                    turn = (turn + 1) % NODES;
                    processes.tell(turn, &Told::Submit(job));
                    agenda.enter(now + PATIENCE, Action::Submit(job));
                }
                Some(Action::Kill(node, empty)) => {
                    processes.kill(node);
                    if empty {
                        std::fs::remove_dir_all(processes.data(node))?;
                    }
                }
                // Of two crashes at a time the first restart counts.
                Some(Action::Start(node)) if processes.running[node].is_none() => {
                    processes.start(node)?;
                }
                Some(Action::Stop(node)) => processes.signal(node, Signal::STOP),
                Some(Action::Continue(node)) => processes.signal(node, Signal::CONT),
                Some(Action::Submit(_) | Action::Start(_)) | None => {}
            }
            continue;
        }
        let Ok((node, process, line)) = heard.recv_timeout(next - now) else { continue };
        let what = match line {
            Line::Said(event) => Some(event),
            Line::Ask { number, request } => {
                let (reply, event) = serve(&mut store, node, request);
                // One that has been killed hears nothing, and the next one did not ask.
                if processes.running[node].as_ref().is_some_and(|it| it.number == process) {
                    processes.tell(node, &Told::Reply { number, reply });
                }
                event
            }
        };
        if let Some(Event::Submitted { job }) = what {
            submitted.insert(job);
        }
        log.extend(what.map(|what| Entry { at: start.elapsed(), what }));
    }
}

/// A worker's process: its number, its directory, the addresses of all, and perhaps a planted fault. It ends with its input.
#[must_use]
pub fn child(arguments: &[String]) -> ExitCode {
    let (number, directory, addresses, planted) = match arguments {
        [number, directory, addresses] => (number, directory, addresses, None),
        [number, directory, addresses, planted] => {
            (number, directory, addresses, Planted::named(planted))
        }
        _ => return ExitCode::from(2),
    };
    let addresses = addresses.split(',').map(str::parse).collect::<Result<Vec<SocketAddr>, _>>();
    let (Ok(node), Ok(addresses)) = (number.parse(), addresses) else { return ExitCode::from(2) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let worked = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        let work = work(node, Path::new(directory), &addresses, planted);
        tokio::task::LocalSet::new().block_on(&runtime, work)
    });
    match worked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("n{node}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn work(
    index: usize,
    directory: &Path,
    addresses: &[SocketAddr],
    planted: Option<Planted>,
) -> Result<(), String> {
    let nodes = (0..NODES).map(name).zip(addresses.iter().copied()).collect();
    let config = Config::new(cluster(), name(index), nodes).data_dir(directory);
    let mut builder = Node::builder(config).map_err(|error| error.to_string())?;
    let group = builder.group("pool", group_config()).map_err(|error| error.to_string())?;
    let (out, mut heard) = mpsc::channel(LINES_MAX);
    let worker = Worker::new(index, group.clone(), out.clone(), planted).start();
    group.subscribe(worker.recipient()).map_err(|error| error.to_string())?;
    let node = builder.start().map_err(|error| error.to_string())?;
    let (mut told, mut closed) = (input(), pin!(node.closed()));
    let mut waiting = BTreeMap::<u64, oneshot::Sender<Reply>>::new();
    let mut last = 0;
    loop {
        tokio::select! {
            biased;
            Some((_, said)) = heard.recv() => match said {
                Out::Said(event) => say(&Line::Said(event)),
                Out::Ask(request, answer) => {
                    last += 1;
                    waiting.retain(|_, answer| !answer.is_closed());
                    waiting.insert(last, answer);
                    say(&Line::Ask { number: last, request });
                }
            },
            closed = &mut closed => return Err(format!("the node has ended: {closed:?}")),
            line = told.recv() => match line {
                // The other side is gone.
                None => {
                    node.close().await;
                    return Ok(());
                }
                Some(Told::Submit(job)) => {
                    tokio::task::spawn_local(submit(group.clone(), job));
                }
                Some(Told::Reply { number, reply }) => {
                    if let Some(answer) = waiting.remove(&number) {
                        // A worker that gave up waits no more.
                        let _ = answer.send(reply);
                    }
                }
            },
        }
    }
}

/// What comes by the standard input, read on a thread of its own.
fn input() -> mpsc::Receiver<Told> {
    let (tell, told) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let Ok(line) = serde_json::from_str(&line) else { continue };
            if tell.blocking_send(line).is_err() {
                return;
            }
        }
    });
    told
}

fn say(line: &Line) {
    if let Ok(line) = serde_json::to_string(line) {
        let mut output = std::io::stdout().lock();
        // The other side is gone: the input ends too.
        let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    }
}

async fn submit(group: GroupHandle, job: Job) {
    let Ok(bytes) = serde_json::to_vec(&Message::Submit(job)) else { return };
    let Ok(receipt) = group.cast_for(bytes, Order::Total, Level::Disk).await else { return };
    if receipt.disk().await.is_ok() {
        say(&Line::Said(Event::Submitted { job: job.id }));
    }
}
