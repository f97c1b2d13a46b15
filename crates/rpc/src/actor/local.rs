//! A call to the own node: what serves the procedure gets the arguments as they are (RPC-11). Nothing is encoded, so interceptors see a result
//! without its bytes. The bounds of a server, its draining and its orphan policy are about others and do not count here.
//!
//! An execution ends by its deadline of itself, and only then is its caller told (RPC-20): a function is dropped; an actor is told to stop, and what it
//! does from there on counts for nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_base::codec;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::time::{sleep, timeout};

use super::context::Level;
use super::handle::Shared;
use super::seams::CallInfo;
use super::served::{Answer, NoResult, Port};
use super::stop::Stop;
#[cfg(feature = "tracing")]
use super::trace;
use super::trace::Trace;
use super::{CallError, Context, Error, Procedure, Reply as _, Value};
use crate::{Failure, Outcome, Reason, Refusal, Semantics, Ticket};

/// How long after its deadline a caller waits for an execution to end, on a thread that something else blocks.
const BLOCKED: Duration = Duration::from_secs(1);
/// A longer deadline is cut to this.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3_600);

pub(super) struct Local {
    pub(super) shared: Arc<Shared>,
    pub(super) deadline: Duration,
    pub(super) context: Bytes,
    pub(super) trace: Option<Trace>,
    pub(super) parent: Option<Ticket>,
    /// Of the call, among those of its parent.
    pub(super) numbers: Vec<u64>,
    /// Of the execution that calls, if that was called by its own node as well.
    pub(super) parent_stop: Option<Stop>,
    /// The calls of a caller go one after the other.
    pub(super) turn: Option<Arc<Mutex<()>>>,
}

/// What an execution for the own node is stopped by: its future is dropped, or its time is over.
struct Guard {
    shared: Arc<Shared>,
    stop: Stop,
    level: Arc<Level>,
    /// There is a value.
    is_done: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop.stop();
        if !self.is_done {
            self.shared.end_offers_of(&self.level);
        }
    }
}

pub(super) async fn call<P: Procedure>(
    local: Local,
    semantics: Semantics,
    arguments: P,
) -> Result<Value<P>, CallError<Error<P>>> {
    let (shared, begun) = (Arc::clone(&local.shared), local.shared.now());
    let info = CallInfo { procedure: P::NAME, node: shared.me, semantics };
    #[cfg(feature = "tracing")]
    let told = {
        let (span, trace) = trace::calling(&shared, &info, local.trace);
        let local = Local { trace, ..local };
        trace::within(&span, within::<P>(local, &info, arguments)).await
    };
    #[cfg(not(feature = "tracing"))]
    let told = within::<P>(local, &info, arguments).await;
    if shared.has_interceptors() {
        let outcome = match &told {
            Ok(_) => Outcome::Done(Bytes::new()),
            Err(CallError::Remote(_)) => Outcome::Remote(Bytes::new()),
            Err(CallError::Failed(failure)) => Outcome::Failed(*failure),
        };
        shared.called(&info, &outcome, shared.now().saturating_since(begun));
    }
    told
}

async fn within<P: Procedure>(
    local: Local,
    info: &CallInfo,
    arguments: P,
) -> Result<Value<P>, CallError<Error<P>>> {
    let Local { shared, deadline, mut context, trace, parent, numbers, parent_stop, turn } = local;
    let semantics = info.semantics;
    if mainstay_base::fault!(shared, EncodesLocals) {
        drop(codec::encode(&arguments));
    }
    if !shared.is_open() {
        return Err(Failure::not_at_all(Reason::Ended).into());
    }
    if deadline.is_zero() {
        return Err(Failure::not_at_all(Reason::TooLate).into());
    }
    if shared.has_interceptors() {
        let mut bytes = context.to_vec();
        shared.intercepted(info, &mut bytes)?;
        context = bytes.into();
    }
    let until = shared.now() + deadline.min(LONGEST);
    let place = match turn {
        // Those that wait here have not begun.
        Some(turn) if !mainstay_base::fault!(shared, CrowdsLocals) => {
            match timeout(deadline, turn.lock_owned()).await {
                Ok(place) => Some(place),
                Err(_) => return Err(Failure::not_at_all(Reason::Deadline).into()),
            }
        }
        _ => None,
    };
    let (stop, level) = (Stop::default(), Level::below(numbers));
    let context = Context {
        client: shared.me,
        life: 0,
        ticket: parent,
        semantics,
        until,
        bytes: context,
        trace,
        #[cfg(feature = "tracing")]
        span: tracing::Span::none(),
        stop: stop.clone(),
        level: Arc::clone(&level),
        shared: Arc::clone(&shared),
    };
    let told = execute::<P>(&shared, info, arguments, context, place)?;
    let mut guard = Guard { shared: Arc::clone(&shared), stop, level, is_done: false };
    let left = until.saturating_since(shared.now());
    let unknown = |reason| Failure { executed: semantics.unknown(), reason };
    let orphaned = async {
        match parent_stop {
            Some(parent) => parent.stopped().await,
            None => std::future::pending().await,
        }
    };
    let told = tokio::select! {
        biased;
        told = timeout(left + BLOCKED, told) => match told {
            Ok(Ok(Ok(result))) => result.into_result().map_err(CallError::Remote),
            Ok(Ok(Err(NoResult::NotServed))) => {
                Err(Failure::not_at_all(Reason::Refused(Refusal::Procedure)).into())
            }
            Ok(Ok(Err(NoResult::Failed))) => {
                Err(unknown(Reason::Refused(Refusal::Handler)).into())
            }
            Ok(Err(_)) if shared.now() < until => Err(unknown(Reason::Ended).into()),
            Ok(Err(_)) | Err(_) => Err(unknown(Reason::Deadline).into()),
        },
        () = orphaned => Err(unknown(Reason::Orphan).into()),
    };
    guard.is_done = told.is_ok();
    told
}

/// Begins it, on the thread of the handle. The result comes, if the procedure is still served when it is its turn.
pub(super) fn execute<P: Procedure>(
    shared: &Arc<Shared>,
    info: &CallInfo,
    arguments: P,
    #[cfg_attr(not(feature = "tracing"), allow(unused_mut, reason = "it gets a span"))]
    mut context: Context,
    place: Option<OwnedMutexGuard<()>>,
) -> Result<oneshot::Receiver<Answer<P::Result>>, Failure> {
    let refused = |why: Refusal| Failure::not_at_all(Reason::Refused(why));
    let served = shared.served(P::ID).ok_or_else(|| refused(Refusal::Procedure))?;
    if !served.as_any().is::<Port<P>>() {
        // Another type of the same name is served: it may be another version of it.
        return Err(refused(Refusal::Version));
    }
    if !shared.admits(info, &context) {
        return Err(refused(Refusal::Denied));
    }
    let (tell, told) = oneshot::channel();
    let (of, info, begun) = (Arc::clone(shared), *info, shared.now());
    #[cfg(feature = "tracing")]
    {
        (context.span, context.trace) = trace::executing(shared, &info, context.trace);
    }
    #[cfg(feature = "tracing")]
    let span = context.span.clone();
    shared.run(move || {
        let work = async move {
            let Some(port) = served.as_any().downcast_ref::<Port<P>>() else { return };
            // The next call of the caller begins when this one has stopped.
            let (_place, stop) = (place, context.stop.clone());
            let left = context.until.saturating_since(of.now());
            let mut running = port.call(arguments, context);
            let in_time = tokio::select! {
                biased;
                result = &mut running => Some(result),
                () = stop.stopped() => None,
                () = sleep(left) => None,
            };
            let result = match in_time {
                Some(result) => result,
                None => {
                    stop.stop();
                    if served.may_drop() {
                        drop(running);
                        // Only now: its caller is told by that it is gone.
                        return drop(tell);
                    }
                    drop(tell);
                    let result = running.await;
                    return of.was_served(&info, result.err(), begun);
                }
            };
            of.was_served(&info, result.as_ref().err().copied(), begun);
            let is_gone = matches!(result, Err(NoResult::NotServed));
            // Nobody waits any more: then nobody is told.
            let _ = tell.send(result);
            if is_gone {
                of.lapse(P::ID, &served).await;
            }
        };
        #[cfg(feature = "tracing")]
        let work = trace::within(&span, work);
        Box::pin(work)
    });
    Ok(told)
}
