//! The way to the other nodes: who is there, and what is said to them at the end of a turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use mainstay_base::batch::{self, Item as _};
use mainstay_base::service::{Io, Out, Outbox};
use mainstay_base::{BootId, NodeId};

use crate::config::DATAGRAM_BYTES_MAX;
use crate::wire::{Batch, Head, Item, Message};
use crate::{Carrier, Config, Event, Record, Rpc};

/// A datagram holds items of so many bytes, a body of the largest size and what belongs to it.
const LOOSE_BYTES_MAX: usize = DATAGRAM_BYTES_MAX + 64;
/// Most calls that the head of a datagram names as over. If there are more the link is told as well, which loses nothing.
const OVER_MAX: usize = 32;

/// What is said to another node, and not taken in there: so many items, and bytes of results.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Waits {
    items: usize,
    bytes: usize,
}

impl Waits {
    /// Beyond this nothing that the other end says is answered. One that keeps to the protocol has a window of calls open, and as many are open to it: with an answer, a call, and a
    /// word that it is given up for each there is room. Should it come here all the same it asks again.
    fn most(config: &Config) -> Self {
        if mainstay_base::fault!(config, KeepsAnswers) {
            return Self { items: usize::MAX, bytes: usize::MAX };
        }
        let items = (config.window as usize).saturating_mul(4);
        Self { items, bytes: config.client_bytes_max.saturating_mul(2) }
    }

    fn add(&mut self, item: &Item) {
        self.items += 1;
        if let Item::Reply { len, .. } = item {
            self.bytes += *len as usize;
        }
    }
}

/// One other node.
#[derive(Clone, Hash, Default, Debug)]
pub(crate) struct Line {
    /// Its newest boot, connected or not.
    pub(crate) boot: Option<BootId>,
    /// Connected, and the service is mounted there.
    pub(crate) is_up: bool,
    /// What the link is to take first, in order.
    refused: VecDeque<Message>,
    /// The link takes nothing.
    is_full: bool,
    /// The head alone is worth a message.
    nods: bool,
    /// The other end is to hear that this life goes on: once, however often it has asked.
    is_asked: bool,
    /// The other end has greeted since it is connected.
    pub(crate) has_greeted: bool,
    batch: Batch,
    waits: Waits,
    /// Of datagrams.
    loose: Batch,
    loose_items: usize,
    /// Who speaks to whom, as far as the halves know.
    pub(crate) head: Head,
}

impl Line {
    /// It takes in too little of what it is told.
    fn is_behind(&self, most: Waits) -> bool {
        self.waits.items + self.loose_items >= most.items || self.waits.bytes > most.bytes
    }

    fn push(&mut self, item: Item, body: Bytes) {
        if self.batch.is_full_for(&item, batch::BYTES_MAX) {
            let message = Message::of(self.head.clone(), &mut self.batch);
            self.refused.push_back(message);
        }
        self.waits.add(&item);
        self.batch.push(item, body);
    }

    fn take_loose(&mut self) -> Message {
        let mut head = self.head.clone();
        if head.over.len() > OVER_MAX {
            head.over.drain(..head.over.len() - OVER_MAX);
            self.nods = true;
        }
        Message::of(head, &mut self.loose)
    }
}

/// All other nodes, and what the service puts out.
#[derive(Clone)]
pub(crate) struct Lines {
    lines: BTreeMap<NodeId, Line>,
    /// Those with something to say.
    dirty: BTreeSet<NodeId>,
    out: Outbox<Rpc>,
    carrier: Carrier,
    most: Waits,
    own: Head,
    /// Nothing is said before this record is stable: it holds the crash count.
    mute: Option<Io>,
    /// Messages, as they were counted (RPC-61).
    pub(crate) sent: u64,
}

impl Lines {
    pub(crate) fn new(out: Outbox<Rpc>, config: &Config, life: u64, memory: u64) -> Self {
        let (lines, dirty) = (BTreeMap::new(), BTreeSet::new());
        let own = Head { life, memory, ..Head::default() };
        let (carrier, most) = (config.carrier, Waits::most(config));
        Self { lines, dirty, out, carrier, most, own, mute: None, sent: 0 }
    }

    pub(crate) fn line(&mut self, node: NodeId) -> &mut Line {
        let head = || self.own.clone();
        self.lines.entry(node).or_insert_with(|| Line { head: head(), ..Line::default() })
    }

    /// Says something before all else that waits.
    pub(crate) fn say_first(&mut self, node: NodeId, item: Item) {
        let line = self.line(node);
        let mut first = Batch::default();
        line.waits.add(&item);
        first.push(item, Bytes::new());
        let message = Message::of(line.head.clone(), &mut first);
        line.refused.push_front(message);
        self.dirty.insert(node);
    }

    /// Another turn is wanted.
    pub(crate) fn again(&mut self) {
        self.out.put(Out::Again);
    }

    pub(crate) fn up(&self) -> Vec<NodeId> {
        let up = self.lines.iter().filter(|(_, line)| line.is_up);
        up.map(|(node, _)| *node).collect()
    }

    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.lines.get(&node).is_some_and(|line| line.is_up)
    }

    /// A batch goes out although nothing is in it: for what its head says.
    pub(crate) fn nod(&mut self, node: NodeId) {
        self.line(node).nods = true;
        self.dirty.insert(node);
    }

    /// The other end asks whether this life goes on.
    pub(crate) fn say_alive(&mut self, node: NodeId) {
        self.line(node).is_asked = true;
        self.dirty.insert(node);
    }

    /// Whether something that is said now leaves in this turn.
    pub(crate) fn is_open(&self, node: NodeId) -> bool {
        self.lines.get(&node).is_some_and(|line| line.is_up && !line.is_full)
    }

    /// Whether so much waits for a node that it does not keep to the protocol.
    pub(crate) fn is_behind(&self, node: NodeId) -> bool {
        self.lines.get(&node).is_some_and(|line| line.is_behind(self.most))
    }

    /// Whether another one has greeted since it is connected, and whether it is behind.
    pub(crate) fn hear(&mut self, from: NodeId) -> (bool, bool) {
        let most = self.most;
        let line = self.line(from);
        (line.has_greeted, line.is_behind(most))
    }

    /// Answers something that a node has said, as [`say`](Self::say) does. False: it is behind, and is not answered; it asks again.
    pub(crate) fn answer(&mut self, node: NodeId, item: Item, body: Bytes) -> bool {
        let (most, is_surely) = (self.most, self.goes_surely(&item));
        let line = self.line(node);
        if line.is_behind(most) {
            return false;
        }
        if is_surely {
            line.push(item, body);
            self.dirty.insert(node);
        } else {
            self.say(node, item, body);
        }
        true
    }

    /// Over the link.
    fn goes_surely(&self, item: &Item) -> bool {
        self.carrier == Carrier::Link || item.bytes() > LOOSE_BYTES_MAX
    }

    /// Says something at the end of the turn, by a datagram if those are used.
    pub(crate) fn say(&mut self, node: NodeId, item: Item, body: Bytes) {
        if self.goes_surely(&item) {
            return self.say_surely(node, item, body);
        }
        let line = self.line(node);
        if line.loose.is_full_for(&item, LOOSE_BYTES_MAX) {
            let message = line.take_loose();
            self.out.put(Out::Datagram { to: node, message });
            self.sent += 1;
        }
        let line = self.line(node);
        line.loose_items += 1;
        line.loose.push(item, body);
        self.dirty.insert(node);
    }

    /// Says something over the link. It is void if the other end has been replaced, or is not there.
    pub(crate) fn say_surely(&mut self, node: NodeId, item: Item, body: Bytes) {
        self.line(node).push(item, body);
        self.dirty.insert(node);
    }

    /// The link took no message.
    pub(crate) fn full(&mut self, to: BootId, message: Message) {
        let line = self.line(to.node);
        if line.boot == Some(to) {
            // Those of a turn come back in order, before anything new is put behind them.
            message.items.iter().for_each(|item| line.waits.add(item));
            line.refused.push_back(message);
            line.is_full = true;
        }
    }

    pub(crate) fn room(&mut self, to: BootId) {
        let line = self.line(to.node);
        if line.boot == Some(to) {
            line.is_full = false;
            self.dirty.insert(to.node);
        }
    }

    /// What was said to the other end and not taken is void.
    pub(crate) fn forget(&mut self, node: NodeId) {
        let line = self.line(node);
        (line.batch, line.loose) = (Batch::default(), Batch::default());
        line.refused.clear();
        (line.waits, line.loose_items) = (Waits::default(), 0);
        (line.is_full, line.is_asked, line.has_greeted) = (false, false, false);
    }

    /// Things that wait to be said to a node.
    #[cfg(all(test, feature = "test-util"))]
    pub(crate) fn waits(&self, node: NodeId) -> usize {
        self.lines[&node].waits.items
    }

    /// Panics if something is not as it should be.
    pub(crate) fn check(&self) {
        for line in self.lines.values() {
            let (mut waits, mut batch) = (Waits::default(), line.batch.clone());
            let refused = line.refused.iter().flat_map(|it| &it.items);
            refused.chain(&batch.take().0).for_each(|item| waits.add(item));
            assert_eq!(waits, line.waits, "what waits is counted");
        }
    }

    #[cfg(test)]
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.lines.contains_key(&node)
    }

    /// Nothing is known of the other end any more.
    pub(crate) fn remove(&mut self, node: NodeId) {
        self.lines.remove(&node);
        self.dirty.remove(&node);
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.out.tell(event);
    }

    pub(crate) fn persist(&mut self, record: Record) -> Io {
        self.out.persist(record)
    }

    pub(crate) fn last(&self) -> Io {
        self.out.last()
    }

    /// Nothing is said before this record is stable.
    pub(crate) fn mute_until(&mut self, io: Io) {
        self.mute = Some(io);
    }

    pub(crate) fn written(&mut self, io: Io) {
        if self.mute.is_some_and(|until| io >= until) {
            self.mute = None;
        }
    }

    /// Puts all that was said into messages.
    pub(crate) fn flush(&mut self) {
        if self.mute.is_some() {
            return;
        }
        for node in std::mem::take(&mut self.dirty) {
            let Some(line) = self.lines.get_mut(&node) else { continue };
            if !line.loose.is_empty() {
                let message = line.take_loose();
                self.out.put(Out::Datagram { to: node, message });
                self.sent += 1;
                line.loose_items = 0;
            }
            let Some(boot) = line.boot.filter(|_| line.is_up && !line.is_full) else { continue };
            if std::mem::take(&mut line.is_asked) {
                // It is too small to matter for the size of the message.
                line.batch.push(Item::Alive, Bytes::new());
            }
            line.waits = Waits::default();
            for message in line.refused.drain(..) {
                self.out.send(boot, message);
                self.sent += 1;
            }
            if !line.batch.is_empty() || std::mem::take(&mut line.nods) {
                let message = Message::of(line.head.clone(), &mut line.batch);
                self.out.send(boot, message);
                self.sent += 1;
                line.head.over.clear();
            }
        }
    }

    /// Writes all that later outputs depend on.
    pub(crate) fn fingerprint(&self, into: &mut impl Hasher) {
        (&self.lines, &self.dirty, &self.own, self.mute, self.out.last()).hash(into);
    }

    pub(crate) fn pop(&mut self) -> Option<Out<Rpc>> {
        self.out.pop()
    }
}
