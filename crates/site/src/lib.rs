//! One site: its machines under one actor, with a transport beneath.
//!
//! [`Stack`] is the whole site as one machine: [`link`](mainstay_link), membership and groups, routed by function calls
//! (ADR 0002). `start` hosts it: it joins the Stack to a transport and to one log on disk, recovers it from there, also
//! after the others declared it dead, and gives what each group says to the `Application` on it.
//! Services of any kind are mounted beside the groups (`SiteParts::services`). `start_link` hosts a link alone.
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
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "actor")]
mod actor;
pub mod core;
mod stack;
pub mod trace;

#[cfg(feature = "actor")]
pub use actor::{
    AppPort, Application, CheckpointDone, Founding, Left, Member, MountServices, SiteHandle,
    SiteParts, StackStatus, StartError, Status, StorageError, Suspicion, TraceSink, ViewChanged,
    WeakSite, identity, start, start_link,
};
pub use core::{Core, CoreConfig, Past, Record};
pub use stack::{Input, Output, Stack};
