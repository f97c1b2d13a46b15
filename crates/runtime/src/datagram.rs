//! Datagrams to and from other nodes, beside the connections: a port, and UDP with authentication.
//!
//! A datagram waits for no acknowledgement and behind no other one. Who measures time by messages wants that, and can do without those that are
//! lost.
//!
//! On the wire: version, sender, addressee, number, body, tag. The tag is the first half of an HMAC of SHA-256 over all before it, under the key
//! of the two nodes ([`DatagramKeys`]). The numbers of a sender go up by one from its wall clock in nanoseconds at its start, so they grow over its restarts as well; who receives
//! takes each once, and none that is 64 or more behind the highest. So what has no key is refused, and so is what is
//! repeated. What was recorded before the addressee began can be taken once by it, if nothing newer has come from that
//! sender: a service must not rely on a single datagram's freshness.
//!
//! On Linux the kernel stamps what comes, so that the time in which a datagram waits for the node's turn is no part of its delay; elsewhere, and
//! where a stamp is not to be relied on, [`Arrived::at`] is when it was read.

mod seal;
mod stamp;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;

use bytes::Bytes;
use mainstay_base::{Duration, Instant, NodeId};
use tokio::io::Interest;
use tokio::task::JoinHandle;

pub use self::seal::{DatagramKey, DatagramKeys};
use self::seal::{HEAD, Seal, TAG};
use self::stamp::{Look, arrival};
use crate::outside::TimeSource;
use crate::time::wall_clock;

/// Most bytes of a body.
pub const DATAGRAM_BYTES_MAX: usize = 60_000;
/// So many errors one after the other are of the socket, and not of single datagrams.
const ERRORS_MAX: u32 = 64;
/// How long a socket with such errors is left alone.
const PAUSE: Duration = Duration::from_millis(10);

/// Datagrams of a node.
pub trait Datagrams {
    /// Whatever comes goes to `events` from here on. Called once, on the node's thread.
    fn start(&mut self, events: Box<dyn FnMut(Arrived)>);

    /// Sends one; it may be lost.
    fn send(&mut self, to: NodeId, body: &[u8]);

    /// What was refused or lost here, by reason. Counts only grow, and a reason that has not occurred is missing.
    fn refused(&self) -> BTreeMap<&'static str, u64>;
}

/// A datagram came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrived {
    /// When, by the node's clock: as the kernel stamped it, or when it was read.
    pub at: Instant,
    /// From whom: one that has the key of these two nodes.
    pub from: NodeId,
    /// What.
    pub body: Bytes,
}

/// Datagrams over UDP. To any address: what has no key is refused at the other end.
pub struct Udp {
    socket: Option<UdpSocket>,
    running: Option<(Rc<tokio::net::UdpSocket>, JoinHandle<()>)>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    seal: Rc<RefCell<Seal>>,
    time: Rc<dyn TimeSource>,
}

impl Udp {
    /// Binds `listen`. `addresses` has the other nodes, the own one as well or not.
    ///
    /// # Errors
    /// What the operating system says. Nothing was bound.
    pub fn new(
        me: NodeId,
        listen: SocketAddr,
        addresses: BTreeMap<NodeId, SocketAddr>,
        keys: &DatagramKeys,
        time: Rc<dyn TimeSource>,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind(listen)?;
        socket.set_nonblocking(true)?;
        let seal = Seal::new(me, keys, wall_clock().as_nanos() as u64);
        let seal = Rc::new(RefCell::new(seal));
        Ok(Self { socket: Some(socket), running: None, addresses, seal, time })
    }
}

/// A socket that says when a datagram came.
struct Inlet {
    socket: Rc<tokio::net::UdpSocket>,
    time: Rc<dyn TimeSource>,
    /// When nothing was in the socket.
    empty: Look,
    #[cfg(target_os = "linux")]
    control: Vec<u8>,
}

impl Inlet {
    fn new(socket: Rc<tokio::net::UdpSocket>, time: Rc<dyn TimeSource>) -> Self {
        #[cfg(target_os = "linux")]
        if let Err(error) = nix::sys::socket::setsockopt(
            &*socket,
            nix::sys::socket::sockopt::ReceiveTimestampns,
            &true,
        ) {
            tracing::info!(%error, "datagrams are not stamped by the kernel");
        }
        let empty = look(&*time);
        Self {
            socket,
            time,
            empty,
            #[cfg(target_os = "linux")]
            control: nix::cmsg_space!(nix::sys::time::TimeSpec),
        }
    }

    /// The next datagram: its length, and when it came.
    async fn next(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Instant)> {
        loop {
            self.socket.readable().await?;
            let now = look(&*self.time);
            match self.read(buffer) {
                Ok((length, stamp)) => {
                    let now = look(&*self.time);
                    return Ok((length, arrival(self.empty, now, stamp)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.empty = now,
                Err(error) => return Err(error),
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Option<Duration>)> {
        use std::os::fd::AsRawFd as _;

        use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

        let (socket, control) = (&self.socket, &mut self.control);
        socket.try_io(Interest::READABLE, || {
            let mut parts = [io::IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let got = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(control), flags)?;
            let stamp = got.cmsgs().ok().into_iter().flatten().find_map(|it| match it {
                ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
                _ => None,
            });
            Ok((got.bytes, stamp))
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Option<Duration>)> {
        self.socket.try_recv(buffer).map(|length| (length, None))
    }
}

fn look(time: &dyn TimeSource) -> Look {
    Look::take(|| time.now(), wall_clock)
}

impl Datagrams for Udp {
    fn start(&mut self, mut events: Box<dyn FnMut(Arrived)>) {
        let Some(socket) = self.socket.take() else { return };
        let socket = match tokio::net::UdpSocket::from_std(socket) {
            Ok(socket) => Rc::new(socket),
            Err(error) => return tracing::error!(%error, "no datagrams"),
        };
        let mut inlet = Inlet::new(Rc::clone(&socket), Rc::clone(&self.time));
        let seal = Rc::clone(&self.seal);
        let receive = async move {
            let mut buffer = vec![0; HEAD + DATAGRAM_BYTES_MAX + TAG + 1];
            let mut errors = 0;
            loop {
                let (length, at) = match inlet.next(&mut buffer).await {
                    Ok(got) => got,
                    // Few are of single datagrams, as when nobody listens where one was sent to.
                    Err(_) if errors < ERRORS_MAX => {
                        errors += 1;
                        continue;
                    }
                    Err(_) => {
                        seal.borrow_mut().count("datagram-socket");
                        let until = inlet.time.now() + PAUSE;
                        inlet.time.sleep_until(until).await;
                        continue;
                    }
                };
                errors = 0;
                let opened = seal.borrow_mut().open(&buffer[..length]);
                if let Some((from, body)) = opened {
                    events(Arrived { at, from, body });
                }
            }
        };
        self.running = Some((socket, tokio::task::spawn_local(receive)));
    }

    fn send(&mut self, to: NodeId, body: &[u8]) {
        let mut seal = self.seal.borrow_mut();
        let (Some((socket, _)), Some(address)) = (&self.running, self.addresses.get(&to)) else {
            return seal.count("datagram-unsent");
        };
        if body.len() > DATAGRAM_BYTES_MAX {
            return seal.count("datagram-too-large");
        }
        let bytes = seal.seal(to, body);
        if bytes.is_none_or(|bytes| socket.try_send_to(&bytes, *address).is_err()) {
            seal.count("datagram-unsent");
        }
    }

    fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.seal.borrow().refused.clone()
    }
}

impl Drop for Udp {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.running {
            task.abort();
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use std::cell::Cell;

    use mainstay_base::ClusterId;
    use tokio::task::LocalSet;

    use super::*;
    use crate::TokioTime;

    /// The thread is busy between the arrival of a datagram and the moment when it is read: that time does not count.
    #[test]
    fn the_kernel_says_when_a_datagram_came() {
        const BUSY: Duration = Duration::from_millis(3);
        let node = |name: &str| NodeId::new(ClusterId::from_entropy(1), name);
        let time: Rc<dyn TimeSource> = Rc::new(TokioTime::new());
        let socket = |name: &str, other: &str, to: Option<SocketAddr>| {
            let keys = DatagramKeys::new([(node(other), DatagramKey([1; 32]))]);
            let addresses = to.into_iter().map(|to| (node(other), to)).collect();
            let listen = "127.0.0.1:0".parse().unwrap();
            Udp::new(node(name), listen, addresses, &keys, Rc::clone(&time)).unwrap()
        };
        let mut to = socket("b", "a", None);
        let address = to.socket.as_ref().unwrap().local_addr().unwrap();
        let mut from = socket("a", "b", Some(address));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let came = Rc::new(Cell::new(None));
            to.start(Box::new({
                let came = Rc::clone(&came);
                move |arrived| came.set(Some(arrived.at))
            }));
            from.start(Box::new(|_| {}));
            // The kernel begins to stamp a moment after it was asked to, and another program may set the wall clock.
            for _ in 0..200 {
                let sent = time.now();
                from.send(node("b"), b"when?");
                while time.now() < sent + BUSY {}
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                // The first may be lost: the socket is not ready yet.
                let Some(at) = came.take() else { continue };
                assert!(sent.saturating_since(at) < Duration::from_micros(200), "not before");
                if at < sent + BUSY / 2 {
                    return;
                }
            }
            panic!("each datagram came when it was read");
        });
    }
}
