//! MC-17: a message belongs to one view.

use std::collections::BTreeMap;

use mainstay_base::trace::{Event, GroupWord, What};
use mainstay_base::{Position, ViewId};

use crate::context::{EventRef, Key, Losses, Sites, name, show, violation};
use crate::property::{Property, Violation};

/// MC-17: all that deliver a message do so in the same view of the group, and each in the view it is in.
#[derive(Default)]
pub struct SameView {
    sites: Sites,
    losses: Losses,
    /// The first delivery of each message in each view.
    seen: BTreeMap<Key, Vec<(ViewId, Option<Position>, EventRef)>>,
}

impl Property for SameView {
    const ID: &'static str = "MC-17";
    const SAYS: &'static str =
        "all that deliver a message deliver it in the same view of the group";

    fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        self.losses.observe(event, &self.sites);
        if let What::Group(GroupWord::Delivered { group, view, message, position, .. }) =
            &event.what
        {
            match self.sites.group_view(event.boot, *group) {
                Some(now) if now.view == *view => {}
                Some(now) => {
                    let text = format!(
                        "{} delivered in {view:?} by a member that is in {:?}",
                        show(*message),
                        now.view
                    );
                    return Err(violation(Self::ID, text, [name(event), now.event]));
                }
                None => {
                    let text = format!("{} delivered before any view of the group", show(*message));
                    return Err(violation(Self::ID, text, [name(event)]));
                }
            }
            let views = self.seen.entry((*group, *message)).or_default();
            if !views.iter().any(|(known, ..)| known == view) {
                views.push((*view, *position, name(event)));
            }
        }
        self.sites.observe(event);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Violation> {
        for ((group, message), views) in &mut self.seen {
            views.sort_unstable_by_key(|(view, ..)| *view);
            let mut earlier: Option<(ViewId, Option<Position>, EventRef)> = None;
            for (view, position, at) in views {
                if let Some((before, place, first)) = earlier {
                    // A FIFO message has no place of its own: any loss may have given it up.
                    let place = place.unwrap_or(Position(u64::MAX));
                    let lost = view.number > before.number
                        && self.losses.gave_up(*group, place, before.number);
                    if !lost {
                        let text =
                            format!("{} delivered in {view:?} and in {before:?}", show(*message));
                        return Err(violation(Self::ID, text, [*at, first]));
                    }
                }
                earlier = Some((*view, *position, *at));
            }
        }
        Ok(())
    }
}
