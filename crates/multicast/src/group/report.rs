//! Reports, and the levels that follow from them.

use mainstay_base::{Instant, Level, Order, Position};

use super::{Group, Known};
use crate::event::Event;
use crate::message::Message;

/// The highest position at each level above `Delivered`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Levels {
    pub(super) majority: u64,
    pub(super) safe: u64,
    pub(super) disk: u64,
}

/// Own messages at consecutive positions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct OwnRun {
    at: u64,
    first: u64,
    count: u64,
}

/// What a report says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Said {
    pub(super) received: u64,
    forced: u64,
    whole: bool,
    fifo: Option<Vec<u64>>,
}

impl Group {
    pub(super) fn on_report(
        &mut self,
        now: Instant,
        rank: usize,
        (received, forced): (u64, u64),
        whole: bool,
        fifo: Option<Vec<u64>>,
    ) -> bool {
        let known = self.data.log.known();
        let Some(current) = &mut self.current else { return false };
        let ranks = current.members.len();
        let others = current.members.iter().filter(|it| !it.reported).count();
        let member = &mut current.members[rank];
        let fits = fifo.as_ref().is_none_or(|fifo| fifo.len() == ranks);
        // A report may overtake the order frame of another channel, but goes back never.
        if !fits || received < member.received || forced < member.forced || forced > received {
            return false;
        }
        if received > known && rank == current.sequencer {
            return false;
        }
        let fifo = fifo.unwrap_or_default();
        if (received, forced) != (member.received, member.forced) || fifo != member.fifo {
            member.moved_at = now;
        }
        (member.received, member.forced, member.fifo) = (received, forced, fifo);
        member.whole |= whole;
        let is_first = !std::mem::replace(&mut member.reported, true);
        if is_first && others == 1 {
            // All have installed the view: nobody fetches of the old one any more.
            let old = self.old.take();
            self.retire(old, Vec::new());
        }
        true
    }

    /// What this member's report would say now.
    fn said(&self) -> Said {
        let streams = &self.data.fifo;
        let any = streams.iter().any(|stream| stream.received() > 0);
        Said {
            received: self.data.held,
            forced: self.forced.min(self.data.held),
            whole: self.whole,
            fifo: any.then(|| self.data.received(Order::Fifo)),
        }
    }

    pub(super) fn update_levels(&mut self) {
        let said = self.said();
        let Some(current) = &mut self.current else { return };
        let me = &mut current.members[current.me];
        (me.received, me.forced, me.whole) = (said.received, said.forced, said.whole);
        me.fifo = said.fifo.unwrap_or_default();
        let quorum = self.config.quorum();
        let members = &current.members;
        let kth = |of: fn(&Known) -> u64| {
            let mut all: Vec<u64> = members.iter().filter(|it| it.whole).map(of).collect();
            all.sort_unstable_by(|one, other| other.cmp(one));
            all.get(quorum - 1).copied().unwrap_or(0)
        };
        let held = self.data.held;
        let levels = &mut self.levels;
        levels.majority = kth(|it| it.received).min(held).max(levels.majority);
        levels.disk = kth(|it| it.forced).min(held).max(levels.disk);
        // Of what all members of a view have, few may be copies: so it is at a majority too.
        let safe = members.iter().map(|it| it.received).min().unwrap_or(0);
        levels.safe = safe.min(levels.majority).max(levels.safe);
    }

    pub(super) fn note_own(&mut self, at: u64, first: u64, count: u64) {
        match self.own_runs.back_mut() {
            Some(run) if run.at + run.count == at && run.first + run.count == first => {
                run.count += count;
            }
            _ => self.own_runs.push_back(OwnRun { at, first, count }),
        }
    }

    /// Positions behind `upto` are given anew: forgets which own messages had them.
    pub(super) fn forget_own_after(&mut self, upto: u64) {
        self.own_runs.retain_mut(|run| {
            run.count = run.count.min((upto + 1).saturating_sub(run.at));
            run.count > 0
        });
    }

    /// Tells the levels that own casts have reached; only of those that are delivered here.
    pub(super) fn tell_reached(&mut self) {
        if !self.whole || self.own_runs.is_empty() {
            return;
        }
        let Levels { majority, safe, disk } = self.levels;
        let disk = if self.config.is_disk() { disk } else { u64::MAX };
        let levels = [
            (Level::Delivered, self.delivered),
            (Level::Majority, majority),
            (Level::Safe, safe),
            (Level::Disk, disk),
        ];
        for (index, (level, upto)) in levels.into_iter().enumerate() {
            let upto = upto.min(self.delivered);
            let behind = self.own_runs.partition_point(|run| run.at <= upto);
            let Some(run) = behind.checked_sub(1).and_then(|it| self.own_runs.get(it)) else {
                continue;
            };
            let position = upto.min(run.at + run.count - 1);
            let sequence = run.first + (position - run.at);
            if sequence > self.reached[index] {
                self.reached[index] = sequence;
                if level != Level::Disk || self.config.is_disk() {
                    let position = Position(position);
                    self.event(Event::Reached { level, upto: sequence, position });
                }
            }
        }
        let all = self.reached.iter().copied().min().unwrap_or(0);
        while self.own_runs.front().is_some_and(|run| run.first + run.count - 1 <= all) {
            self.own_runs.pop_front();
        }
    }

    /// Reports the own positions to the others, if they moved and it is time.
    pub(super) fn send_report(&mut self, now: Instant) {
        let Some(current) = &self.current else { return };
        let view = current.id;
        let said = self.said();
        let last = self.last_report.as_ref();
        if last == Some(&said) {
            (self.unreported, self.report_now, self.report_at) = (0, false, None);
            return;
        }
        let forced = self.config.is_disk() && last.is_none_or(|last| last.forced != said.forced);
        let is_due = self.report_now
            || matches!(self.config.deliver_at, Level::Majority | Level::Safe)
            || forced
            || self.unreported >= self.config.report_bytes
            || self.report_at.is_some_and(|at| at <= now);
        if !is_due {
            self.report_at.get_or_insert(now + self.config.report_after);
            return;
        }
        (self.unreported, self.report_now, self.report_at) = (0, false, None);
        self.broadcast(&Message::Report {
            view,
            received: said.received,
            forced: said.forced,
            whole: said.whole,
            fifo: said.fifo.clone(),
        });
        self.last_report = Some(said);
    }

    /// What a member has yet to report before own messages may be forgotten: total, FIFO.
    fn stable(&self, member: &Known) -> (u64, u64) {
        let total = if self.config.is_disk() { member.forced } else { member.received };
        let me = self.current.as_ref().map_or(0, |current| current.me);
        (total, member.fifo.get(me).copied().unwrap_or(0))
    }

    fn goal(&self) -> (u64, u64) {
        let me = self.current.as_ref().map_or(0, |current| current.me);
        (self.data.held, self.data.fifo.get(me).map_or(0, |stream| stream.received()))
    }

    fn is_behind(&self, member: &Known, goal: (u64, u64)) -> bool {
        let (total, fifo) = self.stable(member);
        total < goal.0 || fifo < goal.1
    }

    /// Tells which members keep the budget short for too long.
    pub(super) fn watch_slow(&mut self, now: Instant) {
        let is_pressed = self.own_bytes as u64 * 4 > self.config.unstable_bytes as u64 * 3;
        match is_pressed {
            true => self.pressed_since = Some(self.pressed_since.unwrap_or(now)),
            false => self.pressed_since = None,
        }
        let Some(current) = &self.current else { return };
        let goal = self.goal();
        let mut changes = Vec::new();
        for (rank, member) in current.members.iter().enumerate() {
            let limit = self.limit_of(member, goal).filter(|at| rank != current.me && *at <= now);
            match member.slow {
                Some(mark) if !self.is_behind(member, mark) => changes.push((rank, None)),
                None if limit.is_some() => changes.push((rank, Some(goal))),
                _ => {}
            }
        }
        for (rank, slow) in changes {
            let Some(current) = &mut self.current else { return };
            let known = &mut current.members[rank];
            known.slow = slow;
            let site = known.member.site;
            self.event(match slow {
                Some(_) => Event::Slow { site },
                None => Event::SlowOver { site },
            });
        }
    }

    /// When a member is to be called slow if nothing comes.
    fn limit_of(&self, member: &Known, goal: (u64, u64)) -> Option<Instant> {
        let since = self.pressed_since?.max(member.moved_at);
        self.is_behind(member, goal).then(|| since + self.config.slow_after)
    }

    pub(super) fn slow_deadline(&self) -> Option<Instant> {
        let current = self.current.as_ref()?;
        let goal = self.goal();
        let others = current.members.iter().enumerate();
        let quiet = others.filter(|(rank, it)| *rank != current.me && it.slow.is_none());
        quiet.filter_map(|(_, member)| self.limit_of(member, goal)).min()
    }
}
