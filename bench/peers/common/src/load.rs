//! Load: clients that each do one operation after the other.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use crate::figures::{Measured, gap, latencies};
use crate::process::Process;
use crate::program::Run;

/// Between a refusal and the next attempt.
const PAUSE: Duration = Duration::from_millis(1);

/// How long each operation took that ended in the window.
pub struct Samples {
    /// In no order.
    pub times: Vec<Duration>,
    /// The length of the window.
    pub window: Duration,
}

impl Samples {
    /// The rate under this name, `p50_us` and `p99_us`.
    pub fn measured(mut self, rate: &'static str) -> Vec<Measured> {
        let count = self.times.len() as u64;
        let mut all = vec![Measured::rate(rate, count, self.window)];
        all.extend(latencies(&mut self.times));
        all
    }
}

/// Each client does operations one after the other, through the warm-up and the window; those that end in the window
/// count. `op` gets the client and the number of its operation. All run on the calling thread.
///
/// # Errors
/// The first of an operation, or that a client has not ended ten seconds after the window.
pub async fn closed_loop<C: 'static>(
    run: &Run,
    clients: Vec<C>,
    op: impl AsyncFn(&mut C, u64) -> io::Result<()> + Clone + 'static,
) -> io::Result<Samples> {
    const LATE: Duration = Duration::from_secs(10);
    let from = Instant::now() + run.warm_up;
    let until = from + run.window;
    let local = LocalSet::new();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let op = op.clone();
        let task = async move {
            let mut times = Vec::new();
            let mut number = 0;
            let mut begun = Instant::now();
            while begun < until {
                op(&mut client, number).await?;
                number += 1;
                let now = Instant::now();
                if (from..until).contains(&now) {
                    times.push(now - begun);
                }
                begun = now;
            }
            Ok::<_, io::Error>(times)
        };
        tasks.spawn_local_on(task, &local);
    }
    let all = async {
        let mut times = Vec::new();
        while let Some(done) = tasks.join_next().await {
            times.extend(done.map_err(io::Error::other)??);
        }
        Ok::<_, io::Error>(times)
    };
    let times = timeout(run.warm_up + run.window + LATE, local.run_until(all)).await??;
    Ok(Samples { times, window: run.window })
}

/// One client does operations one after the other until then: when each was acknowledged. One that fails, or takes
/// longer than `patience`, is made again as another one.
pub async fn watch(
    until: Instant,
    patience: Duration,
    mut op: impl AsyncFnMut(u64) -> io::Result<()>,
) -> Vec<Instant> {
    let mut acknowledged = Vec::new();
    let mut number = 0;
    while Instant::now() < until {
        match timeout(patience, op(number)).await {
            Ok(Ok(())) => acknowledged.push(Instant::now()),
            Ok(Err(_)) | Err(_) => sleep(PAUSE).await,
        }
        number += 1;
    }
    acknowledged
}

/// `gap_ms` and `gap_before_ms` of a client that [`watch`]es while `victim` is killed, for a second before and for `after`.
///
/// # Errors
/// Nothing was acknowledged any more at the end, or there was no killing it.
pub async fn failover(
    mut victim: Process,
    after: Duration,
    patience: Duration,
    op: impl AsyncFnMut(u64) -> io::Result<()>,
) -> io::Result<Vec<Measured>> {
    const BEFORE: Duration = Duration::from_secs(1);
    /// Without an acknowledgement so long before the end, the service has not come back.
    const BACK: Duration = Duration::from_millis(500);
    let until = Instant::now() + BEFORE + after;
    // On a thread of its own: what it waits for must not hold up the client.
    let failing = thread::spawn(move || {
        thread::sleep(BEFORE);
        let at = Instant::now();
        victim.kill().map(|()| at)
    });
    let acknowledged = watch(until, patience, op).await;
    let at = failing.join().map_err(|_| io::Error::other("the failing thread panicked"))??;
    if acknowledged.last().is_none_or(|last| *last + BACK < until) {
        return Err(io::Error::other("nothing was acknowledged any more"));
    }
    let split = acknowledged.partition_point(|it| *it < at);
    let before = gap(&acknowledged[..split], acknowledged[0]);
    Ok(vec![
        Measured::millis("gap_ms", gap(&acknowledged, at)),
        Measured::millis("gap_before_ms", before),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let window = Duration::from_millis(50);
        Run::new(Duration::from_millis(5), window, &std::env::temp_dir()).unwrap()
    }

    /// Checks that every client works, that each counts its operations from zero, and that their times count.
    #[test]
    fn all_clients_work_until_the_end() {
        let runtime = crate::runtime().unwrap();
        let seen = std::rc::Rc::new(std::cell::RefCell::new([0; 3]));
        let clients = (0..3).map(|name| (name, seen.clone())).collect();
        let op = async |(name, seen): &mut (usize, std::rc::Rc<std::cell::RefCell<[u64; 3]>>),
                        number| {
            assert_eq!(seen.borrow()[*name], number);
            seen.borrow_mut()[*name] += 1;
            tokio::task::yield_now().await;
            Ok(())
        };
        let samples = runtime.block_on(closed_loop(&run(), clients, op)).unwrap();
        let total: u64 = seen.borrow().iter().sum();
        assert!(!samples.times.is_empty() && samples.times.len() as u64 <= total);
        assert!(seen.borrow().iter().all(|count| *count > 0));
        assert_eq!(samples.measured("ops_per_s").len(), 3);
    }

    /// Checks that an operation that fails ends the load with its error.
    #[test]
    fn a_failed_operation_is_the_result() {
        let op = async |(): &mut (), _| Err(io::Error::other("refused"));
        let done = crate::runtime().unwrap().block_on(closed_loop(&run(), vec![()], op));
        assert_eq!(done.err().map(|error| error.to_string()), Some("refused".to_owned()));
    }

    /// Checks that a watch goes on after a refusal and after silence.
    #[test]
    fn a_watch_outlives_refusals_and_silence() {
        let until = Instant::now() + Duration::from_millis(40);
        let op = async |number| match number {
            0 => Err(io::Error::other("refused")),
            1 => std::future::pending().await,
            _ => Ok(()),
        };
        let acknowledged =
            crate::runtime().unwrap().block_on(watch(until, Duration::from_millis(2), op));
        assert!(!acknowledged.is_empty());
    }

    /// Checks that the process is killed, and that a client that never noticed has a small gap.
    #[test]
    fn a_failover_kills_the_victim_and_measures_the_client() {
        let run = run();
        let mut sleeper = crate::command("sleep");
        sleeper.arg("100");
        let victim = Process::start(sleeper, &run.dir().join("log")).unwrap();
        let proc = std::path::Path::new("/proc").join(victim.id().to_string());
        let op = async |_| {
            tokio::task::yield_now().await;
            Ok(())
        };
        let second = Duration::from_secs(1);
        let done = crate::runtime().unwrap().block_on(failover(victim, second, second, op));
        let figures = done.unwrap();
        assert!(!proc.exists());
        assert!(figures.iter().all(|it| it.value < 900.0), "{figures:?}");
    }
}
