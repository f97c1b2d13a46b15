//! Vocabulary of Mainstay: ids, time, randomness, the machine trait, frames, the bounded codec and trace events.
//!
//! Everything that two services must agree on, and nothing else. This crate does no I/O, reads no clock and owns no
//! global state; a type lives here only when at least two services need it.
//!
//! ```
//! use mainstay_base::{Duration, Instant, Machine};
//!
//! /// Counts its inputs and reports the sum of each turn.
//! #[derive(Clone, Default)]
//! struct Summing { sum: u64, out: Option<u64> }
//!
//! impl Machine for Summing {
//!     type Input = u64;
//!     type Output = u64;
//!     fn handle(&mut self, _now: Instant, input: u64) { self.sum += input }
//!     fn handle_timeout(&mut self, _now: Instant) {}
//!     fn end_turn(&mut self, _now: Instant) { self.out = Some(self.sum) }
//!     fn poll_output(&mut self) -> Option<u64> { self.out.take() }
//!     fn poll_timeout(&self) -> Option<Instant> { None }
//! }
//!
//! let now = Instant::ZERO + Duration::from_millis(5);
//! let mut machine = Summing::default();
//! machine.handle(now, 2);
//! machine.handle(now, 3);
//! machine.end_turn(now);
//! assert_eq!(machine.poll_output(), Some(5));
//! assert_eq!(machine.poll_output(), None);
//! ```

pub mod batch;
pub mod codec;
mod fault;
mod fingerprint;
pub mod frame;
mod id;
mod machine;
mod order;
pub mod rack;
mod rng;
pub mod service;
mod time;
pub mod trace;
mod view;
mod work;

pub use fingerprint::{Fingerprint, Fingerprinter};
pub use frame::{Frame, Header};
pub use id::{
    BootId, BootNonce, Channel, ClusterId, ConnId, GroupId, Incarnation, Instance, MessageId,
    NodeId, Position, SiteId, ViewId,
};
pub use machine::Machine;
pub use order::{Level, Order};
pub use rng::Rng;
pub use std::time::Duration;
pub use time::Instant;
pub use view::{Departures, Member, NamedSite, Reason, View};
pub use work::Work;
