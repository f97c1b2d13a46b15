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
//!
//! # Example
//! Two clocks, of which the second one is 800 µs ahead, and a network on which each message takes 500 µs.
//!
//! ```
//! # #[cfg(not(all(feature = "averaging", feature = "agreement")))] fn main() {}
//! # #[cfg(all(feature = "averaging", feature = "agreement"))]
//! # fn main() -> Result<(), mainstay_clock::sync::ConfigError> {
//! use std::sync::Arc;
//! use mainstay_base::{Duration, Instant};
//! use mainstay_clock::sync::{Algorithm, Begin, Config, Kind, Origin, Output, Plan};
//!
//! let plan = Arc::new(Plan::new(Config::lan(Kind::named("midpoint", None)?, 2, 0))?);
//! let mut now = Instant::ZERO + Duration::from_millis(500);
//! let clock = |me, ahead| {
//!     let (plan, origin) = (Arc::clone(&plan), Origin::Together(ahead));
//!     Algorithm::new(Begin { plan, me, origin, now, seed: 1, keys: None })
//! };
//! let mut clocks = [clock(0, 0)?, clock(1, 800_000)?];
//! let mut on_the_way = Vec::new();
//! for _ in 0..10_000 {
//!     now = now + Duration::from_micros(100);
//!     let has_come = |(at, ..): &mut (Instant, usize, usize, _)| *at <= now;
//!     for (at, from, to, message) in on_the_way.extract_if(.., has_come) {
//!         clocks[to].on_datagram(now, at, from, message);
//!     }
//!     for from in 0..2 {
//!         clocks[from].on_deadline(now);
//!         while let Some(output) = clocks[from].poll() {
//!             if let Output::Send { to, message } = output {
//!                 on_the_way.push((now + Duration::from_micros(500), from, to, message));
//!             }
//!         }
//!     }
//! }
//! // One round has passed. Delays from 50 to 1,000 µs were possible: each clock may be wrong about the other one.
//! let apart = clocks[1].clock().nanos(now) - clocks[0].clock().nanos(now);
//! assert!(apart.abs() < 100_000 && clocks[0].version() == 1, "{apart}");
//! # Ok(())
//! # }
//! ```

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
mod kind;
mod message;
mod peer;
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

#[cfg(any(feature = "synchroniser", feature = "agreement"))]
pub use mainstay_agreement::sign::{BadKeys, Keyring};
