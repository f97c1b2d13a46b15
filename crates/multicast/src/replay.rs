//! What the log of a former boot says.

use bytes::Bytes;
use mainstay_base::{GroupId, MessageId, Order, Position, SiteId, ViewId};

use crate::epoch::Epoch;
use crate::event::Delivery;
use crate::record::{Entries, Record};

/// A member that had restarted, as its log has it; see [`Start::Recovered`](crate::Start::Recovered).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Recovered {
    /// The messages of the last view; `None` if the log does not make a whole member.
    pub(crate) epoch: Option<Box<Epoch>>,
    pub(crate) checkpoint: Position,
    /// All messages behind the checkpoint whose positions the log has. They are many; they are made where the log is
    /// folded, so that a view has only to hand them on.
    pub(crate) past: Vec<Delivery>,
    /// The last view, if the member never had all the past in it.
    pub(crate) learning: Option<ViewId>,
}

impl Recovered {
    /// Whether the log makes a whole member; otherwise starting from it is starting empty.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.epoch.is_some()
    }

    /// The last view of the group whose past the log has.
    #[must_use]
    pub fn as_of(&self) -> Option<ViewId> {
        self.epoch.as_ref().map(|epoch| epoch.view)
    }

    /// The last position that it has.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.epoch.as_ref().map_or(0, |epoch| epoch.log.known()))
    }
}

/// Folds the records of one group, in log order, into a [`Recovered`].
///
/// Between them the caller says which views were installed, where the log has that ([`installed`](Self::installed)).
/// Records of other groups are passed over.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Replay {
    group: GroupId,
    base: Base,
    /// Everything logged at positions that still count, in order and without a hole.
    entries: Vec<Entry>,
    /// A cut that was held; it counts once its view is installed.
    held: Option<Held>,
}

/// Where the last view begins in the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Base {
    view: ViewId,
    senders: Vec<SiteId>,
    position: u64,
    ordered: Vec<u64>,
    whole: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Entry {
    position: u64,
    view: ViewId,
    sender: SiteId,
    sequence: u64,
    payload: Bytes,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Held {
    as_of: ViewId,
    last: (ViewId, Vec<(SiteId, u64)>),
    end: u64,
    first: u64,
    entries: Vec<Entry>,
    complete: bool,
}

impl Replay {
    /// Nothing read yet.
    #[must_use]
    pub fn new(group: GroupId) -> Self {
        let base = Base {
            view: ViewId::NONE,
            senders: Vec::new(),
            position: 0,
            ordered: Vec::new(),
            whole: false,
        };
        Self { group, base, entries: Vec::new(), held: None }
    }

    /// The next record of the log.
    pub fn record(&mut self, record: Record) {
        if record.group() != self.group {
            return;
        }
        match record {
            Record::Start { view, senders, position, ordered, whole, .. } => {
                self.installed(view);
                if view != self.base.view {
                    self.held = None;
                }
                self.base = Base { view, senders, position, ordered, whole };
            }
            Record::Entries { view, entries, .. } => {
                self.installed(view);
                self.append(unpack(&entries, view), entries.first);
            }
            Record::Hold { as_of, last, begins, ends, end, entries, .. } => {
                let new = unpack(&entries, as_of);
                if begins {
                    let (first, entries) = (entries.first, new);
                    let complete = ends;
                    self.held = Some(Held { as_of, last, end, first, entries, complete });
                } else if let Some(held) = &mut self.held {
                    held.entries.extend(new);
                    held.complete |= ends;
                }
            }
            Record::Whole { view, .. } => self.base.whole |= self.base.view == view,
        }
    }

    /// The log says here that this view was installed. Of an extension by several it must be the last: a view before it
    /// may be in another extension too, with another cut. To be called only where this node installed the cut that it
    /// held last.
    pub fn installed(&mut self, view: ViewId) {
        let is_it = |held: &mut Held| held.complete && held.last.0 == view;
        let Some(held) = self.held.take_if(is_it) else { return };
        self.append(held.entries, held.first);
        let (view, members) = held.last;
        let (senders, ordered) = members.into_iter().unzip();
        self.base = Base { view, senders, position: held.end, ordered, whole: true };
    }

    /// What was logged at these positions and behind is void.
    fn append(&mut self, new: Vec<Entry>, first: u64) {
        let keep = self.entries.partition_point(|entry| entry.position < first);
        self.entries.truncate(keep);
        if self.entries.last().is_some_and(|last| last.position + 1 != first) {
            self.entries.clear();
        }
        self.entries.extend(new);
    }

    /// The end of the log. The checkpoint at hand is as of `checkpoint`, [`Position::ZERO`] if there is none.
    #[must_use]
    pub fn finish(mut self, checkpoint: Position) -> Recovered {
        let nothing = Recovered { epoch: None, checkpoint, past: Vec::new(), learning: None };
        // Before the first view the empty state is the right one, if this boot held the cut of it.
        let is_first = |held: &Held| held.complete && held.as_of == ViewId::NONE;
        let has_no_view = self.base.view == ViewId::NONE;
        self.base.whole |= has_no_view && self.held.as_ref().is_some_and(is_first);
        if !self.base.whole {
            // Had it become whole, and counted for a majority, the log would say so.
            let learning = Some(self.base.view).filter(|view| *view != ViewId::NONE);
            return Recovered { learning, ..nothing };
        }
        if self.base.senders.len() != self.base.ordered.len() {
            return nothing;
        }
        let entries = std::mem::take(&mut self.entries);
        let base = self.base.position;
        let (past, newer): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|it| it.position <= base);
        let past = past.into_iter().filter(|it| it.position > checkpoint.0);
        let mut past: Vec<Delivery> = past.map(Entry::delivery).collect();
        let first = past.first().and_then(|delivery| delivery.position);
        let reaches = first.is_none_or(|first| first == checkpoint.next());
        if past.len() as u64 != base.saturating_sub(checkpoint.0) || !reaches {
            return nothing;
        }
        let epoch = self.epoch(newer);
        if epoch.log.known() < checkpoint.0 {
            return nothing;
        }
        for run in epoch.log.range(base.max(checkpoint.0) + 1, epoch.log.known()) {
            epoch.deliver(run, &mut past);
        }
        Recovered { epoch: Some(Box::new(epoch)), checkpoint, past, learning: None }
    }

    /// The messages of the last view, with those that were held for a view that never came: they were received, but
    /// have no positions.
    fn epoch(self, newer: Vec<Entry>) -> Epoch {
        let Base { view, senders, position, ordered, .. } = self.base;
        let senders = senders.into_iter().zip(ordered).map(|(site, total)| (site, total, 0));
        let mut epoch = Epoch::new(view, position, senders.collect());
        let mut take = |entry: Entry, numbered: bool| {
            let rank = epoch.senders.iter().position(|site| *site == entry.sender);
            let Some(rank) = rank.filter(|_| entry.view == view) else { return false };
            let stream = &mut epoch.total[rank];
            if entry.sequence == stream.received() + 1 {
                stream.push(entry.payload);
            } else if numbered || entry.sequence > stream.received() {
                return false;
            }
            !numbered || entry.position == epoch.log.known() + 1 && epoch.log.append(rank, 1)
        };
        for entry in newer {
            if !take(entry, true) {
                break;
            }
        }
        let held = self.held.filter(|held| held.complete && held.as_of == view);
        for entry in held.into_iter().flat_map(|held| held.entries) {
            take(entry, false);
        }
        epoch.advance();
        epoch
    }
}

impl Entry {
    fn delivery(self) -> Delivery {
        Delivery {
            message: MessageId { sender: self.sender, sequence: self.sequence },
            order: Order::Total,
            position: Some(Position(self.position)),
            view: self.view,
            payload: self.payload,
        }
    }
}

fn unpack(entries: &Entries, view: ViewId) -> Vec<Entry> {
    let mut payload = entries.payload.clone();
    let names = entries.runs.iter().flat_map(|(sender, first, count)| {
        (0..u64::from(*count)).map(move |step| (*sender, first.saturating_add(step)))
    });
    let messages = names.zip(&entries.lens).zip(entries.first..);
    let entry = |(((sender, sequence), len), position): (((SiteId, u64), &u32), u64)| {
        let payload = payload.split_to((*len as usize).min(payload.len()));
        Entry { position, view, sender, sequence, payload }
    };
    messages.map(entry).collect()
}

#[cfg(test)]
mod tests {
    use mainstay_base::{BootId, BootNonce, ClusterId, Incarnation, NodeId, SiteId};

    use super::*;
    use crate::config::{Config, Durability};
    use crate::group::{Group, Start};

    /// What a boot says that restarts from a log with these records.
    fn learning(records: impl IntoIterator<Item = Record>) -> (bool, Option<ViewId>) {
        let node = NodeId::new(ClusterId::from_entropy(1), "a");
        let group = GroupId::new(ClusterId::from_entropy(1), "g");
        let mut replay = Replay::new(group);
        records.into_iter().for_each(|record| replay.record(record));
        let config = Config::new(group, [node].into()).durability(Durability::Disk).build();
        let me = BootId { node, nonce: BootNonce(2) };
        let start = Start::Recovered(replay.finish(Position::ZERO));
        let state = Group::new(config.expect("it fits"), me, start).flush();
        (state.standing.is_some(), state.learning)
    }

    /// Checks that a member whose log ends while it learned the past says so after its restart, and only then: it never
    /// counted for a majority of that view, and need not be waited for.
    #[test]
    fn a_log_tells_that_its_member_was_still_learning() {
        let group = GroupId::new(ClusterId::from_entropy(1), "g");
        let view = ViewId { number: 4, nonce: 7 };
        let node = NodeId::new(ClusterId::from_entropy(1), "a");
        let senders = vec![SiteId { node, incarnation: Incarnation(1) }];
        let start = |whole| {
            let (senders, ordered) = (senders.clone(), vec![0]);
            Record::Start { group, view, senders, position: 0, ordered, whole }
        };
        assert_eq!(learning([]), (false, None));
        assert_eq!(learning([start(false)]), (false, Some(view)));
        assert_eq!(learning([start(false), Record::Whole { group, view }]), (true, None));
        assert_eq!(learning([start(true)]), (true, None));
    }
}
