//! `mainstay status`: how the nodes of a cluster are.

use std::path::PathBuf;

use crate::cluster::Cluster;
use crate::failure::Failure;

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
                    Err(error) => serde_json::json!({
                        "node": node.node, "reachable": false, "error": error.to_string(),
                    }),
                })
                .collect();
            println!("{}", serde_json::to_string_pretty(&values).map_err(Failure::halted)?);
        }
        Output::Text => {
            println!("{:<6} {:<6} {:>5} {:>9}  members", "node", "serves", "view", "delivered");
            for (node, report) in answers {
                match report {
                    Err(error) => println!("{:<6} {:<6} {error}", node.node, "no"),
                    Ok(report) => {
                        let serves = if report.reachable { "yes" } else { "no" };
                        let members = report.members.join(" ");
                        let (view, delivered) = (report.view, report.delivered);
                        println!(
                            "{:<6} {serves:<6} {view:>5} {delivered:>9}  {members}",
                            node.node
                        );
                        report.alarms.iter().for_each(|alarm| println!("       alarm: {alarm}"));
                    }
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
