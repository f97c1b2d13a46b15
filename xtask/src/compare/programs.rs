//! Our program and those of the peers: built, asked for their cases, and run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::compare::lines::figure;
use crate::compare::process::{self, Ran};
use crate::{cargo, house};

const OURS: &str = "mainstay-bench";
/// All crates that measure a peer are called so.
const PEER: &str = "peer-";
/// Directories whose crates need nearly as many others as all the rest: built only when they are asked for.
const HEAVY: &[&str] = &["kameo"];
const BUILD: Duration = Duration::from_secs(45 * 60);
/// To say which cases there are, or that something is not installed.
const ASK: Duration = Duration::from_secs(30);
/// A run of ours, which is some ten seconds at most.
const OURS_RUN: Duration = Duration::from_secs(180);
/// The bench whose runs take minutes, and the limit of one, ours or the peer's.
const BIG: &str = "bigstate";
const BIG_RUN: Duration = Duration::from_secs(30 * 60);
/// A run of a peer's program: it may measure several systems, each of which it gives up after two minutes.
const PEER_RUN: Duration = Duration::from_secs(15 * 60);
/// The exit status of a peer's program that says: not installed.
const NOT_INSTALLED: i32 = 3;

/// Our program.
pub(crate) struct Ours {
    path: PathBuf,
    /// The bench and the name of each.
    pub(crate) cases: Vec<(String, String)>,
}

/// A program that measures a peer.
pub(crate) struct Peer {
    /// `peer-NAME`.
    pub(crate) name: String,
    path: PathBuf,
    pub(crate) cases: Vec<String>,
}

/// The programs of the peers.
pub(crate) struct Peers {
    pub(crate) there: Vec<Peer>,
    /// The others, each with its reason.
    pub(crate) skipped: Vec<(String, String)>,
}

/// The directories of the peers' crates: those that are asked for, or all but the heavy ones.
///
/// # Errors
/// One that is asked for does not exist.
pub(crate) fn names(asked: &[String]) -> Result<Vec<String>, String> {
    let mut known = Vec::new();
    for entry in fs::read_dir(home()).map_err(|error| unreadable(&home(), &error))? {
        let path = entry.map_err(|error| unreadable(&home(), &error))?.path();
        let is_peer = package(&path).is_some_and(|name| name.starts_with(PEER));
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        known.extend(name.filter(|_| is_peer));
    }
    known.sort();
    if let Some(unknown) = asked.iter().find(|name| !known.contains(name)) {
        return Err(format!("no such peer: {unknown:?}; there are {}", known.join(", ")));
    }
    let is_wanted = |name: &String| match asked {
        [] => !HEAVY.contains(&name.as_str()),
        _ => asked.contains(name),
    };
    known.retain(is_wanted);
    Ok(known)
}

fn home() -> PathBuf {
    house::root().join("bench/peers")
}

/// The name of the package in this directory, if there is one.
fn package(directory: &Path) -> Option<String> {
    let manifest = fs::read_to_string(directory.join("Cargo.toml")).ok()?;
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = \""))?;
    name.strip_suffix('"').map(str::to_owned)
}

impl Ours {
    /// Builds it and asks it for its cases.
    pub(crate) fn build() -> Result<Self, String> {
        let path = build(&house::root(), OURS, OURS)?;
        let ran = run(&path, ["list"], ASK)?;
        let cases: Option<Vec<_>> = ran.stdout.lines().map(|line| line.split_once(' ')).collect();
        match cases {
            Some(cases) if ran.is_done() && !cases.is_empty() => {
                let own = |(bench, case): (&str, &str)| (bench.to_owned(), case.to_owned());
                Ok(Self { path, cases: cases.into_iter().map(own).collect() })
            }
            _ => Err(format!("{OURS} lists no cases: {}", ran.why())),
        }
    }

    /// The bench of this case, if it is one of ours.
    pub(crate) fn bench_of(&self, case: &str) -> Option<&str> {
        self.cases.iter().find(|(_, name)| name == case).map(|(bench, _)| bench.as_str())
    }

    /// One run of a case.
    pub(crate) fn measure(&self, bench: &str, case: &str, dir: &Path) -> Result<Ran, String> {
        let mut words = vec![bench, case, "--exact", "--output", "json"];
        let dir = dir.to_string_lossy();
        // Nothing of the multicast goes to a disk.
        if bench != "multicast" {
            words.extend(["--dir", &dir]);
        }
        run(&self.path, words, limit(case, OURS_RUN))
    }

    #[cfg(test)]
    pub(crate) fn of(cases: Vec<(String, String)>) -> Self {
        Self { path: PathBuf::new(), cases }
    }
}

impl Peers {
    /// Builds these and asks them for their cases; those that do not build or lack something are skipped.
    ///
    /// # Errors
    /// There is no building anything.
    pub(crate) fn build(names: &[String], dir: &Path) -> Result<Self, String> {
        let mut peers = Self { there: Vec::new(), skipped: Vec::new() };
        for name in names {
            let package = package(&home().join(name)).ok_or("a peer's directory has gone")?;
            match Peer::build(&package, dir) {
                Ok(peer) => peers.there.push(peer),
                Err(why) => {
                    eprintln!("compare: {package} is skipped: {why}");
                    peers.skipped.push((package, why));
                }
            }
        }
        Ok(peers)
    }
}

impl Peer {
    fn build(name: &str, dir: &Path) -> Result<Self, String> {
        let path = build(&home(), name, name)?;
        let listed = run(&path, ["--list"], ASK)?;
        let cases: Vec<String> = listed.stdout.lines().map(str::to_owned).collect();
        if !listed.is_done() || cases.is_empty() {
            return Err(format!("it lists no cases: {}", listed.why()));
        }
        // No case is called so: only what is needed is looked for.
        let looked = run(&path, ["--exact", "--dir", &dir.to_string_lossy(), "-"], ASK)?;
        match looked.status {
            Some(0) => Ok(Self { name: name.to_owned(), path, cases }),
            Some(NOT_INSTALLED) => Err(looked.stderr.trim().to_owned()),
            _ => Err(looked.why()),
        }
    }

    /// Whether it measures this case.
    pub(crate) fn has(&self, case: &str) -> bool {
        self.cases.iter().any(|it| it == case)
    }

    /// One run of a case.
    pub(crate) fn measure(&self, case: &str, dir: &Path) -> Result<Ran, String> {
        run(&self.path, [case, "--exact", "--dir", &dir.to_string_lossy()], limit(case, PEER_RUN))
    }

    #[cfg(test)]
    pub(crate) fn of(name: &str, cases: Vec<String>) -> Self {
        Self { name: name.to_owned(), path: PathBuf::new(), cases }
    }
}

/// How long a run of this case may take, if it is `usual` for those of most benches.
fn limit(case: &str, usual: Duration) -> Duration {
    if case.split('/').next() == Some(BIG) { BIG_RUN } else { usual }
}

/// What the machine can do, as `peer-machine` measures it; what is not measured is missing.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    pub(crate) cores: Option<f64>,
    /// The median of a forced append of 4 KiB.
    pub(crate) force_us: Option<f64>,
    /// The median of a round trip of 64 bytes over TCP.
    pub(crate) tcp_us: Option<f64>,
}

impl Machine {
    pub(crate) fn measure(dir: &Path) -> Self {
        let dir = dir.to_string_lossy();
        let ran = build(&home(), "peers-common", "peer-machine")
            .and_then(|path| run(&path, ["--dir", &dir], PEER_RUN));
        match ran {
            Ok(ran) => Self::read(&ran.stdout),
            Err(why) => {
                eprintln!("compare: the machine is not measured: {why}");
                Self::default()
            }
        }
    }

    fn read(said: &str) -> Self {
        let figures: Vec<_> = said.lines().filter_map(figure).collect();
        let of = |case: &str, metric: &str| {
            let found = figures.iter().find(|it| it.case == case && it.metric == metric);
            found.map(|it| it.value)
        };
        Self {
            cores: of("machine/cores", "cores"),
            force_us: of("machine/fdatasync/4KiB", "p50_us"),
            tcp_us: of("machine/tcp/64B", "p50_us"),
        }
    }
}

/// Builds a program of a package in this workspace: where it is.
fn build(workspace: &Path, package: &str, program: &str) -> Result<PathBuf, String> {
    eprintln!("compare: building {program}");
    let words =
        ["build", "--quiet", "--release", "--locked", "--package", package, "--bin", program];
    let built = run_cargo(workspace, &words)?;
    if !built.is_done() {
        let error = built.stderr.lines().find(|line| line.starts_with("error"));
        return Err(format!(
            "it does not build: {}",
            error.map_or_else(|| built.why(), str::to_owned)
        ));
    }
    let known = run_cargo(workspace, &["metadata", "--no-deps", "--format-version=1"])?;
    let target = target_directory(&known.stdout).ok_or("cargo does not say where it builds")?;
    Ok(Path::new(target).join("release").join(program))
}

fn run_cargo(workspace: &Path, words: &[&str]) -> Result<Ran, String> {
    let mut cargo = process::command(cargo::program());
    cargo.args(words).current_dir(workspace);
    bounded(cargo, "cargo", BUILD)
}

/// Cut out of what cargo says of the workspace.
fn target_directory(metadata: &str) -> Option<&str> {
    metadata.split_once("\"target_directory\":\"")?.1.split_once('"').map(|it| it.0)
}

fn run<'a>(
    program: &Path,
    words: impl IntoIterator<Item = &'a str>,
    limit: Duration,
) -> Result<Ran, String> {
    let mut command = process::command(program);
    command.args(words);
    bounded(command, &program.to_string_lossy(), limit)
}

fn bounded(command: Command, name: &str, limit: Duration) -> Result<Ran, String> {
    let scratch = std::env::temp_dir().join("mainstay-compare");
    process::run(command, limit, &scratch).map_err(|error| format!("cannot run {name}: {error}"))
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the crates of the peers are found, and nothing that is none.
    #[test]
    fn the_peers_are_the_crates_that_are_called_so() {
        let all = names(&[]).unwrap();
        assert!(all.contains(&"stores".to_owned()) && all.contains(&"redis".to_owned()), "{all:?}");
        assert!(!all.contains(&"common".to_owned()) && !all.contains(&"target".to_owned()));
        assert_eq!(names(&["redis".to_owned()]), Ok(vec!["redis".to_owned()]));
        assert!(names(&["nothing".to_owned()]).unwrap_err().contains("redis"));
    }

    /// Checks that a heavy peer is there, and built only if it is asked for.
    #[test]
    fn heavy_peers_must_be_asked_for() {
        let all = names(&[]).unwrap();
        for heavy in HEAVY.iter().map(|name| (*name).to_owned()) {
            assert!(!all.contains(&heavy), "{all:?}");
            assert_eq!(names(std::slice::from_ref(&heavy)), Ok(vec![heavy]));
        }
    }

    /// Checks that the figures of the machine are told apart, and that one that is not there is missing.
    #[test]
    fn the_machine_is_read_from_its_cases() {
        let line = |case: &str, metric: &str, value| {
            format!(
                "{{\"case\":\"{case}\",\"metric\":\"{metric}\",\"unit\":\"us\",\"peer\":\"machine\",\
                 \"peer_value\":{value},\"guarantee\":\"\"}}\n"
            )
        };
        let said = line("machine/cores", "cores", 2)
            + &line("machine/fdatasync/4KiB", "p99_us", 900)
            + &line("machine/fdatasync/4KiB", "p50_us", 76);
        let machine = Machine::read(&said);
        assert_eq!(
            (machine.cores, machine.force_us, machine.tcp_us),
            (Some(2.0), Some(76.0), None)
        );
    }

    /// Checks that only a large state is waited for longer.
    #[test]
    fn a_large_state_may_take_longer() {
        assert_eq!(limit("bigstate/small/5M", OURS_RUN), BIG_RUN);
        assert_eq!(limit("stable/commit/1thread", OURS_RUN), OURS_RUN);
    }

    /// Checks that the directory is cut out whole.
    #[test]
    fn the_target_directory_is_found() {
        let said = "{\"packages\":[],\"target_directory\":\"/a/b\",\"version\":1}";
        assert_eq!(target_directory(said), Some("/a/b"));
        assert_eq!(target_directory("{}"), None);
    }
}
