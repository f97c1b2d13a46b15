//! What a member of a `Disk` group writes into the site's log.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use mainstay_base::codec::{self, DecodeError};
use mainstay_base::{GroupId, SiteId, ViewId};
use serde::{Deserialize, Serialize};

/// The kind under which records of groups are in the log.
pub const RECORD_KIND: u16 = 1;

/// Messages at consecutive positions.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Entries {
    /// The first position.
    pub first: u64,
    /// Sender, sequence number of the first, and count, run by run.
    pub runs: Vec<(SiteId, u64, u32)>,
    /// Bytes of each.
    pub lens: Vec<u32>,
    /// The payloads, one after the other.
    #[serde(skip)]
    pub payload: Bytes,
}

/// A record of one group; a disk contract. At most about 1 MiB each.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Record {
    /// From here on the log is of this view, from this position on.
    Start {
        /// The group.
        group: GroupId,
        /// The view.
        view: ViewId,
        /// Its members in rank order.
        senders: Vec<SiteId>,
        /// The position before the first that counts.
        position: u64,
        /// Per rank the last sequence number at or before it.
        ordered: Vec<u64>,
        /// The member has all the past of the group.
        whole: bool,
    },
    /// Messages received, in order.
    Entries {
        /// The group.
        group: GroupId,
        /// The view.
        view: ViewId,
        /// The messages.
        entries: Entries,
    },
    /// A part of what a cut names and the log did not have. It counts when the view is installed.
    Hold {
        /// The group.
        group: GroupId,
        /// The old view.
        as_of: ViewId,
        /// The last of the new views, and its members in rank order with the last sequence number of each.
        last: (ViewId, Vec<(SiteId, u64)>),
        /// It is the first part: what the parts of another attempt say is void.
        begins: bool,
        /// It is the last part.
        ends: bool,
        /// The last position of the old view.
        end: u64,
        /// The messages; what the log has at these positions and behind is void.
        entries: Entries,
    },
    /// A joiner has the state of the group, forced.
    Whole {
        /// The group.
        group: GroupId,
        /// In this view.
        view: ViewId,
    },
}

impl Record {
    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        match self {
            Self::Start { group, .. }
            | Self::Entries { group, .. }
            | Self::Hold { group, .. }
            | Self::Whole { group, .. } => *group,
        }
    }

    /// Kind and body for the log.
    #[must_use]
    pub fn encode(&self) -> (u16, Bytes) {
        let meta = codec::encode(self);
        let payload = match self {
            Self::Entries { entries, .. } | Self::Hold { entries, .. } => entries.payload.as_ref(),
            Self::Start { .. } | Self::Whole { .. } => &[],
        };
        let mut body = BytesMut::with_capacity(4 + meta.len() + payload.len());
        body.put_u32_le(meta.len() as u32);
        body.put_slice(&meta);
        body.put_slice(payload);
        (RECORD_KIND, body.freeze())
    }

    /// The record that was encoded.
    ///
    /// # Errors
    /// [`DecodeError`]; the log is not of this version or not of a group.
    pub fn decode(kind: u16, mut body: Bytes) -> Result<Self, DecodeError> {
        if kind != RECORD_KIND {
            return Err(DecodeError::Type);
        }
        if body.len() < 4 {
            return Err(DecodeError::Truncated);
        }
        let len = body.get_u32_le() as usize;
        if body.len() < len {
            return Err(DecodeError::Truncated);
        }
        let meta = body.split_to(len);
        let mut record: Self = codec::decode(&meta)?;
        match &mut record {
            Self::Entries { entries, .. } | Self::Hold { entries, .. } => {
                let bytes: u64 = entries.lens.iter().map(|len| u64::from(*len)).sum();
                let count: u64 = entries.runs.iter().map(|(_, _, count)| u64::from(*count)).sum();
                if bytes != body.len() as u64 || count != entries.lens.len() as u64 {
                    return Err(DecodeError::Type);
                }
                entries.payload = body;
            }
            _ if body.is_empty() => {}
            _ => return Err(DecodeError::Trailing),
        }
        Ok(record)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;
    use mainstay_base::{ClusterId, Incarnation, NodeId};
    use proptest::prelude::*;

    /// A golden vector: it may never change.
    #[test]
    fn the_records_are_frozen() {
        let cluster = ClusterId::from_entropy(7);
        let node = NodeId::new(cluster, "n1");
        let site = SiteId { node, incarnation: Incarnation(2) };
        let (group, view) = (GroupId::new(cluster, "g"), ViewId { number: 3, nonce: 9 });
        let payload = Bytes::from_static(b"abb");
        let entries = Entries { first: 5, runs: vec![(site, 4, 2)], lens: vec![1, 2], payload };
        let last = (view, vec![(site, 5)]);
        let (begins, ends, end, as_of) = (true, false, 6, ViewId::NONE);
        let hold = entries.clone();
        let all = [
            Record::Entries { group, view, entries },
            Record::Hold { group, as_of, last, begins, ends, end, entries: hold },
            Record::Start {
                group,
                view,
                senders: vec![site],
                position: 4,
                ordered: vec![3],
                whole: true,
            },
            Record::Whole { group, view },
        ];
        for record in &all {
            let (kind, body) = record.encode();
            assert_eq!(Record::decode(kind, body.clone()).unwrap(), *record);
            assert!(Record::decode(kind, body.slice(..body.len() - 1)).is_err());
        }
        let hex: String = all[0].encode().1.iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = "3c00000081a7456e747269657393c4103fad0c78b6025bf09fec5b967ef488cc9203099305919392c41089cbd278e010536d95c55ceaf2c4343b020402920102616262";
        assert_eq!(hex, golden);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>) {
            let _ = Record::decode(RECORD_KIND, body.into());
        }
    }
}
