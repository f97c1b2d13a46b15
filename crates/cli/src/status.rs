//! `mainstay status`: how the nodes of a cluster are.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::out::say;
use crate::report::{Number, OfService, Report, silence};

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The cluster's directory.
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Prints what the nodes say. Fails unless one of them executes commands.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let cluster = Cluster::read(&options.dir)?;
    let reports = cluster.reports();
    let answers = cluster.nodes.iter().zip(&reports);
    match options.output {
        Output::Json => {
            let values: Vec<_> = answers
                .map(|(node, report)| match report {
                    Ok(report) => serde_json::json!(report),
                    Err(error) => unknown(&node.node, error),
                })
                .collect();
            say!("{}", serde_json::to_string_pretty(&values).map_err(Failure::halted)?);
        }
        Output::Text => {
            say!("{}", line(["node", "serves", "inc", "view", "delivered", "durable", "state"]));
            for (node, report) in answers {
                match report {
                    Err(error) => say!("{:<8}{:<8}{}", node.node, "no", silence(error)),
                    Ok(report) => print(report),
                }
            }
        }
    }
    if reports.iter().flatten().any(|report| report.reachable) {
        Ok(())
    } else {
        Err(Failure::unreachable(format!("{}: no node serves", options.dir.display())))
    }
}

/// A node that does not answer: the same keys, and why.
fn unknown(name: &str, error: &io::Error) -> serde_json::Value {
    serde_json::json!({
        "node": name, "reachable": false, "incarnation": null, "view": null, "roster": [],
        "members": [], "manager": null, "sequencers": {}, "delivered": null, "durable": null,
        "state_hash": null, "told_view": null, "alarms": [], "refused": {}, "log_dropped": null, "suspected": [],
        "longest_turn_us": null, "longest_turn_at_work_us": null, "slow_turns": null,
        "services": [],
        "error": silence(error),
    })
}

/// Suspicions in the table.
const SUSPECTED_SHOWN: usize = 3;

fn line(words: [&str; 7]) -> String {
    let [node, serves, incarnation, view, delivered, durable, state] = words;
    format!("{node:<8}{serves:<8}{incarnation:>4}{view:>7}{delivered:>11}{durable:>11}  {state}")
}

fn print(report: &Report) {
    let incarnation = report.incarnation.map_or_else(|| "-".to_owned(), |it| it.to_string());
    let hash = report.state_hash.as_deref().unwrap_or("-");
    say!(
        "{}",
        line([
            &report.node,
            if report.reachable { "yes" } else { "no" },
            &incarnation,
            &report.view.to_string(),
            &report.delivered.to_string(),
            &report.durable.to_string(),
            // Enough to see whether two are equal.
            &hash[..hash.len().min(8)],
        ])
    );
    let roles = |name: &String| {
        let manages = report.manager.as_ref() == Some(name);
        let orders = report.sequencers.values().any(|sequencer| sequencer == name);
        match (manages, orders) {
            (true, true) => format!("{name} (manager, sequencer)"),
            (true, false) => format!("{name} (manager)"),
            (false, true) => format!("{name} (sequencer)"),
            (false, false) => name.clone(),
        }
    };
    let members: Vec<_> = report.members.iter().map(roles).collect();
    say!("        members {} of {}", members.join(" "), report.roster.join(" "));
    if !report.refused.is_empty() {
        let refused: Vec<_> =
            report.refused.iter().map(|(name, count)| format!("{name} {count}")).collect();
        say!("        refused: {}", refused.join(", "));
    }
    if report.log_dropped > 0 {
        say!("        log: {} lines could not be written", report.log_dropped);
    }
    let suspected = report.suspected.iter().rev().take(SUSPECTED_SHOWN).map(|it| {
        format!(
            "{} {} {:.1} s ago",
            it.node,
            it.why,
            Duration::from_millis(it.ago_ms).as_secs_f64()
        )
    });
    let suspected: Vec<_> = suspected.collect();
    if !suspected.is_empty() {
        say!("        suspected: {}", suspected.join(", "));
    }
    report.services.iter().for_each(|service| services(service).iter().for_each(|it| say!("{it}")));
    report.alarms.iter().for_each(|alarm| say!("        alarm: {alarm}"));
}

/// The lines of a service: its own numbers, and a line for each other node that it speaks of.
fn services(service: &OfService) -> Vec<String> {
    let of = |node: &str| {
        let shown = |it: &Number| {
            let value =
                it.value.map_or_else(|| "unbounded".to_owned(), |value| shown(&it.name, value));
            match &*it.word {
                "" => format!("{} {value}", plain(&it.name)),
                word => format!("{} {value} ({word})", plain(&it.name)),
            }
        };
        let numbers = service.figures.iter().filter(|it| it.node == node);
        numbers.map(shown).collect::<Vec<_>>().join(", ")
    };
    let mut lines = vec![format!("        {}: {}", service.kind, of(""))];
    let nodes: BTreeSet<_> = service.figures.iter().map(|it| &it.node).collect();
    let nodes = nodes.into_iter().filter(|node| !node.is_empty());
    lines.extend(nodes.map(|node| format!("          {node}: {}", of(node))));
    lines
}

/// A name for people: without the unit, which is shown with the number.
fn plain(name: &str) -> String {
    let name =
        name.strip_suffix("_seconds").or_else(|| name.strip_suffix("_total")).unwrap_or(name);
    name.replace('_', " ")
}

/// A number with its unit.
fn shown(name: &str, value: f64) -> String {
    let size = value.abs();
    match name.ends_with("_seconds") {
        true if size >= 1.0 => format!("{value:.3} s"),
        true if size >= 1e-3 => format!("{:.3} ms", value * 1e3),
        true => format!("{:.1} us", value * 1e6),
        false => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_shown_with_their_units_and_nodes() {
        let number = |name: &str, node: &str, word: &str, value| Number {
            name: name.into(),
            node: node.into(),
            word: word.into(),
            value,
        };
        let figures = vec![
            number("synchronised", "", "silence", Some(0.0)),
            number("precision_bound_seconds", "", "", Some(0.0021)),
            number("error_bound_seconds", "", "", None),
            number("steps_total", "", "", Some(3.0)),
            number("source_used", "n2", "far", Some(0.0)),
            number("source_offset_seconds", "n2", "", Some(-2.5)),
            number("source_used", "n3", "used", Some(1.0)),
            number("source_offset_seconds", "n3", "", Some(12.34e-6)),
        ];
        let service = OfService { kind: "clock".into(), instance: "0".into(), figures };
        let expected = [
            "        clock: synchronised 0 (silence), precision bound 2.100 ms, error bound unbounded, steps 3",
            "          n2: source used 0 (far), source offset -2.500 s",
            "          n3: source used 1 (used), source offset 12.3 us",
        ];
        assert_eq!(services(&service), expected);
    }
}
