//! Second processes under the names of nodes that live.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::load::Talk;
use common::{Node, Running, Up, is_alive, signal, turn, until};
use mainstay_directory::resp::Reply;

/// How long a second process may run.
const BOUND: Duration = Duration::from_secs(15);

/// A second process under the name of a node of `up`: in another directory, a copy of the first one's if it is to be
/// `copied`, and at another address.
fn second(up: &Up, home: &Path, name: &str, copied: bool) -> (Running, Node) {
    let dir = home.join(format!("second-{name}"));
    fs::create_dir(&dir).unwrap();
    let config = fs::read_to_string(up.config(name)).unwrap();
    let config = config.replace("listen = \"127.0.0.1:", "listen = \"127.0.0.2:");
    let path = dir.join("mainstay.toml");
    fs::write(&path, config).unwrap();
    if copied {
        fs::create_dir(dir.join("data")).unwrap();
        for file in fs::read_dir(home.join(name).join("data")).unwrap() {
            let file = file.unwrap().path();
            if file.is_file() {
                fs::copy(&file, dir.join("data").join(file.file_name().unwrap())).unwrap();
            }
        }
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.args(["node", "--config", path.to_str().unwrap()]);
    command.args(["--resp", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).stderr(Stdio::piped());
    let running = Running::of(command);
    let node = Node::read(&running.line());
    (running, node)
}

/// One client of each node, which no command may fail and which says how long it waited at most.
fn calm_client(node: String, stop: Arc<AtomicBool>) -> thread::JoinHandle<Duration> {
    thread::spawn(move || {
        let mut talk = Talk::with(&node).unwrap();
        let mut longest = Duration::ZERO;
        while !stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let reply = talk.command(&[b"INCR", b"n"]).unwrap();
            assert!(matches!(reply, Reply::Integer(_)), "{reply:?}");
            longest = longest.max(asked.elapsed());
            thread::park_timeout(Duration::from_millis(5));
        }
        longest
    })
}

/// Checks that a second process under the name of a living node ends with status 2, says why, and is noticed by nobody: the
/// views stay, and no client of the first one is refused. One for each node, so that each stands at either side of a dial;
/// with a directory of its own, or with a copy of that of the first.
#[test]
fn a_second_process_is_refused() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    up.nodes[0].answers("SET a 1\r\n", "+OK\r\n");
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> =
        up.nodes.iter().map(|node| calm_client(node.resp.clone(), Arc::clone(&stop))).collect();
    let views = || -> Vec<_> {
        let reports = up.status().into_iter();
        reports.map(|it| (it["view"].clone(), it["incarnation"].clone())).collect()
    };
    let before = views();
    let began = Instant::now();
    let names = [("n1", false), ("n2", true), ("n3", false)];
    let mut seconds = names.map(|(name, copied)| second(&up, home.path(), name, copied));
    for ((running, _), (name, _)) in seconds.iter_mut().zip(names) {
        assert_eq!(running.exit_status(), Some(2), "{name}");
        println!("{name} ended after {:?}", began.elapsed());
        let said = running.errors();
        let wanted = format!(
            "second-{name}/mainstay.toml: another process under the name {name} is alive: "
        );
        let others = names.iter().filter(|(other, _)| *other != name);
        assert!(said.contains(&wanted), "{said}");
        for (other, _) in others {
            assert!(said.contains(other), "{said}");
        }
    }
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        println!("a client waited {:?} at most", client.join().unwrap());
    }
    assert_eq!(views(), before);
    for report in up.status() {
        assert!(report["refused"]["name-taken"].as_u64() > Some(0), "{report}");
    }
    assert_eq!(up.running.terminate(), Some(0));
}

/// Checks that a process takes its place when the first one under its name does not speak any more, though its connections
/// stand; and that the first one, when it goes on, is the second and ends.
#[test]
fn the_place_of_one_that_stands_still_is_taken() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    up.nodes[0].answers("SET a 1\r\n", "+OK\r\n");
    signal(up.nodes[1].pid, "STOP");
    let (running, node) = second(&up, home.path(), "n2", false);
    let member = || common::report(&node.admin).is_some_and(|it| it["incarnation"].is_number());
    until("it is a member", member);
    node.answers("GET a\r\n", "$1\r\n1\r\n");
    signal(up.nodes[1].pid, "CONT");
    until("the first one has ended", || !is_alive(up.nodes[1].pid));
    assert!(member());
    node.answers("INCR n\r\n", ":1\r\n");
    assert_eq!(running.terminate(), Some(0));
    assert_eq!(up.running.terminate(), Some(0));
}
