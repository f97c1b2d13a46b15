//! The actors that hear a group.
//!
//! What happens is told at the end of its turn. The past of the own log is too long for one turn, and so may be what happens in a burst: an
//! actor on the node's thread would hold up the node while it works on all of it. Both are told in slices, the next one when the actor has
//! room, and what happens meanwhile waits behind. The past does not count among what an actor may leave unread; what happens does.

use std::collections::VecDeque;
use std::sync::Arc;

use mainstay_base::{Duration, Work};
use mainstay_multicast::Delivery;
use mainstay_runtime::{Subscriber, drop_beside};

use crate::group::{GroupEvent, Message};

/// Most events, and most bytes of them, that an actor is told in one turn; the last one may go beyond.
const SLICE: (usize, usize) = (2_048, 512 << 10);
/// To hand out an event of the past, and its reader's own work on it.
const EVENT_NOMINAL: Duration = Duration::from_nanos(500);

/// What the actors of a group are told of the past in a turn, nominally: after that the others wait for the next one.
const SLICE_NOMINAL: Duration = Duration::from_millis(1);
/// To free more messages than this at once takes longer than a turn may.
const FREED_MAX: usize = 16 << 10;
/// The same of events: one can be a part of a state (256 KiB).
const VOID_MAX: usize = 32;

/// What there is to tell.
enum Item {
    Event(GroupEvent),
    Log(Log),
}

impl Item {
    /// What it weighs; no more than a little above `most` is looked for.
    fn weight(&self, most: usize) -> usize {
        match self {
            Self::Event(event) => event.weight(),
            Self::Log(log) => log.weight(most),
        }
    }

    /// As the actors are told that keep no state.
    fn copy(&self) -> Option<Self> {
        match self {
            Self::Event(event) => copy(event).map(Self::Event),
            Self::Log(log) => Some(Self::Log(log.clone())),
        }
    }

    /// A state that follows makes it void, and a request for it as well.
    fn is_void_by_state(&self) -> bool {
        match self {
            Self::Event(event) => is_void_by_state(event),
            Self::Log(_) => true,
        }
    }
}

/// Messages of the own log, one list for all who read it, and how far this one has come. Who is the last to have them frees them, where
/// nobody waits if there are many.
#[derive(Clone)]
pub(super) struct Log {
    entries: Arc<Vec<Delivery>>,
    at: usize,
}

impl Log {
    pub(super) fn new(entries: Vec<Delivery>) -> Self {
        Self { entries: Arc::new(entries), at: 0 }
    }

    /// The next ones, at most so many; none after the last.
    pub(super) fn take(&mut self, most: usize) -> &[Delivery] {
        let from = self.at;
        self.at = self.entries.len().min(from + most);
        &self.entries[from..self.at]
    }

    fn weight(&self, most: usize) -> usize {
        let mut sum = 0;
        for entry in &self.entries[self.at..] {
            sum += GroupEvent::weight_of(entry.payload.len());
            if sum > most {
                break;
            }
        }
        sum
    }

    fn next(&mut self) -> Option<GroupEvent> {
        let entry = self.entries.get(self.at)?;
        self.at += 1;
        Some(GroupEvent::Deliver(Message::from(entry.clone())))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(entries) = Arc::into_inner(std::mem::take(&mut self.entries))
            && entries.len() > FREED_MAX
        {
            drop_beside(entries);
        }
    }
}

/// One actor.
struct Listener {
    subscriber: Subscriber<GroupEvent>,
    /// What it has not been told: the past, and what happened since.
    behind: VecDeque<Item>,
    /// Of `behind`: how many items at its head are past, and what the others weigh.
    past: usize,
    waiting_bytes: usize,
    /// It has been told of a past, and may not have read that yet: what it has no room for waits.
    catches_up: bool,
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop_many(std::mem::take(&mut self.behind));
    }
}

impl Listener {
    /// Void messages are not told: another state follows.
    fn forget(&mut self) {
        drop_void(&mut self.behind);
        self.past = self.past.min(self.behind.len());
        self.waiting_bytes = sum(self.behind.iter().skip(self.past));
    }

    fn put(&mut self, items: Vec<Item>, past: usize) {
        if past > 0 {
            if has_state(&items[..past.min(items.len())]) {
                self.forget();
                self.waiting_bytes = 0;
            }
            self.past = self.behind.len() + past;
            self.catches_up = true;
        }
        self.waiting_bytes += sum(items.iter().skip(past));
        self.behind.extend(items);
        // A copy lacks requests for the state.
        self.past = self.past.min(self.behind.len());
    }

    /// What happens can be told at once: nothing waits before it, and no past fills the reader.
    fn is_level(&mut self) -> bool {
        if self.catches_up && self.behind.is_empty() && self.subscriber.has_room() {
            self.catches_up = false;
        }
        !self.catches_up && self.behind.is_empty()
    }

    /// Tells what is due in this turn; nothing of the past if the turn `is_spent`. False: it is gone, or leaves too much unread.
    fn tell(&mut self, unread_bytes: usize, is_spent: bool, work: &mut Work) -> bool {
        if !self.subscriber.has_room() || (is_spent && self.past > 0) {
            return self.waiting_bytes <= unread_bytes && self.subscriber.is_there();
        }
        let mut events = Vec::new();
        let mut bytes = 0;
        let is_slice = |events: &Vec<_>, bytes: usize| events.len() >= SLICE.0 || bytes >= SLICE.1;
        while self.past > 0 && !is_slice(&events, bytes) {
            if let Some(Item::Log(log)) = self.behind.front_mut()
                && let Some(event) = log.next()
            {
                bytes += event.weight();
                events.push(event);
                continue;
            }
            if let Some(Item::Event(event)) = self.behind.pop_front() {
                bytes += event.weight();
                events.push(event);
            }
            self.past -= 1;
        }
        let steps = events.len() as u64;
        let nominal = EVENT_NOMINAL.saturating_mul(events.len() as u32);
        work.add(Work { nominal, steps, bytes: bytes as u64 });
        while self.past == 0
            && !is_slice(&events, bytes)
            && let Some(item) = self.behind.pop_front()
        {
            let weight = item.weight(usize::MAX);
            self.waiting_bytes = self.waiting_bytes.saturating_sub(weight);
            bytes += weight;
            events.extend(only_events([item]));
        }
        self.subscriber.tell(events) && self.waiting_bytes <= unread_bytes
    }
}

/// The actors that listen, and what is kept for the first of them.
pub(super) struct Listeners {
    listeners: Vec<Listener>,
    /// Until the first one subscribes: what has happened, how much of it is past, and what the rest weighs.
    held: Option<(Vec<Item>, usize, usize)>,
    /// Of this turn.
    events: Vec<Item>,
    /// How many of these are the past of the own log, with all before them.
    past: usize,
    /// Nobody is told any more.
    closed: bool,
    work: Work,
}

impl Listeners {
    pub(super) fn new() -> Self {
        Self {
            listeners: Vec::new(),
            held: Some((Vec::new(), 0, 0)),
            events: Vec::new(),
            past: 0,
            closed: false,
            work: Work::default(),
        }
    }

    pub(super) fn push(&mut self, event: GroupEvent) {
        if !self.closed {
            self.events.push(Item::Event(event));
        }
    }

    /// The messages of the own log.
    pub(super) fn push_log(&mut self, log: Log) {
        if !self.closed {
            self.events.push(Item::Log(log));
        }
    }

    /// Work on the past that its member has done.
    pub(super) fn charge(&mut self, work: Work) {
        self.work.add(work);
    }

    /// What was pushed in this turn is the past of the own log.
    pub(super) fn end_past(&mut self) {
        self.past = self.events.len();
    }

    /// All hear that it is the end, and nothing is kept any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.listeners = Vec::new();
        drop_many(std::mem::take(&mut self.events).into());
        if let Some((held, ..)) = self.held.take() {
            drop_many(held.into());
        }
    }

    /// There is more of the past to be told, and somebody has room for it.
    pub(super) fn more(&self) -> bool {
        self.listeners.iter().any(|it| !it.behind.is_empty() && it.subscriber.has_room())
    }

    pub(super) fn take_work(&mut self) -> Work {
        std::mem::take(&mut self.work)
    }

    /// Hands out the events of the turn, and nothing of the past if the turn `is_spent`. False: whoever kept the state is gone, or nobody
    /// came before there was too much.
    pub(super) fn hand_out(&mut self, unread_bytes: usize, is_spent: bool) -> bool {
        let events = std::mem::take(&mut self.events);
        let past = std::mem::take(&mut self.past);
        if events.is_empty() && self.listeners.iter().all(|it| it.behind.is_empty()) {
            return true;
        }
        if let Some(held) = &mut self.held {
            if hold(held, events, past, unread_bytes) > unread_bytes {
                // What nobody came for is gone; who comes yet hears what follows.
                if let Some((held, ..)) = self.held.take() {
                    drop_many(held.into());
                }
                return false;
            }
            return true;
        }
        // All but the first hear the same, without what only the keeper is asked.
        let mut copies: Vec<Vec<Item>> = (1..self.listeners.len())
            .map(|_| events.iter().filter_map(Item::copy).collect())
            .collect();
        let mut events = Some(events);
        let (mut at, mut kept) = (0, true);
        self.listeners.retain_mut(|listener| {
            let own = if at == 0 { events.take() } else { copies.pop() };
            let own = own.unwrap_or_default();
            let stays = if own.is_empty() && listener.behind.is_empty() {
                true
            } else if past == 0 && listener.is_level() && is_slice_at_most(&own) {
                listener.subscriber.tell(only_events(own))
            } else {
                listener.put(own, past);
                // The keeper first: others that catch up are told when it has no more for this turn.
                let is_spent = is_spent || self.work.nominal >= SLICE_NOMINAL;
                listener.tell(unread_bytes, is_spent, &mut self.work)
            };
            kept &= at > 0 || stays;
            at += 1;
            stays
        });
        kept && !self.listeners.is_empty()
    }

    pub(super) fn subscribe(&mut self, subscriber: Subscriber<GroupEvent>) {
        let mut listener = Listener {
            subscriber,
            behind: VecDeque::new(),
            past: 0,
            waiting_bytes: 0,
            catches_up: false,
        };
        if let Some((held, past, _)) = self.held.take() {
            listener.put(held, past);
        }
        self.listeners.push(listener);
    }
}

/// Keeps events until somebody comes; how much they weigh, all but the past.
fn hold(
    (held, held_past, bytes): &mut (Vec<Item>, usize, usize),
    items: Vec<Item>,
    past: usize,
    most: usize,
) -> usize {
    // The past of a group without a state counts like anything else.
    let has_state = past > 0 && has_state(&items[..past.min(items.len())]);
    if has_state {
        let mut all = VecDeque::from(std::mem::take(held));
        drop_void(&mut all);
        (*held, *bytes) = (all.into(), 0);
    }
    if past > 0 {
        *held_past = held.len() + past;
    }
    let uncounted = if has_state { past } else { 0 };
    *bytes += items.iter().skip(uncounted).map(|item| item.weight(most)).sum::<usize>();
    held.extend(items);
    *bytes
}

/// Drops what a state that follows makes void: where nobody waits, if it is much.
fn drop_void(items: &mut VecDeque<Item>) {
    let (void, kept) = std::mem::take(items).into_iter().partition(Item::is_void_by_state);
    *items = kept;
    drop_many(void);
}

/// Drops items where nobody waits, if they are many.
fn drop_many(items: VecDeque<Item>) {
    let is_large = |item: &Item| matches!(item, Item::Event(GroupEvent::State(_)));
    if items.len() > VOID_MAX || items.iter().any(is_large) {
        drop_beside(items);
    }
}

/// What is told at once.
fn is_slice_at_most(items: &[Item]) -> bool {
    items.len() <= SLICE.0 && sum(items.iter()) <= SLICE.1
}

fn sum<'a>(items: impl Iterator<Item = &'a Item>) -> usize {
    items.map(|item| item.weight(usize::MAX)).sum()
}

/// What happens is no log.
fn only_events(items: impl IntoIterator<Item = Item>) -> Vec<GroupEvent> {
    let event = |item| match item {
        Item::Event(event) => Some(event),
        Item::Log(_) => None,
    };
    items.into_iter().filter_map(event).collect()
}

fn has_state(items: &[Item]) -> bool {
    let is_state =
        |event: &GroupEvent| matches!(event, GroupEvent::State(_) | GroupEvent::StatePart(_));
    items.iter().any(|item| matches!(item, Item::Event(event) if is_state(event)))
}

/// A state that follows makes it void, and a request for it as well.
fn is_void_by_state(event: &GroupEvent) -> bool {
    use GroupEvent as Is;
    matches!(event, Is::State(_) | Is::StatePart(_) | Is::Deliver(_) | Is::StateWanted(_))
}

fn copy(event: &GroupEvent) -> Option<GroupEvent> {
    Some(match event {
        GroupEvent::State(state) => GroupEvent::State(state.clone()),
        GroupEvent::StatePart(part) => GroupEvent::StatePart(part.clone()),
        GroupEvent::View(view) => GroupEvent::View(Arc::clone(view)),
        GroupEvent::Deliver(message) => GroupEvent::Deliver(message.clone()),
        GroupEvent::StateWanted(_) => return None,
        GroupEvent::Died => GroupEvent::Died,
        GroupEvent::Blocked => GroupEvent::Blocked,
        GroupEvent::MajorityLost => GroupEvent::MajorityLost,
        GroupEvent::MajorityBack => GroupEvent::MajorityBack,
        GroupEvent::MaybeLost(from) => GroupEvent::MaybeLost(*from),
    })
}

#[cfg(test)]
mod tests;
