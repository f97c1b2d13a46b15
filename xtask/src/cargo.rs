//! Runs cargo.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use crate::house;

/// Runs cargo in the workspace root; its output goes through.
pub(crate) fn run(arguments: &[&str]) -> Result<(), String> {
    finish(command(arguments), arguments)
}

/// Like [`run`], with one more environment variable.
pub(crate) fn run_with(variable: (&str, &str), arguments: &[&str]) -> Result<(), String> {
    run_in(&[variable], arguments)
}

/// Like [`run`], with more environment variables.
pub(crate) fn run_in(variables: &[(&str, &str)], arguments: &[&str]) -> Result<(), String> {
    let mut command = command(arguments);
    command.envs(variables.iter().copied());
    finish(command, arguments)
}

/// What cargo writes to its standard output.
pub(crate) fn output(arguments: &[&str]) -> Result<String, String> {
    let output = command(arguments)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(failed(arguments));
    }
    String::from_utf8(output.stdout).map_err(|_| "cargo's output is not UTF-8".to_owned())
}

/// What cargo, or the program that it runs, writes to its standard output, and with which status it exits.
pub(crate) fn outcome(arguments: &[&str]) -> Result<(Option<i32>, String), String> {
    let output = command(arguments)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Whether cargo knows the subcommand `name`.
pub(crate) fn has(name: &str) -> bool {
    command(&[name, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The cargo that runs this program.
pub(crate) fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).current_dir(house::root());
    command
}

fn finish(mut command: Command, arguments: &[&str]) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(failed(arguments)) }
}

fn failed(arguments: &[&str]) -> String {
    format!("failed: cargo {}", arguments.join(" "))
}
