//! Whether tasks can be spawned that stay on their thread.

use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;

/// There is no `LocalSet` of a tokio runtime here, or there is one without a runtime. Nothing changed.
#[derive(Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("outside a LocalSet of a tokio runtime; an actix System is one")]
pub struct NoLocalSet;

/// Whether tasks can be spawned here that stay on this thread.
///
/// tokio has no way to ask: whoever spawns where there is none panics. That is caught, after the hook for panics has had it; a program that is built
/// with `panic = "abort"` ends.
///
/// # Errors
/// [`NoLocalSet`].
pub fn local_set() -> Result<(), NoLocalSet> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(NoLocalSet);
    }
    let probe = || drop(tokio::task::spawn_local(async {}));
    catch_unwind(AssertUnwindSafe(probe)).map_err(|_| NoLocalSet)
}
