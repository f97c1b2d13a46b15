//! The demo of the directory: kill the sequencer under load and restart it, then kill all and restart them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use mainstay_base::Rng;

use super::check::check;
use super::load::Load;
use super::script::{Ledger, Script};
use super::table::Summary;
use super::trace::{Observer, Trace};
use crate::check::Judgement;
use crate::cluster::{Cluster, all_ready, left};
use crate::config::Durability;
use crate::failure::Failure;
use crate::out::tell;
use crate::process::{Process, Said, stop_all};
use crate::report::{GROUP, Report};
use crate::status::Output;

/// How long one step may take before the demo fails.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often the nodes are asked.
const ASK: Duration = Duration::from_millis(20);
/// Lines of the nodes that wait to be read.
const LINES_MAX: usize = 1024;
/// In the cluster's directory: what the nodes recorded of themselves.
const TRACES: &str = "trace";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The cluster's directory, which is kept; otherwise a temporary one.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How many nodes.
    #[arg(long, default_value = "3", value_parser = ["3", "5"])]
    nodes: String,
    /// Decides when nodes are killed and which keys are looked up.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keeps the temporary directory.
    #[arg(long)]
    keep: bool,
    /// With memory, a majority is never killed.
    #[arg(long, value_enum, default_value_t = Durability::Disk)]
    durability: Durability,
    /// Writes of your own: one inline command a line, `SET key value` or `INCR key`, over and over.
    #[arg(long)]
    input: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) fn run(options: &Options) -> ExitCode {
    let mut summary = Summary::new(options.output);
    let mut demo = match Demo::new(options) {
        Ok(demo) => demo,
        Err(failure) => return failure.report(),
    };
    let ran = demo.script(options, &mut summary);
    drop(demo.observer.take());
    let written = summary.run(&demo.trace);
    let verdict = ran.and(written);
    if verdict.is_err() {
        demo.keep();
    }
    summary.print(&verdict);
    if verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Where the trace goes: beside the nodes if they are kept, otherwise to a temporary file; it is kept always.
fn trace_file(home: &Path, kept: bool) -> std::io::Result<(PathBuf, File)> {
    if kept {
        let path = home.join("trace.jsonl");
        return Ok((path.clone(), File::create_new(path)?));
    }
    let file = tempfile::Builder::new().prefix("mainstay-demo-").suffix(".jsonl").tempfile()?;
    let (file, path) = file.keep().map_err(|error| error.error)?;
    Ok((path, file))
}

/// The directory of the cluster, which ends with the demo unless it is to be kept.
fn home(options: &Options) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
    if let Some(directory) = &options.dir {
        let used = std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
        if used {
            return Err(Failure::usage(format!("{} is not empty", directory.display())));
        }
        return Ok((directory.clone(), None));
    }
    let mut temporary = tempfile::tempdir().map_err(Failure::usage)?;
    temporary.disable_cleanup(options.keep);
    let path = temporary.path().to_owned();
    if options.keep {
        tell!("kept: {}", path.display());
    }
    Ok((path, Some(temporary)))
}

struct Demo {
    cluster: Cluster,
    rng: Rng,
    script: Option<Script>,
    began: Instant,
    said: SyncSender<Said>,
    lines: Receiver<Said>,
    /// Killed before the directory goes.
    processes: Vec<Process>,
    trace: Arc<Trace>,
    observer: Option<Observer>,
    /// Where the nodes keep theirs.
    traces: PathBuf,
    home: Option<tempfile::TempDir>,
}

impl Demo {
    fn new(options: &Options) -> Result<Self, Failure> {
        let script = match &options.input {
            Some(path) => Script::read(path)?,
            None => Script::packages()?,
        };
        let (path, home) = home(options)?;
        let nodes = if options.nodes == "5" { 5 } else { 3 };
        let cluster = Cluster::open(Path::new(&path), Some(nodes), Some(options.durability))?;
        let (said, lines) = mpsc::sync_channel(LINES_MAX);
        let kept = options.keep || options.dir.is_some();
        let (file_path, file) = trace_file(&path, kept).map_err(Failure::usage)?;
        let trace = Trace::new(Instant::now(), file_path, file);
        let nodes = cluster.nodes.iter().map(|node| node.admin).collect();
        Ok(Self {
            observer: Some(Observer::start(Arc::clone(&trace), nodes)),
            trace: Arc::clone(&trace),
            cluster,
            rng: Rng::new(options.seed),
            script: Some(script),
            began: trace.began(),
            said,
            lines,
            processes: Vec::new(),
            traces: path.join(TRACES),
            home,
        })
    }

    fn script(&mut self, options: &Options, summary: &mut Summary) -> Result<(), String> {
        let nodes = self.cluster.nodes.len();
        self.cluster.release();
        for node in 0..nodes {
            let process = self.spawn(node)?;
            self.processes.push(process);
        }
        self.until_ready()?;
        summary.say(self.began, &format!("{nodes} processes form a cluster"));

        let members =
            self.cluster.nodes.iter().map(|node| (node.node.clone(), node.resp)).collect();
        let script = self.script.take().ok_or("there is one load")?;
        let load = Load::start(script, members, self.sequencer()?, Arc::clone(&self.trace));
        let loaded = Instant::now();
        self.go_on(1_000)?;
        self.one_fails(&load, summary)?;
        if options.durability == Durability::Disk {
            self.all_fail(&load, summary)?;
        }
        summary.load(&load.progress(), loaded.elapsed());
        let ledger = load.stop()?;
        self.judge(&ledger, summary)?;
        self.finish()?;
        self.properties(summary)
    }

    /// Kills the sequencer that is written to, and restarts it.
    fn one_fails(&mut self, load: &Load, summary: &mut Summary) -> Result<(), String> {
        let victim = self.sequencer()?;
        let name = self.cluster.nodes[victim].node.clone();
        load.progress().take_gap();
        let before = self.reports();
        let before = best(&before).and_then(|report| report.incarnation);
        self.kill(victim)?;
        summary.say(self.began, &format!("{name}, the sequencer, killed"));
        let acknowledged = load.progress().acknowledged;
        let nodes = self.cluster.nodes.len();
        self.until("the others go on", |demo| {
            let gone = best(&demo.reports()).is_some_and(|it| it.members.len() == nodes - 1);
            gone && load.progress().acknowledged > acknowledged + 1_000
        })?;
        self.go_on(1_000)?;
        let other = &self.cluster.nodes[load.progress().member].node;
        let gap = load.progress().take_gap();
        summary.say(self.began, &format!("the others go on, {other} is written to"));
        summary.gap(format!("{name} killed"), gap);

        self.processes[victim] = self.spawn(victim)?;
        self.until_ready()?;
        let again = self.reports();
        let again = again[victim].as_ref().and_then(|report| report.incarnation);
        if again <= before {
            return Err(format!("{name} is back with incarnation {again:?}, it had {before:?}"));
        }
        self.go_on(1_000)?;
        summary.say(self.began, &format!("{name} restarted and a member again"));
        summary.gap(format!("{name} restarted"), load.progress().take_gap());
        Ok(())
    }

    /// Kills all nodes and restarts them.
    fn all_fail(&mut self, load: &Load, summary: &mut Summary) -> Result<(), String> {
        let nodes = self.cluster.nodes.len();
        load.progress().take_gap();
        for node in 0..nodes {
            self.kill(node)?;
        }
        summary.say(self.began, "all killed");
        let acknowledged = load.progress().acknowledged;
        for node in 0..nodes {
            self.processes[node] = self.spawn(node)?;
        }
        self.until_ready()?;
        self.until("writes are acknowledged again", |_| {
            load.progress().acknowledged > acknowledged + 1_000
        })?;
        self.go_on(1_000)?;
        summary.say(self.began, "all restarted, writes are acknowledged again");
        summary.gap("all killed".to_owned(), load.progress().take_gap());
        Ok(())
    }

    /// All directories are equal, and hold every acknowledged write once.
    fn judge(&mut self, ledger: &Ledger, summary: &mut Summary) -> Result<(), String> {
        self.until("all directories are equal", |demo| {
            let reports: Vec<_> = demo.reports().into_iter().flatten().collect();
            reports.len() == demo.cluster.nodes.len()
                // Nothing is on its way any more, not even the word of the last view.
                && reports.iter().all(|report| report.told_view == Some(report.view))
                && reports.windows(2).all(|pair| {
                    pair[0].state_hash.is_some()
                        && (&pair[0].state_hash, pair[0].delivered)
                            == (&pair[1].state_hash, pair[1].delivered)
                })
        })?;
        let reports = self.reports();
        if let Some(report) = reports.iter().flatten().find(|report| !report.alarms.is_empty()) {
            return Err(format!("{}: {}", report.node, report.alarms.join(", ")));
        }
        let members: Vec<_> =
            self.cluster.nodes.iter().map(|node| (node.node.clone(), node.resp)).collect();
        let keys = check(ledger, &members, &mut self.rng)?;
        summary.say(self.began, "all directories are equal and hold what was acknowledged");
        summary.state(best(&reports), keys);
        Ok(())
    }

    /// What the nodes recorded of themselves has every property.
    fn properties(&self, summary: &mut Summary) -> Result<(), String> {
        let judgement = Judgement::of(std::slice::from_ref(&self.traces), true);
        let judgement = judgement.map_err(|failure| failure.to_string())?;
        if let Some(broken) = judgement.broken() {
            return Err(broken);
        }
        let (judged, events) = (judgement.judged(), judgement.events());
        let text = format!("properties: {judged} checked on {events} events of all nodes: ok");
        summary.say(self.began, &text);
        summary.properties(judged, events);
        Ok(())
    }

    fn spawn(&self, node: usize) -> Result<Process, String> {
        let name = &self.cluster.nodes[node].node;
        let process =
            Process::start(node, &self.cluster.config(node), Some(&self.traces), self.said.clone())
                .map_err(|error| format!("{name}: {error}"))?;
        self.trace.process(name, process.pid(), "started");
        Ok(process)
    }

    fn kill(&mut self, node: usize) -> Result<(), String> {
        let process = &mut self.processes[node];
        process.kill().map_err(|error| error.to_string())?;
        self.trace.process(&self.cluster.nodes[node].node, process.pid(), "killed");
        Ok(())
    }

    /// What failed can be looked at.
    fn keep(&mut self) {
        if let Some(home) = &mut self.home {
            home.disable_cleanup(true);
            tell!("kept: {}", home.path().display());
        }
    }

    fn reports(&self) -> Vec<Option<Report>> {
        self.cluster.reports().into_iter().map(Result::ok).collect()
    }

    /// The number of the node that gives out positions.
    fn sequencer(&self) -> Result<usize, String> {
        let reports = self.reports();
        let name = best(&reports).and_then(|report| report.sequencers.get(GROUP));
        let place = |name: &String| self.cluster.nodes.iter().position(|node| node.node == *name);
        name.and_then(place).ok_or_else(|| "no node knows the sequencer".to_owned())
    }

    fn until_ready(&mut self) -> Result<(), String> {
        self.until("all nodes are members", |demo| all_ready(&demo.cluster.reports()))
    }

    /// Lets the load go on for a while, up to twice as long as this.
    fn go_on(&mut self, millis: u64) -> Result<(), String> {
        let millis = self.rng.between(millis, 2 * millis);
        let deadline = Instant::now() + Duration::from_millis(millis);
        while let Some(left) = left(deadline) {
            self.hear(left)?;
        }
        Ok(())
    }

    fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            let left = left(deadline).ok_or_else(|| format!("not in time: {what}"))?;
            self.hear(left.min(ASK))?;
        }
        Ok(())
    }

    /// Waits; fails if a node ends that was not killed.
    fn hear(&mut self, patience: Duration) -> Result<(), String> {
        match self.lines.recv_timeout(patience) {
            Ok(Said { node, pid, line: None }) if self.processes[node].pid() == pid => {
                match self.processes[node].killed() {
                    true => Ok(()),
                    false => Err(format!("{} ended by itself", self.cluster.nodes[node].node)),
                }
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        match stop_all(self.processes.iter_mut()) {
            Ok(true) => Ok(()),
            Ok(false) => Err("a node did not end well".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What the node in the newest view says, of those that execute commands.
fn best(reports: &[Option<Report>]) -> Option<&Report> {
    reports.iter().flatten().filter(|report| report.reachable).max_by_key(|report| report.view)
}
