//! How an execution ends, and a call: with a result, at the deadline, or because nobody wants it any more.

use mainstay_base::service::Io;
use mainstay_base::{Instant, NodeId};

use super::{Answer, Run, Server, State, Wrote};
use crate::lines::Lines;
use crate::{Event, Record, Refusal, Semantics, Ticket};

impl Server {
    /// Whoever executes has a result, or has stopped without one.
    pub(crate) fn on_finished(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        ticket: Ticket,
        answer: Answer,
    ) {
        let Some(run) = self.runs.get(&ticket) else { return };
        let is_late = run.until <= now;
        if run.is_ended && !mainstay_base::fault!(self.config, KeepsOrphans) {
            return self.stopped(now, lines, ticket);
        }
        let Some(run) = self.runs.remove(&ticket) else { return };
        self.loose_deadlines.remove(&(run.until, ticket));
        if run.seq == 0 {
            return self.fill(now, lines);
        }
        let answer = match answer {
            Answer::Result(_, body) if body.len() > self.config.body_bytes_max => {
                Answer::Refused(Refusal::ResultTooLarge)
            }
            // The deadline was not noticed before: the client may have given up.
            _ if is_late => Answer::Refused(Refusal::Expired),
            answer => answer,
        };
        self.conclude_run(now, lines, run, &answer);
    }

    /// An execution has this result, or comes to nothing.
    pub(super) fn end_run(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        ticket: Ticket,
        answer: &Answer,
    ) {
        if let Some(run) = self.runs.remove(&ticket) {
            self.conclude_run(now, lines, run, answer);
        }
    }

    fn conclude_run(&mut self, now: Instant, lines: &mut Lines, run: Run, answer: &Answer) {
        match run.adoptable {
            Some(adoptable) => self.conclude_name(now, lines, *adoptable, answer),
            None => {
                self.finish(now, lines, run.client, run.seq, answer.clone());
                self.leave_lane(now, lines, run.client, run.lane, run.life);
            }
        }
        self.fill(now, lines);
    }

    /// An execution that was ended has stopped.
    pub(super) fn stopped(&mut self, now: Instant, lines: &mut Lines, ticket: Ticket) {
        let Some(run) = self.runs.remove(&ticket) else { return };
        self.loose_deadlines.remove(&(run.until, ticket));
        if let Some(adoptable) = run.adoptable {
            // It is not executed again, whatever it has done.
            self.conclude_name(now, lines, *adoptable, &Answer::Refused(Refusal::Aborted));
        } else if run.is_orphan {
            self.release(run.client);
        } else {
            self.leave_lane(now, lines, run.client, run.lane, run.life);
        }
        self.fill(now, lines);
    }

    /// A call has its answer.
    pub(super) fn finish(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        of: NodeId,
        seq: u64,
        answer: Answer,
    ) {
        let Some(client) = self.clients.get_mut(&of) else { return };
        let Some(entry) = client.calls.get_mut(&seq) else { return };
        self.deadlines.remove(&(entry.until, of, seq));
        client.bytes -= std::mem::take(&mut entry.arguments).len();
        client.bytes -= std::mem::take(&mut entry.call.context).len();
        entry.call.name = None;
        let lane = entry.call.order.as_ref().map(|order| order.lane);
        // A client that acknowledges nothing has results of what was taken before it was full: no more than as much again.
        let bytes_max = 2 * self.config.client_bytes_max;
        let answer = match answer {
            Answer::Result(_, body) if client.bytes + body.len() > bytes_max => {
                Answer::Refused(Refusal::ResultTooLarge)
            }
            answer => answer,
        };
        if let Answer::Result(_, body) = &answer {
            client.bytes += body.len();
        }
        let is_held = entry.is_held();
        self.conclude(lines, of, seq, answer);
        if is_held && let Some(lane) = lane {
            self.skip_in_lane(now, lines, of, lane, seq);
        }
    }

    /// The answer is told. That a call has not begun and never will is stable before, where that is stored: one that came late would
    /// begin after a restart. Of one that has begun it is stable that it has, so it does not begin again whatever becomes of its answer.
    pub(super) fn conclude(&mut self, lines: &mut Lines, of: NodeId, seq: u64, answer: Answer) {
        let Some(client) = self.clients.get_mut(&of) else { return };
        let life = client.life;
        let Some(entry) = client.calls.get_mut(&seq) else { return };
        let semantics = entry.call.semantics;
        if !self.config.stored || semantics == Semantics::AtLeastOnce {
            entry.state = State::Over(answer.clone());
            self.tell(lines, of, seq, answer);
            if semantics == Semantics::AtLeastOnce {
                self.drop_entry(of, seq);
            }
            return;
        }
        let (has_begun, before) = (entry.has_begun, entry.before());
        let is_told = has_begun || mainstay_base::fault!(self.config, AnswersUnwritten);
        entry.state = match is_told {
            true => State::Over(answer.clone()),
            false => State::Ending(answer.clone()),
        };
        let io = self.write(lines, Record::ended(of, life, seq, answer.clone(), before));
        if is_told {
            self.tell(lines, of, seq, answer);
        } else {
            self.writing.push_back((io, Wrote::End(of, life, seq)));
        }
    }

    pub(super) fn drop_entry(&mut self, of: NodeId, seq: u64) {
        let Some(client) = self.clients.get_mut(&of) else { return };
        if let Some(entry) = client.calls.remove(&seq) {
            self.deadlines.remove(&(entry.until, of, seq));
            client.bytes -= entry.bytes();
            if let Some(before) = entry.before() {
                client.skip(seq, before, &self.config);
            }
        }
    }

    /// A write is stable.
    pub(crate) fn on_written(&mut self, now: Instant, lines: &mut Lines, upto: Io) {
        while self.writing.front().is_some_and(|(io, _)| *io <= upto) {
            let Some((_, wrote)) = self.writing.pop_front() else { break };
            match wrote {
                Wrote::Begin(ticket) => self.execute(now, lines, ticket),
                Wrote::End(of, life, seq) => {
                    let Some(client) = self.clients.get_mut(&of) else { continue };
                    if client.life != life {
                        continue;
                    }
                    let Some(entry) = client.calls.get_mut(&seq) else { continue };
                    if let State::Ending(answer) = &entry.state {
                        let answer = answer.clone();
                        entry.state = State::Over(answer.clone());
                        self.tell(lines, of, seq, answer);
                    }
                }
            }
        }
    }

    /// An execution is to stop.
    pub(crate) fn end(&mut self, lines: &mut Lines, ticket: Ticket) {
        let Some(run) = self.runs.get_mut(&ticket).filter(|run| !run.is_ended) else { return };
        run.is_ended = true;
        self.counts.ended += 1;
        self.ended.push(ticket);
        lines.tell(Event::Stop { ticket });
    }

    /// Deadlines that have come.
    pub(crate) fn on_time(&mut self, now: Instant, lines: &mut Lines) {
        self.names.forget(now);
        while let Some((until, ticket)) =
            self.loose_deadlines.first().copied().filter(|it| it.0 <= now)
        {
            self.loose_deadlines.remove(&(until, ticket));
            self.end(lines, ticket);
        }
        while let Some((until, of, seq)) = self.deadlines.first().copied().filter(|it| it.0 <= now)
        {
            self.deadlines.remove(&(until, of, seq));
            let Some(entry) = self.clients.get(&of).and_then(|client| client.calls.get(&seq))
            else {
                continue;
            };
            match entry.state {
                State::Held => {
                    self.finish(now, lines, of, seq, Answer::Refused(Refusal::Late));
                }
                State::Beginning(ticket) | State::Running(ticket) => {
                    if mainstay_base::fault!(self.config, IgnoresDeadline) {
                        continue;
                    }
                    if self.detach(ticket, of, seq) {
                        self.end(lines, ticket);
                    }
                    self.finish(now, lines, of, seq, Answer::Refused(Refusal::Expired));
                }
                State::Ending(_) | State::Over(_) => {}
            }
        }
    }

    /// When something is due.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        let loose = self.loose_deadlines.first().map(|(until, _)| *until);
        let first = self.deadlines.first().map(|(until, ..)| *until);
        first.into_iter().chain(loose).chain(self.names.timeout()).min()
    }
}
