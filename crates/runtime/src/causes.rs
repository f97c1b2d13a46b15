//! What an error says, with what its causes say.

use std::error::Error;

/// What it says, and what its causes say: the last of them is what the operating system said. For errors whose own words
/// leave their causes to [`Error::source`].
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
