//! The program as a user runs it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::process::{Command, Output};

fn mainstay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mainstay")).args(arguments).output().unwrap()
}

/// Checks MB-25, MB-27: real processes, connections cut in the middle of frames, one process killed and restarted.
#[test]
fn the_demo_passes() {
    for seed in ["1", "2", "3"] {
        let run = mainstay(&["demo", "--seed", seed, "--cuts", "4"]);
        let said = String::from_utf8(run.stdout).unwrap();
        assert!(run.status.success(), "seed {seed}: {said}");
        assert_eq!(said.lines().last(), Some("verdict: PASS"));
    }
}

#[test]
fn wrong_usage_ends_with_status_2() {
    for arguments in [&["demo", "--seed", "x"][..], &["no-such-command"], &[]] {
        assert_eq!(mainstay(arguments).status.code(), Some(2));
    }
}
