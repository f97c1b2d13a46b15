//! Process groups of actors on whole nodes, on virtual time: kills, power failures, lost disks, cuts and pauses. What a receipt
//! said is held against what the actors have at the end.
//!
//! `MAINSTAY_SEED` is the first seed and `MAINSTAY_SEEDS` how many there are. A run that fails prints its seed and faults.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod left_out;

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use actix::{Actor, Context, Handler};
use bytes::{Bytes, BytesMut};
use mainstay::service::Chunks;
use mainstay::{
    Durability, Events, GroupConfig, GroupEvent, GroupHandle, Level, Node, NotReached, Order,
    StatePart,
};
use mainstay_base::{Duration, Instant, Rng};
use mainstay_kit as kit;
use mainstay_runtime::TimeSource;
use mainstay_sim::Atlas;
use mainstay_sim::live::{Outside, Plan, Run, Start, run, swarm};

const NODES: usize = 3;
/// How long a caster waits for a receipt.
const PATIENCE: Duration = Duration::from_millis(500);
/// Ballast of a heavy state: pieces, of so many bytes.
const BALLAST: (usize, usize) = (50, 64 << 10);
/// What a keeper works on a byte of a state, in nanoseconds: 320 ms on a heavy one. The others wait for 250 ms.
const WORK_OF_BYTE: u64 = 100;

/// What an actor has: numbers in total order, each at most once.
#[derive(Default)]
struct Kept {
    numbers: Vec<u64>,
    has: BTreeSet<u64>,
    wrong: Option<String>,
    /// It was told that something may be lost.
    maybe_lost: bool,
    /// It was told a state.
    has_state: bool,
    /// What has come of a state that is told in parts.
    partial: Option<BytesMut>,
}

struct Keeper {
    kept: Rc<RefCell<Kept>>,
    setup: Setup,
    time: Rc<dyn TimeSource>,
}

impl Actor for Keeper {
    type Context = Context<Self>;
}

impl Kept {
    fn push(&mut self, number: u64) {
        if !self.has.insert(number) {
            self.wrong = Some(format!("{number} was delivered twice"));
        }
        self.numbers.push(number);
    }

    fn take_in(&mut self, state: &[u8]) {
        let (wrong, maybe_lost) = (self.wrong.take(), self.maybe_lost);
        *self = Self { wrong, maybe_lost, has_state: true, ..Self::default() };
        let (count, numbers) = state.split_at(8.min(state.len()));
        let count = count.try_into().map_or(0, u64::from_le_bytes);
        for number in numbers.chunks(8).take(count as usize) {
            self.push(u64::from_le_bytes(number.try_into().unwrap()));
        }
    }

    fn take_part(&mut self, part: &StatePart) {
        if part.is_first {
            self.partial = Some(BytesMut::new());
        }
        match &mut self.partial {
            Some(partial) => partial.extend_from_slice(&part.bytes),
            None => self.wrong = Some("a part of no state".to_owned()),
        }
        if part.is_last {
            let whole = self.partial.take().unwrap_or_default();
            self.take_in(&whole);
        }
    }
}

/// A state that is written while it is read, 64 numbers a piece.
struct Pieces(VecDeque<Bytes>);

impl Pieces {
    /// How many numbers, the numbers, and ballast.
    fn of(numbers: &[u64], ballast: usize) -> Self {
        let piece = |numbers: &[u64]| numbers.iter().flat_map(|it| it.to_le_bytes()).collect();
        let count = Bytes::copy_from_slice(&(numbers.len() as u64).to_le_bytes());
        let numbers = numbers.chunks(64).map(piece);
        let ballast = (0..ballast).map(|_| Bytes::from_static(&[0; BALLAST.1]));
        Self([count].into_iter().chain(numbers).chain(ballast).collect())
    }
}

impl Chunks for Pieces {
    fn next_chunk(&mut self) -> Result<Option<Bytes>, String> {
        Ok(self.0.pop_front())
    }
}

impl Handler<Events<GroupEvent>> for Keeper {
    type Result = ();

    fn handle(&mut self, mut events: Events<GroupEvent>, _: &mut Context<Self>) {
        let mut kept = self.kept.borrow_mut();
        if events.is_end() {
            kept.wrong = Some("the keeper has lost its subscription".to_owned());
        }
        let work = |bytes| self.time.charge(Duration::from_nanos(bytes as u64 * WORK_OF_BYTE));
        for event in events.take() {
            match event {
                GroupEvent::StatePart(part) => {
                    work(part.bytes.len());
                    kept.take_part(&part);
                }
                GroupEvent::Deliver(_) if kept.partial.is_some() => {
                    kept.wrong = Some("a message within a state".to_owned());
                }
                GroupEvent::State(state) => {
                    let state = state.to_bytes();
                    work(state.len());
                    kept.take_in(&state);
                }
                GroupEvent::Deliver(message) => {
                    let bytes: [u8; 8] = message.payload[..].try_into().unwrap();
                    kept.push(u64::from_le_bytes(bytes));
                }
                GroupEvent::StateWanted(request) => {
                    if !kept.has_state || kept.partial.is_some() {
                        kept.wrong = Some("asked for a state before it was told one".to_owned());
                    }
                    let skipped = usize::from(self.setup.lacks_some);
                    request.give_chunks(Pieces::of(&kept.numbers[skipped..], self.setup.ballast));
                }
                GroupEvent::MaybeLost(_) => kept.maybe_lost = true,
                _ => {}
            }
        }
    }
}

/// A node, its group, and what its actor keeps.
#[derive(Clone)]
struct Placed {
    node: Node,
    /// None where the node is started without it.
    group: Option<GroupHandle>,
    kept: Rc<RefCell<Kept>>,
}

type Nodes = Outside<Placed>;

#[derive(Clone, Debug)]
struct Setup {
    durability: Durability,
    /// Pieces of ballast in a state.
    ballast: usize,
    /// All take a state in as one.
    in_one: bool,
    /// States lack a number: the checks have to notice.
    lacks_some: bool,
    /// This node lacks the group in its second life.
    lacks: Option<usize>,
}

impl Setup {
    fn new(durability: Durability) -> Self {
        Self { durability, ballast: 0, in_one: false, lacks_some: false, lacks: None }
    }

    fn heavy(durability: Durability) -> Self {
        Self { ballast: BALLAST.0, ..Self::new(durability) }
    }
}

#[derive(Default)]
struct Book {
    casts: u64,
    acknowledged: BTreeSet<u64>,
    unknown: u64,
}

fn starter(setup: &Setup) -> impl FnMut(Start) -> Result<Placed, String> + use<> {
    let setup = setup.clone();
    let mut lives = [0; NODES];
    move |start| {
        lives[start.index] += 1;
        let has = setup.lacks != Some(start.index) || lives[start.index] != 2;
        let settings = match setup.durability {
            Durability::Disk => GroupConfig::disk().checkpoint_bytes(4 << 10),
            Durability::Memory => GroupConfig::memory(),
        };
        let in_parts = !setup.in_one && (start.index > 0 || setup.ballast > 0);
        let settings = if in_parts { settings.state_in_parts() } else { settings };
        let (setup, time) = (setup.clone(), Rc::clone(&start.ports.time));
        let placed = kit::start(
            start,
            |config| config,
            |builder| {
                let kept = Rc::<RefCell<Kept>>::default();
                if !has {
                    return Ok((None, kept));
                }
                let group = builder.group("g", settings)?;
                let keeper = Keeper { kept: Rc::clone(&kept), setup, time }.start();
                let subscribed = group.subscribe(keeper.recipient());
                subscribed.expect("the node has not ended");
                Ok((Some(group), kept))
            },
        );
        placed.map(|(node, (group, kept))| Placed { node, group, kept })
    }
}

/// Casts numbers here and there, and writes down of which it was told that they are safe from the faults to come.
async fn work(nodes: Nodes, book: Rc<RefCell<Book>>, mut rng: Rng, level: Level, until: Instant) {
    while nodes.now() < until {
        nodes.sleep(Duration::from_micros(rng.below(15_000))).await;
        let index = rng.below(NODES as u64) as usize;
        let Some(group) = nodes.node(index).and_then(|placed| placed.group) else { continue };
        let number = {
            let mut book = book.borrow_mut();
            book.casts += 1;
            book.casts
        };
        nodes.note(index, number);
        let payload = number.to_le_bytes().to_vec();
        let Ok(receipt) = group.try_cast_for(payload, Order::Total, level) else { continue };
        tokio::select! {
            reached = receipt.reached(level) => {
                let mut book = book.borrow_mut();
                match reached {
                    Ok(()) => drop(book.acknowledged.insert(number)),
                    Err(NotReached::Unknown) => book.unknown += 1,
                    Err(_) => {}
                }
            }
            () = nodes.sleep(PATIENCE) => {}
        }
    }
}

/// Until all are in one view and have the same, and still do when what their keepers are told at a start would have come.
async fn all_are_one(nodes: Nodes) -> Vec<u64> {
    let mut before = None;
    loop {
        let now = common(&nodes).await;
        match now {
            Some(same) if before.as_ref() == Some(&same) => return same,
            now => before = now,
        }
        nodes.sleep(Duration::from_secs(1)).await;
    }
}

/// What all have, if that is the same, in one view.
async fn common(nodes: &Nodes) -> Option<Vec<u64>> {
    let mut all = Vec::new();
    for index in 0..NODES {
        let placed = nodes.node(index)?;
        let stack = placed.node.status().await?.stack?;
        let whole = stack.groups.values().all(|(it, _)| it.whole && !it.blocked);
        let kept = placed.kept.borrow();
        let is_whole = whole && kept.has_state && kept.partial.is_none();
        if stack.members.len() < NODES || !is_whole || !*placed.node.watch_ready().borrow() {
            return None;
        }
        let at = stack.groups.values().map(|(it, _)| it.delivered).max();
        all.push((stack.view, at, kept.numbers.clone()));
    }
    let is_same = all.windows(2).all(|pair| pair[0] == pair[1]);
    is_same.then(|| all.swap_remove(0).2)
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Report {
    hash: u128,
    casts: u64,
    acknowledged: usize,
    unknown: u64,
    crashes: u64,
    kept: usize,
    maybe_lost: bool,
}

/// One run: what was acknowledged is there in the end, once, at all of them.
fn scenario(run: &Run<'_>, setup: &Setup) -> Result<Report, String> {
    let book = Rc::<RefCell<Book>>::default();
    let mut room = run.room(starter(setup));
    let level = match setup.durability {
        Durability::Disk => Level::Disk,
        Durability::Memory => Level::Majority,
    };
    for number in 0..4 {
        let book = Rc::clone(&book);
        run.worker(&room, number, |nodes, rng, until| work(nodes, book, rng, level, until));
    }
    let witness = Rc::<RefCell<Option<Result<(), String>>>>::default();
    if let Some(out) = setup.lacks {
        let into = Rc::clone(&witness);
        run.worker(&room, 4, move |nodes, _, _| async move {
            let seen = left_out::witness(&nodes, out).await;
            *into.borrow_mut() = Some(seen);
        });
    }
    run.play(&mut room)?;
    if setup.lacks.is_some() {
        witness.take().ok_or("the witness has not ended")??;
    }
    let nodes = room.outside();
    let same = run.finish(&mut room, all_are_one(nodes.clone()));
    let wrong: Vec<String> =
        (0..NODES).filter_map(|index| nodes.node(index)?.kept.borrow().wrong.clone()).collect();
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    let kept = same.map_err(|stuck| format!("the actors do not come to the same: {stuck}"))?;
    let has: BTreeSet<u64> = kept.iter().copied().collect();
    let book = book.take();
    let says_so = |index| nodes.node(index).is_some_and(|it| it.kept.borrow().maybe_lost);
    let maybe_lost = (0..NODES).any(says_so);
    // In memory a heavy state may be at one node alone while the others fetch it.
    let is_excused = maybe_lost && setup.durability == Durability::Memory && setup.ballast > 0;
    if !is_excused && let Some(lost) = book.acknowledged.difference(&has).next() {
        return Err(format!("{lost} was acknowledged and is lost"));
    }
    Ok(Report {
        hash: room.hash(),
        casts: book.casts,
        acknowledged: book.acknowledged.len(),
        unknown: book.unknown,
        crashes: room.stats().crashes,
        kept: kept.len(),
        maybe_lost,
    })
}

fn plan(durability: Durability) -> Plan {
    let disks = durability == Durability::Disk;
    let mut plan = Plan::new(NODES, Atlas { down: if disks { NODES } else { 1 }, lost: 1 });
    plan.disks = disks;
    plan
}

fn reports(setup: &Setup, count: u64) -> Vec<Report> {
    let reports = swarm(0..count, &plan(setup.durability), |run| scenario(run, setup));
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!(
        "{} runs: {} casts, {} acknowledged, {} unknown, {} crashes, {} kept",
        reports.len(),
        sum(|it| it.casts),
        sum(|it| it.acknowledged as u64),
        sum(|it| it.unknown),
        sum(|it| it.crashes),
        sum(|it| it.kept as u64),
    );
    reports
}

/// Checks MC-10 and PD-31 for groups of actors: what a receipt said is at all of them in the end, once, in one order, whatever
/// failed, and the states that the library checkpointed and transferred are the right ones. All nodes may fail at once.
#[test]
fn groups_on_disk() {
    let reports = reports(&Setup::new(Durability::Disk), 100);
    assert!(reports.iter().any(|report| report.unknown > 0));
}

/// The same in memory, where one may fail at a time.
#[test]
fn groups_in_memory() {
    reports(&Setup::new(Durability::Memory), 60);
}

/// Checks that states which take a keeper longer than the others are patient cost no node its place, where they come in parts.
#[test]
fn heavy_groups() {
    reports(&Setup::heavy(Durability::Disk), 50);
    let reports = reports(&Setup::heavy(Durability::Memory), 50);
    assert!(reports.iter().filter(|report| report.maybe_lost).count() < reports.len() / 4);
}

/// Checks that it is noticed when such a state is taken in as one: a node that joins is declared dead each time.
#[test]
fn a_heavy_state_in_one_is_noticed() {
    let setup = Setup { in_one: true, ..Setup::heavy(Durability::Memory) };
    let plan = plan(setup.durability);
    assert!((0..10).any(|seed| run(seed, &plan, |run| scenario(run, &setup)).is_err()));
}

/// Checks that a state that lacks something is noticed.
#[test]
fn a_state_that_lacks_something_is_noticed() {
    let setup = Setup { lacks_some: true, ..Setup::new(Durability::Memory) };
    let plan = plan(setup.durability);
    assert!((0..40).any(|seed| run(seed, &plan, |run| scenario(run, &setup)).is_err()));
}
