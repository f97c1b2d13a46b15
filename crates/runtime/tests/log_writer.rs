//! The log-writer thread: group commit, poison, bounds, shutdown.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use mainstay_base::{Instant, Machine};
use mainstay_runtime::{
    Completed, HostOptions, IoId, LogDevice, LogOptions, LogWriter, Port, Record, Store,
    StoreError, TokioTime, host,
};

#[derive(Default)]
struct Seen {
    appended: Vec<Record>,
    /// Records stable after each force.
    forces: Vec<usize>,
}

/// Forces only when told to, with the given outcome.
struct Device {
    seen: Arc<Mutex<Seen>>,
    begun: mpsc::Sender<()>,
    outcomes: mpsc::Receiver<Outcome>,
}

enum Outcome {
    Done,
    Fail,
    Panic,
}

impl LogDevice for Device {
    fn append(&mut self, records: Vec<Record>) -> io::Result<()> {
        self.seen.lock().unwrap().appended.extend(records);
        Ok(())
    }

    fn force(&mut self) -> io::Result<()> {
        let _ = self.begun.send(());
        match self.outcomes.recv().unwrap_or(Outcome::Done) {
            Outcome::Done => {
                let mut seen = self.seen.lock().unwrap();
                let stable = seen.appended.len();
                seen.forces.push(stable);
                Ok(())
            }
            Outcome::Fail => Err(io::Error::other("no medium")),
            Outcome::Panic => panic!("a defect of the device"),
        }
    }
}

struct Bench {
    log: LogWriter,
    seen: Arc<Mutex<Seen>>,
    begun: mpsc::Receiver<()>,
    outcomes: mpsc::Sender<Outcome>,
    completed: mpsc::Receiver<Completed>,
}

impl Bench {
    fn new(options: LogOptions) -> Self {
        let seen = Arc::default();
        let (begin, begun) = mpsc::channel();
        let (outcomes, taken) = mpsc::channel();
        let device = Device { seen: Arc::clone(&seen), begun: begin, outcomes: taken };
        let mut log = LogWriter::new(Box::new(device), options);
        let (tell, completed) = mpsc::channel();
        assert_eq!(log.persist(IoId(0), vec![]), Err(StoreError::NotRunning));
        log.start(Box::new(move |one| tell.send(one).unwrap()));
        Self { log, seen, begun, outcomes, completed }
    }

    fn persist(&mut self, io: u64) -> Result<(), StoreError> {
        self.log.persist(IoId(io), vec![Bytes::from(io.to_string())])
    }
}

/// Checks that all requests that come during one force share the next, complete in order, and only after it.
#[test]
fn requests_gather_while_a_force_runs() {
    let mut bench = Bench::new(LogOptions::default());
    bench.persist(0).unwrap();
    bench.begun.recv().unwrap();
    (1..100).for_each(|io| bench.persist(io).unwrap());
    assert!(bench.completed.try_recv().is_err());
    bench.outcomes.send(Outcome::Done).unwrap();
    assert_eq!(bench.completed.recv().unwrap().io, IoId(0));
    bench.begun.recv().unwrap();
    assert!(bench.completed.try_recv().is_err());
    bench.outcomes.send(Outcome::Done).unwrap();
    for io in 1..100 {
        let completed = bench.completed.recv().unwrap();
        assert_eq!((completed.io, completed.result), (IoId(io), Ok(())));
    }
    let seen = bench.seen.lock().unwrap();
    assert_eq!(seen.forces, [1, 100]);
    assert!(
        seen.appended.iter().eq((0..100u64).map(|io| io.to_string()).collect::<Vec<_>>().iter())
    );
}

/// Checks that a batch is cut at its byte bound, and that a request larger than the bound goes alone.
#[test]
fn a_batch_has_a_bound() {
    let mut options = LogOptions::default();
    options.batch_bytes_max = 10;
    let mut bench = Bench::new(options);
    bench.log.persist(IoId(0), vec![Bytes::from_static(&[0; 50])]).unwrap();
    bench.begun.recv().unwrap();
    for io in 1..=5 {
        bench.log.persist(IoId(io), vec![Bytes::from_static(&[0; 4])]).unwrap();
    }
    drop(bench.outcomes);
    bench.log.close();
    assert_eq!(bench.seen.lock().unwrap().forces, [1, 3, 5, 6]);
}

/// Checks that a failed force, and a device that panics, fail the request and every later one: taken already or not.
#[test]
fn a_failed_force_poisons() {
    for (outcome, words) in
        [(Outcome::Fail, "no medium"), (Outcome::Panic, "the log device panicked")]
    {
        let mut bench = Bench::new(LogOptions::default());
        bench.persist(0).unwrap();
        bench.begun.recv().unwrap();
        bench.persist(1).unwrap();
        bench.outcomes.send(outcome).unwrap();
        for io in 0..2 {
            let completed = bench.completed.recv().unwrap();
            assert_eq!(completed.io, IoId(io));
            assert_eq!(&*completed.result.unwrap_err().reason, words);
        }
        assert!(matches!(bench.persist(2), Err(StoreError::Poisoned(_))));
        assert!(bench.seen.lock().unwrap().forces.is_empty());
        bench.log.close();
    }
}

/// Checks the bound on outstanding requests: a completion holds its place until it is dropped.
#[test]
fn outstanding_requests_are_bounded() {
    let mut options = LogOptions::default();
    options.outstanding_max = 2;
    let mut bench = Bench::new(options);
    bench.persist(0).unwrap();
    bench.persist(1).unwrap();
    let refused = bench.persist(2).unwrap_err();
    assert_eq!(refused, StoreError::Full(vec![Bytes::from_static(b"2")]));
    bench.outcomes.send(Outcome::Done).unwrap();
    let completed = bench.completed.recv().unwrap();
    assert!(completed.holds_a_place());
    assert!(matches!(bench.persist(2), Err(StoreError::Full(_))));
    drop(completed);
    bench.persist(2).unwrap();
    drop(bench.outcomes);
    bench.log.close();
    assert_eq!(bench.completed.iter().count(), 2);
    assert_eq!(bench.log.outstanding(), 0);
}

/// Checks that closing completes all that was taken, joins the thread, and refuses what comes later.
#[test]
fn closing_completes_what_was_taken() {
    let mut bench = Bench::new(LogOptions::default());
    (0..50).for_each(|io| bench.persist(io).unwrap());
    drop(bench.outcomes);
    bench.log.close();
    assert_eq!(bench.completed.iter().filter(|one| one.result.is_ok()).count(), 50);
    let late = bench.log.persist(IoId(50), vec![]);
    assert_eq!(late, Err(StoreError::NotRunning));
}

/// Takes completions in.
#[derive(Default)]
struct Sink(Vec<u64>);

impl Machine for Sink {
    type Input = u64;
    type Output = Vec<u64>;

    fn handle(&mut self, _now: Instant, input: u64) {
        self.0.push(input);
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn end_turn(&mut self, _now: Instant) {}

    fn poll_output(&mut self) -> Option<Vec<u64>> {
        if self.0.is_empty() { None } else { Some(std::mem::take(&mut self.0)) }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

/// Checks that completions become inputs of a host, in order, also when its mailbox is smaller than their number.
#[tokio::test]
async fn completions_come_back_as_inputs() {
    let set = tokio::task::LocalSet::new();
    set.run_until(async {
        let all = Rc::new(RefCell::new(Vec::new()));
        let (done, mut all_done) = tokio::sync::mpsc::channel(1);
        let seen = Rc::clone(&all);
        let perform = move |some: Vec<u64>, _: &mut Port<'_, Sink>| {
            seen.borrow_mut().extend(some);
            if seen.borrow().len() == 200 {
                done.try_send(()).unwrap();
            }
        };
        let mut options = HostOptions::default();
        options.mailbox_max = 3;
        let sink = host::start(Sink::default(), perform, Rc::new(TokioTime::new()), options);
        let mut bench = Bench::new(LogOptions::default());
        drop(bench.outcomes);
        bench.log.close();
        let device =
            Device { seen: bench.seen, begun: mpsc::channel().0, outcomes: mpsc::channel().1 };
        let mut log = LogWriter::new(Box::new(device), LogOptions::default());
        log.start(host::completions(sink.downgrade(), |completed| completed.io.0));
        (0..200).for_each(|io| log.persist(IoId(io), vec![]).unwrap());
        all_done.recv().await.unwrap();
        assert!(all.borrow().iter().copied().eq(0..200));
    })
    .await;
}
