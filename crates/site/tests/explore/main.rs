//! Exploration of membership and a group as one machine: FIFO channels in place of the link, silence as a free step.
//! `MAINSTAY_STATES` raises the bound of the scopes that are not finished here; `all` has none (use `--release`).
#![allow(missing_docs, unreachable_pub, reason = "a test")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod scope;
mod site;

use mainstay_membership as membership;
use mainstay_multicast::Durability;
use mainstay_multicast::fault::Fault;
use mainstay_sim::{Report, Search, explore};
use scope::Scope;
use site::Setup;

const BOTH: [Durability; 2] = [Durability::Memory, Durability::Disk];

fn one_group(durability: Durability) -> Setup {
    Setup::new(durability, &[("g", &[0, 1, 2])])
}

fn run(name: &str, scope: Scope, search: Search, states: usize) -> Report {
    let report = explore(scope.clone(), search, states);
    let (sites, packets) = scope.size();
    println!("{name}: {report:?}, of {sites} places of a site and {packets} packets");
    if let Some(violation) = &report.violation {
        panic!("{name}: {violation}");
    }
    report
}

fn completely(name: &str, scope: Scope) {
    assert!(run(name, scope, Search::Breadth, usize::MAX).complete, "{name}");
}

/// Checks MB-1, MB-40, MC-10, MC-17, MC-21 completely: three members of a group, one casts, one crashes, each at every
/// step.
#[test]
fn a_cast_and_a_crash_at_every_step() {
    for durability in BOTH {
        let scope = Scope::new(one_group(durability)).with(&[(0, 0)], 1, 0);
        completely(&format!("{durability:?}, 1 cast, 1 crash"), scope);
    }
}

/// The same, completely, with two crashes: whoever is left alone stands still.
#[test]
fn a_cast_and_two_crashes_at_every_step() {
    for durability in BOTH {
        let scope = Scope::new(one_group(durability)).with(&[(1, 0)], 2, 0);
        completely(&format!("{durability:?}, 1 cast, 2 crashes"), scope);
    }
}

/// The same, completely, with a crash and a restart: also that nobody who lives is ever taken for dead, that all end in
/// one view, and that the group goes on from the log.
#[test]
fn a_crash_and_a_restart_at_every_step() {
    for durability in BOTH {
        let scope = Scope::new(one_group(durability)).with(&[], 1, 1);
        completely(&format!("{durability:?}, 1 crash, 1 restart"), scope);
    }
}

/// As far as `MAINSTAY_STATES` says; without it up to a bound.
fn as_far_as_asked(name: &str, scope: Scope) {
    match std::env::var("MAINSTAY_STATES").as_deref() {
        // Depth first fewer states wait.
        Ok("all") => assert!(run(name, scope, Search::Depth, usize::MAX).complete, "{name}"),
        Ok(bound) => drop(run(name, scope, Search::Breadth, bound.parse().unwrap())),
        Err(_) => drop(run(name, scope, Search::Breadth, 100_000)),
    }
}

/// The same with two crashes and a restart.
#[test]
fn two_crashes_and_a_restart() {
    for durability in BOTH {
        let scope = Scope::new(one_group(durability)).with(&[], 2, 1);
        as_far_as_asked(&format!("{durability:?}, 2 crashes, 1 restart"), scope);
    }
}

/// The same with a cast, a crash and a restart.
#[test]
fn a_cast_a_crash_and_a_restart() {
    for durability in BOTH {
        let scope = Scope::new(one_group(durability)).with(&[(1, 0)], 1, 1);
        as_far_as_asked(&format!("{durability:?}, 1 cast, 1 crash, 1 restart"), scope);
    }
}

/// The same with a cast, two crashes and a restart.
#[test]
fn a_cast_two_crashes_and_a_restart() {
    let scope = Scope::new(one_group(Durability::Disk)).with(&[(1, 0)], 2, 1);
    as_far_as_asked("Disk, 1 cast, 2 crashes, 1 restart", scope);
}

/// Checks MB-1 completely where there is no group: two crashes and a restart, each at every step of the changes that follow.
#[test]
fn membership_alone_two_crashes_and_a_restart() {
    let scope = Scope::new(Setup::new(Durability::Disk, &[])).with(&[], 2, 1);
    completely("no group, 2 crashes, 1 restart", scope);
}

/// The same, completely, with two groups that share one site: each keeps to its own order whatever the other does
/// (MB-40, MC-10, MC-17, MC-21).
#[test]
fn two_groups_of_different_sites() {
    let setup = Setup::new(Durability::Disk, &[("g", &[0, 1]), ("h", &[1, 2])]);
    let scope = Scope::new(setup).with(&[(0, 0), (1, 1)], 1, 0);
    completely("Disk, two groups, 2 casts, 1 crash", scope);
}

/// What was found in a scope: at how many ends, what is wrong, and after how many steps at the least.
fn outcome(scope: Scope) -> (Option<usize>, Option<(String, usize)>) {
    let report = explore(scope, Search::Breadth, usize::MAX);
    let found = report.violation.map(|it| (it.what, it.path.len()));
    (report.complete.then_some(report.ends), found)
}

/// Checks that exploring one order of steps that commute finds the same ends and the same violations, by paths as short,
/// as exploring every order: of the machines as they are, and of broken ones.
#[test]
fn the_reduction_hides_nothing() {
    let broken = [Fault::NoWedge, Fault::SkipsHold, Fault::DeliversEarly];
    let mut setups: Vec<_> = BOTH.map(one_group).into();
    let two = Setup::new(Durability::Disk, &[("g", &[0, 1]), ("h", &[1, 2])]);
    setups.push(two);
    for fault in broken {
        setups.push(Setup { group_fault: Some(fault), ..one_group(Durability::Memory) });
    }
    let hasty = membership::Fault::AcceptsWithoutHolding;
    setups.push(Setup { membership_fault: Some(hasty), ..one_group(Durability::Memory) });
    for setup in setups {
        let groups = setup.groups.len();
        let name = (setup.group_fault, setup.membership_fault);
        for (casts, crashes) in [(&[(0, 0), (1, groups - 1)][..], 1), (&[(1, 0)], 2)] {
            let scope = Scope::new(setup.clone()).with(casts, crashes, 0);
            let reduced = outcome(scope.clone());
            println!("{name:?}, {} casts, {crashes} crashes: {reduced:?}", casts.len());
            assert_eq!(reduced, outcome(scope.unreduced()), "{name:?}");
            if casts.len() == 2 {
                assert_eq!(reduced.1.is_some(), setup.group_fault.is_some(), "{name:?}");
            }
        }
    }
}
