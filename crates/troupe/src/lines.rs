//! The way to the other nodes: what is said to them at the end of a turn, and what this node says to itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mainstay_base::batch;
use mainstay_base::service::{Out, Outbox};
use mainstay_base::{BootId, Instant};

use crate::wire::{Batch, Item, Key, Message};
use crate::{Binding, Config, Event, TroupeName, Troupes, Version};

/// So many boots are remembered as gone.
const GONE_MAX: usize = 256;
/// So many acknowledgements go into one item.
const ACKS_MAX: usize = 256;
/// So many acknowledgements wait for one boot. A server asks for those that do not come.
const ACKED_MAX: usize = 65_536;

/// What is said to another boot, and not taken in there.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Waits {
    /// All but calls, which have a window of their own, and what is below.
    items: usize,
    /// States of replicas.
    states: usize,
    /// Answers that are acknowledged.
    acked: usize,
}

impl Waits {
    fn add(&mut self, item: &Item) {
        match item {
            Item::Call { .. } => {}
            Item::State { .. } => self.states += 1,
            Item::Ack { keys, .. } => self.acked += keys.len(),
            _ => self.items += 1,
        }
    }
}

/// One other boot.
#[derive(Clone, Default, Debug)]
struct Line {
    is_up: bool,
    is_full: bool,
    /// What the link is to take first, in order.
    refused: VecDeque<Message>,
    batch: Batch,
    waits: Waits,
    /// Of the binding agent: what the boot is told of troupes, the newest of each.
    bound: BTreeMap<TroupeName, Binding>,
    /// Answers that came and were not acknowledged.
    acks: BTreeMap<(TroupeName, Version), Vec<Key>>,
    /// When they are acknowledged at the latest.
    owed: Option<Instant>,
}

impl Line {
    fn push(&mut self, item: Item, body: Bytes) {
        if self.batch.is_full_for(&item, batch::BYTES_MAX) {
            let message = Message::of(&mut self.batch);
            self.refused.push_back(message);
        }
        self.waits.add(&item);
        self.batch.push(item, body);
    }
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
    /// A boot for which so much waits is asked nothing more.
    most: usize,
    out: Outbox<Troupes>,
    /// Messages, as they were counted (RPC-61).
    pub(crate) sent: u64,
}

impl Lines {
    pub(crate) fn new(me: BootId, config: &Config) -> Self {
        Self {
            me,
            most: (config.window as usize).saturating_mul(4),
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
        self.lines.entry(to).or_default().push(item, body);
        self.dirty.insert(to);
    }

    /// Tells a boot how a troupe is, in place of what it was not told yet.
    pub(crate) fn say_bound(&mut self, to: BootId, name: TroupeName, binding: Binding) {
        if to == self.me {
            return self.own.push_back((Item::Bound { name, binding }, Bytes::new()));
        }
        if self.gone.contains(&to) {
            return;
        }
        self.lines.entry(to).or_default().bound.insert(name, binding);
        self.dirty.insert(to);
    }

    /// How many things wait for a boot that answer it, or ask it, and how many states.
    pub(crate) fn waits(&self, boot: BootId) -> (usize, usize) {
        self.lines.get(&boot).map_or((0, 0), |line| (line.waits.items, line.waits.states))
    }

    /// So much waits for a boot that it need not be asked again for now.
    pub(crate) fn is_behind(&self, boot: BootId) -> bool {
        self.waits(boot).0 >= self.most
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
        if line.waits.acked >= ACKED_MAX {
            return;
        }
        line.owed.get_or_insert(due);
        let keys = line.acks.entry((server, by)).or_default();
        keys.push(key);
        line.waits.acked += 1;
        if keys.len() >= ACKS_MAX {
            let keys = std::mem::take(keys);
            // They are counted again.
            line.waits.acked -= keys.len();
            line.push(Item::Ack { server, by, keys }, Bytes::new());
            self.dirty.insert(to);
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
        let Some(line) = self.lines.get_mut(&to) else { return };
        line.is_full = true;
        let Message { items, bodies } = message;
        let mut left = Vec::with_capacity(items.len());
        for item in items {
            match item {
                // What it was to be told since is newer.
                Item::Bound { name, binding } => {
                    line.bound.entry(name).or_insert(binding);
                }
                item => {
                    line.waits.add(&item);
                    left.push(item);
                }
            }
        }
        if !left.is_empty() {
            // Those of a turn come back in order, before anything new is put behind them.
            line.refused.push_back(Message { items: left, bodies });
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
                line.push(Item::Ack { server, by, keys }, Bytes::new());
            }
            for (name, binding) in std::mem::take(&mut line.bound) {
                line.push(Item::Bound { name, binding }, Bytes::new());
            }
            line.waits = Waits::default();
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

    /// Panics if something is not as it should be.
    pub(crate) fn check(&self) {
        for line in self.lines.values() {
            let (mut waits, mut batch) = (Waits::default(), line.batch.clone());
            let refused = line.refused.iter().flat_map(|it| &it.items);
            refused.chain(&batch.take().0).for_each(|item| waits.add(item));
            waits.acked += line.acks.values().map(Vec::len).sum::<usize>();
            assert_eq!(waits, line.waits, "what waits is counted");
        }
    }
}
