//! Adoption: an execution with a name outlives its client, and its result is for whoever calls by that name (RC89).
//!
//! Who crashes in the middle of an execution leaves calls behind that it made as a part of it. Whoever executes that again, the same node in its
//! next life or another one, makes the same calls under the same names. Here they are not executed again: what runs goes on and has another
//! caller, and what has a result has it still (RPC-72). So the results of nested calls are the history that RC89 has the secondaries record;
//! it is kept where the calls were executed.
//!
//! A name is *open* while its execution runs. All calls by it wait for that. When the last caller is dead the execution goes on, up to its
//! deadline; when the last one gives it up it is ended. A refusal that says that nothing was executed frees the name. Else it is *over* then, with a result or a refusal, for the time `keep` of
//! [`Orphans::Adoption`]: until then it is not executed again.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;

use mainstay_base::{Fingerprinter, Instant, NodeId};

use super::{Answer, Run, Server, State};
use crate::lines::Lines;
use crate::wire::{CallHead, CallName, ProcedureId};
use crate::{Config, Orphans, Refusal, Semantics, Ticket};

/// A call that waits for an execution with a name: of a client in one of its lives, in a lane.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Waiter {
    life: u64,
    lane: Option<u32>,
    /// It has given up, or its time was over. Its lane is taken until the execution has stopped.
    is_gone: bool,
}

/// What an execution has that has a name.
#[derive(Clone, Hash, Debug)]
pub(crate) struct Adoptable {
    pub(crate) name: CallName,
    /// By client and number: one life of a client at a time.
    waiters: BTreeMap<(NodeId, u64), Waiter>,
    /// Those that are gone.
    gone: usize,
}

impl Adoptable {
    fn is_wanted(&self) -> bool {
        self.waiters.len() > self.gone
    }
}

#[derive(Clone, Hash, Debug)]
enum Stage {
    Open(Ticket),
    Over(Answer),
}

#[derive(Clone, Hash, Debug)]
struct Named {
    what: What,
    /// Who called by it first: it is of its share.
    of: NodeId,
    stage: Stage,
}

/// What was called by a name: the procedure, its version, what was promised, and the arguments.
type What = (ProcedureId, u16, Semantics, u128);

/// What a client has of all that is kept.
#[derive(Clone, Copy, Hash, Debug, Default)]
struct Share {
    names: usize,
    bytes: usize,
}

/// The names that calls have had.
#[derive(Clone, Hash, Debug, Default)]
pub(super) struct Names {
    known: BTreeMap<CallName, Named>,
    over: BTreeSet<(Instant, CallName)>,
    /// Of clients that have any.
    shares: BTreeMap<NodeId, Share>,
    /// Of results.
    bytes: usize,
}

impl Names {
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.over.first().map(|(at, _)| *at)
    }

    fn share(&self, of: NodeId) -> Share {
        self.shares.get(&of).copied().unwrap_or_default()
    }

    /// Whether a client may have another name: it has no more than are free then.
    fn is_room(&self, of: NodeId, (names_max, bytes_max): (usize, usize), is_shared: bool) -> bool {
        let share = if is_shared { self.share(of) } else { Share::default() };
        let names = self.known.len() + 1;
        names <= names_max
            && self.bytes < bytes_max
            && share.names < (names_max - names).max(1)
            && share.bytes <= bytes_max - self.bytes
    }

    /// Whether a result of so many bytes is kept for a client.
    fn is_kept(&self, of: NodeId, bytes: usize, bytes_max: usize) -> bool {
        let free = bytes_max.checked_sub(self.bytes + bytes);
        bytes == 0 || free.is_some_and(|free| self.share(of).bytes + bytes <= free)
    }

    fn add(&mut self, name: CallName, named: Named) {
        self.shares.entry(named.of).or_default().names += 1;
        self.known.insert(name, named);
    }

    fn remove(&mut self, name: &CallName) {
        let Some(Named { of, stage, .. }) = self.known.remove(name) else { return };
        let bytes = if let Stage::Over(answer) = stage { size(&answer) } else { 0 };
        self.bytes -= bytes;
        let Some(share) = self.shares.get_mut(&of) else { return };
        share.names -= 1;
        share.bytes -= bytes;
        if share.names == 0 {
            self.shares.remove(&of);
        }
    }

    pub(super) fn check(&self, orphans: Orphans) {
        let Orphans::Adoption { names_max, bytes_max, .. } = orphans else {
            return assert!(self.known.is_empty(), "names are for adoption");
        };
        assert!(self.known.len() <= names_max, "names are bounded");
        assert!(self.bytes <= bytes_max, "results with a name are bounded");
        let names: usize = self.shares.values().map(|it| it.names).sum();
        let bytes: usize = self.shares.values().map(|it| it.bytes).sum();
        assert_eq!((names, bytes), (self.known.len(), self.bytes), "shares are counted");
    }

    /// What was kept for long enough.
    pub(super) fn forget(&mut self, now: Instant) {
        while self.over.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, name)) = self.over.pop_first() else { return };
            self.remove(&name);
        }
    }
}

fn size(answer: &Answer) -> usize {
    match answer {
        Answer::Result(_, body) => body.len(),
        Answer::Refused(_) => 0,
    }
}

/// The name by which a call is adopted; `None`: it has none, or may be executed again.
fn name_of(call: &CallHead) -> Option<CallName> {
    let is_kept = call.semantics != Semantics::AtLeastOnce;
    call.name.as_deref().filter(|_| is_kept).cloned()
}

fn what_of(config: &Config, call: &CallHead, arguments: &[u8]) -> What {
    let is_mixed = mainstay_base::fault!(config, MixesPromises);
    let semantics = if is_mixed { Semantics::ExactlyOnce } else { call.semantics };
    let mut digest = Fingerprinter::new();
    digest.write(arguments);
    (call.procedure, call.version, semantics, digest.finish128())
}

impl Server {
    /// A call is about to begin. True: by its name it has an execution or a result, or is refused; it does not begin.
    pub(super) fn adopt(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        from: NodeId,
        seq: u64,
    ) -> bool {
        let Orphans::Adoption { names_max, bytes_max, .. } = self.config.orphans else {
            return false;
        };
        self.names.forget(now);
        let Some(client) = self.clients.get_mut(&from) else { return false };
        let life = client.life;
        let Some(entry) = client.calls.get_mut(&seq) else { return false };
        let Some(name) = name_of(&entry.call) else { return false };
        let what = what_of(&self.config, &entry.call, &entry.arguments);
        let lane = entry.call.order.as_ref().map(|order| order.lane);
        let Some(named) = self.names.known.get_mut(&name) else {
            let is_shared = !mainstay_base::fault!(self.config, SharesNothing);
            let is_room = self.names.is_room(from, (names_max, bytes_max), is_shared);
            if !is_room {
                self.finish(now, lines, from, seq, Answer::Refused(Refusal::Busy));
            }
            return !is_room;
        };
        if named.what != what {
            self.finish(now, lines, from, seq, Answer::Refused(Refusal::Differs));
            return true;
        }
        let is_crowded = client.leaving >= self.config.window as usize
            && !mainstay_base::fault!(self.config, CountsNoLeavers);
        if matches!(named.stage, Stage::Open(_)) && lane.is_some() && is_crowded {
            self.finish(now, lines, from, seq, Answer::Refused(Refusal::Busy));
            return true;
        }
        self.counts.adopted += 1;
        entry.has_begun = true;
        match &named.stage {
            Stage::Open(ticket) => {
                let ticket = *ticket;
                entry.state = State::Running(ticket);
                client.bytes -= std::mem::take(&mut entry.arguments).len();
                client.bytes -= std::mem::take(&mut entry.call.context).len();
                let until = entry.until;
                let Some(run) = self.runs.get_mut(&ticket) else { return true };
                self.loose_deadlines.remove(&(run.until, ticket));
                run.until = run.until.max(until);
                if let Some(adoptable) = &mut run.adoptable {
                    adoptable.waiters.insert((from, seq), Waiter { life, lane, is_gone: false });
                }
            }
            Stage::Over(answer) => {
                let answer = answer.clone();
                // Its place among those of its lane is behind it.
                entry.state = State::Running(Ticket(0));
                self.finish(now, lines, from, seq, answer);
                self.leave_lane(now, lines, from, lane, life);
            }
        }
        true
    }

    /// An execution begins; what it has if it has a name.
    pub(super) fn name(
        &mut self,
        client: NodeId,
        seq: u64,
        ticket: Ticket,
    ) -> Option<Box<Adoptable>> {
        if !matches!(self.config.orphans, Orphans::Adoption { .. }) {
            return None;
        }
        let of = self.clients.get(&client)?;
        let (life, entry) = (of.life, of.calls.get(&seq)?);
        let name = name_of(&entry.call)?;
        let what = what_of(&self.config, &entry.call, &entry.arguments);
        let named = Named { what, of: client, stage: Stage::Open(ticket) };
        self.names.add(name.clone(), named);
        let lane = entry.call.order.as_ref().map(|order| order.lane);
        let waiters = BTreeMap::from([((client, seq), Waiter { life, lane, is_gone: false })]);
        Some(Box::new(Adoptable { name, waiters, gone: 0 }))
    }

    /// The execution with this name has stopped: all that call by it are told.
    pub(super) fn conclude_name(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        adoptable: Adoptable,
        answer: &Answer,
    ) {
        let Orphans::Adoption { keep, bytes_max, .. } = self.config.orphans else { return };
        let Adoptable { name, waiters, .. } = adoptable;
        let was_executed = match answer {
            Answer::Refused(why) => !why.is_not_begun(),
            Answer::Result(..) => true,
        };
        if was_executed || mainstay_base::fault!(self.config, KeepsRefusals) {
            self.keep_name(now + keep, name, answer, bytes_max);
        } else {
            // It may be executed yet: whoever calls by the name begins anew.
            self.names.remove(&name);
        }
        let denial = Answer::Refused(Refusal::Late);
        let answer = if mainstay_base::fault!(self.config, DeniesNamed) { &denial } else { answer };
        for ((client, seq), Waiter { life, lane, is_gone }) in waiters {
            let Some(of) = self.clients.get_mut(&client).filter(|it| it.life == life) else {
                continue;
            };
            if is_gone {
                of.leaving -= 1;
            } else {
                self.finish(now, lines, client, seq, answer.clone());
            }
            self.leave_lane(now, lines, client, lane, life);
        }
    }

    /// What a name means is kept until then.
    fn keep_name(&mut self, until: Instant, name: CallName, answer: &Answer, bytes_max: usize) {
        let names = &mut self.names;
        let Some(of) = names.known.get(&name).map(|named| named.of) else { return };
        let kept = match names.is_kept(of, size(answer), bytes_max) {
            true => answer.clone(),
            false => Answer::Refused(Refusal::ResultTooLarge),
        };
        names.bytes += size(&kept);
        names.shares.entry(of).or_default().bytes += size(&kept);
        if let Some(named) = names.known.get_mut(&name) {
            named.stage = Stage::Over(kept);
        }
        names.over.insert((until, name));
        if mainstay_base::fault!(self.config, ForgetsNames) {
            names.forget(until);
        }
    }

    /// A client wants a call no more, or its time is over. Whether nobody else waits for its execution, which is to be ended.
    pub(super) fn detach(&mut self, ticket: Ticket, of: NodeId, seq: u64) -> bool {
        let run = self.runs.get_mut(&ticket);
        let Some(adoptable) = run.and_then(|run| run.adoptable.as_mut()) else { return true };
        if let Some(it) = adoptable.waiters.get_mut(&(of, seq)).filter(|it| !it.is_gone) {
            let client = self.clients.get_mut(&of);
            match client.filter(|client| it.lane.is_some() && client.life == it.life) {
                Some(client) => {
                    it.is_gone = true;
                    adoptable.gone += 1;
                    client.leaving += 1;
                }
                None => drop(adoptable.waiters.remove(&(of, seq))),
            }
        }
        !adoptable.is_wanted()
    }

    /// An execution with a name is ended before its time: all that call by it are told.
    pub(super) fn dismiss(&mut self, now: Instant, lines: &mut Lines, ticket: Ticket) {
        let run = self.runs.get(&ticket);
        let Some(adoptable) = run.and_then(|run| run.adoptable.as_ref()) else { return };
        let waiters = adoptable.waiters.iter().filter(|(_, it)| !it.is_gone);
        let waiters: Vec<(NodeId, u64)> = waiters.map(|(call, _)| *call).collect();
        for (of, seq) in waiters {
            self.detach(ticket, of, seq);
            self.finish(now, lines, of, seq, Answer::Refused(Refusal::Aborted));
        }
    }

    /// A client is dead: what has a name goes on, for others or up to its deadline. Of executions that nobody waits for no more go on than half of
    /// all that may: what dead clients have left does not keep others from being served.
    pub(super) fn bereave(&mut self, lines: &mut Lines, of: NodeId) {
        let mut bereaved = Vec::new();
        let goes_on = |run: &Run| {
            let adoptable = run.adoptable.as_ref().filter(|_| !run.is_ended);
            adoptable.is_some_and(|it| !it.is_wanted())
        };
        let before = self.runs.values().filter(|run| goes_on(run)).count();
        for (ticket, run) in &mut self.runs {
            let Some(adoptable) = &mut run.adoptable else { continue };
            let count = adoptable.waiters.len();
            adoptable.waiters.retain(|(client, _), _| *client != of);
            adoptable.gone = adoptable.waiters.values().filter(|it| it.is_gone).count();
            if count > adoptable.waiters.len() && !adoptable.is_wanted() {
                self.loose_deadlines.insert((run.until, *ticket));
                bereaved.extend((!run.is_ended).then_some(*ticket));
            }
        }
        let room = (self.config.executions_max / 2).saturating_sub(before);
        if !mainstay_base::fault!(self.config, SparesBereaved) {
            bereaved.into_iter().skip(room).for_each(|ticket| self.end(lines, ticket));
        }
    }
}
