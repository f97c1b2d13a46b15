//! The client's half: each call has one outcome, and it is true.
//!
//! # The life of a call
//! It waits until its server is *bound*: connected, and heard of what it remembers. Then it gets its number and is sent. It is over with a
//! result, a refusal, its deadline, or the server's end. What is known of the execution then depends on its semantics ([`Executed`]).
//!
//! *Attempts.* After [`Config::retry`] without a sign the call is sent again, over datagrams as a whole, over the link as a question, since
//! the link loses nothing. A server that has it says *working*, one that has not asks for it. After [`Config::attempts`] without any sign the
//! call has failed: so as many losses in a row less one are survived (RPC-16).
//!
//! *A server's end.* A server that remembers nothing of its former life is another one: what was sent and promised to be executed not more
//! than once has failed (RPC-3); what may be executed again is sent again; what was not sent goes to the new one. A server that
//! remembers gets all open calls again, under their numbers.
//!
//! *What is over.* The server is told by a floor below which all calls are over, and one by one what is over above it. It is told with the next
//! batch, or after [`Config::acknowledge`].
//!
//! [`Executed`]: crate::Executed

mod bindings;
mod check;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mainstay_base::{Duration, Instant, NodeId, Rng};

use crate::config::TRACE_BYTES;
use crate::lines::Lines;
use crate::wire::{CallHead, Item, Order};
use crate::{
    Carrier, Config, Event, Executed, Failure, Outcome, Reason, Refusal, Request, Semantics, Ticket,
};

/// A call that is open.
#[derive(Clone, Hash, Debug)]
struct Call {
    request: Request,
    deadline: Instant,
    /// When it is looked at next: at its next attempt or its deadline.
    timer: Instant,
    state: State,
    /// An attempt under a former binding may have been executed.
    may_have_begun: bool,
}

#[derive(Clone, Hash, Debug)]
enum State {
    /// It was not sent.
    Waits,
    Sent {
        seq: u64,
        /// The call before it in its lane.
        after: u64,
        attempts: u32,
        /// The server has it.
        is_known: bool,
    },
}

/// What is remembered of a server.
#[derive(Clone, Hash, Debug, Default)]
struct Binding {
    /// Names what the server remembers; 0: it was not heard.
    memory: u64,
    /// The server remembers over a restart.
    is_kept: bool,
    /// It is connected, and was heard since.
    is_bound: bool,
    window: usize,
    /// The number of the last call.
    last: u64,
    /// Those that were sent, by their numbers.
    sent: BTreeMap<u64, u64>,
    /// Those that were not, in the order of the commands.
    waits: BTreeSet<u64>,
    lanes: BTreeMap<u32, Lane>,
    /// Those that were given up in a lane, and the lane.
    gone: BTreeSet<(u64, u32)>,
    /// Calls that are over, of which the server has not been told.
    is_owed: Option<Instant>,
}

/// The calls of one caller to one server.
#[derive(Clone, Hash, Debug, Default)]
struct Lane {
    /// Those that were sent and are open.
    sent: BTreeSet<u64>,
    /// Those that wait.
    waits: usize,
    /// Those that were given up, and that the server may not know to be over.
    gone: Vec<(u64, u64)>,
}

/// With so many given up, over datagrams, a lane waits until the server knows.
const GONE_MAX: usize = 64;

/// The client's half of the service.
#[derive(Clone)]
pub(crate) struct Calls {
    config: Config,
    me: NodeId,
    open: BTreeMap<u64, Box<Call>>,
    /// The tokens of callers.
    tokens: BTreeMap<u64, u64>,
    servers: BTreeMap<NodeId, Binding>,
    timers: BTreeSet<(Instant, u64)>,
    /// Calls that executions made.
    children: BTreeMap<Ticket, BTreeSet<u64>>,
    commands: u64,
    pub(crate) epoch: u64,
    rng: Rng,
}

impl Calls {
    pub(crate) fn new(config: Config, me: NodeId, seed: u64) -> Self {
        Self {
            config,
            me,
            open: BTreeMap::new(),
            tokens: BTreeMap::new(),
            servers: BTreeMap::new(),
            timers: BTreeSet::new(),
            children: BTreeMap::new(),
            commands: 0,
            epoch: 0,
            rng: Rng::new(seed).stream("calls"),
        }
    }

    /// Somebody calls. `parent` is the deadline of the execution that does, if one does and it goes on.
    pub(crate) fn call(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        mut request: Request,
        parent: Result<Option<Instant>, ()>,
    ) {
        let deadline = now + request.deadline.min(self.config.deadline_max);
        let deadline = match parent {
            // A nested call has no more time than is left to its parent (RPC-70).
            Ok(Some(parent)) if !mainstay_base::fault!(self.config, NestsBeyond) => {
                deadline.min(parent)
            }
            _ => deadline,
        };
        let refusal = if parent.is_err() {
            Some(Reason::Orphan)
        } else if request.server == self.me {
            Some(Reason::ToSelf)
        } else if request.arguments.len() + request.context.len()
            > self.config.body_bytes_max + TRACE_BYTES
        {
            Some(Reason::TooLarge)
        } else if self.open.len() >= self.config.calls_max
            && !mainstay_base::fault!(self.config, NeverFull)
        {
            Some(Reason::Full)
        } else if self.config.budget(deadline.saturating_since(now)).is_none() {
            Some(Reason::TooLate)
        } else {
            None
        };
        if let Some(reason) = refusal {
            let outcome = Outcome::Failed(Failure::not_at_all(reason));
            return lines.tell(Event::Over { token: request.token, outcome });
        }
        request.deadline = deadline.saturating_since(now);
        self.commands += 1;
        let (id, server) = (self.commands, request.server);
        if let Some(parent) = request.parent {
            self.children.entry(parent).or_default().insert(id);
        }
        self.tokens.insert(request.token, id);
        self.timers.insert((deadline, id));
        let binding = self.servers.entry(server).or_default();
        binding.waits.insert(id);
        if let Some(lane) = request.lane {
            binding.lanes.entry(lane).or_default().waits += 1;
        }
        let (timer, state) = (deadline, State::Waits);
        let call = Call { request, deadline, timer, state, may_have_begun: false };
        self.open.insert(id, Box::new(call));
        self.issue(now, lines, server);
    }

    /// Sends what waits, as far as the server takes it.
    fn issue(&mut self, now: Instant, lines: &mut Lines, server: NodeId) {
        let mut held = BTreeSet::new();
        let mut from = 0;
        loop {
            let Some(binding) = self.servers.get_mut(&server) else { return };
            // What the link does not take waits here, where its deadline ends it.
            let is_open = binding.is_bound && lines.is_open(server);
            if !is_open || binding.sent.len() >= binding.window {
                return;
            }
            let Some(id) = binding.waits.range(from..).next().copied() else { return };
            from = id + 1;
            let Some(call) = self.open.get(&id) else { continue };
            let Request { semantics, lane, .. } = &call.request;
            let Some(budget) = self.config.budget(call.deadline.saturating_since(now)) else {
                // Too little is left for the server: it ends here, not sent.
                continue;
            };
            if *semantics == Semantics::Maybe {
                self.cast(lines, id, budget);
                continue;
            }
            let (lane, floor) = (*lane, binding.floor());
            if let Some((name, it)) = lane.and_then(|it| Some((it, binding.lanes.get_mut(&it)?))) {
                it.gone.retain(|(seq, _)| *seq >= floor);
                if held.contains(&name) || it.gone.len() >= GONE_MAX {
                    held.insert(name);
                    continue;
                }
                it.waits -= 1;
            }
            binding.waits.remove(&id);
            binding.last += 1;
            let seq = binding.last;
            binding.sent.insert(seq, id);
            let lane = lane.and_then(|lane| binding.lanes.get_mut(&lane));
            let after = lane.map_or(0, |lane| {
                let after = lane.sent.last().copied().unwrap_or(0);
                lane.sent.insert(seq);
                after
            });
            self.send(now, lines, id, seq, after, 0);
        }
    }

    /// What a server is told that it may take.
    fn said(config: &Config, deadline: Instant, budget: Duration) -> u64 {
        let said = match mainstay_base::fault!(config, SharesClock) {
            true => deadline.saturating_since(Instant::ZERO),
            false => budget,
        };
        u64::try_from(said.as_micros()).unwrap_or(u64::MAX)
    }

    fn cast(&mut self, lines: &mut Lines, id: u64, budget: Duration) {
        let Some(call) = self.close(id) else { return };
        let Request { procedure, version, arguments, token, server, context, .. } = call.request;
        let (budget, len) =
            (Self::said(&self.config, call.deadline, budget), arguments.len() as u32);
        lines.say_surely(
            server,
            Item::Cast { procedure, version, budget, context, len },
            arguments,
        );
        lines.tell(Event::Over { token, outcome: Outcome::Done(Bytes::new()) });
    }

    /// Sends a call, for the first time or again.
    fn send(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        id: u64,
        seq: u64,
        after: u64,
        attempts: u32,
    ) {
        let draw = self.rng.below(1 << 16);
        let Some(call) = self.open.get_mut(&id) else { return };
        let Request { procedure, version, semantics, server, lane, .. } = call.request;
        let Some(budget) = self.config.budget(call.deadline.saturating_since(now)) else {
            // Too little is left for the server: the deadline decides.
            return;
        };
        let budget = Self::said(&self.config, call.deadline, budget);
        let next = now + self.config.backoff(attempts, draw);
        let keeps_nothing = semantics == Semantics::AtLeastOnce;
        call.may_have_begun |= keeps_nothing && !matches!(call.state, State::Waits);
        // The network itself may double it, and the server does not know whether it has executed one.
        call.may_have_begun |= keeps_nothing && self.config.carrier == Carrier::Datagrams;
        call.watch(&mut self.timers, id, next);
        call.state = State::Sent { seq, after, attempts, is_known: false };
        let binding = self.servers.entry(server).or_default();
        let lane = lane.and_then(|lane| Some((lane, binding.lanes.get(&lane)?)));
        let floor = binding.floor();
        let gone = |it: &Lane| it.gone.iter().copied().filter(|(seq, _)| *seq >= floor).collect();
        let order = lane.map(|(lane, it)| Order { lane, after, gone: gone(it) });
        let head = CallHead {
            procedure,
            version,
            semantics,
            budget,
            epoch: self.epoch,
            order,
            context: call.request.context.clone(),
            name: call.request.name.clone(),
        };
        let mut arguments = call.request.arguments.clone();
        if mainstay_base::fault!(self.config, CutsArguments) {
            arguments.truncate(arguments.len().saturating_sub(1));
        }
        let len = arguments.len() as u32;
        self.speak(lines, server);
        lines.say(server, Item::Call { seq, call: head, len }, arguments);
    }

    /// What the next batch says of calls that are over.
    fn speak(&mut self, lines: &mut Lines, server: NodeId) {
        let Some(binding) = self.servers.get_mut(&server) else { return };
        let head = &mut lines.line(server).head;
        head.bound = binding.memory;
        let floor = binding.floor();
        binding.pass(floor);
        head.floor = floor;
        head.over.retain(|seq| *seq >= floor);
        binding.is_owed = None;
    }

    /// A call is over, in one way or the other. The call, once.
    fn close(&mut self, id: u64) -> Option<Box<Call>> {
        let call = self.open.remove(&id)?;
        self.timers.remove(&(call.timer, id));
        self.tokens.remove(&call.request.token);
        if let Some(parent) = call.request.parent
            && let Some(children) = self.children.get_mut(&parent)
        {
            children.remove(&id);
            if children.is_empty() {
                self.children.remove(&parent);
            }
        }
        let Some(binding) = self.servers.get_mut(&call.request.server) else { return Some(call) };
        match call.state {
            State::Waits => drop(binding.waits.remove(&id)),
            State::Sent { seq, .. } => drop(binding.sent.remove(&seq)),
        }
        if let Some(name) = call.request.lane
            && let Some(lane) = binding.lanes.get_mut(&name)
        {
            match call.state {
                State::Waits => lane.waits -= 1,
                State::Sent { seq, .. } => drop(lane.sent.remove(&seq)),
            }
            binding.tidy(name);
        }
        if binding.is_unknown() {
            self.servers.remove(&call.request.server);
        }
        Some(call)
    }

    /// The server is told that a call is over, soon.
    fn owe(&mut self, now: Instant, lines: &mut Lines, server: NodeId, seq: u64) {
        let Some(binding) = self.servers.get(&server) else { return };
        if seq >= binding.floor() {
            lines.line(server).head.over.push(seq);
        }
        if mainstay_base::fault!(self.config, AcksEach) {
            self.speak(lines, server);
            return lines.nod(server);
        }
        self.nudge(now, server);
    }

    /// The server hears soon that the floor has risen.
    fn nudge(&mut self, now: Instant, server: NodeId) {
        let after = self.config.acknowledge;
        if let Some(binding) = self.servers.get_mut(&server) {
            binding.is_owed.get_or_insert(now + after);
        }
    }

    /// The server has an answer.
    pub(crate) fn on_answer(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        server: NodeId,
        seq: u64,
        answer: Result<(bool, Bytes), Refusal>,
    ) {
        let Some(binding) = self.servers.get(&server) else { return };
        // Not of a call that is over: then it came twice, or too late.
        let Some(id) = binding.sent.get(&seq).copied() else { return };
        let Some(call) = self.close(id) else { return };
        let semantics = call.request.semantics;
        let outcome = match answer {
            Ok((false, value)) => Outcome::Done(value),
            Ok((true, error)) => Outcome::Remote(error),
            Err(why) => {
                let executed = match why.executed(semantics) {
                    Executed::NotAtAll if call.may_have_begun => semantics.unknown(),
                    executed => executed,
                };
                Outcome::Failed(Failure { executed, reason: Reason::Refused(why) })
            }
        };
        self.owe(now, lines, server, seq);
        self.settle(server, call.request.lane, seq);
        if mainstay_base::fault!(self.config, TellsTwice) {
            let outcome = outcome.clone();
            lines.tell(Event::Over { token: call.request.token, outcome });
        }
        lines.tell(Event::Over { token: call.request.token, outcome });
        self.issue(now, lines, server);
    }

    /// A call of a lane was answered: those before it that were given up are over at the server.
    fn settle(&mut self, server: NodeId, lane: Option<u32>, seq: u64) {
        let Some(binding) = self.servers.get_mut(&server) else { return };
        let Some(name) = lane else { return };
        let Some(lane) = binding.lanes.get_mut(&name) else { return };
        lane.gone.retain(|(gone, _)| *gone > seq);
        binding.tidy(name);
    }

    /// The server has the call, or asks for it.
    pub(crate) fn on_sign(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        server: NodeId,
        seq: u64,
        is_working: bool,
    ) {
        let id = self.servers.get(&server).and_then(|it| it.sent.get(&seq).copied());
        let Some((id, call)) = id.and_then(|id| Some((id, self.open.get_mut(&id)?))) else {
            return;
        };
        let State::Sent { after, attempts, is_known, .. } = &mut call.state else { return };
        if is_working {
            (*is_known, *attempts) = (true, 0);
        } else if lines.is_open(server) && !lines.is_behind(server) {
            // It was lost on its way, or the server does not keep such calls. What the link does not take now is asked for again.
            call.may_have_begun |= *is_known;
            let after = *after;
            self.send(now, lines, id, seq, after, 0);
        }
    }

    /// A call has failed, or is wanted no more.
    fn fail(&mut self, now: Instant, lines: &mut Lines, id: u64, reason: Reason) {
        let Some(call) = self.close(id) else { return };
        let Request { server, semantics, lane, token, ref arguments, .. } = call.request;
        if mainstay_base::fault!(self.config, AnswersItself) && arguments.len() >= 8 {
            let outcome = Outcome::Done(arguments.slice(..8));
            return lines.tell(Event::Over { token, outcome });
        }
        let mut executed = semantics.unknown();
        match call.state {
            State::Waits if !call.may_have_begun => executed = Executed::NotAtAll,
            State::Waits => {}
            State::Sent { seq, after, .. } => {
                self.give_up(lines, server, (seq, after), lane);
                self.nudge(now, server);
            }
        }
        lines.tell(Event::Over { token, outcome: Outcome::Failed(Failure { executed, reason }) });
        self.issue(now, lines, server);
    }

    /// The server is to end it, and nothing of it may take effect after a later call of its lane.
    fn give_up(
        &mut self,
        lines: &mut Lines,
        server: NodeId,
        (seq, after): (u64, u64),
        lane: Option<u32>,
    ) {
        self.speak(lines, server);
        lines.say_surely(server, Item::Cancel { seq, after }, Bytes::new());
        let Some(binding) = self.servers.get_mut(&server) else { return };
        let Some(name) = lane else { return };
        // Over the link the word arrives before a later call does.
        let is_told = self.config.carrier == Carrier::Link;
        if !is_told && !mainstay_base::fault!(self.config, ForgetsGivenUp) {
            binding.lanes.entry(name).or_default().gone.push((seq, after));
            binding.gone.insert((seq, name));
        }
    }

    /// A call is taken back.
    pub(crate) fn cancel(&mut self, now: Instant, lines: &mut Lines, token: u64) {
        if let Some(id) = self.tokens.get(&token).copied() {
            self.fail(now, lines, id, Reason::Cancelled);
        }
    }

    /// An execution was ended: the calls that it made are taken back (RPC-23).
    pub(crate) fn orphan(&mut self, now: Instant, lines: &mut Lines, parent: Ticket) {
        if mainstay_base::fault!(self.config, SparesChildren) {
            return;
        }
        for id in self.children.remove(&parent).unwrap_or_default() {
            self.fail(now, lines, id, Reason::Orphan);
        }
    }

    /// The link takes messages to this server again.
    pub(crate) fn on_room(&mut self, now: Instant, lines: &mut Lines, server: NodeId) {
        self.issue(now, lines, server);
    }

    /// Deadlines, attempts and acknowledgements that are due.
    pub(crate) fn on_time(&mut self, now: Instant, lines: &mut Lines) {
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            let Some(call) = self.open.get_mut(&id) else {
                self.timers.remove(&(at, id));
                continue;
            };
            if call.deadline <= now {
                self.fail(now, lines, id, Reason::Deadline);
            } else {
                call.watch(&mut self.timers, id, call.deadline);
                self.attempt(now, lines, id);
            }
        }
        let owes = self.servers.iter().filter(|(_, it)| it.is_owed.is_some_and(|at| at <= now));
        let owes: Vec<NodeId> = owes.map(|(server, _)| *server).collect();
        for server in owes {
            self.speak(lines, server);
            lines.nod(server);
        }
    }

    /// There was no sign of a call for a while.
    fn attempt(&mut self, now: Instant, lines: &mut Lines, id: u64) {
        let draw = self.rng.below(1 << 16);
        let Some(call) = self.open.get_mut(&id) else { return };
        let server = call.request.server;
        let State::Sent { seq, after, attempts, .. } = &mut call.state else { return };
        let (seq, after) = (*seq, *after);
        let is_bound = self.servers.get(&server).is_some_and(|it| it.is_bound);
        if !is_bound || !lines.is_open(server) {
            // The link has it, and brings it when it can.
            call.watch(&mut self.timers, id, now + self.config.retry);
            return;
        }
        *attempts += 1;
        if *attempts >= self.config.attempts {
            return self.fail(now, lines, id, Reason::Unreachable);
        }
        let attempts = *attempts;
        if self.config.carrier == Carrier::Datagrams {
            self.open(lines, server);
        }
        let Some(call) = self.open.get_mut(&id) else { return };
        let State::Sent { is_known, .. } = &call.state else { return };
        let asks_once = mainstay_base::fault!(self.config, AsksOnce);
        let is_lost = self.config.carrier == Carrier::Datagrams && !*is_known;
        if is_lost && !asks_once {
            return self.send(now, lines, id, seq, after, attempts);
        }
        call.watch(&mut self.timers, id, now + self.config.backoff(attempts, draw));
        if !asks_once {
            lines.say(server, Item::Probe { seq }, Bytes::new());
        }
    }

    /// When something is due.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let owed = self.servers.values().filter_map(|it| it.is_owed);
        timer.into_iter().chain(owed).min()
    }

    /// Calls that are open.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Servers of which calls may be executed.
    pub(crate) fn is_pending(&self, server: NodeId, seq: u64) -> bool {
        self.servers.get(&server).is_some_and(|it| it.sent.contains_key(&seq))
    }

    pub(crate) fn memory(&self, server: NodeId) -> u64 {
        self.servers.get(&server).map_or(0, |it| it.memory)
    }
}

impl Call {
    /// It is looked at again then, or at its deadline.
    fn watch(&mut self, timers: &mut BTreeSet<(Instant, u64)>, id: u64, at: Instant) {
        timers.remove(&(self.timer, id));
        self.timer = at.min(self.deadline);
        timers.insert((self.timer, id));
    }
}
