//! The mainstay program.

mod demo;
mod peer;
mod proxy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Fault-tolerant services, made to be put together.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Two processes exchange numbered messages while connections are cut and one is killed and restarted.
    Demo(demo::Options),
    /// One process of the demo; started by it.
    #[command(hide = true)]
    Peer(peer::Options),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Peer(options) => peer::run(&options),
    }
}
