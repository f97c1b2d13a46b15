//! Services that are mounted while their station runs.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod stations;
#[allow(unreachable_pub, dead_code, reason = "shared by tests")]
#[path = "../../sim/tests/support/toy.rs"]
mod toy;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc as block;

use mainstay_base::service::{Class, In, Logged, Never, Out, Outbox, Service, Start};
use mainstay_base::{Channel, Instant, Machine, rack};
use mainstay_service::{
    MountError, MountLateError, Placement, ReachError, ServiceHandle, ServicesError, Standing,
    StationHandle, StationParts, start,
};
use stations::{LIMIT, ask, cluster, config, listen, roster, stop};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::timeout;
use toy::{Command, Event, Register, Watcher};

/// One without services.
fn bare(
    roster: &BTreeMap<String, SocketAddr>,
    name: &str,
    directory: Option<&Path>,
) -> StationHandle {
    let directory = directory.map(|it| it.join(name));
    let parts = StationParts::tcp(cluster(), name, roster.clone(), directory).unwrap();
    start(parts, |_| Ok(())).unwrap()
}

async fn mount(
    station: &StationHandle,
    placement: Option<Placement>,
) -> Result<ServiceHandle<Register>, MountLateError> {
    station.mount("r", placement, |node| config(&node.roster)).await
}

/// Until the peers of a service stand so, in any order.
async fn stand<S: Service>(service: &ServiceHandle<S>, expected: &[Standing]) {
    let wait = async {
        loop {
            let mut standings: Vec<_> =
                service.peers().await.unwrap().into_iter().map(|it| it.1).collect();
            standings.sort_by_key(|standing| format!("{standing:?}"));
            if standings == expected {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, wait).await.expect("in time");
}

async fn write(register: &ServiceHandle<Register>, op: u64, value: u64) {
    let mut heard = listen(register, None, 16).await;
    let written = ask(register, &mut heard, Command::Write { op, value }).await;
    assert_eq!(written, Event::Written { op, value });
}

async fn read(register: &ServiceHandle<Register>, op: u64) -> Event {
    let mut heard = listen(register, None, 16).await;
    ask(register, &mut heard, Command::Read { op }).await
}

/// It is told the peers that are up and have it, and those only; it is dismounted, and goes on later with what it has written, in this process and in
/// the next one.
async fn mounted_late(placement: Option<Placement>, disk: bool) {
    let directory = tempfile::tempdir().unwrap();
    let home = disk.then(|| directory.path());
    let roster = roster();
    LocalSet::new()
        .run_until(async {
            let stations: Vec<_> = ["n0", "n1", "n2"].map(|name| bare(&roster, name, home)).into();
            let first = mount(&stations[0], placement).await.unwrap();
            assert_eq!(first.placement(), placement);
            stand(&first, &[Standing::Missing, Standing::Missing]).await;
            let _second = mount(&stations[1], placement).await.unwrap();
            stand(&first, &[Standing::Missing, Standing::Up]).await;
            write(&first, 1, 7).await;
            let third = mount(&stations[2], placement).await.unwrap();
            stand(&third, &[Standing::Up, Standing::Up]).await;
            assert_eq!(read(&third, 2).await, Event::Read { op: 2, value: 7 });

            // The others are not asked: what it has comes from its own disk, and theirs.
            for round in 0..3 {
                assert_eq!(first.dismount().await, Ok(true));
                let gone = async {
                    while first.dismount().await != Ok(false) {
                        tokio::task::yield_now().await;
                    }
                };
                timeout(LIMIT, gone).await.unwrap();
                assert_eq!(first.status().await.err(), Some(ReachError::NotMounted));
                mount(&stations[0], placement).await.unwrap();
                stand(&first, &[Standing::Up, Standing::Up]).await;
                write(&first, 3, 8 + round).await;
            }
            assert_eq!(read(&third, 4).await, Event::Read { op: 4, value: 10 });
            drop((first, _second, third));
            stop(stations).await;
            if !disk {
                return;
            }
            let stations: Vec<_> =
                (0..3).map(|index| stations::station(&roster, index, home, placement)).collect();
            let register = stations[1].service::<Register>("r");
            assert_eq!(read(&register, 5).await, Event::Read { op: 5, value: 10 });
            drop(register);
            stop(stations).await;
        })
        .await;
}

#[tokio::test]
async fn a_service_is_mounted_while_its_station_runs() {
    mounted_late(None, true).await;
    mounted_late(None, false).await;
}

#[tokio::test]
async fn a_service_is_mounted_beside_while_its_station_runs() {
    mounted_late(Some(Placement::Local), true).await;
    mounted_late(Some(Placement::Thread), true).await;
    mounted_late(Some(Placement::Thread), false).await;
}

/// What cannot be mounted is refused by name, and so is everything when the station has ended.
#[tokio::test]
async fn what_cannot_be_mounted_late_is_refused() {
    let roster = roster();
    let rack_error = |error| match error {
        MountLateError::Services(ServicesError::Mount(MountError::Rack(error))) => error,
        error => panic!("{error}"),
    };
    LocalSet::new()
        .run_until(async {
            let station = bare(&roster, "n0", None);
            let of = mainstay_base::Instance::new(cluster(), "r");
            let alone = station.mount::<Watcher>("w", None, move |_| of).await.unwrap_err();
            let missing = rack_error(alone);
            assert!(matches!(missing, rack::MountError::Missing { .. }), "{missing}");
            // Of several at once one is mounted.
            let (one, other) = tokio::join!(mount(&station, None), mount(&station, None));
            let mut errors = vec![];
            let mut mounted = vec![];
            for outcome in [one, other] {
                match outcome {
                    Ok(register) => mounted.push(register),
                    Err(error) => errors.push(rack_error(error)),
                }
            }
            assert!(matches!(errors[..], [rack::MountError::Taken { .. }]), "{errors:?}");
            let again = mount(&station, Some(Placement::Local)).await.unwrap_err();
            assert!(matches!(rack_error(again), rack::MountError::Taken { .. }));
            let watcher = station.mount::<Watcher>("w", None, move |_| of).await.unwrap();
            assert_eq!(watcher.status().await.map(|it| it.1), Ok(0));
            drop((watcher, mounted));
            let closed = station.closed();
            station.stop();
            closed.await;
            let late = mount(&station, None).await.unwrap_err();
            assert!(matches!(late, MountLateError::Reach(ReachError::Closed)), "{late}");
        })
        .await;
}

/// Does jobs that wait until they are told to end, and counts those that are done.
struct Worker {
    out: Outbox<Self>,
    done: u64,
}

/// It ends when something comes, and says so when it has.
type Job = (block::Receiver<()>, oneshot::Sender<()>);

impl Machine for Worker {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, _: Instant, input: In<Self>) {
        match input {
            In::Command(job) => self.out.put(Out::Work(job)),
            In::Done(()) => self.done += 1,
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn end_turn(&mut self, _: Instant) {}

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

impl Service for Worker {
    const CHANNEL: Channel = Channel(0x4060);
    const NAME: &'static str = "worker";
    const CLASS: Class = Class::Calls;
    type Message = Never;
    type Record = Never;
    type Command = Job;
    type Event = Never;
    type Job = Job;
    type Done = ();
    type Past = ();
    type Config = ();
    type Status = u64;

    fn fold((): &mut (), _: Logged<Never>) {}

    fn recover((): (), _: Start<()>) -> Self {
        Self { out: Outbox::default(), done: 0 }
    }

    fn work((until, said): Job) {
        let _ = until.recv();
        let _ = said.send(());
    }

    fn status(&self) -> u64 {
        self.done
    }
}

/// What comes of a job of a run that was dismounted is not for the next one.
#[tokio::test]
async fn a_job_of_a_former_run_is_of_no_interest() {
    let roster = roster();
    LocalSet::new()
        .run_until(async {
            for placement in [None, Some(Placement::Local)] {
                let station = bare(&roster, "n0", None);
                let mounted =
                    async || station.mount::<Worker>("w", placement, |_| ()).await.unwrap();
                let (mut ends, mut said) = (vec![], vec![]);
                let mut job = || {
                    let ((end, until), (say, heard)) = (block::channel(), oneshot::channel());
                    ends.push(end);
                    said.push(heard);
                    (until, say)
                };
                let worker = mounted().await;
                worker.send(job()).await.unwrap();
                assert_eq!(worker.status().await, Ok(0));
                worker.dismount().await.unwrap();
                while worker.status().await != Err(ReachError::NotMounted) {
                    tokio::task::yield_now().await;
                }
                mounted().await;
                worker.send(job()).await.unwrap();
                // The former one first.
                for (end, said) in ends.iter().zip(said) {
                    end.send(()).unwrap();
                    timeout(LIMIT, said).await.unwrap().unwrap();
                }
                let done = async {
                    while worker.status().await == Ok(0) {
                        tokio::task::yield_now().await;
                    }
                };
                timeout(LIMIT, done).await.expect("the second is done");
                for _ in 0..100 {
                    assert_eq!(worker.status().await, Ok(1));
                }
                drop(worker);
                stop(vec![station]).await;
            }
        })
        .await;
}
