//! Synchronised clocks in the simulator.

mod agreement;
mod averaging;
mod support;
mod synchroniser;
