//! Names of nodes, as a node registers and finds them.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::Poll;
use std::time::Duration;

use mainstay_base::{Instant, NodeId};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::handle::{Shared, locked};
use super::registry::{Changed, Find, NAMES_MAX, Registry, RegistryError, Renew, check};
use super::{CallError, Caller, Context, Resolver, RpcHandle, ServeError};
use crate::{Failure, Reason};

/// The shortest lease, and the longest: for so long a name may mean nodes that are gone.
pub(super) const LEASES: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(60));
/// How long a registry is awaited, and the longest time between attempts to reach one.
const DOUBT: Duration = Duration::from_secs(1);

/// Names that nodes register at run time, kept by *registries*: stated nodes that [serve them](RpcHandle::serve_names), best two or more. It needs no membership.
///
/// A node registers a name at all registries, for the time of a *lease*, and renews it there three times in that time. An entry ends when the node takes it back, when its lease is over, and when
/// a registry hears that the node is lost: restarted, or gone. Registries keep entries in memory and do not talk to each other: one that was restarted is told all of them again as soon as
/// it is back. A name means the nodes that any registry has said within a lease. So it is a hint of where to call, no lock and no leader: for a while a name may mean a node that is
/// gone, and two nodes may have the same name.
///
/// It is a [`Resolver`] of the names that are [followed](Self::follow), their nodes in their order:
///
/// ```no_run
/// # use std::time::Duration;
/// # use mainstay_base::NodeId;
/// # use mainstay_rpc::{Names, Rpc, RpcHandle};
/// # use mainstay_service::ServiceHandle;
/// # async fn open(service: ServiceHandle<Rpc>, me: NodeId, registries: [NodeId; 2]) -> Result<(), Box<dyn std::error::Error>> {
/// let names = Names::new(registries, Duration::from_secs(10));
/// let rpc = RpcHandle::open_with(service, me, Box::new(names.clone()), Vec::new()).await?;
/// names.attach(&rpc).await?;
/// let _registered = names.register("printer").await?;
/// let mut printers = names.follow("printer")?;
/// while printers.next().await.is_empty() {}
/// let printer = rpc.to_name("printer")?;
/// # Ok(())
/// # }
/// ```
///
/// Bounds: 255 bytes a name; a node registers 1,024 names and follows as many ([`RegistryError`]); a registry keeps something for 16,384 nodes and 262,144 names of all of them,
/// and tells 256 nodes of a name. Cheap to clone.
#[derive(Clone)]
pub struct Names {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    registries: Vec<NodeId>,
    lease: Duration,
    shared: OnceLock<Weak<Shared>>,
    state: Mutex<State>,
    /// How often what is wanted has changed.
    wanted: watch::Sender<u64>,
    /// A registry was lost, and has forgotten all.
    lost: BTreeMap<NodeId, Arc<Notify>>,
    /// Something was heard.
    heard: watch::Sender<()>,
}

/// What this node has of names.
#[derive(Default)]
pub(super) struct Naming {
    names: OnceLock<Weak<Inner>>,
    /// If it keeps those of others.
    pub(super) registry: OnceLock<Arc<Registry>>,
}

impl Naming {
    /// A node is lost.
    pub(super) fn lose(&self, node: NodeId) {
        let _ = self.registry.get().map(|registry| registry.lose(node));
        let _ = self.names.get().and_then(Weak::upgrade).map(|names| names.lose(node));
    }
}

#[derive(Default)]
struct State {
    /// How often each name is registered, and followed.
    registered: BTreeMap<String, usize>,
    followed: BTreeMap<String, usize>,
    told: BTreeMap<NodeId, Told>,
}

/// What a registry has said.
#[derive(Default)]
struct Told {
    at: Instant,
    nodes: BTreeMap<String, Vec<NodeId>>,
    /// It has answered what was wanted by then.
    upto: u64,
    /// How.
    error: Option<NamesError>,
}

/// Why a name is not registered, or not found.
#[derive(Error, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum NamesError {
    /// A bound, here or at the registries.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// No registry has answered; this is what the last one came to.
    #[error("no registry has answered: {0}")]
    Failed(Failure),
    /// [`Names::attach`] was not called, or no handle is left.
    #[error("the names are attached to no handle")]
    Detached,
}

impl From<CallError<RegistryError>> for NamesError {
    fn from(error: CallError<RegistryError>) -> Self {
        match error {
            CallError::Remote(error) => Self::Registry(error),
            CallError::Failed(failure) => Self::Failed(failure),
        }
    }
}

impl Names {
    /// Names at these registries. What is registered is void when it was not renewed for `lease` (50 ms at least, a minute at most).
    #[must_use]
    pub fn new(registries: impl IntoIterator<Item = NodeId>, lease: Duration) -> Self {
        let lease = lease.clamp(LEASES.0, LEASES.1);
        let registries: Vec<NodeId> = registries.into_iter().collect();
        let lost = registries.iter().map(|it| (*it, Arc::default())).collect();
        let (shared, state) = (OnceLock::new(), Mutex::default());
        let (wanted, heard) = (watch::Sender::new(0), watch::Sender::new(()));
        Self { inner: Arc::new(Inner { registries, lease, shared, state, wanted, lost, heard }) }
    }

    /// From here on they are those of this handle's node. Once: names are for one node.
    ///
    /// # Errors
    /// [`ServeError`]: other names are attached to the handle, or the service was not reached.
    pub async fn attach(&self, rpc: &RpcHandle) -> Result<(), ServeError> {
        let of = Arc::downgrade(&self.inner);
        rpc.serve_fn(move |Changed(names): Changed, context: Context| {
            if let Some(inner) = of.upgrade() {
                inner.changed(context.client(), names);
            }
            std::future::ready(Ok(()))
        })
        .await?;
        let _ = self.inner.shared.set(Arc::downgrade(rpc.shared()));
        let _ = rpc.shared().naming.names.set(Arc::downgrade(&self.inner));
        let retries = Retries::default();
        for (registry, lost) in self.inner.lost.clone() {
            let (of, shared) = (Arc::downgrade(&self.inner), Arc::downgrade(rpc.shared()));
            let changes = self.inner.wanted.subscribe();
            let (of, retries) = ((of, shared), Arc::clone(&retries));
            rpc.shared().run(move || Box::pin(renew(of, (registry, lost), changes, retries)));
        }
        Ok(())
    }

    /// Registers this node under a name, and answers when a registry has it. It is registered for as long as what is answered lives, also at registries that are not there
    /// yet; what is registered twice is so until both are dropped.
    ///
    /// # Errors
    /// [`NamesError`]: all registries have failed or refuse, and it is not registered anywhere but perhaps for a lease.
    pub async fn register(&self, name: &str) -> Result<Registered, NamesError> {
        check(name)?;
        let inner = &self.inner;
        inner.attached()?;
        let mut heard = inner.heard.subscribe();
        inner.want(name, |state| &mut state.registered)?;
        let registered = Registered { names: self.clone(), name: name.to_owned() };
        let version = *inner.wanted.borrow();
        loop {
            heard.borrow_and_update();
            if let Some(told) = inner.answered(version) {
                return told.map(|()| registered);
            }
            if heard.changed().await.is_err() {
                return Err(NamesError::Detached);
            }
        }
    }

    /// The nodes that have a name now, as the first registry says that knows any. When one has answered that there are none, the others have a second each to say otherwise: it may have been
    /// restarted, and told nothing yet.
    ///
    /// # Errors
    /// [`NamesError`]: no registry has answered.
    pub async fn find(&self, name: &str) -> Result<Vec<NodeId>, NamesError> {
        check(name)?;
        let rpc = RpcHandle::of(self.inner.attached()?);
        let ask = |registry: &NodeId| {
            let to = rpc.to(*registry).unordered().deadline(self.inner.lease);
            let find = Find(name.to_owned());
            Box::pin(async move { to.at_least_once(find).await })
        };
        let mut asked: Vec<_> = self.inner.registries.iter().map(ask).collect();
        let mut found = Err(NamesError::Failed(Failure::not_at_all(Reason::Unresolved)));
        while !asked.is_empty() {
            let next = first(&mut asked);
            let told = match &found {
                Ok(_) => timeout(DOUBT, next).await,
                Err(_) => Ok(next.await),
            };
            match told {
                Ok(Ok(nodes)) if nodes.is_empty() => found = Ok(nodes),
                Ok(Ok(nodes)) => return Ok(nodes),
                Ok(Err(error)) if found.is_err() => found = Err(error.into()),
                Ok(Err(_)) => {}
                Err(_) => break,
            }
        }
        found
    }

    /// Watches a name: registries say within a twentieth of a second when it has other nodes, or later if many are to be told. While it is followed the [`Resolver`] knows it.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn follow(&self, name: &str) -> Result<Following, RegistryError> {
        check(name)?;
        self.inner.want(name, |state| &mut state.followed)?;
        let heard = self.inner.heard.subscribe();
        Ok(Following { names: self.clone(), name: name.to_owned(), told: None, heard })
    }
}

/// The first one that is ready, which is taken out. There is one.
async fn first<F: Future + Unpin>(all: &mut Vec<F>) -> F::Output {
    poll_fn(|context| {
        for at in 0..all.len() {
            if let Poll::Ready(it) = Pin::new(&mut all[at]).poll(context) {
                drop(all.swap_remove(at));
                return Poll::Ready(it);
            }
        }
        Poll::Pending
    })
    .await
}

impl Resolver for Names {
    fn resolve(&self, name: &str) -> Vec<NodeId> {
        self.inner.nodes(name).unwrap_or_default()
    }
}

type Counts = BTreeMap<String, usize>;

impl Inner {
    /// A node is lost. A registry has to be told all again, as soon as it is back.
    fn lose(&self, node: NodeId) {
        let _ = self.lost.get(&node).map(|lost| lost.notify_one());
    }

    fn attached(&self) -> Result<Arc<Shared>, NamesError> {
        self.shared.get().and_then(Weak::upgrade).ok_or(NamesError::Detached)
    }

    /// A name is wanted once more.
    fn want(&self, name: &str, of: fn(&mut State) -> &mut Counts) -> Result<(), RegistryError> {
        let mut state = locked(&self.state);
        let counts = of(&mut state);
        if counts.len() >= NAMES_MAX && !counts.contains_key(name) {
            return Err(RegistryError::TooMany);
        }
        *counts.entry(name.to_owned()).or_default() += 1;
        self.wanted.send_modify(|version| *version += 1);
        Ok(())
    }

    /// Once less.
    fn leave(&self, name: &str, of: fn(&mut State) -> &mut Counts) {
        let mut state = locked(&self.state);
        let counts = of(&mut state);
        if let Some(count) = counts.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                counts.remove(name);
                self.wanted.send_modify(|version| *version += 1);
            }
        }
    }

    /// When the next word of a registry for a name ends, from now: then it means other nodes, perhaps.
    fn next_end(&self, name: &str) -> Option<Duration> {
        let now = self.attached().ok()?.now();
        let state = locked(&self.state);
        let said = state.told.values().filter(|it| it.nodes.contains_key(name));
        let left = said.map(|it| self.lease.saturating_sub(now.saturating_since(it.at)));
        left.filter(|left| !left.is_zero()).min()
    }

    /// The nodes of a name that is followed, as all registries say. `None`: none has said anything within a lease.
    fn nodes(&self, name: &str) -> Option<Vec<NodeId>> {
        let now = self.attached().ok()?.now();
        let state = locked(&self.state);
        let fresh = state.told.values().filter(|it| now.saturating_since(it.at) < self.lease);
        let mut said = fresh.filter_map(|it| it.nodes.get(name)).peekable();
        said.peek()?;
        let mut nodes: Vec<NodeId> = said.flatten().copied().collect();
        nodes.sort_unstable();
        nodes.dedup();
        Some(nodes)
    }

    /// Whether a registry has what was wanted by then. An error: all have answered, and none has it.
    fn answered(&self, version: u64) -> Option<Result<(), NamesError>> {
        let state = locked(&self.state);
        let told = |registry| state.told.get(registry).filter(|it| it.upto >= version);
        let errors: Vec<_> = self.registries.iter().filter_map(told).map(|it| it.error).collect();
        if errors.iter().any(Option::is_none) {
            return Some(Ok(()));
        }
        let is_over = errors.len() == self.registries.len();
        is_over.then(|| Err(errors.last().copied().flatten().unwrap_or(NamesError::Detached)))
    }

    /// A registry says that names have other nodes.
    fn changed(&self, registry: NodeId, names: Vec<(String, Vec<NodeId>)>) {
        {
            let mut state = locked(&self.state);
            let State { followed, told, .. } = &mut *state;
            let Some(told) = told.get_mut(&registry) else { return };
            told.nodes.extend(names.into_iter().filter(|(name, _)| followed.contains_key(name)));
        }
        self.heard.send_replace(());
    }

    /// What a registry has answered.
    fn told(
        &self,
        now: Instant,
        registry: NodeId,
        upto: u64,
        told: Result<BTreeMap<String, Vec<NodeId>>, NamesError>,
    ) {
        {
            let mut state = locked(&self.state);
            let of = state.told.entry(registry).or_default();
            (of.upto, of.error) = (upto, told.as_ref().err().copied());
            if let Ok(nodes) = told {
                (of.at, of.nodes) = (now, nodes);
            }
        }
        self.heard.send_replace(());
    }
}

/// Registries that are away are tried one after the other.
type Retries = Arc<tokio::sync::Mutex<()>>;

/// Tells a registry what is wanted, again and again.
async fn renew(
    (inner, shared): (Weak<Inner>, Weak<Shared>),
    (registry, lost): (NodeId, Arc<Notify>),
    mut changes: watch::Receiver<u64>,
    retries: Retries,
) {
    let mut is_away = false;
    loop {
        let wait = {
            // Between two of them nobody holds the handle: if its users are gone it ends then, and what it served is withdrawn.
            let _turn = if is_away { Some(retries.lock().await) } else { None };
            let (Some(inner), Some(shared)) = (inner.upgrade(), shared.upgrade()) else { return };
            let version = *changes.borrow_and_update();
            let (names, follows): (Vec<String>, Vec<String>) = {
                let state = locked(&inner.state);
                (
                    state.registered.keys().cloned().collect(),
                    state.followed.keys().cloned().collect(),
                )
            };
            let lease = u64::try_from(inner.lease.as_micros()).unwrap_or(u64::MAX);
            // What is said after this is said to last a lease from here.
            let (now, named) = (shared.now(), follows.clone());
            let to = Caller::new(Arc::clone(&shared), registry).unordered();
            let said = Renew { lease, names, follows };
            // Meanwhile the handle is held.
            let told = to.deadline(inner.lease.min(DOUBT)).at_least_once(said).await;
            let told = told.map(|nodes| named.into_iter().zip(nodes).collect());
            is_away = told.is_err();
            inner.told(now, registry, version, told.map_err(NamesError::from));
            if is_away { (inner.lease / 10).min(DOUBT) } else { inner.lease / 3 }
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = lost.notified() => is_away = false,
            it = changes.changed() => if it.is_err() { return },
        }
    }
}

/// A name of this node. Dropped: it is taken back.
#[must_use = "dropped, it is taken back"]
pub struct Registered {
    names: Names,
    name: String,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.names.inner.leave(&self.name, |state| &mut state.registered);
    }
}

/// Watches a name. Dropped: it is followed no more.
pub struct Following {
    names: Names,
    name: String,
    told: Option<Vec<NodeId>>,
    heard: watch::Receiver<()>,
}

impl Following {
    /// The nodes of the name: at first when a registry has answered, then when they are others than they were, also since a lease of what one registry has said is over. While no
    /// registry answers nothing changes, nor does anything when no handle is left. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Vec<NodeId> {
        loop {
            self.heard.borrow_and_update();
            let nodes = self.names.inner.nodes(&self.name);
            if let Some(nodes) = nodes.filter(|it| self.told.as_ref() != Some(it)) {
                self.told = Some(nodes.clone());
                return nodes;
            }
            let end = self.names.inner.next_end(&self.name);
            // The sender lives in `names`.
            let heard = self.heard.changed();
            let _ = match end {
                Some(end) => timeout(end, heard).await.unwrap_or(Ok(())),
                None => heard.await,
            };
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.names.inner.leave(&self.name, |state| &mut state.followed);
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("registries", &self.inner.registries).finish_non_exhaustive()
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registered").field(&self.name).finish()
    }
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Following").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use mainstay_base::ClusterId;
    use mainstay_service::{StationParts, start};
    use tokio::task::LocalSet;

    use super::*;
    use crate::{Config, Rpc};

    /// Who follows a name wakes when what one of two registries has said is over, though nothing is heard from then on.
    #[tokio::test]
    async fn the_end_of_a_word_is_noticed() {
        let run = async {
            let cluster = ClusterId::from_entropy(1);
            let roster = [("n0".to_owned(), mainstay_sim::free_addresses(1)[0])].into();
            let parts = StationParts::tcp(cluster, "n0", roster, None).unwrap();
            let mount = |node: &mut mainstay_service::Mounting<'_>| {
                node.mount::<Rpc>("rpc", Config::started_now()).map(drop)
            };
            let station = start(parts, mount).unwrap();
            let rpc = RpcHandle::open(station.service("rpc"), cluster, "n0").await.unwrap();
            let [one, other] = ["n1", "n2"].map(|it| NodeId::new(cluster, it));
            let lease = Duration::from_secs(1);
            let names = Names::new([one, other], lease);
            // What registries say is said here.
            names.inner.shared.set(Arc::downgrade(rpc.shared())).unwrap();
            let mut printers = names.follow("printer").unwrap();
            let now = rpc.shared().now();
            for (at, registry) in [(now, one), (now + 100 * lease, other)] {
                let said = [("printer".to_owned(), vec![registry])].into();
                names.inner.told(at, registry, 1, Ok(said));
            }
            let limit = 10 * lease;
            let mut both = vec![one, other];
            both.sort_unstable();
            assert_eq!(timeout(limit, printers.next()).await.unwrap(), both);
            assert_eq!(timeout(limit, printers.next()).await.unwrap(), [other]);
        };
        LocalSet::new().run_until(run).await;
    }
}
