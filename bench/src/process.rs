//! Members as child processes of this program. They end with the process that started them, however it ends: their
//! standard input ends with it.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use tokio::sync::mpsc as tasks;
use tokio::task::LocalSet;

/// How long a child may be silent when something is expected of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines that wait to be read; a process that says more waits.
const LINES_MAX: usize = 64;

/// As in the program: a process that is smaller has no huge pages.
const HUGE_PAGES_FROM: u64 = 256 << 20;

/// What a child is: one thread that runs this.
pub(crate) fn run(serve: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    mainstay_runtime::huge_pages_from(HUGE_PAGES_FROM)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve)
}

/// A running child. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Process {
    /// Starts this program with these arguments.
    pub(crate) fn start(arguments: &[String]) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let (said, lines) = mpsc::sync_channel(LINES_MAX);
        std::thread::spawn(move || {
            let mut read = BufReader::new(stdout).lines().map_while(Result::ok);
            // Ends when nobody listens any more.
            read.all(|line| said.send(line).is_ok())
        });
        Ok(Self { child, stdin, lines })
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, as a crash does.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Sends it the signal of this name.
    pub(crate) fn signal(&self, name: &str) -> io::Result<()> {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("kill -s {name} failed: {status}")))
        }
    }

    /// Gives it a line.
    pub(crate) fn tell(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.stdin, "{line}")
    }

    /// Its next line but for those that begin with `skipped`; it begins with `word`: what follows it.
    pub(crate) fn hear_after(&mut self, skipped: &str, word: &str) -> io::Result<Vec<String>> {
        loop {
            let line = self.line(word)?;
            if line.split(' ').next() != Some(skipped) {
                return rest(&line, word);
            }
        }
    }

    /// Gives it the line `word`: what follows that word in its answer. It may have said that it is ready meanwhile.
    pub(crate) fn ask(&mut self, word: &str) -> io::Result<Vec<String>> {
        self.tell(word)?;
        self.hear_after("ready", word)
    }

    /// Its next line, which begins with `word`: what follows it.
    pub(crate) fn hear(&mut self, word: &str) -> io::Result<Vec<String>> {
        rest(&self.line(word)?, word)
    }

    fn line(&self, word: &str) -> io::Result<String> {
        let line = self.lines.recv_timeout(PATIENCE);
        line.map_err(|_| io::Error::other(format!("a member did not say {word:?}")))
    }
}

/// What follows the first word, which must be this one.
fn rest(line: &str, first: &str) -> io::Result<Vec<String>> {
    let mut words = line.split(' ').map(str::to_owned);
    if words.next().as_deref() != Some(first) {
        return Err(io::Error::other(format!("a member said {line:?} instead of {first:?}")));
    }
    Ok(words.collect())
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended is only waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says a line to the process that started this one, which may be gone.
pub(crate) fn say(line: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// The lines that this process is given.
pub(crate) fn orders() -> tasks::Receiver<String> {
    let (told, orders) = tasks::channel(LINES_MAX);
    std::thread::spawn(move || {
        let mut read = io::stdin().lock().lines().map_while(Result::ok);
        read.all(|line| told.blocking_send(line).is_ok())
    });
    orders
}
