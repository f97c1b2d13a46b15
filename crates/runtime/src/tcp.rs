//! Frames over TCP, on loopback only.
//!
//! One task per connection reads and writes. It reads into one large buffer, cuts the frames out of it without copying,
//! and delivers all frames of one read as one event; while the sink is full it does not read, and so the peer is held
//! back. What is queued since the last write leaves in one vectored write: heads and small payloads copied into one
//! buffer, large payloads as they are. The queue is bounded in bytes: a peer that lets it fill loses the connection.
//!
//! A frame that is kept keeps the buffer of its read (up to 256 KiB) alive; whoever keeps small frames for long copies
//! them.
//!
//! Nothing here proves who the peer is or hides what is said: addresses other than loopback are refused until there is
//! TLS.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use mainstay_base::frame::{BODY_SIZE_MAX, HEADER_SIZE};
use mainstay_base::{ConnId, Frame, Instant, NodeId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use crate::ports::{
    CloseReason, DialError, EventSink, LocalFuture, TimeSource, Transport, TransportEvent,
};

mod connection;
mod inbox;
mod outbox;

use crate::loopback::may_dial;
pub use crate::loopback::{TcpClients, TcpDialer, TcpError, TcpReserved};
use connection::Connection;

/// Bytes queued on a connection from which on they leave without waiting for a flush.
const FLUSH_BYTES: usize = 64 << 10;
/// How long the listener rests after the operating system refused to accept (too many files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The bounds of the transport.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TcpOptions {
    /// Where to listen; `None`: dial only. Default `None`.
    pub listen: Option<SocketAddr>,
    /// Most accepted connections that stand at a time; further ones are closed at once. Default 256.
    pub accepted_max: usize,
    /// Most bytes queued on one connection; at least one largest frame. Default 8 MiB.
    pub queue_bytes_max: usize,
    /// A connection on which no frame has come for so long after its opening is closed. Default 5 s.
    pub first_frame_within: Duration,
    /// A dial that takes longer is `Unreachable`. Default 250 ms: whoever answers later is suspected anyway, and what is
    /// lost when a connection is opened TCP itself repeats only after a second.
    pub dial_within: Duration,
    /// How long a closed connection may take to write what is queued. Default 1 s.
    pub close_within: Duration,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            listen: None,
            accepted_max: 256,
            queue_bytes_max: 8 << 20,
            first_frame_within: Duration::from_secs(5),
            dial_within: Duration::from_millis(250),
            close_within: Duration::from_secs(1),
        }
    }
}

impl TcpOptions {
    /// The defaults, listening at `address`.
    #[must_use]
    pub fn listening(address: SocketAddr) -> Self {
        Self { listen: Some(address), ..Self::default() }
    }
}

/// What the transport has counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TcpStats {
    /// Connections opened, by either side.
    pub opened: u64,
    /// Connections closed, by the [name](CloseReason::name) of the reason.
    pub closed: BTreeMap<&'static str, u64>,
    /// Connections turned away because too many stood.
    pub turned_away: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Reads that yielded frames: received over reads is the batch size.
    pub reads: u64,
    /// Frames written.
    pub frames_sent: u64,
    /// Writes gathered: sent over writes is the batch size.
    pub writes: u64,
}

/// The TCP transport. Dropping it ends all its tasks; nothing is delivered any more.
///
/// It belongs to a `LocalSet`: [`start`](Transport::start), `dial` and the events all happen there.
#[derive(Debug)]
pub struct Tcp {
    inner: Rc<Inner>,
    listener: Option<TcpReserved>,
    address: Option<SocketAddr>,
    accepting: Option<AbortHandle>,
    draining: bool,
}

impl Tcp {
    /// Takes the address, if there is to be one; it listens from [`Transport::start`] on, and until then whoever dials is
    /// refused.
    ///
    /// # Errors
    /// [`TcpError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(options: TcpOptions, time: Rc<dyn TimeSource>) -> Result<Self, TcpError> {
        if options.queue_bytes_max < BODY_SIZE_MAX + HEADER_SIZE {
            return Err(TcpError::QueueTooSmall(options.queue_bytes_max));
        }
        let listener = options.listen.map(TcpReserved::new).transpose()?;
        let address = listener.as_ref().map(TcpReserved::local_addr);
        let inner = Rc::new(Inner {
            options,
            time,
            events: RefCell::new(None),
            connections: RefCell::default(),
            accepted: Cell::new(0),
            last: Cell::new(0),
            stats: RefCell::default(),
            tasks: RefCell::default(),
            progress: Notify::new(),
        });
        Ok(Self { inner, listener, address, accepting: None, draining: false })
    }

    /// Where it listens: the port is real even if 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.address
    }

    /// What it has counted so far.
    #[must_use]
    pub fn stats(&self) -> TcpStats {
        self.inner.stats.borrow().clone()
    }

    /// Bytes queued on a connection and not yet written; `None`: there is no such connection.
    #[must_use]
    pub fn queued_bytes(&self, conn: ConnId) -> Option<usize> {
        self.inner.connections.borrow().get(&conn).map(|connection| connection.queued_bytes())
    }

    fn connection(&self, conn: ConnId) -> Option<Rc<Connection>> {
        self.inner.connections.borrow().get(&conn).cloned()
    }
}

impl Transport for Tcp {
    /// # Panics
    /// If called twice, or outside a `LocalSet`.
    fn start(&mut self, events: Rc<dyn EventSink>) {
        let before = self.inner.events.borrow_mut().replace(events);
        assert!(before.is_none(), "a transport is started once");
        if let Some(reserved) = self.listener.take() {
            let address = reserved.local_addr();
            let listening = reserved.listen();
            let inner = Rc::clone(&self.inner);
            let accept = async move {
                let listener = inner.listening(address, listening).await;
                inner.accept(listener).await;
            };
            self.accepting = Some(self.inner.spawn(accept));
        }
    }

    fn dial(&mut self, node: NodeId, addr: SocketAddr) -> Result<(), DialError> {
        may_dial(addr)?;
        let events = self.inner.events.borrow().clone();
        match events {
            Some(events) if !self.draining => {
                self.inner.spawn(Rc::clone(&self.inner).dial(node, addr, events));
                Ok(())
            }
            _ => Err(DialError::NotRunning),
        }
    }

    fn send(&mut self, conn: ConnId, frame: Frame) {
        assert!(
            frame.wire_len() <= HEADER_SIZE + BODY_SIZE_MAX,
            "senders split what does not fit a frame"
        );
        if let Some(connection) = self.connection(conn) {
            connection.push(frame, self.inner.options.queue_bytes_max);
        }
    }

    fn flush(&mut self) {
        for connection in self.inner.connections.borrow().values() {
            connection.flush();
        }
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(connection) = self.connection(conn) {
            connection.finish();
        }
    }

    fn refused(&self) -> BTreeMap<&'static str, u64> {
        let TcpStats { closed, turned_away, .. } = &*self.inner.stats.borrow();
        let faults = closed.iter().filter(|(name, _)| !CloseReason::ORDINARY.contains(name));
        let turned_away = (*turned_away > 0).then_some(("turned-away", *turned_away));
        faults.map(|(name, count)| (*name, *count)).chain(turned_away).collect()
    }

    fn drain(&mut self, deadline: Instant) -> LocalFuture<bool> {
        self.draining = true;
        self.listener = None;
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
        self.flush();
        let inner = Rc::clone(&self.inner);
        Box::pin(async move {
            let deadline = inner.time.sleep_until(deadline);
            let drained = async {
                while inner.connections.borrow().values().any(|one| one.queued_bytes() > 0) {
                    inner.progress.notified().await;
                }
            };
            tokio::select! {
                biased;
                () = drained => true,
                () = deadline => false,
            }
        })
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.inner.tasks.borrow_mut().abort_all();
    }
}

/// What the tasks share.
struct Inner {
    options: TcpOptions,
    time: Rc<dyn TimeSource>,
    events: RefCell<Option<Rc<dyn EventSink>>>,
    connections: RefCell<BTreeMap<ConnId, Rc<Connection>>>,
    accepted: Cell<usize>,
    last: Cell<u64>,
    stats: RefCell<TcpStats>,
    tasks: RefCell<JoinSet<()>>,
    /// A connection wrote something, or is gone.
    progress: Notify,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("options", &self.options)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) -> AbortHandle {
        let mut tasks = self.tasks.borrow_mut();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_local(task)
    }

    fn count_read(&self, frames: u64) {
        let mut stats = self.stats.borrow_mut();
        stats.reads += 1;
        stats.frames_received += frames;
    }

    fn count_write(&self, frames: u64) {
        let mut stats = self.stats.borrow_mut();
        stats.writes += 1;
        stats.frames_sent += frames;
    }

    /// Another one may have begun to listen at the address meanwhile: this one takes it when it is free again.
    async fn listening(
        &self,
        address: SocketAddr,
        mut listening: io::Result<TcpListener>,
    ) -> TcpListener {
        let mut said = false;
        loop {
            match listening {
                Ok(listener) => return listener,
                Err(error) if !said => tracing::warn!(%address, %error, "cannot listen yet"),
                Err(_) => {}
            }
            said = true;
            self.time.sleep_until(self.time.now() + ACCEPT_PAUSE).await;
            let again = TcpReserved::new(address).map_err(io::Error::other);
            listening = again.and_then(TcpReserved::listen);
        }
    }

    async fn accept(self: Rc<Self>, listener: TcpListener) {
        let mut refused = false;
        loop {
            match listener.accept().await {
                Ok((stream, _)) if self.accepted.get() < self.options.accepted_max => {
                    let events = self.events.borrow().clone();
                    let Some(events) = events else { return };
                    refused = false;
                    self.accepted.set(self.accepted.get() + 1);
                    let inner = Rc::clone(&self);
                    self.spawn(async move {
                        inner.carry(stream, None, &*events).await;
                        inner.accepted.set(inner.accepted.get() - 1);
                    });
                }
                Ok(_) => self.stats.borrow_mut().turned_away += 1,
                // Too many files: it stays so for a while, and is said once.
                Err(error) => {
                    if !std::mem::replace(&mut refused, true) {
                        tracing::warn!(%error, "cannot accept");
                    }
                    self.time.sleep_until(self.time.now() + ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn dial(self: Rc<Self>, node: NodeId, addr: SocketAddr, events: Rc<dyn EventSink>) {
        let deadline = self.time.sleep_until(self.time.now() + self.options.dial_within);
        let dialled = tokio::select! {
            biased;
            dialled = TcpStream::connect(addr) => dialled,
            () = deadline => Err(io::ErrorKind::TimedOut.into()),
        };
        let event = match dialled {
            Ok(stream) => return self.carry(stream, Some(node), &*events).await,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                TransportEvent::Refused { node }
            }
            Err(_) => TransportEvent::Unreachable { node },
        };
        // If nobody takes events any more, there is nobody to tell.
        let _ = events.deliver(event).await;
    }

    /// A connection from its opening to its end.
    async fn carry(&self, stream: TcpStream, dialled: Option<NodeId>, events: &dyn EventSink) {
        let conn = ConnId(self.last.get() + 1);
        self.last.set(conn.0);
        let connection = Rc::new(Connection::new(conn));
        self.connections.borrow_mut().insert(conn, Rc::clone(&connection));
        self.stats.borrow_mut().opened += 1;
        let reason = match stream.set_nodelay(true) {
            Err(error) => CloseReason::Io(error.kind()),
            Ok(()) => match events.deliver(TransportEvent::Opened { conn, dialled }).await {
                Ok(()) => connection.run(self, stream, events).await,
                Err(_) => CloseReason::Local,
            },
        };
        self.connections.borrow_mut().remove(&conn);
        self.progress.notify_one();
        *self.stats.borrow_mut().closed.entry(reason.name()).or_default() += 1;
        tracing::debug!(?conn, ?reason, "connection closed");
        // If nobody takes events any more, there is nobody to tell.
        let _ = events.deliver(TransportEvent::Closed { conn, reason }).await;
    }
}
