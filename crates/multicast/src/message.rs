//! What the members of a group say to each other. These types are a wire contract.

use bytes::Bytes;
use mainstay_base::codec::{self, DecodeError};
use mainstay_base::{Order, Position, ViewId};
use serde::{Deserialize, Serialize};

/// A message between two members. Each carries the whole id of the view it belongs to.
///
/// Payloads of user messages travel beside it, concatenated and unencoded.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Message {
    /// Messages of the sender in one lane.
    Data {
        /// In this view.
        view: ViewId,
        /// The lane.
        order: Order,
        /// Sequence number of the first.
        first: u64,
        /// Bytes of each.
        lens: Vec<u32>,
        /// A caster waits until they are at a majority or further: report at once.
        prompt: bool,
        /// The payloads, one after the other.
        #[serde(skip)]
        payload: Bytes,
    },
    /// Positions, by the sequencer of the view.
    Order {
        /// In this view.
        view: ViewId,
        /// The first position given.
        first: u64,
        /// To the next so many messages of the sender with this rank, run by run.
        runs: Vec<(u16, u32)>,
    },
    /// How far the sender is.
    Report {
        /// In this view.
        view: ViewId,
        /// It has data and numbers of all positions up to this one.
        received: u64,
        /// Forced to its log up to this position.
        forced: u64,
        /// It has all the group's past.
        whole: bool,
        /// Per rank how many messages in FIFO order it has; none if there were none in this view.
        fifo: Option<Vec<u64>>,
    },
    /// Asks where the view stands, for a read.
    Probe {
        /// In this view.
        view: ViewId,
        /// The asker's number for it.
        number: u64,
    },
    /// The answer to a probe.
    Answer {
        /// In this view.
        view: ViewId,
        /// The number of the probe.
        number: u64,
        /// The highest position that the sender knows to be given.
        known: u64,
    },
    /// Asks for messages of the old view that a cut names.
    Fetch {
        /// The view that the cut leads to.
        view: ViewId,
        /// The old view.
        as_of: ViewId,
        /// The lane.
        order: Order,
        /// The rank of their sender in the old view.
        rank: u16,
        /// Sequence number of the first.
        first: u64,
        /// Of the last.
        last: u64,
    },
    /// The answer: at least the first of the messages asked for, as many as a frame holds.
    Forward {
        /// The view that the cut leads to.
        view: ViewId,
        /// The old view.
        as_of: ViewId,
        /// The lane.
        order: Order,
        /// The rank of their sender in the old view.
        rank: u16,
        /// Sequence number of the first.
        first: u64,
        /// Bytes of each.
        lens: Vec<u32>,
        /// The payloads, one after the other.
        #[serde(skip)]
        payload: Bytes,
    },
    /// A part of the state for a joiner.
    Transfer {
        /// In this view.
        view: ViewId,
        /// The state is as of this position.
        position: Position,
        /// Bytes before this part.
        offset: u64,
        /// It is the last.
        last: bool,
        /// The part.
        #[serde(skip)]
        payload: Bytes,
    },
    /// The joiner has handed the parts up.
    TransferAck {
        /// In this view.
        view: ViewId,
        /// The state is as of this position.
        position: Position,
        /// Bytes handed up.
        offset: u64,
    },
}

impl Message {
    /// The view that the message belongs to; for `Fetch` and `Forward` the one that is being prepared.
    #[must_use]
    pub fn view(&self) -> ViewId {
        match self {
            Self::Data { view, .. }
            | Self::Order { view, .. }
            | Self::Report { view, .. }
            | Self::Probe { view, .. }
            | Self::Answer { view, .. }
            | Self::Fetch { view, .. }
            | Self::Forward { view, .. }
            | Self::Transfer { view, .. }
            | Self::TransferAck { view, .. } => *view,
        }
    }

    /// Meta part and payload of the frame that carries the message.
    #[must_use]
    pub fn encode(&self) -> (Bytes, Bytes) {
        (codec::encode(self), self.payload().clone())
    }

    /// The message that a frame carries.
    ///
    /// # Errors
    /// [`DecodeError`]: not of this protocol, or the payload does not have the length that the meta part says.
    pub fn decode(meta: &[u8], payload: Bytes) -> Result<Self, DecodeError> {
        let mut message: Self = codec::decode(meta)?;
        let fits = |lens: &[u32], first: u64| {
            let sum: u64 = lens.iter().map(|len| u64::from(*len)).sum();
            sum == payload.len() as u64
                && first > 0
                && !lens.is_empty()
                && first.checked_add(lens.len() as u64).is_some()
        };
        match &mut message {
            Self::Data { lens, first, payload: place, .. }
            | Self::Forward { lens, first, payload: place, .. } => {
                if !fits(lens, *first) {
                    return Err(DecodeError::Type);
                }
                *place = payload;
            }
            Self::Transfer { payload: place, .. } => *place = payload,
            _ if payload.is_empty() => {}
            _ => return Err(DecodeError::Trailing),
        }
        Ok(message)
    }

    /// About how much memory the message takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        let list = match self {
            Self::Data { lens, .. } | Self::Forward { lens, .. } => 4 * lens.len(),
            Self::Order { runs, .. } => 8 * runs.len(),
            Self::Report { fifo: Some(fifo), .. } => 8 * fifo.len(),
            _ => 0,
        };
        size_of::<Self>() + list + self.payload().len()
    }

    fn payload(&self) -> &Bytes {
        static NOTHING: Bytes = Bytes::new();
        match self {
            Self::Data { payload, .. }
            | Self::Forward { payload, .. }
            | Self::Transfer { payload, .. } => payload,
            _ => &NOTHING,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VIEW: ViewId = ViewId { number: 3, nonce: 9 };

    fn data(lens: Vec<u32>, payload: &'static [u8]) -> Message {
        let (order, first, prompt) = (Order::Total, 300, true);
        let payload = Bytes::from_static(payload);
        Message::Data { view: VIEW, order, first, lens, prompt, payload }
    }

    fn hex(message: &Message) -> String {
        let (meta, payload) = message.encode();
        assert_eq!(Message::decode(&meta, payload).unwrap(), *message);
        meta.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Golden vectors: they may never change.
    #[test]
    fn the_messages_are_frozen() {
        let (view, position) = (VIEW, Position(7));
        let all = [
            data(vec![1, 2], b"abb"),
            Message::Order { view, first: 8, runs: vec![(1, 300)] },
            Message::Report { view, received: 9, forced: 8, whole: true, fifo: Some(vec![4]) },
            Message::Probe { view, number: 5 },
            Message::Answer { view, number: 5, known: 9 },
            Message::Transfer { view, position, offset: 4, last: true, payload: Bytes::new() },
            Message::TransferAck { view, position, offset: 4 },
        ];
        let all: Vec<String> = all.iter().map(hex).collect();
        let golden = [
            "81a44461746195920309a5546f74616ccd012c920102c3",
            "81a54f726465729392030908919201cd012c",
            "81a65265706f7274959203090908c39104",
            "81a550726f62659292030905",
            "81a6416e73776572939203090509",
            "81a85472616e73666572949203090704c3",
            "81ab5472616e7366657241636b939203090704",
        ];
        assert_eq!(all, golden);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        for lens in [vec![], vec![1], vec![4, 4], vec![u32::MAX, u32::MAX]] {
            let (meta, payload) = data(lens, b"abb").encode();
            assert_eq!(Message::decode(&meta, payload), Err(DecodeError::Type));
        }
        let (meta, _) = Message::Probe { view: VIEW, number: 1 }.encode();
        let extra = Bytes::from_static(b"x");
        assert_eq!(Message::decode(&meta, extra), Err(DecodeError::Trailing));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(meta: Vec<u8>, payload: Vec<u8>) {
            let _ = Message::decode(&meta, payload.into());
        }
    }
}
