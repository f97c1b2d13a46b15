//! The table: a row for each metric of each system beside ours.

use crate::compare::side::{Comparison, Series, Side};

const HEAD: &str = "\
| case | metric | ours (smallest-largest) | peer | peer's (smallest-largest) | ratio | behind ours | behind the peer's |
|---|---|---|---|---|---|---|---|
";
const NOTHING: &str = "-";

/// All rows in Markdown.
pub(crate) fn table(compared: &[Comparison]) -> String {
    HEAD.to_owned() + &compared.iter().map(rows).collect::<String>()
}

fn rows(it: &Comparison) -> String {
    let Comparison { case, ours, peer } = it;
    let sides = ours.iter().chain([peer]);
    let mut metrics: Vec<&str> = Vec::new();
    for series in sides.flat_map(|side| &side.series) {
        if !metrics.contains(&series.metric.as_str()) {
            metrics.push(&series.metric);
        }
    }
    // If both have failed, this is what is told.
    if metrics.is_empty() {
        metrics.push(NOTHING);
    }
    let row = |metric: &str| {
        let own = ours.as_ref().map_or_else(|| NOTHING.to_owned(), |ours| cell(ours, metric));
        let ratio = ours.as_ref().and_then(|ours| ratio(ours.of(metric)?, peer.of(metric)?));
        let ratio = ratio.map_or_else(|| NOTHING.to_owned(), |ratio| format!("{ratio:.2}"));
        let behind = ours.as_ref().map_or(NOTHING, |ours| said(&ours.guarantee));
        let cells = [
            format!("`{case}`"),
            metric.to_owned(),
            own,
            peer.name.clone(),
            cell(peer, metric),
            ratio,
            behind.to_owned(),
            said(&peer.guarantee).to_owned(),
        ];
        format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
    };
    metrics.into_iter().map(row).collect()
}

fn said(text: &str) -> &str {
    if text.is_empty() { NOTHING } else { text }
}

/// How many times better ours is; nothing if the metric is neither a rate nor a time, or one of them is zero.
fn ratio(ours: &Series, peer: &Series) -> Option<f64> {
    let (mine, _, _) = ours.median()?;
    let (theirs, _, _) = peer.median()?;
    let is_comparable = ours.unit == peer.unit && mine > 0.0 && theirs > 0.0;
    match ours.unit.as_str() {
        "1/s" if is_comparable => Some(mine / theirs),
        "ns" | "us" | "ms" | "s" if is_comparable => Some(theirs / mine),
        _ => None,
    }
}

/// The median with the smallest and the largest, and how many runs failed.
fn cell(side: &Side, metric: &str) -> String {
    let figures = side.of(metric).and_then(Series::median);
    let figures = figures.map(|(median, smallest, largest)| {
        format!("{} ({}-{})", number(median), number(smallest), number(largest))
    });
    let failed = side
        .failures
        .first()
        .map(|why| format!("{} of {} runs failed: {why}", side.failures.len(), side.runs));
    match (figures, failed) {
        (Some(figures), Some(failed)) => format!("{figures}; {failed}"),
        (Some(told), None) | (None, Some(told)) => told,
        (None, None) => NOTHING.to_owned(),
    }
}

/// Thousands with commas; below them one decimal.
fn number(value: f64) -> String {
    if value.abs() < 999.95 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, series: &[(&str, &str, &[f64])]) -> Side {
        let mut side = Side::new(name, "forced");
        for (metric, unit, values) in series {
            let (metric, unit) = ((*metric).to_owned(), (*unit).to_owned());
            side.series.push(Series { metric, unit, values: values.to_vec() });
            side.runs = values.len();
        }
        side
    }

    fn compared(ours: Option<Side>, peer: Side) -> Comparison {
        Comparison { case: "stable/a".to_owned(), ours, peer }
    }

    /// Checks that above one is better for us, of rates and of times, and that other metrics have no ratio.
    #[test]
    fn a_ratio_above_one_is_better_for_us() {
        let of = |unit, mine: f64, theirs: f64| {
            let ours = side("ours", &[("m", unit, &[mine])]);
            let peer = side("x", &[("m", unit, &[theirs])]);
            ratio(&ours.series[0], &peer.series[0])
        };
        assert_eq!(of("1/s", 30.0, 10.0), Some(3.0));
        assert_eq!(of("us", 30.0, 10.0), Some(1.0 / 3.0));
        assert_eq!(of("ms", 10.0, 30.0), Some(3.0));
        assert_eq!(of("MiB", 10.0, 30.0), None);
        assert_eq!(of("us", 10.0, 0.0), None);
        assert_eq!(of("1/s", 0.0, 10.0), None);
    }

    /// Checks that units must agree.
    #[test]
    fn different_units_have_no_ratio() {
        let (us, ms) = (side("a", &[("m", "us", &[1.0])]), side("b", &[("m", "ms", &[1.0])]));
        assert_eq!(ratio(&us.series[0], &ms.series[0]), None);
    }

    /// Checks a whole table: a row a metric, and nothing made up where a side lacks one.
    #[test]
    fn a_table_has_a_row_for_each_metric() {
        let rate: &[f64] = &[12_345.6, 10_000.0, 20_000.0];
        let ours = side("ours", &[("commits_per_s", "1/s", rate), ("p50_us", "us", &[50.0])]);
        let peer = side("redb", &[("commits_per_s", "1/s", &[5_000.0]), ("p99_us", "us", &[7.25])]);
        let printed = table(&[compared(Some(ours), peer)]);
        let rows: Vec<_> = printed.lines().skip(2).collect();
        let expected = [
            "| `stable/a` | commits_per_s | 12,346 (10,000-20,000) | redb | 5,000 (5,000-5,000) | 2.47 | forced | forced |",
            "| `stable/a` | p50_us | 50.0 (50.0-50.0) | redb | - | - | forced | forced |",
            "| `stable/a` | p99_us | - | redb | 7.2 (7.2-7.2) | - | forced | forced |",
        ];
        assert_eq!(rows, expected);
    }

    /// Checks that a case without ours has no ratio.
    #[test]
    fn a_peer_alone_has_no_ratio() {
        let printed = table(&[compared(None, side("tonic", &[("p50_us", "us", &[90.0])]))]);
        let row = "| `stable/a` | p50_us | - | tonic | 90.0 (90.0-90.0) | - | - | forced |";
        assert_eq!(printed.lines().last(), Some(row));
    }

    /// Checks that a failure is told with its reason, beside the figures of the runs that did not fail.
    #[test]
    fn failures_are_told() {
        let mut peer = side("etcd", &[("p50_us", "us", &[1.0, 3.0])]);
        peer.runs = 3;
        peer.failures.push("no leader | lost".to_owned());
        let printed = table(&[compared(None, peer.clone())]);
        assert!(
            printed.contains("2.0 (1.0-3.0); 1 of 3 runs failed: no leader \\| lost"),
            "{printed}"
        );
        peer.series.clear();
        let printed = table(&[compared(None, peer)]);
        assert!(printed.contains("| - | - | etcd | 1 of 3 runs failed: no leader"), "{printed}");
    }

    /// Checks where commas are set.
    #[test]
    fn thousands_have_commas() {
        let numbers = [0.04, 61.54, 999.94, 999.96, 12_345.6, 2_224_838.0].map(number);
        assert_eq!(numbers, ["0.0", "61.5", "999.9", "1,000", "12,346", "2,224,838"]);
    }
}
