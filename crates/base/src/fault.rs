//! Planted faults: a machine that is broken on purpose shows that the checks of its tests notice.

/// Whether a machine is to be broken in one way: `fault!(self.config, NoResend)` asks whether the field `fault` of the settings is
/// `Some(crate::fault::Fault::NoResend)` of the crate that asks.
///
/// Always false where that crate is built without its feature `test-util`, and then neither the field nor the type need
/// exist: what is shipped cannot be broken.
#[macro_export]
#[allow(clippy::crate_in_macro_def, reason = "each crate has its own faults")]
macro_rules! fault {
    ($config:expr, $fault:ident) => {{
        #[cfg(feature = "test-util")]
        {
            $config.fault == Some(crate::fault::Fault::$fault)
        }
        #[cfg(not(feature = "test-util"))]
        {
            let _ = &$config;
            false
        }
    }};
}
