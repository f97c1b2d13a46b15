//! Deliberately broken machines: each is found by the random schedules.
#![allow(missing_docs, reason = "a test file")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use mainstay_base::{Duration, Rng};
use mainstay_membership::{Config, Durable, Fault, Role};
use support::{NEVER, Step, World};

/// In exploration silence is a step, not a time.
fn broken(fault: Option<Fault>) -> Config {
    let config = Config::default().with_timeout(NEVER).unwrap();
    let config = config.with_formation_wait(Duration::ZERO);
    match fault {
        Some(fault) => config.with_fault(fault),
        None => config,
    }
}

/// Whether one of `seeds` random schedules, with crashes and lost disks, ends in a violation.
fn is_found(fault: Option<Fault>, seeds: u64) -> bool {
    (0..seeds).any(|seed| {
        let config = broken(fault);
        let mut rng = Rng::new(seed);
        let mut world = World::new(3, config);
        (0..3).for_each(|site| world.start(site));
        (world.crashes, world.restarts, world.accusations) = (5, 12, 4);
        let mut lost = 0;
        for _ in 0..500 {
            let steps = world.steps();
            if steps.is_empty() || world.violation.is_some() {
                break;
            }
            let step = steps[rng.below(steps.len() as u64) as usize];
            if let Step::Restart(site) = step
                && lost == 0
                && rng.chance(1, 6)
            {
                world.sites[site].disk = Durable::empty(support::nodes(3));
                lost += 1;
            }
            world.apply(step);
        }
        world.violation.is_some()
    })
}

/// Without a fault the same schedules find nothing.
#[test]
fn the_machine_as_shipped_passes() {
    assert!(!is_found(None, 4_000));
}

/// Whether two members that accuse each other, and a third that crashes and restarts between them, end in a violation.
fn is_found_in_a_duel(fault: Option<Fault>, seeds: u64) -> bool {
    (0..seeds).any(|seed| {
        let config = broken(fault);
        let mut rng = Rng::new(seed);
        let mut world = World::formed(3, config);
        (world.crashes, world.restarts, world.accusations) = (1, 1, 2);
        world.apply(Step::Suspect { by: 0, whom: 1 });
        world.apply(Step::Suspect { by: 1, whom: 0 });
        for _ in 0..200 {
            let mut steps = world.steps();
            steps.retain(|step| !matches!(step, Step::Crash(0 | 1)));
            if steps.is_empty() || world.violation.is_some() {
                break;
            }
            world.apply(steps[rng.below(steps.len() as u64) as usize]);
        }
        world.violation.is_some()
    })
}

/// Checks that MB-1 and MB-30 would be missed by none of these.
#[test]
fn each_broken_variant_is_found() {
    for fault in [Fault::QuorumOfTheView, Fault::ForgetsAccepted] {
        assert!(is_found(Some(fault), 10_000), "{fault:?} is not found");
    }
}

/// Checks that a member that takes its own reasons for those of the view is found (MB-1).
#[test]
fn reasons_of_its_own_are_found() {
    assert!(is_found(Some(Fault::OwnReasons), 1_000));
}

/// Checks that promises and acceptances that are said before they are forced break MB-1.
#[test]
fn what_is_said_before_it_is_forced_is_found() {
    assert!(!is_found_in_a_duel(None, 3_000));
    for fault in [Fault::PromiseNotForced, Fault::AcceptanceNotForced] {
        assert!(is_found_in_a_duel(Some(fault), 100_000), "{fault:?} is not found");
    }
}

/// A view of two of three; both fail, one loses its disk, and comes back with the third.
fn two_with_one_memory_between_them(config: Config) -> World {
    let mut world = World::formed(3, config);
    world.crash(2, 0);
    (0..2).for_each(|by| world.apply(Step::Suspect { by, whom: 2 }));
    world.settle();
    assert_eq!(world.members(0).len(), 2);
    (0..2).for_each(|site| world.crash(site, 0));
    world.sites[1].disk = Durable::empty(support::nodes(3));
    [1, 2].into_iter().for_each(|site| world.start(site));
    world.settle();
    world
}

/// Checks that a node without its past must not vote: with the one that was away it would agree on a second view of that
/// number.
#[test]
fn a_vote_without_a_past_is_found() {
    let config = Config::default().with_timeout(NEVER).unwrap().with_formation_wait(Duration::ZERO);
    assert_eq!(two_with_one_memory_between_them(config.clone()).violation, None);
    let broken = two_with_one_memory_between_them(config.with_fault(Fault::VotesWithoutPast));
    assert!(broken.violation.is_some());
}

/// Checks that who does not reach a member would be admitted, to be accused by it at once, if nobody asked.
#[test]
fn who_is_admitted_unheard_is_found() {
    let members = |fault| World::formed(3, broken(fault)).come_back_apart();
    assert_eq!(members(None), 2);
    assert_eq!(members(Some(Fault::AdmitsUnheard)), 3);
}

/// Two of three are there, and one of them loses its disk; then that one and the third are there.
fn first_two_and_other_two(fault: Option<Fault>) -> World {
    let mut world = World::founding(3, broken(fault));
    (0..2).for_each(|site| world.start(site));
    world.settle();
    (0..2).for_each(|site| world.crash(site, 0));
    world.wipe(1);
    (1..3).for_each(|site| world.start(site));
    world.settle();
    world
}

/// Checks that a majority must not found: another one may have.
#[test]
fn who_founds_with_a_majority_is_found() {
    assert_eq!(first_two_and_other_two(None).violation, None);
    assert!(first_two_and_other_two(Some(Fault::FoundsWithMajority)).violation.is_some());
}

/// Lets messages and writes happen among some of the sites until it is so, or nothing is left to happen.
fn among(world: &mut World, sites: &[usize], until: impl Fn(&World) -> bool) {
    let is_theirs = |step: &Step| match step {
        Step::Deliver { from, to } => sites.contains(from) && sites.contains(to),
        Step::Write(site) => sites.contains(site),
        _ => false,
    };
    let is_timeout = |step: &Step| matches!(step, Step::Timeout(site) if sites.contains(site));
    for _ in 0..2_000 {
        let steps = world.steps();
        let next = steps.iter().find(|step| is_theirs(step));
        let Some(step) = next.or_else(|| steps.iter().find(|step| is_timeout(step))) else {
            return;
        };
        world.apply(*step);
        if until(world) {
            return;
        }
    }
}

/// Two have committed the first view without the third; the one that knows it loses its disk, the other fails.
fn the_only_one_that_knew(fault: Option<Fault>) -> World {
    const ALL: usize = usize::MAX;
    let mut world = World::founding(3, broken(fault));
    (0..3).for_each(|site| world.start(site));
    let votes = |world: &World, site: usize| {
        world.sites[site].machine.as_ref().is_some_and(|machine| machine.is_voter())
    };
    among(&mut world, &[0, 1, 2], |world| (0..3).all(|site| votes(world, site)));
    world.crash(2, ALL);
    (0..2).for_each(|by| world.apply(Step::Suspect { by, whom: 2 }));
    among(&mut world, &[0, 1], |world| world.role(0) == Some(Role::Member));
    assert_eq!((world.view(0).id.number, world.view(1).id.number), (1, 0));
    let knew = world.sites[0].boot;
    world.crash(0, ALL);
    world.channels.retain(|(from, _), _| *from != knew);
    world.wipe(0);
    [0, 2].into_iter().for_each(|site| world.start(site));
    among(&mut world, &[0, 1, 2], |world| votes(world, 0));
    world.crash(1, ALL);
    [0, 2].into_iter().for_each(|by| world.apply(Step::Suspect { by, whom: 1 }));
    among(&mut world, &[0, 2], |_| false);
    world
}

/// Checks that a founder that came back with another disk must not found again: it would forget what it had promised.
#[test]
fn who_founds_anew_is_found() {
    assert_eq!(the_only_one_that_knew(None).violation, None);
    assert!(the_only_one_that_knew(Some(Fault::FoundsAnew)).violation.is_some());
}
