//! What two links say to each other, on channel 0. These types are a wire contract.

use bytes::Bytes;
use mainstay_base::{BootId, BootNonce, ClusterId, Frame, NodeId, codec};
use serde::{Deserialize, Serialize};

/// The channel of the link itself; users have all others.
pub const CHANNEL: u16 = 0;

/// Of a hello's features, the one that says that the sender is a guest: it is in no roster.
pub const GUEST: u64 = 1 << 63;

/// The first frame each way on a connection. Its session field is 0.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Lowest version of the services' messages that the sender speaks.
    pub version_min: u8,
    /// Highest.
    pub version_max: u8,
    /// Optional features that the sender speaks.
    pub features: u64,
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The sender.
    pub from: BootId,
    /// The node that the connection is meant for.
    pub to: NodeId,
    /// The version of the sender's roster, for information.
    pub roster_version: u64,
    /// The boot of `to` that the sender knows, if any, and what it has from it.
    pub expectation: Option<Expectation>,
}

/// How far the sender of a hello has received.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Expectation {
    /// The addressed boot.
    pub of: BootNonce,
    /// User frames received of this boot; the next one expected is the one after.
    pub received: u64,
}

/// A message of the link.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Message {
    /// Who speaks, and from where to go on.
    Hello(Hello),
    /// All user frames up to this one were received; also the heartbeat.
    Ack {
        /// How many user frames of the session were received.
        received: u64,
    },
    /// *You are dead* (MB-7): the sender takes nothing more from the addressed boot.
    Dead {
        /// The boot that is dead.
        you: BootNonce,
        /// Who says so.
        by: BootId,
    },
    /// *Your name is taken*: another boot of the addressed boot's node is connected to the sender and speaks. It may ask
    /// again; a link that does not know this message takes it for garbage and asks again as well.
    Taken {
        /// The boot that is not admitted now.
        you: BootNonce,
        /// Who says so.
        by: BootId,
    },
}

impl Message {
    /// The frame that carries this message.
    #[must_use]
    pub fn frame(&self, session: u64) -> Frame {
        Frame {
            channel: CHANNEL,
            session,
            seq: 0,
            meta: codec::encode(self),
            payload: Bytes::new(),
        }
    }
}

/// The session of two boots, the same at both ends: FNV-1a 64 of both ids (node, then nonce big-endian), smaller node
/// first, finished by the mixer of SplitMix64.
#[must_use]
pub fn session(one: BootId, other: BootId) -> u64 {
    let (low, high) = if one.node <= other.node { (one, other) } else { (other, one) };
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for boot in [low, high] {
        for byte in boot.node.as_bytes().iter().chain(&boot.nonce.0.to_be_bytes()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The sequence number before the first user frame from `from` to `to`: the low half of their session if `from` has the
/// smaller node id, else the high half. So wrap-around is an everyday event and not one after four thousand million
/// frames.
#[must_use]
pub fn seq_origin(from: BootId, to: BootId) -> u32 {
    let session = session(from, to);
    if from.node <= to.node { session as u32 } else { (session >> 32) as u32 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;
    use mainstay_base::codec;

    fn boots() -> (ClusterId, BootId, BootId) {
        let cluster = ClusterId::from_entropy(7);
        let boot =
            |name, nonce| BootId { node: NodeId::new(cluster, name), nonce: BootNonce(nonce) };
        (cluster, boot("n1", 1), boot("n2", 2))
    }

    fn hex(message: &Message) -> String {
        let bytes = codec::encode(message);
        assert_eq!(codec::decode::<Message>(&bytes).unwrap(), *message);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Golden vectors: they may never change.
    #[test]
    fn the_messages_are_frozen() {
        let (cluster, one, two) = boots();
        let hello = Message::Hello(Hello {
            version_min: 1,
            version_max: 2,
            features: 5,
            cluster,
            from: one,
            to: two.node,
            roster_version: 3,
            expectation: Some(Expectation { of: two.nonce, received: 300 }),
        });
        assert_eq!(
            hex(&hello),
            "81a548656c6c6f98010205c4100000000000004000800000000000000792c41089cbd278e010536d95c55ceaf2c4343bc41000000000000000000000000000000001c4102f36ba620a155348abe1cec0a70b146b0392c41000000000000000000000000000000002cd012c"
        );
        assert_eq!(hex(&Message::Ack { received: 300 }), "81a341636b91cd012c");
        assert_eq!(
            hex(&Message::Dead { you: one.nonce, by: two }),
            "81a44465616492c4100000000000000000000000000000000192c4102f36ba620a155348abe1cec0a70b146bc41000000000000000000000000000000002"
        );
        assert_eq!(
            hex(&Message::Taken { you: one.nonce, by: two }),
            "81a554616b656e92c4100000000000000000000000000000000192c4102f36ba620a155348abe1cec0a70b146bc41000000000000000000000000000000002"
        );
    }

    /// Golden vectors: they may never change.
    #[test]
    fn the_session_is_frozen_and_the_same_at_both_ends() {
        let (_, one, two) = boots();
        assert_eq!(session(one, two), session(two, one));
        assert_eq!(format!("{:016x}", session(one, two)), "9f34b9334bd1f7de");
        assert_ne!(seq_origin(one, two), seq_origin(two, one));
        let again = BootId { nonce: BootNonce(3), ..two };
        assert_ne!(session(one, two), session(one, again));
    }
}
