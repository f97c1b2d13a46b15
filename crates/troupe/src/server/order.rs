//! One order of the calls of all clients: by casts of somebody else, or by troupe commit.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use mainstay_base::{BootId, codec};
use serde::{Deserialize, Serialize};

use super::{Early, HELD_MAX, Member, Server, answer, report};
use crate::join::Standing;
use crate::record::{Past, Record, Stage};
use crate::service::Turn;
use crate::wire::{CallHead, Item, Key};
use crate::{CallId, Event, TroupeName, Version};

/// A call on its way through the order: all of it, since its client may fail before all servers have it.
#[derive(Serialize, Deserialize)]
struct Cast {
    head: CallHead,
    arguments: Bytes,
}

/// What a troupe has of its order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ordered {
    /// The last place that came.
    position: u64,
    /// The last places that came and have not begun, with what is there.
    pending: VecDeque<(u64, Key)>,
    /// What is to come from the order, as it came here, and whether this member has cast it.
    uncast: VecDeque<(Key, bool)>,
    /// What the order has brought: the same at all members.
    brought: Past,
}

impl Ordered {
    pub(crate) fn new(from: u64) -> Self {
        Self { position: from, ..Self::default() }
    }

    /// The state of a member is as of this place.
    pub(crate) fn position(&self) -> u64 {
        self.pending.front().map_or(self.position, |(position, _)| position - 1)
    }

    /// What the order has brought up to there.
    pub(crate) fn brought(&self) -> Vec<CallId> {
        let waits = |id: &&CallId| self.pending.iter().any(|(_, key)| key.id == **id);
        self.brought.iter().filter(|id| !waits(id)).cloned().collect()
    }

    /// As at another member.
    pub(crate) fn restore(&mut self, position: u64, brought: Vec<CallId>) {
        self.position = self.position.max(position);
        self.brought = brought.into_iter().collect();
    }

    pub(crate) fn begins(&mut self, key: &Key) {
        self.pending.retain(|(_, it)| it != key);
    }

    /// It is not to be cast any more.
    pub(crate) fn forget(&mut self, key: &Key) {
        self.uncast.retain(|(it, _)| it != key);
    }

    /// The order has brought it: it is executed at all members, whatever their membership.
    pub(crate) fn has(&self, id: &CallId) -> bool {
        self.brought.contains(id)
    }
}

impl Member {
    /// Has a call put into the order, by the oldest member now, by others if it does not come.
    pub(super) fn cast(&mut self, turn: &mut Turn<'_>, key: &Key) {
        if self.order.has(&key.id) {
            return;
        }
        let Some(record) = self.records.get_mut(key) else { return };
        record.stage = Stage::Unordered { cast_at: turn.now + turn.config.cast_again };
        self.order.uncast.push_back((key.clone(), false));
        self.cast_all(turn, false);
    }

    /// Casts what has not been, or all if that did not come; as it came, so that no call of a client passes one before it.
    pub(crate) fn cast_all(&mut self, turn: &mut Turn<'_>, again: bool) {
        let oldest = turn.bindings.get(self.name).and_then(|it| it.members.first().copied());
        if oldest != Some(turn.lines.me()) && !again {
            return;
        }
        let mut full = BTreeSet::new();
        let mut uncast = std::mem::take(&mut self.order.uncast);
        for (key, is_cast) in &mut uncast {
            if self.is_full_of(turn, key.caller) {
                full.insert(key.caller);
            }
            let Some(record) = self.records.get_mut(key) else { continue };
            if full.contains(&key.caller) || *is_cast && !again {
                continue;
            }
            *is_cast = true;
            record.stage = Stage::Unordered { cast_at: turn.now + turn.config.cast_again };
            let call = record.cast(key);
            turn.lines.tell(Event::Order { troupe: self.name, call });
        }
        self.order.uncast = uncast;
    }
}

impl Record {
    fn cast(&self, key: &Key) -> Bytes {
        let arguments = self.chosen.and_then(|it| self.bodies.get(&it).cloned());
        let head = CallHead {
            id: key.id.clone(),
            caller: self.caller,
            procedure: self.procedure,
            version: self.version,
            context: self.context.clone(),
        };
        codec::encode(&Cast { head, arguments: arguments.unwrap_or_default() })
    }
}

impl Server {
    /// The order has brought a call. Equal at all members: who has not heard it from its client executes it all the same.
    pub(crate) fn on_ordered(
        &mut self,
        turn: &mut Turn<'_>,
        name: TroupeName,
        position: u64,
        call: Bytes,
    ) {
        let Some(member) = self.members.get_mut(&name) else { return };
        if member.standing != Standing::Full {
            if member.early.len() < HELD_MAX {
                member.early.push_back(Early::Ordered { position, call });
            } else {
                // Without it this member would not be as the others are.
                self.counts.dropped += 1;
                self.leave(turn, name);
            }
            return;
        }
        if position <= member.order.position {
            return;
        }
        member.order.position = position;
        let Ok(Cast { head, arguments }) = codec::decode::<Cast>(&call) else {
            self.counts.dropped += 1;
            return;
        };
        let key = head.key();
        if !member.order.brought.add(&key.id) {
            return;
        }
        if !member.records.contains_key(&key) {
            let record = Record::new(&head, turn.now);
            member.insert(key.clone(), record);
            if head.caller.version != Version::SOLO {
                // As many as there may be are known: then its result is kept until that is too long.
                let _ = turn.bindings.watch(turn.lines, head.caller.name);
            }
        }
        member.order.forget(&key);
        let Some(record) = member.records.get_mut(&key) else { return };
        if matches!(record.stage, Stage::Waits | Stage::Unordered { .. }) {
            let hash = record.with(&head, arguments);
            (record.chosen, record.stage) = (Some(hash), Stage::Ready);
            member.order.pending.push_back((position, key.clone()));
            member.recount(&key);
            member.ready.push_back(key);
            self.advance(turn, name);
        }
    }

    /// A client asks how it is with a call, and is to decide from here on.
    pub(crate) fn on_ask(
        &mut self,
        turn: &mut Turn<'_>,
        from: BootId,
        name: TroupeName,
        key: &Key,
        by: Version,
    ) {
        let Some(member) = self.members.get_mut(&name) else { return };
        if member.fences.contains_key(&key.caller) || member.fences.len() < turn.config.troupes_max
        {
            let fence = member.fences.entry(key.caller).or_default();
            *fence = by.max(*fence);
        }
        let Some(record) = member.records.get_mut(key) else {
            // It has not come, or waits until this member has the state: then others wait for this one.
            let item = Item::Ready { server: name, key: key.clone(), held: None, fence: by };
            return turn.lines.say(from, item, Bytes::new());
        };
        record.fence = record.fence.max(by);
        match &record.stage {
            Stage::Done(result) => {
                let result = result.clone();
                answer(turn, name, from, key, &result);
            }
            _ => report(turn, name, from, key, record),
        }
    }

    /// A client says whether an execution counts.
    #[allow(clippy::too_many_arguments, reason = "they are those of the message")]
    pub(crate) fn on_decide(
        &mut self,
        turn: &mut Turn<'_>,
        from: BootId,
        name: TroupeName,
        key: &Key,
        by: Version,
        held: u64,
        commit: bool,
    ) {
        let Some(member) = self.members.get_mut(&name) else { return };
        let Some(record) = member.records.get_mut(key) else { return };
        let Stage::Held(ticket, result) = record.stage.clone() else { return };
        let counts = by >= record.fence && ticket.0 == held;
        if !counts || !record.copies.contains_key(&from) {
            // Who decides may know of the newer membership by now.
            self.counts.dropped += 1;
            return report(turn, name, from, key, record);
        }
        member.busy -= 1;
        turn.lines.tell(Event::Decided { ticket, counts: commit });
        if commit {
            self.done(turn, name, key, result);
        } else {
            record.stage = Stage::Ready;
            // Other clients go first; of this one nothing passes it.
            let (later, mut ready): (VecDeque<Key>, VecDeque<Key>) =
                member.ready.drain(..).partition(|it| it.caller == key.caller);
            ready.push_back(key.clone());
            ready.extend(later);
            member.ready = ready;
            self.counts.undone += 1;
        }
        self.advance(turn, name);
    }

    /// What the order has not brought is put into it again.
    pub(super) fn cast_again(&mut self, turn: &mut Turn<'_>, name: TroupeName) {
        let Some(member) = self.members.get_mut(&name) else { return };
        let is_late = member.records.values().any(|record| match record.stage {
            Stage::Unordered { cast_at } => cast_at <= turn.now,
            _ => false,
        });
        member.cast_all(turn, is_late);
    }
}

impl Record {
    /// Executes it with these arguments, whatever the client said here.
    fn with(&mut self, head: &CallHead, arguments: Bytes) -> u128 {
        let hash = crate::record::hash(head, &arguments);
        self.bodies.insert(hash, arguments);
        hash
    }
}
