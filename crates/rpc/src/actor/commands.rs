//! Calls as messages: for actors that call by a recipient.

use std::fmt;

use mainstay_runtime::{ActorMessage, Carries, LocalFuture};

use super::{Atomic, CallError, Caller, Error, Idempotent, Procedure, Value};
use crate::Failure;

macro_rules! call {
    ($(#[$doc:meta])* $name:ident, $bound:ident, $method:ident, $result:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name<P>(pub P);

        impl<P: $bound> ActorMessage for $name<P> {
            type Result = $result;
        }

        impl<P: $bound> Carries<$name<P>> for Caller {
            fn carry(&self, $name(arguments): $name<P>) -> LocalFuture<$result> {
                Box::pin(self.$method(arguments))
            }
        }

        impl<P: fmt::Debug> fmt::Debug for $name<P> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.0).finish()
            }
        }
    };
}

call! {
    /// A call as a message to the [`Porter`](mainstay_runtime::Porter) of a [`Caller`]; answered as [`Caller::exactly_once`] is.
    ExactlyOnce, Procedure, exactly_once, Result<Value<P>, CallError<Error<P>>>
}

call! {
    /// A call as a message to the [`Porter`](mainstay_runtime::Porter) of a [`Caller`]; answered as [`Caller::at_least_once`] is.
    AtLeastOnce, Idempotent, at_least_once, Result<Value<P>, CallError<Error<P>>>
}

call! {
    /// A call as a message to the [`Porter`](mainstay_runtime::Porter) of a [`Caller`]; answered as [`Caller::at_most_once`] is.
    AtMostOnce, Atomic, at_most_once, Result<Value<P>, CallError<Error<P>>>
}

call! {
    /// A call without a result as a message to the [`Porter`](mainstay_runtime::Porter) of a [`Caller`]; answered as [`Caller::maybe`] is.
    Maybe, Procedure, maybe, Result<(), Failure>
}
