//! Fault-tolerant services composed into a node: the facade.
//!
//! A [`Node`] runs a deterministic [`StateMachine`] that is replicated on all configured nodes: a site with one group and
//! a replica on it. A command is executed in one order at all of them, and answered when it has reached the level of the
//! configured [`Durability`]: at a majority of the nodes, or forced to the disks of a majority. Any minority may
//! fail. [`Node::execute`] tells apart what was done, what was not done and will not be, and what nobody knows.
//!
//! A node runs on the `LocalSet` that starts it; its handle is `Send`, `Sync` and cheap to clone. A node that the others
//! declared dead starts anew in its process. One whose log fails halts, and [`Node::closed`] says why.
//!
//! What it does not do yet: several groups, a roster that changes, sessions of its own (an [`Envelope`] of a session goes
//! through [`Node::submit`]), to go on by itself after a poison command was skipped (start the node anew), TLS (loopback
//! only).
//!
//! ```
//! use std::net::TcpListener;
//! use bytes::Bytes;
//! use mainstay::{Config, Durability, Node, Outcome, RestoreError, Snapshot, StateMachine};
//! use mainstay_base::{ClusterId, Position};
//!
//! /// Adds up the bytes that it is sent.
//! #[derive(Default)]
//! struct Sum(u64);
//! struct Once(Option<u64>);
//!
//! impl Snapshot for Once {
//!     fn next_chunk(&mut self, _max: usize) -> Option<Bytes> {
//!         self.0.take().map(|sum| Bytes::copy_from_slice(&sum.to_le_bytes()))
//!     }
//! }
//! impl StateMachine for Sum {
//!     type Snapshot = Once;
//!     fn apply(&mut self, _at: Position, command: &[u8], reply: &mut Vec<u8>) {
//!         self.0 += command.iter().map(|byte| u64::from(*byte)).sum::<u64>();
//!         reply.extend(self.0.to_le_bytes());
//!     }
//!     fn begin_snapshot(&mut self) -> Once { Once(Some(self.0)) }
//!     fn reset(&mut self) { self.0 = 0 }
//!     fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
//!         self.0 = u64::from_le_bytes(chunk.try_into().map_err(|_| RestoreError::Chunk("not eight bytes"))?);
//!         Ok(())
//!     }
//!     fn state_hash(&self) -> u128 { self.0.into() }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
//! let config = Config::new(ClusterId::from_entropy(1), "a", [("a".to_owned(), address)].into())
//!     .durability(Durability::Memory)
//!     .bootstrap(true);
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! tokio::task::LocalSet::new().block_on(&runtime, async {
//!     let node = Node::start(config, Sum::default)?;
//!     let mut tick = tokio::time::interval(std::time::Duration::from_millis(10));
//!     while node.execute(&[]).await != Outcome::Done(Bytes::from_static(&[0; 8])) {
//!         tick.tick().await; // Not a member yet.
//!     }
//!     node.execute(&[1, 2, 3]).await;
//!     assert_eq!(node.read(|sum| sum.0).await, Ok(6));
//!     node.close().await;
//!     Ok(())
//! })
//! # }
//! ```

mod client;
mod command;
mod config;
mod framed;
mod history;
mod node;
mod outcome;
mod replicated;
mod serve;
mod status;
mod waiting;

pub use client::{Client, ClientConfig, ClientStatus, ConnectError};
pub use config::{Config, StartError};
pub use mainstay_multicast::Durability;
pub use mainstay_paradigm::client::{NotDone, Outcome, Stats as TryStats};
pub use mainstay_paradigm::{Envelope, RestoreError, Snapshot, StateMachine};
pub use node::Node;
pub use outcome::Fate;
pub use serve::ClientStats;
pub use status::{ReplicaStatus, Status};
