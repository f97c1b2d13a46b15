//! A replicated state machine on its node: the handle.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::{ClusterId, Duration, NodeId, Position};
use mainstay_paradigm::client::{Failed, NotDone, Outcome};
use mainstay_paradigm::{Commands, Envelope, StateMachine, decode_reply, encode_command};
use mainstay_runtime::{Closed, Inbox, Ports, SendError};
use tokio::sync::oneshot;

use crate::beside::Tasks;
use crate::command::{Ask, ReadFn, Submit};
use crate::config::{Config, StartError};
use crate::node::{Node, SiteRef};
use crate::outcome::{AcceptLossError, Answer, Fate};
use crate::queue::cost;
use crate::serve::Counters;
use crate::status::Status;

/// Bytes that a read or a question counts for.
const ASK: usize = 64;

/// A replicated state machine on its node: cheap to clone, `Send` and `Sync`. It does not keep the node running, unless it comes
/// from [`start`](Self::start).
pub struct Replicated<S: StateMachine + 'static> {
    pub(crate) name: Arc<str>,
    pub(crate) cluster: ClusterId,
    pub(crate) me: NodeId,
    pub(crate) clients: Arc<Counters>,
    pub(crate) submits: Inbox<Submit>,
    pub(crate) asks: Inbox<Ask<S>>,
    pub(crate) site: SiteRef,
    pub(crate) tasks: Tasks,
    /// How long the node takes to answer a command at most.
    pub(crate) deadline: Duration,
    /// Keeps the node running.
    pub(crate) node: Option<Node>,
}

impl<S: StateMachine + 'static> Replicated<S> {
    /// Starts a node with this one replicated state machine on it, named [`Config::GROUP`], on the caller's `LocalSet`. `make`
    /// makes the state machine before the first command; it is called again whenever the node starts anew in this process.
    /// The node stops when the last clone of the handle is dropped.
    ///
    /// A node that is started is not a member yet: commands are [`NotDone::NotMember`] until enough of the others are
    /// there ([`Node::ready`]). Reads the whole log before it returns.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: Config, make: impl FnMut() -> S + 'static) -> Result<Self, StartError> {
        let mut builder = Node::builder(config)?;
        let mut replicated = builder.replicate(Config::GROUP, make)?;
        replicated.node = Some(builder.start()?);
        Ok(replicated)
    }

    /// As [`start`](Self::start), with another outside than TCP, files, real time and the system's entropy: what
    /// simulates them, in a test. [`Config::listen`] and [`Config::data_dir`] are not heeded: the ports say where.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_with(
        config: Config,
        make: impl FnMut() -> S + 'static,
        ports: Ports,
    ) -> Result<Self, StartError> {
        let mut builder = Node::builder_without_tcp(config)?;
        let mut replicated = builder.replicate(Config::GROUP, make)?;
        replicated.node = Some(builder.start_with(ports)?);
        Ok(replicated)
    }

    /// The name of the group that it is on.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
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

    /// Executes a command with types, as [`execute`](Self::execute) does; [`session`](Self::session) is for those that must
    /// not be executed twice though an answer is lost.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn send(&self, command: impl Into<S::Command>) -> Result<S::Reply, Failed>
    where
        S: Commands,
    {
        let answer = self.execute(&encode_command::<S>(&command.into())).await.into_result()?;
        decode_reply::<S>(&answer)
    }

    /// Puts an [`Envelope`] with its command into the order and returns at once; `tell` is called once with what became of
    /// it, on the node's thread or, if there is no room for it now, with [`NotDone::Full`] on this one. It must not block.
    /// For callers with many commands in flight: no task and no future for each.
    ///
    /// There is room for 8 MiB of commands that are not cast yet, beside as much that is on its way to the others.
    pub fn submit(&self, payload: Bytes, tell: impl FnOnce(Fate) + Send + 'static) {
        let (weight, answer) = (cost(&payload), Answer::new(tell));
        refused(self.submits.try_send(weight, Submit { payload, answer }));
    }

    /// As [`submit`](Self::submit), but waits for room: a burst is slowed down, not refused. Who waits is served in the order
    /// of the calls. `tell` hears [`NotDone::Full`] only when the group has taken nothing for the whole of
    /// [`Config::deadline`]; then nothing was done, and to try again is safe.
    ///
    /// The future ends when the command is at the node, not when it is executed; one that is dropped before tells
    /// [`Fate::Unknown`].
    pub async fn submit_when_room(&self, payload: Bytes, tell: impl FnOnce(Fate) + Send + 'static) {
        let (weight, answer) = (cost(&payload), Answer::new(tell));
        refused(self.submits.send(weight, Submit { payload, answer }).await);
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
        let read = Box::new(move |state: Result<&S, NotDone>| {
            drop(tell.send(state.map(read)));
            0
        });
        let sent = self.asks.send(ASK, Ask::Read { read, local }).await;
        sent.map_err(|_| NotDone::Closed)?;
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
        refused_ask(self.asks.try_send(ASK, Ask::Read { read: uncounted(read), local }));
    }

    /// As [`submit_read`](Self::submit_read), but waits until the node takes the read.
    pub async fn submit_read_when_room(
        &self,
        local: bool,
        read: impl FnOnce(Result<&S, NotDone>) + Send + 'static,
    ) {
        self.ask_read(local, uncounted(read)).await;
    }

    pub(crate) async fn ask_read(&self, local: bool, read: ReadFn<S>) {
        refused_ask(self.asks.send(ASK, Ask::Read { read, local }).await);
    }

    /// How the node is.
    ///
    /// # Errors
    /// [`NotDone::Closed`].
    pub async fn status(&self) -> Result<Status, NotDone> {
        let (tell, told) = oneshot::channel();
        self.asks.send(ASK, Ask::Status(tell)).await.map_err(|_| NotDone::Closed)?;
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
        let sent = self.asks.send(ASK, Ask::AcceptLoss(tell)).await;
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
        refused_ask(self.asks.send(ASK, Ask::Skip { position, answer }).await);
        told.await.unwrap_or(Fate::Unknown).into()
    }

    /// Stops the node with all that is on it: what was admitted is still taken in. Answers how it ended.
    pub async fn close(self) -> Closed {
        self.site.stop();
        self.site.closed().await
    }

    /// How the node ended, as soon as it has. The future holds no handle.
    pub fn closed(&self) -> impl Future<Output = Closed> + Send + use<S> {
        let site = self.site.clone();
        async move { site.closed().await }
    }

    /// The node, if this handle is from [`start`](Self::start).
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }
}

/// Tells whoever asked.
fn refused(sent: Result<u64, SendError<Submit>>) {
    let Err(error) = sent else { return };
    let reason = reason(&error);
    error.into_inner().answer.tell(Fate::NotDone(reason));
}

fn uncounted<S>(read: impl FnOnce(Result<&S, NotDone>) + Send + 'static) -> ReadFn<S> {
    Box::new(move |state| {
        read(state);
        0
    })
}

fn refused_ask<S>(sent: Result<u64, SendError<Ask<S>>>) {
    let Err(error) = sent else { return };
    let reason = reason(&error);
    error.into_inner().refuse(reason);
}

fn reason<T>(error: &SendError<T>) -> NotDone {
    match error {
        SendError::Full(_) => NotDone::Full,
        SendError::Closed(_) => NotDone::Closed,
    }
}

impl<S: StateMachine + 'static> Clone for Replicated<S> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            cluster: self.cluster,
            me: self.me,
            clients: Arc::clone(&self.clients),
            submits: self.submits.clone(),
            asks: self.asks.clone(),
            site: self.site.clone(),
            tasks: self.tasks.clone(),
            deadline: self.deadline,
            node: self.node.clone(),
        }
    }
}

impl<S: StateMachine + 'static> fmt::Debug for Replicated<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicated").field("name", &self.name).finish_non_exhaustive()
    }
}
