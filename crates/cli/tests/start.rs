//! Nodes that cannot start, or take long to.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Node, Running, Up, mainstay, turn, until};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

/// A cluster with something in it, whose nodes have stopped.
fn stopped(home: &Path) {
    let up = Up::start(home);
    up.nodes[0].answers("SET a 1\r\n", "+OK\r\n");
    up.nodes[1].answers("GET a\r\n", "$1\r\n1\r\n");
    assert_eq!(up.running.terminate(), Some(0));
}

/// As on a full disk: no file can be written to.
fn without_room(dir: &Path, name: &str, options: &[&str]) -> (Option<i32>, String) {
    let config = dir.join(name).join("mainstay.toml");
    let mut command = Command::new("sh");
    // Without the trap the signal of the limit would end it.
    command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"]);
    command.args([env!("CARGO_BIN_EXE_mainstay"), "node", "--config", config.to_str().unwrap()]);
    let run = command.args(options).output().unwrap();
    (run.status.code(), String::from_utf8(run.stderr).unwrap())
}

/// Checks that a full disk at the start is told of as such, with its own status, and not as damage; and that the data is good
/// when there is room again.
#[test]
fn a_full_disk_at_the_start_is_no_damage() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    stopped(home.path());
    let new = home.path().join("n3/data");
    fs::remove_dir_all(&new).unwrap();
    let trace = home.path().join("trace");
    let trace = ["--trace", trace.to_str().unwrap()];
    for (name, options) in [("n1", &[][..]), ("n3", &[]), ("n2", &trace)] {
        let (status, said) = without_room(home.path(), name, options);
        assert_eq!(status, Some(5), "{name}: {said}");
        let place = if options.is_empty() {
            format!("{name}/data: the disk is full")
        } else {
            "trace".into()
        };
        assert!(said.contains(&place) && said.contains("File too large"), "{name}: {said}");
        assert!(!said.contains("damaged"), "{name}: {said}");
    }
    let up = Up::start(home.path());
    up.nodes[2].answers("GET a\r\n", "$1\r\n1\r\n");
    assert_eq!(up.running.terminate(), Some(0));
}

/// In place of what the node reads first: it waits there until somebody writes.
fn obstruct(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name).join("data/cell-identity");
    fs::remove_file(&path).unwrap();
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    path
}

/// Lets the node read, as often as it does, until it has ended: nothing is no identity.
fn release(obstacle: &Path) {
    let lock = fs::File::open(obstacle.with_file_name("lock")).unwrap();
    until("it has read and ended", || {
        // It fails while nobody reads.
        let flags = OFlags::NONBLOCK.bits().try_into().unwrap();
        let _ = fs::OpenOptions::new().write(true).custom_flags(flags).open(obstacle);
        lock.try_lock().is_ok()
    });
}

/// Whether the process has locked its directory, as it does when it begins to read.
fn reads(pid: u32) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let is_lock = |file: io::Result<fs::DirEntry>| {
        file.and_then(|it| fs::read_link(it.path())).is_ok_and(|it| it.ends_with("data/lock"))
    };
    files.into_iter().any(is_lock)
}

fn addresses(dir: &Path, name: &str) -> Vec<SocketAddr> {
    let config = fs::read_to_string(dir.join(name).join("mainstay.toml")).unwrap();
    let address = |line: &str| {
        let (key, value) = line.split_once(" = ")?;
        ["listen", "resp", "admin"].contains(&key).then(|| value.trim_matches('"').parse().unwrap())
    };
    config.lines().filter_map(address).collect()
}

/// Checks that a node that reads its log refuses who connects, instead of accepting and answering nothing, and that
/// `status` says what that may mean.
#[test]
fn a_node_that_reads_its_log_refuses_connections() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    stopped(home.path());
    let obstacle = obstruct(home.path(), "n1");
    let config = home.path().join("n1/mainstay.toml");
    let mut node = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    node.args(["node", "--config", config.to_str().unwrap()]).stderr(Stdio::piped());
    let mut node = Running::of(node);
    until("it reads", || reads(node.pid()));
    let addresses = addresses(home.path(), "n1");
    assert_eq!(addresses.len(), 3);
    for address in addresses {
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{address}");
    }
    let status = mainstay(&["status", "--dir", home.path().to_str().unwrap()]);
    assert_eq!(status.status.code(), Some(3));
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("nobody listens: it does not run, or it starts"), "{status}");
    assert_eq!(node.ended(), None);
    release(&obstacle);
    assert_eq!(node.exit_status(), Some(4));
}

/// Checks that `up` says which node still reads its log, and leaves the others running when that one ends.
#[test]
fn up_says_which_node_still_starts() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    stopped(home.path());
    let obstacle = obstruct(home.path(), "n1");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.args(["up", "directory", "--dir", home.path().to_str().unwrap()]);
    command.stderr(Stdio::piped());
    let mut up = Running::of(command);
    // Printed when it says what it waits for.
    let nodes = [up.line(), up.line()].map(|line| Node::read(&line));
    nodes[0].answers("GET a\r\n", "$1\r\n1\r\n");
    release(&obstacle);
    nodes[1].answers("INCR n\r\n", ":1\r\n");
    until("it knows of the end", || up.has_said("node n1 ended"));
    up.ask_to_stop();
    assert_eq!(up.exit_status(), Some(0));
    let said = up.errors();
    let wanted = "not ready yet and left running: n1: it starts, and reads its log";
    assert!(said.contains(wanted) && said.contains("node n1 ended with status 4"), "{said}");
}
