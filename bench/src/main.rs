//! The benchmarks of the workspace, on three processes of this machine.
//!
//! `cargo run --release -p mainstay-bench -- multicast | directory | failover [--output json]`

mod client;
mod cluster;
mod directory;
mod failover;
mod multicast;
mod node;
mod output;
mod process;

use std::process::ExitCode;

use clap::Parser as _;

use output::{Format, Report};

#[derive(clap::Parser)]
#[command(about = "The benchmarks of the workspace, on three processes of this machine.")]
struct Arguments {
    /// How results are printed.
    #[arg(long, value_enum, default_value = "table", global = true)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Messages a second, and the time that one takes.
    Multicast,
    /// Commands of the replicated directory a second, and the time that one takes.
    Directory(node::Place),
    /// How long clients of the directory wait when a node fails.
    Failover(node::Place),
    /// A process that `multicast` starts.
    #[command(hide = true)]
    Member(multicast::member::Options),
    /// A process that `directory` and `failover` start.
    #[command(hide = true)]
    Node(node::Options),
}

fn main() -> ExitCode {
    let Arguments { output, command } = Arguments::parse();
    let mut report = Report::new(output);
    let done = match command {
        Command::Multicast => multicast::run(&mut report),
        Command::Directory(place) => directory::run(&place, &mut report),
        Command::Failover(place) => failover::run(&place, &mut report),
        Command::Node(options) => node::run(options),
        Command::Member(options) => multicast::member::run(options),
    };
    match done {
        Ok(()) if report.failed() => ExitCode::FAILURE,
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mainstay-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
