//! Other programs: whether they are there, and how they are run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::steps::Verdict;

/// The programs that the steps run, and the Debian packages that they are in.
const PROGRAMS: [(&str, &str); 4] = [
    ("redis-cli", "redis-tools"),
    ("redis-benchmark", "redis-tools"),
    ("ip", "iproute2"),
    ("faketime", "faketime"),
];
/// Seconds that an installation may take.
const INSTALL_MAX: &str = "120";

/// Installs what is missing, as root.
pub(super) fn install() -> Result<Verdict, String> {
    let mut missing: Vec<_> =
        PROGRAMS.iter().filter(|(name, _)| !is_there(name)).map(|(_, package)| *package).collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(Verdict::Passed);
    }
    if !is_root() {
        return Ok(Verdict::Skipped("packages are missing, and only root may install them"));
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", INSTALL_MAX, "apt-get", "--quiet", "--yes"]).args(arguments);
        run(command.env("DEBIAN_FRONTEND", "noninteractive")).map(drop)
    };
    let install: Vec<&str> =
        ["install", "--no-install-recommends"].into_iter().chain(missing.clone()).collect();
    apt(&["update"]).and_then(|()| apt(&install)).map_err(|error| {
        format!("cannot install {}: {error}; install by hand and run again", missing.join(" "))
    })?;
    Ok(Verdict::Passed)
}

/// Whether the shell finds the program.
pub(super) fn is_there(name: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).chain(["/usr/sbin".into()]).any(|path| path.join(name).is_file())
}

pub(super) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Runs to the end; what it wrote to standard output.
///
/// # Errors
/// It does not run, or ends with another status than 0: what it said.
pub(super) fn run(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {shown}: {error}"))?;
    text(&shown, output)
}

/// Standard output of what has ended well.
pub(super) fn text(shown: &str, output: Output) -> Result<String, String> {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(said(&output.stdout));
    }
    let (status, out, err) = (output.status, said(&output.stdout), said(&output.stderr));
    Err(format!("{shown}: {status}: {out}{err}"))
}

/// The program that was built, beside this one.
pub(super) fn mainstay() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let target = own.parent().and_then(Path::parent);
    target.map(|path| path.join("release/mainstay")).ok_or_else(|| "no target directory".to_owned())
}
