//! Three nodes' channels, joined by what a link promises, and the services of a test on top.
#![allow(unreachable_pub, reason = "shared by tests")]

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{BufMut as _, Bytes, BytesMut};
use mainstay_base::rack::Given;
use mainstay_base::service::{Address, Class, Dest, PeerChange};
use mainstay_base::{
    BootId, BootNonce, Channel, ClusterId, Duration, Instance, Instant, NodeId, Rng,
};
use mainstay_link::Event;
use mainstay_service::mux::{CHANNEL, Frame, Mux};

pub const NODES: usize = 3;
const CLASSES: [Class; 4] = [Class::Views, Class::Groups, Class::Calls, Class::Bulk];

/// What one service knows of one peer.
#[derive(Default, Clone)]
struct Known {
    /// Counts how often the stream has begun anew, for all services of a node.
    epoch: u64,
    /// Of the last message that was taken.
    sent: u64,
    up: bool,
    blocked: bool,
    /// The epoch and the number of the last message that came.
    got: (u64, u64),
}

struct End {
    boot: BootId,
    mux: Mux,
    epochs: u64,
    mounted: BTreeMap<Address, BTreeMap<BootId, Known>>,
    connected: BTreeSet<usize>,
    /// Whose message was given back before they knew the boot.
    early: BTreeSet<(Address, BootId)>,
    /// Of services beside the node, what their actors have not taken in.
    waiting: BTreeMap<Address, VecDeque<Given>>,
}

/// What a frame counts for beyond its bytes.
const FRAME_COST: usize = 256;

pub struct Net {
    ends: Vec<End>,
    /// Frames from one end to another that have not come: a session loses nothing.
    pipes: BTreeMap<(usize, usize), VecDeque<Frame>>,
    rng: Rng,
    pub now: Instant,
    pub delivered: u64,
    pub refused: u64,
    setup: fn(&mut Mux),
}

fn node(index: usize) -> NodeId {
    NodeId::new(ClusterId::from_entropy(1), &format!("n{index}"))
}

pub fn address(index: usize) -> Address {
    let instance = Instance::new(ClusterId::from_entropy(1), &format!("i{index}"));
    Address { channel: Channel(20 + index as u16), instance }
}

fn class(index: usize) -> Class {
    CLASSES[index % CLASSES.len()]
}

/// Half of the services take in what they are given some time later.
fn is_beside(index: usize) -> bool {
    index % 2 == 1
}

fn number(meta: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(meta[at..at + 8].try_into().expect("eight"))
}

impl Net {
    pub fn new(seed: u64, setup: fn(&mut Mux)) -> Self {
        let mut net = Self {
            ends: Vec::new(),
            pipes: BTreeMap::new(),
            rng: Rng::new(seed),
            now: Instant::ZERO,
            delivered: 0,
            refused: 0,
            setup,
        };
        for index in 0..NODES {
            let end = net.end(index);
            net.ends.push(end);
        }
        net
    }

    fn end(&mut self, index: usize) -> End {
        let boot = BootId { node: node(index), nonce: BootNonce(self.rng.next_u128()) };
        let mut mux = Mux::new();
        (self.setup)(&mut mux);
        let (mounted, connected, early, waiting) = Default::default();
        End { boot, mux, epochs: 0, mounted, connected, early, waiting }
    }

    fn index_of(&self, boot: BootId) -> Option<usize> {
        self.ends.iter().position(|end| end.boot == boot)
    }

    pub fn mount(&mut self, at: usize, which: usize) {
        let end = &mut self.ends[at];
        let of = address(which);
        assert!(match is_beside(which) {
            true => end.mux.mount_beside(of, class(which), 7),
            false => end.mux.mount(of, class(which), 7),
        });
        end.mounted.insert(of, BTreeMap::new());
        end.early.retain(|(it, _)| *it != of);
        if is_beside(which) {
            end.waiting.insert(of, VecDeque::new());
        }
        self.settle(at);
    }

    pub fn dismount(&mut self, at: usize, which: usize) {
        self.ends[at].mux.dismount(address(which));
        self.ends[at].mounted.remove(&address(which));
        self.ends[at].waiting.remove(&address(which));
    }

    pub fn connect(&mut self, one: usize, other: usize) {
        for (at, to) in [(one, other), (other, one)] {
            let boot = self.ends[to].boot;
            if self.ends[at].connected.insert(to) {
                let event = Event::Up { boot, features: 0, version: 1, guest: false };
                self.ends[at].mux.on_link(self.now, &event);
                self.settle(at);
            }
        }
    }

    pub fn disconnect(&mut self, one: usize, other: usize) {
        for (at, to) in [(one, other), (other, one)] {
            let boot = self.ends[to].boot;
            if self.ends[at].connected.remove(&to) {
                self.ends[at].mux.on_link(self.now, &Event::Down { boot });
                self.settle(at);
            }
        }
    }

    /// Another boot of a node.
    pub fn restart(&mut self, at: usize) {
        let old = self.ends[at].boot;
        let next = self.end(at);
        let new = next.boot;
        self.ends[at] = next;
        self.pipes.retain(|(from, to), _| *from != at && *to != at);
        for other in (0..NODES).filter(|other| *other != at) {
            self.ends[other].connected.remove(&at);
            self.ends[other]
                .mux
                .on_link(self.now, &Event::Replaced { old, new, unsettled: Default::default() });
            self.settle(other);
        }
    }

    /// Takes what services are told, or lets it wait for the actors of those beside the node.
    fn settle(&mut self, at: usize) {
        while let Some((of, given)) = self.ends[at].mux.poll_given() {
            match self.ends[at].waiting.get_mut(&of) {
                Some(waiting) => waiting.push_back(given),
                None => self.told(at, of, given),
            }
        }
    }

    /// A service hears something, and it is checked.
    fn told(&mut self, at: usize, of: Address, given: Given) {
        let end = &mut self.ends[at];
        let Some(peers) = end.mounted.get_mut(&of) else { return };
        match given {
            Given::Peer(PeerChange::Up { boot }) => {
                let known = peers.entry(boot).or_insert_with(|| {
                    end.epochs += 1;
                    Known { epoch: end.epochs, ..Known::default() }
                });
                assert!(!known.up, "up twice");
                known.up = true;
                known.blocked |= end.early.remove(&(of, boot));
            }
            Given::Peer(PeerChange::Down { boot }) => {
                let known = peers.get_mut(&boot).expect("who goes down was up");
                assert!(known.up, "down twice");
                known.up = false;
            }
            Given::Peer(PeerChange::Ended { boot: old } | PeerChange::Replaced { old, .. }) => {
                end.early.remove(&(of, old));
                peers.remove(&old);
            }
            Given::Room { to } => {
                let known = peers.get_mut(&to).expect("who has room is known");
                assert!(known.blocked && known.up, "room after a refusal only");
                known.blocked = false;
            }
            Given::Full { to, meta, .. } => {
                // One beside the node hears it later.
                let Some(known) = peers.get_mut(&to) else {
                    // It hears of room when it knows the boot again.
                    end.early.insert((of, to));
                    return;
                };
                let (epoch, seq) = (number(&meta, 0), number(&meta, 8));
                known.blocked = true;
                if epoch == known.epoch {
                    known.sent = known.sent.min(seq - 1);
                }
            }
            Given::Message { from, meta, payload, .. } => {
                let known = peers.entry(from).or_insert_with(|| {
                    end.epochs += 1;
                    Known { epoch: end.epochs, ..Known::default() }
                });
                let (epoch, seq, size) = (number(&meta, 0), number(&meta, 8), number(&meta, 16));
                assert_eq!((meta.len() + payload.len()) as u64, size, "a message comes whole");
                assert!(payload.iter().all(|byte| *byte == seq as u8), "its bytes are its own");
                let expected = if epoch == known.got.0 { known.got.1 + 1 } else { 1 };
                assert!(epoch >= known.got.0, "nothing of an older stream");
                assert_eq!(seq, expected, "once, in order, without a hole");
                known.got = (epoch, seq);
                self.delivered += 1;
            }
            _ => {}
        }
    }

    /// Sends a message to all others, if the service knows them.
    pub fn send(&mut self, at: usize, which: usize, size: usize) {
        let of = address(which);
        let end = &mut self.ends[at];
        let Some(peers) = end.mounted.get_mut(&of) else { return };
        let all: Vec<BootId> = peers.keys().copied().collect();
        for to in all {
            let Some(known) = peers.get_mut(&to) else { continue };
            let seq = known.sent + 1;
            let mut meta = BytesMut::new();
            meta.put_u64_le(known.epoch);
            meta.put_u64_le(seq);
            let meta_more = if size.is_multiple_of(3) { size / 2 } else { 0 };
            meta.put_u64_le((24 + size + meta_more) as u64);
            meta.put_bytes(1, meta_more);
            let payload = Bytes::from(vec![seq as u8; size]);
            end.mux.send(of, 0, &Dest::Boot(to), &meta.freeze(), &payload);
            let given = end.mux.poll_given();
            let refused = matches!(given, Some((_, Given::Full { .. })));
            assert!(refused == given.is_some(), "nothing else was waiting");
            if let (Some(waiting), Some((_, given))) = (end.waiting.get_mut(&of), given) {
                // It does not know yet, and goes on.
                waiting.push_back(given);
                known.sent = seq;
                self.refused += 1;
                continue;
            }
            let is_beside = is_beside(which);
            assert!(refused || is_beside || (known.up && !known.blocked), "after a refusal");
            if refused {
                self.refused += 1;
                known.blocked = true;
            } else {
                known.sent = seq;
            }
        }
    }

    /// An actor takes in so much of what it was given.
    fn take(&mut self, at: usize, which: usize, most: usize) {
        let of = address(which);
        let (mut messages, mut heard) = (0, 0);
        for _ in 0..most {
            let waiting = self.ends[at].waiting.get_mut(&of);
            let Some(given) = waiting.and_then(VecDeque::pop_front) else { break };
            messages += usize::from(matches!(given, Given::Message { .. }));
            let is_word = matches!(given, Given::Full { .. } | Given::Peer(PeerChange::Up { .. }));
            heard += u64::from(is_word);
            self.told(at, of, given);
        }
        self.ends[at].mux.took(self.now, of, messages, heard);
    }

    /// What waits is bounded by what was granted: of each stream all but the first message, which may have come in parts.
    fn check_waiting(&self, at: usize) {
        for which in (0..5).filter(|which| is_beside(*which)) {
            let Some(waiting) = self.ends[at].waiting.get(&address(which)) else { continue };
            let mut streams: BTreeMap<(BootId, u64), usize> = BTreeMap::new();
            for given in waiting {
                let Given::Message { from, meta, payload, .. } = given else { continue };
                let bytes = meta.len() + payload.len() + FRAME_COST;
                match streams.entry((*from, number(meta, 0))) {
                    Entry::Vacant(first) => drop(first.insert(0)),
                    Entry::Occupied(mut more) => *more.get_mut() += bytes,
                }
            }
            let window = mainstay_service::mux::window(class(which)) as usize;
            assert!(streams.values().all(|bytes| *bytes <= window), "no more than was granted");
        }
    }

    pub fn end_turn(&mut self, at: usize) {
        self.ends[at].mux.end_turn(self.now);
        self.settle(at);
        self.ends[at].mux.check_invariants();
        self.check_waiting(at);
        while let Some(frame) = self.ends[at].mux.poll_frame() {
            if let Some(to) = self.index_of(frame.to) {
                self.pipes.entry((at, to)).or_default().push_back(frame);
            }
        }
        for (pipe, frames) in &self.pipes {
            let bytes: usize = frames.iter().map(|it| it.meta.len() + it.payload.len()).sum();
            assert!(bytes < mainstay_service::mux::LINK_BYTES, "{pipe:?} holds {bytes} bytes");
        }
    }

    /// Lets up to so many frames of one pipe come.
    pub fn deliver(&mut self, from: usize, to: usize, count: usize) -> bool {
        let mut any = false;
        for _ in 0..count {
            if !self.ends[to].connected.contains(&from) {
                break;
            }
            let Some(frame) = self.pipes.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
                break;
            };
            let Frame { meta, payload, .. } = frame;
            let from = self.ends[from].boot;
            let event = Event::Deliver { from, channel: CHANNEL, meta, payload };
            self.ends[to].mux.on_link(self.now, &event);
            self.settle(to);
            any = true;
        }
        any
    }

    /// One thing happens.
    pub fn step(&mut self) {
        let (at, which) = (self.rng.below(NODES as u64) as usize, self.rng.below(5) as usize);
        let other = (at + 1 + self.rng.below(NODES as u64 - 1) as usize) % NODES;
        match self.rng.below(100) {
            0..30 => {
                let large = [100, 2_000, 70_000, 400_000, 3_000_000];
                let size = large[self.rng.below(large.len() as u64) as usize];
                let size = self.rng.below(size) as usize;
                self.send(at, which, size);
            }
            30..65 => {
                let count = self.rng.below(20) as usize;
                self.deliver(at, other, count);
            }
            65..78 => self.end_turn(at),
            78..85 => {
                let most = self.rng.below(8) as usize;
                self.take(at, which, most);
            }
            85..90 => self.now = self.now + Duration::from_millis(self.rng.below(10)),
            90..93 => self.disconnect(at, other),
            93..96 => self.connect(at, other),
            96..98 => self.mount(at, which),
            98 => self.dismount(at, which),
            _ if self.rng.chance(1, 8) => self.restart(at),
            _ => {}
        }
    }

    /// Connects and mounts all, and lets everything come.
    pub fn heal(&mut self) {
        for at in 0..NODES {
            for which in 0..5 {
                if !self.ends[at].mounted.contains_key(&address(which)) {
                    self.mount(at, which);
                }
            }
            (0..at).for_each(|other| self.connect(at, other));
        }
        let mut quiet = 0;
        let mut rounds = 0;
        while quiet < 3 {
            rounds += 1;
            assert!(rounds < 20_000, "it comes to rest");
            let mut any = false;
            for at in 0..NODES {
                (0..5).for_each(|which| self.take(at, which, usize::MAX));
                self.end_turn(at);
                for from in (0..NODES).filter(|from| *from != at) {
                    any |= self.deliver(from, at, 64);
                }
                any |= self.ends[at].waiting.values().any(|it| !it.is_empty());
            }
            self.now = self.now + Duration::from_millis(1);
            // What was taken in is told a little later.
            any |= self.ends.iter().any(|end| end.mux.poll_timeout().is_some());
            quiet = if any { 0 } else { quiet + 1 };
        }
    }

    /// All that was taken has come, and everybody is up and has room.
    pub fn check_whole(&self) {
        for end in &self.ends {
            assert_eq!(end.mux.stats().malformed, 0, "everybody speaks the protocol");
            assert_eq!(end.mux.stats().overrun, 0, "nobody sends more than was granted");
            for (of, peers) in &end.mounted {
                for other in self.ends.iter().filter(|other| other.boot != end.boot) {
                    let known = &peers[&other.boot];
                    assert!(known.up && !known.blocked, "{of:?} is up and has room");
                    let back = &other.mounted[of][&end.boot];
                    let sent = if known.sent == 0 {
                        back.got.1 * u64::from(back.got.0 == known.epoch)
                    } else {
                        back.got.1
                    };
                    assert_eq!(sent, known.sent, "what was taken has come");
                }
            }
        }
    }
}

/// One run.
pub fn run(seed: u64, steps: usize, setup: fn(&mut Mux)) -> (u64, u64) {
    let mut net = Net::new(seed, setup);
    for at in 0..NODES {
        (0..4).for_each(|which| net.mount(at, which));
        (0..at).for_each(|other| net.connect(at, other));
    }
    (0..steps).for_each(|_| net.step());
    net.heal();
    net.check_whole();
    (net.delivered, net.refused)
}
