//! What a server writes, so that what was answered is not executed again after a restart.

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstay_base::service::{Io, Logged, Wire};
use mainstay_base::{Instant, NodeId, Rng};
use serde::{Deserialize, Serialize};

use super::{Answer, Client, Entry, Server, State};
use crate::lines::Lines;
use crate::ranges::Ranges;
use crate::wire::{CallHead, Order, ProcedureId};
use crate::{Refusal, Semantics};

/// So many bytes are written again in one turn.
const REWRITE_BYTES: usize = 1 << 20;

/// What is written.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Record {
    /// The service has begun its life with this number.
    #[serde(rename = "l")]
    Life {
        /// Its crash count.
        life: u64,
        /// What it remembers is called so.
        memory: u64,
    },
    /// A client lives this life, and all of its calls before are over.
    #[serde(rename = "c")]
    Client {
        /// Which.
        client: NodeId,
        /// Its crash count.
        life: u64,
        /// Calls below are over.
        floor: u64,
        /// These as well.
        over: Vec<(u64, u64)>,
        /// Of those that did not begin: the one before it in its lane.
        skipped: Vec<(u64, u64)>,
        /// What is remembered of it is called so; 0: as the rest is.
        #[serde(default)]
        memory: u64,
    },
    /// A call begins.
    #[serde(rename = "b")]
    Began {
        /// Whose.
        client: NodeId,
        /// In which life.
        life: u64,
        /// Which.
        seq: u64,
        /// Calls below are over.
        floor: u64,
    },
    /// A call that has not begun will not; in its lane that one came before it.
    #[serde(rename = "o")]
    Over {
        /// Whose.
        client: NodeId,
        /// In which life.
        life: u64,
        /// Which.
        seq: u64,
        /// The one before it.
        before: u64,
    },
    /// A call has its answer.
    #[serde(rename = "e")]
    Ended {
        /// Whose.
        client: NodeId,
        /// In which life.
        life: u64,
        /// Which.
        seq: u64,
        /// If it did not begin: the one before it in its lane.
        before: Option<u64>,
        /// How it ended.
        answer: Stored,
        /// The result.
        #[serde(skip)]
        body: Bytes,
    },
}

/// An answer without its body.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Stored {
    /// A value.
    #[serde(rename = "v")]
    Value,
    /// An error of the procedure.
    #[serde(rename = "x")]
    Error,
    /// None, and why.
    #[serde(rename = "n")]
    Refused(Refusal),
}

impl Wire for Record {
    fn payload(&self) -> Bytes {
        match self {
            Self::Ended { body, .. } => body.clone(),
            _ => Bytes::new(),
        }
    }

    fn with_payload(mut self, payload: Bytes) -> Option<Self> {
        match &mut self {
            Self::Ended { body, .. } => *body = payload,
            _ if !payload.is_empty() => return None,
            _ => {}
        }
        Some(self)
    }
}

impl Record {
    /// A client begins a life; 0: nothing is remembered of it.
    pub(super) fn client(client: NodeId, life: u64, memory: u64) -> Self {
        let (over, skipped) = (Vec::new(), Vec::new());
        Self::Client { client, life, floor: 0, over, skipped, memory }
    }

    pub(super) fn ended(
        client: NodeId,
        life: u64,
        seq: u64,
        answer: Answer,
        before: Option<u64>,
    ) -> Self {
        let (answer, body) = match answer {
            Answer::Result(false, body) => (Stored::Value, body),
            Answer::Result(true, body) => (Stored::Error, body),
            Answer::Refused(why) => (Stored::Refused(why), Bytes::new()),
        };
        Self::Ended { client, life, seq, before, answer, body }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct PastClient {
    life: u64,
    memory: u64,
    floor: u64,
    over: Ranges,
    skipped: BTreeMap<u64, u64>,
    /// `None`: it had begun, and has no answer. With an answer: if it did not begin, the one before it in its lane.
    calls: BTreeMap<u64, Option<(Answer, Option<u64>)>>,
}

/// What is left of the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Past {
    /// The last crash count that was written.
    pub(crate) life: u64,
    pub(crate) memory: u64,
    clients: BTreeMap<NodeId, PastClient>,
    first: Option<Io>,
    pub(crate) last: Io,
}

impl Past {
    pub(super) fn first(&self) -> Option<Io> {
        self.first
    }

    pub(crate) fn fold(&mut self, logged: Logged<Record>) {
        let Logged::Record(io, record) = logged else { return };
        self.first.get_or_insert(io);
        self.last = io;
        match record {
            Record::Life { life, memory } => (self.life, self.memory) = (life, memory),
            Record::Client { client, life: 0, .. } => drop(self.clients.remove(&client)),
            Record::Client { client, life, floor, over, skipped, memory } => {
                let mut it = Ranges::default();
                over.iter().for_each(|(first, last)| it.add(*first, *last));
                let (over, skipped) = (it, skipped.into_iter().collect());
                let of = self.clients.entry(client).or_default();
                // Where the log is written again the calls come behind, perhaps in later turns: until then the older records count.
                let mut calls = std::mem::take(&mut of.calls);
                calls.retain(|seq, _| of.life == life && *seq >= floor && !over.contains(*seq));
                *of = PastClient { life, memory, floor, over, skipped, calls };
            }
            Record::Began { client, life, seq, floor } => {
                let Some(client) = self.of(client, life) else { return };
                client.calls.insert(seq, None);
                client.floor = client.floor.max(floor);
                client.calls = client.calls.split_off(&client.floor);
                client.over.cut(client.floor);
                client.skipped = client.skipped.split_off(&client.floor);
            }
            Record::Over { client, life, seq, before } => {
                if let Some(client) = self.of(client, life) {
                    client.over.add(seq, seq);
                    client.skipped.insert(seq, before);
                }
            }
            Record::Ended { client, life, seq, before, answer, body } => {
                let answer = match answer {
                    Stored::Value => Answer::Result(false, body),
                    Stored::Error => Answer::Result(true, body),
                    Stored::Refused(why) => Answer::Refused(why),
                };
                if let Some(client) = self.of(client, life).filter(|client| seq >= client.floor) {
                    client.calls.insert(seq, Some((answer, before)));
                }
            }
        }
    }

    /// The client in this life; a former one is of no interest any more.
    fn of(&mut self, client: NodeId, life: u64) -> Option<&mut PastClient> {
        let client = self.clients.entry(client).or_default();
        if life > client.life {
            *client = PastClient { life, memory: client.memory, ..PastClient::default() };
        }
        (client.life == life).then_some(client)
    }
}

/// Where the log is needed from, and how far it has been written again.
#[derive(Clone, Hash, Debug)]
pub(super) struct Kept {
    first: Option<Io>,
    rewrite: Option<Rewrite>,
    /// Seeds what the next client is told.
    seed: u64,
}

#[derive(Clone, Hash, Debug)]
struct Rewrite {
    first: Io,
    /// The next client, and its next call.
    next: Option<(NodeId, u64)>,
    /// All is written again with this.
    last: Option<Io>,
}

impl Kept {
    pub(super) fn new(first: Option<Io>, seed: u64) -> Self {
        Self { first, rewrite: None, seed: Rng::new(seed).stream("clients").next_u64() }
    }

    /// A number that no client was told.
    pub(super) fn draw(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(1);
        Rng::new(self.seed).next_u64() | 1
    }
}

impl Server {
    /// Takes up what the log has.
    pub(super) fn restore(&mut self, past: Past) {
        for (node, past) in past.clients {
            let PastClient { life, memory, floor, over, skipped, calls } = past;
            let memory = if memory == 0 { self.memory } else { memory };
            let mut client = Client { life, memory, floor, over, skipped, ..Client::default() };
            for (seq, answer) in calls {
                if client.is_over(seq) || mainstay_base::fault!(self.config, ForgetsStored) {
                    continue;
                }
                let (answer, before) =
                    answer.unwrap_or((Answer::Refused(Refusal::Restarted), None));
                let order = before.map(|after| Order { lane: 0, after, gone: Vec::new() });
                let call = CallHead {
                    procedure: ProcedureId(0),
                    version: 0,
                    semantics: Semantics::ExactlyOnce,
                    budget: 0,
                    epoch: 0,
                    order,
                    context: Bytes::new(),
                    name: None,
                };
                let (arguments, until) = (Bytes::new(), Instant::ZERO);
                let (has_begun, state) = (before.is_none(), State::Over(answer));
                let entry = Entry { call, arguments, until, has_begun, state };
                client.bytes += entry.bytes();
                client.calls.insert(seq, Box::new(entry));
            }
            self.clients.insert(node, client);
        }
    }

    pub(crate) fn write(&mut self, lines: &mut Lines, record: Record) -> Io {
        let io = lines.persist(record);
        self.stored.first.get_or_insert(io);
        io
    }

    /// The oldest record that is needed.
    pub(crate) fn keeps(&self) -> Io {
        self.stored.first.unwrap_or(Io::MAX)
    }

    /// The log is long: all that is needed is written again, in parts. `own` is what the service itself needs of it.
    pub(crate) fn compact(&mut self, lines: &mut Lines, upto: Io, own: Record) {
        if self.stored.rewrite.is_some() || self.keeps() > upto {
            return;
        }
        let first = lines.persist(own);
        let next = self.clients.keys().next().map(|node| (*node, 0));
        let last = next.is_none().then(|| lines.last());
        self.stored.rewrite = Some(Rewrite { first, next, last });
    }

    /// Writes the next part again. True: there is more.
    pub(crate) fn rewrite(&mut self, lines: &mut Lines) -> bool {
        let Some(Rewrite { next: Some((node, from)), .. }) = self.stored.rewrite else {
            return false;
        };
        let mut bytes = 0;
        let mut next = None;
        if let Some(client) = self.clients.get(&node) {
            let (life, floor, memory) = (client.life, client.floor, client.memory);
            if from == 0 {
                let over = client.over.iter().collect();
                let skipped = client.skipped.iter().map(|(seq, before)| (*seq, *before));
                let skipped = skipped.collect();
                lines.persist(Record::Client { client: node, life, floor, over, skipped, memory });
            }
            for (seq, entry) in client.calls.range(from..) {
                if bytes >= REWRITE_BYTES {
                    next = Some((node, *seq));
                    break;
                }
                bytes += 64 + entry.bytes();
                match &entry.state {
                    State::Held => {}
                    State::Beginning(_) | State::Running(_) => {
                        lines.persist(Record::Began { client: node, life, seq: *seq, floor });
                    }
                    State::Ending(answer) | State::Over(answer) => {
                        let (answer, before) = (answer.clone(), entry.before());
                        lines.persist(Record::ended(node, life, *seq, answer, before));
                    }
                }
            }
        }
        let behind = (std::ops::Bound::Excluded(node), std::ops::Bound::Unbounded);
        let next = next.or_else(|| self.clients.range(behind).next().map(|(node, _)| (*node, 0)));
        let Some(rewrite) = &mut self.stored.rewrite else { return false };
        rewrite.next = next;
        rewrite.last = next.is_none().then(|| lines.last());
        next.is_some()
    }

    /// What was written again is stable: the log may be cut before it.
    pub(crate) fn rewritten(&mut self, upto: Io) {
        let is_stable = |it: &Rewrite| it.last.is_some_and(|last| last <= upto);
        if let Some(rewrite) = self.stored.rewrite.take_if(|it| is_stable(it)) {
            self.stored.first = Some(rewrite.first);
        }
    }
}
