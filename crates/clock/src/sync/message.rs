//! What clocks say to each other: every word of every algorithm. All of them are datagrams.

use serde::{Deserialize, Serialize};

#[cfg(any(feature = "synchroniser", feature = "agreement"))]
use mainstay_agreement::sign::Signature;

/// One datagram. Nodes are named by their place in the configured list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// A reading is unasked: "my clock says `value`".
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
    Request {
        /// Comes back in the answer: an answer to another question is refused.
        nonce: u64,
    },
    /// The answer.
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
    /// Readings of others, passed on in an agreement.
    #[cfg(feature = "agreement")]
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
    Init {
        /// The round.
        round: u64,
    },
    /// "Some correct clock has reached the round."
    #[cfg(feature = "synchroniser")]
    Echo {
        /// The round.
        round: u64,
    },
    /// The same, signed by those who say so.
    #[cfg(feature = "synchroniser")]
    Signed {
        /// The round.
        round: u64,
        /// Who, and their signatures.
        chain: Vec<(u16, Signature)>,
    },
    /// "I want to be master."
    #[cfg(feature = "probabilistic")]
    Candidate {
        /// Of the term.
        term: u64,
    },
    /// "You have my vote."
    #[cfg(feature = "probabilistic")]
    Vote {
        /// For the term.
        term: u64,
    },
    /// "I am master still."
    #[cfg(feature = "probabilistic")]
    Master {
        /// Of the term.
        term: u64,
        /// Comes back in the answer.
        beat: u64,
    },
    /// "I have voted in a higher term."
    #[cfg(feature = "probabilistic")]
    Ahead {
        /// The term.
        term: u64,
    },
    /// "I follow you."
    #[cfg(feature = "probabilistic")]
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

impl Message {
    /// Whether its numbers are such as a correct clock may say: what is computed with them does not overflow.
    pub(super) fn is_sane(&self) -> bool {
        let is_clock = |value: &i64| value.unsigned_abs() <= VALUE_MAX;
        match self {
            Self::Tick { round, value, pull, .. } => {
                *round <= ROUND_MAX && is_clock(value) && pull.as_ref().is_none_or(is_clock)
            }
            Self::Request { .. } => true,
            Self::Reply { value, error, term, held, .. } => {
                let is_span = |it: u64| it <= VALUE_MAX;
                is_clock(value) && is_span(*error) && is_span(*held) && *term <= ROUND_MAX
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
