//! Turns: the host without actix.

use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use mainstay_base::Instant;
use tokio::sync::futures::OwnedNotified;

use super::gate::{Admission, Gate};
use super::handle::{Closed, WeakHandle};
use super::perform::{Perform, Port};
use super::turns::{Turn, Watch};
use super::{HostOptions, Hosted, Inputs, Posted, TurnBudget};
use crate::ports::{LocalFuture, TimeSource};

/// An input that waits for a turn.
pub(super) struct Queued<I> {
    pub(super) input: I,
    /// Of the message that the input was the last of.
    pub(super) admission: Option<Admission>,
}

/// What the actor has to do after a step.
pub(super) enum Next {
    Nothing,
    /// Hold the mailbox back.
    CatchUp,
    /// The end has been reported.
    Stop,
}

struct Timer {
    deadline: Option<Instant>,
    sleep: Option<LocalFuture<()>>,
    /// The sleep has completed and the machine does not know yet.
    due: bool,
}

struct Closing {
    closed: LocalFuture<()>,
    deadline: LocalFuture<()>,
}

pub(super) struct Core<M: Hosted, P: Perform<M>> {
    /// `None` after the end.
    machine: Option<M>,
    performer: P,
    time: Rc<dyn TimeSource>,
    now: Instant,
    budget: TurnBudget,
    stop_within: Duration,
    gate: Arc<Gate>,
    handle: WeakHandle<M>,
    backlog: VecDeque<Queued<M::Input>>,
    /// Of the inputs of the current turn.
    taken: Admission,
    turn: Option<Turn>,
    slow_turn: Duration,
    spin: Duration,
    /// When the last turn with inputs ended.
    turned: Instant,
    watch: Watch,
    timer: Timer,
    woken: Pin<Box<OwnedNotified>>,
    catching_up: bool,
    closing: Option<Closing>,
}

/// A panic was caught, or what [`halt`] throws.
struct Panicked(Arc<str>);

fn guard<T>(step: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(step)).map_err(|payload| {
        let reason = reason(&*payload);
        match payload.is::<Halt>() {
            true => tracing::error!(%reason, "halted"),
            false => tracing::error!(%reason, "the machine panicked: halted"),
        }
        Panicked(reason)
    })
}

/// What [`halt`] throws.
struct Halt(String);

/// Ends the host from within a turn, as a panic does: [`Closed::Halted`] with this reason. For what the world does, as a
/// full disk, and no fault of the program: no panic hook is called, so there is no backtrace.
///
/// Outside a turn of a host it unwinds as a panic does.
pub fn halt(reason: impl Into<String>) -> ! {
    resume_unwind(Box::new(Halt(reason.into())))
}

/// What a panic, or [`halt`], said.
pub(crate) fn reason(payload: &(dyn Any + Send)) -> Arc<str> {
    if let Some(Halt(reason)) = payload.downcast_ref() {
        return reason.as_str().into();
    }
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
        .into()
}

impl<M: Hosted, P: Perform<M>> Core<M, P> {
    pub(super) fn new(
        machine: M,
        performer: P,
        time: Rc<dyn TimeSource>,
        options: &HostOptions,
        gate: Arc<Gate>,
        handle: WeakHandle<M>,
    ) -> Self {
        Self {
            machine: Some(machine),
            performer,
            now: time.now(),
            time,
            budget: options.turn,
            stop_within: options.stop_within,
            handle,
            backlog: VecDeque::new(),
            taken: gate.nothing(),
            turn: None,
            slow_turn: options.slow_turn,
            spin: options.spin,
            turned: Instant::ZERO,
            watch: Watch::default(),
            timer: Timer { deadline: None, sleep: None, due: false },
            woken: Box::pin(Arc::clone(&gate.pulse.wake).notified_owned()),
            gate,
            catching_up: false,
            closing: None,
        }
    }

    /// The first turn: a machine that has just been made or recovered may already want something.
    pub(super) fn on_started(&mut self) -> Next {
        self.begin();
        let now = self.now;
        let mut port = Port { now, backlog: &mut self.backlog, handle: &self.handle };
        match guard(|| self.performer.started(&mut port)) {
            Ok(()) => Next::Nothing,
            Err(panicked) => self.halt(panicked),
        }
    }

    pub(super) fn on_posted(&mut self, posted: Posted<M::Input>) -> Next {
        let Posted { inputs, admission } = posted;
        match inputs {
            Inputs::One(input) => {
                self.backlog.push_back(Queued { input, admission: Some(admission) });
            }
            Inputs::Many(inputs) => {
                self.backlog
                    .extend(inputs.into_iter().map(|input| Queued { input, admission: None }));
                // An empty batch gives its admission back here.
                if let Some(last) = self.backlog.back_mut() {
                    match &mut last.admission {
                        Some(earlier) => earlier.merge(admission),
                        none => *none = Some(admission),
                    }
                }
            }
        }
        match self.take_backlog() {
            Ok(()) if self.is_full() => self.schedule_catch_up(),
            Ok(()) => Next::Nothing,
            Err(panicked) => self.halt(panicked),
        }
    }

    /// Everything that is not the mailbox: called whenever the mailbox is momentarily empty or held back.
    pub(super) fn poll_driver(&mut self, task: &mut Task<'_>) -> Next {
        if self.machine.is_none() {
            return Next::Nothing;
        }
        let mut asked = false;
        while self.woken.as_mut().poll(task).is_ready() {
            asked = true;
            self.woken.set(Arc::clone(&self.gate.pulse.wake).notified_owned());
        }
        if self.closing.is_some() {
            return self.poll_closing(task);
        }
        self.poll_timer(task);
        // Taken also where the timer begins the turn: a word that is left would swallow the next one.
        let is_wanted = self.gate.take_wanted();
        if self.timer.due || is_wanted {
            self.begin();
        }
        if self.turn.is_some() {
            if let Err(panicked) = self.finish() {
                return self.halt(panicked);
            }
        } else if asked {
            self.gate.pulse.beat();
        }
        if !self.backlog.is_empty() {
            return self.schedule_catch_up();
        }
        self.poll_timer(task);
        if self.timer.due {
            // A deadline that has already passed again: the others run first.
            task.waker().wake_by_ref();
        }
        if self.gate.stopping() && self.gate.is_empty() {
            return self.close(task);
        }
        Next::Nothing
    }

    /// A step of holding the mailbox back; `true`: it may flow again.
    pub(super) fn catch_up(&mut self, first: bool) -> Result<bool, Next> {
        let step = if first {
            self.finish().map(|()| false)
        } else {
            self.take_backlog().and_then(|()| {
                let caught_up = self.backlog.is_empty();
                if caught_up { Ok(true) } else { self.finish().map(|()| false) }
            })
        };
        let caught_up = step.map_err(|panicked| self.halt(panicked))?;
        self.catching_up = !caught_up;
        Ok(caught_up)
    }

    /// Whether the thread is to look for more rather than to sleep.
    pub(super) fn spins(&self) -> bool {
        let is_at_work = !self.spin.is_zero() && self.machine.is_some() && self.closing.is_none();
        is_at_work && self.time.now().saturating_since(self.turned) < self.spin
    }

    fn schedule_catch_up(&mut self) -> Next {
        if std::mem::replace(&mut self.catching_up, true) { Next::Nothing } else { Next::CatchUp }
    }

    fn is_full(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| {
            turn.inputs >= self.budget.inputs_max
                || turn.bytes >= self.budget.bytes_max.min(turn.bytes_max)
                || self.now.saturating_since(turn.began) >= self.budget.time_max
        })
    }

    fn read_clock(&mut self) {
        self.now = self.now.max(self.time.now());
    }

    /// Begins a turn, if there is none. It ends before other tasks run.
    fn begin(&mut self) {
        if self.turn.is_none() {
            self.read_clock();
            let bytes_max = self.machine.as_ref().map_or(usize::MAX, M::intake_bytes_max).max(1);
            self.turn = Some(Turn { began: self.now, inputs: 0, bytes: 0, bytes_max });
        }
    }

    /// Takes inputs in until there are none or the turn is full.
    fn take_backlog(&mut self) -> Result<(), Panicked> {
        while !self.backlog.is_empty() {
            // To read the clock once more for the first input shows in the throughput of small messages.
            if self.turn.is_some() {
                self.read_clock();
            }
            self.begin();
            if self.is_full() {
                break;
            }
            let Some(Queued { input, admission }) = self.backlog.pop_front() else { break };
            if let Some(admission) = admission {
                self.taken.merge(admission);
            }
            let weight = P::weigh(&input);
            let (Some(machine), Some(turn)) = (&mut self.machine, &mut self.turn) else { break };
            turn.inputs += 1;
            turn.bytes = turn.bytes.saturating_add(weight);
            let now = self.now;
            guard(|| machine.handle(now, input))?;
        }
        Ok(())
    }

    /// Ends the turn, if there is one.
    fn finish(&mut self) -> Result<(), Panicked> {
        let Some(turn) = self.turn.take() else { return Ok(()) };
        self.read_clock();
        let Some(machine) = &mut self.machine else { return Ok(()) };
        let now = self.now;
        let due = std::mem::take(&mut self.timer.due)
            || self.timer.deadline.is_some_and(|deadline| deadline <= now);
        if due {
            self.timer.deadline = None;
            self.timer.sleep = None;
        }
        let performer = &mut self.performer;
        let mut port = Port { now, backlog: &mut self.backlog, handle: &self.handle };
        let deadline = guard(|| {
            if due {
                machine.handle_timeout(now);
            }
            machine.end_turn(now);
            while let Some(output) = machine.poll_output() {
                performer.perform(output, &mut port);
            }
            performer.turn_ended(&mut port);
            machine.poll_timeout()
        })?;
        if deadline != self.timer.deadline {
            self.timer.deadline = deadline;
            self.timer.sleep = deadline.map(|deadline| self.time.sleep_until(deadline));
        }
        self.taken.release();
        self.gate.pulse.beat();
        let work = machine.take_work();
        self.time.charge(turn.cost(&work));
        self.read_clock();
        let (time, slow) = (&*self.time, self.slow_turn);
        if turn.inputs > 0 {
            self.turned = self.now;
        }
        self.watch.observe(self.now, time, &turn, &work, slow, &self.gate.turns);
        Ok(())
    }

    fn poll_timer(&mut self, task: &mut Task<'_>) {
        if let Some(sleep) = &mut self.timer.sleep
            && sleep.as_mut().poll(task).is_ready()
        {
            self.timer.sleep = None;
            self.timer.due = true;
        }
    }

    /// Nobody is left inside: closes what is outside.
    fn close(&mut self, task: &mut Task<'_>) -> Next {
        self.read_clock();
        let deadline = self.now + self.stop_within;
        let closed = match guard(|| self.performer.closing(deadline)) {
            Ok(closed) => closed,
            Err(panicked) => return self.halt(panicked),
        };
        self.timer.sleep = None;
        self.closing = Some(Closing { closed, deadline: self.time.sleep_until(deadline) });
        self.poll_closing(task)
    }

    fn poll_closing(&mut self, task: &mut Task<'_>) -> Next {
        let Some(closing) = &mut self.closing else { return Next::Nothing };
        let closed = match guard(|| closing.closed.as_mut().poll(task)) {
            Ok(closed) => closed,
            Err(panicked) => return self.halt(panicked),
        };
        if closed == Poll::Pending {
            if closing.deadline.as_mut().poll(task).is_pending() {
                return Next::Nothing;
            }
            tracing::warn!("stopped before all was flushed");
        }
        self.end(Closed::Stopped)
    }

    fn halt(&mut self, Panicked(reason): Panicked) -> Next {
        self.end(Closed::Halted { reason })
    }

    fn end(&mut self, closed: Closed) -> Next {
        self.gate.close();
        self.turn = None;
        self.timer = Timer { deadline: None, sleep: None, due: false };
        self.closing = None;
        self.backlog.clear();
        let machine = self.machine.take();
        // What it says once more is in the log; it ends all the same.
        let _ = guard(|| drop(machine));
        self.taken.release();
        self.gate.closed.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(closed);
            }
            first
        });
        Next::Stop
    }
}

impl<M: Hosted, P: Perform<M>> Drop for Core<M, P> {
    fn drop(&mut self) {
        if self.machine.is_some() {
            self.end(Closed::Dropped);
        }
    }
}
