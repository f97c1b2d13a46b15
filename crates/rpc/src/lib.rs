//! Remote procedure calls whose outcome is never a lie.
//!
//! A [`Procedure`] is an actix message with a name: its fields are the arguments, its result is what it answers. Any actor that handles the
//! message [serves](RpcHandle::serve) it, and a [`Caller`] at another node calls it. What a call promises is said in the call:
//!
//! | method | today's name | with a result | without |
//! |---|---|---|---|
//! | [`exactly_once`](Caller::exactly_once) | at most once | executed once | never or once, perhaps in part |
//! | [`at_least_once`](Caller::at_least_once) | at least once | once or more often | anything; for [`Idempotent`] procedures only |
//! | [`at_most_once`](Caller::at_most_once) | atomic | executed once | not at all or as a whole; for [`Atomic`] procedures only |
//! | [`maybe`](Caller::maybe) | one-way | never waited for | |
//!
//! A call that has no result says what is known of its execution ([`Executed`]) and why ([`Reason`]). *Not at all* means that trying again is
//! safe; everything else is never called so.
//!
//! # The parts
//! [`Rpc`] is the service: a pure machine, client and server in one, on the contract of `mainstay_base::service`. It is mounted on a node, runs
//! beside it, or alone over a link of its own, without membership and without multicast (RPC-49). [`Config`] says how calls travel
//! ([`Carrier`]), whether results outlive a restart, and how orphans are found ([`Orphans`]). With the feature `actor` (the default)
//! [`RpcHandle`] is its face for actix actors. The machine needs `mainstay-base` only.
//!
//! A server is found by its node, or by a name that a [`Resolver`] maps to nodes; [`Names`] is one whose names are registered at run time. [`RpcHandle::watch`] tells of the end of what a
//! node serves, [`RpcHandle::servers`] makes an actor for each client.
//!
//! # Features
//! | feature | default | |
//! |---|---|---|
//! | `actor` | yes | typed procedures, [`RpcHandle`] and [`Caller`], for actix actors |
//! | `streams` | yes | streams of items ([`RpcHandle::offer`], [`Context::offer`]) |
//! | `names` | yes | names that nodes register at run time ([`Names`]) |
//! | `gateway` | no | calls by HTTP and JSON ([`gateway`]) |
//! | `tracing` | no | spans at both ends |
//!
//! Each of them builds without the others but `actor`, which the last four need. Without any there is the machine. Policies for orphans, adoption among them, and stored results are parts of the
//! one machine and always there: [`Config`] says which are used.
//!
//! # What holds
//! - Each call has one outcome (RPC-9), and it is true (RPC-74).
//! - Calls of one [`Caller`] but one-way ones are executed one after the other in their order; nothing of a call that was given up takes effect once a
//!   later one has begun (RPC-5). [`unordered`](Caller::unordered) calls are executed side by side.
//! - A server ends an execution before its client gives up (RPC-20), as long as a message takes no longer than
//!   [`Config::transit_max`] and the server runs. An execution is never ended from outside by force: the future of a function is dropped, an actor
//!   that takes [`Incoming`] is told ([`Context::is_stopped`]), one that takes the procedure alone goes on to its end; what must not run beside
//!   it waits until it has stopped.
//! - Everything is bounded: open calls, what a server takes from each client, executions and their results. *Full* and *busy* are answers.
//! - [`Config::carrier`] and the policy of [`Config::orphans`] are equal at all nodes, or they do not hear each other; a [`Config`] that was changed is
//!   [checked](Config::check) before it is mounted, or mounting panics.
//!
//! # Guests
//! A client need not be in the roster. A node admits guests (`StationParts::guests`, or `Config::guests` of the facade) and opens the service to
//! them; the guest is a station too:
//!
//! ```no_run
//! # use std::{collections::BTreeMap, error::Error, net::SocketAddr};
//! # use mainstay_base::ClusterId;
//! # use mainstay_rpc::{Config, Rpc, RpcHandle};
//! # use mainstay_service::{StationParts, start};
//! # async fn guest(cluster: ClusterId, nodes: BTreeMap<String, SocketAddr>) -> Result<(), Box<dyn Error>> {
//! let parts = StationParts::tcp_guest(cluster, nodes)?;
//! let name = parts.name.clone();
//! let station = start(parts, |node| node.mount::<Rpc>("rpc", Config::started_now()).map(drop))?;
//! let rpc = RpcHandle::open(station.service("rpc"), cluster, &name).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Traces
//! A [`Trace`] crosses nodes with each call: what an execution calls is a part of the trace of its own call. With the feature `tracing` there is a span at each end (`rpc.call` and
//! `rpc.execute`, at the level of info) with the ids of its trace, of itself and of its parent, which is at another node perhaps; a call that is a part of no trace begins one.
//!
//! # What there is not
//! No TLS yet (loopback only); calls of replicated clients and servers are in `mainstay-troupe`; no undo, which needs transactions.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::net::TcpListener;
//! use mainstay_base::{ClusterId, NodeId};
//! use mainstay_rpc::{Config, Procedure, Rpc, RpcHandle};
//! use mainstay_service::{StationParts, start};
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
//! let mut nodes = Vec::new();
//! for name in ["a", "b"] {
//!     let parts = StationParts::tcp(cluster, name, roster.clone(), None)?;
//!     let station = start(parts, |node| node.mount::<Rpc>("rpc", Config::started_now()).map(drop))?;
//!     nodes.push(RpcHandle::open(station.service("rpc"), cluster, name).await?);
//! }
//! nodes[1].serve_fn(|Half(number), _| async move {
//!     if number % 2 == 0 { Ok(number / 2) } else { Err(format!("{number} is odd")) }
//! }).await?;
//! let b = nodes[0].to(NodeId::new(cluster, "b"));
//! assert_eq!(b.exactly_once(Half(8)).await, Ok(4));
//! assert!(b.exactly_once(Half(7)).await.is_err());
//! # Ok(())
//! # })
//! # }
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "actor")]
mod actor;
mod api;
mod calls;
mod config;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod fault;
mod lines;
mod notices;
mod orphans;
mod outcome;
mod ranges;
mod server;
mod service;
mod wire;

#[cfg(feature = "gateway")]
pub use actor::gateway;
#[cfg(feature = "actor")]
pub use actor::{
    Among, AtLeastOnce, AtMostOnce, Atomic, CallError, CallInfo, Caller, Context, Error,
    ExactlyOnce, Idempotent, Incoming, Interceptor, Maybe, OpenError, Procedure, Reply, Resolver,
    RpcHandle, ServeError, Servers, Trace, Value,
};
#[cfg(feature = "names")]
pub use actor::{Following, Names, NamesError, Registered, RegistryError};
#[cfg(feature = "streams")]
pub use actor::{Items, Offer, OfferError, Reading, WriteError};
pub use api::{Command, Event, Execution, Finish, Outcome, Request, Status, Ticket};
pub use config::{BODY_BYTES_MAX, Carrier, Config, ConfigError, DATAGRAM_BYTES_MAX, Orphans};
pub use outcome::{Executed, Failure, Parting, Reason, Semantics};
pub use server::{Counts, Past, Record, Stored};
pub use service::Rpc;
pub use wire::{CallName, Message, ProcedureId, Refusal};
