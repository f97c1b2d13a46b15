//! Work that a turn leaves to another thread.

/// Drops `value` on a thread of its own: to free a large state can take longer than a member may be silent.
///
/// If the operating system gives no thread, it is dropped here and now.
pub fn drop_beside<T: Send + 'static>(value: T) {
    let dropping = std::thread::Builder::new().name("mainstay-drop".to_owned());
    if let Err(error) = dropping.spawn(move || drop(value)) {
        tracing::warn!(%error, "no thread to drop a state on");
    }
}

/// Does it; what a panic said, if it did.
///
/// # Errors
/// The text of the panic.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    done.map_err(|payload| crate::host::reason(&*payload).to_string())
}
