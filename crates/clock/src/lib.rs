//! Clocks.
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod fault;
pub mod sync;
mod time;
pub use time::Time;
