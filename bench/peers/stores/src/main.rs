//! Measures stores that a program embeds: `peer-stores [CASE-PREFIX..] [--exact] [--list] [--seconds N] [--dir DIR]`.
//!
//! Threads that each commit one value of 100 bytes after the other under 10,000 keys, durable when the call returns. All
//! threads share one store, the settings are the defaults but for those that make it durable. `raw-append` writes pages
//! of 4 KiB to a file a thread and forces them, which is what the disk can do at most; `raw-append-filled` does so where
//! the file has been written already, so that its size does not change.

mod stores;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use peers_common::{Case, Measured, Program, Run, Samples};

/// How many keys are written in turn by all threads together.
const KEYS: u64 = 10_000;
const VALUE: [u8; 100] = [b'v'; 100];

/// Commits a value under this key, and returns when it is durable.
type Commit = Box<dyn FnMut(u64) -> io::Result<()> + Send>;
/// Opens a store in a directory for so many threads: what each of them calls.
type Open = fn(&Path, usize) -> io::Result<Vec<Commit>>;

const PEERS: [(&str, &str, Open); 5] = [
    ("fjall", "log forced before the answer (SyncAll), checksummed", stores::fjall),
    ("redb", "transaction forced before the answer (Immediate), checksummed", stores::redb),
    (
        "sqlite",
        "transaction forced before the answer (WAL, synchronous FULL), checksummed log",
        stores::sqlite,
    ),
    ("raw-append", "page forced before the answer, growing file, no checksum", stores::growing),
    (
        "raw-append-filled",
        "page forced before the answer, written file, no checksum",
        stores::filled,
    ),
];

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for (name, threads) in [("stable/commit/1thread", 1), ("stable/commit/16threads", 16)] {
        for (peer, guarantee, open) in PEERS {
            let measure = move |run: &Run| measure(run, open, threads);
            cases.push(Case::new("stable", name, peer, guarantee, measure));
        }
    }
    Program { name: "peer-stores", check: || Ok(()), cases }.main()
}

fn measure(run: &Run, open: Open, threads: usize) -> io::Result<Vec<Measured>> {
    let commits = open(run.dir(), threads)?;
    let from = Instant::now() + run.warm_up;
    let until = from + run.window;
    let times = thread::scope(|scope| {
        let load = |(thread, commit)| move || load(commit, thread, threads as u64, from, until);
        let running: Vec<_> = (0..).zip(commits).map(|each| scope.spawn(load(each))).collect();
        let mut times = Vec::new();
        for thread in running {
            times.extend(thread.join().map_err(|_| io::Error::other("a thread panicked"))??);
        }
        Ok::<_, io::Error>(times)
    })?;
    Ok(Samples { times, window: run.window }.measured("commits_per_s"))
}

/// How long each commit took that ended in the window.
fn load(
    mut commit: Commit,
    thread: u64,
    threads: u64,
    from: Instant,
    until: Instant,
) -> io::Result<Vec<Duration>> {
    let mut times = Vec::new();
    let mut key = thread;
    let mut begun = Instant::now();
    while begun < until {
        commit(key % KEYS)?;
        key += threads;
        let now = Instant::now();
        if (from..until).contains(&now) {
            times.push(now - begun);
        }
        begun = now;
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that every store takes commits of several threads, each in a directory of its own.
    #[test]
    fn every_store_takes_commits_of_several_threads() {
        let dir = std::env::temp_dir();
        let window = Duration::from_millis(50);
        for (peer, _, open) in PEERS {
            let run = Run::new(Duration::ZERO, window, &dir).unwrap();
            let figures = measure(&run, open, 3).unwrap();
            assert!(figures.iter().all(|it| it.value > 0.0), "{peer}: {figures:?}");
        }
    }
}
