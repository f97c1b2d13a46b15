//! Nodes that call each other, what executes their calls, and an oracle that counts executions by unique tags.
#![allow(dead_code, reason = "each test uses its part")]

pub mod hand;
pub mod kind;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mainstay_base::{BootId, ClusterId, Duration, Instance, Instant, NodeId, Rng};
use mainstay_rpc::{
    CallName, Command, Config, Event, Executed, Execution, Finish, Outcome, ProcedureId, Reason,
    Request, Rpc, Semantics, Ticket,
};
use mainstay_sim::service::{ServiceNode, Setup};
use mainstay_sim::{FaultEvent, Options, World};

pub const PROCEDURE: ProcedureId = ProcedureId::new("test.work");
const STEP: Duration = Duration::from_micros(500);
/// No call that has a name has more time.
pub const LONGEST: Duration = Duration::from_secs(2);

pub fn instance() -> Instance {
    Instance::new(ClusterId::from_entropy(1), "rpc")
}

/// What the arguments say: the tag, how long it takes, whether it calls on.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub tag: u64,
    pub micros: u64,
    /// Another node is called for as long.
    pub nested: Option<(u8, u64)>,
}

impl Task {
    pub fn encode(self) -> Bytes {
        let (node, tag) = self.nested.map_or((u64::MAX, 0), |(node, tag)| (u64::from(node), tag));
        let words = [self.tag, self.micros, node, tag];
        words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    fn decode(bytes: &Bytes) -> Self {
        let word = |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().unwrap());
        let nested = (word(2) != u64::MAX).then(|| (word(2) as u8, word(3)));
        Self { tag: word(0), micros: word(1), nested }
    }
}

/// A call, as the oracle knows it.
#[derive(Clone, Debug)]
pub struct Called {
    pub client: BootId,
    pub server: usize,
    pub semantics: Semantics,
    pub lane: Option<u32>,
    pub at: Instant,
    pub deadline: Duration,
    pub parent: Option<u64>,
    /// It has a name, that of this call: its own, or that of an earlier one for whose caller it stands in.
    pub root: Option<u64>,
    pub outcome: Option<Outcome>,
    pub over: Option<Instant>,
    /// Each execution that began.
    pub begun: u32,
    /// Each execution whose result the service took.
    pub ended: u32,
}

/// An execution at a node.
#[derive(Clone, Debug)]
pub struct Work {
    pub node: usize,
    pub boot: BootId,
    pub ticket: Ticket,
    pub tag: u64,
    pub begun: Instant,
    until: Instant,
    /// The nested call that it waits for.
    waits: Option<u64>,
    /// It was told to stop, and does so then.
    pub stops: Option<Instant>,
    left: Duration,
    /// Steps for which it should have been told to stop, or its nested call should have been taken back.
    overdue: u32,
}

/// What is drawn.
#[derive(Clone, Debug)]
pub struct Mix {
    pub semantics: Vec<Semantics>,
    /// Chance in 1,000 that a call is in a lane.
    pub lanes: u64,
    /// Chance in 1,000 that an execution calls on.
    pub nested: u64,
    pub micros: u64,
    pub deadline: (u64, u64),
    /// Chance in 1,000 that a call is taken back.
    pub cancel: u64,
    /// How long an execution takes to stop.
    pub stopping: u64,
    /// A call each so many microseconds.
    pub every: u64,
    /// Chance in 1,000 that an execution does not end by itself.
    pub endless: u64,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            semantics: vec![
                Semantics::ExactlyOnce,
                Semantics::ExactlyOnce,
                Semantics::ExactlyOnce,
                Semantics::AtMostOnce,
                Semantics::AtLeastOnce,
                Semantics::AtLeastOnce,
                Semantics::Maybe,
            ],
            lanes: 600,
            nested: 150,
            micros: 20_000,
            deadline: (20, 900),
            cancel: 50,
            stopping: 4_000,
            every: 6_000,
            endless: 0,
        }
    }
}

pub struct Play {
    pub world: World<ServiceNode<Event>>,
    pub calls: BTreeMap<u64, Called>,
    pub work: Vec<Work>,
    pub mix: Mix,
    nodes: usize,
    rng: Rng,
    tags: u64,
    next: Instant,
    served: BTreeMap<usize, BootId>,
    /// Those that were taken back.
    cancelled: BTreeSet<u64>,
    /// Calls of executions that were told to stop, and for how many steps they have been open since.
    orphaned: Vec<(u64, u32)>,
    /// What the test knows to be wrong.
    wrong: Option<String>,
    /// Executions of a lane that began, by client boot and server boot.
    lanes: BTreeMap<(BootId, u32, BootId), u64>,
    /// Orphans are adopted: half of the calls have names, and others call by the same ones.
    pub adopts: bool,
    /// Calls with names of their own, and what they are.
    named: Vec<(u64, Task)>,
    /// How often each of them was executed by each boot of its server.
    adopted: BTreeMap<(u64, BootId), u32>,
}

pub const NODES: usize = 3;

pub fn setup(config: impl Fn(u64) -> Config + 'static, lost: u64) -> Setup<Event> {
    let setup = Setup::new(move |node| {
        let config = config(node.now.as_nanos() + 1);
        node.mount::<Rpc>(instance(), config);
        node.read::<Rpc>(instance(), |event| event);
    });
    setup.window(16).datagrams_lost(lost).compact_after(60)
}

impl Play {
    pub fn new(
        seed: u64,
        nodes: usize,
        setup: Setup<Event>,
        options: Options,
        schedule: Vec<FaultEvent>,
    ) -> Self {
        let world = World::with_schedule(seed, nodes, setup, options, schedule);
        Self {
            world,
            calls: BTreeMap::new(),
            work: Vec::new(),
            mix: Mix::default(),
            nodes,
            rng: Rng::new(seed).stream("play"),
            tags: 0,
            next: Instant::ZERO,
            served: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            orphaned: Vec::new(),
            wrong: None,
            lanes: BTreeMap::new(),
            adopts: false,
            named: Vec::new(),
            adopted: BTreeMap::new(),
        }
    }

    pub fn give(&mut self, node: usize, command: Command) -> bool {
        let give = |it: &mut ServiceNode<Event>, now| it.command::<Rpc>(now, instance(), command);
        self.world.call(node, give).is_some()
    }

    pub fn index(&self, node: NodeId) -> usize {
        self.world.roster().iter().position(|it| *it == node).unwrap()
    }

    /// Each boot that is up serves the procedure.
    fn serve(&mut self) {
        for node in 0..self.nodes {
            let boot = self.world.is_up(node).then(|| self.world.boot(node));
            if let Some(boot) = boot.filter(|boot| self.served.get(&node) != Some(boot)) {
                self.work.retain(|work| work.node != node || work.boot == boot);
                let serve = Command::Serve { procedure: PROCEDURE, versions: (1, 1) };
                if self.give(node, serve) {
                    self.served.insert(node, boot);
                }
            }
        }
    }

    /// Calls; the tag, if the node is up.
    #[allow(clippy::too_many_arguments, reason = "they are those of a call")]
    pub fn call(
        &mut self,
        node: usize,
        server: usize,
        semantics: Semantics,
        lane: Option<u32>,
        task: Task,
        deadline: Duration,
        parent: Option<(Ticket, u64)>,
    ) -> Option<u64> {
        self.call_as(task.tag, None, node, server, semantics, lane, task, deadline, parent)
    }

    /// The same with a name: that of the call `root`, whose task it is.
    #[allow(clippy::too_many_arguments, reason = "they are those of a call")]
    fn call_as(
        &mut self,
        tag: u64,
        root: Option<u64>,
        node: usize,
        server: usize,
        semantics: Semantics,
        lane: Option<u32>,
        task: Task,
        deadline: Duration,
        parent: Option<(Ticket, u64)>,
    ) -> Option<u64> {
        if !self.world.is_up(node) {
            return None;
        }
        self.tags += 1;
        // A nested call is named by the call that makes it.
        let name = root.filter(|_| parent.is_none());
        let request = Request {
            token: tag,
            server: self.world.roster()[server],
            procedure: PROCEDURE,
            version: 1,
            semantics,
            arguments: task.encode(),
            deadline,
            lane,
            parent: parent.map(|(ticket, _)| ticket),
            context: Bytes::new(),
            name: name.map(|root| Box::new(CallName::new(root.into()))),
            numbers: parent.iter().map(|_| 1).collect(),
        };
        let called = Called {
            client: self.world.boot(node),
            server,
            semantics,
            lane,
            at: self.world.now(),
            deadline,
            parent: parent.map(|(_, tag)| tag),
            root,
            outcome: None,
            over: None,
            begun: 0,
            ended: 0,
        };
        self.calls.insert(tag, called);
        self.give(node, Command::Call(request)).then_some(tag)
    }

    pub fn tag(&mut self) -> u64 {
        self.tags += 1_000;
        self.tags
    }

    fn other(&mut self, node: usize) -> usize {
        (node + 1 + self.rng.below(self.nodes as u64 - 1) as usize) % self.nodes
    }

    /// A call as the mix says.
    fn draw(&mut self) {
        let node = self.rng.below(self.nodes as u64) as usize;
        let server = self.other(node);
        let semantics = *self.rng.pick(&self.mix.semantics.clone()).unwrap();
        let lane = self.rng.chance(self.mix.lanes, 1_000).then(|| self.rng.below(2) as u32);
        let nested = self.rng.chance(self.mix.nested, 1_000).then(|| self.other(server) as u8);
        let (tag, under) = (self.tag(), self.tag());
        let is_endless = self.mix.endless > 0 && self.rng.chance(self.mix.endless, 1_000);
        let micros = if is_endless { 1 << 40 } else { self.rng.below(self.mix.micros) };
        let task = Task { tag, micros, nested: nested.map(|node| (node, under)) };
        let (least, most) = self.mix.deadline;
        let deadline = Duration::from_millis(self.rng.between(least, most));
        let may_adopt = matches!(semantics, Semantics::ExactlyOnce | Semantics::AtMostOnce);
        if self.adopts && self.rng.chance(1, 3) && !self.named.is_empty() {
            self.stand_in(tag, deadline);
        } else if self.adopts && may_adopt && self.rng.chance(1, 2) {
            self.named.push((tag, task));
            self.call_as(tag, Some(tag), node, server, semantics, None, task, deadline, None);
        } else {
            self.call(node, server, semantics, lane, task, deadline, None);
        }
        if self.rng.chance(self.mix.cancel, 1_000) {
            let open: Vec<u64> = self
                .calls
                .iter()
                .filter(|(_, it)| it.outcome.is_none())
                .map(|(tag, _)| *tag)
                .collect();
            if let Some(tag) = self.rng.pick(&open).copied() {
                let client = self.calls[&tag].client;
                let node = self.index(client.node);
                if self.world.is_up(node) && self.world.boot(node) == client {
                    self.cancelled.insert(tag);
                    self.give(node, Command::Cancel { token: tag });
                }
            }
        }
    }

    /// Somebody, perhaps the same node in its next life, calls by the name of one of the last calls.
    fn stand_in(&mut self, tag: u64, deadline: Duration) {
        let last = self.named.len().saturating_sub(8);
        let Some((root, task)) = self.rng.pick(&self.named[last..]).copied() else { return };
        let Some(Called { server, semantics, .. }) = self.calls.get(&root).cloned() else { return };
        let node = self.other(server);
        self.call_as(tag, Some(root), node, server, semantics, None, task, deadline, None);
    }

    fn fail(&mut self, what: String) {
        if self.wrong.is_none() {
            self.wrong = Some(format!("{:?}: {what}", self.world.now()));
        }
    }

    fn on_event(&mut self, boot: BootId, at: Instant, event: Event) {
        let node = self.index(boot.node);
        match event {
            Event::Over { token, outcome } => self.on_over(boot, at, token, outcome),
            Event::Execute(execution) => self.on_execute(node, boot, at, execution),
            Event::Stop { ticket } => {
                let takes = Duration::from_micros(self.rng.below(self.mix.stopping.max(1)));
                let of = |it: &&mut Work| it.boot == boot && it.ticket == ticket;
                if let Some(work) = self.work.iter_mut().find(of) {
                    work.stops = Some(at + takes);
                    self.orphaned.extend(work.waits.map(|tag| (tag, 0)));
                }
            }
            _ => {}
        }
    }

    fn on_over(&mut self, boot: BootId, at: Instant, tag: u64, outcome: Outcome) {
        let Some(call) = self.calls.get_mut(&tag) else {
            return self.fail(format!("an outcome of a call that was not made: {tag}"));
        };
        if call.client != boot {
            return self.fail(format!("call {tag} of another boot is over"));
        }
        if let Some(former) = call.outcome.replace(outcome.clone()) {
            return self.fail(format!("RPC-9: call {tag} is over twice: {former:?}, {outcome:?}"));
        }
        call.over = Some(at);
        let deadline = call.at + call.deadline;
        if let Outcome::Done(value) = &outcome
            && call.semantics != Semantics::Maybe
            && value[..] != call.root.unwrap_or(tag).to_le_bytes()
        {
            self.fail(format!("RPC-8: call {tag} got the result {value:?}"));
        }
        if at > deadline + Duration::from_secs(5) {
            self.fail(format!("call {tag} was over at {at:?}, its deadline was {deadline:?}"));
        }
        for work in &mut self.work {
            if work.waits == Some(tag) {
                work.waits = None;
            }
        }
    }

    fn on_execute(&mut self, node: usize, boot: BootId, at: Instant, execution: Execution) {
        let task = Task::decode(&execution.arguments);
        let Some(call) = self.calls.get(&task.tag).cloned() else {
            return self.fail(format!("an execution of a call that was not made: {}", task.tag));
        };
        // A named one has the time of whoever calls by the name.
        if execution.left > call.deadline && call.root.is_none() {
            self.fail(format!("RPC-20: call {} may take longer than its client waits", task.tag));
        }
        if execution.left.is_zero() {
            self.fail(format!("RPC-20: call {} begins after its deadline", task.tag));
        }
        if self.world.roster()[call.server] != boot.node {
            self.fail(format!("call {} is executed at the wrong node", task.tag));
        }
        self.check_order(boot, &call, task.tag);
        self.check_lives(boot, &call, task.tag);
        self.check_name(boot, &call, task.tag);
        let parent = self.work.iter().find(|work| Some(work.tag) == call.parent);
        if let Some(parent) = parent.filter(|_| call.root.is_none())
            && execution.left > (parent.begun + parent.left).saturating_since(call.at)
        {
            self.fail(format!("RPC-70: call {} has more time than its parent", task.tag));
        }
        self.calls.get_mut(&task.tag).unwrap().begun += 1;
        let until = at + Duration::from_micros(task.micros);
        let (ticket, left) = (execution.ticket, execution.left);
        let mut waits = None;
        if let Some((to, under)) = task.nested {
            // An execution that is repeated under a name makes the same calls; else each makes its own.
            let begun = if call.root.is_some() { 1 } else { self.calls[&task.tag].begun };
            let inner = Task { tag: under + u64::from(begun), micros: task.micros, nested: None };
            let nested = Duration::from_secs(10);
            let (parent, semantics) = (Some((ticket, task.tag)), Semantics::ExactlyOnce);
            let root = call.root.map(|_| inner.tag);
            let is_first = !self.calls.contains_key(&inner.tag);
            let tag = if is_first { inner.tag } else { self.tag() };
            waits =
                self.call_as(tag, root, node, to.into(), semantics, None, inner, nested, parent);
        }
        let (tag, begun) = (task.tag, at);
        let (stops, overdue) = (None, 0);
        self.work.push(Work { node, boot, ticket, tag, begun, until, waits, stops, left, overdue });
    }

    /// Checks RPC-20 and RPC-23: who executes is told to stop at the deadline, and what it has called is taken back when it is.
    fn check_ends(&mut self) {
        let now = self.world.now();
        let mut wrong = None;
        for work in &mut self.work {
            // A node that is paused, or busy, is told a little later.
            if !self.world.is_up(work.node) || self.world.boot(work.node) != work.boot {
                work.overdue = 0;
                continue;
            }
            let is_named = self.calls[&work.tag].root.is_some();
            // Others who call by its name may give it more time.
            let left = if is_named { work.left.max(LONGEST) } else { work.left };
            let is_late = work.stops.is_none() && work.begun + left * 21 / 20 < now;
            work.overdue = if is_late { work.overdue + 1 } else { 0 };
            if work.overdue > 40 {
                wrong = Some(format!("RPC-20: it goes on after its deadline: {work:?}"));
            }
        }
        let (calls, world) = (&self.calls, &self.world);
        self.orphaned.retain_mut(|(tag, steps)| {
            let call = &calls[tag];
            let node = world.roster().iter().position(|it| *it == call.client.node).unwrap();
            *steps = if world.is_up(node) { *steps + 1 } else { 0 };
            if *steps > 40 {
                wrong = Some(format!("RPC-23: a call of what was ended goes on: {call:?}"));
            }
            call.outcome.is_none() && world.boot(node) == call.client
        });
        wrong.into_iter().for_each(|what| self.fail(what));
    }

    /// Checks RPC-5: what runs or comes later of the same lane.
    fn check_order(&mut self, server: BootId, call: &Called, tag: u64) {
        if call.semantics == Semantics::AtLeastOnce || call.semantics == Semantics::Maybe {
            return;
        }
        let Some(lane) = call.lane else { return };
        let key = (call.client, lane, server);
        let last = self.lanes.entry(key).or_default();
        let former = std::mem::replace(last, tag.max(*last));
        if former >= tag {
            let (one, other) = (&self.calls[&tag], &self.calls[&former]);
            return self.fail(format!(
                "RPC-5: call {tag} begins after call {former} of its lane: {one:?} {other:?}"
            ));
        }
        let beside = self.work.iter().find(|work| {
            work.boot == server && {
                let it = &self.calls[&work.tag];
                let is_ordered = !matches!(it.semantics, Semantics::AtLeastOnce | Semantics::Maybe);
                it.client == call.client && it.lane == Some(lane) && is_ordered
            }
        });
        if let Some(beside) = beside {
            let beside = beside.tag;
            self.fail(format!("RPC-5: call {tag} begins while call {beside} of its lane runs"));
        }
    }

    /// Checks RPC-24, RPC-25 and RPC-72: a boot of a server executes once what has a name, whoever calls by it: a caller again or another one, and what repeated
    /// executions have called.
    fn check_name(&mut self, server: BootId, call: &Called, tag: u64) {
        if call.root.is_none() {
            return;
        }
        let count = self.adopted.entry((tag, server)).or_default();
        *count += 1;
        if *count > 1 {
            let rule = if call.parent.is_some() { "RPC-72" } else { "RPC-25" };
            self.fail(format!("{rule}: {tag} is executed again by its name: {call:?}"));
        }
    }

    /// Checks RPC-21: nothing runs for a former life of the client, but what has a name.
    fn check_lives(&mut self, server: BootId, call: &Called, tag: u64) {
        let client = call.client;
        let former = self.work.iter().find(|work| {
            let it = &self.calls[&work.tag];
            let is_former = it.client.node == client.node && it.client != client;
            work.boot == server && is_former && it.root.is_none()
        });
        let former = former.filter(|_| call.root.is_none());
        if let Some(former) = former {
            let former = former.tag;
            self.fail(format!("RPC-21: call {tag} begins, and {former} of a former life runs"));
        }
    }

    /// Lets executions end.
    fn perform(&mut self) {
        let now = self.world.now();
        let mut over = Vec::new();
        for (at, work) in self.work.iter().enumerate() {
            let is_due = work.waits.is_none() && work.until <= now;
            let stops = work.stops.is_some_and(|at| at <= now);
            if is_due || stops {
                over.push(at);
            }
        }
        for at in over.into_iter().rev() {
            let work = &self.work[at];
            let (node, ticket, tag) = (work.node, work.ticket, work.tag);
            if !self.world.is_up(node) || self.world.boot(node) != work.boot {
                if self.world.boot(node) != work.boot {
                    self.work.remove(at);
                }
                continue;
            }
            let result = match work.stops {
                // Half of those that are told to stop do not listen.
                Some(_) if tag % 2_000 == 0 => Finish::Failed,
                _ => Finish::Value(Bytes::copy_from_slice(&tag.to_le_bytes())),
            };
            self.work.remove(at);
            self.calls.get_mut(&tag).unwrap().ended += 1;
            self.give(node, Command::Finished { ticket, result });
        }
    }

    /// One step of the play.
    pub fn step(&mut self) -> Result<(), String> {
        self.world.run(STEP).map_err(|stuck| stuck.to_string())?;
        for (boot, at, event) in self.world.take_events() {
            self.on_event(boot, at, event);
        }
        self.serve();
        self.perform();
        self.check_ends();
        match self.wrong.take() {
            Some(wrong) => Err(wrong),
            None => Ok(()),
        }
    }

    /// Calls are drawn for so long.
    pub fn work(&mut self, time: Duration) -> Result<(), String> {
        let end = self.world.now() + time;
        while self.world.now() < end {
            if self.next <= self.world.now() {
                self.draw();
                self.next = self.world.now()
                    + Duration::from_micros(1 + self.rng.below(2 * self.mix.every));
            }
            self.step()?;
        }
        Ok(())
    }

    pub fn rest(&mut self, time: Duration) -> Result<(), String> {
        let end = self.world.now() + time;
        while self.world.now() < end {
            self.step()?;
        }
        Ok(())
    }

    /// All faults are healed: all calls of living clients come to an end, and all that is executed does.
    pub fn finish(&mut self) -> Result<(), String> {
        self.world.heal();
        let end = self.world.now() + Duration::from_secs(30);
        while self.world.now() < end {
            self.step()?;
            let open = self.calls.values().any(|call| {
                let node = self.index(call.client.node);
                call.outcome.is_none()
                    && self.world.is_up(node)
                    && self.world.boot(node) == call.client
            });
            if !open && self.work.is_empty() {
                break;
            }
        }
        self.rest(Duration::from_millis(200))?;
        self.check()
    }

    /// Checks RPC-1, RPC-2, RPC-3 and RPC-74: what each caller was told is true.
    pub fn check(&self) -> Result<(), String> {
        // Those who call by a name, of whom none was told that it was surely not executed for him.
        let (mut callers, mut denied) = (BTreeMap::<u64, u32>::new(), BTreeMap::<u64, u32>::new());
        for (tag, call) in &self.calls {
            let root = call.root.unwrap_or(*tag);
            *callers.entry(root).or_default() += 1;
            let is_denied = matches!(&call.outcome, Some(Outcome::Failed(failure)) if failure.executed == Executed::NotAtAll);
            *denied.entry(root).or_default() += u32::from(is_denied);
        }
        for (tag, call) in &self.calls {
            let (root, semantics) = (call.root.unwrap_or(*tag), call.semantics);
            let count = self.calls[&root].begun;
            // Each of the others who call by a name may have it executed, at one boot of the server each: what they did, this one is not told.
            let may = callers[&root] - denied[&root];
            let most = if semantics == Semantics::AtLeastOnce { u32::MAX } else { may };
            let (least, most) = match &call.outcome {
                Some(Outcome::Done(_)) if semantics == Semantics::Maybe => (0, 1),
                Some(Outcome::Done(_) | Outcome::Remote(_)) => (1, most),
                Some(Outcome::Failed(failure)) => match failure.executed {
                    Executed::Unknown => (0, u32::MAX),
                    Executed::NotAtAll | Executed::NotMoreThanOnce | Executed::NoneOrComplete => {
                        (0, may)
                    }
                },
                None => {
                    let node = self.index(call.client.node);
                    if self.world.is_up(node) && self.world.boot(node) == call.client {
                        return Err(format!("call {tag} is never over: {call:?}"));
                    }
                    (0, most)
                }
            };
            if !(least..=most).contains(&count) {
                let rule = match (semantics, &call.outcome) {
                    (Semantics::AtLeastOnce, Some(Outcome::Done(_) | Outcome::Remote(_))) => {
                        "RPC-1"
                    }
                    _ => "RPC-74",
                };
                return Err(format!("{rule}: call {tag} was executed {count} times: {call:?}"));
            }
        }
        Ok(())
    }

    /// How many calls ended like this.
    pub fn count(&self, is: impl Fn(&Outcome) -> bool) -> usize {
        self.calls.values().filter(|call| call.outcome.as_ref().is_some_and(&is)).count()
    }

    pub fn failed(&self, reason: Reason) -> usize {
        self.count(|it| matches!(it, Outcome::Failed(failure) if failure.reason == reason))
    }

    pub fn done(&self) -> usize {
        self.count(|it| matches!(it, Outcome::Done(_)))
    }
}
