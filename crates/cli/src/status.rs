//! `mainstay status`: how the nodes of a cluster are.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::out::say;
use crate::report::{Report, silence};

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
    report.alarms.iter().for_each(|alarm| say!("        alarm: {alarm}"));
}
