//! Between the service and its users: outcomes go to callers in the turn of the service, calls to what serves them by an actor, on the
//! thread on which the handle was opened.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext as _, Handler};
use mainstay_base::rack::{Offered, Reader};
use mainstay_service::ReachError;
use tokio::task::AbortHandle;

use super::Context;
use super::handle::{CallInfo, OpenError, Shared};
use super::served::{Running, Served};
use super::stop::Stop;
use crate::{Command, Event, Execution, Failure, Finish, Outcome, Reason, Semantics, Ticket};

/// Between two attempts to find a service that was mounted anew.
const AGAIN: Duration = Duration::from_millis(20);

/// What the service tells. It is never full: each event belongs to a call or an execution, and those are bounded.
struct Post {
    shared: Weak<Shared>,
    desk: Addr<Desk>,
    standing: Arc<AtomicU8>,
}

/// The service has not taken it yet.
const NEW: u8 = 0;
/// The service has it: when it is dropped the service has ended.
const TAKEN: u8 = 1;
const DROPPED: u8 = 2;

impl Post {
    /// Gives it to the service. False: another handle has done that.
    async fn attach(shared: &Arc<Shared>, desk: Addr<Desk>) -> Result<bool, ReachError> {
        let standing = Arc::new(AtomicU8::new(NEW));
        let post = Self { shared: Arc::downgrade(shared), desk, standing: Arc::clone(&standing) };
        if shared.service.attach(post).await?.is_none() {
            return Ok(false);
        }
        let taken = standing.compare_exchange(NEW, TAKEN, Ordering::SeqCst, Ordering::SeqCst);
        // It may have ended again meanwhile.
        taken.map(|_| true).map_err(|_| ReachError::NotMounted)
    }
}

impl Reader<Event> for Post {
    fn is_exclusive(&self) -> bool {
        self.shared.strong_count() > 0
    }

    fn read(&mut self, events: Vec<Event>) -> Offered {
        let Some(shared) = self.shared.upgrade() else { return Offered::Gone };
        let mut work = Vec::new();
        for event in events {
            match event {
                Event::Over { token, outcome } => shared.over(token, outcome),
                Event::Lost { server } => shared.lost(server),
                Event::Drained => shared.drained(),
                Event::Bound { .. } => {}
                Event::Execute(_) | Event::Stop { .. } => work.push(event),
            }
        }
        if !work.is_empty() {
            self.desk.do_send(Work(work));
        }
        Offered::Room
    }
}

impl Drop for Post {
    /// The service is gone: its node has ended, or was declared dead and begins anew.
    fn drop(&mut self) {
        if self.standing.swap(DROPPED, Ordering::SeqCst) == TAKEN {
            if let Some(shared) = self.shared.upgrade() {
                shared.ended();
            }
            self.desk.do_send(Ended);
        }
    }
}

/// Executions to begin and to stop.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Work(Vec<Event>);

/// The service is gone.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Ended;

/// Something is to run where the service's users are: what it makes may not be sent between threads.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(super) struct Run(pub(super) Box<dyn FnOnce() -> Running<()> + Send>);

/// An execution that has begun.
struct Begun {
    stop: Stop,
    /// Its future may be dropped.
    abort: Option<AbortHandle>,
}

type Executions = Rc<RefCell<BTreeMap<Ticket, Begun>>>;

pub(super) struct Desk {
    shared: Weak<Shared>,
    begun: Executions,
    /// What the service tells and is not begun or stopped yet, in order. Each belongs to an execution, and those are bounded.
    waiting: VecDeque<Event>,
    /// Others on this thread have their turn before more begins.
    rests: bool,
}

/// So many executions begin before others on this thread have their turn. If all calls of a client were answered in one message, client
/// and server would work by turns; so the client works on the first answers while the server executes the next calls.
const BEGIN_MAX: usize = 16;

/// The rest is over.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct GoOn;

/// An execution, in its task. The service hears of its end in any case.
struct Doing {
    begun: Executions,
    shared: Arc<Shared>,
    ticket: Ticket,
}

impl Doing {
    fn finish(&self, result: Finish) {
        if self.begun.borrow_mut().remove(&self.ticket).is_some() {
            self.shared.give(Command::Finished { ticket: self.ticket, result });
        }
    }
}

impl Drop for Doing {
    /// It has panicked, unless it has finished.
    fn drop(&mut self) {
        self.finish(Finish::Failed);
    }
}

impl Desk {
    /// Reads the events of the service from here on.
    pub(super) async fn open(shared: &Arc<Shared>) -> Result<(), OpenError> {
        let (begun, waiting) = (Rc::default(), VecDeque::new());
        let desk = Self { shared: Arc::downgrade(shared), begun, waiting, rests: false }.start();
        if !Post::attach(shared, desk.clone()).await? {
            return Err(OpenError::Taken);
        }
        shared.set_desk(desk.recipient());
        Ok(shared.begin().await?)
    }

    fn execute(&self, shared: &Arc<Shared>, execution: Execution) {
        let Execution { ticket, client, life, procedure, semantics, arguments, .. } = execution;
        let Execution { left, context, .. } = execution;
        let finish = |result| shared.give(Command::Finished { ticket, result });
        let Some(served) = shared.served(procedure) else { return finish(Finish::NotServed) };
        let stop = Stop::default();
        let info = CallInfo { procedure: served.name(), node: client, semantics };
        let context = Context {
            client,
            life,
            ticket: Some(ticket),
            semantics,
            until: shared.now() + left,
            bytes: context,
            stop: stop.clone(),
            shared: Arc::clone(shared),
        };
        let may_drop = served.may_drop();
        let doing = Doing { begun: Rc::clone(&self.begun), shared: Arc::clone(shared), ticket };
        // What users wrote runs in here, where a panic ends this execution and nothing else.
        let task = tokio::task::spawn_local(async move {
            let of = &doing.shared;
            if !of.admits(&info, &context) {
                return doing.finish(Finish::Denied);
            }
            let at = of.has_interceptors().then(|| of.now());
            let result = served.execute(&arguments, context).await;
            if let Some(at) = at {
                of.served_one(&info, &result, of.now().saturating_since(at));
            }
            doing.finish(result);
        });
        let abort = may_drop.then(|| task.abort_handle());
        self.begun.borrow_mut().insert(ticket, Begun { stop, abort });
    }

    fn work(&mut self, at: &mut actix::Context<Self>) {
        let Some(shared) = self.shared.upgrade() else { return };
        if self.rests {
            return;
        }
        for event in self.waiting.drain(..self.waiting.len().min(BEGIN_MAX)).collect::<Vec<_>>() {
            match event {
                Event::Execute(execution) => self.execute(&shared, execution),
                Event::Stop { ticket } => self.stop(ticket),
                _ => {}
            }
        }
        if !self.waiting.is_empty() {
            self.rests = true;
            let desk = at.address();
            // It has its turn behind all that was begun.
            tokio::task::spawn_local(async move { desk.do_send(GoOn) });
        }
    }

    fn stop(&self, ticket: Ticket) {
        let mut begun = self.begun.borrow_mut();
        let Some(it) = begun.get(&ticket) else { return };
        it.stop.stop();
        if let Some(abort) = &it.abort {
            abort.abort();
            begun.remove(&ticket);
            if let Some(shared) = self.shared.upgrade() {
                shared.give(Command::Finished { ticket, result: Finish::Failed });
            }
        }
    }
}

impl Actor for Desk {
    type Context = actix::Context<Self>;
}

impl Handler<Work> for Desk {
    type Result = ();

    fn handle(&mut self, Work(events): Work, at: &mut Self::Context) {
        self.waiting.extend(events);
        self.work(at);
    }
}

impl Handler<GoOn> for Desk {
    type Result = ();

    fn handle(&mut self, GoOn: GoOn, at: &mut Self::Context) {
        self.rests = false;
        self.work(at);
    }
}

impl Handler<Run> for Desk {
    type Result = ();

    fn handle(&mut self, Run(run): Run, _: &mut Self::Context) {
        tokio::task::spawn_local(run());
    }
}

impl Handler<Ended> for Desk {
    type Result = ();

    /// What runs was for a service that is gone. A node that was declared dead begins anew, and mounts its services again.
    fn handle(&mut self, Ended: Ended, at: &mut Self::Context) {
        let tickets: Vec<Ticket> = self.begun.borrow().keys().copied().collect();
        for ticket in tickets {
            self.stop(ticket);
        }
        self.begun.borrow_mut().clear();
        self.waiting.clear();
        let (desk, shared) = (at.address(), self.shared.clone());
        tokio::task::spawn_local(async move {
            loop {
                let Some(it) = shared.upgrade() else { return };
                match Post::attach(&it, desk.clone()).await {
                    // Another handle has been opened meanwhile.
                    Ok(false) => return,
                    Ok(true) => {
                        // If it is gone again, its end is told.
                        let _ = it.begin().await;
                        return;
                    }
                    Err(
                        ReachError::NotMounted
                        | ReachError::NotStarted
                        | ReachError::Fallen
                        | ReachError::Full,
                    ) => {}
                    Err(_) => return,
                }
                drop(it);
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
}

/// The outcome of a call whose service has ended.
pub(super) fn ended(semantics: Semantics) -> Outcome {
    Outcome::Failed(Failure { executed: semantics.unknown(), reason: Reason::Ended })
}

pub(super) type Table = BTreeMap<crate::ProcedureId, Arc<dyn Served>>;
