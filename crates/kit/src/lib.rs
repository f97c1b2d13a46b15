//! Tests of replicated state machines on whole nodes: clients, faults and virtual time, out of a seed.
//!
//! A [`Cluster`] runs the shipped nodes and the shipped client in a simulated room ([`mainstay_sim::live`]), judges each run, and tells of one
//! that fails with its seed and as few faults as it takes. The state machine is the user's, as it is.
//!
//! ```
//! use mainstay::{Commands, Position, Small};
//! use mainstay_kit::{Client, Cluster};
//!
//! /// Hands out numbers.
//! #[derive(Clone, Default, Debug)]
//! struct Numbers(Small<u64>);
//!
//! impl Commands for Numbers {
//!     type Command = ();
//!     type Reply = u64;
//!     type State = Small<u64>;
//!     fn execute(&mut self, _at: Position, (): ()) -> u64 {
//!         *self.0 += 1;
//!         *self.0
//!     }
//!     fn state(&self) -> &Small<u64> { &self.0 }
//!     fn state_mut(&mut self) -> &mut Small<u64> { &mut self.0 }
//! }
//!
//! Cluster::<Numbers>::swarm(0..2)
//!     .nodes(3)
//!     .atlas(1, 0)
//!     .client(|client: Client<Numbers>| async move {
//!         while !client.is_over() {
//!             let _ = client.execute(()).await;
//!             client.sleep(client.below(100)).await;
//!         }
//!     })
//!     .check(|numbers, history| {
//!         if history.len() as u64 >= *numbers.0 { Ok(()) } else { Err("a number too many".into()) }
//!     })
//!     .run();
//! ```
//!
//! Such a run takes about a second and a half without optimisation: `[profile.test] opt-level = 1` in the manifest of the workspace is
//! worth it. Equal seeds give equal runs as long as the state machine and the clients look at no clock but that of
//! [`Client`], draw nothing but from [`Client::below`], and let no order depend on a hash; each seed is run twice to see that.
//!
//! For nodes that have more on them than one state machine, [`start`] puts a node of any make into a room, and
//! [`mainstay_sim::live::swarm`] runs the seeds.

mod client;
mod cluster;
mod linear;
mod place;
mod traces;

pub use client::Client;
pub use cluster::{Cluster, Report};
pub use linear::{Asked, answered, linearisable};
pub use mainstay_base::{Duration, Instant};
pub use mainstay_check::linear::{Model, Operation, Outcome};
pub use mainstay_sim::live::Found;
pub use mainstay_sim::{Action, ClockFault, Disk, Fault, FaultEvent, Moment, Point, as_code};
pub use place::{all_are_one, cluster, differing, is_whole, replica, same_state, start};
pub use traces::Traces;
