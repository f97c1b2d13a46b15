//! Synchronised clocks in the simulator.

mod agreement;
mod averaging;
mod edges;
mod external;
mod faults;
mod interval;
mod misled;
mod probabilistic;
mod refusals;
mod search;
mod sources;
mod support;
mod synchroniser;
mod wire;
