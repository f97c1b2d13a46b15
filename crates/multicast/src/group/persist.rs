//! The log of a `Disk` group.

use mainstay_base::{Instant, Position, SiteId};

use super::Group;
use super::cast::gather;
use crate::event::Output;
use crate::order::{Placed, split};
use crate::record::{Entries, Record};

impl Group {
    pub(super) fn write(&mut self, record: Record) -> u64 {
        let io = self.next_io;
        self.next_io += 1;
        self.out.push_back(Output::Persist { io, record });
        io
    }

    /// Writes what is newly held.
    pub(super) fn persist_held(&mut self) {
        if !self.config.is_disk() {
            return;
        }
        let runs = self.data.log.range(self.persisted + 1, self.data.held).collect();
        for entries in self.pack(self.persisted + 1, runs) {
            let upto = entries.first + entries.lens.len() as u64 - 1;
            let (group, view) = (self.config.group, self.data.view);
            let io = self.write(Record::Entries { group, view, entries });
            self.persisted = upto;
            self.writing.push_back((io, upto));
        }
    }

    /// The messages of `runs`, the first at position `first`, in parts that are not too large.
    pub(super) fn pack(&self, first: u64, runs: Vec<Placed>) -> Vec<Entries> {
        let messages = runs.iter().flat_map(|run| {
            let payloads = self.data.total[run.rank].range(run.first, run.last());
            payloads.zip(run.first..).map(move |(payload, sequence)| (run.rank, sequence, payload))
        });
        let messages: Vec<_> = messages.collect();
        let (mut parts, mut done) = (Vec::new(), 0);
        while done < messages.len() {
            let (lens, payload) = gather(messages[done..].iter().map(|(_, _, payload)| *payload));
            let part = &messages[done..done + lens.len()];
            let first = first + done as u64;
            let runs = self.name_runs(part.iter().map(|(rank, sequence, _)| (*rank, *sequence)));
            done += lens.len();
            parts.push(Entries { first, runs, lens, payload });
        }
        parts
    }

    fn name_runs(&self, messages: impl Iterator<Item = (usize, u64)>) -> Vec<(SiteId, u64, u32)> {
        let mut placed: Vec<Placed> = Vec::new();
        for (rank, first) in messages {
            match placed.last_mut() {
                Some(run) if run.rank == rank && run.last() + 1 == first => run.count += 1,
                _ => placed.push(Placed { at: 0, rank, first, count: 1 }),
            }
        }
        let senders = &self.data.senders;
        let runs = placed.into_iter().flat_map(split);
        runs.map(|run| (senders[usize::from(run.rank)], run.first, run.count)).collect()
    }

    /// The write named `io`, and all before it, are forced.
    pub fn persisted(&mut self, _now: Instant, io: u64) {
        while let Some((first, upto)) = self.writing.front().copied()
            && first <= io
        {
            self.forced = self.forced.max(upto);
            self.writing.pop_front();
        }
        self.on_hold_persisted(io);
        if self.whole_io.is_some_and(|whole| whole <= io) {
            self.whole_io = None;
            self.become_whole();
        }
    }

    /// A checkpoint as of `position` is forced. It must not be ahead of [`Status::forced`](crate::Status::forced): a log
    /// that ends before its checkpoint makes no whole member. Once what this writes is persisted, records may go whose
    /// positions are all at or before both `position` and [`Status::trimmed`](crate::Status::trimmed).
    pub fn checkpointed(&mut self, _now: Instant, _position: Position) {
        if self.config.is_disk() && self.current.is_some() {
            self.write_start();
        }
    }

    /// From the trimmed position on the log can be understood without what is before it.
    pub(super) fn write_start(&mut self) {
        let log = &self.data.log;
        self.write(Record::Start {
            group: self.config.group,
            view: self.data.view,
            senders: self.data.senders.clone(),
            position: log.trimmed(),
            ordered: log.ordered().to_vec(),
            // This record replaces the one before, and what makes this member whole may be on its way in front of it.
            whole: self.whole || self.whole_io.is_some(),
        });
    }
}
