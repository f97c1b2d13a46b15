//! Linearisability: is there one order of the operations that explains every answer?
//!
//! The search is Wing and Gong's with Lowe's memory: try every operation that no unplaced operation precedes, go back at
//! the first answer that cannot be explained, and never visit one (set of placed operations, state) twice. It is
//! exponential at worst, so the number of visited pairs is bounded and the verdict may be *undecided*.
//!
//! An operation whose fate is unknown stays open for ever: it may take effect at any time after its invocation, or
//! never. One that is known not to have been executed does not belong into the history.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasherDefault, DefaultHasher, Hash};

use mainstay_base::Instant;

/// The sequential object whose behaviour the history must match.
pub trait Model {
    /// State of the object.
    type State: Clone + Hash + Eq;
    /// An operation with its arguments.
    type Op;
    /// An answer.
    type Ret: PartialEq;

    /// The state before any operation.
    fn initial(&self) -> Self::State;

    /// The state after `op` and the answer to it.
    fn step(&self, state: &Self::State, op: &Self::Op) -> (Self::State, Self::Ret);
}

/// How an operation ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome<Ret> {
    /// The client got an answer.
    Returned {
        /// When.
        at: Instant,
        /// The answer.
        ret: Ret,
    },
    /// The client does not know whether the operation was, or will be, executed.
    Unknown,
}

/// One operation of a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation<Op, Ret> {
    /// Who asked; for reports only.
    pub client: u64,
    /// When.
    pub invoked: Instant,
    /// What.
    pub op: Op,
    /// What came of it.
    pub outcome: Outcome<Ret>,
}

impl<Op, Ret> Operation<Op, Ret> {
    /// An operation that was answered.
    pub fn returned(client: u64, invoked: Instant, at: Instant, op: Op, ret: Ret) -> Self {
        Self { client, invoked, op, outcome: Outcome::Returned { at, ret } }
    }

    /// An operation of unknown fate.
    pub fn unknown(client: u64, invoked: Instant, op: Op) -> Self {
        Self { client, invoked, op, outcome: Outcome::Unknown }
    }
}

/// What the checker found. Operations are named by their index in the history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearisable,
    /// There is none.
    NotLinearisable {
        /// The longest explanation found, in its order.
        prefix: Vec<usize>,
        /// The operations of which none can come next after it, though one must.
        stuck: Vec<usize>,
    },
    /// The bound was reached first.
    Undecided {
        /// How many pairs of placed operations and state were visited.
        visited: usize,
    },
}

impl Verdict {
    /// Whether an explanation was found.
    #[must_use]
    pub fn is_linearisable(&self) -> bool {
        matches!(self, Self::Linearisable)
    }
}

/// Checks a history as a whole, visiting at most `bound` states. Commands on several keys need this one.
///
/// One operation precedes another if it returned before the other was invoked; at equal moments they are concurrent.
pub fn check<M: Model>(model: &M, history: &[Operation<M::Op, M::Ret>], bound: usize) -> Verdict {
    let all: Vec<usize> = (0..history.len()).collect();
    Search::new(model, history, &all, bound).run()
}

/// Checks each part of a history by itself: sound only if the parts are independent objects, as keys are that no
/// operation combines. The parts are given by `partition`; verdicts name operations of the whole history.
pub fn check_by<M: Model, K: Ord>(
    model: &M,
    history: &[Operation<M::Op, M::Ret>],
    partition: impl Fn(&M::Op) -> K,
    bound: usize,
) -> BTreeMap<K, Verdict> {
    let mut parts: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for (index, operation) in history.iter().enumerate() {
        parts.entry(partition(&operation.op)).or_default().push(index);
    }
    let judge = |part: Vec<usize>| Search::new(model, history, &part, bound).run();
    parts.into_iter().map(|(key, part)| (key, judge(part))).collect()
}

/// A set of operations, one bit each.
type Placed = Vec<u64>;

/// An invocation or a return in the list of what is not placed yet.
#[derive(Clone, Copy)]
struct Entry {
    /// Index in the part that is checked.
    operation: usize,
    /// The entry of its return, if this is an invocation that was answered.
    answer: Option<usize>,
    invocation: bool,
}

/// The end of the list, before the first and after the last entry.
const END: usize = 0;

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Operation<M::Op, M::Ret>],
    /// Index in the history of each operation of the part.
    part: &'a [usize],
    bound: usize,
    /// The entries in order of time, from 1; entry 0 closes the ring.
    entries: Vec<Entry>,
    next: Vec<usize>,
    previous: Vec<usize>,
    unanswered: usize,
    placed: Placed,
    state: M::State,
    /// Invocations placed so far, with the state before each.
    stack: Vec<(usize, M::State)>,
    /// Never iterated, so its order does not matter.
    seen: HashSet<(Placed, M::State), BuildHasherDefault<DefaultHasher>>,
    best: Option<(Vec<usize>, Vec<usize>)>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(
        model: &'a M,
        history: &'a [Operation<M::Op, M::Ret>],
        part: &'a [usize],
        bound: usize,
    ) -> Self {
        // Invocations sort before returns of the same moment.
        let mut moments: Vec<(Instant, bool, usize)> = Vec::new();
        for (operation, index) in part.iter().enumerate() {
            moments.push((history[*index].invoked, false, operation));
            if let Outcome::Returned { at, .. } = history[*index].outcome {
                assert!(at >= history[*index].invoked, "an operation returns after its invocation");
                moments.push((at, true, operation));
            }
        }
        moments.sort_unstable();
        let mut entries = vec![Entry { operation: usize::MAX, answer: None, invocation: false }];
        let mut invocations = vec![END; part.len()];
        let mut unanswered = 0;
        for (index, (_, is_return, operation)) in moments.iter().enumerate() {
            let (operation, invocation) = (*operation, !*is_return);
            entries.push(Entry { operation, answer: None, invocation });
            if invocation {
                invocations[operation] = index + 1;
            } else {
                unanswered += 1;
                entries[invocations[operation]].answer = Some(index + 1);
            }
        }
        let count = entries.len();
        Self {
            model,
            history,
            part,
            bound,
            next: (0..count).map(|index| (index + 1) % count).collect(),
            previous: (0..count).map(|index| (index + count - 1) % count).collect(),
            entries,
            unanswered,
            placed: vec![0; part.len().div_ceil(64)],
            state: model.initial(),
            stack: Vec::new(),
            seen: HashSet::default(),
            best: None,
        }
    }

    fn run(mut self) -> Verdict {
        let mut at = self.next[END];
        while self.unanswered > 0 {
            let entry = self.entries[at];
            if at != END && entry.invocation {
                if self.seen.len() >= self.bound {
                    return Verdict::Undecided { visited: self.seen.len() };
                }
                at = if self.try_place(at) { self.next[END] } else { self.next[at] };
                continue;
            }
            self.note_stuck(at);
            match self.take_back() {
                Some(last) => at = self.next[last],
                None => {
                    let (prefix, stuck) = self.best.unwrap_or_default();
                    return Verdict::NotLinearisable { prefix, stuck };
                }
            }
        }
        Verdict::Linearisable
    }

    /// Places the operation invoked at `at` next, unless its answer forbids it or the result was visited before.
    fn try_place(&mut self, at: usize) -> bool {
        let operation = self.entries[at].operation;
        let known = &self.history[self.part[operation]];
        let (state, ret) = self.model.step(&self.state, &known.op);
        if let Outcome::Returned { ret: answered, .. } = &known.outcome
            && *answered != ret
        {
            return false;
        }
        let mut placed = self.placed.clone();
        placed[operation / 64] |= 1 << (operation % 64);
        if !self.seen.insert((placed.clone(), state.clone())) {
            return false;
        }
        self.placed = placed;
        let before = std::mem::replace(&mut self.state, state);
        self.stack.push((at, before));
        self.unlink(at);
        if let Some(answer) = self.entries[at].answer {
            self.unlink(answer);
            self.unanswered -= 1;
        }
        true
    }

    fn take_back(&mut self) -> Option<usize> {
        let (at, before) = self.stack.pop()?;
        let entry = self.entries[at];
        self.placed[entry.operation / 64] &= !(1 << (entry.operation % 64));
        self.state = before;
        if let Some(answer) = entry.answer {
            self.relink(answer);
            self.unanswered += 1;
        }
        self.relink(at);
        Some(at)
    }

    /// The entry at `barrier` is the return of an operation that is not placed: nothing behind it may come next.
    fn note_stuck(&mut self, barrier: usize) {
        let longest = self.best.as_ref().map_or(0, |(prefix, _)| prefix.len() + 1);
        if self.stack.len() < longest {
            return;
        }
        let name = |at: usize| self.part[self.entries[at].operation];
        let prefix = self.stack.iter().map(|(at, _)| name(*at)).collect();
        let mut stuck = Vec::new();
        let mut at = self.next[END];
        while at != END && at != barrier {
            stuck.push(name(at));
            at = self.next[at];
        }
        self.best = Some((prefix, stuck));
    }

    fn unlink(&mut self, at: usize) {
        let (before, after) = (self.previous[at], self.next[at]);
        self.next[before] = after;
        self.previous[after] = before;
    }

    /// Undoes the last `unlink` that is not undone yet.
    fn relink(&mut self, at: usize) {
        let (before, after) = (self.previous[at], self.next[at]);
        self.next[before] = at;
        self.previous[after] = at;
    }
}
