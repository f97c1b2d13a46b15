//! What the programs that measure peer systems share: the contract of such a program, child processes, load, figures.
//!
//! A program is called `peer-NAME [CASE-PREFIX..] [--exact] [--list] [--seconds N] [--dir DIR]`. It measures its cases
//! whose names begin with one of the prefixes, or are one of them if `--exact` is given (all without any), and prints a
//! JSON object a line in the form of the main benchmarks, the figure in `peer_value`, with the name of the peer and the
//! guarantee behind an acknowledgement. Exit status 1: a case came to no result, which stderr explains; 3: something to
//! measure with is not installed, which one line on stderr names.
//!
//! ```no_run
//! use peers_common::{Case, Measured, Program, find};
//!
//! fn main() -> std::process::ExitCode {
//!     let case = Case::new("echo", "echo/64B", "sleepy", "one server, no TLS", |run| {
//!         std::thread::sleep(run.window);
//!         Ok(vec![Measured::rate("ops_per_s", 1, run.window)])
//!     });
//!     let check = || find("sleep", "coreutils").map(drop);
//!     Program { name: "peer-sleepy", check, cases: vec![case] }.main()
//! }
//! ```

mod bigstate;
mod figures;
mod load;
mod port;
mod process;
mod program;
mod rpc;
mod wait;

pub use bigstate::{BIG_CASES, BIG_LIMIT, Big, probe_checkpoint, until_served};
pub use figures::{Measured, gap, latencies, percentile};
pub use load::{Samples, closed_loop, failover, watch};
pub use port::loopback_ports;
pub use process::{
    Missing, Process, Signal, Talker, command, command_as, find, find_in, is_root, run_to_end,
};
pub use program::{Case, Program, Run, runtime};
pub use rpc::{Echo, echo_main, try_echo};
pub use wait::{PATIENCE, eventually, wait_for};
