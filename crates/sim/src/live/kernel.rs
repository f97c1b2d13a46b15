//! Virtual time: one queue of what is to happen, by moment and number, and the clocks that nodes are given.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mainstay_base::{Duration, Instant};
use mainstay_runtime::{LocalFuture, TimeSource};

use super::points::Points;
use crate::schedule::Action;
use crate::trace::Trace;

/// Millionths: the unit in which clocks run fast or slow.
const MILLION: i128 = 1_000_000;

/// Turns that are shorter take no time: they are most, and each would be an event.
const CHARGED_MIN: Duration = Duration::from_micros(100);

/// What happens at a moment.
pub(super) enum Task {
    /// Somebody's timer is due; that of a node's machines, if it is `of` one.
    Wake { waker: Waker, of: Option<usize> },
    /// A node has done its turn.
    Free,
    /// A dial reaches its address.
    Syn { dial: u64 },
    /// The answer to a dial that found nobody.
    Unanswered { dial: u64 },
    /// The next thing that an end of a connection sent reaches the other end.
    Arrive { conn: u64, end: usize },
    /// An end of a connection learns that it is broken.
    Break { conn: u64, end: usize, if_cut: bool },
    /// A fault begins.
    Begin { fault: usize, epoch: u32 },
    /// A fault is over.
    End { fault: usize, epoch: u32 },
    /// A crashed node starts again.
    Restart { node: usize, boot: u64 },
}

/// Time, what is to come, and the trace of what was.
#[derive(Default)]
pub(super) struct Kernel {
    now: Cell<Instant>,
    tasks: RefCell<BTreeMap<(Instant, u64), Task>>,
    last: Cell<u64>,
    trace: RefCell<Trace>,
    /// Events so far.
    steps: Cell<u64>,
    points: RefCell<Points>,
}

impl Kernel {
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    pub(super) fn set_now(&self, now: Instant) {
        self.now.set(self.now().max(now));
    }

    /// Puts a task behind all others of the same moment.
    pub(super) fn at(&self, moment: Instant, task: Task) -> (Instant, u64) {
        self.last.set(self.last.get() + 1);
        let key = (moment.max(self.now()), self.last.get());
        self.tasks.borrow_mut().insert(key, task);
        key
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.tasks.borrow().first_key_value().map(|((moment, _), _)| *moment)
    }

    pub(super) fn take(&self) -> Option<Task> {
        self.tasks.borrow_mut().pop_first().map(|(_, task)| task)
    }

    /// One event, into the trace.
    pub(super) fn note(&self, kind: u8, who: usize, number: u64) {
        self.steps.set(self.steps.get() + 1);
        self.trace.borrow_mut().step(self.now(), kind, who, number);
    }

    pub(super) fn hash(&self) -> u128 {
        self.trace.borrow().hash.finish128()
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps.get()
    }

    /// Completes at `moment`.
    pub(super) fn alarm(self: &Rc<Self>, moment: Instant) -> Alarm {
        Alarm { kernel: Rc::clone(self), moment, key: None, of: None }
    }

    /// The points of the nodes.
    pub(super) fn points(&self) -> RefMut<'_, Points> {
        self.points.borrow_mut()
    }

    /// The node is about to do something; true if it has crashed instead.
    pub(super) fn reach(&self, node: usize, action: Action) -> bool {
        self.points().reach(node, action)
    }

    pub(super) fn is_dead(&self, node: usize) -> bool {
        self.points.borrow().is_dead(node)
    }
}

/// A timer; dropping it takes it back.
pub(super) struct Alarm {
    kernel: Rc<Kernel>,
    moment: Instant,
    key: Option<(Instant, u64)>,
    /// The node whose timer it is.
    of: Option<usize>,
}

impl Alarm {
    fn take_back(&mut self) {
        if let Some(key) = self.key.take() {
            let task = self.kernel.tasks.borrow_mut().remove(&key);
            // The waker may end a task when it is dropped: not while the queue is borrowed.
            drop(task);
        }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.take_back();
        if self.kernel.now() >= self.moment {
            return Poll::Ready(());
        }
        let task = Task::Wake { waker: context.waker().clone(), of: self.of };
        self.key = Some(self.kernel.at(self.moment, task));
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// The clock of one boot: it begins at zero and runs fast or slow.
pub(super) struct Clock {
    pub(super) kernel: Rc<Kernel>,
    pub(super) origin: Instant,
    /// Millionths that it runs fast; slow if negative, and above -1,000,000.
    pub(super) drift: i64,
    /// Until when, in true time, the node is at work on a turn.
    pub(super) busy: Rc<Cell<Instant>>,
    /// Whose it is; `None`: a client's.
    pub(super) of: Option<usize>,
}

impl Clock {
    /// The true time as the node sees it: at the end of a turn it is later than for all others.
    fn true_now(&self) -> Instant {
        self.kernel.now().max(self.busy.get())
    }
}

impl TimeSource for Clock {
    fn now(&self) -> Instant {
        let true_nanos = nanos(self.true_now() - self.origin);
        from_nanos(true_nanos * (MILLION + i128::from(self.drift)) / MILLION)
    }

    fn sleep_until(&self, deadline: Instant) -> LocalFuture<()> {
        let rate = MILLION + i128::from(self.drift);
        // Rounded up: when it wakes, its own clock has reached the deadline.
        let true_nanos = (i128::from(deadline.as_nanos()) * MILLION + rate - 1) / rate;
        let length = from_nanos(true_nanos) - Instant::ZERO;
        let mut alarm = self.kernel.alarm(self.origin + length);
        alarm.of = self.of;
        Box::pin(alarm)
    }

    fn charge(&self, work: Duration) {
        if work < CHARGED_MIN {
            return;
        }
        let until = self.true_now() + work;
        self.busy.set(until);
        // The room looks again when the node is free.
        self.kernel.at(until, Task::Free);
    }
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX >> 64)
}

fn from_nanos(nanos: i128) -> Instant {
    Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that a clock that runs fast or slow has reached each deadline when it wakes for it, and not much more.
    #[test]
    fn a_drifting_clock_wakes_at_its_deadline() {
        for drift in [-200_000, -7, 0, 3, 500_000] {
            let kernel = Rc::new(Kernel::default());
            let origin = Instant::from_nanos(77);
            kernel.set_now(origin);
            let clock =
                Clock { kernel: Rc::clone(&kernel), origin, drift, busy: Rc::default(), of: None };
            assert_eq!(clock.now(), Instant::ZERO);
            let deadline = Instant::from_nanos(1_000_000_007);
            let mut sleep = clock.sleep_until(deadline);
            let mut context = Context::from_waker(Waker::noop());
            assert!(sleep.as_mut().poll(&mut context).is_pending());
            let due = kernel.next().expect("there is a timer");
            kernel.set_now(due);
            assert!(sleep.as_mut().poll(&mut context).is_ready());
            assert!(clock.now() >= deadline);
            assert!(clock.now() - deadline < Duration::from_nanos(3), "{drift}: {:?}", clock.now());
        }
    }

    /// Checks that a timer that is dropped leaves nothing behind.
    #[test]
    fn a_dropped_timer_is_gone() {
        let kernel = Rc::new(Kernel::default());
        let mut alarm = Box::pin(kernel.alarm(Instant::from_nanos(5)));
        assert!(alarm.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(alarm);
        assert_eq!(kernel.next(), None);
    }
}
