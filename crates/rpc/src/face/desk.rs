//! The actor between the service and its users: it hands calls to what serves them, and outcomes to callers.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use actix::{Actor, AsyncContext as _, Handler};
use mainstay_runtime::Events;
use mainstay_service::ReachError;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::handle::{CallInfo, Shared};
use super::{Context, served::Served};
use crate::{Command, Event, Execution, Failure, Finish, Outcome, Reason, Semantics, Ticket};

/// More events than this cannot wait: each belongs to a call or an execution, and those are bounded.
const UNREAD_MAX: usize = 1 << 20;

/// An execution that has begun.
struct Begun {
    stop: watch::Sender<bool>,
    /// Its future may be dropped.
    abort: Option<AbortHandle>,
}

pub(super) struct Desk {
    shared: Weak<Shared>,
    begun: BTreeMap<Ticket, Begun>,
}

/// An execution came to its end.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Over(Ticket, Finish);

/// The service may be mounted again.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Open;

impl Desk {
    /// Reads the events of the service from here on.
    pub(super) async fn open(shared: &Arc<Shared>) -> Result<(), ReachError> {
        let desk = Self { shared: Arc::downgrade(shared), begun: BTreeMap::new() }.start();
        shared.service.subscribe(desk.clone().recipient(), UNREAD_MAX).await?;
        shared.begin().await
    }

    fn execute(&mut self, execution: Execution, at: &mut actix::Context<Self>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let Execution { ticket, client, procedure, semantics, arguments, left, context, .. } =
            execution;
        let finish = |result| shared.give(Command::Finished { ticket, result });
        let Some(served) = shared.served(procedure) else { return finish(Finish::Failed) };
        let (stop, stopped) = watch::channel(false);
        let until = Instant::now() + left;
        let info = CallInfo { procedure: served.name(), node: client, semantics };
        let bytes = context;
        let ticketed = (semantics != Semantics::Maybe).then_some(ticket);
        let context = Context {
            client,
            ticket: ticketed,
            semantics,
            until,
            bytes,
            stopped,
            shared: Arc::clone(&shared),
        };
        if !shared.admits(&info, &context) {
            return finish(Finish::Denied);
        }
        let may_drop = served.may_drop();
        let running = served.execute(&arguments, context);
        let (me, begun) = (at.address(), Instant::now());
        let task = tokio::task::spawn_local(async move {
            let finish = running.await;
            shared.served_one(&info, &finish, begun.elapsed());
            me.do_send(Over(ticket, finish));
        });
        let abort = may_drop.then(|| task.abort_handle());
        self.begun.insert(ticket, Begun { stop, abort });
    }

    fn stop(&mut self, ticket: Ticket) {
        let Some(begun) = self.begun.get(&ticket) else { return };
        // Nobody listens: then nobody has to hear it.
        let _ = begun.stop.send(true);
        if let Some(abort) = &begun.abort {
            abort.abort();
            self.finish(ticket, Finish::Failed);
        }
    }

    fn finish(&mut self, ticket: Ticket, result: Finish) {
        if self.begun.remove(&ticket).is_some()
            && let Some(shared) = self.shared.upgrade()
        {
            shared.give(Command::Finished { ticket, result });
        }
    }
}

impl Actor for Desk {
    type Context = actix::Context<Self>;

    fn started(&mut self, at: &mut Self::Context) {
        // The service bounds what comes.
        at.set_mailbox_capacity(1 << 16);
    }
}

impl Handler<Events<Event>> for Desk {
    type Result = ();

    fn handle(&mut self, mut events: Events<Event>, at: &mut Self::Context) {
        for event in events.take() {
            match event {
                Event::Over { token, outcome } => {
                    if let Some(shared) = self.shared.upgrade() {
                        shared.over(token, outcome);
                    }
                }
                Event::Execute(execution) => self.execute(execution, at),
                Event::Stop { ticket } => self.stop(ticket),
                Event::Lost { server } => {
                    if let Some(shared) = self.shared.upgrade() {
                        shared.lost(server);
                    }
                }
                Event::Bound { .. } => {}
                Event::Drained => {
                    if let Some(shared) = self.shared.upgrade() {
                        shared.drained();
                    }
                }
            }
        }
        if events.is_end() {
            // What runs was for a service that is gone.
            let tickets: Vec<Ticket> = self.begun.keys().copied().collect();
            for ticket in tickets {
                self.stop(ticket);
            }
            if let Some(shared) = self.shared.upgrade() {
                shared.ended();
                at.notify(Open);
            }
        }
    }
}

impl Handler<Over> for Desk {
    type Result = ();

    fn handle(&mut self, Over(ticket, finish): Over, _: &mut Self::Context) {
        self.finish(ticket, finish);
    }
}

impl Handler<Open> for Desk {
    type Result = ();

    /// A node that was declared dead begins anew, and mounts its services again.
    fn handle(&mut self, Open: Open, at: &mut Self::Context) {
        let (me, shared) = (at.address(), self.shared.clone());
        tokio::task::spawn_local(async move {
            loop {
                let Some(shared) = shared.upgrade() else { return };
                match shared.service.subscribe(me.clone().recipient(), UNREAD_MAX).await {
                    Ok(_) => match shared.begin().await {
                        Ok(()) | Err(ReachError::Closed) => return,
                        Err(_) => {}
                    },
                    Err(ReachError::NotMounted | ReachError::NotStarted | ReachError::Full) => {}
                    Err(_) => return,
                }
                drop(shared);
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
    }
}

/// The outcome of a call whose service has ended.
pub(super) fn ended(semantics: Semantics) -> Outcome {
    Outcome::Failed(Failure { executed: semantics.unknown(), reason: Reason::Ended })
}

pub(super) type Table = BTreeMap<crate::ProcedureId, Arc<dyn Served>>;
