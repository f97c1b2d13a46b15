//! Whom this boot thinks to have failed, for what, and what it tells the other members of it.

use std::collections::BTreeMap;

use mainstay_base::{BootId, Reason};

use crate::Message;
use crate::io::{Evidence, Output, Role};
use crate::membership::Membership;

impl Membership {
    /// For good.
    pub(crate) fn condemn(&mut self, boot: BootId, evidence: Evidence) {
        if boot != self.me {
            self.tell_suspicion(boot, evidence);
            // It weighs more than that nothing was heard.
            if self.condemned.insert(boot) {
                self.evidence.insert(boot, evidence);
            }
        }
    }

    /// Until it is heard again.
    pub(crate) fn suspect(&mut self, boots: Vec<BootId>, evidence: Evidence) {
        for boot in boots {
            self.tell_suspicion(boot, evidence);
            self.evidence.entry(boot).or_insert(evidence);
            self.silent.insert(boot);
        }
    }

    fn tell_suspicion(&mut self, boot: BootId, evidence: Evidence) {
        let of_member = self.role == Role::Member && self.view().member(boot).is_some();
        if of_member && !self.is_suspected(boot) {
            self.put(Output::Suspected { boot, evidence });
        }
    }

    /// Why a boot that is suspected has to go, as far as this one knows.
    pub(crate) fn reason(&self, boot: BootId) -> Reason {
        // Of those that were not watched only the node is known.
        self.evidence.get(&boot).map_or(Reason::Restarted, |evidence| Reason::from(*evidence))
    }

    /// Tells all that this boot ends, be it a member or not: a view that has admitted it may be on its way.
    pub(crate) fn leave(&mut self) {
        for peer in self.connected() {
            self.say(peer, Message::Suspects([(self.me, Reason::Closed)].into()));
        }
    }

    /// Tells the other members whom this one suspects, when that changed.
    pub(crate) fn accuse(&mut self) {
        let members = &self.durable.installed;
        let accused = self.suspected().filter(|boot| members.member(*boot).is_some());
        let accused: BTreeMap<_, _> = accused.map(|boot| (boot, self.reason(boot))).collect();
        if self.role != Role::Member || accused == self.accused {
            return;
        }
        self.accused.clone_from(&accused);
        for boot in self.connected() {
            if self.view().member(boot).is_some() {
                self.say(boot, Message::Suspects(accused.clone()));
            }
        }
    }
}
