//! Measures etcd: `peer-etcd [CASE-PREFIX..] [--list] [--seconds N]`.
//!
//! Three members on the loopback interface, plain TCP, defaults. A put is acknowledged when a majority has forced it to its log
//! (one `fdatasync` for all that are at hand). Values have 64 bytes, each client has 1,000 keys of its own and a
//! connection of its own; one client talks to the leader, 64 are spread over the members. Closed loop, a put at a time.
//!
//! Failover: the leader is killed with `kill -9`; a client of another member puts one key after the other, and gives up a put
//! after 40 ms, so that is the grain of the figure. `etcd-tuned` has a heartbeat of 20 ms and elections after 200 ms
//! (defaults: 100 ms, 1,000 ms).
//!
//! A large state is put in transactions of 128 puts by clients of all members, with a quota of 8 GiB. While the leader gives out a
//! snapshot, twice, each behind a compaction, the load goes on and a client of another member puts one key after the other. Then a
//! follower is killed, and all members.

mod bigstate;
mod members;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use etcd_client::Client;
use peers_common::{Case, Measured, Program, Run, closed_loop, failover, find, runtime};

use members::Members;

/// How many keys one client writes.
const KEYS: u64 = 1_000;
const VALUE: [u8; 64] = [b'v'; 64];
pub(crate) const GUARANTEE: &str = "agreed order, fdatasync at 2 of 3 before the answer, no TLS";
/// What a put may take during a failover before another one is tried.
const PATIENCE: Duration = Duration::from_millis(40);
/// How long the client goes on after the leader is killed.
const AFTER: Duration = Duration::from_secs(8);
const DEFAULTS: &[&str] = &[];
const TUNED: &[&str] = &["--heartbeat-interval=20", "--election-timeout=200"];

fn main() -> ExitCode {
    let cases: [(_, _, _, fn(&Run) -> _); 4] = [
        ("directory", "directory/set/1client/disk", "etcd", |run| put(run, 1)),
        ("directory", "directory/set/64clients/disk", "etcd", |run| put(run, 64)),
        ("failover", "failover/kill/sequencer", "etcd", |run| kill(run, DEFAULTS)),
        ("failover", "failover/kill/sequencer", "etcd-tuned", |run| kill(run, TUNED)),
    ];
    let case = |(bench, name, peer, measure)| Case::new(bench, name, peer, GUARANTEE, measure);
    let check = || find("etcd", "etcd-server").map(drop);
    let cases = cases.map(case).into_iter().chain(bigstate::cases()).collect();
    Program { name: "peer-etcd", check, cases }.main()
}

/// Puts of so many clients.
fn put(run: &Run, count: usize) -> io::Result<Vec<Measured>> {
    let mut members = Members::start(run.dir(), DEFAULTS)?;
    let samples = runtime()?.block_on(async {
        let leader = members.leader().await?;
        let mut clients = Vec::new();
        for name in 0..count {
            // The first one talks to the leader.
            clients.push((name, members.connect(leader + name).await?));
        }
        let put = async |(name, client): &mut (usize, Client), number| {
            let key = format!("key:{name}:{}", number % KEYS);
            client.put(key, VALUE, None).await.map(drop).map_err(io::Error::other)
        };
        closed_loop(run, clients, put).await
    })?;
    members.check()?;
    Ok(samples.measured("ops_per_s"))
}

/// The longest silence when the leader is killed.
fn kill(run: &Run, options: &[&str]) -> io::Result<Vec<Measured>> {
    let mut members = Members::start(run.dir(), options)?;
    runtime()?.block_on(async {
        let leader = members.leader().await?;
        let mut client = members.connect(leader + 1).await?;
        let victim = members.take(leader);
        let put = async |number| {
            let key = format!("key:0:{}", number % KEYS);
            client.put(key, VALUE, None).await.map(drop).map_err(io::Error::other)
        };
        failover(victim, AFTER, PATIENCE, put).await
    })
}
