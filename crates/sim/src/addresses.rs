//! Addresses for tests of real sockets.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// So many addresses of this machine at which nobody listens, each given once by this process. They are below the ports that the
/// system gives out, so no dial gets one as its own, and a node that is started again finds its address free.
#[must_use]
pub fn free_addresses(count: usize) -> Vec<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = (std::process::id() % 400) as u16 * 30;
    let free = |_| loop {
        let port = 20_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let bound = TcpListener::bind(("127.0.0.1", port));
        if let Ok(address) = bound.and_then(|listener| listener.local_addr()) {
            return address;
        }
    };
    (0..count).map(free).collect()
}
