//! The voter: promises, accepts, installs, learns. Every answer that matters is forced before it is said.

use bytes::Bytes;
use mainstay_base::{BootId, Instant, ViewId, fault};

use crate::fault::Fault;
use crate::io::{Output, Role};
use crate::membership::{After, Announced, Holding, Membership};
use crate::message::numbered_from;
use crate::{Ballot, Extension, Message, View};

impl Membership {
    pub(crate) fn on_announce(
        &mut self,
        now: Instant,
        from: BootId,
        installed: &View,
        said: Announced,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        peer.announced = Some(said);
        self.learn(now, installed);
    }

    /// A committed view is heard of. Whoever accepted what it ends with has missed the commit and installs now; a member
    /// that did not is out; whoever is outside takes note.
    pub(crate) fn learn(&mut self, now: Instant, view: &View) {
        let known = self.view().id;
        if view.id.number < known.number {
            return;
        }
        if view.id.number == known.number {
            self.stats.malformed += u64::from(view.id != known);
            return;
        }
        let accepted = self.durable.accepted.as_ref().map(|(_, extension)| extension);
        if let Some(extension) = accepted.filter(|extension| extension.last().id == view.id) {
            let extension = extension.clone();
            self.install(extension, None);
        } else if self.role == Role::Member || view.member(self.me).is_some() {
            self.kill();
        } else {
            // Not forced: it is committed, and the next promise writes it along.
            self.durable.installed = view.clone();
            self.durable.accepted = None;
            self.forget_change(now);
        }
    }

    pub(crate) fn on_propose(
        &mut self,
        now: Instant,
        from: BootId,
        ballot: Ballot,
        base: View,
        views: &[View],
    ) {
        if ballot.base != base.id.number || views.is_empty() || !numbered_from(ballot.base, views) {
            self.stats.malformed += 1;
            return;
        }
        if base.id.number < self.view().id.number {
            self.say(from, self.announcement());
            return;
        }
        self.learn(now, &base);
        if self.installing {
            // Missed the commit: the proposal counts once that is written.
            self.defer(from, Message::Propose { ballot, base, views: views.to_vec() });
            return;
        }
        if self.role == Role::Killed || base.id != self.view().id {
            return;
        }
        if ballot < self.durable.promised {
            self.say(from, Message::Nack { ballot, promised: self.durable.promised });
            return;
        }
        self.promise(ballot);
        self.flushing = Some((ballot, from));
        self.put(Output::Wedge);
    }

    /// Promises `ballot`; whoever still waits for an answer under a lower one is told.
    fn promise(&mut self, ballot: Ballot) {
        self.durable.promised = ballot;
        let holding = self.holding.take().map(|holding| (holding.ballot, holding.manager));
        for (former, manager) in self.flushing.take().into_iter().chain(holding) {
            if former < ballot {
                self.say(manager, Message::Nack { ballot: former, promised: ballot });
            }
        }
    }

    pub(crate) fn on_flushed(&mut self, state: Bytes) {
        let Some((ballot, manager)) = self.flushing.take() else {
            return;
        };
        if ballot != self.durable.promised {
            return;
        }
        let ack = Message::Ack {
            ballot,
            accepted: match self.config.fault {
                Some(Fault::ForgetsAccepted) => None,
                _ => self.durable.accepted.clone(),
            },
            state,
            voter: self.durable.voter,
        };
        self.force_then_say(manager, ack, Fault::PromiseNotForced);
    }

    /// Whether to follow a manager in what it asks for on the installed view; if not, it is told why.
    fn follows(&mut self, from: BootId, ballot: Ballot, extension: &Extension) -> bool {
        if !extension.is_well_formed(ballot.base) {
            self.stats.malformed += 1;
            return false;
        }
        if ballot.base != self.view().id.number {
            return false;
        }
        if ballot < self.durable.promised {
            self.say(from, Message::Nack { ballot, promised: self.durable.promised });
            return false;
        }
        true
    }

    pub(crate) fn on_hold(&mut self, from: BootId, ballot: Ballot, extension: Extension) {
        if !self.follows(from, ballot, &extension) {
            return;
        }
        self.promise(ballot);
        let last = extension.last().id;
        self.put(Output::Hold { extension: Box::new(extension) });
        self.holding = Some(Holding { ballot, manager: from, view: last });
        if fault!(self.config, AcceptsWithoutHolding) {
            self.on_held(last);
        }
    }

    pub(crate) fn on_held(&mut self, view: ViewId) {
        if let Some(held) = self.holding.take_if(|holding| holding.view == view) {
            self.say(held.manager, Message::Held { ballot: held.ballot });
        }
    }

    pub(crate) fn on_accept(&mut self, from: BootId, ballot: Ballot, extension: Extension) {
        if !self.follows(from, ballot, &extension) {
            return;
        }
        self.promise(ballot);
        self.durable.accepted = Some((ballot, extension));
        let accepted = Message::Accepted { ballot, voter: self.durable.voter };
        self.force_then_say(from, accepted, Fault::AcceptanceNotForced);
    }

    pub(crate) fn on_commit(&mut self, ballot: Ballot) {
        if let Some((accepted, extension)) = &self.durable.accepted
            && *accepted == ballot
            && ballot.base == self.view().id.number
        {
            let extension = extension.clone();
            self.install(extension, None);
        }
    }

    /// The extension is committed: write that down, then act on it. `commit`: this boot is the manager that tells.
    pub(crate) fn install(&mut self, extension: Extension, commit: Option<Ballot>) {
        let base = Box::new(self.durable.installed.clone());
        self.durable.installed = extension.last().clone();
        self.durable.accepted = None;
        self.installing = true;
        self.force(vec![After::Install { base, extension: Box::new(extension), commit }]);
    }

    /// The install record is forced.
    pub(crate) fn installed(
        &mut self,
        now: Instant,
        base: Box<View>,
        mut extension: Box<Extension>,
        commit: Option<Ballot>,
    ) {
        if fault!(self.config, OwnReasons) {
            self.put_own_reasons(&base, &mut extension);
        }
        self.installing = false;
        let last = extension.last().clone();
        let member = last.member(self.me).is_some();
        if let Some(ballot) = commit {
            for peer in self.connected() {
                self.say(peer, Message::Commit { ballot });
            }
        }
        let was_member = self.role == Role::Member;
        self.put(Output::Install { base: base.clone(), extension, member });
        if was_member && !member {
            self.kill();
            return;
        }
        for boot in base.boots().filter(|boot| last.member(*boot).is_none()) {
            self.condemned.insert(boot);
            self.put(Output::Isolate { boot });
        }
        self.role = if member { Role::Member } else { Role::Outside };
        self.forget_change(now);
    }

    /// What `OwnReasons` stands for.
    fn put_own_reasons(&mut self, base: &View, extension: &mut Extension) {
        let Some(last) = extension.views.last_mut() else { return };
        let members = std::mem::take(&mut last.members);
        for member in base.members.iter().filter(|it| !members.contains(it)) {
            last.departures.note(member.site, self.reason(member.boot()));
        }
        last.members = members;
        self.durable.installed = last.clone();
    }

    /// A new base: nothing of the former change counts any more.
    fn forget_change(&mut self, now: Instant) {
        self.attempt = None;
        self.flushing = None;
        self.holding = None;
        self.formation_since = None;
        self.round_floor = 0;
        self.summoned = false;
        self.settle_suspicions();
        self.rewatch(now);
        self.announce();
    }

    pub(crate) fn become_voter(&mut self) {
        if self.role == Role::Member && !self.durable.voter {
            self.durable.voter = true;
            let message = self.announcement();
            let after = self.connected().into_iter().map(|to| After::Say(to, message.clone()));
            let after = after.collect();
            self.force(after);
        }
    }
}
