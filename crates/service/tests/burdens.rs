//! Services beside their node that are a burden: too fast for it, stuck at its end, against its rules, and started again by many.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![allow(clippy::disallowed_methods, reason = "callers on threads of their own")]

mod stations;
#[allow(unreachable_pub, dead_code, reason = "shared by tests")]
#[path = "../../sim/tests/support/toy.rs"]
mod toy;

use std::sync::mpsc as block;
use std::sync::{Arc, Barrier};

use mainstay_base::rack::Breach;
use mainstay_base::service::{
    Class, In, Io, Logged, Out, Outbox, PeerChange, Service, Start, Wire,
};
use mainstay_base::{BootId, Channel, Instant, Machine, codec};
use mainstay_service::{
    AgainError, Closed, Placement, ReachError, ServiceHandle, StationHandle, StationParts, start,
};
use serde::{Deserialize, Serialize};
use stations::{LIMIT, cluster, roster};
use tokio::task::LocalSet;
use tokio::time::timeout;

#[derive(Debug, Serialize, Deserialize)]
struct Piece(Vec<u8>);
impl Wire for Piece {}
#[derive(Debug, Serialize, Deserialize)]
struct Note(u64);
impl Wire for Note {}

enum Do {
    Send(usize),
    Note(u64),
    /// It says so, and waits until somebody says something.
    Wait(block::Sender<()>, block::Receiver<()>),
    Panic,
    Skip,
}

/// Sends and writes as it is told.
struct Pipe {
    out: Outbox<Self>,
    up: Vec<BootId>,
    notes: u64,
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
            In::Command(Do::Send(size)) => {
                if let Some(to) = self.up.first().copied() {
                    self.out.send(to, Piece(vec![0; size]));
                }
            }
            In::Command(Do::Note(number)) => {
                self.notes += 1;
                self.out.persist(Note(number));
            }
            In::Command(Do::Skip) => self.out.put(Out::Persist { io: Io(99), record: Note(0) }),
            In::Command(Do::Wait(begun, until)) => {
                let _ = begun.send(());
                let _ = until.recv();
            }
            In::Command(Do::Panic) => panic!("it was told to"),
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

impl Service for Pipe {
    const CHANNEL: Channel = Channel(0x4010);
    const NAME: &'static str = "pipe";
    const CLASS: Class = Class::Calls;
    type Message = Piece;
    type Record = Note;
    type Command = Do;
    type Event = Io;
    type Job = ();
    type Done = ();
    type Past = Io;
    type Config = ();
    /// How many notes it wrote, and peers are up.
    type Status = (u64, usize);
    fn fold(past: &mut Io, logged: Logged<Note>) {
        if let Logged::Record(io, _) = logged {
            *past = io;
        }
    }
    fn recover((): (), start: Start<Io>) -> Self {
        Self { out: Outbox::new(start.past), up: Vec::new(), notes: 0 }
    }
    fn work((): ()) {}
    fn keeps(&self) -> Io {
        Io(1)
    }
    fn status(&self) -> (u64, usize) {
        (self.notes, self.up.len())
    }
}

fn stations() -> Vec<StationHandle> {
    let mut roster = roster();
    roster.remove("n2");
    let station = |name: &str| {
        let parts = StationParts::tcp(cluster(), name, roster.clone(), None).unwrap();
        start(parts, |node| {
            node.beside::<Pipe>("p", Placement::Thread, ())?;
            node.mount::<Pipe>("mounted", ()).map(drop)
        })
        .unwrap()
    };
    vec![station("n0"), station("n1")]
}

async fn until(service: &ServiceHandle<Pipe>, is_it: impl Fn(&(u64, usize)) -> bool) {
    let look = async {
        while !is_it(&service.status().await.unwrap()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, look).await.expect("in time");
}

/// A node with both, on a thread of its own, until the first is dropped; how it ended.
fn node()
-> (tokio::sync::oneshot::Sender<()>, [ServiceHandle<Pipe>; 2], std::thread::JoinHandle<()>) {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (give, given) = block::channel();
    let node = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let stations = stations();
            let pipes = ["p", "mounted"].map(|name| stations[0].service::<Pipe>(name));
            for pipe in &pipes {
                until(pipe, |it| it.1 == 1).await;
            }
            give.send(pipes).unwrap();
            drop(stopped.await);
        });
    });
    (stop, given.recv().unwrap(), node)
}

/// What waits for a node that is stuck is bounded, and what comes is refused; then all of it is carried out.
#[test]
fn what_an_actor_hands_to_a_stuck_node_is_bounded() {
    /// The mailbox, and 64 turns of at most 256 inputs.
    const MOST: u64 = 4_096 + 65 * 256;
    let (stop, [pipe, mounted], node) = node();
    let (begun, begins) = block::channel();
    let (open, gate) = block::channel();
    mounted.try_send(Do::Wait(begun, gate)).unwrap();
    begins.recv().unwrap();
    let mut taken = 0;
    for _ in 0..200_000 {
        match pipe.try_send(Do::Note(1)) {
            Ok(()) => taken += 1,
            Err(error) => {
                assert_eq!(error, ReachError::Full);
                std::thread::yield_now();
            }
        }
    }
    assert!(taken <= MOST, "{taken} were taken");
    open.send(()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(until(&pipe, |it| it.0 == taken));
    drop(stop);
    node.join().unwrap();
}

/// Many start it again at once: one does, the others are told that it was not they.
#[test]
fn many_start_it_again_at_once() {
    const CALLERS: usize = 8;
    let (stop, [pipe, _mounted], node) = node();
    let barrier = Arc::new(Barrier::new(CALLERS));
    let callers = (0..CALLERS).map(|caller| {
        let (pipe, barrier) = (pipe.clone(), Arc::clone(&barrier));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            let mut begun = Vec::new();
            for _ in 0..50 {
                if caller == 0 {
                    let _ = runtime.block_on(pipe.send(Do::Panic));
                    let fallen = async {
                        while pipe.status().await != Err(ReachError::Fallen) {
                            tokio::task::yield_now().await;
                        }
                    };
                    runtime.block_on(async { timeout(LIMIT, fallen).await }).unwrap();
                }
                barrier.wait();
                let again = runtime.block_on(async { timeout(LIMIT, pipe.start_again(())).await });
                begun.push(match again.expect("in time") {
                    Ok(()) => 1,
                    Err(AgainError::NotFallen) => 0,
                    Err(error) => panic!("{error:?}"),
                });
                barrier.wait();
            }
            begun
        })
    });
    let callers: Vec<_> = callers.collect();
    let begun: Vec<Vec<u32>> = callers.into_iter().map(|it| it.join().unwrap()).collect();
    for round in 0..50 {
        assert_eq!(begun.iter().map(|caller| caller[round]).sum::<u32>(), 1, "round {round}");
    }
    drop(stop);
    node.join().unwrap();
}

/// Whoever waits for a stuck actor is told when the node ends, which does not wait for it.
#[tokio::test]
async fn who_waits_for_a_stuck_actor_is_told_when_the_node_ends() {
    LocalSet::new()
        .run_until(async {
            let stations = stations();
            let pipe = stations[0].service::<Pipe>("p");
            until(&pipe, |_| true).await;
            let ((begun, begins), (open, gate)) = (block::channel(), block::channel());
            pipe.try_send(Do::Wait(begun, gate)).unwrap();
            begins.recv().unwrap();
            let ends = async {
                tokio::task::yield_now().await;
                let closed = stations[0].closed();
                stations[0].stop();
                closed.await
            };
            let both = timeout(LIMIT, async { tokio::join!(pipe.status(), ends) }).await;
            open.send(()).unwrap();
            assert_eq!(both.expect("in time"), (Err(ReachError::Closed), Closed::Stopped));
        })
        .await;
}

/// Whoever breaks a rule of its node ends alone, and is started again.
async fn breaks_a_rule(command: Do, breach: Breach) {
    LocalSet::new()
        .run_until(async {
            let stations = stations();
            let [pipe, mounted] = ["p", "mounted"].map(|it| stations[0].service::<Pipe>(it));
            until(&pipe, |it| it.1 == 1).await;
            pipe.send(Do::Note(1)).await.unwrap();
            until(&pipe, |it| it.0 == 1).await;
            let _ = pipe.send(command).await;
            let stopped = async {
                while pipe.status().await != Err(ReachError::Stopped(breach)) {
                    tokio::task::yield_now().await;
                }
            };
            timeout(LIMIT, stopped).await.expect("it is stopped");
            until(&mounted, |it| it.1 == 1).await;
            pipe.start_again(()).await.unwrap();
            until(&pipe, |it| it.1 == 1).await;
        })
        .await;
}

#[tokio::test]
async fn too_large_a_message_ends_the_service_alone() {
    let bytes = codec::encode(&Piece(vec![0; (16 << 20) + 1])).len();
    breaks_a_rule(Do::Send((16 << 20) + 1), Breach::Message { bytes }).await;
}

#[tokio::test]
async fn a_record_left_out_ends_the_service_alone() {
    breaks_a_rule(Do::Skip, Breach::Number { io: Io(99), last: Io(1) }).await;
}

/// The actor ends with a node that crashes: nobody is told any more that it has taken something.
#[tokio::test]
async fn a_node_that_crashes_leaves_no_actor_behind() {
    LocalSet::new()
        .run_until(async {
            let stations = stations();
            let [pipe, mounted] = ["p", "mounted"].map(|it| stations[0].service::<Pipe>(it));
            until(&pipe, |_| true).await;
            let _ = mounted.send(Do::Panic).await;
            let ends = async {
                while pipe.status().await != Err(ReachError::Closed) {
                    tokio::task::yield_now().await;
                }
            };
            timeout(LIMIT, ends).await.expect("it ends");
            assert_eq!(pipe.placement(), None);
        })
        .await;
}
