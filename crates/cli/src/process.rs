//! Nodes as child processes: they end with the process that started them, however it ends.

use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{ENVIRONMENT, LOG};

/// How long the stop of a node may take: longer than it gives itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether it has ended.
const ASK: Duration = Duration::from_millis(10);

/// A line that a process printed; `None`: its output ended, as it does when the process ends.
pub(crate) struct Said {
    /// The number of the process among the nodes.
    pub(crate) node: usize,
    /// Which process it is.
    pub(crate) pid: u32,
    pub(crate) line: Option<String>,
}

/// A running node. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    killed: bool,
}

impl Process {
    /// Starts the node with this configuration; its lines go to `said`, its trace, if one is wanted, to that directory.
    pub(crate) fn start(
        node: usize,
        config: &Path,
        trace: Option<&Path>,
        said: SyncSender<Said>,
    ) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["node", "--attached", "--config"]).arg(config);
        if let Some(trace) = trace {
            // A node takes a relative one from where its configuration is.
            command.arg("--trace").arg(std::path::absolute(trace)?);
        }
        // What overrides one configuration does not fit all.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(ENVIRONMENT) && name != LOG {
                command.env_remove(name);
            }
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take();
        let process = Self { child, killed: false };
        let pid = process.pid();
        let stdout = stdout.ok_or(io::ErrorKind::BrokenPipe)?;
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody listens any more.
                let _ = said.send(Said { node, pid, line: Some(line) });
            }
            let _ = said.send(Said { node, pid, line: None });
        });
        Ok(process)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, as a crash does.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.killed = true;
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Whether it was killed.
    pub(crate) fn killed(&self) -> bool {
        self.killed
    }

    /// Asks it to stop; [`wait`](Self::wait) for it.
    pub(crate) fn ask_to_stop(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits until it ends, or kills it at the deadline; whether it ended well.
    fn wait_until(&mut self, deadline: Instant) -> io::Result<bool> {
        loop {
            match self.child.try_wait()? {
                Some(status) => return Ok(status.success()),
                None if Instant::now() < deadline => thread::park_timeout(ASK),
                None => return self.kill().map(|()| false),
            }
        }
    }

    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended is only waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks all to stop, then waits for each; whether all ended well. One that does not end in time is killed.
pub(crate) fn stop_all<'a>(processes: impl Iterator<Item = &'a mut Process>) -> io::Result<bool> {
    let mut asked: Vec<_> = processes.collect();
    for process in &mut asked {
        process.ask_to_stop();
    }
    let deadline = Instant::now() + PATIENCE;
    let mut well = true;
    for process in &mut asked {
        well &= process.wait_until(deadline)?;
    }
    Ok(well)
}
