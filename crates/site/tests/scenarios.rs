//! Failures that the specification names, one by one, on whole sites.
#![allow(missing_docs, reason = "a test file")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use bytes::Bytes;
use mainstay_base::{Duration, GroupId, Level, Order};
use mainstay_membership::{Fault as Broken, Role};
use mainstay_multicast::Durability;
use mainstay_sim::{Atlas, Disk, Fault, Moment, Options, Wire, World};
use support::users::{Users, all_are_one, standing};
use support::{Setup, Site, cluster};

const SECOND: Duration = Duration::from_secs(1);

fn group() -> GroupId {
    GroupId::new(cluster(), "g")
}

/// Three sites in one view, nothing cast yet.
fn formed(durability: Durability, level: Level) -> World<Site> {
    with(1, Setup::one_group(durability, level))
}

fn formed_of(seed: u64, durability: Durability, membership_fault: Option<Broken>) -> World<Site> {
    with(seed, Setup { membership_fault, ..Setup::one_group(durability, Level::Disk) })
}

fn with(seed: u64, setup: Setup) -> World<Site> {
    let setup = Setup { cast_every: Duration::ZERO, ..setup };
    let mut options = Options::calm(Wire::Channel);
    options.dials = true;
    options.atlas = Atlas { down: 3, lost: 1 };
    let mut world = World::with_schedule(seed, 3, setup, options, Vec::new());
    world.run_until(|world| all_are_one(world, 3), SECOND).unwrap();
    world
}

fn cast(world: &mut World<Site>, node: usize, level: Level) {
    let payload = Bytes::from_static(b"a command");
    world.call(node, |site, now| site.cast(now, group(), Order::Total, level, payload)).unwrap();
}

fn crash(world: &mut World<Site>, node: usize, length: Duration, disk: Disk) {
    assert!(world.inject(Fault::Crash { node, length, disk, moment: Moment::Now }));
}

fn members(world: &World<Site>) -> usize {
    let is_member = |node: &usize| {
        world.node(*node).is_some_and(|site| site.stack.core().membership().role() == Role::Member)
    };
    (0..3).filter(is_member).count()
}

fn number(world: &World<Site>, node: usize) -> u64 {
    world.node(node).map_or(0, |site| site.stack.core().membership().view().id.number)
}

fn sequencer(world: &World<Site>) -> usize {
    let sequencer = world.node(0).unwrap().group("g").status().sequencer.unwrap();
    (0..3).find(|node| world.boot(*node).node == sequencer.node).unwrap()
}

/// Checks MB-37 and view-synchrony §4: a write on {A, B}; B loses its disk, A is down: B and C must refuse to start.
#[test]
fn a_lost_disk_and_a_stale_one_do_not_make_a_cluster() {
    let mut world = formed(Durability::Disk, Level::Disk);
    let mut users = Users::default();
    crash(&mut world, 2, SECOND * 6, Disk::Kept);
    world.run(SECOND).unwrap();
    assert_eq!(members(&world), 2);
    cast(&mut world, 0, Level::Disk);
    world.run(SECOND).unwrap();
    users.watch(&mut world);
    assert_eq!(users.acked[&group()], 1);
    crash(&mut world, 0, SECOND * 13, Disk::Kept);
    crash(&mut world, 1, Duration::from_millis(100), Disk::Empty);
    for _ in 0..12 {
        world.run(SECOND).unwrap();
        assert!(world.node(0).is_none());
        assert_eq!(members(&world), 0, "{}", standing(&world));
    }
    assert!(world.node(1).is_some() && world.node(2).is_some());
    world.run_until(|world| all_are_one(world, 3), SECOND * 5).unwrap();
    for node in 0..3 {
        assert_eq!(world.node(node).unwrap().state("g").position, 1);
    }
}

/// Checks view-synchrony §6: what the sequencer logged alone, cut off from the others, is cut off and not replayed.
#[test]
fn a_diverged_tail_is_cut_off() {
    let mut world = formed(Durability::Disk, Level::Disk);
    let mut users = Users::default();
    cast(&mut world, 0, Level::Disk);
    world.run(SECOND).unwrap();
    let alone = sequencer(&world);
    let other = (alone + 1) % 3;
    assert!(world.inject(Fault::Partition { side: vec![alone], length: SECOND * 5 }));
    // It orders and logs its own messages before it notices that nobody hears them.
    (0..5).for_each(|_| cast(&mut world, alone, Level::Disk));
    world.run(Duration::from_millis(100)).unwrap();
    let logged = world.node(alone).unwrap().group("g").status();
    assert_eq!((logged.forced, logged.delivered), (6, 1));
    crash(&mut world, alone, SECOND * 3, Disk::Kept);
    world.run(SECOND).unwrap();
    (0..3).for_each(|_| cast(&mut world, other, Level::Disk));
    world.run_until(|world| all_are_one(world, 3), SECOND * 12).unwrap();
    users.watch(&mut world);
    let states: Vec<_> = (0..3).map(|node| world.node(node).unwrap().state("g")).collect();
    assert_eq!(states[0].position, 4);
    assert!(states.iter().all(|state| *state == states[0]));
    assert_eq!(world.violation(), None);
}

/// Checks view-synchrony §5: a member that was stopped and goes on answers none of 100 reads from what it knew.
#[test]
fn a_stopped_and_continued_member_answers_no_stale_read() {
    for length in [100, 600, 2_000].map(Duration::from_millis) {
        let mut world = formed(Durability::Disk, Level::Disk);
        let mut users = Users::default();
        let stopped = sequencer(&world);
        let other = (stopped + 1) % 3;
        cast(&mut world, other, Level::Disk);
        world.run(SECOND).unwrap();
        assert!(world.inject(Fault::Pause { node: stopped, length }));
        cast(&mut world, other, Level::Disk);
        world.run_until(|world| world.is_up(stopped), SECOND * 5).unwrap();
        users.watch(&mut world);
        let before = users.acked[&group()];
        for _ in 0..100 {
            let _ = world.call(stopped, |site, now| site.read(now, group()));
        }
        world.run_until(|world| all_are_one(world, 3), SECOND * 10).unwrap();
        world.run(SECOND).unwrap();
        users.watch(&mut world);
        assert_eq!(
            world.violation(),
            None,
            "stopped for {length:?}, acknowledged before: {before}"
        );
        // Longer than the timeout, and the others went on without it.
        assert_eq!(before, if length < Duration::from_millis(200) { 1 } else { 2 });
        // It lives again and reads.
        world.call(stopped, |site, now| site.read(now, group())).unwrap();
        let answered = users.answered;
        world.run(SECOND).unwrap();
        users.watch(&mut world);
        assert_eq!(users.answered, answered + 1);
        assert_eq!(world.violation(), None);
    }
}

/// Checks MB-82: everything fails and comes back three times; nothing that was acknowledged is lost.
#[test]
fn all_restart_three_times() {
    let mut world = formed(Durability::Disk, Level::Disk);
    for round in 1..=3u64 {
        (0..3).for_each(|node| cast(&mut world, node, Level::Disk));
        world.run(SECOND).unwrap();
        for (node, length) in [(0, 300), (1, 100), (2, 200)] {
            crash(&mut world, node, Duration::from_millis(length), Disk::Kept);
        }
        world.run_until(|world| all_are_one(world, 3), SECOND * 5).unwrap();
        for node in 0..3 {
            assert_eq!(world.node(node).unwrap().state("g").position, 3 * round);
        }
    }
}

/// Checks MB-4 and MB-21: nobody who lives and is reached is removed, whether there is work or not.
#[test]
fn nobody_is_removed_without_a_reason() {
    let mut world = formed(Durability::Memory, Level::Majority);
    let view =
        |world: &World<Site>, node| world.node(node).unwrap().stack.core().membership().view().id;
    let first = view(&world, 0);
    for second in 0..120 {
        if second % 2 == 0 {
            (0..3).for_each(|node| cast(&mut world, node, Level::Majority));
        }
        world.run(SECOND).unwrap();
    }
    assert!(
        (0..3).all(|node| view(&world, node) == first
            && world.node(node).unwrap().state("g").position == 180)
    );
}

/// How many views follow while two of three members do not reach each other for nine seconds.
fn views_of_a_quarrel(one: usize, other: usize, fault: Option<Broken>) -> u64 {
    let mut world = formed_of(1, Durability::Disk, fault);
    let third = 3 - one - other;
    let first = number(&world, third);
    assert!(world.inject(Fault::Cut { one, other, length: SECOND * 10 }));
    world.run(SECOND * 9).unwrap();
    let views = number(&world, third) - first;
    cast(&mut world, third, Level::Disk);
    world.run_until(|world| all_are_one(world, 3), SECOND * 5).unwrap();
    world.run(SECOND).unwrap();
    assert!((0..3).all(|node| world.node(node).unwrap().state("g").position == 1));
    assert_eq!(world.violation(), None);
    views
}

/// Checks spec 03 §3.10, connectivity that is not transitive: of two members that do not reach each other one is removed,
/// once, and comes back when they do; until then the others are left in peace.
#[test]
fn of_two_that_do_not_reach_each_other_one_goes_once() {
    let pairs = [(0, 1), (0, 2), (1, 2)];
    let views = |fault| pairs.map(|(one, other)| views_of_a_quarrel(one, other, fault));
    assert_eq!(views(None), [1; 3]);
    // Where the manager is one of the two it does not reach the other, and asks nobody.
    assert!(views(Some(Broken::AdmitsUnheard)).into_iter().any(|views| views > 10));
}

/// Checks MB-21: when nobody has reached anybody for some seconds, one is removed, at most, comes back, and that is all.
#[test]
fn who_meets_again_one_by_one_does_not_quarrel() {
    for seed in 0..100 {
        let mut world = formed_of(seed, Durability::Disk, None);
        let first = number(&world, 0);
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let length = Duration::from_millis(3_000 + seed * 37 * (one + other) as u64 % 400);
            assert!(world.inject(Fault::Cut { one, other, length }));
        }
        world.run(SECOND * 3).unwrap();
        world.run_until(|world| all_are_one(world, 3), SECOND * 5).unwrap();
        world.run(SECOND * 2).unwrap();
        assert_eq!(world.violation(), None);
        let views = number(&world, 0) - first;
        assert!(views <= 2, "seed {seed}: {views}");
    }
}

/// Checks spec 03 §3.10, an asymmetric link: one hears the other and is not heard. One of them is removed, once, and comes
/// back when both are heard.
#[test]
fn who_is_not_heard_by_one_goes_once() {
    for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
        let mut world = formed_of(1, Durability::Disk, None);
        let third = 3 - from - to;
        let first = number(&world, third);
        assert!(world.inject(Fault::OneWayCut { from, to, length: SECOND * 20 }));
        world.run(SECOND * 19).unwrap();
        assert_eq!(number(&world, third), first + 1, "from {from} to {to}");
        cast(&mut world, third, Level::Disk);
        world.run_until(|world| all_are_one(world, 3), SECOND * 8).unwrap();
        assert!((0..3).all(|node| world.node(node).unwrap().state("g").position == 1));
        assert_eq!(world.violation(), None);
    }
}

/// Checks spec 03 §3.10, a flapping link: no interruption costs more than one removal and one return, and in the end all
/// are one.
#[test]
fn a_link_that_comes_and_goes_costs_two_views_a_time() {
    for (down, up) in [(100, 100), (200, 100), (300, 300), (300, 1_000), (500, 50), (1_000, 1_000)]
    {
        let mut world = formed_of(1, Durability::Disk, None);
        let first = number(&world, 2);
        for _ in 0..20 {
            let length = Duration::from_millis(down);
            assert!(world.inject(Fault::Cut { one: 0, other: 1, length }));
            world.run(Duration::from_millis(down + up)).unwrap();
        }
        assert!(number(&world, 2) - first <= 2 * 20, "{down} ms down, {up} ms up");
        world.run_until(|world| all_are_one(world, 3), SECOND * 8).unwrap();
        assert_eq!(world.violation(), None);
    }
}

/// Five messages are acknowledged at disk, all sites are killed, and come back; answers what the group has then.
fn position_after_all_were_killed(unread_past: bool) -> u64 {
    let setup = Setup { unread_past, ..Setup::one_group(Durability::Disk, Level::Disk) };
    let (mut world, mut users) = (with(1, setup), Users::default());
    (0..5).for_each(|_| cast(&mut world, 0, Level::Disk));
    world.run(SECOND).unwrap();
    users.watch(&mut world);
    assert_eq!(users.acked[&group()], 5);
    for node in 0..3 {
        crash(&mut world, node, Duration::from_millis(100 + 50 * node as u64), Disk::Kept);
    }
    world.run(SECOND * 5).unwrap();
    world.node(0).map_or(0, |site| site.state("g").position)
}

/// Checks MC-10 after a total failure, and that sites are found which take part in views before they have read the past of
/// their groups: a majority says that it has none, all are present, and the group goes on without what was acknowledged.
#[test]
fn no_site_answers_for_a_past_that_it_has_not_read() {
    assert_eq!(position_after_all_were_killed(false), 5);
    assert_eq!(position_after_all_were_killed(true), 0);
}

/// The first of three loses the other two at once, and one of them comes back without its memory: the group is blocked. The operator's
/// word comes so long after that. Whether the group goes on.
fn goes_on_after_a_word(seed: u64, after: Duration) -> bool {
    let mut world = with(seed, Setup::one_group(Durability::Memory, Level::Majority));
    cast(&mut world, 0, Level::Majority);
    world.run(SECOND).unwrap();
    crash(&mut world, 1, Duration::from_micros(500 + 100 * (seed % 10)), Disk::Kept);
    crash(&mut world, 2, SECOND * 60, Disk::Kept);
    let is_blocked = |world: &World<Site>| world.node(0).unwrap().group("g").status().blocked;
    world.run_until(is_blocked, SECOND * 20).unwrap();
    world.run(after).unwrap();
    world.call(0, |site, now| site.accept_loss(now, group()));
    world.run_until(|world| !is_blocked(world), SECOND * 5).is_ok()
}

/// Checks MC-21: an operator's word counts whenever it comes while the group is blocked, also when another view is being made from states that
/// were gathered before.
#[test]
fn a_word_that_comes_while_a_view_is_made_counts() {
    for seed in 0..60 {
        let after = Duration::from_micros(20 * (seed % 30));
        assert!(goes_on_after_a_word(seed, after), "seed {seed}: the word {after:?} later is lost");
    }
}
