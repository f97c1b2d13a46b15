//! Runs of real processes: one for each node, on loopback, killed and stopped by signals. This program starts itself again for each,
//! and speaks with them by lines of JSON on their standard input and output.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mainstay_sim::{Disk, Fault};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Failure, Run};

/// Lines that are not read yet.
const LINES_MAX: usize = 1_024;
/// The first argument of a process that this program has started.
const CHILD: &str = "child";

/// What a process that runs one node is told at its start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Child {
    /// Which node, from 0.
    pub index: usize,
    /// The directory of this node alone.
    pub directory: PathBuf,
    /// Where the nodes listen.
    pub addresses: Vec<SocketAddr>,
    /// The planted fault.
    pub broken: Option<String>,
}

impl Child {
    /// If this program was started as one.
    pub(crate) fn from_arguments() -> Option<Self> {
        Self::from_list(std::env::args_os().skip(1))
    }

    /// The directory may have any name, so the arguments need not be text.
    fn from_list(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        arguments.next().filter(|first| first == CHILD)?;
        let index = arguments.next()?.to_str()?.parse().ok()?;
        let directory = arguments.next()?.into();
        let addresses = arguments.next()?;
        let addresses = addresses.to_str()?.split(',').map(|it| it.parse().ok());
        let addresses = addresses.collect::<Option<_>>()?;
        let broken = arguments.next().and_then(|it| it.into_string().ok());
        Some(Self { index, directory, addresses, broken })
    }

    /// Gives each line that it is told to `take`, on a thread of its own, until there are no more or `take` answers false.
    pub fn hear<T: DeserializeOwned>(&self, mut take: impl FnMut(T) -> bool + Send + 'static) {
        std::thread::spawn(move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                if serde_json::from_str(&line).is_ok_and(|line| !take(line)) {
                    return;
                }
            }
        });
    }

    /// Says a line.
    pub fn say(&self, line: &impl Serialize) {
        if let Ok(line) = serde_json::to_string(line) {
            let mut output = io::stdout().lock();
            // The other side is gone: the input ends too.
            let _ = writeln!(output, "{line}").and_then(|()| output.flush());
        }
    }
}

/// Which process said something: another one of the same node is not it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Speaker {
    /// Its node.
    pub node: usize,
    process: u64,
}

struct Process {
    child: std::process::Child,
    number: u64,
}

enum Action {
    Kill { is_empty: bool },
    Start,
    Signal(Signal),
}

/// The processes of all nodes, and the faults that are to come. They end with this value.
pub struct Processes {
    began: Instant,
    directory: tempfile::TempDir,
    addresses: String,
    broken: Option<&'static str>,
    running: Vec<Option<Process>>,
    started: u64,
    agenda: BTreeMap<(Duration, usize), (usize, Action)>,
    said: mpsc::SyncSender<(Speaker, String)>,
    heard: mpsc::Receiver<(Speaker, String)>,
}

impl Processes {
    /// Starts `nodes` processes.
    ///
    /// # Errors
    /// A fault that is none of real processes: they crash and pause only. What the system said.
    pub fn start(nodes: usize, run: &Run) -> Result<Self, Failure> {
        let mut agenda = BTreeMap::new();
        let mut enter = |at, node, action| agenda.insert((at, agenda.len()), (node, action));
        for event in &run.faults {
            let at = event.at - mainstay_base::Instant::ZERO;
            match event.fault {
                Fault::Crash { node, length, disk, .. } if node < nodes => {
                    enter(at, node, Action::Kill { is_empty: disk != Disk::Kept });
                    enter(at + length, node, Action::Start);
                }
                Fault::Pause { node, length } if node < nodes => {
                    enter(at, node, Action::Signal(Signal::STOP));
                    enter(at + length, node, Action::Signal(Signal::CONT));
                }
                _ => return Err(format!("real processes crash and pause only: {event}").into()),
            }
        }
        // They are free now.
        let addresses = mainstay_sim::free_addresses(nodes);
        let addresses = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let (said, heard) = mpsc::sync_channel(LINES_MAX);
        let mut processes = Self {
            began: Instant::now(),
            directory: tempfile::tempdir()?,
            addresses,
            broken: run.broken,
            running: (0..nodes).map(|_| None).collect(),
            started: 0,
            agenda,
            said,
            heard,
        };
        (0..nodes).try_for_each(|node| processes.begin(node))?;
        Ok(processes)
    }

    /// For files of the example's own.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// From the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// No fault is to come, nor the end of one.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.agenda.is_empty()
    }

    /// The next line that a process says, or `None` at the time `until`. Meanwhile faults happen. What is no `T` is left out.
    ///
    /// # Errors
    /// A process could not be started, or its directory not be removed.
    pub fn next<T: DeserializeOwned>(
        &mut self,
        until: Duration,
    ) -> io::Result<Option<(Speaker, T)>> {
        loop {
            let now = self.elapsed();
            match self.agenda.first_entry().filter(|first| first.key().0 <= now) {
                Some(first) => {
                    let (node, action) = first.remove();
                    self.act(node, action)?;
                }
                None if now >= until => return Ok(None),
                None => {
                    let next = self.agenda.first_key_value().map_or(until, |((at, _), _)| *at);
                    let heard = self.heard.recv_timeout(next.min(until) - now);
                    let line =
                        |(who, line): (_, String)| Some((who, serde_json::from_str(&line).ok()?));
                    if let Some(line) = heard.ok().and_then(line) {
                        return Ok(Some(line));
                    }
                }
            }
        }
    }

    /// Tells the process of a node a line, if there is one.
    pub fn tell(&mut self, node: usize, line: &impl Serialize) {
        if let Some(input) = self.running[node].as_mut().and_then(|it| it.child.stdin.as_mut())
            && let Ok(line) = serde_json::to_string(line)
        {
            // Whoever has ended hears nothing.
            let _ = writeln!(input, "{line}");
        }
    }

    /// Tells a line whoever asked for it, if it still runs.
    pub fn answer(&mut self, to: Speaker, line: &impl Serialize) {
        if self.running[to.node].as_ref().is_some_and(|it| it.number == to.process) {
            self.tell(to.node, line);
        }
    }

    fn act(&mut self, node: usize, action: Action) -> io::Result<()> {
        match (action, &mut self.running[node]) {
            (Action::Start, None) => self.begin(node),
            (Action::Kill { is_empty }, running) => {
                running.take().into_iter().for_each(kill);
                let own = self.directory().join(node.to_string());
                if is_empty && own.exists() { std::fs::remove_dir_all(own) } else { Ok(()) }
            }
            (Action::Signal(signal), Some(Process { child, .. })) => {
                // It has ended by itself: then there is nothing to stop.
                let _ = kill_process(Pid::from_child(child), signal);
                Ok(())
            }
            // Of two crashes the first restart counts; a crash ends a pause.
            (Action::Start, Some(_)) | (Action::Signal(_), None) => Ok(()),
        }
    }

    fn begin(&mut self, node: usize) -> io::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(CHILD).arg(node.to_string()).arg(self.directory().join(node.to_string()));
        command.arg(&self.addresses).args(self.broken);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        self.started += 1;
        let (said, number) = (self.said.clone(), self.started);
        let output = child.stdout.take();
        self.running[node] = Some(Process { child, number });
        std::thread::spawn(move || {
            let lines = output.into_iter().flat_map(|it| BufReader::new(it).lines());
            for line in lines.map_while(Result::ok) {
                if said.send((Speaker { node, process: number }, line)).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }
}

/// SIGKILL: it ends one that is stopped, too.
fn kill(Process { mut child, .. }: Process) {
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.running.iter_mut().filter_map(Option::take).for_each(kill);
    }
}
