//! What a node says of itself in numbers, as Prometheus reads them.

use std::fmt::Write as _;

use crate::report::Report;

/// The type of the text.
pub(crate) const TYPE: &str = "text/plain; version=0.0.4";

/// The numbers of a report, in the text format of Prometheus. The reader knows the node by its address.
pub(crate) fn of(report: &Report) -> String {
    let seconds = |micros: u64| micros as f64 / 1e6;
    let numbers = [
        ("reachable", "gauge", "1: it executes commands", f64::from(u8::from(report.reachable))),
        ("view", "gauge", "Number of the last view that it knows", report.view as f64),
        ("members", "gauge", "Members of that view", report.members.len() as f64),
        ("delivered_total", "counter", "Commands executed", report.delivered as f64),
        ("durable_total", "counter", "Commands forced to the own log", report.durable as f64),
        (
            "log_dropped_total",
            "counter",
            "Lines of its log that were lost",
            report.log_dropped as f64,
        ),
        ("alarms", "gauge", "What an operator should know", report.alarms.len() as f64),
        (
            "turn_longest_seconds",
            "gauge",
            "The longest turn of its thread since the start",
            seconds(report.longest_turn_us),
        ),
        (
            "turn_longest_at_work_seconds",
            "gauge",
            "The same without the time in which others had the processor",
            seconds(report.longest_turn_at_work_us),
        ),
        (
            "turns_slow_total",
            "counter",
            "Turns longer than 50 ms, or with a processor for more than 20 ms",
            report.slow_turns as f64,
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in numbers {
        // To write to a string does not fail.
        let _ = writeln!(
            text,
            "# HELP mainstay_{name} {help}.\n# TYPE mainstay_{name} {kind}\nmainstay_{name} {value}"
        );
    }
    let _ = writeln!(
        text,
        "# HELP mainstay_refused_total What was refused from outside.\n# TYPE mainstay_refused_total counter"
    );
    for (reason, count) in &report.refused {
        let _ = writeln!(text, "mainstay_refused_total{{reason=\"{reason}\"}} {count}");
    }
    text
}
