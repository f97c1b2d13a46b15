//! Services on a link: alone, or mounted on a site.
//!
//! A service is written once, on the contract of [`mainstay_base::service`], and knows nothing of where it lives.
//! [`Services`] is what a node has of services: the [rack](mainstay_base::rack) that turns them, and the [channels](mux) that
//! carry their messages over one link, in classes, with credit granted by the receiver. A [`Station`] is the smallest node: a
//! link and services on it, without membership. All of that is pure: no thread, no clock, no socket.
//!
//! With the feature `actor` (the default) there are two hosts, and to a service they are the same:
//!
//! - **Alone**: [`start`] runs a station in an actor, over TCP, with or without a disk.
//! - **Mounted**: a site of `mainstay-site` mounts services beside its groups, in the same turns. They see its views, and are
//!   mounted again, from what is on disk, when the site was declared dead and begins anew.
//!
//! In both a service may live **beside** the node, in an actor of its own on the node's thread or another ([`Mounting::beside`]): a slow one
//! stops its own channel, and a panic ends that service only.
//!
//! Both say what they mount in a function on [`Mounting`]. A [`ServiceHandle`] gives commands to a service of either, and any actix
//! actor subscribes to events by its `Recipient`. [`Reach`] makes handles before the node has started. A crate that has a handle of its own for
//! its service stands on a [`Desk`].
//!
//! What there is not yet: TLS (loopback only), processes outside the roster.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::net::TcpListener;
//! use mainstay_base::service::{Class, In, Logged, Never, Out, Outbox, PeerChange, Service, Start, Wire};
//! use mainstay_base::{Channel, ClusterId, Instant, Machine};
//! use mainstay_service::{StationParts, start};
//!
//! /// Greets every peer that comes up, and counts greetings.
//! struct Greeter { out: Outbox<Self>, greeted: u64 }
//!
//! #[derive(Debug, serde::Serialize, serde::Deserialize)]
//! struct Hello;
//! impl Wire for Hello {}
//!
//! impl Machine for Greeter {
//!     type Input = In<Self>;
//!     type Output = Out<Self>;
//!     fn handle(&mut self, _: Instant, input: In<Self>) {
//!         match input {
//!             In::Peer(PeerChange::Up { boot }) => self.out.send(boot, Hello),
//!             In::Message { .. } => self.greeted += 1,
//!             _ => {}
//!         }
//!     }
//!     fn handle_timeout(&mut self, _: Instant) {}
//!     fn end_turn(&mut self, _: Instant) {}
//!     fn poll_output(&mut self) -> Option<Out<Self>> { self.out.pop() }
//!     fn poll_timeout(&self) -> Option<Instant> { None }
//! }
//!
//! impl Service for Greeter {
//!     const CHANNEL: Channel = Channel(0x4000);
//!     const NAME: &'static str = "greeter";
//!     const CLASS: Class = Class::Calls;
//!     type Message = Hello;
//!     type Record = Never;
//!     type Command = Never;
//!     type Event = Never;
//!     type Job = Never;
//!     type Done = Never;
//!     type Past = ();
//!     type Config = ();
//!     type Status = u64;
//!     fn fold((): &mut (), _: Logged<Never>) {}
//!     fn recover((): (), _: Start<()>) -> Self { Self { out: Outbox::default(), greeted: 0 } }
//!     fn work(job: Never) -> Never { match job {} }
//!     fn status(&self) -> u64 { self.greeted }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # let local = tokio::task::LocalSet::new();
//! # local.block_on(&runtime, async {
//! let cluster = ClusterId::from_entropy(7);
//! let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
//! let roster = BTreeMap::from([("a".to_owned(), free()?), ("b".to_owned(), free()?)]);
//! let mut stations = Vec::new();
//! for name in ["a", "b"] {
//!     let parts = StationParts::tcp(cluster, name, roster.clone(), None)?;
//!     stations.push(start(parts, |node| node.mount::<Greeter>("greeter", ()).map(drop))?);
//! }
//! for station in &stations {
//!     while station.service::<Greeter>("greeter").status().await? == 0 {
//!         tokio::task::yield_now().await;
//!     }
//! }
//! # Ok(())
//! # })
//! # }
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "actor")]
pub mod actor;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod fault;
pub mod mux;
pub mod services;
mod station;

#[cfg(feature = "actor")]
pub use actor::{
    AgainError, CommandQueue, Desk, DiskError, Front, Give, MountLateError, Mounting, OpenError,
    Reach, ReachError, ServiceHandle, ServicesError, StartError, StationHandle, StationParts, Work,
    start,
};
pub use mainstay_base::rack::{Breach, Placement};
#[cfg(feature = "actor")]
pub use mainstay_runtime::{Closed, Events, HostOptions, Porter, Recipient};
pub use mux::{MESSAGE_BYTES_MAX, Mux, MuxStats, Standing};
pub use services::{Change, MountError, Request, Services};
pub use station::{Input, Output, Station};
