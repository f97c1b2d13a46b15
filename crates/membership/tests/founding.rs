//! A cluster is made by all of its nodes together, once: whatever crashes, and whichever disk is lost.
#![allow(missing_docs, reason = "a test file")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use mainstay_base::{Duration, Rng};
use mainstay_membership::founding::WaitsFor;
use mainstay_membership::{Config, Role};
use mainstay_sim::{Search, explore};
use support::{NEVER, Step, World};

fn config() -> Config {
    let config = Config::default().with_timeout(NEVER).unwrap();
    config.with_formation_wait(Duration::ZERO)
}

fn started(config: Config) -> World {
    let mut world = World::founding(3, config);
    (0..3).for_each(|site| world.start(site));
    world
}

/// Whether one of the random schedules, in each of which one disk is lost, ends in two views of one number.
fn is_found(seeds: u64) -> bool {
    (0..seeds).any(|seed| {
        let mut rng = Rng::new(seed);
        let mut world = started(config());
        (world.crashes, world.restarts, world.accusations) = (4, 8, 4);
        let mut lost = false;
        for _ in 0..400 {
            let steps = world.steps();
            if steps.is_empty() || world.violation.is_some() {
                break;
            }
            let step = steps[rng.below(steps.len() as u64) as usize];
            if let Step::Restart(site) = step
                && !lost
                && rng.chance(1, 2)
            {
                world.wipe(site);
                lost = true;
            }
            world.apply(step);
        }
        world.violation.is_some()
    })
}

/// Checks MB-1, MB-15 while a cluster is made: with one lost disk there is never a second view 1.
#[test]
fn a_lost_disk_makes_no_second_cluster() {
    assert!(!is_found(6_000));
}

/// All empty, all heard: a view of all. Two of three wait, and say for whom.
#[test]
fn all_found_and_two_of_three_wait() {
    let mut world = World::founding(3, config());
    (0..2).for_each(|site| world.start(site));
    world.settle();
    let third = world.sites[2].boot.node;
    for site in 0..2 {
        let machine = world.sites[site].machine.as_ref().unwrap();
        assert!(!machine.is_voter() && machine.role() == Role::Outside);
        assert_eq!(machine.founding_waits_for(), [(third, WaitsFor::NotHeard)].into());
    }
    world.start(2);
    world.settle();
    for site in 0..3 {
        assert_eq!(world.members(site).len(), 3);
        assert!(world.sites[site].machine.as_ref().unwrap().founding_waits_for().is_empty());
    }
}

/// Two of three lose their disks after the cluster was made: they wait for one that admits them, and make none. (U1)
#[test]
fn two_lost_disks_found_no_second_cluster() {
    let mut world = started(config());
    world.settle();
    assert_eq!(world.members(0).len(), 3);
    (0..3).for_each(|site| world.crash(site, 0));
    (0..2).for_each(|site| world.wipe(site));
    (0..2).for_each(|site| world.start(site));
    world.settle();
    let role = |world: &World, site: usize| world.sites[site].machine.as_ref().unwrap().role();
    assert!((0..2).all(|site| role(&world, site) == Role::Outside));
    world.start(2);
    world.settle();
    assert!((0..2).all(|site| role(&world, site) == Role::Outside));
    let waits = world.sites[0].machine.as_ref().unwrap().founding_waits_for();
    assert!(waits.is_empty() || waits.values().any(|why| *why == WaitsFor::Past), "{waits:?}");
    assert_eq!(world.violation, None);
}

/// Checks completely: a founder crashes at any step and comes back with its disk, and the cluster is made.
#[test]
fn a_founder_crashes_at_every_step() {
    let mut world = started(config());
    (world.crashes, world.restarts, world.hasty) = (1, 1, false);
    let bound = std::env::var("MAINSTAY_STATES").ok().and_then(|text| text.parse().ok());
    let report = explore(world, Search::Breadth, bound.unwrap_or(40_000));
    println!("{report:?}");
    assert_eq!(report.violation.map(|it| it.to_string()), None);
}

/// One has founded when another one loses its disk: those that the list names make the cluster, and the lost one joins it.
#[test]
fn a_disk_that_is_lost_while_the_cluster_is_made_locks_nobody_out() {
    for (lost, first) in [(0, 1), (2, 0), (1, 2)] {
        let mut world = World::founding(3, config());
        (0..3).for_each(|site| world.start(site));
        let votes = |world: &World, site: usize| {
            world.sites[site].machine.as_ref().is_some_and(|machine| machine.is_voter())
        };
        // All have met; then only the first one hears what the others say.
        for from in 0..3 {
            (0..3).filter(|to| *to != from).for_each(|to| world.deliver(from, to));
        }
        while !votes(&world, first) {
            let steps = world.steps();
            let to_first = |step: &&Step| matches!(step, Step::Deliver { to, .. } if *to == first);
            world.apply(*steps.iter().find(to_first).unwrap());
        }
        world.settle_writes(first);
        assert!((0..3).all(|site| votes(&world, site) == (site == first)));
        world.crash(lost, 0);
        (0..3)
            .filter(|by| *by != lost)
            .for_each(|by| world.apply(Step::Suspect { by, whom: lost }));
        world.wipe(lost);
        world.start(lost);
        world.settle();
        assert!((0..3).all(|site| world.members(site).len() == 3), "{}", world.summary());
        assert_eq!(world.violation, None);
    }
}
