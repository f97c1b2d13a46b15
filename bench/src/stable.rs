//! Durable commits: 100 bytes are appended and forced, then the next ones.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstay_runtime::{IoId, LogOptions, LogWriter, StableLog, Store as _};
use mainstay_stable::{FileMedium, Log, Options, Owner};
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};

use crate::node::Place;
use crate::output::{Measured, Report, percentile};

const RECORD: &[u8] = &[b'r'; 100];
const KIND: u8 = 1;
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURE: Duration = Duration::from_secs(3);

/// Measures all cases, each with a log of its own.
pub(crate) fn run(place: &Place, report: &mut Report) -> io::Result<()> {
    type Body = fn(Log) -> io::Result<Vec<Duration>>;
    let cases: [(&str, Body); 5] = [
        ("stable/commit/1thread", |log| one_thread(log)),
        ("stable/commit/16threads", |log| threads(log, 16)),
        ("stable/commit/writer/1task", |log| tasks(log, 1)),
        ("stable/commit/writer/16tasks", |log| tasks(log, 16)),
        ("stable/commit/writer/64tasks", |log| tasks(log, 64)),
    ];
    for (name, body) in cases {
        report.case("stable", name, || {
            let home = place.new_dir()?;
            let mut samples = body(open(&home.path().join("log"))?)?;
            samples.sort_unstable();
            Ok(vec![
                Measured::rate("commits_per_s", samples.len() as u64, MEASURE),
                Measured::micros("p50_us", percentile(&samples, 50)),
                Measured::micros("p99_us", percentile(&samples, 99)),
            ])
        });
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<Log> {
    let medium = Arc::new(FileMedium::open(path).map_err(io::Error::other)?);
    Ok(Log::open(medium, Options::new(Owner([7; 16]))).map_err(io::Error::other)?.0)
}

/// What is measured begins after the warm-up.
struct Window {
    from: Instant,
    samples: Vec<Duration>,
}

impl Window {
    fn new() -> Self {
        Self { from: Instant::now() + WARM_UP, samples: Vec::new() }
    }

    fn is_open(&self) -> bool {
        Instant::now() < self.from + MEASURE
    }

    fn done(&mut self, begun: Instant) {
        let now = Instant::now();
        if now >= self.from && now < self.from + MEASURE {
            self.samples.push(now - begun);
        }
    }
}

/// The log itself, called by the thread that has it.
fn one_thread(mut log: Log) -> io::Result<Vec<Duration>> {
    let mut window = Window::new();
    while window.is_open() {
        let begun = Instant::now();
        log.append(KIND, Bytes::from_static(RECORD)).map_err(io::Error::other)?;
        log.force().map_err(io::Error::other)?;
        window.done(begun);
    }
    Ok(window.samples)
}

/// The log-writer thread, and who waits for it: its completions come in the order of the requests.
struct Shared {
    writer: LogWriter,
    waiting: Arc<Mutex<VecDeque<oneshot::Sender<bool>>>>,
}

impl Shared {
    fn new(log: Log) -> Self {
        let mut writer = LogWriter::new(Box::new(StableLog::new(log, KIND)), LogOptions::default());
        let waiting = Arc::new(Mutex::new(VecDeque::<oneshot::Sender<bool>>::new()));
        let told = Arc::clone(&waiting);
        writer.start(Box::new(move |done| {
            let next = told.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            // Who waits no more has ended with an error.
            let _ = next.map(|tell| tell.send(done.result.is_ok()));
        }));
        Self { writer, waiting }
    }

    fn commit(&mut self) -> io::Result<oneshot::Receiver<bool>> {
        let (tell, told) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(tell);
        let record = vec![Bytes::from_static(RECORD)];
        self.writer.persist(IoId(0), record).map_err(io::Error::other)?;
        Ok(told)
    }
}

fn failed() -> io::Error {
    io::Error::other("the log failed")
}

/// Threads that share the log-writer thread.
fn threads(log: Log, count: usize) -> io::Result<Vec<Duration>> {
    let shared = Mutex::new(Shared::new(log));
    let run = || {
        let mut window = Window::new();
        while window.is_open() {
            let begun = Instant::now();
            let told = shared.lock().unwrap_or_else(PoisonError::into_inner).commit()?;
            told.blocking_recv().ok().filter(|done| *done).ok_or_else(failed)?;
            window.done(begun);
        }
        Ok::<_, io::Error>(window.samples)
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..count).map(|_| scope.spawn(run)).collect();
        let mut samples = Vec::new();
        for thread in running {
            let done = thread.join().map_err(|_| io::Error::other("a thread panicked"))?;
            samples.extend(done?);
        }
        Ok(samples)
    })
}

/// Tasks of one thread that share the log-writer thread, as the services of a node do.
fn tasks(log: Log, count: usize) -> io::Result<Vec<Duration>> {
    let shared = Rc::new(RefCell::new(Shared::new(log)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut running = JoinSet::new();
        for _ in 0..count {
            let shared = Rc::clone(&shared);
            running.spawn_local(async move {
                let mut window = Window::new();
                while window.is_open() {
                    let begun = Instant::now();
                    let told = shared.borrow_mut().commit()?;
                    told.await.ok().filter(|done| *done).ok_or_else(failed)?;
                    window.done(begun);
                }
                Ok::<_, io::Error>(window.samples)
            });
        }
        let mut samples = Vec::new();
        while let Some(done) = running.join_next().await {
            samples.extend(done.map_err(io::Error::other)??);
        }
        Ok(samples)
    })
}
