//! A large state: it is loaded, probed while it is written out, and read again after all processes were killed.

use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use crate::figures::{Measured, percentile};
use crate::program::{Run, runtime};

/// The last part of the names of the cases is replaced by the number of keys where another one is asked for.
pub const BIG_CASES: [(&str, Big); 2] = [
    ("bigstate/small/5M", Big { keys: 5_000_000, value_bytes: 1 }),
    ("bigstate/large/1M", Big { keys: 1_000_000, value_bytes: 1 << 10 }),
];
/// What a case of a large state may take: some minutes on a slow disk.
pub const BIG_LIMIT: Duration = Duration::from_secs(25 * 60);
/// Of the single client, which the load does not write.
const OTHER_KEYS: Range<u64> = 900_000_000..900_001_000;
/// A service that has not come back after this has failed.
const BACK: Duration = Duration::from_secs(600);

/// What is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Big {
    /// So many keys.
    pub keys: u64,
    /// Bytes of each value.
    pub value_bytes: usize,
}

impl Big {
    /// The same with as many keys as the run asks for.
    pub fn of(self, run: &Run) -> Self {
        Self { keys: run.keys.unwrap_or(self.keys), ..self }
    }

    /// A key of the load, of 13 bytes; behind the last the first comes again.
    pub fn key(&self, number: u64) -> String {
        key(number % self.keys)
    }

    /// The value of all keys.
    pub fn value(&self) -> Vec<u8> {
        vec![b'v'; self.value_bytes]
    }

    /// The clients write all keys, `batch` at a time: how long it took.
    ///
    /// # Errors
    /// The first of a batch.
    pub async fn load<C: 'static>(
        self,
        clients: Vec<C>,
        batch: u64,
        write: impl AsyncFn(&mut C, Self, Range<u64>) -> io::Result<()> + Clone + 'static,
    ) -> io::Result<Duration> {
        let keys = self.keys;
        let next = move |first: u64| (first < keys).then(|| first..keys.min(first + batch));
        self.write(clients, next, write).await
    }

    /// The same over and over until `stop` says so.
    ///
    /// # Errors
    /// The first of a batch.
    pub async fn load_on<C: 'static>(
        self,
        clients: Vec<C>,
        batch: u64,
        stop: Arc<AtomicBool>,
        write: impl AsyncFn(&mut C, Self, Range<u64>) -> io::Result<()> + Clone + 'static,
    ) -> io::Result<Duration> {
        let next = move |first| (!stop.load(Ordering::Relaxed)).then(|| first..first + batch);
        self.write(clients, next, write).await
    }

    async fn write<C: 'static>(
        self,
        clients: Vec<C>,
        next: impl Fn(u64) -> Option<Range<u64>> + 'static,
        write: impl AsyncFn(&mut C, Self, Range<u64>) -> io::Result<()> + Clone + 'static,
    ) -> io::Result<Duration> {
        let begun = Instant::now();
        let shared = Rc::new((Cell::new(0), next));
        let local = LocalSet::new();
        let mut tasks = JoinSet::new();
        for mut client in clients {
            let (shared, write) = (Rc::clone(&shared), write.clone());
            let task = async move {
                let (taken, next) = &*shared;
                while let Some(range) = next(taken.get()) {
                    taken.set(range.end);
                    write(&mut client, self, range).await?;
                }
                Ok::<_, io::Error>(())
            };
            tasks.spawn_local_on(task, &local);
        }
        let all = async {
            while let Some(done) = tasks.join_next().await {
                done.map_err(io::Error::other)??;
            }
            Ok::<_, io::Error>(())
        };
        local.run_until(all).await?;
        Ok(begun.elapsed())
    }
}

fn key(number: u64) -> String {
    format!("key:{number:09}")
}

/// `checkpoint_p99_ms` and `checkpoint_max_ms` of a client that writes one key after the other while `load` goes on and
/// `checkpoint` writes the state out, each on a thread of its own. The load ends when it is told so.
///
/// # Errors
/// The first of any of them.
pub fn probe_checkpoint(
    load: impl FnOnce(Arc<AtomicBool>) -> io::Result<()> + Send,
    checkpoint: impl FnOnce() -> io::Result<()> + Send,
    put: impl AsyncFnMut(String) -> io::Result<()>,
) -> io::Result<[Measured; 2]> {
    let stop = Arc::<AtomicBool>::default();
    let (told, probed) = (Arc::clone(&stop), Arc::clone(&stop));
    let mut samples = thread::scope(|scope| {
        let loading = scope.spawn(move || load(told));
        let writing = scope.spawn(checkpoint);
        let samples = probe(put, || writing.is_finished() || loading.is_finished());
        probed.store(true, Ordering::Relaxed);
        let panicked = |_| io::Error::other("a thread panicked");
        loading.join().map_err(panicked)??;
        writing.join().map_err(panicked)??;
        samples
    })?;
    samples.sort_unstable();
    let longest = samples.last().copied().unwrap_or_default();
    Ok([
        Measured::millis("checkpoint_p99_ms", percentile(&samples, 99)),
        Measured::millis("checkpoint_max_ms", longest),
    ])
}

fn probe(
    mut put: impl AsyncFnMut(String) -> io::Result<()>,
    is_over: impl Fn() -> bool,
) -> io::Result<Vec<Duration>> {
    runtime()?.block_on(async {
        let mut samples = Vec::new();
        for number in OTHER_KEYS.cycle() {
            if is_over() {
                break;
            }
            let begun = Instant::now();
            put(key(number)).await?;
            samples.push(begun.elapsed());
        }
        Ok(samples)
    })
}

/// `kill_all_serve_s`: from `killed` until a put is acknowledged. Each attempt makes a connection of its own.
///
/// # Errors
/// None is for ten minutes.
pub async fn until_served(
    killed: Instant,
    put: impl AsyncFn(String) -> io::Result<()>,
) -> io::Result<Measured> {
    const ATTEMPT: Duration = Duration::from_secs(2);
    const PAUSE: Duration = Duration::from_millis(5);
    while killed.elapsed() < BACK {
        if let Ok(Ok(())) = timeout(ATTEMPT, put(key(OTHER_KEYS.start))).await {
            let value = killed.elapsed().as_secs_f64();
            return Ok(Measured { metric: "kill_all_serve_s", value, unit: "s" });
        }
        sleep(PAUSE).await;
    }
    Err(io::Error::other("nothing was acknowledged any more"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Checks that all keys are written once, that each has 13 bytes, and that an endless load ends when it is told to.
    #[test]
    fn all_keys_are_written_until_the_end() {
        let big = Big { keys: 1_000, value_bytes: 1 };
        let seen = Rc::new(Cell::new((0, 0)));
        let write = async |seen: &mut Rc<Cell<(u64, u64)>>, big: Big, range: Range<u64>| {
            let bytes: usize = range.clone().map(|number| big.key(number).len()).sum();
            let (keys, all) = seen.get();
            seen.set((keys + range.end - range.start, all + bytes as u64));
            tokio::task::yield_now().await;
            Ok(())
        };
        let clients = || vec![seen.clone(), seen.clone()];
        let runtime = runtime().unwrap();
        runtime.block_on(big.load(clients(), 128, write)).unwrap();
        assert_eq!(seen.get(), (1_000, 13_000));
        let stop = Arc::new(AtomicBool::new(true));
        runtime.block_on(big.load_on(clients(), 128, stop, write)).unwrap();
        assert_eq!(seen.get().0, 1_000);
    }

    /// Checks that the single client works as long as the checkpoint is written, and that the load is told to end.
    #[test]
    fn the_client_works_while_the_checkpoint_is_written() {
        let (went, begun) = mpsc::channel();
        let load = |stop: Arc<AtomicBool>| {
            while !stop.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            Ok(())
        };
        let checkpoint = move || begun.recv().map_err(io::Error::other);
        let put = async |key: String| {
            let _ = went.send(());
            if key.len() == 13 { Ok(()) } else { Err(io::Error::other(key)) }
        };
        let figures = probe_checkpoint(load, checkpoint, put).unwrap();
        assert!(figures[0].value > 0.0 && figures[0].value <= figures[1].value, "{figures:?}");
    }

    /// Checks that what fails is tried again, and that the first acknowledgement ends it.
    #[test]
    fn a_service_that_comes_back_is_noticed() {
        let attempts = Cell::new(0);
        let put = async |_| {
            attempts.set(attempts.get() + 1);
            if attempts.get() < 3 { Err(io::Error::other("refused")) } else { Ok(()) }
        };
        let served = runtime().unwrap().block_on(until_served(Instant::now(), put)).unwrap();
        assert_eq!((served.metric, attempts.get()), ("kill_all_serve_s", 3));
    }
}
