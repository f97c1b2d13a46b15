//! MC-16: the failure of a site is the last that is heard of it.

use mainstay_base::trace::{Event, GroupWord, What};

use crate::context::{Sites, name, show, violation};
use crate::property::{Property, Violation};

/// MC-16: once a member has installed a view of a group without a site, it delivers nothing of that site in the group.
///
/// Only members of a group cast in it, so a sender must be in the view its message is delivered in.
#[derive(Default)]
pub struct FailureLast {
    sites: Sites,
}

impl Property for FailureLast {
    const ID: &'static str = "MC-16";
    const SAYS: &'static str =
        "after a view of the group without a site nothing of that site is delivered in it";

    fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        if let What::Group(GroupWord::Delivered { group, message, .. }) = &event.what
            && let Some(now) = self.sites.group_view(event.boot, *group)
            && !now.members.contains(&message.sender)
        {
            let text = format!(
                "{} delivered in {:?}, of which its sender is no member",
                show(*message),
                now.view
            );
            return Err(violation(Self::ID, text, [name(event), now.event]));
        }
        self.sites.observe(event);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Violation> {
        Ok(())
    }
}
