//! The traces of nodes, whole and damaged by hand, judged by the program.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Running, Up, check, is_alive, mainstay, signal, turn, until};
use serde_json::Value;

/// A run of three nodes with some writes, ended in good order; where its traces are.
fn record(home: &Path) -> PathBuf {
    let traces = home.join("trace");
    let options = ["--trace", traces.to_str().unwrap()];
    let up = Up::start_with(&home.join("cluster"), &options);
    for number in 0..20 {
        up.nodes[number % 3].answers(&format!("SET k{number} 1\r\n"), "+OK\r\n");
    }
    signal(up.nodes[2].pid, "KILL");
    until("it is gone", || up.status()[0]["members"].as_array().map(Vec::len) == Some(2));
    let (mut again, _) = up.restart_with("n3", &options);
    until("all are members", || up.whole());
    up.nodes[1].answers("SET last 1\r\n", "+OK\r\n");
    until("all have it", || up.whole());
    again.ask_to_stop();
    assert_eq!(up.running.terminate(), Some(0));
    assert_eq!(again.exit_status(), Some(0));
    traces
}

/// What a file may have, in blocks of 512 bytes, where a limit stands for a full disk.
const BLOCKS: u32 = 2_048;

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// Copies the traces, with the lines of one file changed.
fn damaged(
    home: &Path,
    traces: &Path,
    file: &str,
    change: impl FnOnce(&mut Vec<String>),
) -> PathBuf {
    let copy = tempfile::tempdir_in(home).unwrap().keep();
    for entry in fs::read_dir(traces).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let path = copy.join(file);
    let mut all = lines(&path);
    change(&mut all);
    fs::write(&path, all.join("\n") + "\n").unwrap();
    copy
}

/// The numbers of the lines of a kind.
fn of(lines: &[String], kind: &str) -> Vec<usize> {
    let is = |line: &String| {
        let line: Value = serde_json::from_str(line).unwrap();
        line.get(kind).is_some()
    };
    (0..lines.len()).filter(|index| is(&lines[*index])).collect()
}

/// Changes the event in a line.
fn edit(line: &mut String, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let mut all: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
    change(all.values_mut().next().unwrap().as_object_mut().unwrap());
    *line = Value::Object(all).to_string();
}

/// Checks that the trace of a real run passes, killed node and all, and that damage done to it by hand is noticed as what
/// it is: MC-2, MC-3, MC-10, MC-21, MB-1, MB-30.
#[test]
fn a_recorded_run_passes_and_damage_to_it_is_noticed() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let traces = record(home);
    let (status, said) = check(&traces, &["--settled"]);
    assert_eq!((status, said.lines().last()), (Some(0), Some("verdict: PASS")), "{said}");
    assert!(said.contains(" 1 of them without their end") && said.contains("MC-3 ok"));
    let (status, said) = check(&traces, &["--output", "json"]);
    let value: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!((status, &value["verdict"]), (Some(0), &"PASS".into()));
    assert_eq!(value["properties"].as_array().unwrap().len(), 14);
    assert!(said.contains("not judged"), "{said}");

    let fails = |property: &str, traces: PathBuf| {
        let (status, said) = check(&traces, &["--settled"]);
        assert_eq!((status, said.lines().last()), (Some(1), Some("verdict: FAIL")), "{said}");
        assert!(said.contains(&format!("\n{property} FAIL: ")), "{property}: {said}");
    };
    let delivered = |lines: &[String]| of(lines, "delivered");
    // Two deliveries in the wrong order; under their own numbers, so that no line is out of place.
    fails(
        "MC-10",
        damaged(home, &traces, "n1-1.jsonl", |lines| {
            let at = delivered(lines);
            let (one, two) = (lines[at[3]].clone(), lines[at[4]].clone());
            let n =
                |line: &str| serde_json::from_str::<Value>(line).unwrap()["delivered"]["n"].clone();
            (lines[at[3]], lines[at[4]]) = (two.clone(), one.clone());
            edit(&mut lines[at[3]], |event| event["n"] = n(&one));
            edit(&mut lines[at[4]], |event| event["n"] = n(&two));
        }),
    );
    // A delivery that did not happen.
    fails(
        "MC-3",
        damaged(home, &traces, "n2-1.jsonl", |lines| {
            let last = *delivered(lines).last().unwrap();
            lines.remove(last);
        }),
    );
    // An acknowledged message that is not in the next cut.
    fails(
        "MC-21",
        damaged(home, &traces, "n1-1.jsonl", |lines| {
            let last = *of(lines, "group_view").last().unwrap();
            edit(&mut lines[last], |event| event["position"] = 0.into());
        }),
    );
    // Out of nothing: the traces of the nodes that live are whole.
    fails(
        "MC-2",
        damaged(home, &traces, "n2-1.jsonl", |lines| {
            let first = of(lines, "cast")[0];
            lines.remove(first);
        }),
    );
    // Another view under the same number.
    fails(
        "MB-1",
        damaged(home, &traces, "n2-1.jsonl", |lines| {
            let last = *of(lines, "view").last().unwrap();
            edit(&mut lines[last], |event| event["view"] = "3:1".into());
        }),
    );
    // A view that was passed over.
    fails(
        "MB-1",
        damaged(home, &traces, "n2-1.jsonl", |lines| {
            let views = of(lines, "view");
            lines.remove(views[1]);
        }),
    );
    fails(
        "MB-30",
        damaged(home, &traces, "n2-1.jsonl", |lines| {
            let last = *of(lines, "view").last().unwrap();
            edit(&mut lines[last], |event| event["roster"].as_array_mut().unwrap().truncate(2));
        }),
    );
    fails(
        "TRACE",
        damaged(home, &traces, "n2-1.jsonl", |lines| {
            let last = delivered(lines)[2];
            lines.insert(last, lines[last].clone());
        }),
    );
}

/// Checks what a torn end, a missing node and damaged files are taken for.
#[test]
fn torn_ends_are_fine_and_other_damage_is_named() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let traces = record(home);
    // As a killed process leaves it: the last line torn.
    let torn = damaged(home, &traces, "n1-1.jsonl", |_| {});
    let text = fs::read_to_string(torn.join("n1-1.jsonl")).unwrap();
    fs::write(torn.join("n1-1.jsonl"), &text[..text.len() / 2]).unwrap();
    fs::write(torn.join("n1-2.jsonl"), "").unwrap();
    let (status, said) = check(&torn, &["--settled"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("2 of them without their end"), "{said}");
    fs::remove_file(torn.join("n2-1.jsonl")).unwrap();
    let (status, said) = check(&torn, &[]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("note: there is no trace of n2"), "{said}");

    let is_damaged = |change: fn(&mut Vec<String>), why: &str| {
        let (status, said) = check(&damaged(home, &traces, "n2-1.jsonl", change), &[]);
        assert_eq!(status, Some(4), "{said}");
        assert!(said.contains("n2-1.jsonl:") && said.contains(why), "{why}: {said}");
    };
    is_damaged(|lines| lines[3].truncate(20), "EOF");
    is_damaged(|lines| lines[0] = lines[0].replace("\"version\":1", "\"version\":2"), "version 2");
    is_damaged(|lines| drop(lines.remove(0)), "not a trace");
    is_damaged(|lines| drop(lines.remove(1)), "an event of no boot");
    is_damaged(|lines| lines.push(lines[2].clone()), "something follows the end");
    is_damaged(|lines| lines[2] = lines[2].replace("\"n1/1\"", "\"n9/1\""), "no node n9");
    is_damaged(|lines| lines[2] = "x".repeat(2 << 20), "too long");

    let usage = |traces: &[&str]| mainstay(&[&["check"], traces].concat()).status.code();
    assert_eq!(usage(&[]), Some(2));
    assert_eq!(usage(&["/nowhere"]), Some(2));
    assert_eq!(usage(&[home.join("cluster").to_str().unwrap()]), Some(2), "no trace is there");
    let foreign = damaged(home, &traces, "n2-1.jsonl", |lines| {
        let first = lines[0].find("\"cluster\":\"").unwrap() + "\"cluster\":\"".len();
        lines[0].replace_range(first..first + 8, "00000000");
    });
    assert_eq!(usage(&[foreign.to_str().unwrap()]), Some(2), "of two clusters");
}

/// Checks that a place that cannot be written to is refused at the start, and that a disk that is full later ends the trace
/// and not the node.
#[cfg(unix)]
#[test]
fn a_trace_that_cannot_be_written_stops_no_running_node() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let traces = home.path().join("trace");
    // In memory, so that the log stays small.
    let up = Up::start_with(&home.path().join("cluster"), &["--durability", "memory"]);
    signal(up.nodes[2].pid, "KILL");
    until("it has ended", || !is_alive(up.nodes[2].pid));
    let config = up.config("n3");
    for wrong in [config.as_str(), "/proc/nowhere"] {
        let mut refused = Running::start(&["node", "--config", &config, "--trace", wrong]);
        assert_eq!(refused.exit_status(), Some(2), "{wrong}");
    }
    let options = ["--trace", traces.to_str().unwrap()];
    let mut full = up.restart_limited("n3", BLOCKS, &options);
    until("all are members", || up.all_serve());
    let file = traces.join("n3-1.jsonl");
    until("the file is as large as it can be", || {
        up.nodes[0].ask(&"INCR n\r\n".repeat(256));
        fs::metadata(&file).unwrap().len() == u64::from(BLOCKS) * 512
    });
    assert_eq!(full.ended(), None);
    up.nodes[0].answers("SET a 1\r\n", "+OK\r\n");
    until("it has all of it", || up.whole());
    full.ask_to_stop();
    assert_eq!(full.exit_status(), Some(0));
    let said = full.errors();
    assert!(said.contains("the trace ends here; the node goes on"), "{said}");
    let (status, said) = check(&traces, &[]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(up.running.terminate(), Some(0));
}
