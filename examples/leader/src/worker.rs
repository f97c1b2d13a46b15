//! A worker: an actor that follows the group, leads it if it is the oldest member, and does the jobs that it is given.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, WrapFuture};
use actix::{ActorFutureExt, fut};
use mainstay::{Events, GroupEvent, GroupHandle, GroupView, Order, SiteId};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::Planted;
use crate::event::Event;
use crate::pool::{Job, Message, Pool};
use crate::store::Effect;

/// After so long a worker tries again what it has no answer to.
const AGAIN: Duration = Duration::from_millis(50);

/// With the planted fault: after so long a worker does what nobody gave it.
const ALONE_AFTER: Duration = Duration::from_secs(2);

/// What a worker asks the store for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Refuse all lower tokens.
    Fence(u64),
    /// Keep the effect of a job.
    Put(Effect),
}

/// What the store answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// It is so; perhaps it was so before.
    Done,
    /// The token is fenced off.
    Fenced,
    /// The store cannot.
    Failed,
}

/// What leaves a worker, but for the casts to its group.
#[derive(Debug)]
pub enum Out {
    /// For the log.
    Said(Event),
    /// For the store. An answer may never come.
    Ask(Request, oneshot::Sender<Reply>),
}

/// A member of the pool.
pub struct Worker {
    node: usize,
    group: GroupHandle,
    out: mpsc::Sender<(usize, Out)>,
    pool: Pool,
    view: Option<Arc<GroupView>>,
    /// The jobs that it works at or waits for the store with.
    working: BTreeSet<u64>,
    /// As a leader: the view in which the store is fenced, and the jobs that are being handed out in it.
    fenced: u64,
    handed: BTreeMap<SiteId, u64>,
    planted: Option<Planted>,
}

impl Worker {
    /// The worker on a node. It is to be subscribed to the group before the node is started.
    #[must_use]
    pub fn new(
        node: usize,
        group: GroupHandle,
        out: mpsc::Sender<(usize, Out)>,
        planted: Option<Planted>,
    ) -> Self {
        Self {
            node,
            group,
            out,
            pool: Pool::default(),
            view: None,
            working: BTreeSet::new(),
            fenced: 0,
            handed: BTreeMap::new(),
            planted,
        }
    }

    /// Its site in the last view that it knows of.
    fn me(&self) -> Option<SiteId> {
        let view = self.view.as_ref()?;
        Some(view.members.get(view.me?)?.site)
    }

    /// The number of the last view that it knows of: its token.
    fn token(&self) -> u64 {
        self.view.as_ref().map_or(0, |view| view.id.number)
    }

    fn leads(&self) -> bool {
        self.view.as_ref().is_some_and(|view| {
            let is_youngest = view.me.is_some_and(|rank| rank + 1 == view.members.len());
            view.me == Some(0) || is_youngest && self.planted == Some(Planted::TwoLead)
        })
    }

    /// # Panics
    /// If there is no room: a log with a gap proves nothing.
    fn say(&self, event: Event) {
        let said = self.out.try_send((self.node, Out::Said(event)));
        assert!(!matches!(said, Err(mpsc::error::TrySendError::Full(_))), "the log has no room");
    }

    fn cast(&self, message: &Message) -> bool {
        let Ok(bytes) = serde_json::to_vec(message) else { return false };
        self.group.try_cast(bytes, Order::Total).is_ok()
    }

    fn on_view(&mut self, view: Arc<GroupView>, ctx: &mut Context<Self>) {
        let (node, number) = (self.node, view.id.number);
        let members = view.members.iter().map(ToString::to_string).collect();
        self.say(Event::View { node, view: number, members });
        self.view = Some(view);
        self.handed.clear();
        if self.leads() {
            self.say(Event::Leads { node, view: number });
            self.fence(number, ctx);
        }
    }

    /// Before it leads it makes sure that no former view can write any more.
    fn fence(&self, token: u64, ctx: &mut Context<Self>) {
        self.ask(Request::Fence(token), ctx, move |worker, reply, ctx| {
            if worker.token() != token {
                return;
            }
            let members = worker.view.iter().flat_map(|view| view.members.iter());
            let members = members.map(|member| member.site).collect();
            let begin = Message::Begin { view: token, members };
            match reply {
                Some(Reply::Done) if worker.cast(&begin) => worker.fenced = token,
                Some(Reply::Fenced) => {}
                _ => drop(ctx.run_later(AGAIN, move |worker, ctx| {
                    if worker.token() == token {
                        worker.fence(token, ctx);
                    }
                })),
            }
        });
    }

    /// Asks the store; without an answer it is unknown whether it was done.
    fn ask(
        &self,
        request: Request,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, Option<Reply>, &mut Context<Self>) + 'static,
    ) {
        let (answer, answered) = oneshot::channel();
        // If there is no room it is as a request that gets lost.
        let _ = self.out.try_send((self.node, Out::Ask(request, answer)));
        let answered = answered.into_actor(self);
        ctx.spawn(answered.then(move |reply, worker, ctx| {
            then(worker, reply.ok(), ctx);
            fut::ready(())
        }));
    }

    /// As a leader it hands out what nobody has.
    fn hand_out(&mut self) {
        let view = self.token();
        if !self.leads() || self.fenced != view || self.pool.view() != view {
            return;
        }
        let Some(present) = self.view.clone() else { return };
        let is_free = |job: &Job| !self.handed.values().any(|handed| *handed == job.id);
        let mut free: VecDeque<u64> = self.pool.free().filter(is_free).map(|job| job.id).collect();
        for to in present.members.iter().map(|member| member.site) {
            // One at a time.
            let is_busy = self.handed.contains_key(&to) || self.pool.of(to).next().is_some();
            if !is_busy
                && let Some(job) = free.pop_front()
                && self.cast(&Message::Assign { view, job, to })
            {
                self.handed.insert(to, job);
            }
        }
    }

    /// Begins what it has and does not work at yet.
    fn begin(&mut self, ctx: &mut Context<Self>) {
        let Some(me) = self.me() else { return };
        let timed = |job: Job| (Duration::from_millis(job.millis), job);
        let mut mine: Vec<(Duration, Job)> = self.pool.of(me).map(timed).collect();
        if self.planted == Some(Planted::Alone) {
            mine.extend(self.pool.free().map(|job| (ALONE_AFTER, job)));
        }
        for (work, job) in mine {
            if self.working.insert(job.id) {
                ctx.run_later(work, move |worker, ctx| worker.finish(job, ctx));
            }
        }
    }

    /// Writes the effect of a job, if it is still its own. Its token is that of the view that it knows: if that is over, and
    /// somebody else may have the job, the store knows it.
    fn finish(&mut self, job: Job, ctx: &mut Context<Self>) {
        let has = self.me().is_some_and(|me| self.pool.has(me, job.id));
        if !has && self.planted != Some(Planted::Alone) {
            self.working.remove(&job.id);
            return;
        }
        let wrong = u64::from(self.planted == Some(Planted::Miscounts));
        let (result, token) = (job.result().wrapping_add(wrong), self.token());
        let put = Request::Put(Effect { job: job.id, result, token });
        self.ask(put, ctx, move |worker, reply, ctx| {
            let is_done = reply == Some(Reply::Done) && worker.cast(&Message::Done(job.id));
            if !is_done {
                ctx.run_later(AGAIN, move |worker, ctx| worker.finish(job, ctx));
            }
        });
    }
}

impl Actor for Worker {
    type Context = Context<Self>;
}

impl Handler<Events<GroupEvent>> for Worker {
    type Result = ();

    fn handle(&mut self, mut events: Events<GroupEvent>, ctx: &mut Context<Self>) {
        for event in events.take() {
            match event {
                // What is empty is the state that every group begins with. What was said to the group before may be lost.
                GroupEvent::State(state) => {
                    self.working.clear();
                    let pool = match state.is_empty() {
                        true => Ok(Pool::default()),
                        false => serde_json::from_slice(&state.to_bytes()),
                    };
                    match pool {
                        Ok(pool) => self.pool = pool,
                        // Without a state it is of no use: its node takes no part any more.
                        Err(_) => ctx.stop(),
                    }
                }
                GroupEvent::View(view) => self.on_view(view, ctx),
                // It leads no more, and works at nothing until a view has it again.
                GroupEvent::Died => {
                    self.view = None;
                    self.handed.clear();
                }
                GroupEvent::Deliver(message) => {
                    let Ok(said) = serde_json::from_slice(&message.payload) else { continue };
                    self.pool.apply(message.id.sender, &said, self.planted);
                    if let Message::Assign { job, .. } = said {
                        self.handed.retain(|_, handed| *handed != job);
                    }
                }
                GroupEvent::StateWanted(request) => {
                    // Without an answer the joiner waits for the next view.
                    if let Ok(state) = serde_json::to_vec(&self.pool) {
                        request.give(state);
                    }
                }
                _ => {}
            }
        }
        self.working.retain(|job| self.pool.is_open(*job));
        self.begin(ctx);
        self.hand_out();
    }
}
