//! Keys and numbers of datagrams: who they are from, and each once.

use std::collections::BTreeMap;

use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use mainstay_base::NodeId;
use sha2::Sha256;

const VERSION: u8 = 1;
/// Bytes before the body.
pub(super) const HEAD: usize = 1 + 16 + 16 + 8;
/// Bytes behind it.
pub(super) const TAG: usize = 16;
/// So many of the numbers below the highest may still come.
const WINDOW: u64 = 64;

/// A secret.
#[derive(Clone)]
pub struct DatagramKey(pub [u8; 32]);

impl std::fmt::Debug for DatagramKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DatagramKey")
    }
}

/// The keys of a node: one for each other node, which that one has as well and nobody else. A node that lies can lie for itself alone then: it
/// has no key of two others.
#[derive(Clone, Debug)]
pub struct DatagramKeys(BTreeMap<NodeId, DatagramKey>);

impl DatagramKeys {
    /// A key for each other node. What is from a node without a key is refused, and nothing is sent to it.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = (NodeId, DatagramKey)>) -> Self {
        Self(keys.into_iter().collect())
    }

    /// The keys of `me`, all made of one secret that all nodes have. So each node could speak for each other one: enough where nodes crash,
    /// or have wrong clocks, and do not lie about who they are. Strangers are kept out all the same.
    ///
    /// # Panics
    /// Never: a key of HMAC may have any length.
    #[must_use]
    pub fn shared(
        secret: &DatagramKey,
        me: NodeId,
        nodes: impl IntoIterator<Item = NodeId>,
    ) -> Self {
        let others = nodes.into_iter().filter(|node| *node != me);
        Self::new(others.map(|node| {
            let mut mac = hmac(secret);
            mac.update(b"mainstay datagrams");
            mac.update(me.min(node).as_bytes());
            mac.update(me.max(node).as_bytes());
            (node, DatagramKey(mac.finalize().into_bytes().into()))
        }))
    }
}

fn hmac(key: &DatagramKey) -> Hmac<Sha256> {
    Hmac::new_from_slice(&key.0).expect("a key may have any length")
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

/// What is known of another node.
struct Peer {
    mac: Hmac<Sha256>,
    window: Window,
}

/// Makes and checks datagrams.
pub(super) struct Seal {
    me: NodeId,
    /// The last number: they go up by one from the wall clock at the start, which need not go on as it did.
    last: u64,
    peers: BTreeMap<NodeId, Peer>,
    pub(super) refused: BTreeMap<&'static str, u64>,
}

impl Seal {
    /// `wall`: nanoseconds, more than those at the start of any former process by what that one has sent.
    pub(super) fn new(me: NodeId, keys: &DatagramKeys, wall: u64) -> Self {
        let others = keys.0.iter().filter(|(node, _)| **node != me);
        let peer = |key| Peer { mac: hmac(key), window: Window::default() };
        let peers = others.map(|(node, key)| (*node, peer(key))).collect();
        Self { me, last: wall, peers, refused: BTreeMap::new() }
    }

    /// The datagram for a node that there is a key for.
    pub(super) fn seal(&mut self, to: NodeId, body: &[u8]) -> Option<Vec<u8>> {
        let mut mac = self.peers.get(&to)?.mac.clone();
        self.last = self.last.saturating_add(1);
        let mut bytes = Vec::with_capacity(HEAD + body.len() + TAG);
        bytes.push(VERSION);
        bytes.extend(self.me.as_bytes());
        bytes.extend(to.as_bytes());
        bytes.extend(self.last.to_le_bytes());
        bytes.extend(body);
        mac.update(&bytes);
        bytes.extend(&mac.finalize().into_bytes()[..TAG]);
        Some(bytes)
    }

    /// From whom it is, and its body; else it is counted.
    pub(super) fn open(&mut self, bytes: &[u8]) -> Option<(NodeId, Bytes)> {
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
        if signed[17..33] != *self.me.as_bytes() {
            return Err("datagram-astray");
        }
        let from = self.peers.iter_mut().find(|(peer, _)| signed[1..17] == *peer.as_bytes());
        let (from, peer) = from.ok_or("datagram-unknown")?;
        let mut mac = peer.mac.clone();
        mac.update(signed);
        mac.verify_truncated_left(tag).map_err(|_| "datagram-forged")?;
        let number: [u8; 8] = signed[33..HEAD].try_into().map_err(|_| "datagram-short")?;
        if !peer.window.take(u64::from_le_bytes(number)) {
            return Err("datagram-replayed");
        }
        Ok((*from, Bytes::copy_from_slice(&signed[HEAD..])))
    }

    pub(super) fn count(&mut self, why: &'static str) {
        *self.refused.entry(why).or_default() += 1;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use mainstay_base::ClusterId;

    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new(ClusterId::from_entropy(1), name)
    }

    /// The key of two nodes.
    fn key(one: &str, other: &str) -> DatagramKey {
        let byte = one.as_bytes()[0] + other.as_bytes()[0];
        DatagramKey([byte; 32])
    }

    fn keys(name: &str) -> DatagramKeys {
        DatagramKeys::new(["a", "b", "c"].map(|other| (node(other), key(name, other))))
    }

    fn seal(name: &str, wall: u64) -> Seal {
        Seal::new(node(name), &keys(name), wall)
    }

    #[test]
    fn each_is_taken_once_and_in_any_order_of_the_last_ones() {
        let (mut a, mut b) = (seal("a", 1_000), seal("b", 0));
        let sent: Vec<_> = (0..100_u8).map(|it| a.seal(node("b"), &[it]).unwrap()).collect();
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
        let again = seal("a", 2_000_000).seal(node("b"), b"again").unwrap();
        assert!(b.open(&again).is_some() && b.open(&again).is_none());
    }

    #[test]
    fn what_is_not_from_a_peer_to_this_node_is_refused_and_counted() {
        let (mut a, mut b) = (seal("a", 1_000), seal("b", 0));
        let sent = a.seal(node("b"), b"body").unwrap();
        for bit in 0..sent.len() * 8 {
            let mut forged = sent.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(b.open(&forged), None, "bit {bit}");
        }
        for length in 0..sent.len() {
            assert_eq!(b.open(&sent[..length]), None, "{length} bytes");
        }
        assert_eq!(b.open(&a.seal(node("c"), b"body").unwrap()), None);
        assert_eq!(seal("d", 0).seal(node("d"), b""), None, "there is no key");
        let short = (HEAD + TAG) as u64;
        let expected = [
            ("datagram-short", short),
            ("datagram-version", 8),
            ("datagram-unknown", 16 * 8),
            ("datagram-astray", 16 * 8 + 1),
            ("datagram-forged", (8 + 4 + TAG as u64) * 8 + 4),
        ];
        assert_eq!(b.refused, expected.into());
        assert!(b.open(&sent).is_some(), "and nothing of that has changed anything");
    }

    /// A node that lies has its own keys alone: it neither speaks for another one nor uses up the numbers of one.
    #[test]
    fn a_node_cannot_speak_for_another_one() {
        let mut b = seal("b", 0);
        // What `c` has, under the name of `a`: its own key of `b`, and that of itself and `a`.
        for stolen in [key("c", "b"), key("c", "a")] {
            let keys = DatagramKeys::new([(node("b"), stolen)]);
            let mut liar = Seal::new(node("a"), &keys, u64::MAX - 2);
            assert_eq!(b.open(&liar.seal(node("b"), b"lie").unwrap()), None);
        }
        assert_eq!(b.refused, [("datagram-forged", 2)].into());
        assert!(b.open(&seal("a", 1_000).seal(node("b"), b"true").unwrap()).is_some());
        // What `a` has sent to `b` does not come back to it as a word of `b`.
        let mut a = seal("a", 0);
        let sent = a.seal(node("b"), b"word").unwrap();
        assert_eq!(a.open(&sent), None);
    }

    #[test]
    fn keys_of_one_secret_fit_in_pairs_and_differ_between_them() {
        let secret = DatagramKey([9; 32]);
        let of = |name: &str| {
            let keys = DatagramKeys::shared(&secret, node(name), ["a", "b", "c"].map(node));
            Seal::new(node(name), &keys, 5)
        };
        let sent = of("a").seal(node("b"), b"body").unwrap();
        assert!(of("b").open(&sent).is_some());
        let keys =
            |name: &str| DatagramKeys::shared(&secret, node(name), ["a", "b", "c"].map(node)).0;
        assert_eq!(keys("a")[&node("b")].0, keys("b")[&node("a")].0);
        assert_ne!(keys("a")[&node("b")].0, keys("a")[&node("c")].0);
        let stranger = DatagramKeys::shared(&DatagramKey([8; 32]), node("a"), [node("b")]);
        let sent = Seal::new(node("a"), &stranger, 5).seal(node("b"), b"body").unwrap();
        assert_eq!(of("b").open(&sent), None);
    }
}
