//! Each deliberate defect is noticed: by the oracle of the swarm, within so many runs of a kind that fits. The others are found in `rules.rs` and `order.rs`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use mainstay_sim::noticed;
use mainstay_troupe::fault::Fault;
use mainstay_troupe::{Begin, Sequence};
use support::kind::Kind;

/// Checks RPC-40, RPC-41, RPC-43, RPC-44, RPC-45 and RPC-47 of the oracle: each defect that can show in a simulated world does.
#[test]
fn each_defect_is_noticed() {
    use Fault as F;
    let first = Kind {
        sequence: Some(Sequence::Independent),
        begin: Some(Begin::First),
        ..Kind::default()
    };
    let cast = Kind { sequence: Some(Sequence::Cast), ..first.clone() };
    let commit = Kind { sequence: Some(Sequence::Commit), ..first.clone() };
    for (fault, kind, says) in [
        (F::ExecutesCopies, &first, "RPC-40"),
        (F::BeginsUnordered, &cast, "RPC-43"),
        (F::CommitsAlone, &commit, "RPC-43"),
        (F::ForgetsResults, &first, "RPC-"),
        (F::KeepsResults, &first, "RPC-4"),
        (F::CallsOne, &first, "RPC-4"),
        (F::NeverRebinds, &first, "RPC-41"),
        (F::FlatIds, &first, "RPC-4"),
        (F::JoinsEmpty, &first, "RPC-4"),
        (F::GivesBusy, &first, "RPC-4"),
        (F::StopsAtOutcome, &first, "RPC-4"),
        (F::ForgetsTroupes, &first, "RPC-4"),
    ] {
        let kind = Kind { fault: Some(fault), ..kind.clone() };
        let (seed, what) = noticed(60, |seed| kind.run(seed).map(drop))
            .unwrap_or_else(|| panic!("{fault:?} is not noticed"));
        let what = what.lines().next().unwrap_or_default().to_owned();
        println!("{fault:?}: seed {seed}, {what}");
        assert!(what.contains(says), "{fault:?} is noticed as {what}");
    }
}
