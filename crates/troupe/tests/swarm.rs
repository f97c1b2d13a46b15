//! Troupes under faults, over seeds.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use support::kind::Kind;

/// Checks RPC-40, RPC-41, RPC-43, RPC-44, RPC-45 and RPC-47: two clients, one of them replicated, call a troupe that calls another one, with each order,
/// collator and beginning, while nodes crash and come back, are paused and cut off. With `TROUPE_ALL` in the environment all seeds are run, and those that fail told.
#[test]
fn each_call_is_executed_once_by_each_replica() {
    let seeds = mainstay_sim::seeds(0..300);
    let runs = seeds.end - seeds.start;
    let goes_on = std::env::var("TROUPE_ALL").is_ok();
    let mut wrong = 0;
    let (mut done, mut executions, mut undone, mut lost) = (0, 0, 0, 0);
    for seed in seeds {
        let kind = Kind::default();
        let mut run = Err(String::new());
        let panic = mainstay_sim::panic_of(std::panic::AssertUnwindSafe(|| run = kind.run(seed)));
        if let Some(panic) = panic {
            run = Err(panic);
        }
        match run {
            Ok(play) => {
                done += play.outcomes.len();
                executions += play.executions;
                undone += play.undone;
                lost += usize::from((0..3).any(|part| play.lost.contains(&part)));
            }
            Err(what) if goes_on => {
                wrong += 1;
                println!("seed {seed}: {}", what.lines().next().unwrap_or_default());
            }
            Err(what) => panic!("seed {seed}: {what}"),
        }
    }
    println!(
        "{runs} runs: {done} calls, {executions} executions, {undone} undone; in {lost} runs a replicated troupe lost all its members"
    );
    assert_eq!(wrong, 0, "runs that are wrong");
    assert!(done as u64 > runs * 50 && lost as u64 * 5 < runs);
}
