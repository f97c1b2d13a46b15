//! The actors that hear a group.

use std::sync::Arc;

use mainstay_runtime::Subscriber;

use crate::group::GroupEvent;

/// The actors that listen, and what is kept for the first of them.
pub(super) struct Listeners {
    subscribers: Vec<Subscriber<GroupEvent>>,
    /// Until the first one subscribes.
    pub(super) held: Option<Vec<GroupEvent>>,
    held_bytes: usize,
    /// Of this turn.
    events: Vec<GroupEvent>,
    /// Nobody is told any more.
    closed: bool,
}

impl Listeners {
    pub(super) fn new() -> Self {
        Self {
            subscribers: Vec::new(),
            held: Some(Vec::new()),
            held_bytes: 0,
            events: Vec::new(),
            closed: false,
        }
    }

    pub(super) fn push(&mut self, event: GroupEvent) {
        if !self.closed {
            self.events.push(event);
        }
    }

    /// All hear that it is the end, and nothing is kept any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        (self.subscribers, self.events, self.held) = (Vec::new(), Vec::new(), None);
    }

    /// Hands out the events of the turn. False: whoever kept the state is gone.
    pub(super) fn hand_out(&mut self, unread_bytes: usize) -> bool {
        let events = std::mem::take(&mut self.events);
        if events.is_empty() {
            return true;
        }
        if let Some(held) = &mut self.held {
            self.held_bytes += events.iter().map(GroupEvent::weight).sum::<usize>();
            held.extend(events);
            return self.held_bytes <= unread_bytes;
        }
        // All but the first hear the same, without what only the keeper is asked.
        let mut copies: Vec<Vec<GroupEvent>> = self
            .subscribers
            .iter()
            .skip(1)
            .map(|_| events.iter().filter_map(copy).collect())
            .collect();
        let mut events = Some(events);
        let (mut at, mut kept) = (0, true);
        self.subscribers.retain_mut(|subscriber| {
            let own = if at == 0 { events.take() } else { copies.pop() };
            let stays = subscriber.tell(own.unwrap_or_default());
            kept &= at > 0 || stays;
            at += 1;
            stays
        });
        kept && !self.subscribers.is_empty()
    }

    pub(super) fn subscribe(&mut self, mut subscriber: Subscriber<GroupEvent>) {
        if let Some(held) = self.held.take() {
            self.held_bytes = 0;
            // Whether it is still there shows with the next event.
            let _ = subscriber.tell(held);
        }
        self.subscribers.push(subscriber);
    }
}

fn copy(event: &GroupEvent) -> Option<GroupEvent> {
    Some(match event {
        GroupEvent::State(state) => GroupEvent::State(state.clone()),
        GroupEvent::View(view) => GroupEvent::View(Arc::clone(view)),
        GroupEvent::Deliver(message) => GroupEvent::Deliver(message.clone()),
        GroupEvent::StateWanted(_) => return None,
        GroupEvent::Blocked => GroupEvent::Blocked,
        GroupEvent::MajorityLost => GroupEvent::MajorityLost,
        GroupEvent::MajorityBack => GroupEvent::MajorityBack,
        GroupEvent::MaybeLost(from) => GroupEvent::MaybeLost(*from),
    })
}
