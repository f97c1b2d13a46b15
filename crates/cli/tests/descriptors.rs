//! Nodes that may have few files open, and clients that take what they can get.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::load::Talk;
use common::{Node, Running, Up, turn, until};
use mainstay_directory::resp::Reply;

/// A node that may have so many files open.
fn limited(dir: &Path, name: &str, files: u32) -> Running {
    let config = dir.join(name).join("mainstay.toml");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {files}; exec \"$@\""), "sh"]);
    command.args([env!("CARGO_BIN_EXE_mainstay"), "node", "--config", config.to_str().unwrap()]);
    command.stderr(Stdio::piped());
    Running::of(command)
}

fn segments(dir: &Path, name: &str) -> usize {
    let files = fs::read_dir(dir.join(name).join("data")).unwrap();
    let is_segment = |name: &str| name.starts_with("log-");
    files.filter(|it| is_segment(it.as_ref().unwrap().file_name().to_str().unwrap())).count()
}

/// Checks that clients, operators and strangers who take all the connections that they get leave the log what it needs for
/// its next segments, and that those who came first are served.
#[test]
fn connections_leave_the_log_its_files() {
    const FILES: u32 = 128;
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    assert_eq!(up.running.terminate(), Some(0));
    let names = ["n1", "n2", "n3"];
    let mut nodes = names.map(|name| limited(home.path(), name, FILES));
    let told = [0, 1, 2].map(|node: usize| Node::read(&nodes[node].line()));
    told[0].answers("SET a 1\r\n", "+OK\r\n");
    let mut talk = Talk::with(&told[0].resp).unwrap();
    let mut held = Vec::new();
    for (node, name) in told.iter().zip(names) {
        let config = fs::read_to_string(home.path().join(name).join("mainstay.toml")).unwrap();
        let listen = config.lines().find_map(|line| line.strip_prefix("listen = ")).unwrap();
        for address in [&*node.resp, &*node.admin, listen.trim_matches('"')] {
            for _ in 0..FILES {
                // One that is not accepted waits in the system, until there is no room there either.
                let address = address.parse().unwrap();
                let stream = TcpStream::connect_timeout(&address, Duration::from_millis(200));
                held.extend(stream);
            }
        }
    }
    let before = names.map(|name| segments(home.path(), name));
    let value = vec![b'v'; 256 << 10];
    let mut number = 0;
    until("each log has gone on to a next segment", || {
        number += 1;
        let reply = talk.command(&[b"SET", format!("k{}", number % 8).as_bytes(), &value]).unwrap();
        assert_eq!(reply, Reply::Simple("OK".into()));
        let now = names.map(|name| segments(home.path(), name));
        now.iter().zip(before).all(|(now, before)| *now > before)
    });
    drop(held);
    for (running, node) in nodes.iter_mut().zip(&told) {
        node.answers("GET a\r\n", "$1\r\n1\r\n");
        assert_eq!(running.ended(), None);
    }
    for node in nodes {
        assert_eq!(node.terminate(), Some(0));
    }
}

/// Checks that a node that may have too few files open does not start, and says how many it needs.
#[test]
fn too_few_files_are_refused_at_the_start() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    assert_eq!(up.running.terminate(), Some(0));
    let mut node = limited(home.path(), "n1", 40);
    assert_eq!(node.exit_status(), Some(5));
    let said = node.errors();
    let wanted = "40 files may be open at once (ulimit -n), and a node with 2 peers needs ";
    assert!(said.contains(wanted), "{said}");
    let needed = said.split(wanted).nth(1).unwrap().trim().parse().unwrap();
    let node = limited(home.path(), "n1", needed);
    node.line();
    assert_eq!(node.terminate(), Some(0));
}
