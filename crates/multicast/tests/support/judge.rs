//! The checkers, where a member that failed may have delivered alone.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_base::trace::{Event, GroupWord, MembershipWord, ProcessWord, What};
use mainstay_base::{BootId, ViewId};
use mainstay_check::properties::Validity;
use mainstay_check::{Property, Violation, check, check_survivors};

/// As [`check_survivors`]; and what a member that failed delivered last, at whatever position, is no evidence of where
/// the others should have delivered it (MC-6).
pub fn survivors(trace: &[Event]) -> Vec<Violation> {
    let mut found = check_survivors(trace);
    found.retain(|violation| violation.id != Validity::ID);
    found.extend(check::<Validity>(&without_tentative(trace)).err());
    found
}

fn without_tentative(trace: &[Event]) -> Vec<Event> {
    let mut failed: BTreeSet<BootId> = BTreeSet::new();
    let mut last: BTreeMap<BootId, ViewId> = BTreeMap::new();
    for event in trace {
        match &event.what {
            What::Process(ProcessWord::Crashed) | What::Membership(MembershipWord::Killed) => {
                failed.insert(event.boot);
            }
            What::Group(GroupWord::Installed { view, .. }) => {
                last.insert(event.boot, *view);
            }
            _ => {}
        }
    }
    let stays = |event: &&Event| match &event.what {
        What::Group(GroupWord::Delivered { view, .. }) => {
            !failed.contains(&event.boot) || last.get(&event.boot) != Some(view)
        }
        _ => true,
    };
    trace.iter().filter(stays).cloned().collect()
}
