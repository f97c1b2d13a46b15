//! Servers that are made for their clients: an actor for each client and each of its lives, as the manager process of Rajdoot makes
//! server processes (PS88). The first call of a life makes the actor, later ones go to it directly.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler};
use mainstay_base::{Instant, NodeId};
use tokio::time::sleep;

use super::handle::{RpcHandle, ServeError, Shared, locked};
use super::served::Port;
use super::{Context, Procedure};

/// A server lives at least so long without a call.
const IDLE_MIN: Duration = Duration::from_millis(1);

/// One client's.
struct Server<A: Actor> {
    /// Of the client.
    life: u64,
    /// Another one for each that is made.
    number: u64,
    to: Addr<A>,
    /// Calls that it has not answered.
    open: usize,
    /// When it answered last.
    used: Instant,
}

/// All that were made and live.
pub(super) struct Made<A: Actor> {
    make: Box<dyn Fn(NodeId) -> Addr<A> + Send + Sync>,
    idle: Duration,
    made: AtomicU64,
    servers: Mutex<BTreeMap<NodeId, Server<A>>>,
}

/// A call that a server has not answered.
pub(super) struct Open<A: Actor> {
    made: Arc<Made<A>>,
    client: NodeId,
    to: Addr<A>,
    shared: Arc<Shared>,
}

impl<A: Actor> Open<A> {
    pub(super) fn to(&self) -> &Addr<A> {
        &self.to
    }
}

impl<A: Actor> Drop for Open<A> {
    fn drop(&mut self) {
        let now = self.shared.now();
        if let Some(server) = locked(&self.made.servers).get_mut(&self.client)
            && server.to == self.to
        {
            (server.open, server.used) = (server.open - 1, now);
        }
    }
}

impl<A: Actor> Made<A> {
    /// The server of the one who calls; it runs on the thread on which the handle was opened.
    pub(super) fn of(self: &Arc<Self>, context: &Context) -> Open<A> {
        let (client, life, shared) = (context.client, context.life, Arc::clone(&context.shared));
        let mut servers = locked(&self.servers);
        let is_there = |it: &Server<A>| it.life == life && it.to.connected();
        if !servers.get(&client).is_some_and(is_there) {
            let to = (self.make)(client);
            // With its last address the actor of a former life ends.
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            servers.insert(client, Server { life, number, to, open: 0, used: shared.now() });
            tokio::task::spawn_local(watch(
                Arc::downgrade(self),
                Arc::downgrade(&shared),
                (client, number),
                self.idle,
            ));
        }
        let server = servers.get_mut(&client).expect("it is there now");
        server.open += 1;
        Open { made: Arc::clone(self), client, to: server.to.clone(), shared }
    }
}

/// Ends a server that nobody has called for so long.
async fn watch<A: Actor>(
    made: Weak<Made<A>>,
    shared: Weak<Shared>,
    (client, number): (NodeId, u64),
    idle: Duration,
) {
    let mut wait = idle;
    loop {
        sleep(wait).await;
        let (Some(made), Some(shared)) = (made.upgrade(), shared.upgrade()) else { return };
        let mut servers = locked(&made.servers);
        let Some(server) = servers.get(&client).filter(|it| it.number == number) else { return };
        let unused = shared.now().saturating_since(server.used);
        if server.open == 0 && unused >= idle {
            servers.remove(&client);
            return;
        }
        wait = if server.open > 0 { idle } else { idle - unused };
    }
}

/// Serves procedures by an actor of its own for each client, made by [`RpcHandle::servers`]. Cheap to clone.
pub struct Servers<A: Actor> {
    rpc: RpcHandle,
    made: Arc<Made<A>>,
}

impl RpcHandle {
    /// Servers that `make` makes for clients, on the thread on which this handle was opened. The server of a client keeps what it likes between
    /// the calls of one life of that client. It ends when it has answered all and was not called for the time `idle`, so the server of a client that
    /// has vanished is gone by then (RPC-71), and when a new life of its client makes its first call.
    #[must_use]
    pub fn servers<A: Actor>(
        &self,
        idle: Duration,
        make: impl Fn(NodeId) -> Addr<A> + Send + Sync + 'static,
    ) -> Servers<A> {
        let idle = idle.max(IDLE_MIN);
        let (made, servers) = (AtomicU64::new(0), Mutex::default());
        let made = Made { make: Box::new(make), idle, made, servers };
        Servers { rpc: self.clone(), made: Arc::new(made) }
    }
}

impl<A: Actor> Servers<A> {
    /// From here on they serve this procedure as well.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn serve<P>(&self) -> Result<(), ServeError>
    where
        A: Handler<P>,
        A::Context: ToEnvelope<A, P>,
        P: Procedure,
    {
        self.rpc.table::<P>(Port::<P>::spawned(Arc::clone(&self.made))).await
    }

    /// How many there are now.
    #[must_use]
    pub fn count(&self) -> usize {
        locked(&self.made.servers).len()
    }
}

impl<A: Actor> Clone for Servers<A> {
    fn clone(&self) -> Self {
        Self { rpc: self.rpc.clone(), made: Arc::clone(&self.made) }
    }
}

impl<A: Actor> fmt::Debug for Servers<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").field("count", &self.count()).finish_non_exhaustive()
    }
}
