//! What two nodes say to each other about troupes.

use bytes::Bytes;
use mainstay_base::batch;
use mainstay_base::service::Wire;
use mainstay_rpc::ProcedureId;
use serde::{Deserialize, Serialize};

use crate::{Binding, CallId, TroupeId, TroupeName, Version};

/// All that one node says to another in a turn.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Message {
    pub(crate) items: Vec<Item>,
    /// The bodies of the items, in order, end to end.
    #[serde(skip)]
    pub(crate) bodies: Bytes,
}

/// A logical call as a server knows it: who makes it, which one it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct Key {
    /// The troupe that makes it; not that of its root if it is nested.
    pub(crate) caller: TroupeName,
    pub(crate) id: CallId,
}

/// What a call says besides its arguments.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct CallHead {
    pub(crate) id: CallId,
    /// Who makes it, as the one who sends knows it.
    pub(crate) caller: TroupeId,
    pub(crate) procedure: ProcedureId,
    pub(crate) version: u16,
    pub(crate) context: Bytes,
}

impl CallHead {
    pub(crate) fn key(&self) -> Key {
        Key { caller: self.caller.name, id: self.id.clone() }
    }
}

/// How a call came out at one server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub(crate) enum Kind {
    #[serde(rename = "v")]
    Value,
    #[serde(rename = "e")]
    Error,
    #[serde(rename = "r")]
    Refused(Refusal),
}

/// Why a server has no result for a call, and will have none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// No such procedure is served there. It was not executed.
    Procedure,
    /// The procedure is served, but not in this version. It was not executed.
    Version,
    /// The bytes are not the arguments of the procedure. It was not executed.
    Arguments,
    /// What executes it has failed.
    Handler,
    /// The result is larger than a message may be. It was executed.
    ResultTooLarge,
    /// The arguments are larger than the server takes. It was not executed.
    TooLarge,
    /// The server has as many callers, or calls of this one, as it may. It was not executed.
    Busy,
    /// The arguments differ from those of the other replicas of the client, which count.
    Differs,
    /// The replicas of the client do not agree on the arguments. It was not executed.
    NoAgreement,
    /// Who calls is no member of its troupe any more. This copy of the call does not count.
    NotMember,
    /// It was executed, and its result is kept no longer.
    Forgotten,
}

/// One thing said. Names are short: they travel.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) enum Item {
    /// A call to a replica of `server`; its arguments are the body.
    #[serde(rename = "c")]
    Call { server: TroupeId, call: CallHead, len: u32 },
    /// How it came out at a replica of `server`; a value or an error is the body.
    #[serde(rename = "a")]
    Answer { server: TroupeName, key: Key, kind: Kind, len: u32 },
    /// The call names a troupe as it is no more. How it is now, if that is known.
    #[serde(rename = "s")]
    Stale { server: TroupeName, key: Key, named: Version, now: Option<Binding> },
    /// The answers to these calls have come, or are not wanted, by a replica of the client in this membership.
    #[serde(rename = "k")]
    Ack { server: TroupeName, by: Version, keys: Vec<Key> },
    /// Are the answers to these calls wanted still?
    #[serde(rename = "w")]
    Wanted { server: TroupeName, keys: Vec<Key> },
    /// These calls begin when all replicas of the client have sent them: will this one?
    #[serde(rename = "v")]
    Awaited { server: TroupeName, keys: Vec<Key> },
    /// It will not send them, or not before they begin: it is a new member. Or it cannot say yet whether it wants their answers.
    #[serde(rename = "z")]
    Absent { server: TroupeName, keys: Vec<Key> },
    /// Executed, by the execution with this number, and not yet for good: all servers are to be at this call. `None`: not executed, or undone.
    #[serde(rename = "y")]
    Ready { server: TroupeName, key: Key, held: Option<u64>, fence: Version },
    /// How is it with this call? The one who asks decides from here on.
    #[serde(rename = "q")]
    Ask { server: TroupeName, key: Key, by: Version },
    /// The execution with this number counts, or it is to be undone, and the call executed again.
    #[serde(rename = "d")]
    Decide { server: TroupeName, key: Key, by: Version, held: u64, commit: bool },
    /// To the binding agent: the sender is a new member.
    #[serde(rename = "j")]
    Join { name: TroupeName },
    /// To the binding agent: the sender is a member no more.
    #[serde(rename = "l")]
    Leave { name: TroupeName },
    /// To the binding agent: how is this troupe, from now on?
    #[serde(rename = "f")]
    Watch { name: TroupeName },
    /// To the binding agent, which may have been started again: how it was said to be.
    #[serde(rename = "h")]
    Known { name: TroupeName, binding: Binding },
    /// From the binding agent.
    #[serde(rename = "b")]
    Bound { name: TroupeName, binding: Binding },
    /// A new member wants the state of an older one, which all up to this place of the order has gone into.
    #[serde(rename = "g")]
    WantState { name: TroupeName, binding: Binding, after: u64 },
    /// The sender has the state. Whoever has it too answers one that asks.
    #[serde(rename = "u")]
    Full { name: TroupeName, binding: Binding, asks: bool },
    /// The sender has no state in this membership, and takes that of the receiver only.
    #[serde(rename = "n")]
    Stateless { name: TroupeName, version: Version },
    /// The state; it is the body, behind the [`Luggage`](crate::luggage::Luggage).
    #[serde(rename = "t")]
    State { name: TroupeName, luggage: u32, len: u32 },
}

impl Item {
    /// It may be answered, whatever is open.
    pub(crate) const fn asks(&self) -> bool {
        matches!(
            self,
            Self::Call { .. }
                | Self::Wanted { .. }
                | Self::Awaited { .. }
                | Self::Ready { .. }
                | Self::Decide { .. }
                | Self::Ask { .. }
                | Self::WantState { .. }
                | Self::Full { asks: true, .. }
        )
    }
}

impl batch::Item for Item {
    fn bytes(&self) -> usize {
        let key = |key: &Key| 32 + 9 * key.id.path.len();
        let own = match self {
            Self::Call { call, .. } => 9 * call.id.path.len() + call.context.len(),
            Self::Ack { keys, .. }
            | Self::Wanted { keys, .. }
            | Self::Awaited { keys, .. }
            | Self::Absent { keys, .. } => keys.iter().map(key).sum(),
            Self::Stale { now: Some(binding), .. }
            | Self::Known { binding, .. }
            | Self::Bound { binding, .. }
            | Self::Full { binding, .. }
            | Self::WantState { binding, .. } => 40 * binding.members.len(),
            _ => 0,
        };
        128 + own + self.len()
    }

    fn len(&self) -> usize {
        match self {
            Self::Call { len, .. } | Self::Answer { len, .. } | Self::State { len, .. } => {
                *len as usize
            }
            _ => 0,
        }
    }
}

impl Message {
    /// What is in the batch; it is empty afterwards.
    pub(crate) fn of(batch: &mut Batch) -> Self {
        let (items, bodies) = batch.take();
        Self { items, bodies }
    }

    /// The items, each with its body.
    pub(crate) fn into_items(self) -> impl Iterator<Item = (Item, Bytes)> {
        batch::split(self.items, self.bodies)
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

/// Items on their way into a message.
pub(crate) type Batch = batch::Batch<Item>;
