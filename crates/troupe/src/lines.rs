//! The way to the other nodes: what is said to them at the end of a turn, and what this node says to itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mainstay_base::batch;
use mainstay_base::service::{Out, Outbox};
use mainstay_base::{BootId, Instant};

use crate::wire::{Batch, Item, Key, Message};
use crate::{Event, TroupeName, Troupes, Version};

/// So many boots are remembered as gone.
const GONE_MAX: usize = 256;
/// So many acknowledgements go into one item.
const ACKS_MAX: usize = 256;

/// One other boot.
#[derive(Clone, Default, Debug)]
struct Line {
    is_up: bool,
    is_full: bool,
    /// What the link is to take first, in order.
    refused: VecDeque<Message>,
    batch: Batch,
    /// Answers that came and were not acknowledged.
    acks: BTreeMap<(TroupeName, Version), Vec<Key>>,
    /// When they are acknowledged at the latest.
    owed: Option<Instant>,
}

/// All other nodes, and what the service puts out.
#[derive(Clone)]
pub(crate) struct Lines {
    me: BootId,
    lines: BTreeMap<BootId, Line>,
    /// Those with something to say.
    dirty: BTreeSet<BootId>,
    /// Boots that are known to be gone: what is said to them would wait for ever.
    gone: VecDeque<BootId>,
    /// What this node says to itself, in order.
    own: VecDeque<(Item, Bytes)>,
    out: Outbox<Troupes>,
    /// Messages, as they were counted (RPC-61).
    pub(crate) sent: u64,
}

impl Lines {
    pub(crate) fn new(me: BootId) -> Self {
        Self {
            me,
            lines: BTreeMap::new(),
            dirty: BTreeSet::new(),
            gone: VecDeque::new(),
            own: VecDeque::new(),
            out: Outbox::default(),
            sent: 0,
        }
    }

    pub(crate) fn me(&self) -> BootId {
        self.me
    }

    pub(crate) fn up(&mut self, boot: BootId, is: bool) {
        self.gone.retain(|it| *it != boot);
        self.lines.entry(boot).or_default().is_up = is;
        self.dirty.insert(boot);
    }

    pub(crate) fn is_up(&self, boot: BootId) -> bool {
        boot == self.me || self.lines.get(&boot).is_some_and(|line| line.is_up)
    }

    /// The boot is gone, and what was to be said to it is void.
    pub(crate) fn forget(&mut self, boot: BootId) {
        self.lines.remove(&boot);
        self.dirty.remove(&boot);
        self.gone.push_back(boot);
        if self.gone.len() > GONE_MAX {
            self.gone.pop_front();
        }
    }

    /// Says something at the end of the turn. To a boot that is not there it waits, or is void when that is known to be gone.
    pub(crate) fn say(&mut self, to: BootId, item: Item, body: Bytes) {
        if to == self.me {
            return self.own.push_back((item, body));
        }
        if self.gone.contains(&to) {
            return;
        }
        let line = self.lines.entry(to).or_default();
        if line.batch.is_full_for(&item, batch::BYTES_MAX) {
            let message = Message::of(&mut line.batch);
            line.refused.push_back(message);
        }
        line.batch.push(item, body);
        self.dirty.insert(to);
    }

    /// Acknowledges an answer, soon.
    pub(crate) fn acknowledge(
        &mut self,
        due: Instant,
        to: BootId,
        (server, by): (TroupeName, Version),
        key: Key,
    ) {
        if to == self.me {
            return self.own.push_back((Item::Ack { server, by, keys: vec![key] }, Bytes::new()));
        }
        if self.gone.contains(&to) {
            return;
        }
        let line = self.lines.entry(to).or_default();
        line.owed.get_or_insert(due);
        let keys = line.acks.entry((server, by)).or_default();
        keys.push(key);
        if keys.len() >= ACKS_MAX {
            let keys = std::mem::take(keys);
            self.say(to, Item::Ack { server, by, keys }, Bytes::new());
        }
    }

    /// Acknowledgements that are due are said, and those to whom something else is said.
    pub(crate) fn on_time(&mut self, now: Instant) {
        let due = self.lines.iter().filter(|(_, line)| line.owed.is_some_and(|at| at <= now));
        let due: Vec<BootId> = due.map(|(boot, _)| *boot).collect();
        self.dirty.extend(due);
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.lines
            .values()
            .filter(|line| line.is_up && !line.is_full)
            .filter_map(|it| it.owed)
            .min()
    }

    /// What this node has said to itself.
    pub(crate) fn hear(&mut self) -> Option<(Item, Bytes)> {
        self.own.pop_front()
    }

    /// The link took no message.
    pub(crate) fn full(&mut self, to: BootId, message: Message) {
        if let Some(line) = self.lines.get_mut(&to) {
            // Those of a turn come back in order, before anything new is put behind them.
            line.refused.push_back(message);
            line.is_full = true;
        }
    }

    pub(crate) fn room(&mut self, to: BootId) {
        if let Some(line) = self.lines.get_mut(&to) {
            line.is_full = false;
            self.dirty.insert(to);
        }
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.out.tell(event);
    }

    pub(crate) fn again(&mut self) {
        self.out.put(Out::Again);
    }

    /// Puts all that was said into messages.
    pub(crate) fn flush(&mut self) {
        for boot in std::mem::take(&mut self.dirty) {
            let Some(line) = self.lines.get_mut(&boot) else { continue };
            if !line.is_up || line.is_full {
                continue;
            }
            line.owed = None;
            for ((server, by), keys) in std::mem::take(&mut line.acks) {
                if keys.is_empty() {
                    continue;
                }
                let item = Item::Ack { server, by, keys };
                if line.batch.is_full_for(&item, batch::BYTES_MAX) {
                    let message = Message::of(&mut line.batch);
                    line.refused.push_back(message);
                }
                line.batch.push(item, Bytes::new());
            }
            for message in line.refused.drain(..) {
                self.out.send(boot, message);
                self.sent += 1;
            }
            if !line.batch.is_empty() {
                let message = Message::of(&mut line.batch);
                self.out.send(boot, message);
                self.sent += 1;
            }
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Out<Troupes>> {
        self.out.pop()
    }
}
