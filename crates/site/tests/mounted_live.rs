//! Services mounted on sites with their actors, on virtual time: kills, power failures, pauses that end in a death, cuts.
//!
//! `MAINSTAY_SEED` is the first seed and `MAINSTAY_SEEDS` how many there are.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, dead_code, reason = "shared by tests")]
#[path = "mounted/tally.rs"]
mod tally;
#[allow(unreachable_pub, dead_code, reason = "shared by tests")]
#[path = "../../sim/tests/support/toy.rs"]
mod toy;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::ready;
use std::rc::Rc;

use actix::{Actor, Context, Handler};
use mainstay_base::service::Service;
use mainstay_base::{ClusterId, Duration, GroupId, Instant, NodeId, Rng};
use mainstay_multicast as multicast;
use mainstay_runtime::Events;
use mainstay_service::{MountError, Mounting, Placement, ServiceHandle};
use mainstay_sim::live::{Outside, Plan, Room, Run, Start, run, swarm};
use mainstay_sim::{Atlas, Options, Wire};
use mainstay_site::{Founding, SiteHandle, SiteParts, start};
use tally::Tally;
use tokio::sync::mpsc;
use toy::{Config, Register};

const NODES: usize = 3;
/// Whoever has no answer by then asks no more.
const PATIENCE: Duration = Duration::from_millis(500);

/// What clients were told, and what became of the nodes.
#[derive(Default)]
struct Book {
    operations: u64,
    /// The highest value of the register that anybody was told.
    acknowledged: u64,
    reads: u64,
    /// The numbers that are stable, of each node.
    stable: [BTreeSet<u64>; NODES],
    wrong: Vec<String>,
}

type Shared = Rc<RefCell<Book>>;

fn mount(node: &mut Mounting<'_>) -> Result<(), MountError> {
    let config = Config { nodes: node.roster.clone(), fault: None, work: Duration::ZERO };
    node.mount::<Register>("r", config)?;
    node.mount::<Tally>("t", ())?;
    Ok(())
}

/// The same in actors of their own, on the node's thread: a room has no other.
fn mount_beside(node: &mut Mounting<'_>) -> Result<(), MountError> {
    let config = Config { nodes: node.roster.clone(), fault: None, work: Duration::ZERO };
    node.beside::<Register>("r", Placement::Local, config)?;
    node.beside::<Tally>("t", Placement::Thread, ())?;
    Ok(())
}

type Mount = fn(&mut Mounting<'_>) -> Result<(), MountError>;

fn starter(mount: Mount) -> impl FnMut(Start) -> Result<SiteHandle, String> {
    let cluster = ClusterId::from_entropy(11);
    move |Start { name, nodes: roster, first, ports, restored, .. }| {
        let nodes = roster.keys().map(|name| NodeId::new(cluster, name)).collect();
        let group = multicast::Config::new(GroupId::new(cluster, "g"), nodes).stateful(false);
        let (transport, time, entropy) = (ports.transport, ports.time, ports.entropy);
        let mut parts = SiteParts::new(cluster, name, roster, transport, time, entropy);
        parts.groups = vec![group.build().unwrap()];
        parts.disk = ports.disk;
        if first {
            parts.founding = Founding::WithoutWaiting;
        }
        parts.services = Some(Box::new(mount));
        let site = start(parts, []).map_err(|error| format!("{error}: {error:?}"))?;
        restored.follow(ready(Ok::<(), ()>(())), site.closed());
        Ok(site)
    }
}

/// Passes on what it is told, until the end.
struct Listener<E>(mpsc::UnboundedSender<Option<E>>);

impl<E: Unpin + 'static> Actor for Listener<E> {
    type Context = Context<Self>;
}

impl<E: Unpin + Send + 'static> Handler<Events<E>> for Listener<E> {
    type Result = ();

    fn handle(&mut self, mut events: Events<E>, _: &mut Context<Self>) {
        let end = events.is_end().then_some(None);
        for event in events.take().into_iter().map(Some).chain(end) {
            let _ = self.0.send(event);
        }
    }
}

type Nodes = Outside<SiteHandle>;

/// Gives a command and waits for what it is answered by.
async fn ask<S: Service<Event: Unpin>>(
    nodes: &Nodes,
    service: &ServiceHandle<S>,
    command: S::Command,
    is_answer: impl Fn(&S::Event) -> bool,
) -> Option<S::Event> {
    let (to, mut heard) = mpsc::unbounded_channel();
    let listener = Listener(to).start().recipient();
    let asking = async {
        service.subscribe(listener, 1_000).await.ok()?;
        service.send(command).await.ok()?;
        loop {
            // It ends with the boot.
            let event = heard.recv().await??;
            if is_answer(&event) {
                return Some(event);
            }
        }
    };
    tokio::select! {
        answer = asking => answer,
        () = nodes.sleep(PATIENCE) => None,
    }
}

/// What one client does until then.
async fn work(number: usize, nodes: Nodes, book: Shared, mut rng: Rng, until: Instant) {
    while nodes.now() < until {
        let index = rng.below(NODES as u64) as usize;
        nodes.sleep(Duration::from_micros(rng.below(20_000))).await;
        let Some(site) = nodes.node(index) else { continue };
        let (op, floor) = {
            let mut book = book.borrow_mut();
            book.operations += 1;
            (book.operations, book.acknowledged)
        };
        nodes.note(number, op);
        match rng.below(3) {
            0 => {
                let tally = site.service::<Tally>("t");
                drop(site);
                let is_it = |event: &tally::Stable| event.number == op;
                let stable = ask(&nodes, &tally, tally::Command::Add(op), is_it).await;
                book.borrow_mut().stable[index].extend(stable.map(|stable| stable.number));
            }
            kind => {
                let register = site.service::<Register>("r");
                drop(site);
                let command = match kind {
                    1 => toy::Command::Write { op, value: op },
                    _ => toy::Command::Read { op },
                };
                let answer = ask(&nodes, &register, command, |event| of(event).0 == op).await;
                let Some((_, value)) = answer.as_ref().map(of) else { continue };
                let mut book = book.borrow_mut();
                book.reads += u64::from(kind == 2);
                if kind == 2 && value < floor {
                    book.wrong.push(format!("a read answers {value}, {floor} was acknowledged"));
                }
                book.acknowledged = book.acknowledged.max(value);
            }
        }
    }
}

fn of(event: &toy::Event) -> (u64, u64) {
    match *event {
        toy::Event::Read { op, value } | toy::Event::Written { op, value } => (op, value),
    }
}

/// Until all are in one view and each has all that was stable there; how often boots were declared dead.
async fn all_is_there(nodes: Nodes, book: Shared) -> u64 {
    loop {
        let mut whole = 0;
        let mut restarts = 0;
        for index in 0..NODES {
            let Some(site) = nodes.node(index) else { continue };
            let Some(status) = site.status().await else { continue };
            restarts += status.restarts;
            let is_member = status.stack.is_some_and(|stack| stack.members.len() == NODES);
            let Ok(tally) = site.service::<Tally>("t").status().await else { continue };
            let has: BTreeSet<u64> = tally.numbers.into_iter().collect();
            let stable = book.borrow().stable[index].clone();
            whole += usize::from(is_member && has.is_superset(&stable));
        }
        if whole == NODES {
            return restarts;
        }
        nodes.sleep(Duration::from_millis(50)).await;
    }
}

/// What came of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Report {
    hash: u128,
    operations: u64,
    acknowledged: u64,
    reads: u64,
    stable: usize,
    crashes: u64,
    restarts: u64,
}

fn scenario(run: &Run<'_>, lies: bool, mount: Mount) -> Result<Report, String> {
    let book = Shared::default();
    let mut room = run.room(starter(mount));
    if lies {
        room.lie();
    }
    for number in 0..4 {
        let book = Rc::clone(&book);
        run.worker(&room, number, move |nodes, rng, until| work(number, nodes, book, rng, until));
    }
    run.play(&mut room)?;
    let there = all_is_there(room.outside(), Rc::clone(&book));
    let restarts = run.finish(&mut room, there);
    let (hash, crashes) = (room.hash(), room.stats().crashes);
    drop(room);
    let book = book.take();
    if !book.wrong.is_empty() {
        return Err(book.wrong.join("\n"));
    }
    let restarts = restarts.map_err(|stuck| format!("what was stable is not there: {stuck}"))?;
    let stable = book.stable.iter().map(BTreeSet::len).sum();
    let Book { operations, acknowledged, reads, .. } = book;
    Ok(Report { hash, operations, acknowledged, reads, stable, crashes, restarts })
}

fn plan() -> Plan {
    let mut plan = Plan::new(NODES, Atlas { down: NODES, lost: 0 });
    (plan.work, plan.twice_every) = (Duration::from_secs(4), 5);
    plan
}

/// Checks that what mounted services were told to be stable outlives crashes and deaths of their boots, that a register on a
/// majority of disks never answers less than what was acknowledged, and that equal seeds give equal runs.
#[test]
fn mounted_services_keep_what_they_said() {
    keep_what_they_said(mount);
}

/// The same of services beside their nodes: what an actor of the dead boot still does is not for the next one.
#[test]
fn services_beside_their_nodes_keep_what_they_said() {
    keep_what_they_said(mount_beside);
}

fn keep_what_they_said(mount: Mount) {
    let reports = swarm(0..30, &plan(), |run| scenario(run, false, mount));
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let (crashes, restarts) = (sum(|it| it.crashes), sum(|it| it.restarts));
    let (stable, reads) = (sum(|it| it.stable as u64), sum(|it| it.reads));
    println!("{crashes} crashes, {restarts} deaths, {stable} numbers stable, {reads} reads");
    assert!(crashes > 0 && restarts > 0 && stable > 0 && reads > 0, "something happened");
}

/// Checks that the check would notice: disks that do not force what they say they have lose something.
#[test]
fn disks_that_lie_are_noticed() {
    for mount in [mount as Mount, mount_beside] {
        let fails = |seed| run(seed, &plan(), |run| scenario(run, true, mount)).is_err();
        assert!((0..20).any(fails));
    }
}

/// The turns of all nodes in ten seconds in which nothing happens, and the events in the room.
fn idle(mount: Mount) -> (u64, u64) {
    let options = Options::calm(Wire::Channel);
    let mut room = Room::new(1, NODES, options, Vec::new(), starter(mount));
    let nodes = room.outside();
    let turns = || (0..NODES).filter_map(|index| nodes.node(index)).map(|site| site.turns()).sum();
    room.run(Duration::from_secs(2)).unwrap();
    let (before, steps): (u64, _) = (turns(), room.steps());
    room.run(Duration::from_secs(10)).unwrap();
    (turns() - before, room.steps() - steps)
}

/// Checks that services that have nothing to do cost no turn and no frame.
#[test]
fn idle_services_cost_nothing() {
    let ten = |node: &mut Mounting<'_>| {
        (0..10).try_for_each(|number| node.mount::<Tally>(&number.to_string(), ()).map(drop))
    };
    let none = idle(|_| Ok(()));
    assert!(none.0 > 0 && none.1 > 0);
    assert_eq!(idle(ten), none);
    let beside = |node: &mut Mounting<'_>| {
        let mut beside =
            |number: u8| node.beside::<Tally>(&number.to_string(), Placement::Local, ()).map(drop);
        (0..10).try_for_each(&mut beside)
    };
    assert_eq!(idle(beside), none);
}
