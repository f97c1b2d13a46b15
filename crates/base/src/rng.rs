//! Randomness from a seed.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use siphasher::sip128::{Hasher128 as _, SipHasher13};
use std::hash::Hasher as _;

/// The workspace's one generator: ChaCha8, a named algorithm, so that a seed and a commit reproduce a run for ever.
///
/// Each purpose takes a [`Rng::stream`] of its own, so that one more draw for one purpose does not shift another's.
#[derive(Clone, Debug)]
pub struct Rng {
    seed: u64,
    inner: ChaCha8Rng,
}

impl Rng {
    /// The generator of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, inner: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// An independent generator for the purpose called `name`; the same whatever was drawn from `self` before.
    #[must_use]
    pub fn stream(&self, name: &str) -> Self {
        let mut hasher = SipHasher13::new_with_keys(self.seed, 0x6d61_696e_7374_6179);
        hasher.write(name.as_bytes());
        Self::new(hasher.finish128().h1)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.inner.next_u64()
    }

    /// The next 128 bits.
    pub fn next_u128(&mut self) -> u128 {
        (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64())
    }

    /// A number in `0..bound`, without bias.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "an empty range has no member");
        // Lemire's multiply and reject.
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(bound);
            if wide as u64 >= threshold {
                return (wide >> 64) as u64;
            }
        }
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "the lower bound comes first");
        match (high - low).checked_add(1) {
            Some(width) => low + self.below(width),
            None => self.next_u64(),
        }
    }

    /// True in `numerator` of `denominator` cases.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }

    /// One of `choices`, or `None` if there is none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        if choices.is_empty() {
            None
        } else {
            choices.get(self.below(choices.len() as u64) as usize)
        }
    }

    /// Fisher and Yates's shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks OV-3. A seed's numbers are frozen: a stored seed must mean the same run in every release.
    #[test]
    fn a_seed_means_the_same_numbers_for_ever() {
        let mut rng = Rng::new(42);
        assert_eq!(rng.next_u64(), 12_578_764_544_318_200_737);
        let mut network = Rng::new(42).stream("network");
        assert_eq!(network.next_u64(), rng.stream("network").next_u64());
        assert_ne!(
            Rng::new(42).stream("disk").next_u64(),
            Rng::new(42).stream("network").next_u64()
        );
    }

    #[test]
    fn numbers_stay_in_range() {
        let mut rng = Rng::new(1);
        for bound in [1, 2, 3, 7, 1000, u64::MAX] {
            assert!((0..100).all(|_| rng.below(bound) < bound));
        }
        assert!((0..100).all(|_| (3..=5).contains(&rng.between(3, 5))));
    }
}
