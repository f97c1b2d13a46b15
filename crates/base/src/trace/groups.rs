//! What a group says.

use serde::{Deserialize, Serialize};

use crate::{GroupId, Level, MessageId, Order, Position, SiteId, ViewId};

/// What happened at a member of a group.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum GroupWord {
    /// It installed a view of the group: from here on deliveries of the group are in this view.
    Installed {
        /// The group.
        group: GroupId,
        /// The site view that gives the group view.
        view: ViewId,
        /// Members of the group, in age order.
        members: Vec<SiteId>,
        /// The state at this boundary is as of this position.
        position: Position,
    },
    /// It sent a message to the group.
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
