//! Sessions within a node: the client of the node, over a stream within its thread instead of TCP.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::Duration;
use mainstay_paradigm::client::Failed;
use mainstay_paradigm::{Commands, StateMachine};
use mainstay_runtime::{ClientDialer, ClientStream, DialError, LocalFuture};
use tokio::sync::oneshot;

use crate::client::{Client, ClientConfig, ClientStatus, ConnectError};
use crate::replicated::Replicated;
use crate::serve::converse;

/// Bytes on their way between a session and its node (256 KiB).
const STREAM_BYTES: usize = 256 << 10;
/// No session gives a command less time than this.
const WITHIN_MIN: Duration = Duration::from_secs(10);
/// How much longer than the node a session waits for an answer before it asks again.
const ANSWER_MARGIN: Duration = Duration::from_secs(1);

/// Why there is no session.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum SessionError {
    /// It cannot be set up. To try again may help.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The node has closed, or was not started.
    #[error("closed")]
    Closed,
}

/// A session at a node: a command whose answer is lost is sent again under the same number, also when the node was declared
/// dead meanwhile and has started anew in its process. So it is executed once, and is [`Failed::Unknown`] only if nobody can
/// say by the deadline. What is [`Failed::NotDone`] was tried until then, or can never be done.
///
/// Cheap to clone, `Send` and `Sync`; the clones share one session. At most 32 commands are on their way at a time, further
/// ones wait. They are executed in any order; who needs one waits for the first answer.
///
/// It does not keep the node running. The last clone that is dropped leaves the session open until as many newer ones are
/// used that the replicas forget it ([`ReplicaConfig`](crate::ReplicaConfig)); [`close`](Self::close) ends it at once.
pub struct NodeSession<S> {
    client: Client,
    machine: PhantomData<fn() -> S>,
}

impl<S: StateMachine + 'static> Replicated<S> {
    /// Begins a session. Its commands have 10 s, or three times [`Config::deadline`](crate::Config::deadline) if that is
    /// longer. Before the node is started it waits for that; that the node is a member it does not wait for.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn session(&self) -> Result<NodeSession<S>, SessionError> {
        self.session_within(WITHIN_MIN.max(self.deadline * 3)).await
    }

    /// As [`session`](Self::session), with another time for each command.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn session_within(&self, within: Duration) -> Result<NodeSession<S>, SessionError> {
        let (tell, told) = oneshot::channel();
        // It neither keeps the node running nor counts among the clients that come over the network.
        let node = Self { node: None, clients: Arc::default(), ..self.clone() };
        let patience = node.deadline + ANSWER_MARGIN;
        let config = ClientConfig::new(node.cluster, [].into())
            .deadline(within)
            .patience(Duration::from_secs(1), patience);
        let begun = self.tasks.begin(move |outside| {
            let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let addresses = [(node.me, here)].into();
            let (time, mut entropy) = (outside.time.clone(), outside.entropy.clone());
            let dialer = Box::new(Within(node));
            let client = Client::over(&config, addresses, dialer, time, &mut entropy);
            // Nobody waits any more: then the client stops.
            drop(tell.send(client));
            Box::pin(async {})
        });
        if !begun.await {
            return Err(SessionError::Closed);
        }
        let client = told.await.map_err(|_| SessionError::Closed)??;
        Ok(NodeSession { client, machine: PhantomData })
    }
}

impl<S> NodeSession<S> {
    /// Executes a command once; answers what the state machine does.
    ///
    /// Dropping the future takes nothing back.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn execute(&self, command: &[u8]) -> Result<Bytes, Failed> {
        self.client.execute(command).await.into_result()
    }

    /// Executes a command with types once.
    ///
    /// Dropping the future takes nothing back.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn send(&self, command: impl Into<S::Command>) -> Result<S::Reply, Failed>
    where
        S: Commands,
    {
        self.client.send::<S>(command).await
    }

    /// How it is; `None`: it has closed.
    pub async fn status(&self) -> Option<ClientStatus> {
        self.client.status().await
    }

    /// Ends the session, after the commands that are on their way.
    pub async fn close(self) {
        self.client.close().await;
    }
}

impl<S> Clone for NodeSession<S> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), machine: PhantomData }
    }
}

impl<S> fmt::Debug for NodeSession<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeSession").field(&self.client).finish()
    }
}

/// Reaches the node that it is on.
struct Within<S: StateMachine + 'static>(Replicated<S>);

impl<S: StateMachine + 'static> ClientDialer for Within<S> {
    fn check(&self, _addr: SocketAddr) -> Result<(), DialError> {
        Ok(())
    }

    fn dial(&mut self, _addr: SocketAddr) -> LocalFuture<io::Result<Box<dyn ClientStream>>> {
        let node = self.0.clone();
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(STREAM_BYTES);
            // It ends when the client lets go of its end.
            tokio::task::spawn_local(converse(node, Box::new(far)));
            Ok(Box::new(near) as Box<dyn ClientStream>)
        })
    }
}
