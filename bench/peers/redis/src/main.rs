//! Measures Redis: `peer-redis [CASE-PREFIX..] [--list] [--seconds N]`.
//!
//! Three shapes: `redis` in the cases of memory is one server that keeps nothing; `redis` in those of the disk is one server
//! with `appendfsync always`; `redis-wait` is one server with two replicas, and each SET is followed by `WAIT 1`, sent in the
//! same write, so that it is acknowledged when two of three have it. The first two are loaded by redis-benchmark (`-t set`, 64 B,
//! random keys), which takes a number of requests and no time: a short round tells how many fill the warm-up, the warm-up how many fill the
//! window. It cannot send pairs of
//! commands: `redis-wait` is loaded by a client of this program, closed loop, one connection a client.

//!
//! In the cases of a large state there is one server with two replicas, all with `appendfsync always`; SETs are acknowledged by the one
//! server. The load is pipelined, 512 SETs in one write of each of two clients. While `BGREWRITEAOF` runs, twice, the load goes on and
//! a client of its own SETs one key after the other. Then a replica is killed, and all servers; nothing fails over.

mod bigstate;
mod client;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use client::Client;
use peers_common::{
    Case, Measured, Process, Program, Run, closed_loop, command, eventually, find, loopback_ports,
    run_to_end, runtime,
};

const ALONE: &str = "1 copy, in memory, never written to disk, no TLS";
const FORCED: &str = "1 copy, log fsynced before the answer, no TLS";
const WAIT: &str = "2 of 3 copies in memory (WAIT 1), failover may still lose it, no TLS";
/// Requests of the first round, which only tells the rate; the others have at least as many.
const TRIAL: u64 = 500;
/// How many keys redis-benchmark writes: as many as 64 clients with 1,000 each.
const KEYS: u64 = 64_000;

fn main() -> ExitCode {
    let check = || {
        find("redis-server", "redis-server")?;
        find("redis-benchmark", "redis-tools").map(drop)
    };
    let case =
        |name, peer, guarantee, measure| Case::new("directory", name, peer, guarantee, measure);
    let cases: [(_, _, _, fn(&Run) -> _); 6] = [
        ("directory/set/1client/disk", "redis", FORCED, |run| alone(run, true, 1)),
        ("directory/set/64clients/disk", "redis", FORCED, |run| alone(run, true, 64)),
        ("directory/set/1client/memory", "redis", ALONE, |run| alone(run, false, 1)),
        ("directory/set/64clients/memory", "redis", ALONE, |run| alone(run, false, 64)),
        ("directory/set/1client/memory", "redis-wait", WAIT, |run| replicated(run, 1)),
        ("directory/set/64clients/memory", "redis-wait", WAIT, |run| replicated(run, 64)),
    ];
    let cases = cases.map(|(name, peer, guarantee, measure)| case(name, peer, guarantee, measure));
    let cases = cases.into_iter().chain(bigstate::cases()).collect();
    Program { name: "peer-redis", check, cases }.main()
}

/// A server on this port that answers, or does so soon; what an earlier one left is used.
fn server(dir: &Path, port: u16, options: &[&str]) -> io::Result<Process> {
    let home = dir.join(port.to_string());
    std::fs::create_dir_all(&home)?;
    let mut server = command("redis-server");
    server.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
    server.arg("--dir").arg(&home).args(options);
    Process::start(server, &home.join("log"))
}

/// One server, loaded by redis-benchmark.
fn alone(run: &Run, force: bool, clients: u64) -> io::Result<Vec<Measured>> {
    let [port] = loopback_ports()?;
    let options: &[&str] =
        if force { &["--appendonly", "yes", "--appendfsync", "always"] } else { &[] };
    let mut server = server(run.dir(), port, options)?;
    runtime()?.block_on(eventually("redis-server", async || Client::connect(port).await))?;
    let fill = |rate: f64, time: Duration| TRIAL.max((rate * time.as_secs_f64()) as u64);
    let trial = benchmark(port, clients, TRIAL)?;
    let warm = benchmark(port, clients, fill(trial.rate, run.warm_up))?;
    let figures = benchmark(port, clients, fill(warm.rate, run.window))?;
    server.check()?;
    Ok(vec![
        Measured { metric: "ops_per_s", value: figures.rate, unit: "1/s" },
        Measured::micros("p50_us", figures.p50),
        Measured::micros("p99_us", figures.p99),
    ])
}

/// What redis-benchmark found.
#[derive(Debug, PartialEq)]
struct Figures {
    rate: f64,
    p50: Duration,
    p99: Duration,
}

fn benchmark(port: u16, clients: u64, requests: u64) -> io::Result<Figures> {
    let mut benchmark = command("redis-benchmark");
    benchmark.args(["--csv", "--precision", "3", "-t", "set", "-d", "64"]);
    for (option, value) in [("-p", port.into()), ("-c", clients), ("-n", requests), ("-r", KEYS)] {
        benchmark.args([option, &value.to_string()]);
    }
    let printed = run_to_end(&mut benchmark)?;
    figures(&printed)
        .ok_or_else(|| io::Error::other(format!("redis-benchmark printed {printed:?}")))
}

/// The figures in the last line of `"test","rps","avg_latency_ms","min..","p50..","p95..","p99..","max.."`.
fn figures(printed: &str) -> Option<Figures> {
    let line = printed.lines().last()?;
    let cells: Vec<_> = line.split(',').map(|cell| cell.trim_matches('"')).collect();
    let &[_, rate, _, _, p50, _, p99, _] = cells.as_slice() else { return None };
    let millis = |text: &str| {
        let value: f64 = text.parse().ok()?;
        Duration::try_from_secs_f64(value / 1e3).ok()
    };
    Some(Figures { rate: rate.parse().ok()?, p50: millis(p50)?, p99: millis(p99)? })
}

/// One server with two replicas, loaded by clients of ours that wait for one replica.
fn replicated(run: &Run, clients: usize) -> io::Result<Vec<Measured>> {
    let ports: [u16; 3] = loopback_ports()?;
    let master = ports[0];
    let _master = server(run.dir(), master, &["--repl-diskless-sync-delay", "0"])?;
    let of = format!("127.0.0.1 {master}");
    let replica = |port| server(run.dir(), port, &["--replicaof", &of]);
    let _replicas = [replica(ports[1])?, replica(ports[2])?];
    runtime()?.block_on(async {
        attached(master).await?;
        let mut load = Vec::new();
        for name in 0..clients {
            load.push((name, Client::connect(master).await?));
        }
        let set = async |(name, client): &mut (usize, Client), number| {
            client.set_and_wait(*name, number).await
        };
        Ok(closed_loop(run, load, set).await?.measured("ops_per_s"))
    })
}

/// Waits until both replicas have the state of this server.
async fn attached(master: u16) -> io::Result<()> {
    let attached = async || {
        let info = Client::connect(master).await?.ask("INFO replication\r\n").await?;
        let online = info.matches("state=online").count();
        if online == 2 { Ok(()) } else { Err(io::Error::other(info)) }
    };
    eventually("both replicas", attached).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the figures are found in what redis-benchmark 7.0 prints, and that other text is no figure.
    #[test]
    fn the_figures_are_read_from_the_last_line() {
        let printed = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
                       \"p99_latency_ms\",\"max_latency_ms\"\n\
                       \"SET\",\"41152.26\",\"0.020\",\"0.008\",\"0.015\",\"0.047\",\"0.055\",\"1.327\"\n";
        let expected = Figures {
            rate: 41152.26,
            p50: Duration::from_micros(15),
            p99: Duration::from_micros(55),
        };
        assert_eq!(figures(printed), Some(expected));
        assert_eq!(figures("Could not connect"), None);
    }
}
