//! Test power: groups broken on purpose, each of which the checkers must notice.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::panic::catch_unwind;

use mainstay_base::Level;
use mainstay_multicast::fault::Fault;
use mainstay_multicast::{Builder, Durability};
use support::{Options, left_out, run};

/// The first violation found in runs of a kind, in words of the checkers or of the state machine in the harness.
fn caught(configure: fn(Builder) -> Builder, quorum_of_view: bool) -> String {
    let one = |seed| {
        let options = Options::new(seed, Durability::Memory, Level::Majority);
        let options = Options { configure, quorum_of_view, stateful: true, ..options };
        match catch_unwind(|| run(options)) {
            Ok(Ok(_)) => None,
            Ok(Err(violation)) => Some(violation),
            Err(panic) => Some(panic.downcast_ref::<String>().cloned().unwrap_or_default()),
        }
    };
    (0..500)
        .filter_map(one)
        .find(|found| found.contains("MC-") || found.contains("MB-"))
        .unwrap_or_default()
}

/// Checks that the checks have teeth: MC-10, MC-17 or MB-40.
#[test]
fn not_wedging_is_noticed() {
    let violation = caught(|it| it.fault(Fault::NoWedge), false);
    assert!(!violation.is_empty());
}

/// Checks that the check of MC-10 and MC-50 has teeth.
#[test]
fn numbering_otherwise_than_told_is_noticed() {
    let violation = caught(|it| it.fault(Fault::Renumbers), false);
    assert!(violation.contains("MC-10"), "{violation}");
}

/// Checks that the checks have teeth: who did not hold the cut has not delivered what others did.
#[test]
fn not_holding_is_noticed() {
    let violation = caught(|it| it.fault(Fault::SkipsHold), false);
    assert!(!violation.is_empty());
}

/// Checks that the check of MC-10 has teeth: what only the member had that failed is not uniform.
#[test]
fn delivering_before_a_majority_is_noticed() {
    let violation = caught(|it| it.fault(Fault::DeliversEarly), false);
    assert!(violation.contains("MC-10") || violation.contains("MC-17"), "{violation}");
}

/// Checks that the check of a group without one of its nodes has teeth: one that lacks it is waited for, or is to order.
#[test]
fn counting_who_lacks_the_group_is_noticed() {
    let found = |seed| {
        let options = Options::new(seed, Durability::Memory, Level::Majority);
        left_out(Options { configure: |it| it.fault(Fault::CountsAll), ..options }).err()
    };
    let violation = (0..20).find_map(found).unwrap_or_default();
    assert!(violation.contains("stopped without"), "{violation}");
}

/// Checks that the check of MC-21 has teeth: the quorum of a cut is of the configured nodes.
#[test]
fn a_quorum_of_the_view_is_noticed() {
    let violation = caught(|it| it, true);
    assert!(!violation.is_empty());
}

/// Checks that the count of copies has teeth: a view change with a single contributor is no receipt.
#[test]
fn acknowledging_what_one_copy_has_is_noticed() {
    let found = |seed| {
        let options = Options::new(seed, Durability::Memory, Level::Majority);
        let options = Options { configure: |it| it.fault(Fault::CountsOneCopy), ..options };
        let panic = catch_unwind(|| run(options)).err()?;
        panic.downcast_ref::<String>().cloned()
    };
    let violation = (0..500).filter_map(found).find(|it| it.contains("copies")).unwrap_or_default();
    assert!(violation.contains("and told of"), "{violation}");
}
