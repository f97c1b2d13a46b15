//! A large state.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use etcd_client::{Client, Txn, TxnOp};
use peers_common::{
    BIG_CASES, BIG_LIMIT, Big, Case, Measured, Run, failover, probe_checkpoint, runtime,
    until_served,
};

use crate::GUARANTEE;
use crate::members::Members;

const OPTIONS: &[&str] = &["--quota-backend-bytes=8589934592"];
/// Clients of the load, spread over the members.
const CLIENTS: usize = 12;
/// Puts of a transaction: as many as a member takes.
const BATCH: u64 = 128;
/// So many snapshots are taken while the members are probed.
const SNAPSHOTS: usize = 2;
/// How long the client goes on after a follower is killed, and what it waits for a put.
const AFTER: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn cases() -> impl Iterator<Item = Case> {
    BIG_CASES.into_iter().map(|(name, big)| {
        let measure = move |run: &Run| measure(run, big.of(run));
        Case::new("bigstate", name, "etcd", GUARANTEE, measure).limit(BIG_LIMIT)
    })
}

fn measure(run: &Run, big: Big) -> io::Result<Vec<Measured>> {
    let mut members = Members::start(run.dir(), OPTIONS)?;
    let runtime = runtime()?;
    let (leader, time) = runtime.block_on(async {
        let leader = members.leader().await?;
        Ok::<_, io::Error>((leader, big.load(clients(&members).await?, BATCH, write).await?))
    })?;
    members.check()?;
    let mut all = vec![Measured::rate("load_keys_per_s", big.keys, time)];
    let them = &members;
    let load = |stop| {
        peers_common::runtime()?.block_on(async {
            big.load_on(clients(them).await?, BATCH, stop, write).await.map(drop)
        })
    };
    let snapshots = || {
        peers_common::runtime()?.block_on(async {
            let mut client = them.connect(leader).await?;
            for _ in 0..SNAPSHOTS {
                snapshot(&mut client).await?;
            }
            Ok(())
        })
    };
    // Connected by the first put: a connection belongs to the runtime that made it.
    let mut single = None;
    let single_put = async |key: String| {
        let client = match &mut single {
            Some(client) => client,
            none => none.insert(them.connect(leader + 1).await?),
        };
        put(client, key).await
    };
    all.extend(probe_checkpoint(load, snapshots, single_put)?);
    runtime.block_on(async {
        let leader = members.leader().await?;
        let mut client = members.connect(leader).await?;
        let victim = members.take((leader + 1) % 3);
        let again = async |number| put(&mut client, big.key(number)).await;
        let gap = failover(victim, AFTER, PATIENCE, again).await?[0];
        all.push(Measured { metric: "kill_one_gap_ms", ..gap });
        let killed = Instant::now();
        members.kill_all()?;
        members.start_all()?;
        let again = async |key: String| put(&mut members.connect(leader).await?, key).await;
        all.push(until_served(killed, again).await?);
        Ok(all)
    })
}

async fn clients(members: &Members) -> io::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for member in 0..CLIENTS {
        clients.push(members.connect(member).await?);
    }
    Ok(clients)
}

async fn write(client: &mut Client, big: Big, range: Range<u64>) -> io::Result<()> {
    let puts = range.map(|number| TxnOp::put(big.key(number), big.value(), None));
    let done = client.txn(Txn::new().and_then(puts.collect::<Vec<_>>())).await;
    done.map(drop).map_err(io::Error::other)
}

async fn put(client: &mut Client, key: String) -> io::Result<()> {
    client.put(key, "v", None).await.map(drop).map_err(io::Error::other)
}

/// Has the leader drop old revisions and give out its state, which goes nowhere here.
async fn snapshot(client: &mut Client) -> io::Result<()> {
    let status = client.status().await.map_err(io::Error::other)?;
    let revision = status.header().map_or(0, |header| header.revision());
    client.compact(revision, None).await.map_err(io::Error::other)?;
    let mut stream = client.snapshot().await.map_err(io::Error::other)?;
    while stream.message().await.map_err(io::Error::other)?.is_some() {}
    Ok(())
}
