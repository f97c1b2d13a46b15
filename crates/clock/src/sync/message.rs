//! What clocks say to each other: every word of every algorithm. All of them are datagrams.

use serde::{Deserialize, Serialize};

#[cfg(any(feature = "synchroniser", feature = "agreement"))]
use mainstay_agreement::sign::Signature;

/// One datagram. Nodes are named by their place in the configured list. On the wire each has a letter for a name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// A reading is unasked: "my clock says `value`".
    #[serde(rename = "t")]
    Tick {
        /// The round that it belongs to.
        round: u64,
        /// The clock, in nanoseconds.
        value: i64,
        /// The sender believes that it is synchronised.
        sure: bool,
        /// How much the reference of an external master is ahead of its clock.
        pull: Option<i64>,
    },
    /// "What does your clock say?"
    #[serde(rename = "q")]
    Request {
        /// Comes back in the answer: an answer to another question is refused.
        nonce: u64,
    },
    /// The answer.
    #[serde(rename = "a")]
    Reply {
        /// Of the request.
        nonce: u64,
        /// The clock, in nanoseconds.
        value: i64,
        /// How far that may be from the true time; 0 where the clock itself is what is asked for.
        error: u64,
        /// The term of the master that answers. Where there is none: 0 of a clock that is synchronised, 1 of one that is not.
        term: u64,
        /// How long the question waited at who answers, as far as that was stamped.
        held: u64,
    },
    /// "What is the time?", of a clock that follows the clock of the node that is asked, and may be none of those that are kept together with it.
    #[serde(rename = "Q")]
    PeerRequest {
        /// Comes back in the answer.
        nonce: u64,
    },
    /// The answer: the clock of the algorithm where that follows something, else the adjusted one.
    #[serde(rename = "A")]
    PeerReply {
        /// Of the request.
        nonce: u64,
        /// The clock, in nanoseconds.
        value: i64,
        /// How far that may be from what it follows.
        error: u64,
        /// How fast that may run away from real time, in parts of a billion: 0 of the true time.
        rate: u64,
        /// How long the question waited at who answers, as far as that was stamped.
        held: u64,
    },
    /// Readings of others, passed on in an agreement.
    #[cfg(feature = "agreement")]
    #[serde(rename = "r")]
    Relay {
        /// The run of the agreement.
        round: u64,
        /// How many have passed it on, the sender included.
        hop: u8,
        /// Differences to the clock of the sender, in the order of the paths.
        values: Vec<Option<i64>>,
    },
    /// A signed clock, passed on.
    #[cfg(feature = "agreement")]
    #[serde(rename = "v")]
    Vouched {
        /// The run of the agreement.
        round: u64,
        /// Whose clock it is.
        of: u16,
        /// The clock, in nanoseconds.
        value: i64,
        /// The signatures, the first by `of`.
        chain: Vec<(u16, Signature)>,
    },
    /// "My clock has reached the round."
    #[cfg(feature = "synchroniser")]
    #[serde(rename = "i")]
    Init {
        /// The round.
        round: u64,
    },
    /// "Some correct clock has reached the round."
    #[cfg(feature = "synchroniser")]
    #[serde(rename = "e")]
    Echo {
        /// The round.
        round: u64,
    },
    /// The same, signed by those who say so.
    #[cfg(feature = "synchroniser")]
    #[serde(rename = "s")]
    Signed {
        /// The round.
        round: u64,
        /// Who, and their signatures.
        chain: Vec<(u16, Signature)>,
    },
    /// "I want to be master."
    #[cfg(feature = "probabilistic")]
    #[serde(rename = "c")]
    Candidate {
        /// Of the term.
        term: u64,
    },
    /// "You have my vote."
    #[cfg(feature = "probabilistic")]
    #[serde(rename = "o")]
    Vote {
        /// For the term.
        term: u64,
    },
    /// "I am master still."
    #[cfg(feature = "probabilistic")]
    #[serde(rename = "m")]
    Master {
        /// Of the term.
        term: u64,
        /// Comes back in the answer.
        beat: u64,
    },
    /// "I have voted in a higher term."
    #[cfg(feature = "probabilistic")]
    #[serde(rename = "h")]
    Ahead {
        /// The term.
        term: u64,
    },
    /// "I follow you."
    #[cfg(feature = "probabilistic")]
    #[serde(rename = "f")]
    Follow {
        /// The term.
        term: u64,
        /// Of the master's word.
        beat: u64,
    },
}

impl mainstay_base::service::Wire for Message {}

/// Rounds and terms above are of no correct clock: they are 2^60 periods away.
const ROUND_MAX: u64 = 1 << 60;
/// A clock that says more is none: that is 146 years after its origin.
const VALUE_MAX: u64 = 1 << 62;
/// A time that runs faster than that, in parts of a billion, is none: no bound of a plan gets there.
const RATE_MAX: u64 = 1_000_000_000;

impl Message {
    /// Whether its numbers are such as a correct clock may say: what is computed with them does not overflow.
    pub(super) fn is_sane(&self) -> bool {
        let is_clock = |value: &i64| value.unsigned_abs() <= VALUE_MAX;
        let is_span = |span: u64| span <= VALUE_MAX;
        match self {
            Self::Tick { round, value, pull, .. } => {
                *round <= ROUND_MAX && is_clock(value) && pull.as_ref().is_none_or(is_clock)
            }
            Self::Request { .. } | Self::PeerRequest { .. } => true,
            Self::Reply { value, error, term, held, .. } => {
                is_clock(value) && is_span(*error) && is_span(*held) && *term <= ROUND_MAX
            }
            Self::PeerReply { value, error, rate, held, .. } => {
                is_clock(value) && is_span(*error) && is_span(*held) && *rate <= RATE_MAX
            }
            #[cfg(feature = "agreement")]
            Self::Relay { round, values, .. } => {
                *round <= ROUND_MAX && values.iter().flatten().all(is_clock)
            }
            #[cfg(feature = "agreement")]
            Self::Vouched { round, value, .. } => *round <= ROUND_MAX && is_clock(value),
            #[cfg(feature = "synchroniser")]
            Self::Init { round } | Self::Echo { round } | Self::Signed { round, .. } => {
                *round <= ROUND_MAX
            }
            #[cfg(feature = "probabilistic")]
            Self::Candidate { term }
            | Self::Vote { term }
            | Self::Ahead { term }
            | Self::Master { term, .. }
            | Self::Follow { term, .. } => *term <= ROUND_MAX,
        }
    }
}
