//! Getting what a cut names.

use std::hash::Hash as _;

use bytes::Bytes;
use mainstay_base::{BootId, Duration, Fingerprinter, Instant, Order, View, ViewId, fault};

use super::Group;
use super::cast::gather;
use crate::event::Event;
use crate::flush::Cut;
use crate::message::Message;
use crate::order::{Log, Placed};
use crate::record::{Entries, Record};

/// After so long without an answer the next holder is asked.
const FETCH_AFTER: Duration = Duration::from_millis(20);

/// A cut that this member is to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hold {
    cut: Cut,
    order: Log,
    views: Vec<View>,
    gaps: Vec<Gap>,
    /// The last write.
    io: Option<u64>,
}

/// Messages that the cut names and this member lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Gap {
    order: Order,
    rank: usize,
    last: u64,
    /// Who was asked, among those who have some of it, best first.
    turn: usize,
    deadline: Instant,
}

impl Hold {
    fn view(&self) -> Option<ViewId> {
        self.views.last().map(|view| view.id)
    }

    /// Of deadlines only which comes first counts, of the write only how many followed it, of the turn whose it is.
    pub(super) fn fingerprint(&self, me: BootId, next_io: u64, into: &mut Fingerprinter) {
        (&self.cut, &self.order, &self.views).hash(into);
        let first = self.gaps.iter().map(|gap| gap.deadline).min();
        let others = self.cut.holders.iter().filter(|holder| holder.boot != me).count().max(1);
        for gap in &self.gaps {
            (gap.order, gap.rank, gap.last, gap.turn % others).hash(into);
            (Some(gap.deadline) == first).hash(into);
        }
        self.io.map(|io| next_io.checked_sub(io)).hash(into);
    }
}

impl Group {
    /// Gets what `cut` names and is not here, and forces it if the group is of durability `Disk`;
    /// [`Event::Holding`] says that it is done. A later call, with the same or another cut, begins anew. What is not
    /// well-formed is dropped and counted, and never held.
    pub fn hold(&mut self, now: Instant, cut: &Cut, views: &[View]) {
        self.hold = None;
        let (Some(last), Some(order)) = (views.last(), cut.order()) else {
            self.stats.dropped_garbage += 1;
            return;
        };
        if !cut.is_well_formed() || cut.group != self.config.group {
            self.stats.dropped_garbage += 1;
            return;
        }
        let goes_on = self.goes_on(cut, last);
        if cut.is_blocked() || !goes_on || fault!(self.config, SkipsHold) {
            return self.event(Event::Holding { view: last.id });
        }
        let mut gaps = Vec::new();
        for (lane, ends) in [(Order::Total, &cut.total), (Order::Fifo, &cut.fifo)] {
            // Nothing in FIFO order is delivered from a log.
            let streams = self.data.lane(lane).iter().zip(ends).enumerate();
            for (rank, (stream, last)) in streams.filter(|_| self.live || lane == Order::Total) {
                if stream.received() < *last {
                    gaps.push(Gap { order: lane, rank, last: *last, turn: 0, deadline: now });
                }
            }
        }
        let views = views.to_vec();
        self.hold = Some(Hold { cut: cut.clone(), order, views, gaps, io: None });
        self.retry_fetches(now);
        self.finish_hold();
    }

    /// Whether this member goes from the view that the cut ends to `last`: as a member, or as one who only votes.
    pub(super) fn goes_on(&self, cut: &Cut, last: &View) -> bool {
        self.whole
            && self.data.view == cut.as_of
            && self.data.senders == cut.senders
            && self.data.log.known() >= cut.start
            // The cut may leave out what only one who votes has; a state that has it is of no use then.
            && self.behind.as_ref().is_none_or(|behind| behind.checkpoint.0 <= cut.kept)
            && (cut.is_contributor(self.me) || !last.has(self.me))
    }

    pub(super) fn fetch_deadline(&self) -> Option<Instant> {
        self.hold.as_ref()?.gaps.iter().map(|gap| gap.deadline).min()
    }

    /// Asks (again) for every gap whose deadline has come, each time the next holder.
    pub(super) fn retry_fetches(&mut self, now: Instant) {
        let Some(mut hold) = self.hold.take() else { return };
        if let Some(view) = hold.view() {
            for gap in hold.gaps.iter_mut().filter(|gap| gap.deadline <= now) {
                self.fetch(now, view, &hold.cut, gap);
            }
        }
        self.hold = Some(hold);
    }

    fn fetch(&mut self, now: Instant, view: ViewId, cut: &Cut, gap: &mut Gap) {
        gap.deadline = now + FETCH_AFTER;
        let first = self.data.lane(gap.order)[gap.rank].received() + 1;
        let has = |holder: &crate::flush::Holder| match gap.order {
            Order::Total => holder.total[gap.rank],
            Order::Fifo => holder.fifo[gap.rank],
        };
        // Whoever held the cut for an earlier ballot has more than it says of him: in the end everybody is asked.
        let mut others: Vec<_> = cut.holders.iter().filter(|it| it.boot != self.me).collect();
        others.sort_by_key(|holder| std::cmp::Reverse(has(holder)));
        if others.is_empty() {
            return;
        }
        let holder = others[gap.turn % others.len()];
        gap.turn += 1;
        self.stats.fetches += 1;
        let last = gap.last;
        let (order, rank) = (gap.order, gap.rank as u16);
        let as_of = cut.as_of;
        self.send(holder.boot, Message::Fetch { view, as_of, order, rank, first, last });
    }

    pub(super) fn on_fetch(
        &mut self,
        from: BootId,
        view: ViewId,
        as_of: ViewId,
        order: Order,
        (rank, first, last): (usize, u64, u64),
    ) {
        if !self.config.nodes.contains(&from.node) {
            self.stats.dropped_stranger += 1;
            return;
        }
        let epochs = [Some(&self.data), self.old.as_ref()];
        let epoch = epochs.into_iter().flatten().find(|epoch| epoch.view == as_of);
        let Some(stream) = epoch.and_then(|epoch| epoch.lane(order).get(rank)) else {
            self.stats.dropped_stale += 1;
            return;
        };
        if stream.get(first).is_none() {
            self.stats.dropped_stale += 1;
            return;
        }
        let (lens, payload) = gather(stream.range(first, last));
        if lens.is_empty() {
            self.stats.dropped_garbage += 1;
            return;
        }
        let rank = rank as u16;
        self.send(from, Message::Forward { view, as_of, order, rank, first, lens, payload });
    }

    pub(super) fn on_forward(
        &mut self,
        now: Instant,
        (view, as_of): (ViewId, ViewId),
        order: Order,
        rank: usize,
        (first, lens, payload): (u64, Vec<u32>, Bytes),
    ) {
        let Some(mut hold) = self.hold.take() else {
            self.stats.dropped_stale += 1;
            return;
        };
        let is_ours = hold.view() == Some(view) && hold.cut.as_of == as_of;
        let gap = hold.gaps.iter_mut().position(|gap| (gap.order, gap.rank) == (order, rank));
        match gap.filter(|_| is_ours) {
            None => self.stats.dropped_stale += 1,
            Some(index) => {
                let gap = &mut hold.gaps[index];
                let stream = &mut self.data.lane_mut(order)[rank];
                let end = first.saturating_add(lens.len() as u64 - 1);
                let before = stream.received();
                if end > gap.last || !stream.extend(first, &lens, payload) {
                    self.stats.dropped_garbage += 1;
                } else if stream.received() == gap.last {
                    hold.gaps.swap_remove(index);
                } else if stream.received() > before {
                    // The same holder goes on.
                    gap.turn = gap.turn.saturating_sub(1);
                    self.fetch(now, view, &hold.cut, gap);
                }
            }
        }
        self.hold = Some(hold);
        self.finish_hold();
    }

    /// All is here: force it, or say so.
    fn finish_hold(&mut self) {
        let Some(mut hold) = self.hold.take() else { return };
        if hold.gaps.is_empty() && hold.io.is_none() {
            if self.config.is_disk() {
                hold.io = Some(self.write_hold(&hold));
            } else if let Some(view) = hold.view() {
                self.event(Event::Holding { view });
            }
        }
        self.hold = Some(hold);
    }

    fn write_hold(&mut self, hold: &Hold) -> u64 {
        let cut = &hold.cut;
        let first = self.persisted.min(cut.kept) + 1;
        let runs = self.agreed(cut, &hold.order, first);
        let mut parts = self.pack(first, runs);
        if parts.is_empty() {
            let (runs, lens) = (Vec::new(), Vec::new());
            parts.push(Entries { first, runs, lens, payload: Bytes::new() });
        }
        let Some(last) = hold.views.last() else { return 0 };
        let members = cut.members(last).into_iter();
        let members = members.map(|member| (member.site, cut.ends_of(member.site).0)).collect();
        let last = (last.id, members);
        let (count, mut io) = (parts.len(), 0);
        for (index, entries) in parts.into_iter().enumerate() {
            io = self.write(Record::Hold {
                group: self.config.group,
                as_of: cut.as_of,
                last: last.clone(),
                begins: index == 0,
                ends: index + 1 == count,
                end: cut.end,
                entries,
            });
        }
        io
    }

    /// The order of the old view from position `from` to its end: where the cut begins, as this member knows it.
    pub(super) fn agreed(&self, cut: &Cut, order: &Log, from: u64) -> Vec<Placed> {
        let own = self.data.log.range(from, cut.start);
        own.chain(order.range(from.max(cut.start + 1), cut.end)).collect()
    }

    pub(super) fn on_hold_persisted(&mut self, io: u64) {
        let Some(hold) = &mut self.hold else { return };
        if hold.io.is_some_and(|last| last <= io) {
            // Said once.
            hold.io = Some(u64::MAX);
            if let Some(view) = hold.view() {
                self.event(Event::Holding { view });
            }
        }
    }
}
