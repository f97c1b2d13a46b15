//! The deterministic world: simulated nodes, network, disks and faults; swarm, shrinker and exhaustive explorer.
//!
//! A test kit for machines: for the services of this workspace and for machines of users. A test writes a [`Node`] around
//! its machine and runs some in a [`World`], on virtual time, under one seeded scheduler. [`Options`] say what a run may
//! suffer, and are expanded from a seed: the swarm. The faults of a run are a list, the [`schedule`](schedule()), made
//! before it; a run that fails is replayed from it, and [`shrink`] leaves of it what matters. What the swarm reaches by
//! luck, [`explore`] reaches for certain, in a small scope.
//!
//! ```
//! use mainstay_sim::{Atlas, Effects, Node, Options, Peer, Start, Wire, World};
//! use mainstay_base::{Duration, Instant};
//!
//! /// Tells each peer the greatest number it has heard of, at each connection.
//! struct Gossip { greatest: u64, greet: Vec<Peer> }
//!
//! impl Node for Gossip {
//!     type Setup = ();
//!     type Message = u64;
//!     type Durable = ();
//!     type Write = ();
//!     type Event = ();
//!     fn start(start: Start<'_, Self>) -> Self { Self { greatest: start.index as u64, greet: vec![] } }
//!     fn opened(&mut self, _: Instant, peer: Peer, _: bool) { self.greet.push(peer) }
//!     fn receive(&mut self, _: Instant, _: Peer, heard: u64) { self.greatest = self.greatest.max(heard) }
//!     fn timeout(&mut self, _: Instant) {}
//!     fn end_turn(&mut self, _: Instant, out: &mut Effects<Self>) {
//!         self.greet.drain(..).for_each(|peer| out.send(peer.boot, self.greatest));
//!     }
//!     fn poll_timeout(&self) -> Option<Instant> { None }
//!     fn apply((): &mut (), (): ()) {}
//! }
//!
//! for seed in 0..20 {
//!     let options = Options::from_seed(seed, Wire::Channel, Atlas { down: 1, lost: 0 });
//!     let mut world: World<Gossip> = World::new(seed, 3, (), options);
//!     world.run(Duration::from_secs(2))?;          // With faults.
//!     world.heal();
//!     let told = |world: &World<Gossip>| (0..3).all(|at| world.node(at).is_some_and(|it| it.greatest == 2));
//!     world.run_until(told, Duration::from_secs(1))?;
//! }
//! # Ok::<(), mainstay_sim::Stuck>(())
//! ```
//!
//! # Phases of a run
//! First faults within the [`Atlas`], while safety is checked. Then [`World::heal_core`]: a chosen part runs without
//! faults, the rest stays broken for ever, and the core must get where it should within a bound that the test computes
//! ([`World::run_until`]). Then [`World::heal`], and all must agree. Faults at random without the second phase miss
//! livelocks, such as by a node that can send but not receive.
//!
//! # Connections and disks
//! The world connects each pair of living nodes, once at a time: a boot is told that the former connection is closed before
//! the next one opens. Nodes that dial for themselves ([`Options::dials`]) may have several. What a connection promises
//! is said by [`Wire`]. A forced write is on the disk when [`Node::written`] says so; of those that a crash interrupts,
//! some first ones are on the disk.
//!
//! # Whole nodes
//! With the feature `actors`, the module `live` runs what is shipped: whole nodes with their actors, on simulated networks,
//! disks and clocks.
//!
//! With the feature `processes`, the module `processes` has what tests of real processes need: their start, stop and end, logs, and connections that are cut.
//!
//! # Speed
//! `cargo run --release -p mainstay-sim --example speed`: 2.5 to 5 million steps a second on one core, with tiny machines,
//! 3 to 9 nodes, with and without faults.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod addresses;
mod clock;
mod code;
mod defects;
mod disk;
mod explore;
mod faults;
#[cfg(feature = "actors")]
pub mod live;
mod network;
mod node;
mod options;
#[cfg(feature = "processes")]
pub mod processes;
mod schedule;
mod seeds;
mod seen;
pub mod service;
mod shrink;
mod trace;
mod turn;
mod world;

pub use addresses::free_addresses;
pub use clock::{Clock, ClockFault};
pub use code::as_code;
pub use defects::{holds_but_with, noticed, panic_of};
pub use explore::{Model, Report, Search, Violation, explore};
pub use faults::Beyond;
pub use node::{Effects, Node, Peer, Refusal, Start};
pub use options::{Atlas, Options, Wire};
pub use schedule::{Action, Disk, Fault, FaultEvent, Moment, Point, schedule};
pub use seeds::seeds;
pub use seen::Seen;
pub use shrink::shrink;
pub use world::{Captured, Stats, Stuck, World};
