//! Replicated procedure calls: troupes of clients and of servers.
//!
//! A *troupe* is a program in several replicas, each at a node of its own. When a troupe of m calls one of n, each of the n executes the call once,
//! and all m have its result, however often copies of the call come. As long as one replica on either side survives, calls succeed (RPC-40, RPC-41).
//! Replicas have to be deterministic, and a client's replicas make the same calls.
//!
//! # The parts
//! [`Troupes`] is the service: a pure machine, client, server and, at one node, the binding agent that says who belongs to which troupe. It is mounted on
//! a node, beside it, or alone on a link of its own, without membership and without multicast (RPC-49). With the feature `actor` (the default)
//! [`TroupesHandle`] is its face for actix actors; procedures are those of `mainstay_rpc`.
//!
//! | what is chosen | where | choices |
//! |---|---|---|
//! | what the answers become | by the client, for each call | [`Collator`]: first, unanimous, majority, a program ([`Caller::call_with`]) |
//! | when a call begins | by the server troupe | [`Begin`]: with the first copy, when all replicas of the client agree, or a majority |
//! | the order of different clients | by the server troupe | [`Sequence`]: none, a total order of somebody else, troupe commit |
//!
//! # What holds
//! - Each replica of a server executes each logical call once (RPC-40), also of nested calls (RPC-47). A new replica takes the state of an older one.
//! - With [`Collator::Majority`] a minority of wrong replicas is masked; [`Collator::Unanimous`] finds any two that differ (RPC-42, RPC-48); [`Collator::First`]
//!   may have a wrong result.
//! - A result is kept until all replicas of the client, as it is then, have it, or [`Config::retain`] is over (RPC-44).
//! - A changed troupe has another id. A call that names the old one is refused by all that know, and sent again to the troupe as it is (RPC-46).
//! - Everything is bounded. A fast replica of a client waits for slow ones when [`Config::retained_max`] results are kept for them, and when
//!   [`Config::window`] calls are not answered by all servers: one that is silent holds its clients up until it is taken out, after
//!   [`Config::patience`].
//!
//! # What there is not
//! If all replicas of a client fail in the middle of a call some servers may execute it and others not, unless a total order brings it. A member that is taken
//! for dead and lives has executed calls in vain; it is told, and joins again. The binding agent is one node: while it is gone calls go on, and troupes do not
//! change. Executions have no deadline. No calls of guests.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::net::TcpListener;
//! use mainstay_base::{ClusterId, NodeId};
//! use mainstay_rpc::Procedure;
//! use mainstay_service::{StationParts, start};
//! use mainstay_troupe::{Collator, Config, Troupes, TroupesHandle};
//!
//! #[derive(serde::Serialize, serde::Deserialize, actix::Message)]
//! #[rtype(result = "Result<u32, String>")]
//! struct Half(u32);
//!
//! impl Procedure for Half {
//!     const NAME: &'static str = "half";
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # let local = tokio::task::LocalSet::new();
//! # local.block_on(&runtime, async {
//! let cluster = ClusterId::from_entropy(7);
//! let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
//! let roster = BTreeMap::from([("a".to_owned(), free()?), ("b".to_owned(), free()?)]);
//! let (mut nodes, mut replicas) = (Vec::new(), Vec::new());
//! for name in ["a", "b"] {
//!     let parts = StationParts::tcp(cluster, name, roster.clone(), None)?;
//!     let config = Config::started_now(NodeId::new(cluster, "a"));
//!     let station = start(parts, |node| node.mount::<Troupes>("troupes", config).map(drop))?;
//!     let troupes = TroupesHandle::open(station.service("troupes")).await?;
//!     let part = troupes.troupe("halves").serve_fn(|Half(number), _| async move { Ok(number / 2) });
//!     replicas.push(part.join().await?);
//!     nodes.push((station, troupes));
//! }
//! let halves = nodes[0].1.to("halves").collate(Collator::Unanimous);
//! assert_eq!(halves.call(Half(8)).await, Ok(4));
//! # Ok(())
//! # })
//! # }
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "actor")]
mod actor;
mod api;
mod bindings;
mod calls;
mod collate;
mod config;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod fault;
#[cfg(test)]
mod hostile;
mod ids;
mod join;
mod lines;
mod luggage;
mod outcome;
mod record;
mod ringmaster;
mod server;
mod service;
mod wire;

#[cfg(feature = "actor")]
pub use actor::{
    Call, CallError, Caller, Context, Decided, GiveState, Incoming, JoinError, NotSaid, OpenError,
    Part, Replica, Said, TakeState, TroupesHandle,
};
pub use api::{
    Begin, Command, Counts, Event, Execution, Finish, Request, Sequence, Serving, Status, Ticket,
};
pub use collate::{Answer, Collator};
pub use config::{BODY_BYTES_MAX, Config, ConfigError};
pub use ids::{Binding, CallId, DEPTH_MAX, TroupeId, TroupeName, Version};
pub use outcome::{Failure, Outcome, Reason};
pub use service::Troupes;
pub use wire::{Message, Refusal};
