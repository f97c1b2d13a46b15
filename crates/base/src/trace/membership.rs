//! What membership says.

use serde::{Deserialize, Serialize};

use crate::{NodeId, SiteId, ViewId};

/// What happened to a boot as a member.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum MembershipWord {
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
}
