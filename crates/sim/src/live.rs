//! Whole nodes with their real actors, on virtual time, on a simulated network and simulated disks.
//!
//! The other half of the test kit: a [`World`](crate::World) runs machines, a [`Room`] runs what is shipped, with actors,
//! mailboxes and turns, and users' actors with it. It owns a current-thread tokio runtime whose clock is paused, and a
//! `LocalSet` for each boot of a node. The user starts a node on the [`Ports`](mainstay_runtime::Ports) that the room gives;
//! all that a node does outside goes through them. Faults are those of the [`schedule`](crate::schedule()).
//!
//! - **Time** passes only when nobody has anything to do. Each boot has a clock of its own, which begins at zero and may
//!   run fast or slow ([`Room::drift`]). Timers of tokio work too, to the millisecond and without drift.
//! - **Work** takes time: a turn that its machine counts as long ([`Machine::take_work`](mainstay_base::Machine::take_work)) keeps
//!   its node busy for as long, and meanwhile the node neither hears nor is heard. Turns below 100 us are free.
//! - **The network** keeps the order of a connection until it breaks. A cut stalls it, and may break it if it lasts; a dial
//!   into a cut is tried for three seconds; a dial to a process that is not there is refused. A killed process closes its
//!   connections; a machine that loses power says nothing until it is back.
//! - **A disk** takes its time for a forced write. A crash stops the writes under way at some call of the medium; then a
//!   killed process leaves what it wrote, and a machine without power one of the states that
//!   [`MemoryMedium::crashes`](mainstay_stable::MemoryMedium::crashes) enumerates. Half of the crashes are of either kind.
//! - **A crash** first cuts the ports of the node, then drops its `LocalSet`: what the actors still do when they are
//!   dropped has no effect. A **pause** is not polling the `LocalSet`.
//!
//! - **Clients** are in the room as processes of their own ([`Outside::client`]), and reach nodes by byte streams at the ports
//!   that those [listen](Start::port) at, over the same network. Cuts and resets reach them under numbers behind those of the nodes.
//! - **Faults beyond the atlas** are [told](Room::left_out), and end a [strict](Room::strict) room. A node crashes at a
//!   [named point](crate::Moment::At) of its run, messages of nodes are [captured](Room::capture) and replayed, and links may have a [rate](Room::rate).
//!
//! A test of many seeds is a [`swarm`] of one scenario: it starts a room and workers, lets them [play](Run::play), and judges what is
//! left. A seed that fails is told with the faults that matter.
//!
//! Equal seeds give equal runs, and so equal [hashes](Room::hash), as long as nodes and clients draw no entropy but the
//! given one, look at no other clock, start no threads, and let no order depend on a hash. A test runs each seed twice and
//! compares.
//!
//! ```
//! use std::time::Duration;
//! use mainstay_sim::live::{Room, Start};
//! use mainstay_sim::{Atlas, Options, Wire, schedule};
//! use tokio::sync::mpsc;
//!
//! /// An actor that counts what it is sent, as the handle of a node.
//! fn start(node: Start) -> Result<mpsc::Sender<u64>, String> {
//!     let (sender, mut receiver) = mpsc::channel(8);
//!     tokio::task::spawn_local(async move {
//!         node.restored.tell();
//!         while let Some(number) = receiver.recv().await {
//!             let time = &node.ports.time;
//!             time.sleep_until(time.now() + Duration::from_millis(number)).await;
//!         }
//!     });
//!     Ok(sender)
//! }
//!
//! let options = Options::from_seed(7, Wire::Channel, Atlas { down: 1, lost: 0 });
//! let faults = schedule(7, 3, &options);
//! let mut room = Room::new(7, 3, options, faults, start);
//! let outside = room.outside();
//! room.spawn(async move {
//!     for number in 0..100 {
//!         if let Some(node) = outside.node(number as usize % 3) {
//!             drop(node.try_send(number));
//!         }
//!         outside.sleep(Duration::from_millis(10)).await;
//!     }
//! });
//! room.run(Duration::from_secs(2))?;
//! room.heal();
//! # Ok::<(), mainstay_sim::live::Stuck>(())
//! ```

mod disk;
mod inbox;
mod kernel;
mod net;
mod outside;
mod points;
mod room;
mod start;
mod stream;
mod swarm;
mod told;
mod transport;

pub use net::Captured;
pub use outside::Outside;
pub use room::Room;
pub use start::{Restored, Start};
pub use stream::{ClientPort, ClientPorts};
pub use swarm::{Found, Plan, Run, find, run, swarm};
pub use told::{LeftOut, Stats, Stuck};

pub use crate::Beyond;
