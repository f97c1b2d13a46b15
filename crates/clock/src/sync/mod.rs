//! Synchronised clocks: processes whose hardware clocks drift agree on what the time is, though some of them lie.
//!
//! # Problem
//! Each process has a hardware clock H whose rate is within `drift` of real time. It wants a *corrected clock* C that is
//! within a known distance of the corrected clocks of all correct processes, whatever up to `faulty` others say. Messages take
//! between [`Delay::min`] and [`Delay::max`]; what a message cannot tell is when within that span it was sent. No algorithm gets below
//! (1 - 1/n) of that span.
//!
//! # Shape
//! An [`Algorithm`] is a part of a machine. It is given local time, datagrams and deadlines, and says with
//! [`Output`] what to send and by how much the clock is to be corrected. The corrected clock is the hardware clock plus a
//! correction; each correction has a version. The clock of an algorithm jumps: it is for the owner to apply a correction to the clock
//! that users read by slewing, or by stepping forward only.
//!
//! Which algorithm runs is said by [`Kind`] in a [`Config`]; a [`Plan`] is a configuration that theory allows, with the
//! [`Bounds`] that follow from it. Each family is a file and a feature:
//!
//! | feature | kinds | idea |
//! |---|---|---|
//! | `averaging` | [`Kind::Averaging`], [`Kind::Hardware`] | read all clocks each period, average without the extremes |
//! | `agreement` | [`Kind::Agreement`] | agree on the vector of all clocks, take its median |
//! | `synchroniser` | [`Kind::Srikanth`], [`Kind::Halpern`] | whoever gets to the next period first takes all others along |
//! | `probabilistic` | [`Kind::Probabilistic`] | read the master until a read is good enough |
//! | `interval` | [`Kind::Interval`] | intersect intervals that hold the true time |
//! | `external` | [`Kind::External`] | follow a reference whose error is stated |
//!
//! # What an algorithm relies on
//! - Local time does not go back, and is asked for at every deadline. A process whose local time goes back, or that wakes up
//!   long after a deadline, says [`Output::Lost`] and begins anew.
//! - A message between correct processes takes `min` to `max`, or counts as a fault of the round.
//! - Who a message is from is known.

#![cfg_attr(
    not(all(
        feature = "averaging",
        feature = "agreement",
        feature = "synchroniser",
        feature = "probabilistic",
        feature = "interval",
        feature = "external"
    )),
    allow(dead_code, unused_variables, reason = "not every family uses all of what they share")
)]

#[cfg(feature = "agreement")]
mod agreement;
mod algorithm;
#[cfg(feature = "averaging")]
mod averaging;
mod bounds;
mod config;
mod core;
mod corrected;
#[cfg(feature = "probabilistic")]
mod election;
#[cfg(feature = "external")]
mod external;
#[cfg(feature = "averaging")]
mod functions;
pub mod global;
#[cfg(feature = "synchroniser")]
mod halpern;
#[cfg(feature = "interval")]
mod interval;
#[cfg(any(feature = "synchroniser", feature = "agreement"))]
mod keys;
mod message;
#[cfg(feature = "probabilistic")]
mod probabilistic;
mod reading;
mod service;
#[cfg(feature = "synchroniser")]
mod srikanth;

pub use self::core::{Correction, Loss, Output, Rejected, Source, Verdict};
pub use algorithm::{Algorithm, Begin, Origin};
pub use bounds::Bounds;
pub use config::{Config, ConfigError, Delay, Drift, Function, Kind, NODES_MAX, Plan};
pub use corrected::Corrected;
pub use message::Message;
pub use reading::{Reading, Stamp, Way};
pub use service::{Command, Event, Mount, Status, Synced};
