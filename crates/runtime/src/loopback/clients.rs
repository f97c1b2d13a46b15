//! Where clients connect, and how: on loopback only.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::{TcpListener, TcpStream};

use super::{TcpError, TcpReserved, may_dial};
use crate::outside::{ClientDialer, ClientListener, ClientStream, DialError, LocalFuture};

/// A TCP listener for clients.
#[derive(Clone, Debug)]
pub struct TcpClients {
    listener: Rc<TcpListener>,
}

impl TcpClients {
    /// Listens at `address`.
    ///
    /// # Errors
    /// [`TcpError`]: only loopback is allowed until there is TLS.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(address: SocketAddr) -> Result<Self, TcpError> {
        TcpReserved::new(address)?.clients()
    }

    pub(super) fn of(listener: TcpListener) -> Self {
        Self { listener: Rc::new(listener) }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl ClientListener for TcpClients {
    fn accept(&mut self) -> LocalFuture<io::Result<Box<dyn ClientStream>>> {
        let listener = Rc::clone(&self.listener);
        Box::pin(async move {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn ClientStream>)
        })
    }
}

/// Dials nodes over TCP, for a client.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDialer;

impl ClientDialer for TcpDialer {
    fn check(&self, addr: SocketAddr) -> Result<(), DialError> {
        may_dial(addr)
    }

    fn dial(&mut self, addr: SocketAddr) -> LocalFuture<io::Result<Box<dyn ClientStream>>> {
        Box::pin(async move {
            may_dial(addr).map_err(io::Error::other)?;
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn ClientStream>)
        })
    }
}
