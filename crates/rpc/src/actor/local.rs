//! A call to the own node: what serves the procedure gets the arguments as they are (RPC-11).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::handle::Shared;
use super::served::Port;
use super::stop::Stop;
use super::{CallError, Context, Error, Procedure, Reply as _, Value};
use crate::{Failure, Reason, Refusal, Semantics};

/// A longer deadline is cut to this.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

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
    let served = shared.served(P::ID).ok_or_else(|| refused(Refusal::Procedure))?;
    if !served.as_any().is::<Port<P>>() {
        // Another type of the same name is served: it may be another version of it.
        return Err(refused(Refusal::Version).into());
    }
    let until = shared.now() + deadline.min(LONGEST);
    let stop = Stop::default();
    let context = Context {
        client: shared.me,
        ticket: None,
        semantics,
        until,
        bytes: context.clone(),
        stop: stop.clone(),
        shared: Arc::clone(shared),
    };
    let (tell, told) = oneshot::channel();
    shared.run(move || {
        Box::pin(async move {
            if let Some(port) = served.as_any().downcast_ref::<Port<P>>() {
                // Nobody waits any more: then nobody is told.
                let _ = tell.send(port.call(arguments, context).await);
            }
        })
    });
    match timeout(deadline, told).await {
        Ok(Ok(Some(result))) => result.into_result().map_err(CallError::Remote),
        Ok(Ok(None)) => Err(refused(Refusal::Handler).into()),
        Ok(Err(_)) => Err(Failure { executed: semantics.unknown(), reason: Reason::Ended }.into()),
        Err(_) => {
            stop.stop();
            Err(Failure { executed: semantics.unknown(), reason: Reason::Deadline }.into())
        }
    }
}
