//! Keeps names for other nodes: which nodes have registered under them, and who follows them. See [`Names`](super::Names).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use mainstay_base::{Instant, NodeId};
use mainstay_runtime::ActorMessage;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::handle::{Shared, locked};
use super::{Caller, Context, Idempotent, Procedure, RpcHandle, ServeError};

/// Most bytes of a name.
pub(super) const NAME_BYTES_MAX: usize = 255;
/// Most names that one node registers, and most that it follows.
pub(super) const NAMES_MAX: usize = 1_024;
/// Most nodes of which a registry keeps something.
const NODES_MAX: usize = 16_384;
/// Most nodes that are told for one name; the first ones in their order.
const TOLD_MAX: usize = 1_024;
/// The longest lease that is granted, and the shortest.
const LEASES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3_600));

/// All that a node has registered and follows, for the time of another lease. In place of what it said before.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Renew {
    pub(super) lease: u64,
    pub(super) names: Vec<String>,
    pub(super) follows: Vec<String>,
}

/// The nodes of each name that is followed, in the order of the question.
pub(super) type Followed = Vec<Vec<NodeId>>;

impl ActorMessage for Renew {
    type Result = Result<Followed, RegistryError>;
}

impl Procedure for Renew {
    const NAME: &'static str = "mainstay.names.renew";
}

impl Idempotent for Renew {}

/// Which nodes have this name?
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Find(pub(super) String);

impl ActorMessage for Find {
    type Result = Result<Vec<NodeId>, RegistryError>;
}

impl Procedure for Find {
    const NAME: &'static str = "mainstay.names.find";
}

impl Idempotent for Find {}

/// A name that is followed has other nodes now.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Changed {
    pub(super) name: String,
    pub(super) nodes: Vec<NodeId>,
}

impl ActorMessage for Changed {
    type Result = Result<(), RegistryError>;
}

impl Procedure for Changed {
    const NAME: &'static str = "mainstay.names.changed";
}

/// Why a registry does not keep what it was told. Nothing changed there.
#[derive(Error, Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RegistryError {
    /// It keeps something for 16,384 nodes. Later there may be room.
    #[error("the registry keeps names for as many nodes as it may")]
    Full,
    /// A node registers at most 1,024 names, and follows as many.
    #[error("a node has at most {NAMES_MAX} names, and follows at most {NAMES_MAX}")]
    TooMany,
    /// A name has from 1 to 255 bytes.
    #[error("a name has from 1 to {NAME_BYTES_MAX} bytes")]
    Name,
}

/// Whether a name may be one.
pub(super) fn check(name: &str) -> Result<(), RegistryError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    if fits { Ok(()) } else { Err(RegistryError::Name) }
}

/// What one node has said.
#[derive(Default)]
struct Share {
    until: Instant,
    names: BTreeSet<String>,
    follows: BTreeSet<String>,
}

/// What a registry knows, without a clock of its own.
#[derive(Default)]
struct Book {
    shares: BTreeMap<NodeId, Share>,
    nodes: BTreeMap<String, BTreeSet<NodeId>>,
    followers: BTreeMap<String, BTreeSet<NodeId>>,
}

fn add(to: &mut BTreeMap<String, BTreeSet<NodeId>>, name: &str, node: NodeId) {
    to.entry(name.to_owned()).or_default().insert(node);
}

fn remove(from: &mut BTreeMap<String, BTreeSet<NodeId>>, name: &str, node: NodeId) {
    if let Some(nodes) = from.get_mut(name) {
        nodes.remove(&node);
        if nodes.is_empty() {
            from.remove(name);
        }
    }
}

impl Book {
    fn find(&self, name: &str) -> Vec<NodeId> {
        self.nodes.get(name).into_iter().flatten().copied().take(TOLD_MAX).collect()
    }

    /// What a node says, in place of what it said before. Names that have other nodes now.
    fn renew(
        &mut self,
        now: Instant,
        of: NodeId,
        said: &Renew,
    ) -> Result<Vec<String>, RegistryError> {
        if said.names.len() > NAMES_MAX || said.follows.len() > NAMES_MAX {
            return Err(RegistryError::TooMany);
        }
        said.names.iter().chain(&said.follows).try_for_each(|name| check(name))?;
        if self.shares.len() >= NODES_MAX && !self.shares.contains_key(&of) {
            return Err(RegistryError::Full);
        }
        let lease = Duration::from_micros(said.lease).clamp(LEASES.0, LEASES.1);
        let names = said.names.iter().cloned().collect();
        let follows = said.follows.iter().cloned().collect();
        Ok(self.put(of, Share { until: now + lease, names, follows }))
    }

    fn put(&mut self, of: NodeId, share: Share) -> Vec<String> {
        let former = self.shares.remove(&of).unwrap_or_default();
        for name in former.follows.difference(&share.follows) {
            remove(&mut self.followers, name, of);
        }
        for name in share.follows.difference(&former.follows) {
            add(&mut self.followers, name, of);
        }
        let gone = former.names.difference(&share.names).inspect(|name| {
            remove(&mut self.nodes, name, of);
        });
        let mut changed: Vec<String> = gone.cloned().collect();
        for name in share.names.difference(&former.names) {
            add(&mut self.nodes, name, of);
            changed.push(name.clone());
        }
        if !(share.names.is_empty() && share.follows.is_empty()) {
            self.shares.insert(of, share);
        }
        changed
    }

    /// Leases that are over, and nodes that are lost.
    fn expire(&mut self, now: Instant, lost: &[NodeId]) -> BTreeSet<String> {
        let is_over = |(node, it): &(&NodeId, &Share)| it.until <= now || lost.contains(node);
        let over: Vec<NodeId> = self.shares.iter().filter(is_over).map(|it| *it.0).collect();
        over.into_iter().flat_map(|node| self.put(node, Share::default())).collect()
    }
}

/// The registry of a node.
#[derive(Default)]
pub(super) struct Registry {
    book: Mutex<Book>,
    /// Nodes that are lost, and were not looked at.
    lost: Mutex<Vec<NodeId>>,
    wake: Notify,
}

impl Registry {
    /// A node is lost: what it has registered is void.
    pub(super) fn lose(&self, node: NodeId) {
        if locked(&self.book).shares.contains_key(&node) {
            locked(&self.lost).push(node);
            self.wake.notify_one();
        }
    }

    /// Whoever follows these names is told. What gets lost is told with the next renewal.
    fn tell(&self, shared: &Arc<Shared>, changed: impl IntoIterator<Item = String>) {
        for name in changed {
            let (nodes, followers) = {
                let book = locked(&self.book);
                (book.find(&name), book.followers.get(&name).cloned().unwrap_or_default())
            };
            for follower in followers {
                let changed = Changed { name: name.clone(), nodes: nodes.clone() };
                Caller::new(Arc::clone(shared), follower).tell(changed);
            }
        }
    }
}

async fn expire(shared: Weak<Shared>, registry: Arc<Registry>) {
    loop {
        tokio::select! {
            () = sleep(LEASES.0) => {}
            () = registry.wake.notified() => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        let lost = std::mem::take(&mut *locked(&registry.lost));
        let changed = locked(&registry.book).expire(shared.now(), &lost);
        registry.tell(&shared, changed);
    }
}

impl RpcHandle {
    /// From here on this node is a registry: it keeps names for [`Names`](super::Names) of other nodes and of its own, in memory. It looks 20 times a second for leases that are
    /// over, and what a node has registered is void when the node is [lost](Self::lost).
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn serve_names(&self) -> Result<(), ServeError> {
        let registry = Arc::new(Registry::default());
        let of = Arc::clone(&registry);
        self.serve_fn(move |said: Renew, context: Context| {
            let registry = Arc::clone(&of);
            async move {
                let (now, client) = (context.shared.now(), context.client());
                let changed = locked(&registry.book).renew(now, client, &said)?;
                registry.tell(&context.shared, changed);
                let book = locked(&registry.book);
                Ok(said.follows.iter().map(|name| book.find(name)).collect())
            }
        })
        .await?;
        let of = Arc::clone(&registry);
        self.serve_fn(move |Find(name): Find, _| {
            let registry = Arc::clone(&of);
            async move { Ok(locked(&registry.book).find(&name)) }
        })
        .await?;
        let (shared, of) = (Arc::downgrade(self.shared()), Arc::clone(&registry));
        self.shared().run(move || Box::pin(expire(shared, of)));
        // It is served once.
        let _ = self.shared().registry.set(registry);
        Ok(())
    }
}
