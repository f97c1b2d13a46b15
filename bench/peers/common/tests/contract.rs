//! The contract of the programs, on the one that needs nothing installed.

use std::process::{Command, Output};

fn machine(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peer-machine"));
    command.args(["--dir", env!("CARGO_TARGET_TMPDIR")]).args(arguments);
    command
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Checks that `--list` prints the names of the cases, one a line, and measures nothing.
#[test]
fn the_cases_are_listed() {
    let done = machine(&["--list"]).output().unwrap();
    assert!(done.status.success());
    assert_eq!(lines(&done), ["machine/cores", "machine/fdatasync/4KiB", "machine/tcp/64B"]);
}

/// Checks that only the cases with the prefix are measured, and that each figure is a line.
#[test]
fn a_prefix_chooses_the_cases() {
    let done = machine(&["machine/c", "machine/tcp", "--seconds=1"]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let lines = lines(&done);
    let begins = |index: usize, case: &str, metric: &str| {
        let begin = format!(
            "{{\"bench\":\"machine\",\"case\":\"{case}\",\"metric\":\"{metric}\",\"value\":null,"
        );
        assert!(lines[index].starts_with(&begin), "{lines:?}");
    };
    assert_eq!(lines.len(), 3);
    begins(0, "machine/cores", "cores");
    begins(1, "machine/tcp/64B", "p50_us");
    begins(2, "machine/tcp/64B", "p99_us");
}

/// Checks that a missing program is named on one line and has a status of its own.
#[test]
fn what_is_not_installed_has_its_own_status() {
    let done = machine(&[]).env("PATH", "/nowhere").output().unwrap();
    assert_eq!(done.status.code(), Some(3));
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(said, "peer-machine: setpriv is missing: package util-linux\n");
    assert_eq!(lines(&done), [""; 0]);
}

/// Checks that a directory that cannot be made is a failure, and not one of what is installed.
#[test]
fn no_directory_is_a_failure() {
    let done = machine(&["--dir", "/proc/none"]).output().unwrap();
    assert_eq!(done.status.code(), Some(2), "given twice: {done:?}");
    let mut machine = Command::new(env!("CARGO_BIN_EXE_peer-machine"));
    let done = machine.args(["--dir", "/proc/none"]).output().unwrap();
    assert_eq!(done.status.code(), Some(1), "{done:?}");
}
