//! What a client needs of the world: a clock, entropy, and a way to connect.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use mainstay_base::{Duration, Instant};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// A future of the node's thread.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Makes a clock on the thread on which it is called.
pub type Across = Box<dyn FnOnce() -> Rc<dyn TimeSource> + Send>;
/// Reads the clock of a node from any thread.
pub type LocalReader = Arc<dyn Fn() -> Instant + Send + Sync>;

/// The clock of a node. All node timers go through it, so that a simulation can let it drift.
pub trait TimeSource {
    /// The present moment; never goes back.
    fn now(&self) -> Instant;

    /// Completes when [`now`](Self::now) has reached `deadline`.
    fn sleep_until(&self, deadline: Instant) -> LocalFuture<()>;

    /// A turn has ended that took so long by its machine's own account. A real clock has moved on meanwhile, so nothing
    /// is done by default; a simulated one moves on now, and the node does nothing else until that time is over.
    fn charge(&self, work: Duration) {
        let _ = work;
    }

    /// What makes the same clock on another thread, with the same origin. `None` where a clock belongs to its thread, as a simulated one;
    /// that is the default.
    fn across(&self) -> Option<Across> {
        None
    }

    /// What reads the same clock from any thread. `None`, which is the default, where it belongs to its thread, as a simulated one.
    fn reader(&self) -> Option<LocalReader> {
        None
    }

    /// How long the calling thread has had a processor; `None` where time is not real, or the system does not say. A turn
    /// may take long because it does much or because others have the processors, and this tells the two apart.
    fn processor_time(&self) -> Option<Duration> {
        None
    }
}

/// Where boot nonces and seeds come from. Drawn rarely; machines get a seed, not this.
pub trait Entropy {
    /// 128 bits that nobody can guess (a simulation's can be repeated).
    ///
    /// # Errors
    /// [`EntropyError`]: nothing was drawn; a node that cannot draw must not start.
    fn draw(&mut self) -> Result<u128, EntropyError>;
}

/// The operating system yields no entropy. Retry is safe and may help.
#[derive(Error, Debug, Clone, PartialEq, Eq)]
#[error("no entropy: {0}")]
pub struct EntropyError(pub String);

/// Why a dial was not even tried.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialError {
    /// Frames in the clear do not leave this machine.
    #[error("{0} is not loopback: plain TCP goes no further until there is TLS")]
    TlsRequired(SocketAddr),
    /// The transport has not started, or is draining.
    #[error("the transport is not running")]
    NotRunning,
}

/// A byte stream to a client.
pub trait ClientStream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> ClientStream for T {}

/// How a client reaches nodes.
pub trait ClientDialer {
    /// Whether `addr` may be dialled at all.
    ///
    /// # Errors
    /// [`DialError`]: a dial there fails.
    fn check(&self, addr: SocketAddr) -> Result<(), DialError>;

    /// Connects to `addr`. The future borrows nothing; it is dropped to give up.
    ///
    /// # Errors
    /// What the operating system says; [`DialError`] within, if the address may not be dialled.
    fn dial(&mut self, addr: SocketAddr) -> LocalFuture<io::Result<Box<dyn ClientStream>>>;
}

/// Where clients connect.
pub trait ClientListener {
    /// The next client. The future borrows nothing; it is dropped to give up.
    ///
    /// # Errors
    /// What the operating system says; the listener itself lives on.
    fn accept(&mut self) -> LocalFuture<io::Result<Box<dyn ClientStream>>>;
}
