//! What two ends of calls say to each other.

use std::fmt;

use bytes::Bytes;
use mainstay_base::batch;
use mainstay_base::service::Wire;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Executed, Parting, Semantics};

/// A procedure on the wire: the first 64 bits of a hash of its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ProcedureId(pub u64);

impl ProcedureId {
    /// The procedure called `name`. The function is a wire contract: FNV-1a.
    #[must_use]
    pub const fn new(name: &str) -> Self {
        let (bytes, mut hash, mut at) = (name.as_bytes(), 0xcbf2_9ce4_8422_2325u64, 0);
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            at += 1;
        }
        Self(hash)
    }
}

/// By these a stream is read (an `Offer`): an accepted call goes on in them.
pub(crate) const STREAM: [ProcedureId; 2] = [ProcedureId::new(PULL), ProcedureId::new(LEAVE)];
/// Their names.
pub(crate) const PULL: &str = "mainstay.stream.pull";
pub(crate) const LEAVE: &str = "mainstay.stream.leave";

/// All that one end says to the other in a turn.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Message {
    pub(crate) head: Head,
    pub(crate) items: Vec<Item>,
    /// The bodies of the items, in order, end to end.
    #[serde(skip)]
    pub(crate) bodies: Bytes,
}

/// Who speaks, and to whom.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The crash count of the one who speaks, as a client.
    pub(crate) life: u64,
    /// Names what the one who speaks remembers, as a server.
    pub(crate) memory: u64,
    /// The other end's memory to which the calls of this batch are bound; 0 if there are none.
    pub(crate) bound: u64,
    /// The other end's crash count, whose calls this batch answers; 0 if there are none.
    pub(crate) answers: u64,
    /// All calls with smaller numbers are over for the client.
    pub(crate) floor: u64,
    /// These calls are over as well.
    pub(crate) over: Vec<u64>,
}

/// One thing said. Names are short: they travel.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) enum Item {
    /// The first one on a connection. Whether what was answered outlives a restart; how many calls the server takes from one client.
    #[serde(rename = "h")]
    Hello { kept: bool, window: u32, epoch: u64 },
    /// A call; its arguments are the body.
    #[serde(rename = "c")]
    Call { seq: u64, call: CallHead, len: u32 },
    /// A call that nobody answers.
    #[serde(rename = "m")]
    Cast { procedure: ProcedureId, version: u16, budget: u64, context: Bytes, len: u32 },
    /// How is it with this call?
    #[serde(rename = "p")]
    Probe { seq: u64 },
    /// This call is given up; in its lane that one came before it.
    #[serde(rename = "x")]
    Cancel { seq: u64, after: u64 },
    /// All calls below `next` are over but these, in order.
    #[serde(rename = "o")]
    Open { next: u64, open: Vec<u64> },
    /// A result; it is the body.
    #[serde(rename = "r")]
    Reply { seq: u64, is_error: bool, len: u32 },
    /// There is no result, and there will be none.
    #[serde(rename = "n")]
    Refused { seq: u64, why: Refusal },
    /// The call is held or being executed.
    #[serde(rename = "w")]
    Working { seq: u64 },
    /// Nothing is known of this call: it has not come.
    #[serde(rename = "u")]
    Missing { seq: u64 },
    /// Is this client there still, in this life?
    #[serde(rename = "q")]
    Check { life: u64 },
    /// It is.
    #[serde(rename = "y")]
    Alive,
    /// Is this call wanted still?
    #[serde(rename = "a")]
    More { seq: u64 },
    /// It is: it is granted another quantum.
    #[serde(rename = "g")]
    Grant { seq: u64 },
    /// A new epoch has begun.
    #[serde(rename = "e")]
    Epoch { epoch: u64 },
    /// The end of this procedure is wanted to be known; the answer has this number.
    #[serde(rename = "W")]
    Watch { number: u64, procedure: ProcedureId },
    /// It is not any more.
    #[serde(rename = "V")]
    Unwatch { number: u64 },
    /// What was watched by this number has ended.
    #[serde(rename = "G")]
    Gone { number: u64, why: Parting },
}

/// What a call says besides its arguments.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct CallHead {
    pub(crate) procedure: ProcedureId,
    pub(crate) version: u16,
    pub(crate) semantics: Semantics,
    /// Microseconds that the server may take, from when the call comes.
    pub(crate) budget: u64,
    /// The epoch of the client, where orphans are found by epochs; else 0.
    pub(crate) epoch: u64,
    pub(crate) order: Option<Order>,
    pub(crate) context: Bytes,
    /// Where orphans are adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<Box<CallName>>,
}

/// Most calls that are nested in each other and have names.
pub(crate) const DEPTH_MAX: usize = 16;

/// Names a call for whoever may have to make it again: another node, or the same one in its next life
/// ([`Orphans::Adoption`](crate::Orphans::Adoption)).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct CallName {
    pub(crate) root: u128,
    /// For each level its number among the calls of the execution that made it.
    #[serde(deserialize_with = "short_path")]
    pub(crate) path: Vec<u64>,
}

/// Reads a path. One that is too long is no name, and is not held in memory.
fn short_path<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u64>, D::Error> {
    struct Path;
    impl<'de> Visitor<'de> for Path {
        type Value = Vec<u64>;

        fn expecting(&self, into: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(into, "at most {DEPTH_MAX} numbers")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut of: A) -> Result<Vec<u64>, A::Error> {
            let mut path = Vec::new();
            while let Some(number) = of.next_element()? {
                if path.len() == DEPTH_MAX {
                    return Err(Error::invalid_length(DEPTH_MAX + 1, &self));
                }
                path.push(number);
            }
            Ok(path)
        }
    }
    from.deserialize_seq(Path)
}

impl CallName {
    /// A name that no other call has. It is a *capability*: who knows it has the result of the call by it, whatever
    /// [`Interceptor::admit`](crate::Interceptor::admit) would say to that, and who calls by it first with other arguments keeps the one that it was meant for from
    /// being executed (`Differs`). Where not all that may call are trusted `root` is drawn at random, 128 bits of them, and kept secret.
    #[must_use]
    pub const fn new(root: u128) -> Self {
        Self { root, path: Vec::new() }
    }

    /// A call that its execution makes, or executions at its node that this has called: by the number at each level. `None`: calls are nested
    /// too deep.
    pub(crate) fn nested(&self, numbers: &[u64]) -> Option<Self> {
        let is_short = self.path.len() + numbers.len() <= DEPTH_MAX;
        is_short.then(|| Self { path: [&self.path, numbers].concat(), ..*self })
    }
}

/// The place of a call among the calls of one caller.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) lane: u32,
    /// The open call of the lane before it; 0 if there is none.
    pub(crate) after: u64,
    /// Calls of the lane that the client has given up, each with the one before it: they must not take effect any more.
    pub(crate) gone: Vec<(u64, u64)>,
}

/// Why a server has no result for a call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// No such procedure is served here.
    Procedure,
    /// The procedure is served, but not in this version.
    Version,
    /// The bytes are not the arguments of the procedure.
    Arguments,
    /// An interceptor of the server does not admit it.
    Denied,
    /// The result is larger than a message may be. The procedure was executed.
    ResultTooLarge,
    /// The server has as many calls, or unread results, as it takes. Later there may be room.
    Busy,
    /// The arguments have more bytes than the server takes.
    TooLarge,
    /// A new epoch has begun, and the client has not heard of it.
    Epoch,
    /// The server is being shut down.
    Draining,
    /// The deadline came before the execution began, or its client was taken for dead.
    Late,
    /// The deadline came while it was being executed, and ended it.
    Expired,
    /// It was ended because its client was taken for dead, or was not heard in a new epoch.
    Aborted,
    /// What serves the procedure has failed, or is gone.
    Handler,
    /// It had begun before the server was restarted; it does not begin again.
    Restarted,
    /// A call of the same name is another procedure, or has other arguments.
    Differs,
}

impl Refusal {
    /// Whether the procedure has surely not begun.
    #[must_use]
    pub const fn is_not_begun(self) -> bool {
        matches!(
            self,
            Self::Procedure
                | Self::Version
                | Self::Arguments
                | Self::Denied
                | Self::Busy
                | Self::TooLarge
                | Self::Epoch
                | Self::Draining
                | Self::Late
                | Self::Differs
        )
    }

    /// What is known of the execution of a call with these semantics.
    #[must_use]
    pub const fn executed(self, semantics: Semantics) -> Executed {
        if self.is_not_begun() { Executed::NotAtAll } else { semantics.unknown() }
    }
}

impl batch::Item for Item {
    fn bytes(&self) -> usize {
        let own = match self {
            Self::Call { call, .. } => {
                let gone = call.order.as_ref().map_or(0, |order| order.gone.len());
                let name = call.name.as_ref().map_or(0, |name| 24 + 9 * name.path.len());
                call.context.len() + 16 * gone + name
            }
            Self::Open { open, .. } => 9 * open.len(),
            _ => 0,
        };
        64 + own + self.len()
    }

    fn len(&self) -> usize {
        match self {
            Self::Call { len, .. } | Self::Cast { len, .. } | Self::Reply { len, .. } => {
                *len as usize
            }
            _ => 0,
        }
    }
}

impl Message {
    /// The items, each with its body.
    pub(crate) fn into_items(self) -> (Head, impl Iterator<Item = (Item, Bytes)>) {
        (self.head, batch::split(self.items, self.bodies))
    }
}

impl Wire for Message {
    fn payload(&self) -> Bytes {
        self.bodies.clone()
    }

    fn with_payload(self, payload: Bytes) -> Option<Self> {
        batch::fits(&self.items, &payload).then_some(Self { bodies: payload, ..self })
    }
}

/// Items on their way into batches.
pub(crate) type Batch = batch::Batch<Item>;

impl Message {
    /// What is in the batch; it is empty afterwards.
    pub(crate) fn of(head: Head, batch: &mut Batch) -> Self {
        let (items, bodies) = batch.take();
        Self { head, items, bodies }
    }
}

#[cfg(test)]
mod tests;
