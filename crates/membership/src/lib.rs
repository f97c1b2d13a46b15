//! Agreed views of the working sites: failure detector and view manager after Birman and Joseph.
//!
//! One [`Membership`] per node. It suspects members that fall silent, and agrees with the other nodes on one sequence of
//! [`View`]s: the oldest member that is not suspected manages, proposes an extension of the sequence, collects the
//! acknowledgements (each carries what the groups of that member know), fixes the *cut* of the old view, and commits.
//! Any minority of the configured nodes may crash at any moment; no two nodes ever install different views under one
//! number. What it does not know: groups, messages, sockets, clocks. The flush state and the cut are opaque bytes to it.
//!
//! It is a machine for whoever writes a host, and has no actor of its own: what it asks for between two views (wedge, flush, hold, install) is safe only as
//! one call within one site. A program that wants views and nothing else starts a node without groups: `mainstay::Node`
//! with `Node::views`, for actors and tasks; the example `views` of the crate `mainstay` is one.
//!
//! `docs/protocols/view-change.md` of the repository is the protocol with its argument; the crate's tests explore it
//! exhaustively.
//!
//! ```
//! use mainstay_base::{BootId, BootNonce, ClusterId, Instant, Machine as _, NodeId};
//! use bytes::Bytes;
//! use mainstay_membership::{Config, Durable, Input, Membership, Output};
//!
//! // A cluster of one node: it forms its first view alone.
//! let cluster = ClusterId::from_entropy(1);
//! let me = BootId { node: NodeId::new(cluster, "n1"), nonce: BootNonce(7) };
//! let durable = Durable::bootstrap([me.node]);
//! let mut machine = Membership::recover(Config::default(), me, durable, Instant::ZERO);
//! let (mut now, mut installed) = (Instant::ZERO, Vec::new());
//! while installed.is_empty() {
//!     machine.end_turn(now);
//!     let mut answers = Vec::new();
//!     while let Some(output) = machine.poll_output() {
//!         match output {
//!             Output::Persist { io, .. } => answers.push(Input::Persisted { io }),
//!             Output::Wedge => answers.push(Input::Flushed { state: Bytes::new() }),
//!             Output::ComputeCut { .. } => answers.push(Input::Cut { cut: Bytes::new(), annex: Bytes::new() }),
//!             Output::Hold { extension } => answers.push(Input::Held { view: extension.last().id }),
//!             Output::Install { extension, .. } => installed = extension.views,
//!             _ => {}
//!         }
//!     }
//!     if answers.is_empty() && installed.is_empty() {
//!         now = machine.poll_timeout().expect("it waits for others to come up");
//!         machine.handle_timeout(now);
//!     }
//!     answers.into_iter().for_each(|input| machine.handle(now, input));
//! }
//! assert_eq!(installed[0].id.number, 1);
//! assert_eq!(installed[0].members[0].boot(), me);
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod config;
mod detector;
mod durable;
mod fault;
pub mod founding;
mod io;
mod manager;
mod membership;
mod message;
mod suspicion;
mod view;
mod voter;

pub use config::{Config, ConfigError};
pub use durable::Durable;
#[cfg(feature = "test-util")]
pub use fault::Fault;
pub use io::{Evidence, Input, Output, Role, Stats};
pub use membership::Membership;
pub use message::{Ballot, Extension, Message};
pub use view::{Member, View};
