//! A small real protocol: a register replicated on a majority of disks, after Attiya, Bar-Noy and Dolev (1995).
//!
//! A write stores its value at a majority; a read asks a majority and stores what it found at a majority before it
//! answers. Values are numbers that only grow. With `acks_early` a replica says "stored" when the write is issued, not
//! when it is on the disk: the planted bug, that loses acknowledged writes at a crash.
#![allow(dead_code, reason = "each test file uses a part")]

use std::hash::Hash as _;

use mainstay_base::{BootId, Duration, Fingerprinter, Instant, NodeId};
use mainstay_sim::{Effects, Node, Peer, Start};

/// When an operation asks again those who have not answered.
pub(crate) const RETRY: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Message {
    Store { op: u64, value: u64 },
    Stored { op: u64 },
    Ask { op: u64 },
    Answer { op: u64, value: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Event {
    Written { op: u64, value: u64 },
    Read { op: u64, value: u64 },
}

pub(crate) enum Output {
    Send { to: usize, message: Message },
    Persist { value: u64 },
    Event(Event),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Operation {
    number: u64,
    is_read: bool,
    /// What is stored; `None` while a majority is asked.
    storing: Option<u64>,
    found: u64,
    answered: Vec<bool>,
}

/// The machine of one replica.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Register {
    me: usize,
    acks_early: bool,
    value: u64,
    on_disk: u64,
    /// Who waits until which value is on the disk, for which operation.
    waiting: Vec<(u64, usize, u64)>,
    current: Option<Operation>,
    nodes: usize,
}

impl Register {
    pub(crate) fn recover(me: usize, nodes: usize, acks_early: bool, on_disk: u64) -> Self {
        let (value, waiting) = (on_disk, Vec::new());
        Self { me, acks_early, value, on_disk, waiting, current: None, nodes }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.current.is_some()
    }

    pub(crate) fn write(&mut self, number: u64, value: u64, out: &mut Vec<Output>) {
        self.begin(Operation {
            number,
            is_read: false,
            storing: Some(value),
            found: 0,
            answered: vec![false; self.nodes],
        });
        self.ask_the_others(out);
        self.receive(self.me, Message::Store { op: number, value }, out);
    }

    pub(crate) fn read(&mut self, number: u64, out: &mut Vec<Output>) {
        self.begin(Operation {
            number,
            is_read: true,
            storing: None,
            found: 0,
            answered: vec![false; self.nodes],
        });
        self.ask_the_others(out);
        self.receive(self.me, Message::Ask { op: number }, out);
    }

    fn begin(&mut self, operation: Operation) {
        assert!(self.current.is_none(), "one operation at a time");
        self.current = Some(operation);
    }

    /// Sends the question of the current phase to all who have not answered it.
    pub(crate) fn ask_the_others(&self, out: &mut Vec<Output>) {
        let Some(Operation { number: op, storing, answered, .. }) = &self.current else { return };
        let message = match *storing {
            Some(value) => Message::Store { op: *op, value },
            None => Message::Ask { op: *op },
        };
        let others = (0..self.nodes).filter(|to| *to != self.me && !answered[*to]);
        out.extend(others.map(|to| Output::Send { to, message }));
    }

    pub(crate) fn receive(&mut self, from: usize, message: Message, out: &mut Vec<Output>) {
        match message {
            Message::Store { op, value } => {
                if value > self.value {
                    self.value = value;
                    out.push(Output::Persist { value });
                }
                if value <= self.on_disk || self.acks_early {
                    self.send(from, Message::Stored { op }, out);
                } else if !self.waiting.contains(&(value, from, op)) {
                    self.waiting.push((value, from, op));
                    self.waiting.sort_unstable();
                }
            }
            Message::Ask { op } => self.send(from, Message::Answer { op, value: self.value }, out),
            Message::Stored { op } => {
                let stores = |current: &Operation| current.storing.is_some();
                if self.answer(from, op, stores, 0) {
                    let done = self.current.take().expect("answered just now");
                    let value = done.storing.expect("it stores");
                    out.push(Output::Event(if done.is_read {
                        Event::Read { op, value }
                    } else {
                        Event::Written { op, value }
                    }));
                }
            }
            Message::Answer { op, value } => {
                let asks = |current: &Operation| current.storing.is_none();
                if self.answer(from, op, asks, value) {
                    let current = self.current.as_mut().expect("answered just now");
                    let value = current.found;
                    current.storing = Some(value);
                    current.answered.fill(false);
                    self.ask_the_others(out);
                    self.receive(self.me, Message::Store { op, value }, out);
                }
            }
        }
    }

    /// Counts an answer; whether a majority is reached with it.
    fn answer(
        &mut self,
        from: usize,
        op: u64,
        phase: impl Fn(&Operation) -> bool,
        value: u64,
    ) -> bool {
        let Some(current) = &mut self.current else { return false };
        if current.number != op || !phase(current) || current.answered[from] {
            return false;
        }
        current.answered[from] = true;
        current.found = current.found.max(value);
        current.answered.iter().filter(|answered| **answered).count() == self.nodes / 2 + 1
    }

    pub(crate) fn written(&mut self, value: u64, out: &mut Vec<Output>) {
        self.on_disk = value;
        let (done, waiting) = self.waiting.iter().partition(|(of, ..)| *of <= value);
        self.waiting = waiting;
        let done: Vec<(u64, usize, u64)> = done;
        for (_, to, op) in done {
            self.send(to, Message::Stored { op }, out);
        }
    }

    fn send(&mut self, to: usize, message: Message, out: &mut Vec<Output>) {
        if to == self.me {
            self.receive(to, message, out);
        } else {
            out.push(Output::Send { to, message });
        }
    }
}

/// The register in the world.
pub(crate) struct Replica {
    pub(crate) register: Register,
    roster: Vec<NodeId>,
    /// With whom it is connected, by index.
    peers: Vec<Option<BootId>>,
    out: Vec<Output>,
    retry: Option<Instant>,
    recovered: bool,
}

impl Replica {
    pub(crate) fn write(&mut self, now: Instant, op: u64, value: u64) {
        self.register.write(op, value, &mut self.out);
        self.retry = Some(now + RETRY);
    }

    pub(crate) fn read(&mut self, now: Instant, op: u64) {
        self.register.read(op, &mut self.out);
        self.retry = Some(now + RETRY);
    }

    fn index(&self, boot: BootId) -> usize {
        self.roster.binary_search(&boot.node).expect("all nodes are of the roster")
    }
}

/// What the nodes are told.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) acks_early: bool,
}

impl Node for Replica {
    type Setup = Setup;
    type Message = Message;
    type Durable = u64;
    type Write = u64;
    type Event = Event;

    fn start(start: Start<'_, Self>) -> Self {
        let nodes = start.roster.len();
        Self {
            register: Register::recover(start.index, nodes, start.setup.acks_early, start.durable),
            roster: start.roster.to_vec(),
            peers: vec![None; nodes],
            out: Vec::new(),
            retry: None,
            recovered: start.durable > 0,
        }
    }

    fn opened(&mut self, _: Instant, peer: Peer, _: bool) {
        let index = self.index(peer.boot);
        let before = self.peers[index].replace(peer.boot);
        assert_eq!(before, None, "the former connection is closed before");
    }

    fn closed(&mut self, _: Instant, peer: Peer) {
        let index = self.index(peer.boot);
        assert_eq!(self.peers[index].take(), Some(peer.boot), "what is closed was open");
    }

    fn receive(&mut self, _: Instant, from: Peer, message: Message) {
        let index = self.index(from.boot);
        assert_eq!(self.peers[index], Some(from.boot), "messages come over open connections");
        self.register.receive(index, message, &mut self.out);
    }

    fn timeout(&mut self, now: Instant) {
        assert!(self.retry.is_some_and(|retry| retry <= now), "the deadline has come");
        self.register.ask_the_others(&mut self.out);
        self.retry = self.register.is_busy().then_some(now + RETRY);
    }

    fn written(&mut self, _: Instant, io: u64) {
        self.register.written(io, &mut self.out);
    }

    fn apply(durable: &mut u64, write: u64) {
        *durable = write;
    }

    fn end_turn(&mut self, _: Instant, out: &mut Effects<Self>) {
        if std::mem::take(&mut self.recovered) {
            out.seen("recovered from a disk");
        }
        for output in self.out.drain(..) {
            match output {
                Output::Send { to, message } => {
                    if let Some(boot) = self.peers[to] {
                        out.send(boot, message);
                    } else {
                        out.seen("nobody to send to");
                    }
                }
                Output::Persist { value } => out.write(value, value),
                Output::Event(event) => out.event(event),
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.retry
    }

    fn hash_message(message: &Message, into: &mut Fingerprinter) {
        message.hash(into);
    }
}
