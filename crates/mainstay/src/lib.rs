//! Fault-tolerant services composed into a node: the facade.
//!
//! A [`Node`] is put together from what is wanted, with a [`NodeBuilder`]: process [groups](NodeBuilder::group) for the user's
//! actors, [replicated state machines](NodeBuilder::replicate), and [services](NodeBuilder::mount) of the contract
//! ([`service`]), which may have [actors of their own](NodeBuilder::mount_beside). Handles of groups and state machines can be used from the beginning, those of services from the start; all
//! are `Send`, `Sync` and cheap to clone.
//!
//! ```
//! use std::net::TcpListener;
//! use mainstay::{ClusterId, Config, GroupConfig, Node, Order};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
//! let config = Config::new(ClusterId::from_entropy(1), "a", [("a".to_owned(), address)].into());
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # tokio::task::LocalSet::new().block_on(&runtime, async {
//! let mut builder = Node::builder(config)?; // Under #[actix::main], or on any LocalSet.
//! let group = builder.group("orders", GroupConfig::memory().stateless())?;
//! let node = builder.start()?;
//! node.ready().await?;
//! let receipt = group.cast("an order", Order::Total).await?;
//! receipt.majority().await?; // A majority of the nodes has it.
//! let view = node.views().watch().ok_or("the node has ended")?.borrow().clone();
//! assert_eq!(view.members[0].to_string(), "a/1");
//! node.close().await;
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! # Groups of actors
//! An actor hears a group when it [subscribes](GroupHandle::subscribe) with a `Recipient<Events<GroupEvent>>`: views, messages in
//! the order they were cast for, and requests for its state, in one stream. The library checkpoints and transfers what the actor
//! gives. The order is said for each cast ([`Order`]), what is waited for afterwards ([`Receipt`]). The example `chat` has all of it, the
//! example `six` wires several actors.
//!
//! # Views
//! [`Node::views`] tells who works, in age order, agreed with the others, and why who left did. The number of a view is a fencing
//! token. They also tell when the node has lost its majority, and when it has it back ([`ViewChanged::has_majority`]).
//!
//! # Replicated state machines
//! A deterministic [`StateMachine`] is replicated on all configured nodes: a [`Replicated`] is its handle. A command is executed
//! in one order at all of them, and answered when it has reached the level of the
//! configured [`Durability`]: at a majority of the nodes, or forced to the disks of a majority. Any minority may
//! fail. [`Replicated::execute`] tells apart what was done, what was not done and will not be, and what nobody knows.
//!
//! State and commands can have types: [`Commands`] over a [`Map`] and others, [`Replicated::send`], and what failed as an error
//! that tells *not done* from *unknown* ([`Failed`]). A [`NodeSession`] sends again what has no answer, and has it executed once. Views
//! come to the state machine in the order of its commands: [`StateMachine::view`].
//!
//! A process outside has a [`Client`], and each node that [serves](Replicated::serve) a port for it. The client
//! keeps a session, and sends a command whose answer is lost again, elsewhere, under the same number: it is executed once.
//! A program that keeps sessions by itself puts each [`Envelope`] through [`Replicated::submit`].
//!
//! A command whose execution panics stops the group: every node refuses with [`NotDone::Poisoned`] until an operator has it
//! passed over by [`Replicated::skip`]. Then the nodes rebuild their states without it, in their processes, and go on.
//!
//! # Services
//! A [`Service`] of one's own is a machine on the contract of `mainstay_base::service`: messages between its instances, records in the
//! log of the node, events for its readers. It is [mounted](NodeBuilder::mount) on the node, in the same turns, or
//! [beside](NodeBuilder::mount_beside) it, in an actor there or on a thread of its own ([`Placement`]); there a panic ends it alone, and
//! [`ServiceHandle::start_again`] starts it again. One that breaks a rule of its host is stopped alone ([`ReachError::Stopped`] says which). [`Node::mount`] mounts one
//! while the node runs. The example `mounted` has one.
//!
//! Who has no handle but a `Recipient` gives commands as messages: a [`Porter`] is an actor in front of any handle
//! ([`CastCommand`] to a group, [`Give`] to a service).
//!
//! # Life of a node
//! A cluster is made when all its nodes are there, none has a past and their settings are equal ([`Founding`]); [`Node::ready`] waits until
//! a node takes part. A node runs on the `LocalSet` that starts it, or on a thread of its own ([`Node::spawn`]). One that the others
//! declared dead starts anew in its process. One whose log fails halts, and [`Node::closed`] says why.
//!
//! A state of millions of entries is made, and freed beside the node's thread, in many small pieces. The allocator of glibc makes
//! turns of the node wait for that, up to a tenth of a second; with `mimalloc` as its global allocator, as in the program
//! of this workspace, a program loads such a state 1.6 times as fast and has shorter turns; with `tikv-jemallocator` and its
//! background threads the turns are shortest. Nodes that share one thread wait for each
//! other's start, which reads the whole log.
//!
//! Features: `node` (default) is all of it; `client` without default features is the client alone, of half as many crates.
//!
//! A program needs this crate, `bytes` and `tokio` alone, and `actix` for its actors, `mainstay-base` and `serde` for services of its own: the types of its signatures that other crates of the workspace define
//! have names here. Those that would clash say whose they are, as [`ReplicaConfig`] and [`SiteStatus`].
//!
//! What it does not do yet: groups with other members than all nodes, a roster that changes, TLS (loopback only).
//!
//! # A state machine of one's own
//!
//! ```
//! use std::net::TcpListener;
//! use bytes::Bytes;
//! use mainstay::{
//!     Client, ClientConfig, ClusterId, Config, Durability, Outcome, Position, Replicated, RestoreError, Snapshot, StateMachine,
//! };
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
//!     .durability(Durability::Memory);
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! tokio::task::LocalSet::new().block_on(&runtime, async {
//!     let node = Replicated::start(config, Sum::default)?;
//!     node.node().ok_or("it has one")?.ready().await?;
//!     node.execute(&[1, 2, 3]).await;
//!     assert_eq!(node.read(|sum| sum.0).await, Ok(6));
//!
//!     // From outside: another process has the client alone.
//!     let query = |sum: &Sum, _query: &[u8]| sum.0.to_le_bytes().to_vec();
//!     let address = node.serve("127.0.0.1:0".parse()?, query).await?;
//!     let endpoints = [("a".to_owned(), address)].into();
//!     let client = Client::connect(ClientConfig::new(ClusterId::from_entropy(1), endpoints))?;
//!     assert_eq!(client.execute(&[4]).await, Outcome::Done(Bytes::copy_from_slice(&10u64.to_le_bytes())));
//!     assert_eq!(client.read(b"sum").await, Outcome::Done(Bytes::copy_from_slice(&10u64.to_le_bytes())));
//!     client.close().await;
//!     node.close().await;
//!     Ok(())
//! })
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

/// The examples of the first page of the project.
#[cfg(all(doctest, feature = "node"))]
#[doc = include_str!("../../../README.md")]
struct Readme;

#[cfg(feature = "node")]
mod backlog;
#[cfg(feature = "node")]
mod beside;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "node")]
mod command;
#[cfg(feature = "node")]
mod config;
#[cfg(feature = "node")]
mod executor;
#[cfg(feature = "client")]
mod framed;
#[cfg(feature = "node")]
mod group;
#[cfg(feature = "node")]
mod history;
#[cfg(feature = "node")]
mod node;
#[cfg(feature = "node")]
mod outcome;
#[cfg(feature = "node")]
mod queue;
#[cfg(feature = "node")]
mod replicated;
#[cfg(feature = "node")]
mod serve;
#[cfg(feature = "node")]
mod session;
#[cfg(feature = "node")]
mod status;
#[cfg(feature = "node")]
mod waiting;

#[cfg(feature = "client")]
pub use client::{Client, ClientConfig, ClientStatus, ConnectError};
#[cfg(feature = "node")]
pub use config::{Config, StartError};
#[cfg(feature = "node")]
pub use group::{
    CastCommand, CastError, GroupConfig, GroupEvent, GroupHandle, GroupView, MESSAGE_BYTES_MAX,
    Message, NotReached, Receipt, State, StatePart, StateRequest,
};
#[cfg(feature = "node")]
pub use mainstay_base::service::{self, ReaderId, Service};
pub use mainstay_base::trace::Event as TraceEvent;
#[cfg(feature = "node")]
pub use mainstay_base::{BootId, Channel, Instance, Instant, Machine, View, Work};
pub use mainstay_base::{
    ClusterId, Level, MessageId, NodeId, Order, Position, Reason, SiteId, ViewId,
};
#[cfg(feature = "node")]
pub use mainstay_membership::ConfigError as MembershipConfigError;
#[cfg(feature = "node")]
pub use mainstay_membership::Evidence;
#[cfg(feature = "node")]
pub use mainstay_membership::founding::WaitsFor;
#[cfg(feature = "node")]
pub use mainstay_multicast::{ConfigError as GroupConfigError, Durability};
pub use mainstay_paradigm::client::{
    ConfigError as ClientConfigError, Failed, NotDone, Outcome, Stats as TryStats,
};
pub use mainstay_paradigm::{
    Commands, MembersChanged, VIEW_MEMBERS_MAX, decode_reply, encode_command,
};
pub use mainstay_paradigm::{
    Config as ReplicaConfig, ConfigError as ReplicaConfigError, Outcome as ReplicaOutcome,
    Stats as ReplicaStats, Status as ReplicaPhase,
};
pub use mainstay_paradigm::{
    ENTRY_BYTES_MAX, EntryTooLarge, Map, MapKey, MapSnapshot, MapValue, Parts, SMALL_BYTES_MAX,
    Small, State as ReplicaState,
};
pub use mainstay_paradigm::{Envelope, RestoreError, Session, Snapshot, StateMachine};
#[cfg(feature = "node")]
pub use mainstay_runtime::{
    Beacon, Carries, ClientListener, Closed, DatagramKey, DatagramKeys, Disk, Events, LocalFuture,
    Porter, Ports, Pulse, Recipient, TcpClients, Transport,
};
#[cfg(feature = "client")]
pub use mainstay_runtime::{ClientDialer, DialError, Entropy, EntropyError, TcpError, TimeSource};
#[cfg(feature = "node")]
pub use mainstay_service::{
    AgainError, Breach, Give, MountError, MountLateError, Mounting, Placement, ReachError,
    ServiceHandle, ServicesError, Standing,
};
#[cfg(feature = "node")]
pub use mainstay_site::{
    Founding, Member, StartError as SiteStartError, Status as SiteStatus, TraceSink, ViewChanged,
};
#[cfg(feature = "node")]
pub use node::{Node, NodeBuilder, ReadyError, Views};
#[cfg(feature = "node")]
pub use outcome::{AcceptLossError, Fate};
#[cfg(feature = "node")]
pub use replicated::Replicated;
#[cfg(feature = "node")]
pub use serve::{ClientStats, ServeError};
#[cfg(feature = "node")]
pub use session::{NodeSession, SessionError};
#[cfg(feature = "node")]
pub use status::{ReplicaStatus, Status};
