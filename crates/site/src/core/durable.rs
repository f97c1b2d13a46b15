//! What a site writes to its one log, and how it comes back from it.

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstay_base::codec::{self, DecodeError};
use mainstay_base::{BootId, GroupId, Position, ViewId};
use mainstay_membership::Durable;
use mainstay_multicast::{self as multicast, Durability, Group, Recovered, Replay, Start};
use thiserror::Error;

/// The kind of a membership record in the log (16 before views said who left, 17 before they said what settings groups have).
/// Those of groups have [`multicast::RECORD_KIND`].
const MEMBERSHIP_KIND: u16 = 18;

/// A record of the site's log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Record {
    /// All that the membership must not forget; replaces the one before.
    Membership(Box<Durable>),
    /// Of a group.
    Group(multicast::Record),
}

/// Why a record cannot be read. The log is of another version, or not of a site: do not start on it.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// A kind that this version does not write.
    #[error("record of unknown kind {0}")]
    Kind(u16),
    /// The body is not what the kind says.
    #[error("record of kind {kind}")]
    Body {
        /// The kind.
        kind: u16,
        /// What is wrong with it.
        source: DecodeError,
    },
}

impl Record {
    /// Kind and body for the log.
    #[must_use]
    pub fn encode(&self) -> (u16, Bytes) {
        match self {
            Self::Membership(durable) => (MEMBERSHIP_KIND, codec::encode(durable.as_ref())),
            Self::Group(record) => record.encode(),
        }
    }

    /// The record that the log holds.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(kind: u16, body: Bytes) -> Result<Self, RecordError> {
        let failed = |source| RecordError::Body { kind, source };
        match kind {
            MEMBERSHIP_KIND => {
                let durable: Durable = codec::decode(&body).map_err(failed)?;
                Ok(Self::Membership(Box::new(durable)))
            }
            multicast::RECORD_KIND => {
                multicast::Record::decode(kind, body).map(Self::Group).map_err(failed)
            }
            kind => Err(RecordError::Kind(kind)),
        }
    }
}

/// What the log of a site says, folded record by record in log order.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Past {
    pub(super) durable: Option<Durable>,
    groups: BTreeMap<GroupId, Replay>,
    checkpoints: BTreeMap<GroupId, Position>,
    /// Those of `groups` that are folded to the end.
    recovered: BTreeMap<GroupId, Recovered>,
}

impl Past {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next record.
    pub fn record(&mut self, record: Record) {
        match record {
            Record::Membership(durable) => {
                let before = self.durable.as_ref().map_or(ViewId::NONE, |it| it.installed.id);
                let after = durable.installed.id;
                if before != after {
                    self.groups.values_mut().for_each(|replay| replay.installed(after));
                }
                self.durable = Some(*durable);
            }
            Record::Group(record) => {
                let group = record.group();
                self.groups.entry(group).or_insert_with(|| Replay::new(group)).record(record);
            }
        }
    }

    /// Takes in records in log order.
    pub fn extend(&mut self, records: impl IntoIterator<Item = Record>) {
        records.into_iter().for_each(|record| self.record(record));
    }

    /// The newest checkpoint of a group that is on this disk; to be said before the core is made of it.
    pub fn checkpoint(&mut self, group: GroupId, position: Position) {
        self.checkpoints.insert(group, position);
    }

    /// What the log says of the membership.
    #[must_use]
    pub fn durable(&self) -> Option<&Durable> {
        self.durable.as_ref()
    }

    /// The log and the checkpoints are read to their end: folds what is left to be folded, which takes time in proportion
    /// to the log. A core that is made of a past which is finished begins at once.
    pub fn finish(&mut self) {
        for (group, replay) in std::mem::take(&mut self.groups) {
            let checkpoint = self.checkpoints.get(&group).copied().unwrap_or_default();
            self.recovered.insert(group, replay.finish(checkpoint));
        }
    }

    pub(super) fn start_groups(
        mut self,
        configs: Vec<multicast::Config>,
        durable: &Durable,
        me: BootId,
    ) -> BTreeMap<GroupId, Group> {
        self.finish();
        // Before the first view there is nothing that could have been forgotten.
        let fresh = durable.voter && durable.installed.id == ViewId::NONE;
        let mut groups = BTreeMap::new();
        for config in configs {
            let id = config.group();
            let start = match self.recovered.remove(&id) {
                _ if fresh => Start::Fresh,
                Some(recovered) if config.durability() == Durability::Disk => {
                    Start::Recovered(recovered)
                }
                _ => Start::Empty,
            };
            groups.insert(id, Group::new(config, me, start));
        }
        groups
    }
}
