//! Figures, and how samples become some.

use std::time::{Duration, Instant};

/// One figure of a case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Its name, such as `p50_us`.
    pub metric: &'static str,
    /// How much.
    pub value: f64,
    /// Of what, such as `us`.
    pub unit: &'static str,
}

impl Measured {
    /// So many in that time.
    pub fn rate(metric: &'static str, count: u64, time: Duration) -> Self {
        Self { metric, value: count as f64 / time.as_secs_f64(), unit: "1/s" }
    }

    /// A time in milliseconds.
    pub fn millis(metric: &'static str, time: Duration) -> Self {
        Self { metric, value: time.as_secs_f64() * 1e3, unit: "ms" }
    }

    /// A time in microseconds.
    pub fn micros(metric: &'static str, time: Duration) -> Self {
        Self { metric, value: time.as_secs_f64() * 1e6, unit: "us" }
    }
}

/// The time that `percent` of the samples do not exceed; zero if there are none.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// `p50_us` and `p99_us` of these samples, in any order.
pub fn latencies(samples: &mut [Duration]) -> [Measured; 2] {
    samples.sort_unstable();
    [
        Measured::micros("p50_us", percentile(samples, 50)),
        Measured::micros("p99_us", percentile(samples, 99)),
    ]
}

/// The longest time between two acknowledgements across the failure at `at` or after it.
pub fn gap(acknowledged: &[Instant], at: Instant) -> Duration {
    let split = acknowledged.partition_point(|it| *it < at);
    let part = &acknowledged[split.saturating_sub(1)..];
    part.windows(2).map(|it| it[1] - it[0]).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the ranks of percentiles, those of one sample and of none among them.
    #[test]
    fn a_percentile_is_the_sample_of_its_rank() {
        let samples: Vec<_> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!(percentile(&samples, 50), Duration::from_micros(100));
        assert_eq!(percentile(&samples, 99), Duration::from_micros(198));
        assert_eq!(percentile(&samples[..1], 99), Duration::from_micros(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    /// Checks that samples need not be sorted.
    #[test]
    fn latencies_are_of_sorted_samples() {
        let mut samples = [30, 10, 20].map(Duration::from_micros);
        assert_eq!(latencies(&mut samples).map(|it| it.value.round()), [20.0, 30.0]);
    }

    /// Checks that a gap begins with the last acknowledgement before the failure, and that earlier ones do not count.
    #[test]
    fn a_gap_across_the_failure_is_one_of_the_failure() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let acknowledged = [0, 100, 104, 130, 135].map(after);
        assert_eq!(gap(&acknowledged, after(110)), Duration::from_millis(26));
        assert_eq!(gap(&[], start), Duration::ZERO);
    }
}
