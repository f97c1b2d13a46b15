//! Calls under faults, over seeds: no caller is told a lie.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use mainstay_rpc::Outcome;
use support::kind::Kind;

/// Checks RPC-1, RPC-2, RPC-3, RPC-5, RPC-8, RPC-9, RPC-20, RPC-21, RPC-23, RPC-24, RPC-25, RPC-70, RPC-72 and RPC-74: with both carriers, stored or
/// not, and each way to find orphans; where they are adopted, with names that others call by as well.
#[test]
fn no_caller_is_told_a_lie() {
    let (mut done, mut failed) = (0, 0);
    let seeds = mainstay_sim::seeds(0..3_000);
    let runs = seeds.end - seeds.start;
    for seed in seeds {
        let kind = Kind { clocks: seed % 4 == 3, ..Kind::default() };
        match kind.run(seed) {
            Ok(play) => {
                done += play.done();
                failed += play.count(|it| matches!(it, Outcome::Failed(_)));
            }
            Err(what) => panic!("seed {seed}, {:?}: {what}", kind.config(seed, 1)),
        }
    }
    println!("{runs} runs: {done} calls done, {failed} failed");
    assert!(done as u64 > runs * 130 && failed as u64 > runs * 26);
}
