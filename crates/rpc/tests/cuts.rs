//! Story B1 in real processes: a server that is cut off, and killed, at each moment of a call. Between client and server are proxies that hold and cut connections.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod stations;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use actix::Message;
use mainstay_rpc::{CallError, Config, Executed, Procedure, Reason, Refusal};
use mainstay_service::Standing;
use mainstay_sim::processes::{Home, Proxy, Running};
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;
use tokio::time::sleep;

use stations::{Place, futures, node, station, within};

const ROLE: &str = "MAINSTAY_RPC_CUTS_ROLE";
const HOME: &str = "MAINSTAY_RPC_CUTS_HOME";

/// Written down when its execution begins; it ends when the test says so.
#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<(u64, Vec<u8>), String>")]
struct Mark(u64);

impl Procedure for Mark {
    const NAME: &'static str = "test.mark";
}

/// Bytes of a result: more than all else that a server says in a test, so who holds back that many has the answer.
const RESULT: usize = 64 << 10;

/// The call in question, and one that has the only place.
const CALL: u64 = 1;
const OTHER: u64 = 9;

async fn until(home: &Home, log: &str, line: &str) {
    while !home.lines(log).iter().any(|it| it == line) {
        sleep(Duration::from_millis(2)).await;
    }
}

/// The process of the server.
async fn serve(home: Home, stored: bool) {
    let config = Config { stored, executions_max: 1, ..Config::started_now() };
    let disk = home.path().join("disk");
    std::fs::create_dir_all(&disk).unwrap();
    let roster = home.roster(Some(0)).unwrap();
    let disk = stored.then_some(disk.as_path());
    let (station, rpc) = station(&roster, 0, Place::Mounted, config, disk).await;
    let log = home.clone();
    rpc.serve_fn(move |Mark(tag), _| {
        let home = log.clone();
        async move {
            home.say("executed", &tag.to_string()).unwrap();
            until(&home, "go", &tag.to_string()).await;
            home.say("ended", &tag.to_string()).unwrap();
            Ok((tag, vec![0; RESULT]))
        }
    })
    .await
    .unwrap();
    home.say("up", "up").unwrap();
    let closed = station.closed();
    tokio::pin!(closed);
    loop {
        tokio::select! {
            _ = &mut closed => return,
            () = sleep(Duration::from_millis(2)) => {}
        }
        // One is executed, and one has come and waits.
        if rpc.status().await.is_ok_and(|it| it.kept >= 2) && !home.has("kept") {
            home.say("kept", "2").unwrap();
        }
    }
}

/// Not a test: the process of the server comes to itself here.
#[test]
fn a_process_of_the_test() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let home = Home::new(std::env::var(HOME).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, serve(home, role == "stored"));
}

/// When the connection is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cut {
    BeforeItLeaves,
    BeforeTheHandler,
    InTheHandler,
    BeforeTheAnswer,
}

struct Scene {
    home: Home,
    stored: bool,
    server: Option<Running>,
    /// Those of the client to the server, and back.
    proxies: [Proxy; 2],
}

impl Scene {
    /// Starts a server, and waits until it serves.
    async fn start(&mut self) {
        let ups = self.home.lines("up").len();
        let role = if self.stored { "stored" } else { "volatile" }.to_owned();
        let home = self.home.path().to_str().unwrap().to_owned();
        let server = Running::start("a_process_of_the_test", [(ROLE, role), (HOME, home)]);
        self.server = Some(server.unwrap());
        while self.home.lines("up").len() == ups {
            sleep(Duration::from_millis(2)).await;
        }
    }

    fn cut(&self) {
        self.proxies.iter().for_each(Proxy::cut);
    }

    /// Answers are held back, whoever has dialled. What has come so far went through.
    fn hold_answers(&self) {
        self.proxies[0].hold(true);
        self.proxies[1].hold(false);
    }

    fn held(&self) -> usize {
        self.proxies[0].held(true) + self.proxies[1].held(false)
    }

    fn executed(&self, tag: u64) -> usize {
        self.home.lines("executed").iter().filter(|it| **it == tag.to_string()).count()
    }
}

/// What the caller was told, and how often the call was executed.
async fn play(cut: Cut, stored: bool, restart: bool) -> (Result<u64, CallError<String>>, usize) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    let real = mainstay_sim::free_addresses(2);
    let proxies = [0, 1].map(|of| Proxy::start(real[of]).unwrap());
    home.write_roster(Some(0), &[real[0], proxies[1].address()]).unwrap();
    let mut scene = Scene { home, stored, server: None, proxies };
    scene.start().await;
    let seen: Vec<SocketAddr> = vec![scene.proxies[0].address(), real[1]];
    let roster: BTreeMap<_, _> =
        seen.into_iter().enumerate().map(|(at, it)| (format!("n{at}"), it)).collect();
    let (_station, rpc) = station(&roster, 1, Place::Mounted, Config::started_now(), None).await;
    let caller = rpc.to(node(0)).unordered();
    let ask = |tag| {
        let called = caller.exactly_once(Mark(tag));
        async move { called.await.map(|(tag, _)| tag) }
    };
    let call = |tag| tokio::task::spawn_local(ask(tag));
    scene.home.say("go", "0").unwrap();
    assert_eq!(ask(0).await, Ok(0));
    let told = match cut {
        Cut::BeforeItLeaves => {
            scene.cut();
            // What a client hands to a connection that it takes for whole may have arrived, as far as it knows.
            let is_up = |it: &(_, Standing)| it.1 == Standing::Up;
            while rpc.service().peers().await.unwrap().iter().any(is_up) {
                sleep(Duration::from_millis(2)).await;
            }
            call(CALL)
        }
        Cut::BeforeTheHandler => {
            let _other = call(OTHER);
            until(&scene.home, "executed", &OTHER.to_string()).await;
            let told = call(CALL);
            until(&scene.home, "kept", "2").await;
            scene.cut();
            told
        }
        Cut::InTheHandler => {
            let told = call(CALL);
            until(&scene.home, "executed", &CALL.to_string()).await;
            scene.cut();
            told
        }
        Cut::BeforeTheAnswer => {
            let told = call(CALL);
            until(&scene.home, "executed", &CALL.to_string()).await;
            scene.hold_answers();
            scene.home.say("go", &CALL.to_string()).unwrap();
            until(&scene.home, "ended", &CALL.to_string()).await;
            while scene.held() < RESULT {
                sleep(Duration::from_millis(2)).await;
            }
            scene.cut();
            told
        }
    };
    if restart {
        drop(scene.server.take());
        scene.start().await;
    }
    for tag in [CALL, OTHER] {
        scene.home.say("go", &tag.to_string()).unwrap();
    }
    scene.proxies.iter().for_each(Proxy::join);
    let told = told.await.unwrap();
    // Whatever is on its way still has come when another call is answered.
    let last = ask(0).await;
    assert_eq!(last, Ok(0), "the connection lives");
    (told, scene.executed(CALL))
}

/// Checks RPC-2, RPC-3 and RPC-74 in real processes: a connection is cut before the request leaves, before the handler, in it, and before the answer arrives; the server
/// is killed and started meanwhile, or not, and stores its results, or not. What surely did not reach the handler is repeated in silence, all else is answered from
/// memory or told as unknown, and nothing is executed twice.
#[tokio::test]
async fn a_call_that_was_retried_ran_twice() {
    use Cut::{BeforeItLeaves, BeforeTheAnswer, BeforeTheHandler, InTheHandler};
    let cuts = [BeforeItLeaves, BeforeTheHandler, InTheHandler, BeforeTheAnswer];
    let run = async {
        for (stored, restart) in [(false, false), (false, true), (true, false), (true, true)] {
            let all = cuts.map(|cut| Box::pin(within(play(cut, stored, restart))));
            let told = futures(all.into_iter()).await;
            for (cut, (told, count)) in cuts.into_iter().zip(told) {
                let is = format!("{cut:?}, stored {stored}, restart {restart}: {told:?}, {count}");
                println!("{is}");
                // Without a disk nobody knows whether it had begun; with one it is known, and whoever had begun does not begin again.
                let forgets = match cut {
                    BeforeItLeaves => false,
                    BeforeTheHandler | BeforeTheAnswer => restart && !stored,
                    InTheHandler => restart,
                };
                if forgets {
                    let reasons = [Reason::ServerLost, Reason::Refused(Refusal::Restarted)];
                    let failure = *told.unwrap_err().failure().expect(&is);
                    assert_eq!(failure.executed, Executed::NotMoreThanOnce, "{is}");
                    assert!(reasons.contains(&failure.reason), "{is}");
                    assert!(count <= 1, "{is}");
                } else {
                    assert_eq!((told, count), (Ok(CALL), 1), "{is}");
                }
            }
        }
    };
    LocalSet::new().run_until(run).await;
}
