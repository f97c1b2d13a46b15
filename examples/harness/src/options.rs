//! The command line, the same for all examples.

use std::path::PathBuf;

use clap::Parser;

/// What to run.
#[derive(Parser, Clone, PartialEq, Eq, Debug)]
#[command(about = "Runs an example system under faults and judges its log.", version)]
pub struct Options {
    /// The seed of the schedule, and of all else that is drawn; a campaign begins with it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// The script of faults, instead of those that are drawn.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["no_faults", "outside"])]
    pub faults: Option<PathBuf>,
    /// Without faults; the results are compared with those of a sequential model.
    #[arg(long, conflicts_with = "outside")]
    pub no_faults: bool,
    /// A script outside the failure model, by its name; what it leads to is written in the README.
    #[arg(long, value_name = "NAME")]
    pub outside: Option<String>,
    /// So many seeds in a row.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub campaign: Option<u64>,
    /// Processes of the operating system, loopback and signals, instead of virtual time. Not the same run twice.
    #[arg(long, conflicts_with_all = ["campaign", "outside"])]
    pub real: bool,
    /// Where the log goes: of the first run that failed, else of the last one. Default: mainstay-NAME.log among temporary files.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Where a picture of the same run goes, as SVG: a lane a node, with its events and faults. Default: nowhere.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// With a fault that is planted on purpose.
    #[arg(long, value_name = "NAME", hide = true)]
    pub broken: Option<String>,
    /// Lists the criteria, and the planted faults with the arguments that show them.
    #[arg(long, hide = true)]
    pub list_broken: bool,
}
