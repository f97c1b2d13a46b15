//! Replicas in processes of the operating system, one of which is killed or stopped under load: what is told of each call is held against what the
//! replicas have executed. All write what they do to files.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![allow(clippy::disallowed_methods, reason = "the clock on the wall limits the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use mainstay_base::{ClusterId, NodeId};
use mainstay_rpc::{Executed, Procedure};
use mainstay_service::{StationHandle, StationParts, start};
use mainstay_sim::processes::{Home, Running, until};
use mainstay_troupe::{CallError, Collator, Config, GiveState, TakeState, Troupes, TroupesHandle};
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

/// Says which node a process that runs this test is to be in place of the test.
const NODE: &str = "MAINSTAY_TROUPE_TEST_NODE";
const HOME: &str = "MAINSTAY_TROUPE_TEST_HOME";
const LIFE: &str = "MAINSTAY_TROUPE_TEST_LIFE";
/// The binding agent is node 0, these are the replicas, and node 4 calls them.
const SERVERS: std::ops::Range<usize> = 1..4;
const CLIENT: usize = 4;
/// Calls that are open.
const FLIGHTS: u64 = 4;
/// A replica that is silent for so long is taken out.
const PATIENCE: Duration = Duration::from_millis(800);

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Mark(u64);

impl Procedure for Mark {
    const NAME: &'static str = "test.mark";
}

/// Each replica writes down what it has executed.
#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Dump;

impl Procedure for Dump {
    const NAME: &'static str = "test.dump";
}

/// The state of a replica: all that was executed, once.
struct Marks {
    home: Home,
    node: usize,
    tags: BTreeSet<u64>,
}

impl Actor for Marks {
    type Context = Context<Self>;
}

impl Handler<Mark> for Marks {
    type Result = Result<u64, String>;

    fn handle(&mut self, Mark(tag): Mark, _: &mut Context<Self>) -> Self::Result {
        if !self.tags.insert(tag) {
            self.home.say("twice", &format!("{tag} at {}", self.node)).unwrap();
        }
        Ok(tag)
    }
}

impl Handler<Dump> for Marks {
    type Result = Result<u64, String>;

    fn handle(&mut self, Dump: Dump, _: &mut Context<Self>) -> Self::Result {
        let lines: String = self.tags.iter().map(|tag| format!("{tag}\n")).collect();
        std::fs::write(self.home.path().join(format!("executed-{}", self.node)), lines).unwrap();
        Ok(self.tags.len() as u64)
    }
}

impl Handler<GiveState> for Marks {
    type Result = Vec<u8>;

    fn handle(&mut self, GiveState: GiveState, _: &mut Context<Self>) -> Vec<u8> {
        self.tags.iter().flat_map(|tag| tag.to_le_bytes()).collect()
    }
}

impl Handler<TakeState> for Marks {
    type Result = ();

    fn handle(&mut self, TakeState(state): TakeState, _: &mut Context<Self>) {
        let words = state.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
        self.tags = words.collect();
    }
}

async fn station(home: &Home, index: usize) -> (StationHandle, TroupesHandle) {
    let cluster = ClusterId::from_entropy(3);
    let parts =
        StationParts::tcp(cluster, format!("n{index}"), home.roster(None).unwrap(), None).unwrap();
    let config = Config {
        settle: Duration::from_millis(50),
        patience: PATIENCE,
        ..Config::started_now(NodeId::new(cluster, "n0"))
    };
    let station = start(parts, |node| node.mount::<Troupes>("troupes", config).map(drop));
    let station = station.unwrap();
    let troupes = TroupesHandle::open(station.service("troupes")).await.unwrap();
    (station, troupes)
}

/// A replica, again and again: one that was stopped for too long is told that it was taken out.
async fn serve(home: &Home, node: usize) {
    let (_station, troupes) = station(home, node).await;
    loop {
        let marks = Marks { home: home.clone(), node, tags: BTreeSet::new() }.start();
        let part = troupes
            .troupe("marks")
            .serve(marks.clone().recipient::<Mark>())
            .serve(marks.clone().recipient::<Dump>())
            .state(marks.clone().recipient(), marks.recipient());
        let replica = part.join().await.unwrap();
        assert!(!replica.is_lost(), "there was a state at all times");
        home.say("joined", &node.to_string()).unwrap();
        replica.left().await;
    }
}

async fn one_flight(home: Home, troupes: TroupesHandle, log: Arc<File>, first: u64) {
    let caller = troupes.to("marks");
    for tag in (first..).step_by(FLIGHTS as usize) {
        let told = match caller.call(Mark(tag)).await {
            Ok(it) if it == tag => "done",
            Ok(_) | Err(CallError::Remote(_)) => "lie",
            Err(CallError::Failed(failure)) => match failure.executed {
                Executed::NotAtAll => "not-at-all",
                Executed::NotMoreThanOnce => "once-at-most",
                _ => "lie",
            },
        };
        (&*log).write_all(format!("{tag} {told}\n").as_bytes()).unwrap();
        if tag % 64 < FLIGHTS && home.has("stop") {
            return;
        }
    }
}

async fn call(home: &Home, life: u64) {
    let (_station, troupes) = station(home, CLIENT).await;
    let log = Arc::new(home.log("outcomes").unwrap());
    let flight =
        |at| one_flight(home.clone(), troupes.clone(), Arc::clone(&log), (life << 40) + at);
    let flights: Vec<_> = (0..FLIGHTS).map(|at| tokio::task::spawn_local(flight(at))).collect();
    for one in flights {
        one.await.unwrap();
    }
    let told = troupes.to("marks").collate(Collator::Unanimous).call(Dump).await;
    home.say("dumped", &format!("{told:?}")).unwrap();
}

/// Not a test: a process that the test starts comes to itself here.
#[test]
fn a_process_of_the_test() {
    let Ok(node) = std::env::var(NODE) else { return };
    let node: usize = node.parse().unwrap();
    let home = Home::new(std::env::var(HOME).unwrap());
    let life = std::env::var(LIFE).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        match node {
            0 => {
                let (station, _troupes) = station(&home, 0).await;
                station.closed().await;
            }
            CLIENT => call(&home, life).await,
            node => serve(&home, node).await,
        }
    });
}

fn start_node(home: &Home, node: usize, life: u64) -> Running {
    let home = home.path().to_str().unwrap().to_owned();
    let environment = [(NODE, node.to_string()), (HOME, home), (LIFE, life.to_string())];
    Running::start("a_process_of_the_test", environment).unwrap()
}

/// Until the client has been told of so many more calls.
fn until_told(home: &Home, more: usize) {
    let wanted = home.lines("outcomes").len() + more;
    until("calls come to an end", || home.lines("outcomes").len() >= wanted);
}

fn until_joined(home: &Home, times: usize) {
    until("all have joined", || home.lines("joined").len() >= times);
}

/// Holds what was told against what each replica has executed; how many calls had each outcome.
fn judge(home: &Home) -> BTreeMap<String, usize> {
    assert_eq!(home.lines("twice"), Vec::<String>::new(), "RPC-40: executed twice");
    // One that is about to join again has not written anything down.
    let dumps: Vec<BTreeSet<u64>> = SERVERS
        .map(|node| home.lines(&format!("executed-{node}")))
        .filter(|lines| !lines.is_empty())
        .map(|lines| lines.iter().map(|line| line.parse().unwrap()).collect())
        .collect();
    assert!(dumps.len() >= 2, "RPC-41: two replicas are there at least");
    assert!(dumps.iter().all(|dump| *dump == dumps[0]), "RPC-40: replicas differ");
    let mut told = BTreeMap::new();
    for line in home.lines("outcomes") {
        let (tag, outcome) = line.split_once(' ').unwrap();
        let is_executed = dumps[0].contains(&tag.parse().unwrap());
        let is_true = match outcome {
            "done" => is_executed,
            "not-at-all" => !is_executed,
            "once-at-most" => true,
            _ => false,
        };
        assert!(is_true, "RPC-74: call {tag} was told to be {outcome}: {is_executed}");
        *told.entry(outcome.to_owned()).or_default() += 1;
    }
    told
}

/// Checks RPC-40, RPC-41, RPC-44 and RPC-74 with processes: one replica at a time is killed and comes back, or is stopped for less and for more than the
/// patience of the binding agent, under load. Calls go on, each is executed once by each replica, and none is told wrongly.
#[test]
fn replicas_are_killed_and_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    home.write_roster(None, &mainstay_sim::free_addresses(5)).unwrap();
    let mut life = 0;
    let mut start = |node| {
        life += 1;
        start_node(&home, node, life)
    };
    let _binder = start(0);
    let mut servers: Vec<Running> = SERVERS.map(&mut start).collect();
    let mut joined = SERVERS.len();
    until_joined(&home, joined);
    let mut client = start(CLIENT);
    for round in 0..6 {
        until_told(&home, 200);
        let one = round % servers.len();
        match round % 3 {
            0 => {
                // It is gone before it is started again.
                drop(servers.remove(one));
                servers.insert(one, start(SERVERS.start + one));
                joined += 1;
            }
            stopped => {
                servers[one].stop().unwrap();
                let is_long = stopped == 2;
                std::thread::sleep(if is_long { PATIENCE * 2 } else { PATIENCE / 4 });
                // One that was taken out meanwhile is told, and joins again.
                servers[one].go_on().unwrap();
            }
        }
        until_told(&home, 200);
        until_joined(&home, joined);
    }
    home.say("stop", "").unwrap();
    until("the client ends", || !home.lines("dumped").is_empty());
    assert!(client.wait().unwrap().success());
    let told = judge(&home);
    println!("{told:?}, {}", home.lines("dumped")[0]);
    assert!(told["done"] > 1_000 && home.lines("dumped")[0].starts_with("Ok"));
}
