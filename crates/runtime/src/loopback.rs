//! Addresses that TCP may use until there is TLS: on loopback only.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use crate::outside::DialError;

mod clients;
mod reserve;

pub use clients::{TcpClients, TcpDialer};
pub use reserve::TcpReserved;

/// Why there is no listener. Nothing was opened.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum TcpError {
    /// Frames in the clear do not leave this machine. The configuration is at fault.
    #[error("{0} is not loopback: plain TCP goes no further until there is TLS")]
    TlsRequired(SocketAddr),
    /// The queue would not hold one largest frame. The configuration is at fault.
    #[error("a queue of {0} bytes holds no largest frame")]
    QueueTooSmall(usize),
    /// The operating system refuses the address.
    #[error("cannot listen at {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the operating system says; not a `source`, since the text has it.
        error: io::Error,
    },
}

/// Frames in the clear do not leave this machine.
pub(crate) fn may_dial(addr: SocketAddr) -> Result<(), DialError> {
    if addr.ip().is_loopback() { Ok(()) } else { Err(DialError::TlsRequired(addr)) }
}
