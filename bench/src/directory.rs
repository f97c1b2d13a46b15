//! The replicated directory under load: three nodes, and clients at all of them.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mainstay::Durability;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;

use crate::client::{Client, is_done};
use crate::node::{Nodes, Place};
use crate::output::{Measured, Report, percentile};

const WARM_UP: Duration = Duration::from_millis(500);
const MEASURE: Duration = Duration::from_secs(3);
/// A case that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the clients do.
struct Case {
    name: &'static str,
    durability: Durability,
    clients: usize,
    /// Commands without an answer that each client has.
    pipeline: usize,
}

const CASES: [Case; 7] = [
    Case::new("directory/set/1client/disk", Durability::Disk, 1, 1),
    Case::new("directory/set/1client/disk/pipeline16", Durability::Disk, 1, 16),
    Case::new("directory/set/64clients/disk", Durability::Disk, 64, 1),
    Case::new("directory/set/64clients/disk/pipeline16", Durability::Disk, 64, 16),
    Case::new("directory/set/1client/memory", Durability::Memory, 1, 1),
    Case::new("directory/set/64clients/memory", Durability::Memory, 64, 1),
    Case::new("directory/set/64clients/memory/pipeline16", Durability::Memory, 64, 16),
];

impl Case {
    const fn new(
        name: &'static str,
        durability: Durability,
        clients: usize,
        pipeline: usize,
    ) -> Self {
        Self { name, durability, clients, pipeline }
    }
}

/// Measures all cases, each with a cluster of its own.
pub(crate) fn run(place: &Place, report: &mut Report) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for case in &CASES {
        report.case("directory", case.name, || {
            let nodes = Nodes::start(place, case.durability)?;
            let addresses = nodes.clients()?;
            let measured = async { timeout(PATIENCE, measure(case, &addresses)).await? };
            LocalSet::new().block_on(&runtime, measured)
        });
    }
    Ok(())
}

async fn measure(case: &Case, addresses: &[SocketAddr]) -> io::Result<Vec<Measured>> {
    let from = Instant::now() + WARM_UP;
    let mut clients = JoinSet::new();
    for (name, address) in addresses.iter().cycle().take(case.clients).enumerate() {
        clients.spawn_local(load(*address, name, case.pipeline, from));
    }
    let mut samples = Vec::new();
    while let Some(done) = clients.join_next().await {
        samples.extend(done.map_err(io::Error::other)??);
    }
    samples.sort_unstable();
    Ok(vec![
        Measured::rate("ops_per_s", samples.len() as u64, MEASURE),
        Measured::micros("p50_us", percentile(&samples, 50)),
        Measured::micros("p99_us", percentile(&samples, 99)),
    ])
}

/// How long each SET took that was acknowledged between `from` and the end.
async fn load(
    address: SocketAddr,
    name: usize,
    pipeline: usize,
    from: Instant,
) -> io::Result<Vec<Duration>> {
    let until = from + MEASURE;
    let mut client = Client::connect(address, name).await?;
    let mut samples = Vec::new();
    let mut refused = None;
    while Instant::now() < until {
        client.fill(pipeline).await?;
        let received = client.receive(|reply, sent| {
            let now = Instant::now();
            if !is_done(&reply) {
                refused = Some(reply);
            } else if (from..until).contains(&now) {
                samples.push(now - sent);
            }
        });
        received.await?;
        if let Some(reply) = refused {
            return Err(io::Error::other(format!("a SET was answered {reply:?}")));
        }
    }
    Ok(samples)
}
