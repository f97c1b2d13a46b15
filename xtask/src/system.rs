//! What needs root, Debian packages or other programs: clients of Redis as they are, a full disk, a wall clock that
//! jumps, an interface that goes away. A step that cannot run here says why; one that can and does not pass fails.

mod clock;
mod cluster;
mod disk;
mod faketime;
mod network;
mod redis;
mod tools;

use crate::cargo;
use crate::steps::{Verdict, step};

/// Runs every step, in about a minute.
///
/// # Errors
/// The first step that fails.
pub(crate) fn run() -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        println!("system: these steps need Linux; nothing was run");
        return Ok(());
    }
    step("packages", tools::install)?;
    step("the program", || {
        cargo::run(&["build", "--quiet", "--release", "--locked", "--package", "mainstay-cli"])
            .map(|()| Verdict::Passed)
    })?;
    step("redis-cli: each command, unmodified", redis::commands)?;
    step("redis-benchmark: unmodified, alone and in pipelines", redis::benchmark)?;
    step("a web page, and clients that read nothing", redis::abuse)?;
    step("a disk that fills up", disk::fills_up)?;
    step("all disks fill up together", disk::all_fill_up)?;
    step("a wall clock that jumps by hours under load", clock::jumps)?;
    step("clocks kept together, one of which jumps or races", faketime::keep_promises)?;
    step("an interface that goes down and comes back", network::goes_away)?;
    println!("system: all steps passed or were skipped as said above");
    Ok(())
}
