//! Services in actors of their own beside the node: one that is stuck, one that panics, and the same again.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod stations;
#[allow(unreachable_pub, dead_code, reason = "shared by tests")]
#[path = "../../sim/tests/support/toy.rs"]
mod toy;

use std::sync::mpsc as block;

use bytes::Bytes;
use mainstay_base::rack::Breach;
use mainstay_base::service::{
    Class, In, Io, Logged, Out, Outbox, PeerChange, Service, Start, Wire,
};
use mainstay_base::{BootId, Channel, Instant, Machine};
use mainstay_service::{
    AgainError, MESSAGE_BYTES_MAX, Placement, ReachError, ServiceHandle, StationHandle,
    StationParts, start,
};
use serde::{Deserialize, Serialize};
use stations::{LIMIT, ask, cluster, config, listen, next, roster, stop};
use tokio::task::LocalSet;
use tokio::time::timeout;
use toy::{Command, Event, Register};

/// Sends numbered messages to whoever is up, and keeps what comes; it can be made to wait, and to panic.
struct Pipe {
    me: BootId,
    out: Outbox<Self>,
    up: Vec<BootId>,
    /// To be sent, and sent so far; nothing is sent while the last one was refused.
    wanted: u64,
    sent: u64,
    refused: bool,
    got: u64,
    past: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Piece {
    number: u64,
    #[serde(skip)]
    body: Bytes,
}

impl Wire for Piece {
    fn payload(&self) -> Bytes {
        self.body.clone()
    }

    fn with_payload(self, body: Bytes) -> Option<Self> {
        Some(Self { body, ..self })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Note(u64);

impl Wire for Note {}

enum Do {
    Send(u64),
    Note(u64),
    /// Until somebody says something.
    Wait(block::Receiver<()>),
    Panic,
    PanicInJob,
    /// A message that nobody may send.
    SendTooMuch,
}

/// How a pipe is: sent, refused, got, the sum of the notes of former runs.
type Standing = (u64, bool, u64, u64);

impl Pipe {
    fn send_on(&mut self) {
        let Some(to) = self.up.first().copied() else { return };
        while self.sent < self.wanted && !self.refused {
            self.sent += 1;
            let body = Bytes::from(vec![self.sent as u8; 10_000]);
            self.out.send(to, Piece { number: self.sent, body });
            // A turn is bounded: what is refused comes back before the next.
            if self.sent.is_multiple_of(64) {
                self.out.put(Out::Again);
                break;
            }
        }
    }
}

impl Machine for Pipe {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, _: Instant, input: In<Self>) {
        match input {
            In::Peer(PeerChange::Up { boot }) => self.up.push(boot),
            In::Peer(
                PeerChange::Down { boot }
                | PeerChange::Ended { boot }
                | PeerChange::Replaced { old: boot, .. },
            ) => {
                self.up.retain(|up| *up != boot);
            }
            In::Message { message, .. } => {
                self.got += 1;
                assert_eq!(message.number, self.got, "in order, without a hole");
            }
            In::Full { message, .. } => {
                self.refused = true;
                self.sent = self.sent.min(message.number - 1);
            }
            In::Room { .. } => self.refused = false,
            In::Command(Do::Send(count)) => self.wanted += count,
            In::Command(Do::Note(number)) => {
                self.out.persist(Note(number));
            }
            In::Written(io) => self.out.tell(io),
            In::Command(Do::Wait(until)) => drop(until.recv()),
            In::Command(Do::Panic) => panic!("it was told to"),
            In::Command(Do::SendTooMuch) => {
                let body = Bytes::from(vec![0; MESSAGE_BYTES_MAX]);
                self.out.send(self.me, Piece { number: 1, body });
            }
            In::Command(Do::PanicInJob) => self.out.put(Out::Work(())),
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn end_turn(&mut self, _: Instant) {
        self.send_on();
    }

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

impl Service for Pipe {
    const CHANNEL: Channel = Channel(0x4010);
    const NAME: &'static str = "pipe";
    const CLASS: Class = Class::Bulk;
    type Message = Piece;
    type Record = Note;
    type Command = Do;
    type Event = Io;
    type Job = ();
    type Done = ();
    /// The sum of the notes, and the last number.
    type Past = (u64, Io);
    type Config = ();
    type Status = Standing;

    fn fold(past: &mut (u64, Io), logged: Logged<Note>) {
        if let Logged::Record(io, Note(number)) = logged {
            *past = (past.0 + number, io);
        }
    }

    fn recover((): (), start: Start<(u64, Io)>) -> Self {
        let (past, last) = start.past;
        let (me, out, up) = (start.me, Outbox::new(last), Vec::new());
        Self { me, out, up, wanted: 0, sent: 0, refused: false, got: 0, past }
    }

    fn work((): ()) {
        panic!("its job was told to")
    }

    fn keeps(&self) -> Io {
        Io(1)
    }

    fn status(&self) -> Standing {
        (self.sent, self.refused, self.got, self.past)
    }
}

/// Two of them with a pipe each beside, a register beside and one that is mounted.
fn stations(directory: Option<&std::path::Path>, placement: Placement) -> Vec<StationHandle> {
    let mut roster = roster();
    roster.remove("n2");
    let station = |name: &str| {
        let directory = directory.map(|it| it.join(name));
        let parts = StationParts::tcp(cluster(), name, roster.clone(), directory).unwrap();
        start(parts, |node| {
            node.beside::<Pipe>("p", placement, ())?;
            node.beside::<Register>("beside", placement, config(&node.roster))?;
            node.mount::<Register>("mounted", config(&node.roster)).map(drop)
        })
        .unwrap()
    };
    vec![station("n0"), station("n1")]
}

async fn until<S: Service<Status: Send + Copy + std::fmt::Debug>>(
    service: &ServiceHandle<S>,
    is_it: impl Fn(&S::Status) -> bool,
) -> S::Status {
    let last = std::cell::Cell::new(None);
    let look = async {
        loop {
            let status = service.status().await.unwrap();
            last.set(Some(status));
            if is_it(&status) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    };
    let found = timeout(LIMIT, look).await;
    found.unwrap_or_else(|_| panic!("not in time: {:?}", last.get()))
}

/// What waits for a stuck actor is bounded by the granted window; other services on the same nodes go on; then everything comes.
#[tokio::test]
async fn a_stuck_actor_stops_its_own_channel_only() {
    const MESSAGES: u64 = 2_000;
    LocalSet::new()
        .run_until(async {
            let stations = stations(None, Placement::Thread);
            let [from, to] = [0, 1].map(|index| stations[index].service::<Pipe>("p"));
            let (open, gate) = block::channel();
            until(&to, |_| true).await;
            to.try_send(Do::Wait(gate)).unwrap();
            from.send(Do::Send(MESSAGES)).await.unwrap();
            let (sent, ..) = until(&from, |status| status.1).await;
            // 256 KiB are granted, 1 MiB waits where it is sent.
            assert!(sent <= (1_280 << 10) / 10_000 + 1, "{sent}");
            for name in ["mounted", "beside"] {
                let register = stations[1].service::<Register>(name);
                let mut heard = listen(&register, None, 64).await;
                for op in 1..20 {
                    let command = Command::Write { op, value: op };
                    let written = ask(&register, &mut heard, command).await;
                    assert_eq!(written, Event::Written { op, value: op }, "{name}");
                }
            }
            assert!(from.status().await.unwrap().0 <= sent, "it is stuck still");
            open.send(()).unwrap();
            until(&to, |status| status.2 == MESSAGES).await;
            drop((from, to));
            stop(stations).await;
        })
        .await;
}

/// A user's commands are bounded by the mailbox of the actor, and refused when it is full.
#[tokio::test]
async fn commands_for_a_stuck_actor_are_refused() {
    LocalSet::new()
        .run_until(async {
            let stations = stations(None, Placement::Thread);
            let pipe = stations[0].service::<Pipe>("p");
            until(&pipe, |_| true).await;
            let (open, gate) = block::channel();
            pipe.try_send(Do::Wait(gate)).unwrap();
            let refused = (0..10_000).find_map(|_| pipe.try_send(Do::Note(1)).err());
            assert_eq!(refused, Some(ReachError::Full));
            open.send(()).unwrap();
            until(&pipe, |_| true).await;
            drop(pipe);
            stop(stations).await;
        })
        .await;
}

/// A panic ends the service alone; whoever asks is told, who subscribed is told; it is started again with its past.
async fn falls_and_is_started_again(
    placement: Placement,
    disk: bool,
    how: fn() -> Do,
    why: ReachError,
) {
    let directory = tempfile::tempdir().unwrap();
    LocalSet::new()
        .run_until(async {
            let stations = stations(disk.then(|| directory.path()), placement);
            let pipe = stations[0].service::<Pipe>("p");
            let mut heard = listen(&pipe, None, 64).await;
            assert_eq!(
                pipe.start_again(()).await.unwrap_err().to_string(),
                "the service has not fallen"
            );
            for number in 1..4 {
                pipe.send(Do::Note(number)).await.unwrap();
                assert_eq!(next(&mut heard).await.0, [Io(number)], "it is written");
            }
            pipe.send(how())
                .await
                .or_else(|error| match error {
                    error if error == why => Ok(()),
                    error => Err(error),
                })
                .unwrap();
            let (_, is_end) = next(&mut heard).await;
            assert!(is_end, "who subscribed is told");
            let fallen = async {
                while pipe.status().await != Err(why) {
                    tokio::task::yield_now().await;
                }
            };
            timeout(LIMIT, fallen).await.expect("it has fallen");
            assert_eq!(pipe.send(Do::Note(9)).await, Err(why));
            assert_eq!(pipe.try_send(Do::Note(9)), Err(why));
            // The node, and the same service elsewhere, go on.
            let register = stations[0].service::<Register>("mounted");
            let mut said = listen(&register, None, 64).await;
            let written = ask(&register, &mut said, Command::Write { op: 1, value: 7 }).await;
            assert_eq!(written, Event::Written { op: 1, value: 7 });
            stations[1].service::<Pipe>("p").send(Do::Note(1)).await.unwrap();

            let (first, second) = tokio::join!(pipe.start_again(()), pipe.start_again(()));
            let begun = [&first, &second].into_iter().filter(|it| it.is_ok()).count();
            assert_eq!(begun, 1, "once: {first:?} {second:?}");
            let sum = if disk { 6 } else { 0 };
            assert_eq!(until(&pipe, |_| true).await.3, sum, "it has its past");
            let mut heard = listen(&pipe, None, 64).await;
            pipe.send(Do::Note(10)).await.unwrap();
            let last = if disk { 4 } else { 1 };
            assert_eq!(next(&mut heard).await.0, [Io(last)], "it goes on behind its last record");
            // Its peer knows it anew, and both hear each other.
            let other = stations[1].service::<Pipe>("p");
            other.send(Do::Send(5)).await.unwrap();
            until(&pipe, |status| status.2 == 5).await;
            assert!(matches!(pipe.start_again(()).await, Err(AgainError::NotFallen)));
            drop((pipe, register, other));
            stop(stations).await;

            if disk {
                let stations = self::stations(Some(directory.path()), placement);
                let pipe = stations[0].service::<Pipe>("p");
                assert_eq!(until(&pipe, |_| true).await.3, 16, "both runs are in the log");
                drop(pipe);
                stop(stations).await;
            }
        })
        .await;
}

#[tokio::test]
async fn a_panic_beside_the_node_ends_that_service_only() {
    falls_and_is_started_again(Placement::Local, true, || Do::Panic, ReachError::Fallen).await;
}

#[tokio::test]
async fn a_panic_on_another_thread_ends_that_service_only() {
    falls_and_is_started_again(Placement::Thread, true, || Do::Panic, ReachError::Fallen).await;
}

#[tokio::test]
async fn a_panic_in_a_job_of_it_ends_that_service_only() {
    falls_and_is_started_again(Placement::Local, true, || Do::PanicInJob, ReachError::Fallen).await;
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_that_service_only() {
    let why = ReachError::Stopped(Breach::Message { bytes: MESSAGE_BYTES_MAX + 2 });
    falls_and_is_started_again(Placement::Local, true, || Do::SendTooMuch, why).await;
}

#[tokio::test]
async fn without_a_disk_it_is_started_anew() {
    falls_and_is_started_again(Placement::Thread, false, || Do::Panic, ReachError::Fallen).await;
}

/// Whoever waits for an answer of an actor that panics is told, and does not wait for ever.
#[tokio::test]
async fn who_waits_for_an_actor_that_falls_is_told() {
    LocalSet::new()
        .run_until(async {
            let stations = stations(None, Placement::Thread);
            let pipe = stations[0].service::<Pipe>("p");
            until(&pipe, |_| true).await;
            let (open, gate) = block::channel();
            pipe.try_send(Do::Wait(gate)).unwrap();
            pipe.try_send(Do::Panic).unwrap();
            let waits = (0..8).map(|_| {
                let pipe = pipe.clone();
                tokio::task::spawn_local(async move { pipe.status().await.unwrap_err() })
            });
            let waits: Vec<_> = waits.collect();
            tokio::task::yield_now().await;
            open.send(()).unwrap();
            for wait in waits {
                let told = timeout(LIMIT, wait).await.expect("in time").unwrap();
                assert_eq!(told, ReachError::Fallen);
            }
            drop(pipe);
            stop(stations).await;
        })
        .await;
}

/// It is told to close, its last words are carried out, and its place is free.
#[tokio::test]
async fn it_is_dismounted() {
    LocalSet::new()
        .run_until(async {
            let stations = stations(None, Placement::Thread);
            let pipe = stations[0].service::<Pipe>("p");
            let mut heard = listen(&pipe, None, 64).await;
            assert_eq!(pipe.dismount().await, Ok(true));
            assert!(next(&mut heard).await.1, "who subscribed is told");
            let gone = async {
                while pipe.dismount().await != Ok(false) {
                    tokio::task::yield_now().await;
                }
            };
            timeout(LIMIT, gone).await.expect("it is gone");
            assert_eq!(pipe.status().await, Err(ReachError::NotMounted));
            assert!(matches!(pipe.start_again(()).await, Err(AgainError::NotFallen)));
            drop(pipe);
            stop(stations).await;
        })
        .await;
}
