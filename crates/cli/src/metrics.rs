//! What a node says of itself in numbers, as Prometheus reads them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::report::{self, OfService, Report};

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
        "# HELP mainstay_alarm 1: an operator should know of it.\n# TYPE mainstay_alarm gauge"
    );
    for (kind, is) in report::kinds(&report.alarms) {
        let _ = writeln!(text, "mainstay_alarm{{kind=\"{kind}\"}} {}", u8::from(is));
    }
    let _ = writeln!(
        text,
        "# HELP mainstay_refused_total What was refused from outside.\n# TYPE mainstay_refused_total counter"
    );
    for (reason, count) in &report.refused {
        let _ = writeln!(text, "mainstay_refused_total{{reason=\"{reason}\"}} {count}");
    }
    of_services(&mut text, &report.services);
    text
}

/// What services say of themselves: `mainstay_KIND_NAME`, the samples of one name together.
fn of_services(text: &mut String, services: &[OfService]) {
    let mut by_name = BTreeMap::<_, Vec<_>>::new();
    for service in services {
        for number in &service.figures {
            let name = format!("mainstay_{}_{}", service.kind.replace('-', "_"), number.name);
            by_name.entry(name).or_default().push((&service.instance, number));
        }
    }
    for (name, numbers) in by_name {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for (instance, number) in numbers {
            let _ = write!(text, "{name}{{instance=\"{instance}\"");
            for (label, value) in [("node", &number.node), ("word", &number.word)] {
                if !value.is_empty() {
                    let value =
                        value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                    let _ = write!(text, ",{label}=\"{value}\"");
                }
            }
            let value = number.value.map_or_else(|| "+Inf".to_owned(), |value| value.to_string());
            let _ = writeln!(text, "}} {value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Number;

    /// Checks that each kind of alarm has a gauge of its own, whether there is such an alarm or not, and there is no sum.
    #[test]
    fn each_kind_of_alarm_has_a_gauge() {
        let alarms = ["minority: it has waited 3 s", "poison #7: the command there panicked"];
        let alarms = alarms.map(str::to_owned).to_vec();
        let text = of(&Report { alarms, ..Report::default() });
        let is = |kind: &str| {
            let prefix = format!("mainstay_alarm{{kind=\"{kind}\"}} ");
            let values: Vec<_> = text.lines().filter_map(|it| it.strip_prefix(&prefix)).collect();
            assert_eq!(values.len(), 1, "{kind} in {text}");
            values[0] == "1"
        };
        assert!(is("minority") && is("poison"));
        assert!(!is("disk") && !is("blocked") && !is("maybe-lost"));
        assert_eq!(text.matches("# TYPE mainstay_alarm gauge").count(), 1);
        assert!(!text.contains("mainstay_alarms"));
    }

    #[test]
    fn services_have_samples_of_one_name_together() {
        let number = |name: &str, node: &str, word: &str, value| Number {
            name: name.into(),
            node: node.into(),
            word: word.into(),
            value,
        };
        let service = |instance: &str| OfService {
            kind: "clock".into(),
            instance: instance.into(),
            figures: vec![
                number("source_used", "n\"2", "far", Some(0.0)),
                number("bound_seconds", "", "", None),
            ],
        };
        let services = vec![service("a"), service("b")];
        let text = of(&Report { services, ..Report::default() });
        let expected = "# TYPE mainstay_clock_bound_seconds gauge\n\
            mainstay_clock_bound_seconds{instance=\"a\"} +Inf\n\
            mainstay_clock_bound_seconds{instance=\"b\"} +Inf\n\
            # TYPE mainstay_clock_source_used gauge\n\
            mainstay_clock_source_used{instance=\"a\",node=\"n\\\"2\",word=\"far\"} 0\n\
            mainstay_clock_source_used{instance=\"b\",node=\"n\\\"2\",word=\"far\"} 0\n";
        assert!(text.ends_with(expected), "{text}");
    }
}
