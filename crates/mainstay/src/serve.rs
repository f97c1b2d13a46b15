//! Clients of a node: the other end of [`Client`](crate::Client), a task for each connection.
//!
//! Bounded: connections, requests of a connection without an answer (further ones are not read), the time that a client
//! may take to say hello, to send anything, and to read its answers. What is not the protocol ends its connection.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mainstay_base::Frame;
use mainstay_paradigm::client::NotDone;
use mainstay_paradigm::client::message::{
    MEMBERS_MAX, PAYLOAD_BYTES_MAX, Refusal, Reply, Request, Standing, VERSION,
};
use mainstay_paradigm::{self as paradigm, Envelope, StateMachine};
use mainstay_runtime::{ClientListener, ClientStream, Closed, TcpClients, TcpError};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::framed::Frames;
use crate::outcome::Fate;
use crate::replicated::Replicated;

/// Most clients at once; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// Most requests of a client without an answer.
const REQUESTS_MAX: usize = 64;
/// Answers of one client that are on their way to it, in bytes, as far as they can be foreseen: beyond, none of its requests is begun (1 MiB).
const ANSWERS_BYTES_MAX: usize = 1 << 20;
/// The same for the reads of all clients of a node: beyond, they are refused as [`NotDone::Full`] (64 MiB).
const READ_BYTES_MAX: usize = 64 << 20;
/// How long a client may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// How long a client may say nothing while it waits for nothing.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a client may take to read what is written to it.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// Answers are gathered for one write up to here (256 KiB).
const WRITE_BYTES: usize = 256 << 10;
/// The listener rests for so long after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a node has counted of its clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ClientStats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that stand.
    pub connected: u64,
    /// Requests taken.
    pub requests: u64,
    /// Connections ended because what came on them was not the protocol, or ended within a frame.
    pub garbage: u64,
    /// Connections ended because their hello meant another cluster or version.
    pub refused: u64,
    /// Connections ended because the client said nothing, or read nothing, for too long.
    pub silent: u64,
    /// Queries whose function panicked.
    pub queries_panicked: u64,
    /// Bytes that were read for clients and that they have not taken.
    pub unwritten_bytes: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    accepted: AtomicU64,
    connected: AtomicU64,
    requests: AtomicU64,
    garbage: AtomicU64,
    refused: AtomicU64,
    silent: AtomicU64,
    queries_panicked: AtomicU64,
    /// Bytes of what was read for clients and is not written to them.
    unwritten: AtomicUsize,
}

/// So many bytes of an answer are on their way, for as long as this lives.
struct OnItsWay(Arc<Counters>, usize);

impl OnItsWay {
    fn new(counters: &Arc<Counters>, bytes: usize) -> Self {
        counters.unwritten.fetch_add(bytes, Ordering::Relaxed);
        Self(Arc::clone(counters), bytes)
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.0.unwritten.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Counters {
    pub(crate) fn get(&self) -> ClientStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ClientStats {
            accepted: get(&self.accepted),
            connected: get(&self.connected),
            requests: get(&self.requests),
            garbage: get(&self.garbage),
            refused: get(&self.refused),
            silent: get(&self.silent),
            queries_panicked: get(&self.queries_panicked),
            unwritten_bytes: self.unwritten.load(Ordering::Relaxed),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Why a connection ended.
enum End {
    /// The client went, at the end of a frame.
    Gone,
    Garbage,
    Refused,
    Silent,
    Io,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

impl<S: StateMachine + 'static> Replicated<S> {
    /// Serves [clients](crate::Client) until the node has closed, on the caller's `LocalSet`; dropping the future ends all
    /// their connections. `query` answers their reads: it runs on the node's thread, sees a state that nobody changes
    /// meanwhile, and must be short. A query that makes it panic is refused as [`NotDone::Malformed`].
    ///
    /// At most 256 clients at once (further ones wait), of each at most 64 requests without an answer, and fewer when its answers are large. What was
    /// read for all of them and they have not taken is at most 64 MiB and one answer more: then reads are refused as
    /// [`NotDone::Full`]. A client that fails,
    /// sends what is not the protocol, or reads too slowly loses its connection, and is nobody's error.
    ///
    /// # Panics
    /// Outside a `LocalSet` of a tokio runtime with time.
    pub async fn serve_clients(
        &self,
        mut listener: Box<dyn ClientListener>,
        query: impl Fn(&S, &[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Closed {
        let query: Arc<Query<S>> = Arc::new(query);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut clients = JoinSet::new();
        let accept = async {
            // The semaphore is never closed.
            while let Ok(place) = Arc::clone(&places).acquire_owned().await {
                while clients.try_join_next().is_some() {}
                let Ok(stream) = listener.accept().await else {
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let conversation = Conversation::new(self.clone(), Arc::clone(&query));
                clients.spawn_local(async move {
                    conversation.hold(stream).await;
                    drop(place);
                });
            }
        };
        let closed = self.closed();
        tokio::select! {
            biased;
            closed = closed => closed,
            () = accept => self.closed().await,
        }
    }
}

impl<S: StateMachine + 'static> Replicated<S> {
    /// Serves [clients](crate::Client) over TCP, as [`serve_clients`](Self::serve_clients) does, in a task on the node's
    /// thread that ends with the node. Answers where it listens; with port 0 the system chooses one. Only loopback is
    /// allowed. Before the node is started it waits for that.
    ///
    /// # Errors
    /// [`ServeError`]; nothing is served.
    pub async fn serve(
        &self,
        address: SocketAddr,
        query: impl Fn(&S, &[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Result<SocketAddr, ServeError> {
        let (tell, told) = oneshot::channel();
        let node = Self { node: None, ..self.clone() };
        let begun = self.tasks.begin(move |_| {
            Box::pin(async move {
                let listening = TcpClients::new(address).map_err(ServeError::from);
                let bound = listening.and_then(|it| Ok((it.local_addr()?, it)));
                match bound {
                    Ok((address, listener)) => {
                        // Who asked and waits no more is served all the same.
                        drop(tell.send(Ok(address)));
                        node.serve_clients(Box::new(listener), query).await;
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            })
        });
        if begun.await {
            told.await.unwrap_or(Err(ServeError::Closed))
        } else {
            Err(ServeError::Closed)
        }
    }
}

/// Why clients are not served.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// It cannot listen there.
    #[error(transparent)]
    Listen(#[from] TcpError),
    /// The system does not say where it listens.
    #[error("no address: {0}")]
    Address(#[from] io::Error),
    /// The node has closed, or was not started.
    #[error("closed")]
    Closed,
}

/// Answers the commands of one client until it goes; it may not read.
pub(crate) async fn converse<S: StateMachine + 'static>(
    node: Replicated<S>,
    stream: Box<dyn ClientStream>,
) {
    Conversation::new(node, Arc::new(|_, _| Vec::new())).hold(stream).await;
}

type Query<S> = dyn Fn(&S, &[u8]) -> Vec<u8> + Send + Sync;
type Answers = mpsc::Sender<Answer>;
/// A reply, its payload, and the bytes that count as unwritten until it is written.
type Answer = (Reply, Bytes, Option<OnItsWay>);

/// A read that is out. If the node ends before it is evaluated the client is told so.
struct Reading {
    ticket: u64,
    answers: Answers,
    answered: bool,
}

impl Reading {
    fn tell(mut self, reply: Reply, payload: Bytes, way: Option<OnItsWay>) {
        self.answered = true;
        send(&self.answers, (reply, payload, way));
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if !self.answered {
            let reply = Reply::NotDone { ticket: self.ticket, reason: NotDone::Closed };
            send(&self.answers, (reply, Bytes::new(), None));
        }
    }
}

/// There is a place for each request that may be out: it fails only if the client is gone.
fn send(answers: &Answers, answer: Answer) {
    let _ = answers.try_send(answer);
}

/// Counts a connection for as long as it lasts, however it ends.
struct Connected(Arc<Counters>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Conversation<S: StateMachine + 'static> {
    node: Replicated<S>,
    query: Arc<Query<S>>,
    frames: Frames,
    /// Requests without an answer.
    open: usize,
    answers: Answers,
    answered: mpsc::Receiver<Answer>,
    output: BytesMut,
    /// Of what is in `output`.
    on_its_way: Vec<OnItsWay>,
    /// How large the next answers may be: as the last one, and shrinking with smaller ones.
    expected: usize,
    /// The client was told whom to ask instead.
    redirected: bool,
}

impl<S: StateMachine + 'static> Conversation<S> {
    fn new(node: Replicated<S>, query: Arc<Query<S>>) -> Self {
        let (answers, answered) = mpsc::channel(REQUESTS_MAX);
        Self {
            node,
            query,
            frames: Frames::new(),
            open: 0,
            answers,
            answered,
            output: BytesMut::new(),
            on_its_way: Vec::new(),
            expected: PAYLOAD_BYTES_MAX,
            redirected: false,
        }
    }

    async fn hold(mut self, stream: Box<dyn ClientStream>) {
        let counters = Arc::clone(&self.node.clients);
        count(&counters.accepted);
        count(&counters.connected);
        let _connected = Connected(Arc::clone(&counters));
        let (mut reader, mut writer) = split(stream);
        let ended = match self.greet(&mut reader, &mut writer).await {
            Ok(()) => self.converse(&mut reader, &mut writer).await,
            Err(end) => Err(end),
        };
        match ended {
            Err(End::Garbage) => count(&counters.garbage),
            Err(End::Refused) => count(&counters.refused),
            Err(End::Silent) => count(&counters.silent),
            Ok(()) | Err(End::Gone | End::Io) => {}
        }
    }

    async fn greet(
        &mut self,
        reader: &mut ReadHalf<Box<dyn ClientStream>>,
        writer: &mut WriteHalf<Box<dyn ClientStream>>,
    ) -> Result<(), End> {
        let first = timeout(HELLO_WITHIN, self.first(reader));
        let frame = first.await.map_err(|_| End::Silent)??;
        let Ok((Request::Hello { version_min, version_max, cluster, .. }, _)) =
            Request::decode(frame)
        else {
            return Err(End::Garbage);
        };
        let refusal = if cluster != self.node.cluster {
            Some(Refusal::Cluster)
        } else if !(version_min..=version_max).contains(&VERSION) {
            Some(Refusal::Version)
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.put(&Reply::Refused { reason }, Bytes::new());
            self.write(writer).await?;
            return Err(End::Refused);
        }
        let standing = self.standing().await;
        let node = self.node.me;
        let welcome = Reply::Welcome { version: VERSION, features: 0, node, standing };
        self.put(&welcome, Bytes::new());
        self.write(writer).await
    }

    async fn first(&mut self, reader: &mut ReadHalf<Box<dyn ClientStream>>) -> Result<Frame, End> {
        loop {
            if let Some(frame) = self.frames.next().map_err(|_| End::Garbage)? {
                return Ok(frame);
            }
            if reader.read_buf(self.frames.room()).await? == 0 {
                return Err(if self.frames.is_empty() { End::Gone } else { End::Garbage });
            }
        }
    }

    /// Until the client goes. What a client sent before it closed its side is still answered.
    async fn converse(
        &mut self,
        reader: &mut ReadHalf<Box<dyn ClientStream>>,
        writer: &mut WriteHalf<Box<dyn ClientStream>>,
    ) -> Result<(), End> {
        let mut idle_at = Instant::now() + IDLE_MAX;
        let mut ended = false;
        loop {
            while self.may_begin() {
                let Some(frame) = self.frames.next().map_err(|_| End::Garbage)? else { break };
                idle_at = Instant::now() + IDLE_MAX;
                let request = Request::decode(frame).map_err(|_| End::Garbage)?;
                self.on_request(request.0, request.1).await?;
            }
            if !self.output.is_empty() {
                self.write(writer).await?;
                continue;
            }
            if ended && self.open == 0 {
                return if self.frames.is_empty() { Ok(()) } else { Err(End::Garbage) };
            }
            tokio::select! {
                biased;
                Some(answer) = self.answered.recv() => {
                    self.on_answer(answer).await;
                    while self.output.len() < WRITE_BYTES
                        && let Ok(answer) = self.answered.try_recv()
                    {
                        self.on_answer(answer).await;
                    }
                }
                size = reader.read_buf(self.frames.room()), if !ended && self.may_begin() => {
                    ended = size? == 0;
                }
                () = sleep_until(idle_at), if self.open == 0 => return Err(End::Silent),
            }
        }
    }

    /// There is a place for another request, and room for its answer.
    fn may_begin(&self) -> bool {
        let bytes = self.expected.saturating_mul(self.open) + self.output.len();
        self.open < REQUESTS_MAX && (self.open == 0 || bytes < ANSWERS_BYTES_MAX)
    }

    fn put(&mut self, reply: &Reply, payload: Bytes) {
        let frame = reply.encode(payload);
        self.output.extend_from_slice(&frame.encode_head());
        self.output.extend_from_slice(&frame.payload);
    }

    async fn write(&mut self, writer: &mut WriteHalf<Box<dyn ClientStream>>) -> Result<(), End> {
        let output = self.output.split();
        let written = timeout(READ_WITHIN, async {
            writer.write_all(&output).await?;
            writer.flush().await
        });
        let done = written.await.map_err(|_| End::Silent)?.map_err(End::from);
        self.on_its_way.clear();
        done
    }

    async fn on_request(&mut self, request: Request, payload: Bytes) -> Result<(), End> {
        count(&self.node.clients.requests);
        match request {
            Request::Hello { .. } => return Err(End::Garbage),
            Request::Status { ticket } => {
                let standing = self.standing().await;
                self.put(&Reply::Standing { ticket, standing }, Bytes::new());
            }
            Request::Open { ticket, id } => self.submit(ticket, Envelope::Open { id }, &[]).await,
            Request::Close { ticket, session } => {
                self.submit(ticket, Envelope::Close { session }, &[]).await;
            }
            Request::Execute { ticket, session, number, acked_upto } => {
                let envelope = Envelope::Command { session, number, acked_upto };
                self.submit(ticket, envelope, &payload).await;
            }
            Request::Read { ticket, local } => self.read(ticket, local, payload).await,
        }
        Ok(())
    }

    /// Waits for room: meanwhile the client is not read.
    async fn submit(&mut self, ticket: u64, envelope: Envelope, command: &[u8]) {
        self.open += 1;
        let answers = self.answers.clone();
        let tell = move |fate| {
            let (reply, payload) = reply_to(ticket, fate);
            send(&answers, (reply, payload, None));
        };
        self.node.submit_when_room(envelope.encode(command), tell).await;
    }

    async fn read(&mut self, ticket: u64, local: bool, asked: Bytes) {
        self.open += 1;
        let reading = Reading { ticket, answers: self.answers.clone(), answered: false };
        let (query, counters) = (Arc::clone(&self.query), Arc::clone(&self.node.clients));
        let read = move |state: Result<&S, NotDone>| {
            let none = Bytes::new();
            let refused = |reason| Reply::NotDone { ticket, reason };
            let is_full = counters.unwritten.load(Ordering::Relaxed) >= READ_BYTES_MAX;
            let state = if is_full { state.and(Err(NotDone::Full)) } else { state };
            let bytes;
            match state.map(|state| catch_unwind(AssertUnwindSafe(|| query(state, &asked)))) {
                Ok(Ok(answer)) => {
                    bytes = answer.len();
                    if bytes <= PAYLOAD_BYTES_MAX {
                        let way = OnItsWay::new(&counters, bytes);
                        reading.tell(Reply::Done { ticket }, answer.into(), Some(way));
                    } else {
                        reading.tell(refused(NotDone::TooLarge), none, None);
                    }
                }
                Ok(Err(_)) => {
                    bytes = 0;
                    count(&counters.queries_panicked);
                    reading.tell(refused(NotDone::Malformed), none, None);
                }
                Err(reason) => {
                    bytes = 0;
                    reading.tell(refused(reason), none, None);
                }
            }
            bytes
        };
        self.node.ask_read(local, Box::new(read)).await;
    }

    /// An answer of the node. The first one that is better sought elsewhere comes with those who may give it.
    async fn on_answer(&mut self, (reply, payload, way): Answer) {
        self.open = self.open.saturating_sub(1);
        self.expected = payload.len().max(self.expected / 4);
        self.on_its_way.extend(way);
        let elsewhere = matches!(&reply, Reply::NotDone { reason, .. } if reason.is_elsewhere());
        if elsewhere && !self.redirected {
            let standing = Standing { serving: false, ..self.standing().await };
            self.put(&Reply::Standing { ticket: 0, standing }, Bytes::new());
        }
        self.redirected = elsewhere;
        self.put(&reply, payload);
    }

    async fn standing(&self) -> Standing {
        let Ok(status) = self.node.status().await else { return Standing::default() };
        let halted = matches!(status.replica.replica, Some(paradigm::Status::Poisoned { .. }));
        let has_state = status.replica.hash.is_some() || halted;
        status.site.stack.map_or_else(Standing::default, |stack| Standing {
            serving: has_state
                && !stack.minority
                && stack.members.iter().any(|member| member.node == self.node.me),
            view: stack.view.number,
            members: stack.members.iter().take(MEMBERS_MAX).map(|member| member.node).collect(),
        })
    }
}

/// What the client is told of a try.
fn reply_to(ticket: u64, fate: Fate) -> (Reply, Bytes) {
    use paradigm::Outcome as Is;
    let none = Bytes::new();
    let not_done = |reason| (Reply::NotDone { ticket, reason }, Bytes::new());
    match fate {
        Fate::Ordered(Is::Done(answer)) if answer.len() <= PAYLOAD_BYTES_MAX => {
            (Reply::Done { ticket }, answer)
        }
        Fate::Ordered(Is::Opened(session)) => (Reply::Opened { ticket, session }, none),
        Fate::Ordered(Is::Closed) => (Reply::Closed { ticket }, none),
        Fate::Ordered(Is::SessionExpired) => (Reply::Expired { ticket }, none),
        Fate::Ordered(Is::Skipped) => not_done(NotDone::Skipped),
        Fate::Ordered(Is::TooManyOutstanding) => not_done(NotDone::Full),
        Fate::Ordered(Is::Malformed) => not_done(NotDone::Malformed),
        Fate::NotDone(reason) => not_done(reason),
        Fate::Ordered(_) | Fate::Unknown => (Reply::Unknown { ticket }, none),
    }
}
