//! One site: its machines under one actor, with a transport beneath.
//!
//! So far the only machine of a site is the [`link`](mainstay_link): [`start_link`] hosts it and joins it to a
//! transport. Membership and groups will stand on it in the same actor, routed by function calls (ADR 0002).
//!
//! ```
//! use std::{collections::BTreeMap, rc::Rc};
//! use mainstay_base::{BootId, BootNonce, ClusterId, NodeId};
//! use mainstay_link::{Config, Event, Input};
//! use mainstay_runtime::{HostOptions, Tcp, TcpOptions, TokioTime};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = ClusterId::from_entropy(1);
//! let [a, b] = ["a", "b"].map(|name| BootId { node: NodeId::new(cluster, name), nonce: BootNonce(7) });
//! let time = Rc::new(TokioTime::new());
//! let tcp = || Tcp::new(TcpOptions::listening("127.0.0.1:0".parse().expect("an address")), time.clone());
//! let (tcp_a, tcp_b) = (tcp()?, tcp()?);
//! let addresses = BTreeMap::from([
//!     (a.node, tcp_a.local_addr().expect("it listens")),
//!     (b.node, tcp_b.local_addr().expect("it listens")),
//! ]);
//! let (done, mut greeted) = tokio::sync::mpsc::channel(1);
//! tokio::task::LocalSet::new().run_until(async {
//!     let links = [(a, b, tcp_a), (b, a, tcp_b)].map(|(me, peer, tcp)| {
//!         let config = Config::lan(cluster, me, [peer.node].into()).build().expect("the preset is valid");
//!         let done = done.clone();
//!         let (addresses, time) = (addresses.clone(), time.clone());
//!         mainstay_site::start_link(config, 1, Box::new(tcp), addresses, time, HostOptions::default(), move |event| match event {
//!             Event::Up { boot, .. } => vec![Input::Send {
//!                 to: boot.node, boot: Some(boot.nonce), channel: 1, meta: "hello".into(), payload: "there".into(),
//!             }],
//!             Event::Deliver { payload, .. } => { let _ = done.try_send(payload); Vec::new() }
//!             _ => Vec::new(),
//!         })
//!     });
//!     assert_eq!(greeted.recv().await, Some("there".into()));
//!     drop(links);
//! }).await;
//! # Ok(()) }
//! ```

#[cfg(feature = "actor")]
mod actor;

#[cfg(feature = "actor")]
pub use actor::start_link;
