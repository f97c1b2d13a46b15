//! Runs a program to its end, or to a deadline.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks whether it has ended.
const PAUSE: Duration = Duration::from_millis(20);
/// Of what it says so much is read.
const SAID_MAX: u64 = 1 << 20;

/// How a program ended, and what it said.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    /// Its exit status; nothing if a signal ended it, or it had to be killed at the deadline.
    pub(crate) status: Option<i32>,
    pub(crate) is_late: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Whether it did what it was to do.
    pub(crate) fn is_done(&self) -> bool {
        self.status == Some(0)
    }

    /// Why not, in a line: the first that it said on stderr, or how it ended.
    pub(crate) fn why(&self) -> String {
        let ended = match (self.is_late, self.status) {
            (true, _) => "killed at its deadline".to_owned(),
            (false, Some(status)) => format!("exit status {status}"),
            (false, None) => "ended by a signal".to_owned(),
        };
        let said = self.stderr.lines().map(str::trim).find(|line| !line.is_empty());
        said.map_or_else(|| ended.clone(), |said| format!("{ended}: {said}"))
    }
}

/// `program`, killed if this process ends before it.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Runs it as a process group of its own. At the limit the whole group is killed. What it says is kept below `scratch`
/// meanwhile: a process that it leaves behind may hold a file open, but not this one up.
///
/// # Errors
/// It cannot be started, or the files cannot be had.
pub(crate) fn run(mut command: Command, limit: Duration, scratch: &Path) -> io::Result<Ran> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    fs::create_dir_all(scratch)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let paths = ["stdout", "stderr"]
        .map(|name| scratch.join(format!("{}-{number}-{name}", std::process::id())));
    let [stdout, stderr] = &paths;
    command.stdin(Stdio::null()).stdout(File::create(stdout)?).stderr(File::create(stderr)?);
    let ended = command.process_group(0).spawn().and_then(|child| wait(child, limit));
    let said = [said(stdout), said(stderr)];
    paths.iter().try_for_each(fs::remove_file)?;
    let (status, is_late) = ended?;
    let [stdout, stderr] = said;
    Ok(Ran { status, is_late, stdout: stdout?, stderr: stderr? })
}

fn said(path: &Path) -> io::Result<String> {
    let mut said = Vec::new();
    File::open(path)?.take(SAID_MAX).read_to_end(&mut said)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn wait(mut child: Child, limit: Duration) -> io::Result<(Option<i32>, bool)> {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            return Ok((status.code(), false));
        }
        thread::sleep(PAUSE);
    }
    // Nobody has waited for it: the number is still its own, and that of its group.
    let group = format!("-{}", child.id());
    let killed = Command::new("kill").args(["-s", "KILL", "--", &group]).status();
    if !killed.is_ok_and(|status| status.success()) {
        child.kill()?;
    }
    child.wait()?;
    Ok((None, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Ran {
        let mut shell = command("sh");
        shell.args(["-c", script]);
        run(shell, limit, &std::env::temp_dir()).unwrap()
    }

    /// Checks that status and words come back.
    #[test]
    fn what_it_says_and_how_it_ends_is_told() {
        let minute = Duration::from_secs(60);
        let ran = shell("echo out; echo; echo no room >&2; exit 3", minute);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(3), "out\n\n"));
        assert_eq!(ran.why(), "exit status 3: no room");
        assert!(shell("true", minute).is_done());
        assert_eq!(shell("kill -KILL $$", minute).why(), "ended by a signal");
    }

    /// Checks that at the deadline what it has started is killed as well.
    #[test]
    fn at_its_deadline_the_whole_group_is_killed() {
        let ran = shell("sleep 100 & echo $!; wait", Duration::from_millis(300));
        assert!(ran.is_late && !ran.is_done());
        assert_eq!(ran.why(), "killed at its deadline");
        let child = ran.stdout.trim().to_owned();
        assert!(!child.is_empty());
        let until = Instant::now() + Duration::from_secs(10);
        let runs = || {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            // One that nobody has waited for yet has ended all the same.
            !stat.is_empty() && !stat.contains(") Z ")
        };
        while runs() {
            assert!(Instant::now() < until, "{child} still runs");
            thread::sleep(PAUSE);
        }
    }

    /// Checks that what cannot be started is an error.
    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let scratch = std::env::temp_dir();
        let nothing = Command::new("/nowhere/nothing");
        assert!(run(nothing, Duration::from_secs(1), &scratch).is_err());
    }
}
