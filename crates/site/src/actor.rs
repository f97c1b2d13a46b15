//! The site in its host, with a transport beneath it.

mod application;
mod hosted;
pub mod identity;
mod log;
mod machine;
mod parts;
mod seats;
mod services;
mod status;
mod storage;
mod trace;
mod views;

pub use application::{AppPort, Application, CheckpointDone};
pub use hosted::{SiteHandle, WeakSite, start};
pub use parts::{Founding, MountServices, SiteParts, StartError};
pub use status::{StackStatus, Status, Suspicion};
pub use storage::StorageError;
pub use trace::TraceSink;
pub use views::{Member, ViewChanged};
