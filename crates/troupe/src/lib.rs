//! Replicated procedure calls: troupes of clients and of servers.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "actor")]
mod actor;
mod bindings;
mod calls;
mod collate;
mod config;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod fault;
mod ids;
mod join;
mod lines;
mod outcome;
mod record;
mod ringmaster;
mod server;
mod service;
mod wire;

#[cfg(feature = "actor")]
pub use actor::{
    CallError, Caller, Context, Decided, GiveState, Incoming, JoinError, NotSaid, OpenError, Part,
    Replica, Said, TakeState, TroupesHandle,
};
pub use collate::{Answer, Collator};
pub use config::{BODY_BYTES_MAX, Config, ConfigError};
pub use ids::{Binding, CallId, DEPTH_MAX, TroupeId, TroupeName, Version};
pub use outcome::{Failure, Outcome, Reason};
pub use service::{
    Begin, Command, Counts, Event, Execution, Finish, Request, Sequence, Serving, Status, Ticket,
    Troupes,
};
pub use wire::{Message, Refusal};
