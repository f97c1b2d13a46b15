//! Keeps names for other nodes: which nodes have registered under them, and who follows them. See [`Names`](super::Names).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use mainstay_base::{Instant, NodeId};
use mainstay_runtime::ActorMessage;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::handle::{Shared, locked};
use super::names::LEASES;
use super::{Caller, Context, Idempotent, Procedure, RpcHandle, ServeError};

/// Most bytes of a name.
pub(super) const NAME_BYTES_MAX: usize = 255;
/// Most names that one node registers, and most that it follows.
pub(super) const NAMES_MAX: usize = 1_024;
/// Most nodes of which a registry keeps something.
const NODES_MAX: usize = 16_384;
/// Most names that a registry keeps, of all nodes: each one counts for each node that has registered it, and for each that follows it.
const KEPT_MAX: usize = 1 << 18;
/// Most nodes that are told for one name; the first ones in their order.
const TOLD_MAX: usize = 256;
/// Most followers that are told of a name, each counted for each name, at a time: once in the shortest lease.
const TELLS_MAX: usize = 1_024;

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

/// Names that are followed have other nodes now.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Changed(pub(super) Vec<(String, Vec<NodeId>)>);

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
    /// It keeps something for 16,384 nodes, or 262,144 names of all nodes. Later there may be room.
    #[error("the registry keeps as many names, or names for as many nodes, as it may")]
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

impl Share {
    fn kept(&self) -> usize {
        self.names.len() + self.follows.len()
    }
}

/// What a registry knows, without a clock of its own.
#[derive(Default)]
struct Book {
    shares: BTreeMap<NodeId, Share>,
    nodes: BTreeMap<String, BTreeSet<NodeId>>,
    followers: BTreeMap<String, BTreeSet<NodeId>>,
    /// Names that nodes have registered and follow, each counted for each of them.
    kept: usize,
    /// Names with other nodes, in the order in which their followers are told, and the last one that was.
    changed: VecDeque<(String, Option<NodeId>)>,
    /// Those in `changed`: whether it has changed again while followers were told.
    again: BTreeMap<String, bool>,
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

    /// What a node says, in place of what it said before.
    fn renew(&mut self, now: Instant, of: NodeId, said: &Renew) -> Result<(), RegistryError> {
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
        let share = Share { until: now + lease, names, follows };
        let former = self.shares.get(&of).map_or(0, Share::kept);
        if share.kept() > former && self.kept - former + share.kept() > KEPT_MAX {
            return Err(RegistryError::Full);
        }
        self.put(of, share);
        Ok(())
    }

    fn put(&mut self, of: NodeId, share: Share) {
        let former = self.shares.remove(&of).unwrap_or_default();
        self.kept = self.kept - former.kept() + share.kept();
        for name in former.follows.difference(&share.follows) {
            remove(&mut self.followers, name, of);
        }
        for name in share.follows.difference(&former.follows) {
            add(&mut self.followers, name, of);
        }
        for name in former.names.difference(&share.names) {
            remove(&mut self.nodes, name, of);
            self.has_changed(name);
        }
        for name in share.names.difference(&former.names) {
            add(&mut self.nodes, name, of);
            self.has_changed(name);
        }
        if !(share.names.is_empty() && share.follows.is_empty()) {
            self.shares.insert(of, share);
        }
    }

    fn has_changed(&mut self, name: &str) {
        if let Some(again) = self.again.get_mut(name) {
            *again = true;
        } else if self.followers.contains_key(name) {
            self.again.insert(name.to_owned(), false);
            self.changed.push_back((name.to_owned(), None));
        }
    }

    /// Who is told now, and what: of [`TELLS_MAX`] names at most, each counted for each follower.
    fn tells(&mut self) -> BTreeMap<NodeId, Changed> {
        let (mut tells, mut room) = (BTreeMap::<NodeId, Changed>::new(), TELLS_MAX);
        while room > 0 {
            let Some((name, last)) = self.changed.pop_front() else { break };
            if last.is_none() {
                self.again.insert(name.clone(), false);
            }
            let nodes = self.find(&name);
            let after = last.map_or(Bound::Unbounded, Bound::Excluded);
            let followers = self.followers.get(&name).into_iter();
            let mut rest = followers.flat_map(|it| it.range((after, Bound::Unbounded))).peekable();
            let mut last = None;
            while let Some(follower) = rest.next_if(|_| room > 0) {
                let told = tells.entry(*follower).or_insert_with(|| Changed(Vec::new()));
                told.0.push((name.clone(), nodes.clone()));
                (room, last) = (room - 1, Some(*follower));
            }
            if rest.peek().is_some() {
                self.changed.push_back((name, last));
            } else if self.again.get(&name) == Some(&true) {
                self.changed.push_back((name, None));
            } else {
                self.again.remove(&name);
            }
        }
        tells
    }

    /// Leases that are over, and nodes that are lost.
    fn expire(&mut self, now: Instant, lost: &BTreeSet<NodeId>) {
        let is_over = |(node, it): &(&NodeId, &Share)| it.until <= now || lost.contains(node);
        let over: Vec<NodeId> = self.shares.iter().filter(is_over).map(|it| *it.0).collect();
        over.into_iter().for_each(|node| self.put(node, Share::default()));
    }
}

/// The registry of a node.
#[derive(Default)]
pub(super) struct Registry {
    book: Mutex<Book>,
    /// Nodes that are lost, and were not looked at.
    lost: Mutex<BTreeSet<NodeId>>,
    wake: Notify,
}

impl Registry {
    /// A node is lost: what it has registered is void. In a turn of the node, which is not to wait for the book.
    pub(super) fn lose(&self, node: NodeId) {
        locked(&self.lost).insert(node);
        self.wake.notify_one();
    }

    /// Those who follow what has changed are told. What gets lost is told with the next renewal.
    fn tell(&self, shared: &Arc<Shared>) {
        let tells = locked(&self.book).tells();
        for (follower, changed) in tells {
            Caller::new(Arc::clone(shared), follower).tell(changed);
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
        locked(&registry.book).expire(shared.now(), &lost);
        registry.tell(&shared);
    }
}

impl RpcHandle {
    /// From here on this node is a registry: it keeps names for [`Names`](super::Names) of other nodes and of its own, in memory. It looks 20 times a second for leases that are
    /// over, and tells followers what has changed, 1,024 of them at a time; what a node has registered is void when the node is [lost](Self::lost).
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
                let mut book = locked(&registry.book);
                book.renew(now, client, &said)?;
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
        let _ = self.shared().naming.registry.set(registry);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mainstay_base::ClusterId;

    use super::*;

    fn node(at: usize) -> NodeId {
        NodeId::new(ClusterId::from_entropy(1), &format!("n{at}"))
    }

    fn said(names: impl IntoIterator<Item = String>, follows: &[&str]) -> Renew {
        let follows = follows.iter().map(|&it| it.to_owned()).collect();
        Renew { lease: 1_000_000, names: names.into_iter().collect(), follows }
    }

    fn named(count: usize) -> impl Iterator<Item = String> {
        (0..count).map(|it| format!("n{it}"))
    }

    /// A registry keeps so many names of all nodes; what a node takes back, and what is over, makes room.
    #[test]
    fn names_are_bounded() {
        let (mut book, now) = (Book::default(), Instant::ZERO);
        for at in 0..256 {
            assert_eq!(book.renew(now, node(at), &said(named(1_024), &[])), Ok(()));
        }
        assert_eq!(book.kept, KEPT_MAX);
        assert_eq!(book.renew(now, node(256), &said(named(1), &[])), Err(RegistryError::Full));
        assert_eq!(book.renew(now, node(0), &said(named(1_023), &[])), Ok(()));
        assert_eq!(book.renew(now, node(256), &said([], &["n0"])), Ok(()));
        let many = said(named(1_025), &[]);
        assert_eq!(book.renew(now, node(1), &many), Err(RegistryError::TooMany));
        assert_eq!(book.find("n0").len(), TOLD_MAX);
        book.expire(now, &[node(0)].into());
        assert_eq!((book.kept, book.shares.len()), (255 * 1_024 + 1, 256));
        book.expire(now + Duration::from_secs(1), &BTreeSet::new());
        assert_eq!((book.kept, book.shares.len(), book.nodes.len()), (0, 0, 0));
    }

    /// Followers are told so many at a time, and all of them what holds at last, also while other names change again and again.
    #[test]
    fn followers_are_told_in_bounds() {
        let (mut book, now) = (Book::default(), Instant::ZERO);
        for at in 0..3_000 {
            book.renew(now, node(at), &said([], &["busy", "calm"])).unwrap();
        }
        book.renew(now, node(5_000), &said(["busy".to_owned()], &[])).unwrap();
        book.renew(now, node(5_001), &said(["calm".to_owned()], &[])).unwrap();
        let mut heard = BTreeMap::<(NodeId, String), Vec<NodeId>>::new();
        for turn in 0..20 {
            let names = (turn % 2 == 1).then(|| "busy".to_owned());
            if turn < 12 {
                book.renew(now, node(5_000), &said(names, &[])).unwrap();
            }
            let tells = book.tells();
            let count: usize = tells.values().map(|it| it.0.len()).sum();
            assert!(count <= TELLS_MAX, "{count} are told at a time");
            for (follower, Changed(names)) in tells {
                for (name, nodes) in names {
                    heard.insert((follower, name), nodes);
                }
            }
            assert!(book.changed.len() <= 2);
            if turn == 8 {
                let calm = heard.keys().filter(|it| it.1 == "calm").count();
                assert_eq!(calm, 3_000, "others do not wait for what changes all the time");
            }
        }
        let last = |(of, nodes): (&(NodeId, String), &Vec<NodeId>)| {
            *nodes == [node(if of.1 == "busy" { 5_000 } else { 5_001 })]
        };
        assert_eq!(heard.len(), 6_000);
        assert!(heard.iter().all(last), "each has heard what holds at last");
        assert!(book.changed.is_empty() && book.again.is_empty());
    }

    /// A renewal that is executed after its node was lost, of which nothing is heard any more, is kept for a minute at most, whatever it asks for.
    #[test]
    fn a_lease_is_a_minute_at_most() {
        for micros in [3_600_000_000, u64::MAX] {
            let (mut book, now) = (Book::default(), Instant::ZERO);
            book.expire(now, &[node(1)].into());
            let late = Renew { lease: micros, ..said(named(1), &["n0"]) };
            assert_eq!(book.renew(now, node(1), &late), Ok(()));
            book.expire(now + Duration::from_secs(59), &BTreeSet::new());
            assert_eq!(book.find("n0"), [node(1)]);
            book.expire(now + LEASES.1, &BTreeSet::new());
            assert_eq!((book.kept, book.shares.len()), (0, 0));
        }
    }
}
