//! How results are printed: each as soon as it is there.

use std::io;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns.
    Table,
    /// An object a line.
    Json,
    /// Nothing is measured: the bench and the name of each case that would be.
    #[value(skip)]
    Names,
}

/// What is to be measured, how often, and where the results go.
pub(crate) struct Report {
    format: Format,
    runs: usize,
    wanted: Wanted,
    begun: bool,
    failed: bool,
}

/// Which cases are measured.
#[derive(Default)]
pub(crate) struct Wanted {
    /// Those whose names begin with one of these; none: all.
    pub(crate) names: Vec<String>,
    /// The names are whole instead.
    pub(crate) exact: bool,
}

impl Wanted {
    fn includes(&self, case: &str) -> bool {
        let is = |it: &String| if self.exact { case == it } else { case.starts_with(it.as_str()) };
        self.names.is_empty() || self.names.iter().any(is)
    }
}

impl Report {
    /// Each case that is wanted is measured `runs` times.
    pub(crate) fn new(format: Format, runs: usize, wanted: Wanted) -> Self {
        Self { format, runs, wanted, begun: false, failed: false }
    }

    /// Whether a case came to no result, or there was none to measure.
    pub(crate) fn failed(&self) -> bool {
        self.failed || !self.begun
    }

    /// Measures a case that is wanted and prints what it measured, or why it did not; the other cases are measured all the
    /// same. As a table: the median of the runs, with the smallest and the largest; as JSON: each run.
    pub(crate) fn case(
        &mut self,
        bench: &str,
        case: &str,
        mut measure: impl FnMut() -> io::Result<Vec<Measured>>,
    ) {
        if !self.wanted.includes(case) {
            return;
        }
        if self.format == Format::Names {
            self.begun = true;
            println!("{bench} {case}");
            return;
        }
        let mut metrics: Vec<(Measured, Vec<f64>)> = Vec::new();
        for _ in 0..self.runs {
            match measure() {
                Ok(measured) => {
                    for one in measured {
                        if self.format == Format::Json {
                            self.print_json(bench, case, &one);
                        }
                        match metrics.iter_mut().find(|(known, _)| known.metric == one.metric) {
                            Some((_, values)) => values.push(one.value),
                            None => metrics.push((one, vec![one.value])),
                        }
                    }
                }
                Err(error) => {
                    self.failed = true;
                    eprintln!("mainstay-bench: {case}: {error}");
                }
            }
        }
        if self.format == Format::Table {
            metrics.into_iter().for_each(|(one, values)| self.print_row(case, &one, values));
        }
    }

    fn print_json(&mut self, bench: &str, case: &str, measured: &Measured) {
        self.begun = true;
        let Measured { metric, value, unit } = measured;
        // The names are this program's own: nothing in them is to be escaped.
        println!(
            "{{\"bench\":\"{bench}\",\"case\":\"{case}\",\"metric\":\"{metric}\",\"value\":{value:.places$},\
             \"unit\":\"{unit}\",\"peer\":null,\"peer_value\":null,\"ratio\":null}}",
            places = places(*value)
        );
    }

    fn print_row(&mut self, case: &str, measured: &Measured, mut values: Vec<f64>) {
        if !std::mem::replace(&mut self.begun, true) {
            let runs = self.runs;
            println!(
                "{:<44} {:<28} {:>14} {:>14} {:>14} unit   (runs: {runs})",
                "case", "metric", "median", "smallest", "largest"
            );
        }
        values.sort_unstable_by(f64::total_cmp);
        let (smallest, largest) = (values[0], values[values.len() - 1]);
        let middle = median(&values);
        let Measured { metric, unit, .. } = measured;
        let [middle, smallest, largest] =
            [middle, smallest, largest].map(|it| format!("{it:.0$}", places(it)));
        println!("{case:<44} {metric:<28} {middle:>14} {smallest:>14} {largest:>14} {unit}");
    }
}

/// Digits behind the point: small figures would say little with one.
fn places(value: f64) -> usize {
    if value.abs() < 10.0 { 2 } else { 1 }
}

/// The middle of sorted values; of an even count the mean of the middle two.
fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// One figure.
#[derive(Clone, Copy)]
pub(crate) struct Measured {
    metric: &'static str,
    value: f64,
    unit: &'static str,
}

impl Measured {
    pub(crate) fn value(&self) -> f64 {
        self.value
    }

    /// So many in that time.
    pub(crate) fn rate(metric: &'static str, count: u64, time: Duration) -> Self {
        Self { metric, value: count as f64 / time.as_secs_f64(), unit: "1/s" }
    }

    /// So many.
    pub(crate) fn count(metric: &'static str, count: u64) -> Self {
        Self { metric, value: count as f64, unit: "1" }
    }

    /// A number that is not whole.
    pub(crate) fn number(metric: &'static str, value: f64) -> Self {
        Self { metric, value, unit: "1" }
    }

    /// How many times the other it is.
    pub(crate) fn ratio(metric: &'static str, one: Duration, other: Duration) -> Self {
        Self { metric, value: one.as_secs_f64() / other.as_secs_f64(), unit: "x" }
    }

    /// A size in MiB.
    pub(crate) fn mebibytes(metric: &'static str, bytes: u64) -> Self {
        Self { metric, value: bytes as f64 / f64::from(1 << 20), unit: "MiB" }
    }

    /// A part of a whole.
    pub(crate) fn percent(metric: &'static str, part: f64) -> Self {
        Self { metric, value: part * 100.0, unit: "%" }
    }

    /// A time in seconds.
    pub(crate) fn seconds(metric: &'static str, time: Duration) -> Self {
        Self { metric, value: time.as_secs_f64(), unit: "s" }
    }

    /// A time in milliseconds.
    pub(crate) fn millis(metric: &'static str, time: Duration) -> Self {
        Self { metric, value: time.as_secs_f64() * 1e3, unit: "ms" }
    }

    /// What one step takes, in nanoseconds, given in seconds.
    pub(crate) fn nanos(metric: &'static str, seconds: f64) -> Self {
        Self { metric, value: seconds * 1e9, unit: "ns" }
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

    #[test]
    fn names_are_prefixes_unless_they_must_be_exact() {
        let wanted = |exact| Wanted { names: vec!["a/b".to_owned()], exact };
        assert!(wanted(false).includes("a/b/c") && !wanted(false).includes("a"));
        assert!(wanted(true).includes("a/b") && !wanted(true).includes("a/b/c"));
        assert!(Wanted::default().includes("a/b"));
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
    }
}
