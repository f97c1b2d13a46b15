//! The program as a user runs it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use common::{mainstay, turn};

fn passes(arguments: &[&str]) {
    let _turn = turn();
    let run = mainstay(arguments);
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{arguments:?}: {said}");
    assert_eq!(said.lines().last(), Some("verdict: PASS"));
}

/// Checks MB-9, MC-16 and PD-31: real processes under load, the sequencer killed and restarted, then all.
#[test]
fn the_demo_passes() {
    passes(&["demo"]);
}

/// Checks MB-9 and MC-16 without disks.
#[test]
fn the_demo_of_five_in_memory_passes() {
    passes(&["demo", "directory", "--nodes", "5", "--durability", "memory", "--output", "json"]);
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
