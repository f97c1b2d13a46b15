//! Services in an actor of their own: sockets, files, subscribers.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, dead_code, reason = "shared by tests")]
#[path = "../../sim/tests/support/toy.rs"]
mod toy;

mod stations;

use mainstay_base::Duration as Span;
use mainstay_service::{
    Give, MountError, Placement, Porter, ReachError, Recipient, ServicesError, Standing,
    StartError, StationParts, start,
};
use stations::{LIMIT, ask, cluster, listen, next, roster, station, stop};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::timeout;
use toy::{Command, Config, Event, Register, Watcher};

/// What a majority has forced is there after all have ended and come back, without membership and without a group.
async fn keeps_what_it_said(placement: Option<Placement>) {
    let directory = tempfile::tempdir().unwrap();
    let roster = roster();
    LocalSet::new()
        .run_until(async {
            for round in 1..4 {
                let stations: Vec<_> = (0..3)
                    .map(|index| station(&roster, index, Some(directory.path()), placement))
                    .collect();
                let register = stations[round % 3].service::<Register>("r");
                let mut heard = listen(&register, None, 16).await;
                let value = round as u64;
                if round > 1 {
                    let read = ask(&register, &mut heard, Command::Read { op: 1 }).await;
                    assert_eq!(read, Event::Read { op: 1, value: value - 1 });
                }
                let written = ask(&register, &mut heard, Command::Write { op: 2, value }).await;
                assert_eq!(written, Event::Written { op: 2, value });
                let here = &stations[round % 3];
                assert_eq!(here.service::<Register>("r").placement(), placement);
                let watcher = here.service::<Watcher>("w");
                if placement.is_none() {
                    let told = watcher.status().await.unwrap().1;
                    assert!(told > 0, "the watcher of the node was told in the same turn");
                }
                let told = async { while watcher.status().await.unwrap().1 == 0 {} };
                timeout(LIMIT, told).await.expect("the watcher of the node is told");
                drop(watcher);
                drop(register);
                stop(stations).await;
                let (_, is_end) = next(&mut heard).await;
                assert!(is_end, "the actor is told that the service is gone");
            }
        })
        .await;
}

#[tokio::test]
async fn a_service_alone_keeps_what_it_said() {
    keeps_what_it_said(None).await;
}

#[tokio::test]
async fn a_service_beside_its_node_keeps_what_it_said() {
    keeps_what_it_said(Some(Placement::Local)).await;
}

#[tokio::test]
async fn a_service_on_a_thread_of_its_own_keeps_what_it_said() {
    keeps_what_it_said(Some(Placement::Thread)).await;
}

#[tokio::test]
async fn a_service_alone_needs_no_disk() {
    let roster = roster();
    LocalSet::new()
        .run_until(async {
            let stations: Vec<_> =
                (0..3).map(|index| station(&roster, index, None, None)).collect();
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
            let stations: Vec<_> =
                (0..3).map(|index| station(&roster, index, None, None)).collect();
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

/// Commands come as messages from whoever has a recipient; one for a service that is not there is refused when that is known.
#[tokio::test]
async fn commands_come_as_messages() {
    let roster = roster();
    LocalSet::new()
        .run_until(async {
            for placement in [None, Some(Placement::Thread)] {
                let stations: Vec<_> =
                    (0..3).map(|index| station(&roster, index, None, placement)).collect();
                let register = stations[0].service::<Register>("r");
                let mut heard = listen(&register, None, 16).await;
                let door: Recipient<Give<Register>> = Porter::start(register).recipient();
                for op in 1..20 {
                    let command = Give(Command::Write { op, value: op });
                    assert_eq!(door.send(command).await.unwrap(), Ok(()));
                    assert_eq!(next(&mut heard).await.0, [Event::Written { op, value: op }]);
                }
                let closed = stations[0].closed();
                stations[0].stop();
                closed.await;
                let told = door.send(Give(Command::Read { op: 1 })).await.unwrap();
                assert!(told.is_err(), "{told:?}");
                drop(door);
                stop(stations).await;
            }
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

/// A station that could not stay on its thread is refused, and so is a guest.
#[tokio::test]
async fn outside_a_local_set_it_is_an_error() {
    let made = StationParts::tcp(cluster(), "a", roster(), None).err().unwrap();
    let guest = StationParts::tcp_guest(cluster(), roster()).err().unwrap();
    assert!(matches!(made, StartError::NoLocalSet(_)), "{made}");
    assert!(matches!(guest, StartError::NoLocalSet(_)), "{guest}");
}
