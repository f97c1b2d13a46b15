//! The gate of the workspace: `cargo xtask verify`, `cargo xtask fix`, `cargo xtask system`; `cargo xtask examples`; `cargo xtask
//! soak`; and `cargo xtask compare`.
//!
//! It needs nothing but cargo, and it has no dependency: what judges the workspace must build when little else does.

mod cargo;
mod code;
mod compare;
mod edges;
mod examples;
mod fix;
mod floors;
mod house;
mod packages;
mod purity;
mod soak;
mod steps;
mod system;
mod verify;
mod words;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  verify   the gate; reads only, stops at the first step that fails
  fix      formats, and applies what clippy can mend by itself; writes
  system   what needs root or Debian packages
  examples NAME [--broken]
           runs an example system; with --broken once for each fault that can be planted in it
  soak     the campaigns of the tests, longer; see soak --help
  compare  our benchmarks beside those of other systems; see compare --help";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["verify"] => verify::run(),
        ["fix"] => fix::run(),
        ["system"] => system::run(),
        ["examples", name] => examples::run(name),
        ["examples", name, "--broken"] => examples::broken(name),
        ["soak", "-h" | "--help"] => {
            println!("{}", soak::USAGE);
            return ExitCode::SUCCESS;
        }
        ["soak", words @ ..] => soak::run(words),
        ["compare", "-h" | "--help"] => {
            println!("{}", compare::USAGE);
            return ExitCode::SUCCESS;
        }
        ["compare", words @ ..] => return compare::run(words),
        ["help" | "-h" | "--help"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
