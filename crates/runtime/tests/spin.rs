//! A host that spins serves as others do, and sleeps again.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(dead_code, reason = "each test uses its part")]
mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use common::{Input, Log, Probe, Writer};
use mainstay_base::Instant;
use mainstay_runtime::{HostOptions, LocalFuture, TimeSource, TokioTime, host};
use tokio::task::{LocalSet, yield_now};

const MICRO: Duration = Duration::from_micros(1);

/// A clock that goes on by a microsecond at each look, and stands still in between: so spinning ends after so many looks.
struct Looked {
    inner: TokioTime,
    looks: Cell<u32>,
}

impl TimeSource for Looked {
    fn now(&self) -> Instant {
        self.looks.set(self.looks.get() + 1);
        Instant::ZERO + MICRO * self.looks.get()
    }

    fn sleep_until(&self, deadline: Instant) -> LocalFuture<()> {
        self.inner.sleep_until(deadline)
    }
}

/// Gives a host three items, one after the other; how often it has looked at its clock by itself after each.
async fn looks(spin: Duration) -> Vec<u32> {
    let log = Rc::new(RefCell::new(Log::default()));
    let time = Rc::new(Looked { inner: TokioTime::new(), looks: Cell::new(0) });
    let writer = Writer { log: Rc::clone(&log), closes_after: Duration::ZERO };
    let source: Rc<dyn TimeSource> = time.clone();
    let mut options = HostOptions::default();
    options.spin = spin;
    let handle = host::start(Probe::default(), writer, source, options);
    let mut looks = Vec::new();
    for item in 1..=3 {
        let before = time.looks.get();
        handle.send(Input::Item(item)).await.unwrap();
        while log.borrow().items().len() < item as usize {
            yield_now().await;
        }
        for _ in 0..1_000 {
            yield_now().await;
        }
        let after = time.looks.get();
        for _ in 0..1_000 {
            yield_now().await;
        }
        assert_eq!(time.looks.get(), after, "it sleeps: others ran, and it did not");
        looks.push(after - before);
    }
    assert_eq!(log.borrow().items(), [1, 2, 3]);
    looks
}

/// While it spins a host looks for more again and again; what comes when it sleeps is served all the same. One that does not spin looks a few
/// times.
#[tokio::test]
async fn a_host_that_spins_sleeps_again() {
    let run = async {
        let (spins, sleeps) = (looks(MICRO * 200).await, looks(Duration::ZERO).await);
        println!("looks after each item: {spins:?}, without: {sleeps:?}");
        assert!(spins.iter().all(|looks| (200..400).contains(looks)), "{spins:?}");
        assert!(sleeps.iter().all(|looks| *looks < 20), "{sleeps:?}");
    };
    LocalSet::new().run_until(run).await;
}
