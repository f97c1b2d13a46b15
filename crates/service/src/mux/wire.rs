//! What two nodes say to each other about services, in frames of the link's channel [`CHANNEL`](super::CHANNEL). These types
//! are a wire contract.
//!
//! The meta part of a frame is the length of a head (four bytes, little-endian), the head, and what follows it. A message that is
//! no longer than [`PART_BYTES`](super::PART_BYTES) is one frame: its encoded part follows the head, its raw part is the frame's
//! payload. A longer one is a head alone, and parts that carry the encoded part and then the raw part.

use bytes::{BufMut as _, Bytes, BytesMut};
use mainstay_base::codec;
use mainstay_base::service::Address;
use serde::{Deserialize, Serialize};

use super::peer::LANES;

/// What the sender has mounted of one address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) of: Address,
    /// The hash of what must be equal at both ends.
    pub(super) agreed: u128,
    /// Another one each time something is mounted there: what was meant for one run never reaches the next.
    pub(super) run: u64,
    /// So many bytes may be on the way to it and not taken in.
    pub(super) window: u64,
    /// Its class: 0 views, 1 groups, 2 calls, 3 bulk. What comes of its streams counts for it.
    pub(super) class: u8,
}

/// How much of a stream was taken in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) struct Taken {
    pub(super) of: Address,
    /// Of the receiver of the stream, who says this.
    pub(super) run: u64,
    /// Of its sender.
    pub(super) sender: u64,
    /// Bytes from the beginning of the stream.
    pub(super) upto: u64,
}

/// The head of a frame.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) enum Head {
    /// All that the sender has mounted; replaces what it said before. Answered by `Seen`.
    Mounted(Vec<Entry>),
    /// The last `Mounted` has come: another one may follow.
    Seen,
    /// A message, or its beginning.
    Message {
        of: Address,
        /// Of the addressee.
        run: u64,
        view: u64,
        /// Bytes of the whole encoded part.
        meta: u32,
        /// Bytes of the whole raw part.
        payload: u32,
    },
    /// More of the message that has begun.
    Part { of: Address, run: u64 },
    /// Streams were taken in.
    Taken(Vec<Taken>),
    /// Outside all order; perhaps lost.
    Datagram { of: Address },
    /// So many bytes have come since the two boots met: of the messages of each class, and of datagrams. Whether a service has taken
    /// them in is another matter.
    Came([u64; LANES]),
}

/// The meta part of a frame.
pub(super) fn encode(head: &Head, rest: &[u8]) -> Bytes {
    let head = codec::encode(head);
    let mut meta = BytesMut::with_capacity(4 + head.len() + rest.len());
    meta.put_u32_le(head.len() as u32);
    meta.put_slice(&head);
    meta.put_slice(rest);
    meta.freeze()
}

/// The head, and what follows it in the meta part. `None`: not of this protocol.
pub(super) fn decode(meta: &Bytes) -> Option<(Head, Bytes)> {
    let length = u32::from_le_bytes(meta.get(..4)?.try_into().ok()?);
    let end = usize::try_from(length).ok()?.checked_add(4)?;
    let head = codec::decode(meta.get(4..end)?).ok()?;
    Some((head, meta.slice(end..)))
}
