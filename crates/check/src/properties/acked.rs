//! MC-21 as the levels promise it: what was acknowledged at a majority stays.

use std::collections::BTreeMap;

use mainstay_base::trace::{Event, GroupWord, What};
use mainstay_base::{BootId, GroupId, Level, MessageId, Position, ViewId};

use crate::context::{EventRef, Losses, Sites, name, show, violation};
use crate::property::{Property, Violation};

/// MC-21: a message acknowledged at level `Majority` or above is in every later cut. Whoever installs a later view of
/// the group finds the cut at or past its position, and has that message there once it gets so far.
///
/// Only a loss that an operator accepted after the acknowledgement excuses it.
#[derive(Default)]
pub struct AckedInEveryLaterCut {
    sites: Sites,
    losses: Losses,
    acked: Vec<Acked>,
    members: BTreeMap<(BootId, GroupId), Member>,
}

#[derive(Clone, Copy)]
struct Acked {
    group: GroupId,
    message: MessageId,
    position: Position,
    view: ViewId,
    event: EventRef,
}

#[derive(Default)]
struct Member {
    installed: Vec<(u64, Position, EventRef)>,
    /// Up to here state was taken over.
    covered: Position,
    /// What was delivered, by position and by message.
    at: BTreeMap<Position, Vec<(MessageId, ViewId, EventRef)>>,
    of: BTreeMap<MessageId, Vec<(Position, ViewId, EventRef)>>,
}

impl AckedInEveryLaterCut {
    fn check_member(&self, acked: &Acked, member: &Member) -> Result<(), Violation> {
        let fail = |text: String, at: EventRef| Err(violation(Self::ID, text, [at, acked.event]));
        let what = format!("{} acknowledged at position {}", show(acked.message), acked.position.0);
        let later = member.installed.iter().filter(|(number, _, _)| *number > acked.view.number);
        let mut installs = false;
        for (number, cut, at) in later {
            installs = true;
            if *cut < acked.position {
                return fail(format!("{what}, but view {number} begins at {}", cut.0), *at);
            }
        }
        if !installs {
            return Ok(());
        }
        let era = self.losses.era(acked.group, acked.position, acked.view);
        let same = |view: &ViewId| self.losses.era(acked.group, acked.position, *view) == era;
        let mut has = member.covered >= acked.position;
        let here = member.at.get(&acked.position).into_iter().flatten();
        for (message, _, at) in here.filter(|(_, view, _)| same(view)) {
            if *message != acked.message {
                return fail(format!("{what}, where {} was delivered", show(*message)), *at);
            }
            has = true;
        }
        let elsewhere = member.of.get(&acked.message).into_iter().flatten();
        let mut elsewhere =
            elsewhere.filter(|(position, view, _)| *position != acked.position && same(view));
        if let Some((position, _, at)) = elsewhere.next() {
            return fail(format!("{what}, but delivered at {}", position.0), *at);
        }
        if has {
            return Ok(());
        }
        let mut beyond = member.at.range(acked.position.next()..).flat_map(|(_, all)| all);
        match beyond.find(|(_, view, _)| same(view)) {
            Some((_, _, at)) => fail(format!("{what}, passed over by a member"), *at),
            None => Ok(()),
        }
    }

    fn check_pair(&self, one: &Acked, other: &Acked) -> Result<(), Violation> {
        let era = |acked: &Acked| self.losses.era(acked.group, acked.position, acked.view);
        let message = one.message == other.message;
        let place = one.position == other.position;
        if one.group != other.group || message == place || era(one) != era(other) {
            return Ok(());
        }
        let text = format!(
            "{} acknowledged at position {} and {} at {}",
            show(one.message),
            one.position.0,
            show(other.message),
            other.position.0
        );
        Err(violation(Self::ID, text, [one.event, other.event]))
    }

    fn on_acknowledged(
        &mut self,
        event: &Event,
        group: GroupId,
        message: MessageId,
        position: Position,
    ) {
        if let Some(now) = self.sites.group_view(event.boot, group) {
            let view = now.view;
            self.acked.push(Acked { group, message, position, view, event: name(event) });
        }
    }
}

impl Property for AckedInEveryLaterCut {
    const ID: &'static str = "MC-21";
    const SAYS: &'static str =
        "a message acknowledged at majority, safe or disk is at its position in every later cut";

    fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        self.losses.observe(event, &self.sites);
        self.sites.observe(event);
        match &event.what {
            What::Group(GroupWord::Acknowledged { group, message, position, level })
                if *level >= Level::Majority =>
            {
                self.on_acknowledged(event, *group, *message, *position);
            }
            What::Group(GroupWord::Installed { group, view, position, .. }) => {
                let member = self.members.entry((event.boot, *group)).or_default();
                if member.installed.is_empty() {
                    member.covered = member.covered.max(*position);
                }
                member.installed.push((view.number, *position, name(event)));
            }
            What::Group(GroupWord::Restored { group, position }) => {
                let member = self.members.entry((event.boot, *group)).or_default();
                member.covered = member.covered.max(*position);
            }
            What::Group(GroupWord::Delivered {
                group,
                view,
                message,
                position: Some(position),
                ..
            }) => {
                let member = self.members.entry((event.boot, *group)).or_default();
                member.at.entry(*position).or_default().push((*message, *view, name(event)));
                member.of.entry(*message).or_default().push((*position, *view, name(event)));
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Violation> {
        let mut places: BTreeMap<(GroupId, Position), Acked> = BTreeMap::new();
        let mut messages: BTreeMap<(GroupId, MessageId), Acked> = BTreeMap::new();
        for acked in &self.acked {
            if let Some(other) = places.insert((acked.group, acked.position), *acked) {
                self.check_pair(acked, &other)?;
            }
            if let Some(other) = messages.insert((acked.group, acked.message), *acked) {
                self.check_pair(acked, &other)?;
            }
            if self.losses.gave_up(acked.group, acked.position, acked.view.number) {
                continue;
            }
            for ((_, group), member) in &self.members {
                if *group == acked.group {
                    self.check_member(acked, member)?;
                }
            }
        }
        Ok(())
    }
}
