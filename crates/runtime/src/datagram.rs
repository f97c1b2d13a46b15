//! Datagrams to and from other nodes, beside the connections: a port, and UDP with authentication.
//!
//! A datagram waits for no acknowledgement and behind no other one. Who measures time by messages wants that, and can do without those that are
//! lost.
//!
//! On the wire: version, sender, addressee, number, body, tag. The tag is the first half of an HMAC of SHA-256 over all before it, under a key
//! that the nodes share. The numbers of a sender grow, also over its restarts, as they are not below its wall clock in nanoseconds; who receives
//! takes each once, and none that is far behind the highest. So what has no key is refused, and so is what is
//! repeated. What was recorded before the addressee began can be taken once by it, if nothing newer has come from that
//! sender: a service must not rely on a single datagram's freshness.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;

use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use mainstay_base::{Instant, NodeId};
use sha2::Sha256;
use tokio::task::JoinHandle;

use crate::outside::TimeSource;
use crate::time::wall_clock;

/// Most bytes of a body.
pub const DATAGRAM_BYTES_MAX: usize = 60_000;
const VERSION: u8 = 1;
const HEAD: usize = 1 + 16 + 16 + 8;
const TAG: usize = 16;
/// So many of the numbers below the highest may still come.
const WINDOW: u64 = 64;

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
    /// When, by the node's clock.
    pub at: Instant,
    /// From whom; that is authenticated.
    pub from: NodeId,
    /// What.
    pub body: Bytes,
}

/// What the nodes of a cluster share, so that datagrams can be told from those of strangers.
#[derive(Clone)]
pub struct DatagramKey(pub [u8; 32]);

impl std::fmt::Debug for DatagramKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DatagramKey")
    }
}

/// The numbers that came from one sender.
#[derive(Clone, Copy, Default)]
struct Window {
    highest: u64,
    /// Bit n: `highest` - n has come.
    came: u64,
}

impl Window {
    /// Whether this number is to be taken: it is then, and not again.
    fn take(&mut self, number: u64) -> bool {
        if number > self.highest {
            let by = number - self.highest;
            self.came = if by < WINDOW { self.came << by } else { 0 } | 1;
            self.highest = number;
            return true;
        }
        let behind = self.highest - number;
        let is_new = behind < WINDOW && self.came & (1 << behind) == 0;
        if is_new {
            self.came |= 1 << behind;
        }
        is_new
    }
}

/// Makes and checks datagrams.
struct Seal {
    mac: Hmac<Sha256>,
    me: NodeId,
    last: u64,
    windows: BTreeMap<NodeId, Window>,
    refused: BTreeMap<&'static str, u64>,
}

impl Seal {
    fn new(me: NodeId, peers: impl Iterator<Item = NodeId>, key: &DatagramKey) -> Self {
        let mac = Hmac::new_from_slice(&key.0).expect("a key may have any length");
        let windows = peers.filter(|peer| *peer != me).map(|peer| (peer, Window::default()));
        Self { mac, me, last: 0, windows: windows.collect(), refused: BTreeMap::new() }
    }

    fn tag(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(bytes);
        mac
    }

    fn seal(&mut self, wall: u64, to: NodeId, body: &[u8]) -> Vec<u8> {
        self.last = (self.last + 1).max(wall);
        let mut bytes = Vec::with_capacity(HEAD + body.len() + TAG);
        bytes.push(VERSION);
        bytes.extend(self.me.as_bytes());
        bytes.extend(to.as_bytes());
        bytes.extend(self.last.to_le_bytes());
        bytes.extend(body);
        let tag = self.tag(&bytes).finalize().into_bytes();
        bytes.extend(&tag[..TAG]);
        bytes
    }

    /// From whom it is, and its body; else it is counted.
    fn open(&mut self, bytes: &[u8]) -> Option<(NodeId, Bytes)> {
        match self.checked(bytes) {
            Ok(opened) => Some(opened),
            Err(why) => {
                self.count(why);
                None
            }
        }
    }

    fn checked(&mut self, bytes: &[u8]) -> Result<(NodeId, Bytes), &'static str> {
        let signed = bytes.len().checked_sub(TAG).filter(|signed| *signed >= HEAD);
        let (signed, tag) = bytes.split_at(signed.ok_or("datagram-short")?);
        if signed[0] != VERSION {
            return Err("datagram-version");
        }
        self.tag(signed).verify_truncated_left(tag).map_err(|_| "datagram-forged")?;
        if signed[17..33] != *self.me.as_bytes() {
            return Err("datagram-astray");
        }
        let from = self.windows.iter_mut().find(|(peer, _)| signed[1..17] == *peer.as_bytes());
        let (from, window) = from.ok_or("datagram-unknown")?;
        let number: [u8; 8] = signed[33..HEAD].try_into().map_err(|_| "datagram-short")?;
        if !window.take(u64::from_le_bytes(number)) {
            return Err("datagram-replayed");
        }
        Ok((*from, Bytes::copy_from_slice(&signed[HEAD..])))
    }

    fn count(&mut self, why: &'static str) {
        *self.refused.entry(why).or_default() += 1;
    }
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
        key: &DatagramKey,
        time: Rc<dyn TimeSource>,
    ) -> std::io::Result<Self> {
        let socket = UdpSocket::bind(listen)?;
        socket.set_nonblocking(true)?;
        let seal = Seal::new(me, addresses.keys().copied(), key);
        let seal = Rc::new(RefCell::new(seal));
        Ok(Self { socket: Some(socket), running: None, addresses, seal, time })
    }
}

impl Datagrams for Udp {
    fn start(&mut self, mut events: Box<dyn FnMut(Arrived)>) {
        let Some(socket) = self.socket.take() else { return };
        let socket = match tokio::net::UdpSocket::from_std(socket) {
            Ok(socket) => Rc::new(socket),
            Err(error) => return tracing::error!(%error, "no datagrams"),
        };
        let (from, seal, time) = (Rc::clone(&socket), Rc::clone(&self.seal), Rc::clone(&self.time));
        let receive = async move {
            let mut buffer = vec![0; HEAD + DATAGRAM_BYTES_MAX + TAG + 1];
            loop {
                // An error is of one datagram, as when nobody listens where one was sent to.
                let Ok((length, _)) = from.recv_from(&mut buffer).await else { continue };
                let at = time.now();
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
        let wall = wall_clock().as_nanos() as u64;
        let bytes = seal.seal(wall, to, body);
        if socket.try_send_to(&bytes, *address).is_err() {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use mainstay_base::ClusterId;

    use super::*;

    const KEY: DatagramKey = DatagramKey([7; 32]);

    fn node(name: &str) -> NodeId {
        NodeId::new(ClusterId::from_entropy(1), name)
    }

    fn seal(name: &str, key: &DatagramKey) -> Seal {
        Seal::new(node(name), ["a", "b", "c"].map(node).into_iter(), key)
    }

    #[test]
    fn each_is_taken_once_and_in_any_order_of_the_last_ones() {
        let (mut a, mut b) = (seal("a", &KEY), seal("b", &KEY));
        let sent: Vec<_> = (0..100_u8).map(|it| a.seal(1_000, node("b"), &[it])).collect();
        for it in [3, 1, 2, 0, 60, 30, 99, 36] {
            let (from, body) = b.open(&sent[it]).unwrap();
            assert_eq!((from, &body[..]), (node("a"), &[it as u8][..]));
        }
        // Each again, and one that is too far behind.
        for it in [3, 1, 2, 0, 60, 30, 99, 36, 35] {
            assert_eq!(b.open(&sent[it]), None, "{it}");
        }
        assert_eq!(b.refused, [("datagram-replayed", 9)].into());
        // Another process of the sender goes on above the former one.
        let again = seal("a", &KEY).seal(2_000, node("b"), b"again");
        assert!(b.open(&again).is_some() && b.open(&again).is_none());
    }

    #[test]
    fn what_is_not_from_a_peer_to_this_node_is_refused_and_counted() {
        let (mut a, mut b) = (seal("a", &KEY), seal("b", &KEY));
        let sent = a.seal(1_000, node("b"), b"body");
        for bit in 0..sent.len() * 8 {
            let mut forged = sent.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(b.open(&forged), None, "bit {bit}");
        }
        for length in 0..sent.len() {
            assert_eq!(b.open(&sent[..length]), None, "{length} bytes");
        }
        let strange = seal("a", &DatagramKey([8; 32])).seal(1_000, node("b"), b"body");
        assert_eq!(b.open(&strange), None);
        assert_eq!(b.open(&a.seal(1_000, node("c"), b"body")), None);
        assert_eq!(b.open(&seal("d", &KEY).seal(1_000, node("b"), b"body")), None);
        assert_eq!(b.open(&seal("b", &KEY).seal(1_000, node("b"), b"body")), None);
        let short = (HEAD + TAG) as u64;
        let expected = [
            ("datagram-short", short),
            ("datagram-version", 8),
            ("datagram-forged", (sent.len() as u64 - 1) * 8 + 4 + 1),
            ("datagram-astray", 1),
            ("datagram-unknown", 2),
        ];
        assert_eq!(b.refused, expected.into());
        assert!(b.open(&sent).is_some(), "and nothing of that has changed anything");
    }
}
