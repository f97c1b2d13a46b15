//! Names of nodes, sites, groups, views and messages.
//!
//! A *node* is configured; a *site* is one incarnation of a node that a view has admitted; a *boot* is a started node
//! that no view has admitted yet. None converts into another silently (glossary; view-synchrony §4).

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A cluster: a random UUID drawn once, when the cluster is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(Uuid);

impl ClusterId {
    /// The id made of 128 bits of entropy, marked as a version 4 UUID.
    #[must_use]
    pub fn from_entropy(bits: u128) -> Self {
        let mut bytes = bits.to_be_bytes();
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(Uuid::from_bytes(bytes))
    }

    /// Parses the usual hyphenated form; `None` if it is not a UUID.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }

    /// The 16 bytes of the id.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

/// A configured node: the UUIDv5 of the cluster's id and the node's name, so it is the same everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(Uuid);

impl NodeId {
    /// The id of the node called `name` in `cluster`.
    #[must_use]
    pub fn new(cluster: ClusterId, name: &str) -> Self {
        Self(named(cluster, "node", name))
    }

    /// The 16 bytes of the id.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

/// A process group: the UUIDv5 of the cluster's id and the group's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(Uuid);

impl GroupId {
    /// The id of the group called `name` in `cluster`.
    #[must_use]
    pub fn new(cluster: ClusterId, name: &str) -> Self {
        Self(named(cluster, "group", name))
    }

    /// The id that these 16 bytes are: the inverse of [`as_bytes`](Self::as_bytes).
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes of the id.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

/// A kind of service, by the number under which frames, records and traces name it. Numbers below 0x0100 are the house's, those from
/// 0x4000 on are free for users.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Channel(pub u16);

/// Which one of a kind of service: the UUIDv5 of the cluster's id and a name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instance(Uuid);

impl Instance {
    /// The instance called `name` in `cluster`.
    #[must_use]
    pub fn new(cluster: ClusterId, name: &str) -> Self {
        Self(named(cluster, "instance", name))
    }

    /// The id that these 16 bytes are: the inverse of [`as_bytes`](Self::as_bytes).
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes of the id.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl From<GroupId> for Instance {
    fn from(group: GroupId) -> Self {
        Self(group.0)
    }
}

fn named(cluster: ClusterId, kind: &str, name: &str) -> Uuid {
    let space = Uuid::new_v5(&cluster.0, kind.as_bytes());
    Uuid::new_v5(&space, name.as_bytes())
}

/// How many times a node has been admitted to a view; assigned by the view that admits it, first is 1 (MB-14).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug, Default,
)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// The incarnation after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("fewer than 2^32 incarnations of one node"))
    }
}

/// A site: one incarnation of a node, as admitted by a view.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SiteId {
    /// The node.
    pub node: NodeId,
    /// Which of its incarnations.
    pub incarnation: Incarnation,
}

/// A connection of the transport: drawn by the host, never reused while the process lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// 128 bits drawn at each start of a node; links compare them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootNonce(pub u128);

/// A started node, named before any view has admitted it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct BootId {
    /// The node.
    pub node: NodeId,
    /// What it drew when it started.
    pub nonce: BootNonce,
}

/// A view of the sites. The number is the fencing token; the nonce keeps apart views of one number in different partitions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ViewId {
    /// Consecutive from 1; 0 names the state before the first view.
    pub number: u64,
    /// Drawn by the coordinator that proposed the view.
    pub nonce: u64,
}

impl ViewId {
    /// Before the first view.
    pub const NONE: Self = Self { number: 0, nonce: 0 };
}

/// A place in the total order of a group: the first message is at 1 and numbering runs on across views.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug, Default,
)]
pub struct Position(pub u64);

impl Position {
    /// Before the first message.
    pub const ZERO: Self = Self(0);

    /// The place after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A message of a site in one group: sites number what they send in a group from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct MessageId {
    /// The sender.
    pub sender: SiteId,
    /// Which of its messages in the group.
    pub sequence: u64,
}

fn short(uuid: &Uuid) -> String {
    let text = uuid.simple().to_string();
    text[..8].to_owned()
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster:{}", short(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node:{}", short(&self.0))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group:{}", short(&self.0))
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instance:{}", short(&self.0))
    }
}

impl fmt::Debug for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.node, self.incarnation.0)
    }
}

impl fmt::Debug for BootNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", (self.0 >> 96) as u32 ^ self.0 as u32)
    }
}

impl fmt::Debug for ViewId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "view {}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names are wire contracts: these values may never change.
    #[test]
    fn the_id_of_a_name_is_frozen() {
        let cluster = ClusterId::from_entropy(7);
        assert_eq!(cluster.to_string(), "00000000-0000-4000-8000-000000000007");
        let node = NodeId::new(cluster, "n1");
        assert_eq!(node, NodeId::new(cluster, "n1"));
        assert_ne!(node, NodeId::new(cluster, "n2"));
        assert_ne!(node.as_bytes(), GroupId::new(cluster, "n1").as_bytes());
        assert_eq!(node.to_string(), "89cbd278-e010-536d-95c5-5ceaf2c4343b");
    }
}
