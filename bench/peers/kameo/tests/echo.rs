//! The program against its own server in another process.

/// Checks that bytes come back, one call at a time and 64 at once, and that only the cases of these names are measured.
#[test]
fn calls_are_answered_by_the_other_process() {
    let (program, dir) = (env!("CARGO_BIN_EXE_peer-kameo"), env!("CARGO_TARGET_TMPDIR"));
    peers_common::try_echo(program, dir).unwrap();
}
