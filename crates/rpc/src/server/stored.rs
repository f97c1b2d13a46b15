//! What a server writes, so that what was answered is not executed again after a restart.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mainstay_base::service::{Io, Logged, Wire};
use mainstay_base::{Instant, NodeId};
use serde::{Deserialize, Serialize};

use super::{Answer, Client, Entry, Server, State};
use crate::lines::Lines;
use crate::ranges::Ranges;
use crate::wire::{CallHead, ProcedureId};
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
    /// A call that has not begun will not.
    #[serde(rename = "o")]
    Over {
        /// Whose.
        client: NodeId,
        /// In which life.
        life: u64,
        /// Which.
        seq: u64,
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
        /// How it ended.
        answer: Stored,
        /// The result.
        #[serde(skip)]
        body: Bytes,
    },
    /// This node calls that one, and may leave orphans there.
    #[serde(rename = "s")]
    Calls {
        /// Which server.
        server: NodeId,
    },
    /// That server has none of this node's orphans any more.
    #[serde(rename = "k")]
    Clean {
        /// Which server.
        server: NodeId,
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
    pub(super) fn ended(client: NodeId, life: u64, seq: u64, answer: Answer) -> Self {
        let (answer, body) = match answer {
            Answer::Result(false, body) => (Stored::Value, body),
            Answer::Result(true, body) => (Stored::Error, body),
            Answer::Refused(why) => (Stored::Refused(why), Bytes::new()),
        };
        Self::Ended { client, life, seq, answer, body }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct PastClient {
    life: u64,
    floor: u64,
    over: Ranges,
    /// `None`: it had begun, and has no answer.
    calls: BTreeMap<u64, Option<Answer>>,
}

/// What is left of the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Past {
    /// The last crash count that was written.
    pub(crate) life: u64,
    pub(crate) memory: u64,
    clients: BTreeMap<NodeId, PastClient>,
    /// Servers that may have orphans of this node.
    pub(crate) called: BTreeSet<NodeId>,
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
            Record::Client { client, life, floor, over } => {
                let mut it = Ranges::default();
                over.iter().for_each(|(first, last)| it.add(*first, *last));
                let over = it;
                let calls = BTreeMap::new();
                // Where the log is written again the calls come behind.
                self.clients.insert(client, PastClient { life, floor, over, calls });
            }
            Record::Began { client, life, seq, floor } => {
                let Some(client) = self.of(client, life) else { return };
                client.calls.insert(seq, None);
                client.floor = client.floor.max(floor);
                client.calls = client.calls.split_off(&client.floor);
                client.over.cut(client.floor);
            }
            Record::Over { client, life, seq } => {
                if let Some(client) = self.of(client, life) {
                    client.over.add(seq, seq);
                }
            }
            Record::Ended { client, life, seq, answer, body } => {
                let answer = match answer {
                    Stored::Value => Answer::Result(false, body),
                    Stored::Error => Answer::Result(true, body),
                    Stored::Refused(why) => Answer::Refused(why),
                };
                if let Some(client) = self.of(client, life).filter(|client| seq >= client.floor) {
                    client.calls.insert(seq, Some(answer));
                }
            }
            Record::Calls { server } => drop(self.called.insert(server)),
            Record::Clean { server } => drop(self.called.remove(&server)),
        }
    }

    /// The client in this life; a former one is of no interest any more.
    fn of(&mut self, client: NodeId, life: u64) -> Option<&mut PastClient> {
        let client = self.clients.entry(client).or_default();
        if life > client.life {
            *client = PastClient { life, ..PastClient::default() };
        }
        (client.life == life).then_some(client)
    }
}

/// Where the log is needed from, and how far it has been written again.
#[derive(Clone, Hash, Debug)]
pub(super) struct Kept {
    first: Option<Io>,
    rewrite: Option<Rewrite>,
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
    pub(super) fn new(first: Option<Io>) -> Self {
        Self { first, rewrite: None }
    }
}

impl Server {
    /// Takes up what the log has.
    pub(super) fn restore(&mut self, past: Past) {
        if mainstay_base::fault!(self.config, ForgetsStored) {
            return;
        }
        for (node, past) in past.clients {
            let PastClient { life, floor, over, calls } = past;
            let mut client = Client { life, floor, over, ..Client::default() };
            for (seq, answer) in calls {
                if client.is_over(seq) {
                    continue;
                }
                let answer = answer.unwrap_or(Answer::Refused(Refusal::Restarted));
                let call = CallHead {
                    procedure: ProcedureId(0),
                    version: 0,
                    semantics: Semantics::ExactlyOnce,
                    budget: 0,
                    epoch: 0,
                    order: None,
                    context: Bytes::new(),
                };
                let (arguments, until) = (Bytes::new(), Instant::ZERO);
                let entry = Entry { call, arguments, until, state: State::Over(answer) };
                client.bytes += entry.bytes();
                client.calls.insert(seq, entry);
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
    pub(crate) fn compact(&mut self, lines: &mut Lines, upto: Io, own: Vec<Record>) {
        if self.stored.rewrite.is_some() || self.keeps() > upto {
            return;
        }
        let mut first = None;
        for record in own {
            let io = lines.persist(record);
            first.get_or_insert(io);
        }
        let Some(first) = first else { return };
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
            let (life, floor) = (client.life, client.floor);
            if from == 0 {
                let over = client.over.iter().collect();
                lines.persist(Record::Client { client: node, life, floor, over });
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
                        lines.persist(Record::ended(node, life, *seq, answer.clone()));
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
