//! What other members send.

use bytes::Bytes;
use mainstay_base::{BootId, Instant, Order};

use super::Group;
use crate::message::Message;

impl Group {
    /// Takes in a message of another boot. What is stale, strange or contradictory is dropped and counted. Messages of a
    /// later view wait until it is installed.
    pub fn receive(&mut self, now: Instant, from: BootId, message: Message) {
        match message {
            Message::Fetch { view, as_of, order, rank, first, last } => {
                let range = (usize::from(rank), first, last);
                return self.on_fetch(from, view, as_of, order, range);
            }
            Message::Forward { view, as_of, order, rank, first, lens, payload } => {
                let part = (first, lens, payload);
                return self.on_forward(now, (view, as_of), order, usize::from(rank), part);
            }
            _ => {}
        }
        let view = message.view();
        match &self.current {
            Some(current) if current.id == view && !self.is_wedged() => match current.rank(from) {
                Some(rank) if rank != current.me => self.on_message(now, rank, message),
                _ => self.stats.dropped_stranger += 1,
            },
            _ if view.number > self.last_view.number => self.keep_aside(from, message),
            _ => self.stats.dropped_stale += 1,
        }
    }

    fn keep_aside(&mut self, from: BootId, message: Message) {
        let room = self.config.unstable_bytes.saturating_mul(self.config.nodes.len());
        let size = message.size();
        if !self.config.nodes.contains(&from.node) {
            self.stats.dropped_stranger += 1;
        } else if self.aside_bytes + size > room {
            self.stats.dropped_full += 1;
        } else {
            self.aside_bytes += size;
            self.stats.kept_aside += 1;
            self.aside.push_back((from, message));
        }
    }

    /// A view was installed: what waited for it is taken in, what waited for earlier ones is dropped.
    pub(super) fn take_aside(&mut self, now: Instant) {
        let waiting = std::mem::take(&mut self.aside);
        self.aside_bytes = 0;
        for (from, message) in waiting {
            self.receive(now, from, message);
        }
    }

    fn on_message(&mut self, now: Instant, rank: usize, message: Message) {
        let is_fine = match message {
            Message::Data { order, first, lens, prompt, payload, .. } => {
                self.on_data(rank, order, prompt, (first, lens, payload))
            }
            Message::Order { first, runs, .. } => self.on_order(rank, first, &runs),
            Message::Report { received, forced, whole, fifo, .. } => {
                self.on_report(now, rank, (received, forced), whole, fifo)
            }
            Message::Probe { number, .. } => {
                if let Some(current) = &mut self.current {
                    current.members[rank].probe = Some(number);
                }
                true
            }
            Message::Answer { number, known, .. } => self.on_answer(rank, number, known),
            Message::Transfer { position, offset, last, payload, .. } => {
                self.on_transfer(rank, position, offset, last, payload)
            }
            Message::TransferAck { position, offset, .. } => {
                self.on_transfer_ack(rank, position, offset)
            }
            Message::Fetch { .. } | Message::Forward { .. } => true,
        };
        self.stats.dropped_garbage += u64::from(!is_fine);
    }

    fn on_data(
        &mut self,
        rank: usize,
        order: Order,
        prompt: bool,
        (first, lens, payload): (u64, Vec<u32>, Bytes),
    ) -> bool {
        let bytes = payload.len();
        let stream = &mut self.data.lane_mut(order)[rank];
        // Channels lose and repeat nothing.
        if first != stream.received() + 1 || !stream.extend(first, &lens, payload) {
            return false;
        }
        self.unreported += bytes;
        self.report_now |= prompt;
        true
    }

    fn on_order(&mut self, rank: usize, first: u64, runs: &[(u16, u32)]) -> bool {
        let Some(current) = &self.current else { return false };
        let ranks = current.members.len();
        let is_next = rank == current.sequencer && first == self.data.log.known() + 1;
        let are_ranks = runs.iter().all(|(of, count)| usize::from(*of) < ranks && *count > 0);
        let sum: u64 = runs.iter().map(|(_, count)| u64::from(*count)).sum();
        if !is_next || !are_ranks || self.data.log.known().checked_add(sum).is_none() {
            return false;
        }
        for (of, count) in runs {
            self.append(usize::from(*of), u64::from(*count));
        }
        let known = self.data.log.known();
        if let Some(current) = &mut self.current {
            let sequencer = &mut current.members[rank];
            sequencer.received = sequencer.received.max(known);
        }
        true
    }
}
