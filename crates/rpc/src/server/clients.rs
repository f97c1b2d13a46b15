//! What a server knows of a client: its life, and which of its calls are over.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_base::{Instant, NodeId};

use super::lanes::Lane;
use super::{Answer, Entry, Run, Server, State};
use crate::lines::Lines;
use crate::ranges::Ranges;
use crate::{Config, Record, Refusal, Ticket};

/// One client: a node in one life.
#[derive(Clone, Hash, Debug, Default)]
pub(crate) struct Client {
    /// Its crash count, as its boot that is connected said; 0: it has not.
    pub(crate) life: u64,
    /// What the server remembers of it is called so; 0: it was not told, or that is void. Drawn for each client where results are stored, and stored
    /// with them: one that was forgotten sees that it was.
    pub(super) memory: u64,
    /// All calls below are over.
    pub(crate) floor: u64,
    /// Calls that are over, at or above the floor.
    pub(crate) over: Ranges,
    /// Of those that were given up and had not begun: the one before it in its lane.
    pub(super) skipped: BTreeMap<u64, u64>,
    /// Those that are held, executed, or have a result that the client may not have.
    pub(super) calls: BTreeMap<u64, Box<Entry>>,
    /// Of arguments and results.
    pub(super) bytes: usize,
    pub(super) lanes: BTreeMap<u32, Lane>,
    /// Calls that it gave up and that others wait for: their lanes are taken until the execution has stopped.
    pub(super) leaving: usize,
    /// Executions for its former lives that have not stopped. Nothing begins for this one before they have.
    pub(crate) orphans: usize,
    /// Calls that wait for that.
    pub(super) waiting: Vec<u64>,
    /// When it was heard last.
    pub(crate) heard: Instant,
    /// It is forgotten as soon as the orphans have stopped.
    pub(super) is_gone: bool,
}

impl Client {
    pub(crate) fn is_over(&self, seq: u64) -> bool {
        seq < self.floor || self.over.contains(seq)
    }
}

impl Client {
    /// Whether the call is here, and has not begun.
    pub(super) fn holds(&self, seq: u64) -> bool {
        self.calls.get(&seq).is_some_and(|it| it.is_held())
    }

    /// A call waits until the orphans of former lives have stopped.
    pub(super) fn wait(&mut self, seq: u64) {
        self.waiting.push(seq);
        if self.waiting.len() > 2 * self.calls.len() + 64 {
            let calls = &self.calls;
            self.waiting.retain(|seq| calls.get(seq).is_some_and(|it| it.is_held()));
        }
    }

    /// A call of a lane will not begin; that one came before it.
    pub(super) fn skip(&mut self, seq: u64, before: u64, config: &Config) {
        if self.skipped.len() < 4 * config.window as usize {
            self.skipped.insert(seq, before);
        }
    }
}

impl Server {
    /// A client speaks. False: in a life that is over, or that has not said hello (RPC-22).
    pub(crate) fn on_life(&mut self, now: Instant, of: NodeId, life: u64) -> bool {
        let client = self.clients.entry(of).or_default();
        let is_other = life == 0 || life != client.life;
        if is_other && !mainstay_base::fault!(self.config, HearsTheDead) {
            self.counts.dropped += 1;
            return false;
        }
        client.heard = now;
        true
    }

    /// The client's boot that is connected now says which life it lives: so all others are over.
    pub(crate) fn on_hello(&mut self, now: Instant, lines: &mut Lines, of: NodeId, life: u64) {
        let client = self.clients.entry(of).or_default();
        client.heard = now;
        if life != client.life {
            self.begin_life(now, lines, of, life);
        }
    }

    /// All that runs for a former life of the client is ended, and all that was kept for it is gone (RPC-21).
    fn begin_life(&mut self, now: Instant, lines: &mut Lines, of: NodeId, life: u64) {
        self.forsake(lines, of);
        if !mainstay_base::fault!(self.config, SparesOrphans) {
            for ticket in self.runs_of(of) {
                self.end(lines, ticket);
            }
        }
        self.loose.retain(|loose| loose.client != of);
        self.bereave(lines, of);
        let mut orphans = 0;
        let is_orphan = |run: &&mut Run| run.client == of && run.adoptable.is_none();
        for run in self.runs.values_mut().filter(is_orphan) {
            run.is_orphan = true;
            orphans += 1;
        }
        let client = self.clients.entry(of).or_default();
        for (seq, entry) in std::mem::take(&mut client.calls) {
            self.deadlines.remove(&(entry.until, of, seq));
        }
        // One that is dead may come back with the calls that were just dropped.
        let memory = if life == 0 { 0 } else { client.memory };
        *client = Client { life, memory, orphans, heard: now, ..Client::default() };
        if self.config.stored {
            self.write(lines, Record::client(of, life, memory));
        }
    }

    /// The client's boot is gone for good.
    pub(crate) fn on_dead(&mut self, now: Instant, lines: &mut Lines, of: NodeId) {
        if self.clients.contains_key(&of) {
            self.begin_life(now, lines, of, 0);
        }
    }

    /// The client is gone, and ended before: when its executions have stopped, nothing of it is kept.
    pub(crate) fn forget(&mut self, of: NodeId) {
        match self.clients.get_mut(&of) {
            Some(client) if client.orphans > 0 => client.is_gone = true,
            Some(_) => drop(self.clients.remove(&of)),
            None => {}
        }
    }

    /// A client is connected, and is to be told what the server remembers of it.
    pub(crate) fn meet(&mut self, now: Instant, lines: &mut Lines, of: NodeId) -> u64 {
        if !self.config.stored {
            return self.memory;
        }
        self.make_room(now, lines, of);
        let drawn = self.stored.draw();
        let client = self.clients.entry(of).or_default();
        // It was on its way to be forgotten, and is there again.
        client.is_gone &= mainstay_base::fault!(self.config, ForgetsTheMet);
        if client.memory == 0 {
            client.memory = match mainstay_base::fault!(self.config, KeepsMemory) {
                true => self.memory,
                false => drawn,
            };
        }
        client.memory
    }

    /// Whether a client means what the server remembers of it.
    pub(crate) fn is_memory_of(&self, of: NodeId, memory: u64) -> bool {
        if !self.config.stored {
            return memory == self.memory;
        }
        memory != 0 && self.clients.get(&of).is_some_and(|client| client.memory == memory)
    }

    /// A client comes. Of those that are not connected, and for whom nothing is executed, those are forgotten that were heard longest ago.
    fn make_room(&mut self, now: Instant, lines: &mut Lines, of: NodeId) {
        let more = usize::from(!self.clients.contains_key(&of));
        while self.clients.len() + more > self.config.clients_max {
            let busy: BTreeSet<NodeId> = self.works_for();
            let is_away = |node: &NodeId, client: &Client| {
                let is_busy = client.orphans > 0 || busy.contains(node);
                *node != of && !is_busy && !lines.is_up(*node)
            };
            let away = self.clients.iter().filter(|(node, client)| is_away(node, client));
            let oldest = away.min_by_key(|(node, client)| (client.heard, **node));
            let Some(oldest) = oldest.map(|(node, _)| *node) else { return };
            self.begin_life(now, lines, oldest, 0);
            self.clients.remove(&oldest);
            self.counts.forgotten += 1;
        }
    }

    /// What is executed for a client, and for nobody else.
    fn runs_of(&self, of: NodeId) -> Vec<Ticket> {
        let ends_named = mainstay_base::fault!(self.config, EndsAdopted);
        let is_own = |run: &Run| run.client == of && (run.adoptable.is_none() || ends_named);
        let runs = self.runs.iter().filter(|(_, run)| is_own(run));
        runs.map(|(ticket, _)| *ticket).collect()
    }

    /// The client is taken for dead: what is held and executed for it is ended. It is remembered, in case that the client lives.
    pub(crate) fn abort(&mut self, now: Instant, lines: &mut Lines, of: NodeId) {
        for ticket in self.runs_of(of) {
            self.abort_run(now, lines, ticket);
        }
        self.loose.retain(|loose| loose.client != of);
        self.refuse_held(now, lines, of, u64::MAX, Refusal::Late);
        self.forsake(lines, of);
    }

    /// What is held for a client and of a former epoch does not begin.
    pub(crate) fn refuse_held(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        of: NodeId,
        epoch: u64,
        why: Refusal,
    ) {
        let Some(client) = self.clients.get(&of) else { return };
        let is_old = |entry: &Entry| entry.is_held() && entry.call.epoch < epoch;
        let held = client.calls.iter().filter(|(_, entry)| is_old(entry));
        let held: Vec<u64> = held.map(|(seq, _)| *seq).collect();
        for seq in held {
            self.finish(now, lines, of, seq, Answer::Refused(why));
        }
    }

    /// Ends one execution before its time.
    pub(crate) fn abort_run(&mut self, now: Instant, lines: &mut Lines, ticket: Ticket) {
        let Some(run) = self.runs.get(&ticket).filter(|run| !run.is_ended) else { return };
        let (of, is_orphan, seq) = (run.client, run.is_orphan, run.seq);
        let is_named = run.adoptable.is_some();
        self.end(lines, ticket);
        if is_named && !mainstay_base::fault!(self.config, AbortsByNumber) {
            self.dismiss(now, lines, ticket);
        } else if !is_orphan {
            self.finish(now, lines, of, seq, Answer::Refused(Refusal::Aborted));
        }
    }

    /// An execution for a former life has stopped. After the last one the client's calls begin.
    pub(super) fn release(&mut self, of: NodeId) {
        let Some(client) = self.clients.get_mut(&of) else { return };
        client.orphans = client.orphans.saturating_sub(1);
        if client.orphans == 0 && client.is_gone {
            self.clients.remove(&of);
        } else if client.orphans == 0 {
            let life = client.life;
            for seq in std::mem::take(&mut client.waiting) {
                self.ready.calls.push_back((of, life, seq));
            }
        }
    }

    /// All calls below the floor are over, and those named.
    pub(crate) fn on_over(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        of: NodeId,
        floor: u64,
        over: &[u64],
    ) {
        for seq in over {
            self.over(now, lines, of, *seq, None);
        }
        let Some(client) = self.clients.get_mut(&of).filter(|client| floor > client.floor) else {
            return;
        };
        let below: Vec<u64> = client.calls.range(..floor).map(|(seq, _)| *seq).collect();
        for seq in below {
            self.over(now, lines, of, seq, None);
        }
        let Some(client) = self.clients.get_mut(&of) else { return };
        client.floor = floor;
        client.over.cut(floor);
        client.skipped = client.skipped.split_off(&floor);
        self.try_lanes(now, lines, of);
    }

    /// All calls below `next` are over, but those that are open.
    pub(crate) fn on_open(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        of: NodeId,
        next: u64,
        open: &[u64],
    ) {
        // A peer that keeps the rule names them in order, and none that it has not begun.
        if !open.is_sorted() || open.last().is_some_and(|last| *last >= next) {
            self.counts.absurd += 1;
            return;
        }
        let Some(client) = self.clients.get(&of) else { return };
        let kept = client.calls.range(..next).map(|(seq, _)| *seq);
        let over: Vec<u64> = kept.filter(|seq| open.binary_search(seq).is_err()).collect();
        for seq in over {
            self.over(now, lines, of, seq, None);
        }
        let mut first = self.clients.get(&of).map_or(0, |client| client.floor);
        for last in open.iter().copied().chain([next]) {
            self.add_over(of, first, last.saturating_sub(1));
            first = last.saturating_add(1);
        }
        self.try_lanes(now, lines, of);
    }

    /// False: it is not noted.
    fn add_over(&mut self, of: NodeId, first: u64, last: u64) -> bool {
        let Some(client) = self.clients.get_mut(&of) else { return false };
        // Between two calls that are open lies at most one gap, or the peer keeps no rule.
        if client.over.len() > 2 * self.config.window as usize {
            self.counts.absurd += 1;
            return false;
        }
        client.over.add(first.max(client.floor), last);
        true
    }

    /// A call is over for the client: it has the answer, or has given the call up, and this one came before it in its lane.
    pub(crate) fn over(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        of: NodeId,
        seq: u64,
        given_up: Option<u64>,
    ) {
        let Some(client) = self.clients.get_mut(&of) else { return };
        if client.is_over(seq) {
            return;
        }
        let life = client.life;
        if let Some(before) = given_up.filter(|_| !client.calls.contains_key(&seq)) {
            client.skip(seq, before, &self.config);
        }
        let is_noted = self.add_over(of, seq, seq);
        let Some(client) = self.clients.get_mut(&of) else { return };
        let Some(entry) = client.calls.get(&seq) else {
            // It may come later, after a restart too.
            if let Some(before) = given_up.filter(|_| self.config.stored && is_noted) {
                self.write(lines, Record::Over { client: of, life, seq, before });
            }
            return self.try_lanes(now, lines, of);
        };
        let lane = entry.call.order.as_ref().map(|order| order.lane);
        match entry.state {
            State::Held => {
                let before = entry.call.order.as_ref().map_or(0, |order| order.after);
                if self.config.stored {
                    self.write(lines, Record::Over { client: of, life, seq, before });
                }
                self.drop_entry(of, seq);
                if let Some(lane) = lane {
                    self.skip_in_lane(now, lines, of, lane, seq);
                }
            }
            State::Beginning(ticket) | State::Running(ticket) => {
                if self.detach(ticket, of, seq) {
                    self.end(lines, ticket);
                }
                self.drop_entry(of, seq);
            }
            State::Ending(_) | State::Over(_) => self.drop_entry(of, seq),
        }
    }

    /// Whether anything is held or executed.
    pub(crate) fn works(&self) -> bool {
        !(self.deadlines.is_empty() && self.loose_deadlines.is_empty() && self.loose.is_empty())
    }

    /// For whom.
    pub(crate) fn works_for(&self) -> BTreeSet<NodeId> {
        let runs = self.runs.values().filter(|run| !run.is_ended).map(|run| run.client);
        let held = self.deadlines.iter().map(|(_, client, _)| *client);
        held.chain(runs).chain(self.loose.iter().map(|loose| loose.client)).collect()
    }
}
