//! Casts on their way from the inbox of a group into it, and to each level.

use std::collections::VecDeque;
use std::sync::Arc;

use mainstay_base::{Level, Order};
use mainstay_multicast::{CastError, MESSAGE_OVERHEAD};
use mainstay_runtime::{Intake, Place};
use mainstay_site::AppPort;

use crate::config::UNSTABLE_BYTES;
use crate::group::Cast;
use crate::group::book::Book;

/// So many casts are taken in at a time.
const INTAKE_MAX: usize = 4096;

/// Casts with consecutive numbers and consecutive sequence numbers in total order.
struct Run {
    number: u64,
    sequence: u64,
    count: u64,
}

/// Casts on their way: in front of the group until it has room, then until they have reached all levels.
pub(super) struct Casts {
    intake: Intake<Cast>,
    pub(super) waiting: VecDeque<(Cast, Place)>,
    /// There is more than was taken.
    pub(super) more: bool,
    /// How many are cast; the number of the last one.
    pub(super) count: u64,
    runs: VecDeque<Run>,
    /// Numbers of casts in FIFO order that are not delivered here yet.
    fifo: VecDeque<u64>,
    /// By level: the last sequence number.
    reached: [u64; 4],
    pub(super) book: Arc<Book>,
    /// The book has something new for those who wait.
    pub(super) moved: bool,
}

impl Casts {
    pub(super) fn new(intake: Intake<Cast>, book: Arc<Book>) -> Self {
        Self {
            intake,
            waiting: VecDeque::new(),
            more: false,
            count: 0,
            runs: VecDeque::new(),
            fifo: VecDeque::new(),
            reached: [0; 4],
            book,
            moved: false,
        }
    }

    pub(super) fn take_in(&mut self) {
        let mut taken = Vec::new();
        self.more = self.intake.take(INTAKE_MAX, &mut taken);
        self.waiting.extend(taken);
    }

    /// Casts what waits, as far as the group has room.
    pub(super) fn cast(&mut self, port: &mut AppPort<'_>) {
        // Asked at the end of each turn, and mostly for nothing.
        if self.waiting.is_empty() {
            return;
        }
        let Some(status) = port.status().filter(|status| !status.members.is_empty()) else {
            return;
        };
        let mut room = UNSTABLE_BYTES.saturating_sub(status.unstable_bytes);
        while let Some((cast, _)) = self.waiting.front() {
            let cost = cast.payload.len() + MESSAGE_OVERHEAD;
            if cost > room {
                break;
            }
            match port.cast(cast.order, cast.level, cast.payload.clone()) {
                Ok(message) => {
                    room -= cost;
                    self.note(cast.order == Order::Total, message.sequence);
                    self.waiting.pop_front();
                }
                Err(CastError::Full { .. } | CastError::NotMember) => break,
                Err(error) => unreachable!("it was checked before it was sent: {error}"),
            }
        }
        self.book.cast(self.count);
    }

    pub(super) fn note(&mut self, is_total: bool, sequence: u64) {
        self.count += 1;
        self.moved = true;
        if !is_total {
            return self.fifo.push_back(self.count);
        }
        match self.runs.back_mut() {
            Some(run)
                if run.number + run.count == self.count && run.sequence + run.count == sequence =>
            {
                run.count += 1;
            }
            _ => self.runs.push_back(Run { number: self.count, sequence, count: 1 }),
        }
    }

    /// The next own cast in FIFO order is delivered here.
    pub(super) fn on_fifo(&mut self) {
        if let Some(number) = self.fifo.pop_front() {
            self.book.delivered_fifo(number);
            self.moved = true;
        }
    }

    /// Own casts in total order up to this one have reached a level.
    pub(super) fn on_reached(&mut self, level: Level, upto: u64, is_disk: bool) {
        let behind = self.runs.partition_point(|run| run.sequence <= upto);
        let Some(run) = behind.checked_sub(1).and_then(|at| self.runs.get(at)) else { return };
        let number = run.number + (upto - run.sequence).min(run.count - 1);
        self.book.reached(level, number);
        self.moved = true;
        let levels = [Level::Delivered, Level::Majority, Level::Safe, Level::Disk];
        for (reached, its) in self.reached.iter_mut().zip(levels) {
            *reached = if its == level { upto } else { *reached };
        }
        let counted = if is_disk { 4 } else { 3 };
        let all = self.reached[..counted].iter().copied().min().unwrap_or(0);
        while self.runs.front().is_some_and(|run| run.sequence + run.count - 1 <= all) {
            self.runs.pop_front();
        }
    }

    pub(super) fn restarted(&mut self) {
        self.book.killed();
        self.runs.clear();
        self.fifo.clear();
        self.reached = [0; 4];
    }
}
