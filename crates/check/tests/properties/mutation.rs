//! Good traces, corrupted at random in a way that is known to break a property, are rejected by its checker.

use mainstay_base::trace::{Event, GroupWord, MembershipWord, ProcessWord, What};
use mainstay_base::{Order, Position, Rng};
use mainstay_check::properties::{
    AckedInEveryLaterCut, Atomicity, CommittedPrefix, FailureLast, FifoPerSender, Incarnations,
    Integrity, SameSet, SameView, SelfInclusion, TotalOrder, Validity, ViewSequence,
};
use mainstay_check::testing::{good_trace, renumber, site};
use mainstay_check::{Property, check, check_all};

type Trace = Vec<Event>;

/// Corrupts 1,500 good traces; where the corruption applies the checker must reject.
fn reject_corrupted<P: Property>(corrupt: fn(&mut Trace, &mut Rng) -> Option<()>) {
    let mut applied = 0;
    for seed in 0..1_500 {
        let mut trace = good_trace(seed);
        let mut rng = Rng::new(seed).stream("corrupt");
        if corrupt(&mut trace, &mut rng).is_some() {
            applied += 1;
            renumber(&mut trace);
            assert!(check::<P>(&trace).is_err(), "{} accepts corrupted seed {seed}", P::ID);
        }
    }
    assert!(applied >= 100, "{}: the corruption applied to {applied} traces only", P::ID);
}

/// The index of an event that fits, picked at random.
fn pick(trace: &Trace, rng: &mut Rng, fits: impl Fn(usize, &Event) -> bool) -> Option<usize> {
    let all = trace.iter().enumerate().filter(|(index, event)| fits(*index, event));
    let all: Vec<usize> = all.map(|(index, _)| index).collect();
    rng.pick(&all).copied()
}

fn failed(trace: &Trace, of: &Event) -> bool {
    let end = |event: &Event| {
        matches!(
            event.what,
            What::Process(ProcessWord::Crashed) | What::Membership(MembershipWord::Killed)
        )
    };
    trace.iter().any(|event| event.boot == of.boot && end(event))
}

fn is_total(event: &Event) -> bool {
    matches!(event.what, What::Group(GroupWord::Delivered { order: Order::Total, .. }))
}

/// Whether another boot did exactly the same.
fn shared(trace: &Trace, of: &Event) -> bool {
    trace.iter().any(|event| event.boot != of.boot && event.what == of.what)
}

/// Checks MB-1: an install dropped between two others.
#[test]
fn view_sequence() {
    reject_corrupted::<ViewSequence>(|trace, rng| {
        let of = |a: &Event, b: &Event| {
            a.boot == b.boot && matches!(b.what, What::Membership(MembershipWord::Installed { .. }))
        };
        let at = pick(trace, rng, |index, event| {
            matches!(event.what, What::Membership(MembershipWord::Installed { .. }))
                && trace[..index].iter().any(|other| of(event, other))
                && trace[index + 1..].iter().any(|other| of(event, other))
        })?;
        trace.remove(at);
        Some(())
    });
}

/// Checks MB-2: the site drops out of a view it installs.
#[test]
fn self_inclusion() {
    reject_corrupted::<SelfInclusion>(|trace, rng| {
        let at = pick(trace, rng, |_, event| {
            matches!(event.what, What::Membership(MembershipWord::Installed { .. }))
        })?;
        let node = trace[at].boot.node;
        if let What::Membership(MembershipWord::Installed { members, .. }) = &mut trace[at].what {
            members.retain(|site| site.node != node);
        }
        Some(())
    });
}

/// Checks MB-14: an old incarnation beside the new one.
#[test]
fn incarnations() {
    reject_corrupted::<Incarnations>(|trace, rng| {
        let at = pick(trace, rng, |_, event| {
            matches!(event.what, What::Membership(MembershipWord::Installed { .. }))
        })?;
        if let What::Membership(MembershipWord::Installed { members, .. }) = &mut trace[at].what {
            members.push(site('a', 90));
            members.push(site('a', 91));
        }
        Some(())
    });
}

/// Checks MB-30: members swapped at one of several sites.
#[test]
fn committed_prefix() {
    reject_corrupted::<CommittedPrefix>(|trace, rng| {
        let at = pick(trace, rng, |_, event| {
            matches!(&event.what, What::Membership(MembershipWord::Installed { members, .. }) if members.len() > 1)
                && shared(trace, event)
        })?;
        if let What::Membership(MembershipWord::Installed { members, .. }) = &mut trace[at].what {
            members.swap(0, 1);
        }
        Some(())
    });
}

/// Whether two boots that did the same both install a later view of the group.
fn leaves_view(trace: &Trace, of: &Event) -> bool {
    let What::Group(GroupWord::Delivered { group, view, .. }) = &of.what else { return false };
    let later = |boot| {
        let next = trace.iter().filter_map(|event| match &event.what {
            What::Group(GroupWord::Installed { group: other, view: next, .. })
                if event.boot == boot && other == group && next.number > view.number =>
            {
                Some(next.number)
            }
            _ => None,
        });
        next.min()
    };
    let restored = |boot| {
        let restored =
            |event: &Event| matches!(event.what, What::Group(GroupWord::Restored { .. }));
        trace.iter().any(|event| event.boot == boot && restored(event))
    };
    let mine = later(of.boot);
    let same = |event: &&Event| event.boot != of.boot && event.what == of.what;
    mine.is_some()
        && !restored(of.boot)
        && trace.iter().filter(same).any(|event| later(event.boot) == mine)
}

/// Checks MB-40: a delivery dropped at one that goes on with another.
#[test]
fn same_set() {
    reject_corrupted::<SameSet>(|trace, rng| {
        let at = pick(trace, rng, |_, event| leaves_view(trace, event))?;
        trace.remove(at);
        Some(())
    });
}

/// Checks MC-2: a delivery doubled.
#[test]
fn integrity() {
    reject_corrupted::<Integrity>(|trace, rng| {
        let at = pick(trace, rng, |_, event| {
            matches!(event.what, What::Group(GroupWord::Delivered { .. }))
        })?;
        trace.insert(at + 1, trace[at].clone());
        Some(())
    });
}

/// A delivery of a correct boot that took no state over and is not alone.
fn drop_correct_delivery(trace: &mut Trace, rng: &mut Rng, own: bool) -> Option<()> {
    let at = pick(trace, rng, |_, event| {
        let What::Group(GroupWord::Delivered { message, .. }) = &event.what else { return false };
        let restored = |other: &Event| {
            other.boot == event.boot
                && matches!(other.what, What::Group(GroupWord::Restored { .. }))
        };
        let correct = |other: &Event| {
            other.boot != event.boot && other.what == event.what && !failed(trace, other)
        };
        !failed(trace, event)
            && !trace.iter().any(restored)
            && trace.iter().any(correct)
            && (!own || message.sender.node == event.boot.node)
    })?;
    trace.remove(at);
    Some(())
}

/// Checks MC-3: a delivery dropped at one of several correct members.
#[test]
fn atomicity() {
    reject_corrupted::<Atomicity>(|trace, rng| drop_correct_delivery(trace, rng, false));
}

/// Checks MC-6: the delivery of its own message dropped at a correct sender.
#[test]
fn validity() {
    reject_corrupted::<Validity>(|trace, rng| drop_correct_delivery(trace, rng, true));
}

/// Checks MC-7: two deliveries of one sender swapped.
#[test]
fn fifo() {
    reject_corrupted::<FifoPerSender>(|trace, rng| {
        let key = |event: &Event| match &event.what {
            What::Group(GroupWord::Delivered { group, message, .. }) => {
                Some((event.boot, *group, message.sender))
            }
            _ => None,
        };
        let later = |index: usize| {
            let mine = key(&trace[index])?;
            (index + 1..trace.len()).find(|other| key(&trace[*other]) == Some(mine))
        };
        let at = pick(trace, rng, |index, _| later(index).is_some())?;
        let other = later(at)?;
        trace.swap(at, other);
        Some(())
    });
}

/// Checks MC-10: a delivery renumbered.
#[test]
fn total_order() {
    reject_corrupted::<TotalOrder>(|trace, rng| {
        let at = pick(trace, rng, |_, event| is_total(event) && shared(trace, event))?;
        if let What::Group(GroupWord::Delivered { position, .. }) = &mut trace[at].what {
            *position = position.map(|Position(place)| Position(place + 1));
        }
        Some(())
    });
}

/// Checks MC-16: the sender drops out of the view in which it is heard.
#[test]
fn failure_last() {
    reject_corrupted::<FailureLast>(|trace, rng| {
        let at = pick(trace, rng, |_, event| {
            matches!(event.what, What::Group(GroupWord::Delivered { .. }))
        })?;
        let What::Group(GroupWord::Delivered { group, view, message, .. }) = trace[at].what.clone()
        else {
            return None;
        };
        let boot = trace[at].boot;
        for event in trace.iter_mut().filter(|event| event.boot == boot) {
            match &mut event.what {
                What::Group(GroupWord::Installed { group: of, view: now, members, .. })
                    if *of == group && *now == view =>
                {
                    members.retain(|site| *site != message.sender);
                }
                _ => {}
            }
        }
        Some(())
    });
}

/// Checks MC-17: a delivery in another view.
#[test]
fn same_view() {
    reject_corrupted::<SameView>(|trace, rng| {
        let at = pick(trace, rng, |_, event| {
            matches!(event.what, What::Group(GroupWord::Delivered { .. }))
        })?;
        if let What::Group(GroupWord::Delivered { view, .. }) = &mut trace[at].what {
            view.number += 1;
        }
        Some(())
    });
}

/// Checks MC-21: an acknowledgement of a place beyond the next cut.
#[test]
fn acked_in_every_later_cut() {
    reject_corrupted::<AckedInEveryLaterCut>(|trace, rng| {
        let lost = trace
            .iter()
            .any(|event| matches!(event.what, What::Group(GroupWord::MaybeLost { .. })));
        let at = pick(trace, rng, |index, event| {
            let What::Group(GroupWord::Acknowledged { group: of, level, .. }) = &event.what else {
                return false;
            };
            let later = |other: &Event| matches!(&other.what, What::Group(GroupWord::Installed { group, .. }) if group == of);
            !lost && *level != mainstay_base::Level::Delivered && trace[index..].iter().any(later)
        })?;
        if let What::Group(GroupWord::Acknowledged { position, .. }) = &mut trace[at].what {
            *position = Position(position.0 + 10_000);
        }
        Some(())
    });
}

/// Corruption of any kind never panics a checker, and is mostly found.
#[test]
fn arbitrary_corruption_is_judged() {
    let mut found = 0;
    for seed in 0..600 {
        let mut trace = good_trace(seed);
        let mut rng = Rng::new(seed).stream("any");
        let at = rng.below(trace.len() as u64) as usize;
        let other = rng.below(trace.len() as u64) as usize;
        match seed % 3 {
            0 => trace.swap(at, other),
            1 => drop(trace.remove(at)),
            _ => trace.insert(other, trace[at].clone()),
        }
        renumber(&mut trace);
        found += usize::from(!check_all(&trace).is_empty());
    }
    assert!(found >= 300, "only {found} of 600 corruptions were found");
}
