//! The program as a user runs it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::fs;

use common::{Up, check, mainstay, turn};

/// Runs it to its PASS; what it said.
fn passes(arguments: &[&str]) -> String {
    let _turn = turn();
    let run = mainstay(arguments);
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{arguments:?}: {said}");
    assert_eq!(said.lines().last(), Some("verdict: PASS"));
    said
}

/// Checks MB-9, MC-16 and PD-31: real processes under load, the sequencer killed and restarted, then all; and that the
/// timeline and the trace tell of it.
#[test]
fn the_demo_passes() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("kept");
    let said = passes(&["demo", "--dir", dir.to_str().unwrap()]);
    for words in [
        "properties: 14 checked on",
        "writes acknowledged",
        "latency p99",
        "longest gap, all killed",
        "|  view 2: ",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let trace = fs::read_to_string(dir.join("trace.jsonl")).unwrap();
    let events: Vec<serde_json::Value> =
        trace.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |event: &str| events.iter().filter(|it| it["event"] == event).count();
    assert_eq!((count("started"), count("killed")), (7, 4));
    assert!(count("view") >= 9 && count("incr") > 0);
    let acknowledged = events.iter().filter(|it| it["event"] == "set" && it["outcome"] == "OK");
    assert!(acknowledged.count() > 1_000);
    // What the nodes recorded is kept beside it: seven processes, of which four were killed.
    let (status, said) = check(&dir.join("trace"), &["--settled"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains(" 4 of them without their end"), "{said}");
    // What is kept is a cluster like any other.
    let up = Up::start(&dir);
    assert_eq!(up.running.terminate(), Some(0));
}

/// Checks MB-9 and MC-16 without disks, and that a script of one's own is taken as a client would type it.
#[test]
fn the_demo_of_five_in_memory_passes() {
    let home = tempfile::tempdir().unwrap();
    let input = home.path().join("input");
    fs::write(&input, "SET k \"a value\"\n\nincr n\nset 'k 2' 2\n").unwrap();
    let dir = home.path().join("kept");
    let [input, dir] = [&input, &dir].map(|path| path.to_str().unwrap());
    let said = passes(&[
        "demo",
        "directory",
        "--nodes",
        "5",
        "--durability",
        "memory",
        "--output",
        "json",
        "--input",
        input,
        "--dir",
        dir,
    ]);
    let numbers: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!((&numbers["keys"], &numbers["verdict"]), (&3.into(), &"PASS".into()));
    assert!(numbers["views_seen"].as_array().unwrap().len() >= 3, "{numbers}");
}

/// Checks MB-25, MB-27: real processes, connections cut in the middle of frames, one process killed and restarted.
#[test]
fn the_demo_of_the_link_passes() {
    for seed in ["1", "2", "3"] {
        passes(&["demo", "link", "--seed", seed, "--cuts", "4"]);
    }
}

#[test]
fn wrong_usage_ends_with_status_2() {
    for arguments in [
        &["demo", "--seed", "x"][..],
        &["demo", "--nodes", "4"],
        &["demo", "--input", "/nowhere"],
        &["node", "--config", "/nowhere"],
        &["status", "--dir", "/nowhere"],
        &["no-such-command"],
        &[],
    ] {
        assert_eq!(mainstay(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

/// Each algorithm, with five processes of which one has a fault that does something to it; and what was seen is drawn.
#[test]
fn the_demo_of_clocks_passes_with_each_algorithm() {
    const ALGORITHMS: [&str; 13] = [
        "midpoint",
        "average",
        "cnv",
        "fast",
        "com",
        "csm",
        "srikanth-toueg",
        "srikanth-toueg-signed",
        "halpern",
        "cristian",
        "marzullo",
        "hardware",
        "external",
    ];
    let home = tempfile::tempdir().unwrap();
    let _turn = turn();
    let shows = |algorithm: &str| {
        let plot = home.path().join(algorithm);
        let path = plot.to_str().unwrap();
        let run = mainstay(&[
            "demo",
            "clock",
            "--plot",
            path,
            "--algorithm",
            algorithm,
            "--seconds",
            "4",
        ]);
        let said = String::from_utf8(run.stdout).unwrap();
        let errors = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{algorithm}: {said}{errors}");
        assert_eq!(said.lines().last(), Some("verdict: PASS"));
        // A fault of what is said is one of words that others wait for.
        let lies = said.lines().find(|line| line.contains(" words were "));
        let is_lie = !["midpoint", "average", "fast", "csm", "halpern", "marzullo", "external"]
            .contains(&algorithm);
        assert_eq!(lies.is_some(), is_lie, "{said}");
        // Offset, bound and version of each node.
        let row = said.lines().nth(4).unwrap();
        assert_eq!((row.matches('±').count(), row.matches(" v").count()), (5, 5), "{said}");
        let svg = fs::read_to_string(plot).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 2, "skew and bound");
    };
    // Most of the time they wait.
    std::thread::scope(|scope| {
        for lane in 0..4 {
            let shows = &shows;
            scope.spawn(move || ALGORITHMS.iter().skip(lane).step_by(4).for_each(|it| shows(it)));
        }
    });
}

/// A master that says the wrong time is followed, and what nobody listens to does nothing: those are no faults that the algorithms withstand.
#[test]
fn the_demo_of_clocks_fails_where_theory_promises_nothing() {
    for (algorithm, wrong) in
        [("cristian", "race"), ("external", "two-faced"), ("external", "silent")]
    {
        let run = mainstay(&["demo", "clock", "--algorithm", algorithm, "--wrong", wrong]);
        let said = String::from_utf8(run.stdout).unwrap();
        assert_eq!(run.status.code(), Some(1), "{said}");
        let why = format!("verdict: FAIL: {algorithm} does not withstand this fault: {wrong}");
        assert_eq!(said.lines().last(), Some(&*why));
    }
}
