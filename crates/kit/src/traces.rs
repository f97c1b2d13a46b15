//! What the nodes of a run recorded of themselves, judged by the checkers.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use mainstay::{Status, TraceSink};
use mainstay_base::BootId;
use mainstay_base::trace::{Event, MembershipWord, What};
use mainstay_check::{End, Report, Run, Verdict};

/// The traces of all boots of a run: the sink of all nodes ([`Config::trace`](mainstay::Config::trace)).
#[derive(Default, Debug)]
pub struct Traces(Mutex<BTreeMap<BootId, Vec<Event>>>);

impl TraceSink for Traces {
    fn record(&self, events: Vec<Event>) {
        let mut traces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            traces.entry(event.boot).or_default().push(event);
        }
    }
}

impl Traces {
    /// Checks every property of the membership and the multicast, in a run that has come to rest with these nodes.
    ///
    /// # Errors
    /// What is violated, with the events.
    pub fn judge(&self, statuses: &[Status]) -> Result<(), String> {
        let boot = |status: &Status| BootId { node: status.site.node, nonce: status.site.nonce };
        let live: Vec<BootId> = statuses.iter().map(boot).collect();
        let mut run = Run::new().settled(true);
        for (boot, events) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let killed = events
                .last()
                .is_some_and(|event| event.what == What::Membership(MembershipWord::Killed));
            let end = if killed || live.contains(boot) { End::Whole } else { End::Cut };
            run.record(events.iter().cloned(), end);
        }
        let broken = run.judge().into_iter().filter_map(|it| match it.verdict {
            Verdict::Broken(violation) => Some(violation),
            _ => None,
        });
        let broken: Vec<_> = broken.collect();
        if run.boots().0 < live.len() {
            return Err("a node recorded nothing".to_owned());
        }
        let report = Report::new(run.events());
        if broken.is_empty() { Ok(()) } else { Err(report.render(&broken)) }
    }
}
