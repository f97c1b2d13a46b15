//! One actor that obeys the law of driving for every machine.
//!
//! # Turns
//! A turn is any number of `handle`, one `end_turn`, then `poll_output` to `None`, each output given to
//! [`Perform::perform`]; afterwards the host's one timer is re-armed if the deadline moved. actix hands over its mailbox
//! one message after the other, with no notion of *all there is* and no budget. So the end of a turn is the business of
//! a future of the actor's context (`Driver`), which actix polls whenever the mailbox is momentarily empty; and when
//! a turn has reached its budget ([`TurnBudget`]) the handler makes the context wait for another future (`CatchUp`),
//! which stops the mailbox, lets the driver end the turn, and lets all other tasks of the thread run before the next.
//! What is then left of a batch, and what `perform` fed back, is taken before the mailbox: order is kept.
//!
//! # End
//! A panic anywhere in a turn, or [`halt`] where the world is at fault, halts the host: the machine is dropped, all later inputs are refused, and
//! [`HostHandle::closed`] yields [`Closed::Halted`]. Nothing restarts it by itself. [`HostHandle::stop`] refuses new
//! inputs, takes in those admitted, ends the last turn, lets the performer close within
//! [`HostOptions::stop_within`], and yields [`Closed::Stopped`]; so does dropping the last handle.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Task, Poll, Wake, Waker};
use std::time::Duration;

use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message};
use mainstay_base::Machine;

use crate::beacon::Pulse;
use crate::ports::TimeSource;

mod core;
mod gate;
mod handle;
mod perform;
mod sink;
mod turns;

pub use self::core::halt;
pub(crate) use self::core::reason;
use self::core::{Core, Next};
use gate::{Admission, Gate};
pub use handle::{Closed, HostHandle, SendError, WeakHandle};
pub use perform::{Perform, Port};
pub use sink::{HostSink, completions};
pub use turns::TurnStats;

/// A machine that can be hosted: its inputs cross threads. Implemented for all that can.
pub trait Hosted: Machine<Input: Send + 'static> + 'static {}

impl<M: Machine<Input: Send + 'static> + 'static> Hosted for M {}

/// When a turn ends although more inputs are at hand; whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct TurnBudget {
    /// Most inputs. Default 256.
    pub inputs_max: usize,
    /// No further input after so many bytes, as [`Perform::weigh`] counts them. Default 256 KiB.
    pub bytes_max: usize,
    /// No further input after so long. Default 1 ms.
    pub time_max: Duration,
}

impl Default for TurnBudget {
    fn default() -> Self {
        Self { inputs_max: 256, bytes_max: 256 << 10, time_max: Duration::from_millis(1) }
    }
}

/// The bounds of a host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HostOptions {
    /// Most messages (single inputs or batches) between sender and machine. Default 4096.
    pub mailbox_max: usize,
    /// Most bytes between sender and machine, as [`Perform::weigh`] counts them; an input that weighs more is admitted
    /// alone. Default 8 MiB.
    pub mailbox_bytes_max: usize,
    /// When a turn ends.
    pub turn: TurnBudget,
    /// A turn that takes longer, or has a processor for more than 20 ms, is counted and told in the log, with what it did. Default
    /// 50 ms.
    pub slow_turn: Duration,
    /// For so long after a turn the thread looks for more to do in place of sleeping: what comes meanwhile is taken in without the wake-up
    /// of a processor, which costs tens of microseconds on many machines. It costs a processor for that time, and does harm where
    /// there are fewer processors than threads that spin. Default zero: it sleeps.
    pub spin: Duration,
    /// How long [`Perform::closing`] may take at a stop. Default 1 s.
    pub stop_within: Duration,
    /// The turn counter, for a [`Beacon`](crate::Beacon).
    pub pulse: Arc<Pulse>,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            mailbox_max: 4096,
            mailbox_bytes_max: 8 << 20,
            turn: TurnBudget::default(),
            slow_turn: Duration::from_millis(50),
            spin: Duration::ZERO,
            stop_within: Duration::from_secs(1),
            pulse: Pulse::new(),
        }
    }
}

/// Starts the actor that hosts `machine` on the caller's `LocalSet`. Its first turn has no input.
///
/// # Panics
/// Outside a `LocalSet`, or if a bound in `options` is 0.
pub fn start<M: Hosted, P: Perform<M>>(
    machine: M,
    performer: P,
    time: Rc<dyn TimeSource>,
    options: HostOptions,
) -> HostHandle<M> {
    let budget = options.turn;
    assert!(budget.inputs_max > 0 && budget.bytes_max > 0, "a turn has room for an input");
    let gate = Arc::new(Gate::new(
        options.mailbox_max,
        options.mailbox_bytes_max,
        Arc::clone(&options.pulse),
    ));
    let mut context = Context::new();
    // The gate admits at most `mailbox_max`: the mailbox itself is never full.
    context.set_mailbox_capacity(options.mailbox_max + 1);
    let handle = HostHandle::new(context.address().recipient(), Arc::clone(&gate), P::weigh);
    let core = Core::new(machine, performer, time, &options, gate, handle.downgrade());
    context.run(Host { core: Box::new(core) });
    handle
}

/// What travels through the mailbox.
struct Posted<I> {
    inputs: Inputs<I>,
    admission: Admission,
}

enum Inputs<I> {
    One(I),
    Many(Vec<I>),
}

impl<I> Message for Posted<I> {
    type Result = ();
}

/// The actor. Made by [`start`]; reached by its [`HostHandle`].
struct Host<M: Hosted, P: Perform<M>> {
    core: Box<Core<M, P>>,
}

impl<M: Hosted, P: Perform<M>> Host<M, P> {
    /// Acts on what a step of the core asks for.
    fn follow(&mut self, next: Next, context: &mut Context<Self>) {
        match next {
            Next::Nothing => {}
            Next::CatchUp => context.wait(CatchUp::default()),
            Next::Stop => context.stop(),
        }
    }
}

impl<M: Hosted, P: Perform<M>> Actor for Host<M, P> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // A `LocalSet` that is dropped polls actors that never ran, so that they can stop. Outside its runtime they cannot begin
        // either: there is nothing to wait on, and no socket can be opened.
        if tokio::runtime::Handle::try_current().is_err() {
            return context.stop();
        }
        context.spawn(Driver::default());
        let next = self.core.on_started();
        self.follow(next, context);
    }
}

impl<M: Hosted, P: Perform<M>> Handler<Posted<M::Input>> for Host<M, P> {
    type Result = ();

    fn handle(&mut self, posted: Posted<M::Input>, context: &mut Self::Context) {
        let next = self.core.on_posted(posted);
        self.follow(next, context);
    }
}

/// Ends turns when the mailbox is empty, and waits for the timer, a stop and the beacon's question.
#[derive(Default)]
struct Driver {
    /// The thread spins, and looks at its sockets.
    spin: Option<Rest>,
}

impl<M: Hosted, P: Perform<M>> ActorFuture<Host<M, P>> for Driver {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        host: &mut Host<M, P>,
        context: &mut Context<Host<M, P>>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        let next = host.core.poll_driver(task);
        host.follow(next, context);
        if !host.core.spins() {
            self.spin = None;
        } else if self.spin.as_ref().is_none_or(Rest::is_over) {
            self.spin = Some(Rest::begin(task));
        }
        Poll::Pending
    }
}

/// Holds the mailbox back: once, to let other tasks run; then while there is more backlog than fits a turn.
#[derive(Default)]
struct CatchUp {
    rest: Option<Rest>,
}

impl<M: Hosted, P: Perform<M>> ActorFuture<Host<M, P>> for CatchUp {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        host: &mut Host<M, P>,
        context: &mut Context<Host<M, P>>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        let first = self.rest.is_none();
        if self.rest.as_ref().is_some_and(|rest| !rest.is_over()) {
            return Poll::Pending;
        }
        match host.core.catch_up(first) {
            Ok(true) => Poll::Ready(()),
            Ok(false) => {
                self.rest = Some(Rest::begin(task));
                Poll::Pending
            }
            Err(next) => {
                host.follow(next, context);
                Poll::Ready(())
            }
        }
    }
}

/// tokio's own yield: it ends after all that is ready has run and the sockets have been polled. A mere wake-up of the
/// host, by a sender, does not end it.
struct Rest(Arc<Signal>);

struct Signal {
    over: AtomicBool,
    host: Waker,
}

impl Rest {
    fn begin(task: &Task<'_>) -> Self {
        let over = AtomicBool::new(false);
        let signal = Arc::new(Signal { over, host: task.waker().clone() });
        let waker = Waker::from(Arc::clone(&signal));
        let mut turn = pin!(tokio::task::yield_now());
        if turn.as_mut().poll(&mut Task::from_waker(&waker)).is_ready() {
            signal.wake_by_ref();
        }
        Self(signal)
    }

    fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Acquire)
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.over.store(true, Ordering::Release);
        self.host.wake_by_ref();
    }
}
