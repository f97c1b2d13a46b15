//! The mainstay program.
#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic where nobody can read; see `out`"
)]

mod admin;
mod check;
mod client;
mod clock;
mod cluster;
mod config;
mod demo;
mod failure;
mod limits;
mod link;
mod log;
mod metrics;
mod node;
mod operator;
mod out;
mod process;
mod report;
mod status;
mod trace;
mod up;
mod watch;

use std::process::ExitCode;

// A node frees large states beside its thread. With the allocator of glibc that makes turns wait.
#[cfg(not(feature = "jemalloc"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

use clap::{Parser, Subcommand};

/// Fault-tolerant services, made to be put together.
///
/// Ends with 0 if all is well, 1 if a verdict is FAIL, 2 if the usage or a configuration is wrong, 3 if a node or a
/// quorum cannot be reached, 4 if data is damaged, 5 if the system refuses what a node needs, 70 if a node halted.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes or continues a cluster of processes on this machine, in the foreground.
    Up(up::Options),
    /// One node, in the foreground.
    Node(node::Options),
    /// How the nodes of a cluster are.
    Status(status::Options),
    /// Judges what nodes recorded of a run, by every property.
    Check(check::Options),
    /// Makes a node that has never run a founder of its cluster; what `up` makes needs no such word.
    Bootstrap(operator::BootstrapOptions),
    /// Has a command passed over whose execution panics at every node.
    Skip(operator::SkipOptions),
    /// Lets a group go on that waits for lost nodes; acknowledged writes may be lost.
    AcceptLoss(operator::AcceptLossOptions),
    /// Makes the secret key with which a node signs for its clock, if there is none, and prints the public one.
    ClockKey(clock::key::Options),
    /// Processes under load are killed and restarted, and what they acknowledged is checked.
    Demo(demo::Options),
    /// One process of the demo of the link; started by it.
    #[command(hide = true)]
    Peer(link::peer::Options),
    /// One process of the demo of clocks; started by it.
    #[command(hide = true)]
    ClockNode(clock::node::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Up(options) => up::run(&options),
        Command::Node(options) => node::run(&options),
        Command::Status(options) => status::run(&options),
        Command::Check(options) => match check::run(&options) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(failure) => Err(failure),
        },
        Command::Bootstrap(options) => operator::bootstrap(&options),
        Command::Skip(options) => operator::skip(&options),
        Command::AcceptLoss(options) => operator::accept_loss(&options),
        Command::Demo(options) => return demo::run(&options),
        Command::ClockKey(options) => clock::key::run(&options),
        Command::ClockNode(options) => return clock::node::run(&options),
        Command::Peer(options) => return link::peer::run(&options),
    };
    done.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}
