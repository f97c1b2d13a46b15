//! Child processes. They end with this program, however it ends.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, geteuid, kill_process, kill_process_group};

use crate::wait::PATIENCE;

/// How long a process that was asked to end may take; then it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// Lines that wait to be read; a process that says more waits.
const LINES_MAX: usize = 64;

/// Something to measure with is not there.
#[derive(Debug, thiserror::Error)]
#[error("{what} is missing: {hint}")]
pub struct Missing {
    /// A program, a file or a right.
    pub what: String,
    /// How to get it, such as the name of a package.
    pub hint: String,
}

/// Where `program` is among the directories of `PATH` and those of the system; `package` is named if it is nowhere.
pub fn find(program: &str, package: &str) -> Result<PathBuf, Missing> {
    find_in(&["/usr/sbin", "/sbin", "/usr/local/bin"], program, package)
}

/// [`find`] that looks into these directories as well.
pub fn find_in(directories: &[&str], program: &str, package: &str) -> Result<PathBuf, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(directories.iter().map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Missing { what: program.to_owned(), hint: format!("package {package}") })
}

/// Whether this process is root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// `program`, killed when the thread that starts it ends, whatever the reason.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    wrapped("KILL", &[], program.as_ref())
}

/// The same as another user, if this one is root; asked to end with SIGQUIT instead, that it can clean up.
pub fn command_as(user: &str, program: impl AsRef<OsStr>) -> Command {
    let (user, group) = (format!("--reuid={user}"), format!("--regid={user}"));
    let change = [user.as_str(), group.as_str(), "--init-groups"];
    wrapped("QUIT", if is_root() { &change } else { &[] }, program.as_ref())
}

fn wrapped(death: &str, options: &[&str], program: &OsStr) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", death]).args(options).arg("--").arg(program);
    command
}

/// Runs it to its end: what it printed on stdout.
///
/// # Errors
/// It cannot be started, or its status is not zero; the error tells what it said on stderr.
pub fn run_to_end(command: &mut Command) -> io::Result<String> {
    let done = command.stdin(Stdio::null()).output()?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(io::Error::other(format!("{command:?}: {}: {}", done.status, said.trim_end())))
}

/// A running child and what it has started. Dropping it kills all of them.
pub struct Process {
    child: Child,
    pid: Pid,
    log: PathBuf,
    gently: Option<Signal>,
}

impl Process {
    /// Starts it; what it prints goes to the file `log`. Made by [`command`] or [`command_as`], it ends with the calling
    /// thread.
    pub fn start(mut command: Command, log: &Path) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(File::create(log)?);
        Self::spawn(command, log)
    }

    fn spawn(mut command: Command, log: &Path) -> io::Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let errors = File::options().create(true).append(true).open(log)?;
        let child = command.stderr(errors).process_group(0).spawn()?;
        let pid = Pid::from_child(&child);
        Ok(Self { child, pid, log: log.to_owned(), gently: None })
    }

    /// The same process, asked to end with this signal before it is killed when it is dropped.
    pub fn gently(mut self, signal: Signal) -> Self {
        self.gently = Some(signal);
        self
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it and all it has started, as a crash does.
    pub fn kill(&mut self) -> io::Result<()> {
        // One that has ended leaves no group, or one of what it started.
        let _ = kill_process_group(self.pid, Signal::KILL);
        self.child.wait().map(drop)
    }

    /// That it still runs.
    ///
    /// # Errors
    /// It has ended; the error tells how, and its last words.
    pub fn check(&mut self) -> io::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let said = fs::read(&self.log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let last: Vec<_> = said.trim_end().rsplit('\n').take(3).collect();
        Err(io::Error::other(format!("{} ended: {status}: {last:?}", self.log.display())))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(signal) = self.gently
            && self.child.try_wait().is_ok_and(|ended| ended.is_none())
            && kill_process(self.pid, signal).is_ok()
        {
            let until = Instant::now() + GRACE;
            while Instant::now() < until && self.child.try_wait().is_ok_and(|it| it.is_none()) {
                thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.kill();
    }
}

/// A running child that is told lines on its standard input and answers lines.
pub struct Talker {
    /// The process; its log has what it prints on stderr.
    pub process: Process,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Talker {
    /// Starts it.
    pub fn start(mut command: Command, log: &Path) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(command, log)?;
        let (Some(stdin), Some(stdout)) = (process.child.stdin.take(), process.child.stdout.take())
        else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let (said, lines) = mpsc::sync_channel(LINES_MAX);
        thread::spawn(move || {
            let mut read = BufReader::new(stdout).lines().map_while(Result::ok);
            // Ends when nobody listens any more.
            read.all(|line| said.send(line).is_ok())
        });
        Ok(Self { process, stdin, lines })
    }

    /// Gives it a line.
    pub fn tell(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.stdin, "{line}")
    }

    /// Its next line that begins with `word`: the words behind it. Other lines are passed over.
    ///
    /// # Errors
    /// It says none within [`PATIENCE`], or has ended.
    pub fn hear(&mut self, word: &str) -> io::Result<Vec<String>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                self.process.check()?;
                return Err(io::Error::other(format!("a process did not say {word:?}")));
            };
            let mut words = line.split(' ').map(str::to_owned);
            if words.next().as_deref() == Some(word) {
                return Ok(words.collect());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = command("sh");
        command.args(["-c", script]);
        command
    }

    fn exists(pid: &str) -> bool {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A zombie that nobody has waited for yet is gone.
        !status.is_empty() && !status.contains(") Z ")
    }

    /// Checks that dropping a process kills what it has started as well.
    #[test]
    fn a_dropped_process_takes_its_children_along() {
        let dir = tempfile::tempdir().unwrap();
        let script = "sleep 100 & echo child $!; wait";
        let mut talker = Talker::start(shell(script), &dir.path().join("log")).unwrap();
        let child = talker.hear("child").unwrap().remove(0);
        assert!(exists(&child));
        drop(talker);
        wait_for_end(&child);
    }

    fn wait_for_end(pid: &str) {
        crate::wait_for("the end", || Ok((!exists(pid)).then_some(()))).unwrap();
    }

    /// Checks that a process ends with the thread that started it.
    #[test]
    fn a_process_ends_with_the_thread_that_started_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let started = thread::spawn(move || {
            let mut talker = Talker::start(shell("echo ready; exec sleep 100"), &log)?;
            talker.hear("ready").map(|_| talker)
        });
        let talker = started.join().unwrap().unwrap();
        wait_for_end(&talker.process.id().to_string());
    }

    /// Checks that one that has ended is reported with its last words.
    #[test]
    fn one_that_has_ended_is_reported_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Process::start(shell("echo no room"), &dir.path().join("log")).unwrap();
        let error = loop {
            if let Err(error) = process.check() {
                break error;
            }
        };
        assert!(error.to_string().contains("no room"), "{error}");
    }

    /// Checks that what is missing is named with its package.
    #[test]
    fn what_is_missing_is_named() {
        assert!(find("sh", "dash").is_ok());
        let missing = find("no-such-program", "no-package").unwrap_err();
        assert_eq!(missing.to_string(), "no-such-program is missing: package no-package");
    }
}
