//! The node and its handle.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::{ClusterId, NodeId, Position};
use mainstay_paradigm::client::{NotDone, Outcome};
use mainstay_paradigm::{self as paradigm, Envelope, StateMachine};
use mainstay_runtime::{
    Closed, Disk, FileDisk, OsEntropy, Ports, SendError, Tcp, TcpOptions, TokioTime,
};
use mainstay_site::{self as site, SiteHandle, SiteParts};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::command::Command;
use crate::config::{Config, StartError, UNSTABLE_BYTES};
use crate::outcome::{AcceptLossError, Answer, Fate};
use crate::queue::{QUEUE_BYTES, Submitted, cost};
use crate::replicated::{Replicated, Settings};
use crate::serve::Counters;
use crate::status::Status;

/// A node of a replicated state machine: one site with one group. Cheap to clone, `Send` and `Sync`; the node runs on
/// the thread that started it, and stops when the last handle is dropped.
pub struct Node<S: StateMachine + 'static> {
    site: SiteHandle<Command<S>>,
    pub(crate) cluster: ClusterId,
    pub(crate) me: NodeId,
    pub(crate) clients: Arc<Counters>,
    /// Places for the bytes of commands that are not cast yet.
    places: Arc<Semaphore>,
}

impl<S: StateMachine + 'static> Node<S> {
    /// Starts a node on the caller's `LocalSet`, from what its directory holds. `make` makes the state machine before the
    /// first command; it is called again whenever the node starts anew in this process.
    ///
    /// A node that is started is not a member yet: commands are [`NotDone::NotMember`] until enough of the others are
    /// there. Reads the whole log before it returns.
    ///
    /// # Errors
    /// [`StartError`].
    ///
    /// # Panics
    /// Outside a `LocalSet` of a tokio runtime with time and net.
    pub fn start(config: Config, make: impl FnMut() -> S + 'static) -> Result<Self, StartError> {
        let Some(address) = config.nodes.get(&config.name) else {
            return Err(StartError::NotConfigured(config.name));
        };
        config.check_peers()?;
        let time = Rc::new(TokioTime::new());
        let mut tcp = TcpOptions::listening(config.listen.unwrap_or(*address));
        tcp.accepted_max = config.accepted_max.unwrap_or(tcp.accepted_max);
        tcp.queue_bytes_max = 5 * UNSTABLE_BYTES;
        let ports = Ports {
            transport: Box::new(Tcp::new(tcp, time.clone())?),
            disk: config
                .data_dir
                .as_ref()
                .map(|path| Box::new(FileDisk::new(path)) as Box<dyn Disk>),
            time,
            entropy: Box::new(OsEntropy),
        };
        Self::start_with(config, make, ports)
    }

    /// As [`start`](Self::start), with another outside than TCP, files, real time and the system's entropy: what
    /// simulates them, in a test. [`Config::listen`] and [`Config::data_dir`] are not heeded: the ports say where.
    ///
    /// # Errors
    /// [`StartError`].
    ///
    /// # Panics
    /// Outside a `LocalSet`.
    pub fn start_with(
        config: Config,
        make: impl FnMut() -> S + 'static,
        ports: Ports,
    ) -> Result<Self, StartError> {
        if !config.nodes.contains_key(&config.name) {
            return Err(StartError::NotConfigured(config.name));
        }
        let replica = match &config.replica {
            Some(replica) => replica.clone(),
            None => paradigm::Config::builder().build()?,
        };
        let group = config.group()?;
        let settings = Settings {
            group: group.group(),
            me: config.me(),
            level: config.level(),
            deadline: config.deadline,
            replica,
            turn_work: config.turn_work,
        };
        let me = config.me();
        let Config { cluster, name, nodes, pulse, trace, .. } = config;
        let Ports { transport, disk, time, entropy } = ports;
        let mut parts = SiteParts::new(cluster, name, nodes, transport, time, entropy);
        parts.options.pulse = pulse.unwrap_or_default();
        parts.groups = vec![group];
        parts.membership = parts.membership.with_timeout(config.timeout)?;
        parts.heartbeat = config.heartbeat;
        parts.window_bytes = 4 * UNSTABLE_BYTES;
        parts.disk = disk;
        parts.disk_reserve = config.disk_reserve;
        parts.bootstrap = config.bootstrap;
        parts.trace = trace;
        let application = Replicated::new(settings, Box::new(make));
        let site = site::start(parts, Box::new(application))?;
        let places = Arc::new(Semaphore::new(QUEUE_BYTES));
        Ok(Self { site, cluster, me, clients: Arc::default(), places })
    }

    /// Executes a command once, in the one order of all nodes. Waits for room at the node first, as
    /// [`submit_when_room`](Self::submit_when_room) does. From then on, the answer comes when the command has reached the
    /// level of the configured durability, or says by [`Config::deadline`] that there is none.
    ///
    /// Dropping the future takes nothing back.
    pub async fn execute(&self, command: &[u8]) -> Outcome {
        let (tell, told) = oneshot::channel();
        let payload = Envelope::Anonymous.encode(command);
        // Nobody waits any more: then nobody is told.
        self.submit_when_room(payload, move |fate| drop(tell.send(fate))).await;
        told.await.unwrap_or(Fate::Unknown).into()
    }

    /// Puts an [`Envelope`] with its command into the order and returns at once; `tell` is called once with what became of
    /// it, on the node's thread or, if there is no room for it now, with [`NotDone::Full`] on this one. It must not block.
    /// For callers with many commands in flight: no task and no future for each.
    ///
    /// There is room for 8 MiB of commands that are not cast yet, beside as much that is on its way to the others.
    pub fn submit(&self, payload: Bytes, tell: impl FnOnce(Fate) + Send + 'static) {
        let answer = Answer::new(tell);
        let Ok(_place) = Arc::clone(&self.places).try_acquire_many_owned(weight(&payload)) else {
            return answer.tell(Fate::NotDone(NotDone::Full));
        };
        let submitted = Submitted { payload, answer, _place };
        if let Err(refused) = self.site.try_send(Command::Submit(submitted)) {
            not_sent(refused);
        }
    }

    /// As [`submit`](Self::submit), but waits for room: a burst is slowed down, not refused. Who waits is served in the order
    /// of the calls. `tell` hears [`NotDone::Full`] only when the group has taken nothing for the whole of
    /// [`Config::deadline`]; then nothing was done, and to try again is safe.
    ///
    /// The future ends when the command is at the node, not when it is executed; one that is dropped before tells
    /// [`Fate::Unknown`].
    pub async fn submit_when_room(&self, payload: Bytes, tell: impl FnOnce(Fate) + Send + 'static) {
        let answer = Answer::new(tell);
        let _place = self.place(&payload).await;
        let submitted = Submitted { payload, answer, _place };
        if let Err(refused) = self.site.send(Command::Submit(submitted)).await {
            not_sent(refused);
        }
    }

    async fn place(&self, payload: &Bytes) -> OwnedSemaphorePermit {
        let places = Arc::clone(&self.places).acquire_many_owned(weight(payload)).await;
        places.expect("nobody closes the semaphore")
    }

    /// Reads a state that has all that anybody was told of before this call (linearisable): asks a majority first. `read`
    /// runs on the node's thread and must be short.
    ///
    /// # Errors
    /// [`NotDone`]; to try again is safe.
    pub async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&S) -> R + Send + 'static,
    ) -> Result<R, NotDone> {
        self.read_at(false, read).await
    }

    /// Reads the state as it is here, perhaps an old one.
    ///
    /// # Errors
    /// [`NotDone`]; to try again is safe.
    pub async fn read_local<R: Send + 'static>(
        &self,
        read: impl FnOnce(&S) -> R + Send + 'static,
    ) -> Result<R, NotDone> {
        self.read_at(true, read).await
    }

    async fn read_at<R: Send + 'static>(
        &self,
        local: bool,
        read: impl FnOnce(&S) -> R + Send + 'static,
    ) -> Result<R, NotDone> {
        let (tell, told) = oneshot::channel();
        let read = Box::new(move |state: Result<&S, NotDone>| drop(tell.send(state.map(read))));
        self.site.send(Command::Read { read, local }).await.map_err(|_| NotDone::Closed)?;
        told.await.unwrap_or(Err(NotDone::Closed))
    }

    /// As [`read`](Self::read), or [`read_local`](Self::read_local) with `local`, without waiting: `read` is called
    /// once, on the node's thread, or on this one with [`NotDone::Full`] or [`NotDone::Closed`]. If the node halts
    /// meanwhile it is dropped.
    pub fn submit_read(
        &self,
        local: bool,
        read: impl FnOnce(Result<&S, NotDone>) + Send + 'static,
    ) {
        if let Err(refused) = self.site.try_send(Command::Read { read: Box::new(read), local }) {
            not_sent(refused);
        }
    }

    /// As [`submit_read`](Self::submit_read), but waits until the node takes the read.
    pub async fn submit_read_when_room(
        &self,
        local: bool,
        read: impl FnOnce(Result<&S, NotDone>) + Send + 'static,
    ) {
        if let Err(refused) = self.site.send(Command::Read { read: Box::new(read), local }).await {
            not_sent(refused);
        }
    }

    /// How the node is.
    ///
    /// # Errors
    /// [`NotDone::Closed`].
    pub async fn status(&self) -> Result<Status, NotDone> {
        let (tell, told) = oneshot::channel();
        self.site.send(Command::Status(tell)).await.map_err(|_| NotDone::Closed)?;
        let replica = told.await.map_err(|_| NotDone::Closed)?;
        let site = self.site.status().await.ok_or(NotDone::Closed)?;
        Ok(Status { site, replica, clients: self.clients.get() })
    }

    /// An operator's word: rather let the group go on than wait for nodes that may have more of its past. Acknowledged
    /// commands may be lost. It counts at the next view and is used up by it.
    ///
    /// # Errors
    /// [`AcceptLossError`]: where neither the group is blocked nor the node in a minority there is nothing to accept.
    pub async fn accept_loss(&self) -> Result<(), AcceptLossError> {
        let (tell, told) = oneshot::channel();
        let sent = self.site.send(Command::AcceptLoss(tell)).await;
        sent.map_err(|_| AcceptLossError::Closed)?;
        told.await.unwrap_or(Err(AcceptLossError::Unknown))
    }

    /// An operator's word: pass over the command at `position`, whose execution panicked, at all nodes. They rebuild their
    /// states without it and go on. `Done` with an empty answer when that is in the order.
    ///
    /// Only when the status of every node says that it is poisoned at this very position: a node that has executed the
    /// command would differ from those that pass over it. If this node does not stand there, the answer is
    /// [`NotDone::NotPoisoned`]. To repeat an `Unknown` skip is safe.
    pub async fn skip(&self, position: Position) -> Outcome {
        let (tell, told) = oneshot::channel();
        // Nobody waits any more: then nobody is told.
        let answer = Answer::new(move |fate| drop(tell.send(fate)));
        if let Err(refused) = self.site.send(Command::Skip { position, answer }).await {
            not_sent(refused);
        }
        told.await.unwrap_or(Fate::Unknown).into()
    }

    /// Stops the node: what was admitted is still taken in. Answers how it ended.
    pub async fn close(self) -> Closed {
        self.site.stop();
        self.site.closed().await
    }

    /// How the node ended, as soon as it has. The future holds no handle.
    pub fn closed(&self) -> impl Future<Output = Closed> + Send + use<S> {
        self.site.closed()
    }
}

/// The places of a command; one that is larger than all of them is refused by the group.
fn weight(payload: &Bytes) -> u32 {
    cost(payload).min(QUEUE_BYTES) as u32
}

/// Tells whoever asked.
fn not_sent<S>(refused: SendError<Command<S>>) {
    let reason = match &refused {
        SendError::Full(_) => NotDone::Full,
        SendError::Closed(_) => NotDone::Closed,
    };
    match refused.into_inner() {
        Command::Submit(Submitted { answer, .. }) | Command::Skip { answer, .. } => {
            answer.tell(Fate::NotDone(reason))
        }
        Command::Read { read, .. } => read(Err(reason)),
        Command::Status(_) | Command::AcceptLoss(_) => {}
    }
}

impl<S: StateMachine + 'static> Clone for Node<S> {
    fn clone(&self) -> Self {
        let Self { site, cluster, me, clients, places } = self;
        Self {
            site: site.clone(),
            cluster: *cluster,
            me: *me,
            clients: Arc::clone(clients),
            places: Arc::clone(places),
        }
    }
}

impl<S: StateMachine + 'static> fmt::Debug for Node<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.site).finish()
    }
}
