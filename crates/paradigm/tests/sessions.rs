//! Sessions: each command is executed once, and what is kept is bounded.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::collections::BTreeMap;

use mainstay_base::Position;
use mainstay_paradigm::{Envelope, Outcome, Session};
use proptest::prelude::*;
use support::*;

/// Checks PD-22. A duplicate is answered from the saved answer and executed no second time.
#[test]
fn a_duplicate_is_answered_and_not_executed() {
    let mut replica = replica(0);
    let session = opened(&mut replica, 7);
    assert_eq!(ask(&mut replica, &command(session, 1, 0, "x")), done("1 x"));
    assert_eq!(ask(&mut replica, &anonymous("y")), done("2 y"));
    assert_eq!(ask(&mut replica, &command(session, 1, 0, "x")), done("1 x"));
    assert_eq!(replica.machine().unwrap().lines.len(), 2);
    assert_eq!(replica.stats().duplicates, 1);
}

/// Checks PD-22, PD-35. The one that executed crashes; another, restored from its snapshot, answers the retry.
#[test]
fn a_retry_under_the_same_id_after_a_crash_executes_once() {
    let mut first = replica(0);
    let session = opened(&mut first, 7);
    assert_eq!(ask(&mut first, &command(session, 1, 0, "x")), done("1 x"));
    let snapshot = chunks(&mut first);
    drop(first);
    let mut second = replica(0);
    restore(&mut second, &snapshot, 2);
    assert_eq!(ask(&mut second, &command(session, 1, 0, "x")), done("1 x"));
    assert_eq!(second.machine().unwrap().lines.len(), 1);
    assert_eq!(ask(&mut second, &command(session, 2, 1, "z")), done("2 z"));
}

#[test]
fn without_a_session_each_copy_is_executed() {
    let mut replica = replica(0);
    assert_eq!(ask(&mut replica, &anonymous("x")), done("1 x"));
    assert_eq!(ask(&mut replica, &anonymous("x")), done("2 x"));
}

/// Checks PD-22. The session not used for longest makes room; its retries are refused, not executed.
#[test]
fn a_retry_in_an_evicted_session_is_refused() {
    let mut replica = replica(0);
    let session = opened(&mut replica, 1);
    ask(&mut replica, &command(session, 1, 0, "x"));
    let kept = opened(&mut replica, 2);
    opened(&mut replica, 3);
    ask(&mut replica, &command(session, 2, 0, "still used"));
    opened(&mut replica, 4);
    assert_eq!(ask(&mut replica, &command(kept, 1, 0, "y")), Outcome::SessionExpired);
    assert_eq!(ask(&mut replica, &command(session, 1, 0, "x")), done("1 x"));
    assert_eq!(replica.session_count(), 3);
    assert_eq!(replica.machine().unwrap().lines.len(), 2);
    assert_eq!((replica.stats().evicted, replica.stats().expired), (1, 1));
}

/// Checks PD-22. A late copy of the opening gives a new session: retries of the old one stay refused.
#[test]
fn a_late_opening_does_not_bring_an_evicted_session_back() {
    let mut replica = replica(0);
    let session = opened(&mut replica, 1);
    ask(&mut replica, &command(session, 1, 0, "x"));
    for id in 2..5 {
        opened(&mut replica, id);
    }
    let again = opened(&mut replica, 1);
    assert_ne!(again, session);
    assert_eq!(ask(&mut replica, &command(session, 1, 0, "x")), Outcome::SessionExpired);
    assert_eq!(
        ask(&mut replica, &Envelope::Close { session }.encode(b"")),
        Outcome::SessionExpired
    );
    assert_eq!(opened(&mut replica, 1), again, "opening what is open gives the same");
    assert_eq!(replica.machine().unwrap().lines.len(), 1);
}

#[test]
fn answers_are_kept_until_acknowledged_and_the_window_is_bounded() {
    let mut replica = replica(0);
    let session = opened(&mut replica, 1);
    for number in [4, 2, 1, 3] {
        assert!(matches!(ask(&mut replica, &command(session, number, 0, "x")), Outcome::Done(_)));
    }
    assert_eq!(ask(&mut replica, &command(session, 5, 0, "y")), Outcome::TooManyOutstanding);
    assert_eq!(ask(&mut replica, &command(session, 5, 2, "y")), done("5 y"));
    assert_eq!(ask(&mut replica, &command(session, 2, 0, "x")), Outcome::Acknowledged);
    assert_eq!(ask(&mut replica, &command(session, 4, 0, "x")), done("1 x"));
    assert_eq!(ask(&mut replica, &command(session, u64::MAX, 4, "z")), Outcome::TooManyOutstanding);
    assert_eq!(ask(&mut replica, &Envelope::Close { session }.encode(b"")), Outcome::Closed);
    assert_eq!(ask(&mut replica, &command(session, 6, 0, "x")), Outcome::SessionExpired);
    assert_eq!(replica.machine().unwrap().lines.len(), 5);
}

#[test]
fn saved_answers_are_bounded_in_bytes() {
    let mut replica = replica_with(small().answer_bytes(100, 400), 0);
    let [first, second] = [1, 2].map(|id| opened(&mut replica, id));
    for number in 1..=3 {
        ask(&mut replica, &command(first, number, 0, "big 100"));
        ask(&mut replica, &command(second, number, number - 1, "big 100"));
    }
    assert_eq!(replica.stats().evicted, 0, "300 and 100 bytes fit");
    ask(&mut replica, &command(second, 4, 2, "big 100"));
    assert_eq!(replica.stats().evicted, 1);
    assert_eq!(ask(&mut replica, &command(first, 3, 0, "big 100")), Outcome::SessionExpired);
    assert!(matches!(ask(&mut replica, &command(second, 5, 4, "big 101")), Outcome::Done(_)));
    assert_eq!(ask(&mut replica, &command(second, 5, 4, "big 101")), Outcome::AnswerNotSaved);
}

/// A session in the model: its last use, what is acknowledged, and the answers.
type Plain = (Position, u64, BTreeMap<u64, Outcome>);

/// What sessions mean, said plainly: no hashes, no sharing, everything looked through.
#[derive(Default)]
struct Model {
    executed: usize,
    open: BTreeMap<Session, Plain>,
}

impl Model {
    fn open(&mut self, at: Position, id: u128) -> Outcome {
        let found = self.open.keys().find(|session| session.id == id).copied();
        let session = found.unwrap_or(Session { id, opened: at });
        self.open.entry(session).or_default().0 = at;
        while self.open.len() > 3 {
            let oldest = self.open.iter().min_by_key(|(_, plain)| plain.0).map(|(key, _)| *key);
            self.open.remove(&oldest.unwrap());
        }
        Outcome::Opened(session)
    }

    fn command(&mut self, at: Position, session: Session, number: u64, acked: u64) -> Outcome {
        let Some((last_use, known, answers)) = self.open.get_mut(&session) else {
            return Outcome::SessionExpired;
        };
        *last_use = at;
        *known = acked.max(*known);
        if number <= *known {
            return Outcome::Acknowledged;
        }
        if let Some(answer) = answers.get(&number) {
            return answer.clone();
        }
        if number > *known + 4 {
            return Outcome::TooManyOutstanding;
        }
        self.executed += 1;
        let answer = done(&format!("{} x", self.executed));
        answers.insert(number, answer.clone());
        answer
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Open(u128),
    Command { which: usize, number: u64, acked: u64 },
    Close(usize),
    Transfer,
}

fn operations() -> impl Strategy<Value = Operation> {
    prop_oneof![
        2 => (0..6u128).prop_map(Operation::Open),
        8 => (0..8usize, 1..9u64, 0..8u64).prop_map(|(which, number, acked)| {
            Operation::Command { which, number, acked: acked.min(number - 1) }
        }),
        1 => (0..8usize).prop_map(Operation::Close),
        1 => Just(Operation::Transfer),
    ]
}

proptest! {
    /// Checks PD-22, PD-31. Sessions behave as the model does, across transfers too.
    #[test]
    fn sessions_follow_the_model(operations in prop::collection::vec(operations(), 1..150)) {
        let mut model = Model::default();
        let mut replica = replica(0);
        let mut seen = vec![Session { id: 99, opened: Position(99) }];
        for operation in operations {
            let at = replica.position().next();
            match operation {
                Operation::Open(id) => {
                    let outcome = ask(&mut replica, &open(id));
                    prop_assert_eq!(&outcome, &model.open(at, id));
                    if let Outcome::Opened(session) = outcome { seen.push(session) }
                }
                Operation::Command { which, number, acked } => {
                    let session = seen[seen.len().saturating_sub(1 + which)];
                    let outcome = ask(&mut replica, &command(session, number, acked, "x"));
                    prop_assert_eq!(outcome, model.command(at, session, number, acked));
                }
                Operation::Close(which) => {
                    let session = seen[seen.len().saturating_sub(1 + which)];
                    let closed = model.open.remove(&session).is_some();
                    let outcome = ask(&mut replica, &Envelope::Close { session }.encode(b""));
                    prop_assert_eq!(outcome == Outcome::Closed, closed);
                }
                Operation::Transfer => {
                    let hash = replica.state_hash();
                    let (snapshot, at) = (chunks(&mut replica), replica.position().0);
                    replica = support::replica(0);
                    restore(&mut replica, &snapshot, at);
                    prop_assert_eq!(replica.state_hash(), hash);
                }
            }
            prop_assert_eq!(replica.session_count(), model.open.len());
            prop_assert_eq!(replica.machine().unwrap().lines.len(), model.executed);
        }
    }
}
