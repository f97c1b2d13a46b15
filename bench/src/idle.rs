//! What nodes cost that have nothing to do, and whether they grow under load.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use mainstay::Durability;
use mainstay_directory::resp::Reply;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;

use crate::client::{Client, is_done};
use crate::node::{Nodes, Place};
use crate::output::{Measured, Report};
use crate::usage::Usage;

/// From the first view until an idle node is looked at, and for how long.
const SETTLE: Duration = Duration::from_secs(2);
const WATCH: Duration = Duration::from_secs(10);
/// The load of the soak.
const CLIENTS: usize = 64;
/// After an answer that is no acknowledgement.
const PAUSE: Duration = Duration::from_millis(10);
/// Of the soak, when memory is looked at first: caches are full and checkpoints were written.
const FULL_AFTER: f64 = 0.2;

#[derive(clap::Args)]
pub(crate) struct Soak {
    #[command(flatten)]
    place: Place,
    /// How long the load lasts.
    #[arg(long, default_value = "600", value_parser = clap::value_parser!(u64).range(10..))]
    seconds: u64,
}

/// Three nodes without a client: the largest of them.
pub(crate) fn run(place: &Place, report: &mut Report) -> io::Result<()> {
    for (name, durability) in
        [("idle/node/disk", Durability::Disk), ("idle/node/memory", Durability::Memory)]
    {
        report.case("idle", name, || {
            let nodes = Nodes::start(place, durability)?;
            thread::sleep(SETTLE);
            let before = usages(&nodes)?;
            thread::sleep(WATCH);
            let after = usages(&nodes)?;
            let used = before.iter().zip(&after).map(|(a, b)| b.processor - a.processor).max();
            let core = used.unwrap_or_default().as_secs_f64() / WATCH.as_secs_f64();
            Ok(vec![
                Measured::mebibytes("rss_mib", resident(&after)),
                Measured::percent("core_percent", core),
            ])
        });
    }
    Ok(())
}

/// Three nodes of durability disk under full load: the largest of them early and at the end.
pub(crate) fn soak(options: &Soak, report: &mut Report) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let whole = Duration::from_secs(options.seconds);
    report.case("soak", "soak/directory/disk", || {
        let nodes = Nodes::start(&options.place, Durability::Disk)?;
        let addresses = nodes.clients()?;
        let begun = Instant::now();
        let pids: Vec<u32> = nodes.members.iter().map(|member| member.process.id()).collect();
        let watching = thread::spawn(move || watch(&pids, begun, whole));
        let strain = strain(&addresses, begun + whole);
        let (done, refused) = LocalSet::new().block_on(&runtime, strain)?;
        let seen =
            watching.join().map_err(|_| io::Error::other("the watching thread panicked"))??;
        let full = (seen.len() as f64 * FULL_AFTER) as usize;
        let early = seen.get(full).copied().unwrap_or_default();
        let late = seen.last().copied().unwrap_or_default();
        Ok(vec![
            Measured::rate("ops_per_s", done, whole),
            Measured::count("refused", refused),
            Measured::mebibytes("rss_early_mib", early),
            Measured::mebibytes("rss_late_mib", late),
            Measured::mebibytes("rss_max_mib", seen.into_iter().max().unwrap_or_default()),
        ])
    });
    Ok(())
}

/// The memory of the largest process, a hundred times until the end.
fn watch(pids: &[u32], begun: Instant, whole: Duration) -> io::Result<Vec<u64>> {
    let mut seen = Vec::new();
    while begun.elapsed() < whole {
        thread::sleep(whole / 100);
        let usages: io::Result<Vec<_>> = pids.iter().map(|pid| Usage::of(*pid)).collect();
        seen.push(resident(&usages?));
    }
    Ok(seen)
}

/// Clients write until then: how many SETs were acknowledged, and how many were answered otherwise.
async fn strain(addresses: &[SocketAddr], until: Instant) -> io::Result<(u64, u64)> {
    let mut clients = JoinSet::new();
    for (name, address) in addresses.iter().cycle().take(CLIENTS).enumerate() {
        clients.spawn_local(write(*address, name, until));
    }
    let (mut done, mut refused) = (0, 0);
    while let Some(client) = clients.join_next().await {
        let counts = client.map_err(io::Error::other)??;
        (done, refused) = (done + counts.0, refused + counts.1);
    }
    Ok((done, refused))
}

async fn write(address: SocketAddr, name: usize, until: Instant) -> io::Result<(u64, u64)> {
    let mut client = Client::connect(address, name).await?;
    let (mut done, mut refused) = (0, 0);
    while Instant::now() < until {
        client.fill(1).await?;
        let before = refused;
        let answered = |reply: Reply, _| match is_done(&reply) {
            true => done += 1,
            false => refused += 1,
        };
        client.receive(answered).await?;
        if refused > before {
            sleep(PAUSE).await;
        }
    }
    Ok((done, refused))
}

fn usages(nodes: &Nodes) -> io::Result<Vec<Usage>> {
    nodes.members.iter().map(|member| Usage::of(member.process.id())).collect()
}

fn resident(usages: &[Usage]) -> u64 {
    usages.iter().map(|usage| usage.resident_bytes).max().unwrap_or_default()
}
