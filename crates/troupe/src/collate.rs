//! What a client makes of the answers of a troupe of servers.

use bytes::Bytes;
use mainstay_base::BootId;

use crate::Refusal;
use crate::wire::Kind;

/// How the answers of the replicas of a server become one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Collator {
    /// The first result that comes, right or wrong: as fast as the fastest replica (RPC-41).
    First,
    /// All of them have to be equal; if two are not, that is the outcome as soon as it shows (RPC-42, RPC-48).
    Unanimous,
    /// More than half of the replicas have to agree: a minority with wrong results is masked (RPC-42).
    Majority,
    /// Each answer is told as it comes ([`Event::Answer`](crate::Event::Answer)), and the outcome is that there are no more: for whoever makes
    /// one of them by a program.
    Each,
}

/// The answer of one replica.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Answer {
    /// A value.
    Value(Bytes),
    /// An error of the procedure.
    Error(Bytes),
    /// There is no result, and there will be none from this replica.
    Refused(Refusal),
}

impl Answer {
    pub(crate) fn new(kind: Kind, body: Bytes) -> Self {
        match kind {
            Kind::Value => Self::Value(body),
            Kind::Error => Self::Error(body),
            Kind::Refused(why) => Self::Refused(why),
        }
    }

    pub(crate) fn parts(&self) -> (Kind, Bytes) {
        match self {
            Self::Value(body) => (Kind::Value, body.clone()),
            Self::Error(body) => (Kind::Error, body.clone()),
            Self::Refused(why) => (Kind::Refused(*why), Bytes::new()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Value(body) | Self::Error(body) => body.len(),
            Self::Refused(_) => 0,
        }
    }

    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(why) => Some(*why),
            Self::Value(_) | Self::Error(_) => None,
        }
    }
}

/// What came of the answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It is this one.
    Is(Answer),
    /// Two replicas differ.
    Differ,
    /// No answer can have more than half of the replicas any more.
    NoMajority,
    /// No replica has a result.
    Refused(Refusal),
    /// There are no more.
    Complete,
}

/// What the answers so far come to, in the order in which they came, of so many replicas. `None`: not decided yet.
pub(crate) fn collate(
    collator: Collator,
    answers: &[(BootId, Answer)],
    replicas: usize,
) -> Option<Verdict> {
    let is_complete = replicas > 0 && answers.len() >= replicas;
    let results = || answers.iter().filter(|(_, it)| it.refusal().is_none());
    match collator {
        Collator::Each => is_complete.then_some(Verdict::Complete),
        Collator::First => match results().next() {
            Some((_, answer)) => Some(Verdict::Is(answer.clone())),
            None if is_complete => answers[0].1.refusal().map(Verdict::Refused),
            None => None,
        },
        Collator::Unanimous => {
            let (_, first) = answers.first()?;
            if answers.iter().any(|(_, it)| it != first) {
                return Some(Verdict::Differ);
            }
            is_complete.then(|| match first.refusal() {
                None => Verdict::Is(first.clone()),
                Some(why) => Verdict::Refused(why),
            })
        }
        Collator::Majority => {
            let count = |answer: &Answer| results().filter(|(_, it)| it == answer).count();
            let most = results().max_by_key(|(_, it)| count(it)).map(|(_, it)| (it, count(it)));
            if let Some((answer, votes)) = most
                && votes * 2 > replicas
            {
                return Some(Verdict::Is(answer.clone()));
            }
            let open = replicas.saturating_sub(answers.len());
            let best = most.map_or(0, |(_, votes)| votes) + open;
            if replicas == 0 || best * 2 > replicas {
                return None;
            }
            match most {
                Some(_) => Some(Verdict::NoMajority),
                None if is_complete => answers[0].1.refusal().map(Verdict::Refused),
                None => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_base::{BootNonce, ClusterId, NodeId};
    use proptest::prelude::*;

    fn all(values: &[u8]) -> Vec<(BootId, Answer)> {
        let node = NodeId::new(ClusterId::from_entropy(1), "n");
        let answer = |(at, value): (usize, &u8)| {
            let answer = match value {
                0 => Answer::Refused(Refusal::Handler),
                value => Answer::Value(Bytes::copy_from_slice(&[*value])),
            };
            (BootId { node, nonce: BootNonce(at as u128) }, answer)
        };
        values.iter().enumerate().map(answer).collect()
    }

    proptest! {
        /// A verdict never changes as more answers come, and there is one when all have.
        #[test]
        fn verdicts_are_final(values in prop::collection::vec(0u8..3, 1..7), more in 0usize..3) {
            let (answers, replicas) = (all(&values), values.len() + more);
            for collator in [Collator::First, Collator::Unanimous, Collator::Majority, Collator::Each] {
                let mut former = None;
                for upto in 0..=answers.len() {
                    let now = collate(collator, &answers[..upto], replicas);
                    prop_assert!(former.is_none() || former == now, "{collator:?}: {former:?}, {now:?}");
                    former = now;
                }
                prop_assert!(more > 0 || former.is_some(), "{collator:?}");
            }
        }

        /// Checks RPC-42: what a majority says is said by more than half; what is unanimous by all.
        #[test]
        fn verdicts_are_right(values in prop::collection::vec(1u8..4, 1..7)) {
            let (answers, replicas) = (all(&values), values.len());
            let votes = |answer: &Answer| answers.iter().filter(|(_, it)| it == answer).count();
            match collate(Collator::Majority, &answers, replicas) {
                Some(Verdict::Is(it)) => prop_assert!(votes(&it) * 2 > replicas),
                other => {
                    prop_assert_eq!(other, Some(Verdict::NoMajority));
                    prop_assert!(answers.iter().all(|(_, it)| votes(it) * 2 <= replicas));
                }
            }
            match collate(Collator::Unanimous, &answers, replicas) {
                Some(Verdict::Is(it)) => prop_assert_eq!(votes(&it), replicas),
                other => prop_assert_eq!(other, Some(Verdict::Differ)),
            }
        }
    }
}
