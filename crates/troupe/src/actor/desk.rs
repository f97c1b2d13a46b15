//! Between the service and its users: outcomes go to callers in the turn of the service, calls to what serves them by an actor, on the thread
//! on which the handle was opened.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext as _, Handler};
use mainstay_base::rack::{Offered, Reader};
use mainstay_service::ReachError;

use super::handle::{OpenError, Shared, Told, locked};
use super::part::{Inner, Joined};
use super::{Context, Decided, GiveState, TakeState};
use crate::{Command, Event, Execution, Finish, Refusal, Ticket, TroupeName};

/// Between two attempts to find a service that was mounted anew.
const AGAIN: Duration = Duration::from_millis(20);

/// What the service tells. It is never full: each event belongs to a call, an execution or a troupe, and those are bounded.
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
                Event::Over { token, outcome } => shared.told(token, Told::Over(outcome)),
                Event::Answer { token, from, answer, replicas } => {
                    shared.told(token, Told::Answer { from, answer, replicas });
                }
                Event::Changed { .. } => {}
                event => work.push(event),
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

/// What is to be done for users.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Work(Vec<Event>);

/// The service is gone.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Ended;

pub(super) struct Desk {
    shared: Weak<Shared>,
    /// Executions that have a result and do not count yet, by troupe.
    held: BTreeMap<Ticket, TroupeName>,
}

/// An execution, in its task. The service hears of its end in any case.
struct Doing {
    shared: Arc<Shared>,
    ticket: Ticket,
    is_over: bool,
}

impl Doing {
    fn finish(mut self, result: Finish) {
        self.is_over = true;
        self.shared.give(Command::Finished { ticket: self.ticket, result });
    }
}

impl Drop for Doing {
    /// It has panicked, unless it has finished.
    fn drop(&mut self) {
        if !self.is_over {
            let result = Finish::Refused(Refusal::Handler);
            self.shared.give(Command::Finished { ticket: self.ticket, result });
        }
    }
}

impl Desk {
    /// Reads the events of the service from here on.
    pub(super) async fn open(shared: &Arc<Shared>) -> Result<(), OpenError> {
        let desk = Self { shared: Arc::downgrade(shared), held: BTreeMap::new() }.start();
        if !Post::attach(shared, desk).await? {
            return Err(OpenError::Taken);
        }
        shared.begun();
        Ok(())
    }

    fn on_event(&mut self, shared: &Arc<Shared>, event: Event) {
        match event {
            Event::Execute(execution) => self.execute(shared, execution),
            Event::Decided { ticket, counts } => {
                let of = self.held.remove(&ticket).and_then(|troupe| shared.part(troupe));
                if let Some(to) = of.as_ref().and_then(|part| part.decided.as_ref()) {
                    to.do_send(Decided { counts });
                }
            }
            Event::Joined { troupe, is_first, is_lost } => {
                if let Some(part) = shared.part(troupe) {
                    part.joined(Joined { is_first, is_lost });
                }
            }
            Event::Left { troupe } => {
                let part = locked(&shared.parts).remove(&troupe);
                if let Some(part) = part {
                    part.left();
                }
                self.held.retain(|_, of| *of != troupe);
            }
            Event::StateWanted { troupe } => give(shared, troupe),
            Event::Restore { troupe, state } => {
                let Some(part) = shared.part(troupe) else { return };
                let shared = Arc::clone(shared);
                tokio::task::spawn_local(async move {
                    if let Some(stateful) = &part.stateful
                        && stateful.take.send(TakeState(state)).await.is_err()
                    {
                        return shared.give(Command::Leave { troupe });
                    }
                    shared.give(Command::Restored { troupe });
                });
            }
            Event::Order { troupe, call } => {
                if let Some(part) = shared.part(troupe)
                    && let Some(cast) = &part.cast
                {
                    cast(call);
                }
            }
            Event::Over { .. } | Event::Answer { .. } | Event::Changed { .. } => {}
        }
    }

    fn execute(&mut self, shared: &Arc<Shared>, execution: Execution) {
        let Execution { ticket, troupe, caller, id, arguments, context, .. } = execution;
        let doing = Doing { shared: Arc::clone(shared), ticket, is_over: false };
        let Some(part) = shared.part(troupe) else {
            return doing.finish(Finish::Refused(Refusal::Procedure));
        };
        if part.decided.is_some() {
            self.held.insert(ticket, troupe);
        }
        let context = Context { caller, id, ticket, bytes: context, shared: Arc::clone(shared) };
        let (procedure, version) = (execution.procedure, execution.version);
        // What users wrote runs in here, where a panic ends this execution and nothing else.
        tokio::task::spawn_local(async move {
            let result = run(&part, procedure, version, &arguments, context).await;
            doing.finish(result);
        });
    }
}

async fn run(
    part: &Inner,
    procedure: mainstay_rpc::ProcedureId,
    version: u16,
    arguments: &bytes::Bytes,
    context: Context,
) -> Finish {
    let Some(served) = part.served.get(&procedure) else {
        return Finish::Refused(Refusal::Procedure);
    };
    let (oldest, newest) = served.versions;
    if !(oldest..=newest).contains(&version) {
        return Finish::Refused(Refusal::Version);
    }
    (served.serve)(arguments, context).await
}

/// The state is given when the actor has handled what came before.
fn give(shared: &Arc<Shared>, troupe: TroupeName) {
    let Some(part) = shared.part(troupe) else { return };
    let shared = Arc::clone(shared);
    tokio::task::spawn_local(async move {
        let state = match &part.stateful {
            Some(stateful) => stateful.give.send(GiveState).await.ok(),
            None => Some(Vec::new()),
        };
        shared.give(Command::State { troupe, state: state.map(Into::into) });
    });
}

impl Actor for Desk {
    type Context = actix::Context<Self>;
}

impl Handler<Work> for Desk {
    type Result = ();

    fn handle(&mut self, Work(events): Work, _: &mut Self::Context) {
        let Some(shared) = self.shared.upgrade() else { return };
        events.into_iter().for_each(|event| self.on_event(&shared, event));
    }
}

impl Handler<Ended> for Desk {
    type Result = ();

    /// A node that was declared dead begins anew, and mounts its services again; it is a replica of nothing then.
    fn handle(&mut self, Ended: Ended, at: &mut Self::Context) {
        self.held.clear();
        let (desk, shared) = (at.address(), self.shared.clone());
        tokio::task::spawn_local(async move {
            loop {
                let Some(it) = shared.upgrade() else { return };
                match Post::attach(&it, desk.clone()).await {
                    // Another handle has been opened meanwhile.
                    Ok(false) => return,
                    Ok(true) => return it.begun(),
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
