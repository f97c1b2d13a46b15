//! All runs of a small scope: two sites, three messages, one loss, one duplicate, one cut, one restart.
//!
//! The network is a bag per connection and direction, so any order of delivery is explored; a timeout is a free step
//! when nothing is on its way, and may once come before that. Each site has a clock of its own, that only timeouts move.
//! States are told apart by fingerprints, in which connections are named by place and deadlines by order.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::collections::BTreeSet;
use std::hash::Hash;

use bytes::Bytes;
use mainstay_base::{
    BootId, BootNonce, ConnId, Fingerprint, Fingerprinter, Frame, Instant, Machine, NodeId,
};
use mainstay_link::{Builder, Config, Event, Input, Link, Output};
use support::{cluster, config, ms, nodes, turn};

#[derive(Clone)]
struct Wire {
    conn: ConnId,
    dialler: usize,
    /// Whether each end was told of the opening, and is open.
    opened: [bool; 2],
    open: [bool; 2],
    bag: [BTreeSet<Vec<u8>>; 2],
}

#[derive(Clone)]
struct World {
    links: Vec<Link>,
    now: [Instant; 2],
    boots: [BootId; 2],
    wires: Vec<Wire>,
    dials: Vec<(usize, NodeId)>,
    /// Messages that each site still wants to send.
    wanted: [u8; 2],
    /// Per direction: (sender, addressee, sent, delivered) of the boots that live.
    sent: [u8; 2],
    delivered: [u8; 2],
    /// Delivered at each site, as far as the other one knows it: in its session.
    reached: [u8; 2],
    /// What was delivered at each site, by what was still wanted when it was sent: nothing comes twice, whatever began anew.
    tags: [BTreeSet<u8>; 2],
    losses: u8,
    duplicates: u8,
    cuts: u8,
    restarts: u8,
    early: u8,
    conns: u64,
    /// Site 1 is a guest of site 0, which is set up so.
    guest: Option<fn(Builder) -> Builder>,
}

#[derive(Clone, Debug)]
enum Step {
    Dial(usize),
    Open(usize, usize),
    Deliver(usize, usize, usize),
    Lose(usize, usize, usize),
    Duplicate(usize, usize, usize),
    Close(usize, usize),
    Cut(usize),
    Send(usize),
    Restart(usize),
    Timeout(usize),
}

fn new_link(boot: BootId) -> Link {
    Link::new(config(boot, &nodes(2)).build().unwrap(), 1, Instant::ZERO)
}

impl World {
    fn new(restarts: u8) -> Self {
        let nodes = nodes(2);
        let boots = [0, 1].map(|at| BootId { node: nodes[at], nonce: BootNonce(at as u128 + 1) });
        Self {
            links: boots.map(new_link).into(),
            now: [Instant::ZERO; 2],
            boots,
            wires: vec![],
            dials: vec![],
            wanted: [2, 1],
            tags: Default::default(),
            sent: [0; 2],
            delivered: [0; 2],
            reached: [0; 2],
            losses: 1,
            duplicates: 1,
            cuts: 1,
            restarts,
            early: 1,
            conns: 0,
            guest: None,
        }
    }

    /// Site 1 is a guest of site 0, which gives its session up 5 ms after the end of a connection.
    fn with_guest(restarts: u8, guest: fn(Builder) -> Builder) -> Self {
        let mut world = Self { guest: Some(guest), ..Self::new(restarts) };
        (0..2).for_each(|site| world.links[site] = world.link(site));
        world
    }

    fn link(&self, site: usize) -> Link {
        let (boot, Some(guest)) = (self.boots[site], self.guest) else {
            return new_link(self.boots[site]);
        };
        let settings = match site {
            0 => {
                let settings = Config::for_test(cluster(), boot, BTreeSet::new());
                let settings = settings.guests(1, [1], ms(5));
                guest(settings)
            }
            _ => config(boot, &nodes(2)).as_guest(),
        };
        Link::new(settings.build().unwrap(), 1, Instant::ZERO)
    }

    fn is_quiet(&self) -> bool {
        let idle = |wire: &Wire| {
            (0..2).all(|end| {
                !wire.open[end]
                    || (wire.bag[end].is_empty() && wire.opened[end] && wire.open[1 - end])
            })
        };
        self.dials.is_empty() && self.wires.iter().all(idle)
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = (0..self.dials.len()).map(Step::Dial).collect();
        for (index, wire) in self.wires.iter().enumerate() {
            for end in (0..2).filter(|end| wire.open[*end]) {
                if !wire.opened[end] {
                    // L-A4: connections are reported in the order in which they were made.
                    let waits = |other: &Wire| !other.opened[end] && other.open[end];
                    if !self.wires[..index].iter().any(waits) {
                        steps.push(Step::Open(index, end));
                    }
                    continue;
                }
                if !wire.open[1 - end] {
                    steps.push(Step::Close(index, end));
                }
                for frame in 0..wire.bag[end].len() {
                    steps.push(Step::Deliver(index, end, frame));
                    if self.losses > 0 {
                        steps.push(Step::Lose(index, end, frame));
                    }
                    if self.duplicates > 0 {
                        steps.push(Step::Duplicate(index, end, frame));
                    }
                }
            }
            if self.cuts > 0 && wire.open == [true; 2] && wire.opened == [true; 2] {
                steps.push(Step::Cut(index));
            }
        }
        for site in 0..2 {
            if self.wanted[site] > 0 && self.links[site].boot(self.boots[1 - site].node).is_some() {
                steps.push(Step::Send(site));
            }
            if self.restarts > 0 {
                steps.push(Step::Restart(site));
            }
            let early = self.early > 0 || self.is_quiet();
            if early && self.links[site].poll_timeout().is_some() {
                steps.push(Step::Timeout(site));
            }
        }
        steps
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Dial(index) => {
                let (from, _) = self.dials.remove(index);
                self.conns += 1;
                self.wires.push(Wire {
                    conn: ConnId(self.conns),
                    dialler: from,
                    opened: [false; 2],
                    open: [true; 2],
                    bag: Default::default(),
                });
            }
            Step::Open(index, site) => {
                let wire = &mut self.wires[index];
                wire.opened[site] = true;
                let dialled = (wire.dialler == site).then(|| self.boots[1 - site].node);
                let input = Input::Opened { conn: wire.conn, dialled };
                self.input(site, Some(input));
            }
            Step::Deliver(index, site, frame) => {
                let bytes = self.take(index, site, frame);
                self.deliver(index, site, &bytes);
            }
            Step::Lose(index, site, frame) => {
                self.losses -= 1;
                self.take(index, site, frame);
            }
            Step::Duplicate(index, site, frame) => {
                self.duplicates -= 1;
                let bytes = self.wires[index].bag[site].iter().nth(frame).unwrap().clone();
                self.deliver(index, site, &bytes);
            }
            Step::Close(index, site) => self.close(index, site),
            Step::Cut(index) => {
                self.cuts -= 1;
                self.close(index, 0);
            }
            Step::Send(site) => {
                self.wanted[site] -= 1;
                self.sent[site] += 1;
                let (me, to) = (self.boots[site], self.boots[1 - site]);
                let boot = self.links[site].boot(to.node).unwrap();
                let tag = self.wanted[site];
                let payload = vec![me.nonce.0 as u8, boot.nonce.0 as u8, self.sent[site], tag];
                let (meta, payload) = (Bytes::new(), payload.into());
                let input = Input::Send { to: to.node, boot: None, channel: 1, meta, payload };
                self.input(site, Some(input));
            }
            Step::Restart(site) => self.restart(site),
            Step::Timeout(site) => {
                self.early -= u8::from(!self.is_quiet());
                self.now[site] = self.now[site].max(self.links[site].poll_timeout().unwrap());
                self.input(site, None);
            }
        }
        self.wires.retain(|wire| wire.open != [false; 2]);
    }

    fn take(&mut self, index: usize, site: usize, frame: usize) -> Vec<u8> {
        let bytes = self.wires[index].bag[site].iter().nth(frame).unwrap().clone();
        self.wires[index].bag[site].remove(&bytes);
        bytes
    }

    fn deliver(&mut self, index: usize, site: usize, bytes: &[u8]) {
        let head = bytes[..32].try_into().unwrap();
        let header = mainstay_base::Header::decode(head, 1 << 20).unwrap();
        let frame = Frame::decode(&header, Bytes::copy_from_slice(&bytes[32..])).unwrap();
        let conn = self.wires[index].conn;
        self.input(site, Some(Input::Received { conn, frame }));
    }

    fn close(&mut self, index: usize, site: usize) {
        let wire = &mut self.wires[index];
        wire.open[site] = false;
        wire.bag[site].clear();
        let (conn, opened) = (wire.conn, wire.opened[site]);
        if opened {
            self.input(site, Some(Input::Closed { conn }));
        }
    }

    /// A new nonce; what the former boot sent or was sent is void, the other site sends again what it still wants.
    fn restart(&mut self, site: usize) {
        self.restarts -= 1;
        self.boots[site].nonce.0 += 2;
        self.links[site] = self.link(site);
        self.tags = Default::default();
        self.now[site] = Instant::ZERO;
        self.dials.retain(|(from, _)| *from != site);
        for wire in &mut self.wires {
            wire.open[site] = false;
            wire.bag[site].clear();
        }
        (self.sent[site], self.delivered, self.reached) = (0, [0; 2], [0; 2]);
    }

    fn input(&mut self, site: usize, input: Option<Input>) {
        let outputs = turn(&mut self.links[site], self.now[site], input);
        for output in outputs {
            match output {
                Output::Dial { node } => self.dials.push((site, node)),
                Output::Transmit { conn, frame } => {
                    if let Some(wire) = self.wires.iter_mut().find(|wire| wire.conn == conn)
                        && wire.open[1 - site]
                    {
                        wire.bag[1 - site].insert(frame.encode().into());
                    }
                }
                Output::Close { conn } => {
                    if let Some(wire) = self.wires.iter_mut().find(|wire| wire.conn == conn) {
                        wire.open[site] = false;
                        wire.bag[site].clear();
                    }
                }
                Output::Event(event) => self.on_event(site, event),
            }
        }
    }

    fn on_event(&mut self, site: usize, event: Event) {
        let (me, other) = (self.boots[site], self.boots[1 - site]);
        match event {
            Event::Deliver { from, payload, .. } => {
                // Frames of a former boot may still come, in order, until the new one is known.
                assert_eq!(payload[..2], [from.nonce.0 as u8, me.nonce.0 as u8], "MB-25");
                if from == other {
                    assert!(self.tags[site].insert(payload[3]), "MB-27: nothing comes twice");
                    self.delivered[site] += 1;
                    self.reached[site] += 1;
                    assert_eq!(payload[2], self.delivered[site], "MB-27");
                }
            }
            Event::Replaced { old, new, .. } => {
                assert!(old != other && new == other, "the living are not replaced");
                self.sent[site] = 0;
            }
            Event::Gone { .. } => {
                (self.sent[site], self.delivered[site], self.reached[1 - site]) = (0, 0, 0);
            }
            Event::Sent { to, upto } if to == other => {
                assert!(upto <= u64::from(self.reached[1 - site]), "MB-26");
            }
            Event::Mismatch { .. } | Event::Dead { .. } | Event::NotSent { .. } => {
                panic!("{event:?} among the living")
            }
            _ => {}
        }
    }

    fn print(&self) -> u128 {
        let mut into = Fingerprinter::new();
        self.links.iter().for_each(|link| link.fingerprint(&mut into));
        for wire in &self.wires {
            (wire.dialler, wire.opened, wire.open, &wire.bag).hash(&mut into);
        }
        (&self.dials, self.wanted, self.sent, self.delivered, self.reached, &self.tags)
            .hash(&mut into);
        (self.losses, self.duplicates, self.cuts, self.restarts, self.early).hash(&mut into);
        into.finish128()
    }

    /// Runs on without faults: all that was accepted and not voided must come.
    fn settles(&self) -> bool {
        let mut world = self.clone();
        (world.losses, world.duplicates, world.cuts) = (0, 0, 0);
        (world.restarts, world.early) = (0, 0);
        for _ in 0..200 {
            let (one, two) = (&world.links[0], &world.links[1]);
            let (to_two, to_one) =
                (one.status(world.boots[1].node), two.status(world.boots[0].node));
            let acked = |status| matches!(status, Some((top, acked)) if top == acked);
            let know = one.boot(world.boots[1].node) == Some(world.boots[1])
                && two.boot(world.boots[0].node) == Some(world.boots[0]);
            if know && world.wanted == [0; 2] && acked(to_two) && acked(to_one) {
                return world.delivered == [world.sent[1], world.sent[0]];
            }
            let steps = world.steps();
            let step = steps.iter().find(|step| !matches!(step, Step::Timeout(_)));
            let timeout = steps.iter().min_by_key(|step| match step {
                Step::Timeout(site) => (0, world.now[*site]),
                _ => (1, Instant::ZERO),
            });
            let step = step.or(timeout).unwrap().clone();
            world.apply(&step);
        }
        false
    }
}

/// The number of states, all of which hold the properties, how many of them were run to their end, and in how many a new
/// boot had been turned away because its former one was not known to be gone.
fn explore(start: World) -> (usize, usize, usize) {
    let mut seen = BTreeSet::from([start.print()]);
    let mut open = vec![start];
    let (mut settled, mut turned_away) = (0, 0);
    while let Some(world) = open.pop() {
        if seen.len() % 64 == 0 || world.is_quiet() {
            assert!(world.settles(), "MB-27: all that was sent comes in the end");
            settled += 1;
        }
        for step in world.steps() {
            let mut next = world.clone();
            next.apply(&step);
            if seen.insert(next.print()) {
                let refused = |link: &Link| link.stats().taken_sent > 0;
                turned_away += usize::from(next.links.iter().any(refused));
                open.push(next);
            }
        }
        assert!(seen.len() < 4_000_000, "the scope is finite");
    }
    (seen.len(), settled, turned_away)
}

/// Checks MB-25, MB-26 and MB-27 in every state of the scope without a restart.
#[test]
fn every_run_of_a_small_scope_without_a_restart_is_right() {
    let (states, settled, _) = explore(World::new(0));
    println!("{states} states, complete; {settled} run to their end");
    assert!(states > 1_000);
}

/// Checks MB-25, MB-26 and MB-27 in every state of the scope with a restart.
#[test]
fn every_run_of_a_small_scope_with_a_restart_is_right() {
    let mut start = World::new(1);
    (start.wanted, start.cuts, start.early) = ([2, 1], 0, 0);
    let (states, settled, _) = explore(start);
    println!("{states} states, complete; {settled} run to their end");
    assert!(states > 1_000);
}

/// Checks MB-25, MB-26 and MB-27 in every state of a scope with a restart in which the new boot may ask before the end of
/// its former connection is seen: it is turned away and let in later.
#[test]
fn every_run_in_which_a_new_boot_asks_too_early_is_right() {
    let mut start = World::new(1);
    (start.wanted, start.cuts, start.losses) = ([1, 1], 0, 0);
    let (states, settled, turned_away) = explore(start);
    println!(
        "{states} states, complete; {settled} run to their end; {turned_away} after a refusal"
    );
    assert!(turned_away > 1_000);
}

/// The scope of a guest: its node gives its session up when it has been away for a while, before or after it asks again.
fn guest_scope(restarts: u8, configure: fn(Builder) -> Builder) -> World {
    let mut start = World::with_guest(restarts, configure);
    (start.wanted, start.cuts, start.losses, start.duplicates) = ([2, 2], 1, 0, 0);
    start.early = 2;
    start
}

/// Checks MB-25 to MB-27 in every state of the scope of a guest, whose session may end although both boots live: both ends begin anew, and
/// nothing of the old session comes in the new one.
#[test]
fn every_run_of_a_guest_is_right() {
    let (states, settled, _) = explore(guest_scope(0, |it| it));
    println!("{states} states, complete; {settled} run to their end");
    assert!(states > 1_000);
}

/// The same with a restart of the guest or of its node.
#[test]
fn every_run_of_a_guest_with_a_restart_is_right() {
    let mut start = guest_scope(1, |it| it);
    (start.wanted, start.early) = ([1, 1], 1);
    let (states, settled, _) = explore(start);
    println!("{states} states, complete; {settled} run to their end");
    assert!(states > 1_000);
}

/// A node that takes a guest of a session that it has given up for one that it has never met is found.
#[cfg(feature = "test-util")]
#[test]
fn welcoming_a_forgotten_guest_is_noticed() {
    use mainstay_link::fault::Fault;

    let run = || explore(guest_scope(0, |it| it.fault(Fault::WelcomesForgotten)));
    std::panic::catch_unwind(run)
        .expect_err("the session goes on at one end and begins at the other");
}
