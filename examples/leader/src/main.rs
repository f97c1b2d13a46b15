//! `cargo run --release -p mainstay-leader`; see `README.md`.

use std::process::ExitCode;

use mainstay_harness::main as harness;
use mainstay_leader::{Leader, child};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        // A process of the pool, started by this program itself.
        Some((first, rest)) if first == "child" => child(rest),
        _ => harness::<Leader>(),
    }
}
