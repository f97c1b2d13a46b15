//! A call to one of several servers that can all do it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use super::{CallError, Caller, Error, Idempotent, Procedure, Value};
use crate::{CallName, Executed, Failure, Reason, Refusal};

/// Calls whichever of several servers answers. A procedure that may not be executed twice goes to another server only if it was surely
/// not executed; an idempotent one whenever there is no result, and also while there is none yet, if [hedged](Self::hedged).
#[derive(Clone, Debug)]
pub struct Among {
    callers: Vec<Caller>,
    hedge: Option<Duration>,
}

impl Among {
    pub(super) fn new(callers: Vec<Caller>) -> Self {
        Self { callers, hedge: None }
    }

    /// Idempotent procedures are asked of the next server as well when there is no result after so long; the first result counts,
    /// and the other calls are taken back. Default: never.
    #[must_use]
    pub fn hedged(mut self, after: Duration) -> Self {
        self.hedge = Some(after);
        self
    }

    /// Each call has so much time at each server.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.callers = self.callers.into_iter().map(|it| it.deadline(deadline)).collect();
        self
    }

    /// As [`Caller::exactly_once`], at the first server that does not say that it was not executed there.
    ///
    /// # Errors
    /// As [`Caller::exactly_once`]; that of the last server that was asked.
    pub async fn exactly_once<P: Procedure + Clone>(
        &self,
        arguments: P,
    ) -> Result<Value<P>, CallError<Error<P>>> {
        let mut last = Failure::not_at_all(Reason::Unresolved);
        for caller in &self.callers {
            match caller.exactly_once(arguments.clone()).await {
                Err(CallError::Failed(failure)) if failure.executed == Executed::NotAtAll => {
                    last = failure;
                }
                told => return told,
            }
        }
        Err(last.into())
    }

    /// As [`Caller::exactly_once`] under a name, where orphans are [adopted](crate::Orphans::Adoption): a server that is lost in the middle of it, or does not
    /// answer in time, is followed by the next one, which executes the call from its beginning; what the former one had called is not executed again
    /// (RPC-24, RPC-72). Call it again with the same name to have the same result (RPC-25). All takes no longer together than results are
    /// [kept](crate::Orphans::Adoption): the deadlines at later servers are cut to what is left of that. The own node is passed over: a call with a name is not made to it.
    ///
    /// # Errors
    /// As [`Caller::exactly_once`]; that of the last server that was asked. Where two of them may have executed it, in part each, it is
    /// [`Executed::Unknown`].
    pub async fn adopted<P: Procedure + Clone>(
        &self,
        name: CallName,
        arguments: P,
    ) -> Result<Value<P>, CallError<Error<P>>> {
        let mut last = Failure::not_at_all(Reason::Unresolved);
        let begun = self.callers.first().map(Caller::now);
        for caller in &self.callers {
            let mut caller = caller.clone().named(name.clone());
            if let (Some(keep), Some(begun)) = (caller.keep(), begun) {
                let past = caller.now().saturating_since(begun);
                caller.deadline = caller.deadline.min(keep.saturating_sub(past));
            }
            match caller.exactly_once(arguments.clone()).await {
                Err(CallError::Failed(failure)) => {
                    let executed = match (last.executed, failure.executed) {
                        (known, Executed::NotAtAll) | (Executed::NotAtAll, known) => known,
                        _ => Executed::Unknown,
                    };
                    last = Failure { executed, ..failure };
                    // A server that answers in time is not lost: what it says is the outcome.
                    let answered =
                        matches!(failure.reason, Reason::Refused(why) if why != Refusal::Expired);
                    if answered && failure.executed != Executed::NotAtAll {
                        break;
                    }
                }
                told => return told,
            }
        }
        Err(last.into())
    }

    /// As [`Caller::at_least_once`], at one server or several.
    ///
    /// # Errors
    /// As [`Caller::at_least_once`]; that of the last server, after all have failed. An error of the procedure is a result.
    pub async fn at_least_once<P: Idempotent + Clone>(
        &self,
        arguments: P,
    ) -> Result<Value<P>, CallError<Error<P>>> {
        let mut others = self.callers.iter();
        let mut last: Option<Failure> = None;
        let mut running: Vec<Pin<Box<dyn Future<Output = _> + Send>>> = Vec::new();
        let mut timer: Option<Pin<Box<Sleep>>> = None;
        let mut wants_another = true;
        loop {
            if wants_another && let Some(caller) = others.next() {
                running.push(Box::pin(caller.at_least_once(arguments.clone())));
                timer = self.hedge.map(|after| Box::pin(sleep(after)));
            }
            if running.is_empty() {
                let none = Failure::not_at_all(Reason::Unresolved);
                return Err(last.unwrap_or(none).into());
            }
            let told = poll_fn(|context| {
                for (at, future) in running.iter_mut().enumerate() {
                    if let Poll::Ready(told) = future.as_mut().poll(context) {
                        return Poll::Ready(Some((at, told)));
                    }
                }
                match &mut timer {
                    Some(sleep) => sleep.as_mut().poll(context).map(|()| None),
                    None => Poll::Pending,
                }
            })
            .await;
            timer = None;
            wants_another = true;
            match told {
                None => {}
                Some((at, Err(CallError::Failed(failure)))) => {
                    drop(running.swap_remove(at));
                    // Another server may have executed it: then nobody knows.
                    let executed = match last {
                        Some(former) if former.executed != Executed::NotAtAll => former.executed,
                        _ => failure.executed,
                    };
                    last = Some(Failure { executed, ..failure });
                }
                Some((_, told)) => return told,
            }
        }
    }
}
