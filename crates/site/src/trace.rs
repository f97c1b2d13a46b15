//! What the core says, in the words of the properties: the one place where outputs become trace events.

use std::collections::BTreeMap;

use mainstay_base::trace::{GroupWord, MembershipWord, What};
use mainstay_base::{GroupId, Level, MessageId, Order, Position, SiteId};
use mainstay_membership::View;
use mainstay_multicast::{Delivery, Event, FIFO};

use crate::core::{Core, Output};

/// Follows the outputs of one boot's [`Core`] and says what of them belongs into its trace. `Started` and `Crashed` are
/// the host's to record; it numbers the events, too.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    /// This boot as its casts are named.
    site: Option<SiteId>,
    groups: BTreeMap<GroupId, Standing>,
}

#[derive(Clone, Debug, Default)]
struct Standing {
    /// What is delivered here, or taken over as state, goes up to here.
    position: Position,
    /// The view it is in, while its state is on the way.
    joining: Option<What>,
}

impl Recorder {
    /// The recorder of a boot that has said nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next output of `core`, just polled, and hands what it stands for to `tell`.
    pub fn observe(&mut self, core: &Core, output: &Output, tell: &mut impl FnMut(What)) {
        match output {
            Output::Killed => tell(What::Membership(MembershipWord::Killed)),
            Output::View { view, member: true } => tell(self.installed(core, view)),
            Output::Cast { group, result: Ok(message), .. } => {
                tell(What::Group(GroupWord::Cast {
                    group: *group,
                    message: *message,
                    order: order(*message),
                }));
            }
            Output::Group { group, event } => self.on_group(core, *group, event, tell),
            _ => {}
        }
    }

    fn installed(&mut self, core: &Core, view: &View) -> What {
        self.site = view.member(*core.me()).map(|member| member.site);
        let members = view.members.iter().map(|member| member.site).collect();
        let roster = view.roster.iter().copied().collect();
        What::Membership(MembershipWord::Installed { view: view.id, members, roster })
    }

    fn on_group(
        &mut self,
        core: &Core,
        group: GroupId,
        event: &Event,
        tell: &mut impl FnMut(What),
    ) {
        let standing = self.groups.entry(group).or_default();
        match event {
            Event::Deliver(batch) => standing.delivered(group, batch, tell),
            Event::View(view) => {
                let (members, position) = (view.members.clone(), view.start);
                let installed =
                    What::Group(GroupWord::Installed { group, view: view.id, members, position });
                // A joiner takes part when it first delivers, be it some views later: until then the group may send it
                // another state.
                if core.group(group).is_some_and(|group| group.status().whole) {
                    if standing.joining.take().is_some() {
                        // Its state came within the view before, and nothing after it.
                        tell(What::Group(GroupWord::Restored {
                            group,
                            position: standing.position,
                        }));
                    }
                    tell(installed);
                } else {
                    standing.joining = Some(installed);
                }
            }
            Event::Restored { from_checkpoint, checkpoint, entries } => {
                let start = if *from_checkpoint { *checkpoint } else { Position::ZERO };
                standing.position = last(entries).unwrap_or(start);
                tell(What::Group(GroupWord::Restored { group, position: standing.position }));
            }
            Event::RestoreChunk { position, last: true, .. } => standing.position = *position,
            Event::Reached { level, upto, position } if *level > Level::Delivered => {
                if let Some(sender) = self.site {
                    let message = MessageId { sender, sequence: *upto };
                    let (position, level) = (*position, *level);
                    tell(What::Group(GroupWord::Acknowledged { group, message, position, level }));
                }
            }
            Event::MaybeLost { from } if standing.joining.is_none() => {
                tell(What::Group(GroupWord::MaybeLost { group, from: *from }));
            }
            _ => {}
        }
    }
}

impl Standing {
    fn delivered(&mut self, group: GroupId, batch: &[Delivery], tell: &mut impl FnMut(What)) {
        if let Some(installed) = self.joining.take() {
            tell(installed);
            tell(What::Group(GroupWord::Restored { group, position: self.position }));
        }
        self.position = last(batch).unwrap_or(self.position);
        for &Delivery { message, order, position, view, .. } in batch {
            tell(What::Group(GroupWord::Delivered { group, view, message, order, position }));
        }
    }
}

/// The last position of a batch, if it has any.
fn last(batch: &[Delivery]) -> Option<Position> {
    batch.iter().rev().find_map(|delivery| delivery.position)
}

/// The order that a message was cast for is a part of its name.
fn order(message: MessageId) -> Order {
    if message.sequence & FIFO == 0 { Order::Total } else { Order::Fifo }
}
