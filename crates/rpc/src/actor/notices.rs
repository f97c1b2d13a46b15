//! The end of what is served: of actors at this node, and what others are told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use mainstay_base::NodeId;
use mainstay_service::ReachError;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::handle::{RpcHandle, Shared, locked};
use super::served::Served;
use crate::{Command, Parting, ProcedureId};

/// An actor that has ended is noticed after so long, if nobody calls it.
const LOOK: Duration = Duration::from_millis(250);

/// Those who watch.
#[derive(Default)]
pub(super) struct Watches {
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Parting>>>,
}

/// How often a node was lost while somebody waited for that.
#[derive(Default)]
pub(super) struct Losses {
    pub(super) count: u64,
    waiting: usize,
}

/// Waits for the loss of a node.
pub(super) struct Loss<'a> {
    shared: &'a Shared,
    node: NodeId,
    before: u64,
}

impl<'a> Loss<'a> {
    pub(super) fn of(shared: &'a Shared, node: NodeId) -> Self {
        let mut all = locked(&shared.losses);
        let losses = all.entry(node).or_default();
        losses.waiting += 1;
        Self { shared, node, before: losses.count }
    }

    pub(super) fn has_come(&self) -> bool {
        locked(&self.shared.losses).get(&self.node).is_some_and(|it| it.count > self.before)
    }
}

impl Drop for Loss<'_> {
    fn drop(&mut self) {
        let mut all = locked(&self.shared.losses);
        if let Some(losses) = all.get_mut(&self.node) {
            losses.waiting -= 1;
            if losses.waiting == 0 {
                all.remove(&self.node);
            }
        }
    }
}

impl Shared {
    /// A watch is over.
    pub(super) fn parted(&self, token: u64, why: Parting) {
        let tell = locked(&self.watches.waiting).remove(&token);
        // Nobody waits any more: then nobody is told.
        let _ = tell.map(|tell| tell.send(why));
    }

    /// All watches are: the service has ended.
    pub(super) fn part_all(&self) {
        for (_, tell) in std::mem::take(&mut *locked(&self.watches.waiting)) {
            let _ = tell.send(Parting::Here);
        }
    }

    /// What served a procedure has ended: it is served no more, until somebody serves it again.
    pub(super) async fn lapse(&self, procedure: ProcedureId, served: &Arc<dyn Served>) {
        let _turn = self.serving.lock().await;
        let is_this = |it: Arc<dyn Served>| Arc::ptr_eq(&it, served);
        if self.served(procedure).is_some_and(is_this) {
            // A service that has ended serves nothing, and the next one is told of the table as it is then.
            let _ = self.service.send(Command::Gone { procedure }).await;
            self.strike(procedure);
        }
    }
}

/// Looks at the actors that serve, for as long as there are any.
pub(super) async fn look(shared: Weak<Shared>) {
    loop {
        sleep(LOOK).await;
        let Some(shared) = shared.upgrade() else { return };
        for (procedure, served) in shared.all_served() {
            if !served.is_there() {
                shared.lapse(procedure, &served).await;
            }
        }
    }
}

/// A watch under way. Dropped: it is taken back.
struct Watching {
    shared: Arc<Shared>,
    token: u64,
}

impl Drop for Watching {
    fn drop(&mut self) {
        if locked(&self.shared.watches.waiting).remove(&self.token).is_some() {
            // It goes the way of the watch, and so comes behind it: there or, without room, beside the one who drops this.
            let word = Command::Unwatch { token: self.token };
            let service = self.shared.service.clone();
            if service.try_send(word.clone()) == Err(ReachError::Full) {
                self.shared.run(move || {
                    Box::pin(async move {
                        let _ = service.send(word).await;
                    })
                });
            }
        }
    }
}

impl RpcHandle {
    /// Waits until a procedure ([`Procedure::ID`](super::Procedure::ID)) is not served any more at a node, and says why: it was withdrawn, the actor that served it has ended (noticed within a quarter of a
    /// second), or the node is lost or was away for as long as a call without a sign is attempted. At once if it is not served there now. The node may be this
    /// one. What was executed is told by the calls alone, and a procedure that is served again is watched again by another call of this.
    ///
    /// Nothing is sent while nothing changes. Dropping the future takes the watch back. Of watches there are at most [`Config::calls_max`](crate::Config::calls_max) here, and at a server
    /// [`Config::window`](crate::Config::window) of one node ([`Parting::Full`]).
    pub async fn watch(&self, server: NodeId, procedure: ProcedureId) -> Parting {
        let shared = Arc::clone(self.shared());
        if !shared.is_open() {
            return Parting::Here;
        }
        let (token, (tell, told)) = (shared.next_token(), oneshot::channel());
        locked(&shared.watches.waiting).insert(token, tell);
        let watching = Watching { shared: Arc::clone(&shared), token };
        if shared.service.send(Command::Watch { token, server, procedure }).await.is_err() {
            shared.parted(token, Parting::Here);
        }
        // The service may have ended before this one was among those who are told.
        if !shared.is_open() {
            shared.parted(token, Parting::Here);
        }
        let why = told.await.unwrap_or(Parting::Here);
        drop(watching);
        why
    }
}
