//! Everything outside a node, as small traits: the simulator implements each, and so does production.
//!
//! All of it lives on the node's thread; nothing here needs to be `Send` but what crosses to the log-writer thread.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::frame::FrameError;
use mainstay_base::{ConnId, Frame, Instant, NodeId};
use mainstay_stable::{FileMediumError, Medium};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::log_writer::LogDevice;

pub use crate::outside::{
    ClientDialer, ClientListener, ClientStream, DialError, Entropy, EntropyError, LocalFuture,
    TimeSource,
};

/// What a node is started with: all that it does outside goes through here.
pub struct Ports {
    /// Frames to and from other nodes.
    pub transport: Box<dyn Transport>,
    /// Stable storage; `None`: a node that keeps everything in memory.
    pub disk: Option<Box<dyn Disk>>,
    /// The clock of the node and all its timers.
    pub time: Rc<dyn TimeSource>,
    /// Boot nonces and seeds.
    pub entropy: Box<dyn Entropy>,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports").field("disk", &self.disk).finish_non_exhaustive()
    }
}

/// Frames to and from other nodes, over connections that keep their order until they break.
///
/// Commands never wait. A command for a connection that is gone does nothing: its `Closed` is on its way.
pub trait Transport {
    /// Begins to listen, and sends all events to `events` from here on. Called once, before any other command.
    fn start(&mut self, events: Rc<dyn EventSink>);

    /// Connects to `node` at `addr`; the outcome is an event: `Opened`, `Refused` or `Unreachable`.
    ///
    /// # Errors
    /// [`DialError`]: nothing was begun and no event will come.
    fn dial(&mut self, node: NodeId, addr: SocketAddr) -> Result<(), DialError>;

    /// Queues a frame. It leaves at the next [`flush`](Self::flush), or earlier. A peer that reads too slowly for the
    /// queue's bound loses the connection.
    ///
    /// # Panics
    /// If the body is larger than [`BODY_SIZE_MAX`](mainstay_base::frame::BODY_SIZE_MAX): senders split.
    fn send(&mut self, conn: ConnId, frame: Frame);

    /// Lets go all that is queued; the host calls it at the end of each turn.
    fn flush(&mut self);

    /// Closes a connection after what is queued on it has been written or a short limit has passed.
    fn close(&mut self, conn: ConnId);

    /// How many connections ended for what the other end did or did not do, by the [name](CloseReason::name) of the
    /// reason, and how many were turned away because too many stood (`turned-away`). Counts only grow, and a reason that
    /// has not occurred is missing.
    fn refused(&self) -> BTreeMap<&'static str, u64>;

    /// Stops accepting and dialling, flushes, and completes when nothing is queued any more: `true`, or at
    /// `deadline`: `false`.
    fn drain(&mut self, deadline: Instant) -> LocalFuture<bool>;
}

/// What happened on the transport.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransportEvent {
    /// A connection stands; it precedes all else of that connection.
    Opened {
        /// The connection.
        conn: ConnId,
        /// Whom we dialled; `None`: somebody dialled us, and who it is the hello must tell.
        dialled: Option<NodeId>,
    },
    /// All frames of one read, in the sender's order; never empty.
    Received {
        /// The connection.
        conn: ConnId,
        /// The frames; their bytes share the read's buffer.
        frames: Vec<Frame>,
    },
    /// The connection is gone; nothing else of it follows.
    Closed {
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
    /// Nobody listens at the dialled address: the process is not there.
    Refused {
        /// Whom we dialled.
        node: NodeId,
    },
    /// The dialled address did not answer: the process may be there or not.
    Unreachable {
        /// Whom we dialled.
        node: NodeId,
    },
}

impl TransportEvent {
    /// Bytes of the frames that the event holds, for admission.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Received { frames, .. } => frames.iter().map(Frame::wire_len).sum(),
            _ => size_of::<Self>(),
        }
    }
}

/// Why a connection closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// We closed it.
    Local,
    /// The peer closed it, between two frames.
    Ended,
    /// The bytes ended inside a frame.
    Truncated,
    /// The bytes are not frames.
    Garbage(FrameError),
    /// The peer did not read fast enough: the queue reached its bound.
    SlowPeer,
    /// No frame came in time after the connection was opened.
    Silent,
    /// The operating system says so.
    Io(io::ErrorKind),
}

impl CloseReason {
    /// The names of reasons for which a connection ends without anybody's fault.
    pub(crate) const ORDINARY: [&'static str; 3] = ["local", "ended", "io"];

    /// The name under which it is counted.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Ended => "ended",
            Self::Truncated => "truncated",
            Self::Garbage(FrameError::Magic) => "garbage-magic",
            Self::Garbage(FrameError::Version(_)) => "garbage-version",
            Self::Garbage(FrameError::Flags(_)) => "garbage-flags",
            Self::Garbage(FrameError::TooLarge { .. }) => "garbage-too-large",
            Self::Garbage(FrameError::Checksum) => "garbage-checksum",
            Self::Garbage(_) => "garbage",
            Self::SlowPeer => "slow-peer",
            Self::Silent => "silent",
            Self::Io(_) => "io",
        }
    }
}

/// Where the events of a transport go; a [`HostSink`](crate::HostSink) or a bounded channel.
pub trait EventSink {
    /// Completes when the event has been admitted. The reader of a connection reads no more until then: that is how
    /// back-pressure reaches the peer.
    fn deliver(&self, event: TransportEvent) -> LocalFuture<Result<(), SinkClosed>>;
}

/// Nobody takes events any more. The connection that had one closes.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[error("nobody takes events any more")]
pub struct SinkClosed;

impl EventSink for mpsc::Sender<TransportEvent> {
    fn deliver(&self, event: TransportEvent) -> LocalFuture<Result<(), SinkClosed>> {
        let sender = self.clone();
        Box::pin(async move { sender.send(event).await.map_err(|_| SinkClosed) })
    }
}

/// The disk of a node: its directories, the store over its log, and all else that blocks.
pub trait Disk: fmt::Debug {
    /// Opens the directory `inner` in the node's own one, or that one itself with `None`, and makes it if it is missing;
    /// what is inside is opened after it. Nobody else gets it while the medium lives.
    ///
    /// # Errors
    /// [`FileMediumError`]; at most an empty directory was made, a retry is safe.
    fn open(&self, inner: Option<&str>) -> Result<Arc<dyn Medium>, FileMediumError>;

    /// A store over `device`, not started yet. Dropping it completes what it has taken before the drop returns.
    fn store(&self, device: Box<dyn LogDevice>) -> Box<dyn Store>;

    /// How much room there is; `None`: it does not say. It takes microseconds.
    fn space(&self) -> Option<Space> {
        None
    }

    /// Begins a step that blocks, beside the turns of the node. A step that panics, or that is not carried out because
    /// the node ends, is dropped: what it holds tells its owner.
    fn run(&self, step: Box<dyn FnOnce() + Send>);
}

/// The room of a disk, in bytes. Others may write there, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// What may still be written.
    pub free: u64,
    /// What the disk holds when it is empty.
    pub total: u64,
}

/// One record of the log, as bytes; what they mean is the owner's business.
pub type Record = Bytes;

/// The caller's number of a [`Store::persist`]; it comes back in [`Completed`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IoId(pub u64);

/// The log on stable storage. Requests complete in the order in which they were made.
pub trait Store {
    /// Where completions go from here on. Called once, before any request. The closure runs on the store's thread and
    /// must not wait.
    fn start(&mut self, completed: Box<dyn FnMut(Completed) + Send>);

    /// Appends `records` in order and forces them; the outcome comes as [`Completed`] with the same `io`.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was begun and no completion will come.
    fn persist(&mut self, io: IoId, records: Vec<Record>) -> Result<(), StoreError>;

    /// Takes no more, and gives what is to be run, beside the turns, to complete what was taken and to close the log. It
    /// may wait for the medium.
    fn closing(self: Box<Self>) -> Box<dyn FnOnce() + Send>;
}

/// Why a request was not taken.
#[derive(Error, Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// As many requests as allowed are outstanding. The records come back; try again after a completion.
    #[error("too many requests are outstanding")]
    Full(Vec<Record>),
    /// An earlier request failed: what is on the medium is uncertain, and only recovery may look. No retry.
    #[error(transparent)]
    Poisoned(LogError),
    /// The store has not started, or has been closed.
    #[error("the store is not running")]
    NotRunning,
}

/// A request of the store is done. It occupies its place among the outstanding ones until it is dropped.
#[derive(Debug)]
pub struct Completed {
    /// Which.
    pub io: IoId,
    /// `Ok`: the records are on stable storage. `Err`: they may or may not be.
    pub result: Result<(), LogError>,
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

impl Completed {
    /// A completion made by a store without a bound on outstanding requests (a simulated one).
    #[must_use]
    pub fn new(io: IoId, result: Result<(), LogError>) -> Self {
        Self { io, result, place: None }
    }

    /// Whether it still occupies a place among the outstanding requests.
    #[must_use]
    pub fn holds_a_place(&self) -> bool {
        self.place.is_some()
    }
}

/// The log device failed, now or earlier. The log is poisoned until it is recovered by a new start.
#[derive(Error, Debug, Clone, PartialEq, Eq)]
#[error("the log failed: {reason}")]
pub struct LogError {
    /// What the device said.
    pub reason: Arc<str>,
}
