//! Histories of clients, and the state machine as its own model.

use std::fmt::{Debug, Write as _};
use std::hash::{Hash, Hasher};

use mainstay::{Commands, Position, StateMachine as _};
use mainstay_check::linear::{Model, Operation, Outcome, Verdict, check_by};

/// A command that a client gave, and what it was told.
pub type Asked<S> = Operation<<S as Commands>::Command, <S as Commands>::Reply>;

/// Pairs of placed operations and state that the search may visit for one part.
const SEARCH: usize = 2_000_000;
/// So many operations are printed of an order that does not go on.
const PRINTED: usize = 12;

/// The commands that were answered, with their answers.
pub fn answered<O, R>(history: &[Operation<O, R>]) -> impl Iterator<Item = (&O, &R)> {
    history.iter().filter_map(|asked| match &asked.outcome {
        Outcome::Returned { ret, .. } => Some((&asked.op, ret)),
        Outcome::Unknown => None,
    })
}

/// Checks that one order explains all answers of each part of a history; parts are those for which `part` answers the same, and
/// no operation combines them.
///
/// # Errors
/// The longest order that explains something, and what cannot come next; or that the search did not end.
pub fn linearisable<M, K>(
    model: &M,
    history: &[Operation<M::Op, M::Ret>],
    part: impl Fn(&M::Op) -> K,
) -> Result<(), String>
where
    M: Model<Op: Debug, Ret: Debug>,
    K: Ord + Debug,
{
    for (part, verdict) in check_by(model, history, part, SEARCH) {
        match verdict {
            Verdict::Linearisable => {}
            Verdict::NotLinearisable { prefix, stuck } => {
                let mut text = format!("part {part:?} is not linearisable after\n");
                for index in prefix.iter().rev().take(PRINTED).rev() {
                    let _ = writeln!(text, "  {:?}", history[*index]);
                }
                text.push_str("none of these can come next:\n");
                for index in stuck {
                    let _ = writeln!(text, "  {:?}", history[index]);
                }
                return Err(text);
            }
            Verdict::Undecided { visited } => {
                return Err(format!("part {part:?}: undecided after {visited} states"));
            }
        }
    }
    Ok(())
}

/// A state machine on one machine, one command after the other: the model of itself when it is replicated. Its positions are
/// counted from 1, and no views come: the answers must not depend on either.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Itself<S>(std::marker::PhantomData<S>);

impl<S> Itself<S> {
    pub(crate) const fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

/// A state, told apart from others by its hash.
#[derive(Clone)]
pub(crate) struct Kept<S> {
    machine: S,
    at: Position,
}

impl<S: Commands> Hash for Kept<S> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.machine.state_hash().hash(hasher);
    }
}

impl<S: Commands> PartialEq for Kept<S> {
    fn eq(&self, other: &Self) -> bool {
        self.machine.state_hash() == other.machine.state_hash()
    }
}

impl<S: Commands> Eq for Kept<S> {}

impl<S> Model for Itself<S>
where
    S: Commands<Command: Clone, Reply: PartialEq> + Clone + Default,
{
    type State = Kept<S>;
    type Op = S::Command;
    type Ret = S::Reply;

    fn initial(&self) -> Kept<S> {
        Kept { machine: S::default(), at: Position(0) }
    }

    fn step(&self, state: &Kept<S>, op: &S::Command) -> (Kept<S>, S::Reply) {
        let mut next = Kept { machine: state.machine.clone(), at: Position(state.at.0 + 1) };
        let reply = next.machine.execute(next.at, op.clone());
        (next, reply)
    }
}
