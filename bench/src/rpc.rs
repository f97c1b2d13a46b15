//! Remote calls: a client process asks a server process to send bytes back, one call at a time and 64 at once, as the peers of
//! `bench/peers` do; the same with results that are stored, beside raw forced writes; a local call beside a plain ask of the actor; what is sent for a call, and what a
//! connection takes that is idle.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler, Message};
use bytes::Bytes;
use mainstay_base::{ClusterId, NodeId};
use mainstay_rpc::{Caller, Config, Procedure, Rpc, RpcHandle};
use mainstay_service::{StationHandle, StationParts, start};
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use crate::node::Place;
use crate::output::{Measured, Report, percentile};
use crate::process::{self, Process};
use crate::usage::Usage;

const WARM_UP: Duration = Duration::from_millis(500);
const MEASURE: Duration = Duration::from_secs(3);
const IN_FLIGHT: usize = 64;
/// Longer than the way there and back.
const SPIN: Duration = Duration::from_micros(100);
/// A local call takes at most so many times a plain ask (RPC-60).
const LOCAL_MAX: f64 = 10.0;
/// An idle connection takes less (64 KiB).
const IDLE_BYTES_MAX: f64 = 65_536.0;
/// Guests that come before memory is looked at first, and those whose memory is looked at.
const GUESTS: [usize; 2] = [32, 256];

#[derive(Clone, Serialize, Deserialize, Message)]
#[rtype(result = "Result<Bytes, ()>")]
struct Echo(Bytes);

impl Procedure for Echo {
    const NAME: &'static str = "bench.echo";
}

struct Echoing;

impl Actor for Echoing {
    type Context = Context<Self>;
}

impl Handler<Echo> for Echoing {
    type Result = Result<Bytes, ()>;

    fn handle(&mut self, Echo(bytes): Echo, _: &mut Context<Self>) -> Self::Result {
        Ok(bytes)
    }
}

/// The process that serves.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where it listens, and where the client does.
    addresses: Vec<SocketAddr>,
    /// Keeps results here.
    #[arg(long)]
    store: Option<std::path::PathBuf>,
    /// Admits so many guests.
    #[arg(long, default_value_t = 0)]
    guests: usize,
    /// Spins for so many microseconds after each turn.
    #[arg(long, default_value_t = 0)]
    spin: u64,
}

fn cluster() -> ClusterId {
    ClusterId::from_entropy(1)
}

async fn station(
    name: &'static str,
    roster: BTreeMap<String, SocketAddr>,
    config: Config,
    directory: Option<std::path::PathBuf>,
    (spin, guests): (Duration, usize),
) -> io::Result<(StationHandle, RpcHandle)> {
    let mut parts =
        StationParts::tcp(cluster(), name, roster, directory).map_err(io::Error::other)?;
    (parts.options.spin, parts.guests) = (spin, guests);
    let station = start(parts, |node| {
        node.mount::<Rpc>("rpc", config)?;
        if guests > 0 {
            node.open_to_guests::<Rpc>("rpc");
        }
        Ok(())
    });
    let station = station.map_err(io::Error::other)?;
    let rpc = RpcHandle::open(station.service("rpc"), cluster(), name).await;
    Ok((station, rpc.map_err(io::Error::other)?))
}

fn roster(addresses: &[SocketAddr]) -> BTreeMap<String, SocketAddr> {
    let names = ["server", "client"].map(str::to_owned);
    names.into_iter().zip(addresses.iter().copied()).collect()
}

/// Serves until the process is killed.
pub(crate) fn serve(options: Options) -> io::Result<()> {
    process::run(async move {
        let Options { addresses, store, spin, guests } = options;
        let spin = Duration::from_micros(spin);
        let config = Config { stored: store.is_some(), ..Config::started_now() };
        let (station, rpc) =
            station("server", roster(&addresses), config, store, (spin, guests)).await?;
        rpc.serve(Echoing.start().recipient::<Echo>()).await.map_err(io::Error::other)?;
        process::say("ready");
        let closed = station.closed();
        let mut orders = process::orders();
        tokio::select! {
            _ = closed => {}
            _ = orders.recv() => {}
        }
        Ok(())
    })
}

/// Calls in a loop until the time is over: how long those took that ended in the window.
async fn closed_loop(caller: Caller, size: usize) -> io::Result<Vec<Duration>> {
    let payload = Bytes::from(vec![b'e'; size]);
    let from = Instant::now() + WARM_UP;
    let mut took = Vec::new();
    loop {
        let begun = Instant::now();
        if begun >= from + MEASURE {
            return Ok(took);
        }
        let told = caller.exactly_once(Echo(payload.clone())).await;
        let answer = told.map_err(|error| io::Error::other(format!("{error:?}")))?;
        if answer.len() != size {
            return Err(io::Error::other("not what was sent"));
        }
        if begun >= from {
            took.push(begun.elapsed());
        }
    }
}

fn measure(
    size: usize,
    flights: usize,
    store: Option<&std::path::Path>,
    spin: Duration,
) -> io::Result<Vec<Measured>> {
    let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
    let addresses = [free()?, free()?];
    let mut arguments = vec!["rpc-server".to_owned()];
    arguments.extend(addresses.iter().map(ToString::to_string));
    arguments.push(format!("--spin={}", spin.as_micros()));
    arguments.extend(store.map(|store| format!("--store={}", store.display())));
    let mut server = Process::start(&arguments)?;
    server.hear("ready")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut took, sent) = LocalSet::new().block_on(&runtime, async {
        let config = Config::started_now();
        let (_station, rpc) =
            station("client", roster(&addresses), config, None, (spin, 0)).await?;
        let caller = rpc.to(NodeId::new(cluster(), "server"));
        let caller = if flights > 1 { caller.unordered() } else { caller };
        let loops =
            (0..flights).map(|_| tokio::task::spawn_local(closed_loop(caller.clone(), size)));
        let loops: Vec<_> = loops.collect();
        let mut took = Vec::new();
        for one in loops {
            took.extend(one.await.map_err(io::Error::other)??);
        }
        let status = rpc.status().await.map_err(io::Error::other)?;
        io::Result::Ok((took, status.sent))
    })?;
    took.sort_unstable();
    let window = WARM_UP + MEASURE;
    let calls = took.len() as f64 * window.as_secs_f64() / MEASURE.as_secs_f64();
    Ok(vec![
        Measured::rate("calls_per_s", took.len() as u64, MEASURE),
        Measured::micros("p50_us", percentile(&took, 50)),
        Measured::micros("p99_us", percentile(&took, 99)),
        Measured::number("messages_of_client_per_call", sent as f64 / calls),
    ])
}

/// Forced writes of as much as a call, one after the other, by nobody else: what the disk does at most one at a time.
fn forced_writes(directory: &std::path::Path) -> io::Result<f64> {
    let mut file = std::fs::File::create(directory.join("raw"))?;
    let (begun, mut count) = (Instant::now(), 0u32);
    while begun.elapsed() < WARM_UP {
        file.write_all(&[b'r'; 64])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

/// With results that are stored; how many calls there are for each forced write that the disk would do alone, in the same run.
fn stored(place: &Place, flights: usize) -> io::Result<Vec<Measured>> {
    let home = place.new_dir()?;
    let forced = forced_writes(home.path())?;
    let mut measured = measure(64, flights, Some(home.path()), Duration::ZERO)?;
    let calls = measured.first().map_or(0.0, Measured::value);
    measured.push(Measured::number("raw_fdatasync_per_s", forced));
    measured.push(Measured::number("calls_over_raw_fdatasync", calls / forced));
    Ok(measured)
}

/// What a connection of a guest takes at a node when it is idle, after one call.
fn idle_connection() -> io::Result<Vec<Measured>> {
    let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
    let addresses = [free()?, free()?];
    let mut arguments = vec!["rpc-server".to_owned()];
    arguments.extend(addresses.iter().map(ToString::to_string));
    arguments.push(format!("--guests={}", GUESTS.iter().sum::<usize>()));
    let mut server = Process::start(&arguments)?;
    server.hear("ready")?;
    let nodes = BTreeMap::from([("server".to_owned(), addresses[0])]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let taken = LocalSet::new().block_on(&runtime, async {
        let (mut guests, mut taken) = (Vec::new(), Vec::new());
        for count in GUESTS {
            for _ in 0..count {
                let parts = StationParts::tcp_guest(cluster(), nodes.clone());
                let parts = parts.map_err(io::Error::other)?;
                let (name, config) = (parts.name.clone(), Config::started_now());
                let station = start(parts, |node| node.mount::<Rpc>("rpc", config).map(drop));
                let station = station.map_err(io::Error::other)?;
                let rpc = RpcHandle::open(station.service("rpc"), cluster(), &name).await;
                let rpc = rpc.map_err(io::Error::other)?;
                let caller = rpc.to(NodeId::new(cluster(), "server"));
                let told = caller.exactly_once(Echo(Bytes::from_static(&[b'e'; 64]))).await;
                told.map_err(|error| io::Error::other(format!("{error:?}")))?;
                guests.push((station, rpc));
            }
            // What is acknowledged late has been.
            tokio::time::sleep(WARM_UP).await;
            taken.push(Usage::of(server.id())?.resident_bytes);
        }
        io::Result::Ok(taken)
    })?;
    let more = taken[1].saturating_sub(taken[0]);
    let each = more as f64 / GUESTS[1] as f64;
    if each >= IDLE_BYTES_MAX {
        return Err(io::Error::other(format!("an idle connection takes {each:.0} bytes")));
    }
    Ok(vec![Measured::number("bytes_per_connection", each)])
}

/// A call to the own node, beside an ask of the actor that serves it.
fn local() -> io::Result<Vec<Measured>> {
    const ROUNDS: u32 = 200_000;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let roster = BTreeMap::from([("server".to_owned(), address)]);
        let (_station, rpc) =
            station("server", roster, Config::started_now(), None, (Duration::ZERO, 0)).await?;
        let actor = Echoing.start().recipient::<Echo>();
        rpc.serve(actor.clone()).await.map_err(io::Error::other)?;
        let caller = rpc.to(NodeId::new(cluster(), "server"));
        let payload = Bytes::from(vec![b'e'; 64]);
        let ask = async || {
            let begun = Instant::now();
            for _ in 0..ROUNDS {
                let told = actor.send(Echo(payload.clone())).await;
                told.map_err(io::Error::other)?.map_err(|()| io::ErrorKind::Other)?;
            }
            io::Result::Ok(begun.elapsed() / ROUNDS)
        };
        let call = async || {
            let begun = Instant::now();
            for _ in 0..ROUNDS {
                let told = caller.exactly_once(Echo(payload.clone())).await;
                told.map_err(|error| io::Error::other(format!("{error:?}")))?;
            }
            io::Result::Ok(begun.elapsed() / ROUNDS)
        };
        ask().await?;
        let (ask, call) = (ask().await?, call().await?);
        let times = call.as_secs_f64() / ask.as_secs_f64();
        if times > LOCAL_MAX {
            return Err(io::Error::other(format!("RPC-60: a call takes {times:.1} x an ask")));
        }
        Ok(vec![
            Measured::nanos("ask_ns", ask.as_secs_f64()),
            Measured::nanos("call_ns", call.as_secs_f64()),
            Measured::ratio("call_over_ask", call, ask),
        ])
    })
}

/// Measures all cases, each with processes of its own.
pub(crate) fn run(place: &Place, report: &mut Report) -> io::Result<()> {
    let sizes = [("64B", 64), ("1KiB", 1 << 10), ("16KiB", 16 << 10), ("64KiB", 64 << 10)];
    for (name, size) in sizes {
        report.case("rpc", &format!("rpc/echo/{name}"), || measure(size, 1, None, Duration::ZERO));
        let many = format!("rpc/echo/{name}/{IN_FLIGHT}inflight");
        report.case("rpc", &many, || measure(size, IN_FLIGHT, None, Duration::ZERO));
    }
    for (name, flights) in [("rpc/echo/64B/stored", 1), ("rpc/echo/64B/64inflight/stored", 64)] {
        report.case("rpc", name, || stored(place, flights));
    }
    report.case("rpc", "rpc/echo/64B/spin", || measure(64, 1, None, SPIN));
    report.case("rpc", "rpc/local/64B", local);
    report.case("rpc", "rpc/idle/connection", idle_connection);
    Ok(())
}
