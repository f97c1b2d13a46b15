//! What is printed where nobody can read it: the words are lost, and nothing else.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Node, PIPE_BYTES, Running, Up, check, report, signal, turn, until};

/// A pipe whose reader is gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A file system without room.
fn full_disk() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.args(arguments);
    command
}

fn start(dir: &Path, name: &str, stderr: Stdio) -> (Running, Node) {
    let config = dir.join(name).join("mainstay.toml");
    let mut command = program(&["node", "--log", "info", "--config", config.to_str().unwrap()]);
    command.stderr(stderr);
    let running = Running::of(command);
    let node = Node::read(&running.line());
    (running, node)
}

/// How many lines of its log a node could not write.
fn dropped(node: &Node) -> u64 {
    report(&node.admin).map_or(0, |it| it["log_dropped"].as_u64().unwrap())
}

/// Checks that a log that cannot be written, for whatever reason, costs a node nothing: it goes on, counts, and says so.
#[test]
fn a_log_that_cannot_be_written_ends_no_node() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let Up { running, .. } = Up::start(home.path());
    assert_eq!(running.terminate(), Some(0));
    // Nobody reads it, and it is full: who writes waits.
    let (_unread, mut full) = std::io::pipe().unwrap();
    full.write_all(&[b'.'; PIPE_BYTES]).unwrap();
    // The same, and who writes is told at once.
    let (_unread_either, at_once) = UnixStream::pair().unwrap();
    at_once.set_nonblocking(true).unwrap();
    while (&at_once).write(&[b'.'; 4 << 10]).is_ok() {}
    let (n1, at_n1) = start(home.path(), "n1", closed());
    let (n2, at_n2) = start(home.path(), "n2", full_disk());
    let (n3, at_n3) = start(home.path(), "n3", full.into());
    at_n1.answers("INCR n\r\n", ":1\r\n");
    // Each new view is logged by all that are in it.
    n3.kill();
    until("the others log", || dropped(&at_n1) > 0 && dropped(&at_n2) > 0);
    at_n2.answers("INCR n\r\n", ":2\r\n");
    let (n3, at_n3_again) = start(home.path(), "n3", OwnedFd::from(at_once).into());
    assert_eq!(at_n3.resp, at_n3_again.resp);
    at_n3_again.answers("INCR n\r\n", ":3\r\n");
    n1.kill();
    until("it logs", || dropped(&at_n3_again) > 0);
    at_n3_again.answers("INCR n\r\n", ":4\r\n");
    let status = program(&["status", "--dir", home.path().to_str().unwrap()]).output().unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("lines could not be written"), "{status}");
    assert_eq!(n2.terminate(), Some(0));
    assert_eq!(n3.terminate(), Some(0));
}

/// Checks that a node that logs into a full pipe, which nobody reads, goes on: its thread does not wait.
#[test]
fn a_reader_that_does_not_read_stops_no_node() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    signal(up.nodes[2].pid, "KILL");
    let (mut unread, node) = up.restart_unread("n3");
    up.nodes[0].answers("INCR n\r\n", ":1\r\n");
    node.answers("INCR n\r\n", ":2\r\n");
    let told = common::post(&node.admin, "/accept-loss", common::PATIENCE);
    assert_eq!(told.as_deref(), Some("HTTP/1.0 409 Conflict"), "it has logged that");
    node.answers("INCR n\r\n", ":3\r\n");
    unread.ask_to_stop();
    assert_eq!(unread.exit_status(), Some(0));
    assert_eq!(up.running.terminate(), Some(0));
}

/// Checks that `up` goes on when it cannot say that a node has ended, and its nodes when they cannot log it.
#[test]
fn up_goes_on_without_a_reader() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let mut command = program(&["up", "directory", "--dir", home.path().to_str().unwrap()]);
    command.stderr(closed()).env("MAINSTAY__LOG", "info");
    let up = Up::of(Running::of(command), home.path());
    signal(up.nodes[0].pid, "KILL");
    until("the others log", || dropped(&up.nodes[1]) > 0 && dropped(&up.nodes[2]) > 0);
    up.nodes[1].answers("INCR n\r\n", ":1\r\n");
    assert_eq!(up.running.terminate(), Some(0));
}

/// Checks that commands whose output cannot be written do the whole of their work and end with the status that tells of it.
#[test]
fn commands_without_a_reader_end_as_with_one() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let traces = home.path().join("trace");
    let mut command = program(&["up", "directory", "--dir", home.path().to_str().unwrap()]);
    command.args(["--trace", traces.to_str().unwrap()]).stderr(Stdio::piped());
    let mut up = Up::of(Running::of(command), home.path());
    let dir = home.path().to_str().unwrap();
    let status = |arguments: &[&str], stdout: Stdio, stderr: Stdio| {
        program(arguments).stdout(stdout).stderr(stderr).status().unwrap().code()
    };
    for command in [&["status", "--dir", dir][..], &["status", "--dir", dir, "--output", "json"]] {
        assert_eq!(status(command, closed(), closed()), Some(0), "{command:?}");
        assert_eq!(status(command, full_disk(), full_disk()), Some(0), "{command:?}");
    }
    for refused in
        [&["accept-loss", "--dir", dir, "state"][..], &["skip", "--dir", dir, "state", "7"]]
    {
        assert_eq!(status(refused, closed(), closed()), Some(2), "{refused:?}");
        assert_eq!(status(refused, full_disk(), full_disk()), Some(2), "{refused:?}");
    }
    up.running.ask_to_stop();
    assert_eq!(up.running.exit_status(), Some(0));
    let said = up.running.errors();
    assert_eq!(said.matches("an operator asks to accept").count(), 6, "twice at each node: {said}");
    assert_eq!(status(&["status", "--dir", dir], closed(), closed()), Some(3));
    let judge = ["check", traces.to_str().unwrap()];
    assert_eq!(check(&traces, &[]).0, Some(0));
    assert_eq!(status(&judge, closed(), closed()), Some(0));
    assert_eq!(status(&judge, full_disk(), full_disk()), Some(0));
    let never_run = home.path().join("new");
    fs::create_dir(&never_run).unwrap();
    let config = fs::read_to_string(home.path().join("n1/mainstay.toml")).unwrap();
    let path = never_run.join("mainstay.toml");
    fs::write(&path, config).unwrap();
    let bootstrap = ["bootstrap", "--config", path.to_str().unwrap()];
    assert_eq!(status(&bootstrap, closed(), closed()), Some(0));
    assert!(never_run.join("bootstrap").exists());
    assert_eq!(status(&["demo", "link"], closed(), closed()), Some(0));
}
