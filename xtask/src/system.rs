//! What needs root or Debian packages.

/// Nothing does yet, and this says so.
///
/// # Errors
/// None as yet.
pub(crate) fn run() -> Result<(), String> {
    println!("system: no step needs root or a system package yet; nothing was run");
    Ok(())
}
