//! Services in an actor of their own: sockets, files, subscribers.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, dead_code, reason = "shared by tests")]
#[path = "../../sim/tests/support/toy.rs"]
mod toy;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler};
use mainstay_base::{ClusterId, Duration as Span};
use mainstay_runtime::{Closed, Events};
use mainstay_service::{
    MountError, ReachError, ServiceHandle, ServicesError, Standing, StartError, StationHandle,
    StationParts, start,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::timeout;
use toy::{Command, Config, Event, Register, Watcher};

const LIMIT: Duration = Duration::from_secs(20);

fn cluster() -> ClusterId {
    ClusterId::from_entropy(3)
}

fn roster() -> BTreeMap<String, SocketAddr> {
    let bound: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let named = |(index, listener): (usize, &TcpListener)| {
        (format!("n{index}"), listener.local_addr().unwrap())
    };
    bound.iter().enumerate().map(named).collect()
}

fn station(
    roster: &BTreeMap<String, SocketAddr>,
    index: usize,
    directory: Option<&Path>,
) -> StationHandle {
    let name = format!("n{index}");
    let directory = directory.map(|it| it.join(&name));
    let parts = StationParts::tcp(cluster(), name, roster.clone(), directory).unwrap();
    start(parts, |node| {
        let config = Config { nodes: node.roster.clone(), fault: None, work: Span::ZERO };
        let register = node.mount::<Register>("r", config)?;
        let watcher = node.mount::<Watcher>("w", register)?;
        node.listen::<Register, Watcher>(register, watcher);
        Ok(())
    })
    .unwrap()
}

/// Passes on what it is told.
struct Listener {
    to: mpsc::UnboundedSender<(Vec<Event>, bool)>,
    /// It reads nothing before.
    gate: Option<oneshot::Receiver<()>>,
}

impl Actor for Listener {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        if let Some(gate) = self.gate.take() {
            context.wait(actix::fut::wrap_future(async move { drop(gate.await) }));
        }
    }
}

impl Handler<Events<Event>> for Listener {
    type Result = ();

    fn handle(&mut self, mut events: Events<Event>, _: &mut Context<Self>) {
        let _ = self.to.send((events.take(), events.is_end()));
    }
}

type Heard = mpsc::UnboundedReceiver<(Vec<Event>, bool)>;

async fn listen(
    register: &ServiceHandle<Register>,
    gate: Option<oneshot::Receiver<()>>,
    unread_max: usize,
) -> Heard {
    let (to, heard) = mpsc::unbounded_channel();
    let listener = Listener { to, gate }.start();
    register.subscribe(listener.recipient(), unread_max).await.unwrap();
    heard
}

async fn next(heard: &mut Heard) -> (Vec<Event>, bool) {
    timeout(LIMIT, heard.recv()).await.expect("in time").expect("it listens")
}

async fn stop(stations: Vec<StationHandle>) {
    for station in stations {
        let closed = station.closed();
        station.stop();
        drop(station);
        assert_eq!(timeout(LIMIT, closed).await.unwrap(), Closed::Stopped);
    }
}

async fn ask(register: &ServiceHandle<Register>, heard: &mut Heard, command: Command) -> Event {
    register.send(command).await.unwrap();
    next(heard).await.0[0]
}

/// What a majority has forced is there after all have ended and come back, without membership and without a group.
#[tokio::test]
async fn a_service_alone_keeps_what_it_said() {
    let directory = tempfile::tempdir().unwrap();
    let roster = roster();
    LocalSet::new()
        .run_until(async {
            for round in 1..4 {
                let stations: Vec<_> =
                    (0..3).map(|index| station(&roster, index, Some(directory.path()))).collect();
                let register = stations[round % 3].service::<Register>("r");
                let mut heard = listen(&register, None, 16).await;
                let value = round as u64;
                if round > 1 {
                    let read = ask(&register, &mut heard, Command::Read { op: 1 }).await;
                    assert_eq!(read, Event::Read { op: 1, value: value - 1 });
                }
                let written = ask(&register, &mut heard, Command::Write { op: 2, value }).await;
                assert_eq!(written, Event::Written { op: 2, value });
                let watched = stations[round % 3].service::<Watcher>("w").status().await.unwrap();
                assert!(watched.1 > 0, "the watcher of the node was told in the same turn");
                drop(register);
                stop(stations).await;
                let (_, is_end) = next(&mut heard).await;
                assert!(is_end, "the actor is told that the service is gone");
            }
        })
        .await;
}

#[tokio::test]
async fn a_service_alone_needs_no_disk() {
    let roster = roster();
    LocalSet::new()
        .run_until(async {
            let stations: Vec<_> = (0..3).map(|index| station(&roster, index, None)).collect();
            let register = stations[0].service::<Register>("r");
            let mut heard = listen(&register, None, 16).await;
            for op in 1..100 {
                let written = ask(&register, &mut heard, Command::Write { op, value: op }).await;
                assert_eq!(written, Event::Written { op, value: op });
            }
            drop(register);
            stop(stations).await;
        })
        .await;
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_left_behind_and_told() {
    let roster = roster();
    LocalSet::new()
        .run_until(async {
            let stations: Vec<_> = (0..3).map(|index| station(&roster, index, None)).collect();
            let register = stations[0].service::<Register>("r");
            let (open, gate) = oneshot::channel();
            let mut slow = listen(&register, Some(gate), 4).await;
            // Full with each event, and told that there is room before the next command is given.
            let mut heard = listen(&register, None, 1).await;
            for op in 1..20 {
                let written = ask(&register, &mut heard, Command::Write { op, value: op }).await;
                assert_eq!(written, Event::Written { op, value: op }, "others are not held up");
            }
            open.send(()).unwrap();
            let mut got = Vec::new();
            loop {
                let (events, is_end) = next(&mut slow).await;
                got.extend(events);
                if is_end {
                    break;
                }
            }
            let expected: Vec<_> = (1..5).map(|op| Event::Written { op, value: op }).collect();
            assert_eq!(got, expected, "what it had room for, in order, and no hole");
            drop(register);
            stop(stations).await;
        })
        .await;
}

#[tokio::test]
async fn what_cannot_be_mounted_is_refused_by_name() {
    let roster = roster();
    LocalSet::new()
        .run_until(async {
            let parts = || StationParts::tcp(cluster(), "n0", roster.clone(), None).unwrap();
            let config = || Config { nodes: Vec::new(), fault: None, work: Span::ZERO };
            let twice = start(parts(), |node| {
                node.mount::<Register>("r", config())?;
                node.mount::<Register>("r", config())?;
                Ok(())
            });
            let refused = twice.unwrap_err();
            assert!(
                matches!(refused, StartError::Services(ServicesError::Mount(MountError::Rack(_)))),
                "{refused}"
            );
            let alone = start(parts(), |node| {
                let of = mainstay_base::Instance::new(cluster(), "r");
                node.mount::<Watcher>("w", of).map(drop)
            });
            assert_eq!(
                alone.unwrap_err().to_string(),
                "watcher (channel 0x4002) needs register (channel 0x4001), and none is mounted"
            );
            let stranger = StationParts::tcp(cluster(), "n9", roster.clone(), None);
            assert!(matches!(stranger, Err(StartError::NotInRoster(name)) if name == "n9"));
        })
        .await;
}

#[tokio::test]
async fn ends_with_other_settings_do_not_hear_each_other_and_say_so() {
    let roster = roster();
    LocalSet::new()
        .run_until(async {
            let start_with = |index: usize, nodes: usize, name: &'static str| {
                let parts = StationParts::tcp(cluster(), format!("n{index}"), roster.clone(), None);
                start(parts.unwrap(), |node| {
                    let nodes = node.roster[..nodes].to_vec();
                    let config = Config { nodes, fault: None, work: Span::ZERO };
                    node.mount::<Register>(name, config).map(drop)
                })
                .unwrap()
            };
            let stations =
                vec![start_with(0, 3, "r"), start_with(1, 2, "r"), start_with(2, 3, "other")];
            let register = stations[0].service::<Register>("r");
            let standing = async {
                loop {
                    let mut peers: Vec<_> =
                        register.peers().await.unwrap().into_iter().map(|(_, it)| it).collect();
                    peers.sort_by_key(|it| *it == Standing::Unequal);
                    if peers == [Standing::Missing, Standing::Unequal] {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            };
            timeout(LIMIT, standing).await.expect("both are seen");
            let nobody = stations[0].service::<Register>("nobody");
            assert_eq!(nobody.status().await, Err(ReachError::NotMounted));
            assert_eq!(register.dismount().await, Ok(true));
            assert_eq!(register.status().await, Err(ReachError::NotMounted));
            stations[0].stop();
            timeout(LIMIT, stations[0].closed()).await.unwrap();
            let command = Command::Read { op: 1 };
            assert_eq!(register.send(command).await, Err(ReachError::Closed));
            drop((register, nobody));
            stop(stations).await;
        })
        .await;
}
