//! The wall clock of the nodes jumps; they must not care: timeouts are of the monotonic clock, order of none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::cluster::{Cluster, Home, ensure, values};
use super::tools::{is_there, run, text};
use crate::steps::Verdict;

/// The clock stays so long at each place: longer than the timeout of the nodes.
const STAY: Duration = Duration::from_secs(1);

/// Hours forth and back under load: no view changes, and no command fails.
pub(super) fn jumps() -> Result<Verdict, String> {
    let Some(library) = library().filter(|_| is_there("redis-benchmark")) else {
        return Ok(Verdict::Skipped("libfaketime or redis-benchmark is not installed"));
    };
    let home = Home::new("clock")?;
    let offset = home.path().join("offset");
    let set = |text: &str| fs::write(&offset, text).map_err(|error| error.to_string());
    let (library, file) = (library.display().to_string(), offset.display().to_string());
    let variables = [
        ("LD_PRELOAD", &*library),
        ("FAKETIME_TIMESTAMP_FILE", &*file),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    // That the clock is ours is seen by a program that shows it.
    set("+3650d")?;
    let date = |with: &[(&str, &str)]| run(Command::new("date").arg("+%Y").envs(with.to_vec()));
    ensure(date(&variables)? != date(&[])?, || "the clock does not jump".to_owned())?;

    set("+0")?;
    let cluster = Cluster::start(&home, &[], &variables)?;
    let views = || {
        let status = cluster.status()?;
        Ok::<_, String>((values(&status, "view"), values(&status, "incarnation")))
    };
    let before = views()?;
    let load = cluster
        .client(60, "redis-benchmark")
        .args(["-p", cluster.port(0), "-q", "-c", "20", "-n", "1000000000", "-t", "incr"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut load = load.map_err(|error| format!("cannot run redis-benchmark: {error}"))?;
    for place in ["+5h", "-5h", "+400d", "-1h", "+0"] {
        set(place)?;
        thread::sleep(STAY);
    }
    let running = load.try_wait().is_ok_and(|status| status.is_none());
    // `timeout` passes it on to the benchmark.
    run(Command::new("kill").args(["-TERM", &load.id().to_string()]))?;
    let output = load.wait_with_output().map_err(|error| error.to_string())?;
    ensure(running, || text("redis-benchmark", output).unwrap_or_else(|error| error))?;
    let after = views()?;
    ensure(before == after, || format!("views and incarnations {before:?} became {after:?}"))?;
    let counted = cluster.ask(1, &["GET", "counter:__rand_int__"])?;
    ensure(counted.parse::<u64>().is_ok_and(|count| count > 0), || format!("counted {counted}"))?;
    cluster.stop()?;
    Ok(Verdict::Passed)
}

/// Where Debian has it, for programs with threads.
pub(super) fn library() -> Option<PathBuf> {
    let places = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let file = |place: PathBuf| place.join("faketime/libfaketimeMT.so.1");
    places.map(file).find(|path| Path::is_file(path))
}
