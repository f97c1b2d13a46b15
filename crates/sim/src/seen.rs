//! Coverage of rare situations.

use std::collections::BTreeMap;

/// Counts how often each rare situation was reached.
///
/// A swarm that never reaches a situation does not test it: a test adds up the registries of its runs and asserts that
/// nothing is [missing](Self::missing).
///
/// ```
/// let mut seen = mainstay_sim::Seen::default();
/// seen.mark("crash in recovery");
/// assert_eq!(seen.missing(&["crash in recovery", "both disks slow"]), ["both disks slow"]);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen(BTreeMap<&'static str, u64>);

impl Seen {
    /// Counts one.
    pub fn mark(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// How often it was reached.
    #[must_use]
    pub fn count(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// Those of `wanted` that were never reached.
    #[must_use]
    pub fn missing<'a>(&self, wanted: &[&'a str]) -> Vec<&'a str> {
        wanted.iter().copied().filter(|what| self.count(what) == 0).collect()
    }

    /// Asserts that all of `wanted` were reached.
    ///
    /// # Panics
    /// With the list of those that were not.
    #[track_caller]
    pub fn assert_all(&self, wanted: &[&str]) {
        let missing = self.missing(wanted);
        assert!(missing.is_empty(), "never reached: {missing:?}; reached: {:?}", self.0);
    }

    /// All that was reached, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(what, count)| (*what, *count))
    }
}
