//! Commands of a service as messages.

use std::fmt;

use mainstay_base::service::Service;
use mainstay_runtime::{ActorMessage, Carries, LocalFuture};

use super::handle::{ReachError, ServiceHandle};

/// A command for a service, as a message to the [`Porter`](mainstay_runtime::Porter) of its handle. Answered at once, as
/// [`ServiceHandle::try_send`] is.
pub struct Give<S: Service>(pub S::Command);

impl<S: Service> ActorMessage for Give<S> {
    type Result = Result<(), ReachError>;
}

impl<S: Service> Carries<Give<S>> for ServiceHandle<S> {
    fn carry(&self, Give(command): Give<S>) -> LocalFuture<Result<(), ReachError>> {
        Box::pin(std::future::ready(self.try_send(command)))
    }
}

impl<S: Service<Command: fmt::Debug>> fmt::Debug for Give<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Give").field(&self.0).finish()
    }
}
