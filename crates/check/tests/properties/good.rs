//! Good traces, hand-made and random.

use mainstay_check::properties::{FifoPerSender, PROPERTIES, TotalOrder};
use mainstay_check::testing::{good_trace, trace};
use mainstay_check::{Report, check, check_all, check_survivors, check_with};

use super::THREE;

/// Checks every property: 1,500 random correct traces are accepted by all checkers.
#[test]
fn random_good_traces_are_accepted() {
    for seed in 0..1_500 {
        let trace = good_trace(seed);
        for violations in [check_all(&trace), check_survivors(&trace)] {
            let text = Report::new(&trace).render(&violations);
            assert!(violations.is_empty(), "seed {seed}: {text}");
        }
    }
}

/// The generator is worth its name: each kind of event occurs.
#[test]
fn random_traces_hold_every_kind_of_event() {
    let all: String = (0..50).map(|seed| format!("{:?}", good_trace(seed))).collect();
    for kind in ["Started", "Crashed", "Killed", "Restored", "Acknowledged", "MaybeLost", "Fifo"] {
        assert!(all.contains(kind), "{kind}");
    }
    assert_eq!(good_trace(3), good_trace(3));
}

/// Checks every property on situations that look wrong and are not.
#[test]
fn hand_made_good_traces_are_accepted() {
    let good = [
        "",
        "a cast a.1; abc got 1 a.1 @1; a acked a.1 @1 safe",
        "a castf a.1; b castf b.1; a gotf 1 a.1; a gotf 1 b.1; bc gotf 1 b.1; bc gotf 1 a.1",
        "c cast c.1; c crash",
        "c kill; ab view 2 ab; ab group 2 ab; c2 start; abc2 view 3 abc2; abc2 group 3 abc2",
        "a cast a.1; ab got 1 a.1 @1; c crash; ab view 2 ab; ab group 2 ab @1",
        "a cast a.1; ab got 1 a.1 @1; c restored @1; abc view 2 abc; abc group 2 abc @1",
        "a cast a.1; c crash; ab view 2 ab; ab group 2 ab; a cast a.1; ab got 2 a.1 @1",
        "abc view 2 abc; ab group 2 ab; abc view 3 abc; abc group 3 abc",
        // The last member that had it restarted before it delivered it: it comes with the log.
        "a cast a.1; bc crash; b2 start; ab2 view 2 ab2; ab2 restored @1; ab2 group 2 ab2 @1",
        // A joiner outlives those who delivered it, and all are told that it may be lost.
        "a cast a.1; b got 1 a.1 @1; bc crash; b2c2 start; ab2c2 view 2 ab2c2; ab2c2 group 2 ab2c2; ab2c2 lost @1",
        // It learns late that it was admitted, and begins with a later view.
        "c kill; ab view 2 ab; ab group 2 ab; c2 start; ab view 3 abc2; ab group 3 abc2; a castf a.1; ab gotf 3 a.1; \
         abc2 view 4 abc2; abc2 group 4 abc2",
    ];
    for text in good {
        let trace = trace(&format!("{THREE} {text}"));
        let violations = check_all(&trace);
        assert!(violations.is_empty(), "{text}: {}", Report::new(&trace).render(&violations));
    }
}

/// Checks MC-10 and MC-17 for a sequencer that delivered alone, failed, and is not to be believed.
#[test]
fn a_lonely_delivery_counts_only_where_delivery_is_uniform() {
    let text = "a cast a.1; b cast b.1; a got 1 a.1 @1; a crash;
        bc view 2 bc; bc group 2 bc; bc got 2 b.1 @1";
    let trace = trace(&format!("{THREE} {text}"));
    assert_eq!(check_all(&trace).iter().map(|v| v.id).collect::<Vec<_>>(), ["MC-10"]);
    assert_eq!(check_survivors(&trace), []);
}

/// Checks MC-7 where a FIFO message may overtake an ordered one.
#[test]
fn orders_can_be_judged_apart() {
    let text = "a cast a.1; a castf a.2; abc gotf 1 a.2; abc got 1 a.1 @1";
    let trace = trace(&format!("{THREE} {text}"));
    assert!(check::<FifoPerSender>(&trace).is_err());
    assert!(check_with(FifoPerSender::per_order(), &trace).is_ok());
    assert!(check::<TotalOrder>(&trace).is_ok());
}

/// The README's table and the list of checkers are the same.
#[test]
fn the_readme_lists_every_property() {
    let readme = include_str!("../../README.md");
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert_eq!(rows.len(), PROPERTIES.len());
    for (row, (id, says)) in rows.iter().zip(PROPERTIES) {
        assert!(row.starts_with(&format!("| {id} |")), "{id}");
        assert!(row.ends_with(&format!("| {says} |")), "{id}: {says}");
    }
}
