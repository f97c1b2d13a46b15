//! A cluster under `mainstay up`, with a directory of its own.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::tools::{self, run};

/// How long one wait may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked again.
const ASK: Duration = Duration::from_millis(50);

/// A directory that is removed at the end.
pub(super) struct Home(PathBuf);

impl Home {
    pub(super) fn new(name: &str) -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("mainstay-{name}-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// What the nodes and `up` said on standard error.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.0.join("log")).unwrap_or_default()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Nothing is left to be told if it fails.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Three nodes that execute commands. Dropped, they are killed.
pub(super) struct Cluster {
    up: Child,
    lines: Receiver<String>,
    /// How programs reach the nodes: in their network namespace, perhaps.
    inside: Vec<String>,
    directory: PathBuf,
    ports: Vec<String>,
    pids: Vec<String>,
}

impl Cluster {
    /// Makes or continues the cluster in `home`. `inside` stands before every command that talks to it; the processes
    /// get `variables`.
    pub(super) fn start(
        home: &Home,
        inside: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self, String> {
        let inside: Vec<String> = inside.iter().map(|word| (*word).to_owned()).collect();
        let directory = home.path().join("cluster");
        let log = File::options().create(true).append(true).open(home.path().join("log"));
        let mut up = command(&inside, &tools::mainstay()?)
            .args(["up", "directory", "--nodes", "3", "--dir"])
            .arg(&directory)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.map_err(|error| error.to_string())?)
            .spawn()
            .map_err(|error| format!("cannot run mainstay up: {error}"))?;
        let (said, lines) = mpsc::sync_channel(64);
        if let Some(stdout) = up.stdout.take() {
            thread::spawn(move || {
                let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
                lines.all(|line| said.send(line).is_ok())
            });
        }
        let mut cluster =
            Self { up, lines, inside, directory, ports: Vec::new(), pids: Vec::new() };
        cluster.until_ready().map_err(|error| format!("{error}\n{}", home.log()))?;
        Ok(cluster)
    }

    fn until_ready(&mut self) -> Result<(), String> {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).map_err(|_| "up is not ready in time")?;
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["ready"] => return Ok(()),
                ["node", _, "pid", pid, "resp", resp, "admin", _] => {
                    self.pids.push(pid.to_owned());
                    let port = resp.rsplit(':').next().unwrap_or_default();
                    self.ports.push(port.to_owned());
                }
                _ => return Err(format!("up said {line:?}")),
            }
        }
    }

    /// The most memory that a node had so far, in MiB.
    pub(super) fn memory_mib(&self, node: usize) -> Result<u64, String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pids[node]));
        let status = status.map_err(|error| error.to_string())?;
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = most.and_then(|it| it.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        Ok(kib.ok_or("the memory of a process is not told")? >> 10)
    }

    /// The Redis port of a node, from 0.
    pub(super) fn port(&self, node: usize) -> &str {
        &self.ports[node]
    }

    /// A program that talks to the cluster, bounded in time.
    pub(super) fn client(&self, seconds: u32, program: &str) -> Command {
        let mut command = command(&self.inside, Path::new("timeout"));
        command.args(["-k", "5", &seconds.to_string(), program]);
        command
    }

    /// What redis-cli prints for a command at a node.
    pub(super) fn ask(&self, node: usize, words: &[&str]) -> Result<String, String> {
        let mut cli = self.client(10, "redis-cli");
        let said = run(cli.args(["-p", self.port(node)]).args(words))?;
        Ok(said.trim_end().to_owned())
    }

    /// What `mainstay status` says, as JSON.
    pub(super) fn status(&self) -> Result<String, String> {
        let mut status = command(&self.inside, &tools::mainstay()?);
        run(status.arg("status").arg("--dir").arg(&self.directory).args(["--output", "json"]))
    }

    /// Asks all to stop, and waits.
    pub(super) fn stop(mut self) -> Result<(), String> {
        run(Command::new("kill").args(["-TERM", &self.up.id().to_string()]))?;
        until("up ends", || Ok(self.up.try_wait().is_ok_and(|status| status.is_some())))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The nodes end with it; one that has ended is only waited for.
        let _ = self.up.kill();
        let _ = self.up.wait();
    }
}

fn command(inside: &[String], program: &Path) -> Command {
    match inside {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    }
}

/// The values of a key of the status, one for each node.
pub(super) fn values(status: &str, key: &str) -> Vec<String> {
    let start = format!("\"{key}\": ");
    let value =
        |line: &str| Some(line.trim().strip_prefix(&start)?.trim_end_matches(',').to_owned());
    status.lines().filter_map(value).collect()
}

/// Looks again until it holds.
pub(super) fn until(
    what: &str,
    mut holds: impl FnMut() -> Result<bool, String>,
) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > deadline {
            return Err(format!("not in time: {what}"));
        }
        thread::sleep(ASK);
    }
    Ok(())
}

/// An error unless it holds.
pub(super) fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}
