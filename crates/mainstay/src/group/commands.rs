//! Casts as messages.

use bytes::Bytes;
use mainstay_base::{Level, Order};
use mainstay_runtime::{ActorMessage, Carries, LocalFuture};

use super::{CastError, GroupHandle, Receipt};

/// A message to be cast, as a message to the [`Porter`](crate::Porter) of a [`GroupHandle`]; answered at once, as
/// [`GroupHandle::try_cast_for`] is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CastCommand {
    /// What.
    pub payload: Bytes,
    /// In which order.
    pub order: Order,
    /// The level that is going to be waited for.
    pub level: Level,
}

impl CastCommand {
    /// In this order; delivered is enough.
    #[must_use]
    pub fn new(payload: impl Into<Bytes>, order: Order) -> Self {
        Self { payload: payload.into(), order, level: Level::Delivered }
    }
}

impl ActorMessage for CastCommand {
    type Result = Result<Receipt, CastError>;
}

impl Carries<CastCommand> for GroupHandle {
    fn carry(&self, command: CastCommand) -> LocalFuture<Result<Receipt, CastError>> {
        let CastCommand { payload, order, level } = command;
        Box::pin(std::future::ready(self.try_cast_for(payload, order, level)))
    }
}
