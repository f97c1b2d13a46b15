//! How a node is.

use mainstay_base::Position;
use mainstay_paradigm::{self as paradigm, Replica, StateMachine};
use mainstay_site as site;

use crate::serve::ClientStats;
use crate::waiting::Waiting;

/// How a node is. Asking changes nothing.
#[derive(Clone, Debug)]
pub struct Status {
    /// Views, members, groups and counters of the site.
    pub site: site::Status,
    /// The state machine on it.
    pub replica: ReplicaStatus,
    /// The clients that it served.
    pub clients: ClientStats,
}

/// How a replica and those who wait for it are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ReplicaStatus {
    /// The state is as of here.
    pub position: Position,
    /// Whether it executes; `None` before anybody asked.
    pub replica: Option<paradigm::Status>,
    /// The hash of the state; `None` while it does not execute.
    pub hash: Option<u128>,
    /// The number of the view that the state machine was told last; `None` while it does not execute.
    pub view: Option<u64>,
    /// Open sessions.
    pub sessions: usize,
    /// The replica's counters.
    pub stats: paradigm::Stats,
    /// Commands without an answer.
    pub commands: usize,
    /// Reads without an answer.
    pub reads: usize,
    /// Checkpoints forced by this process.
    pub checkpoints: u64,
    /// The last checkpoint could not be written; the log is not cut until one can.
    pub checkpoint_failed: bool,
    /// The disk is almost full: commands are refused here.
    pub disk_short: bool,
    /// How often acknowledged commands may have been lost.
    pub maybe_lost: u64,
    /// How often the states of members differed.
    pub diverged: u64,
    /// Messages that came while the replica had no state to apply them to.
    pub not_applied: u64,
    /// Rebuilds after a poison command was skipped.
    pub rebuilds: u64,
    /// Transferred states that could not be restored.
    pub restores_failed: u64,
}

impl ReplicaStatus {
    /// The own counters with what the replica says now.
    pub(crate) fn of<S: StateMachine>(
        self,
        replica: &Replica<S>,
        waiting: &Waiting<S>,
        queued: usize,
    ) -> Self {
        let (commands, reads) = waiting.len();
        Self {
            position: replica.position(),
            replica: Some(replica.status()),
            hash: replica.state_hash(),
            view: replica.view_number(),
            sessions: replica.session_count(),
            stats: replica.stats(),
            commands: commands + queued,
            reads,
            ..self
        }
    }
}
