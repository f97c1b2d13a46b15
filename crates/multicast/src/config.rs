//! What a group is told once, valid by construction.

use std::collections::BTreeSet;

use mainstay_base::{Duration, GroupId, Level, NodeId, frame};
use serde::{Deserialize, Serialize};
use thiserror::Error;

#[cfg(feature = "test-util")]
use crate::fault::Fault;

/// What a restart of a member leaves of the group's messages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Durability {
    /// Nothing: a restarted member has no state.
    Memory,
    /// Its forced log: a restarted member contributes it to the next view.
    Disk,
}

/// Most bytes of payload that one frame gathers; a single larger message travels alone.
pub const FRAME_BYTES: usize = 256 << 10;
/// Most messages that one frame gathers.
pub const FRAME_MESSAGES: usize = 16 << 10;
/// What a message counts in the budget beyond its payload, in bytes.
pub const MESSAGE_OVERHEAD: usize = 64;
/// Room that a frame keeps for what is not payload.
const META_MAX: usize = 32 << 10;

/// The settings of a [`Group`](crate::Group); made by a [`Builder`], immutable afterwards.
///
/// Group, nodes, durability, level, statefulness and application must be the same at all members.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) group: GroupId,
    pub(crate) nodes: BTreeSet<NodeId>,
    pub(crate) durability: Durability,
    pub(crate) deliver_at: Level,
    pub(crate) stateful: bool,
    pub(crate) application: u16,
    pub(crate) unstable_bytes: usize,
    pub(crate) payload_max: usize,
    pub(crate) slow_after: Duration,
    pub(crate) report_after: Duration,
    pub(crate) report_bytes: usize,
    #[cfg(feature = "test-util")]
    pub(crate) fault: Option<Fault>,
}

/// Why settings do not fit together. Nothing was made; the caller's settings are at fault.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// No configured node, or more than 1,024.
    #[error("the number of nodes is not in 1..=1024")]
    Nodes,
    /// Delivery at level `Disk` needs a log.
    #[error("delivery at level disk needs durability disk")]
    Level,
    /// A message must fit into a frame.
    #[error("payload_max is not in 1..={}", frame::BODY_SIZE_MAX - META_MAX)]
    PayloadMax,
    /// The budget must hold the largest message.
    #[error("unstable_bytes is less than the largest message")]
    UnstableBytes,
    /// A duration is zero.
    #[error("{0} is zero")]
    Zero(&'static str),
    /// Reports must come before the budget is used up.
    #[error("report_bytes is not in 1..=unstable_bytes")]
    ReportBytes,
}

impl Config {
    /// Settings of a group with the usual values: durability `Memory`, delivery at `Majority`, stateful.
    #[allow(clippy::new_ret_no_self, reason = "settings are made by their builder only")]
    pub fn new(group: GroupId, nodes: BTreeSet<NodeId>) -> Builder {
        Builder(Self {
            group,
            nodes,
            durability: Durability::Memory,
            deliver_at: Level::Majority,
            stateful: true,
            application: 0,
            unstable_bytes: 64 << 20,
            payload_max: frame::BODY_SIZE_MAX - META_MAX,
            slow_after: Duration::from_secs(2),
            report_after: Duration::from_millis(10),
            report_bytes: 256 << 10,
            #[cfg(feature = "test-util")]
            fault: None,
        })
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The configured nodes.
    #[must_use]
    pub fn nodes(&self) -> &BTreeSet<NodeId> {
        &self.nodes
    }

    /// What a restart leaves.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// The level at which messages in total order are delivered.
    #[must_use]
    pub fn deliver_at(&self) -> Level {
        self.deliver_at
    }

    /// Whether joiners need the state of the group.
    #[must_use]
    pub fn is_stateful(&self) -> bool {
        self.stateful
    }

    /// What stands on the group.
    #[must_use]
    pub fn application(&self) -> u16 {
        self.application
    }

    /// How many of the configured nodes make a majority.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.nodes.len() / 2 + 1
    }

    pub(crate) fn is_disk(&self) -> bool {
        self.durability == Durability::Disk
    }

    fn check(&self) -> Result<(), ConfigError> {
        let largest = frame::BODY_SIZE_MAX - META_MAX;
        let zero = [("slow_after", self.slow_after), ("report_after", self.report_after)];
        if let Some((name, _)) = zero.iter().find(|(_, value)| value.is_zero()) {
            return Err(ConfigError::Zero(name));
        }
        let needs_disk = self.deliver_at == Level::Disk;
        let rules = [
            ((1..=1024).contains(&self.nodes.len()), ConfigError::Nodes),
            (!needs_disk || self.is_disk(), ConfigError::Level),
            ((1..=largest).contains(&self.payload_max), ConfigError::PayloadMax),
            (
                self.unstable_bytes >= self.payload_max + MESSAGE_OVERHEAD,
                ConfigError::UnstableBytes,
            ),
            ((1..=self.unstable_bytes).contains(&self.report_bytes), ConfigError::ReportBytes),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, error)| Err(error))
    }
}

/// Collects the settings of a [`Config`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder(Config);

impl Builder {
    /// What a restart leaves. Default `Memory`.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.0.durability = durability;
        self
    }

    /// The level at which messages in total order are delivered. Default `Majority`.
    pub fn deliver_at(mut self, level: Level) -> Self {
        self.0.deliver_at = level;
        self
    }

    /// Whether joiners need the state of the group. Default true.
    pub fn stateful(mut self, stateful: bool) -> Self {
        self.0.stateful = stateful;
        self
    }

    /// What stands on the group, by a number that its users agree on: nodes where something else does under the same name are no
    /// members of it. Default 0.
    pub fn application(mut self, number: u16) -> Self {
        self.0.application = number;
        self
    }

    /// Most bytes of own messages that are queued or not known to be at all members; each counts
    /// [`MESSAGE_OVERHEAD`] more. Default 64 MiB.
    pub fn unstable_bytes(mut self, bytes: usize) -> Self {
        self.0.unstable_bytes = bytes;
        self
    }

    /// Most bytes of one payload. Default, and most, 1 MiB less 32 KiB.
    pub fn payload_max(mut self, bytes: usize) -> Self {
        self.0.payload_max = bytes;
        self
    }

    /// A member without progress for so long while the budget is short is reported slow. Default 2 s.
    pub fn slow_after(mut self, wait: Duration) -> Self {
        self.0.slow_after = wait;
        self
    }

    /// After how many received bytes, or how long after a received message, positions are reported if nobody waits for
    /// them. Default 256 KiB and 10 ms.
    pub fn reports(mut self, bytes: usize, after: Duration) -> Self {
        self.0.report_bytes = bytes;
        self.0.report_after = after;
        self
    }

    /// Breaks the machine on purpose.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.0.fault = Some(fault);
        self
    }

    /// The settings, checked together.
    ///
    /// # Errors
    /// [`ConfigError`], the first rule that does not hold.
    pub fn build(self) -> Result<Config, ConfigError> {
        self.0.check()?;
        Ok(self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;
    use mainstay_base::ClusterId;

    fn some() -> Builder {
        let cluster = ClusterId::from_entropy(1);
        let nodes = BTreeSet::from([NodeId::new(cluster, "a"), NodeId::new(cluster, "b")]);
        Config::new(GroupId::new(cluster, "g"), nodes)
    }

    #[test]
    fn the_usual_values_are_valid() {
        assert_eq!(some().build().unwrap().quorum(), 2);
    }

    #[test]
    fn each_rule_refuses_what_breaks_it() {
        let mut nobody = some();
        nobody.0.nodes.clear();
        let table = [
            (nobody, ConfigError::Nodes),
            (some().deliver_at(Level::Disk), ConfigError::Level),
            (some().payload_max(0), ConfigError::PayloadMax),
            (some().payload_max(1 << 20), ConfigError::PayloadMax),
            (some().unstable_bytes(1), ConfigError::UnstableBytes),
            (some().slow_after(Duration::ZERO), ConfigError::Zero("slow_after")),
            (some().reports(1, Duration::ZERO), ConfigError::Zero("report_after")),
            (some().reports(0, Duration::from_millis(1)), ConfigError::ReportBytes),
        ];
        for (builder, error) in table {
            assert_eq!(builder.build().unwrap_err(), error);
        }
    }
}
