//! The client: its handle, and what its task hosts.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::{ClusterId, Duration, Instant, Machine, NodeId};
use mainstay_paradigm::client::message::PAYLOAD_BYTES_MAX;
use mainstay_paradigm::client::{self, Failed, Input, NotDone, Outcome, Output};
use mainstay_paradigm::{Commands, decode_reply, encode_command};
use mainstay_runtime::{
    ClientDialer, DialError, Entropy, EntropyError, NoLocalSet, OsEntropy, TcpDialer, TimeSource,
    TokioTime, local_set,
};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot};

use driver::Driver;

mod driver;

/// Calls at a time, and units of their bytes; further calls wait.
const CALLS_MAX: usize = 1_024;
const UNITS_MAX: usize = 16 << 10;
/// Bytes of a unit.
const UNIT: usize = 1 << 10;
/// Calls and questions that may wait for the client's task.
const POSTED_MAX: usize = 128;

/// The settings of a [`Client`].
#[derive(Clone, Debug)]
pub struct ClientConfig {
    cluster: ClusterId,
    endpoints: BTreeMap<String, SocketAddr>,
    deadline: Duration,
    in_flight: u64,
    patience: (Duration, Duration),
}

impl ClientConfig {
    /// Settings for `cluster`, whose nodes serve clients at `endpoints`, by the names of the nodes. The nodes tell the
    /// client which of them are members; it asks nobody that is not named here.
    #[must_use]
    pub fn new(cluster: ClusterId, endpoints: BTreeMap<String, SocketAddr>) -> Self {
        Self {
            cluster,
            endpoints,
            deadline: Duration::from_secs(10),
            in_flight: 32,
            patience: (Duration::from_secs(1), Duration::from_secs(3)),
        }
    }

    /// How long a call may take before it has its outcome, whatever that is. Default 10 s.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = limit;
        self
    }

    /// Most calls that wait for a node; not above the replicas' `answers_max`. Default 32.
    #[must_use]
    pub fn in_flight(mut self, count: u64) -> Self {
        self.in_flight = count;
        self
    }

    /// How long a node may take for the connection, and for an answer, until another one is asked. Default 1 s and 3 s;
    /// the second should be longer than [`Config::deadline`](crate::Config::deadline) of the nodes.
    #[must_use]
    pub fn patience(mut self, connect: Duration, answer: Duration) -> Self {
        self.patience = (connect, answer);
        self
    }

    fn addresses(&self) -> BTreeMap<NodeId, SocketAddr> {
        let node =
            |(name, address): (&String, &SocketAddr)| (NodeId::new(self.cluster, name), *address);
        self.endpoints.iter().map(node).collect()
    }
}

/// Why there is no client. Nothing runs.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The settings do not fit together.
    #[error(transparent)]
    Config(#[from] client::ConfigError),
    /// An endpoint may not be dialled.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No session id could be drawn. Retry may help.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// It is to run on this thread, and cannot: [`Client::spawn`] gives it one of its own.
    #[error(transparent)]
    NoLocalSet(#[from] NoLocalSet),
    /// There is no thread for it.
    #[error("no thread for the client: {0}")]
    Thread(std::io::Error),
}

/// How a client is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ClientStatus {
    /// The node that it is connected to and that serves.
    pub node: Option<NodeId>,
    /// The newest view that it was told: number and members.
    pub view: (u64, Vec<NodeId>),
    /// Calls without an outcome.
    pub calls: usize,
    /// Its counters.
    pub stats: client::Stats,
}

/// A client of a replicated state machine, in a process that is no member. Cheap to clone, `Send` and `Sync`; it runs on
/// the thread that made it, and stops when the last handle is dropped.
///
/// Calls of one client that are under way at the same time are executed in any order.
#[derive(Clone)]
pub struct Client {
    posts: mpsc::Sender<Posted>,
    places: Arc<Semaphore>,
    units: Arc<Semaphore>,
    deadline: Duration,
}

impl Client {
    /// Starts a client on the caller's `LocalSet`, over TCP on loopback. It connects by itself, now and whenever a node
    /// fails; no node need be there yet.
    ///
    /// # Errors
    /// [`ConnectError`]; outside a `LocalSet` it is [`ConnectError::NoLocalSet`], and a program that is built with `panic = "abort"` ends.
    ///
    /// # Panics
    /// If the runtime was built without time and net.
    pub fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        let time = Rc::new(TokioTime::new());
        Self::connect_over(config, Box::new(TcpDialer), time, &mut OsEntropy)
    }

    /// As [`connect`](Self::connect), on a thread of its own: from any runtime. The thread ends with the client.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn spawn(config: ClientConfig) -> Result<Self, ConnectError> {
        let (tell, told) = oneshot::channel();
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(Err(ConnectError::Thread(error)))),
            };
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let (dialer, time) = (Box::new(TcpDialer), Rc::new(TokioTime::new()));
                let addresses = config.addresses();
                match Self::prepare(&config, addresses, dialer, time, &mut OsEntropy) {
                    Err(error) => drop(tell.send(Err(error))),
                    Ok((client, driver)) => {
                        // Nobody waits any more: then it is dropped, and the client stops.
                        drop(tell.send(Ok(client)));
                        driver.run().await;
                    }
                }
            });
        };
        let thread = std::thread::Builder::new().name("mainstay-client".to_owned()).spawn(run);
        thread.map_err(ConnectError::Thread)?;
        // It says one or the other; a panic of the thread was told in the log.
        told.await.unwrap_or_else(|_| Err(ConnectError::Thread(std::io::ErrorKind::Other.into())))
    }

    /// As [`connect`](Self::connect), over ports of the caller's choice.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect_over(
        config: ClientConfig,
        dialer: Box<dyn ClientDialer>,
        time: Rc<dyn TimeSource>,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, ConnectError> {
        Self::over(&config, config.addresses(), dialer, time, entropy)
    }

    /// As `connect_over`, with the nodes and where they are in `addresses`.
    pub(crate) fn over(
        config: &ClientConfig,
        addresses: BTreeMap<NodeId, SocketAddr>,
        dialer: Box<dyn ClientDialer>,
        time: Rc<dyn TimeSource>,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, ConnectError> {
        local_set()?;
        let (client, driver) = Self::prepare(config, addresses, dialer, time, entropy)?;
        tokio::task::spawn_local(driver.run());
        Ok(client)
    }

    fn prepare(
        config: &ClientConfig,
        addresses: BTreeMap<NodeId, SocketAddr>,
        dialer: Box<dyn ClientDialer>,
        time: Rc<dyn TimeSource>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, Driver), ConnectError> {
        for address in addresses.values() {
            dialer.check(*address)?;
        }
        let (connect, answer) = config.patience;
        let machine = client::Config::new(config.cluster, addresses.keys().copied().collect())
            .in_flight(config.in_flight)
            .bounds(CALLS_MAX, UNITS_MAX * UNIT)
            .patience(connect, answer);
        let client = client::Client::new(machine, entropy.draw()?, entropy.draw()? as u64)?;
        let hosted = Hosted { client, callers: BTreeMap::new(), token: 0 };
        let (posts, posted) = mpsc::channel(POSTED_MAX);
        let driver = Driver::new(hosted, posted, dialer, addresses, time);
        let client = Self {
            posts,
            places: Arc::new(Semaphore::new(CALLS_MAX)),
            units: Arc::new(Semaphore::new(UNITS_MAX)),
            deadline: config.deadline,
        };
        Ok((client, driver))
    }

    /// Has a command executed, once. Waits for room first; then the outcome comes by the deadline.
    ///
    /// Dropping the future takes nothing back.
    pub async fn execute(&self, command: &[u8]) -> Outcome {
        let bytes = Bytes::copy_from_slice(command);
        self.call(command.len(), |within, tell| Posted::Execute { bytes, within, tell }).await
    }

    /// Has a command of `C`, the state machine on the nodes, executed once, and answers its reply.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn send<C: Commands>(
        &self,
        command: impl Into<C::Command>,
    ) -> Result<C::Reply, Failed> {
        let answer = self.execute(&encode_command::<C>(&command.into())).await.into_result()?;
        decode_reply::<C>(&answer)
    }

    /// Has a query answered from a state that has all that anybody was told of before this call (linearisable). Never
    /// [`Outcome::Unknown`].
    pub async fn read(&self, query: &[u8]) -> Outcome {
        self.read_at(query, false).await
    }

    /// Has a query answered from the state as it is at some node, perhaps an old one, and perhaps older than the one
    /// before. Never [`Outcome::Unknown`].
    pub async fn read_local(&self, query: &[u8]) -> Outcome {
        self.read_at(query, true).await
    }

    async fn read_at(&self, query: &[u8], local: bool) -> Outcome {
        let bytes = Bytes::copy_from_slice(query);
        let post = |within, tell| Posted::Read { bytes, local, within, tell };
        match self.call(query.len(), post).await {
            // The client halted: a read leaves no trace.
            Outcome::Unknown => Outcome::NotDone(NotDone::Closed),
            outcome => outcome,
        }
    }

    async fn call(
        &self,
        size: usize,
        post: impl FnOnce(Duration, oneshot::Sender<Outcome>) -> Posted,
    ) -> Outcome {
        if size > PAYLOAD_BYTES_MAX {
            return Outcome::NotDone(NotDone::TooLarge);
        }
        let units = size.div_ceil(UNIT) as u32;
        let (Ok(_place), Ok(_units)) =
            (self.places.acquire().await, self.units.acquire_many(units).await)
        else {
            return Outcome::NotDone(NotDone::Closed);
        };
        let (tell, told) = oneshot::channel();
        if self.posts.send(post(self.deadline, tell)).await.is_err() {
            return Outcome::NotDone(NotDone::Closed);
        }
        told.await.unwrap_or(Outcome::Unknown)
    }

    /// How the client is; `None`: it has closed.
    pub async fn status(&self) -> Option<ClientStatus> {
        let (tell, told) = oneshot::channel();
        self.posts.send(Posted::Status(tell)).await.ok()?;
        told.await.ok()
    }

    /// Closes: calls under way get their outcomes, then the session is closed and the client stops.
    pub async fn close(self) {
        // One that has closed before needs no word.
        let _ = self.posts.send(Posted::Close).await;
        self.posts.closed().await;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// What comes from the handles.
enum Posted {
    Execute { bytes: Bytes, within: Duration, tell: oneshot::Sender<Outcome> },
    Read { bytes: Bytes, local: bool, within: Duration, tell: oneshot::Sender<Outcome> },
    Status(oneshot::Sender<ClientStatus>),
    Close,
}

/// The machine, and who waits for it. A caller whose client halts is told `Unknown`.
struct Hosted {
    client: client::Client,
    callers: BTreeMap<u64, oneshot::Sender<Outcome>>,
    token: u64,
}

impl Hosted {
    fn caller(&mut self, tell: oneshot::Sender<Outcome>) -> u64 {
        self.token += 1;
        self.callers.insert(self.token, tell);
        self.token
    }

    fn status(&self) -> ClientStatus {
        ClientStatus {
            node: self.client.connected_to(),
            view: self.client.view(),
            calls: self.client.calls(),
            stats: self.client.stats(),
        }
    }

    fn on_posted(&mut self, now: Instant, posted: Posted) {
        let input = match posted {
            Posted::Execute { bytes, within, tell } => {
                let token = self.caller(tell);
                Input::Execute { token, command: bytes, deadline: now + within }
            }
            Posted::Read { bytes, local, within, tell } => {
                let token = self.caller(tell);
                Input::Read { token, query: bytes, local, deadline: now + within }
            }
            Posted::Status(tell) => {
                // Nobody waits any more: then nobody is answered.
                let _ = tell.send(self.status());
                return;
            }
            Posted::Close => Input::Close,
        };
        self.client.handle(now, input);
    }

    /// The next output that is not for a caller.
    fn poll_output(&mut self) -> Option<Output> {
        loop {
            match self.client.poll_output()? {
                Output::Answer { token, outcome } => {
                    if let Some(tell) = self.callers.remove(&token) {
                        // Nobody waits any more: then nobody is told.
                        let _ = tell.send(outcome);
                    }
                }
                output => return Some(output),
            }
        }
    }
}
