//! Links on virtual time over a network that loses, duplicates, reorders, delays, replays and cuts.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

pub(crate) mod second;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;

use bytes::Bytes;
use mainstay_base::frame::{BODY_SIZE_MAX, HEADER_SIZE};
use mainstay_base::{
    BootId, BootNonce, ClusterId, ConnId, Duration, Fingerprinter, Frame, Header, Instant, Machine,
    NodeId, Rng, codec,
};
use mainstay_link::message::{self, Expectation, Hello, Message};
use mainstay_link::{Builder, Config, Event, Input, Link, Output};

pub(crate) fn cluster() -> ClusterId {
    ClusterId::from_entropy(1)
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Nodes in the order of their ids.
pub(crate) fn nodes(count: usize) -> Vec<NodeId> {
    let mut nodes: Vec<_> =
        (0..count).map(|index| NodeId::new(cluster(), &format!("n{index}"))).collect();
    nodes.sort();
    nodes
}

pub(crate) fn config(me: BootId, all: &[NodeId]) -> Builder {
    let peers: BTreeSet<_> = all.iter().copied().filter(|node| *node != me.node).collect();
    Config::for_test(cluster(), me, peers)
}

/// One turn with one input; answers the outputs.
pub(crate) fn turn(link: &mut Link, now: Instant, input: Option<Input>) -> Vec<Output> {
    match input {
        Some(input) => link.handle(now, input),
        None => link.handle_timeout(now),
    }
    link.end_turn(now);
    link.check_invariants();
    std::iter::from_fn(|| link.poll_output()).collect()
}

/// What has not been taken is not acknowledged, and fills no more than a window; what has been taken is acknowledged.
pub(crate) fn slow_user(configure: fn(Builder) -> Builder) -> Result<(), String> {
    let nodes = nodes(2);
    let [a, b] = [(nodes[0], 1), (nodes[1], 2)]
        .map(|(node, nonce)| BootId { node, nonce: BootNonce(nonce) });
    let settings = configure(config(b, &nodes).taken_by_user()).build().unwrap();
    let mut link = Link::new(settings, 1, Instant::ZERO);
    let conn = ConnId(1);
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        cluster: cluster(),
        from: a,
        to: b.node,
        roster_version: 0,
        expectation: Some(Expectation { of: b.nonce, received: 0 }),
    };
    turn(&mut link, Instant::ZERO, Some(Input::Opened { conn, dialled: None }));
    let frame = Message::Hello(hello).frame(0);
    turn(&mut link, Instant::ZERO, Some(Input::Received { conn, frame }));
    let mut delivered = 0;
    for position in 1..=40 {
        let seq = message::seq_origin(a, b).wrapping_add(position);
        let frame = Frame { channel: 1, session: message::session(a, b), seq, ..Frame::default() };
        let outputs = turn(&mut link, Instant::ZERO, Some(Input::Received { conn, frame }));
        let comes = |it: &&Output| matches!(it, Output::Event(Event::Deliver { .. }));
        delivered += outputs.iter().filter(comes).count();
    }
    let acknowledged = |link: &mut Link, at| {
        let outputs = turn(link, Instant::ZERO + ms(at), None);
        let ack = outputs.iter().find_map(|output| match output {
            Output::Transmit { frame, .. } => match codec::decode(&frame.meta) {
                Ok(Message::Ack { received }) => Some(received),
                _ => None,
            },
            _ => None,
        });
        ack.ok_or("no acknowledgement")
    };
    let before = acknowledged(&mut link, 60)?;
    for _ in 0..3 {
        link.handle(Instant::ZERO + ms(60), Input::Taken { from: a });
    }
    let after = acknowledged(&mut link, 120)?;
    if (delivered, before, after) != (32, 0, 3) || link.stats().dropped_untaken != 1 {
        return Err(format!("delivered {delivered}, acknowledged {before}, then {after}"));
    }
    Ok(())
}

/// What the network does, in chances of 1,000.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Nasty {
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    pub(crate) delay_max_ms: u64,
    pub(crate) fifo: bool,
    pub(crate) replay: u64,
    pub(crate) cut: u64,
    pub(crate) restart: u64,
    pub(crate) isolate: u64,
    pub(crate) garbage: u64,
}

enum What {
    Open { conn: ConnId, node: usize, dialled: Option<NodeId> },
    Frame { conn: ConnId, end: usize, bytes: Bytes },
    Closed { conn: ConnId, end: usize },
    Refused { node: usize, target: NodeId },
    Restart { node: usize, generation: u64 },
}

struct Wire {
    nodes: [usize; 2],
    open: [bool; 2],
    last: [Instant; 2],
}

pub(crate) struct Site {
    pub(crate) boot: BootId,
    pub(crate) link: Link,
    pub(crate) generation: u64,
    /// Boots isolated here.
    pub(crate) isolated: BTreeSet<BootId>,
    up: BTreeMap<NodeId, BootId>,
    /// It stands still: what comes waits.
    backlog: Option<Vec<Input>>,
    /// It has ended, and nobody listens at its address.
    ended: bool,
}

pub(crate) type Configure = fn(Builder) -> Config;

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) sites: Vec<Site>,
    pub(crate) nasty: Nasty,
    pub(crate) rng: Rng,
    pub(crate) sent: BTreeMap<(BootId, BootId), u64>,
    pub(crate) delivered: BTreeMap<(BootId, BootId), u64>,
    pub(crate) violation: Option<String>,
    pub(crate) hash: Fingerprinter,
    pub(crate) events: Vec<(usize, Event)>,
    pub(crate) keep_events: bool,
    configure: Configure,
    ids: Vec<NodeId>,
    wires: BTreeMap<ConnId, Wire>,
    queue: BTreeMap<(Instant, u64), What>,
    number: u64,
    old_frames: Vec<([usize; 2], Bytes)>,
}

fn encode(from: BootId, to: BootId, number: u64) -> Bytes {
    let mut bytes = Vec::new();
    bytes.extend(from.nonce.0.to_le_bytes());
    bytes.extend(to.nonce.0.to_le_bytes());
    bytes.extend(number.to_le_bytes());
    bytes.into()
}

fn decode(bytes: &Bytes) -> (BootNonce, BootNonce, u64) {
    let nonce = |at: usize| BootNonce(u128::from_le_bytes(bytes[at..at + 16].try_into().unwrap()));
    (nonce(0), nonce(16), u64::from_le_bytes(bytes[32..40].try_into().unwrap()))
}

impl World {
    pub(crate) fn new(seed: u64, count: usize, nasty: Nasty, configure: Configure) -> Self {
        let ids = nodes(count);
        let mut world = Self {
            now: Instant::ZERO,
            sites: Vec::new(),
            nasty,
            rng: Rng::new(seed).stream("network"),
            sent: BTreeMap::new(),
            delivered: BTreeMap::new(),
            violation: None,
            hash: Fingerprinter::new(),
            events: Vec::new(),
            keep_events: false,
            configure,
            ids,
            wires: BTreeMap::new(),
            queue: BTreeMap::new(),
            number: 0,
            old_frames: Vec::new(),
        };
        for index in 0..count {
            let site = world.boot(index, 1);
            world.sites.push(site);
        }
        world
    }

    fn boot(&mut self, index: usize, generation: u64) -> Site {
        let boot = BootId { node: self.ids[index], nonce: BootNonce(self.rng.next_u128()) };
        let config = (self.configure)(config(boot, &self.ids));
        let link = Link::new(config, self.rng.next_u64(), self.now);
        Site {
            boot,
            link,
            generation,
            isolated: BTreeSet::new(),
            up: BTreeMap::new(),
            backlog: None,
            ended: false,
        }
    }

    fn index(&self, node: NodeId) -> usize {
        self.ids.iter().position(|id| *id == node).unwrap()
    }

    fn lives(&self, boot: BootId) -> bool {
        self.sites.iter().any(|site| site.boot == boot && site.backlog.is_none() && !site.ended)
    }

    fn fail(&mut self, what: String) {
        let at = self.now;
        self.violation.get_or_insert_with(|| format!("{at:?}: {what}"));
    }

    fn at(&mut self, at: Instant, what: What) {
        self.number += 1;
        self.queue.insert((at, self.number), what);
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(100 + self.rng.below(self.nasty.delay_max_ms * 1000 + 1))
    }

    pub(crate) fn input(&mut self, index: usize, input: Option<Input>) {
        if self.sites[index].ended {
            return;
        }
        if let Some(backlog) = &mut self.sites[index].backlog {
            backlog.extend(input);
            return;
        }
        let outputs = turn(&mut self.sites[index].link, self.now, input);
        let mut refused = 0;
        for output in outputs {
            (index, &output).hash(&mut self.hash);
            match output {
                Output::Dial { node } => self.on_dial(index, node),
                Output::Transmit { conn, frame } => self.on_transmit(index, conn, &frame),
                Output::Close { conn } => self.hang_up(conn, index),
                Output::Event(event) => {
                    refused += usize::from(matches!(event, Event::NotSent { .. }));
                    self.on_event(index, event);
                }
            }
        }
        assert!(refused <= 1);
    }

    /// Sends to the boot that the link knows; answers whether it was accepted.
    pub(crate) fn send(&mut self, from: usize, to: usize) -> bool {
        let me = self.sites[from].boot;
        let Some(boot) = self.sites[from].link.boot(self.ids[to]) else { return false };
        let number = self.sent.get(&(me, boot)).copied().unwrap_or(0) + 1;
        let (channel, nonce) = ((1 + number % 3) as u16, Some(boot.nonce));
        let (meta, payload) = (Bytes::from_static(b"meta"), encode(me, boot, number));
        let accepted = |link: &Link| link.status(boot.node).map(|(top, _)| top);
        // Before the turn, since an event of the turn may speak of the message.
        self.sent.insert((me, boot), number);
        self.input(from, Some(Input::Send { to: boot.node, boot: nonce, channel, meta, payload }));
        let ok = accepted(&self.sites[from].link) == Some(number);
        if !ok {
            self.sent.insert((me, boot), number - 1);
        }
        ok
    }

    fn on_dial(&mut self, from: usize, node: NodeId) {
        let to = self.index(node);
        let soon = self.now + ms(1);
        if self.rng.chance(self.nasty.cut, 4000) || self.sites[to].ended {
            self.at(soon, What::Refused { node: from, target: node });
            return;
        }
        self.number += 1;
        let conn = ConnId(self.number);
        let wire = Wire { nodes: [from, to], open: [true; 2], last: [self.now; 2] };
        self.wires.insert(conn, wire);
        self.at(soon, What::Open { conn, node: from, dialled: Some(node) });
        self.at(soon, What::Open { conn, node: to, dialled: None });
    }

    fn on_transmit(&mut self, from: usize, conn: ConnId, frame: &Frame) {
        let Some(wire) = self.wires.get(&conn) else { return };
        let end = usize::from(wire.nodes[0] == from);
        let (nodes, last) = ([from, wire.nodes[end]], wire.last[end]);
        assert!(wire.open[1 - end], "nothing is written to a closed connection");
        let bytes = frame.encode();
        if frame.session != 0 && self.nasty.replay > 0 {
            self.old_frames.push((nodes, bytes.clone()));
        }
        if self.rng.chance(self.nasty.loss, 1000) {
            return;
        }
        let copies = 1 + u64::from(self.rng.chance(self.nasty.duplication, 1000));
        for _ in 0..copies {
            let mut at = self.now + self.delay();
            if self.nasty.fifo {
                at = at.max(last);
                self.wires.get_mut(&conn).unwrap().last[end] = at;
            }
            self.at(at, What::Frame { conn, end, bytes: bytes.clone() });
        }
        if self.rng.chance(self.nasty.replay, 1000) && !self.old_frames.is_empty() {
            let index = self.rng.below(self.old_frames.len() as u64) as usize;
            let (of, bytes) = self.old_frames[index].clone();
            if of == nodes {
                let at = self.now + self.delay();
                self.at(at, What::Frame { conn, end, bytes });
            }
        }
        if self.rng.chance(self.nasty.garbage, 1000) {
            let mut frame = frame.clone();
            let junk: Vec<u8> =
                (0..self.rng.below(40)).map(|_| self.rng.next_u64() as u8).collect();
            (frame.channel, frame.meta) = (0, junk.into());
            let at = self.now + self.delay();
            self.at(at, What::Frame { conn, end, bytes: frame.encode() });
        }
    }

    /// `index` closes its end; the other end learns it later.
    fn hang_up(&mut self, conn: ConnId, index: usize) {
        let at = self.now + self.delay();
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        let end = usize::from(wire.nodes[1] == index);
        wire.open[end] = false;
        self.at(at, What::Closed { conn, end: 1 - end });
    }

    /// Cuts all connections.
    pub(crate) fn cut(&mut self) {
        let open: Vec<ConnId> = self.wires.keys().copied().collect();
        for conn in open {
            for end in 0..2 {
                let at = self.now + self.delay();
                self.at(at, What::Closed { conn, end });
            }
        }
    }

    /// The process ends, and so do its connections.
    pub(crate) fn crash(&mut self, index: usize) {
        self.sites[index].ended = true;
        self.hang_up_all(index);
    }

    pub(crate) fn restart(&mut self, index: usize) {
        self.hang_up_all(index);
        let generation = self.sites[index].generation + 1;
        let node = self.index(self.sites[index].boot.node);
        self.sites[index] = self.boot(node, generation);
    }

    fn hang_up_all(&mut self, index: usize) {
        let conns: Vec<ConnId> = self
            .wires
            .iter()
            .filter(|(_, wire)| wire.nodes.contains(&index))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in conns {
            self.hang_up(conn, index);
        }
    }

    pub(crate) fn isolate(&mut self, index: usize, boot: BootId) {
        self.sites[index].isolated.insert(boot);
        self.sites[index].up.retain(|_, up| *up != boot);
        self.input(index, Some(Input::Isolate { boot }));
    }

    fn on_event(&mut self, index: usize, event: Event) {
        if self.keep_events {
            self.events.push((index, event.clone()));
        }
        let me = self.sites[index].boot;
        match event {
            Event::Deliver { from, meta, payload, .. } => {
                self.on_deliver(index, from, &meta, &payload)
            }
            Event::Up { boot, .. } => {
                if self.sites[index].up.insert(boot.node, boot).is_some() {
                    self.fail(format!("{me:?}: {boot:?} is up twice"));
                }
            }
            Event::Down { boot } => {
                if self.sites[index].up.remove(&boot.node) != Some(boot) {
                    self.fail(format!("{me:?}: {boot:?} is down without being up"));
                }
            }
            Event::Replaced { old, new, .. } => {
                self.sites[index].up.remove(&old.node);
                if self.lives(old) || old == new {
                    self.fail(format!("{me:?}: {old:?} lives and was replaced"));
                }
            }
            Event::Sent { to, upto } => {
                let void = !self.lives(to) || self.sites[index].isolated.contains(&to);
                let delivered = self.delivered.get(&(me, to)).copied().unwrap_or(0);
                if !void && upto > delivered {
                    self.fail(format!(
                        "MB-26: {me:?} was told that {upto} are sent to {to:?}, {delivered} are"
                    ));
                }
            }
            Event::Dead { .. } => {
                let generation = self.sites[index].generation;
                let at = self.now + ms(20);
                self.at(at, What::Restart { node: index, generation });
            }
            Event::Heard { from } => {
                if self.sites[index].isolated.contains(&from) {
                    self.fail(format!("MB-8: {me:?} heard the isolated {from:?}"));
                }
            }
            Event::Mismatch { why, .. } => self.fail(format!("{me:?} found a mismatch: {why:?}")),
            Event::Refused { .. }
            | Event::NotSent { .. }
            | Event::Ready { .. }
            | Event::Gone { .. } => {}
        }
    }

    fn on_deliver(&mut self, index: usize, from: BootId, meta: &Bytes, payload: &Bytes) {
        let me = self.sites[index].boot;
        let (sender, addressee, number) = decode(payload);
        if self.sites[index].isolated.contains(&from) {
            self.fail(format!("MB-8: {me:?} delivered a message of the isolated {from:?}"));
        }
        if sender != from.nonce || addressee != me.nonce || &meta[..] != b"meta" {
            self.fail(format!("MB-25: {me:?} delivered a message of other boots from {from:?}"));
        }
        let delivered = self.delivered.entry((from, me)).or_default();
        *delivered += 1;
        if *delivered != number {
            let place = *delivered;
            self.fail(format!(
                "MB-27: {me:?} delivered number {number} of {from:?} in place {place}"
            ));
        }
    }

    /// Takes the next step; answers false when the next one is after `until`.
    pub(crate) fn step(&mut self, until: Instant) -> bool {
        let timer = self
            .sites
            .iter()
            .enumerate()
            .filter(|(_, site)| site.backlog.is_none() && !site.ended)
            .filter_map(|(index, site)| Some((site.link.poll_timeout()?, index)));
        let timer = timer.min();
        let queued = self.queue.keys().next().map(|(at, _)| *at);
        let next = [timer.map(|(at, _)| at), queued].into_iter().flatten().min();
        let Some(next) = next.filter(|at| *at <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        if queued == Some(next) {
            let (_, what) = self.queue.pop_first().unwrap();
            self.perform(what);
        } else if let Some((_, index)) = timer {
            self.input(index, None);
        }
        true
    }

    fn perform(&mut self, what: What) {
        match what {
            What::Open { conn, node, dialled } => {
                let end = usize::from(dialled.is_none());
                if self.wires.get(&conn).is_some_and(|wire| wire.open[end]) {
                    self.input(node, Some(Input::Opened { conn, dialled }));
                } else if let Some(node_dialled) = dialled {
                    self.input(node, Some(Input::Unreachable { node: node_dialled }));
                }
            }
            What::Frame { conn, end, bytes } => {
                let Some(wire) = self.wires.get(&conn) else { return };
                if wire.open[end] {
                    let node = wire.nodes[end];
                    let head: &[u8; HEADER_SIZE] = bytes[..HEADER_SIZE].try_into().unwrap();
                    let header = Header::decode(head, BODY_SIZE_MAX).unwrap();
                    let frame = Frame::decode(&header, bytes.slice(HEADER_SIZE..)).unwrap();
                    self.input(node, Some(Input::Received { conn, frame }));
                }
            }
            What::Closed { conn, end } => {
                let Some(wire) = self.wires.get_mut(&conn) else { return };
                let was_open = std::mem::replace(&mut wire.open[end], false);
                let node = wire.nodes[end];
                if wire.open == [false; 2] {
                    self.wires.remove(&conn);
                }
                if was_open {
                    self.input(node, Some(Input::Closed { conn }));
                }
            }
            What::Refused { node, target } => {
                self.input(node, Some(Input::Refused { node: target }));
            }
            What::Restart { node, generation } => {
                if self.sites[node].generation == generation {
                    self.restart(node);
                }
            }
        }
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let until = self.now + span;
        while self.violation.is_none() && self.step(until) {}
    }

    /// What is still missing for all living boots to have all that was sent between them.
    pub(crate) fn unmet(&self) -> Option<String> {
        for one in &self.sites {
            for other in self.sites.iter().filter(|other| other.boot != one.boot) {
                let pair = (one.boot, other.boot);
                let status = one.link.status(other.boot.node);
                if one.isolated.contains(&other.boot) {
                    return Some(format!("MB-7: {:?} was not told that it is dead", other.boot));
                }
                let sent = self.sent.get(&pair).copied().unwrap_or(0);
                let delivered = self.delivered.get(&pair).copied().unwrap_or(0);
                if one.link.boot(other.boot.node) != Some(other.boot) {
                    return Some(format!("{pair:?} do not know each other"));
                }
                if sent != delivered || status != Some((sent, sent)) {
                    return Some(format!(
                        "MB-27: {pair:?}: {sent} sent, {delivered} delivered, {status:?}"
                    ));
                }
            }
        }
        None
    }
}

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Outcome {
    /// Of all outputs.
    pub(crate) hash: u128,
    /// Messages delivered.
    pub(crate) delivered: u64,
    /// Messages sent between boots of which one did not live to the end.
    pub(crate) voided: u64,
    /// Boots after the first of each node.
    pub(crate) restarts: u64,
    /// Counters of the last boots.
    pub(crate) resent: u64,
    pub(crate) duplicates: u64,
    pub(crate) foreign: u64,
    pub(crate) told_dead: u64,
}

impl World {
    fn outcome(&self) -> Outcome {
        let total = |count: fn(&mainstay_link::Stats) -> u64| {
            self.sites.iter().map(|site| count(&site.link.stats())).sum()
        };
        let delivered: u64 = self.delivered.values().sum();
        Outcome {
            hash: self.hash.finish128(),
            delivered,
            voided: self.sent.values().sum::<u64>() - delivered,
            restarts: self.sites.iter().map(|site| site.generation - 1).sum(),
            resent: total(|stats| stats.user_resent),
            duplicates: total(|stats| stats.dropped_duplicate),
            foreign: total(|stats| stats.dropped_session),
            told_dead: total(|stats| stats.dead_sent),
        }
    }
}

/// A run of everything at once, drawn from the seed.
pub(crate) fn swarm(seed: u64, configure: Configure) -> Result<Outcome, String> {
    let mut rng = Rng::new(seed).stream("swarm");
    let mut on = |max: u64| if rng.chance(2, 3) { rng.below(max) } else { 0 };
    let nasty = Nasty {
        loss: on(200),
        duplication: on(200),
        delay_max_ms: 1 + on(20),
        fifo: on(2) == 0,
        replay: on(100),
        cut: on(60),
        restart: on(15),
        isolate: on(15),
        garbage: on(50),
    };
    let count = 2 + rng.below(2) as usize;
    let mut world = World::new(seed, count, nasty, configure);
    for _ in 0..100 {
        let span = Duration::from_micros(rng.below(15_000));
        world.run(span);
        let from = rng.below(count as u64) as usize;
        let to = (from + 1 + rng.below(count as u64 - 1) as usize) % count;
        for _ in 0..rng.below(6) {
            world.send(from, to);
        }
        if rng.chance(nasty.cut, 1000) {
            world.cut();
        }
        if rng.chance(nasty.restart, 1000) {
            world.restart(from);
        }
        if rng.chance(nasty.isolate, 1000) {
            let boot = world.sites[to].boot;
            world.isolate(from, boot);
        }
    }
    world.nasty = Nasty { delay_max_ms: 5, ..Nasty::default() };
    for _ in 0..200 {
        world.run(ms(100));
        if let Some(violation) = world.violation {
            return Err(format!("seed {seed}: {violation}"));
        }
        if world.unmet().is_none() {
            return Ok(world.outcome());
        }
    }
    Err(format!("seed {seed}: {}", world.unmet().unwrap_or_default()))
}
