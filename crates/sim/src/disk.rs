//! The disk of a node: forced writes that take their time, and what is left of them at a crash.

use std::collections::VecDeque;

use mainstay_base::{Duration, Instant, Rng};

use crate::Node;
use crate::schedule::{self, nanos};

pub(crate) struct DiskState<N: Node> {
    pub(crate) durable: N::Durable,
    backup: Option<N::Durable>,
    /// Issued and not complete, in order.
    pending: VecDeque<(u64, N::Write)>,
    /// When the last one completes.
    last: Instant,
    /// Slowed down by these many times, one entry for each fault under way.
    slow: Vec<u32>,
    rng: Rng,
}

impl<N: Node> DiskState<N> {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            durable: N::Durable::default(),
            backup: None,
            pending: VecDeque::new(),
            last: Instant::ZERO,
            slow: Vec::new(),
            rng,
        }
    }

    /// Takes a write in; answers when it completes.
    pub(crate) fn issue(
        &mut self,
        now: Instant,
        longest: Duration,
        io: u64,
        write: N::Write,
    ) -> Instant {
        let longest = nanos(longest).max(1);
        let factor = u64::from(self.slow.iter().copied().max().unwrap_or(1));
        let time = self.rng.between(longest.div_ceil(10), longest).saturating_mul(factor);
        self.last = self.last.max(now + Duration::from_nanos(time));
        self.pending.push_back((io, write));
        self.last
    }

    /// The oldest write is on the disk: answers its number.
    pub(crate) fn complete(&mut self) -> Option<u64> {
        let (io, write) = self.pending.pop_front()?;
        N::apply(&mut self.durable, write);
        Some(io)
    }

    /// Some first ones of the unfinished writes are on the disk, the others are not; then the fault has its way.
    pub(crate) fn crash(&mut self, found: schedule::Disk) {
        let kept = self.rng.below(self.pending.len() as u64 + 1) as usize;
        for (_, write) in self.pending.drain(..).take(kept) {
            N::apply(&mut self.durable, write);
        }
        self.last = Instant::ZERO;
        match found {
            schedule::Disk::Kept => {}
            schedule::Disk::Empty => self.durable = N::Durable::default(),
            schedule::Disk::Old => self.durable = self.backup.clone().unwrap_or_default(),
        }
    }

    pub(crate) fn back_up(&mut self) {
        self.backup = Some(self.durable.clone());
    }

    pub(crate) fn slow_down(&mut self, factor: u32) {
        self.slow.push(factor);
    }

    pub(crate) fn speed_up(&mut self, factor: u32) {
        if let Some(place) = self.slow.iter().position(|slow| *slow == factor) {
            self.slow.remove(place);
        }
    }

    pub(crate) fn heal(&mut self) {
        self.slow.clear();
    }

    /// A moment from now on at which a write is unfinished, if there is one.
    pub(crate) fn moment_in_write(&mut self, now: Instant) -> Option<Instant> {
        if self.pending.is_empty() {
            return None;
        }
        let left = nanos(self.last.saturating_since(now));
        Some(now + Duration::from_nanos(self.rng.below(left.max(1))))
    }

    pub(crate) fn unfinished(&self) -> usize {
        self.pending.len()
    }
}
