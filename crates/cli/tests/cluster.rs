//! Clusters of processes that are killed, stopped and restarted.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Stdio;
use std::thread;

use common::{Node, PATIENCE, Running, Up, http, is_alive, mainstay, signal, turn, until};
use mainstay_base::{BootId, BootNonce, ClusterId, Frame, NodeId};
use mainstay_link::message::{Hello, Message as LinkMessage};

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

/// Checks that a pipeline of more than the nodes have room for is slowed down and executed, and nothing of it refused; from
/// many clients at once, too.
#[test]
fn a_burst_of_writes_is_not_refused() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    let burst = |client: usize, count: usize, size: usize| {
        let value = "x".repeat(size);
        let commands: String =
            (0..count).map(|number| format!("SET {client}:{number} {value}\r\n")).collect();
        let mut stream = TcpStream::connect(&up.nodes[0].resp).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut writing = stream.try_clone().unwrap();
        let writer = thread::spawn(move || writing.write_all(commands.as_bytes()).unwrap());
        let mut answers = vec![0; count * "+OK\r\n".len()];
        stream.read_exact(&mut answers).unwrap();
        assert_eq!(String::from_utf8(answers).unwrap(), "+OK\r\n".repeat(count));
        writer.join().unwrap();
    };
    burst(0, 2_000, 16 << 10);
    thread::scope(|scope| {
        for client in 1..=60 {
            scope.spawn(move || burst(client, 100, 4 << 10));
        }
    });
    up.nodes[1].answers("DBSIZE\r\n", ":8000\r\n");
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
    until("no node runs", || nodes.iter().all(|node| !is_alive(node.pid)));
    let dir = home.path().to_str().unwrap();
    assert_eq!(mainstay(&["status", "--dir", dir]).status.code(), Some(3));
}

/// What a stranger says at the peer port, and under which reason it is counted there.
fn strange_bytes() -> Vec<(Vec<u8>, &'static str)> {
    let frame = |meta: Vec<u8>| Frame { meta: meta.into(), ..Frame::default() }.encode().to_vec();
    let cluster = ClusterId::from_entropy(1);
    let boot = BootId { node: NodeId::new(cluster, "n9"), nonce: BootNonce(1) };
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        cluster,
        from: boot,
        to: boot.node,
        roster_version: 1,
        expectation: None,
    };
    let hello = LinkMessage::Hello(hello).frame(0).encode().to_vec();
    let mut oversized = hello.clone();
    oversized[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut flipped = hello.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut version = hello.clone();
    version[4] = 9;
    vec![
        (b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n            ".to_vec(), "garbage-magic"),
        (version, "garbage-version"),
        (oversized, "garbage-too-large"),
        (flipped, "garbage-checksum"),
        (hello[..hello.len() - 1].to_vec(), "truncated"),
        (frame(vec![0x91; 60_000]), "malformed"),
        (frame(vec![0xdd, 0xff, 0xff, 0xff, 0xff]), "malformed"),
        (LinkMessage::Ack { received: 7 }.frame(0).encode().to_vec(), "early"),
        (hello, "hello-cluster"),
        (Vec::new(), "silent"),
    ]
}

/// Checks R14 with processes: whatever a stranger sends to the peer port, or does not send, costs him his connection and
/// is counted by its reason in the status, for programs and for people; the views do not change and the node serves.
#[test]
fn strange_bytes_are_counted_and_disturb_nobody() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    let config: toml::Table = fs::read_to_string(up.config("n1")).unwrap().parse().unwrap();
    let peers = config["listen"].as_str().unwrap();
    let views = || up.status().into_iter().map(|mut node| node["view"].take()).collect::<Vec<_>>();
    let count = |name: &str| {
        common::report(&up.nodes[0].admin).and_then(|it| it["refused"][name].as_u64()).unwrap_or(0)
    };
    let before = views();
    for (bytes, name) in strange_bytes() {
        let counted = count(name);
        let mut stream = TcpStream::connect(peers).unwrap();
        stream.write_all(&bytes).unwrap();
        if !bytes.is_empty() {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        until(name, || count(name) > counted);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Its end, by a reset or not: the connection is closed.
        assert!(matches!(stream.read(&mut [0; 256]), Ok(_) | Err(_)));
        up.nodes[0].answers("SET a 1\r\n", "+OK\r\n");
    }
    let answer = up.nodes[0].ask("*1\r\n$-5\r\n");
    assert!(answer.starts_with("-ERR Protocol error"), "{answer}");
    until("resp", || count("resp") == 1);
    let answer = up.nodes[0].ask("POST / HTTP/1.1\r\nHost: n1\r\n\r\nSET pwned 1\r\n");
    assert_eq!(answer, "");
    until("resp-http", || count("resp-http") == 1);
    up.nodes[0].answers("EXISTS pwned\r\n", ":0\r\n");
    let said = mainstay(&["status", "--dir", home.path().to_str().unwrap()]).stdout;
    let said = String::from_utf8(said).unwrap();
    let lines: Vec<_> = said.lines().filter(|line| line.contains("refused: ")).collect();
    assert!(lines.len() == 1 && lines[0].contains("garbage-too-large 1"), "{said}");
    assert_eq!(views(), before);
    assert!(up.whole());
    assert_eq!(up.running.terminate(), Some(0));
}

/// Checks that a node takes no commands as lines of words if its configuration says so.
#[test]
fn inline_commands_are_off_where_the_configuration_says_so() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    signal(up.nodes[0].pid, "TERM");
    until("n1 has ended", || !is_alive(up.nodes[0].pid));
    let config = fs::read_to_string(up.config("n1")).unwrap();
    fs::write(up.config("n1"), format!("inline = \"off\"\n{config}")).unwrap();
    let (running, node) = up.restart("n1");
    let answer = node.ask("PING\r\n");
    assert_eq!(answer, "-ERR Protocol error: inline commands are switched off\r\n");
    // It ends with a QUIT that is one there, too.
    assert_eq!(node.ask("*1\r\n$4\r\nPING\r\n*1\r\n$4\r\n"), "+PONG\r\n+OK\r\n");
    up.nodes[1].answers("PING\r\n", "+PONG\r\n");
    assert_eq!(running.terminate(), Some(0));
    assert_eq!(up.running.terminate(), Some(0));
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

/// Checks that garbage of every kind is told of by INFO, and that a stranger's protocol error costs nobody else.
#[test]
fn garbage_of_clients_is_counted() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    let answer = up.nodes[0].ask("*1\r\n$-5\r\n");
    assert!(answer.starts_with("-ERR Protocol error"), "{answer}");
    assert!(up.nodes[0].ask("INFO\r\n").contains("protocol_errors:1\r\n"));
    assert_eq!(up.running.terminate(), Some(0));
}

/// Checks that two clusters made at the same moment do not take each other's ports.
#[test]
fn two_clusters_are_made_at_once() {
    let _turn = turn();
    let homes: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let start = |home: &tempfile::TempDir| {
        let path = home.path().to_owned();
        thread::spawn(move || Up::start(&path))
    };
    let starting: Vec<_> = homes.iter().map(start).collect();
    let ups: Vec<_> = starting.into_iter().map(|up| up.join().unwrap()).collect();
    for (number, up) in ups.iter().enumerate() {
        up.nodes[0].answers(&format!("SET k {number}\r\n"), "+OK\r\n");
    }
    for (number, up) in ups.into_iter().enumerate() {
        up.nodes[1].answers("GET k\r\n", &format!("$1\r\n{number}\r\n"));
        assert_eq!(up.running.terminate(), Some(0));
    }
}

/// Checks the keys of the status, of a node that answers and of one that does not.
#[test]
fn the_status_has_its_keys() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    up.nodes[0].answers("SET a 1\r\n", "+OK\r\n");
    signal(up.nodes[2].pid, "KILL");
    until("one is gone", || up.status()[0]["members"].as_array().map(Vec::len) == Some(2));
    let keys = [
        "node",
        "reachable",
        "incarnation",
        "view",
        "roster",
        "members",
        "manager",
        "sequencers",
        "delivered",
        "durable",
        "state_hash",
        "told_view",
        "alarms",
        "refused",
        "log_dropped",
        "suspected",
    ];
    for node in up.status() {
        for key in keys {
            assert!(node.get(key).is_some(), "{key}: {node}");
        }
    }
    let status = &up.status()[0];
    assert_eq!((&status["reachable"], &status["incarnation"]), (&true.into(), &1.into()));
    // The other one may have removed it before this one suspected it.
    let all = up.status();
    let suspected = all.iter().find_map(|node| node["suspected"].get(0)).unwrap();
    assert!(suspected["node"] == "n3" && suspected["ago_ms"].is_u64(), "{suspected}");
    assert!(["silent", "refused"].map(Into::into).contains(&suspected["why"]), "{suspected}");
    assert_eq!(status["roster"].as_array().map(Vec::len), Some(3));
    assert!(status["durable"].as_u64() >= Some(1) && status["sequencers"]["state"].is_string());
    assert_eq!(up.running.terminate(), Some(0));
}

/// Checks what an operator says: what changes nothing is refused, what cannot be heard has its status, and a page in a
/// browser cannot say it.
#[test]
fn an_operator_is_heard() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().to_str().unwrap();
    let up = Up::start(home.path());
    up.nodes[0].answers("SET a 1\r\n", "+OK\r\n");
    let status = |arguments: &[&str]| mainstay(arguments).status.code();
    assert_eq!(status(&["skip", "--dir", dir, "state", "1"]), Some(2), "nothing is poisoned");
    assert_eq!(status(&["skip", "--dir", dir, "other", "1"]), Some(2));
    assert_eq!(status(&["accept-loss", "--dir", dir, "other"]), Some(2));
    let refused = mainstay(&["accept-loss", "--dir", dir, "state"]);
    assert_eq!(refused.status.code(), Some(2), "nothing is lost");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("there is nothing to accept"), "{said}");
    assert_eq!(status(&["bootstrap", "--config", &up.config("n1")]), Some(2), "it has lived");
    for (head, code) in [
        ("POST /accept-loss HTTP/1.0\r\n\r\n", "403"),
        (
            "POST /accept-loss HTTP/1.1\r\nHost: evil.example\r\nX-Mainstay-Operator: 1\r\n\r\n",
            "403",
        ),
        ("OPTIONS /accept-loss HTTP/1.1\r\n\r\n", "404"),
        ("POST /accept-loss HTTP/1.0\r\nX-Mainstay-Operator: 1\r\n\r\n", "409"),
    ] {
        let answer = http(&up.nodes[0].admin, head, PATIENCE).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.0 {code} ")), "{head}: {answer}");
    }
    up.nodes[1].answers("GET a\r\n", "$1\r\n1\r\n");
    let metrics = http(&up.nodes[1].admin, "GET /metrics HTTP/1.0\r\n\r\n", PATIENCE).unwrap();
    let value = |name: &str| {
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("{name} in {metrics}"))
    };
    assert!(value("mainstay_turn_longest_seconds ") > 0.0);
    assert!(value("mainstay_turns_slow_total ") >= 0.0);
    assert_eq!(value("mainstay_alarm{kind=\"minority\"} "), 0.0);
    assert!(value("mainstay_view ") >= 1.0 && value("mainstay_members ") == 3.0);
    assert_eq!(up.running.terminate(), Some(0));
    assert_eq!(status(&["skip", "--dir", dir, "state", "1"]), Some(3), "nobody is there");
    assert_eq!(status(&["accept-loss", "--dir", dir, "state"]), Some(3));
}

/// Checks that nodes whose configurations were written by hand make a cluster when all are here, and two of them only if they are
/// said to be its founders; and that the environment is above the file, and flags above it.
#[test]
fn a_cluster_is_made_by_hand() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    // `up` writes configurations; the rest is as if they were written by hand.
    assert_eq!(Up::start(home.path()).running.terminate(), Some(0));
    let config = |name: &str| home.path().join(name).join("mainstay.toml");
    for name in ["n1", "n2", "n3"] {
        fs::remove_dir_all(home.path().join(name).join("data")).unwrap();
    }
    let start = |name: &str| {
        let path = config(name);
        let running = Running::start(&["node", "--config", path.to_str().unwrap()]);
        let node = Node::read(&running.line());
        (running, node)
    };
    let strangers = ["n1", "n2"].map(start);
    for (_, node) in &strangers {
        let report = common::report(&node.admin).unwrap();
        assert_eq!(
            (&report["reachable"], report["members"].as_array().map(Vec::len)),
            (&false.into(), Some(0))
        );
        until("the alarm says who is not here", || {
            let report = common::report(&node.admin).unwrap();
            report["alarms"].to_string().contains("here: n3 not heard")
        });
    }
    // With the third all are here, and make the cluster.
    let third = start("n3");
    strangers[0].1.answers("SET a 1\r\n", "+OK\r\n");
    third.1.answers("GET a\r\n", "$1\r\n1\r\n");
    for (name, (running, _)) in
        ["n1", "n2", "n3"].into_iter().zip(strangers.into_iter().chain([third]))
    {
        assert_eq!(running.terminate(), Some(0));
        fs::remove_dir_all(home.path().join(name).join("data")).unwrap();
    }
    // A majority that is told to does not wait for the third.
    for name in ["n1", "n2"] {
        let said = mainstay(&["bootstrap", "--config", config(name).to_str().unwrap()]);
        assert_eq!(said.status.code(), Some(0), "{said:?}");
    }
    let two = ["n1", "n2"].map(start);
    two[0].1.answers("SET a 2\r\n", "+OK\r\n");
    let third = start("n3");
    third.1.answers("GET a\r\n", "$1\r\n2\r\n");
    for (running, _) in two.into_iter().chain([third]) {
        assert_eq!(running.terminate(), Some(0));
    }
    let refused = |flags: &[&str], wanted: &str| {
        let path = config("n1");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mainstay"));
        command.args(["node", "--config", path.to_str().unwrap()]).args(flags);
        command.env("MAINSTAY__RESP", "192.0.2.1:7");
        let run = command.output().unwrap();
        let said = String::from_utf8(run.stderr).unwrap();
        assert!(run.status.code() == Some(2) && said.contains(wanted), "{wanted}: {said}");
    };
    refused(&[], "MAINSTAY__RESP: 192.0.2.1:7 is not loopback");
    refused(&["--resp", "192.0.2.2:7"], "--resp: 192.0.2.2:7 is not loopback");
    refused(&["--resp", "127.0.0.1:0", "--log", "loud"], "loud");
}

/// Checks that of two processes that start under one name at the same moment one ends and says so, that the other serves,
/// and that nothing acknowledged is lost.
#[test]
fn two_nodes_have_one_name() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    up.nodes[0].answers("SET a 1\r\n", "+OK\r\n");
    signal(up.nodes[0].pid, "KILL");
    until("it has ended", || !is_alive(up.nodes[0].pid));
    up.nodes[1].answers("SET a 1\r\n", "+OK\r\n");
    let first = up.config("n1");
    let second = home.path().join("twin/mainstay.toml").to_str().unwrap().to_owned();
    fs::create_dir(home.path().join("twin")).unwrap();
    let config = fs::read_to_string(&first).unwrap();
    fs::write(&second, config.replace("listen = \"127.0.0.1:", "listen = \"127.0.0.2:")).unwrap();
    let mut twins = [&first, &second].map(|path| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mainstay"));
        command.args(["node", "--config", path, "--resp", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.stderr(Stdio::piped());
        Running::of(command)
    });
    let nodes = [0, 1].map(|twin: usize| Node::read(&twins[twin].line()));
    let mut ended = None;
    until("one of them ends", || {
        ended = twins.iter_mut().position(|twin| twin.ended().is_some());
        ended.is_some()
    });
    let ended = ended.unwrap();
    assert_eq!(twins[ended].exit_status(), Some(2));
    let said = twins[ended].errors();
    let wanted = "another process under the name n1 is alive: ";
    assert!(said.contains(wanted) && said.contains([&first, &second][ended]), "{said}");
    nodes[1 - ended].answers("GET a\r\n", "$1\r\n1\r\n");
    // The others go on.
    up.nodes[1].answers("GET a\r\n", "$1\r\n1\r\n");
    up.nodes[2].answers("INCR a\r\n", ":2\r\n");
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
        (
            good.replace("[peers]", "[peers]\nn8 = \"127.0.0.1:1\"\nn9 = \"127.0.0.1:1\""),
            "one address",
        ),
    ] {
        fs::write(&foreign, text).unwrap();
        let arguments = with(&foreign);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        refused(&arguments, why);
        refused(&arguments, &foreign);
    }
    // Two nodes with one name, and with one directory.
    fs::write(
        &foreign,
        good.replace("\"data\"", "\"../n1/data\"")
            .replace("listen = \"127.0.0.1:", "listen = \"127.0.0.2:"),
    )
    .unwrap();
    let arguments = with(&foreign);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    refused(&arguments, "n4/../n1/data");
    refused(&arguments, "in use");
    // A directory that is none.
    fs::write(other.join("data"), "").unwrap();
    fs::write(&foreign, good.replace("listen = \"127.0.0.1:", "listen = \"127.0.0.2:")).unwrap();
    refused(&arguments, "n4/data");
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
