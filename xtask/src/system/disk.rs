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
    let Some(_mount) = small(&data, 8)? else {
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

/// Nobody ends: commands are refused by name before the disks are full, reads go on, and with more room commands do, too.
pub(super) fn all_fill_up() -> Result<Verdict, String> {
    if !is_root() || !is_there("redis-cli") {
        return Ok(Verdict::Skipped("it needs root, for small file systems, and redis-cli"));
    }
    let home = Home::new("disks")?;
    Cluster::start(&home, &[], &[])?.stop()?;
    let data = ["n1", "n2", "n3"].map(|node| home.path().join("cluster").join(node).join("data"));
    let mut mounts = Vec::new();
    for data in &data {
        mounts.push(small(data, 64)?);
    }
    if mounts.iter().any(Option::is_none) {
        return Ok(Verdict::Skipped("no file system may be mounted here"));
    }
    let cluster = Cluster::start(&home, &[], &[])?;
    let value = "v".repeat(100 << 10);
    let mut written = 0;
    until("commands are refused", || {
        for _ in 0..50 {
            let key = format!("k{written}");
            let said = cluster.ask(written % 3, &["SET", &key, &value])?;
            if said.contains("MISCONF") {
                return Ok(true);
            }
            ensure(said == "OK", || format!("SET {key}: {said}"))?;
            written += 1;
        }
        Ok(false)
    })?;
    let status = cluster.status()?;
    ensure(status.contains("disk: it is almost full"), || status)?;
    for node in 0..3 {
        let said = cluster.ask(node, &["DBSIZE"])?;
        ensure(said == written.to_string(), || format!("{said} keys at {node}, not {written}"))?;
    }
    for data in &data {
        run(Command::new("mount").args(["-o", "remount,size=512m"]).arg(data))?;
    }
    until("commands are taken again", || {
        Ok((0..3)
            .all(|node| cluster.ask(node, &["SET", "after", "1"]).is_ok_and(|said| said == "OK")))
    })?;
    cluster.stop()?;
    Ok(Verdict::Passed)
}

/// Moves the directory to a file system of so many MiB; `None`: that is not permitted.
fn small(data: &Path, mebibytes: u32) -> Result<Option<Mount>, String> {
    let old = data.with_extension("old");
    let wrong = |error: std::io::Error| format!("{}: {error}", data.display());
    fs::rename(data, &old).and_then(|()| fs::create_dir(data)).map_err(wrong)?;
    let mut mount = Command::new("mount");
    let size = format!("size={mebibytes}m");
    if run(mount.args(["-t", "tmpfs", "-o", &size, "mainstay"]).arg(data)).is_err() {
        return Ok(None);
    }
    let mounted = Mount(data.to_owned());
    run(Command::new("cp").arg("-a").arg(old.join(".")).arg(data))?;
    Ok(Some(mounted))
}
