//! Services mounted on sites, beside a group: sockets, files, subscribers, restarts, deaths.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "a part of this test")]
#[path = "mounted/nodes.rs"]
mod nodes;
#[allow(unreachable_pub, reason = "a part of this test")]
#[path = "mounted/tally.rs"]
mod tally;
#[allow(unreachable_pub, dead_code, reason = "shared by tests")]
#[path = "../../sim/tests/support/toy.rs"]
mod toy;

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler};
use mainstay_base::Duration as Span;
use mainstay_base::rack::MountError as NoPlace;
use mainstay_base::service::Service;
use mainstay_runtime::{Closed, Events};
use mainstay_service::{
    MountError, Mounting, Reach, ReachError, ServiceHandle, ServicesError, Standing,
};
use mainstay_site::{MountServices, StartError};
use nodes::{LIMIT, Node, Setup, cluster, roster};
use tally::{EVERY, Stable, Status, Tally};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::timeout;
use toy::{Command, Config, Event, Register, Watcher};

/// Passes on what it is told.
struct Listener<E> {
    to: mpsc::UnboundedSender<(Vec<E>, bool)>,
    /// It reads nothing before.
    gate: Option<oneshot::Receiver<()>>,
}

impl<E: Unpin + Send + 'static> Actor for Listener<E> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        if let Some(gate) = self.gate.take() {
            context.wait(actix::fut::wrap_future(async move { drop(gate.await) }));
        }
    }
}

impl<E: Unpin + Send + 'static> Handler<Events<E>> for Listener<E> {
    type Result = ();

    fn handle(&mut self, mut events: Events<E>, _: &mut Context<Self>) {
        let _ = self.to.send((events.take(), events.is_end()));
    }
}

type Heard<E> = mpsc::UnboundedReceiver<(Vec<E>, bool)>;

async fn listen<S: Service<Event: Unpin>>(
    service: &ServiceHandle<S>,
    gate: Option<oneshot::Receiver<()>>,
    unread_max: usize,
) -> Heard<S::Event> {
    let (to, heard) = mpsc::unbounded_channel();
    let listener = Listener { to, gate }.start();
    service.subscribe(listener.recipient(), unread_max).await.unwrap();
    heard
}

async fn next<E>(heard: &mut Heard<E>) -> (Vec<E>, bool) {
    timeout(LIMIT, heard.recv()).await.expect("in time").expect("it listens")
}

/// It ends, and says so.
async fn ended<E>(heard: &mut Heard<E>) {
    while !next(heard).await.1 {}
}

/// What comes of a command; what the watcher of the node has asked is left out.
async fn ask(
    register: &ServiceHandle<Register>,
    heard: &mut Heard<Event>,
    command: Command,
) -> Event {
    let (Command::Read { op } | Command::Write { op, .. }) = command;
    register.send(command).await.unwrap();
    let is_answer = |event: &Event| {
        let (Event::Read { op: of, .. } | Event::Written { op: of, .. }) = *event;
        of == op
    };
    loop {
        if let Some(event) = next(heard).await.0.into_iter().find(is_answer) {
            return event;
        }
    }
}

/// Asks until the answer is as wanted.
async fn until<T, A: Future<Output = T>>(
    what: &str,
    ask: impl Fn() -> A,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let asking = async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        loop {
            tick.tick().await;
            let answer = ask().await;
            if wanted(&answer) {
                break answer;
            }
        }
    };
    timeout(LIMIT, asking).await.expect(what)
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

fn register(node: &mut Mounting<'_>, name: &str) -> Result<mainstay_base::Instance, MountError> {
    let config = Config { nodes: node.roster.clone(), fault: None, work: Span::ZERO };
    node.mount::<Register>(name, config)
}

/// A register and who watches it, at all nodes; a tally at the last one.
fn usual(index: usize) -> MountServices {
    Box::new(move |node| {
        let register = register(node, "r")?;
        let watcher = node.mount::<Watcher>("w", register)?;
        node.listen::<Register, Watcher>(register, watcher);
        if index == 2 {
            node.mount::<Tally>("t", ())?;
        }
        Ok(())
    })
}

async fn all(setup: &Setup<'_>) -> [Node; 3] {
    let nodes = [setup.start(0).await, setup.start(1).await, setup.start(2).await];
    for node in &nodes {
        node.view_of(3).await;
    }
    nodes
}

async fn stop<const N: usize>(nodes: [Node; N]) {
    for node in nodes {
        node.stop().await;
    }
}

/// Adds numbers and waits until they are stable: so many are.
async fn add(node: &Node, numbers: std::ops::Range<u64>) -> u64 {
    let tally = node.site.service::<Tally>("t");
    let mut heard = listen(&tally, None, 1_000).await;
    let before = tally.status().await.unwrap().numbers.len() as u64;
    let wanted = before + numbers.clone().count() as u64;
    for number in numbers {
        tally.send(tally::Command::Add(number)).await.unwrap();
    }
    let is_last = |it: &Stable| it.count == wanted;
    while !next(&mut heard).await.0.iter().any(is_last) {}
    wanted
}

/// Waits until the last checkpoint is of at least all but a few.
async fn checkpointed(tally: &ServiceHandle<Tally>, stable: u64) {
    let ask = || async { tally.status().await.unwrap() };
    until("a checkpoint", ask, |it| it.checkpoint + EVERY >= stable).await;
}

/// Checks that commands, events, messages and views flow while a group does its work on the same nodes.
#[test]
fn services_and_a_group_share_the_nodes() {
    run(async {
        let roster = roster();
        let setup = Setup { roster: &roster, directory: None, mount: usual };
        let mut nodes = all(&setup).await;
        for (index, node) in nodes.iter().enumerate() {
            let register = node.site.service::<Register>("r");
            let mut heard = listen(&register, None, 16).await;
            for op in 1..50 {
                let value = 100 * index as u64 + op;
                node.casts.send(8, value).await.unwrap();
                let written = ask(&register, &mut heard, Command::Write { op, value }).await;
                assert_eq!(written, Event::Written { op, value });
            }
            let read = ask(&register, &mut heard, Command::Read { op: 50 }).await;
            assert_eq!(read, Event::Read { op: 50, value: 100 * index as u64 + 49 });
        }
        let mut orders = BTreeSet::new();
        for node in &mut nodes {
            let mut order = Vec::new();
            while order.len() < 3 * 49 {
                let delivered = timeout(LIMIT, node.delivered.recv()).await;
                order.push(delivered.expect("in time").unwrap());
            }
            orders.insert(order);
            let watcher = node.site.service::<Watcher>("w");
            let ask = || async { watcher.status().await.unwrap() };
            // It asks the register when a view comes, and is told what that tells.
            until("a view", ask, |(asked, told)| *asked > 0 && *told > 0).await;
        }
        assert_eq!(orders.len(), 1, "the group has one order");
        stop(nodes).await;
    });
}

/// Checks that a service that one end lacks shows as such, and what handles say that lead nowhere.
#[test]
fn handles_say_where_they_lead() {
    run(async {
        let roster = roster();
        let setup = Setup { roster: &roster, directory: None, mount: usual };
        let reach = Reach::new(cluster());
        let early = reach.service::<Register>("r");
        let read = Command::Read { op: 1 };
        assert_eq!(early.send(read).await, Err(ReachError::NotStarted));
        assert_eq!(early.try_send(read), Err(ReachError::NotStarted));
        let first = setup.start_with(0, reach).await.unwrap();
        let nodes = [first, setup.start(1).await, setup.start(2).await];
        let mut heard = listen(&early, None, 16).await;
        assert_eq!(ask(&early, &mut heard, read).await, Event::Read { op: 1, value: 0 });
        assert_eq!(early.try_send(read), Ok(()));
        let nobody = nodes[0].site.service::<Register>("nobody");
        assert_eq!(nobody.status().await, Err(ReachError::NotMounted));
        let tally = nodes[2].site.service::<Tally>("t");
        let standing = || async {
            tally.peers().await.unwrap().into_iter().map(|(_, it)| it).collect::<Vec<_>>()
        };
        until("the others lack it", standing, |them| them == &[Standing::Missing; 2]).await;
        assert_eq!(tally.dismount().await, Ok(true));
        // It has one more turn.
        let gone = until("gone", || tally.status(), |it| it.is_err()).await;
        assert_eq!(gone, Err(ReachError::NotMounted));
        // Handles of services do not keep a site running.
        stop(nodes).await;
        ended(&mut heard).await;
        assert_eq!(early.send(read).await, Err(ReachError::Closed));
        assert_eq!(early.try_send(read), Err(ReachError::Closed));
        assert_eq!(early.status().await, Err(ReachError::Closed));
    });
}

/// Checks that two services at one place, and one without what it stands on, are refused, before anything is on disk.
#[test]
fn what_cannot_be_mounted_is_refused() {
    run(async {
        let roster = roster();
        let directory = tempfile::tempdir().unwrap();
        let refused = async |mount| {
            let setup = Setup { roster: &roster, directory: Some(directory.path()), mount };
            let started = setup.start_with(0, Reach::new(cluster())).await;
            match started.map(|_| ()).unwrap_err() {
                StartError::Services(ServicesError::Mount(MountError::Rack(error))) => error,
                other => panic!("{other}"),
            }
        };
        let twice = |_| -> MountServices {
            Box::new(|node| register(node, "r").and_then(|_| register(node, "r")).map(drop))
        };
        assert!(
            matches!(refused(twice).await, NoPlace::Taken { of, .. } if of.channel == Register::CHANNEL)
        );
        let alone = |_| -> MountServices {
            let of = mainstay_base::Instance::new(cluster(), "r");
            Box::new(move |node| node.mount::<Watcher>("w", of).map(drop))
        };
        assert!(
            matches!(refused(alone).await, NoPlace::Missing { needs, .. } if needs.channel == Register::CHANNEL)
        );
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    });
}

/// Checks that one who does not read loses its subscription, is told so, and holds up nobody.
#[test]
fn a_subscriber_that_never_reads_harms_nobody() {
    run(async {
        let roster = roster();
        let mount = |_| -> MountServices { Box::new(|node| register(node, "r").map(drop)) };
        let nodes = all(&Setup { roster: &roster, directory: None, mount }).await;
        let register = nodes[0].site.service::<Register>("r");
        let (open, gate) = oneshot::channel();
        let mut slow = listen(&register, Some(gate), 4).await;
        // Full with each event, and told that there is room before the next command is given.
        let mut heard = listen(&register, None, 1).await;
        for op in 1..40 {
            let written = ask(&register, &mut heard, Command::Write { op, value: op }).await;
            assert_eq!(written, Event::Written { op, value: op }, "others are not held up");
        }
        open.send(()).unwrap();
        let (mut got, mut is_end) = (Vec::new(), false);
        while !is_end {
            let (events, end) = next(&mut slow).await;
            got.extend(events);
            is_end = end;
        }
        let expected: Vec<_> = (1..5).map(|op| Event::Written { op, value: op }).collect();
        assert_eq!(got, expected, "what it had room for, in order, and no hole");
        stop(nodes).await;
    });
}

/// Checks that what a service was told to be stable is there after the process has ended, from checkpoint and log.
#[test]
fn services_go_on_after_a_restart() {
    run(async {
        let roster = roster();
        let directory = tempfile::tempdir().unwrap();
        let setup = Setup { roster: &roster, directory: Some(directory.path()), mount: usual };
        let mut stable = 0_usize;
        for round in 1..5_u64 {
            let nodes = all(&setup).await;
            let tally = nodes[2].site.service::<Tally>("t");
            let ask_tally = || async { tally.status().await.unwrap() };
            let status = until("its past", ask_tally, |it| it.numbers.len() >= stable).await;
            assert_eq!(status.numbers, vec![1; stable], "ones only");
            assert_eq!(status.from.is_some(), stable >= 8, "from a checkpoint, once there is one");
            for _ in 0..12 {
                stable = add(&nodes[2], 1..2).await as usize;
            }
            checkpointed(&tally, stable as u64).await;
            let register = nodes[round as usize % 3].site.service::<Register>("r");
            let mut heard = listen(&register, None, 16).await;
            let read = ask(&register, &mut heard, Command::Read { op: 1 }).await;
            assert_eq!(read, Event::Read { op: 1, value: round - 1 });
            let write = Command::Write { op: 2, value: round };
            let written = ask(&register, &mut heard, write).await;
            assert_eq!(written, Event::Written { op: 2, value: round });
            stop(nodes).await;
            ended(&mut heard).await;
        }
    });
}

/// Stands the last node still until the others have gone on without it, and wakes it.
async fn declared_dead(nodes: &[Node; 3]) {
    let wake = nodes[2].stall();
    nodes[0].view_of(2).await;
    drop(wake);
    nodes[0].view_of(3).await;
    nodes[2].view_of(3).await;
    let status = nodes[2].site.status().await.unwrap();
    assert!(status.restarts > 0, "it began anew");
}

/// Checks that services are mounted again after a death, with what is on disk, that subscriptions end, and that nothing of the dead
/// boot reaches the next one.
#[test]
fn services_go_on_after_a_death() {
    run(async {
        let roster = roster();
        let directory = tempfile::tempdir().unwrap();
        let setup = Setup { roster: &roster, directory: Some(directory.path()), mount: usual };
        let nodes = all(&setup).await;
        let tally = nodes[2].site.service::<Tally>("t");
        let register = nodes[2].site.service::<Register>("r");
        let (mut sums, mut heard) =
            (listen(&tally, None, 1_000).await, listen(&register, None, 16).await);
        let mut held_up = Vec::new();
        let mut stable = 0;
        for death in 0..2_u64 {
            stable = add(&nodes[2], 0..20).await;
            assert_eq!(stable, 20 * (death + 1));
            checkpointed(&tally, stable).await;
            let value = death + 1;
            let write = Command::Write { op: value, value };
            assert_eq!(
                ask(&register, &mut heard, write).await,
                Event::Written { op: value, value }
            );
            // It is not done when the boot dies.
            let (done, gate) = std::sync::mpsc::channel();
            tally.send(tally::Command::Job(gate)).await.unwrap();
            held_up.push(done);
            declared_dead(&nodes).await;
            ended(&mut sums).await;
            ended(&mut heard).await;
            (sums, heard) = (listen(&tally, None, 1_000).await, listen(&register, None, 16).await);
            let ask_tally = || async { tally.status().await.unwrap() };
            let status = until("its past", ask_tally, |it| !it.numbers.is_empty()).await;
            let expected: Vec<_> = (0..=death).flat_map(|_| 0..20).collect();
            assert_eq!(status.numbers, expected);
            assert!(status.from.is_some_and(|position| position + EVERY >= stable));
            let read = ask(&register, &mut heard, Command::Read { op: 9 }).await;
            assert_eq!(read, Event::Read { op: 9, value });
        }
        // The jobs of the dead end, and one of the living: only that is told.
        drop(held_up);
        let (_, gate) = std::sync::mpsc::channel();
        tally.send(tally::Command::Job(gate)).await.unwrap();
        let ask_tally = || async { tally.status().await.unwrap() };
        until("the job", ask_tally, |it| it.done.0 > 0).await;
        assert_eq!(add(&nodes[2], 0..20).await, stable + 20);
        assert_eq!(tally.status().await.unwrap().done, (1, 0));
        nodes[2].casts.send(8, 1).await.unwrap();
        stop(nodes).await;
    });
}

/// Checks that without a disk services are mounted again after a death, with nothing.
#[test]
fn services_without_a_disk_begin_anew_after_a_death() {
    run(async {
        let roster = roster();
        let setup = Setup { roster: &roster, directory: None, mount: usual };
        let nodes = all(&setup).await;
        assert_eq!(add(&nodes[2], 0..20).await, 20);
        let tally = nodes[2].site.service::<Tally>("t");
        declared_dead(&nodes).await;
        assert_eq!(tally.status().await, Ok(Status::default()));
        assert_eq!(add(&nodes[2], 0..20).await, 20);
        stop(nodes).await;
    });
}

/// Checks that a node that has no services keeps what others have written in its directory, and goes on from it when it has them
/// again.
#[test]
fn what_is_not_mounted_is_kept() {
    run(async {
        let roster = roster();
        let directory = tempfile::tempdir().unwrap();
        let none = |_| -> MountServices { Box::new(|_| Ok(())) };
        let rounds: [fn(usize) -> MountServices; 3] = [usual, none, usual];
        for (round, mount) in rounds.into_iter().enumerate() {
            let setup = Setup { roster: &roster, directory: Some(directory.path()), mount };
            let nodes = all(&setup).await;
            match round {
                0 => assert_eq!(add(&nodes[2], 0..20).await, 20),
                1 => {
                    let tally = nodes[2].site.service::<Tally>("t");
                    assert_eq!(tally.status().await, Err(ReachError::NotMounted));
                }
                _ => {
                    assert_eq!(add(&nodes[2], 20..21).await, 21);
                    let status = nodes[2].site.service::<Tally>("t").status().await.unwrap();
                    assert_eq!(status.numbers, (0..21).collect::<Vec<_>>());
                }
            }
            stop(nodes).await;
        }
    });
}

/// A site that ends says so, to whoever holds its services' handles.
#[test]
fn a_panic_of_a_service_halts_its_node() {
    run(async {
        let roster = roster();
        let directory = tempfile::tempdir().unwrap();
        let setup = Setup { roster: &roster, directory: Some(directory.path()), mount: usual };
        let node = setup.start(2).await;
        let tally = node.site.service::<Tally>("t");
        let closed = node.site.closed();
        tally.send(tally::Command::Panic).await.unwrap();
        let closed = timeout(LIMIT, closed).await.expect("in time");
        assert!(
            matches!(closed, Closed::Halted { reason } if reason.contains("it is told to panic"))
        );
        assert_eq!(tally.status().await, Err(ReachError::Closed));
    });
}
