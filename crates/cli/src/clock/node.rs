//! One process of the demo of clocks: a clock service alone, over UDP.
//!
//! Lines on standard output: `at REAL CLOCK VERSION SYNCHRONISED BOUND`, times in nanoseconds, the first by the clock that all processes of the machine
//! share; `promise NANOS`, first, how far any two clocks may be apart, where that is promised; `lies COUNT`: words that a faulty one has changed or not said so far; and `violation TEXT`. The end of the input ends the process.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mainstay_base::{ClusterId, NodeId};
use mainstay_clock::sync::global::{Follow, Global, GlobalClock, Promise, Setup};
use mainstay_clock::sync::{BadKeys, Keyring};
use mainstay_runtime::{DatagramKey, DatagramKeys, OsEntropy, Tcp, TcpOptions, TimeSource, Udp};
use mainstay_service::{Mounting, StationParts, start};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use super::faulty::{Injected, Liar, Lies};
use super::{FAULTY, MASTER, WALL, Wrong, plan};
use crate::out::{say, tell};

const REPORT_EVERY: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The cluster's id, which is also what the key for datagrams is made of.
    #[arg(long, value_parser = |text: &str| ClusterId::parse(text).ok_or("not a UUID"))]
    cluster: ClusterId,
    /// This node's name.
    #[arg(long)]
    name: String,
    /// A node and its address, as `n1=127.0.0.1:7000`.
    #[arg(long = "node", value_parser = place)]
    nodes: Vec<(String, SocketAddr)>,
    /// By which clocks are kept together.
    #[arg(long)]
    algorithm: String,
    /// What the clock gains, in parts of a billion.
    #[arg(long, allow_negative_numbers = true)]
    drift: i64,
    /// What is wrong with it.
    #[arg(long)]
    wrong: Option<Wrong>,
}

fn place(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("no address")?;
    Ok((name.to_owned(), address.parse().map_err(|error| format!("{error}"))?))
}

pub(crate) fn run(options: &Options) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| tokio::task::LocalSet::new().block_on(&runtime, tick(options)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tell!("{}: {reason}", options.name);
            ExitCode::from(70)
        }
    }
}

async fn tick(options: &Options) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (cluster, name) = (options.cluster, &options.name);
    let roster: BTreeMap<String, SocketAddr> = options.nodes.iter().cloned().collect();
    let listen = *roster.get(name).ok_or("the node is not in the roster")?;
    // Places are in the order of names.
    let index = roster.keys().take_while(|other| *other != name).count();
    let (count, master) = (roster.len(), roster.keys().nth(MASTER).cloned().unwrap_or_default());
    let time: Rc<dyn TimeSource> = Rc::new(Injected::new(options.drift, options.wrong));
    let tcp = Tcp::new(TcpOptions::listening(listen), time.clone()).map_err(|it| text(&it))?;
    let node = |name: &String| NodeId::new(cluster, name);
    let mut faulty_first: Vec<NodeId> = roster.keys().map(node).collect();
    faulty_first.rotate_right(1);
    let addresses = roster.iter().map(|(name, at)| (node(name), *at)).collect();
    let mut key = [0; 32];
    key.iter_mut().zip(cluster.to_string().bytes()).for_each(|(into, byte)| *into = byte);
    // The demo's clocks are wrong, and do not speak for each other: one secret does.
    let keys = DatagramKeys::shared(&DatagramKey(key), node(name), roster.keys().map(node));
    let udp = Udp::new(node(name), listen, addresses, &keys, time.clone());
    let mut parts =
        StationParts::new(cluster, name, roster, Box::new(tcp), time, Box::new(OsEntropy));
    parts.datagrams = Some(Box::new(udp.map_err(|error| text(&error))?));
    let plan = plan(&options.algorithm).map_err(|error| text(&error))?;
    let promise = Promise::of(&plan).map_err(|error| text(&error))?.precision;
    if promise != Duration::MAX {
        say!("promise {}", promise.as_nanos());
    }
    let mut setup = Setup::new(plan).map_err(|error| text(&error))?;
    // Where a master is elected, it is the one that fails: it has the first place, and alone knows the time at first.
    let is_elected = options.algorithm == "cristian";
    setup.together = !is_elected || index == FAULTY;
    setup.group = is_elected.then(|| faulty_first.into());
    setup.keys = Some(keyring(cluster, index, count).map_err(|error| text(&error))?);
    // With other algorithms this does nothing.
    setup.answers = index == MASTER;
    setup.reference = match &*options.algorithm {
        "hardware" | "external" if index == MASTER => Some(Follow::SystemClock { error: WALL }),
        "external" => Some(Follow::Peer(node(&master))),
        _ => None,
    };
    let lies = Lies::default();
    let mount = |node: &mut Mounting<'_>| {
        let config = setup.config(node);
        match options.wrong {
            Some(wrong @ (Wrong::TwoFaced | Wrong::Silent)) => {
                node.mount::<Liar>("clock", (config, wrong, Lies::clone(&lies))).map(drop)
            }
            _ => node.mount::<Global>("clock", config).map(drop),
        }
    };
    let station = start(parts, mount).map_err(|error| text(&error))?;
    let follows_wall = matches!(&*options.algorithm, "marzullo" | "hardware" | "external");
    let mut report = tokio::time::interval(REPORT_EVERY);
    let mut last = setup.clock().now();
    let mut ended = input_ends();
    loop {
        tokio::select! { biased;
            _ = &mut ended => break,
            closed = station.closed() => return Err(format!("the node ended: {closed:?}")),
            _ = report.tick() => {
                last = tell_time(setup.clock(), last, follows_wall);
                let lies = lies.load(Ordering::Relaxed);
                if lies > 0 {
                    say!("lies {lies}");
                }
            }
        }
    }
    station.stop();
    station.closed().await;
    Ok(())
}

/// The keys of the demo's nodes. Each knows those of all others, and none of them signs for another.
fn keyring(cluster: ClusterId, me: usize, nodes: usize) -> Result<Keyring, BadKeys> {
    let secret = |index: usize| {
        let mut secret = [index as u8; 32];
        secret
            .iter_mut()
            .skip(1)
            .zip(cluster.to_string().bytes())
            .for_each(|(to, from)| *to = from);
        secret
    };
    let publics: Vec<[u8; 32]> = (0..nodes).map(|it| Keyring::public(secret(it))).collect();
    Keyring::ed25519(me, secret(me), &publics)
}

/// Says what the clock says, and whether it is after `last` and, where it follows the wall clock of the machine, as near to that as it says.
fn tell_time(
    clock: &GlobalClock,
    last: (mainstay_clock::Time, u64),
    follows_wall: bool,
) -> (mainstay_clock::Time, u64) {
    let wall = |()| Duration::try_from(clock_gettime(ClockId::Realtime)).unwrap_or_default();
    let wall_before = wall(());
    let bounded = clock.now_bounded();
    let wall_after = wall(());
    if let Ok(it) = bounded
        && follows_wall
        && (u128::from(it.latest.as_nanos()) < wall_before.as_nanos()
            || u128::from(it.earliest.as_nanos()) > wall_after.as_nanos())
    {
        say!("violation CLK-4: {it:?} where the wall clock says {wall_before:?}");
    }
    let real = |()| Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
    let before = real(());
    let now = clock.now();
    let at = (before + real(())) / 2;
    if now < last {
        say!("violation CLK-1, CLK-6: {now:?} after {last:?}");
    }
    let width = bounded.map_or(0, |it| it.latest.saturating_since(it.earliest).as_nanos() / 2);
    let (time, version) = now;
    let synchronised = u8::from(bounded.is_ok());
    say!("at {} {} {version} {synchronised} {width}", at.as_nanos(), time.as_nanos());
    now
}

/// Comes when nobody holds the other end of standard input any more.
fn input_ends() -> oneshot::Receiver<()> {
    let (ends, ended) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        let _ = ends.send(());
    });
    ended
}
