//! Synchronised clocks in the simulator.

mod averaging;
mod support;
