//! The program against its own server in another process.

use std::process::Command;

/// Checks that bytes come back, one call at a time and 64 at once, and that only the cases of these names are measured.
#[test]
fn calls_are_answered_by_the_other_process() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_peer-ractor"));
    program.args(["--exact", "rpc/echo/64B", "rpc/echo/16KiB/64inflight", "--seconds=1"]);
    let done = program.args(["--dir", env!("CARGO_TARGET_TMPDIR")]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let printed = String::from_utf8_lossy(&done.stdout);
    let metrics = ["p50_us", "p99_us", "calls_per_s", "p50_us", "p99_us"];
    assert_eq!(printed.lines().count(), metrics.len(), "{printed}");
    for (line, metric) in printed.lines().zip(metrics) {
        assert!(line.contains(&format!("\"metric\":\"{metric}\"")), "{line}");
        assert!(!line.contains("\"peer_value\":0.0"), "{line}");
    }
}
