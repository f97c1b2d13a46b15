//! The benchmarks of the workspace, on three processes of this machine.
//!
//! `cargo run --release -p mainstay-bench -- multicast | directory | failover | bigstate | stable | clock | rpc | idle | soak [CASE..]
//! [--exact] [--runs N] [--output json]`; `list` prints the cases.

mod bigstate;
mod client;
mod clock;
mod cluster;
mod directory;
mod failover;
mod idle;
mod multicast;
mod node;
mod output;
mod process;
mod rpc;
mod services;
mod stable;
mod usage;

use std::process::ExitCode;

use clap::Parser as _;

use output::{Format, Report, Wanted};

// As in the program, whose nodes are measured.
#[cfg(not(feature = "jemalloc"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(clap::Parser)]
#[command(about = "The benchmarks of the workspace, on three processes of this machine.")]
struct Arguments {
    /// How results are printed.
    #[arg(long, value_enum, default_value = "table", global = true)]
    output: Format,
    /// How often each case is measured.
    #[arg(long, default_value = "1", global = true, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Measure the cases with just the names given, and not those that begin so.
    #[arg(long, global = true)]
    exact: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Messages a second, and the time that one takes.
    Multicast(Cases),
    /// Commands of the replicated directory a second, and the time that one takes.
    Directory(Placed),
    /// How long clients of the directory wait when a node fails.
    Failover(Placed),
    /// How nodes bear a large state.
    Bigstate(Bigstate),
    /// Forced writes to the log a second, and the time that one takes.
    Stable(Placed),
    /// Stamps of logical time, and messages attached to a context graph.
    Clock(Cases),
    /// Calls and streams of a service alone, beside bare TCP.
    Services(Cases),
    /// Remote calls between two processes, and to the own one.
    Rpc(Placed),
    /// What nodes cost that have nothing to do.
    Idle(Placed),
    /// Whether nodes grow that are under full load for long.
    Soak(idle::Soak),
    /// The bench and the name of each case, one a line; the soak is none of them.
    List,
    /// A process that `multicast` starts.
    #[command(hide = true)]
    Member(multicast::member::Options),
    /// A process that `rpc` starts.
    #[command(hide = true)]
    RpcServer(rpc::Options),
    /// A process that `directory`, `failover` and others start.
    #[command(hide = true)]
    Node(node::Options),
}

#[derive(clap::Args)]
struct Cases {
    /// Those whose names begin so; none: all.
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
}

#[derive(clap::Args)]
struct Placed {
    #[command(flatten)]
    place: node::Place,
    #[command(flatten)]
    wanted: Cases,
}

#[derive(clap::Args)]
struct Bigstate {
    #[command(flatten)]
    placed: Placed,
    #[command(flatten)]
    size: bigstate::Size,
}

fn main() -> ExitCode {
    let Arguments { output, runs, exact, command } = Arguments::parse();
    let names = match &command {
        Command::Multicast(wanted) | Command::Services(wanted) | Command::Clock(wanted) => {
            wanted.cases.clone()
        }
        Command::Bigstate(it) => it.placed.wanted.cases.clone(),
        Command::Directory(it)
        | Command::Failover(it)
        | Command::Stable(it)
        | Command::Rpc(it)
        | Command::Idle(it) => it.wanted.cases.clone(),
        _ => Vec::new(),
    };
    let format = if matches!(command, Command::List) { Format::Names } else { output };
    let mut report = Report::new(format, runs.into(), Wanted { names, exact });
    let done = match command {
        Command::Multicast(_) => multicast::run(&mut report),
        Command::Directory(it) => directory::run(&it.place, &mut report),
        Command::Failover(it) => failover::run(&it.place, &mut report),
        Command::Bigstate(it) => bigstate::run(&it.placed.place, &it.size, &mut report),
        Command::Stable(it) => stable::run(&it.place, &mut report),
        Command::Idle(it) => idle::run(&it.place, &mut report),
        Command::Rpc(it) => rpc::run(&it.place, &mut report),
        Command::Services(_) => {
            services::run(&mut report);
            Ok(())
        }
        Command::Clock(_) => {
            clock::run(&mut report);
            Ok(())
        }
        Command::Soak(options) => idle::soak(&options, &mut report),
        Command::List => list(&mut report),
        Command::RpcServer(options) => return ended(rpc::serve(options)),
        Command::Node(options) => return ended(node::run(options)),
        Command::Member(options) => return ended(multicast::member::run(options)),
    };
    if report.failed() { ExitCode::FAILURE } else { ended(done) }
}

/// Goes through all cases; the report measures none of them.
fn list(report: &mut Report) -> std::io::Result<()> {
    let place = node::Place::default();
    multicast::run(report)?;
    directory::run(&place, report)?;
    failover::run(&place, report)?;
    bigstate::run(&place, &bigstate::Size::default(), report)?;
    stable::run(&place, report)?;
    services::run(report);
    rpc::run(&place, report)?;
    clock::run(report);
    idle::run(&place, report)
}

fn ended(done: std::io::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mainstay-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
