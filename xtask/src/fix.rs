//! What tools can mend by themselves.

use crate::cargo;

/// Formats, then applies clippy's suggestions.
///
/// # Errors
/// The first command that fails.
pub(crate) fn run() -> Result<(), String> {
    cargo::run(&["fmt", "--all"])?;
    cargo::run(&[
        "clippy",
        "--fix",
        "--allow-dirty",
        "--allow-staged",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--locked",
    ])?;
    cargo::run(&["fmt", "--all"])
}
