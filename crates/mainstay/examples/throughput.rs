//! Executes per second and their latency: three nodes in one process, on one thread, over loopback TCP; both
//! durabilities, with 1 and with 64 commands of 64 bytes in flight. The disk is that of the temporary directory.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstay::{Config, Durability, Outcome, Replicated, RestoreError, Snapshot, StateMachine};
use mainstay_base::{ClusterId, Position};
use tokio::task::{JoinSet, LocalSet};

/// How long each figure is measured.
const MEASURE: Duration = Duration::from_secs(2);

/// Counts the commands.
#[derive(Default)]
struct Count(u64);

struct Once(Option<u64>);

impl Snapshot for Once {
    fn next_chunk(&mut self, _max: usize) -> Option<Bytes> {
        self.0.take().map(|count| Bytes::copy_from_slice(&count.to_le_bytes()))
    }
}

impl StateMachine for Count {
    type Snapshot = Once;

    fn apply(&mut self, _at: Position, _command: &[u8], reply: &mut Vec<u8>) {
        self.0 += 1;
        reply.extend(self.0.to_le_bytes());
    }

    fn begin_snapshot(&mut self) -> Once {
        Once(Some(self.0))
    }

    fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        self.0 = u64::from_le_bytes(chunk.try_into().map_err(|_| RestoreError::Chunk("size"))?);
        Ok(())
    }

    fn state_hash(&self) -> u128 {
        self.0.into()
    }
}

fn start(
    durability: Durability,
    home: &tempfile::TempDir,
) -> Result<Vec<Replicated<Count>>, Box<dyn Error>> {
    let mut nodes: BTreeMap<String, SocketAddr> = BTreeMap::new();
    let mut listeners = Vec::new();
    for name in ["a", "b", "c"] {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        nodes.insert(name.to_owned(), listener.local_addr()?);
        listeners.push(listener);
    }
    drop(listeners);
    let cluster = ClusterId::from_entropy(1);
    let mut started = Vec::new();
    for name in nodes.keys() {
        let config = Config::new(cluster, name.as_str(), nodes.clone())
            .durability(durability)
            .timeouts(Duration::from_secs(2), Duration::from_millis(50))
            .data_dir(home.path().join(name))
            .bootstrap(true);
        started.push(Replicated::start(config, Count::default)?);
    }
    Ok(started)
}

/// Waits until a node executes.
async fn ready(node: &Replicated<Count>) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    while !matches!(node.execute(b"ready?").await, Outcome::Done(_)) {
        tick.tick().await;
    }
}

async fn measure(node: &Replicated<Count>, in_flight: usize) -> (f64, Duration) {
    let times = Rc::new(RefCell::new(Vec::new()));
    let begin = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..in_flight {
        let (node, times) = (node.clone(), Rc::clone(&times));
        callers.spawn_local(async move {
            while begin.elapsed() < MEASURE {
                let asked = Instant::now();
                if let Outcome::Done(_) = node.execute(&[7; 64]).await {
                    times.borrow_mut().push(asked.elapsed());
                }
            }
        });
    }
    while callers.join_next().await.is_some() {}
    let seconds = begin.elapsed().as_secs_f64();
    let mut times = times.borrow_mut();
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    (times.len() as f64 / seconds, median)
}

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        for durability in [Durability::Memory, Durability::Disk] {
            let home = tempfile::tempdir()?;
            let nodes = start(durability, &home)?;
            ready(&nodes[0]).await;
            for in_flight in [1, 64, 1024] {
                let (rate, median) = measure(&nodes[0], in_flight).await;
                println!(
                    "{durability:?}, {in_flight} in flight: {rate:.0} executes/s, p50 {median:?}"
                );
            }
            for node in nodes {
                println!("{:?}", node.close().await);
            }
        }
        Ok(())
    })
}
