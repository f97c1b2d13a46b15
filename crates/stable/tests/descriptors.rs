//! A process that has used up its descriptors.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::fs::File;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_stable::{FileMedium, Log, Medium as _, Options, Owner};

/// Set in the process that has few.
const FEW: &str = "FEW_DESCRIPTORS";

/// Checks that a log goes on to its next segments, and reads, when all descriptors of the process are used up, and takes
/// its spare ones again when there are some.
#[test]
fn a_log_goes_on_when_the_descriptors_are_used_up() {
    if std::env::var_os(FEW).is_some() {
        return use_them_up();
    }
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "a_log_goes_on_when_the_descriptors_are_used_up"]).env(FEW, "1");
    let run = command.output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
}

fn use_them_up() {
    let home = tempfile::tempdir().unwrap();
    let medium = Arc::new(FileMedium::open(home.path()).unwrap());
    let options = Options { segment_bytes: 1 << 10, ..Options::new(Owner([7; 16])) };
    let (mut log, _) = Log::open(medium.clone(), options).unwrap();
    for round in 0..2 {
        let mut held = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            held.push(file);
        }
        assert!(held.len() > 10, "{}", held.len());
        // One force into one next segment, and a reading.
        for _ in 0..2 {
            log.append(1, Bytes::from(vec![round; 600])).unwrap();
            log.force().unwrap();
        }
        let names = medium.list().unwrap();
        assert!(names.len() > 1 && medium.len(&names[0]).is_ok());
        drop(held);
        // The next file that is opened takes them again.
        log.append(1, Bytes::from(vec![round; 600])).unwrap();
        log.force().unwrap();
    }
}
