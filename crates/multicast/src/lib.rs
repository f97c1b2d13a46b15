//! Process groups: FIFO and total order multicast in virtual synchrony, one group at one site as a pure machine.
//!
//! A [`Group`] sends messages to all members of a process group. In *total order* all members deliver the same
//! messages in the same order; in *FIFO order* those of one sender stay in order and wait for nobody. Members that go
//! from one view to the next together have delivered the same messages before it. How far a message must have got
//! before it is delivered, or acknowledged, is a level: `Delivered`, `Majority`, `Safe`, `Disk`.
//!
//! One member of each view, the *sequencer*, gives out positions; data go straight from the sender to all. A view ends
//! by a [`wedge`](Group::wedge); what each member then [knows](Group::flush) makes one [`Cut`], the same for all:
//! members [`hold`](Group::hold) what it names before it is agreed, and then [`install`](Group::install) it. Joiners get
//! the state of the group from a sponsor; members of a `Disk` group that restarted contribute their log
//! ([`Replay`]).
//!
//! What this crate does not do: decide on views (that is `membership`), repair channels (that is `link`: between two
//! boots they must be lossless and FIFO), write, send, or read a clock. Memory is bounded by the budget of each sender
//! ([`Builder::unstable_bytes`]).
//!
//! It is for whoever writes a host, and has no actor of its own: what is between a wedge and an install is safe only as calls within one
//! site. A program that wants a group starts a node with one: `mainstay::Node` and `NodeBuilder::group`, for actors and tasks; one that
//! wants the views alone starts a node without groups.
//!
//! Drive it in turns: any calls, then [`Group::end_turn`], then [`Group::poll_output`] until it answers `None`.
//!
//! ```
//! use std::collections::BTreeSet;
//! use bytes::Bytes;
//! use mainstay_base::{Level, Order};
//! use mainstay_base::{BootNonce, ClusterId, GroupId, Incarnation, Instant, Member, NodeId, SiteId};
//! use mainstay_base::{View, ViewId};
//! use mainstay_multicast::{Agreed, Config, Cut, Event, Group, Output, Start};
//!
//! // A group of one node.
//! let cluster = ClusterId::from_entropy(1);
//! let node = NodeId::new(cluster, "n1");
//! let nodes = BTreeSet::from([node]);
//! let config = Config::new(GroupId::new(cluster, "g"), nodes.clone()).build()?;
//! let me = Member { site: SiteId { node, incarnation: Incarnation(1) }, nonce: BootNonce(7) };
//! let mut group = Group::new(config, me.boot(), Start::Fresh);
//!
//! // Its first view, as agreed elsewhere.
//! let now = Instant::ZERO;
//! let view = View { id: ViewId { number: 1, nonce: 9 }, members: vec![me], ..View::empty(nodes.clone()) };
//! let agreed = Agreed::first(&nodes);
//! let cut = Cut::compute(&[(me.boot(), group.flush())], &agreed, &view);
//! group.hold(now, &cut, &[view.clone()]);
//! group.install(now, &cut, &[view]);
//!
//! let id = group.cast(now, Order::Total, Bytes::from_static(b"hello"), Level::Majority)?;
//! group.end_turn(now);
//! let outputs: Vec<Output> = std::iter::from_fn(|| group.poll_output()).collect();
//! assert!(outputs.iter().any(|output| {
//!     matches!(output, Output::Event(Event::Deliver(batch)) if batch[0].message == id)
//! }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod config;
mod epoch;
mod event;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod fault;
mod flush;
mod group;
mod message;
mod order;
mod record;
mod replay;
mod stats;
mod stream;
mod view;

pub use config::{Builder, Config, ConfigError, Durability};
pub use config::{FRAME_BYTES, FRAME_MESSAGES, MESSAGE_OVERHEAD};
pub use event::{CastError, Delivery, Event, FIFO, Output};
pub use flush::{Agreed, Cut, FlushState, Holder, Settings, Standing, Verdict};
pub use group::{Group, Retired, Start, Status};
pub use message::Message;
pub use order::Run;
pub use record::{Entries, RECORD_KIND, Record};
pub use replay::{Recovered, Replay};
pub use stats::Stats;
pub use view::{GroupView, weight};
