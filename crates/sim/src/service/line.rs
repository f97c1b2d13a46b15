//! What a link promises, in small: messages between two boots, once and in order, for as long as both live.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hash as _;

use bytes::Bytes;
use mainstay_base::service::Address;
use mainstay_base::{ConnId, Fingerprinter};

/// What travels between nodes of services.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Packet(pub(super) Kind);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Kind {
    /// The first one on a connection: what is mounted, and how much came so far.
    Hello { mounted: BTreeMap<Address, u128>, received: u64 },
    /// A message.
    Data(Data),
    /// So many messages came.
    Ack { received: u64 },
    /// Outside all order.
    Datagram { of: Address, meta: Bytes, payload: Bytes },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Data {
    pub(super) number: u64,
    pub(super) of: Address,
    pub(super) view: u64,
    /// How many messages led to this one.
    pub(super) depth: u32,
    pub(super) meta: Bytes,
    pub(super) payload: Bytes,
}

impl Packet {
    pub(super) fn write_hash(&self, into: &mut Fingerprinter) {
        self.hash(into);
    }
}

/// The messages to and from one boot.
#[derive(Default)]
pub(super) struct Line {
    pub(super) conn: Option<ConnId>,
    /// The instances that both ends have, once the other end has said so.
    pub(super) up: BTreeSet<Address>,
    /// Sent and not known to have come, in order.
    unacked: VecDeque<Data>,
    waiting: BTreeMap<Address, usize>,
    sent: u64,
    received: u64,
    told: u64,
    /// What was refused, and waits for room.
    pub(super) full: BTreeSet<Address>,
    known: bool,
}

impl Line {
    /// Takes a message, if the instance is up and has room; else gives it back.
    pub(super) fn send(&mut self, mut data: Data, window: usize) -> Result<&Data, Data> {
        let waiting = self.waiting.entry(data.of).or_default();
        if !self.up.contains(&data.of) || self.full.contains(&data.of) || *waiting >= window {
            self.full.insert(data.of);
            return Err(data);
        }
        *waiting += 1;
        self.sent += 1;
        data.number = self.sent;
        self.unacked.push_back(data);
        Ok(self.unacked.back().expect("just put in"))
    }

    /// Whether the message is the next one. Any other one has come already.
    pub(super) fn receive(&mut self, number: u64) -> bool {
        let is_next = self.known && number == self.received + 1;
        self.received += u64::from(is_next);
        is_next
    }

    /// What tells the other end that messages came, if some did.
    pub(super) fn ack(&mut self) -> Option<Packet> {
        let due = self.conn.is_some() && self.received > self.told;
        due.then(|| {
            self.told = self.received;
            Packet(Kind::Ack { received: self.received })
        })
    }

    /// So many came at the other end: who has room again.
    pub(super) fn acked(&mut self, received: u64, window: usize) -> Vec<Address> {
        while self.unacked.front().is_some_and(|data| data.number <= received) {
            let Some(data) = self.unacked.pop_front() else { break };
            if let Some(waiting) = self.waiting.get_mut(&data.of) {
                *waiting -= 1;
            }
        }
        self.room(window)
    }

    fn room(&mut self, window: usize) -> Vec<Address> {
        let has = |of: &&Address| {
            let waiting = self.waiting.get(*of).copied().unwrap_or(0);
            self.up.contains(*of) && waiting <= window / 2
        };
        let room: Vec<_> = self.full.iter().filter(has).copied().collect();
        self.full.retain(|of| !room.contains(of));
        room
    }

    pub(super) fn hello(&self, mounted: BTreeMap<Address, u128>) -> Packet {
        Packet(Kind::Hello { mounted, received: self.received })
    }

    /// The other end has said hello: what is sent again, and who has room.
    pub(super) fn greeted(
        &mut self,
        up: BTreeSet<Address>,
        received: u64,
        window: usize,
    ) -> (Vec<Packet>, Vec<Address>) {
        (self.up, self.known) = (up, true);
        let room = self.acked(received, window);
        let again = self.unacked.iter().cloned().map(|data| Packet(Kind::Data(data)));
        (again.collect(), room)
    }
}
