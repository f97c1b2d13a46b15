//! A call to the own node: what serves the procedure gets the arguments as they are (RPC-11).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::handle::Shared;
use super::served::Port;
use super::{CallError, Context, Error, Procedure, Reply as _, Value};
use crate::{Failure, Reason, Refusal, Semantics};

pub(super) struct Local<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) deadline: Duration,
    pub(super) context: &'a Bytes,
}

pub(super) async fn call<P: Procedure>(
    local: Local<'_>,
    semantics: Semantics,
    arguments: P,
) -> Result<Value<P>, CallError<Error<P>>> {
    let Local { shared, deadline, context } = local;
    let refused =
        |why: Refusal| Failure { executed: why.executed(semantics), reason: Reason::Refused(why) };
    let served = shared.served(P::ID).ok_or(refused(Refusal::Procedure))?;
    let port = served.as_any().downcast_ref::<Port<P>>();
    // Another type of the same name is served: it may be another version of it.
    let port = port.ok_or(refused(Refusal::Version))?;
    let until = Instant::now() + deadline;
    let (stop, stopped) = watch::channel(false);
    let context = Context {
        client: shared.me,
        ticket: None,
        semantics,
        until,
        bytes: context.clone(),
        stopped,
        shared: Arc::clone(shared),
    };
    let running = port.call(arguments, context);
    match timeout_at(until, running).await {
        Ok(Some(result)) => result.into_result().map_err(CallError::Remote),
        Ok(None) => Err(refused(Refusal::Handler).into()),
        Err(_) => {
            let _ = stop.send(true);
            Err(Failure { executed: semantics.unknown(), reason: Reason::Deadline }.into())
        }
    }
}
