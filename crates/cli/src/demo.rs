//! `mainstay demo`: what the program promises, shown with real processes and real faults.

mod check;
mod directory;
mod load;
mod script;
mod table;
mod trace;

use std::process::ExitCode;

use clap::Subcommand;

use crate::{clock, link};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[group(skip)]
pub(crate) struct Options {
    #[command(subcommand)]
    which: Option<Which>,
    #[command(flatten)]
    directory: directory::Options,
}

#[derive(Subcommand)]
enum Which {
    /// A replicated directory under load; its nodes are killed and restarted. The default.
    Directory(directory::Options),
    /// Two processes exchange numbered messages while connections are cut and one is killed and restarted.
    Link(link::demo::Options),
    /// Five processes keep their clocks together, by one algorithm after the other, though one clock is faulty.
    Clock(clock::demo::Options),
}

pub(crate) fn run(options: &Options) -> ExitCode {
    match &options.which {
        Some(Which::Clock(options)) => clock::demo::run(options),
        Some(Which::Link(options)) => link::demo::run(options),
        Some(Which::Directory(options)) => directory::run(options),
        None => directory::run(&options.directory),
    }
}
