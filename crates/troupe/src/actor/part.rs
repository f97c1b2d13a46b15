//! What a node serves as a replica of a troupe.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mainstay_base::codec;
use mainstay_rpc::{Procedure, ProcedureId};
use mainstay_runtime::Recipient;
use mainstay_service::ReachError;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use super::handle::{Shared, locked};
use super::{Context, Decided, GiveState, Incoming, TakeState};
use crate::{Begin, Command, Finish, Refusal, Sequence, Serving, TroupeName};

pub(super) type Running<T> = Pin<Box<dyn Future<Output = T>>>;
type Serve = Box<dyn Fn(&Bytes, Context) -> Running<Finish> + Send + Sync>;
type Cast = Box<dyn Fn(Bytes) + Send + Sync>;

/// Why a node does not become a replica. Nothing changed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JoinError {
    /// It is one already, or of as many troupes as it may be.
    #[error("the node is a replica of the troupe already, or of as many as it may be")]
    Taken,
    /// The binding agent, or the members, took it for dead before it had the state.
    #[error("the node was taken for dead before it was a replica")]
    Left,
    /// The node is being closed, or its service [drained](super::TroupesHandle::drain).
    #[error("the node is being closed")]
    Closing,
    /// The service was not reached.
    #[error(transparent)]
    Reach(#[from] ReachError),
}

/// A procedure that is served.
pub(super) struct Served {
    pub(super) name: &'static str,
    pub(super) versions: (u16, u16),
    pub(super) serve: Serve,
}

/// What hands the state of a replica to others, and takes that of others.
pub(super) struct Stateful {
    pub(super) give: Recipient<GiveState>,
    pub(super) take: Recipient<TakeState>,
}

/// How a node became a replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined {
    pub(super) is_first: bool,
    pub(super) is_lost: bool,
}

/// A replica, as the desk knows it.
pub(super) struct Inner {
    pub(super) served: BTreeMap<ProcedureId, Served>,
    pub(super) stateful: Option<Stateful>,
    pub(super) decided: Option<Recipient<Decided>>,
    pub(super) cast: Option<Cast>,
    joining: Mutex<Option<oneshot::Sender<Joined>>>,
    /// Nobody holds the membership any more, and the service is to hear that.
    is_leaving: AtomicBool,
    is_left: watch::Sender<bool>,
}

impl Inner {
    pub(super) fn joined(&self, joined: Joined) {
        if let Some(tell) = locked(&self.joining).take() {
            // Nobody waits any more: then it leaves.
            let _ = tell.send(joined);
        }
    }

    pub(super) fn left(&self) {
        drop(locked(&self.joining).take());
        self.is_left.send_replace(true);
    }
}

/// A node on its way to be a replica of a troupe: says what it serves, and how.
#[must_use = "it becomes a replica when it joins"]
pub struct Part {
    shared: Arc<Shared>,
    name: TroupeName,
    serving: Serving,
    served: BTreeMap<ProcedureId, Served>,
    stateful: Option<Stateful>,
    decided: Option<Recipient<Decided>>,
    cast: Option<Cast>,
}

impl Part {
    pub(super) fn new(shared: Arc<Shared>, name: &str) -> Self {
        Self {
            shared,
            name: TroupeName::new(name),
            serving: Serving::default(),
            served: BTreeMap::new(),
            stateful: None,
            decided: None,
            cast: None,
        }
    }

    /// When a call begins. The same at all replicas. Default [`Begin::First`].
    pub fn begin(mut self, begin: Begin) -> Self {
        self.serving.begin = begin;
        self
    }

    /// So many calls are executed at a time: more than one only where they share no data. Default 1.
    pub fn at_once(mut self, most: u32) -> Self {
        self.serving.at_once = most;
        self
    }

    /// An actor serves a procedure. The last one that is said for a name counts.
    pub fn serve<P: Procedure>(self, to: Recipient<P>) -> Self {
        self.port::<P>(move |arguments, _| {
            let answer = to.send(arguments);
            Box::pin(async move { answer.await.ok() })
        })
    }

    /// The same for an actor that wants to know who calls, or calls others itself.
    pub fn serve_incoming<P: Procedure>(self, to: Recipient<Incoming<P>>) -> Self {
        self.port::<P>(move |arguments, context| {
            let answer = to.send(Incoming { arguments, context });
            Box::pin(async move { answer.await.ok() })
        })
    }

    /// The same for a function.
    pub fn serve_fn<P, F, R>(self, serve: F) -> Self
    where
        P: Procedure,
        F: Fn(P, Context) -> R + Send + Sync + 'static,
        R: Future<Output = P::Result> + 'static,
    {
        self.port::<P>(move |arguments, context| {
            let answer = serve(arguments, context);
            Box::pin(async move { Some(answer.await) })
        })
    }

    fn port<P: Procedure>(
        mut self,
        execute: impl Fn(P, Context) -> Running<Option<P::Result>> + Send + Sync + 'static,
    ) -> Self {
        let serve = move |arguments: &Bytes, context: Context| -> Running<Finish> {
            let Ok(arguments) = codec::decode::<P>(arguments) else {
                return Box::pin(std::future::ready(Finish::Refused(Refusal::Arguments)));
            };
            let answer = execute(arguments, context);
            Box::pin(async move {
                match answer.await.map(mainstay_rpc::Reply::into_result) {
                    Some(Ok(value)) => Finish::Value(codec::encode(&value)),
                    Some(Err(error)) => Finish::Error(codec::encode(&error)),
                    None => Finish::Refused(Refusal::Handler),
                }
            })
        };
        let (name, versions) = (P::NAME, (P::OLDEST, P::VERSION));
        self.served.insert(P::ID, Served { name, versions, serve: Box::new(serve) });
        self
    }

    /// The replica has a state, and gives it to new members. Without, new members begin with nothing but the results that are kept.
    pub fn state(mut self, give: Recipient<GiveState>, take: Recipient<TakeState>) -> Self {
        self.stateful = Some(Stateful { give, take });
        self
    }

    /// Calls of different clients are executed in the total order of somebody else ([`Sequence::Cast`]): `cast` has its argument cast, and
    /// [`TroupesHandle::ordered`](super::TroupesHandle::ordered) is given what is delivered, at all replicas, from the place behind `from` on.
    pub fn order(mut self, from: u64, cast: impl Fn(Bytes) + Send + Sync + 'static) -> Self {
        (self.serving.sequence, self.serving.from) = (Sequence::Cast, from);
        self.cast = Some(Box::new(cast));
        self
    }

    /// Calls of different clients are executed in one order by troupe commit ([`Sequence::Commit`]): `to` is told of each execution whether it counts or is
    /// to be undone.
    pub fn commit(mut self, to: Recipient<Decided>) -> Self {
        self.serving.sequence = Sequence::Commit;
        self.decided = Some(to);
        self
    }

    /// Becomes a replica: registers with the binding agent, and takes the state of an older member, if there is one. It waits for both, without
    /// a bound; calls that come meanwhile wait, too. If the node is just about to leave, since the last [`Replica`] or such a future was dropped, it waits for that first.
    /// A future that is dropped leaves no replica behind.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn join(self) -> Result<Replica, JoinError> {
        let Self { shared, name, serving, served, stateful, decided, cast } = self;
        let (tell, told) = oneshot::channel();
        let (joining, is_left) = (Mutex::new(Some(tell)), watch::Sender::new(false));
        let is_leaving = AtomicBool::new(false);
        let inner = Inner { served, stateful, decided, cast, joining, is_leaving, is_left };
        let membership = enter(shared, name, serving, Arc::new(inner)).await?;
        let joined = told.await.map_err(|_| match membership.shared.is_closing() {
            true => JoinError::Closing,
            false => JoinError::Left,
        })?;
        Ok(Replica { membership: Arc::new(membership), joined })
    }
}

/// Puts a part in its place and tells the service, without a wait between the two: of each part that stays in its place the service was told, and tells once that it
/// is left. So a future that is dropped leaves nothing behind, and what is told of a former membership finds its own part.
async fn enter(
    shared: Arc<Shared>,
    name: TroupeName,
    serving: Serving,
    inner: Arc<Inner>,
) -> Result<Membership, JoinError> {
    loop {
        if shared.is_closing() {
            return Err(JoinError::Closing);
        }
        let mut former = match shared.enter(name, serving, &inner)? {
            Entered::Yes => return Ok(Membership { shared, name, inner }),
            Entered::Full => {
                // It answers when it has taken in what was before.
                shared.service.status().await?;
                continue;
            }
            Entered::Ended => {
                shared.service.status().await?;
                return Err(ReachError::NotMounted.into());
            }
            Entered::After(former) => former,
        };
        // That its sender is gone says the same.
        let _ = former.wait_for(|it| *it).await;
    }
}

/// What became of a part that was to have a place.
enum Entered {
    Yes,
    /// The node has more to do than it takes in.
    Full,
    /// The service has ended; another one may have been mounted since.
    Ended,
    /// A former membership has the place until it is left.
    After(watch::Receiver<bool>),
}

impl Shared {
    fn enter(
        &self,
        name: TroupeName,
        serving: Serving,
        inner: &Arc<Inner>,
    ) -> Result<Entered, JoinError> {
        let mut parts = locked(&self.parts);
        if let Some(former) = parts.get(&name) {
            let is_leaving = former.is_leaving.load(Ordering::SeqCst);
            let is_left = is_leaving.then(|| former.is_left.subscribe());
            return is_left.map(Entered::After).ok_or(JoinError::Taken);
        }
        if !self.is_open() {
            return Ok(Entered::Ended);
        }
        // If the service ends before it has heard this, all parts are left.
        match self.service.try_send(Command::Join { troupe: name, serving }) {
            Ok(()) => drop(parts.insert(name, Arc::clone(inner))),
            Err(ReachError::Full) => return Ok(Entered::Full),
            Err(error) => return Err(error.into()),
        }
        Ok(Entered::Yes)
    }

    /// Nobody holds a membership any more. Its part stays in its place until the service says that it is left: the node is a replica until then.
    pub(super) fn leave(&self, name: TroupeName, inner: &Arc<Inner>) {
        let mut parts = locked(&self.parts);
        let is_there = parts.get(&name).is_some_and(|it| Arc::ptr_eq(it, inner));
        if !is_there || inner.is_leaving.swap(true, Ordering::SeqCst) {
            return;
        }
        match self.service.try_send(Command::Leave { troupe: name }) {
            Ok(()) => {}
            Err(ReachError::Full) => self.give_later(Command::Leave { troupe: name }),
            // It has ended, and with it what this node was.
            Err(_) => {
                parts.remove(&name);
                drop(parts);
                inner.left();
            }
        }
    }
}

/// While it is held the node is a replica.
struct Membership {
    shared: Arc<Shared>,
    name: TroupeName,
    inner: Arc<Inner>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.shared.leave(self.name, &self.inner);
    }
}

/// This node as a replica of a troupe: cheap to clone. With the last one the node leaves the troupe; [callers](Replica::to) keep one.
#[derive(Clone)]
pub struct Replica {
    membership: Arc<Membership>,
    joined: Joined,
}

impl Replica {
    /// The troupe.
    #[must_use]
    pub fn name(&self) -> TroupeName {
        self.membership.name
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.membership.shared
    }

    /// The troupe began here, with its first state.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.joined.is_first
    }

    /// The troupe began here anew: there were members with a state, and all of them have gone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.joined.is_lost
    }

    /// Waits until the node is no replica any more: it was taken for dead, or its service has ended. What it had as one is void, and it may join
    /// again, with another actor or a new state.
    pub async fn left(&self) {
        let mut is_left = self.membership.inner.is_left.subscribe();
        // The sender lives in this handle.
        let _ = is_left.wait_for(|it| *it).await;
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let served: Vec<&str> = self.served.values().map(|it| it.name).collect();
        f.debug_struct("Part")
            .field("name", &self.name)
            .field("served", &served)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("name", &self.name()).finish_non_exhaustive()
    }
}
