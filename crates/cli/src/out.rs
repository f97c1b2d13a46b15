//! What the program prints. Maybe nobody can read it: a closed pipe or a full disk costs the words and nothing else.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long words wait for somebody who does not read.
const PATIENCE: Duration = Duration::from_millis(200);

/// Prints a line to standard output, as `println!` does, but never fails.
macro_rules! say {
    ($($words:tt)*) => { $crate::out::print(format_args!($($words)*)) };
}

/// Prints a line to standard error, as `eprintln!` does, but never fails, and does not wait for somebody who does not read.
macro_rules! tell {
    ($($words:tt)*) => { $crate::out::print_error(format!($($words)*)) };
}

pub(crate) use {say, tell};

pub(crate) fn print(words: fmt::Arguments<'_>) {
    // There is nobody to tell.
    let _ = writeln!(io::stdout(), "{words}");
}

/// Prints a line that somebody waits for, unless its reader does not read.
pub(crate) fn announce(words: String) {
    within_patience(move || {
        let mut out = io::stdout();
        let _ = writeln!(out, "{words}").and_then(|()| out.flush());
    });
}

pub(crate) fn print_error(words: String) {
    within_patience(move || {
        // In one piece: the lines of other processes go to the same place.
        let _ = io::stderr().write_all(format!("{words}\n").as_bytes());
    });
}

/// Does it on a thread of its own, since it may never come to an end, and waits for that a moment only.
fn within_patience(write: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel::<()>();
    let writing = thread::Builder::new().spawn(move || {
        write();
        drop(done);
    });
    if writing.is_ok() {
        // Done, or too late: the one is as good as the other.
        let _ = is_done.recv_timeout(PATIENCE);
    }
}
