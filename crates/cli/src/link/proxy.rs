//! A TCP relay on loopback whose connections can be cut: real resets in the middle of real frames.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Relays what it accepts to a target that may change.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    target: Option<SocketAddr>,
    open: Vec<TcpStream>,
}

impl Proxy {
    /// Listens on a free port of the loopback interface; relays nowhere until [`aim`](Self::aim).
    pub(crate) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let relayed = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A failed relay is a cut connection, which is what this is for.
                let _ = relay(&relayed, client);
            }
        });
        Ok(Self { address, shared })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Relays new connections to `target`.
    pub(crate) fn aim(&self, target: SocketAddr) {
        lock(&self.shared).target = Some(target);
    }

    /// Cuts all connections; answers how many there were.
    pub(crate) fn cut(&self) -> usize {
        let open = std::mem::take(&mut lock(&self.shared).open);
        open.iter().filter(|stream| stream.shutdown(Shutdown::Both).is_ok()).count()
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn relay(shared: &Mutex<Shared>, client: TcpStream) -> io::Result<()> {
    let target = lock(shared).target.ok_or(io::ErrorKind::NotConnected)?;
    let server = TcpStream::connect(target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    for (mut from, mut to) in
        [(client.try_clone()?, server.try_clone()?), (server, client.try_clone()?)]
    {
        thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(size @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..size]).is_err() {
                    break;
                }
            }
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    lock(shared).open.push(client);
    Ok(())
}
