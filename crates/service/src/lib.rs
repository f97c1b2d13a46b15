//! Services on a link: a node that hosts any services of the house, without membership.
//!
//! [`Services`] is what a node has of services: the [rack](mainstay_base::rack) that turns them, and the [channels](mux) that
//! carry their messages over one link, in classes, with credit granted by the receiver. A [`Station`] is the smallest node: a
//! link and services on it. Both are pure machines.

#[cfg(feature = "actor")]
pub mod actor;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod fault;
pub mod mux;
mod services;
mod station;

#[cfg(feature = "actor")]
pub use actor::{
    DiskError, Mounting, ReachError, ServiceHandle, StartError, StationHandle, StationParts, start,
};
pub use mux::{MESSAGE_BYTES_MAX, Mux, MuxStats, Standing};
pub use services::{MountError, Services};
pub use station::{Input, Output, Request, Station};
