//! MB-2: who acts as a member is one.

use std::collections::BTreeMap;

use mainstay_base::trace::{Event, GroupWord, MembershipWord, ProcessWord, What};
use mainstay_base::{BootId, SiteId};

use crate::context::{EventRef, Sites, name, violation};
use crate::property::{Property, Violation};

/// MB-2: a process is in every view it installs, and does nothing as a member once it was killed or has crashed.
#[derive(Default)]
pub struct SelfInclusion {
    sites: Sites,
    ended: BTreeMap<BootId, (bool, EventRef)>,
    joined: BTreeMap<BootId, EventRef>,
}

impl SelfInclusion {
    fn check_contains(&mut self, event: &Event, members: &[SiteId]) -> Result<(), Violation> {
        let own = match self.sites.site(event.boot) {
            Some(site) => members.contains(&site),
            None => members.iter().any(|site| site.node == event.boot.node),
        };
        let joined = *self.joined.entry(event.boot).or_insert_with(|| name(event));
        if own {
            return Ok(());
        }
        let text = "installed a view that does not contain the site itself".to_owned();
        Err(violation(Self::ID, text, [name(event), joined]))
    }
}

impl Property for SelfInclusion {
    const ID: &'static str = "MB-2";
    const SAYS: &'static str =
        "a process is in every view it installs and does nothing as a member once it is excluded";

    fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        if let Some((crashed, end)) = self.ended.get(&event.boot)
            && (*crashed || !matches!(event.what, What::Process(ProcessWord::Crashed)))
        {
            let how = if *crashed { "crashed" } else { "was killed" };
            let text = format!("acted after it {how}");
            return Err(violation(Self::ID, text, [name(event), *end]));
        }
        match &event.what {
            What::Process(ProcessWord::Crashed) => {
                self.ended.insert(event.boot, (true, name(event)));
            }
            What::Membership(MembershipWord::Killed) => {
                self.ended.insert(event.boot, (false, name(event)));
            }
            What::Membership(MembershipWord::Installed { members, .. })
            | What::Group(GroupWord::Installed { members, .. }) => {
                self.check_contains(event, members)?;
            }
            _ => {}
        }
        self.sites.observe(event);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Violation> {
        Ok(())
    }
}
