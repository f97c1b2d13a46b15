//! OM(f), the oral messages of Lamport, Shostak and Pease (1982): agreement without signatures, for n ≥ 3f + 1.
//!
//! *Problem.* Each process has a value; all correct ones shall end with the same vector, in which the entry of each correct process is
//! its value. A liar may tell each listener something else, and may lie about what others told it.
//!
//! *Idea.* In round 1 each says its value. In round h each passes on all that it heard in round h - 1: "q said that p said v". After
//! f + 1 rounds every chain of passers-on has a correct one in it, at whom what the chain says is the same for all. So what was
//! heard is kept as a tree (Bar-Noy's *exponential information gathering*): its nodes are paths p.q.r of distinct processes, and the value at p.q.r is
//! what r said that q said that p said. A node is resolved from its children, what all others said about it, by a function that is not moved by
//! f liars among 3f + 1 processes: a majority for commands, a median for clocks.
//!
//! *Cost.* n(n-1) messages a round, of which those of round h have (n-1)(n-2)…(n-h+1) values: this is for small n and f.

/// What one process has heard: values for all paths of up to `depth` distinct processes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree<V> {
    nodes: usize,
    me: usize,
    /// `levels[h - 1]`: the values of the paths of length h, in the order of [`paths`].
    levels: Vec<Vec<Option<V>>>,
}

/// The paths of so many distinct processes out of `nodes`, in order.
#[must_use]
pub fn paths(nodes: usize, length: usize) -> Vec<Vec<usize>> {
    let mut paths = vec![Vec::new()];
    for _ in 0..length {
        let mut longer = Vec::new();
        for path in &paths {
            for next in (0..nodes).filter(|next| !path.contains(next)) {
                let mut path: Vec<usize> = path.clone();
                path.push(next);
                longer.push(path);
            }
        }
        paths = longer;
    }
    paths
}

/// How many paths of `length` distinct processes there are.
#[must_use]
pub fn count(nodes: usize, length: usize) -> usize {
    (0..length).map(|used| nodes.saturating_sub(used)).product()
}

/// The place of a path among those of its length.
fn index(nodes: usize, path: &[usize]) -> usize {
    let mut index = 0;
    for (at, node) in path.iter().enumerate() {
        let before = path[..at].iter().filter(|it| **it < *node).count();
        index = index * (nodes - at) + node - before;
    }
    index
}

impl<V: Copy> Tree<V> {
    /// Nothing heard yet, of `nodes` processes of which `faulty` may lie.
    ///
    /// # Panics
    /// If the own place is none.
    #[must_use]
    pub fn new(nodes: usize, faulty: usize, me: usize) -> Self {
        assert!(me < nodes, "the own place is one of the nodes");
        let levels = (1..=faulty + 1).map(|length| vec![None; count(nodes, length)]).collect();
        Self { nodes, me, levels }
    }

    /// Rounds until it is complete: f + 1.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.levels.len()
    }

    /// `from` said its own value, in round 1. Only the first word counts.
    pub fn hear(&mut self, from: usize, value: V) -> bool {
        match self.levels[0].get_mut(from) {
            Some(entry) if entry.is_none() => {
                *entry = Some(value);
                true
            }
            _ => false,
        }
    }

    /// What to say in round `round`, from 2 on: what was heard in the one before of paths without the own place, in order.
    #[must_use]
    pub fn say(&self, round: usize) -> Vec<Option<V>> {
        let Some(level) = round.checked_sub(2).and_then(|it| self.levels.get(it)) else {
            return Vec::new();
        };
        let all = paths(self.nodes, round - 1);
        let passed = all.iter().zip(level).filter(|(path, _)| !path.contains(&self.me));
        passed.map(|(_, value)| *value).collect()
    }

    /// What `from` said in round `round`, each value as `read` makes it of what was said. False, and nothing changed: it is of the wrong
    /// shape.
    pub fn hear_all(
        &mut self,
        round: usize,
        from: usize,
        said: &[Option<V>],
        read: impl Fn(V) -> V,
    ) -> bool {
        let nodes = self.nodes;
        let is_round = (2..=self.rounds()).contains(&round) && from < nodes;
        if !is_round || said.len() != count(nodes - 1, round - 1) {
            return false;
        }
        let all = paths(nodes, round - 1);
        for (path, value) in all.iter().filter(|path| !path.contains(&from)).zip(said) {
            let longer: Vec<usize> = path.iter().copied().chain([from]).collect();
            self.levels[round - 1][index(nodes, &longer)] = value.map(&read);
        }
        true
    }

    /// The own place has said what it heard: it believes itself. To be called with what [`say`](Self::say) said.
    pub fn said(&mut self, round: usize, said: &[Option<V>]) -> bool {
        self.hear_all(round, self.me, said, |value| value)
    }

    /// The agreed vector: `combine` makes one value of what several said, and must not be moved by f liars among them.
    #[must_use]
    pub fn resolve(&self, combine: impl Fn(&[Option<V>]) -> Option<V>) -> Vec<Option<V>> {
        let mut resolved = self.levels.last().cloned().unwrap_or_default();
        for length in (1..self.levels.len()).rev() {
            // The children of a path are together: the same path and one more.
            let children = self.nodes - length;
            resolved = resolved.chunks(children).map(&combine).collect();
        }
        resolved
    }
}

/// The value that more than half of all say, if one is.
#[must_use]
pub fn majority<V: Copy + PartialEq>(said: &[Option<V>]) -> Option<V> {
    let count = |value: V| said.iter().filter(|it| **it == Some(value)).count();
    said.iter().flatten().copied().find(|value| 2 * count(*value) > said.len())
}

/// The median of what was said; the lower one of two. Liars that are fewer than half do not take it out of the range of the others.
#[must_use]
pub fn median<V: Copy + Ord>(said: &[Option<V>]) -> Option<V> {
    let mut all: Vec<V> = said.iter().flatten().copied().collect();
    all.sort_unstable();
    all.get(all.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_its_place() {
        for (nodes, length) in [(4, 1), (4, 2), (5, 3), (7, 3)] {
            let all = paths(nodes, length);
            assert_eq!(all.len(), count(nodes, length));
            assert!(all.iter().enumerate().all(|(at, path)| index(nodes, path) == at));
        }
    }

    /// Plays OM(f) where `lie(round, liar, to, path)` replaces what the liars say; the vectors of the correct ones.
    fn play(
        nodes: usize,
        faulty: usize,
        liars: &[usize],
        lie: impl Fn(usize, usize, usize, usize) -> u8,
    ) -> Vec<Vec<Option<u8>>> {
        let mut trees: Vec<Tree<u8>> = (0..nodes).map(|me| Tree::new(nodes, faulty, me)).collect();
        for (to, tree) in trees.iter_mut().enumerate() {
            for from in 0..nodes {
                let said = if liars.contains(&from) { lie(1, from, to, 0) } else { from as u8 % 2 };
                tree.hear(from, said);
            }
        }
        for round in 2..=faulty + 1 {
            let said: Vec<_> = trees.iter().map(|tree| tree.say(round)).collect();
            for (to, tree) in trees.iter_mut().enumerate() {
                for (from, said) in said.iter().enumerate() {
                    let mut said = said.clone();
                    if liars.contains(&from) {
                        for (path, value) in said.iter_mut().enumerate() {
                            *value = Some(lie(round, from, to, path));
                        }
                    }
                    assert!(tree.hear_all(round, from, &said, |it| it));
                }
            }
        }
        let correct = (0..nodes).filter(|it| !liars.contains(it));
        correct.map(|at| trees[at].resolve(|said| majority(said).or(Some(0)))).collect()
    }

    fn agree(vectors: &[Vec<Option<u8>>], liars: &[usize]) -> bool {
        let valid =
            |(of, value): (usize, &Option<u8>)| liars.contains(&of) || *value == Some(of as u8 % 2);
        vectors.iter().all(|it| *it == vectors[0] && it.iter().enumerate().all(valid))
    }

    /// Checks BA-4, BA-5: every placement of one liar among four, and every choice of what it says.
    #[test]
    fn four_agree_whatever_one_of_them_says() {
        for liar in 0..4 {
            for choices in 0..1u32 << 16 {
                // 4 words of round 1, and 4 times 3 of round 2.
                let lie = |round: usize, _: usize, to: usize, path: usize| {
                    let bit = if round == 1 { to } else { 4 + 3 * to + path };
                    (choices >> bit & 1) as u8
                };
                assert!(agree(&play(4, 1, &[liar], lie), &[liar]), "liar {liar}, {choices:#x}");
            }
        }
    }

    /// Checks BA-6: three do not.
    #[test]
    fn three_do_not_agree_with_a_liar_among_them() {
        let fails = |choices: u32| {
            let lie = |round: usize, _: usize, to: usize, path: usize| {
                let bit = if round == 1 { to } else { 3 + 2 * to + path };
                (choices >> bit & 1) as u8
            };
            !agree(&play(3, 1, &[2], lie), &[2])
        };
        assert!((0..1 << 9).any(fails));
    }

    /// Checks BA-11: with one round alone a liar splits them.
    #[test]
    fn one_round_is_too_few() {
        let vectors = play(4, 0, &[3], |_, _, to, _| (to % 2) as u8);
        assert!(!agree(&vectors, &[3]));
    }

    /// Checks BA-4 with two liars, sampled.
    #[test]
    fn seven_agree_whatever_two_of_them_say() {
        let mut rng = mainstay_base::Rng::new(7);
        for _ in 0..200 {
            let first = rng.below(7) as usize;
            let liars = [first, (first + 1 + rng.below(6) as usize) % 7];
            let seed = rng.next_u64();
            let lie = move |round: usize, from: usize, to: usize, path: usize| {
                let name = format!("{round} {from} {to} {path}");
                mainstay_base::Rng::new(seed).stream(&name).below(2) as u8
            };
            assert!(agree(&play(7, 2, &liars, lie), &liars), "{liars:?}");
        }
    }

    #[test]
    fn what_has_the_wrong_shape_is_refused() {
        let mut tree: Tree<u8> = Tree::new(4, 1, 0);
        assert!(!tree.hear_all(2, 1, &[Some(1); 2], |it| it));
        assert!(!tree.hear_all(3, 1, &[Some(1); 3], |it| it));
        assert!(!tree.hear_all(2, 4, &[Some(1); 3], |it| it));
        assert!(tree.hear_all(2, 1, &[Some(1); 3], |it| it));
        assert!(!tree.hear(4, 1));
        assert!(tree.hear(1, 1) && !tree.hear(1, 0));
    }
}
