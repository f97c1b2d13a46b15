//! A set of numbers that lie close together.

use std::collections::BTreeMap;

/// Disjoint ranges that do not touch: first and last.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// Adds all from `first` to `last`.
    pub(crate) fn add(&mut self, mut first: u64, mut last: u64) {
        if first > last {
            return;
        }
        let from = self.0.range(..=first).next_back().map_or(first, |(from, _)| *from);
        let near = self.0.range(from..=last.saturating_add(1));
        let touches = near.filter(|(_, end)| end.saturating_add(1) >= first);
        let touched: Vec<(u64, u64)> = touches.map(|(from, to)| (*from, *to)).collect();
        for (from, to) in touched {
            self.0.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        self.0.insert(first, last);
    }

    /// Drops all below.
    pub(crate) fn cut(&mut self, below: u64) {
        while let Some(range) = self.0.first_entry().filter(|range| *range.key() < below) {
            let last = range.remove();
            if last >= below {
                self.0.insert(below, last);
            }
        }
    }

    /// How many ranges.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(first, last)| (*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((0u64..60, 0u64..6, 0u64..20), 0..60)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (first, length, cut) in steps {
                ranges.add(first, first + length);
                model.extend(first..=first + length);
                if cut < 3 {
                    ranges.cut(first);
                    model.retain(|number| *number >= first);
                }
                prop_assert!((0..80).all(|it| ranges.contains(it) == model.contains(&it)));
                let starts = model.iter().filter(|it| **it == 0 || !model.contains(&(**it - 1)));
                prop_assert_eq!(ranges.len(), starts.count());
            }
        }
    }
}
