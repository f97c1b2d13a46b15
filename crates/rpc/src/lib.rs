//! Remote procedure calls whose outcome is never a lie.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod calls;
mod config;
#[cfg(feature = "actor")]
mod face;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod fault;
mod lines;
mod orphans;
mod outcome;
mod ranges;
mod server;
mod service;
mod wire;

pub use config::{BODY_BYTES_MAX, Carrier, Config, ConfigError, DATAGRAM_BYTES_MAX, Orphans};
#[cfg(feature = "actor")]
pub use face::{
    Atomic, CallError, CallInfo, Caller, Context, Error, Idempotent, Incoming, Interceptor,
    Procedure, Reply, Resolver, RpcHandle, ServeError, Value,
};
pub use outcome::{Executed, Failure, Reason, Semantics};
pub use server::{Counts, Past, Record, Stored};
pub use service::{Command, Event, Execution, Finish, Outcome, Request, Rpc, Status, Ticket};
pub use wire::{Message, ProcedureId, Refusal};
