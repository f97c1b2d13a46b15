//! What operators see of a clock.

use mainstay_base::Duration;
use mainstay_base::service::Figure;

use super::words::{ReferenceState, Status};

fn seconds(span: Duration) -> f64 {
    if span == Duration::MAX { f64::INFINITY } else { span.as_secs_f64() }
}

fn nanos(nanos: f64) -> f64 {
    nanos / 1e9
}

/// The status of a clock that is kept by `algorithm`, in numbers.
pub(super) fn of(status: &Status, algorithm: &'static str) -> Vec<Figure> {
    let Status { promise, bounds, .. } = status;
    let (is_synchronised, why) = match status.unsynchronised {
        None => (1.0, ""),
        Some(why) => (0.0, why.name()),
    };
    let mut figures = vec![
        Figure::new("algorithm", 1.0).with(algorithm),
        Figure::new("synchronised", is_synchronised).with(why),
        Figure::new("version", status.version as f64),
        Figure::new("precision_bound_seconds", seconds(promise.precision)),
        Figure::new("algorithm_precision_bound_seconds", seconds(bounds.precision)),
        Figure::new("reading_error_bound_seconds", seconds(bounds.reading)),
        Figure::new("skew_worst_seconds", nanos(status.correction_worst as f64)),
        Figure::new("correction_seconds", nanos(status.correction as f64)),
        Figure::new("corrections_total", status.corrections as f64),
        Figure::new("steps_total", status.steps as f64),
        Figure::new("timers", status.timers as f64),
        Figure::new("writes_total", status.writes as f64),
        Figure::new("reference_reads_total", status.references as f64),
    ];
    // An algorithm that follows nothing has no such bound; a clock that is not synchronised says nothing of its error.
    let accuracy = bounds.accuracy.map(|it| it.saturating_add(promise.lag));
    let accuracy = accuracy.map(|it| Figure::new("accuracy_bound_seconds", seconds(it)));
    let error = status.error.map(|it| Figure::new("time_error_seconds", seconds(it)));
    figures.extend([accuracy, error].into_iter().flatten());
    let mut of_sources = |name, value: fn(&crate::sync::Source) -> (f64, &'static str)| {
        figures.extend(status.sources.iter().map(|(node, source)| {
            let (value, word) = value(source);
            Figure::new(name, value).of(*node).with(word)
        }));
    };
    of_sources("source_used", |it| {
        let is_used = it.verdict == crate::sync::Verdict::Used;
        (f64::from(u8::from(is_used)), it.verdict.name())
    });
    of_sources("source_offset_seconds", |it| (nanos(it.offset as f64), ""));
    of_sources("source_error_seconds", |it| (nanos(it.error as f64), ""));
    of_sources("source_age_seconds", |it| (seconds(it.age), ""));
    of_sources("source_reads_total", |it| (it.reads as f64, ""));
    figures.extend(status.reference.iter().flat_map(of_reference));
    let rejected = status.rejected.by_reason().into_iter().filter(|(_, count)| *count > 0);
    let rejected =
        rejected.map(|(why, count)| Figure::new("rejected_total", count as f64).with(why));
    figures.extend(rejected);
    figures
}

/// Of a reference that is the clock of another node, with that one.
fn of_reference(reference: &ReferenceState) -> [Figure; 4] {
    let is_used = reference.verdict == crate::sync::Verdict::Used;
    let used = Figure::new("reference_used", f64::from(u8::from(is_used)));
    let all = [
        used.with(reference.verdict.name()),
        Figure::new("reference_offset_seconds", nanos(reference.offset as f64)),
        Figure::new("reference_error_seconds", nanos(reference.error as f64)),
        Figure::new("reference_age_seconds", seconds(reference.age)),
    ];
    all.map(|figure| reference.node.map_or(figure, |node| figure.of(node)))
}
