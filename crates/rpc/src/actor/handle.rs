//! The handle of the service of calls.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mainstay_base::{ClusterId, Instant, NodeId};
use mainstay_runtime::{LocalReader, Recipient, TimeSource as _, TokioTime};
use mainstay_service::{CommandQueue, Desk, OpenError, ReachError, ServiceHandle};
use thiserror::Error;
use tokio::sync::{Notify, oneshot, watch};

use super::executor::{Executor, Table, ended};
use super::notices::{Loss, Losses, Watches, look};
use super::seams::{CallInfo, Interceptor, Nodes, Resolver};
use super::served::{NoResult, Port, Running, Served};
use super::servers::Hosts;
use super::stream;
use super::{Among, Caller, Context, Incoming, Procedure};
use crate::{Command, Failure, Finish, Outcome, ProcedureId, Reason, Rpc, Semantics, Status};

/// So many commands may wait for the node's next turn.
const COMMANDS_MAX: usize = 1 << 17;

/// Why a procedure is not served. Nothing changed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServeError {
    /// One with this name is served already, or one whose name has the same hash.
    #[error("a procedure with this name, or the same hash of it, is served already: {0:?}")]
    Taken(&'static str),
    /// The service was not reached.
    #[error(transparent)]
    Reach(#[from] ReachError),
}

struct Waiting {
    semantics: Semantics,
    tell: oneshot::Sender<Outcome>,
}

pub(super) struct Shared {
    pub(super) service: ServiceHandle<Rpc>,
    pub(super) commands: CommandQueue<Rpc>,
    pub(super) me: NodeId,
    /// By the wall clock.
    #[cfg(feature = "tracing")]
    pub(super) started: Duration,
    /// How long results are kept by names.
    pub(super) keep: Option<Duration>,
    #[cfg(feature = "test-util")]
    pub(super) fault: Option<crate::fault::Fault>,
    resolver: Box<dyn Resolver>,
    interceptors: Vec<Box<dyn Interceptor>>,
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    table: Mutex<Table>,
    desk: OnceLock<Desk>,
    #[cfg(feature = "streams")]
    pub(super) streams: stream::Streams,
    pub(super) hosts: Mutex<Hosts>,
    pub(super) watches: Watches,
    #[cfg(feature = "names")]
    pub(super) naming: super::names::Naming,
    /// What is served changes for one after the other: the table, and then the service.
    pub(super) serving: tokio::sync::Mutex<()>,
    /// Somebody looks whether actors that serve are there.
    looks: AtomicBool,
    tokens: AtomicU64,
    lanes: AtomicU32,
    is_open: AtomicBool,
    /// A drain was asked for, and the service has not ended since.
    pub(super) is_draining: AtomicBool,
    /// How often the service has ended.
    ends: Mutex<u64>,
    time: LocalReader,
    /// Nothing is executed any more after a drain, or the service has ended.
    drained: watch::Sender<bool>,
    /// Of the nodes that somebody waits for.
    pub(super) losses: Mutex<BTreeMap<NodeId, Losses>>,
    lost: Notify,
}

impl Drop for Shared {
    /// What nobody would hand on is served no more.
    fn drop(&mut self) {
        for procedure in locked(&self.table).keys().copied() {
            // A node that takes nothing now ends what it hands out at its deadline.
            let _ = self.commands.push(Command::Withdraw { procedure });
        }
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Tells the service what is served, when it begins and when it begins anew.
    pub(super) async fn tell_served(&self) -> Result<(), ReachError> {
        // What lapses meanwhile is taken from the service behind this.
        let _turn = self.serving.lock().await;
        let before = *locked(&self.ends);
        let served: Vec<_> =
            locked(&self.table).iter().map(|(id, it)| (*id, it.versions())).collect();
        for (procedure, versions) in served {
            self.service.send(Command::Serve { procedure, versions }).await?;
        }
        let ends = locked(&self.ends);
        // It may have ended again meanwhile.
        self.is_open.store(*ends == before, Ordering::SeqCst);
        Ok(())
    }

    /// The time of this process, for what is left and what was taken.
    pub(super) fn now(&self) -> Instant {
        (self.time)()
    }

    pub(super) fn served(&self, procedure: ProcedureId) -> Option<Arc<dyn Served>> {
        locked(&self.table).get(&procedure).cloned()
    }

    pub(super) fn all_served(&self) -> Vec<(ProcedureId, Arc<dyn Served>)> {
        locked(&self.table).iter().map(|(id, served)| (*id, Arc::clone(served))).collect()
    }

    /// It is served no more.
    pub(super) fn strike(&self, procedure: ProcedureId) {
        locked(&self.table).remove(&procedure);
    }

    /// Runs something on the thread on which the handle was opened.
    pub(super) fn run(&self, run: impl FnOnce() -> Running<()> + Send + 'static) {
        if let Some(desk) = self.desk.get() {
            desk.run(run);
        }
    }

    /// The service runs, and knows what is served.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    /// Names a call or a stream.
    pub(super) fn next_token(&self) -> u64 {
        self.tokens.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn next_lane(&self) -> u32 {
        self.lanes.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn resolve(&self, name: &str) -> Vec<NodeId> {
        self.resolver.resolve(name)
    }

    /// Makes a call of a request; the outcome comes to the receiver. On drop of the guard it is taken back.
    pub(super) fn ask(
        self: &Arc<Self>,
        semantics: Semantics,
        request: impl FnOnce(u64) -> Command,
    ) -> Result<Asked, Failure> {
        if !self.is_open.load(Ordering::SeqCst) {
            return Err(Failure::not_at_all(Reason::Ended));
        }
        let token = self.next_token();
        let (tell, told) = oneshot::channel();
        locked(&self.waiting).insert(token, Waiting { semantics, tell });
        if let Err(error) = self.commands.push(request(token)) {
            locked(&self.waiting).remove(&token);
            let reason = if error == ReachError::Full { Reason::Full } else { Reason::Ended };
            return Err(Failure::not_at_all(reason));
        }
        // The service may have ended, and all who waited have been told, before this one was among them.
        if !self.is_open.load(Ordering::SeqCst) && locked(&self.waiting).remove(&token).is_some() {
            return Err(Failure { executed: semantics.unknown(), reason: Reason::Ended });
        }
        Ok(Asked { shared: Arc::clone(self), token, told, is_over: false })
    }

    pub(super) fn over(&self, token: u64, outcome: Outcome) {
        let waiting = locked(&self.waiting).remove(&token);
        if let Some(waiting) = waiting {
            // Nobody waits any more: then nobody is told.
            let _ = waiting.tell.send(outcome);
        }
    }

    /// The service is gone, and with it all that was asked of it.
    pub(super) fn end(&self) {
        {
            let mut ends = locked(&self.ends);
            *ends += 1;
            self.is_open.store(false, Ordering::SeqCst);
            self.is_draining.store(false, Ordering::SeqCst);
        }
        self.lost(self.me);
        self.forsake_all();
        self.part_all();
        self.drained.send_replace(true);
        for (_, waiting) in std::mem::take(&mut *locked(&self.waiting)) {
            let _ = waiting.tell.send(ended(waiting.semantics));
        }
    }

    pub(super) fn lost(&self, server: NodeId) {
        self.lose_readers(server);
        #[cfg(feature = "names")]
        self.naming.lose(server);
        if let Some(losses) = locked(&self.losses).get_mut(&server) {
            losses.count += 1;
        }
        self.lost.notify_waiters();
    }

    pub(super) async fn drain(&self) -> Result<(), ReachError> {
        self.is_draining.store(true, Ordering::SeqCst);
        loop {
            self.end_plain_offers();
            self.drained.send_replace(false);
            let mut drained = self.drained.subscribe();
            let sent = self.service.send(Command::Drain).await;
            sent.inspect_err(|_| self.is_draining.store(false, Ordering::SeqCst))?;
            // The sender lives in here.
            let _ = drained.wait_for(|it| *it).await;
            // What was executed may go on in a stream; its last items have to arrive as well.
            if !self.is_open() || !self.offers_ended().await {
                break;
            }
        }
        if self.is_open.load(Ordering::Acquire) { Ok(()) } else { Err(ReachError::Closed) }
    }

    pub(super) fn drained(&self) {
        self.drained.send_replace(true);
    }

    pub(super) fn intercepted(
        &self,
        info: &CallInfo,
        context: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        self.interceptors.iter().try_for_each(|it| it.call(info, context))
    }

    pub(super) fn has_interceptors(&self) -> bool {
        !self.interceptors.is_empty()
    }

    pub(super) fn called(&self, info: &CallInfo, outcome: &Outcome, took: Duration) {
        self.interceptors.iter().for_each(|it| it.called(info, outcome, took));
    }

    pub(super) fn admits(&self, info: &CallInfo, context: &Context) -> bool {
        self.interceptors.iter().all(|it| it.admit(info, context))
    }

    /// A call of the own node was executed: its result has no bytes.
    pub(super) fn was_served(&self, info: &CallInfo, failed: Option<NoResult>, begun: Instant) {
        if self.has_interceptors() {
            let finish = match failed {
                None => Finish::Value(Bytes::new()),
                Some(NoResult::NotServed) => Finish::NotServed,
                Some(NoResult::Failed) => Finish::Failed,
            };
            self.served_one(info, &finish, self.now().saturating_since(begun));
        }
    }

    pub(super) fn served_one(&self, info: &CallInfo, result: &Finish, took: Duration) {
        self.interceptors.iter().for_each(|it| it.executed(info, result, took));
    }
}

/// A call on its way.
pub(super) struct Asked {
    shared: Arc<Shared>,
    token: u64,
    told: oneshot::Receiver<Outcome>,
    is_over: bool,
}

impl Asked {
    /// Nobody waits for the outcome.
    #[cfg(any(feature = "names", feature = "streams"))]
    pub(super) fn forget(mut self) {
        self.is_over = true;
        locked(&self.shared.waiting).remove(&self.token);
    }

    pub(super) async fn outcome(mut self, semantics: Semantics) -> Outcome {
        let outcome = (&mut self.told).await;
        self.is_over = true;
        outcome.unwrap_or_else(|_| ended(semantics))
    }
}

impl Drop for Asked {
    /// A future that is dropped takes its call back.
    fn drop(&mut self) {
        if !self.is_over && locked(&self.shared.waiting).remove(&self.token).is_some() {
            // If there is no room for the word, the deadline ends the call.
            let _ = self.shared.commands.push(Command::Cancel { token: self.token });
        }
    }
}

/// Makes and serves calls of a node: cheap to clone, `Send` and `Sync`. With the last handle what it serves is withdrawn; executions and callers
/// keep one.
#[derive(Clone)]
pub struct RpcHandle {
    shared: Arc<Shared>,
}

impl RpcHandle {
    /// The handle of the service at the node called `name`: opened once, and cloned. What hands calls to actors is started on the caller's
    /// `LocalSet`, and lives as long as a handle does.
    ///
    /// # Errors
    /// [`OpenError`]; outside a `LocalSet` it is [`OpenError::NoLocalSet`].
    pub async fn open(
        service: ServiceHandle<Rpc>,
        cluster: ClusterId,
        name: &str,
    ) -> Result<Self, OpenError> {
        Self::open_with(service, NodeId::new(cluster, name), Box::new(Nodes(cluster)), Vec::new())
            .await
    }

    /// The same with another resolver of names, and with interceptors, which are asked in this order.
    ///
    /// # Errors
    /// [`OpenError`]; outside a `LocalSet` it is [`OpenError::NoLocalSet`].
    pub async fn open_with(
        service: ServiceHandle<Rpc>,
        me: NodeId,
        resolver: Box<dyn Resolver>,
        interceptors: Vec<Box<dyn Interceptor>>,
    ) -> Result<Self, OpenError> {
        let status = service.status().await?;
        let time = TokioTime::new().reader().expect("it is read on any thread");
        let commands = CommandQueue::new(service.clone(), COMMANDS_MAX);
        let shared = Arc::new(Shared {
            service,
            commands,
            me,
            #[cfg(feature = "tracing")]
            started: mainstay_runtime::wall_clock(),
            keep: status.keep,
            #[cfg(feature = "test-util")]
            fault: status.fault,
            resolver,
            interceptors,
            waiting: Mutex::default(),
            table: Mutex::default(),
            desk: OnceLock::new(),
            #[cfg(feature = "streams")]
            streams: stream::Streams::new(status.body_bytes_max),
            hosts: Mutex::default(),
            watches: Watches::default(),
            #[cfg(feature = "names")]
            naming: super::names::Naming::default(),
            serving: tokio::sync::Mutex::default(),
            looks: AtomicBool::new(false),
            tokens: AtomicU64::new(1),
            lanes: AtomicU32::new(1),
            is_open: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            ends: Mutex::new(0),
            time,
            drained: watch::Sender::new(false),
            losses: Mutex::default(),
            lost: Notify::new(),
        });
        let desk = Desk::open(&shared, Executor::default()).await?;
        // It is opened once.
        let _ = shared.desk.set(desk);
        let rpc = Self { shared };
        match stream::serve(&rpc).await {
            Ok(()) | Err(ServeError::Taken(_)) => Ok(rpc),
            Err(ServeError::Reach(error)) => Err(error.into()),
        }
    }

    #[cfg(feature = "names")]
    pub(super) fn of(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The service: its status, for instance.
    #[must_use]
    pub fn service(&self) -> &ServiceHandle<Rpc> {
        &self.shared.service
    }

    /// How the service is.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn status(&self) -> Result<Status, ReachError> {
        self.shared.service.status().await
    }

    /// Calls of this node: a caller of its own, whose calls are executed one after the other, in their order, wherever they go. Its clones
    /// are the same caller.
    #[must_use]
    pub fn to(&self, server: NodeId) -> Caller {
        Caller::new(Arc::clone(&self.shared), server)
    }

    /// The same for the best of the nodes that are meant by a name.
    ///
    /// # Errors
    /// [`Reason::Unresolved`]: the name means nothing.
    pub fn to_name(&self, name: &str) -> Result<Caller, Failure> {
        let server = self.shared.resolve(name).into_iter().next();
        server.map(|server| self.to(server)).ok_or(Failure::not_at_all(Reason::Unresolved))
    }

    /// Whichever of several nodes answers; the best one first.
    #[must_use]
    pub fn among(&self, servers: impl IntoIterator<Item = NodeId>) -> Among {
        Among::new(servers.into_iter().map(|server| self.to(server)).collect())
    }

    /// The same for all nodes that are meant by a name.
    ///
    /// # Errors
    /// [`Reason::Unresolved`]: the name means nothing.
    pub fn among_name(&self, name: &str) -> Result<Among, Failure> {
        let servers = self.shared.resolve(name);
        if servers.is_empty() {
            return Err(Failure::not_at_all(Reason::Unresolved));
        }
        Ok(self.among(servers))
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// From here on an actor serves a procedure, for all nodes. When it has ended the procedure is withdrawn: calls are told that it is not served, and were not
    /// executed, and those who [watch](Self::watch) it are told. Of what was in its mailbox by then it is not known whether it was executed
    /// ([`Refusal::Handler`](crate::Refusal::Handler)).
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn serve<P: Procedure>(&self, to: Recipient<P>) -> Result<(), ServeError> {
        self.table::<P>(Port::actor(to)).await
    }

    /// The same for an actor that wants to know the context of calls.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn serve_incoming<P: Procedure>(
        &self,
        to: Recipient<Incoming<P>>,
    ) -> Result<(), ServeError> {
        self.table::<P>(Port::incoming(to)).await
    }

    /// The same for a function. When its execution is stopped the future is dropped.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn serve_fn<P, F, R>(&self, serve: F) -> Result<(), ServeError>
    where
        P: Procedure,
        F: Fn(P, Context) -> R + Send + Sync + 'static,
        R: Future<Output = P::Result> + 'static,
    {
        self.table::<P>(Port::function(serve)).await
    }

    pub(super) async fn table<P: Procedure>(
        &self,
        served: Arc<dyn Served>,
    ) -> Result<(), ServeError> {
        let _turn = self.shared.serving.lock().await;
        let may_end = served.may_end();
        if self.shared.served(P::ID).is_some_and(|it| !it.is_there()) {
            // Those who watch the one that has ended are told of that, and not left with the next one.
            self.shared.service.send(Command::Gone { procedure: P::ID }).await?;
        }
        {
            let mut table = locked(&self.shared.table);
            if let Some(there) = table.get(&P::ID).filter(|it| it.is_there()) {
                return Err(ServeError::Taken(there.name()));
            }
            table.insert(P::ID, Arc::clone(&served));
        }
        if may_end && !self.shared.looks.swap(true, Ordering::SeqCst) {
            let shared = Arc::downgrade(&self.shared);
            self.shared.run(move || Box::pin(look(shared)));
        }
        let (procedure, versions) = (P::ID, served.versions());
        let told = self.shared.service.send(Command::Serve { procedure, versions }).await;
        if told.is_err() {
            locked(&self.shared.table).remove(&P::ID);
        }
        Ok(told?)
    }

    /// The procedure is not served any more. What is being executed goes on; what waits for its turn is refused, and not executed.
    ///
    /// # Errors
    /// [`ReachError`]: it is served still, as long as the service is.
    pub async fn withdraw<P: Procedure>(&self) -> Result<(), ReachError> {
        let _turn = self.shared.serving.lock().await;
        self.shared.service.send(Command::Withdraw { procedure: P::ID }).await?;
        self.shared.strike(P::ID);
        Ok(())
    }

    /// Takes no call any more, but those by which the streams are read that it offers, and waits until those that were taken are answered and the clients that are connected have the answers, and streams that are a part of them ([`Context::offer`]) are read to their end. Streams of [`RpcHandle::offer`] end. Others are told that theirs were not executed; those that
    /// nobody answers are dropped. [`StationHandle::close`](mainstay_service::StationHandle::close) and
    /// [`Reach::close`](mainstay_service::Reach::close) do it for all services of a node, within a time. Of at-least-once calls nothing is kept, so their answers are sent and not waited for. A client that is connected and never says that it has its results holds this up for as long: without such a bound, give it one.
    ///
    /// # Errors
    /// [`ReachError`]: the service has ended, perhaps before all was answered.
    pub async fn drain(&self) -> Result<(), ReachError> {
        self.shared.drain().await
    }

    /// Waits until the server at a node is lost: its node was restarted or left, or its service has ended. Whatever it executed is over, or
    /// will be, unless it [stores](crate::Config::stored) its results. The end of the own service counts as well. What came before this call does not.
    pub async fn lost(&self, server: NodeId) {
        let (other, own) = (Loss::of(&self.shared, server), Loss::of(&self.shared, self.shared.me));
        loop {
            let told = self.shared.lost.notified();
            if other.has_come() || own.has_come() {
                return;
            }
            told.await;
        }
    }
}

impl fmt::Debug for RpcHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcHandle").field("me", &self.shared.me).finish_non_exhaustive()
    }
}
