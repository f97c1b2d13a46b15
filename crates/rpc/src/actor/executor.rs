//! What is executed for the service of calls: by actors, on the thread on which the handle was opened.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mainstay_service::{ReachError, ServiceHandle};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::Context;
use super::context::Level;
use super::handle::Shared;
use super::seams::CallInfo;
use super::served::Served;
use super::stop::Stop;
use super::trace;
use crate::{Command, Event, Execution, Failure, Finish, Outcome, Reason, Rpc, Semantics, Ticket};

impl mainstay_service::Front for Shared {
    type Service = Rpc;

    fn service(&self) -> &ServiceHandle<Rpc> {
        &self.service
    }

    fn read(&self, event: Event) -> Option<Event> {
        match event {
            Event::Over { token, outcome } => self.over(token, outcome),
            Event::Lost { server } => self.lost(server),
            Event::Drained => self.drained(),
            Event::Parted { token, why } => self.parted(token, why),
            Event::Forsaken { client, life } => self.forsake(client, life),
            Event::Bound { .. } => {}
            Event::Execute(_) | Event::Stop { .. } => return Some(event),
        }
        None
    }

    async fn begin(&self) -> Result<(), ReachError> {
        self.tell_served().await
    }

    fn ended(&self) {
        self.end();
    }

    async fn close(self: Arc<Self>, within: Duration) {
        if timeout(within, self.drain()).await.is_err() {
            let _ = self.service.send(Command::Close).await;
            // The word has been heard, and what it says has been said, when this is answered.
            let _ = self.service.status().await;
        }
    }
}

/// An execution that has begun.
struct Begun {
    stop: Stop,
    /// Its future may be dropped.
    abort: Option<AbortHandle>,
}

type Executions = Rc<RefCell<BTreeMap<Ticket, Begun>>>;

#[derive(Default)]
pub(super) struct Executor {
    begun: Executions,
}

/// An execution, in its task. The service hears of its end in any case.
struct Doing {
    begun: Executions,
    shared: Arc<Shared>,
    ticket: Ticket,
    stop: Stop,
    level: Arc<Level>,
}

impl Doing {
    fn finish(&self, result: Finish) {
        if self.stop.is_stopped() || !matches!(result, Finish::Value(_)) {
            self.shared.end_offers_of(&self.level);
        }
        if self.begun.borrow_mut().remove(&self.ticket).is_some() {
            self.shared.commands.give(Command::Finished { ticket: self.ticket, result });
        }
    }
}

impl Drop for Doing {
    /// It has panicked, unless it has finished.
    fn drop(&mut self) {
        if self.begun.borrow().contains_key(&self.ticket) || self.stop.is_stopped() {
            self.finish(Finish::Failed);
        }
    }
}

impl Executor {
    fn execute(&self, shared: &Arc<Shared>, execution: Execution) {
        let Execution { ticket, client, life, procedure, semantics, arguments, .. } = execution;
        let Execution { left, context, .. } = execution;
        let finish = |result| shared.commands.give(Command::Finished { ticket, result });
        let Some(served) = shared.served(procedure) else { return finish(Finish::NotServed) };
        let stop = Stop::default();
        let info = CallInfo { procedure: served.name(), node: client, semantics };
        let (trace, bytes) = trace::unpack(context);
        #[cfg(feature = "tracing")]
        let (span, trace) = trace::executing(shared, &info, trace);
        let context = Context {
            client,
            life,
            ticket: Some(ticket),
            semantics,
            until: shared.now() + left,
            bytes,
            trace,
            #[cfg(feature = "tracing")]
            span: span.clone(),
            stop: stop.clone(),
            level: Arc::default(),
            shared: Arc::clone(shared),
        };
        let may_drop = served.may_drop();
        let (begun, shared, level) =
            (Rc::clone(&self.begun), Arc::clone(shared), Arc::clone(&context.level));
        let doing = Doing { begun, shared, ticket, stop: stop.clone(), level };
        // What users wrote runs in here, where a panic ends this execution and nothing else.
        let work = async move {
            let of = &doing.shared;
            if !of.admits(&info, &context) {
                return doing.finish(Finish::Denied);
            }
            let at = of.has_interceptors().then(|| of.now());
            let result = served.execute(&arguments, context).await;
            if let Some(at) = at {
                of.served_one(&info, &result, of.now().saturating_since(at));
            }
            let is_gone = result == Finish::NotServed;
            doing.finish(result);
            if is_gone {
                let of = Arc::clone(&doing.shared);
                of.lapse(procedure, &served).await;
            }
        };
        #[cfg(feature = "tracing")]
        let work = trace::within(&span, work);
        let task = tokio::task::spawn_local(work);
        let abort = may_drop.then(|| task.abort_handle());
        self.begun.borrow_mut().insert(ticket, Begun { stop, abort });
    }

    fn stop(&self, shared: Option<&Arc<Shared>>, ticket: Ticket) {
        let mut begun = self.begun.borrow_mut();
        let Some(it) = begun.get(&ticket) else { return };
        it.stop.stop();
        if let Some(abort) = &it.abort {
            abort.abort();
            begun.remove(&ticket);
            if let Some(shared) = shared {
                shared.commands.give(Command::Finished { ticket, result: Finish::Failed });
            }
        }
    }
}

impl mainstay_service::Work<Shared> for Executor {
    fn work(&mut self, shared: &Arc<Shared>, event: Event) {
        match event {
            Event::Execute(execution) => self.execute(shared, execution),
            Event::Stop { ticket } => self.stop(Some(shared), ticket),
            _ => {}
        }
    }

    fn ended(&mut self, shared: Option<&Arc<Shared>>) {
        let tickets: Vec<Ticket> = self.begun.borrow().keys().copied().collect();
        for ticket in tickets {
            self.stop(shared, ticket);
        }
        self.begun.borrow_mut().clear();
    }
}

/// The outcome of a call whose service has ended.
pub(super) fn ended(semantics: Semantics) -> Outcome {
    Outcome::Failed(Failure { executed: semantics.unknown(), reason: Reason::Ended })
}

pub(super) type Table = BTreeMap<crate::ProcedureId, Arc<dyn Served>>;
