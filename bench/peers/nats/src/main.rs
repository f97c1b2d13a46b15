//! Measures NATS JetStream: `peer-nats [CASE-PREFIX..] [--list] [--seconds N]`.
//!
//! Three servers on the loopback interface, plain TCP, defaults; a file stream with three replicas. A publication is acknowledged
//! when a majority has received it; its log is not forced: these servers sync their files by a timer,
//! so the figures stand beside those of `memory`. Payloads have 64 bytes, each client has a connection of its own; one
//! client talks to the leader of the stream, 64 are spread over the servers. Closed loop, a publication at a time
//! and client. `nats-r3-shared`: 64 clients share one connection to the leader, which can then send many at once.
//!
//! Failover: the leader of the stream is killed with `kill -9`; a client of another server publishes one message after the
//! other and gives one up after 40 ms without an answer, so that is the grain of the figure.

mod servers;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use async_nats::jetstream::Context;
use peers_common::{Case, Measured, Program, Run, closed_loop, failover, find, runtime};

use servers::{SUBJECT, Servers};

const VALUE: [u8; 64] = [b'v'; 64];
const GUARANTEE: &str = "agreed order, 2 of 3 copies in memory or page cache, not fsynced, no TLS";
/// What a publication may take during a failover before another one is tried.
const PATIENCE: Duration = Duration::from_millis(40);
/// How long the client goes on after the leader is killed.
const AFTER: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    let cases: [(_, _, _, fn(&Run) -> _); 4] = [
        ("directory", "directory/set/1client/memory", "nats-r3", |run| publish(run, 1)),
        ("directory", "directory/set/64clients/memory", "nats-r3", |run| publish(run, 64)),
        ("directory", "directory/set/64clients/memory", "nats-r3-shared", publish_shared),
        ("failover", "failover/kill/sequencer", "nats-r3", kill),
    ];
    let case = |(bench, name, peer, measure)| Case::new(bench, name, peer, GUARANTEE, measure);
    let check = || find("nats-server", "nats-server").map(drop);
    Program { name: "peer-nats", check, cases: cases.map(case).to_vec() }.main()
}

/// Publishes, and waits for the acknowledgement.
async fn acknowledged(client: &Context) -> io::Result<()> {
    let sent = client.publish(SUBJECT, VALUE.to_vec().into()).await.map_err(io::Error::other)?;
    sent.await.map(drop).map_err(io::Error::other)
}

/// Publications of so many clients, each with a connection of its own; the first one talks to the leader.
fn publish(run: &Run, count: usize) -> io::Result<Vec<Measured>> {
    load(run, async |servers, leader| {
        let mut clients = Vec::new();
        for name in 0..count {
            clients.push(servers.connect(leader + name).await?);
        }
        Ok(clients)
    })
}

/// Publications of 64 clients on one connection to the leader.
fn publish_shared(run: &Run) -> io::Result<Vec<Measured>> {
    load(run, async |servers, leader| Ok(vec![servers.connect(leader).await?; 64]))
}

fn load(
    run: &Run,
    connect: impl AsyncFnOnce(&Servers, usize) -> io::Result<Vec<Context>>,
) -> io::Result<Vec<Measured>> {
    let mut servers = Servers::start(run.dir())?;
    let samples = runtime()?.block_on(async {
        let leader = servers.make_stream().await?;
        let clients = connect(&servers, leader).await?;
        let publish = async |client: &mut Context, _| acknowledged(client).await;
        closed_loop(run, clients, publish).await
    })?;
    servers.check()?;
    Ok(samples.measured("ops_per_s"))
}

/// The longest silence when the leader of the stream is killed.
fn kill(run: &Run) -> io::Result<Vec<Measured>> {
    let mut servers = Servers::start(run.dir())?;
    runtime()?.block_on(async {
        let leader = servers.make_stream().await?;
        let client = servers.connect(leader + 1).await?;
        let victim = servers.take(leader);
        failover(victim, AFTER, PATIENCE, async |_| acknowledged(&client).await).await
    })
}
