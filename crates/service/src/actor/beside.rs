//! Services beside the node, each in an actor of its own: on the node's thread, or on another.
//!
//! A box of inputs lies in a slot that the actor empties at its next turn; what comes of a turn goes into a queue that rings the node's
//! bell. Commands and questions of users go to the actor at once, through the bounds of its own mailbox. When it panics its host
//! drops the service, and with it those who read it; whoever asks is told that it has fallen.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mainstay_base::rack::beside::{Batch, Desk, Open, Opening, Report};
use mainstay_base::rack::{Breach, Placement};
use mainstay_base::service::{Address, Ask};
use mainstay_base::{BootId, Instant, Machine, Work};
use mainstay_runtime::{
    Bell, Closed, HostHandle, HostOptions, Port, SendError, TimeSource, WeakHandle, caught, host,
};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::LocalSet;

use super::handle::ReachError;

/// While so many reports are not carried out the service has no turn, and users' commands wait or are refused.
const REPORTS_MAX: usize = 64;
/// So many reports are carried out in one turn of the node; what is left comes in the next one.
const REPORTS_TURN: usize = 8;

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
    /// The node has taken reports: there may be room for more.
    room: Notify,
    /// It has fallen, and somebody starts it again, or has done so: once for each run.
    claimed: AtomicBool,
}

/// The right to start a service that has fallen again. Given back when it is dropped, unless it was [used](Self::used).
pub(super) struct Claim(Option<Arc<Line>>);

impl Claim {
    /// It runs again: nobody starts this run again once more.
    pub(super) fn used(mut self) {
        self.0 = None;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(line) = &self.0 {
            line.claimed.store(false, Ordering::Release);
        }
    }
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

impl Shared {
    fn is_full(&self) -> bool {
        self.reports.len() >= REPORTS_MAX
    }
}

#[derive(Clone)]
enum State {
    Starting,
    Running(WeakHandle<Actor>),
    Fallen(ReachError),
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
    fn new(of: Address, placement: Placement, me: BootId, seed: u64, bell: Bell<Address>) -> Self {
        let (shared, state) = (Mutex::default(), watch::Sender::new(State::Starting));
        let (room, claimed) = (Notify::new(), AtomicBool::new(false));
        Self { of, placement, me, seed, bell, shared, state, room, claimed }
    }

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
        let line = Arc::new(Self::new(of, placement, me, seed, bell));
        let Some(across) = across else {
            let watch = Watch(Arc::clone(&line));
            let run = line.run(open, Rc::clone(time));
            drop(tokio::task::spawn_local(async move {
                run.await;
                drop(watch);
            }));
            return line;
        };
        line.spawn(std::thread::Builder::new().name("mainstay-beside".to_owned()), open, across);
        line
    }

    /// Runs it on a thread of its own. One that gets none has fallen.
    fn spawn(
        self: &Arc<Self>,
        thread: std::thread::Builder,
        open: Open,
        across: Box<dyn FnOnce() -> Rc<dyn TimeSource> + Send>,
    ) {
        let line = Arc::clone(self);
        let run = move || {
            // Not before: what is dropped without a thread is not an end that was wanted.
            let watch = Watch(Arc::clone(&line));
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => LocalSet::new().block_on(&runtime, line.run(open, across())),
                Err(error) => line.fell(&error.to_string()),
            }
            drop(watch);
        };
        if let Err(error) = thread.spawn(run) {
            self.fell(&error.to_string());
        }
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
            let actor = Actor { desk, line: Arc::clone(&line), out: None, full: false };
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

    /// What has come back, in order, as much as a turn of the node carries out. What is left rings the bell again.
    pub(super) fn take_reports(&self) -> Vec<Report> {
        let mut shared = lock(&self.shared);
        let was_full = shared.is_full();
        let count = shared.reports.len().min(REPORTS_TURN);
        let taken = shared.reports.drain(..count).collect();
        let is_free = was_full && !shared.is_full();
        let (handle, is_left) = (shared.handle.clone(), !shared.reports.is_empty());
        drop(shared);
        if is_left {
            self.bell.ring(self.of);
        }
        if is_free {
            self.room.notify_waiters();
            handle.iter().for_each(HostHandle::wake);
        }
        taken
    }

    /// Completes when the actor has room for more.
    async fn roomy(&self) {
        loop {
            let room = self.room.notified();
            if !lock(&self.shared).is_full() {
                return;
            }
            room.await;
        }
    }

    /// For whoever is the first to start it again.
    pub(super) fn claim(self: &Arc<Self>) -> Option<Claim> {
        let is_first = !self.claimed.swap(true, Ordering::AcqRel);
        is_first.then(|| Claim(Some(Arc::clone(self))))
    }

    /// The service panicked.
    pub(super) fn fell(&self, reason: &str) {
        tracing::error!(of = ?self.of, reason, "a service beside the node has fallen");
        if self.fall(ReachError::Fallen) {
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

    /// The service has fallen for the node: it panicked, is too far behind, or broke this rule.
    pub(super) fn give_up(&self, breach: Option<Breach>) {
        self.fall(breach.map_or(ReachError::Fallen, ReachError::Stopped));
        self.end();
    }

    /// True if it had not ended before.
    fn fall(&self, why: ReachError) -> bool {
        self.state.send_if_modified(|state| {
            let runs = matches!(state, State::Starting | State::Running(_));
            if runs {
                *state = State::Fallen(why);
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
        matches!(*self.state.borrow(), State::Fallen(_))
    }

    /// What comes of its work is for it still.
    pub(super) fn is_on(&self) -> bool {
        !matches!(*self.state.borrow(), State::Fallen(_) | State::Ended)
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
    pub(super) fn why(&self) -> ReachError {
        match *self.state.borrow() {
            State::Fallen(why) => why,
            _ => ReachError::NotMounted,
        }
    }

    /// Asks the desk something between two turns; waits while the actor has more to do than it takes in.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Desk, Instant) -> T + Send + 'static,
    ) -> Result<T, ReachError> {
        let (tell, told) = oneshot::channel();
        let actor = self.actor().await?;
        let (closed, mut state) = (actor.closed(), self.state.subscribe());
        // Who waits for one that is stuck waits no longer than its node needs it.
        let over = state.wait_for(|it| !matches!(it, State::Starting | State::Running(_)));
        let mut over = pin!(over);
        let change = Input::Change(Box::new(move |desk: &mut Desk, now| {
            let answer = ask(desk, now);
            // Nobody waits any more: then nobody is told.
            let _ = tell.send(answer);
        }));
        let asked = async {
            self.roomy().await;
            actor.send(change).await.ok()?;
            told.await.ok()
        };
        let answer = tokio::select! {
            biased;
            answer = asked => answer,
            _ = &mut over => return Err(self.why()),
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
            State::Fallen(_) | State::Ended => None,
        };
        let actor = actor.ok_or_else(|| self.why())?;
        if lock(&self.shared).is_full() {
            return Err(ReachError::Full);
        }
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
    /// The node has not carried out enough of its reports.
    full: bool,
}

impl Machine for Actor {
    type Input = Input;
    type Output = Report;

    fn handle(&mut self, now: Instant, input: Input) {
        // Whoever waits was told already that it does not get this.
        if lock(&self.line.shared).ended {
            return;
        }
        match input {
            // The handle is one of the same service.
            Input::Ask(ask) => drop(self.desk.ask(now, ask)),
            Input::Change(change) => change(&mut self.desk, now),
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn end_turn(&mut self, now: Instant) {
        let mut shared = lock(&self.line.shared);
        self.full = shared.is_full();
        if self.full {
            return;
        }
        let batch = shared.batch.take();
        drop(shared);
        if let Some(batch) = batch {
            self.desk.take(now, batch);
        }
        self.out = self.desk.turn(now);
    }

    fn poll_output(&mut self) -> Option<Report> {
        self.out.take()
    }

    /// While it is full it is woken when there is room.
    fn poll_timeout(&self) -> Option<Instant> {
        if self.full { None } else { self.desk.poll_timeout() }
    }

    fn take_work(&mut self) -> Work {
        self.desk.take_work()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use mainstay_base::{BootNonce, Channel, ClusterId, Instance, NodeId};
    use mainstay_runtime::TokioTime;

    use super::*;

    /// The system has no thread for it: it has fallen, and its node is told.
    #[test]
    fn one_that_gets_no_thread_has_fallen() {
        let cluster = ClusterId::from_entropy(1);
        let of = Address { channel: Channel(1), instance: Instance::new(cluster, "i") };
        let me = BootId { node: NodeId::new(cluster, "n"), nonce: BootNonce(1) };
        let bell = Bell::new();
        let line = Arc::new(Line::new(of, Placement::Thread, me, 1, bell.clone()));
        let thread = std::thread::Builder::new().stack_size(1 << 60);
        let across = TokioTime::new().across().unwrap();
        line.spawn(thread, Box::new(|_| unreachable!("it has no thread")), across);
        assert!(line.is_fallen());
        assert_eq!((line.take_reports().len(), bell.take().len()), (1, 1));
    }
}
