//! Processes of the operating system that call each other and are killed and stopped meanwhile: what is told of each call is held against what
//! was executed. Both write what they do to files, one line a write.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![allow(clippy::disallowed_methods, reason = "the clock on the wall limits the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod stations;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use actix::Message;
use mainstay_base::Rng;
use mainstay_rpc::{CallError, Config, Executed, Procedure, RpcHandle};
use mainstay_sim::processes::{Home, Running, until};
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use stations::{Place, node, station};

/// Says what a process that runs this test is to do in place of the test.
const ROLE: &str = "MAINSTAY_RPC_TEST_ROLE";
const HOME: &str = "MAINSTAY_RPC_TEST_HOME";
const LIVES: &str = "MAINSTAY_RPC_TEST_LIFE";
/// Calls of the client that are open.
const FLIGHTS: u64 = 16;
const DEADLINE: Duration = Duration::from_millis(400);

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Mark(u64);

impl Procedure for Mark {
    const NAME: &'static str = "test.mark";
}

async fn serve(home: &Home, stored: bool) {
    let config = Config { stored, ..Config::started_now() };
    let disk = stored.then(|| home.path().join("disk"));
    let disk = disk.as_deref();
    disk.into_iter().for_each(|disk| std::fs::create_dir_all(disk).unwrap());
    let (station, rpc) =
        station(&home.roster(None).unwrap(), 0, Place::Mounted, config, disk).await;
    let log = std::sync::Arc::new(home.log("executed").unwrap());
    let mark = move |Mark(tag), _| {
        let log = std::sync::Arc::clone(&log);
        async move {
            (&*log).write_all(format!("{tag}\n").as_bytes()).unwrap();
            Ok(tag)
        }
    };
    rpc.serve_fn::<Mark, _, _>(mark).await.unwrap();
    station.closed().await;
}

fn word(told: Result<u64, CallError<String>>, tag: u64) -> &'static str {
    match told {
        Ok(it) if it == tag => "done",
        Ok(_) | Err(CallError::Remote(_)) => "lie",
        Err(CallError::Failed(failure)) => match failure.executed {
            Executed::NotAtAll => "not-at-all",
            Executed::NotMoreThanOnce => "once-at-most",
            _ => "lie",
        },
    }
}

async fn one_flight(rpc: RpcHandle, log: std::sync::Arc<File>, first: u64) {
    let caller = rpc.to(node(0)).unordered().deadline(DEADLINE);
    for tag in (first..).step_by(FLIGHTS as usize) {
        let told = word(caller.exactly_once(Mark(tag)).await, tag);
        (&*log).write_all(format!("{tag} {told}\n").as_bytes()).unwrap();
        if told != "done" {
            tokio::task::yield_now().await;
        }
    }
}

async fn call(home: &Home, life: u64) {
    let config = Config::started_now();
    let (_station, rpc) =
        station(&home.roster(None).unwrap(), 1, Place::Mounted, config, None).await;
    let log = std::sync::Arc::new(home.log("outcomes").unwrap());
    let flight = |at| one_flight(rpc.clone(), std::sync::Arc::clone(&log), (life << 40) + at);
    stations::futures((0..FLIGHTS).map(flight)).await;
}

/// Not a test: a process that the test starts comes to itself here.
#[test]
fn a_process_of_the_test() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let home = Home::new(std::env::var(HOME).unwrap());
    let life = std::env::var(LIVES).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        match role.as_str() {
            "client" => call(&home, life).await,
            role => serve(&home, role == "stored").await,
        }
    });
}

fn start(home: &Home, role: &str, life: u64) -> Running {
    let home = home.path().to_str().unwrap().to_owned();
    let environment = [(ROLE, role.to_owned()), (HOME, home), (LIVES, life.to_string())];
    Running::start("a_process_of_the_test", environment).unwrap()
}

fn count_done(home: &Home) -> usize {
    home.lines("outcomes").iter().filter(|line| line.ends_with(" done")).count()
}

/// Until the client has been told of so many more calls that were done.
fn until_done(home: &Home, more: usize) {
    let wanted = count_done(home) + more;
    until("calls get done", || count_done(home) >= wanted);
}

/// Holds what was told against what was executed; how many calls had each outcome.
fn judge(home: &Home) -> BTreeMap<String, usize> {
    let mut executed = BTreeMap::<u64, usize>::new();
    for line in home.lines("executed") {
        *executed.entry(line.parse().unwrap()).or_default() += 1;
    }
    assert!(executed.values().all(|count| *count == 1), "RPC-3: something was executed twice");
    let mut told = BTreeMap::new();
    for line in home.lines("outcomes") {
        let (tag, outcome) = line.split_once(' ').unwrap();
        let count = executed.get(&tag.parse().unwrap()).copied().unwrap_or(0);
        let is_true = match outcome {
            "done" => count == 1,
            "not-at-all" => count == 0,
            "once-at-most" => count <= 1,
            _ => false,
        };
        assert!(
            is_true,
            "RPC-74: call {tag} was told to be {outcome}, and was executed {count} times"
        );
        *told.entry(outcome.to_owned()).or_default() += 1;
    }
    told
}

fn run(server: &'static str, seed: u64) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    home.write_roster(None, &mainstay_sim::free_addresses(2)).unwrap();
    let (mut life, mut rng) = (1, Rng::new(seed));
    let mut start = |role| {
        life += 1;
        start(&home, role, life)
    };
    let (mut serving, mut calling) = (start(server), start("client"));
    for round in 0..6 {
        until_done(&home, 200);
        match round % 4 {
            0 => {
                drop(serving);
                serving = start(server);
            }
            1 => {
                drop(calling);
                calling = start("client");
            }
            stopped => {
                let process = if stopped == 2 { &serving } else { &calling };
                process.stop().unwrap();
                // Shorter and longer than the deadline of a call.
                std::thread::sleep(DEADLINE / 2 + DEADLINE.mul_f64(rng.below(100) as f64 / 50.0));
                process.go_on().unwrap();
            }
        }
    }
    until_done(&home, 200);
    drop((calling, serving));
    let told = judge(&home);
    println!("{server}, seed {seed}: {told:?}");
    assert!(told["done"] > 1_000);
}

/// Checks RPC-2, RPC-3 and RPC-74 with processes that are killed and stopped, the server and the client, under load.
#[test]
fn processes_are_killed_and_stopped() {
    run("volatile", 1);
}

/// The same with a server that stores its results: what had not begun is executed after its restart, and nothing twice.
#[test]
fn processes_of_a_server_that_stores_are_killed_and_stopped() {
    run("stored", 2);
}
