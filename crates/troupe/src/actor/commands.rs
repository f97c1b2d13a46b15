//! Calls as messages: for actors that call by a recipient.

use std::fmt;

use mainstay_rpc::{Error, Procedure, Value};
use mainstay_runtime::{ActorMessage, Carries, LocalFuture};

use super::{CallError, Caller};

/// A call as a message to the [`Porter`](mainstay_runtime::Porter) of a [`Caller`]; answered as [`Caller::call`] is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Call<P>(pub P);

impl<P: Procedure> ActorMessage for Call<P> {
    type Result = Result<Value<P>, CallError<Error<P>>>;
}

impl<P: Procedure> Carries<Call<P>> for Caller {
    fn carry(&self, Call(arguments): Call<P>) -> LocalFuture<<Call<P> as ActorMessage>::Result> {
        Box::pin(self.call(arguments))
    }
}

impl<P: fmt::Debug> fmt::Debug for Call<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Call").field(&self.0).finish()
    }
}
