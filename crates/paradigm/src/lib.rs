//! Replicated state machine: sessions, duplicate filter, snapshots and poison commands as replicated state.
//!
//! A [`Replica`] wraps the user's deterministic [`StateMachine`]. Each member of a group feeds its own replica with the
//! group's messages in their total order; then equal positions mean equal states, answers, hashes and snapshots
//! (PD-30, PD-31). A command sent in a session is executed once however often it is retried, also across crashes, since
//! the duplicate filter and the saved answers are part of the state. Hashes are compared at equal positions, and a
//! replica that the majority contradicts stands still (PD-34). A command whose execution panics makes the group stand
//! still until an operator has it passed over.
//!
//! Processes outside the group reach it through a [`client::Client`]: a machine too, with the messages that it and a
//! node exchange.
//!
//! The crate sends nothing and stores nothing: the host orders, logs, transfers and writes. It reads no clock.
//!
//! ```
//! use bytes::Bytes;
//! use mainstay_base::{ClusterId, Incarnation, MessageId, NodeId, Position, SiteId};
//! use mainstay_paradigm::{Config, Envelope, Outcome, Output, Replica, RestoreError, Snapshot, StateMachine};
//!
//! /// Adds what it is sent.
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
//!         self.0 = self.0.wrapping_add(command.len() as u64);
//!         reply.extend(self.0.to_le_bytes());
//!     }
//!     fn begin_snapshot(&mut self) -> Once { Once(Some(self.0)) }
//!     fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
//!         self.0 = u64::from_le_bytes(chunk.try_into().map_err(|_| RestoreError::Chunk("not eight bytes"))?);
//!         Ok(())
//!     }
//!     fn state_hash(&self) -> u128 { self.0.into() }
//! }
//!
//! let node = NodeId::new(ClusterId::from_entropy(1), "a");
//! let me = SiteId { node, incarnation: Incarnation(1) };
//! let mut replica = Replica::new(Config::builder().build()?, Sum::default());
//! let message = MessageId { sender: me, sequence: 1 };
//! replica.deliver(Position(1), message, Envelope::Anonymous.encode(b"four"), true)?;
//! let Some(Output::Reply { outcome: Outcome::Done(sum), .. }) = replica.poll_output() else { panic!() };
//! assert_eq!(sum[..], 4u64.to_le_bytes());
//!
//! let mut stream = replica.snapshot()?;
//! let mut other = Replica::new(Config::builder().build()?, Sum::default());
//! drop(other.begin_restore(Sum::default()));
//! while let Some(chunk) = stream.next_chunk()? { other.restore_chunk(&chunk)? }
//! other.restored(Position(1))?;
//! assert_eq!(other.state_hash(), replica.state_hash());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod account;
pub mod client;
mod compare;
mod config;
mod envelope;
mod map;
mod replica;
mod sessions;
mod snapshot;
mod state;
mod stats;
pub mod trie;
mod typed;
mod user;
mod views;

pub use account::TURN_WORK;
pub use compare::Verdict;
pub use config::{Builder, Config, ConfigError};
pub use envelope::{Envelope, EnvelopeError, Session, VIEW_MEMBERS_MAX};
#[doc(no_inline)]
pub use mainstay_base::NamedSite;
pub use map::{ENTRY_BYTES_MAX, EntryTooLarge, Map, MapKey, MapSnapshot, MapValue};
pub use replica::{DeliverError, Outcome, Output, Replica, Retired, SnapshotError, Status};
pub use snapshot::{CHUNK_BYTES_MAX, NextChunkError, RestoreError, SnapshotStream};
pub use state::{Parts, SMALL_BYTES_MAX, Small, State};
pub use stats::Stats;
pub use typed::{Commands, decode_reply, encode_command};
pub use user::{Snapshot, StateMachine};
pub use views::MembersChanged;
