//! What the user takes out, in causal order or in waves, and what is forgotten then.

use super::seat::Seat;
use super::{Graph, Id};
use crate::Rank;

/// A complete wave: all messages of one depth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wave {
    /// From 1, without gaps.
    pub depth: u64,
    /// By sender, at most one of each.
    pub messages: Vec<Id>,
}

impl<T> Graph<T> {
    /// The next message in causal order, own ones and nulls included. It is there ([`message`](Self::message)) until the next call
    /// that changes the graph. To be called until it is `None`, and again after each change: what is not taken is not
    /// forgotten.
    pub fn poll_attached(&mut self) -> Option<Id> {
        if let Some(rank) = self.polled.take() {
            self.forget(rank.index());
            self.attach_held(Vec::new());
        }
        let id = self.attached.pop_front()?;
        self.seats[id.rank.index()].taken = id.number;
        self.polled = Some(id.rank);
        Some(id)
    }

    /// The next complete wave, nulls included: everywhere the same, in the same order. Its messages are there until the next
    /// call that changes the graph. With [`Config::waves`](super::Config::waves) only; to be called until it is `None`, and
    /// again after each change.
    pub fn poll_wave(&mut self) -> Option<Wave> {
        if !self.config.waves {
            return None;
        }
        self.forget_all();
        self.attach_held(Vec::new());
        let depth = self.depth;
        let next = |(rank, seat): (usize, &Seat<T>)| {
            let number = seat.waved + 1;
            let is_in = seat.node(number)?.depth == depth;
            is_in.then_some(Id { rank: Rank::of(rank), number })
        };
        let messages: Vec<Id> = self.seats.iter().enumerate().filter_map(next).collect();
        let is_closed = messages.iter().any(|id| self.is_stable(*id));
        let is_open = self.seats.iter().any(|seat| seat.is_awaited() && seat.depth < depth);
        let early = mainstay_base::fault!(self, GraphWaveEarly) && !messages.is_empty();
        if (!is_closed || is_open) && !early {
            return None;
        }
        self.depth += 1;
        for id in &messages {
            self.seats[id.rank.index()].waved = id.number;
        }
        Some(Wave { depth, messages })
    }

    pub(super) fn forget_all(&mut self) {
        for rank in 0..self.seats.len() {
            self.forget(rank);
        }
    }

    /// Forgets the messages of a participant that nobody asks for or names any more, and that were taken.
    pub(super) fn forget(&mut self, rank: usize) {
        let seat = &self.seats[rank];
        let own = if seat.is_complete() { seat.newest() } else { seat.newest().saturating_sub(1) };
        let mut upto = seat.stable.min(seat.taken).min(own);
        if self.config.waves {
            upto = upto.min(seat.waved);
        }
        if seat.leaf {
            upto = upto.min(seat.newest() - 1);
        }
        if upto <= seat.forgotten || mainstay_base::fault!(self, GraphNeverPrunes) {
            return;
        }
        // Who is masked out may name what it did not know to be followed, and who comes back what was a leaf elsewhere.
        if self.seats.iter().any(Seat::is_returning) {
            return;
        }
        let awaited = self.seats.iter().filter(|seat| seat.is_awaited());
        upto = awaited.map(|other| other.known[rank]).fold(upto, u64::min);
        let seat = &mut self.seats[rank];
        while seat.forgotten < upto {
            seat.forget_one();
        }
    }
}
