//! The contract of a program that measures a peer.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use clap::Parser as _;
use tempfile::TempDir;

use crate::figures::Measured;
use crate::process::{Missing, command, find};

/// As in the main benchmarks.
const WARM_UP: Duration = Duration::from_millis(500);
/// What a case may take besides its window: a peer starts and stops, and detects a failure.
const LIMIT: Duration = Duration::from_secs(120);
/// The directory for data, beside the program unless `--dir` says otherwise.
const DATA: &str = "peers-data";
/// The exit status that says: not installed.
const NOT_INSTALLED: u8 = 3;

/// Where and how long a case measures.
pub struct Run {
    /// Load that is not counted yet.
    pub warm_up: Duration,
    /// Load that is.
    pub window: Duration,
    /// So many keys of a large state, if it is not the number of the case.
    pub keys: Option<u64>,
    dir: TempDir,
}

impl Run {
    /// One whose data is in a new directory below `dir`.
    pub fn new(warm_up: Duration, window: Duration, dir: &Path) -> io::Result<Self> {
        let prefix = format!("{}-", std::process::id());
        // Servers that run as another user have their directories in it.
        let mode = fs::Permissions::from_mode(0o755);
        let dir = tempfile::Builder::new().prefix(&prefix).permissions(mode).tempdir_in(dir)?;
        Ok(Self { warm_up, window, keys: None, dir })
    }

    /// An empty directory for this case alone, removed after it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

type Measure = dyn Fn(&Run) -> io::Result<Vec<Measured>> + Send + Sync;

/// One measurement of one peer.
#[derive(Clone)]
pub struct Case {
    bench: &'static str,
    name: &'static str,
    peer: &'static str,
    guarantee: &'static str,
    limit: Duration,
    measure: Arc<Measure>,
}

impl Case {
    /// `bench` and `name` are those of the main benchmarks where they have the case. `guarantee` says in a few words what
    /// stands behind an acknowledgement: the order and the number of copies, forced to the disk or not, TLS or not.
    /// `measure` starts the peer, measures and ends it; processes are started on the calling thread.
    pub fn new(
        bench: &'static str,
        name: &'static str,
        peer: &'static str,
        guarantee: &'static str,
        measure: impl Fn(&Run) -> io::Result<Vec<Measured>> + Send + Sync + 'static,
    ) -> Self {
        let measure = Arc::new(measure);
        Self { bench, name, peer, guarantee, limit: LIMIT, measure }
    }

    /// The same, given up after this time and its window instead of two minutes more.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The name; its last part is the number of keys, if another one is asked for.
    fn name(&self, keys: Option<u64>) -> String {
        match (keys, self.name.rsplit_once('/')) {
            (Some(keys), Some((kind, _))) if self.bench == "bigstate" => format!("{kind}/{keys}"),
            _ => self.name.to_owned(),
        }
    }

    fn line(&self, keys: Option<u64>, measured: &Measured) -> String {
        let Self { bench, peer, guarantee, .. } = self;
        let name = self.name(keys);
        let Measured { metric, value, unit } = measured;
        // The texts are the programs' own: nothing in them is to be escaped.
        format!(
            "{{\"bench\":\"{bench}\",\"case\":\"{name}\",\"metric\":\"{metric}\",\"value\":null,\"unit\":\"{unit}\",\
             \"peer\":\"{peer}\",\"peer_value\":{value:.places$},\"ratio\":null,\"guarantee\":\"{guarantee}\"}}",
            places = if value.abs() < 10.0 { 2 } else { 1 }
        )
    }

    /// Measures on a thread of its own; nothing if it takes too long, and then it may still run.
    fn measure(&self, run: Run) -> Option<io::Result<Vec<Measured>>> {
        let limit = self.limit + run.window;
        let (done, result) = mpsc::sync_channel(1);
        let measure = self.measure.clone();
        thread::spawn(move || {
            let measured = measure(&run);
            // The directory is gone before the next case begins.
            drop(run);
            let _ = done.send(measured);
        });
        match result.recv_timeout(limit) {
            Ok(measured) => Some(measured),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(io::Error::other("it panicked"))),
        }
    }
}

/// A program that measures a peer.
pub struct Program {
    /// `peer-NAME`.
    pub name: &'static str,
    /// Whether all is there that is needed.
    pub check: fn() -> Result<(), Missing>,
    /// What it measures, in this order.
    pub cases: Vec<Case>,
}

#[derive(clap::Parser)]
struct Arguments {
    /// Measure the cases whose names begin so; without any all.
    prefixes: Vec<String>,
    /// Measure the cases with just these names instead.
    #[arg(long)]
    exact: bool,
    /// Print the names of the cases instead.
    #[arg(long)]
    list: bool,
    /// How long load is counted.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// So many keys in the cases of a large state; they are called after it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    keys: Option<u64>,
    /// Where data is kept meanwhile [default: beside the program].
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Arguments {
    /// Whether the case of this name is to be measured.
    fn wants(&self, name: &str) -> bool {
        let is = |it: &String| if self.exact { name == it } else { name.starts_with(it.as_str()) };
        self.prefixes.is_empty() || self.prefixes.iter().any(is)
    }
}

impl Program {
    /// Does what the command line says.
    pub fn main(self) -> ExitCode {
        self.run(&Arguments::parse())
    }

    /// The same, each case in a process of its own, this program again: for what a process can set up only once.
    pub fn main_apart(self) -> ExitCode {
        let arguments = Arguments::parse();
        let wanted: Vec<_> =
            self.names().into_iter().filter(|name| arguments.wants(name)).collect();
        if arguments.list || wanted.len() < 2 {
            return self.run(&arguments);
        }
        if let Err(status) = self.is_ready() {
            return status;
        }
        let mut failed = false;
        for name in wanted {
            // It bounds its own time, says itself what went wrong, and ends with this process.
            let status = std::env::current_exe().and_then(|this| {
                let mut alone = command(this);
                alone.args(["--exact", name, "--seconds", &arguments.seconds.to_string()]);
                alone.args(arguments.keys.iter().map(|keys| format!("--keys={keys}")));
                alone
                    .args(arguments.dir.iter().flat_map(|dir| [OsStr::new("--dir"), dir.as_ref()]));
                alone.status()
            });
            match status {
                Ok(status) => failed |= !status.success(),
                Err(error) => {
                    eprintln!("{}: {name}: {error}", self.name);
                    failed = true;
                }
            }
        }
        if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn run(&self, arguments: &Arguments) -> ExitCode {
        if arguments.list {
            self.names().iter().for_each(|name| println!("{name}"));
            return ExitCode::SUCCESS;
        }
        if let Err(status) = self.is_ready() {
            return status;
        }
        let dir = match data(arguments.dir.as_deref()) {
            Ok(dir) => dir,
            Err(error) => {
                eprintln!("{}: no directory for data: {error}", self.name);
                return ExitCode::FAILURE;
            }
        };
        let window = Duration::from_secs(arguments.seconds);
        let mut failed = false;
        for case in self.cases.iter().filter(|case| arguments.wants(case.name)) {
            let run = Run::new(WARM_UP, window, &dir);
            let keys = arguments.keys;
            let error = match run.map(|run| case.measure(Run { keys, ..run })) {
                Ok(Some(Ok(measured))) => {
                    measured.iter().for_each(|it| println!("{}", case.line(keys, it)));
                    continue;
                }
                Ok(Some(Err(error))) | Err(error) => error,
                Ok(None) => {
                    eprintln!("{}: {} of {}: it took too long", self.name, case.name, case.peer);
                    // What it has started ends with this process.
                    return ExitCode::FAILURE;
                }
            };
            eprintln!("{}: {} of {}: {error}", self.name, case.name, case.peer);
            failed = true;
        }
        if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    /// That all is there that is needed; if not, says so.
    fn is_ready(&self) -> Result<(), ExitCode> {
        find("setpriv", "util-linux").and_then(|_| (self.check)()).map_err(|missing| {
            eprintln!("{}: {missing}", self.name);
            NOT_INSTALLED.into()
        })
    }

    /// The names of the cases, each once.
    fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<&str> = Vec::new();
        for case in &self.cases {
            if !names.contains(&case.name) {
                names.push(case.name);
            }
        }
        names
    }
}

/// The runtime of a case: tasks on the calling thread.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// The directory for data, without what killed programs have left in it.
fn data(asked: Option<&Path>) -> io::Result<PathBuf> {
    let base = match asked {
        Some(dir) => dir.to_owned(),
        None => std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default(),
    };
    let dir = base.join(DATA);
    fs::create_dir_all(&dir)?;
    // Servers may run in another directory than this program.
    let dir = fs::canonicalize(dir)?;
    for left in fs::read_dir(&dir)? {
        let left = left?;
        let name = left.file_name();
        let pid = name.to_str().and_then(|name| name.split_once('-')).map(|(pid, _)| pid);
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            match fs::remove_dir_all(left.path()) {
                // Another program has removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(measure: fn(&Run) -> io::Result<Vec<Measured>>) -> Case {
        Case::new("directory", "directory/set/1client/disk", "etcd", "3 copies, no TLS", measure)
    }

    /// Checks the form of a line, which other programs read.
    #[test]
    fn a_line_has_the_form_of_the_main_benchmarks() {
        let measured = Measured::rate("ops_per_s", 30, Duration::from_secs(3));
        assert_eq!(
            case(|_| Ok(Vec::new())).line(None, &measured),
            "{\"bench\":\"directory\",\"case\":\"directory/set/1client/disk\",\"metric\":\"ops_per_s\",\
             \"value\":null,\"unit\":\"1/s\",\"peer\":\"etcd\",\"peer_value\":10.0,\"ratio\":null,\
             \"guarantee\":\"3 copies, no TLS\"}"
        );
    }

    /// Checks that another number of keys is told, and small figures with two digits.
    #[test]
    fn a_large_state_is_called_after_its_keys() {
        let big = |name| Case::new("bigstate", name, "etcd", "", |_| Ok(Vec::new()));
        let measured = Measured { metric: "kill_all_serve_s", value: 1.234, unit: "s" };
        let line = big("bigstate/small/5M").line(Some(20), &measured);
        assert!(line.contains("\"bigstate/small/20\"") && line.contains(":1.23,"), "{line}");
        assert_eq!(case(|_| Ok(Vec::new())).name(Some(20)), "directory/set/1client/disk");
    }

    /// Checks that a name chooses those that begin so, and only its own case if it must be exact.
    #[test]
    fn names_are_prefixes_unless_they_must_be_exact() {
        let wants = |line: &[&str], name| Arguments::parse_from(line).wants(name);
        assert!(wants(&["peer"], "a/b"));
        assert!(wants(&["peer", "c", "a"], "a/b") && !wants(&["peer", "b"], "a/b"));
        assert!(wants(&["peer", "--exact", "a/b"], "a/b"));
        assert!(!wants(&["peer", "--exact", "a/b"], "a/b/c"));
    }

    /// Checks that a case that panics has failed, and that its directory goes.
    #[test]
    fn a_case_that_panics_has_failed_and_its_directory_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let run = Run::new(WARM_UP, WARM_UP, dir.path()).unwrap();
        let error = case(|_| panic!("on purpose")).measure(run).unwrap().unwrap_err();
        assert_eq!(error.to_string(), "it panicked");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// Checks that only directories of programs that have ended are removed.
    #[test]
    fn what_a_killed_program_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = fs::canonicalize(dir.path()).unwrap().join(DATA);
        let own = data_dir.join(format!("{}-own", std::process::id()));
        // No process has this number: it is above the largest of Linux.
        let left = data_dir.join("4194999-left");
        fs::create_dir_all(&own).unwrap();
        fs::create_dir_all(&left).unwrap();
        assert_eq!(data(Some(dir.path())).unwrap(), data_dir);
        assert!(own.exists() && !left.exists());
    }
}
