//! The server's half: each call is executed at most once, in the order of its caller, and its result is kept until the client has it.
//!
//! # The automaton
//! A call is named by its client's node, the client's *life* (its crash count) and a number. What the server does with one that comes:
//!
//! 1. It is of a life that is over: dropped (RPC-22). It is of a new life: what runs for the former one is ended first (RPC-21).
//! 2. It is bound to a *memory* that the server does not have: dropped (RPC-15). The memory is named anew at each start, unless results are
//!    stored.
//! 3. Its number is below the client's *floor*, or among those that are over: dropped (RPC-14).
//! 4. It is known: the answer is the stored result, byte for byte (RPC-13), or *working* (RPC-12).
//! 5. It is new: it is held until the calls before it in its lane are over (RPC-5) and there is a place among those that are executed,
//!    then it begins. Where results are stored, that it begins is stable before it does.
//!
//! A result is kept until the client says that it has it: by a floor that rises, or one by one. So what is kept is bounded by the window of
//! calls that a client may have (RPC-17).
//!
//! # Ending an execution
//! An execution is *ended* at its deadline, when its client gives the call up, and when the client is dead ([`Orphans`](crate::Orphans)). Whoever executes is told,
//! and says when it has stopped. Until then the lane is taken, and a new life of the client waits: nothing of an orphan takes effect
//! once a later call has begun. Its result counts for nothing, and the calls that it made are taken back (RPC-23).

mod check;
mod clients;
mod ends;
mod hosts;
mod lanes;
mod loose;
mod names;
mod stored;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mainstay_base::service::Io;
use mainstay_base::{Duration, Instant, NodeId, Rng};

use crate::config::TRACE_BYTES;
use crate::lines::Lines;
use crate::wire::{CallHead, Item, ProcedureId};
use crate::{Config, Event, Execution, Refusal, Semantics, Ticket};

pub(crate) use clients::Client;
use loose::Drain;
pub(crate) use loose::Loose;
pub(crate) use names::Adoptable;
pub use stored::{Past, Record, Stored};

/// A call that came.
#[derive(Clone, Hash, Debug)]
pub(crate) struct Entry {
    call: CallHead,
    arguments: Bytes,
    /// The execution is over by then.
    until: Instant,
    /// Its execution was decided on: what came before it in its lane had passed.
    has_begun: bool,
    state: State,
}

#[derive(Clone, Hash, Debug)]
enum State {
    /// It waits for its lane or for a place.
    Held,
    /// That it begins is being written.
    Beginning(Ticket),
    /// It is being executed.
    Running(Ticket),
    /// It never begins, and that is being written.
    Ending(Answer),
    /// It has a result.
    Over(Answer),
}

/// What a client is told of a call.
#[derive(Clone, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Answer {
    /// A result: whether it is an error of the procedure, and its bytes.
    Result(bool, Bytes),
    Refused(Refusal),
}

/// An execution.
#[derive(Clone, Hash, Debug)]
pub(crate) struct Run {
    pub(crate) client: NodeId,
    pub(crate) life: u64,
    pub(crate) seq: u64,
    lane: Option<u32>,
    pub(crate) epoch: u64,
    pub(crate) until: Instant,
    /// It was told to stop: its result counts for nothing.
    pub(crate) is_ended: bool,
    /// It is for a former life of its client, or for one that was gone since. A client that was gone may come back in the same life.
    pub(crate) is_orphan: bool,
    /// Its client has to grant it more time before this; else it is ended.
    pub(crate) granted: Option<Instant>,
    /// When it is asked for that.
    pub(crate) asks: Instant,
    /// It has a name, by which others may adopt it.
    pub(crate) adoptable: Option<Box<Adoptable>>,
}

/// What was written, and is told when it is stable.
#[derive(Clone, Copy, Hash, Debug)]
enum Wrote {
    Begin(Ticket),
    End(NodeId, u64, u64),
}

/// The server's half of the service.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) config: Config,
    /// Names what it remembers.
    pub(crate) memory: u64,
    /// Versions of what is served here.
    served: BTreeMap<ProcedureId, (u16, u16)>,
    pub(crate) clients: BTreeMap<NodeId, Client>,
    pub(crate) runs: BTreeMap<Ticket, Run>,
    ready: Ready,
    loose: VecDeque<Loose>,
    /// Clients for whose life something was made.
    hosts: BTreeSet<NodeId>,
    deadlines: BTreeSet<(Instant, NodeId, u64)>,
    /// Of executions that nobody waits for.
    loose_deadlines: BTreeSet<(Instant, Ticket)>,
    writing: VecDeque<(Io, Wrote)>,
    names: names::Names,
    stored: stored::Kept,
    tickets: u64,
    /// No call is taken in whose execution would be written.
    pub(crate) disk_short: bool,
    drain: Drain,
    /// Executions that were ended, for whom calls are to be taken back.
    pub(crate) ended: Vec<Ticket>,
    pub(crate) counts: Counts,
}

/// They wait for a place, in order.
#[derive(Clone, Default, Hash)]
struct Ready {
    calls: VecDeque<(NodeId, u64, u64)>,
    /// They are being given places. What gets ready meanwhile has its turn in the same loop, not in one within it.
    is_filling: bool,
}

/// What a server has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Executions that began.
    pub begun: u64,
    /// Executions that were ended before they had a result.
    pub ended: u64,
    /// Calls that came again, and were answered without an execution.
    pub repeated: u64,
    /// Calls that were not taken in since the disk was short; each copy counts.
    pub deferred: u64,
    /// Calls that were given the execution or the result of an earlier one of the same name.
    pub adopted: u64,
    /// Calls that came when they were over, or of a life that was.
    pub dropped: u64,
    /// Clients of which nothing is remembered any more, because there were others: [`Config::clients_max`](crate::Config::clients_max).
    pub forgotten: u64,
    /// Calls that were refused.
    pub refused: u64,
    /// Things said that make no sense, and answers to one that takes none in: a peer does not keep to the protocol.
    pub absurd: u64,
}

impl Server {
    pub(crate) fn new(config: Config, memory: u64, seed: u64, past: Past) -> Self {
        let mut server = Self {
            config,
            memory,
            served: BTreeMap::new(),
            clients: BTreeMap::new(),
            runs: BTreeMap::new(),
            ready: Ready::default(),
            loose: VecDeque::new(),
            hosts: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            loose_deadlines: BTreeSet::new(),
            writing: VecDeque::new(),
            names: names::Names::default(),
            stored: stored::Kept::new(past.first(), seed),
            // No ticket of a former life names an execution of this one.
            tickets: Rng::new(seed).stream("tickets").next_u64() >> 1,
            disk_short: false,
            drain: Drain::No,
            ended: Vec::new(),
            counts: Counts::default(),
        };
        server.restore(past);
        server
    }

    pub(crate) fn serve(&mut self, procedure: ProcedureId, versions: (u16, u16)) {
        self.served.insert(procedure, versions);
    }

    pub(crate) fn withdraw(&mut self, procedure: ProcedureId) {
        self.served.remove(&procedure);
    }

    pub(crate) fn serves(&self, procedure: ProcedureId) -> bool {
        self.served.contains_key(&procedure)
    }

    pub(crate) fn drain(&mut self) {
        if self.drain == Drain::No {
            self.drain = Drain::Streams;
        }
    }

    /// There is no more time: what has not begun does not begin, and the rest is ended.
    pub(crate) fn close(&mut self, now: Instant, lines: &mut Lines) {
        self.drain = Drain::All;
        let clients: Vec<NodeId> = self.clients.keys().copied().collect();
        for client in clients {
            self.refuse_held(now, lines, client, u64::MAX, Refusal::Draining);
        }
        self.loose.clear();
        let tickets: Vec<Ticket> = self.runs.keys().copied().collect();
        for ticket in tickets {
            self.abort_run(now, lines, ticket);
        }
    }

    /// Whether nothing is held or executed, and the clients that are connected have said that they have their results. Refusals do not
    /// count: there are new ones for as long as anybody calls.
    pub(crate) fn is_idle(&self, lines: &Lines) -> bool {
        let is_early = mainstay_base::fault!(self.config, DrainsEarly);
        self.runs.is_empty()
            && self.loose.is_empty()
            && self.clients.iter().all(|(node, client)| {
                let waits = |it: &Entry| it.has_begun && lines.is_up(*node) && !is_early;
                client.calls.values().all(|it| it.is_over() && !waits(it))
            })
    }

    /// A call came. In which epoch it is refused if it is of a former one.
    pub(crate) fn on_call(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        from: NodeId,
        (seq, epoch): (u64, u64),
        mut call: CallHead,
        arguments: Bytes,
    ) {
        let client = self.clients.entry(from).or_default();
        if client.is_over(seq) && !mainstay_base::fault!(self.config, RunsLateCalls) {
            self.counts.dropped += 1;
            return;
        }
        if client.calls.contains_key(&seq) && !mainstay_base::fault!(self.config, ForgetsCalls) {
            self.counts.repeated += 1;
            // One that takes nothing in gets no answers to keep for it: it asks again.
            if lines.is_open(from) {
                self.answer(lines, from, seq);
            }
            return;
        }
        if self.disk_short && self.config.stored && call.semantics != Semantics::AtLeastOnce {
            // Nothing is remembered of it, for that would be written too. Its client asks again until there is room, or its deadline has come.
            self.counts.deferred += 1;
            return;
        }
        let is_past = call.epoch < epoch;
        let why = is_past.then_some(Refusal::Epoch);
        let bytes = arguments.len() + call.context.len();
        if let Some(why) = why.or_else(|| self.refusal(from, &call, bytes)) {
            return self.refuse(now, lines, from, seq, call, why);
        }
        let until = self.until(now, call.budget);
        let client = self.clients.entry(from).or_default();
        let gone = call.order.as_mut().map(|order| std::mem::take(&mut order.gone));
        let lane = call.order.as_ref().map(|order| order.lane);
        client.bytes += bytes;
        let (has_begun, state) = (false, State::Held);
        let entry = Entry { call, arguments, until, has_begun, state };
        client.calls.insert(seq, Box::new(entry));
        self.deadlines.insert((until, from, seq));
        match lane {
            None => self.ready(now, lines, from, seq),
            Some(lane) => {
                for (gone, after) in gone.into_iter().flatten() {
                    self.over(now, lines, from, gone, Some(after));
                }
                self.enter_lane(now, lines, from, lane, seq);
            }
        }
    }

    /// When an execution for which the client allows so much is over. It is counted from when the call comes: the two clocks have nothing in
    /// common but their rate, nearly.
    fn until(&self, now: Instant, micros: u64) -> Instant {
        let budget = Duration::from_micros(micros);
        if mainstay_base::fault!(self.config, SharesClock) {
            return Instant::ZERO + budget;
        }
        now + budget.min(self.config.deadline_max)
    }

    /// A refusal is remembered like a result: a copy of the call that comes later must not be taken, for the client was told that it was
    /// not executed.
    fn refuse(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        from: NodeId,
        seq: u64,
        mut call: CallHead,
        why: Refusal,
    ) {
        self.counts.refused += 1;
        call.context = Bytes::new();
        call.name = call.name.filter(|_| mainstay_base::fault!(self.config, KeepsRefusedNames));
        if let Some(order) = &mut call.order {
            order.gone = Vec::new();
        }
        let client = self.clients.entry(from).or_default();
        let is_flood = client.calls.len() >= 2 * self.config.window as usize;
        if is_flood && !mainstay_base::fault!(self.config, RemembersFloods) {
            self.counts.absurd += 1;
            return;
        }
        if !mainstay_base::fault!(self.config, ForgetsRefusals) {
            let (arguments, until, has_begun) = (Bytes::new(), Instant::ZERO, false);
            let entry = Entry { call, arguments, until, has_begun, state: State::Held };
            client.calls.insert(seq, Box::new(entry));
            self.conclude(lines, from, seq, Answer::Refused(why));
            // The next one of its lane may have come before it.
            return self.try_lanes(now, lines, from);
        }
        self.say(lines, from, Item::Refused { seq, why }, Bytes::new());
    }

    /// Why a call that is new is not taken.
    fn refusal(&self, from: NodeId, call: &CallHead, bytes: usize) -> Option<Refusal> {
        let client = self.clients.get(&from)?;
        let Some((oldest, newest)) = self.served.get(&call.procedure) else {
            return Some(Refusal::Procedure);
        };
        if !(*oldest..=*newest).contains(&call.version) {
            return Some(Refusal::Version);
        }
        if self.drain.refuses(call.procedure, &self.config) {
            return Some(Refusal::Draining);
        }
        let bytes = bytes.saturating_sub(TRACE_BYTES);
        if bytes > self.config.body_bytes_max {
            return Some(Refusal::TooLarge);
        }
        let is_full = client.calls.len() >= self.config.window as usize
            || client.bytes + bytes > self.config.client_bytes_max;
        let is_full = is_full && !mainstay_base::fault!(self.config, NeverBusy);
        is_full.then_some(Refusal::Busy)
    }

    /// Says how it is with a call that is known.
    fn answer(&mut self, lines: &mut Lines, to: NodeId, seq: u64) {
        let entry = self.clients.get(&to).and_then(|client| client.calls.get(&seq));
        match entry.map(|entry| &entry.state) {
            None => self.say(lines, to, Item::Missing { seq }, Bytes::new()),
            Some(State::Over(answer)) => {
                let answer = answer.clone();
                self.tell(lines, to, seq, answer);
            }
            Some(_) => self.say(lines, to, Item::Working { seq }, Bytes::new()),
        }
    }

    fn tell(&mut self, lines: &mut Lines, to: NodeId, seq: u64, answer: Answer) {
        match answer {
            Answer::Result(is_error, body) => {
                let len = body.len() as u32;
                self.say(lines, to, Item::Reply { seq, is_error, len }, body);
            }
            Answer::Refused(why) => {
                self.say(lines, to, Item::Refused { seq, why }, Bytes::new());
            }
        }
    }

    /// Answers a client. One that takes nothing in is not told without end: what is kept for it is told when it asks again, and what is not kept is missing then.
    fn say(&mut self, lines: &mut Lines, to: NodeId, item: Item, body: Bytes) {
        let is_said = lines.answer(to, item, body);
        self.counts.absurd += u64::from(!is_said);
    }

    pub(crate) fn on_probe(&mut self, lines: &mut Lines, from: NodeId, seq: u64) {
        let is_over = self.clients.get(&from).is_some_and(|client| client.is_over(seq));
        if !is_over {
            self.answer(lines, from, seq);
        }
    }

    /// It waits for a place among those that are executed.
    fn ready(&mut self, now: Instant, lines: &mut Lines, from: NodeId, seq: u64) {
        let life = self.clients.get(&from).map_or(0, |client| client.life);
        self.ready.calls.push_back((from, life, seq));
        if self.ready.calls.len() > 2 * self.deadlines.len() + 64 {
            // Most of them were ended while they waited.
            let clients = &self.clients;
            self.ready.calls.retain(|(of, life, seq)| {
                clients.get(of).is_some_and(|it| it.life == *life && it.holds(*seq))
            });
        }
        self.fill(now, lines);
    }

    /// Begins as many executions as there are places.
    fn fill(&mut self, now: Instant, lines: &mut Lines) {
        if std::mem::replace(&mut self.ready.is_filling, true) {
            return;
        }
        self.fill_all(now, lines);
        self.ready.is_filling = false;
    }

    fn fill_all(&mut self, now: Instant, lines: &mut Lines) {
        while self.runs.len() < self.config.executions_max {
            if let Some(loose) = self.next_loose() {
                self.begin_loose(now, lines, loose);
            } else if let Some((from, life, seq)) = self.ready.calls.pop_front() {
                let Some(client) = self.clients.get_mut(&from).filter(|it| it.life == life) else {
                    continue;
                };
                if client.orphans > 0 {
                    client.wait(seq);
                } else if client.calls.get(&seq).is_some_and(|it| it.is_held()) {
                    self.begin(now, lines, from, seq);
                }
            } else {
                return;
            }
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn begin(&mut self, now: Instant, lines: &mut Lines, from: NodeId, seq: u64) {
        if self.adopt(now, lines, from, seq) {
            return;
        }
        let ticket = self.ticket();
        let adoptable = self.name(from, seq, ticket);
        let quantum = match self.config.orphans {
            crate::Orphans::Expiration { quantum } => Some(quantum),
            _ => None,
        };
        let Some(client) = self.clients.get_mut(&from) else { return };
        let (life, floor) = (client.life, client.floor);
        let Some(entry) = client.calls.get_mut(&seq) else { return };
        let run = Run {
            client: from,
            life,
            seq,
            lane: entry.call.order.as_ref().map(|order| order.lane),
            epoch: entry.call.epoch,
            until: entry.until,
            is_ended: false,
            is_orphan: false,
            granted: quantum.map(|quantum| now + quantum),
            asks: quantum.map_or(now, |quantum| now + quantum / 2),
            adoptable,
        };
        let is_stored = self.config.stored && entry.call.semantics != Semantics::AtLeastOnce;
        (entry.state, entry.has_begun) = (State::Beginning(ticket), true);
        self.runs.insert(ticket, run);
        if is_stored && !mainstay_base::fault!(self.config, BeginsUnwritten) {
            let record = Record::Began { client: from, life, seq, floor };
            let io = self.write(lines, record);
            self.writing.push_back((io, Wrote::Begin(ticket)));
        } else {
            self.execute(now, lines, ticket);
        }
    }

    /// That it begins is stable, where that is needed: now it does.
    fn execute(&mut self, now: Instant, lines: &mut Lines, ticket: Ticket) {
        let Some(run) = self.runs.get(&ticket) else { return };
        if run.is_ended {
            // Nobody executes it, so nobody has to stop.
            return self.stopped(now, lines, ticket);
        }
        let (from, seq) = (run.client, run.seq);
        let Some(client) = self.clients.get_mut(&from) else { return };
        let Some(entry) = client.calls.get_mut(&seq) else { return };
        if entry.until <= now && !mainstay_base::fault!(self.config, BeginsLate) {
            return self.end_run(now, lines, ticket, &Answer::Refused(Refusal::Late));
        }
        entry.state = State::Running(ticket);
        let arguments = std::mem::take(&mut entry.arguments);
        let context = std::mem::take(&mut entry.call.context);
        client.bytes -= arguments.len() + context.len();
        self.counts.begun += 1;
        lines.tell(Event::Execute(Execution {
            ticket,
            client: from,
            life: client.life,
            procedure: entry.call.procedure,
            version: entry.call.version,
            semantics: entry.call.semantics,
            arguments,
            left: entry.until.saturating_since(now),
            context,
        }));
    }

    /// Calls that are held or executed, and results that are kept.
    pub(crate) fn load(&self) -> (usize, usize) {
        let kept = self.clients.values().map(|client| client.calls.len()).sum::<usize>();
        (self.runs.len(), kept)
    }
}

impl Entry {
    /// If it did not begin: the call before it in its lane.
    fn before(&self) -> Option<u64> {
        let order = self.call.order.as_ref().filter(|_| !self.has_begun);
        order.map(|order| order.after)
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    fn is_held(&self) -> bool {
        matches!(self.state, State::Held)
    }

    fn bytes(&self) -> usize {
        let of = |answer: &Answer| match answer {
            Answer::Result(_, body) => body.len(),
            Answer::Refused(_) => 0,
        };
        self.arguments.len()
            + self.call.context.len()
            + match &self.state {
                State::Ending(answer) | State::Over(answer) => of(answer),
                _ => 0,
            }
    }
}
