//! The service of troupes: replicated clients call replicated servers.
//!
//! # The problem
//! A program is replicated so that it goes on when nodes fail. If a replicated program calls another one, each of its m replicas makes the call,
//! and each of the n replicas of the other one is to execute it: once, not m times. All m are to get the result. Nobody may have to know how many
//! the others are.
//!
//! # The idea of Circus (Cooper 1985)
//! Replicas are deterministic, so they make the same calls, and a name that follows from the program alone is the same at all of them:
//! the troupe in which a chain of calls began, the thread there, the number of the call in its thread, and then for each nested call its
//! number within the execution that made it ([`CallId`]). A server that gets a call looks whether it knows the name. The first copy makes a *record*;
//! each further copy adds its sender to that. The record is executed once, and its result goes to everyone who has sent a copy. No replica of a
//! server speaks with another one about a call. So m clients and n servers cost m·n calls and m·n answers: the price for not agreeing on anything.
//!
//! # When it begins, and what an answer is
//! A server may begin with the first copy ([`Begin::First`]), which is fast; or when all replicas of the client have said the same, or more
//! than half, which finds or masks a wrong client. A client has n answers, and a [`Collator`] makes one of them: the first, a unanimous one, that of
//! a majority, or whatever a program says.
//!
//! # How long a result is kept
//! A replica of the client may be late, or be added meanwhile. A result is kept until *all members of the client's troupe, as it is now* have it.
//! Not those that were members when the call was made: a replica that joins with the state of another one makes the calls that come after that
//! state, and others may have made them long ago. What a member does not want is found by asking it. Nothing but a newer membership says
//! that a member has left, since that names the newcomers as well.
//!
//! # Troupes change
//! A binding agent says who belongs to a troupe, and gives each membership a number. A call names the membership that it was sent for;
//! a server that knows a newer one refuses it, and says which. The client sends it to the troupe as it is now. A server that has executed it answers
//! what it has kept. For that a call stays open at its client until all members of the newest membership have answered, although its caller has got its
//! outcome long before; a client that stopped there would leave servers that differ.
//! How a new member gets the state is in `join.rs`.
//!
//! # Order
//! One client's calls come to all servers in its order, since channels are FIFO. Calls of two clients may come in different orders, and then servers
//! whose executions do not commute come apart. There are two remedies ([`Sequence`]): the calls go through a total order of somebody else, which
//! brings them to all servers alike; or the servers ask the client back before an execution counts (`calls/commit.rs`).
//!
//! # What cannot be had
//! If all replicas of a client fail in the middle of a call, some servers may execute it and others not: nobody is left to send it. A total order
//! closes that gap, for a call in the order is executed by all. A partition that outlasts [`Config::patience`] lets the binding
//! agent take living members out; they are told when they are heard again, and what they executed meanwhile is void.

use std::hash::Hasher as _;

use bytes::Bytes;
use mainstay_base::service::{Class, In, Logged, Never, Out, PeerChange, Service, Start};
use mainstay_base::{BootId, Channel, Fingerprinter, Instant, Machine, Rng};

use crate::bindings::Bindings;
use crate::calls::{Calls, Maker};
use crate::lines::Lines;
use crate::ringmaster::Ringmaster;
use crate::server::Server;
use crate::wire::{Item, Key, Message};
use crate::{
    CallId, Command, Config, Event, Reason, Request, Sequence, Status, TroupeName, Version,
};

/// What the halves need in a turn.
pub(crate) struct Turn<'a> {
    pub(crate) now: Instant,
    pub(crate) lines: &'a mut Lines,
    pub(crate) bindings: &'a mut Bindings,
    pub(crate) config: &'a Config,
}

impl Turn<'_> {
    /// A result is not needed any more by this replica of the client. The server is told as what: a newer member may need it, and the server may not
    /// have heard of that one.
    pub(crate) fn acknowledge(&mut self, to: BootId, server: TroupeName, key: Key) {
        let by = self.bindings.version(key.caller);
        if mainstay_base::fault!(self.config, AcksEach) {
            return self.lines.say(to, Item::Ack { server, by, keys: vec![key] }, Bytes::new());
        }
        self.lines.acknowledge(self.now + self.config.acknowledge, to, (server, by), key);
    }
}

/// Most words that wait for a node which takes nothing in, in windows for each troupe: changes of a troupe have open calls refused as stale, each
/// time all of them.
const WAITING_WINDOWS: usize = 16;

/// The service of troupes of a node: a replica of clients and of servers.
#[derive(Clone)]
pub struct Troupes {
    lines: Lines,
    bindings: Bindings,
    calls: Calls,
    server: Server,
    ringmaster: Option<Ringmaster>,
    due: Option<Instant>,
    is_draining: bool,
    /// It has left all troupes since it was told to, and joins none any more.
    is_drained: bool,
    config: Config,
    /// Nested calls that are named by this node alone: a defect.
    flat: u64,
}

macro_rules! turn {
    ($self:ident, $now:ident) => {
        &mut Turn {
            now: $now,
            lines: &mut $self.lines,
            bindings: &mut $self.bindings,
            config: &$self.config,
        }
    };
}

impl Troupes {
    fn on_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Call(request) => {
                let maker = self.maker(&request);
                self.calls.call(turn!(self, now), request, maker);
            }
            Command::Join { troupe, mut serving } => {
                serving.at_once = match serving.sequence {
                    Sequence::Commit => 1,
                    _ => serving.at_once.max(1),
                };
                let is_closing = (self.is_draining || self.is_drained)
                    && !mainstay_base::fault!(self.config, JoinsAgain);
                if is_closing || !self.server.join(turn!(self, now), troupe, serving) {
                    self.lines.tell(Event::Left { troupe });
                }
            }
            Command::Drain => self.is_draining = true,
            Command::Leave { troupe } => self.server.leave(turn!(self, now), troupe),
            Command::Finished { ticket, result } => {
                self.server.on_finished(turn!(self, now), ticket, result);
            }
            Command::State { troupe, state } => {
                if self.server.is_given(troupe) {
                    let carried = self.calls.carried(&self.config, troupe);
                    self.server.on_given(turn!(self, now), troupe, state, carried);
                }
            }
            Command::Restored { troupe } => self.server.on_restored(turn!(self, now), troupe),
            Command::Ordered { troupe, position, call } => {
                self.server.on_ordered(turn!(self, now), troupe, position, call);
            }
        }
    }

    /// All that has come is answered, the answers have been fetched, and new members have the state: this node leaves.
    fn drain(&mut self, now: Instant) {
        let leaves = || {
            let is_early = mainstay_base::fault!(self.config, LeavesEarly);
            is_early || self.server.is_idle(self.lines.me(), &self.bindings)
        };
        if !self.is_draining || !leaves() {
            return;
        }
        (self.is_draining, self.is_drained) = (false, true);
        for name in self.server.names() {
            self.server.leave(turn!(self, now), name);
        }
        self.settle(now);
        self.lines.tell(Event::Drained);
    }

    #[cfg(all(test, feature = "test-util"))]
    pub(crate) fn waits(&self, boot: BootId) -> (usize, usize) {
        self.lines.waits(boot)
    }

    /// Who makes a call, and what it is called.
    fn maker(&mut self, request: &Request) -> Result<Maker, Reason> {
        let me = self.lines.me();
        if let Some(parent) = request.parent {
            let (caller, mut id, is_tentative) = self.server.nest(parent).ok_or(Reason::Orphan)?;
            if is_tentative {
                return Err(Reason::Tentative);
            }
            if mainstay_base::fault!(self.config, FlatIds) {
                self.flat += 1;
                id.path = vec![TroupeName::solo(me).0 >> 1, self.flat];
            }
            return Ok(Maker { caller, id });
        }
        let (caller, born) = match request.caller {
            None => (TroupeName::solo(me), Version::SOLO),
            Some(name) => (name, self.server.born(name).ok_or(Reason::NotMember)?),
        };
        let (thread, path) = (request.thread, vec![request.number]);
        Ok(Maker { caller, id: CallId { root: caller, born, thread, path } })
    }

    fn on_peer(&mut self, now: Instant, change: PeerChange) {
        match change {
            PeerChange::Up { boot } => self.on_up(now, boot),
            PeerChange::Down { boot } => {
                self.lines.up(boot, false);
                self.server.on_connections(turn!(self, now));
                if let Some(ringmaster) = &mut self.ringmaster {
                    ringmaster.on_down(now, boot);
                }
            }
            PeerChange::Ended { boot: old } | PeerChange::Replaced { old, .. } => {
                self.lines.forget(old);
                self.bindings.on_gone(old);
                self.server.on_connections(turn!(self, now));
                self.server.on_solo_gone(turn!(self, now), old);
                if let Some(ringmaster) = &mut self.ringmaster {
                    ringmaster.on_replaced(now, &mut self.lines, old);
                }
            }
        }
    }

    fn on_up(&mut self, now: Instant, boot: BootId) {
        self.lines.up(boot, true);
        if let Some(ringmaster) = &mut self.ringmaster {
            ringmaster.on_up(boot);
        }
        if self.bindings.on_up(&mut self.lines, boot) {
            self.server.on_binder(turn!(self, now));
        }
        self.server.on_connections(turn!(self, now));
    }

    /// One that asks without end and takes no answers in is not answered: what keeps to the protocol has a window of calls open to each troupe.
    fn receive(&mut self, now: Instant, from: BootId, message: Message) {
        let troupes = 1 + self.server.members.len();
        let most = match mainstay_base::fault!(self.config, OwesEverything) {
            true => (usize::MAX, usize::MAX),
            false => {
                let window = WAITING_WINDOWS * self.config.window as usize;
                (window.saturating_mul(troupes), 2 * troupes)
            }
        };
        // Nothing that is said has more answers than these.
        let (waits, states) = self.lines.waits(from);
        let may_be_behind = waits + 4 * message.items.len() >= most.0 || states >= most.1;
        for (item, body) in message.into_items() {
            if may_be_behind && item.asks() {
                let (waits, states) = self.lines.waits(from);
                let wants_state = matches!(item, Item::WantState { .. });
                if waits >= most.0 || wants_state && states >= most.1 {
                    self.server.counts.dropped += 1;
                    continue;
                }
            }
            self.on_item(now, from, item, body);
        }
    }

    fn on_item(&mut self, now: Instant, from: BootId, item: Item, body: Bytes) {
        let turn = turn!(self, now);
        let (calls, server) = (&mut self.calls, &mut self.server);
        match item {
            Item::Call { server: to, call, .. } => server.on_call(turn, from, to, call, body),
            Item::Answer { server: of, key, kind, .. } => {
                calls.on_answer(turn, from, of, key, (kind, body));
            }
            Item::Stale { server: name, now: Some(binding), .. } => {
                turn.bindings.learn(name, binding);
            }
            // Its node is not a replica, and the binding agent will say so.
            Item::Stale { now: None, .. } => {}
            Item::Ack { server: name, by, keys } => server.on_ack(turn, from, name, by, &keys),
            Item::Wanted { server: name, keys } => {
                let (new, keys): (Vec<_>, Vec<_>) =
                    keys.into_iter().partition(|key| server.is_joining(key.caller));
                for key in keys.into_iter().filter(|key| is_past(calls, server, key)) {
                    turn.acknowledge(from, name, key);
                }
                if !new.is_empty() && !mainstay_base::fault!(turn.config, HoldsUp) {
                    turn.lines.say(from, Item::Absent { server: name, keys: new }, Bytes::new());
                }
            }
            Item::Awaited { server: name, keys } => {
                let is_absent =
                    |key: &Key| server.is_joining(key.caller) || is_past(calls, server, key);
                let keys: Vec<_> = keys.into_iter().filter(is_absent).collect();
                if !keys.is_empty() {
                    turn.lines.say(from, Item::Absent { server: name, keys }, Bytes::new());
                }
            }
            Item::Absent { server: name, keys } => server.on_absent(turn, from, name, &keys),
            Item::Ready { server: name, key, held, fence } => {
                calls.on_ready(turn, from, name, &key, held, fence);
            }
            Item::Ask { server: name, key, by } => server.on_ask(turn, from, name, &key, by),
            Item::Decide { server: name, key, by, held, commit } => {
                server.on_decide(turn, from, name, &key, by, held, commit);
            }
            Item::Bound { name, binding } => turn.bindings.learn(name, binding),
            Item::WantState { name, binding, after } => {
                server.on_want_state(turn, from, name, binding, after);
            }
            Item::Full { name, binding, asks } => server.on_full(turn, from, name, binding, asks),
            Item::Stateless { name, version } => server.on_stateless(turn, from, name, version),
            Item::State { name, luggage, .. } => {
                let carried = server.on_state(turn, from, name, luggage, body);
                calls.adopt(turn, carried);
            }
            Item::Join { .. } | Item::Leave { .. } | Item::Watch { .. } | Item::Known { .. } => {
                self.on_binding_item(now, from, item);
            }
        }
    }

    /// Something for the binding agent.
    fn on_binding_item(&mut self, now: Instant, from: BootId, item: Item) {
        let lines = &mut self.lines;
        let Some(ringmaster) = &mut self.ringmaster else {
            self.server.counts.dropped += 1;
            return;
        };
        match item {
            Item::Join { name } => ringmaster.on_change(lines, from, name, true),
            Item::Leave { name } => ringmaster.on_change(lines, from, name, false),
            Item::Watch { name } => ringmaster.on_watch(lines, from, name),
            Item::Known { name, binding } => ringmaster.on_known(now, lines, from, name, binding),
            _ => {}
        }
    }

    /// Looks at all that has changed, and at what this node has said to itself, until there is nothing more.
    fn settle(&mut self, now: Instant) {
        // What one step brings about is bounded by what is open: so is their number, and what is left waits for the next turn.
        for _ in 0..STEPS_MAX {
            if let Some(name) = self.bindings.news.pop_first() {
                self.server.on_binding(turn!(self, now), name);
                self.calls.on_binding(turn!(self, now), name);
                if let Some(binding) = self.bindings.get(name).cloned() {
                    self.lines.tell(Event::Changed { troupe: name, binding });
                }
            } else if let Some((item, body)) = self.lines.hear() {
                let me = self.lines.me();
                self.on_item(now, me, item, body);
            } else if let Some(name) = self.server.offers.pop() {
                self.calls.mark(name);
                self.lines.tell(Event::StateWanted { troupe: name });
            } else if let Some(name) = self.server.left.pop() {
                self.calls.on_evicted(turn!(self, now), name);
            } else {
                return;
            }
        }
        self.lines.again();
    }
}

/// Whether a call that a replica of a troupe of this node may make needs no answer any more, and will not be made.
fn is_past(calls: &Calls, server: &Server, key: &Key) -> bool {
    // What a troupe called before it lost all its members nobody waits for.
    let is_root = key.id.root == key.caller && key.id.path.len() == 1;
    let is_former = is_root && server.born(key.caller).is_some_and(|born| born != key.id.born);
    is_former || calls.is_over(key).unwrap_or_else(|| server.is_past(key))
}

/// So many steps a turn has at most.
const STEPS_MAX: usize = 65_536;

impl Machine for Troupes {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, now: Instant, input: In<Self>) {
        match input {
            In::Command(command) => self.on_command(now, command),
            In::Message { from, message, .. } => self.receive(now, from, message),
            In::Peer(change) => self.on_peer(now, change),
            In::Full { to, message } => self.lines.full(to, message),
            In::Room { to } => self.lines.room(to),
            _ => {}
        }
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(ringmaster) = &mut self.ringmaster {
            ringmaster.on_time(now, &mut self.lines);
        }
        self.server.on_time(turn!(self, now));
        self.calls.on_time(turn!(self, now));
        self.lines.on_time(now);
        self.settle(now);
    }

    fn end_turn(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.handle_timeout(now);
        }
        self.settle(now);
        self.drain(now);
        self.lines.flush();
        let halves = self.server.timeout(now, &self.config).into_iter().chain(self.calls.timeout());
        let agent = self.ringmaster.as_ref().and_then(Ringmaster::timeout);
        self.due = halves.chain(self.lines.timeout()).chain(agent).min();
    }

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.lines.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

impl Service for Troupes {
    const CHANNEL: Channel = Channel(0x0042);
    const NAME: &'static str = "troupes";
    const CLASS: Class = Class::Calls;
    type Message = Message;
    type Record = Never;
    type Command = Command;
    type Event = Event;
    type Job = Never;
    type Done = Never;
    type Past = ();
    type Config = Config;
    type Status = Status;

    /// All nodes have the same binding agent.
    fn agreed(config: &Config) -> u128 {
        let mut hash = Fingerprinter::new();
        hash.write(config.binder.as_bytes());
        // One with a larger window would be taken for one that does not keep to it.
        hash.write(&config.window.to_le_bytes());
        hash.finish128()
    }

    fn fold((): &mut (), logged: Logged<Never>) {
        if let Logged::Record(_, never) = logged {
            match never {}
        }
    }

    /// # Panics
    /// If the configuration was not [checked](Config::check) and does not hold.
    fn recover(config: Config, start: Start<()>) -> Self {
        config.check().expect("the configuration was checked");
        let Start { me, now, seed, .. } = start;
        let mut lines = Lines::new(me, &config);
        let mut bindings = Bindings::new(config.binder, config.troupes_max);
        let is_binder = config.binder == me.node;
        let ringmaster = is_binder.then(|| Ringmaster::new(me, config.clone(), now));
        bindings.on_up(&mut lines, me);
        let calls = Calls::new(me, seed);
        let server = Server::new(Rng::new(seed).stream("tickets").next_u64() >> 1);
        let due = ringmaster.as_ref().and_then(Ringmaster::timeout);
        Self {
            lines,
            bindings,
            calls,
            server,
            ringmaster,
            due,
            is_draining: false,
            is_drained: false,
            config,
            flat: 0,
        }
    }

    fn work(job: Never) -> Never {
        match job {}
    }

    fn status(&self) -> Status {
        let (executing, kept) = self.server.load();
        let mut served = self.server.counts;
        served.dropped += self.ringmaster.as_ref().map_or(0, |it| it.dropped);
        Status {
            open: self.calls.len(),
            executing,
            kept,
            served,
            rebound: self.calls.rebound,
            sent: self.lines.sent,
            body_bytes_max: self.config.body_bytes_max,
            #[cfg(feature = "test-util")]
            fault: self.config.fault,
        }
    }

    fn check_invariants(&self) {
        self.lines.check();
        self.calls.check(&self.bindings, self.config.window);
        self.server.check();
        if let Some(ringmaster) = &self.ringmaster {
            ringmaster.check();
        }
    }
}
