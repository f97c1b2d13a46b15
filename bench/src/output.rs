//! How results are printed: each as soon as it is there.

use std::io;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns.
    Table,
    /// An object a line.
    Json,
}

/// The results of one benchmark.
pub(crate) struct Report {
    format: Format,
    begun: bool,
    failed: bool,
}

impl Report {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, begun: false, failed: false }
    }

    /// Whether a case came to no result.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// Prints what a case measured, or why it did not; the other cases are measured all the same.
    pub(crate) fn case(&mut self, bench: &str, case: &str, measured: io::Result<Vec<Measured>>) {
        match measured {
            Ok(measured) => measured.iter().for_each(|it| self.print(bench, case, it)),
            Err(error) => {
                self.failed = true;
                eprintln!("mainstay-bench: {case}: {error}");
            }
        }
    }

    fn print(&mut self, bench: &str, case: &str, measured: &Measured) {
        let Measured { metric, value, unit } = measured;
        if self.format == Format::Json {
            // The names are this program's own: nothing in them is to be escaped.
            println!(
                "{{\"bench\":\"{bench}\",\"case\":\"{case}\",\"metric\":\"{metric}\",\"value\":{value:.1},\
                 \"unit\":\"{unit}\",\"peer\":null,\"peer_value\":null,\"ratio\":null}}"
            );
            return;
        }
        if !std::mem::replace(&mut self.begun, true) {
            println!("{:<44} {:<14} {:>14} unit", "case", "metric", "value");
        }
        println!("{case:<44} {metric:<14} {value:>14.1} {unit}");
    }
}

/// One figure.
pub(crate) struct Measured {
    metric: &'static str,
    value: f64,
    unit: &'static str,
}

impl Measured {
    /// So many in that time.
    pub(crate) fn rate(metric: &'static str, count: u64, time: Duration) -> Self {
        Self { metric, value: count as f64 / time.as_secs_f64(), unit: "1/s" }
    }

    /// A time in milliseconds.
    pub(crate) fn millis(metric: &'static str, time: Duration) -> Self {
        Self { metric, value: time.as_secs_f64() * 1e3, unit: "ms" }
    }

    /// A time in microseconds.
    pub(crate) fn micros(metric: &'static str, time: Duration) -> Self {
        Self { metric, value: time.as_secs_f64() * 1e6, unit: "us" }
    }
}

/// The time that `percent` of the samples do not exceed; zero if there are none.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_sample_of_its_rank() {
        let samples: Vec<_> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!(percentile(&samples, 50), Duration::from_micros(100));
        assert_eq!(percentile(&samples, 99), Duration::from_micros(198));
        assert_eq!(percentile(&samples[..1], 99), Duration::from_micros(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
