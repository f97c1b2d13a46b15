//! What the user of a link is told, with names.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::{BootId, ClusterId, NodeId};

use crate::Unsettled;

/// One boot of a node, and what the roster calls that node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub struct Peer {
    /// The name of its node.
    pub name: Arc<str>,
    /// Node and nonce: a node that was started anew is another boot.
    pub boot: BootId,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// What the user of a link is told, in order.
///
/// Messages to a boot have numbers from 1, given when they are [accepted](super::LinkHandle::send).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LinkEvent {
    /// A boot is connected. The first one of a boot opens its session.
    Up {
        /// Which.
        peer: Peer,
    },
    /// A boot is not connected any more. Nothing is lost: the session goes on when it is back.
    Down {
        /// Which.
        peer: Peer,
    },
    /// A message came: in the order of sending, once.
    Message {
        /// From whom.
        from: Peer,
        /// What.
        payload: Bytes,
    },
    /// The reader of this boot was given the first `upto` messages accepted for it; they need not be kept. Several such words
    /// may become one.
    Acknowledged {
        /// To whom they were.
        to: Peer,
        /// How many.
        upto: u64,
    },
    /// The node was started anew: the old boot is gone, and with it what it had not been given, and what it sent that was not read
    /// here. Followed by [`Up`](Self::Up) of the new one; in place of `Down` of the old one. Nothing is sent again by itself.
    Replaced {
        /// The boot known until now.
        old: Peer,
        /// The boot known from now on.
        new: Peer,
        /// The messages that the old one did not acknowledge, by number.
        unsettled: Unsettled,
    },
    /// A peer takes this boot for dead: another process was started under the name of this node. Told once for each boot that says so. Nothing
    /// goes to or comes from it any more.
    Dead {
        /// Who says so.
        by: Peer,
        /// The messages that it did not acknowledge, by number.
        unsettled: Unsettled,
    },
}

/// What an event counts for while it is unread.
pub(super) fn event_weight(event: &LinkEvent) -> usize {
    let more = if let LinkEvent::Message { payload, .. } = event { payload.len() } else { 0 };
    size_of::<LinkEvent>() + more
}

/// Why a link wants a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ring {
    /// There is something to be sent.
    Sends,
    /// The reader has room again.
    Room,
    /// There is no reader any more.
    Left,
}

/// What the nodes are called.
pub(super) struct Names(BTreeMap<NodeId, Arc<str>>);

impl Names {
    pub(super) fn new<'a>(cluster: ClusterId, names: impl Iterator<Item = &'a String>) -> Self {
        Self(names.map(|name| (NodeId::new(cluster, name), name.as_str().into())).collect())
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.0.keys().copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Arc<str>)> + '_ {
        self.0.iter().map(|(node, name)| (*node, name))
    }

    pub(super) fn node(&self, name: &str) -> Option<NodeId> {
        self.0.iter().find(|(_, it)| &***it == name).map(|(node, _)| *node)
    }

    pub(super) fn peer(&self, boot: BootId) -> Peer {
        let name = self.0.get(&boot.node).map_or_else(|| "?".into(), Arc::clone);
        Peer { name, boot }
    }
}
