//! MB-40, virtual synchrony proper: who goes from one view to the next together has delivered the same.

use std::collections::BTreeMap;

use mainstay_base::trace::{Event, GroupWord, What};
use mainstay_base::{BootId, GroupId, MessageId, Position, ViewId};

use crate::context::{EventRef, name, show, violation};
use crate::property::{Property, Violation};

/// MB-40: members that install both view i and the next view of a group delivered the same set of messages in view i.
///
/// A member that took over state inside view i is judged from the position of that state on.
#[derive(Default)]
pub struct SameSet {
    current: BTreeMap<(BootId, GroupId), Stay>,
    passed: BTreeMap<(GroupId, ViewId, ViewId), Vec<Stay>>,
}

/// What one member did in one view of a group.
#[derive(Clone)]
struct Stay {
    view: ViewId,
    delivered: BTreeMap<MessageId, (Option<Position>, EventRef)>,
    /// State taken over inside the view, as of a position.
    restored: Option<Position>,
    /// The event and the position that ended the stay.
    end: EventRef,
    cut: Position,
}

impl Stay {
    /// Whether state taken over stands for a message that was delivered at `position` elsewhere.
    fn covers(&self, position: Option<Position>) -> bool {
        match (self.restored, position) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(restored), Some(position)) => position <= restored,
        }
    }

    fn check_has_all_of(&self, other: &Self) -> Result<(), Violation> {
        for (message, (position, delivery)) in &other.delivered {
            if !self.delivered.contains_key(message) && !self.covers(*position) {
                let text = format!(
                    "left {:?} without {}, which another member delivered in it",
                    self.view,
                    show(*message)
                );
                return Err(violation(SameSet::ID, text, [self.end, *delivery]));
            }
        }
        Ok(())
    }
}

impl SameSet {
    fn on_installed(
        &mut self,
        event: &Event,
        group: GroupId,
        view: ViewId,
        position: Position,
    ) -> Result<(), Violation> {
        let new = Stay {
            view,
            delivered: BTreeMap::new(),
            restored: None,
            end: name(event),
            cut: position,
        };
        let Some(mut old) = self.current.insert((event.boot, group), new) else { return Ok(()) };
        old.end = name(event);
        old.cut = position;
        let others = self.passed.entry((group, old.view, view)).or_default();
        for other in others.iter() {
            old.check_has_all_of(other)?;
            other.check_has_all_of(&old)?;
            if old.cut != other.cut {
                let text = format!(
                    "{view:?} begins at position {} here and at {} elsewhere",
                    old.cut.0, other.cut.0
                );
                return Err(violation(Self::ID, text, [old.end, other.end]));
            }
        }
        others.push(old);
        Ok(())
    }
}

impl Property for SameSet {
    const ID: &'static str = "MB-40";
    const SAYS: &'static str =
        "members that install both view i and the next one delivered the same messages in view i";

    fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        match &event.what {
            What::Group(GroupWord::Installed { group, view, position, .. }) => {
                self.on_installed(event, *group, *view, *position)?;
            }
            What::Group(GroupWord::Delivered { group, message, position, .. }) => {
                if let Some(stay) = self.current.get_mut(&(event.boot, *group)) {
                    stay.delivered.entry(*message).or_insert_with(|| (*position, name(event)));
                }
            }
            What::Group(GroupWord::Restored { group, position }) => {
                if let Some(stay) = self.current.get_mut(&(event.boot, *group)) {
                    stay.restored = stay.restored.max(Some(*position));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Violation> {
        Ok(())
    }
}
