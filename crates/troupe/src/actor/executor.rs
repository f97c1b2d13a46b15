//! What is executed for the service of troupes: by actors, on the thread on which the handle was opened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_service::{ReachError, ServiceHandle};
use tokio::time::timeout;

use super::handle::{Shared, Told, locked};
use super::part::{Inner, Joined};
use super::{Context, Decided, GiveState, TakeState};
use crate::{Command, Event, Execution, Finish, Refusal, Ticket, TroupeName, Troupes};

impl mainstay_service::Front for Shared {
    type Service = Troupes;

    fn service(&self) -> &ServiceHandle<Troupes> {
        &self.service
    }

    fn read(&self, event: Event) -> Option<Event> {
        match event {
            Event::Over { token, outcome } => self.told(token, Told::Over(outcome)),
            Event::Answer { token, from, answer, replicas } => {
                self.told(token, Told::Answer { from, answer, replicas });
            }
            Event::Drained => self.drained(),
            Event::Changed { .. } => {}
            event => return Some(event),
        }
        None
    }

    async fn begin(&self) -> Result<(), ReachError> {
        self.begun();
        Ok(())
    }

    fn ended(&self) {
        self.end();
    }

    async fn close(self: Arc<Self>, within: Duration) {
        // What is not answered by then is not, as if the node had failed.
        let _ = timeout(within, self.drain()).await;
    }
}

#[derive(Default)]
pub(super) struct Executor {
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
        self.shared.commands.give(Command::Finished { ticket: self.ticket, result });
    }
}

impl Drop for Doing {
    /// It has panicked, unless it has finished.
    fn drop(&mut self) {
        if !self.is_over {
            let result = Finish::Refused(Refusal::Handler);
            self.shared.commands.give(Command::Finished { ticket: self.ticket, result });
        }
    }
}

impl mainstay_service::Work<Shared> for Executor {
    fn work(&mut self, shared: &Arc<Shared>, event: Event) {
        self.on_event(shared, event);
    }

    /// The node is a replica of nothing now.
    fn ended(&mut self, _: Option<&Arc<Shared>>) {
        self.held.clear();
    }
}

impl Executor {
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
                        // A later membership has nothing to do with it.
                        return shared.leave(troupe, &part);
                    }
                    shared.commands.give(Command::Restored { troupe });
                });
            }
            Event::Order { troupe, call } => {
                if let Some(part) = shared.part(troupe)
                    && let Some(cast) = &part.cast
                {
                    cast(call);
                }
            }
            Event::Over { .. } | Event::Answer { .. } | Event::Changed { .. } | Event::Drained => {}
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
        shared.commands.give(Command::State { troupe, state: state.map(Into::into) });
    });
}
