//! Runs of processes whose traces end early.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use mainstay_base::trace::Event;
use mainstay_check::testing::{boot, trace};
use mainstay_check::{End, Run, Verdict};

const THREE: &str = "abc start; abc view 1 abc; abc group 1 abc;";

/// The run of a hand-made trace: the boots named here are cut after so many events, the others whole.
fn run(text: &str, cut: &[(char, usize)]) -> Run {
    let all = trace(&format!("{THREE} {text}"));
    let mut run = Run::new();
    for (letter, nonce) in [('a', 1), ('b', 1), ('c', 1), ('c', 2)] {
        let boot = boot(letter, nonce);
        let events: Vec<Event> = all.iter().filter(|event| event.boot == boot).cloned().collect();
        let keep = cut.iter().find(|(of, _)| (*of, 1) == (letter, nonce));
        match keep {
            Some((_, count)) => run.record(events.into_iter().take(*count), End::Cut),
            None => run.record(events, End::Whole),
        }
    }
    run
}

/// The properties that are broken.
fn broken(run: &Run) -> Vec<&'static str> {
    let judged = run.judge().into_iter();
    judged.filter(|it| matches!(it.verdict, Verdict::Broken(_))).map(|it| it.id).collect()
}

/// Checks MC-2 where the trace of a caster ends early: the casts that are missing at its end are held against nobody,
/// one in the middle is, and one of a site whose trace is whole.
#[test]
fn a_cast_may_be_missing_at_the_end_of_a_cut_trace() {
    let text = "c cast c.1; c cast c.2; abc got 1 c.1 @1; abc got 1 c.2 @2";
    assert_eq!(broken(&run(text, &[('c', 4)])), [""; 0]);
    assert_eq!(broken(&run(text, &[('c', 1)])), [""; 0]);
    let gap = "c cast c.2; abc got 1 c.1 @1; abc got 1 c.2 @2";
    assert_eq!(broken(&run(gap, &[('c', 4)])), ["MC-2"]);
    assert_eq!(broken(&run("abc got 1 c.1 @1", &[])), ["MC-2"]);
}

/// Checks MC-3 and MC-6: they are judged only when the run is said to be settled, and nothing is expected of a boot that
/// is cut, that the others went on without, or that has not begun to take part.
#[test]
fn what_was_under_way_is_judged_only_at_rest() {
    let text = "a cast a.1; ab got 1 a.1 @1";
    let unsettled = run(text, &[]);
    assert_eq!(broken(&unsettled), [""; 0]);
    let not_judged = unsettled.judge().into_iter().filter(|it| it.verdict == Verdict::NotJudged);
    assert_eq!(not_judged.map(|it| it.id).collect::<Vec<_>>(), ["MC-3", "MC-6"]);
    assert_eq!(broken(&unsettled.settled(true)), ["MC-3", "MC-6"]);
    assert_eq!(broken(&run(text, &[('c', 3)]).settled(true)), [""; 0]);
    let joining = "c kill; ab view 2 ab; ab group 2 ab; a cast a.1; ab got 2 a.1 @1; c2 start; abc2 view 3 abc2; ab group 3 abc2 @1; a cast a.2; ab got 3 a.2 @2";
    assert_eq!(broken(&run(joining, &[]).settled(true)), [""; 0]);
    let left = format!("{text}; ab view 2 ab; ab group 2 ab @1");
    assert_eq!(broken(&run(&left, &[]).settled(true)), [""; 0]);
}

/// Checks MC-3 and MC-6: what the others say in a view without a node that was stopped for good is not judged, since they may be stopped
/// before it arrives; what was said before is.
#[test]
fn what_follows_the_first_stop_is_not_judged() {
    let late = "ab view 2 ab; ab group 2 ab; a cast a.1; a got 2 a.1 @1";
    assert_eq!(broken(&run(late, &[]).settled(true)), [""; 0]);
    // The same, if c was not stopped but failed.
    let failed = format!("c kill; {late}");
    assert_eq!(broken(&run(&failed, &[]).settled(true)), ["MC-3", "MC-6"]);
    // And if it came back, and was stopped with the others.
    let back =
        format!("{late}; c2 start; abc2 view 3 abc2; ab group 3 abc2 @1; c2 group 3 abc2 @1");
    assert!(!broken(&run(&back, &[]).settled(true)).is_empty());
}

/// Checks MC-10 and MC-21: what a cut trace does say counts, also for those that failed.
#[test]
fn a_cut_trace_is_judged_as_far_as_it_goes() {
    let text =
        "a cast a.1; b cast b.1; c got 1 a.1 @1; ab view 2 ab; ab group 2 ab; ab got 2 b.1 @1";
    assert_eq!(broken(&run(text, &[('c', 9)])), ["MC-10"]);
    let text = "c cast c.1; c got 1 c.1 @1; c acked c.1 @1 majority; ab view 2 ab; ab group 2 ab";
    assert_eq!(broken(&run(text, &[('c', 9)])), ["MC-21"]);
    assert_eq!(broken(&run(text, &[('c', 5)])), [""; 0]);
}

/// Checks that messages in FIFO order and those in total order are two streams of one sender.
#[test]
fn each_order_is_judged_by_itself() {
    let text = "a castf a.2; a cast a.1; abc gotf 1 a.2; abc got 1 a.1 @1";
    assert_eq!(broken(&run(text, &[]).settled(true)), [""; 0]);
    let text = "a castf a.1; a castf a.2; a gotf 1 a.1; a gotf 1 a.2; b gotf 1 a.2; b gotf 1 a.1";
    assert_eq!(broken(&run(text, &[])), ["MC-7"]);
}
