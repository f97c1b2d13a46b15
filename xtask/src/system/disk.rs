//! A node on a small file system of its own that fills up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cluster::{Cluster, Home, ensure, until};
use super::tools::{is_root, is_there, run};
use crate::steps::Verdict;

/// A mounted file system; it is unmounted at the end.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg(&self.0));
    }
}

/// The node ends and says why, the others go on, and when there is room again nothing acknowledged is lost.
pub(super) fn fills_up() -> Result<Verdict, String> {
    if !is_root() || !is_there("redis-cli") {
        return Ok(Verdict::Skipped("it needs root, for a small file system, and redis-cli"));
    }
    let home = Home::new("disk")?;
    Cluster::start(&home, &[], &[])?.stop()?;
    let data = home.path().join("cluster/n2/data");
    let Some(_mount) = small(&data)? else {
        return Ok(Verdict::Skipped("no file system may be mounted here"));
    };
    let cluster = Cluster::start(&home, &[], &[])?;
    let value = "v".repeat(100 << 10);
    let mut written = 0;
    until("n2 ends", || {
        let key = format!("k{written}");
        let said = cluster.ask(0, &["SET", &key, &value])?;
        ensure(said == "OK", || format!("SET {key}: {said}"))?;
        written += 1;
        Ok(home.log().contains("node n2 ended with status 70"))
    })?;
    let log = home.log();
    ensure(log.contains("n2/data: the node halted") && log.contains("No space left"), || log)?;
    let said = cluster.ask(2, &["SET", "after", "1"])?;
    ensure(said == "OK", || format!("the others do not go on: {said}"))?;
    cluster.stop()?;

    run(Command::new("mount").args(["-o", "remount,size=512m"]).arg(&data))?;
    let cluster = Cluster::start(&home, &[], &[])?;
    let said = cluster.ask(1, &["DBSIZE"])?;
    ensure(said == (written + 1).to_string(), || format!("{said} keys, not {written} + 1"))?;
    cluster.stop()?;
    Ok(Verdict::Passed)
}

/// Moves the directory to a file system of a few MiB; `None`: that is not permitted.
fn small(data: &Path) -> Result<Option<Mount>, String> {
    let old = data.with_extension("old");
    let wrong = |error: std::io::Error| format!("{}: {error}", data.display());
    fs::rename(data, &old).and_then(|()| fs::create_dir(data)).map_err(wrong)?;
    let mut mount = Command::new("mount");
    if run(mount.args(["-t", "tmpfs", "-o", "size=8m", "mainstay"]).arg(data)).is_err() {
        return Ok(None);
    }
    let mounted = Mount(data.to_owned());
    run(Command::new("cp").arg("-a").arg(old.join(".")).arg(data))?;
    Ok(Some(mounted))
}
