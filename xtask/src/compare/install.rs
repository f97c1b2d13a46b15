//! What the peers need, from Debian.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::compare::process;

const PACKAGES: &[&str] = &[
    "corosync",
    "etcd-server",
    "gcc",
    "iproute2",
    "libcpg-dev",
    "libprotobuf-dev",
    "nats-server",
    "postgresql",
    "protobuf-compiler",
    "redis-server",
    "redis-tools",
    "util-linux",
];
/// What Debian starts when a package is installed; the programs start servers of their own.
const SERVICES: &[&str] = &["corosync", "etcd", "nats-server", "postgresql", "redis-server"];
const UPDATE: Duration = Duration::from_secs(5 * 60);
const INSTALL: Duration = Duration::from_secs(20 * 60);
const STOP: Duration = Duration::from_secs(60);

/// Installs the packages, and stops the services that run only because of it.
///
/// # Errors
/// This is not root, and the command is printed instead; a package cannot be had; a service still runs.
pub(crate) fn run() -> Result<(), String> {
    let install = format!("apt-get install --no-install-recommends {}", PACKAGES.join(" "));
    println!("{install}");
    if !is_root() {
        return Err("only root can install this; the command is above".to_owned());
    }
    let before: Vec<&str> = SERVICES.iter().copied().filter(|name| runs(name)).collect();
    apt(&["update"], UPDATE)?;
    let words = ["install", "--yes", "--no-install-recommends"];
    apt(&[words.as_slice(), PACKAGES].concat(), INSTALL)?;
    for name in SERVICES.iter().filter(|name| !before.contains(name)) {
        stop(name)?;
    }
    println!("installed; no service runs that did not run before");
    Ok(())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn apt(words: &[&str], limit: Duration) -> Result<(), String> {
    let mut apt = process::command("apt-get");
    apt.args(words).env("DEBIAN_FRONTEND", "noninteractive");
    bounded(apt, limit)
}

/// Whether the service of this name runs.
fn runs(name: &str) -> bool {
    let mut status = Command::new("service");
    status.args([name, "status"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    status.status().is_ok_and(|status| status.success())
}

/// Stops it now and, where there is systemd, for good.
fn stop(name: &str) -> Result<(), String> {
    if Path::new("/run/systemd/system").exists() {
        let mut disable = process::command("systemctl");
        disable.args(["disable", "--now", name]);
        bounded(disable, STOP)?;
    } else if runs(name) {
        let mut stop = process::command("service");
        stop.args([name, "stop"]);
        bounded(stop, STOP)?;
    }
    if runs(name) { Err(format!("the service {name} still runs")) } else { Ok(()) }
}

fn bounded(command: Command, limit: Duration) -> Result<(), String> {
    let shown = format!("{command:?}");
    let scratch = std::env::temp_dir().join("mainstay-compare");
    let ran = process::run(command, limit, &scratch);
    let ran = ran.map_err(|error| format!("cannot run {shown}: {error}"))?;
    if ran.is_done() { Ok(()) } else { Err(format!("{shown}: {}", ran.why())) }
}
