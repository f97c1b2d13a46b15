//! What the tests share.
#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod rules;
pub(crate) mod talk;
pub(crate) mod trace;

#[cfg(feature = "test-util")]
pub(crate) use mainstay_clock::fault::Fault;

/// Nothing is broken where the crate is built as it is shipped.
#[cfg(not(feature = "test-util"))]
#[derive(Clone, Copy)]
pub(crate) enum Fault {}

/// Plants a fault.
macro_rules! broken {
    ($whole:expr, $fault:expr) => {{
        let whole = $whole;
        #[cfg(feature = "test-util")]
        let whole = whole.broken($fault);
        #[cfg(not(feature = "test-util"))]
        let _ = $fault;
        whole
    }};
}
pub(crate) use broken;
