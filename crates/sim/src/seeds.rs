//! How many seeds a test runs.

use std::ops::Range;

/// These seeds, unless the environment says otherwise: `MAINSTAY_SEEDS` many, from `MAINSTAY_SEED` on; or `MAINSTAY_TIMES` as many, which
/// `cargo xtask soak` says. What does not parse counts as not said.
#[must_use]
pub fn seeds(usual: Range<u64>) -> Range<u64> {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    told(usual, variable)
}

fn told(usual: Range<u64>, variable: impl Fn(&str) -> Option<u64>) -> Range<u64> {
    let first = variable("MAINSTAY_SEED").unwrap_or(usual.start);
    let times = variable("MAINSTAY_TIMES").unwrap_or(1);
    let many = (usual.end - usual.start).saturating_mul(times);
    first..first.saturating_add(variable("MAINSTAY_SEEDS").unwrap_or(many))
}

#[cfg(test)]
mod tests {
    use super::told;

    #[test]
    fn the_environment_says_how_many() {
        let told = |said: &[(&str, u64)]| {
            told(5..15, |name| said.iter().find(|(of, _)| *of == name).map(|(_, value)| *value))
        };
        assert_eq!(told(&[]), 5..15);
        assert_eq!(told(&[("MAINSTAY_TIMES", 10)]), 5..105);
        assert_eq!(told(&[("MAINSTAY_SEED", 7), ("MAINSTAY_SEEDS", 1)]), 7..8);
        assert_eq!(told(&[("MAINSTAY_SEEDS", 3), ("MAINSTAY_TIMES", 10)]), 5..8);
        assert_eq!(told(&[("MAINSTAY_SEED", u64::MAX)]), u64::MAX..u64::MAX);
    }
}
