//! The program against its own server in another process.

use std::process::Command;

/// Checks that bytes come back, one call at a time and 64 at once, and that only the cases of these names are measured.
#[test]
fn calls_are_answered_by_the_other_process() {
    let (program, dir) = (env!("CARGO_BIN_EXE_peer-tarpc"), env!("CARGO_TARGET_TMPDIR"));
    peers_common::try_echo(program, dir).unwrap();
}

/// Checks that what fails in the processes of its cases fails the program, and that each case is tried.
#[test]
fn a_failure_of_a_case_is_one_of_the_program() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_peer-tarpc"));
    let done = program.args(["rpc/echo/64B", "--dir", "/proc/none"]).output().unwrap();
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(said.matches("no directory for data").count(), 2, "{said}");
}
