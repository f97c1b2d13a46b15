//! Clusters of processes that are killed, stopped and restarted.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;

use common::{Running, Up, mainstay, signal, turn, until};

/// Checks that what was acknowledged outlives the end of all processes (view-synchrony §6), clean or not.
#[test]
fn all_are_killed_and_restarted() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    up.nodes[2].answers("SET a 1\r\n", "+OK\r\n");
    for node in &up.nodes {
        signal(node.pid, "KILL");
    }
    // It never restarts a node: when none is left it ends.
    let mut running = up.running;
    assert_eq!(running.exit_status(), Some(3));
    let up = Up::start(home.path());
    up.nodes[0].answers("GET a\r\n", "$1\r\n1\r\n");
    up.nodes[1].answers("INCR n\r\n", ":1\r\n");
    assert_eq!(up.running.terminate(), Some(0));
    let up = Up::start(home.path());
    up.nodes[2].answers("MGET a n\r\n", "*2\r\n$1\r\n1\r\n$1\r\n1\r\n");
    assert_eq!(up.running.terminate(), Some(0));
}

/// Checks that nodes end with the process that started them, and leave their directories free.
#[test]
fn nodes_end_with_their_parent() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let Up { running, nodes, .. } = Up::start(home.path());
    nodes[0].answers("SET a 1\r\n", "+OK\r\n");
    running.kill();
    until("no node listens", || nodes.iter().all(|node| TcpStream::connect(&node.resp).is_err()));
    let dir = home.path().to_str().unwrap();
    assert_eq!(mainstay(&["status", "--dir", dir]).status.code(), Some(3));
}

/// Checks that garbage at the client port, the peer port and the admin port harms nobody.
#[test]
fn garbage_leaves_the_nodes_alive() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    let config = fs::read_to_string(up.config("n1")).unwrap();
    let config: toml::Table = config.parse().unwrap();
    for key in ["resp", "listen", "admin"] {
        for seed in 0..8_u32 {
            let mut bytes: Vec<u8> = (0..4_096_u32)
                .map(|at| (at.wrapping_add(seed).wrapping_mul(0x9e37_79b9) >> 13) as u8)
                .collect();
            bytes[0] = b"*$\x00\xffG\r-:"[seed as usize];
            let mut stream = TcpStream::connect(config[key].as_str().unwrap()).unwrap();
            // It may close on us: that is its right.
            let _ = stream.write_all(&bytes);
        }
    }
    up.nodes[0].answers("SET a 1\r\n", "+OK\r\n");
    until("all are members", || up.whole());
    assert_eq!(up.running.terminate(), Some(0));
}

/// Checks that bad input ends with status 2 and is named with its place.
#[test]
fn bad_input_is_named() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    let path = up.config("n1");
    let good = fs::read_to_string(&path).unwrap();
    let refused = |arguments: &[&str], why: &str| {
        let mut running = Running::start(arguments);
        assert_eq!(running.exit_status(), Some(2), "{why}");
        let said = String::from_utf8(mainstay(arguments).stderr).unwrap();
        assert!(said.contains(why), "{why}: {said}");
    };
    // A port in use: the node itself runs.
    refused(&["node", "--config", &path], "resp: cannot listen at 127.0.0.1:");
    // The directory of another node.
    let other = home.path().join("n4");
    fs::create_dir(&other).unwrap();
    let free = ["--resp", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let with = |path: &str| -> Vec<String> {
        ["node", "--config", path].iter().chain(&free).map(|word| (*word).to_owned()).collect()
    };
    let foreign = other.join("mainstay.toml").to_str().unwrap().to_owned();
    for (text, why) in [
        (good.replace("[peers]", "[peers]\nn1 = \"127.0.0.1:1\""), "itself"),
        (good.replace("[peers]", "colour = \"red\"\n[peers]"), "colour"),
        (good.replace("disk", "paper"), "paper"),
    ] {
        fs::write(&foreign, text).unwrap();
        let arguments = with(&foreign);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        refused(&arguments, why);
        refused(&arguments, &foreign);
    }
    assert_eq!(up.running.terminate(), Some(0));
    fs::write(&path, good.replace("\"data\"", "\"../n2/data\"")).unwrap();
    refused(&["node", "--config", &path], "belongs to node \"n2\"");
}

/// Checks that damaged data is not served from: status 4, and the place.
#[test]
fn damaged_data_is_named() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    let path = up.config("n1");
    assert_eq!(up.running.terminate(), Some(0));
    let identity = home.path().join("n1/data/cell-identity");
    fs::write(&identity, vec![0x5a; fs::read(&identity).unwrap().len()]).unwrap();
    let run = mainstay(&["node", "--config", &path]);
    assert_eq!(run.status.code(), Some(4));
    assert!(String::from_utf8(run.stderr).unwrap().contains("n1/data: "));
}
