//! The traces that real processes wrote of themselves, put together and judged.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_base::trace::{Event, GroupWord, MembershipWord, ProcessWord, What};
use mainstay_base::{BootId, GroupId, Instant, Order, SiteId, ViewId};

use crate::properties::{Atomicity, Integrity, PROPERTIES, Validity};
use crate::property::{Checkers, Property, Violation, run, without_last_deliveries_of_failed};

/// How far the trace of a boot goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum End {
    /// To the end: all that the boot did is there.
    Whole,
    /// The process was killed, or could not write on: what it did last may be missing.
    #[default]
    Cut,
}

/// What became of a property.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The run has it, as far as its traces go.
    Holds,
    /// Two events or more contradict it.
    Broken(Violation),
    /// It holds only when nothing is under way any more, and nobody said so.
    NotJudged,
}

/// A property, and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judged {
    /// The id in the specification.
    pub id: &'static str,
    /// What it says, in one line.
    pub says: &'static str,
    /// What became of it.
    pub verdict: Verdict,
}

/// A run of real processes: for each boot the events that it recorded, as far as they go.
///
/// Groups deliver at level `Majority` or above: what a member delivered in total order counts, also if it failed at once.
/// What a boot did after its trace ends is unknown and held against nobody: a cast of it that others delivered may be
/// missing, and nothing is expected of it. Missing are only last events: a gap is as suspect as ever.
#[derive(Clone, Debug, Default)]
pub struct Run {
    events: Vec<Event>,
    boots: BTreeMap<BootId, Boot>,
    settled: bool,
}

#[derive(Clone, Debug, Default)]
struct Boot {
    end: End,
    last: u64,
    at: Instant,
    site: Option<SiteId>,
    killed: bool,
    /// It has installed a view of a group.
    takes_part: bool,
}

impl Run {
    /// Of no boot.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the events of one boot, in their order, after those that were added before. `end` is how they all end.
    pub fn record(&mut self, events: impl IntoIterator<Item = Event>, end: End) {
        for event in events {
            let known = self.boots.entry(event.boot).or_default();
            (known.end, known.last, known.at) = (end, event.number, event.at);
            match &event.what {
                What::Membership(MembershipWord::Killed) => known.killed = true,
                What::Group(GroupWord::Installed { .. }) => known.takes_part = true,
                What::Membership(MembershipWord::Installed { members, .. })
                    if known.site.is_none() =>
                {
                    let own = |site: &SiteId| site.node == event.boot.node;
                    known.site = members.iter().copied().find(own);
                }
                _ => {}
            }
            self.events.push(event);
        }
    }

    /// Says that at the end nothing was under way: every message had arrived where it could when the first node was stopped.
    /// Only then MC-3 and MC-6 can be judged, for what was said until then.
    #[must_use]
    pub fn settled(mut self, yes: bool) -> Self {
        self.settled = yes;
        self
    }

    /// All events, boot by boot.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// How many boots there are, and how many of them are cut.
    #[must_use]
    pub fn boots(&self) -> (usize, usize) {
        let cut = self.boots.values().filter(|boot| boot.end == End::Cut);
        (self.boots.len(), cut.count())
    }

    /// Every property, in the order of [`PROPERTIES`].
    #[must_use]
    pub fn judge(&self) -> Vec<Judged> {
        let mut found = BTreeMap::new();
        for violation in self.violations() {
            found.entry(violation.id).or_insert(violation);
        }
        let mut verdict = |id| match found.remove(id) {
            Some(violation) => Verdict::Broken(violation),
            None if !self.settled && [Atomicity::ID, Validity::ID].contains(&id) => {
                Verdict::NotJudged
            }
            None => Verdict::Holds,
        };
        PROPERTIES.map(|(id, says)| Judged { id, says, verdict: verdict(id) }).into()
    }

    /// Messages in FIFO order and those in total order are two streams of one sender, and only the latter are delivered
    /// uniformly: each is judged by itself.
    fn violations(&self) -> Vec<Violation> {
        let ends = self.ends();
        let all = || self.events.iter().chain(&ends);
        let of = |wanted: Order| {
            move |event: &&Event| match &event.what {
                What::Group(GroupWord::Cast { order, .. })
                | What::Group(GroupWord::Delivered { order, .. }) => *order == wanted,
                _ => true,
            }
        };
        let is_fifo = |event: &Event| {
            matches!(
                event.what,
                What::Group(GroupWord::Cast { order: Order::Fifo, .. })
                    | What::Group(GroupWord::Delivered { order: Order::Fifo, .. })
            )
        };
        let mut found = run(self.local().uniform(), all().filter(of(Order::Total)));
        let late = if self.settled { self.late() } else { BTreeSet::new() };
        let settled = |order| {
            all().filter(of(order)).filter(|event| !late.contains(&(event.boot, event.number)))
        };
        if self.settled {
            found.extend(run(Checkers::none().settled(), settled(Order::Total)));
        }
        if self.events.iter().any(is_fifo) {
            let fifo: Vec<Event> = all().filter(of(Order::Fifo)).cloned().collect();
            found.extend(run(self.local(), &fifo));
            if self.settled {
                found.extend(run(Checkers::none().settled(), settled(Order::Fifo)));
            }
            let seen = without_last_deliveries_of_failed(&fifo);
            found.extend(run(Checkers::none().uniform(), &seen));
        }
        found
    }

    fn local(&self) -> Checkers {
        let whole = self.boots.values().filter(|boot| boot.end == End::Whole);
        let integrity = Integrity::of_whole(whole.filter_map(|boot| boot.site).collect());
        Checkers::local_with(integrity)
    }

    /// Casts and deliveries that came when the first node had been stopped for good: the others notice, and what they say in a view without
    /// it may be under way when they are stopped themselves.
    fn late(&self) -> BTreeSet<(BootId, u64)> {
        let mut views = BTreeMap::<(BootId, GroupId), u64>::new();
        let mut spoken = Vec::new();
        for event in &self.events {
            match &event.what {
                What::Group(GroupWord::Installed { group, view, .. }) => {
                    views.insert((event.boot, *group), view.number);
                }
                What::Group(GroupWord::Cast { group, .. })
                | What::Group(GroupWord::Delivered { group, .. }) => {
                    let view = views.get(&(event.boot, *group)).copied().unwrap_or_default();
                    spoken.push((*group, view, (event.boot, event.number)));
                }
                _ => {}
            }
        }
        // The last boot of each node, if it was stopped and did not fail.
        let mut last = BTreeMap::new();
        for (id, boot) in self.boots.iter().filter(|(_, boot)| boot.takes_part) {
            let Some(site) = boot.site else { continue };
            let newest = last.entry(id.node).or_insert((site.incarnation, *id, boot));
            if site.incarnation > newest.0 {
                *newest = (site.incarnation, *id, boot);
            }
        }
        let stopped =
            last.into_values().filter(|(_, _, boot)| boot.end == End::Whole && !boot.killed);
        let stopped: Vec<BootId> = stopped.map(|(_, id, _)| id).collect();
        let settled_in = |group: GroupId| {
            stopped.iter().filter_map(|boot| views.get(&(*boot, group)).copied()).min()
        };
        let is_late =
            |(group, view): (GroupId, u64)| settled_in(group).is_some_and(|settled| view > settled);
        spoken.into_iter().filter(|it| is_late((it.0, it.1))).map(|it| it.2).collect()
    }

    /// The crash of every boot of which nothing is expected: those that are cut or were killed, those that the others went
    /// on without, and joiners that had delivered nothing yet.
    fn ends(&self) -> Vec<Event> {
        let lasting = self.last_members();
        let lasts = |boot: &Boot| {
            boot.end == End::Whole
                && !boot.killed
                && boot.takes_part
                && boot.site.is_some_and(|site| lasting.contains(&site))
        };
        let crash = |(boot, known): (&BootId, &Boot)| {
            let number = known.last.saturating_add(1);
            Event { boot: *boot, number, at: known.at, what: What::Process(ProcessWord::Crashed) }
        };
        self.boots.iter().filter(|(_, boot)| !lasts(boot)).map(crash).collect()
    }

    /// The members of the last view that anybody installed.
    fn last_members(&self) -> BTreeSet<SiteId> {
        let none = Vec::new();
        let mut last = (ViewId::NONE.number, &none);
        for event in &self.events {
            if let What::Membership(MembershipWord::Installed { view, members, .. }) = &event.what
                && view.number > last.0
            {
                last = (view.number, members);
            }
        }
        last.1.iter().copied().collect()
    }
}
