//! Processes are killed, stopped and restarted by their roles while clients write and read; what the clients were told
//! is judged: nothing acknowledged is lost, and one order explains all answers.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::load::{Load, Talk, the_judge_notices};
use common::{Running, Up, check, signal, turn, until};
use mainstay_directory::resp::Reply;

/// A cluster of three under load.
struct Scene {
    up: Up,
    load: Load,
    /// What the nodes recorded.
    traces: PathBuf,
    /// Started by hand in place of killed ones.
    again: Vec<Running>,
}

impl Scene {
    fn begin(home: &Path) -> Self {
        let traces = home.join("trace");
        let up = Up::start_with(home, &["--trace", traces.to_str().unwrap()]);
        let load = Load::start(up.nodes.iter().map(|node| node.resp.clone()).collect());
        load.goes_on();
        Self { up, load, traces, again: Vec::new() }
    }

    fn kill(&mut self, node: usize) {
        signal(self.up.nodes[node].pid, "KILL");
    }

    fn restart(&mut self, node: usize) {
        let options = ["--trace", self.traces.to_str().unwrap()];
        let (running, again) = self.up.restart_with(&self.up.nodes[node].name, &options);
        self.up.nodes[node] = again;
        self.again.push(running);
    }

    /// Waits until all are members again and answer.
    fn heal(&self) {
        until("all are members", || self.up.all_serve());
        self.load.goes_on();
    }

    /// The number of the node that bears a role, as the others see it.
    fn role(&self, role: impl Fn(&serde_json::Value) -> Option<&str>) -> usize {
        let mut found = None;
        until("the role is known", || {
            let reports = self.up.status();
            let serving = reports.iter().find(|report| report["reachable"] == true);
            let name = serving.and_then(|report| role(report).map(str::to_owned));
            found = self.up.nodes.iter().position(|node| Some(&node.name) == name.as_ref());
            found.is_some()
        });
        found.unwrap()
    }

    fn sequencer(&self) -> usize {
        self.role(|report| report["sequencers"]["state"].as_str())
    }

    fn manager(&self) -> usize {
        self.role(|report| report["manager"].as_str())
    }

    /// The sequencer is chosen by a hash of the cluster, the manager by age: if one node is both, it comes back as the
    /// youngest. On a busy machine others may have been declared dead meanwhile, and be younger still.
    fn part_roles(&mut self) -> (usize, usize) {
        for _ in 0..5 {
            let (manager, sequencer) = (self.manager(), self.sequencer());
            if manager != sequencer {
                return (manager, sequencer);
            }
            self.kill(sequencer);
            self.load.goes_on();
            self.restart(sequencer);
            self.heal();
        }
        panic!("one node is always manager and sequencer");
    }

    /// Kills it under load; the others go on, and it comes back.
    fn kill_and_restart(mut self, node: usize) {
        self.kill(node);
        self.load.goes_on();
        self.restart(node);
        self.heal();
        self.end();
    }

    fn end(self) {
        self.load.end();
        until("all states are equal", || self.up.whole());
        for mut running in self.again.into_iter().chain([self.up.running]) {
            // One that was killed has ended, and so has a parent of which all children were.
            if running.ended().is_none() {
                assert_eq!(running.terminate(), Some(0));
            }
        }
        let (status, said) = check(&self.traces, &["--settled"]);
        assert_eq!(status, Some(0), "{said}");
    }
}

/// Checks that the judge of the tests below can find against a history.
#[test]
fn lost_stale_and_doubled_commands_are_noticed() {
    the_judge_notices();
}

/// Checks MB-9, MC-16 and PD-31 with processes: the sequencer is killed.
#[test]
fn the_sequencer_is_killed() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(home.path());
    let (_, sequencer) = scene.part_roles();
    scene.kill_and_restart(sequencer);
}

/// Checks MB-9, MC-16 and PD-31 with processes: the manager of the views is killed, and it is not the sequencer.
#[test]
fn the_manager_is_killed() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(home.path());
    let (manager, _) = scene.part_roles();
    scene.kill_and_restart(manager);
}

/// Checks MB-9, MC-16 and PD-31 with processes: a member is killed that is neither.
#[test]
fn a_plain_member_is_killed() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(home.path());
    let (manager, sequencer) = scene.part_roles();
    let plain = (0..3).find(|node| ![manager, sequencer].contains(node)).unwrap();
    scene.kill_and_restart(plain);
}

/// Checks MC-16 and PD-35 with processes: a joiner is killed after the view that admits it and before it has the state.
#[test]
fn a_joiner_is_killed_in_the_middle_of_its_transfer() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(home.path());
    // Enough for the transfer to take a while. On a busy machine the members may lose each other: it is sent again.
    let value = vec![b'v'; 512 << 10];
    for number in 0..100 {
        let key = format!("large{number}");
        until("it is written", || {
            let talk = Talk::with(&scene.up.nodes[0].resp);
            let reply = talk.and_then(|mut it| it.command(&[b"SET", key.as_bytes(), &value]));
            reply.is_ok_and(|reply| reply == Reply::Simple("OK".into()))
        });
    }
    scene.kill(2);
    scene.load.goes_on();
    let data = home.path().join("n3/data");
    until("its directory is free", || fs::remove_dir_all(&data).is_ok());
    scene.restart(2);
    let admin = scene.up.nodes[2].admin.clone();
    until("it is a member without a state", || {
        let report = common::report(&admin);
        // Once it had the state this would never hold again.
        report.is_some_and(|it| it["incarnation"].is_number() && it["state_hash"].is_null())
    });
    scene.kill(2);
    scene.load.goes_on();
    scene.restart(2);
    scene.heal();
    scene.end();
}

/// Checks MB-14 with processes: one that stood still beyond the timeout was declared dead, does no harm when it goes on,
/// and comes back by itself.
#[test]
fn one_stands_still_and_goes_on() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let scene = Scene::begin(home.path());
    let node = scene.sequencer();
    let admin = scene.up.nodes[node].admin.clone();
    let before = common::report(&admin).unwrap()["incarnation"].as_u64();
    signal(scene.up.nodes[node].pid, "STOP");
    scene.load.goes_on();
    signal(scene.up.nodes[node].pid, "CONT");
    scene.heal();
    assert!(common::report(&admin).unwrap()["incarnation"].as_u64() > before);
    scene.end();
}

/// Checks view-synchrony §6 with processes: all are killed at once, and what was acknowledged is there after the restart.
#[test]
fn all_are_killed_under_load() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(home.path());
    (0..3).for_each(|node| scene.kill(node));
    assert_eq!(scene.up.running.exit_status(), Some(3), "up never restarts a node");
    (0..3).for_each(|node| scene.restart(node));
    scene.heal();
    scene.end();
}

/// Checks that a node whose directory is lost is no founder, gets the state from the others, and that nothing
/// acknowledged depended on it alone.
#[test]
fn a_data_directory_is_lost() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(home.path());
    let node = scene.sequencer();
    scene.kill(node);
    let data = home.path().join(&scene.up.nodes[node].name).join("data");
    until("its directory is free", || fs::remove_dir_all(&data).is_ok());
    scene.load.goes_on();
    scene.restart(node);
    scene.heal();
    scene.end();
}

/// Checks that writes and reads are refused without a majority, that READONLY reads go on, and that READWRITE ends that.
#[test]
fn a_minority_serves_local_reads_only() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    up.nodes[0].answers("SET a 1\r\n", "+OK\r\n");
    up.nodes[2].answers("GET a\r\n", "$1\r\n1\r\n");
    signal(up.nodes[0].pid, "KILL");
    signal(up.nodes[1].pid, "KILL");
    let mut talk = Talk::with(&up.nodes[2].resp).unwrap();
    let mut ask = |words: &[&[u8]]| talk.command(words).unwrap();
    let refused =
        |reply: &Reply| matches!(reply, Reply::Error(text) if text.starts_with("CLUSTERDOWN"));
    until("it knows that it is alone", || {
        common::report(&up.nodes[2].admin)
            .is_some_and(|it| it["alarms"].to_string().contains("minority"))
    });
    assert!(refused(&ask(&[b"SET", b"a", b"2"])));
    assert!(refused(&ask(&[b"GET", b"a"])));
    assert_eq!(ask(&[b"READONLY"]), Reply::Simple("OK".into()));
    assert_eq!(ask(&[b"GET", b"a"]), Reply::Bulk(Some("1".into())));
    assert!(refused(&ask(&[b"SET", b"a", b"2"])));
    assert_eq!(ask(&[b"READWRITE"]), Reply::Simple("OK".into()));
    assert!(refused(&ask(&[b"GET", b"a"])));
    let status = common::mainstay(&["status", "--dir", home.path().to_str().unwrap()]);
    assert_eq!(status.status.code(), Some(3), "no quorum");
}

/// Checks that a node that cannot write its log any more ends with status 70 and names the place and the reason, that
/// the others go on, and that nothing acknowledged is lost when there is room again.
#[cfg(unix)]
#[test]
fn a_disk_is_full() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(home.path());
    scene.kill(1);
    scene.load.goes_on();
    // A limit on the size of files, in blocks of 512 bytes, stands for the full disk: writes fail beyond it.
    let mut full = scene.up.restart_limited("n2", 2_048, &[]);
    let value = vec![b'v'; 100 << 10];
    let mut ended = None;
    until("it ends", || {
        // Whether it is executed does not matter here; that the others go on is seen by the load.
        let talk = Talk::with(&scene.up.nodes[0].resp);
        let _ = talk.and_then(|mut it| it.command(&[b"SET", b"large", &value]));
        ended = full.ended();
        ended.is_some()
    });
    assert_eq!(ended.unwrap(), Some(70));
    let said = full.errors();
    let last = said.lines().last().unwrap();
    assert!(last.contains("n2/data") && last.contains("File too large"), "{said}");
    // In the log and as the last line. It is no fault of the program: no panic is told, and no backtrace.
    assert_eq!(said.matches("File too large").count(), 2, "{said}");
    assert!(!said.contains("panicked") && !said.contains("backtrace::"), "{said}");
    scene.load.goes_on();
    scene.restart(1);
    scene.heal();
    scene.end();
}
