//! Linearisable reads.

use std::collections::{BTreeMap, VecDeque};

use mainstay_base::{Instant, NodeId, Position};

use super::Group;
use crate::event::Event;
use crate::message::Message;

/// Most reads that wait at a time.
const READS_MAX: usize = 64 << 10;

/// Reads on their way.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Reads {
    /// Asked since the last probe began.
    waiting: Vec<u64>,
    number: u64,
    probe: Option<Probe>,
    /// A majority has answered; wait until the position is delivered here.
    ready: VecDeque<(u64, Vec<u64>)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Probe {
    tokens: Vec<u64>,
    answers: BTreeMap<NodeId, u64>,
}

impl Reads {
    /// All begin anew: answers of a view count in it only.
    pub(super) fn restart(&mut self) {
        let mut tokens: Vec<u64> = self.ready.drain(..).flat_map(|(_, tokens)| tokens).collect();
        tokens.extend(self.probe.take().into_iter().flat_map(|probe| probe.tokens));
        tokens.append(&mut self.waiting);
        self.waiting = tokens;
    }

    fn len(&self) -> usize {
        let probing = self.probe.as_ref().map_or(0, |probe| probe.tokens.len());
        let ready: usize = self.ready.iter().map(|(_, tokens)| tokens.len()).sum();
        self.waiting.len() + probing + ready
    }
}

impl Group {
    /// Asks when the state here is as new as the newest that anybody was told of before this call. Answered by
    /// [`Event::ReadReady`], or [`Event::ReadFailed`] if the group stands still, this site is in no view of it, or
    /// 65,536 reads wait.
    pub fn read(&mut self, _now: Instant, token: u64) {
        if self.blocked || self.current.is_none() || self.reads.len() >= READS_MAX {
            self.event(Event::ReadFailed { token });
        } else {
            self.reads.waiting.push(token);
        }
    }

    /// The group stands still.
    pub(super) fn fail_reads(&mut self) {
        self.reads.restart();
        for token in std::mem::take(&mut self.reads.waiting) {
            self.event(Event::ReadFailed { token });
        }
    }

    pub(super) fn on_answer(&mut self, rank: usize, number: u64, known: u64) -> bool {
        let Some(current) = &self.current else { return false };
        let node = current.members[rank].member.site.node;
        if number > self.reads.number {
            return false;
        }
        if let Some(probe) = &mut self.reads.probe
            && number == self.reads.number
        {
            probe.answers.insert(node, known);
        }
        true
    }

    /// Answers probes of others, looks at the answers to the own one, begins the next.
    pub(super) fn run_reads(&mut self) {
        self.answer_probes();
        self.finish_probe();
        if self.reads.probe.is_none() && !self.reads.waiting.is_empty() {
            self.begin_probe();
            self.finish_probe();
        }
        let is_due = |(position, _): &(u64, Vec<u64>)| self.whole && *position <= self.delivered;
        let due = self.reads.ready.iter().take_while(|ready| is_due(ready)).count();
        for (position, tokens) in self.reads.ready.drain(..due).collect::<Vec<_>>() {
            let position = Position(position);
            for token in tokens {
                self.event(Event::ReadReady { token, position });
            }
        }
    }

    fn answer_probes(&mut self) {
        let known = self.data.log.known();
        let whole = self.whole;
        let Some(current) = &mut self.current else { return };
        let view = current.id;
        let asked = current.members.iter_mut().filter(|_| whole).filter_map(|asker| {
            let number = asker.probe.take()?;
            Some((asker.member.boot(), number))
        });
        for (to, number) in asked.collect::<Vec<_>>() {
            self.send(to, Message::Answer { view, number, known });
        }
    }

    fn begin_probe(&mut self) {
        let Some(current) = &self.current else { return };
        let view = current.id;
        let reads = &mut self.reads;
        reads.number += 1;
        let number = reads.number;
        let mut answers = BTreeMap::new();
        if self.whole {
            answers.insert(self.me.node, self.data.log.known());
        }
        reads.probe = Some(Probe { tokens: std::mem::take(&mut reads.waiting), answers });
        self.broadcast(&Message::Probe { view, number });
    }

    fn finish_probe(&mut self) {
        let quorum = self.config.quorum();
        let Some(probe) = self.reads.probe.take_if(|probe| probe.answers.len() >= quorum) else {
            return;
        };
        let position = probe.answers.values().copied().max().unwrap_or(0);
        self.reads.ready.push_back((position, probe.tokens));
    }
}
