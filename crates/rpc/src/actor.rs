//! The user's side: procedures as actix messages, who serves them, who calls them.

mod among;
mod caller;
mod commands;
mod context;
mod executor;
#[cfg(feature = "gateway")]
pub mod gateway;
mod handle;
mod local;
#[cfg(feature = "names")]
mod names;
mod notices;
#[cfg(feature = "names")]
mod registry;
mod seams;
mod served;
mod servers;
mod stop;
#[cfg(feature = "streams")]
mod stream;
#[cfg(not(feature = "streams"))]
#[path = "actor/no_stream.rs"]
mod stream;
mod trace;

use std::fmt;

use mainstay_base::service::Never;
use mainstay_runtime::{ActorMessage, wall_clock};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

pub use among::Among;
pub use caller::Caller;
pub use commands::{AtLeastOnce, AtMostOnce, ExactlyOnce, Maybe};
pub use context::{Context, Incoming};
pub use handle::{RpcHandle, ServeError};
pub use mainstay_service::OpenError;
#[cfg(feature = "names")]
pub use names::{Following, Names, NamesError, Registered};
#[cfg(feature = "names")]
pub use registry::RegistryError;
pub use seams::{CallInfo, Interceptor, Resolver};
pub use servers::Servers;
#[cfg(feature = "streams")]
pub use stream::{Items, Offer, OfferError, Reading, WriteError};
pub use trace::Trace;

use crate::{Config, Failure, ProcedureId};

/// What an actor answers to a procedure: a value, or an error of its own. Implemented for every `Result` of types that travel.
pub trait Reply: Send + 'static {
    /// What a call that succeeds gives.
    type Value: Serialize + DeserializeOwned + Send + 'static;
    /// What the procedure itself may say instead.
    type Error: Serialize + DeserializeOwned + Send + 'static;

    /// As a result.
    ///
    /// # Errors
    /// What the procedure says.
    fn into_result(self) -> Result<Self::Value, Self::Error>;

    /// From a result.
    fn from_result(result: Result<Self::Value, Self::Error>) -> Self;
}

impl<V, E> Reply for Result<V, E>
where
    V: Serialize + DeserializeOwned + Send + 'static,
    E: Serialize + DeserializeOwned + Send + 'static,
{
    type Value = V;
    type Error = E;

    fn into_result(self) -> Self {
        self
    }

    fn from_result(result: Self) -> Self {
        result
    }
}

/// A procedure: an actix message whose fields are its arguments and whose result is what it answers. Any actor that handles the message can
/// [serve](RpcHandle::serve) it.
///
/// ```
/// use mainstay_rpc::Procedure;
///
/// #[derive(serde::Serialize, serde::Deserialize, actix::Message)]
/// #[rtype(result = "Result<u64, String>")]
/// struct Withdraw { account: u32, amount: u64 }
///
/// impl Procedure for Withdraw {
///     const NAME: &'static str = "bank.withdraw";
/// }
/// ```
pub trait Procedure:
    ActorMessage<Result: Reply> + Serialize + DeserializeOwned + Send + 'static
{
    /// By this it is found at servers: the same for ever.
    const NAME: &'static str;
    /// Which arguments and results these are. A caller's version is told to the server.
    const VERSION: u16 = 1;
    /// The oldest version that a server with these types understands: newer fields have defaults. Default: only this one.
    const OLDEST: u16 = Self::VERSION;

    /// Its name on the wire.
    const ID: ProcedureId = ProcedureId::new(Self::NAME);
}

/// A procedure that may be executed more than once, also late, as if it had been executed once: reading, setting, not adding.
/// [`Caller::at_least_once`] takes no other.
///
/// ```compile_fail,E0277
/// # use mainstay_rpc::{Caller, Procedure};
/// #[derive(serde::Serialize, serde::Deserialize, actix::Message)]
/// #[rtype(result = "Result<u64, String>")]
/// struct Withdraw(u64);
/// impl Procedure for Withdraw { const NAME: &'static str = "bank.withdraw"; }
///
/// async fn twice(bank: Caller) {
///     let _ = bank.at_least_once(Withdraw(100)).await; // `Withdraw` is not `Idempotent`
/// }
/// ```
pub trait Idempotent: Procedure {}

/// A procedure whose effect is whole or none, also when its execution is stopped or its node crashes: a subaction of a transaction, a command of a
/// replicated state machine. Its server has to see to that. [`Caller::at_most_once`] takes no other.
pub trait Atomic: Procedure {}

/// The value of a procedure.
pub type Value<P> = <<P as ActorMessage>::Result as Reply>::Value;
/// The error of a procedure.
pub type Error<P> = <<P as ActorMessage>::Result as Reply>::Error;

/// A call without a value.
#[derive(Error, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CallError<E> {
    /// The procedure was executed (more than once perhaps, if it may be) and says this.
    #[error("the procedure says: {0}")]
    Remote(E),
    /// There is no result. [`Failure::executed`] says what is known.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl<E> CallError<E> {
    /// The failure, if it is one.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Remote(_) => None,
            Self::Failed(failure) => Some(failure),
        }
    }
}

/// A procedure without an error of its own: nothing but failures can come.
impl CallError<Never> {
    /// The failure.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Remote(never) => match never {},
            Self::Failed(failure) => failure,
        }
    }
}

impl Config {
    /// The defaults, for a service that starts now: its crash count is the wall clock.
    #[must_use]
    pub fn started_now() -> Self {
        Self::new(u64::try_from(wall_clock().as_nanos()).unwrap_or(u64::MAX).max(1))
    }
}

impl fmt::Display for ProcedureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "procedure {:016x}", self.0)
    }
}
