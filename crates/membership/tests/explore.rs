//! Exploration of small scopes, breadth first. `MAINSTAY_STATES` raises the bound of the scopes that are not finished here.
#![allow(missing_docs, reason = "a test file")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use mainstay_base::Duration;
use mainstay_membership::Config;
use mainstay_sim::{Report, Search, explore};
use support::{NEVER, World};

fn frozen() -> Config {
    Config::default().with_timeout(NEVER).unwrap().with_formation_wait(Duration::ZERO)
}

fn run(name: &str, world: World) -> Report {
    let bound = std::env::var("MAINSTAY_STATES").ok().and_then(|text| text.parse().ok());
    let report = explore(world, Search::Breadth, bound.unwrap_or(40_000));
    println!("{name}: {report:?}");
    if let Some(violation) = &report.violation {
        panic!("{name}: {violation}");
    }
    report
}

/// Checks MB-1, MB-2, MB-14, MB-30..MB-33 completely: 3 members, one crashes at any step of the change that follows, in
/// every interleaving of messages, writes and timeouts; a living quorum always comes to one view.
#[test]
fn one_crash_at_every_step() {
    assert!(run("1 crash", World::scope(frozen(), 1, 0, 0)).complete);
}

/// Checks MB-34 up to a bound: a wrong suspicion beside a crash at any step.
#[test]
fn a_crash_and_a_wrong_suspicion() {
    run("1 crash, 1 wrong suspicion", World::scope(frozen(), 1, 0, 1));
}

/// Checks MB-31, MB-37 up to a bound: two crashes at any step, both at once as well, and a restart.
#[test]
fn two_crashes_and_a_restart() {
    run("2 crashes, 1 restart", World::scope(frozen(), 2, 1, 0));
}
