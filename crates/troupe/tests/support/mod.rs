//! Troupes in a simulated world: programs that are replicated, and an oracle that counts executions by unique tags.
#![allow(dead_code, reason = "each test uses its part")]

pub mod kind;
mod oracle;

use bytes::Bytes;
use mainstay_base::{BootId, ClusterId, Duration, Instance, Instant, Rng};
use mainstay_rpc::ProcedureId;
use mainstay_sim::service::{ServiceNode, Setup};
use mainstay_sim::{FaultEvent, Options, World};
use mainstay_troupe::{
    Answer, CallId, Collator, Command, Config, Event, Execution, Finish, Outcome, Request,
    Sequence, Serving, Ticket, TroupeName, Troupes,
};
use std::collections::{BTreeMap, BTreeSet};

pub const WORK: ProcedureId = ProcedureId::new("test.work");
pub const STEP: Duration = Duration::from_micros(500);

pub fn instance() -> Instance {
    Instance::new(ClusterId::from_entropy(1), "troupes")
}

/// A troupe of the play: where its replicas are, and what they do.
#[derive(Clone)]
pub struct Part {
    pub name: &'static str,
    pub nodes: Vec<usize>,
    pub serving: Serving,
    /// It calls that troupe.
    pub calls: Option<&'static str>,
    /// What it serves calls that one, now and then.
    pub nests: Option<&'static str>,
    /// Its calls are open at a time.
    pub depth: u64,
    pub collator: Collator,
}

impl Part {
    pub fn server(name: &'static str, nodes: &[usize]) -> Self {
        Self {
            name,
            nodes: nodes.to_vec(),
            serving: Serving::default(),
            calls: None,
            nests: None,
            depth: 0,
            collator: Collator::First,
        }
    }

    pub fn client(name: &'static str, nodes: &[usize], server: &'static str, depth: u64) -> Self {
        Self { calls: Some(server), depth, ..Self::server(name, nodes) }
    }

    fn id(&self) -> TroupeName {
        TroupeName::new(self.name)
    }
}

/// A replica, in one boot.
#[derive(Clone, Debug)]
pub struct Replica {
    pub part: usize,
    pub node: usize,
    pub boot: BootId,
    pub is_full: bool,
    /// Tags in the order of their executions; what a member with an older state gave included.
    pub log: Vec<u64>,
    /// As a client: calls that are over, all before included.
    pub done: u64,
    /// And those that are over ahead.
    ahead: BTreeSet<u64>,
    issued: u64,
    /// How often the troupe has begun with its first state.
    generation: u64,
    /// Up to where it has heard the order.
    heard: usize,
    next_heard: Instant,
}

/// An execution.
#[derive(Clone, Debug)]
struct Work {
    boot: BootId,
    node: usize,
    part: usize,
    ticket: Ticket,
    tag: u64,
    until: Instant,
    /// The nested call that it waits for.
    waits: Option<u64>,
    under: u64,
}

pub struct Play {
    pub world: World<ServiceNode<Event>>,
    pub parts: Vec<Part>,
    pub replicas: Vec<Replica>,
    pub rng: Rng,
    work: Vec<Work>,
    todo: Vec<(usize, BootId, Command)>,
    /// What is open, by token: the boot, its part, and the number of the call or the ticket that waits.
    tokens: BTreeMap<u64, (BootId, usize, u64)>,
    last: u64,
    joined: BTreeSet<(BootId, usize)>,
    /// The total order of each troupe that has one.
    pub order: BTreeMap<usize, Vec<Bytes>>,
    /// What each client was told of each call.
    pub outcomes: BTreeMap<u64, Outcome>,
    pub told: BTreeMap<u64, u32>,
    pub answers: BTreeMap<u64, Vec<(BootId, Answer)>>,
    /// The greatest number that some replica of a client has called.
    issued: BTreeMap<usize, u64>,
    generations: BTreeMap<usize, u64>,
    /// All that had the state of the troupe have failed.
    pub lost: BTreeSet<usize>,
    /// Of each client the tag of the last call that it had made when what it calls began anew. Those before may have come to anything: by the assumption
    /// T-A4 some member with the state survives.
    shaken: BTreeMap<usize, u64>,
    /// Its answers are wrong: one node; or all differ.
    pub liar: Option<usize>,
    pub is_random: bool,
    /// A replica of a client that says something else than the others.
    pub wrong_client: Option<usize>,
    pub is_open: bool,
    pub executions: u64,
    pub undone: u64,
    pub micros: u64,
    pub deadline: Duration,
    /// Executions whose effect does not count yet.
    held: BTreeMap<(BootId, Ticket), (usize, u64)>,
    /// So many members a boot knows of a troupe.
    pub members: BTreeMap<(BootId, usize), usize>,
    /// Nodes that were drained.
    pub drained: Vec<usize>,
    wrong: Option<String>,
    is_traced: bool,
    nodes: usize,
}

pub fn setup(config: impl Fn(Config) -> Config + 'static) -> Setup<Event> {
    let setup = Setup::new(move |node| {
        let now = Config::new(node.roster[0], node.now.as_nanos() + 1);
        let mut config = config(now);
        if node.now > Instant::ZERO + Duration::from_millis(50) {
            // No fault lasts so long: somebody tells a binding agent that was started again what was.
            config.settle = Duration::from_millis(1_500);
        }
        node.mount::<Troupes>(instance(), config);
        node.read::<Troupes>(instance(), |event| event);
    });
    setup.window(16)
}

pub fn short(config: Config) -> Config {
    Config {
        settle: Duration::from_millis(60),
        patience: Duration::from_secs(30),
        probe: Duration::from_millis(200),
        retain: Duration::from_secs(20),
        commit_within: Duration::from_millis(40),
        cast_again: Duration::from_millis(100),
        ..config
    }
}

/// What the tag of a call says: whose it is, and which.
pub fn tag(part: usize, generation: u64, number: u64) -> u64 {
    (part as u64 + 1) << 48 | generation << 40 | number
}

/// What an execution comes to.
pub fn value(tag: u64, under: u64) -> u64 {
    tag.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) ^ under
}

fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

fn bytes(word: u64) -> Bytes {
    Bytes::copy_from_slice(&word.to_le_bytes())
}

impl Play {
    pub fn new(
        seed: u64,
        nodes: usize,
        parts: Vec<Part>,
        setup: Setup<Event>,
        options: Options,
        schedule: Vec<FaultEvent>,
    ) -> Self {
        Self {
            world: World::with_schedule(seed, nodes, setup, options, schedule),
            parts,
            replicas: Vec::new(),
            rng: Rng::new(seed).stream("play"),
            work: Vec::new(),
            todo: Vec::new(),
            tokens: BTreeMap::new(),
            last: 0,
            joined: BTreeSet::new(),
            order: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            told: BTreeMap::new(),
            answers: BTreeMap::new(),
            issued: BTreeMap::new(),
            generations: BTreeMap::new(),
            lost: BTreeSet::new(),
            shaken: BTreeMap::new(),
            liar: None,
            is_random: false,
            wrong_client: None,
            is_open: true,
            executions: 0,
            undone: 0,
            micros: 3_000,
            deadline: Duration::from_secs(60),
            held: BTreeMap::new(),
            members: BTreeMap::new(),
            drained: Vec::new(),
            wrong: None,
            is_traced: std::env::var("TROUPE_TRACE").is_ok(),
            nodes,
        }
    }

    pub fn fail(&mut self, what: String) {
        if self.wrong.is_none() {
            self.wrong = Some(format!("{:?}: {what}", self.world.now()));
        }
    }

    pub fn node_of(&self, boot: BootId) -> usize {
        self.world.roster().iter().position(|it| *it == boot.node).unwrap()
    }

    pub fn is_alive(&self, boot: BootId) -> bool {
        let node = self.node_of(boot);
        self.world.node(node).is_some() && self.world.boot(node) == boot
    }

    pub fn give(&mut self, node: usize, boot: BootId, command: Command) {
        if self.is_traced {
            println!("{:?} {node} <- {command:?}", self.world.now());
        }
        self.todo.push((node, boot, command));
    }

    fn flush(&mut self) {
        let mut held = BTreeSet::new();
        for (node, boot, command) in std::mem::take(&mut self.todo) {
            if !self.is_alive(boot) {
                continue;
            }
            if !self.world.is_up(node) || held.contains(&node) {
                held.insert(node);
                self.todo.push((node, boot, command));
                continue;
            }
            let give =
                |it: &mut ServiceNode<Event>, now| it.command::<Troupes>(now, instance(), command);
            self.world.call(node, give);
        }
    }

    /// New boots join what their nodes belong to.
    fn join(&mut self) {
        for part in 0..self.parts.len() {
            for node in self.parts[part].nodes.clone() {
                let boot = self.world.boot(node);
                if !self.world.is_up(node) || !self.joined.insert((boot, part)) {
                    continue;
                }
                self.replicas.retain(|it| it.node != node || it.part != part);
                let heard = self.order.get(&part).map_or(0, Vec::len);
                self.replicas.push(Replica {
                    part,
                    node,
                    boot,
                    is_full: false,
                    log: Vec::new(),
                    done: 0,
                    ahead: BTreeSet::new(),
                    issued: 0,
                    generation: 0,
                    heard,
                    next_heard: self.world.now(),
                });
                let serving = Serving { from: heard as u64, ..self.parts[part].serving };
                let troupe = self.parts[part].id();
                self.give(node, boot, Command::Join { troupe, serving });
            }
        }
        let world = &self.world;
        let lives = |boot: BootId| {
            let node = world.roster().iter().position(|it| *it == boot.node).unwrap();
            world.node(node).is_some() && world.boot(node) == boot
        };
        self.work.retain(|work| lives(work.boot));
    }

    fn part_of(&self, troupe: TroupeName) -> usize {
        self.parts.iter().position(|part| part.id() == troupe).unwrap()
    }

    fn replica(&mut self, boot: BootId, part: usize) -> Option<&mut Replica> {
        self.replicas.iter_mut().find(|it| it.boot == boot && it.part == part)
    }

    fn on_event(&mut self, boot: BootId, at: Instant, event: Event) {
        if !self.is_alive(boot) {
            return;
        }
        match event {
            Event::Execute(execution) => self.on_execute(boot, at, &execution),
            Event::Over { token, outcome } => self.on_over(boot, token, outcome),
            Event::Answer { token, from, answer, .. } => {
                self.answers.entry(token).or_default().push((from, answer));
            }
            Event::Joined { troupe, is_first, is_lost } => {
                self.on_joined(boot, troupe, is_first, is_lost);
            }
            Event::Left { troupe } => self.on_left(boot, troupe),
            Event::StateWanted { troupe } => self.on_wanted(boot, troupe),
            Event::Restore { troupe, state } => self.on_restore(boot, troupe, &state),
            Event::Order { troupe, call } => {
                let part = self.part_of(troupe);
                self.order.entry(part).or_default().push(call);
            }
            Event::Decided { ticket, counts } => self.on_decided(boot, ticket, counts),
            Event::Changed { troupe, binding } => {
                // A troupe that nobody is a member of is none of the play.
                if let Some(part) = self.parts.iter().position(|part| part.id() == troupe) {
                    self.members.insert((boot, part), binding.members.len());
                }
            }
            Event::Drained => self.drained.push(self.node_of(boot)),
        }
    }

    fn on_joined(&mut self, boot: BootId, troupe: TroupeName, is_first: bool, is_lost: bool) {
        let part = self.part_of(troupe);
        let others: Vec<BootId> = self
            .replicas
            .iter()
            .filter(|it| it.part == part && it.is_full && it.boot != boot)
            .map(|it| it.boot)
            .collect();
        let other = others.into_iter().find(|it| self.is_alive(*it));
        if is_first && let Some(other) = other {
            return self.fail(format!(
                "RPC-41: {boot:?} begins {} anew, {other:?} has its state",
                self.parts[part].name
            ));
        }
        // Who was to give the first state may have failed before there was one: then nothing is lost.
        let was_there = self.generations.contains_key(&part);
        if is_lost && !is_first {
            return self.fail(format!("{boot:?} has lost a state and got it"));
        }
        if is_first && was_there {
            self.lost.insert(part);
            self.shake(part);
        }
        let generation = self.generations.get(&part).copied().unwrap_or(0) + u64::from(is_first);
        self.generations.insert(part, generation);
        if let Some(replica) = self.replica(boot, part) {
            replica.is_full = true;
            if is_first {
                replica.generation = generation - 1;
            }
        }
        if is_first {
            self.issued.remove(&part);
        }
    }

    fn on_left(&mut self, boot: BootId, troupe: TroupeName) {
        let part = self.part_of(troupe);
        self.work.retain(|work| work.boot != boot || work.part != part);
        self.replicas.retain(|it| it.boot != boot || it.part != part);
        self.tokens.retain(|_, (of, whose, _)| *of != boot || *whose != part);
        // It tries again as a new member.
        self.joined.remove(&(boot, part));
    }

    fn on_wanted(&mut self, boot: BootId, troupe: TroupeName) {
        let part = self.part_of(troupe);
        let node = self.node_of(boot);
        let Some(replica) = self.replica(boot, part) else { return };
        let mut state = replica.done.to_le_bytes().to_vec();
        state.extend(replica.generation.to_le_bytes());
        // What was told is in the state: also what is over before an earlier one is.
        state.extend((replica.ahead.len() as u64).to_le_bytes());
        replica.ahead.iter().for_each(|number| state.extend(number.to_le_bytes()));
        replica.log.iter().for_each(|tag| state.extend(tag.to_le_bytes()));
        self.give(node, boot, Command::State { troupe, state: Some(state.into()) });
    }

    fn on_restore(&mut self, boot: BootId, troupe: TroupeName, state: &Bytes) {
        let part = self.part_of(troupe);
        let node = self.node_of(boot);
        let Some(replica) = self.replica(boot, part) else { return };
        let mut words = state.chunks(8).map(word);
        replica.done = words.next().unwrap();
        replica.issued = replica.done;
        replica.generation = words.next().unwrap();
        let ahead = words.next().unwrap();
        replica.ahead = words.by_ref().take(ahead as usize).collect();
        replica.log = words.collect();
        self.give(node, boot, Command::Restored { troupe });
    }

    fn on_execute(&mut self, boot: BootId, at: Instant, execution: &Execution) {
        let (part, node) = (self.part_of(execution.troupe), self.node_of(boot));
        let tag = word(&execution.arguments);
        self.executions += 1;
        let Some(replica) = self.replica(boot, part) else { return };
        if !replica.is_full {
            return self.fail(format!("{boot:?} executes {tag:x} before it has the state"));
        }
        let twice = replica.log.contains(&tag);
        replica.log.push(tag);
        if twice {
            let name = self.parts[part].name;
            return self.fail(format!("RPC-40: {name} at node {node} executes {tag:x} twice"));
        }
        let until = at + Duration::from_micros(self.rng.below(self.micros.max(1)));
        let mut waits = None;
        if let Some(server) = self.parts[part].nests.filter(|_| tag.is_multiple_of(3)) {
            // The tag of a nested call follows from that of its parent, as its arguments do.
            let request = self.request(TroupeName::new(server), tag | 1 << 39);
            let request = Request { parent: Some(execution.ticket), ..request };
            waits = Some(request.token);
            self.tokens.insert(request.token, (boot, part, execution.ticket.0));
            self.give(node, boot, Command::Call(request));
        }
        let ticket = execution.ticket;
        self.work.push(Work { boot, node, part, ticket, tag, until, waits, under: 0 });
    }

    fn request(&mut self, server: TroupeName, tag: u64) -> Request {
        self.last += 1;
        Request {
            token: self.last,
            caller: None,
            thread: 1,
            number: 0,
            server,
            procedure: WORK,
            version: 1,
            arguments: bytes(tag),
            collator: Collator::First,
            deadline: self.deadline,
            parent: None,
            context: Bytes::new(),
        }
    }

    fn on_decided(&mut self, boot: BootId, ticket: Ticket, counts: bool) {
        // The tag of a held execution is the last of its replica.
        let held = self.held.remove(&(boot, ticket));
        let Some((part, tag)) = held else { return };
        if counts {
            return;
        }
        self.undone += 1;
        let Some(replica) = self.replica(boot, part) else { return };
        let last = replica.log.pop();
        if last != Some(tag) {
            self.fail(format!("RPC-43: {tag:x} is undone behind {last:x?}"));
        }
    }

    fn on_over(&mut self, boot: BootId, token: u64, outcome: Outcome) {
        let Some((of, part, number)) = self.tokens.remove(&token) else { return };
        if of != boot {
            return self.fail(format!("{boot:?} is told of a call of {of:?}"));
        }
        if let Some(work) = self.work.iter_mut().find(|it| it.waits == Some(token)) {
            work.waits = None;
            match outcome {
                Outcome::Done(value) => work.under = word(&value),
                // Its client has failed in the middle of the call, so other replicas do not make this one.
                Outcome::Failed(_)
                    if self.lost.contains(&((work.tag >> 48) as usize - 1))
                        || self.lost.contains(&work.part) => {}
                other => {
                    let tag = work.tag;
                    self.fail(format!("RPC-47: the nested call of {tag:x} has failed: {other:?}"));
                }
            }
            return;
        }
        let Some(generation) = self.replica(boot, part).map(|it| it.generation) else { return };
        let tag = tag(part, generation, number);
        *self.told.entry(tag).or_default() += 1;
        match self.outcomes.get(&tag) {
            Some(former) if *former != outcome && !self.is_random && !self.is_shaken(tag) => {
                let (name, former) = (self.parts[part].name, former.clone());
                self.fail(format!(
                    "RPC-45: replicas of {name} are told {former:?} and {outcome:?} of call {number}"
                ));
            }
            _ => drop(self.outcomes.insert(tag, outcome)),
        }
        if let Some(replica) = self.replica(boot, part) {
            replica.ahead.insert(number);
            while replica.ahead.remove(&(replica.done + 1)) {
                replica.done += 1;
            }
        }
    }

    /// Lets clients call and executions end.
    fn perform(&mut self) {
        let now = self.world.now();
        for at in 0..self.replicas.len() {
            let Replica { part, node, boot, is_full, done, issued, generation, .. } =
                self.replicas[at].clone();
            let Some(server) = self.parts[part].calls.filter(|_| is_full) else { continue };
            let most = match self.is_open {
                true => done + self.parts[part].depth,
                // Replicas that are behind come to where the first one is.
                false => self.issued.get(&part).copied().unwrap_or(0),
            };
            let issued = issued.max(done);
            if issued >= most.min(done + self.parts[part].depth) {
                continue;
            }
            let number = issued + 1;
            self.replicas[at].issued = number;
            if self.replicas[at].ahead.contains(&number) {
                continue;
            }
            let greatest = self.issued.entry(part).or_default();
            *greatest = number.max(*greatest);
            let (caller, collator) = (Some(self.parts[part].id()), self.parts[part].collator);
            let request = self.request(TroupeName::new(server), tag(part, generation, number));
            let mut request = Request { caller, number, collator, ..request };
            if self.wrong_client == Some(node) {
                request.arguments = bytes(tag(part, generation, number) | 1 << 38);
            }
            self.tokens.insert(request.token, (boot, part, number));
            self.give(node, boot, Command::Call(request));
        }
        let mut over = Vec::new();
        self.work.retain(|work| {
            let is_due = work.waits.is_none() && work.until <= now;
            if is_due {
                over.push(work.clone());
            }
            !is_due
        });
        for Work { boot, node, part, ticket, tag, under, .. } in over {
            let mut result = value(tag, under);
            if self.is_random || self.liar == Some(node) {
                result ^= 1 + node as u64;
            }
            if self.parts[part].serving.sequence == Sequence::Commit {
                self.held.insert((boot, ticket), (part, tag));
            }
            let result = Finish::Value(bytes(result));
            self.give(node, boot, Command::Finished { ticket, result });
        }
        self.deliver();
    }

    /// Each member hears the order, in order, in its time.
    fn deliver(&mut self) {
        let now = self.world.now();
        for at in 0..self.replicas.len() {
            let Replica { part, node, boot, heard, next_heard, .. } = self.replicas[at].clone();
            let Some(call) = self.order.get(&part).and_then(|it| it.get(heard)).cloned() else {
                continue;
            };
            if next_heard > now {
                continue;
            }
            self.replicas[at].heard += 1;
            let wait = Duration::from_micros(self.rng.below(2_000));
            self.replicas[at].next_heard = now + wait;
            let troupe = self.parts[part].id();
            let position = heard as u64 + 1;
            self.give(node, boot, Command::Ordered { troupe, position, call });
        }
    }

    pub fn step(&mut self) -> Result<(), String> {
        self.world.run(STEP).map_err(|stuck| stuck.to_string())?;
        for (boot, at, event) in self.world.take_events() {
            if self.is_traced {
                println!("{at:?} {}: {event:?}", self.node_of(boot));
            }
            self.on_event(boot, at, event);
        }
        self.join();
        self.perform();
        self.flush();
        match self.wrong.take() {
            Some(wrong) => Err(wrong),
            None => Ok(()),
        }
    }

    pub fn run(&mut self, time: Duration) -> Result<(), String> {
        let end = self.world.now() + time;
        while self.world.now() < end {
            self.step()?;
        }
        Ok(())
    }

    /// Runs until something is so.
    pub fn until(
        &mut self,
        what: &str,
        limit: Duration,
        is: impl Fn(&Self) -> bool,
    ) -> Result<(), String> {
        let end = self.world.now() + limit;
        while !is(self) {
            if self.world.now() >= end {
                return Err(format!("{:?}: not in {limit:?}: {what}", self.world.now()));
            }
            self.step()?;
        }
        Ok(())
    }

    pub fn status(&self, node: usize) -> Option<mainstay_troupe::Status> {
        let service = self.world.node(node)?.service::<Troupes>(instance())?;
        Some(mainstay_base::service::Service::status(service))
    }

    pub fn all_full(&self) -> bool {
        let wanted: usize = self.parts.iter().map(|part| part.nodes.len()).sum();
        self.replicas.iter().filter(|it| it.is_full && self.is_alive(it.boot)).count() == wanted
    }

    pub fn logs(&self, name: &str) -> Vec<Vec<u64>> {
        let of = |it: &&Replica| self.parts[it.part].name == name && it.is_full;
        self.replicas.iter().filter(of).map(|it| it.log.clone()).collect()
    }

    pub fn sent(&self) -> u64 {
        (0..self.nodes).filter_map(|node| self.status(node)).map(|it| it.sent).sum()
    }
}

/// The name of a call, for tests of what names it.
pub fn call_id(root: &str, path: &[u64]) -> CallId {
    CallId {
        root: TroupeName::new(root),
        born: mainstay_troupe::Version::SOLO,
        thread: 1,
        path: path.to_vec(),
    }
}
