//! Nodes that cannot go on by themselves: they wait, and say for what.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::{Node, Running, Up, mainstay, report, turn, until};

/// Longer than any time after which a node may end by itself. It is the node that says how long it has waited.
const LONG: u64 = 12;

/// How long the node says that it has waited for votes, and what it says.
fn waited(node: &Node) -> Option<(u64, String)> {
    let report = report(&node.admin)?;
    let alarms = report["alarms"].as_array()?;
    let alarm = alarms.iter().find_map(|it| it.as_str()?.strip_prefix("minority: "))?;
    let seconds = alarm.strip_prefix("it has waited ")?.split(' ').next()?.parse().ok()?;
    Some((seconds, alarm.to_owned()))
}

/// Checks that a node that starts alone says at once that it waits, and for whom; that it waits for as long as it takes; and
/// that the cluster goes on with what was acknowledged as soon as another one is there.
#[test]
fn a_node_that_starts_alone_waits_for_a_quorum() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    up.nodes[0].answers("SET a 1\r\n", "+OK\r\n");
    let Up { running, dir, .. } = up;
    assert_eq!(running.terminate(), Some(0));
    let start = |name: &str| {
        let config = dir.join(name).join("mainstay.toml");
        let running = Running::start(&["node", "--config", config.to_str().unwrap()]);
        let node = Node::read(&running.line());
        (running, node)
    };
    let (mut alone, n3) = start("n3");
    let (_, alarm) = waited(&n3).expect("the first answer says it");
    assert!(alarm.ends_with("for the votes of 2 nodes; missing: n1 n2 (unheard)"), "{alarm}");
    until("it has waited for long", || {
        assert_eq!(alone.ended(), None);
        waited(&n3).is_some_and(|(seconds, _)| seconds >= LONG)
    });
    let (other, n1) = start("n1");
    n1.answers("GET a\r\n", "$1\r\n1\r\n");
    until("nobody waits", || waited(&n3).is_none() && waited(&n1).is_none());
    assert_eq!(alone.terminate(), Some(0));
    assert_eq!(other.terminate(), Some(0));
}

/// Checks that a cluster that cannot be ready, since the data of two nodes is lost, is left running by `up`, which says what
/// each node waits for.
#[test]
fn a_cluster_that_cannot_be_ready_is_left_running() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    up.nodes[0].answers("SET a 1\r\n", "+OK\r\n");
    assert_eq!(up.running.terminate(), Some(0));
    for name in ["n2", "n3"] {
        fs::remove_dir_all(home.path().join(name).join("data")).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.args(["up", "directory", "--dir", home.path().to_str().unwrap()]);
    let mut running = Running::of({
        command.stderr(Stdio::piped());
        command
    });
    let mut nodes: Vec<Node> = (0..3).map(|_| Node::read(&running.line())).collect();
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    until("all have waited for long", || {
        assert_eq!(running.ended(), None);
        nodes.iter().all(|node| waited(node).is_some_and(|(seconds, _)| seconds >= LONG))
    });
    let (_, alarm) = waited(&nodes[0]).unwrap();
    assert!(alarm.ends_with("missing: n2 n3 (heard, but without data)"), "{alarm}");
    let status = mainstay(&["status", "--dir", home.path().to_str().unwrap()]);
    assert_eq!(status.status.code(), Some(3));
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("alarm: minority: it has waited"), "{status}");
    let accepted = mainstay(&["accept-loss", "--dir", home.path().to_str().unwrap(), "state"]);
    let accepted = String::from_utf8(accepted.stdout).unwrap();
    assert!(accepted.contains("none follows while too few votes"), "{accepted}");
    running.ask_to_stop();
    assert_eq!(running.exit_status(), Some(0));
    let said = running.errors();
    assert!(said.contains("not ready yet and left running: n1: minority: "), "{said}");
}
