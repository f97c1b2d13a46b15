//! Services beside the node, each in an actor of its own: on the node's thread, or on another.
//!
//! A box of inputs lies in a slot that the actor empties at its next turn; what comes of a turn goes into a queue that rings the node's
//! bell. Commands and questions of users go to the actor at once, through the bounds of its own mailbox. When it panics its host
//! drops the service, and with it those who read it; whoever asks is told that it has fallen.

use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mainstay_base::rack::Placement;
use mainstay_base::rack::beside::{Batch, Desk, Open, Opening, Report};
use mainstay_base::service::{Address, Ask};
use mainstay_base::{BootId, Instant, Machine, Work};
use mainstay_runtime::{
    Bell, Closed, HostHandle, HostOptions, Port, SendError, TimeSource, WeakHandle, caught, host,
};
use tokio::sync::{oneshot, watch};
use tokio::task::LocalSet;

use super::handle::ReachError;

/// While so many reports are not carried out no more is taken in.
const REPORTS_MAX: usize = 64;

/// What the node and the actor of a service have in common.
pub(super) struct Line {
    pub(super) of: Address,
    pub(super) placement: Placement,
    /// For the next run of the service.
    pub(super) me: BootId,
    pub(super) seed: u64,
    bell: Bell<Address>,
    shared: Mutex<Shared>,
    state: watch::Sender<State>,
}

#[derive(Default)]
struct Shared {
    /// The box that is away.
    batch: Option<Batch>,
    reports: VecDeque<Report>,
    /// Keeps the actor running.
    handle: Option<HostHandle<Actor>>,
    ended: bool,
}

#[derive(Clone)]
enum State {
    Starting,
    Running(WeakHandle<Actor>),
    Fallen,
    Ended,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the wait for an actor that is gone, however it went.
struct Watch(Arc<Line>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Line {
    /// Starts the actor. It may still be starting when this returns.
    pub(super) fn open(
        of: Address,
        opening: Opening,
        bell: Bell<Address>,
        time: &Rc<dyn TimeSource>,
    ) -> Arc<Self> {
        let Opening { placement, me, seed, open } = opening;
        let across = (placement == Placement::Thread).then(|| time.across()).flatten();
        let placement = if across.is_some() { Placement::Thread } else { Placement::Local };
        let (shared, state) = (Mutex::default(), watch::Sender::new(State::Starting));
        let line = Arc::new(Self { of, placement, me, seed, bell, shared, state });
        let Some(across) = across else {
            let watch = Watch(Arc::clone(&line));
            let run = line.run(open, Rc::clone(time));
            drop(tokio::task::spawn_local(async move {
                run.await;
                drop(watch);
            }));
            return line;
        };
        let (owner, watch) = (Arc::clone(&line), Watch(Arc::clone(&line)));
        let run = move || {
            let watch = watch;
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => LocalSet::new().block_on(&runtime, owner.run(open, across())),
                Err(error) => owner.fell(&error.to_string()),
            }
            drop(watch);
        };
        let thread = std::thread::Builder::new().name("mainstay-beside".to_owned());
        if let Err(error) = thread.spawn(run) {
            line.fell(&error.to_string());
        }
        line
    }

    /// Makes the service and runs it until its actor has ended; on the thread of the actor.
    fn run(
        self: &Arc<Self>,
        open: Open,
        time: Rc<dyn TimeSource>,
    ) -> impl Future<Output = ()> + use<> {
        let line = Arc::clone(self);
        async move {
            let desk = match caught(|| open(time.now())) {
                Ok(desk) => desk,
                Err(reason) => return line.fell(&reason),
            };
            let actor = Actor { desk, line: Arc::clone(&line), out: None };
            let to = Arc::clone(&line);
            let put = move |report, _: &mut Port<'_, Actor>| to.put(report);
            let handle = host::start(actor, put, time, HostOptions::default());
            let (closed, weak) = (handle.closed(), handle.downgrade());
            line.began(handle, weak);
            if let Closed::Halted { reason } = closed.await {
                line.fell(&reason);
            }
        }
    }

    /// Its actor runs; one that is not wanted any more stops, with the handle.
    fn began(&self, handle: HostHandle<Actor>, weak: WeakHandle<Actor>) {
        let mut shared = lock(&self.shared);
        if !shared.ended {
            shared.handle = Some(handle);
            self.state.send_replace(State::Running(weak));
        }
    }

    /// Brings a box; the last one has been answered.
    pub(super) fn bring(&self, batch: Batch) {
        let mut shared = lock(&self.shared);
        shared.batch = Some(batch);
        let handle = shared.handle.clone();
        drop(shared);
        if let Some(handle) = handle {
            handle.wake();
        }
    }

    fn put(&self, report: Report) {
        lock(&self.shared).reports.push_back(report);
        self.bell.ring(self.of);
    }

    /// What has come back, in order.
    pub(super) fn take_reports(&self) -> VecDeque<Report> {
        std::mem::take(&mut lock(&self.shared).reports)
    }

    /// The service panicked.
    pub(super) fn fell(&self, reason: &str) {
        tracing::error!(of = ?self.of, reason, "a service beside the node has fallen");
        if self.fall() {
            self.put(Report::fallen());
        }
    }

    /// The node needs the actor no more.
    pub(super) fn end(&self) {
        let mut shared = lock(&self.shared);
        (shared.ended, shared.batch) = (true, None);
        let handle = shared.handle.take();
        drop(shared);
        // It may not be one that has fallen: that is remembered.
        self.state.send_if_modified(|state| {
            let changes = matches!(state, State::Starting | State::Running(_));
            if changes {
                *state = State::Ended;
            }
            changes
        });
        if let Some(handle) = handle {
            handle.stop();
        }
    }

    /// The service has fallen for the node: it panicked, or is too far behind.
    pub(super) fn give_up(&self) {
        self.fall();
        self.end();
    }

    /// True if it had not ended before.
    fn fall(&self) -> bool {
        self.state.send_if_modified(|state| {
            let runs = matches!(state, State::Starting | State::Running(_));
            if runs {
                *state = State::Fallen;
            }
            runs
        })
    }

    /// The same for one whose thread has not come to say so yet.
    pub(super) async fn has_fallen(&self) -> bool {
        let state = self.state.borrow().clone();
        if let State::Running(actor) = state
            && actor.upgrade().is_none_or(|actor| actor.is_closed())
            && let Closed::Halted { reason } = actor.closed().await
        {
            self.fell(&reason);
        }
        self.is_fallen()
    }

    fn is_fallen(&self) -> bool {
        matches!(*self.state.borrow(), State::Fallen)
    }

    /// What comes of its work is for it still.
    pub(super) fn is_on(&self) -> bool {
        !matches!(*self.state.borrow(), State::Fallen | State::Ended)
    }

    async fn actor(&self) -> Result<HostHandle<Actor>, ReachError> {
        let mut state = self.state.subscribe();
        let started = state.wait_for(|it| !matches!(it, State::Starting)).await;
        let actor = match &*started.map_err(|_| ReachError::NotMounted)? {
            State::Running(actor) => actor.upgrade(),
            _ => None,
        };
        actor.ok_or_else(|| self.why())
    }

    /// Why it is not reached.
    fn why(&self) -> ReachError {
        if self.is_fallen() { ReachError::Fallen } else { ReachError::NotMounted }
    }

    /// Asks the desk something between two turns; waits while the actor has more to do than it takes in.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Desk, Instant) -> T + Send + 'static,
    ) -> Result<T, ReachError> {
        let (tell, told) = oneshot::channel();
        let actor = self.actor().await?;
        let closed = actor.closed();
        let change = Input::Change(Box::new(move |desk: &mut Desk, now| {
            let answer = ask(desk, now);
            // Nobody waits any more: then nobody is told.
            let _ = tell.send(answer);
        }));
        let answer = match actor.send(change).await {
            Ok(()) => told.await.ok(),
            Err(_) => None,
        };
        drop(actor);
        if let Some(answer) = answer {
            return Ok(answer);
        }
        // Its own thread may not have come to say so yet.
        if let Closed::Halted { reason } = closed.await {
            self.fell(&reason);
        }
        Err(self.why())
    }

    /// Gives the actor a command if there is room for it now.
    pub(super) fn try_ask(&self, ask: Ask) -> Result<(), ReachError> {
        let state = self.state.borrow().clone();
        let actor = match state {
            State::Starting => return Err(ReachError::Full),
            State::Running(actor) => actor.upgrade(),
            State::Fallen | State::Ended => None,
        };
        let actor = actor.ok_or_else(|| self.why())?;
        actor.try_send(Input::Ask(ask)).map_err(|error| match error {
            SendError::Full(_) => ReachError::Full,
            // One that was ended says so before it closes.
            SendError::Closed(_) if self.is_on() => ReachError::Fallen,
            SendError::Closed(_) => self.why(),
        })
    }
}

/// What the actor is given, apart from its box.
enum Input {
    Ask(Ask),
    Change(Change),
}

type Change = Box<dyn FnOnce(&mut Desk, Instant) + Send>;

/// The machine of the actor.
struct Actor {
    desk: Desk,
    line: Arc<Line>,
    out: Option<Report>,
}

impl Machine for Actor {
    type Input = Input;
    type Output = Report;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            // The handle is one of the same service.
            Input::Ask(ask) => drop(self.desk.ask(now, ask)),
            Input::Change(change) => change(&mut self.desk, now),
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn end_turn(&mut self, now: Instant) {
        let batch = lock(&self.line.shared).batch.take();
        if let Some(batch) = batch {
            self.desk.take(now, batch);
        }
        self.out = self.desk.turn(now);
    }

    fn poll_output(&mut self) -> Option<Report> {
        self.out.take()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.desk.poll_timeout()
    }

    fn take_work(&mut self) -> Work {
        self.desk.take_work()
    }

    fn intake_bytes_max(&self) -> usize {
        if lock(&self.line.shared).reports.len() > REPORTS_MAX { 0 } else { usize::MAX }
    }
}
