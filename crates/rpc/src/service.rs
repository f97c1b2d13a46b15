//! The service of calls: both halves over the same lines.

use std::hash::Hash as _;

use bytes::Bytes;
use mainstay_base::service::{
    Class, In, Io, Logged, Never, Out, Outbox, PeerChange, Service, Start,
};
use mainstay_base::{
    BootId, Channel, Duration, Fingerprint, Fingerprinter, Instant, Machine, NodeId, Rng,
};

use crate::calls::Calls;
use crate::lines::Lines;
use crate::orphans::Watch;
use crate::server::{Answer, Counts, Loose, Past, Record, Server};
use crate::wire::{CallName, Head, Item, Message, ProcedureId};
use crate::{Config, Failure, Orphans, Reason, Refusal, Semantics};

/// A call that somebody wants.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Request {
    /// Comes back with the outcome. No two open calls of the service have the same.
    pub token: u64,
    /// The node.
    pub server: NodeId,
    /// What is called.
    pub procedure: ProcedureId,
    /// Which version of it.
    pub version: u16,
    /// What is promised.
    pub semantics: Semantics,
    /// The arguments.
    pub arguments: Bytes,
    /// The outcome is known after so long at the latest.
    pub deadline: Duration,
    /// Calls of a lane are executed one after the other, in the order of the commands. `None`: the call works on data of its own.
    pub lane: Option<u32>,
    /// The execution that calls. Its calls are taken back when it is ended.
    pub parent: Option<Ticket>,
    /// With a parent whose call has a name: the number of this call among those of the parent, from 1, calls to the own node counted as well. If an execution at the
    /// own node calls, that one's numbers come first. A name follows from them; without them there is none.
    pub numbers: Vec<u64>,
    /// Bytes that are handed to whoever executes: a trace context for instance.
    pub context: Bytes,
    /// Where orphans are adopted ([`Orphans::Adoption`]): whoever calls by the same name has the result of the same execution. What an execution with a
    /// name calls has a name that follows from it. Elsewhere it means nothing.
    pub name: Option<Box<CallName>>,
}

/// What others of the node want of the service of calls.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Command {
    /// A call. Each has one [`Event::Over`].
    Call(Request),
    /// A call is not wanted any more: if it is open, it is over now.
    Cancel {
        /// Its token.
        token: u64,
    },
    /// A procedure is executed here, from now on.
    Serve {
        /// Which.
        procedure: ProcedureId,
        /// Its oldest version, and its newest one.
        versions: (u16, u16),
    },
    /// A procedure is not executed here any more.
    Withdraw {
        /// Which.
        procedure: ProcedureId,
    },
    /// An execution has a result, or was [stopped](Event::Stop).
    Finished {
        /// Which.
        ticket: Ticket,
        /// What came of it.
        result: Finish,
    },
    /// No call is taken any more; [`Event::Drained`] when those that were are over.
    Drain,
    /// The same at once: what has not begun is refused, and what is executed is ended.
    Close,
}

/// What came of an execution.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Finish {
    /// A value.
    Value(Bytes),
    /// An error of the procedure.
    Error(Bytes),
    /// The bytes are no arguments of the procedure: it was not executed.
    BadArguments,
    /// Nothing serves the procedure any more: it was not executed.
    NotServed,
    /// It is not admitted, and was not executed.
    Denied,
    /// Whatever executes it has failed or is gone, or was stopped.
    Failed,
}

/// Names an execution, in one life of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// A procedure is to be executed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Execution {
    /// Names it.
    pub ticket: Ticket,
    /// Who calls.
    pub client: NodeId,
    /// In which life.
    pub life: u64,
    /// Which procedure.
    pub procedure: ProcedureId,
    /// Which version of it.
    pub version: u16,
    /// What the caller was promised. For [`Semantics::AtMostOnce`] the effect must be whole or none.
    pub semantics: Semantics,
    /// The arguments.
    pub arguments: Bytes,
    /// It is stopped after so long.
    pub left: Duration,
    /// As in [`Request::context`].
    pub context: Bytes,
}

/// How a call ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// With a value; one of [`Semantics::Maybe`] was sent.
    Done(Bytes),
    /// With an error of the procedure, which was executed.
    Remote(Bytes),
    /// Without a result.
    Failed(Failure),
}

/// What the service of calls tells.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A call is over (RPC-9: once for each).
    Over {
        /// Its token.
        token: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// Somebody calls: the execution ends with [`Command::Finished`].
    Execute(Execution),
    /// An execution has to stop as soon as it can, and to have no effect from here on. It ends with [`Command::Finished`] as well: until then what
    /// must not run beside it waits. A ticket that is not known was never executed.
    Stop {
        /// Which.
        ticket: Ticket,
    },
    /// A server is connected and was heard: what waits for it is sent.
    Bound {
        /// Which node.
        server: NodeId,
    },
    /// A server is gone, and with it all that it executed, unless it stores results and comes back.
    Lost {
        /// Which node.
        server: NodeId,
    },
    /// After [`Command::Drain`]: nothing is executed any more.
    Drained,
}

/// How a service of calls is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The crash count.
    pub life: u64,
    /// Calls of this node that are open.
    pub open: usize,
    /// Executions for others.
    pub executing: usize,
    /// Calls of others that are held, executed, or whose answer is kept.
    pub kept: usize,
    /// Clients of which something is remembered.
    pub clients: usize,
    /// What was done for others.
    pub served: Counts,
    /// Messages that were sent (RPC-61).
    pub sent: u64,
    /// As in [`Config::body_bytes_max`].
    pub body_bytes_max: usize,
    /// How long results are kept by the names of their calls, where [orphans are adopted](Orphans::Adoption).
    pub keep: Option<Duration>,
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    pub fault: Option<crate::fault::Fault>,
}

/// The service of calls of a node: a client of the others, and a server for them.
#[derive(Clone)]
pub struct Rpc {
    life: u64,
    lines: Lines,
    calls: Calls,
    server: Server,
    watch: Watch,
    is_draining: bool,
    due: Option<Instant>,
    config: Config,
}

impl Rpc {
    fn call(&mut self, now: Instant, mut request: Request) {
        let is_adopting = matches!(self.config.orphans, Orphans::Adoption { .. });
        request.name = request.name.filter(|_| is_adopting);
        let parent = match request.parent {
            None => Ok(None),
            Some(ticket) => {
                let run = self.server.runs.get(&ticket).filter(|run| !run.is_ended);
                let until = run.as_ref().map(|run| Some(run.until)).ok_or(());
                let adoptable = run.and_then(|run| run.adoptable.as_ref());
                let mut numbers = std::mem::take(&mut request.numbers);
                if let Some(adoptable) = adoptable.filter(|_| !numbers.is_empty()) {
                    if mainstay_base::fault!(self.config, NumbersAnew) {
                        numbers[0] += ticket.0;
                    }
                    let Some(name) = adoptable.name.nested(&numbers) else {
                        let outcome = Outcome::Failed(Failure::not_at_all(Reason::TooDeep));
                        let token = request.token;
                        return self.lines.tell(Event::Over { token, outcome });
                    };
                    request.name = Some(Box::new(name));
                }
                until
            }
        };
        self.calls.call(now, &mut self.lines, request, parent);
    }

    fn on_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Call(request) => self.call(now, request),
            Command::Cancel { token } => self.calls.cancel(now, &mut self.lines, token),
            Command::Serve { procedure, versions } => self.server.serve(procedure, versions),
            Command::Withdraw { procedure } => self.server.withdraw(procedure),
            Command::Finished { ticket, result } => {
                let answer = match result {
                    Finish::Value(body) => Answer::Result(false, body),
                    Finish::Error(body) => Answer::Result(true, body),
                    Finish::BadArguments => Answer::Refused(Refusal::Arguments),
                    Finish::NotServed => Answer::Refused(Refusal::Procedure),
                    Finish::Denied => Answer::Refused(Refusal::Denied),
                    Finish::Failed => Answer::Refused(Refusal::Handler),
                };
                self.server.on_finished(now, &mut self.lines, ticket, answer);
            }
            Command::Drain => {
                self.server.drain();
                self.is_draining = true;
            }
            Command::Close => {
                self.server.close(now, &mut self.lines);
                self.is_draining = true;
            }
        }
    }

    fn on_peer(&mut self, now: Instant, change: PeerChange) {
        match change {
            PeerChange::Up { boot } => {
                let memory = self.server.meet(now, &mut self.lines, boot.node);
                let line = self.lines.line(boot.node);
                (line.boot, line.is_up, line.head.memory) = (Some(boot), true, memory);
                let hello = Item::Hello {
                    kept: self.config.stored,
                    window: self.config.window,
                    epoch: self.watch.epoch(),
                };
                self.lines.say_first(boot.node, hello);
            }
            PeerChange::Down { boot } => {
                self.lines.line(boot.node).is_up = false;
                self.calls.on_down(boot.node);
            }
            PeerChange::Ended { boot } => {
                // Its boot lives on, and what is stored may be asked for by the next instance there.
                if self.on_gone(now, boot, None) && !self.config.stored {
                    self.forget(now, boot.node);
                }
            }
            PeerChange::Replaced { old, new } => {
                if self.on_gone(now, old, new) {
                    self.server.on_dead(now, &mut self.lines, old.node);
                    if new.is_none() {
                        self.forget(now, old.node);
                    }
                }
            }
        }
    }

    /// Whether the server's half, the client's half and the way there know a node.
    #[cfg(test)]
    pub(crate) fn knows(&self, node: NodeId) -> (bool, bool, bool) {
        (self.server.clients.contains_key(&node), self.calls.knows(node), self.lines.knows(node))
    }

    /// The other end is gone. It may be a guest, and there may be any number of them in time: nothing is kept. Whoever comes back says hello as if it
    /// had never been here.
    fn forget(&mut self, now: Instant, node: NodeId) {
        self.server.on_dead(now, &mut self.lines, node);
        self.server.forget(node);
        self.calls.forget(node);
        self.lines.remove(node);
    }

    /// What was on its way to a boot or from it is void. False: another boot of its node is known.
    fn on_gone(&mut self, now: Instant, old: BootId, new: Option<BootId>) -> bool {
        let node = old.node;
        let line = self.lines.line(node);
        if line.boot.is_some_and(|boot| boot != old) {
            return false;
        }
        (line.boot, line.is_up) = (new, false);
        self.lines.forget(node);
        self.calls.on_gone(now, &mut self.lines, node);
        self.lines.tell(Event::Lost { server: node });
        true
    }

    fn receive(&mut self, now: Instant, from: NodeId, message: Message) {
        let (head, items) = message.into_items();
        let is_hello = |item: &Item| matches!(item, Item::Hello { .. });
        let mut items = items.peekable();
        if items.peek().is_some_and(|(item, _)| is_hello(item)) {
            self.server.on_hello(now, &mut self.lines, from, head.life);
        } else if !self.server.on_life(now, from, head.life) {
            // A dead client is owed nothing, and what a dead server says is of no interest.
            return;
        }
        self.lines.line(from).head.answers = head.life;
        let is_bound = self.server.is_memory_of(from, head.bound)
            || mainstay_base::fault!(self.config, BelievesAnyBinding);
        if is_bound && !mainstay_base::fault!(self.config, KeepsResults) {
            self.server.on_over(now, &mut self.lines, from, head.floor, &head.over);
        }
        for (item, body) in items {
            self.on_item(now, from, &head, is_bound, item, body);
        }
    }

    fn on_item(
        &mut self,
        now: Instant,
        from: NodeId,
        head: &Head,
        is_bound: bool,
        item: Item,
        body: Bytes,
    ) {
        // Of the server's half there: it answers this life, and is the one that the calls were bound to.
        let is_answer = (head.answers == self.life
            || mainstay_base::fault!(self.config, MatchesByNumber))
            && head.memory == self.calls.memory(from);
        let (lines, server, calls) = (&mut self.lines, &mut self.server, &mut self.calls);
        match item {
            Item::Hello { kept, window, epoch } => {
                self.watch.on_hello(lines, from, epoch);
                calls.on_bound(now, lines, from, head.memory, (kept, window));
                lines.tell(Event::Bound { server: from });
            }
            Item::Call { seq, call, .. } if is_bound => {
                server.on_call(now, lines, from, (seq, self.watch.epoch()), call, body);
            }
            Item::Cast { procedure, version, budget, context, .. } => {
                let loose = Loose::new(from, (procedure, version, budget), body, context);
                server.on_cast(now, lines, loose);
            }
            Item::Probe { seq } if is_bound && lines.is_open(from) => {
                server.on_probe(lines, from, seq);
            }
            Item::Cancel { seq, after } if is_bound => {
                server.over(now, lines, from, seq, Some(after));
            }
            Item::Open { next, open } if is_bound => server.on_open(now, lines, from, next, &open),
            Item::Grant { seq } if is_bound => self.watch.on_grant(now, server, from, seq),
            Item::Reply { seq, is_error, .. } if is_answer => {
                calls.on_answer(now, lines, from, seq, Ok((is_error, body)));
            }
            Item::Refused { seq, why } if is_answer => {
                calls.on_answer(now, lines, from, seq, Err(why));
            }
            Item::Working { seq } if is_answer => calls.on_sign(now, lines, from, seq, true),
            Item::Missing { seq } if is_answer => calls.on_sign(now, lines, from, seq, false),
            Item::More { seq } if is_answer => Watch::on_more(lines, calls, from, seq),
            Item::Check { life } if life == self.life => {
                lines.say_surely(from, Item::Alive, Bytes::new())
            }
            Item::Alive => self.watch.on_alive(from),
            Item::Epoch { epoch } => self.watch.on_epoch(now, lines, server, epoch),
            _ => self.server.counts.dropped += 1,
        }
    }

    fn on_written(&mut self, now: Instant, io: Io) {
        self.lines.written(io);
        self.server.on_written(now, &mut self.lines, io);
        self.server.rewritten(io);
    }

    fn compact(&mut self, upto: Io) {
        let own = Record::Life { life: self.life, memory: self.server.memory };
        self.server.compact(&mut self.lines, upto, own);
    }
}

impl Machine for Rpc {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, now: Instant, input: In<Self>) {
        match input {
            In::Command(command) => self.on_command(now, command),
            In::Message { from, message, .. } => self.receive(now, from.node, message),
            In::Datagram { from, message, .. } => self.receive(now, from, message),
            In::Peer(change) => self.on_peer(now, change),
            In::Full { to, message } => self.lines.full(to, message),
            In::Room { to } => {
                self.lines.room(to);
                self.calls.on_room(now, &mut self.lines, to.node);
            }
            In::Written(io) => self.on_written(now, io),
            In::Compact { upto } => self.compact(upto),
            _ => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.server.on_time(now, &mut self.lines);
        self.calls.on_time(now, &mut self.lines);
        self.watch.on_time(now, &mut self.lines, &mut self.server);
    }

    fn end_turn(&mut self, now: Instant) {
        // Deadlines go before what came later in the same turn.
        if self.due.is_some_and(|due| due <= now) {
            self.handle_timeout(now);
        }
        for ticket in std::mem::take(&mut self.server.ended) {
            self.calls.orphan(now, &mut self.lines, ticket);
        }
        self.calls.epoch = self.watch.epoch();
        if self.server.rewrite(&mut self.lines) {
            self.lines.again();
        }
        if self.is_draining && self.server.is_idle(&self.lines) {
            self.is_draining = false;
            self.lines.tell(Event::Drained);
        }
        self.lines.flush();
        let watch = self.watch.timeout(now, &self.server);
        let halves = self.server.timeout().into_iter().chain(self.calls.timeout());
        self.due = halves.chain(watch).min();
    }

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.lines.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

impl Fingerprint for Rpc {
    fn fingerprint(&self, into: &mut Fingerprinter) {
        (self.life, self.is_draining).hash(into);
        self.lines.fingerprint(into);
        self.calls.fingerprint(into);
        self.server.fingerprint(into);
        self.watch.fingerprint(into);
    }
}

impl Service for Rpc {
    const CHANNEL: Channel = Channel(0x0041);
    const NAME: &'static str = "rpc";
    const CLASS: Class = Class::Calls;
    type Message = Message;
    type Record = Record;
    type Command = Command;
    type Event = Event;
    type Job = Never;
    type Done = Never;
    type Past = Past;
    type Config = Config;
    type Status = Status;

    /// The two ends find orphans in the same way, and keep results by names for as long.
    fn agreed(config: &Config) -> u128 {
        let keep = config.orphans.keep().map_or(0, |keep| keep.as_nanos());
        keep << 16
            | u128::from(matches!(config.carrier, crate::Carrier::Datagrams)) << 8
            | u128::from(config.orphans.number())
    }

    fn fold(past: &mut Past, logged: Logged<Record>) {
        past.fold(logged);
    }

    /// # Panics
    /// If the configuration was not [checked](Config::check) and does not hold.
    fn recover(config: Config, start: Start<Past>) -> Self {
        config.check().expect("the configuration was checked");
        let Start { me, past, seed, .. } = start;
        let (mut life, mut memory) = (config.life, Rng::new(seed).stream("memory").next_u64() | 1);
        if config.stored {
            life = life.max(past.life.saturating_add(1));
            if past.memory != 0 {
                memory = past.memory;
            }
        }
        let mut lines = Lines::new(Outbox::new(past.last), config.carrier, life, memory);
        let watch = Watch::new(config.clone());
        let mut server = Server::new(config.clone(), memory, seed, past);
        if config.stored {
            let io = server.write(&mut lines, Record::Life { life, memory });
            lines.mute_until(io);
        }
        let calls = Calls::new(config.clone(), me.node, seed);
        Self { life, lines, calls, server, watch, is_draining: false, due: None, config }
    }

    fn work(job: Never) -> Never {
        match job {}
    }

    fn keeps(&self) -> Io {
        self.server.keeps()
    }

    fn status(&self) -> Status {
        let (executing, kept) = self.server.load();
        Status {
            life: self.life,
            open: self.calls.len(),
            executing,
            kept,
            clients: self.server.clients.len(),
            served: self.server.counts,
            sent: self.lines.sent,
            body_bytes_max: self.config.body_bytes_max,
            keep: self.config.orphans.keep(),
            #[cfg(feature = "test-util")]
            fault: self.config.fault,
        }
    }

    fn check_invariants(&self) {
        self.calls.check();
        self.server.check();
    }
}
