//! Which message has which position.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Messages of one sender with consecutive sequence numbers at consecutive positions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The rank of the sender.
    pub rank: u16,
    /// The sequence number of the first.
    pub first: u64,
    /// How many, at least one.
    pub count: u32,
}

/// A run and the position of its first message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Placed {
    pub(crate) at: u64,
    pub(crate) rank: usize,
    pub(crate) first: u64,
    pub(crate) count: u64,
}

impl Placed {
    /// The part of the run at positions `from..=to`.
    fn clip(self, from: u64, to: u64) -> Self {
        let skip = from.saturating_sub(self.at).min(self.count);
        let end = (to + 1).saturating_sub(self.at).min(self.count);
        let (at, first) = (self.at + skip, self.first + skip);
        Self { at, first, count: end.saturating_sub(skip), ..self }
    }

    /// The last sequence number.
    pub(crate) fn last(&self) -> u64 {
        self.first + self.count - 1
    }
}

/// The total order of one view from `trimmed + 1` to `known`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Log {
    trimmed: u64,
    known: u64,
    runs: VecDeque<Placed>,
    /// Per rank the last sequence number at or before `trimmed`.
    ordered: Vec<u64>,
    /// Per rank the last sequence number at or before `known`.
    numbered: Vec<u64>,
}

impl Log {
    /// An order that goes on behind position `start` and sequence numbers `ordered`.
    pub(crate) fn after(start: u64, ordered: Vec<u64>) -> Self {
        let numbered = ordered.clone();
        Self { trimmed: start, known: start, runs: VecDeque::new(), ordered, numbered }
    }

    pub(crate) fn trimmed(&self) -> u64 {
        self.trimmed
    }

    pub(crate) fn known(&self) -> u64 {
        self.known
    }

    pub(crate) fn ordered(&self) -> &[u64] {
        &self.ordered
    }

    /// The last numbered message of a rank.
    pub(crate) fn numbered(&self, rank: usize) -> u64 {
        self.numbered.get(rank).copied().unwrap_or(0)
    }

    /// Gives the next positions to the next `count` messages of `rank`. False, and nothing changed, if there is no such
    /// rank or numbers run out.
    pub(crate) fn append(&mut self, rank: usize, count: u64) -> bool {
        let Some(numbered) = self.numbered.get_mut(rank) else { return false };
        let ends = (self.known.checked_add(count), numbered.checked_add(count));
        let (Some(known), Some(last)) = ends else { return false };
        let first = *numbered + 1;
        match self.runs.back_mut() {
            Some(run) if run.rank == rank => run.count += count,
            _ if count > 0 => {
                self.runs.push_back(Placed { at: self.known + 1, rank, first, count });
            }
            _ => {}
        }
        (self.known, *numbered) = (known, last);
        true
    }

    /// The runs at positions `from..=to`, clipped.
    pub(crate) fn range(&self, from: u64, to: u64) -> impl Iterator<Item = Placed> {
        let begin = self.runs.partition_point(|run| run.at + run.count <= from);
        let runs = self.runs.range(begin..).take_while(move |run| run.at <= to);
        runs.map(move |run| run.clip(from, to)).filter(|run| run.count > 0)
    }

    /// All runs, for a peer or a disk.
    pub(crate) fn runs(&self) -> Vec<Run> {
        self.range(self.trimmed + 1, self.known).flat_map(split).collect()
    }

    /// Forgets all up to `position`; tells for each forgotten run the rank and its last sequence number.
    pub(crate) fn trim(&mut self, position: u64, mut forget: impl FnMut(usize, u64)) {
        while let Some(run) = self.runs.front_mut() {
            let part = run.clip(run.at, position);
            if part.count == 0 {
                break;
            }
            self.ordered[part.rank] = part.last();
            forget(part.rank, part.last());
            run.at += part.count;
            run.first += part.count;
            run.count -= part.count;
            if run.count > 0 {
                break;
            }
            self.runs.pop_front();
        }
        self.trimmed = self.trimmed.max(position.min(self.known));
    }
}

/// A run in pieces whose counts fit.
pub(crate) fn split(run: Placed) -> impl Iterator<Item = Run> {
    let step = u64::from(u32::MAX);
    let pieces = run.count.div_ceil(step);
    (0..pieces).map(move |piece| {
        let count = (run.count - piece * step).min(step) as u32;
        Run { rank: run.rank as u16, first: run.first + piece * step, count }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_merged_clipped_and_trimmed() {
        let mut log = Log::after(10, vec![0, 5]);
        assert!(log.append(0, 2) && log.append(0, 1) && log.append(1, 4) && log.append(0, 1));
        assert!(!log.append(2, 1) && !log.append(0, u64::MAX));
        assert_eq!((log.known(), log.numbered(0), log.numbered(1)), (18, 4, 9));
        let run = |rank, first, count| Run { rank, first, count };
        assert_eq!(log.runs(), [run(0, 1, 3), run(1, 6, 4), run(0, 4, 1)]);
        let part: Vec<_> =
            log.range(13, 15).map(|it| (it.at, it.rank, it.first, it.count)).collect();
        assert_eq!(part, [(13, 0, 3, 1), (14, 1, 6, 2)]);
        let mut forgotten = Vec::new();
        log.trim(15, |rank, last| forgotten.push((rank, last)));
        assert_eq!(forgotten, [(0, 3), (1, 7)]);
        assert_eq!((log.trimmed(), log.ordered()), (15, &[3, 7][..]));
        assert_eq!(log.runs(), [run(1, 8, 2), run(0, 4, 1)]);
    }
}
