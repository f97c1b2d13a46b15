//! The exhaustive explorer: every state of a small scope, each once.

use std::collections::VecDeque;
use std::fmt;

/// A model to explore: nodes, network and the faults still allowed, in one value.
///
/// A state of the model is small, cheap to clone, and knows which steps it can take: deliver this message, complete that
/// write, crash this node. A timeout is a step like others. What bounds the scope (messages to send, crashes left) is
/// part of the state.
pub trait Model: Clone {
    /// One step.
    type Step: fmt::Debug;

    /// Puts all steps that can be taken into `into`, which is empty: the same for the same state, in the same order.
    fn steps(&self, into: &mut Vec<Self::Step>);

    /// Takes a step.
    ///
    /// # Errors
    /// The violated property: the exploration ends with the path to it.
    fn apply(&mut self, step: &Self::Step) -> Result<(), String>;

    /// A hash of all that can influence later steps ([`mainstay_base::Fingerprinter`]); states that behave alike should
    /// write alike.
    fn fingerprint(&self) -> u128;

    /// Checks a state in which no step can be taken: has all come to its end? Default: yes.
    ///
    /// # Errors
    /// The violated property.
    fn check_end(&self) -> Result<(), String> {
        Ok(())
    }
}

/// In which order states are explored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Search {
    /// Breadth first: the path to a violation is the shortest one.
    Breadth,
    /// Depth first: fewer states wait at a time.
    Depth,
}

/// What an exploration saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Different states.
    pub states: usize,
    /// Steps taken, those to known states included.
    pub transitions: u64,
    /// The longest path taken to a new state.
    pub depth: u32,
    /// States in which no step could be taken.
    pub ends: usize,
    /// Whether every state was seen: false at the bound, and at a violation.
    pub complete: bool,
    /// The first violation.
    pub violation: Option<Violation>,
}

/// A violated property, and how to get there.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}\n  after: {}", path.join("\n         "))]
pub struct Violation {
    /// What is violated.
    pub what: String,
    /// The steps from the initial state.
    pub path: Vec<String>,
}

/// Explores all states that can be reached from `initial`, until `states_max` (at most 2^30) are known.
///
/// A state costs 24 bytes, and 4 to 8 in the table, however large it is; only the states that wait to be explored are
/// kept whole. Two states with one fingerprint count as one: among a thousand million states that happens once in
/// 2^68 runs.
///
/// ```
/// use mainstay_sim::{Model, Search, explore};
///
/// /// Two jugs of 3 and 5 litres: can one hold exactly 4?
/// #[derive(Clone)]
/// struct Jugs([u32; 2]);
///
/// impl Model for Jugs {
///     type Step = (&'static str, usize);
///     fn steps(&self, into: &mut Vec<Self::Step>) {
///         into.extend([0, 1].into_iter().flat_map(|jug| ["fill", "empty", "pour"].map(|what| (what, jug))));
///     }
///     fn apply(&mut self, (what, jug): &Self::Step) -> Result<(), String> {
///         let room = [3, 5][1 - jug] - self.0[1 - jug];
///         let poured = self.0[*jug].min(room);
///         match *what {
///             "fill" => self.0[*jug] = [3, 5][*jug],
///             "empty" => self.0[*jug] = 0,
///             _ => (self.0[*jug], self.0[1 - jug]) = (self.0[*jug] - poured, self.0[1 - jug] + poured),
///         }
///         if self.0[1] == 4 { Err("exactly 4 litres".into()) } else { Ok(()) }
///     }
///     fn fingerprint(&self) -> u128 { u128::from(self.0[0] << 8 | self.0[1]) }
/// }
///
/// let report = explore(Jugs([0, 0]), Search::Breadth, 1_000);
/// let violation = report.violation.expect("the riddle has an answer");
/// assert_eq!(violation.path.len(), 6);
/// ```
pub fn explore<M: Model>(initial: M, search: Search, states_max: usize) -> Report {
    let mut visited = Visited::default();
    let mut report =
        Report { states: 0, transitions: 0, depth: 0, ends: 0, complete: true, violation: None };
    visited.insert(initial.fingerprint(), ROOT, 0);
    let mut open = VecDeque::from([(0, 0, initial.clone())]);
    let mut steps = Vec::new();
    'states: while let Some((id, depth, state)) = match search {
        Search::Breadth => open.pop_front(),
        Search::Depth => open.pop_back(),
    } {
        steps.clear();
        state.steps(&mut steps);
        report.depth = report.depth.max(depth);
        if steps.is_empty() {
            report.ends += 1;
            if let Err(what) = state.check_end() {
                report.violation = Some(Violation { what, path: visited.path(&initial, id, None) });
                break;
            }
        }
        for (index, step) in (0..).zip(&steps) {
            report.transitions += 1;
            let mut next = state.clone();
            if let Err(what) = next.apply(step) {
                let path = visited.path(&initial, id, Some(index));
                report.violation = Some(Violation { what, path });
                break 'states;
            }
            let fingerprint = next.fingerprint();
            if visited.len() >= states_max.min(STATES_MAX) && !visited.contains(fingerprint) {
                report.complete = false;
                break 'states;
            }
            if let Some(new) = visited.insert(fingerprint, id, index) {
                open.push_back((new, depth + 1, next));
            }
        }
    }
    report.states = visited.len();
    report.complete &= report.violation.is_none();
    report
}

const ROOT: u32 = u32::MAX;
const STATES_MAX: usize = 1 << 30;

/// The states known: their fingerprints in the order of their discovery, and an open-addressing table over them.
#[derive(Default)]
struct Visited {
    prints: Vec<u128>,
    /// From which state, by which of its steps.
    parents: Vec<(u32, u32)>,
    /// Places in `prints` plus 1; 0 is empty. A power of two long, at most half full.
    table: Vec<u32>,
}

impl Visited {
    fn len(&self) -> usize {
        self.prints.len()
    }

    /// Where the fingerprint stands in the table, or would stand. Fingerprints are hashes: their low bits are even.
    fn place(&self, print: u128) -> usize {
        let mask = self.table.len() - 1;
        let mut place = spread(print) & mask;
        while self.table[place] != 0 && self.prints[self.table[place] as usize - 1] != print {
            place = (place + 1) & mask;
        }
        place
    }

    fn contains(&self, print: u128) -> bool {
        !self.table.is_empty() && self.table[self.place(print)] != 0
    }

    /// The number of the state, if it is new.
    fn insert(&mut self, print: u128, parent: u32, step: u32) -> Option<u32> {
        if self.table.len() < 2 * (self.prints.len() + 1) {
            self.grow();
        }
        let place = self.place(print);
        if self.table[place] != 0 {
            return None;
        }
        let id = u32::try_from(self.prints.len()).expect("at most 2^30 states");
        self.prints.push(print);
        self.parents.push((parent, step));
        self.table[place] = id + 1;
        Some(id)
    }

    fn grow(&mut self) {
        let mask = (self.table.len() * 2).max(1024) - 1;
        let mut table = vec![0; mask + 1];
        for (id, print) in (1..).zip(&self.prints) {
            let mut place = spread(*print) & mask;
            while table[place] != 0 {
                place = (place + 1) & mask;
            }
            table[place] = id;
        }
        self.table = table;
    }

    /// The steps from the initial state to the state `id`, and one more.
    fn path<M: Model>(&self, initial: &M, id: u32, last: Option<u32>) -> Vec<String> {
        let mut indices: Vec<u32> = last.into_iter().collect();
        let mut at = id;
        while at != ROOT {
            let (parent, step) = self.parents[at as usize];
            indices.push(step);
            at = parent;
        }
        indices.pop(); // The root was reached by no step.
        let (mut state, mut steps, mut path) = (initial.clone(), Vec::new(), Vec::new());
        for index in indices.into_iter().rev() {
            steps.clear();
            state.steps(&mut steps);
            let Some(step) = steps.get(index as usize) else {
                path.push("the model's steps differ from time to time".to_owned());
                break;
            };
            path.push(format!("{step:?}"));
            if state.apply(step).is_err() {
                break;
            }
        }
        path
    }
}

/// The bits that choose the place; folded and multiplied, so that small hand-made fingerprints do well too.
fn spread(print: u128) -> usize {
    let folded = (print >> 64) as u64 ^ print as u64;
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mainstay_base::Rng;

    use super::*;

    #[test]
    fn the_table_knows_what_was_put_in() {
        let mut rng = Rng::new(1);
        let (mut visited, mut model) = (Visited::default(), BTreeSet::new());
        for round in 0..20_000 {
            let print = if round % 2 == 0 { rng.next_u128() } else { u128::from(rng.below(9_000)) };
            assert_eq!(visited.contains(print), model.contains(&print));
            assert_eq!(visited.insert(print, 0, 0).is_some(), model.insert(print));
        }
        assert_eq!(visited.len(), model.len());
    }

    /// Counts to 9 in each of `digits` digits, and finds fault with `bad`.
    #[derive(Clone)]
    struct Digits {
        digits: [u8; 4],
        bad: [u8; 4],
    }

    impl Model for Digits {
        type Step = usize;

        fn steps(&self, into: &mut Vec<usize>) {
            into.extend((0..4).filter(|digit| self.digits[*digit] < 9));
        }

        fn apply(&mut self, step: &usize) -> Result<(), String> {
            self.digits[*step] += 1;
            if self.digits == self.bad { Err("found".to_owned()) } else { Ok(()) }
        }

        fn fingerprint(&self) -> u128 {
            u32::from_le_bytes(self.digits).into()
        }

        fn check_end(&self) -> Result<(), String> {
            if self.digits == [9; 4] { Ok(()) } else { Err("not at the end".to_owned()) }
        }
    }

    #[test]
    fn every_state_is_seen_once_in_either_order() {
        for search in [Search::Breadth, Search::Depth] {
            let report = explore(Digits { digits: [0; 4], bad: [10; 4] }, search, usize::MAX);
            assert_eq!((report.states, report.transitions), (10_000, 4 * 9 * 1_000));
            assert_eq!((report.ends, report.complete, report.violation), (1, true, None));
            assert!(report.depth >= 36);
        }
    }

    #[test]
    fn a_violation_comes_with_the_shortest_path_and_the_bound_is_told() {
        let start = Digits { digits: [0; 4], bad: [0, 2, 0, 1] };
        let report = explore(start.clone(), Search::Breadth, usize::MAX);
        let violation = report.violation.unwrap();
        assert_eq!((violation.what.as_str(), violation.path.len()), ("found", 3));
        assert!(!report.complete);
        let report = explore(Digits { bad: [10; 4], ..start }, Search::Depth, 100);
        assert_eq!((report.states, report.complete), (100, false));
    }
}
