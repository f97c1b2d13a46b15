//! The service of calls: both halves over the same lines.

use std::hash::Hash as _;

use bytes::Bytes;
use mainstay_base::service::{
    Class, In, Io, Logged, Never, Out, Outbox, PeerChange, Service, Start,
};
use mainstay_base::{BootId, Channel, Fingerprint, Fingerprinter, Instant, Machine, NodeId, Rng};

use crate::calls::Calls;
use crate::lines::Lines;
use crate::notices::Notices;
use crate::orphans::Watch;
use crate::server::{Answer, Loose, Past, Record, Server};
use crate::wire::{Head, Item, Message, ProcedureId};
use crate::{
    Command, Config, Event, Failure, Finish, Orphans, Outcome, Parting, Reason, Refusal, Request,
    Status,
};

/// Which words two ends have. Those with others do not hear each other. 1: with those of watches, and contexts with a trace.
const WORDS: u128 = 1;

/// What came from a node, and how that stands to this one.
struct Heard {
    head: Head,
    /// The calls are bound to what this server remembers.
    is_bound: bool,
    /// It has not taken in what it was told before.
    is_behind: bool,
}

/// The service of calls of a node: a client of the others, and a server for them.
#[derive(Clone)]
pub struct Rpc {
    life: u64,
    lines: Lines,
    calls: Calls,
    server: Server,
    watch: Watch,
    notices: Notices,
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
            Command::Withdraw { procedure } => self.withdraw(procedure, Parting::Withdrawn),
            Command::Gone { procedure } => self.withdraw(procedure, Parting::Ended),
            Command::Watch { token, server, procedure } => {
                let is_served = self.server.serves(procedure);
                let of = (server, procedure);
                self.notices.watch(now, &mut self.lines, token, of, is_served);
            }
            Command::Unwatch { token } => self.notices.unwatch(&mut self.lines, token),
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
            Command::Host { client, life } => self.server.host(&mut self.lines, client, life),
            Command::Unhost { client, life } => self.server.unhost(client, life),
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

    fn withdraw(&mut self, procedure: ProcedureId, why: Parting) {
        self.server.withdraw(procedure);
        self.notices.ended(&mut self.lines, procedure, why);
    }

    fn on_peer(&mut self, now: Instant, change: PeerChange) {
        match change {
            PeerChange::Up { boot } => {
                let memory = self.server.meet(now, &mut self.lines, boot.node);
                let line = self.lines.line(boot.node);
                (line.boot, line.is_up, line.head.memory) = (Some(boot), true, memory);
                line.has_greeted = false;
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
                self.notices.on_down(now, boot.node);
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

    #[cfg(all(test, feature = "test-util"))]
    pub(crate) fn waits(&self, node: NodeId) -> usize {
        self.lines.waits(node)
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
        self.notices.on_gone(&mut self.lines, node);
        self.lines.tell(Event::Lost { server: node });
        true
    }

    fn receive(&mut self, now: Instant, from: NodeId, message: Message) {
        let (head, items) = message.into_items();
        let is_hello = |item: &Item| matches!(item, Item::Hello { .. });
        let mut items = items.peekable();
        let (has_greeted, is_behind) = self.lines.hear(from);
        if items.peek().is_some_and(|(item, _)| is_hello(item)) && !has_greeted {
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
        let heard = Heard { head, is_bound, is_behind };
        for (item, body) in items {
            self.on_item(now, from, &heard, item, body);
        }
    }

    fn on_item(
        &mut self,
        now: Instant,
        from: NodeId,
        &Heard { ref head, is_bound, is_behind }: &Heard,
        item: Item,
        body: Bytes,
    ) {
        // Of the server's half there: it answers this life, and is the one that the calls were bound to.
        let is_answer = (head.answers == self.life
            || mainstay_base::fault!(self.config, MatchesByNumber))
            && head.memory == self.calls.memory(from);
        let (lines, server, calls) = (&mut self.lines, &mut self.server, &mut self.calls);
        match item {
            // A greeting is answered with all that is open there: once in a connection.
            Item::Hello { .. } if std::mem::replace(&mut lines.line(from).has_greeted, true) => {
                server.counts.absurd += 1;
            }
            Item::Hello { kept, window, epoch } => {
                self.notices.on_hello(lines, from, (head.life, window));
                self.watch.on_hello(lines, from, epoch);
                calls.on_bound(now, lines, from, head.memory, (kept, window));
                lines.tell(Event::Bound { server: from });
            }
            // It takes no answers in: nothing is executed for that. It asks again.
            Item::Call { .. } if is_bound && is_behind => server.counts.absurd += 1,
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
            Item::More { seq } if is_answer => {
                let is_said = Watch::on_more(lines, calls, from, seq);
                server.counts.absurd += u64::from(!is_said);
            }
            Item::Check { life } if life == self.life => lines.say_alive(from),
            Item::Alive => self.watch.on_alive(from),
            Item::Epoch { epoch } => self.watch.on_epoch(now, lines, server, epoch),
            Item::Watch { number, procedure } => {
                let is_served = server.serves(procedure);
                let is_heard = self.notices.on_watch(lines, from, (number, procedure), is_served);
                server.counts.absurd += u64::from(!is_heard);
            }
            Item::Unwatch { number } => self.notices.on_unwatch(from, number),
            Item::Gone { number, why } => self.notices.on_end(lines, from, number, why),
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
                self.notices.on_room(&mut self.lines, to.node);
            }
            In::Written(io) => self.on_written(now, io),
            In::Compact { upto } => self.compact(upto),
            In::DiskShort(short) => self.server.disk_short = short,
            _ => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.server.on_time(now, &mut self.lines);
        self.calls.on_time(now, &mut self.lines);
        self.watch.on_time(now, &mut self.lines, &mut self.server);
        self.notices.on_time(now, &mut self.lines);
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
        self.due = halves.chain(watch).chain(self.notices.timeout()).min();
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
        self.notices.fingerprint(into);
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
            | WORDS << 9
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
        let mut lines = Lines::new(Outbox::new(past.last), &config, life, memory);
        let watch = Watch::new(config.clone());
        let mut server = Server::new(config.clone(), memory, seed, past);
        if config.stored {
            let io = server.write(&mut lines, Record::Life { life, memory });
            lines.mute_until(io);
        }
        let calls = Calls::new(config.clone(), me.node, seed);
        let notices = Notices::new(config.clone(), me.node);
        Self { life, lines, calls, server, watch, notices, is_draining: false, due: None, config }
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
            watches: self.notices.counts(),
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
        self.lines.check();
        self.calls.check();
        self.server.check();
        self.notices.check();
    }
}
