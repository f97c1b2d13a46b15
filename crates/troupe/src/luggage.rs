//! What a state of a replica takes along to a new one: results that others have not fetched yet, and open calls.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Buf as _, Bytes, BytesMut};
use mainstay_base::{BootId, codec};
use serde::{Deserialize, Serialize};

use crate::record::{Record, Stage};
use crate::server::{Load, Member};
use crate::service::Turn;
use crate::wire::{CallHead, Key, Kind};
use crate::{Answer, Binding, CallId, Refusal, TroupeName, Version};

/// Most bytes of results that travel along with a state (4 MiB); a larger rest is forgotten.
const RESULTS_BYTES_MAX: usize = 4 << 20;

/// What travels with a state.
#[derive(Serialize, Deserialize)]
pub(crate) struct Luggage {
    born: Version,
    position: u64,
    brought: Vec<CallId>,
    kept: Vec<Kept>,
    past: Vec<CallId>,
    /// The clients, as the older member knows them: a copy of a call may be here whose sender has left since, and whose result was dropped for that.
    callers: Vec<(TroupeName, Binding)>,
    /// What the older member has called, and not all servers have answered.
    carried: Vec<Carried>,
}

/// A call that a new member goes on with: the one that made it may fail before all servers have it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Carried {
    pub(crate) head: CallHead,
    pub(crate) server: TroupeName,
    /// Its outcome is in the state; else the user of the new member makes the call again.
    pub(crate) is_over: bool,
    len: u32,
    #[serde(skip)]
    pub(crate) arguments: Bytes,
}

impl Carried {
    pub(crate) fn new(head: CallHead, server: TroupeName, is_over: bool, arguments: Bytes) -> Self {
        Self { head, server, is_over, len: arguments.len() as u32, arguments }
    }
}

/// A result that somebody may want still.
#[derive(Serialize, Deserialize)]
struct Kept {
    head: CallHead,
    chosen: u128,
    kind: Kind,
    len: u32,
    acked: Vec<BootId>,
}

impl Member {
    pub(crate) fn pack(&self, turn: &Turn<'_>, mut carried: Vec<Carried>) -> (Bytes, Bytes) {
        let (mut kept, mut results) = (Vec::new(), BytesMut::new());
        for (key, record) in &self.records {
            let (Stage::Done(answer), Some(chosen)) = (&record.stage, record.chosen) else {
                continue;
            };
            let (mut kind, mut body) = answer.parts();
            if results.len() + body.len() > RESULTS_BYTES_MAX {
                (kind, body) = Answer::Refused(Refusal::Forgotten).parts();
            }
            results.extend_from_slice(&body);
            let head = CallHead {
                id: key.id.clone(),
                caller: record.caller,
                procedure: record.procedure,
                version: record.version,
                context: Bytes::new(),
            };
            let (len, acked) = (body.len() as u32, record.acked.iter().copied().collect());
            kept.push(Kept { head, chosen, kind, len, acked });
        }
        let (mut left, mut cut) = (RESULTS_BYTES_MAX, BTreeSet::new());
        carried.retain(|it| {
            // Behind one that is left out the user makes them all again: numbers of a thread only grow.
            let fits = it.arguments.len() <= left && !cut.contains(&it.head.id.thread);
            match fits {
                true => left -= it.arguments.len(),
                false => drop(cut.insert(it.head.id.thread)),
            }
            fits
        });
        carried.iter().for_each(|it| results.extend_from_slice(&it.arguments));
        let luggage = Luggage {
            born: self.born,
            position: self.order.position(),
            brought: self.order.brought(),
            kept,
            past: self.past.iter().cloned().collect(),
            callers: turn.bindings.all().collect(),
            carried,
        };
        (codec::encode(&luggage), results.freeze())
    }

    pub(crate) fn unpack(
        &mut self,
        turn: &mut Turn<'_>,
        luggage: Luggage,
        body: &mut Bytes,
    ) -> Vec<Carried> {
        (self.records, self.ready) = (BTreeMap::new(), VecDeque::new());
        self.load.clear();
        self.born = luggage.born;
        self.past = luggage.past.into_iter().collect();
        for (name, binding) in luggage.callers {
            turn.bindings.learn(name, binding);
        }
        self.order.restore(luggage.position, luggage.brought);
        for Kept { head, chosen, kind, len, acked } in luggage.kept {
            let mut record = Record::new(&head, turn.now);
            // A copy: a small result would keep the whole state in memory.
            let result = Bytes::copy_from_slice(&body.copy_to_bytes(len as usize));
            record.chosen = Some(chosen);
            record.acked = acked.into_iter().collect();
            record.stage = Stage::Done(Answer::new(kind, result));
            record.counted = record.bytes();
            let Load { records, done, bytes, .. } = self.load.entry(head.caller.name).or_default();
            (*records, *done, *bytes) = (*records + 1, *done + 1, *bytes + record.counted);
            if head.caller.version != Version::SOLO {
                // As many as there may be are known: then its result is kept until that is too long.
                let _ = turn.bindings.watch(turn.lines, head.caller.name);
            }
            self.records.insert(head.key(), record);
        }
        let mut carried = luggage.carried;
        for it in &mut carried {
            it.arguments = Bytes::copy_from_slice(&body.copy_to_bytes(it.len as usize));
        }
        carried.retain(|it| it.head.caller.name == self.name && !it.head.id.path.is_empty());
        carried
    }
}

impl Luggage {
    /// Whether so many bytes hold all results, and nothing is there twice.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        let lens = self.kept.iter().map(|it| it.len as usize);
        let lens = lens.chain(self.carried.iter().map(|it| it.len as usize));
        let keys: BTreeSet<Key> = self.kept.iter().map(|it| it.head.key()).collect();
        keys.len() == self.kept.len()
            && self.brought.len() <= crate::server::HELD_MAX
            && lens.sum::<usize>() <= bytes
    }
}
