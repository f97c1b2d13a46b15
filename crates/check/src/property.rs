//! Properties, their violations, and running a set of checkers over one trace.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_base::trace::{Event, GroupWord, MembershipWord, ProcessWord, What};
use mainstay_base::{BootId, GroupId, ViewId};

use crate::properties::{
    AckedInEveryLaterCut, Atomicity, CommittedPrefix, FailureLast, FifoPerSender, Incarnations,
    Integrity, Numbering, SameSet, SameView, SelfInclusion, TotalOrder, Validity, ViewSequence,
};

/// Two or more events that cannot both be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The property that is broken, as the specification names it.
    pub id: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// The events that contradict, each by its boot and its number there; the later one first.
    pub events: Vec<(BootId, u64)>,
}

/// A property of traces: stateful, fed one event after the other.
///
/// The events of one boot come in their order. Those of different boots may be merged in any order that puts a view,
/// at one boot, where that boot installed it: no checker compares moments of different boots.
pub trait Property: Default {
    /// The id in the specification.
    const ID: &'static str;
    /// What the property says, in one line.
    const SAYS: &'static str;

    /// Judges the next event of the trace.
    ///
    /// # Errors
    /// If the event contradicts an earlier one.
    fn observe(&mut self, event: &Event) -> Result<(), Violation>;

    /// Judges what can be judged only at the end. For *finish* properties the trace must be quiescent: every message
    /// has arrived where it can arrive.
    ///
    /// # Errors
    /// If the trace as a whole breaks the property.
    fn finish(&mut self) -> Result<(), Violation>;
}

/// A [`Property`] behind a pointer, so that a set of them can run over one trace.
trait Checker {
    fn observe(&mut self, event: &Event) -> Result<(), Violation>;
    fn finish(&mut self) -> Result<(), Violation>;
}

impl<P: Property> Checker for P {
    fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        Property::observe(self, event)
    }

    fn finish(&mut self) -> Result<(), Violation> {
        Property::finish(self)
    }
}

/// A set of checkers that runs along with a system and keeps the first violation of each property.
#[derive(Default)]
pub struct Checkers {
    running: Vec<Box<dyn Checker>>,
    found: Vec<Violation>,
}

impl Checkers {
    /// No checker.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// One checker of each property.
    #[must_use]
    pub fn all() -> Self {
        Self::local().settled().uniform()
    }

    /// The properties that hold for members that fail as well as for survivors, whatever the delivery level.
    fn local() -> Self {
        Self::local_with(Integrity::default())
    }

    pub(crate) fn local_with(integrity: Integrity) -> Self {
        Self::none()
            .with(Numbering::default())
            .with(ViewSequence::default())
            .with(SelfInclusion::default())
            .with(Incarnations::default())
            .with(CommittedPrefix::default())
            .with(SameSet::default())
            .with(integrity)
            .with(FifoPerSender::default())
            .with(FailureLast::default())
            .with(AckedInEveryLaterCut::default())
    }

    /// With those that hold when nothing is under way any more.
    pub(crate) fn settled(self) -> Self {
        self.with(Atomicity::default()).with(Validity::default())
    }

    /// With those in which the deliveries of members that fail count only if the delivery is uniform.
    pub(crate) fn uniform(self) -> Self {
        self.with(TotalOrder::default()).with(SameView::default())
    }

    /// This set and one more checker.
    #[must_use]
    pub fn with(mut self, property: impl Property + 'static) -> Self {
        self.running.push(Box::new(property));
        self
    }

    /// Shows the next event to all. A checker that has found a violation looks no further.
    ///
    /// Returns how many violations there are so far.
    pub fn observe(&mut self, event: &Event) -> usize {
        let found = &mut self.found;
        self.running.retain_mut(|checker| match checker.observe(event) {
            Ok(()) => true,
            Err(violation) => {
                found.push(violation);
                false
            }
        });
        self.found.len()
    }

    /// The violations so far, in the order in which they were found.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.found
    }

    /// Ends the trace: all violations, at most one of each property.
    #[must_use]
    pub fn finish(mut self) -> Vec<Violation> {
        for checker in &mut self.running {
            if let Err(violation) = checker.finish() {
                self.found.push(violation);
            }
        }
        self.found
    }
}

/// Runs one checker over a whole trace.
///
/// # Errors
/// The first violation.
pub fn check<P: Property>(trace: &[Event]) -> Result<(), Violation> {
    check_with(P::default(), trace)
}

/// Runs `property` over a whole trace.
///
/// # Errors
/// The first violation.
pub fn check_with(mut property: impl Property, trace: &[Event]) -> Result<(), Violation> {
    trace.iter().try_for_each(|event| Property::observe(&mut property, event))?;
    Property::finish(&mut property)
}

/// Runs every checker over a whole, quiescent trace: at most one violation of each property, none if all is well.
///
/// What a member delivered counts even if the member failed at once (uniform delivery). For groups that deliver at
/// level `Delivered` use [`check_survivors`].
#[must_use]
pub fn check_all(trace: &[Event]) -> Vec<Violation> {
    run(Checkers::all(), trace)
}

/// As [`check_all`], for groups that deliver before a majority has the message: what a member that failed delivered in
/// the last view it installed is not held against the others (MC-10, MC-17).
#[must_use]
pub fn check_survivors(trace: &[Event]) -> Vec<Violation> {
    let mut found = run(Checkers::local().settled(), trace);
    let seen = without_last_deliveries_of_failed(trace);
    found.extend(run(Checkers::none().uniform(), &seen));
    found
}

/// One checker after the other, so that only one of them holds what it remembers of a long trace.
pub(crate) fn run<'a>(
    checkers: Checkers,
    trace: impl IntoIterator<Item = &'a Event> + Clone,
) -> Vec<Violation> {
    let judge = |mut checker: Box<dyn Checker>| {
        let mut events = trace.clone().into_iter();
        events.try_for_each(|event| checker.observe(event)).and_then(|()| checker.finish()).err()
    };
    checkers.running.into_iter().filter_map(judge).collect()
}

pub(crate) fn without_last_deliveries_of_failed(trace: &[Event]) -> Vec<Event> {
    let mut failed: BTreeSet<BootId> = BTreeSet::new();
    let mut last: BTreeMap<(BootId, GroupId), ViewId> = BTreeMap::new();
    for event in trace {
        match &event.what {
            What::Process(ProcessWord::Crashed) | What::Membership(MembershipWord::Killed) => {
                failed.insert(event.boot);
            }
            What::Group(GroupWord::Installed { group, view, .. }) => {
                last.insert((event.boot, *group), *view);
            }
            _ => {}
        }
    }
    let tentative = |event: &&Event| match &event.what {
        What::Group(GroupWord::Delivered { group, view, .. }) => {
            !(failed.contains(&event.boot) && last.get(&(event.boot, *group)) == Some(view))
        }
        _ => true,
    };
    trace.iter().filter(tentative).cloned().collect()
}
