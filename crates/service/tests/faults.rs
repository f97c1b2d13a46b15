//! Each deliberate defect is noticed.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::panic::catch_unwind;

use mainstay_service::Mux;
use mainstay_service::fault::Fault;

type Break = fn(&mut Mux);

fn is_noticed(setup: Break) -> bool {
    (0..60).any(|seed| catch_unwind(|| support::run(seed, 1_500, setup)).is_err())
}

#[test]
fn each_defect_is_noticed() {
    let defects: [(&str, Break); 9] = [
        ("MixesRuns", |mux| mux.break_it(Fault::MixesRuns)),
        ("NoLatch", |mux| mux.break_it(Fault::NoLatch)),
        ("NoRoom", |mux| mux.break_it(Fault::NoRoom)),
        ("NoCredit", |mux| mux.break_it(Fault::NoCredit)),
        ("NoCame", |mux| mux.break_it(Fault::NoCame)),
        ("IgnoresCredit", |mux| mux.break_it(Fault::IgnoresCredit)),
        ("GrantsEarly", |mux| mux.break_it(Fault::GrantsEarly)),
        ("TakesUnheard", |mux| mux.break_it(Fault::TakesUnheard)),
        ("OvertakesList", |mux| mux.break_it(Fault::OvertakesList)),
    ];
    for (name, setup) in defects {
        assert!(is_noticed(setup), "{name} is noticed");
    }
}
