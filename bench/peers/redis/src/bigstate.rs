//! A large state.

use std::io;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use peers_common::{
    BIG_CASES, BIG_LIMIT, Big, Case, Measured, Process, Run, failover, loopback_ports,
    probe_checkpoint, runtime, until_served,
};

use crate::client::Client;
use crate::{attached, server};

const GUARANTEE: &str = "log of the one server fsynced before the answer, two replicas follow, nothing fails over, no TLS";
const FORCED: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
const CLIENTS: usize = 2;
/// SETs in one write.
const BATCH: u64 = 512;
/// So often the log is rewritten while it is probed.
const REWRITES: usize = 2;
/// Between two looks whether that is done.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the client goes on after a replica is killed, and what it waits for a SET.
const AFTER: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn cases() -> impl Iterator<Item = Case> {
    BIG_CASES.into_iter().map(|(name, big)| {
        let measure = move |run: &Run| measure(run, big.of(run));
        Case::new("bigstate", name, "redis", GUARANTEE, measure).limit(BIG_LIMIT)
    })
}

fn measure(run: &Run, big: Big) -> io::Result<Vec<Measured>> {
    let ports: [u16; 3] = loopback_ports()?;
    let master = ports[0];
    let mut servers = start(run, ports)?;
    let runtime = runtime()?;
    let time = runtime.block_on(async {
        attached(master).await?;
        big.load(clients(master).await?, BATCH, write).await
    })?;
    let mut all = vec![Measured::rate("load_keys_per_s", big.keys, time)];
    let load = |stop| {
        peers_common::runtime()?.block_on(async {
            big.load_on(clients(master).await?, BATCH, stop, write).await.map(drop)
        })
    };
    let rewrite = || (0..REWRITES).try_for_each(|_| rewrite(master));
    // Connected by the first SET: a connection belongs to the runtime that made it.
    let mut single = None;
    let put = async |key: String| {
        let client = match &mut single {
            Some(client) => client,
            none => none.insert(Client::connect(master).await?),
        };
        client.set_all([key].into_iter(), b"v").await
    };
    all.extend(probe_checkpoint(load, rewrite, put)?);
    runtime.block_on(async {
        let mut client = Client::connect(master).await?;
        let put = async |number| client.set_all([big.key(number)].into_iter(), b"v").await;
        let replica = servers.remove(1);
        let gap = failover(replica, AFTER, PATIENCE, put).await?[0];
        all.push(Measured { metric: "kill_one_gap_ms", ..gap });
        let killed = Instant::now();
        servers.iter_mut().try_for_each(Process::kill)?;
        let _servers = start(run, ports)?;
        let put = async |key: String| {
            Client::connect(master).await?.set_all([key].into_iter(), b"v").await
        };
        all.push(until_served(killed, put).await?);
        Ok(all)
    })
}

/// One server and its two replicas.
fn start(run: &Run, ports: [u16; 3]) -> io::Result<Vec<Process>> {
    let of = format!("127.0.0.1 {}", ports[0]);
    let start = |(name, port)| {
        let more: &[&str] =
            if name == 0 { &["--repl-diskless-sync-delay", "0"] } else { &["--replicaof", &of] };
        server(run.dir(), port, &[FORCED.as_slice(), more].concat())
    };
    ports.into_iter().enumerate().map(start).collect()
}

async fn clients(port: u16) -> io::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(port).await?);
    }
    Ok(clients)
}

async fn write(client: &mut Client, big: Big, range: Range<u64>) -> io::Result<()> {
    client.set_all(range.map(|number| big.key(number)), &big.value()).await
}

/// Has the server write its state to a new log, and waits until it is there. One that the server began itself ends first.
fn rewrite(port: u16) -> io::Result<()> {
    runtime()?.block_on(async {
        let mut client = Client::connect(port).await?;
        let mut begun = false;
        loop {
            let info = client.ask("INFO persistence\r\n").await?;
            let is_idle = ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"]
                .iter()
                .all(|it| info.contains(it));
            match (is_idle, begun) {
                (true, true) if info.contains("aof_last_bgrewrite_status:ok") => return Ok(()),
                (true, true) => return Err(io::Error::other("the log was not rewritten")),
                (true, false) => {
                    client.ask("BGREWRITEAOF\r\n").await?;
                    begun = true;
                }
                (false, _) => {}
            }
            thread::sleep(PAUSE);
        }
    })
}
