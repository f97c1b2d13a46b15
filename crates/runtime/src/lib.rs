//! The host of every machine: actors, turns, timers, ports, the TCP transport and the log-writer thread.
//!
//! This is the only crate of the workspace that names actix, and the only one that opens a socket. It drives any
//! [`Machine`](mainstay_base::Machine) by the law of driving ([`host`]), holds what is outside a node behind small
//! traits ([`ports`]), and implements them for production ([`tcp`], [`log_writer`], [`FileDisk`], [`TokioTime`], [`OsEntropy`]).
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

pub mod beacon;
pub mod bell;
mod beside;
mod causes;
mod entropy;
mod events;
mod file_disk;
pub mod host;
pub mod log_writer;
pub mod ports;
mod shelf;
mod stable_log;
pub mod tcp;
mod time;

pub use actix::Recipient;
pub use beacon::{Beacon, Beat, Pulse};
pub use bell::{Bell, Inbox, Intake, Place, inbox};
pub use beside::{caught, drop_beside};
pub use causes::with_causes;
pub use entropy::{OsEntropy, SeededEntropy};
pub use events::{Door, Events, Subscriber};
pub use file_disk::FileDisk;
pub use host::{
    Closed, HostHandle, HostOptions, HostSink, Hosted, Perform, Port, SendError, TurnBudget,
    TurnStats, WeakHandle, halt,
};
pub use log_writer::{LogDevice, LogOptions, LogWriter};
pub use ports::{
    ClientDialer, ClientListener, ClientStream, CloseReason, Completed, DialError, Disk, Entropy,
    EntropyError, EventSink, IoId, LocalFuture, LogError, Ports, Record, SinkClosed, Space, Store,
    StoreError, TimeSource, Transport, TransportEvent,
};
pub use shelf::{CheckpointError, Shelf, Stop, blocking, is_short, is_short_still};
pub use stable_log::{LogCut, StableLog};
pub use tcp::{Tcp, TcpClients, TcpDialer, TcpError, TcpOptions, TcpReserved, TcpStats};
pub use time::TokioTime;
