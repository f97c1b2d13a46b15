//! Lossless FIFO channels between boots of nodes, hello, and the word that a boot is dead.
//!
//! Alone, over TCP, in an actor of its own ([`actor`]; feature `actor`, on by default):
//!
#![cfg_attr(feature = "actor", doc = "```")]
#![cfg_attr(not(feature = "actor"), doc = "```ignore")]
//! use mainstay_base::ClusterId;
//! use mainstay_link::actor::{LinkEvent, LinkParts, open};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> { tokio::task::LocalSet::new().run_until(async {
//! # let free = || std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
//! # let addresses = [free()?, free()?];
//! let roster = ["ann", "bob"].map(str::to_owned).into_iter().zip(addresses).collect();
//! let parts = |name, roster| LinkParts::tcp(ClusterId::from_entropy(7), name, roster);
//! let (ann, mut told_ann) = open(parts("ann", std::collections::BTreeMap::clone(&roster))?)?;
//! let (_bob, mut told_bob) = open(parts("bob", roster)?)?; // Or start(parts, recipient): to an actix actor.
//! let sent = ann.send("bob", "hello").await?; // Waits for the first meeting, and for a slow reader.
//! assert_eq!(sent.number, 1);
//! loop {
//!     match told_bob.next().await.expect("it runs") {
//!         LinkEvent::Message { from, payload } => break assert_eq!((&*from.name, &payload[..]), ("ann", &b"hello"[..])),
//!         event => println!("{event:?}"), // Up, Down; Replaced, with the numbers of messages that are open.
//!     }
//! }
//! while !matches!(told_ann.next().await, Some(LinkEvent::Acknowledged { upto: 1, .. })) {}
//! # Ok(()) }).await }
//! ```
//!
//! # The machine
//!
//! One [`Link`] per node speaks with all configured peers over connections that its host opens and that may break at any
//! time. Above it, loss, duplication and reordering are invisible (MB-27), nothing meant for one boot of a node reaches
//! another (MB-25), and an isolated boot is heard no more and is told (MB-7, MB-8). The link suspects nobody: it says
//! what it heard, and that a dial was refused. It opens no socket, reads no clock and encrypts nothing.
//!
//! The protocol, its assumptions and its properties are in `docs/protocols/link.md` of the
//! repository.
//!
//! ```
//! use mainstay_base::{BootId, BootNonce, ClusterId, ConnId, Instant, Machine, NodeId};
//! use mainstay_link::{Config, Event, Input, Link, Output};
//!
//! let cluster = ClusterId::from_entropy(1);
//! let mut boots = ["a", "b"].map(|name| BootId { node: NodeId::new(cluster, name), nonce: BootNonce(7) });
//! boots.sort(); // The smaller node dials.
//! let [a, b] = boots;
//! let link = |me: BootId, peer: BootId| {
//!     Config::lan(cluster, me, [peer.node].into()).build().map(|config| Link::new(config, 1, Instant::ZERO))
//! };
//! let mut links = [link(a, b)?, link(b, a)?];
//! let (conn, now) = (ConnId(1), Instant::ZERO);
//! links[0].handle(now, Input::Opened { conn, dialled: Some(b.node) });
//! links[1].handle(now, Input::Opened { conn, dialled: None });
//! let mut inbox = Vec::new();
//! for round in 0..8 {
//!     let (at, other) = (round % 2, 1 - round % 2);
//!     links[at].end_turn(now);
//!     let outputs: Vec<Output> = std::iter::from_fn(|| links[at].poll_output()).collect();
//!     for output in outputs {
//!         match output {
//!             Output::Transmit { frame, .. } => links[other].handle(now, Input::Received { conn, frame }),
//!             Output::Event(Event::Up { boot, .. }) => links[at].handle(now, Input::Send {
//!                 to: boot.node, boot: None, channel: 1, meta: "hi".into(), payload: "there".into(),
//!             }),
//!             Output::Event(Event::Deliver { from, payload, .. }) => inbox.push((from, payload)),
//!             _ => {}
//!         }
//!     }
//! }
//! assert_eq!(inbox, [(b, "there".into()), (a, "there".into())]);
//! # Ok::<(), mainstay_link::ConfigError>(())
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "actor")]
pub mod actor;
mod config;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod fault;
mod machine;
pub mod message;
mod stats;

pub use config::{Builder, Config, ConfigError};
pub use machine::{Event, Input, Link, Mismatch, NotSent, Output, Unsettled};
pub use stats::Stats;
