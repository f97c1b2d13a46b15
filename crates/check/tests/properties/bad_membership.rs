//! Bad traces for the membership properties.

use mainstay_check::properties::{
    CommittedPrefix, Incarnations, Numbering, SameSet, SelfInclusion, ViewSequence,
};
use mainstay_check::{check, testing};

use super::reject_all;

/// Checks MB-1.
#[test]
fn view_sequence() {
    reject_all::<ViewSequence>(&[
        ("gap", "a view 3 abc"),
        ("twice", "a view 2 abc; a view 2 abc"),
        ("back", "a view 2 abc; a view 1 abc"),
        ("two coordinators", "a view 2 ab; b view 2' ab"),
        ("other members", "a view 2 ab; b view 2 abc"),
        ("other age order", "a view 2 abc; b view 2 bac"),
        ("other incarnation", "a view 2 abc; b view 2 abc2"),
        ("gap of a joiner", "d start; d view 5 abcd; d view 7 abcd"),
        ("group view differs", "ab view 2 ab; a group 2 ab; b group 2 abc"),
        ("group view of another site view", "ab view 2 ab; a group 2' ab"),
        ("group view back", "ab view 2 ab; a group 2 ab; a group 1 abc"),
        ("group view twice", "a group 1 abc"),
        (
            "group view skipped",
            "ab view 2 ab; ab view 3 ab; ab group 2 ab; ab group 3 ab;
            c view 2 abc",
        ),
        (
            "group view skipped by a member",
            "abc view 2 abc; abc view 3 abc;
            ab group 2 abc; abc group 3 abc",
        ),
    ]);
}

/// Checks MB-2.
#[test]
fn self_inclusion() {
    reject_all::<SelfInclusion>(&[
        ("not in the view", "c view 2 ab"),
        ("not in the group view", "c group 2 ab"),
        ("other incarnation of itself", "c view 2 abc2"),
        ("joiner not in its view", "d start; d view 2 abc"),
        ("views after kill", "c kill; c view 2 abc"),
        ("group after kill", "c kill; c group 2 abc"),
        ("delivers after kill", "a cast a.1; c kill; c got 1 a.1 @1"),
        ("casts after kill", "c kill; c cast c.1"),
        ("restores after kill", "c kill; c restored @1"),
        ("is acknowledged after kill", "c cast c.1; c kill; c acked c.1 @1 majority"),
        ("starts after kill", "c kill; c start"),
        ("killed twice", "c kill; c kill"),
        ("casts after crash", "c crash; c castf c.1"),
        ("crashes twice", "c crash; c crash"),
        ("empty view", "d start; d group 2 abc"),
    ]);
}

/// Checks MB-14.
#[test]
fn incarnations() {
    reject_all::<Incarnations>(&[
        ("two in one view", "a view 2 abcc2"),
        ("one site twice", "a view 2 abcc"),
        ("two in a group view", "a group 2 aba2"),
        ("zero", "a view 2 abc0"),
        ("back to the old", "a view 2 abc2; a view 3 abc"),
        ("leaves and returns", "a view 2 ab; a view 3 abc"),
        ("leaves and returns, seen late", "a view 3 abc; b view 2 ab"),
        ("smaller after a pause", "a view 2 abc3; a view 3 ab; a view 4 abc2"),
        ("smaller, seen late", "a view 3 abc; b view 2 abc2"),
        ("two boots", "c crash; c2 start; c2 view 1 abc"),
        ("two boots, later view", "c crash; c2 start; c2 view 2 abc"),
        ("second return", "a view 2 ab; a view 3 abc2; a view 4 ab; a view 5 abc2"),
    ]);
}

/// Checks MB-30.
#[test]
fn committed_prefix() {
    reject_all::<CommittedPrefix>(&[
        ("two coordinators", "a view 2 ab; b view 2' ab"),
        ("other members", "a view 2 ab; c view 2 bc"),
        ("other order", "a view 2 abc; b view 2 cba"),
        ("other roster", "a view 2 abc; b view 2 abc of abc"),
        ("parts later", "abc view 2 abc; ab view 3 ab; c view 3 c"),
        ("parts at a joiner", "a view 2 abcd; d start; d view 2 abd"),
        ("parts at the first view", "d start; d view 1 d"),
        ("dead branch", "c view 2 c; c crash; ab view 2 ab"),
        ("rewritten", "a view 2 ab; a view 2 ac"),
        ("goes back", "a view 2 abc; a view 1 abc"),
        ("twice", "a view 2 abc; a view 2 abc"),
    ]);
}

/// Checks MB-40.
#[test]
fn same_set() {
    reject_all::<SameSet>(&[
        ("one lacks it", "a cast a.1; ab got 1 a.1 @1; abc group 2 abc @1"),
        ("first lacks it", "a cast a.1; bc got 1 a.1 @1; abc group 2 abc @1"),
        ("FIFO lacks", "a castf a.1; ab gotf 1 a.1; abc group 2 abc"),
        ("different ones", "a got 1 a.1 @1; b got 1 b.1 @1; ab group 2 ab @1"),
        ("second view", "abc group 2 abc; ab got 2 a.1 @1; abc group 3 abc @1"),
        ("other cut", "a group 2 ab @1; b group 2 ab @2"),
        (
            "delivered too late",
            "ab got 1 a.1 @1; c group 2 abc @1; c got 1 a.1 @1; ab group 2 abc @1",
        ),
        (
            "restored too little",
            "ab got 1 a.1 @1; ab got 1 a.2 @2; c restored @1; abc group 2 abc @2",
        ),
        ("the restored has more", "c restored @1; c got 1 b.1 @2; abc group 2 abc @2"),
        ("restored in the next view", "ab got 1 a.1 @1; abc group 2 abc @1; c restored @1"),
        ("who crashes later", "ab got 1 a.1 @1; abc group 2 abc @1; c crash"),
        ("other group", "ab h:group 1 ab; a h:got 1 a.1 @1; ab h:group 2 ab @1"),
    ]);
}

/// A recorder that loses the order is found out.
#[test]
fn numbering() {
    let mut trace = testing::trace("a start; a view 1 a; a crash");
    trace.swap(0, 1);
    assert!(check::<Numbering>(&trace).is_err());
    trace[1].number = 1;
    assert!(check::<Numbering>(&trace).is_err());
}
