//! What a client and a node say to each other: `docs/protocols/client.md`.
//!
//! Each message is one frame: this type as the meta part, the user's bytes as the payload.

use bytes::Bytes;
use mainstay_base::{ClusterId, Frame, NodeId, codec};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::outcome::NotDone;
use crate::envelope::Session;

/// The channel of all frames of this protocol.
pub const CHANNEL: u16 = 0x0c11;
/// The versions that this build speaks.
pub const VERSION: u8 = 1;
/// Most bytes of a command, a query or an answer: a frame (1 MiB) less 4 KiB for what is around them.
pub const PAYLOAD_BYTES_MAX: usize = (1 << 20) - (4 << 10);
/// Most members that a [`Standing`] may name.
pub const MEMBERS_MAX: usize = 256;

/// From a client. `ticket` comes back in the answer; a client gives each try another one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// The first message of a connection, and only that.
    Hello {
        /// The lowest version that the client speaks.
        version_min: u8,
        /// The highest one.
        version_max: u8,
        /// A bit for each optional part; none yet, unknown ones are ignored.
        features: u64,
        /// The cluster that it means.
        cluster: ClusterId,
    },
    /// Opens a session, or keeps an open one from being evicted.
    Open {
        /// Of this try.
        ticket: u64,
        /// Drawn by the client.
        id: u128,
    },
    /// A command; the payload is the user's.
    Execute {
        /// Of this try.
        ticket: u64,
        /// In which session.
        session: Session,
        /// The same for all tries of one command.
        number: u64,
        /// The client waits for no answer up to here; less than `number`.
        acked_upto: u64,
    },
    /// A query; the payload is the user's.
    Read {
        /// Of this try.
        ticket: u64,
        /// From the state as it is at the node, perhaps an old one; otherwise linearisable.
        local: bool,
    },
    /// Closes a session.
    Close {
        /// Of this try.
        ticket: u64,
        /// Which one.
        session: Session,
    },
    /// Asks how the node stands; also the sign of life of an idle client.
    Status {
        /// Of this try.
        ticket: u64,
    },
}

/// From a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The answer to the hello.
    Welcome {
        /// The version of this connection.
        version: u8,
        /// What both ends can do.
        features: u64,
        /// Who answers.
        node: NodeId,
        /// How it stands.
        standing: Standing,
    },
    /// The answer to a hello that does not fit; the node closes.
    Refused {
        /// Why.
        reason: Refusal,
    },
    /// The session is open.
    Opened {
        /// Of the request.
        ticket: u64,
        /// Which one it is.
        session: Session,
    },
    /// Executed or read; the payload is the answer.
    Done {
        /// Of the request.
        ticket: u64,
    },
    /// This try was not executed and will not be. Of other tries it says nothing, but for a reason that
    /// [is final](NotDone::is_final).
    NotDone {
        /// Of the request.
        ticket: u64,
        /// Why.
        reason: NotDone,
    },
    /// This try may have been executed, or may still be; or it was, and the answer cannot be had again.
    Unknown {
        /// Of the request.
        ticket: u64,
    },
    /// The session is not open: this try was not executed, and none in that session will be.
    Expired {
        /// Of the request.
        ticket: u64,
    },
    /// The session is closed.
    Closed {
        /// Of the request.
        ticket: u64,
    },
    /// How the node stands: asked for, or (with ticket 0) because it is no use to ask here.
    Standing {
        /// Of the request, or 0.
        ticket: u64,
        /// How.
        standing: Standing,
    },
}

/// How a node stands, and whom to ask instead.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Standing {
    /// It is a member with a state, in no minority.
    pub serving: bool,
    /// The number of the last view that it knows, 0 if none.
    pub view: u64,
    /// The members of that view, at most [`MEMBERS_MAX`].
    pub members: Vec<NodeId>,
}

/// Why a hello is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// The client means another cluster.
    Cluster,
    /// No version is common.
    Version,
}

/// Why a frame is no message. It came from outside: the connection is closed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageError {
    /// The numbers of the frame are not those of this protocol.
    #[error("a frame of another protocol")]
    Channel,
    /// The meta part does not decode.
    #[error("not a message")]
    Decode(#[from] codec::DecodeError),
    /// A payload where there is none, or one that is too large.
    #[error("a payload that does not belong there")]
    Payload,
    /// Numbers in it contradict each other.
    #[error("a message that contradicts itself")]
    Contradiction,
}

impl Request {
    /// The frame of this message.
    ///
    /// # Panics
    /// If `payload` is larger than [`PAYLOAD_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self, payload: Bytes) -> Frame {
        frame(codec::encode(self), payload)
    }

    /// The message of a frame, and its payload.
    ///
    /// # Errors
    /// [`MessageError`]; no bytes make it panic.
    pub fn decode(frame: Frame) -> Result<(Self, Bytes), MessageError> {
        let (request, payload) = message(frame)?;
        let carries = matches!(request, Self::Execute { .. } | Self::Read { .. });
        let right = match &request {
            Self::Hello { version_min, version_max, .. } => version_min <= version_max,
            Self::Execute { number, acked_upto, .. } => acked_upto < number,
            _ => true,
        };
        match (carries || payload.is_empty(), right) {
            (false, _) => Err(MessageError::Payload),
            (_, false) => Err(MessageError::Contradiction),
            _ => Ok((request, payload)),
        }
    }
}

impl Reply {
    /// The frame of this message.
    ///
    /// # Panics
    /// If `payload` is larger than [`PAYLOAD_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self, payload: Bytes) -> Frame {
        frame(codec::encode(self), payload)
    }

    /// The message of a frame, and its payload.
    ///
    /// # Errors
    /// [`MessageError`]; no bytes make it panic.
    pub fn decode(frame: Frame) -> Result<(Self, Bytes), MessageError> {
        let (reply, payload) = message(frame)?;
        let members = match &reply {
            Self::Welcome { standing, .. } | Self::Standing { standing, .. } => {
                standing.members.len()
            }
            _ => 0,
        };
        match (matches!(reply, Self::Done { .. }) || payload.is_empty(), members <= MEMBERS_MAX) {
            (false, _) => Err(MessageError::Payload),
            (_, false) => Err(MessageError::Contradiction),
            _ => Ok((reply, payload)),
        }
    }
}

fn frame(meta: Bytes, payload: Bytes) -> Frame {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "payloads are checked before they are framed");
    Frame { channel: CHANNEL, session: 0, seq: 0, meta, payload }
}

fn message<T: DeserializeOwned>(frame: Frame) -> Result<(T, Bytes), MessageError> {
    let Frame { channel: CHANNEL, session: 0, seq: 0, meta, payload } = frame else {
        return Err(MessageError::Channel);
    };
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(MessageError::Payload);
    }
    Ok((codec::decode(&meta)?, payload))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;
    use mainstay_base::Position;
    use proptest::prelude::*;

    fn hex(frame: &Frame) -> String {
        frame.meta.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn requests() -> Vec<Request> {
        let session = Session { id: 1, opened: Position(300) };
        let cluster = ClusterId::from_entropy(7);
        vec![
            Request::Hello { version_min: 1, version_max: 2, features: 0, cluster },
            Request::Open { ticket: 1, id: 1 },
            Request::Execute { ticket: 2, session, number: 7, acked_upto: 6 },
            Request::Read { ticket: 3, local: true },
            Request::Close { ticket: 4, session },
            Request::Status { ticket: 5 },
        ]
    }

    fn replies() -> Vec<Reply> {
        let session = Session { id: 1, opened: Position(300) };
        let node = NodeId::new(ClusterId::from_entropy(7), "n1");
        let standing = Standing { serving: true, view: 3, members: vec![node] };
        let welcome = standing.clone();
        vec![
            Reply::Welcome { version: 1, features: 0, node, standing: welcome },
            Reply::Refused { reason: Refusal::Version },
            Reply::Opened { ticket: 1, session },
            Reply::Done { ticket: 2 },
            Reply::NotDone { ticket: 3, reason: NotDone::Poisoned(Position(9)) },
            Reply::NotDone { ticket: 3, reason: NotDone::Minority },
            Reply::Unknown { ticket: 4 },
            Reply::Expired { ticket: 5 },
            Reply::Closed { ticket: 6 },
            Reply::Standing { ticket: 0, standing },
        ]
    }

    /// The golden vectors of the client protocol: they may change with [`VERSION`] only.
    #[test]
    fn the_encoding_is_frozen() {
        let requests: Vec<String> =
            requests().iter().map(|it| hex(&it.encode(Bytes::new()))).collect();
        assert_eq!(requests, REQUESTS);
        let replies: Vec<String> =
            replies().iter().map(|it| hex(&it.encode(Bytes::new()))).collect();
        assert_eq!(replies, REPLIES);
        let whole = Request::Status { ticket: 5 }.encode(Bytes::new()).encode();
        let whole: String = whole.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(whole, FRAME);
    }

    const REQUESTS: [&str; 6] = [
        "81a548656c6c6f94010200c41000000000000040008000000000000007",
        "81a44f70656e9201c41000000000000000000000000000000001",
        "81a745786563757465940292c41000000000000000000000000000000001cd012c0706",
        "81a4526561649203c3",
        "81a5436c6f7365920492c41000000000000000000000000000000001cd012c",
        "81a65374617475739105",
    ];
    const REPLIES: [&str; 10] = [
        "81a757656c636f6d65940100c41089cbd278e010536d95c55ceaf2c4343b93c30391c41089cbd278e010536d95c55ceaf2c4343b",
        "81a75265667573656491a756657273696f6e",
        "81a64f70656e6564920192c41000000000000000000000000000000001cd012c",
        "81a4446f6e659102",
        "81a74e6f74446f6e65920381a8506f69736f6e656409",
        "81a74e6f74446f6e659203a84d696e6f72697479",
        "81a7556e6b6e6f776e9104",
        "81a7457870697265649105",
        "81a6436c6f7365649106",
        "81a85374616e64696e67920093c30391c41089cbd278e010536d95c55ceaf2c4343b",
    ];
    const FRAME: &str =
        "4d5354590100110c0a0000000000000000000000000000000000000017b0551681a65374617475739105";

    #[test]
    fn what_is_encoded_is_decoded() {
        for request in requests() {
            let decoded = Request::decode(request.encode(Bytes::new())).unwrap();
            assert_eq!(decoded, (request, Bytes::new()));
        }
        for reply in replies() {
            let decoded = Reply::decode(reply.encode(Bytes::new())).unwrap();
            assert_eq!(decoded, (reply, Bytes::new()));
        }
        let payload = Bytes::from_static(b"user");
        let read = Request::Read { ticket: 1, local: false };
        assert_eq!(Request::decode(read.encode(payload.clone())), Ok((read, payload.clone())));
        let done = Reply::Done { ticket: 1 };
        assert_eq!(Reply::decode(done.encode(payload.clone())), Ok((done, payload)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let payload = Bytes::from_static(b"user");
        let status = Request::Status { ticket: 1 };
        assert_eq!(Request::decode(status.encode(payload.clone())), Err(MessageError::Payload));
        let unknown = Reply::Unknown { ticket: 1 };
        assert_eq!(Reply::decode(unknown.encode(payload)), Err(MessageError::Payload));
        let session = Session { id: 1, opened: Position(1) };
        let own = Request::Execute { ticket: 1, session, number: 3, acked_upto: 3 };
        assert_eq!(Request::decode(own.encode(Bytes::new())), Err(MessageError::Contradiction));
        let other = Frame { channel: 1, ..status.encode(Bytes::new()) };
        assert_eq!(Request::decode(other), Err(MessageError::Channel));
        let node = NodeId::new(ClusterId::from_entropy(7), "n1");
        let members = vec![node; MEMBERS_MAX + 1];
        let standing = Standing { serving: true, view: 1, members };
        let many = Reply::Standing { ticket: 1, standing };
        assert_eq!(Reply::decode(many.encode(Bytes::new())), Err(MessageError::Contradiction));
    }

    proptest! {
        /// Bytes of a stranger never make the decoder panic.
        #[test]
        fn no_bytes_make_it_panic(meta: Vec<u8>, payload: Vec<u8>) {
            let frame = Frame {
                channel: CHANNEL, session: 0, seq: 0, meta: meta.into(), payload: payload.into(),
            };
            let _ = Request::decode(frame.clone());
            let _ = Reply::decode(frame);
        }
    }
}
