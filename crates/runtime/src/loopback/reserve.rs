//! An address that is taken before anybody is answered there.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use super::{TcpClients, TcpError};

/// Connections that wait in the system to be accepted.
const BACKLOG: u32 = 1_024;

/// An address that is taken, and not listened at yet: whoever connects is refused, as if nobody were there. For a program
/// that is not ready to answer and wants to know early that the address is free. The port is real even if 0 was asked for.
///
/// Two that take one address at the same moment may both have it: then the second one that listens is refused.
#[derive(Debug)]
pub struct TcpReserved {
    socket: TcpSocket,
    address: SocketAddr,
}

impl TcpReserved {
    /// Takes the address.
    ///
    /// # Errors
    /// [`TcpError`]: only loopback is allowed until there is TLS.
    pub fn new(address: SocketAddr) -> Result<Self, TcpError> {
        if !address.ip().is_loopback() {
            return Err(TcpError::TlsRequired(address));
        }
        let bind = || {
            let socket =
                if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // What is left of closed connections does not hold the address.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        bind().map_err(|error| TcpError::Listen { address, error })
    }

    /// Where it is.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Listens for clients from here on.
    ///
    /// # Errors
    /// [`TcpError::Listen`]: another one listens there meanwhile.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn clients(self) -> Result<TcpClients, TcpError> {
        let address = self.address;
        let listener = self.listen().map_err(|error| TcpError::Listen { address, error })?;
        Ok(TcpClients::of(listener))
    }

    pub(crate) fn listen(self) -> io::Result<TcpListener> {
        self.socket.listen(BACKLOG)
    }
}
