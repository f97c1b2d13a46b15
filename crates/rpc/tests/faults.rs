//! Each deliberate defect is noticed: by the oracle of the swarm, within so many runs of a kind that fits.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use mainstay_rpc::fault::Fault;
use mainstay_rpc::{Carrier, Semantics};
use mainstay_sim::noticed;
use support::Mix;
use support::kind::{ADOPTION, Kind, POLICIES};

/// Checks RPC-1, RPC-2, RPC-3, RPC-5, RPC-8, RPC-9, RPC-14, RPC-20, RPC-21, RPC-23, RPC-25, RPC-70, RPC-72 and RPC-74 of the oracle: each defect that can show in a simulated world does.
/// Those that need a datagram of a former boot, a client that is silent for ever, or that lie to nobody, are found in `edges.rs`, `rules.rs` and
/// `orphans.rs`.
#[test]
fn each_defect_is_noticed() {
    use Fault as F;
    let any = Kind::default();
    let datagrams = Kind { carrier: Some(Carrier::Datagrams), ..Kind::default() };
    let stored = Kind { stored: Some(true), ..Kind::default() };
    let clocks = Kind { clocks: true, ..Kind::default() };
    // Nothing but the deadline ends some of them.
    let (deadline, nested) = ((50, 300), 500);
    let mix = Mix { endless: 50, deadline, nested, ..Mix::default() };
    let unending = Kind { mix: Some(mix), ..Kind::default() };
    // The next life of a client comes to the numbers of what runs for the former one.
    let (endless, stopping, every) = (500, 300_000, 2_000);
    let mix = Mix { endless, stopping, every, deadline: (500, 900), ..Mix::default() };
    let slow = Kind { mix: Some(mix), orphans: Some(POLICIES[1]), ..Kind::default() };
    let semantics = vec![Semantics::ExactlyOnce];
    let mix = Mix { semantics, lanes: 1_000, cancel: 400, ..Mix::default() };
    let cancelled = Kind { mix: Some(mix), carrier: Some(Carrier::Datagrams), ..Kind::default() };
    let mix = Mix { semantics: vec![Semantics::AtLeastOnce], ..Mix::default() };
    let repeated = Kind { mix: Some(mix), ..Kind::default() };
    let adopted = Kind { orphans: Some(ADOPTION), ..Kind::default() };
    for (fault, kind, says) in [
        (F::ForgetsCalls, &any, "bytes of a client"),
        (F::ForgetsStored, &stored, "RPC-"),
        (F::RunsLateCalls, &datagrams, "what is over is dropped"),
        (F::ForgetsRefusals, &datagrams, "RPC-74"),
        (F::RepeatsAtNewServer, &any, "RPC-"),
        (F::HearsTheDead, &datagrams, "RPC-"),
        (F::SparesOrphans, &any, "RPC-"),
        (F::KeepsOrphans, &slow, "RPC-8"),
        (F::SharesClock, &clocks, "RPC-20"),
        (F::IgnoresDeadline, &unending, "RPC-20"),
        (F::BeginsLate, &any, "RPC-20"),
        (F::NestsBeyond, &any, "RPC-70"),
        (F::SparesChildren, &unending, "RPC-23"),
        (F::IgnoresOrder, &any, "RPC-5"),
        (F::ForgetsGivenUp, &cancelled, "RPC-5"),
        (F::BeginsUnwritten, &stored, "RPC-"),
        (F::ForgetsNames, &adopted, "RPC-25"),
        (F::NumbersAnew, &adopted, "RPC-72"),
        (F::DeniesNamed, &adopted, "RPC-74"),
        (F::AnswersItself, &repeated, "RPC-1:"),
        (F::TellsTwice, &any, "RPC-9"),
    ] {
        let kind = Kind { fault: Some(fault), ..kind.clone() };
        let (seed, what) = noticed(1_000, |seed| kind.run(seed).map(drop))
            .unwrap_or_else(|| panic!("{fault:?} is not noticed"));
        println!("{fault:?}: seed {seed}, {}", what.lines().next().unwrap_or_default());
        assert!(what.contains(says), "{fault:?} is noticed as {what}");
    }
}
