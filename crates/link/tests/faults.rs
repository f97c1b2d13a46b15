//! Test power: links broken on purpose, each of which the swarm's checks must notice.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use mainstay_link::fault::Fault;
use support::{Configure, second::second, swarm};

/// The first violation that the swarm finds.
fn caught(configure: Configure) -> String {
    (0..500).find_map(|seed| swarm(seed, configure).err()).unwrap_or_default()
}

/// Checks that the check of MB-27 has teeth.
#[test]
fn delivering_duplicates_is_noticed() {
    let violation = caught(|it| it.fault(Fault::NoDuplicateSuppression).build().unwrap());
    assert!(violation.contains("MB-27"), "{violation}");
}

/// Checks that the check of MB-27 has teeth.
#[test]
fn forgetting_to_send_again_is_noticed() {
    let violation = caught(|it| it.fault(Fault::NoResend).build().unwrap());
    assert!(violation.contains("MB-27"), "{violation}");
}

/// Checks that the checks of MB-27 and MB-26 have teeth: the frame is lost, or said to be sent.
#[test]
fn ignoring_what_the_peer_expects_is_noticed() {
    let violation = caught(|it| it.fault(Fault::IgnoresExpectation).build().unwrap());
    assert!(violation.contains("MB-26") || violation.contains("MB-27"), "{violation}");
}

/// Checks that the check of MB-25 has teeth.
#[test]
fn taking_frames_of_other_sessions_is_noticed() {
    let violation = caught(|it| it.fault(Fault::AcceptsOtherSessions).build().unwrap());
    assert!(violation.contains("MB-25"), "{violation}");
}

/// Checks that the check of MB-25 has teeth.
#[test]
fn sending_the_new_boot_what_was_for_the_old_is_noticed() {
    let violation = caught(|it| it.fault(Fault::KeepsWindowOfReplaced).build().unwrap());
    assert!(violation.contains("MB-25"), "{violation}");
}

/// Checks that the checks of MB-8 and MB-7 have teeth.
#[test]
fn talking_with_the_isolated_is_noticed() {
    let violation = caught(|it| it.fault(Fault::IgnoresIsolation).build().unwrap());
    assert!(violation.contains("MB-8") || violation.contains("MB-7"), "{violation}");
}

/// Checks that the check of a second process under one name has teeth: the first one is disturbed.
#[test]
fn admitting_a_second_boot_is_noticed() {
    let violation = second(1, |it| it.fault(Fault::AdmitsSecondBoot).build().unwrap()).unwrap_err();
    assert!(violation.contains("lives and was replaced"), "{violation}");
}

/// Checks that the checks of a second process and of restarts have teeth: a node is locked out for ever.
#[test]
fn a_refusal_that_is_never_lifted_is_noticed() {
    let never: Configure = |it| it.fault(Fault::NeverAdmitsAnother).build().unwrap();
    let violation = second(1, never).unwrap_err();
    assert!(violation.contains("in vain: the second takes the place"), "{violation}");
    let violation = caught(never);
    assert!(violation.contains("do not know each other"), "{violation}");
}

/// Checks that the check of a slow user has teeth.
#[test]
fn acknowledging_what_is_not_taken_is_noticed() {
    let violation = support::slow_user(|it| it.fault(Fault::AcksUntaken)).unwrap_err();
    assert!(violation.contains("delivered 40"), "{violation}");
}
