//! One site: its machines under one actor, with a transport beneath.
//!
//! [`Stack`] is the whole site as one machine: [`link`](mainstay_link), membership and groups, routed by function calls
//! (ADR 0002). `start` hosts it: it joins the Stack to a transport and to one log on disk, recovers it from there, also
//! after the others declared it dead, and gives what each group says to the `Application` on it.
//! Services of any kind are mounted beside the groups (`SiteParts::services`). A link alone is `mainstay_link::actor`.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "actor")]
mod actor;
pub mod core;
mod stack;
pub mod trace;

#[cfg(feature = "actor")]
pub use actor::{
    AppPort, Application, CheckpointDone, Founding, Member, MountServices, SiteHandle, SiteParts,
    StackStatus, StartError, Status, StorageError, Suspicion, TraceSink, ViewChanged, WeakSite,
    identity, start,
};
pub use core::{Absence, Core, CoreConfig, Past, Record};
pub use stack::{Input, Output, Stack};
