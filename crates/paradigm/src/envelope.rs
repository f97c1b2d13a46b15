//! What a message of the group carries: a kind, and behind it the user's bytes.
//!
//! On the wire: one byte, the length of the MessagePack of the [`Envelope`]; that; then the user's bytes as they are.

use bytes::Bytes;
use mainstay_base::{Departures, Position, SiteId, codec};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most members of a view that is put into the order.
pub const VIEW_MEMBERS_MAX: usize = 256;

/// One opening of a session: what the client drew, and where in the order the opening was.
///
/// The position keeps openings of one id apart. Without it a late copy of the opening could bring an evicted session
/// back without its answers, and a retry would be executed a second time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Drawn by the client, 128 random bits.
    pub id: u128,
    /// The position of the opening; told in [`Outcome::Opened`](crate::Outcome::Opened).
    pub opened: Position,
}

/// The kinds of messages of a replicated state machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Envelope {
    /// Opens the session; answers [`Outcome::Opened`](crate::Outcome::Opened), also if it is open already.
    Open {
        /// Drawn by the client, 128 random bits.
        id: u128,
    },
    /// A command, executed once however often it comes while the session lives.
    Command {
        /// In which session.
        session: Session,
        /// Which of the session's commands: from 1, each one its own.
        number: u64,
        /// The client has the answers up to here and does not ask for them again; less than `number`.
        acked_upto: u64,
    },
    /// A command without a session, executed each time it comes.
    Anonymous,
    /// Closes the session.
    Close {
        /// Which one.
        session: Session,
    },
    /// Passes over the command at a position whose execution panicked, and lets the group go on.
    ///
    /// Sent for an operator, and only when all members report [`Status::Poisoned`](crate::Status::Poisoned) at this
    /// very position: a member that has executed the command refuses, and then differs from those that skip it.
    Skip {
        /// Which one.
        position: Position,
    },
    /// The group has another view; made by [`Envelope::view`], which puts the members behind it.
    ///
    /// Cast by the member of rank 0 for every view that it has been told and that is not in the order yet. Of several with
    /// one number the first counts.
    View {
        /// Of the view.
        number: u64,
    },
}

/// Why bytes are not an envelope. They came from another site; the outcome is the same at all replicas.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The bytes end inside the envelope.
    #[error("truncated")]
    Truncated,
    /// The envelope does not decode.
    #[error("not an envelope")]
    Decode(#[from] codec::DecodeError),
    /// User's bytes behind an envelope that has none.
    #[error("bytes behind an envelope that carries none")]
    Trailing,
    /// A number of a command that is not above those acknowledged with it.
    #[error("a command acknowledges itself")]
    OwnAnswer,
    /// A view of more than [`VIEW_MEMBERS_MAX`] members.
    #[error("more members than a view may have")]
    TooManyMembers,
}

impl Envelope {
    /// The payload of a message: this envelope with `command` in it.
    ///
    /// `command` is the user's bytes of [`Envelope::Command`] and [`Envelope::Anonymous`], the members of [`Envelope::View`],
    /// and empty for the others.
    #[must_use]
    pub fn encode(&self, command: &[u8]) -> Bytes {
        let head = codec::encode(self);
        let length = u8::try_from(head.len()).expect("an envelope is less than 100 bytes long");
        let mut payload = Vec::with_capacity(1 + head.len() + command.len());
        payload.push(length);
        payload.extend_from_slice(&head);
        payload.extend_from_slice(command);
        payload.into()
    }

    /// The payload of a message that puts a view into the order, `members` by rank, with who left last and why.
    #[must_use]
    pub fn view(number: u64, members: &[SiteId], departures: &Departures) -> Bytes {
        Self::View { number }.encode(&codec::encode(&(members, departures)))
    }

    /// What is behind an [`Envelope::View`].
    pub(crate) fn decode_members(bytes: &[u8]) -> Result<(Vec<SiteId>, Departures), EnvelopeError> {
        let (members, departures): (Vec<SiteId>, Departures) = codec::decode(bytes)?;
        let fits = members.len() <= VIEW_MEMBERS_MAX && departures.len() <= VIEW_MEMBERS_MAX;
        fits.then_some((members, departures)).ok_or(EnvelopeError::TooManyMembers)
    }

    /// The envelope of `payload` and the user's bytes in it.
    ///
    /// # Errors
    /// [`EnvelopeError`]; no bytes make it panic.
    pub fn decode(payload: &[u8]) -> Result<(Self, &[u8]), EnvelopeError> {
        let (length, rest) = payload.split_first().ok_or(EnvelopeError::Truncated)?;
        let (head, command) =
            rest.split_at_checked(usize::from(*length)).ok_or(EnvelopeError::Truncated)?;
        let envelope: Self = codec::decode(head)?;
        match envelope {
            Self::Command { number, acked_upto, .. } if number <= acked_upto => {
                Err(EnvelopeError::OwnAnswer)
            }
            Self::Open { .. } | Self::Close { .. } | Self::Skip { .. } if !command.is_empty() => {
                Err(EnvelopeError::Trailing)
            }
            _ => Ok((envelope, command)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;
    use mainstay_base::{ClusterId, Incarnation, NodeId};
    use proptest::prelude::*;

    fn envelopes() -> impl Strategy<Value = Envelope> {
        let session = (any::<u128>(), any::<u64>())
            .prop_map(|(id, opened)| Session { id, opened: Position(opened) });
        prop_oneof![
            any::<u128>().prop_map(|id| Envelope::Open { id }),
            (session.clone(), any::<u64>(), any::<u64>()).prop_filter_map(
                "in order",
                |(session, a, b)| (a != b).then(|| Envelope::Command {
                    session,
                    number: a.max(b),
                    acked_upto: a.min(b)
                })
            ),
            Just(Envelope::Anonymous),
            session.prop_map(|session| Envelope::Close { session }),
            any::<u64>().prop_map(|position| Envelope::Skip { position: Position(position) }),
            any::<u64>().prop_map(|number| Envelope::View { number }),
        ]
    }

    /// The golden vectors of the envelope: they may change with the version of the group protocol only.
    #[test]
    fn the_encoding_is_frozen() {
        let hex = |bytes: Bytes| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(Envelope::Anonymous.encode(b"hi")), "0aa9416e6f6e796d6f75736869");
        let command = Envelope::Command {
            session: Session { id: 1, opened: Position(300) },
            number: 7,
            acked_upto: 6,
        };
        assert_eq!(
            hex(command.encode(b"x")),
            "2281a7436f6d6d616e649392c41000000000000000000000000000000001cd012c070678"
        );
        let node = NodeId::new(ClusterId::from_entropy(1), "a");
        let view = {
            let mut departures = Departures::default();
            let left = SiteId { node, incarnation: Incarnation(1) };
            departures.note(left, mainstay_base::Reason::Silent);
            Envelope::view(3, &[SiteId { node, incarnation: Incarnation(2) }], &departures)
        };
        let golden = "0881a4566965779103929192c410db9f2dadabf15c3ead68e835ed8b204c0281c410db9f2dadabf15c3ead68e835ed8b204c\
            9201a653696c656e74";
        assert_eq!(hex(view), golden);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let own = Envelope::Command {
            session: Session { id: 1, opened: Position(1) },
            number: 3,
            acked_upto: 3,
        };
        assert_eq!(Envelope::decode(&own.encode(b"")), Err(EnvelopeError::OwnAnswer));
        assert_eq!(
            Envelope::decode(&Envelope::Open { id: 1 }.encode(b"more")),
            Err(EnvelopeError::Trailing)
        );
        let node = NodeId::new(ClusterId::from_entropy(1), "a");
        let members = vec![SiteId { node, incarnation: Incarnation(1) }; VIEW_MEMBERS_MAX + 1];
        let many = Envelope::decode_members(&codec::encode(&(members, Departures::default())));
        assert_eq!(many, Err(EnvelopeError::TooManyMembers));
        assert_eq!(Envelope::decode(&[]), Err(EnvelopeError::Truncated));
        assert_eq!(Envelope::decode(&[200, 1]), Err(EnvelopeError::Truncated));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(envelope in envelopes(), command: Vec<u8>) {
            let carries = matches!(
                envelope,
                Envelope::Command { .. } | Envelope::Anonymous | Envelope::View { .. }
            );
            let command = if carries { command } else { Vec::new() };
            let payload = envelope.encode(&command);
            prop_assert_eq!(Envelope::decode(&payload).unwrap(), (envelope, &command[..]));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = (Envelope::decode(&bytes), Envelope::decode_members(&bytes));
        }
    }
}
