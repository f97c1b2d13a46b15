//! Entropy from the operating system, or from a seed.

use mainstay_base::Rng;

use crate::outside::{Entropy, EntropyError};

/// The operating system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn draw(&mut self) -> Result<u128, EntropyError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| EntropyError(error.to_string()))?;
        Ok(u128::from_le_bytes(bytes))
    }
}

/// The numbers of a seed, for simulations and tests.
#[derive(Clone, Debug)]
pub struct SeededEntropy(Rng);

impl SeededEntropy {
    /// The entropy that `rng` yields.
    #[must_use]
    pub fn new(rng: Rng) -> Self {
        Self(rng)
    }
}

impl Entropy for SeededEntropy {
    fn draw(&mut self) -> Result<u128, EntropyError> {
        Ok(self.0.next_u128())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    /// Checks that a seed repeats itself, and that the operating system does not.
    #[test]
    fn a_seed_repeats_and_the_system_does_not() {
        let mut one = SeededEntropy::new(Rng::new(7));
        let mut other = SeededEntropy::new(Rng::new(7));
        assert_eq!(one.draw().unwrap(), other.draw().unwrap());
        assert_ne!(OsEntropy.draw().unwrap(), OsEntropy.draw().unwrap());
    }
}
