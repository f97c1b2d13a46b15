//! A service that breaks a rule of its host: it is stopped for that reason, and nothing else is.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod stations;
#[allow(unreachable_pub, dead_code, reason = "shared by tests")]
#[path = "../../sim/tests/support/toy.rs"]
mod toy;

use std::path::Path;

use bytes::Bytes;
use mainstay_base::rack::Breach;
use mainstay_base::service::{
    Class, In, Io, Kind, Logged, MESSAGE_BYTES_MAX, Never, Out, Outbox, RECORD_BYTES_MAX, Service,
    Start, Wire,
};
use mainstay_base::{BootId, Channel, Instant, Machine};
use mainstay_service::{
    AgainError, Placement, ReachError, ServiceHandle, ServicesError, StationHandle, StationParts,
    start,
};
use serde::{Deserialize, Serialize};
use stations::{LIMIT, cluster, listen, next, stop};
use tokio::task::LocalSet;
use tokio::time::timeout;

/// Adds up its notes. `1` needs `0`.
struct Keeper<const N: u16> {
    me: BootId,
    out: Outbox<Self>,
    sum: u64,
}

/// A note of this number cannot be read, the next one panics when it is folded.
const UNREADABLE: u64 = 1_000;
const PANICS: u64 = 1_001;

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    number: u64,
    #[serde(skip)]
    body: Bytes,
}

impl Wire for Note {
    fn payload(&self) -> Bytes {
        self.body.clone()
    }

    fn with_payload(self, body: Bytes) -> Option<Self> {
        (self.number != UNREADABLE).then_some(Self { body, ..self })
    }
}

enum Do {
    Note(u64),
    /// With this number of its own.
    NoteAs(u64),
    NoteTooMuch,
    SendTooMuch,
    Panic,
}

fn note(number: u64) -> Note {
    Note { number, body: Bytes::new() }
}

impl<const N: u16> Machine for Keeper<N> {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, _: Instant, input: In<Self>) {
        let body = Bytes::from(vec![0; MESSAGE_BYTES_MAX]);
        match input {
            In::Command(Do::Note(number)) => {
                self.sum += number;
                self.out.persist(note(number));
            }
            In::Command(Do::NoteAs(io)) => {
                self.out.put(Out::Persist { io: Io(io), record: note(1) });
                // Of a turn in which it breaks a rule nothing goes out.
                self.out.tell(Io(io));
            }
            In::Command(Do::NoteTooMuch) => drop(self.out.persist(Note { number: 1, body })),
            In::Command(Do::SendTooMuch) => self.out.send(self.me, Note { number: 1, body }),
            In::Command(Do::Panic) => panic!("it was told to"),
            In::Written(io) => self.out.tell(io),
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

impl<const N: u16> Service for Keeper<N> {
    const CHANNEL: Channel = Channel(0x4020 + N);
    const NAME: &'static str = "keeper";
    const CLASS: Class = Class::Calls;
    const NEEDS: &'static [Kind] = if N == 1 { &[Kind::of::<Keeper<0>>()] } else { &[] };
    type Message = Note;
    type Record = Note;
    type Command = Do;
    type Event = Io;
    type Job = Never;
    type Done = Never;
    type Past = (u64, Io);
    type Config = ();
    type Status = u64;

    fn fold(past: &mut (u64, Io), logged: Logged<Note>) {
        if let Logged::Record(io, note) = logged {
            assert_ne!(note.number, PANICS, "as told");
            *past = (past.0 + note.number, io);
        }
    }

    fn recover((): (), start: Start<(u64, Io)>) -> Self {
        let (sum, last) = start.past;
        Self { me: start.me, out: Outbox::new(last), sum }
    }

    fn work(job: Never) -> Never {
        match job {}
    }

    fn keeps(&self) -> Io {
        Io(1)
    }

    fn status(&self) -> u64 {
        self.sum
    }
}

/// Three of them, one of which needs another one.
fn station(directory: &Path, placement: Option<Placement>) -> StationHandle {
    let roster = [("n0".to_owned(), mainstay_sim::free_addresses(1)[0])].into();
    let parts = StationParts::tcp(cluster(), "n0", roster, Some(directory.to_owned())).unwrap();
    start(parts, |node| {
        match placement {
            None => node.mount::<Keeper<0>>("k", ())?,
            Some(placement) => node.beside::<Keeper<0>>("k", placement, ())?,
        };
        node.mount::<Keeper<1>>("leans", ())?;
        node.mount::<Keeper<2>>("other", ()).map(drop)
    })
    .unwrap()
}

async fn until<const N: u16>(keeper: &ServiceHandle<Keeper<N>>, is_it: Result<u64, ReachError>) {
    let wait = async {
        while keeper.status().await != is_it {
            tokio::task::yield_now().await;
        }
    };
    if timeout(LIMIT, wait).await.is_err() {
        panic!("{:?} in place of {is_it:?}", keeper.status().await);
    }
}

/// It is stopped for that reason; whoever subscribed and whoever asks is told; the others go on; its log is as it was.
async fn is_stopped(placement: Option<Placement>, how: Do, why: Breach) {
    let directory = tempfile::tempdir().unwrap();
    let stopped = ReachError::Stopped(why);
    LocalSet::new()
        .run_until(async {
            let node = station(directory.path(), placement);
            let (keeper, other) =
                (node.service::<Keeper<0>>("k"), node.service::<Keeper<2>>("other"));
            let mut heard = listen(&keeper, None, 64).await;
            for number in [1, 2] {
                keeper.send(Do::Note(number)).await.unwrap();
                assert_eq!(next(&mut heard).await, (vec![Io(number)], false));
            }
            keeper.send(how).await.unwrap();
            assert_eq!(next(&mut heard).await, (vec![], true), "the end, and no word of that turn");
            until(&keeper, Err(stopped)).await;
            assert_eq!(keeper.send(Do::Note(1)).await, Err(stopped));
            other.send(Do::Note(5)).await.unwrap();
            assert_eq!(other.status().await, Ok(5), "the others go on");
            if placement.is_some() {
                keeper.start_again(()).await.unwrap();
                assert_eq!(keeper.status().await, Ok(3));
            } else {
                assert!(matches!(keeper.start_again(()).await, Err(AgainError::NotFallen)));
            }
            drop((keeper, other));
            stop(vec![node]).await;

            let node = station(directory.path(), placement);
            let keeper = node.service::<Keeper<0>>("k");
            assert_eq!(keeper.status().await, Ok(3), "what it wrote before is there");
            drop(keeper);
            stop(vec![node]).await;
        })
        .await;
}

const PLACEMENTS: [Option<Placement>; 3] = [None, Some(Placement::Local), Some(Placement::Thread)];

/// Messages have two bytes beside their payload.
#[tokio::test]
async fn a_message_that_is_too_large_stops_its_service() {
    for placement in PLACEMENTS {
        let why = Breach::Message { bytes: MESSAGE_BYTES_MAX + 2 };
        is_stopped(placement, Do::SendTooMuch, why).await;
    }
}

#[tokio::test]
async fn a_record_that_is_too_large_stops_its_service() {
    for placement in PLACEMENTS {
        let why = Breach::Record { bytes: 2 * RECORD_BYTES_MAX + 2 };
        is_stopped(placement, Do::NoteTooMuch, why).await;
    }
}

#[tokio::test]
async fn a_record_out_of_order_stops_its_service() {
    for placement in PLACEMENTS {
        for io in [2, 4, 1 << 40] {
            let why = Breach::Number { io: Io(io), last: Io(2) };
            is_stopped(placement, Do::NoteAs(io), why).await;
        }
    }
}

/// The first record of a boot, and that of a run that was started again, is behind the last one in the log.
#[tokio::test]
async fn a_first_record_out_of_order_stops_its_service() {
    for placement in PLACEMENTS {
        let directory = tempfile::tempdir().unwrap();
        let stopped = Err(ReachError::Stopped(Breach::Number { io: Io(1), last: Io(2) }));
        LocalSet::new()
            .run_until(async {
                for round in 0..2 {
                    let node = station(directory.path(), placement);
                    let keeper = node.service::<Keeper<0>>("k");
                    if round == 0 {
                        // In turns of their own: the turn that breaks the rule writes nothing.
                        let mut heard = listen(&keeper, None, 64).await;
                        for number in [1, 2] {
                            keeper.send(Do::Note(number)).await.unwrap();
                            assert_eq!(next(&mut heard).await, (vec![Io(number)], false));
                        }
                    }
                    keeper.send(Do::NoteAs(1)).await.unwrap();
                    until(&keeper, stopped).await;
                    if placement.is_some() {
                        keeper.start_again(()).await.unwrap();
                        keeper.send(Do::NoteAs(1)).await.unwrap();
                        until(&keeper, stopped).await;
                    }
                    drop(keeper);
                    stop(vec![node]).await;
                }
            })
            .await;
    }
}

/// What the log has of a service is none of it, or makes it panic: it does not begin, nor does what needs it; the node does.
async fn does_not_begin(number: u64, placement: Option<Placement>) {
    let directory = tempfile::tempdir().unwrap();
    let why = match number {
        PANICS => Breach::Fold,
        _ => Breach::Unreadable { io: Io(1), why: mainstay_base::codec::DecodeError::Type },
    };
    LocalSet::new()
        .run_until(async {
            let node = station(directory.path(), placement);
            let keeper = node.service::<Keeper<0>>("k");
            let mut heard = listen(&keeper, None, 64).await;
            keeper.send(Do::Note(number)).await.unwrap();
            assert_eq!(next(&mut heard).await.0, [Io(1)]);
            if placement.is_some() {
                let _ = keeper.send(Do::Panic).await;
                until(&keeper, Err(ReachError::Fallen)).await;
                let Err(AgainError::Services(error)) = keeper.start_again(()).await else {
                    panic!("it cannot");
                };
                let is_fold = matches!(&error, ServicesError::Fold { reason, .. } if reason.contains("as told"));
                let is_record = matches!(&error, ServicesError::Record(_));
                assert!(if number == PANICS { is_fold } else { is_record }, "{error}");
                // It may be tried again.
                let again = keeper.start_again(()).await;
                assert!(matches!(again, Err(AgainError::Services(_))), "{again:?}");
            }
            drop(keeper);
            stop(vec![node]).await;

            let node = station(directory.path(), placement);
            let keeper = node.service::<Keeper<0>>("k");
            assert_eq!(keeper.status().await, Err(ReachError::Stopped(why)));
            let needs = Breach::Needs(Kind::of::<Keeper<0>>());
            let leans = node.service::<Keeper<1>>("leans").status().await;
            assert_eq!(leans, Err(ReachError::Stopped(needs)));
            assert_eq!(node.service::<Keeper<2>>("other").status().await, Ok(0));
            drop(keeper);
            stop(vec![node]).await;
        })
        .await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_stops_its_service() {
    for placement in [None, Some(Placement::Local)] {
        does_not_begin(UNREADABLE, placement).await;
    }
}

#[tokio::test]
async fn a_fold_that_panics_stops_its_service() {
    for placement in [None, Some(Placement::Thread)] {
        does_not_begin(PANICS, placement).await;
    }
}
