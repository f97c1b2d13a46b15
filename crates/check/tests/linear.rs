//! The linearisability checker: hand-made histories, and a brute-force checker beside it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeMap;

use mainstay_base::{Instant, Rng};
use mainstay_check::linear::{Model, Operation, Outcome, Verdict, check, check_by};

/// Keys with numbers: a register is one key written and read, a counter one key incremented.
struct Kv;

#[derive(Clone, PartialEq, Eq, Debug)]
enum Op {
    Get(u8),
    Set(u8, i64),
    Incr(u8),
    /// All keys at once.
    Sum,
}

impl Model for Kv {
    type State = BTreeMap<u8, i64>;
    type Op = Op;
    type Ret = i64;

    fn initial(&self) -> Self::State {
        BTreeMap::new()
    }

    fn step(&self, state: &Self::State, op: &Op) -> (Self::State, i64) {
        let mut state = state.clone();
        let ret = match op {
            Get(key) => state.get(key).copied().unwrap_or(0),
            Set(key, value) => state.insert(*key, *value).map_or(0, |_| 0),
            Incr(key) => {
                let value = state.entry(*key).or_default();
                *value += 1;
                *value
            }
            Sum => state.values().sum(),
        };
        (state, ret)
    }
}

type History = Vec<Operation<Op, i64>>;

fn at(moment: u64) -> Instant {
    Instant::from_nanos(moment)
}

/// An answered operation.
fn done(from: u64, to: u64, op: Op, ret: i64) -> Operation<Op, i64> {
    Operation::returned(0, at(from), at(to), op, ret)
}

/// An operation of unknown fate.
fn lost(from: u64, op: Op) -> Operation<Op, i64> {
    Operation::unknown(0, at(from), op)
}

fn judge(history: &History) -> Verdict {
    check(&Kv, history, 1_000_000)
}

use Op::{Get, Incr, Set, Sum};

/// Histories that one order explains.
#[test]
fn good_histories_are_accepted() {
    let good: Vec<History> = vec![
        vec![],
        vec![done(0, 1, Set(1, 7), 0), done(2, 3, Get(1), 7)],
        vec![done(0, 9, Set(1, 7), 0), done(2, 3, Get(1), 0), done(4, 5, Get(1), 7)],
        vec![done(0, 5, Set(1, 7), 0), done(5, 6, Get(1), 0)],
        vec![done(0, 9, Incr(1), 2), done(0, 9, Incr(1), 1)],
        vec![lost(0, Set(1, 7)), done(5, 6, Get(1), 0), done(7, 8, Get(1), 7)],
        vec![lost(0, Set(1, 7)), done(5, 6, Get(1), 0)],
        vec![lost(0, Incr(1)), lost(0, Incr(1)), done(5, 6, Get(1), 1), done(7, 8, Get(1), 2)],
        vec![lost(0, Set(1, 7)), lost(1, Set(1, 8))],
        vec![done(0, 9, Set(1, 1), 0), done(0, 9, Set(2, 2), 0), done(3, 4, Sum, 2)],
    ];
    for history in good {
        assert_eq!(judge(&history), Verdict::Linearisable, "{history:?}");
    }
}

/// Histories that no order explains.
#[test]
fn bad_histories_are_rejected() {
    let bad: Vec<(&str, History)> = vec![
        ("stale read", vec![done(0, 1, Set(1, 7), 0), done(2, 3, Get(1), 0)]),
        ("value from nowhere", vec![done(0, 1, Get(1), 5)]),
        ("read before the write", vec![done(0, 1, Get(1), 7), done(2, 3, Set(1, 7), 0)]),
        ("lost update", vec![done(0, 1, Incr(1), 1), done(2, 3, Incr(1), 1)]),
        ("concurrent lost update", vec![done(0, 9, Incr(1), 1), done(0, 9, Incr(1), 1)]),
        ("INCR twice", vec![done(0, 1, Incr(1), 1), done(2, 3, Get(1), 2)]),
        ("unknown INCR twice", vec![lost(0, Incr(1)), done(5, 6, Get(1), 2)]),
        ("unknown undone", vec![lost(0, Set(1, 7)), done(1, 2, Get(1), 7), done(3, 4, Get(1), 0)]),
        ("unknown before it began", vec![done(0, 1, Get(1), 7), lost(5, Set(1, 7))]),
        (
            "new then old",
            vec![done(0, 9, Set(1, 7), 0), done(1, 2, Get(1), 7), done(3, 4, Get(1), 0)],
        ),
        (
            "two keys, two orders",
            vec![
                done(0, 9, Set(1, 1), 0),
                done(0, 9, Set(2, 2), 0),
                done(1, 2, Sum, 1),
                done(3, 4, Sum, 2),
            ],
        ),
    ];
    for (why, history) in bad {
        assert!(matches!(judge(&history), Verdict::NotLinearisable { .. }), "{why}");
    }
}

/// The verdict names how far an explanation got and where it stopped.
#[test]
fn a_rejection_names_the_operation_that_is_stuck() {
    let history = vec![done(0, 1, Set(1, 7), 0), done(2, 3, Get(1), 7), done(4, 5, Get(1), 0)];
    let verdict = judge(&history);
    assert_eq!(verdict, Verdict::NotLinearisable { prefix: vec![0, 1], stuck: vec![2] });
}

/// A bound that is too small gives no verdict.
#[test]
fn a_search_past_the_bound_is_undecided() {
    let mut history: History = (0..12).map(|value| done(0, 9, Set(1, value), 0)).collect();
    history.push(done(10, 11, Get(1), 99));
    assert_eq!(check(&Kv, &history, 50), Verdict::Undecided { visited: 50 });
    assert!(matches!(judge(&history), Verdict::NotLinearisable { .. }));
}

/// Keys are judged apart; commands on several keys must not be.
#[test]
fn parts_are_judged_apart() {
    let history = vec![done(0, 1, Set(1, 7), 0), done(2, 3, Get(1), 7), done(2, 3, Get(2), 5)];
    let key = |op: &Op| match op {
        Get(key) | Set(key, _) | Incr(key) => *key,
        Sum => 0,
    };
    let verdicts = check_by(&Kv, &history, key, 1_000);
    assert_eq!(verdicts[&1], Verdict::Linearisable);
    assert_eq!(verdicts[&2], Verdict::NotLinearisable { prefix: vec![], stuck: vec![2] });
}

/// Tries every order of the operations that respects time.
fn brute_force(history: &History, left: &[usize], state: &BTreeMap<u8, i64>) -> bool {
    let end = |index: usize| match history[index].outcome {
        Outcome::Returned { at, .. } => Some(at),
        Outcome::Unknown => None,
    };
    if left.iter().all(|index| end(*index).is_none()) {
        return true;
    }
    left.iter().any(|index| {
        let operation = &history[*index];
        let late = |other: &usize| end(*other).is_some_and(|end| end < operation.invoked);
        if left.iter().any(late) {
            return false;
        }
        let (state, ret) = Kv.step(state, &operation.op);
        if matches!(operation.outcome, Outcome::Returned { ret: got, .. } if got != ret) {
            return false;
        }
        let rest: Vec<usize> = left.iter().copied().filter(|other| other != index).collect();
        brute_force(history, &rest, &state)
    })
}

/// A history of a real object; some answers are lost, some operations never happened; corrupted on demand.
fn random_history(rng: &mut Rng, corrupted: bool) -> History {
    let mut state = Kv.initial();
    let mut history = History::new();
    for index in 0..rng.between(2, 6) {
        let moment = index * 4 + 10;
        let key = rng.below(2) as u8;
        let op = match rng.below(7) {
            0..=2 => Get(key),
            3 | 4 => Set(key, rng.between(1, 3) as i64),
            5 => Incr(key),
            _ => Sum,
        };
        let (next, ret) = Kv.step(&state, &op);
        let (from, to) = (moment - rng.below(10), moment + rng.below(10));
        if rng.chance(1, 5) {
            if rng.chance(1, 2) {
                state = next;
            }
            history.push(lost(from, op));
        } else {
            state = next;
            history.push(done(from, to, op, ret));
        }
    }
    if corrupted {
        let victim = rng.below(history.len() as u64) as usize;
        if let Outcome::Returned { ret, .. } = &mut history[victim].outcome {
            *ret = (*ret + rng.between(1, 2) as i64) % 4;
        }
    }
    rng.shuffle(&mut history);
    history
}

/// 12,000 random histories, half of them corrupted: the same verdict as the brute-force checker.
#[test]
fn agrees_with_brute_force() {
    let mut rng = Rng::new(20);
    let (mut good, mut bad) = (0, 0);
    for round in 0..12_000 {
        let history = random_history(&mut rng, round % 2 == 1);
        let all: Vec<usize> = (0..history.len()).collect();
        let expected = brute_force(&history, &all, &Kv.initial());
        let verdict = judge(&history);
        assert_eq!(verdict.is_linearisable(), expected, "{history:?}: {verdict:?}");
        assert!(expected || round % 2 == 1, "a real history is linearisable: {history:?}");
        if expected { good += 1 } else { bad += 1 }
    }
    assert!(good >= 6_000 && bad >= 2_000, "{good} good, {bad} bad");
}
