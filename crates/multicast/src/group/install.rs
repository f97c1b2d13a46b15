//! From one view to the next.

use std::collections::BTreeSet;

use mainstay_base::{Instant, Member, Order, Position, Reason, SiteId, View, ViewId, fault};

use super::cast::lane;
use super::{Behind, Current, Group, Known};
use crate::epoch::Epoch;
use crate::event::{Delivery, Event};
use crate::flush::Cut;
use crate::order::Log;
use crate::view::{GroupView, of_group, weight};

impl Group {
    /// Ends the old view at `cut` and goes through `views`. To be called only with the cut that was agreed, and at a
    /// contributor only after [`Event::Holding`] for it. A pause ends with it. What is not well-formed is dropped and
    /// counted.
    pub fn install(&mut self, now: Instant, cut: &Cut, views: &[View]) {
        let order = cut.order().filter(|_| cut.is_well_formed() && cut.group == self.config.group);
        let (Some(last), Some(order)) = (views.last(), order) else {
            self.stats.dropped_garbage += 1;
            return;
        };
        self.hold = None;
        self.last_view = last.id;
        self.refused = last.has(self.me) && !cut.carriers.contains(&self.me);
        if self.refused {
            // The others go on without: what this member is to carry is another group. No view will count its operator's word.
            (self.blocked, self.accept_loss) = (false, false);
            return self.fail_reads();
        }
        if cut.is_blocked() {
            self.blocked = true;
            if last.has(self.me) {
                self.event(Event::Blocked { view: last.id });
            }
            return self.fail_reads();
        }
        (self.blocked, self.paused, self.accept_loss) = (false, false, false);
        // Who only votes may be told of a cut that it was not asked to hold.
        let goes_on = self.goes_on(cut, last) && (last.has(self.me) || self.has_all(cut));
        if !goes_on && !last.has(self.me) {
            // Neither is it in, nor has it what the new view begins with.
            return;
        }
        if self.data.view != cut.as_of {
            // What was known here of the order is void: own messages get other positions, or none.
            self.forget_own_after(0);
        } else if self.site.is_some() {
            self.place_own(cut, &order);
        }
        let members = match fault!(self.config, CountsAll) {
            true => of_group(last, &self.config.nodes),
            false => cut.members(last),
        };
        let me = members.iter().position(|member| member.boot() == self.me);
        if goes_on {
            self.finish_view(cut, &order, me.is_some());
        }
        let is_new_state = cut.holders.is_empty() || !self.config.stateful;
        let is_whole = |member: &Member| is_new_state || cut.is_contributor(member.boot());
        self.whole = match me {
            Some(me) => is_whole(&members[me]),
            // Who only voted has the past as long as no view left it out.
            None => self.behind.is_some(),
        };
        if self.whole && !goes_on && self.config.stateful {
            self.tell_restored(Behind::default());
        }
        self.tell_views(cut, views);
        self.end_slow();
        let surplus = self.take_surplus(cut);
        self.begin_epoch(last.id, cut, &members);
        let Some(me) = me else {
            (self.current, self.live) = (None, false);
            return;
        };
        self.live = true;
        if let Some(behind) = self.behind.take() {
            // The group went on without this member, which gets the state from another one.
            self.retire(None, behind.past);
        }
        let current = self.begin_view(now, last.id, me, &members, is_whole);
        self.current = Some(current);
        self.site = Some(members[me].site);
        self.requeue(surplus);
        if self.config.is_disk() {
            self.write_start();
        }
        self.begin_transfer();
        self.take_aside(now);
    }

    /// Whether all messages in total order that the cut names are here.
    fn has_all(&self, cut: &Cut) -> bool {
        let streams = self.data.lane(Order::Total).iter().zip(&cut.total);
        streams.into_iter().all(|(stream, last)| stream.received() >= *last)
    }

    /// Own messages at their final positions.
    fn place_own(&mut self, cut: &Cut, order: &Log) {
        let Some(me) = self.data.senders.iter().position(|site| Some(*site) == self.site) else {
            return;
        };
        self.forget_own_after(cut.start);
        let own: Vec<_> = order.range(cut.start + 1, cut.end).filter(|it| it.rank == me).collect();
        for run in own {
            self.note_own(run.at, run.first, run.count);
        }
    }

    /// All up to the cut is delivered; by one who was not there it is told as a whole, once a view admits it.
    fn finish_view(&mut self, cut: &Cut, order: &Log, is_admitted: bool) {
        let mut batch = Vec::new();
        match (self.current.take(), self.behind.take()) {
            (Some(current), None) => {
                for (rank, member) in current.members.iter().enumerate() {
                    let (from, to) = (member.fifo_delivered, cut.fifo[rank]);
                    self.data.deliver_fifo(rank, from, to, &mut batch);
                }
                for run in self.agreed(cut, order, self.delivered + 1) {
                    self.data.deliver(run, &mut batch);
                }
                self.current = Some(current);
                self.deliver(batch);
            }
            (_, behind) => {
                let mut behind = behind.unwrap_or_default();
                self.complete(&mut behind, cut, order);
                match is_admitted {
                    // A first view has no past.
                    true if cut.as_of == ViewId::NONE => {}
                    true => self.tell_restored(behind),
                    false => self.behind = Some(behind),
                }
            }
        }
        self.delivered = cut.end;
        // Who held the cut has it, and nobody else: joiners only learn the past.
        let are_enough = cut.holders.len() >= self.config.quorum();
        if !cut.loss && (are_enough || fault!(self.config, CountsOneCopy)) {
            let levels = &mut self.levels;
            (levels.majority, levels.safe, levels.disk) = (cut.end, cut.end, cut.end);
        }
        self.tell_reached();
    }

    /// Of the positions that the own log has, those up to `kept` stand; the cut says what follows them.
    fn complete(&self, behind: &mut Behind, cut: &Cut, order: &Log) {
        let stands = |it: &Delivery| it.position.is_some_and(|at| at.0 <= cut.kept);
        behind.past.truncate(behind.past.partition_point(stands));
        let start = behind.checkpoint.0.max(self.data.log.trimmed());
        let have = behind.past.last().and_then(|it| it.position).map_or(0, |last| last.0);
        debug_assert!(self.are_agreed(&behind.past, cut, order, start + 1));
        for run in self.agreed(cut, order, start.max(have) + 1) {
            self.data.deliver(run, &mut behind.past);
        }
    }

    /// Whether the messages from position `from` on are those that the cut has there.
    fn are_agreed(&self, past: &[Delivery], cut: &Cut, order: &Log, from: u64) -> bool {
        let mut agreed = Vec::new();
        for run in self.agreed(cut, order, from) {
            self.data.deliver(run, &mut agreed);
        }
        let is_before = |it: &Delivery| it.position.is_some_and(|at| at.0 < from);
        agreed.starts_with(&past[past.partition_point(is_before)..])
    }

    fn tell_restored(&mut self, behind: Behind) {
        let Behind { checkpoint, past: entries } = behind;
        let from_checkpoint = checkpoint > Position::ZERO;
        self.event(Event::Restored { from_checkpoint, checkpoint, entries });
    }

    fn tell_views(&mut self, cut: &Cut, views: &[View]) {
        let start = Position(cut.end);
        let mut before: Vec<SiteId> = match self.site {
            Some(_) => self.data.senders.clone(),
            None => Vec::new(),
        };
        let own = self.me;
        for view in views.iter().filter(|view| view.has(own)) {
            let members = cut.members(view).into_iter();
            let members: Vec<SiteId> = members.map(|member| member.site).collect();
            let joined = members.iter().filter(|it| !before.contains(it)).copied().collect();
            let gone = before.iter().filter(|it| !members.contains(it)).copied();
            // Each view that a site is left out of says why.
            let why = |site| view.departures.why(site).unwrap_or(Reason::Absent);
            let left = gone.map(|site| (site, why(site))).collect();
            before.clone_from(&members);
            self.stats.views += 1;
            let (id, departures) = (view.id, view.departures.clone());
            let told = GroupView { id, members, joined, left, departures, start };
            self.event(Event::View(told));
        }
        if cut.loss && views.last().is_some_and(|last| last.has(own)) {
            self.event(Event::MaybeLost { from: start.next() });
        }
    }

    fn end_slow(&mut self) {
        let members = self.current.iter().flat_map(|current| &current.members);
        let slow = members.filter(|known| known.slow.is_some()).map(|known| known.member.site);
        for site in slow.collect::<Vec<_>>() {
            self.event(Event::SlowOver { site });
        }
    }

    /// Own messages that the cut does not name, because this member did not contribute: they are sent again.
    fn take_surplus(&mut self, cut: &Cut) -> Vec<(Order, bytes::Bytes)> {
        let Some(current) = &self.current else { return Vec::new() };
        let Some(site) = self.site else { return Vec::new() };
        let (me, (total, fifo)) = (current.me, cut.ends_of(site));
        let mut surplus = Vec::new();
        for (order, end) in [(Order::Total, total), (Order::Fifo, fifo)] {
            let tail = self.data.lane_mut(order)[me].split_after(end);
            surplus.extend(tail.into_iter().map(|payload| (order, payload)));
        }
        surplus
    }

    fn begin_epoch(&mut self, view: ViewId, cut: &Cut, members: &[Member]) {
        let senders = members.iter().map(|member| {
            let (total, fifo) = cut.ends_of(member.site);
            (member.site, total, fifo)
        });
        let new = Epoch::new(view, cut.end, senders.collect());
        let over = std::mem::replace(&mut self.data, new);
        let older = self.old.replace(over);
        self.retire(older, Vec::new());
        self.delivered = cut.end;
        // After a loss positions are given anew.
        let levels = &mut self.levels;
        levels.majority = levels.majority.min(cut.end);
        levels.safe = levels.safe.min(cut.end);
        levels.disk = levels.disk.min(cut.end);
        (self.persisted, self.forced) = (cut.end, cut.end);
        self.writing.clear();
        (self.whole_io, self.learned) = (None, None);
    }

    fn begin_view(
        &mut self,
        now: Instant,
        id: ViewId,
        me: usize,
        members: &[Member],
        is_whole: impl Fn(&Member) -> bool,
    ) -> Current {
        let group = self.config.group;
        let ranks = 0..members.len();
        let whole: BTreeSet<usize> = ranks.filter(|rank| is_whole(&members[*rank])).collect();
        let sequencer =
            whole.iter().copied().max_by_key(|rank| weight(group, members[*rank].site.node));
        let known = |(rank, member): (usize, &Member)| Known {
            member: *member,
            received: 0,
            forced: 0,
            fifo: Vec::new(),
            whole: whole.contains(&rank),
            reported: rank == me,
            fifo_delivered: self.data.fifo[rank].received(),
            probe: None,
            moved_at: now,
            slow: None,
        };
        let members = members.iter().enumerate().map(known).collect();
        let sequencer = sequencer.unwrap_or(0);
        // The lowest ranked that has not the sequencer's work to do.
        let sponsor = whole.iter().copied().find(|rank| *rank != sequencer).unwrap_or(sequencer);
        Current { id, members, me, sequencer, sponsor }
    }

    /// Casts that waited for the view, and those that fell out of the last one, go first into the new one.
    fn requeue(&mut self, surplus: Vec<(Order, bytes::Bytes)>) {
        let Some(current) = &self.current else { return };
        let me = current.me;
        for order in [Order::Total, Order::Fifo] {
            self.sent[lane(order)] = self.data.lane(order)[me].received();
        }
        for (order, payload) in surplus.into_iter().chain(std::mem::take(&mut self.queue)) {
            self.prompt = true;
            self.data.lane_mut(order)[me].push(payload);
        }
        self.own_bytes = self.data.total[me].bytes() + self.data.fifo[me].bytes();
        self.wedged = false;
        self.pressed_since = None;
        self.last_report = None;
        (self.unreported, self.report_now, self.report_at) = (0, true, None);
    }
}
