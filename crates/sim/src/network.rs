//! Connections between nodes: messages on their way, cuts, breaks and new connections.

use std::collections::{BTreeMap, VecDeque};

use mainstay_base::{BootId, ConnId, Duration, Instant, NodeId, Rng};

use crate::Node;
use crate::node::{Peer, Refusal};
use crate::options::Wire;
use crate::schedule::{Action, nanos};
use crate::world::{Captured, Task, World};

/// The network of a world.
pub(crate) struct Network<M> {
    nodes: usize,
    conns: Vec<Conn<M>>,
    /// The connections of each pair that are not closed at both ends, oldest first; by the lower node times `nodes`,
    /// plus the other.
    live: Vec<Vec<u32>>,
    /// Cuts under way from one node to another.
    cuts: Vec<u32>,
    /// How long frames take from one node to another, where that is not what the options say.
    ways: BTreeMap<(usize, usize), (Duration, Duration)>,
    /// Datagrams on their way.
    slots: Vec<Option<M>>,
    free: Vec<u32>,
    /// One stream for each sending node: a message less there does not shift the fate of others.
    rngs: Vec<Rng>,
}

struct Conn<M> {
    nodes: [usize; 2],
    boots: [BootId; 2],
    states: [State; 2],
    /// Whether the first end dialled.
    dialled: bool,
    broken: bool,
    /// How often it was stalled.
    stalls: u32,
    /// What is on its way to each end.
    to: [Direction<M>; 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not told yet.
    Opening,
    Open,
    Closed,
}

struct Direction<M> {
    queue: VecDeque<M>,
    /// Nothing arrives before it: the order is kept.
    last: Instant,
    /// Set by a cut: what of the queue is behind the cut already and still arrives.
    stalled: Option<usize>,
    /// Deliveries that found the direction stalled.
    owed: usize,
}

impl<M> Direction<M> {
    const fn new(last: Instant) -> Self {
        Self { queue: VecDeque::new(), last, stalled: None, owed: 0 }
    }

    /// Frames that a cut or a break may still let through.
    fn flowing(&self) -> usize {
        self.stalled.unwrap_or(self.queue.len())
    }

    /// From here on only the first `behind` frames arrive.
    fn stall(&mut self, behind: usize) {
        self.stalled = Some(behind);
    }

    /// Only the first `behind` frames arrive, and nothing ever after them. Answers how many are lost.
    fn sever(&mut self, behind: usize) -> usize {
        let lost = self.queue.len() - behind;
        self.queue.truncate(behind);
        (self.stalled, self.owed) = (Some(behind), 0);
        lost
    }

    /// Nothing will arrive any more. Answers how many are lost.
    fn empty(&mut self) -> usize {
        let lost = self.queue.len();
        (self.queue, self.stalled, self.owed) = (VecDeque::new(), None, 0);
        lost
    }

    /// The frame whose time has come, unless it is stalled: then it is owed, and comes when the stall ends.
    fn deliver(&mut self) -> Option<M> {
        if self.queue.is_empty() {
            return None;
        }
        match &mut self.stalled {
            Some(0) => {
                self.owed += 1;
                return None;
            }
            Some(behind) => *behind -= 1,
            None => {}
        }
        self.queue.pop_front()
    }

    /// The stall ends. Answers how many deliveries are owed.
    fn resume(&mut self) -> usize {
        self.stalled = None;
        std::mem::take(&mut self.owed)
    }

    fn is_sound(&self) -> bool {
        let size = self.queue.len();
        self.stalled.is_none_or(|behind| behind <= size)
            && self.owed <= size
            && (self.owed == 0 || self.stalled == Some(0))
    }
}

impl<M> Conn<M> {
    fn is_gone(&self) -> bool {
        self.states == [State::Closed; 2]
    }
}

impl<M> Network<M> {
    pub(crate) fn new(seeds: &Rng, nodes: usize) -> Self {
        Self {
            nodes,
            conns: Vec::new(),
            live: vec![Vec::new(); nodes * nodes],
            cuts: vec![0; nodes * nodes],
            ways: BTreeMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            rngs: (0..nodes).map(|node| seeds.stream(&format!("network {node}"))).collect(),
        }
    }

    pub(crate) fn rng(&mut self, node: usize) -> &mut Rng {
        &mut self.rngs[node]
    }

    pub(crate) fn node_at(&self, conn: u32, end: u8) -> usize {
        self.conns[conn as usize].nodes[usize::from(end)]
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts[from * self.nodes + to] > 0
    }

    fn is_apart(&self, one: usize, other: usize) -> bool {
        self.is_cut(one, other) || self.is_cut(other, one)
    }

    const fn pair(&self, one: usize, other: usize) -> usize {
        if one < other { one * self.nodes + other } else { other * self.nodes + one }
    }

    fn keep(&mut self, message: M) -> u32 {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(message);
                slot
            }
            None => {
                self.slots.push(Some(message));
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 datagrams on their way")
            }
        }
    }

    pub(crate) fn take(&mut self, slot: u32) -> Option<M> {
        self.free.push(slot);
        self.slots[slot as usize].take()
    }

    /// The connections that are not gone, and the one that the last step was about, agree with what is kept of them.
    pub(crate) fn check_invariants(&self, last: Option<u32>) -> Result<(), String> {
        for conn in self.live.iter().flatten().copied().chain(last) {
            let state = &self.conns[conn as usize];
            let [one, other] = state.nodes;
            if !state.to.iter().all(Direction::is_sound) {
                return Err(format!("connection {conn}: more flows or is owed than is on its way"));
            }
            if state.is_gone() == self.live[self.pair(one, other)].contains(&conn) {
                return Err(format!("connection {conn}: gone and live, or neither"));
            }
            if state.is_gone() && state.to.iter().any(|to| to.flowing() > 0 || to.stalled.is_some())
            {
                return Err(format!("connection {conn}: gone, and something flows"));
            }
        }
        Ok(())
    }

    /// The connections and cuts of a node, for the report.
    pub(crate) fn report(&self, node: usize) -> String {
        let others = || (0..self.nodes).filter(move |other| *other != node);
        let list = |nodes: Vec<usize>, what: &str| {
            if nodes.is_empty() { String::new() } else { format!(", {what} {nodes:?}") }
        };
        let open = |other: &usize| {
            let is_open = |conn: &u32| self.conns[*conn as usize].states == [State::Open; 2];
            self.live[self.pair(node, *other)].iter().any(is_open)
        };
        list(others().filter(open).collect(), "connected with")
            + &list(others().filter(|other| self.is_cut(node, *other)).collect(), "cut off from")
    }
}

impl<N: Node> World<N> {
    /// Which end of the connection the node is.
    fn end_of(&self, conn: u32, node: usize) -> usize {
        usize::from(self.network.conns[conn as usize].nodes[1] == node)
    }

    /// From here on frames take `delay` and up to `spread` more from one node to another.
    pub fn set_way(&mut self, from: usize, to: usize, delay: Duration, spread: Duration) {
        self.network.ways.insert((from, to), (delay, spread));
    }

    /// A time up to `longest`, drawn by `node`.
    fn within(&mut self, node: usize, longest: Duration) -> Instant {
        let wait = self.network.rng(node).between(1, nanos(longest).max(1));
        self.now + Duration::from_nanos(wait)
    }

    /// When a frame that is sent now arrives.
    fn arrival(&mut self, from: usize, to: usize) -> Instant {
        let calm = self.is_calm(from, to);
        let Self { options, network, .. } = self;
        let way = network.ways.get(&(from, to)).copied();
        let (delay, spread) = way.unwrap_or((options.delay, options.spread));
        let rng = network.rng(from);
        let spread = nanos(spread);
        let added = if spread > 0 { rng.below(spread + 1) } else { 0 };
        let mut wait = nanos(delay).max(1) + added;
        if !calm && options.tail > 0 && rng.chance(options.tail, 1000) {
            wait <<= rng.between(1, 6);
        }
        self.now + Duration::from_nanos(wait)
    }

    pub(crate) fn on_send(&mut self, node: usize, to: BootId, message: N::Message) {
        let open = self.roster.binary_search(&to.node).ok().and_then(|other| {
            let live = &self.network.live[self.network.pair(node, other)];
            live.iter().rev().copied().find(|conn| {
                let end = self.end_of(*conn, node);
                let conn = &self.network.conns[*conn as usize];
                conn.states[end] == State::Open && conn.boots[1 - end] == to
            })
        });
        self.transmit(node, open, message);
    }

    pub(crate) fn on_send_on(&mut self, node: usize, conn: ConnId, message: N::Message) {
        let open = self.mine(node, conn);
        self.transmit(node, open, message);
    }

    /// The connection, if it is open at the node.
    fn mine(&self, node: usize, conn: ConnId) -> Option<u32> {
        let conn = u32::try_from(conn.0).ok()?;
        let state = self.network.conns.get(conn as usize)?;
        let end = state.nodes.iter().position(|at| *at == node)?;
        (state.states[end] == State::Open).then_some(conn)
    }

    fn transmit(&mut self, node: usize, conn: Option<u32>, message: N::Message) {
        self.stats.sent += 1;
        let Some(conn) = conn else {
            self.stats.lost += 1;
            return;
        };
        self.hash_message(&message);
        let end = 1 - self.end_of(conn, node);
        match self.options.wire {
            Wire::Channel if N::is_datagram(&message) => {
                self.transmit_datagram(node, conn, end, message);
            }
            Wire::Channel => self.transmit_in_order(node, conn, end, message),
            Wire::Datagram => self.transmit_datagram(node, conn, end, message),
        }
    }

    fn transmit_in_order(&mut self, from: usize, conn: u32, end: usize, message: N::Message) {
        let state = &self.network.conns[conn as usize];
        if state.broken || state.states[end] == State::Closed {
            self.stats.lost += 1;
            return;
        }
        let at = self.arrival(from, state.nodes[end]);
        let to = &mut self.network.conns[conn as usize].to[end];
        to.last = to.last.max(at);
        to.queue.push_back(message);
        let at = to.last;
        self.at(at, Task::Deliver { conn, end: end as u8 });
    }

    fn transmit_datagram(&mut self, from: usize, conn: u32, end: usize, message: N::Message) {
        let to = self.network.conns[conn as usize].nodes[end];
        let calm = self.is_calm(from, to);
        let (loss, duplication) = (self.options.loss, self.options.duplication);
        let rng = self.network.rng(from);
        let lost = !calm && loss > 0 && rng.chance(loss, 1000);
        let twice = !calm && duplication > 0 && rng.chance(duplication, 1000);
        if lost || self.network.is_cut(from, to) {
            self.stats.lost += 1;
            return;
        }
        if twice {
            self.stats.duplicated += 1;
            self.send_datagram(from, conn, end, message.clone());
        }
        self.send_datagram(from, conn, end, message);
    }

    fn send_datagram(&mut self, from: usize, conn: u32, end: usize, message: N::Message) {
        let node = self.network.conns[conn as usize].nodes[end];
        let mut at = self.arrival(from, node);
        let chance = self.options.reordering;
        let strays =
            chance > 0 && !self.is_calm(from, node) && self.network.rng(from).chance(chance, 1000);
        if strays {
            let more = self.arrival(from, node) - self.now;
            at = at + more;
        } else {
            let to = &mut self.network.conns[conn as usize].to[end];
            to.last = to.last.max(at);
            at = to.last;
        }
        let slot = self.network.keep(message);
        self.at(at, Task::Datagram { conn, end: end as u8, slot });
    }

    pub(crate) fn on_datagram(&mut self, conn: u32, end: u8, slot: u32) {
        if let Some(message) = self.network.take(slot) {
            self.hand_over(conn, end.into(), message);
        }
    }

    pub(crate) fn on_deliver(&mut self, conn: u32, end: u8) {
        if let Some(message) = self.network.conns[conn as usize].to[usize::from(end)].deliver() {
            self.hand_over(conn, end.into(), message);
        }
    }

    fn hand_over(&mut self, conn: u32, end: usize, message: N::Message) {
        let state = &self.network.conns[conn as usize];
        if state.states[end] != State::Open {
            self.stats.lost += 1;
            return;
        }
        let node = state.nodes[end];
        let from = Peer { boot: state.boots[1 - end], conn: ConnId(conn.into()) };
        if self.crash_at(node, Action::Receive) {
            self.stats.lost += 1;
            return;
        }
        self.stats.delivered += 1;
        if let Some(captured) = &mut self.captured {
            captured.push(Captured { from: from.boot, to: node, message: message.clone() });
        }
        self.give(node, |machine, now| machine.receive(now, from, message));
    }

    /// Connects a node that has started, or can be reached again, with all others.
    pub(crate) fn reconnect_all(&mut self, node: usize) {
        for other in (0..self.roster.len()).filter(|other| *other != node) {
            self.reconnect(node, other);
        }
    }

    fn reconnect(&mut self, one: usize, other: usize) {
        if !self.options.dials && self.node(one).is_some() && self.node(other).is_some() {
            let at = self.within(one, self.options.reconnect);
            self.at(at, Task::Connect { one: one as u16, other: other as u16 });
        }
    }

    /// The world connects two nodes, unless they are connected, down or cut: then what ends that tries again.
    pub(crate) fn on_connect(&mut self, one: usize, other: usize) {
        let both_live = self.node(one).is_some() && self.node(other).is_some();
        if !both_live || self.network.is_apart(one, other) {
            return;
        }
        let boots = [self.hosts[one].boot, self.hosts[other].boot];
        let live = self.network.live[self.network.pair(one, other)].clone();
        let is_theirs = |conn: &u32| {
            let state = &self.network.conns[*conn as usize];
            boots.contains(&state.boots[0]) && boots.contains(&state.boots[1])
        };
        if live.iter().any(is_theirs) {
            return;
        }
        // What is left of connections with former boots: told before the new one.
        for conn in live {
            for end in 0..2 {
                self.at(self.now, Task::Closed { conn, end });
            }
        }
        self.connect(one, other, false);
    }

    fn connect(&mut self, one: usize, other: usize, dialled: bool) {
        let conn = u32::try_from(self.network.conns.len()).expect("fewer than 2^32 connections");
        let nodes = [one, other];
        let told = [self.arrival(other, one), self.arrival(one, other)];
        self.network.conns.push(Conn {
            nodes,
            boots: nodes.map(|node| self.hosts[node].boot),
            states: [State::Opening; 2],
            dialled,
            broken: false,
            stalls: 0,
            to: told.map(Direction::new),
        });
        let pair = self.network.pair(one, other);
        self.network.live[pair].push(conn);
        self.stats.connected += 1;
        for (end, at) in (0..).zip(told) {
            self.at(at, Task::Opened { conn, end });
        }
    }

    pub(crate) fn on_opened(&mut self, conn: u32, end: u8) {
        let at = usize::from(end);
        let state = &mut self.network.conns[conn as usize];
        if state.states[at] != State::Opening {
            return;
        }
        state.states[at] = State::Open;
        let (node, dialled) = (state.nodes[at], state.dialled && end == 0);
        let peer = Peer { boot: state.boots[1 - at], conn: ConnId(conn.into()) };
        self.give(node, |machine, now| machine.opened(now, peer, dialled));
    }

    /// The peer or the network has closed the connection at this end.
    pub(crate) fn on_closed(&mut self, conn: u32, end: u8) {
        let at = usize::from(end);
        let state = &self.network.conns[conn as usize];
        let (before, node) = (state.states[at], state.nodes[at]);
        let peer = Peer { boot: state.boots[1 - at], conn: ConnId(conn.into()) };
        let dialled = state.dialled && end == 0;
        self.shut(conn, at);
        if before == State::Open {
            self.give(node, |machine, now| machine.closed(now, peer));
        } else if before == State::Opening && dialled {
            // Each dial is answered, also one whose connection breaks on the way.
            self.give(node, |machine, now| {
                machine.refused(now, peer.boot.node, Refusal::Unreachable)
            });
        }
    }

    /// Marks an end as closed; with the second one the connection is gone.
    fn shut(&mut self, conn: u32, end: usize) {
        let state = &mut self.network.conns[conn as usize];
        if state.states[end] == State::Closed {
            return;
        }
        state.states[end] = State::Closed;
        if state.is_gone() {
            let [one, other] = state.nodes;
            self.stats.lost += state.to.iter_mut().map(|to| to.empty() as u64).sum::<u64>();
            let pair = self.network.pair(one, other);
            self.network.live[pair].retain(|live| *live != conn);
            self.reconnect(one, other);
        }
    }

    /// The node closes its end: what it has sent still arrives, then the peer is told.
    pub(crate) fn on_close_wanted(&mut self, node: usize, conn: ConnId) {
        let Some(conn) = self.mine(node, conn) else { return };
        let end = self.end_of(conn, node);
        let peer = self.network.conns[conn as usize].nodes[1 - end];
        let at = self.arrival(node, peer).max(self.network.conns[conn as usize].to[1 - end].last);
        self.shut(conn, end);
        self.at(at, Task::Closed { conn, end: 1 - end as u8 });
    }

    /// A node has stopped: its ends are closed, the others are told in their time.
    pub(crate) fn hang_up_all(&mut self, node: usize) {
        for other in 0..self.roster.len() {
            let pair = self.network.pair(node, other);
            for conn in self.network.live[pair].clone() {
                self.break_up(conn);
                let end = self.end_of(conn, node);
                self.shut(conn, end);
            }
        }
    }

    /// Breaks all connections between two nodes.
    pub(crate) fn reset(&mut self, one: usize, other: usize) {
        let pair = self.network.pair(one, other);
        for conn in self.network.live[pair].clone() {
            self.break_up(conn);
        }
    }

    /// Breaks a connection: what is on its way is lost from some point on; both ends are told in their time.
    fn break_up(&mut self, conn: u32) {
        let state = &self.network.conns[conn as usize];
        if state.broken || state.is_gone() {
            return;
        }
        let nodes = state.nodes;
        for (end, from) in [(0, nodes[1]), (1, nodes[0])] {
            let Network { conns, rngs, .. } = &mut self.network;
            let to = &mut conns[conn as usize].to[end];
            let behind = rngs[from].below(to.flowing() as u64 + 1) as usize;
            self.stats.lost += to.sever(behind) as u64;
            let at = self.within(from, self.options.telling);
            self.at(at, Task::Closed { conn, end: end as u8 });
        }
        self.network.conns[conn as usize].broken = true;
        self.stats.broken += 1;
    }

    /// A stalled connection breaks, if it is the same stall still.
    pub(crate) fn on_break(&mut self, conn: u32, stalls: u32) {
        let state = &self.network.conns[conn as usize];
        let is_stalled = state.to.iter().any(|to| to.stalled.is_some());
        if state.stalls == stalls && is_stalled {
            self.break_up(conn);
        }
    }

    /// One cut more from one node to another.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        let index = from * self.network.nodes + to;
        self.network.cuts[index] += 1;
        if self.network.cuts[index] > 1 || self.options.wire == Wire::Datagram {
            return;
        }
        let pair = self.network.pair(from, to);
        for conn in self.network.live[pair].clone() {
            let end = self.end_of(conn, to);
            let Network { conns, rngs, .. } = &mut self.network;
            let state = &mut conns[conn as usize];
            if state.broken {
                continue;
            }
            let queue = state.to[end].queue.len() as u64;
            state.to[end].stall(rngs[from].below(queue + 1) as usize);
            state.stalls += 1;
            let stalls = state.stalls;
            let at = self.within(from, self.options.telling);
            self.at(at, Task::Break { conn, stalls });
        }
    }

    /// One cut less; `all`: none is left.
    pub(crate) fn uncut(&mut self, from: usize, to: usize, all: bool) {
        let cuts = &mut self.network.cuts[from * self.network.nodes + to];
        let before = *cuts;
        *cuts = if all { 0 } else { before.saturating_sub(1) };
        if before == 0 || *cuts > 0 {
            return;
        }
        let pair = self.network.pair(from, to);
        for conn in self.network.live[pair].clone() {
            let end = self.end_of(conn, to);
            let state = &mut self.network.conns[conn as usize];
            if state.broken {
                continue;
            }
            let owed = state.to[end].resume();
            if owed > 0 {
                let at = self.arrival(from, to);
                let direction = &mut self.network.conns[conn as usize].to[end];
                direction.last = direction.last.max(at);
                // Before all that is still in the queue of tasks: each of those takes the message in front.
                (0..owed).for_each(|_| self.at(at, Task::Deliver { conn, end: end as u8 }));
            }
        }
        self.reconnect(from, to);
    }

    pub(crate) fn on_dial_wanted(&mut self, from: usize, to: NodeId) {
        let Ok(other) = self.roster.binary_search(&to) else { return };
        let generation = self.hosts[from].generation;
        let at = self.arrival(from, other);
        self.at(at, Task::Dial { from: from as u16, to: other as u16, generation });
    }

    /// A dial comes to its end: a connection, a refusal by the computer of a node that is down, or silence.
    pub(crate) fn on_dial(&mut self, from: usize, to: usize) {
        let (at, why) = match (self.network.is_apart(from, to), self.node(to).is_some()) {
            (false, true) if from != to => return self.connect(from, to, true),
            (false, _) => (self.arrival(to, from), Refusal::Refused),
            (true, _) => (self.within(from, self.options.telling), Refusal::Unreachable),
        };
        let generation = self.hosts[from].generation;
        self.at(at, Task::Refused { node: from as u16, to: to as u16, generation, why });
    }
}
