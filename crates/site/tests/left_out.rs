//! Sites that lack a group, or have it with other settings.
#![allow(missing_docs, reason = "a test file")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use bytes::Bytes;
use mainstay_base::{Duration, GroupId, Instant, Level, Order};
use mainstay_multicast::{Durability, Status};
use mainstay_sim::{Atlas, Disk, Fault, Moment, Options, Wire, World};
use support::users::{Users, standing};
use support::{Setup, Site, cluster};

const SECOND: Duration = Duration::from_secs(1);

fn group() -> GroupId {
    GroupId::new(cluster(), "g")
}

fn world(nodes: usize, setup: Setup) -> World<Site> {
    let setup = Setup { cast_every: Duration::ZERO, ..setup };
    let mut options = Options::calm(Wire::Channel);
    options.dials = true;
    options.atlas = Atlas { down: nodes, lost: nodes };
    World::with_schedule(1, nodes, setup, options, Vec::new())
}

fn crash(world: &mut World<Site>, node: usize, length: Duration, disk: Disk) {
    assert!(world.inject(Fault::Crash { node, length, disk, moment: Moment::Now }));
}

fn status(world: &World<Site>, node: usize) -> Status {
    world.node(node).unwrap().group("g").status()
}

fn number(world: &World<Site>, node: usize) -> u64 {
    world.node(node).unwrap().stack.core().membership().view().id.number
}

/// A group of three in a cluster of five. One of its nodes comes back without it, then another one fails: a majority of the sites is
/// there, and the group has a single node.
fn part_of_a_roster(durability: Durability, level: Level, disk: Disk) {
    let at = |second| Instant::ZERO + SECOND * second;
    let setup = Setup {
        groups: vec![("g", vec![0, 1, 2])],
        lack: vec![(0, at(1)..at(60))],
        ..Setup::one_group(durability, level)
    };
    let mut world = world(5, setup);
    let mut users = Users::default();
    world.run(SECOND).unwrap();
    crash(&mut world, 0, SECOND / 2, Disk::Empty);
    world.run(SECOND * 2).unwrap();
    assert_eq!(world.node(2).unwrap().stack.core().membership().view().members.len(), 5);
    crash(&mut world, 1, SECOND * 5, disk);
    world.run_until(|world| status(world, 2).blocked, SECOND * 3).unwrap();
    let payload = Bytes::from_static(b"a message");
    world.call(2, |site, now| site.cast(now, group(), Order::Total, level, payload)).unwrap();
    world.run_until(|world| world.is_up(1), SECOND * 10).unwrap();
    users.watch(&mut world);
    let now = status(&world, 2);
    assert_eq!((users.acked.get(&group()), now.majority, now.safe, now.disk), (None, 0, 0, 0));
    let is_acked = |world: &World<Site>| {
        let status = status(world, 2);
        status.majority > 0 && status.safe > 0
    };
    while !is_acked(&world) {
        world.run(Duration::from_micros(100)).unwrap();
        assert!(world.now() < at(20), "{}", standing(&world));
        let is_copy = status(&world, 1).whole && status(&world, 1).held > 0;
        assert!(is_copy || !is_acked(&world), "told before another one has it");
    }
    world.run(SECOND).unwrap();
    users.watch(&mut world);
    assert_eq!(users.acked[&group()], 1);
    assert_eq!(world.violation(), None);
}

/// Checks MC-21 for a group of some of the sites: its quorum is one of its own nodes.
#[test]
fn a_single_node_of_a_group_does_not_go_on() {
    part_of_a_roster(Durability::Memory, Level::Majority, Disk::Kept);
    part_of_a_roster(Durability::Memory, Level::Safe, Disk::Kept);
    part_of_a_roster(Durability::Disk, Level::Disk, Disk::Kept);
    part_of_a_roster(Durability::Disk, Level::Safe, Disk::Empty);
}

/// Of three sites the first has the group with settings of its own, alone at first: it is blocked. The others come with theirs, one by
/// one. An operator's word comes at this time. When the first site is refused.
fn refused(word: Option<Instant>) -> (World<Site>, Option<Instant>) {
    let lack = [1, 2].map(|node| (node, Instant::ZERO..Instant::ZERO + SECOND)).into();
    let setup =
        Setup { lack, others: vec![0], ..Setup::one_group(Durability::Memory, Level::Majority) };
    let mut world = world(3, setup);
    world.run(SECOND).unwrap();
    assert!(status(&world, 0).blocked);
    for node in [1, 2] {
        crash(&mut world, node, SECOND, Disk::Kept);
        if node == 1 {
            world.run(SECOND * 3).unwrap();
        }
    }
    if let Some(word) = word {
        world.run(word.saturating_since(world.now())).unwrap();
        assert!(status(&world, 0).blocked && !status(&world, 0).refused);
        world.call(0, |site, now| site.accept_loss(now, group()));
    }
    let at = world.run_until(|world| status(world, 0).refused, SECOND * 5).ok();
    let at = at.map(|()| world.now());
    (world, at)
}

/// An operator's word that comes while the view is made that refuses the site makes no more views.
#[test]
fn a_word_at_a_site_that_is_refused_makes_no_views() {
    let (_, at) = refused(None);
    let at = at.unwrap();
    let mut late = 0;
    for before in 1..=60 {
        let word = Instant::from_nanos(at.as_nanos() - 100_000 * before);
        let (mut world, at) = refused(Some(word));
        let views = number(&world, 0);
        world.run(SECOND * 2).unwrap();
        let views = number(&world, 0) - views;
        assert!(views <= 2, "{views} views follow a word that came {before} * 100 us before");
        late += u64::from(at.is_some());
    }
    assert!(late > 0, "the word came while the view was made");
}
