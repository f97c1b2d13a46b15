//! Test power: logical time broken on purpose, each time in one way that the checks must notice.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::num::NonZeroU64;

use mainstay_clock::fault::Fault;
use mainstay_clock::multipart::{Table, Timestamp};
use mainstay_clock::reserve::Reserve;
use mainstay_clock::timers::Timers;
use mainstay_clock::vector::{Counting, Packer, Unpacker};
use mainstay_clock::{Rank, multipart, vector};
use support::rules::{self, sites, table};
use support::{talk, trace};

/// The first violation in runs that stamps watch.
fn stamps(fault: Fault) -> String {
    (0..200).find_map(|seed| trace::run(seed, Some(fault)).err()).unwrap_or_default()
}

/// The first violation in conversations that is of the kind wanted.
fn talks(fault: Fault, wanted: &str) -> Option<String> {
    let of_kind = |violation: &String| violation.contains(wanted);
    (0..60).filter_map(|seed| talk::run(seed, Some(fault)).err()).find(of_kind)
}

/// Checks that the check of CLK-30 has teeth.
#[test]
fn a_scalar_that_forgets_what_it_receives_is_noticed() {
    let violation = stamps(Fault::ScalarForgetsReceived);
    assert!(violation.contains("CLK-30: "), "{violation}");
}

/// Checks that the checks of CLK-31 and CLK-37 have teeth.
#[test]
fn a_number_for_two_events_is_noticed() {
    let violation = stamps(Fault::ScalarRepeats);
    assert!(violation.contains("CLK-31: ") || violation.contains("CLK-30: "), "{violation}");
}

/// Checks that the checks of CLK-32 and CLK-36 have teeth: a late message takes knowledge back.
#[test]
fn a_vector_that_overwrites_is_noticed() {
    let violation = stamps(Fault::VectorOverwrites);
    assert!(violation.contains("CLK-32: "), "{violation}");
}

/// Checks that the check of CLK-32 has teeth.
#[test]
fn a_vector_that_skips_receipts_is_noticed() {
    let violation = stamps(Fault::VectorSkipsReceipts);
    assert!(violation.contains("CLK-32: "), "{violation}");
}

/// Checks that the check of CLK-32 across view changes has teeth.
#[test]
fn entries_of_those_who_left_are_noticed() {
    let violation = stamps(Fault::VectorKeepsLeavers);
    assert!(violation.contains("CLK-32: "), "{violation}");
}

/// Checks that the check of CLK-30 has teeth for hybrid stamps.
#[test]
fn a_hybrid_of_the_bare_time_is_noticed() {
    let violation = stamps(Fault::HybridPhysicalOnly);
    assert!(violation.contains("of hybrids: "), "{violation}");
}

/// Checks that the check of CLK-38 has teeth.
#[test]
fn a_hybrid_that_believes_everybody_is_noticed() {
    let violation = stamps(Fault::HybridUnbounded);
    assert!(violation.contains("CLK-38: "), "{violation}");
}

/// Checks that the checks of CLK-37 and HA-21 have teeth.
#[test]
fn a_reserve_that_starts_where_the_last_range_began_is_noticed() {
    let recover = |stored| {
        let every = NonZeroU64::new(8).unwrap();
        Reserve::recover_broken(every, stored, Some(Fault::ReserveStartsAtStored))
    };
    let violation = (0..50).find_map(|seed| rules::restarts(seed, recover).err());
    assert!(violation.unwrap_or_default().contains("HA-21"));
}

/// Checks that the round trip of differences over a channel with loss has teeth.
#[test]
fn a_difference_against_the_wrong_stamp_is_noticed() {
    let members = table(3);
    let mut clock = vector::Clock::new(members.clone(), sites(3)[0], Counting::Events).unwrap();
    let mut packer = Packer::new(Rank(0));
    let mut unpacker = Unpacker::new(members, Rank(0)).broken(Some(Fault::DeltaIgnoresBase));
    unpacker.unpack(packer.pack(&clock.send())).unwrap();
    let _lost = packer.pack(&clock.send());
    let sent = clock.send();
    // It is no error, and not what was sent.
    assert_ne!(unpacker.unpack(packer.pack(&sent)).unwrap(), sent);
}

/// Checks that the rule "the timestamp of an update is above the one it follows" has teeth.
#[test]
fn a_replica_that_forgets_dependencies_is_noticed() {
    let broken = |clock: multipart::Clock| clock.broken(Some(Fault::MultipartForgetsDependency));
    let violation = (0..50).find_map(|seed| rules::replicas(seed, broken, |it| it).err());
    assert!(violation.unwrap_or_default().contains("is not above"));
}

/// Checks that the rule "forgotten is only what all have" has teeth.
#[test]
fn a_table_that_believes_one_is_noticed() {
    let broken = |table: Table| table.broken(Some(Fault::MultipartBelievesOne));
    let violation = (0..50).find_map(|seed| rules::replicas(seed, |it| it, broken).err());
    assert!(violation.unwrap_or_default().contains("is not everywhere"));
    assert_eq!(Table::new(2).unwrap().everywhere(), Timestamp::zero(2).unwrap());
}

/// Checks that the check of MC-42 has teeth.
#[test]
fn attaching_without_the_past_is_noticed() {
    assert!(talks(Fault::GraphAttachesEarly, "MC-42").is_some());
}

/// Checks that the check of CLK-35 has teeth.
#[test]
fn a_path_that_is_not_followed_to_its_end_is_noticed() {
    assert!(talks(Fault::GraphOneStep, "CLK-35:").is_some());
}

/// Checks that the check of MC-43 has teeth.
#[test]
fn what_one_has_and_not_all_is_noticed() {
    assert!(talks(Fault::GraphStableByOne, "MC-43").is_some());
}

/// Checks that the check of MC-45 has teeth.
#[test]
fn a_wave_that_is_not_complete_is_noticed() {
    assert!(talks(Fault::GraphWaveEarly, "MC-45: Wave").is_some());
}

/// Checks that the check of MC-45 has teeth.
#[test]
fn wrong_depths_are_noticed() {
    assert!(talks(Fault::GraphShallow, "MC-45: depth").is_some());
}

/// Checks that the check of MC-44 has teeth.
#[test]
fn not_naming_what_is_missing_is_noticed() {
    assert!(talks(Fault::GraphForgetsMissing, "liveness").is_some());
}

/// Checks that the bound of memory has teeth.
#[test]
fn a_graph_that_forgets_nothing_is_noticed() {
    assert!(talks(Fault::GraphNeverPrunes, "memory").is_some());
}

/// Checks that the check of a mask has teeth.
#[test]
fn taking_messages_of_one_who_is_masked_out_is_noticed() {
    let violation = rules::mask(|graph| graph.broken(Some(Fault::GraphIgnoresMask)));
    assert!(violation.unwrap_err().contains("behind the mask"));
}

/// Checks that the check of CLK-40 has teeth.
#[test]
fn a_timer_that_a_correction_jumps_over_is_noticed() {
    let timers = Timers::new(100).broken(Some(Fault::TimerMissesJump));
    assert!(rules::timers(1, timers).unwrap_err().contains("CLK-40"));
    let timers = Timers::new(100).broken(Some(Fault::TimerFiresEarly));
    assert!(rules::timers(1, timers).unwrap_err().contains("CLK-40"));
}
