//! Bare machines in the hands of a test: it decides what becomes of each message, and when a node is restarted.
//!
//! Datagrams outlive connections and boots here, as they do in a network.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mainstay_base::service::{In, Io, Logged, Out, PeerChange, Service, Start, Wire};
use mainstay_base::{BootId, BootNonce, ClusterId, Duration, Instance, Instant, Machine, NodeId};
use mainstay_rpc::{
    CallName, Command, Config, Event, Executed, Finish, Message, Outcome, Parting, ProcedureId,
    Reason, Record, Request, Rpc, Semantics, Ticket,
};
use mainstay_sim::Clock;

pub const WORK: ProcedureId = ProcedureId::new("test.work");
pub const MS: Duration = Duration::from_millis(1);
const FOREVER: Instant = Instant::from_nanos(u64::MAX);

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Flying {
    pub from: usize,
    pub to: usize,
    /// Over the link, between these boots; a datagram goes to whoever is there.
    boots: Option<(BootId, BootId)>,
    pub meta: Bytes,
    pub payload: Bytes,
    /// What it says, for rules.
    pub text: String,
    at: Instant,
    number: u64,
}

impl Flying {
    pub fn says(&self, what: &str) -> bool {
        [" {", ",", "]"].iter().any(|end| self.text.contains(&format!("{what}{end}")))
    }

    pub fn is_datagram(&self) -> bool {
        self.boots.is_none()
    }

    pub fn bytes(&self) -> usize {
        self.meta.len() + self.payload.len()
    }
}

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Pass,
    Lose,
    Twice,
    /// It is held back until [`Hand::release`].
    Hold,
    /// It arrives, and a copy is held back.
    Copy,
    Late(Duration),
}

pub struct Site {
    pub boot: BootId,
    pub rpc: Option<Rpc>,
    pub log: Vec<(Io, Bytes, Bytes)>,
    writes: Vec<(Instant, Io, Bytes, Bytes)>,
    pub clock: Clock,
    starts: u64,
    /// The next start is of another boot.
    is_new: bool,
}

/// An execution of a call.
#[derive(Clone, Debug)]
pub struct Run {
    pub node: usize,
    pub boot: BootId,
    pub ticket: Ticket,
    pub tag: u64,
    pub arguments: Bytes,
    pub client: NodeId,
    pub begun: Instant,
    pub left: Duration,
    pub told: Option<Instant>,
    pub ended: Option<Instant>,
    due: Option<Instant>,
}

impl Run {
    /// It has effects still.
    pub fn goes_on(&self) -> bool {
        self.told.is_none() && self.ended.is_none()
    }
}

/// A call, with what is usual.
#[derive(Clone, Copy)]
pub struct Ask {
    pub semantics: Semantics,
    pub lane: Option<u32>,
    pub deadline: Duration,
    pub parent: Option<Ticket>,
    pub name: Option<u128>,
}

pub const ONCE: Ask = Ask {
    semantics: Semantics::ExactlyOnce,
    lane: Some(1),
    deadline: Duration::from_secs(5),
    parent: None,
    name: None,
};

type Rule = Box<dyn FnMut(&Flying) -> Fate>;

pub struct Hand {
    pub now: Instant,
    pub sites: Vec<Site>,
    pub flying: Vec<Flying>,
    pub held: Vec<Flying>,
    pub rule: Rule,
    pub transit: Duration,
    pub disk: Duration,
    /// How long an execution takes; `None`: the test ends it.
    pub takes: Option<Duration>,
    /// How long one that is told to stop takes for that.
    pub stops: Duration,
    /// It gives its result all the same.
    pub is_deaf: bool,
    /// Bytes of results.
    pub result: usize,
    pub runs: Vec<Run>,
    pub outcomes: BTreeMap<u64, Vec<(Instant, Outcome)>>,
    pub sent: Vec<(Instant, Flying)>,
    pub check: bool,
    apart: BTreeSet<(usize, usize)>,
    config: Box<dyn Fn(usize, u64) -> Config>,
    number: u64,
    /// Nodes that had nothing to do any more after they were told to drain.
    pub drained: Vec<(Instant, usize)>,
    /// Clients of which a node was told that what it had made for them is not wanted.
    pub forsaken: Vec<(usize, NodeId)>,
    /// Watches that are over.
    pub parted: Vec<(u64, Parting)>,
    /// What goes along with calls.
    pub context: Bytes,
    /// Calls that executions have made.
    made: BTreeMap<(usize, Ticket), u64>,
}

impl Hand {
    /// Nodes that are connected, and serve.
    pub fn new(nodes: usize, config: impl Fn(usize, u64) -> Config + 'static) -> Self {
        Self::with_clocks(nodes, config, |_| Clock::default())
    }

    pub fn with_clocks(
        nodes: usize,
        config: impl Fn(usize, u64) -> Config + 'static,
        clock: impl Fn(usize) -> Clock,
    ) -> Self {
        let cluster = ClusterId::from_entropy(1);
        let site = |at: usize| Site {
            boot: BootId { node: NodeId::new(cluster, &format!("n{at}")), nonce: BootNonce(0) },
            rpc: None,
            log: Vec::new(),
            writes: Vec::new(),
            clock: clock(at),
            starts: 0,
            is_new: true,
        };
        let mut hand = Self {
            now: Instant::ZERO + MS,
            sites: (0..nodes).map(site).collect(),
            flying: Vec::new(),
            held: Vec::new(),
            rule: Box::new(|_| Fate::Pass),
            transit: MS,
            disk: MS,
            takes: Some(MS),
            stops: Duration::ZERO,
            is_deaf: false,
            result: 8,
            runs: Vec::new(),
            outcomes: BTreeMap::new(),
            sent: Vec::new(),
            check: true,
            apart: BTreeSet::new(),
            config: Box::new(config),
            number: 0,
            drained: Vec::new(),
            forsaken: Vec::new(),
            parted: Vec::new(),
            context: Bytes::new(),
            made: BTreeMap::new(),
        };
        (0..nodes).for_each(|at| hand.start(at));
        hand.run(20 * MS);
        hand.sent.clear();
        hand
    }

    pub fn node(&self, at: usize) -> NodeId {
        self.sites[at].boot.node
    }

    pub fn local(&self, at: usize) -> Instant {
        self.sites[at].clock.local(self.now)
    }

    /// A node starts, from its log; all others that run hear of it.
    pub fn start(&mut self, at: usize) {
        let local = self.local(at);
        let config = (self.config)(at, self.sites[at].starts + 1);
        let site = &mut self.sites[at];
        site.starts += 1;
        let old = site.boot;
        if site.is_new {
            site.boot.nonce = BootNonce(u128::from(site.starts));
        }
        let me = site.boot;
        let mut past = <Rpc as Service>::Past::default();
        for (io, meta, payload) in &site.log {
            let record = Record::decode(meta, payload.clone()).unwrap();
            Rpc::fold(&mut past, Logged::Record(*io, record));
        }
        let instance = Instance::new(ClusterId::from_entropy(1), "rpc");
        let seed = site.starts * 100 + at as u64;
        let start = Start { me, instance, past, checkpoint: None, now: local, seed };
        site.rpc = Some(Rpc::recover(config, start));
        self.give(at, In::Command(Command::Serve { procedure: WORK, versions: (1, 1) }));
        let is_first = old.nonce == BootNonce(0) || !self.sites[at].is_new;
        for other in (0..self.sites.len()).filter(|other| *other != at) {
            if self.sites[other].rpc.is_none() {
                continue;
            }
            if !is_first {
                let gone = PeerChange::Replaced { old, new: Some(me) };
                self.give(other, In::Peer(gone));
            }
            if !self.is_apart(at, other) {
                self.connect(at, other);
            }
        }
    }

    fn connect(&mut self, one: usize, other: usize) {
        let (first, second) = (self.sites[one].boot, self.sites[other].boot);
        self.give(other, In::Peer(PeerChange::Up { boot: first }));
        self.give(one, In::Peer(PeerChange::Up { boot: second }));
    }

    pub fn is_apart(&self, one: usize, other: usize) -> bool {
        self.apart.contains(&(one.min(other), one.max(other)))
    }

    /// The connection of two nodes breaks. What is said over the link waits, datagrams are lost.
    pub fn part(&mut self, one: usize, other: usize) {
        self.apart.insert((one.min(other), one.max(other)));
        for (at, of) in [(one, other), (other, one)] {
            let boot = self.sites[of].boot;
            self.give(at, In::Peer(PeerChange::Down { boot }));
        }
        for it in &mut self.flying {
            if (it.from == one && it.to == other) || (it.from == other && it.to == one) {
                it.at = FOREVER;
            }
        }
        self.flying.retain(|it| it.at != FOREVER || !it.is_datagram());
    }

    pub fn join(&mut self, one: usize, other: usize) {
        self.apart.remove(&(one.min(other), one.max(other)));
        self.connect(one, other);
        let at = self.now + self.transit;
        for it in &mut self.flying {
            if (it.from == one && it.to == other) || (it.from == other && it.to == one) {
                it.at = it.at.min(at);
            }
        }
        self.flying.sort_by_key(|it| it.number);
    }

    /// The log is cut as far as the service lets go of it.
    pub fn cut_log(&mut self, at: usize) {
        let keeps = self.rpc(at).keeps();
        let before = self.sites[at].log.len();
        self.sites[at].log.retain(|(io, ..)| *io >= keeps);
        assert!(self.sites[at].log.len() < before, "there is something to cut");
    }

    /// The node stops without a word; what it writes is not stable.
    pub fn crash(&mut self, at: usize) {
        self.sites[at].rpc = None;
        self.sites[at].writes.clear();
        let boot = self.sites[at].boot;
        for other in (0..self.sites.len()).filter(|other| *other != at) {
            if self.sites[other].rpc.is_some() && !self.is_apart(at, other) {
                self.give(other, In::Peer(PeerChange::Down { boot }));
            }
        }
        for run in &mut self.runs {
            if run.boot == boot && run.ended.is_none() {
                run.ended = Some(self.now);
            }
        }
    }

    /// The node has crashed, and a view is without it.
    pub fn leave_out(&mut self, at: usize) {
        let old = self.sites[at].boot;
        self.crash(at);
        for other in (0..self.sites.len()).filter(|other| *other != at) {
            self.give(other, In::Peer(PeerChange::Replaced { old, new: None }));
        }
    }

    /// The service of calls ends at a node, and another one is mounted there: the boot goes on.
    pub fn remount(&mut self, at: usize) {
        let old = self.sites[at].boot;
        self.crash(at);
        for other in (0..self.sites.len()).filter(|other| *other != at) {
            self.give(other, In::Peer(PeerChange::Ended { boot: old }));
        }
        self.void(old);
        self.sites[at].is_new = false;
        self.start(at);
        self.sites[at].is_new = true;
    }

    /// What was on its way between this boot and others is void.
    fn void(&mut self, boot: BootId) {
        let is = |it: &Flying| it.boots.is_some_and(|(from, to)| from == boot || to == boot);
        self.flying.retain(|it| !is(it));
        self.held.retain(|it| !is(it));
    }

    pub fn restart(&mut self, at: usize) {
        self.crash(at);
        self.start(at);
    }

    /// Something happens at a node, in a turn of its own.
    pub fn give(&mut self, at: usize, input: In<Rpc>) {
        let local = self.local(at);
        let Some(rpc) = &mut self.sites[at].rpc else { return };
        rpc.handle(local, input);
        self.turn(at);
    }

    fn turn(&mut self, at: usize) {
        let local = self.local(at);
        let mut again = true;
        while std::mem::take(&mut again) {
            let Some(rpc) = &mut self.sites[at].rpc else { return };
            rpc.end_turn(local);
            let out: Vec<_> = std::iter::from_fn(|| rpc.poll_output()).collect();
            if self.check {
                rpc.check_invariants();
            }
            for out in out {
                match out {
                    Out::Send { to, message } => {
                        to.iter().for_each(|to| self.send(at, Some(to), to.node, &message));
                    }
                    Out::Datagram { to, message } => self.send(at, None, to, &message),
                    Out::Persist { io, record } => {
                        let (meta, payload) = record.encode();
                        let due = self.now + self.disk;
                        self.sites[at].writes.push((due, io, meta, payload));
                    }
                    Out::Event { event, .. } => self.on_event(at, event),
                    Out::Again => again = true,
                    _ => panic!("no other output is known"),
                }
            }
        }
    }

    fn send(&mut self, from: usize, boot: Option<BootId>, to: NodeId, message: &Message) {
        let Some(to) = self.sites.iter().position(|site| site.boot.node == to) else { return };
        let (meta, payload) = message.encode();
        self.number += 1;
        let flying = Flying {
            from,
            to,
            boots: boot.map(|boot| (self.sites[from].boot, boot)),
            meta,
            payload,
            text: format!("{message:?}"),
            at: self.now + self.transit,
            number: self.number,
        };
        self.sent.push((self.now, flying.clone()));
        if self.is_apart(from, to) {
            if !flying.is_datagram() {
                self.flying.push(Flying { at: FOREVER, ..flying });
            }
            return;
        }
        match (self.rule)(&flying) {
            Fate::Pass => self.flying.push(flying),
            Fate::Lose => {}
            Fate::Twice => self.flying.extend([flying.clone(), flying]),
            Fate::Hold => self.held.push(flying),
            Fate::Copy => {
                self.held.push(flying.clone());
                self.flying.push(flying);
            }
            Fate::Late(by) => self.flying.push(Flying { at: flying.at + by, ..flying }),
        }
    }

    /// The messages that were held back arrive now.
    pub fn release(&mut self, index: usize) {
        let flying = self.held.remove(index);
        self.arrive(flying);
    }

    pub fn release_all(&mut self) {
        while !self.held.is_empty() {
            self.release(0);
        }
    }

    fn arrive(&mut self, flying: Flying) {
        let Flying { from, to, boots, meta, payload, .. } = flying;
        let message = Message::decode(&meta, payload).unwrap();
        let at = self.local(to);
        match boots {
            None => {
                let from = self.node(from);
                self.give(to, In::Datagram { at, from, message });
            }
            Some((of, boot)) => {
                // What was between two boots is void when one is gone.
                if self.sites[from].boot == of && self.sites[to].boot == boot {
                    self.give(to, In::Message { from: of, view: 0, message });
                }
            }
        }
    }

    fn on_event(&mut self, at: usize, event: Event) {
        let boot = self.sites[at].boot;
        match event {
            Event::Over { token, outcome } => {
                self.outcomes.entry(token).or_default().push((self.now, outcome));
            }
            Event::Execute(it) => {
                let tag = u64::from_le_bytes(it.arguments[..8].try_into().unwrap());
                self.runs.push(Run {
                    node: at,
                    boot,
                    ticket: it.ticket,
                    tag,
                    arguments: it.arguments,
                    client: it.client,
                    begun: self.now,
                    left: it.left,
                    told: None,
                    ended: None,
                    due: self.takes.map(|takes| self.now + takes),
                });
            }
            Event::Stop { ticket } => {
                let due = self.now + self.stops;
                let of = |run: &&mut Run| {
                    run.boot == boot && run.ticket == ticket && run.ended.is_none()
                };
                if let Some(run) = self.runs.iter_mut().find(of) {
                    run.told = Some(self.now);
                    run.due = Some(run.due.map_or(due, |it| it.min(due)));
                }
            }
            Event::Drained => self.drained.push((self.now, at)),
            Event::Parted { token, why } => self.parted.push((token, why)),
            Event::Forsaken { client, .. } => self.forsaken.push((at, client)),
            _ => {}
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.next().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step();
        }
        self.now = end;
    }

    fn timer(&self, at: usize) -> Option<Instant> {
        let site = &self.sites[at];
        site.clock.real(self.now, site.rpc.as_ref()?.poll_timeout()?)
    }

    fn next(&self) -> Option<Instant> {
        let flying = self.flying.iter().map(|it| it.at).filter(|at| *at != FOREVER);
        let writes = self.sites.iter().flat_map(|site| site.writes.first().map(|it| it.0));
        let timers = (0..self.sites.len()).filter_map(|at| self.timer(at));
        let runs = self.runs.iter().filter(|run| run.ended.is_none()).filter_map(|run| run.due);
        flying.chain(writes).chain(timers).chain(runs).min()
    }

    fn step(&mut self) {
        let now = self.now;
        let earliest = self.flying.iter().enumerate().filter(|(_, it)| it.at <= now);
        if let Some((index, _)) = earliest.min_by_key(|(_, it)| (it.at, it.number)) {
            let flying = self.flying.remove(index);
            return self.arrive(flying);
        }
        for at in 0..self.sites.len() {
            if self.sites[at].writes.first().is_some_and(|it| it.0 <= now) {
                let (_, io, meta, payload) = self.sites[at].writes.remove(0);
                self.sites[at].log.push((io, meta, payload));
                return self.give(at, In::Written(io));
            }
        }
        let is_due = |run: &Run| run.ended.is_none() && run.due.is_some_and(|due| due <= now);
        if let Some(index) = self.runs.iter().position(is_due) {
            let tag = self.runs[index].tag;
            let result = match self.runs[index].told {
                Some(_) if !self.is_deaf => Finish::Failed,
                _ => Finish::Value(self.value(tag)),
            };
            return self.end_run(index, result);
        }
        for at in 0..self.sites.len() {
            let local = self.local(at);
            if self.timer(at).is_some_and(|due| due <= now)
                && let Some(rpc) = &mut self.sites[at].rpc
            {
                rpc.handle_timeout(local);
                return self.turn(at);
            }
        }
    }

    fn end_run(&mut self, index: usize, result: Finish) {
        let (node, boot, ticket) =
            (self.runs[index].node, self.runs[index].boot, self.runs[index].ticket);
        self.runs[index].ended = Some(self.now);
        if self.sites[node].boot == boot {
            self.give(node, In::Command(Command::Finished { ticket, result }));
        }
    }

    /// An execution of this call ends with its value.
    pub fn finish(&mut self, tag: u64) {
        let is = |run: &Run| run.tag == tag && run.ended.is_none();
        let index = self.runs.iter().position(is).expect("it is executed");
        self.finish_run(index);
    }

    pub fn finish_run(&mut self, index: usize) {
        self.end_run(index, Finish::Value(self.value(self.runs[index].tag)));
    }

    fn value(&self, tag: u64) -> Bytes {
        let mut value = tag.to_le_bytes().to_vec();
        value.resize(self.result, 0);
        value.into()
    }

    /// What goes on, of all that was executed.
    pub fn going_on(&self) -> Vec<u64> {
        self.runs.iter().filter(|run| run.goes_on()).map(|run| run.tag).collect()
    }

    pub fn call(&mut self, client: usize, server: usize, tag: u64, ask: Ask) {
        let arguments = Bytes::copy_from_slice(&tag.to_le_bytes());
        self.call_with(client, server, tag, ask, arguments);
    }

    pub fn call_with(
        &mut self,
        client: usize,
        server: usize,
        tag: u64,
        ask: Ask,
        arguments: Bytes,
    ) {
        self.request(client, server, tag, ask, (WORK, arguments));
    }

    /// Calls another procedure.
    pub fn call_of(
        &mut self,
        procedure: ProcedureId,
        client: usize,
        server: usize,
        tag: u64,
        ask: Ask,
    ) {
        let arguments = Bytes::copy_from_slice(&tag.to_le_bytes());
        self.request(client, server, tag, ask, (procedure, arguments));
    }

    fn request(
        &mut self,
        client: usize,
        server: usize,
        tag: u64,
        ask: Ask,
        (procedure, arguments): (ProcedureId, Bytes),
    ) {
        let Ask { semantics, lane, deadline, parent, name } = ask;
        let mut numbers = Vec::new();
        if let Some(parent) = parent {
            let made = self.made.entry((client, parent)).or_default();
            *made += 1;
            numbers.push(*made);
        }
        let request = Request {
            numbers,
            token: tag,
            server: self.node(server),
            procedure,
            version: 1,
            semantics,
            arguments,
            deadline,
            lane,
            parent,
            context: self.context.clone(),
            name: name.map(|root| Box::new(CallName::new(root))),
        };
        self.give(client, In::Command(Command::Call(request)));
    }

    /// How a call ended. It did so once, with its own result.
    pub fn outcome(&self, tag: u64) -> Option<Outcome> {
        let all = self.outcomes.get(&tag)?;
        assert_eq!(all.len(), 1, "RPC-9: one outcome: {all:?}");
        if let Outcome::Done(value) = &all[0].1 {
            let is_own = value.is_empty() || value[..8] == tag.to_le_bytes();
            assert!(is_own, "RPC-8: the result of another call: {value:?}");
        }
        Some(all[0].1.clone())
    }

    pub fn is_done(&self, tag: u64) -> bool {
        matches!(self.outcome(tag), Some(Outcome::Done(_)))
    }

    pub fn failed(&self, tag: u64) -> Option<(Executed, Reason)> {
        match self.outcome(tag)? {
            Outcome::Failed(failure) => Some((failure.executed, failure.reason)),
            _ => None,
        }
    }

    /// When a call was over for its caller.
    pub fn over(&self, tag: u64) -> Instant {
        self.outcomes[&tag][0].0
    }

    /// How often a call was executed.
    pub fn count(&self, tag: u64) -> usize {
        self.runs.iter().filter(|run| run.tag == tag).count()
    }

    /// Messages that were sent and say this.
    pub fn said(&self, what: &str) -> usize {
        self.sent.iter().filter(|(_, it)| it.says(what)).count()
    }

    pub fn rpc(&self, at: usize) -> &Rpc {
        self.sites[at].rpc.as_ref().expect("it runs")
    }
}
