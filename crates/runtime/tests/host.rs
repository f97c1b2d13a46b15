//! The host obeys the law of driving (architecture §2.2, view-synchrony §1), under virtual time.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use common::{Input, Log, Output, Place, Probe, Writer};
use mainstay_base::Instant;
use mainstay_runtime::{
    Beacon, Closed, HostHandle, HostOptions, LocalFuture, Pulse, SendError, TimeSource, TokioTime,
    host,
};
use tokio::task::{LocalSet, spawn_local};

const MILLI: Duration = Duration::from_millis(1);

/// Counts how often a timer is armed.
struct Counting {
    inner: TokioTime,
    armed: Cell<usize>,
    /// The clock goes this much further at each look.
    step: Duration,
    stepped: Cell<Duration>,
}

impl Counting {
    fn new(step: Duration) -> Rc<Self> {
        let stepped = Cell::default();
        Rc::new(Self { inner: TokioTime::new(), armed: Cell::new(0), step, stepped })
    }
}

impl TimeSource for Counting {
    fn now(&self) -> Instant {
        self.stepped.set(self.stepped.get() + self.step);
        self.inner.now() + self.stepped.get()
    }

    fn sleep_until(&self, deadline: Instant) -> LocalFuture<()> {
        self.armed.set(self.armed.get() + 1);
        self.inner.sleep_until(deadline)
    }
}

struct Bench {
    handle: HostHandle<Probe>,
    log: Rc<RefCell<Log>>,
    time: Rc<Counting>,
}

impl Bench {
    fn with(options: HostOptions, step: Duration, closes_after: Duration) -> Self {
        let log = Rc::new(RefCell::new(Log::default()));
        let time = Counting::new(step);
        let writer = Writer { log: Rc::clone(&log), closes_after };
        let source: Rc<dyn TimeSource> = time.clone();
        let handle = host::start(Probe::default(), writer, source, options);
        Self { handle, log, time }
    }

    fn new() -> Self {
        Self::with(HostOptions::default(), Duration::ZERO, Duration::ZERO)
    }

    /// Stops, and answers how it ended and what was seen.
    async fn end(self) -> (Closed, Rc<RefCell<Log>>) {
        self.handle.stop();
        (self.handle.closed().await, self.log)
    }
}

async fn local<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

/// Checks that inputs that are at hand together share turns, in order, at most 256 in one.
#[tokio::test(start_paused = true)]
async fn a_thousand_inputs_make_four_turns() {
    local(async {
        let bench = Bench::new();
        (0..1000).for_each(|item| bench.handle.try_send(Input::Item(item)).unwrap());
        let (closed, log) = bench.end().await;
        assert_eq!(closed, Closed::Stopped);
        let sizes: Vec<usize> = log.borrow().turns().iter().map(|turn| turn.len()).collect();
        assert_eq!(sizes, [256, 256, 256, 232]);
        assert!(log.borrow().items().into_iter().eq(0..1000));
    })
    .await;
}

/// Checks that a batch is cut at the budget and that what follows it in the mailbox stays behind it.
#[tokio::test(start_paused = true)]
async fn a_batch_is_cut_and_stays_in_order() {
    local(async {
        let bench = Bench::new();
        bench.handle.try_send_batch((0..600).map(Input::Item).collect()).unwrap();
        bench.handle.try_send_batch(Vec::new()).unwrap();
        bench.handle.try_send(Input::Item(600)).unwrap();
        bench.handle.try_send_batch((601..700).map(Input::Item).collect()).unwrap();
        let (_, log) = bench.end().await;
        let sizes: Vec<usize> = log.borrow().turns().iter().map(|turn| turn.len()).collect();
        assert_eq!(sizes, [256, 256, 188]);
        assert!(log.borrow().items().into_iter().eq(0..700));
    })
    .await;
}

/// Checks that other tasks of the thread run between two full turns, for single inputs and for batches.
#[tokio::test(start_paused = true)]
async fn others_run_between_full_turns() {
    for batch in [false, true] {
        local(async {
            let bench = Bench::new();
            let log = Rc::clone(&bench.log);
            let other = spawn_local(async move {
                poll_fn::<(), _>(|task| {
                    log.borrow_mut().others_ran += 1;
                    task.waker().wake_by_ref();
                    Poll::Pending
                })
                .await;
            });
            if batch {
                bench.handle.try_send_batch((0..1024).map(Input::Item).collect()).unwrap();
            } else {
                (0..1024).for_each(|item| bench.handle.try_send(Input::Item(item)).unwrap());
            }
            let (_, log) = bench.end().await;
            other.abort();
            let others = log.borrow().others.clone();
            assert_eq!(others.len(), 4);
            assert!(others.windows(2).all(|pair| pair[0] < pair[1]), "{others:?}");
        })
        .await;
    }
}

/// Checks that a turn takes no further input after 256 KiB.
#[tokio::test(start_paused = true)]
async fn bytes_end_a_turn() {
    local(async {
        let bench = Bench::new();
        let heavy = (0..10).map(|item| Input::Heavy(item, 100 << 10)).collect();
        bench.handle.try_send_batch(heavy).unwrap();
        let (_, log) = bench.end().await;
        let sizes: Vec<usize> = log.borrow().turns().iter().map(|turn| turn.len()).collect();
        assert_eq!(sizes, [3, 3, 3, 1]);
    })
    .await;
}

/// Checks that a turn takes no further input after 1 ms: here each look at the clock costs 300 us.
#[tokio::test(start_paused = true)]
async fn time_ends_a_turn() {
    local(async {
        let step = Duration::from_micros(300);
        let bench = Bench::with(HostOptions::default(), step, Duration::ZERO);
        (0..40).for_each(|item| bench.handle.try_send(Input::Item(item)).unwrap());
        let (_, log) = bench.end().await;
        let log = log.borrow();
        assert!(log.turns().iter().all(|turn| turn.len() <= 4), "{:?}", log.turns());
        assert!(log.items().into_iter().eq(0..40));
    })
    .await;
}

/// Counts warnings by their text.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, of: &tracing::Metadata<'_>) -> bool {
        *of.level() == tracing::Level::WARN
    }

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
                self.0.push_str(&format!("{}={value:?} ", field.name()));
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Checks that a turn which takes too long is counted, and told with what it did: here each look at the clock costs 300 us.
#[tokio::test(start_paused = true)]
async fn a_long_turn_is_counted_and_told() {
    let slow = |slow_turn| async move {
        let warnings = Warnings::default();
        let _told = tracing::subscriber::set_default(warnings.clone());
        let mut options = HostOptions::default();
        options.slow_turn = slow_turn;
        let bench = Bench::with(options, Duration::from_micros(300), Duration::ZERO);
        let handle = bench.handle.clone();
        (0..40).for_each(|item| bench.handle.try_send(Input::Item(item)).unwrap());
        bench.end().await;
        let told = warnings.0.lock().unwrap().clone();
        (handle.turn_stats(), told)
    };
    local(async move {
        let (stats, told) = slow(MILLI).await;
        assert!(stats.slow > 0 && stats.longest > MILLI, "{stats:?}");
        // One of them; the others are counted until the next is due.
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("a turn was long") && told[0].contains("inputs="), "{told:?}");
        let (stats, told) = slow(Duration::from_secs(1)).await;
        assert!(stats.slow == 0 && told.is_empty(), "{stats:?}, {told:?}");
    })
    .await;
}

/// Checks that the timer fires at its deadline, is armed anew only when the deadline moves, and can be called off.
#[tokio::test(start_paused = true)]
async fn one_timer_is_rearmed_when_the_deadline_moves() {
    local(async {
        let bench = Bench::new();
        let deadline = |millis| Some(Instant::ZERO + millis * MILLI);
        for _ in 0..3 {
            bench.handle.send(Input::Arm(deadline(50))).await.unwrap();
            tokio::time::sleep(MILLI).await;
        }
        assert_eq!(bench.time.armed.get(), 1);
        bench.handle.send(Input::Arm(deadline(20))).await.unwrap();
        tokio::time::sleep(100 * MILLI).await;
        assert_eq!(bench.time.armed.get(), 2);
        assert_eq!(bench.log.borrow().ticks(), [Instant::ZERO + 20 * MILLI]);

        bench.handle.send(Input::Arm(deadline(150))).await.unwrap();
        tokio::time::sleep(MILLI).await;
        bench.handle.send(Input::Arm(None)).await.unwrap();
        tokio::time::sleep(100 * MILLI).await;
        assert_eq!(bench.log.borrow().ticks().len(), 1);

        // A deadline that has passed already is served at once.
        bench.handle.send(Input::Arm(deadline(1))).await.unwrap();
        tokio::time::sleep(MILLI).await;
        assert_eq!(bench.log.borrow().ticks().len(), 2);
    })
    .await;
}

/// Checks that the timer is served while the mailbox is never empty.
#[tokio::test(start_paused = true)]
async fn a_busy_mailbox_does_not_starve_the_timer() {
    local(async {
        let step = Duration::from_micros(10);
        let bench = Bench::with(HostOptions::default(), step, Duration::ZERO);
        bench.handle.try_send(Input::Arm(Some(Instant::ZERO + 5 * MILLI))).unwrap();
        (0..4000).for_each(|item| bench.handle.try_send(Input::Item(item)).unwrap());
        let (_, log) = bench.end().await;
        let log = log.borrow();
        let at = log.outputs.iter().position(|output| matches!(output, Output::Tick(_)));
        assert!(at.unwrap() < log.outputs.len() - 1);
        assert!(log.ticks()[0] <= Instant::ZERO + 7 * MILLI);
    })
    .await;
}

/// Checks that what `perform` feeds back comes in the next turn, before the mailbox, and not inside the drain (the
/// probe panics there).
#[tokio::test(start_paused = true)]
async fn what_is_fed_back_waits_for_the_next_turn() {
    local(async {
        let bench = Bench::new();
        for item in 0..256 {
            bench.handle.try_send(Input::Echo(item)).unwrap();
        }
        bench.handle.try_send(Input::Item(256)).unwrap();
        let (closed, log) = bench.end().await;
        assert_eq!(closed, Closed::Stopped);
        assert!(log.borrow().items().into_iter().eq(0..=256));
    })
    .await;
}

/// Checks that a panic anywhere in a turn halts the host, that it says why, and that everything later is refused (the
/// fail-stop rule).
#[tokio::test(start_paused = true)]
async fn a_panic_halts_and_refuses() {
    use Place::{EndTurn, Handle, Perform, PollOutput, PollTimeout, Timeout};
    for place in [Handle, Timeout, EndTurn, PollOutput, PollTimeout, Perform] {
        local(async {
            let bench = Bench::new();
            let closed = bench.handle.closed();
            bench.handle.send(Input::Item(1)).await.unwrap();
            bench.handle.send(Input::Panic(place)).await.unwrap();
            let soon = Some(Instant::ZERO + MILLI);
            // Is either refused or dropped: the panic may have come first.
            let _ = bench.handle.send(Input::Arm(soon)).await;
            let reason = format!("told to panic at {place:?}").into();
            assert_eq!(closed.await, Closed::Halted { reason });
            assert!(bench.handle.is_closed());
            let refused = bench.handle.try_send(Input::Item(2));
            assert!(matches!(refused, Err(SendError::Closed(Input::Item(2)))));
            let refused = bench.handle.send(Input::Item(3)).await;
            assert!(matches!(refused, Err(SendError::Closed(Input::Item(3)))));
            let refused = bench.handle.send_batch(vec![Input::Item(4)]).await;
            assert_eq!(refused.unwrap_err().into_inner(), [Input::Item(4)]);
            assert_eq!(bench.handle.bytes_admitted(), 0);
        })
        .await;
    }
}

/// Checks the bound on places: what does not fit comes back, and fits later.
#[tokio::test(start_paused = true)]
async fn a_full_mailbox_gives_the_input_back() {
    local(async {
        let mut options = HostOptions::default();
        options.mailbox_max = 2;
        let bench = Bench::with(options, Duration::ZERO, Duration::ZERO);
        let other = bench.handle.clone();
        bench.handle.try_send(Input::Item(0)).unwrap();
        other.try_send(Input::Item(1)).unwrap();
        let refused = other.try_send(Input::Item(2)).unwrap_err();
        assert!(matches!(refused, SendError::Full(Input::Item(2))));
        let refused = bench.handle.try_send_batch(vec![Input::Item(2)]).unwrap_err();
        assert!(matches!(refused, SendError::Full(_)));
        bench.handle.send(Input::Item(2)).await.unwrap();
        let (_, log) = bench.end().await;
        assert_eq!(log.borrow().items(), [0, 1, 2]);
    })
    .await;
}

/// Checks the bound on bytes: however many senders wait, no more is admitted than fits; an input heavier than the
/// mailbox is admitted alone; each sender's order is kept.
#[tokio::test(start_paused = true)]
async fn byte_permits_bound_what_is_admitted() {
    local(async {
        let mut options = HostOptions::default();
        options.mailbox_bytes_max = 4096;
        let bench = Bench::with(options, Duration::ZERO, Duration::ZERO);
        bench.handle.try_send(Input::Heavy(9_999, 4000)).unwrap();
        let refused = bench.handle.try_send(Input::Heavy(0, 1000)).unwrap_err();
        assert!(matches!(refused, SendError::Full(_)));
        let most = Rc::new(Cell::new(0));
        let senders: Vec<_> = (0..20)
            .map(|sender| {
                let (handle, most) = (bench.handle.clone(), Rc::clone(&most));
                spawn_local(async move {
                    for item in 0..10 {
                        let input = Input::Heavy(sender * 100 + item, 1000);
                        handle.send(input).await.unwrap();
                        most.set(most.get().max(handle.bytes_admitted()));
                    }
                    handle.send(Input::Heavy(sender * 100 + 10, 1 << 20)).await.unwrap();
                })
            })
            .collect();
        for sender in senders {
            sender.await.unwrap();
        }
        assert!(most.get() <= 4096, "{}", most.get());
        let (_, log) = bench.end().await;
        let items = log.borrow().items();
        assert_eq!(items.len(), 221);
        for sender in 0..20 {
            let own = items.iter().filter(|&&item| item / 100 == sender);
            assert!(own.copied().eq(sender * 100..=sender * 100 + 10));
        }
    })
    .await;
}

/// Checks that a stop refuses who waits, takes in who was admitted, and waits for the performer to close.
#[tokio::test(start_paused = true)]
async fn a_stop_takes_in_what_was_admitted() {
    local(async {
        let mut options = HostOptions::default();
        options.mailbox_bytes_max = 10;
        let bench = Bench::with(options, Duration::ZERO, 300 * MILLI);
        bench.handle.try_send(Input::Heavy(0, 10)).unwrap();
        let waiting = bench.handle.clone();
        let mut waiting = Box::pin(waiting.send(Input::Heavy(1, 10)));
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("there is no room"),
            () = std::future::ready(()) => {}
        }
        bench.handle.stop();
        assert!(matches!(waiting.await, Err(SendError::Closed(Input::Heavy(1, 10)))));
        let started = bench.time.inner.now();
        let (closed, log) = bench.end().await;
        assert_eq!(closed, Closed::Stopped);
        assert_eq!(log.borrow().items(), [0]);
        assert_eq!(log.borrow().closing_at, Some(started + Duration::from_secs(1)));
    })
    .await;
}

/// Checks that a performer that does not close in time is cut off at the deadline.
#[tokio::test(start_paused = true)]
async fn a_stop_has_a_deadline() {
    local(async {
        let bench = Bench::with(HostOptions::default(), Duration::ZERO, Duration::from_secs(3600));
        let time = Rc::clone(&bench.time);
        let (closed, _) = bench.end().await;
        assert_eq!(closed, Closed::Stopped);
        assert!(time.inner.now() < Instant::ZERO + Duration::from_secs(2));
    })
    .await;
}

/// Checks that the last handle's drop stops the host, that a weak handle does not hold it, and that a dropped `LocalSet`
/// is told apart from a stop.
#[tokio::test(start_paused = true)]
async fn the_end_says_how_it_came() {
    local(async {
        let bench = Bench::new();
        let (closed, weak) = (bench.handle.closed(), bench.handle.downgrade());
        drop(bench);
        assert!(weak.upgrade().is_none());
        assert_eq!(closed.await, Closed::Stopped);
    })
    .await;

    let set = LocalSet::new();
    let bench = set.run_until(async { Bench::new() }).await;
    set.run_until(bench.handle.send(Input::Item(1))).await.unwrap();
    drop(set);
    assert_eq!(bench.handle.closed().await, Closed::Dropped);
    assert!(bench.handle.try_send(Input::Item(2)).is_err());
}

/// Checks that handles cross threads.
#[tokio::test]
async fn a_handle_is_used_from_another_thread() {
    fn shareable<T: Send + Sync + Clone>(_: &T) {}
    local(async {
        let bench = Bench::new();
        shareable(&bench.handle);
        let handle = bench.handle.clone();
        let thread = std::thread::spawn(move || {
            (0..500).for_each(|item| handle.try_send(Input::Item(item)).unwrap());
        });
        thread.join().unwrap();
        let (_, log) = bench.end().await;
        assert!(log.borrow().items().into_iter().eq(0..500));
    })
    .await;
}

/// Checks that an idle host answers the beacon's question without a turn of its machine, and that one that is not
/// scheduled does not.
#[tokio::test(start_paused = true)]
async fn an_idle_host_shows_life() {
    local(async {
        let mut options = HostOptions::default();
        options.pulse = Pulse::new();
        let pulse = options.pulse.clone();
        let bench = Bench::with(options, Duration::ZERO, Duration::ZERO);
        tokio::time::sleep(MILLI).await;
        assert_eq!(pulse.turns(), 1);
        pulse.ask();
        assert_eq!(pulse.turns(), 1);
        tokio::time::sleep(MILLI).await;
        assert_eq!(pulse.turns(), 2);
        assert_eq!(bench.handle.turns(), 2);
    })
    .await;
}

/// Checks that the beacon speaks from its own thread although the host's does nothing, and ends when dropped.
#[test]
fn the_beacon_tells_of_a_stuck_thread() {
    let (tell, told) = std::sync::mpsc::channel();
    let beacon = Beacon::start(Pulse::new(), MILLI, move |beat| tell.send(beat).unwrap()).unwrap();
    let longest = told.iter().find(|beat| beat.stuck_for >= 3 * MILLI);
    assert_eq!(longest.unwrap().turns, 0);
    drop(beacon);
    assert_eq!(told.iter().filter(|beat| beat.turns > 0).count(), 0);
}

/// A machine whose timer is always due for some turns.
#[derive(Default)]
struct Restless {
    turns: u64,
    out: Option<u64>,
}

impl mainstay_base::Machine for Restless {
    type Input = ();
    type Output = u64;

    fn handle(&mut self, _: Instant, (): ()) {}

    fn handle_timeout(&mut self, _: Instant) {}

    fn end_turn(&mut self, _: Instant) {
        self.turns += 1;
        self.out = Some(self.turns);
    }

    fn poll_output(&mut self) -> Option<u64> {
        self.out.take()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        (self.turns < 5).then_some(Instant::ZERO)
    }
}

/// Checks that a wake-up that comes when the timer is due does not swallow those after it.
#[tokio::test(start_paused = true)]
async fn a_wake_up_is_not_lost_to_a_timer() {
    local(async {
        let turns = Rc::new(Cell::new(0));
        let seen = Rc::clone(&turns);
        let perform = move |turn: u64, port: &mut mainstay_runtime::Port<'_, Restless>| {
            seen.set(turn);
            if turn < 5 {
                port.handle().upgrade().unwrap().wake();
            }
        };
        let time = Rc::new(TokioTime::new());
        let host = host::start(Restless::default(), perform, time, HostOptions::default());
        tokio::time::sleep(MILLI).await;
        for _ in 0..10 {
            let before = turns.get();
            host.wake();
            tokio::time::sleep(MILLI).await;
            assert_eq!(turns.get(), before + 1);
        }
    })
    .await;
}

/// Checks that a host whose `LocalSet` is dropped before it ran, outside the runtime, does not begin, and says that it is gone.
#[test]
fn a_host_that_never_ran_does_not_begin_when_it_is_dropped() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let set = LocalSet::new();
    let bench = runtime.block_on(async {
        let _entered = set.enter();
        Bench::new()
    });
    drop(set);
    assert!(!bench.log.borrow().started);
    assert_eq!(runtime.block_on(bench.handle.closed()), Closed::Dropped);
}
