//! The site's one log: how records stand in it, and where its front may be cut off.
//!
//! The records of all groups and of the membership share the log, so the cut is the lowest of what each still needs:
//!
//! - A group needs its last `Start` record, and every `Entries` and `Hold` record with a position above both its older
//!   kept checkpoint and that `Start`. It writes a `Start` whenever a checkpoint of it is forced; the cut is found then.
//! - A group that is quiet writes neither; when its `Start` is far behind it is asked to ([`Ledger::pinning`]).
//! - The membership needs its last record alone, and is quiet while no view changes: so that record is written once more,
//!   behind everything, before the front is cut off.
//!
//! The word to cut goes through the log's thread like a record, behind those that it relies on, and is obeyed when they
//! are forced.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use mainstay_base::{GroupId, Position};
use mainstay_multicast as multicast;
use mainstay_runtime::LogDevice;
use mainstay_stable::{AppendError, Log, Lsn};

use crate::core::{Record, RecordError};

/// The kind of all records at the log; what they are stands in front of their bodies.
const KIND: u8 = 1;
/// Bytes of the kind in front of a body.
const KIND_BYTES: usize = 2;
/// Not a record: the front may be cut off before the place in the body.
const CUT: u16 = u16::MAX;
/// How many checkpoints of a group are kept.
const KEPT: usize = mainstay_stable::KEPT_COUNT;

/// A group whose last `Start` is so far behind is asked to let go of the log, and each so many bytes again (64 MiB).
const PIN_BYTES: u64 = 64 << 20;

/// A record as it stands in the log.
pub(super) fn encode(record: &Record) -> Bytes {
    let (kind, body) = record.encode();
    framed(kind, &body)
}

fn framed(kind: u16, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(KIND_BYTES + body.len());
    bytes.put_u16_le(kind);
    bytes.put_slice(body);
    bytes.freeze()
}

/// The record that stands there; too short a one is of kind 0, which there is not.
pub(super) fn decode(mut bytes: Bytes) -> Result<Record, RecordError> {
    let kind = if bytes.len() < KIND_BYTES { 0 } else { bytes.get_u16_le() };
    Record::decode(kind, bytes)
}

/// The device of the log's thread.
pub(super) struct SiteLog {
    log: Log,
    /// To be cut off before here once all that was appended is forced.
    cut: Option<Lsn>,
}

impl SiteLog {
    pub(super) fn new(log: Log) -> Self {
        Self { log, cut: None }
    }

    fn append_one(&mut self, record: Bytes) -> io::Result<()> {
        if record.first_chunk() == Some(&CUT.to_le_bytes()) {
            self.cut = record[KIND_BYTES..].first_chunk().map(|lsn| Lsn(u64::from_le_bytes(*lsn)));
            return Ok(());
        }
        match self.log.append(KIND, record.clone()) {
            // The batch is larger than what the log holds back: what it has goes out first.
            Err(AppendError::Full) => {
                self.log.force().map_err(io::Error::other)?;
                self.log.append(KIND, record).map(drop).map_err(io::Error::other)
            }
            appended => appended.map(drop).map_err(io::Error::other),
        }
    }
}

impl LogDevice for SiteLog {
    fn append(&mut self, records: Vec<Bytes>) -> io::Result<()> {
        records.into_iter().try_for_each(|record| self.append_one(record))
    }

    fn force(&mut self) -> io::Result<()> {
        self.log.force().map_err(io::Error::other)?;
        if let Some(cut) = self.cut.take() {
            let first = self.log.truncate_before(cut).map_err(io::Error::other)?;
            tracing::debug!(%cut, %first, "the front of the log was cut off");
        }
        Ok(())
    }
}

/// What a group still needs of the log.
#[derive(Default)]
struct Needs {
    /// Its last `Start`, and the position that this one begins behind.
    start: Option<(Lsn, Position)>,
    /// Records with messages, each with its last position.
    records: VecDeque<(Lsn, Position)>,
    /// The checkpoints kept, the older first.
    checkpoints: VecDeque<Position>,
    /// A checkpoint is forced and the `Start` that follows it is not written yet.
    due: bool,
    /// Bytes of the log up to its last `Start`, or to when it was last asked to let go.
    behind: u64,
}

impl Needs {
    /// Everything before this may go, for all that this group cares.
    fn cut(&mut self) -> Option<Lsn> {
        let ((start, behind), oldest) = (self.start?, self.checkpoints.front()?);
        let limit = behind.min(*oldest);
        while self.records.front().is_some_and(|(lsn, last)| *last <= limit && *lsn < start) {
            self.records.pop_front();
        }
        Some(self.records.front().map_or(start, |(first, _)| start.min(*first)))
    }
}

/// Follows the log, record by record, and knows where it can be cut.
pub(super) struct Ledger {
    last: Lsn,
    groups: BTreeMap<GroupId, Needs>,
    membership: Option<Bytes>,
    /// Of all records that were noted.
    bytes: u64,
    /// A cut is to be looked for at the end of the turn.
    due: bool,
}

impl Ledger {
    /// The last record before those to be noted has this place.
    pub(super) fn new(last: Lsn, groups: impl Iterator<Item = GroupId>) -> Self {
        let groups = groups.map(|group| (group, Needs::default())).collect();
        Self { last, groups, membership: None, bytes: 0, due: false }
    }

    /// The next record, and its bytes.
    pub(super) fn note(&mut self, record: &Record, bytes: &Bytes) {
        use multicast::Record as Of;
        self.last = self.last.next();
        self.bytes += bytes.len() as u64;
        let lsn = self.last;
        let record = match record {
            Record::Membership(_) => {
                self.membership = Some(bytes.clone());
                return;
            }
            Record::Group(record) => record,
        };
        let Some(needs) = self.groups.get_mut(&record.group()) else { return };
        let last = |entries: &multicast::Entries| {
            entries.first.saturating_add(entries.lens.len() as u64).saturating_sub(1)
        };
        match record {
            Of::Start { position, .. } => {
                needs.start = Some((lsn, Position(*position)));
                needs.behind = self.bytes;
                self.due |= std::mem::take(&mut needs.due);
            }
            Of::Entries { entries, .. } => {
                needs.records.push_back((lsn, Position(last(entries))));
            }
            Of::Hold { end, entries, .. } => {
                needs.records.push_back((lsn, Position(last(entries).max(*end))));
            }
            Of::Whole { .. } => {}
        }
    }

    /// A checkpoint of the group is on disk; `alone`: the others are not any more.
    pub(super) fn checkpoint(&mut self, group: GroupId, position: Position, alone: bool) {
        let Some(needs) = self.groups.get_mut(&group) else { return };
        if alone {
            needs.checkpoints.clear();
        }
        needs.checkpoints.push_back(position);
        if needs.checkpoints.len() > KEPT {
            needs.checkpoints.pop_front();
        }
        needs.due = true;
    }

    /// Groups that hold the log back although they have little in it: each is to write a checkpoint, if it has anything new, and its
    /// `Start` again.
    pub(super) fn pinning(&mut self) -> Vec<GroupId> {
        let mut pinning = Vec::new();
        for (group, needs) in &mut self.groups {
            if self.bytes >= needs.behind + PIN_BYTES {
                needs.behind = self.bytes;
                needs.due = true;
                pinning.push(*group);
            }
        }
        pinning
    }

    /// What is to be written to cut the log, if that is due: the membership once more, then the word.
    pub(super) fn cut(&mut self) -> Option<[Bytes; 2]> {
        if !std::mem::take(&mut self.due) {
            return None;
        }
        let mut lowest: Option<Lsn> = None;
        for needs in self.groups.values_mut() {
            let cut = needs.cut()?;
            lowest = Some(lowest.map_or(cut, |lowest| lowest.min(cut)));
        }
        let (lowest, membership) = (lowest?, self.membership.clone()?);
        self.last = self.last.next();
        Some([membership, framed(CUT, &lowest.0.to_le_bytes())])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use std::sync::Arc;

    use mainstay_base::{ClusterId, NodeId, ViewId};
    use mainstay_membership::Durable;
    use mainstay_multicast::{Entries, Record as Of};
    use mainstay_stable::{MemoryMedium, Options, Owner};

    use super::*;

    fn groups() -> [GroupId; 2] {
        ["g", "h"].map(|name| GroupId::new(ClusterId::from_entropy(1), name))
    }

    fn membership() -> Record {
        let node = NodeId::new(ClusterId::from_entropy(1), "a");
        Record::Membership(Box::new(Durable::bootstrap([node])))
    }

    fn start(group: GroupId, position: u64) -> Record {
        let (senders, ordered) = (Vec::new(), Vec::new());
        let view = ViewId { number: 1, nonce: 1 };
        Record::Group(Of::Start { group, view, senders, position, ordered, whole: true })
    }

    fn entries(group: GroupId, first: u64, count: usize) -> Record {
        let (runs, payload) = (Vec::new(), Bytes::new());
        let entries = Entries { first, runs, lens: vec![0; count], payload };
        Record::Group(Of::Entries { group, view: ViewId { number: 1, nonce: 1 }, entries })
    }

    /// A quiet group is asked once for each so many bytes that the others write, and not while it writes itself.
    #[test]
    fn a_quiet_group_is_asked_to_let_go() {
        let [busy, quiet] = groups();
        let mut ledger = Ledger::new(Lsn(0), groups().into_iter());
        note(&mut ledger, &[membership(), start(busy, 0), start(quiet, 0)]);
        let large = Bytes::from(vec![0; PIN_BYTES as usize]);
        assert_eq!(ledger.pinning(), []);
        ledger.note(&entries(busy, 1, 1), &large);
        note(&mut ledger, &[start(busy, 1)]);
        assert_eq!(ledger.pinning(), [quiet]);
        assert_eq!(ledger.pinning(), []);
        // It has a checkpoint now and writes its `Start` again: the log can be cut.
        ledger.checkpoint(busy, Position(1), false);
        ledger.checkpoint(quiet, Position(0), false);
        note(&mut ledger, &[start(busy, 1), start(quiet, 0)]);
        let [_, cut] = ledger.cut().unwrap();
        assert_eq!(cut[KIND_BYTES..], 6_u64.to_le_bytes());
    }

    fn note(ledger: &mut Ledger, records: &[Record]) {
        records.iter().for_each(|record| ledger.note(record, &encode(record)));
    }

    fn cut(ledger: &mut Ledger) -> Option<u64> {
        let [_, mut word] = ledger.cut()?;
        assert_eq!(word.get_u16_le(), CUT);
        Some(word.get_u64_le())
    }

    /// Checks that the cut spares what the older checkpoint, the start and the other group still need.
    #[test]
    fn the_cut_is_the_lowest_that_anybody_needs() {
        let [g, h] = groups();
        let mut ledger = Ledger::new(Lsn::ZERO, [g, h].into_iter());
        // Places 1 to 6.
        let records = [
            membership(),
            start(g, 0),
            start(h, 0),
            entries(g, 1, 5),
            entries(h, 1, 5),
            entries(g, 6, 5),
        ];
        note(&mut ledger, &records);
        ledger.checkpoint(g, Position(5), false);
        assert_eq!(cut(&mut ledger), None, "the start is not written yet");
        note(&mut ledger, &[start(g, 9)]);
        assert_eq!(cut(&mut ledger), None, "the other group has no checkpoint");
        ledger.checkpoint(h, Position(4), false);
        note(&mut ledger, &[start(h, 9)]);
        assert_eq!(cut(&mut ledger), Some(5), "position 5 of the other group");
        // The membership came again at 9.
        ledger.checkpoint(h, Position(5), true);
        note(&mut ledger, &[start(h, 9)]);
        assert_eq!(cut(&mut ledger), Some(6), "positions 6 to 10 of the first group");
        ledger.checkpoint(g, Position(10), false);
        note(&mut ledger, &[start(g, 10)]);
        assert_eq!(cut(&mut ledger), Some(6), "the older checkpoint is as of 5");
        ledger.checkpoint(g, Position(11), false);
        note(&mut ledger, &[start(g, 10)]);
        assert_eq!(cut(&mut ledger), Some(10), "the start of the other group");
        assert_eq!(cut(&mut ledger), None, "nothing is due");
    }

    /// Checks that the word is obeyed behind a force, is no record, and that the ledger counts as the log does.
    #[test]
    fn the_device_cuts_what_is_forced() {
        let medium = Arc::new(MemoryMedium::new());
        let options = Options { segment_bytes: 1, ..Options::new(Owner([7; 16])) };
        let (log, _) = Log::open(medium.clone(), options.clone()).unwrap();
        let mut device = SiteLog::new(log);
        let [g, _] = groups();
        for record in [membership(), start(g, 0), entries(g, 1, 5)] {
            device.append(vec![encode(&record)]).unwrap();
            device.force().unwrap();
        }
        device.append(vec![encode(&membership()), framed(CUT, &3u64.to_le_bytes())]).unwrap();
        device.force().unwrap();
        drop(device);
        let (_, recovered) = Log::open(medium, options).unwrap();
        let left: Vec<_> = recovered.records.into_iter().map(|it| (it.lsn.0, it.payload)).collect();
        assert_eq!(left, [(3, encode(&entries(g, 1, 5))), (4, encode(&membership()))]);
        assert_eq!(decode(left[1].1.clone()).unwrap(), membership());
        assert!(decode(Bytes::from_static(&[1])).is_err());
    }
}
