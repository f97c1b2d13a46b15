//! What the program says to its operator: lines on standard error.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;

use crate::failure::Failure;

/// From which level on something is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Nothing is.
    Off,
    /// What needs an operator.
    Error,
    /// What should not happen, and is coped with.
    #[default]
    Warn,
    /// What happens seldom.
    Info,
    /// What happens with each connection.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// As it is written in a configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }

    /// Writes to standard error from here on, once in a process. What is queued is written when the guard is dropped, unless
    /// nobody reads it. Panics go the same way.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn begin(self) -> Result<Guard, Failure> {
        let lines = Lines::start(io::stderr()).map_err(Failure::halted)?;
        let writer = lines.clone();
        tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .log_internal_errors(false)
            .with_max_level(self.filter())
            .try_init()
            .map_err(Failure::halted)?;
        let hook = lines.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = thread::current();
            let trace = Backtrace::capture();
            let mut text = format!("thread {:?} {panic}\n", thread.name().unwrap_or("unnamed"));
            if trace.status() == BacktraceStatus::Captured {
                text = format!("{text}{trace}\n");
            }
            hook.put(text.into_bytes());
        }));
        Ok(Guard(lines))
    }
}

/// Lines that wait to be written; one more is dropped.
const LINES_MAX: usize = 1_024;
/// Longest line; the rest is cut off. A panic with its backtrace fits.
const LINE_MAX: usize = 32 << 10;
/// How long the last lines may take.
const PATIENCE: Duration = Duration::from_millis(200);

enum Order {
    Write(Vec<u8>),
    Tell(SyncSender<()>),
}

/// The way to standard error: a thread of its own writes there, since whoever should read it may not. What cannot be written,
/// or waits for too long, is dropped and counted.
#[derive(Clone)]
pub(crate) struct Lines {
    queue: SyncSender<Order>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    fn start(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, orders) = mpsc::sync_channel(LINES_MAX);
        let dropped = Arc::<AtomicU64>::default();
        let lost = Arc::clone(&dropped);
        thread::Builder::new().name("log".into()).spawn(move || {
            let mut torn = false;
            for order in orders {
                match order {
                    Order::Write(line) => {
                        let begun = if torn { out.write_all(b"\n") } else { Ok(()) };
                        let written = begun.and_then(|()| out.write_all(&line));
                        // Maybe a part of it is there.
                        torn = written.is_err();
                        lost.fetch_add(u64::from(torn), Ordering::Relaxed);
                    }
                    // It may have gone.
                    Order::Tell(done) => drop(done.try_send(())),
                }
            }
        })?;
        Ok(Self { queue, dropped })
    }

    /// Queues a line, which has its end. Never waits.
    fn put(&self, mut line: Vec<u8>) {
        if line.len() > LINE_MAX {
            line.truncate(LINE_MAX);
            line.push(b'\n');
        }
        if self.queue.try_send(Order::Write(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines were not written.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all is written that was put; not for long.
    pub(crate) fn finish(&self) {
        let (done, is_done) = mpsc::sync_channel(1);
        if self.queue.try_send(Order::Tell(done)).is_ok() {
            let _ = is_done.recv_timeout(PATIENCE);
        }
    }
}

/// One event a write; so does `tracing_subscriber`.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has the last lines written when it is dropped.
pub(crate) struct Guard(Lines);

impl Guard {
    pub(crate) fn lines(&self) -> &Lines {
        &self.0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.finish();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    /// A place that takes nothing until it is allowed to, and then all, but for what it must not.
    struct Slow(mpsc::Receiver<io::Result<()>>, mpsc::Sender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.recv().unwrap_or(Ok(()))?;
            // The test may have ended.
            drop(self.1.send(line.to_vec()));
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Checks that nobody waits for a reader that does not read, that what finds no room or fails is counted, and that what
    /// follows a torn line begins a new one.
    #[test]
    fn what_cannot_be_written_is_dropped_and_counted() {
        let (allow, allowed) = mpsc::channel();
        let (written, seen) = mpsc::channel();
        let lines = Lines::start(Slow(allowed, written)).unwrap();
        let count = LINES_MAX as u64 + 10;
        (0..count).for_each(|number| lines.put(format!("{number}\n").into_bytes()));
        // One may be out of the queue, in the writer's hands.
        let dropped = lines.dropped();
        assert!((9..=10).contains(&dropped), "{dropped}");
        allow.send(Err(io::ErrorKind::WouldBlock.into())).unwrap();
        drop(allow);
        let mut text: Vec<Vec<u8>> = vec![seen.recv().unwrap()];
        while text.last().unwrap() != format!("{}\n", count - dropped - 1).as_bytes() {
            text.push(seen.recv().unwrap());
        }
        assert_eq!(text[..2], [b"\n".to_vec(), b"1\n".to_vec()]);
        lines.put(b"last\n".to_vec());
        lines.finish();
        assert_eq!(seen.recv().unwrap(), b"last\n");
        assert_eq!(lines.dropped(), dropped + 1);
    }
}
