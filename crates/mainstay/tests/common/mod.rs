//! Three nodes in one process, and a state machine that remembers every command.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mainstay::{
    Config, Durability, Outcome, Replicated, RestoreError, Snapshot, StateMachine, Status,
};
use mainstay_base::{ClusterId, Position};
use tokio::task::LocalSet;
use tokio::time::{self, Instant};

/// Every command in order; the reply is the command's place.
#[derive(Clone, Default)]
pub struct Journal {
    pub entries: Vec<u64>,
    hash: u128,
}

pub struct Copied(std::vec::IntoIter<u64>);

impl Snapshot for Copied {
    fn next_chunk(&mut self, max: usize) -> Option<Bytes> {
        let chunk: Vec<u8> = self.0.by_ref().take(max / 8).flat_map(u64::to_le_bytes).collect();
        (!chunk.is_empty()).then(|| chunk.into())
    }
}

impl Journal {
    fn push(&mut self, entry: u64) {
        self.entries.push(entry);
        self.hash = self.hash.wrapping_mul(0x0001_0000_01b3).wrapping_add(u128::from(entry) + 1);
    }
}

/// A command that leaves half of its work behind and panics.
pub const BOOM: [u8; 4] = *b"boom";

impl StateMachine for Journal {
    type Snapshot = Copied;

    fn apply(&mut self, _at: Position, command: &[u8], reply: &mut Vec<u8>) {
        if command == BOOM {
            self.push(u64::MAX);
            panic!("as told");
        }
        if let Ok(entry) = command.try_into().map(u64::from_le_bytes) {
            self.push(entry);
            reply.extend((self.entries.len() as u64).to_le_bytes());
        }
    }

    fn begin_snapshot(&mut self) -> Copied {
        Copied(self.entries.clone().into_iter())
    }

    fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        let (entries, rest) = chunk.as_chunks::<8>();
        entries.iter().for_each(|entry| self.push(u64::from_le_bytes(*entry)));
        if rest.is_empty() { Ok(()) } else { Err(RestoreError::Chunk("not whole entries")) }
    }

    fn state_hash(&self) -> u128 {
        self.hash
    }
}

pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// An address that nobody listens at and that no dial gets as its own: below the ports that the system gives out, since
/// a node has to come back to it.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = (std::process::id() % 1_000) as u16 * 10;
    loop {
        let port = 20_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
}

/// Where three nodes are.
pub struct Cluster {
    pub id: ClusterId,
    pub durability: Durability,
    pub nodes: BTreeMap<String, SocketAddr>,
    pub home: tempfile::TempDir,
    pub checkpoint_bytes: u64,
}

impl Cluster {
    pub fn new(durability: Durability) -> Self {
        let nodes = NAMES.map(|name| (name.to_owned(), free_address())).into();
        let home = tempfile::tempdir().unwrap();
        let id = ClusterId::from_entropy(7);
        Self { id, durability, nodes, home, checkpoint_bytes: 64 << 20 }
    }

    pub fn dir(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn config(&self, name: &str) -> Config {
        let replica = mainstay_paradigm::Config::builder().checkpoint_bytes(self.checkpoint_bytes);
        let config = Config::new(self.id, name, self.nodes.clone())
            .durability(self.durability)
            .timeouts(Duration::from_millis(1_000), Duration::from_millis(50))
            .deadline(Duration::from_secs(10))
            .replica(replica.hashes(64, 16).build().unwrap());
        match self.durability {
            Durability::Memory => config,
            Durability::Disk => config.data_dir(self.dir(name)),
        }
    }

    /// Starts a node for the first time.
    pub fn bootstrap(&self, name: &str) -> Replicated<Journal> {
        Replicated::start(self.config(name).bootstrap(true), Journal::default).unwrap()
    }

    /// Starts a node again.
    pub fn start(&self, name: &str) -> Replicated<Journal> {
        Replicated::start(self.config(name), Journal::default).unwrap()
    }

    pub fn all(&self) -> [Replicated<Journal>; 3] {
        NAMES.map(|name| self.bootstrap(name))
    }
}

/// Runs a test on a thread of its own, within a minute.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        time::timeout(Duration::from_secs(60), test).await.expect("done within a minute");
    });
}

/// Waits until the status of a node is as wanted.
pub async fn until<S: StateMachine>(
    node: &Replicated<S>,
    what: &str,
    wanted: impl Fn(&Status) -> bool,
) -> Status {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut tick = time::interval(Duration::from_millis(5));
    loop {
        tick.tick().await;
        let status = node.status().await.unwrap();
        if wanted(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{what} within 20 s: {status:#?}");
    }
}

/// Waits until the state machines of all nodes have been told the view that the nodes are in, and have equal states; their hash.
pub async fn agreed<S: StateMachine>(nodes: &[Replicated<S>]) -> u128 {
    let mut hashes = Vec::new();
    for node in nodes {
        let told = |status: &Status| {
            let view = status.site.stack.as_ref().map(|stack| stack.view.number);
            view.is_some() && status.replica.view == view
        };
        let status = until(node, "told of its view", told).await;
        hashes.push((status.replica.position, status.replica.hash.unwrap()));
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    hashes[0].1
}

/// Waits until the node is in a view of so many members and has the state.
pub async fn ready<S: StateMachine>(node: &Replicated<S>, members: usize) -> Status {
    until(node, "a member with a state", |status| {
        let stack = status.site.stack.as_ref();
        status.replica.hash.is_some()
            && stack.is_some_and(|stack| {
                stack.members.len() == members && stack.groups.values().all(|(it, _)| it.whole)
            })
    })
    .await
}

/// The place in the order that an executed command was given.
pub fn place(outcome: &Outcome) -> Option<u64> {
    match outcome {
        Outcome::Done(reply) => Some(u64::from_le_bytes(reply[..].try_into().unwrap())),
        _ => None,
    }
}

/// Executes `range` with many in flight; the places of those done, by command.
pub async fn load(node: &Replicated<Journal>, range: std::ops::Range<u64>) -> BTreeMap<u64, u64> {
    let mut tasks = tokio::task::JoinSet::new();
    for entry in range {
        let node = node.clone();
        tasks.spawn_local(async move { (entry, node.execute(&entry.to_le_bytes()).await) });
    }
    let mut places = BTreeMap::new();
    while let Some(done) = tasks.join_next().await {
        let (entry, outcome) = done.unwrap();
        match place(&outcome) {
            Some(place) => drop(places.insert(entry, place)),
            None => println!("{entry}: {outcome:?}"),
        }
    }
    places
}

/// What the nodes say to a linearisable read.
pub async fn journal(node: &Replicated<Journal>) -> Vec<u64> {
    node.read(|journal| journal.entries.clone()).await.unwrap()
}
