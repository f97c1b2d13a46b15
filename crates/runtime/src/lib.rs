//! The host of every machine: actors, turns, timers, ports, the TCP transport and the log-writer thread.
//!
//! This is the only crate of the workspace that names actix, and the only one that opens a socket. It drives any
//! [`Machine`](mainstay_base::Machine) by the law of driving ([`host`]), holds what is outside a node behind small
//! traits ([`ports`]), and implements them for production ([`tcp`], [`log_writer`], [`FileDisk`], [`TokioTime`], [`OsEntropy`]).
//! Without the feature `host`, which is on by default, only what a client needs is left: the clock, entropy, dialling.
//! It knows no protocol: what a frame means is the business of the services.
//!
//! ```
//! use std::rc::Rc;
//! use mainstay_base::{Instant, Machine};
//! use mainstay_runtime::{Closed, HostOptions, Port, TokioTime, host};
//!
//! /// Reports the sum of each turn.
//! #[derive(Default)]
//! struct Summing { sum: u64, out: Option<u64> }
//!
//! impl Machine for Summing {
//!     type Input = u64;
//!     type Output = u64;
//!     fn handle(&mut self, _now: Instant, input: u64) { self.sum += input }
//!     fn handle_timeout(&mut self, _now: Instant) {}
//!     fn end_turn(&mut self, _now: Instant) { self.out = Some(self.sum) }
//!     fn poll_output(&mut self) -> Option<u64> { self.out.take() }
//!     fn poll_timeout(&self) -> Option<Instant> { None }
//! }
//!
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
//! tokio::task::LocalSet::new().block_on(&runtime, async {
//!     let (sums, mut seen) = tokio::sync::mpsc::channel(8);
//!     let perform = move |sum: u64, _: &mut Port<'_, Summing>| sums.try_send(sum).expect("room");
//!     let time = Rc::new(TokioTime::new());
//!     let summing = host::start(Summing::default(), perform, time, HostOptions::default());
//!     summing.send(2).await.expect("it runs");
//!     summing.send(3).await.expect("it runs");
//!     while seen.recv().await != Some(5) {}
//!     summing.stop();
//!     assert_eq!(summing.closed().await, Closed::Stopped);
//! });
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "host")]
pub mod beacon;
#[cfg(feature = "host")]
pub mod bell;
#[cfg(feature = "host")]
mod beside;
mod causes;
#[cfg(feature = "datagrams")]
pub mod datagram;
mod entropy;
#[cfg(feature = "host")]
mod events;
#[cfg(feature = "host")]
mod file_disk;
#[cfg(feature = "host")]
pub mod host;
mod local;
#[cfg(feature = "host")]
pub mod log_writer;
mod loopback;
#[cfg(feature = "host")]
mod memory;
mod outside;
#[cfg(feature = "host")]
mod porter;
#[cfg(feature = "host")]
pub mod ports;
#[cfg(feature = "host")]
mod room;
#[cfg(feature = "host")]
mod shelf;
#[cfg(feature = "host")]
mod stable_log;
#[cfg(feature = "host")]
pub mod tcp;
mod time;

#[cfg(feature = "host")]
pub use actix::{Message as ActorMessage, Recipient};
#[cfg(feature = "host")]
pub use beacon::{Beacon, Beat, Pulse};
#[cfg(feature = "host")]
pub use bell::{Bell, Inbox, Intake, Place, inbox};
#[cfg(feature = "host")]
pub use beside::{caught, drop_beside};
pub use causes::with_causes;
#[cfg(feature = "datagrams")]
pub use datagram::{Arrived, DatagramKey, DatagramKeys, Datagrams, Udp};
pub use entropy::{OsEntropy, SeededEntropy};
#[cfg(feature = "host")]
pub use events::{Door, Events, Subscriber};
#[cfg(feature = "host")]
pub use file_disk::FileDisk;
#[cfg(feature = "host")]
pub use host::{
    Closed, HostHandle, HostOptions, HostSink, Hosted, Perform, Port, SendError, TurnBudget,
    TurnStats, WeakHandle, halt,
};
pub use local::{NoLocalSet, local_set};
#[cfg(feature = "host")]
pub use log_writer::{LogDevice, LogOptions, LogWriter};
pub use loopback::{TcpClients, TcpDialer, TcpError, TcpReserved};
#[cfg(feature = "host")]
pub use memory::huge_pages_from;
pub use outside::{
    Across, ClientDialer, ClientListener, ClientStream, DialError, Entropy, EntropyError,
    LocalFuture, LocalReader, TimeSource,
};
#[cfg(feature = "host")]
pub use porter::{Carries, Porter};
#[cfg(feature = "host")]
pub use ports::{
    CloseReason, Completed, Disk, EventSink, IoId, LogError, Ports, Record, SinkClosed, Space,
    Store, StoreError, Transport, TransportEvent,
};
#[cfg(feature = "host")]
pub use room::Room;
#[cfg(feature = "host")]
pub use shelf::{
    CheckpointError, Shelf, Stop, blocking, discard_checkpoints, is_short, is_short_still,
};
#[cfg(feature = "host")]
pub use stable_log::{LogCut, StableLog};
#[cfg(feature = "host")]
pub use tcp::{Tcp, TcpOptions, TcpStats};
pub use time::{TokioTime, wall_clock};
