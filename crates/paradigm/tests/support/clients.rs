//! A client against a model of nodes, on virtual time: connections break at any point, nodes go and come back or are no
//! members, tries get lost, are ordered late, answered twice or not at all, and sessions are evicted.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mainstay_base::{
    ClusterId, ConnId, Duration, Frame, Instant, Machine as _, NodeId, Position, Rng,
};
use mainstay_paradigm::client::message::{Reply, Request, Standing, VERSION};
use mainstay_paradigm::client::{Client, Config, Input, NotDone, Outcome as Fate, Output};
use mainstay_paradigm::{Envelope, Outcome, Replica};

use super::{Ledger, deliver_at, outcomes, replica};

const NAMES: [&str; 3] = ["a", "b", "c"];
const CALLS: u64 = 24;
const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// What all runs together have come by: a check that the schedules are worth something.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Totals {
    pub(crate) done: u64,
    pub(crate) done_after_loss: u64,
    pub(crate) not_done: u64,
    pub(crate) unknown: u64,
    pub(crate) unknown_executed: u64,
    pub(crate) sessions: u64,
    pub(crate) duplicates: u64,
}

enum Event {
    Call(u64),
    Connected(ConnId),
    Broken(ConnId),
    ToNode(ConnId, Frame),
    ToClient(ConnId, Frame),
    /// A message takes its place in the order; whom to tell.
    Ordered(Bytes, Option<(ConnId, u64)>),
    /// A node fails, comes back, leaves the group or enters it.
    Change(usize),
    Wake,
}

struct Connection {
    node: usize,
    boot: u32,
    /// Neither side has ended it.
    stands: bool,
    /// The latest arrivals, each way: a stream keeps its order.
    up: u64,
    down: u64,
}

#[derive(Clone, Copy)]
struct Node {
    boot: u32,
    up: bool,
    member: bool,
}

struct Call {
    command: Option<String>,
    deadline: u64,
    answers: Vec<Fate>,
}

struct World {
    rng: Rng,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    last: u64,
    client: Client,
    ids: Vec<NodeId>,
    nodes: [Node; 3],
    view: u64,
    connections: BTreeMap<ConnId, Connection>,
    replica: Replica<Ledger>,
    calls: Vec<Call>,
    /// Tries of each command that reached a node.
    tries: BTreeMap<String, u64>,
    ended: bool,
    wake: Option<u64>,
}

/// Runs one schedule; an error says which check failed.
pub(crate) fn run(
    seed: u64,
    #[cfg(feature = "test-util")] fault: Option<mainstay_paradigm::client::Fault>,
    totals: &mut Totals,
) -> Result<(), String> {
    let mut world = World::new(seed);
    #[cfg(feature = "test-util")]
    if let Some(fault) = fault {
        world.client = world.client.clone().with_fault(fault);
    }
    world.run();
    world.judge(totals).map_err(|wrong| format!("seed {seed}: {wrong}"))
}

impl World {
    fn new(seed: u64) -> Self {
        let cluster = ClusterId::from_entropy(1);
        let ids: Vec<NodeId> = NAMES.iter().map(|name| NodeId::new(cluster, name)).collect();
        let config = Config::new(cluster, ids.iter().copied().collect())
            .in_flight(4)
            .patience(Duration::from_millis(300), Duration::from_millis(800))
            .idle(Duration::from_millis(500), Duration::from_secs(3));
        let client = Client::new(config, u128::from(seed) << 32, seed).unwrap();
        let mut world = Self {
            rng: Rng::new(seed).stream("world"),
            now: 0,
            events: BTreeMap::new(),
            last: 0,
            client,
            ids,
            nodes: [Node { boot: 0, up: true, member: true }; 3],
            view: 1,
            connections: BTreeMap::new(),
            replica: replica(0),
            calls: Vec::new(),
            tries: BTreeMap::new(),
            ended: false,
            wake: None,
        };
        for call in 0..CALLS {
            let at = world.rng.below(12 * SECOND);
            world.at(at, Event::Call(call));
        }
        for _ in 0..world.rng.below(30) {
            let (at, node) = (world.rng.below(12 * SECOND), world.rng.below(3) as usize);
            world.at(at, Event::Change(node));
        }
        // Other clients, whose sessions drive this one's out.
        for other in 0..world.rng.below(12) {
            let at = world.rng.below(12 * SECOND);
            let open = Envelope::Open { id: 1_000 + u128::from(other) }.encode(b"");
            world.at(at, Event::Ordered(open, None));
        }
        world
    }

    fn at(&mut self, at: u64, event: Event) {
        self.last += 1;
        self.events.insert((at.max(self.now), self.last), event);
    }

    fn run(&mut self) {
        self.turn(None);
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = at;
            self.step(event);
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Call(_) => self.call(),
            Event::Connected(conn) => self.turn(Some(Input::Connected { conn })),
            Event::Broken(conn) => self.turn(Some(Input::Disconnected { conn })),
            Event::ToClient(conn, frame) => self.turn(Some(Input::Received { conn, frame })),
            Event::ToNode(conn, frame) => self.at_node(conn, frame),
            Event::Ordered(payload, whom) => self.ordered(&payload, whom),
            Event::Change(node) => self.change(node),
            Event::Wake => {
                self.client.handle_timeout(Instant::from_nanos(self.now));
                self.turn(None);
            }
        }
    }

    fn call(&mut self) {
        let token = self.calls.len() as u64;
        let deadline = self.now + self.rng.between(50 * MS, 6 * SECOND);
        let until = Instant::from_nanos(deadline);
        let (command, input) = if self.rng.chance(1, 5) {
            let local = self.rng.chance(1, 2);
            let query = Bytes::from_static(b"how many");
            (None, Input::Read { token, query, local, deadline: until })
        } else {
            let text = format!("command {token}");
            let command = text.clone().into_bytes().into();
            (Some(text), Input::Execute { token, command, deadline: until })
        };
        self.calls.push(Call { command, deadline, answers: Vec::new() });
        self.turn(Some(input));
        if self.calls.len() as u64 == CALLS {
            self.turn(Some(Input::Close));
        }
    }

    /// One turn of the client.
    fn turn(&mut self, input: Option<Input>) {
        let now = Instant::from_nanos(self.now);
        if let Some(input) = input {
            self.client.handle(now, input);
        }
        self.client.end_turn(now);
        while let Some(output) = self.client.poll_output() {
            self.perform(output);
        }
        if let Some(due) = self.client.poll_timeout() {
            let due = due.as_nanos().max(self.now);
            if self.wake.is_none_or(|wake| wake <= self.now || due < wake) {
                self.wake = Some(due);
                // A timer that is due at once would be a loop: the clock goes on at least a little.
                self.at(due.max(self.now + 1), Event::Wake);
            }
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial { conn, node } => self.dial(conn, node),
            Output::Transmit { conn, frame } => {
                let delay = self.delay();
                let Some(connection) = self.connections.get_mut(&conn) else { return };
                connection.up = connection.up.max(self.now + delay);
                let at = connection.up;
                self.at(at, Event::ToNode(conn, frame));
            }
            Output::Close { conn } => {
                // What is on its way to the client still comes: it is late.
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.stands = false;
                }
            }
            Output::Answer { token, outcome } => self.calls[token as usize].take(self.now, outcome),
            Output::Ended => self.ended = true,
        }
    }

    fn dial(&mut self, conn: ConnId, node: NodeId) {
        let node = self.ids.iter().position(|id| *id == node).unwrap();
        let at = self.now + self.delay();
        if !self.nodes[node].up {
            return self.at(at, Event::Broken(conn));
        }
        let boot = self.nodes[node].boot;
        self.connections.insert(conn, Connection { node, boot, stands: true, up: at, down: at });
        self.at(at, Event::Connected(conn));
        if self.rng.chance(1, 3) {
            let breaks = at + self.rng.below(2 * SECOND);
            self.at(breaks, Event::Broken(conn));
        }
    }

    fn delay(&mut self) -> u64 {
        if self.rng.chance(1, 40) { self.rng.below(SECOND) } else { self.rng.below(20 * MS) }
    }

    fn change(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.up && self.rng.chance(1, 2) {
            node.member = !node.member;
            self.view += 1;
            return;
        }
        node.up = !node.up;
        node.boot += u32::from(node.up);
        let broken: Vec<ConnId> = self
            .connections
            .iter()
            .filter(|(_, it)| it.node == index && it.stands)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in broken {
            let at = self.now + self.delay();
            self.at(at, Event::Broken(conn));
        }
    }

    fn standing(&self, node: usize) -> Standing {
        let members = (0..3).filter(|it| self.nodes[*it].up && self.nodes[*it].member);
        Standing {
            serving: self.nodes[node].member,
            view: self.view,
            members: members.map(|it| self.ids[it]).collect(),
        }
    }

    /// Sends to the client, sometimes twice, unless the node is another boot by now.
    fn tell(&mut self, conn: ConnId, reply: &Reply, payload: &Bytes) {
        let copies = 1 + u64::from(self.rng.chance(1, 8));
        for _ in 0..copies {
            let delay = self.delay();
            let Some(connection) = self.connections.get_mut(&conn) else { return };
            let node = self.nodes[connection.node];
            if !node.up || node.boot != connection.boot {
                return;
            }
            connection.down = connection.down.max(self.now + delay);
            let at = connection.down;
            self.at(at, Event::ToClient(conn, reply.encode(payload.clone())));
        }
    }

    fn at_node(&mut self, conn: ConnId, frame: Frame) {
        let Some(connection) = self.connections.get(&conn) else { return };
        let (index, node) = (connection.node, self.nodes[connection.node]);
        if !node.up || node.boot != connection.boot {
            return;
        }
        let (request, payload) = Request::decode(frame).unwrap();
        let standing = self.standing(index);
        let none = Bytes::new();
        match request {
            Request::Hello { .. } => {
                let node = self.ids[index];
                let welcome = Reply::Welcome { version: VERSION, features: 0, node, standing };
                self.tell(conn, &welcome, &none);
            }
            Request::Status { ticket } => {
                self.tell(conn, &Reply::Standing { ticket, standing }, &none);
            }
            Request::Open { ticket, .. }
            | Request::Execute { ticket, .. }
            | Request::Read { ticket, .. }
            | Request::Close { ticket, .. }
                if !node.member || self.rng.chance(1, 20) =>
            {
                let reasons = [NotDone::NotMember, NotDone::Minority, NotDone::Full, NotDone::Late];
                let reason =
                    if node.member { *self.rng.pick(&reasons).unwrap() } else { reasons[0] };
                if reason == NotDone::NotMember {
                    self.tell(conn, &Reply::Standing { ticket: 0, standing }, &none);
                }
                self.tell(conn, &Reply::NotDone { ticket, reason }, &none);
            }
            Request::Open { ticket, id } => self.order(conn, ticket, Envelope::Open { id }, b""),
            Request::Close { ticket, session } => {
                self.order(conn, ticket, Envelope::Close { session }, b"");
            }
            Request::Execute { ticket, session, number, acked_upto } => {
                let command = String::from_utf8(payload.to_vec()).unwrap();
                *self.tries.entry(command).or_default() += 1;
                let envelope = Envelope::Command { session, number, acked_upto };
                self.order(conn, ticket, envelope, &payload);
            }
            Request::Read { ticket, .. } => {
                if !self.rng.chance(1, 10) {
                    self.tell(conn, &Reply::Done { ticket }, &Bytes::from_static(b"many"));
                }
            }
        }
    }

    /// Puts a message into the order: soon, late, or never; and tells of it, or loses the trace.
    fn order(&mut self, conn: ConnId, ticket: u64, envelope: Envelope, command: &[u8]) {
        let payload = envelope.encode(command);
        let soon = self.now + self.delay();
        let late = self.now + self.rng.below(15 * SECOND);
        match self.rng.below(20) {
            0 => self.at(late, Event::Ordered(payload, None)),
            1 => self.at(late, Event::Ordered(payload, Some((conn, ticket)))),
            2 => {}
            3 => self.tell(conn, &Reply::Unknown { ticket }, &Bytes::new()),
            4 => {
                self.at(late, Event::Ordered(payload, None));
                self.tell(conn, &Reply::Unknown { ticket }, &Bytes::new());
            }
            _ => self.at(soon, Event::Ordered(payload, Some((conn, ticket)))),
        }
    }

    fn ordered(&mut self, payload: &Bytes, whom: Option<(ConnId, u64)>) {
        let position = self.replica.position().next().0;
        let mut told = outcomes(deliver_at(&mut self.replica, position, payload));
        assert_eq!(told.len(), 1);
        let Some((conn, ticket)) = whom else { return };
        let none = Bytes::new();
        match told.remove(0).1 {
            Outcome::Done(reply) => self.tell(conn, &Reply::Done { ticket }, &reply),
            Outcome::Opened(session) => {
                self.tell(conn, &Reply::Opened { ticket, session }, &none);
            }
            Outcome::SessionExpired => self.tell(conn, &Reply::Expired { ticket }, &none),
            Outcome::Closed => self.tell(conn, &Reply::Closed { ticket }, &none),
            Outcome::TooManyOutstanding => {
                let reason = NotDone::Full;
                self.tell(conn, &Reply::NotDone { ticket, reason }, &none);
            }
            _ => self.tell(conn, &Reply::Unknown { ticket }, &none),
        }
    }

    fn judge(&self, totals: &mut Totals) -> Result<(), String> {
        if !self.ended {
            return Err("the client does not end".to_owned());
        }
        let executed: Vec<String> = self
            .replica
            .machine()
            .unwrap()
            .lines
            .iter()
            .map(|line| String::from_utf8(line.clone()).unwrap())
            .collect();
        let unique: BTreeSet<&String> = executed.iter().collect();
        if unique.len() != executed.len() {
            return Err(format!("executed twice: {executed:?}"));
        }
        totals.sessions += self.client.stats().sessions;
        totals.duplicates += self.replica.stats().duplicates;
        for call in &self.calls {
            call.judge(&executed, &self.tries, totals)?;
        }
        assert_ne!(self.replica.position(), Position::ZERO);
        Ok(())
    }
}

impl Call {
    fn take(&mut self, now: u64, outcome: Fate) {
        // One nanosecond is what the clock of the model may go on before a timer.
        let late = now > self.deadline + 1;
        self.answers.push(if late { Fate::NotDone(NotDone::Malformed) } else { outcome });
    }

    fn judge(
        &self,
        executed: &[String],
        tries: &BTreeMap<String, u64>,
        totals: &mut Totals,
    ) -> Result<(), String> {
        let [answer] = &self.answers[..] else {
            return Err(format!("{:?} has answers {:?}", self.command, self.answers));
        };
        let Some(command) = &self.command else {
            let fits = matches!(answer, Fate::Done(_) | Fate::NotDone(_));
            return if fits { Ok(()) } else { Err(format!("a read is {answer:?}")) };
        };
        let place = executed.iter().position(|line| line == command);
        match (answer, place) {
            (Fate::NotDone(NotDone::Malformed), _) => Err(format!("{command}: answered too late")),
            (Fate::NotDone(_), Some(_)) => Err(format!("{command}: not done, and executed")),
            (Fate::Done(_), None) => Err(format!("{command}: done, and not executed")),
            (Fate::Done(reply), Some(place)) => {
                totals.done += 1;
                totals.done_after_loss +=
                    u64::from(tries.get(command).is_some_and(|tries| *tries > 1));
                let right = reply[..] == *format!("{} {command}", place + 1).as_bytes();
                if right { Ok(()) } else { Err(format!("{command}: answered {reply:?}")) }
            }
            (Fate::NotDone(_), None) => {
                totals.not_done += 1;
                Ok(())
            }
            (Fate::Unknown, place) => {
                totals.unknown += 1;
                totals.unknown_executed += u64::from(place.is_some());
                Ok(())
            }
        }
    }
}
