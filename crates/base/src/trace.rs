//! Trace events: what a run did, in the words of the properties.
//!
//! An event is named by (the boot that did it, its running number there); a receive names the send it belongs to by the
//! message's own id. Checkers (crate `check`) and diagrams read nothing else.

use serde::{Deserialize, Serialize};

use crate::{BootId, GroupId, Instant, Level, MessageId, NodeId, Order, Position, SiteId, ViewId};

/// One event of a run.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Who did it.
    pub boot: BootId,
    /// Its running number at that boot, from 0.
    pub number: u64,
    /// When, by the time source of the boot (in a simulation all boots share one).
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What happened. Complete: a checker handles every kind.
///
/// | whose word | kinds |
/// |---|---|
/// | the process | `Started`, `Crashed` |
/// | membership | `Killed`, `Installed` |
/// | groups | `InstalledGroup`, `Restored`, `MaybeLost` |
/// | multicast in a group | `Cast`, `Delivered`, `Acknowledged` |
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum What {
    /// The process began to run.
    Started,
    /// The process stopped for ever; nothing of this boot follows.
    Crashed,
    /// It learned that it is no longer a member (*you are dead*); it acts no more under this boot.
    Killed,
    /// It installed a site view.
    Installed {
        /// The view.
        view: ViewId,
        /// Its members in age order, oldest first.
        members: Vec<SiteId>,
        /// The configured nodes at the time of the view.
        roster: Vec<NodeId>,
    },
    /// It installed a view of a group: from here on deliveries of the group are in this view.
    InstalledGroup {
        /// The group.
        group: GroupId,
        /// The site view that gives the group view.
        view: ViewId,
        /// Members of the group, in age order.
        members: Vec<SiteId>,
        /// The state at this boundary is as of this position.
        position: Position,
    },
    /// It sent a message to a group.
    Cast {
        /// The group.
        group: GroupId,
        /// The message.
        message: MessageId,
        /// Under which order.
        order: Order,
    },
    /// It delivered a message to its user.
    Delivered {
        /// The group.
        group: GroupId,
        /// In which view.
        view: ViewId,
        /// The message.
        message: MessageId,
        /// Under which order, with the position if the order is total.
        order: Order,
        /// Place in the total order; `None` for FIFO messages.
        position: Option<Position>,
    },
    /// It took over state up to a position instead of delivering the messages.
    Restored {
        /// The group.
        group: GroupId,
        /// As of.
        position: Position,
    },
    /// The caster was told that its message has reached a level.
    Acknowledged {
        /// The group.
        group: GroupId,
        /// The message.
        message: MessageId,
        /// Its place.
        position: Position,
        /// The level reached.
        level: Level,
    },
    /// The group may have lost messages from a position on: an operator accepted it.
    MaybeLost {
        /// The group.
        group: GroupId,
        /// From here on.
        from: Position,
    },
}
