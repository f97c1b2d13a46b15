//! Every checker accepts good traces and rejects bad ones.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod bad_membership;
mod bad_multicast;
mod good;
mod mutation;

use mainstay_base::trace::Event;
use mainstay_check::{Property, check, testing};

/// Three sites in view 1 of the sites and of the group.
const THREE: &str = "abc start; abc view 1 abc; abc group 1 abc;";

fn reject_all<P: Property>(bad: &[(&str, &str)]) {
    assert!(bad.len() >= 10, "{}: at least ten bad traces, not {}", P::ID, bad.len());
    for (why, text) in bad {
        let trace: Vec<Event> = testing::trace(&format!("{THREE} {text}"));
        match check::<P>(&trace) {
            Ok(()) => panic!("{} accepts: {why}", P::ID),
            Err(violation) => {
                assert_eq!(violation.id, P::ID);
                assert!(!violation.events.is_empty(), "{why}");
                for named in violation.events {
                    assert!(trace.iter().any(|event| (event.boot, event.number) == named), "{why}");
                }
            }
        }
    }
}
