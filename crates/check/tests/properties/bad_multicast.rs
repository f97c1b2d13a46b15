//! Bad traces for the multicast properties.

use mainstay_check::properties::{
    AckedInEveryLaterCut, Atomicity, FailureLast, FifoPerSender, Integrity, SameView, TotalOrder,
    Validity,
};

use super::reject_all;

/// Checks MC-2.
#[test]
fn integrity() {
    reject_all::<Integrity>(&[
        ("never cast", "a got 1 a.1 @1"),
        ("FIFO never cast", "b gotf 1 a.1"),
        ("cast in another group", "a h:cast a.1; a got 1 a.1 @1"),
        ("cast by another incarnation", "a cast a.1; b got 1 a2.1 @1"),
        ("twice", "a cast a.1; a got 1 a.1 @1; a got 1 a.1 @2"),
        ("twice FIFO", "a castf a.1; b gotf 1 a.1; b gotf 1 a.1"),
        ("twice, in two views", "a cast a.1; b got 1 a.1 @1; b group 2 ab; b got 2 a.1 @2"),
        ("order changed", "a cast a.1; b gotf 1 a.1"),
        ("order changed, cast seen late", "b got 1 a.1 @1; a castf a.1"),
        ("cast for two orders", "a cast a.1; a castf a.1"),
        ("forged sender", "a cast b.1"),
        ("forged incarnation", "a cast a2.1"),
    ]);
}

/// Checks MC-3.
#[test]
fn atomicity() {
    reject_all::<Atomicity>(&[
        ("one lacks it", "ab got 1 a.1 @1"),
        ("two lack it", "a got 1 a.1 @1"),
        ("FIFO", "bc gotf 1 a.1"),
        ("the sender lacks it", "bc got 1 a.1 @1"),
        ("second message", "abc got 1 a.1 @1; ab got 1 a.2 @2"),
        ("sender dead", "bc view 2 bc; a crash; b got 1 a.1 @1"),
        ("restored before it", "ab got 1 a.1 @2; c restored @1"),
        ("FIFO, restored in an earlier view", "c restored @0; abc group 2 abc; ab gotf 2 a.1"),
        (
            "begins with that view",
            "c kill; c2 start; abc2 view 4 abc2; abc2 group 4 abc2; ab gotf 4 a.1",
        ),
        ("lacks it in a later view", "abc group 2 abc; bc got 2 b.1 @1"),
        ("never got to the view", "ab group 2 abc; ab got 2 b.1 @1"),
        ("other group", "ab h:group 1 ab; a h:gotf 1 a.1"),
        ("left since", "ab got 1 a.1 @1; abc view 2 abc; ab group 2 ab @1"),
    ]);
}

/// Checks MC-6.
#[test]
fn validity() {
    reject_all::<Validity>(&[
        ("nobody", "a cast a.1"),
        ("nobody FIFO", "a castf a.1"),
        ("sender only", "a cast a.1; a got 1 a.1 @1"),
        ("all but the sender", "a cast a.1; bc got 1 a.1 @1"),
        ("all but one", "a castf a.1; ab gotf 1 a.1"),
        ("second of two", "a cast a.1; a cast a.2; abc got 1 a.1 @1"),
        ("only one that died", "a cast a.1; c got 1 a.1 @1; c crash"),
        ("fell out at a view change", "a cast a.1; abc group 2 abc"),
        ("restored before it", "a cast a.1; ab got 1 a.1 @2; c restored @1"),
        ("alone", "b crash; c crash; a group 2 a; a castf a.1"),
        ("other group", "ab h:group 1 ab; a h:cast a.1"),
        ("not the joiner", "abcd group 2 abcd; a cast a.1; abc got 2 a.1 @1"),
        ("more than the state hides", "a cast a.1; a cast a.2; abc restored @1"),
        ("delivered, so not hidden", "a cast a.1; a cast a.2; abc got 1 a.1 @1; abc restored @1"),
        ("FIFO, so in no state", "a castf a.1; abc restored @1"),
        ("lost behind it", "a cast a.1; ab got 1 a.1 @1; abc group 2 abc @1; c lost @2"),
        ("lost before it", "c lost @1; a cast a.1; ab got 1 a.1 @1"),
    ]);
}

/// Checks MC-7.
#[test]
fn fifo() {
    reject_all::<FifoPerSender>(&[
        ("swapped", "b gotf 1 a.2; b gotf 1 a.1"),
        ("swapped, ordered", "b got 1 a.2 @1; b got 1 a.1 @2"),
        ("ordered after FIFO", "b gotf 1 a.2; b got 1 a.1 @1"),
        ("FIFO after ordered", "b got 1 a.2 @1; b gotf 1 a.1"),
        ("far", "b gotf 1 a.1; b gotf 1 a.9; b gotf 1 a.3"),
        ("other sender between", "b gotf 1 a.2; b gotf 1 c.1; b gotf 1 a.1"),
        ("across a view", "b gotf 1 a.2; b group 2 abc; b gotf 2 a.1"),
        ("at the sender", "a gotf 1 a.2; a gotf 1 a.1"),
        ("after restored", "b gotf 1 a.2; b restored @3; b gotf 1 a.1"),
        ("cast out of order", "a castf a.2; a castf a.1"),
        ("other group", "b h:gotf 1 a.2; b h:gotf 1 a.1"),
    ]);
}

/// Checks MC-10.
#[test]
fn total_order() {
    reject_all::<TotalOrder>(&[
        ("swapped", "a got 1 a.1 @1; a got 1 b.1 @2; b got 1 b.1 @1; b got 1 a.1 @2"),
        ("two at one place", "a got 1 a.1 @1; b got 1 b.1 @1"),
        ("two places", "a got 1 a.1 @1; b got 1 b.1 @1; b got 1 a.1 @2"),
        ("gap", "a got 1 a.1 @1; a got 1 a.2 @3"),
        ("does not begin at 1", "a got 1 a.1 @2"),
        ("back", "a got 1 a.1 @1; a got 1 a.2 @2; a got 1 a.3 @2"),
        ("no place", "a got 1 a.1"),
        ("FIFO with a place", "a gotf 1 a.1 @1"),
        ("gap after restored", "a restored @5; a got 1 a.1 @7"),
        ("inside what was restored", "a restored @5; a got 1 a.1 @5"),
        ("state goes back", "a restored @5; a restored @4"),
        ("begins again in the next view", "a got 1 a.1 @1; a group 2 abc @1; a got 2 a.2 @1"),
        ("joiner off the boundary", "d group 2 abcd @4; d got 2 a.1 @4"),
        ("another in a later view", "a got 1 a.1 @1; a crash; b group 2 bc; b got 2 b.1 @1"),
        ("before the loss", "a got 1 a.1 @1; a crash; b group 2 bc; b lost @2; b got 2 b.1 @1"),
        ("gap after a loss", "b group 2 bc @3; b lost @4; b got 2 b.1 @4; b got 2 b.2 @6"),
    ]);
}

/// Checks MC-16.
#[test]
fn failure_last() {
    reject_all::<FailureLast>(&[
        ("after the view", "ab group 2 ab; a got 2 c.1 @1"),
        ("FIFO", "ab group 2 ab; b gotf 2 c.1"),
        ("in the old view's name", "ab group 2 ab; b gotf 1 c.1"),
        ("two views later", "ab group 2 ab; ab group 3 ab; a gotf 3 c.1"),
        ("old incarnation after rejoin", "abc2 group 2 abc2; a gotf 2 c.1"),
        ("incarnation to come", "a gotf 1 c2.1"),
        ("never a member", "a got 1 d.1 @1"),
        ("after leaving", "ab group 2 ab; a gotf 2 a.1; a gotf 2 c.4"),
        ("at a joiner", "d start; d group 2 abd; d gotf 2 c.1"),
        ("second that failed", "a group 2 ab; a group 3 a; a gotf 3 b.1"),
        ("other group", "ab h:group 1 ab; a h:gotf 1 c.1"),
    ]);
}

/// Checks MC-17.
#[test]
fn same_view() {
    reject_all::<SameView>(&[
        ("two views", "a gotf 1 a.1; b group 2 abc; b gotf 2 a.1"),
        ("two views, ordered", "a got 1 a.1 @1; b group 2 abc; b got 2 a.1 @1"),
        ("names an old view", "a group 2 abc; a gotf 1 a.1"),
        ("names a view to come", "a gotf 2 a.1"),
        ("names another coordinator's view", "a gotf 1' a.1"),
        ("no view yet", "d start; d gotf 1 a.1"),
        ("no view of this group", "a h:gotf 1 a.1"),
        ("later first", "b group 2 abc; b gotf 2 a.1; a gotf 1 a.1"),
        ("by one that died", "a gotf 1 b.1; a crash; b group 2 bc; b gotf 2 b.1"),
        ("two branches", "b group 2 bc; a group 2' a; b gotf 2 b.1; a gotf 2' b.1"),
        ("kept over a loss", "a got 1 b.1 @1; b group 2 bc; b lost @2; b got 2 b.1 @1"),
        ("at one member", "a gotf 1 a.1; a group 2 abc; a gotf 2 a.1"),
    ]);
}

/// Checks MC-21.
#[test]
fn acked_in_every_later_cut() {
    reject_all::<AckedInEveryLaterCut>(&[
        ("cut before it", "a acked a.1 @1 majority; b group 2 bc"),
        ("safe", "a acked a.1 @1 safe; b group 2 bc"),
        ("disk", "a acked a.1 @1 disk; b group 2 bc"),
        ("two views on", "a acked a.1 @2 majority; b group 2 bc @2; b group 3 bc @1"),
        ("a joiner's cut", "a acked a.1 @1 majority; d start; d group 2 abcd"),
        ("another there", "a acked a.1 @1 majority; b got 1 b.1 @1; b group 2 bc @1"),
        ("moved", "a acked a.1 @1 majority; b group 2 bc @1; b got 2 a.1 @2"),
        ("passed over", "a acked a.1 @1 majority; b got 1 b.1 @2; b group 2 bc @2"),
        ("two at one place", "a acked a.1 @1 majority; b acked b.1 @1 majority"),
        ("one at two places", "a acked a.1 @1 majority; a acked a.1 @2 safe"),
        ("loss after it", "a acked a.1 @1 majority; b group 2 bc; b lost @2"),
        ("loss before it", "b group 2 bc; b lost @1; b acked b.1 @1 disk; c group 3 c"),
    ]);
}
