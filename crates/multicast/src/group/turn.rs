//! The end of a turn: what was gathered goes out.

use mainstay_base::{Instant, Level, Order, fault};

use super::Group;
use crate::message::Message;

/// Most messages of a lane that are delivered in a turn (8,192).
const DELIVERED_MAX: u64 = 8 << 10;

impl Group {
    /// Closes the turn: data, numbers, writes, deliveries and reports go to the outputs.
    pub fn end_turn(&mut self, now: Instant) {
        if !self.is_active() {
            return;
        }
        self.send_data();
        self.number();
        self.data.advance();
        self.persist_held();
        self.update_levels();
        self.deliver_due(now);
        self.tell_reached();
        self.send_report(now);
        self.run_reads();
        self.trim();
        self.watch_slow(now);
    }

    /// The sequencer gives positions to all that has none.
    fn number(&mut self) {
        let Some(current) = &self.current else { return };
        if current.sequencer != current.me || !self.whole {
            return;
        }
        let mut runs = Vec::new();
        for (rank, stream) in self.data.total.iter().enumerate() {
            let mut open = stream.received().saturating_sub(self.data.log.numbered(rank));
            while open > 0 {
                let count = open.min(u64::from(u32::MAX)) as u32;
                runs.push((rank as u16, count));
                open -= u64::from(count);
            }
        }
        if runs.is_empty() {
            return;
        }
        let first = self.data.log.known() + 1;
        self.broadcast(&Message::Order { view: current.id, first, runs: runs.clone() });
        if fault!(self.config, Renumbers) {
            runs.reverse();
        }
        for (rank, count) in runs {
            self.append(usize::from(rank), u64::from(count));
        }
        // The frame implies that the sequencer has them.
        let known = self.data.log.known();
        if let Some(said) = &mut self.last_report {
            said.received = known;
        }
    }

    /// Gives the next positions to messages of `rank`, and remembers own ones.
    pub(super) fn append(&mut self, rank: usize, count: u64) {
        let (at, first) = (self.data.log.known() + 1, self.data.log.numbered(rank) + 1);
        let is_own = self.current.as_ref().is_some_and(|current| current.me == rank);
        if self.data.log.append(rank, count) && is_own {
            self.note_own(at, first, count);
        }
    }

    /// Delivers what has reached the group's level, some of it at a time: a member that has just become whole has all that
    /// came while it was not.
    fn deliver_due(&mut self, now: Instant) {
        self.more_at = None;
        if !self.whole {
            return;
        }
        let upto = match self.config.deliver_at {
            _ if fault!(self.config, DeliversEarly) => self.data.held,
            Level::Delivered => self.data.held,
            Level::Majority => self.levels.majority,
            Level::Safe => self.levels.safe,
            Level::Disk => self.levels.disk,
        };
        let due = upto.max(self.delivered);
        let upto = due.min(self.delivered + DELIVERED_MAX);
        let mut more = upto < due;
        let mut batch = Vec::with_capacity((upto - self.delivered) as usize);
        if let Some(current) = &mut self.current {
            for (rank, member) in current.members.iter_mut().enumerate() {
                let (from, received) = (member.fifo_delivered, self.data.fifo[rank].received());
                if from < received {
                    let upto = received.min(from + DELIVERED_MAX);
                    more |= upto < received;
                    self.data.deliver_fifo(rank, from, upto, &mut batch);
                    member.fifo_delivered = upto;
                }
            }
        }
        for run in self.data.log.range(self.delivered + 1, upto) {
            self.data.deliver(run, &mut batch);
        }
        self.delivered = upto;
        self.more_at = Some(now).filter(|_| more);
        self.deliver(batch);
    }

    /// Forgets what all members have.
    fn trim(&mut self) {
        let Some(current) = &self.current else { return };
        let is_disk = self.config.is_disk();
        let stable = current.members.iter().map(|it| if is_disk { it.forced } else { it.received });
        let upto = stable.min().unwrap_or(0).min(self.delivered);
        let mut freed = 0;
        if upto > self.data.log.trimmed() {
            let total = &mut self.data.total;
            self.data.log.trim(upto, |rank, last| {
                let bytes = total[rank].trim(last);
                freed += if rank == current.me { bytes } else { 0 };
            });
        }
        for (rank, stream) in self.data.lane_mut(Order::Fifo).iter_mut().enumerate() {
            if stream.bytes() == 0 {
                continue;
            }
            let seen = current.members.iter().map(|it| it.fifo.get(rank).copied().unwrap_or(0));
            let seen = seen.min().unwrap_or(0).min(current.members[rank].fifo_delivered);
            let bytes = stream.trim(seen);
            freed += if rank == current.me { bytes } else { 0 };
        }
        self.own_bytes -= freed;
    }
}
