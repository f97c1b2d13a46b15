//! The handle of the service of troupes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use mainstay_base::BootId;
use mainstay_service::{CommandQueue, Desk, OpenError, ReachError, ServiceHandle};
use tokio::sync::{mpsc, watch};

use super::executor::Executor;
use super::part::{Inner, Part, Running};
use super::{Caller, Replica};
use crate::{Answer, Command, Failure, Outcome, Reason, Status, TroupeName, Troupes};

/// So many commands may wait for the node's next turn.
const COMMANDS_MAX: usize = 1 << 17;

/// What a caller is told.
pub(super) enum Told {
    Answer { from: BootId, answer: Answer, replicas: usize },
    Over(Outcome),
}

pub(super) struct Shared {
    pub(super) service: ServiceHandle<Troupes>,
    pub(super) commands: CommandQueue<Troupes>,
    /// Each is told once for each replica of its server, and once more.
    waiting: Mutex<BTreeMap<u64, mpsc::UnboundedSender<Told>>>,
    /// What this node is a replica of, or becomes one.
    pub(super) parts: Mutex<BTreeMap<TroupeName, Arc<Inner>>>,
    tokens: AtomicU64,
    is_open: AtomicBool,
    desk: OnceLock<Desk>,
    #[cfg(feature = "test-util")]
    fault: Option<crate::fault::Fault>,
    /// A drain was asked for, and the service has not ended since.
    is_closing: AtomicBool,
    /// The node is a replica of nothing any more after a drain, or the service has ended.
    drained: watch::Sender<bool>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn part(&self, name: TroupeName) -> Option<Arc<Inner>> {
        locked(&self.parts).get(&name).cloned()
    }

    /// Gives the service a command where nobody can wait: what does not fit in is lost.
    pub(super) fn try_give(&self, command: Command) -> Result<(), ReachError> {
        self.commands.push(command)
    }

    /// Gives the service a command that must not be lost, when there is room, on any thread.
    pub(super) fn give_later(&self, command: Command) {
        let service = self.service.clone();
        let give = move || -> Running<()> {
            Box::pin(async move {
                // One that has ended needs it no more.
                let _ = service.send(command).await;
            })
        };
        let _ = self.desk.get().map(|desk| desk.run(give));
    }

    /// The service runs.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    /// Makes a call; what comes of it comes to the receiver.
    pub(super) fn ask(
        &self,
        request: impl FnOnce(u64) -> Command,
    ) -> Result<mpsc::UnboundedReceiver<Told>, Failure> {
        if !self.is_open.load(Ordering::SeqCst) {
            return Err(Failure::not_at_all(Reason::Ended));
        }
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = mpsc::unbounded_channel();
        locked(&self.waiting).insert(token, tell);
        if let Err(error) = self.commands.push(request(token)) {
            locked(&self.waiting).remove(&token);
            let reason = if error == ReachError::Full { Reason::Full } else { Reason::Ended };
            return Err(Failure::not_at_all(reason));
        }
        // The service may have ended, and all who waited have been told, before this one was among them.
        if !self.is_open.load(Ordering::SeqCst) {
            locked(&self.waiting).remove(&token);
        }
        Ok(told)
    }

    pub(super) fn told(&self, token: u64, told: Told) {
        let mut waiting = locked(&self.waiting);
        let is_over = matches!(told, Told::Over(_));
        if let Some(tell) = waiting.get(&token) {
            // Nobody waits any more: then nobody is told.
            let _ = tell.send(told);
        }
        if is_over {
            waiting.remove(&token);
        }
    }

    pub(super) async fn drain(&self) -> Result<(), ReachError> {
        self.is_closing.store(true, Ordering::SeqCst);
        self.drained.send_replace(false);
        let mut drained = self.drained.subscribe();
        let sent = self.service.send(Command::Drain).await;
        sent.inspect_err(|_| self.is_closing.store(false, Ordering::SeqCst))?;
        // The sender lives in here.
        let _ = drained.wait_for(|it| *it).await;
        if self.is_open.load(Ordering::SeqCst) { Ok(()) } else { Err(ReachError::Closed) }
    }

    pub(super) fn drained(&self) {
        self.drained.send_replace(true);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::SeqCst) && !mainstay_base::fault!(self, HidesClosing)
    }

    pub(super) fn begun(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }

    /// The service is gone, and with it all that was asked of it.
    pub(super) fn end(&self) {
        self.is_open.store(false, Ordering::SeqCst);
        self.is_closing.store(false, Ordering::SeqCst);
        self.drained.send_replace(true);
        // Their receivers are told nothing more.
        drop(std::mem::take(&mut *locked(&self.waiting)));
        for (_, part) in std::mem::take(&mut *locked(&self.parts)) {
            part.left();
        }
    }
}

/// Makes a node a replica of troupes, and calls others: cheap to clone, `Send` and `Sync`.
#[derive(Clone)]
pub struct TroupesHandle {
    pub(super) shared: Arc<Shared>,
}

impl TroupesHandle {
    /// The handle of the service: opened once, and cloned. What hands calls to actors is started on the caller's `LocalSet`.
    ///
    /// # Errors
    /// [`OpenError`]; outside a `LocalSet` it is [`OpenError::NoLocalSet`].
    pub async fn open(service: ServiceHandle<Troupes>) -> Result<Self, OpenError> {
        let commands = CommandQueue::new(service.clone(), COMMANDS_MAX);
        #[cfg(feature = "test-util")]
        let fault = service.status().await?.fault;
        let shared = Arc::new(Shared {
            service,
            commands,
            waiting: Mutex::default(),
            parts: Mutex::default(),
            tokens: AtomicU64::new(1),
            is_open: AtomicBool::new(false),
            desk: OnceLock::new(),
            #[cfg(feature = "test-util")]
            fault,
            is_closing: AtomicBool::new(false),
            drained: watch::Sender::new(false),
        });
        let desk = Desk::open(&shared, Executor::default()).await?;
        // It is opened once.
        let _ = shared.desk.set(desk);
        Ok(Self { shared })
    }

    /// How the service is.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn status(&self) -> Result<Status, ReachError> {
        self.shared.service.status().await
    }

    /// Waits until nothing that has come is unanswered, the clients have the answers and members that have joined have the state, and then leaves all troupes; from
    /// here on it joins none ([`JoinError::Closing`](super::JoinError::Closing)). A replica cannot refuse what the others
    /// execute: calls that come meanwhile are taken, so a node that is called without a pause is not drained. A client that never fetches its results holds this up
    /// for as long as they are retained: give it a bound. [`StationHandle::close`](mainstay_service::StationHandle::close) and
    /// [`Reach::close`](mainstay_service::Reach::close) do it within a time.
    ///
    /// # Errors
    /// [`ReachError`]: the service has ended, perhaps before all was answered.
    pub async fn drain(&self) -> Result<(), ReachError> {
        self.shared.drain().await
    }

    /// This node is to be a replica of the troupe called `name`: says what it serves, and [joins](Part::join).
    pub fn troupe(&self, name: &str) -> Part {
        Part::new(Arc::clone(&self.shared), name)
    }

    /// Calls a troupe as one that is not replicated: a thread of calls of this node alone.
    #[must_use]
    pub fn to(&self, troupe: &str) -> Caller {
        let thread = self.shared.tokens.fetch_add(1, Ordering::Relaxed);
        let name = format!("thread {thread}");
        Caller::new(&self.shared, None, &name, TroupeName::new(troupe), None)
    }

    /// The total order has brought a call of a troupe whose [`Sequence`](crate::Sequence) is `Cast`: what [`Part::order`] was told at some replica.
    /// Positions only grow.
    ///
    /// # Errors
    /// [`ReachError`]: the replica would not be as the others are, and has to leave.
    pub fn ordered(&self, troupe: &str, position: u64, call: Bytes) -> Result<(), ReachError> {
        let troupe = TroupeName::new(troupe);
        self.shared.try_give(Command::Ordered { troupe, position, call })
    }
}

impl fmt::Debug for TroupesHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TroupesHandle").finish_non_exhaustive()
    }
}

impl Replica {
    /// Calls another troupe as a replica of this one, in the thread called `thread`: the same at all replicas.
    #[must_use]
    pub fn to(&self, troupe: &str, thread: &str) -> Caller {
        let shared = self.shared();
        Caller::new(shared, Some(self.clone()), thread, TroupeName::new(troupe), None)
    }
}
