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
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::handle::{RpcHandle, ServeError, Shared, locked};
use super::served::Port;
use super::{Context, Procedure};
use crate::Command;

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
    /// Looks whether it is called.
    watch: AbortHandle,
}

impl<A: Actor> Drop for Server<A> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// All that were made and live.
pub(super) struct Made<A: Actor> {
    make: Box<dyn Fn(NodeId) -> Addr<A> + Send + Sync>,
    idle: Duration,
    made: AtomicU64,
    servers: Mutex<BTreeMap<NodeId, Server<A>>>,
}

/// Servers of one kind, whatever their actor.
pub(super) trait Hosted: Send + Sync {
    /// The client is dead, or is taken for it.
    fn forsake(&self, client: NodeId, life: u64);

    /// All clients are: the service has ended.
    fn clear(&self);
}

/// All that serve single clients at a node: the service is told for whom there are any, and says when one is to end.
#[derive(Default)]
pub(super) struct Hosts {
    kinds: Vec<Weak<dyn Hosted>>,
    /// How many there are for a life of a client.
    counts: BTreeMap<(NodeId, u64), usize>,
}

impl Shared {
    fn host(&self, client: NodeId, life: u64) {
        // The own node dies with them.
        if client == self.me {
            return;
        }
        let mut hosts = locked(&self.hosts);
        let count = hosts.counts.entry((client, life)).or_default();
        *count += 1;
        if *count == 1 {
            self.commands.give(Command::Host { client, life });
        }
    }

    fn unhost(&self, client: NodeId, life: u64) {
        let mut hosts = locked(&self.hosts);
        let Some(count) = hosts.counts.get_mut(&(client, life)) else { return };
        *count -= 1;
        if *count == 0 {
            hosts.counts.remove(&(client, life));
            self.commands.give(Command::Unhost { client, life });
        }
    }

    /// The servers of a client are to end, whatever their kind.
    pub(super) fn forsake(&self, client: NodeId, life: u64) {
        let kinds = {
            let mut hosts = locked(&self.hosts);
            hosts.counts.remove(&(client, life));
            hosts.kinds.clone()
        };
        kinds.iter().filter_map(Weak::upgrade).for_each(|kind| kind.forsake(client, life));
    }

    /// The servers of all clients are.
    pub(super) fn forsake_all(&self) {
        let kinds = {
            let mut hosts = locked(&self.hosts);
            hosts.counts.clear();
            hosts.kinds.clone()
        };
        kinds.iter().filter_map(Weak::upgrade).for_each(|kind| kind.clear());
    }
}

impl<A: Actor> Hosted for Made<A> {
    fn forsake(&self, client: NodeId, life: u64) {
        let mut servers = locked(&self.servers);
        if servers.get(&client).is_some_and(|it| it.life == life) {
            // What it executes keeps an address up to its answer.
            servers.remove(&client);
        }
    }

    fn clear(&self) {
        locked(&self.servers).clear();
    }
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
            let look =
                watch(Arc::downgrade(self), Arc::downgrade(&shared), (client, number), self.idle);
            let watch = tokio::task::spawn_local(look).abort_handle();
            let server = Server { life, number, to, open: 0, used: shared.now(), watch };
            if let Some(former) = servers.insert(client, server) {
                shared.unhost(client, former.life);
            }
            shared.host(client, life);
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
            let life = server.life;
            servers.remove(&client);
            return shared.unhost(client, life);
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
    /// the calls of one life of that client.
    ///
    /// It is let go when the client is lost or greets in a new life, and when the [terminator](crate::Orphans::Terminator) has not heard the client for its lease: a
    /// period and a lease after a client has vanished its server is gone, however long `idle` is (RPC-71). Under the other policies for orphans one whose client
    /// vanishes and does not come back is there until it has not been called for the time `idle`; then each one ends. Let go means that it answers what it has and that
    /// this handle keeps no address of it: an actor of which `make` keeps none ends. A client that was taken for dead and lives gets a new server with its next call.
    ///
    /// A client that ends while its node goes on may come back where results are [stored](crate::Config::stored): its server ends by the terminator, or when its next life greets.
    ///
    /// While there is a server the terminator asks its client once a period whether it lives.
    #[must_use]
    pub fn servers<A: Actor>(
        &self,
        idle: Duration,
        make: impl Fn(NodeId) -> Addr<A> + Send + Sync + 'static,
    ) -> Servers<A> {
        let idle = idle.max(IDLE_MIN);
        let (made, servers) = (AtomicU64::new(0), Mutex::default());
        let made = Arc::new(Made { make: Box::new(make), idle, made, servers });
        let mut hosts = locked(&self.shared().hosts);
        hosts.kinds.retain(|kind| kind.strong_count() > 0);
        let kind: Arc<dyn Hosted> = Arc::clone(&made) as _;
        hosts.kinds.push(Arc::downgrade(&kind));
        drop(hosts);
        Servers { rpc: self.clone(), made }
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
