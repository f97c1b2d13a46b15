//! The view manager: extends the sequence of views (Birman and Joseph 1985 §4.2), with ballots.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mainstay_base::{BootId, Instant, NodeId, Reason, fault};

use crate::io::{Output, Role};
use crate::membership::Membership;
use crate::{Ballot, Extension, Message, View};

/// What one boot acknowledged.
#[derive(Clone, Hash, Debug)]
pub(crate) struct Ack {
    pub(crate) accepted: Option<(Ballot, Extension)>,
    pub(crate) state: Bytes,
    pub(crate) voter: bool,
}

/// One step of an extension: who stays, who comes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Change {
    keep: BTreeSet<BootId>,
    join: BTreeSet<BootId>,
    /// Why the others leave.
    left: BTreeMap<BootId, Reason>,
}

#[derive(Clone, Hash, Debug)]
enum Phase {
    /// Acknowledgements come in. `stalled`: for a while there was no quorum to hear.
    Collecting { acks: BTreeMap<BootId, Ack>, stalled: bool },
    /// All have answered; the groups compute the cut.
    Cutting,
    /// The members of the last view get hold of what the cut names. `accepted`: somebody accepted the extension under an
    /// earlier ballot, so all members held it once.
    Holding { extension: Extension, held: BTreeSet<BootId>, accepted: bool },
    /// The extension is fixed; acceptances come in, each with whether it is a voter's.
    Accepting { extension: Extension, accepted: BTreeMap<BootId, bool> },
    /// Committed; being written.
    Committing,
    /// A higher ballot was met: wait, so that its owner can finish.
    Waiting { until: Instant },
}

/// One try of this boot to fix what follows the installed view.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    ballot: Ballot,
    changes: Vec<Change>,
    views: Vec<View>,
    phase: Phase,
}

impl std::hash::Hash for Attempt {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.ballot, &self.views).hash(state);
        match &self.phase {
            // When the wait ends is free for an explorer.
            Phase::Waiting { .. } => 0u8.hash(state),
            phase => phase.hash(state),
        }
    }
}

impl Membership {
    /// Begins, amends, takes over or gives up an attempt, as what is known now demands.
    pub(crate) fn manage(&mut self, now: Instant) {
        if self.attempt.is_some() && !self.may_manage() {
            self.give_up();
        }
        let Some(attempt) = &mut self.attempt else {
            if let Some(change) = self.wanted(now) {
                self.propose(vec![change]);
            }
            return;
        };
        match attempt.phase {
            Phase::Waiting { until } if until <= now => {
                self.attempt = None;
                self.manage(now);
            }
            Phase::Collecting { .. } => self.collect(now),
            Phase::Holding { .. } => self.await_held(now),
            Phase::Accepting { .. } => self.try_commit(),
            _ => {}
        }
    }

    pub(crate) fn management_deadline(&self) -> Option<Instant> {
        // Nothing is managed until the installation is forced: a deadline that passes meanwhile waits for that.
        if self.installing {
            return None;
        }
        match self.attempt.as_ref().map(|attempt| &attempt.phase) {
            Some(Phase::Waiting { until }) => Some(*until),
            None => self.formation_since.map(|since| since + self.config.formation_wait),
            Some(_) => None,
        }
    }

    /// An extension of somebody else may name boots never met here: those whose node runs again are dead as well.
    fn has_failed(&self, boot: BootId) -> bool {
        self.is_suspected(boot) || self.is_superseded(boot)
    }

    /// The members of the extension that is to be committed.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = BootId> + '_ {
        self.attempt.iter().flat_map(|attempt| {
            match &attempt.phase {
                Phase::Holding { extension, .. } | Phase::Accepting { extension, .. } => {
                    extension.last().members.as_slice()
                }
                _ => &[],
            }
            .iter()
            .map(crate::Member::boot)
        })
    }

    pub(crate) fn attempt_names(&self, boot: BootId) -> bool {
        self.attempt
            .as_ref()
            .is_some_and(|attempt| attempt.views.iter().any(|view| view.member(boot).is_some()))
    }

    /// A peer that comes up in the middle is told what is going on.
    pub(crate) fn greet_with_attempt(&mut self, boot: BootId) {
        let Some(attempt) = &self.attempt else {
            return;
        };
        let ballot = attempt.ballot;
        let message = match &attempt.phase {
            Phase::Collecting { .. } | Phase::Cutting => {
                Message::Propose { ballot, base: self.view().clone(), views: attempt.views.clone() }
            }
            Phase::Holding { extension, .. } if extension.last().member(boot).is_some() => {
                Message::Hold { ballot, extension: extension.clone() }
            }
            Phase::Accepting { extension, .. } => {
                Message::Accept { ballot, extension: extension.clone() }
            }
            Phase::Holding { .. } | Phase::Committing | Phase::Waiting { .. } => return,
        };
        self.say(boot, message);
    }

    /// Whether it is for this boot to propose: as a member when all older ones are suspected, as an outsider when no
    /// member can be reached and nobody of a quorum of voters goes before it.
    fn may_manage(&self) -> bool {
        match self.role {
            Role::Member => self.manager() == Some(self.me),
            Role::Outside => self.leads_formation(),
            Role::Killed => false,
        }
    }

    /// Somebody older is heard again and leads. It has to know that this boot waits for a view.
    fn give_up(&mut self) {
        let attempt = self.attempt.take().expect("there is one");
        if self.role == Role::Member
            && let Some(manager) = self.manager()
        {
            let promised = self.durable.promised;
            self.say(manager, Message::Nack { ballot: attempt.ballot, promised });
        }
    }

    /// Asks the manager, maybe itself, for a view though nobody came or went.
    pub(crate) fn renew(&mut self) {
        if self.role != Role::Member {
            return;
        }
        self.summoned = true;
        if let Some(manager) = self.manager().filter(|manager| *manager != self.me) {
            let promised = Ballot { base: self.view().id.number, ..self.durable.promised };
            self.say(manager, Message::Nack { ballot: promised, promised });
        }
    }

    /// The change that should be proposed now, if any.
    fn wanted(&mut self, now: Instant) -> Option<Change> {
        if self.role == Role::Outside {
            return self.formation(now);
        }
        if self.manager() != Some(self.me) || self.voters_heard() < self.quorum() {
            return None;
        }
        if self.somebody_introduces_itself() {
            return None;
        }
        let removed = self.removed();
        let keep: BTreeSet<_> =
            self.view().boots().filter(|boot| !removed.contains_key(boot)).collect();
        let join = self.joiners(&keep);
        let needed = !removed.is_empty() || !join.is_empty() || self.is_wedged() || self.summoned;
        needed.then_some(Change { keep, join, left: removed })
    }

    /// A peer has connected and not yet said what it is, which it does first: what it says may belong to the same view
    /// (MB-36).
    fn somebody_introduces_itself(&self) -> bool {
        self.peers.iter().any(|(boot, peer)| {
            peer.connected && peer.announced.is_none() && !self.is_suspected(*boot)
        })
    }

    /// Members that have to go. Without objection the word of one member is enough; of two that accuse each other the
    /// older stays, and whoever accuses the manager goes (MB-34). With objection all must agree (MB-22).
    fn removed(&self) -> BTreeMap<BootId, Reason> {
        let own = |boot: &BootId| self.is_suspected(*boot);
        let members: Vec<_> = self.view().boots().filter(|boot| *boot != self.me).collect();
        let accused_by = |judge: &BootId, boot: &BootId| {
            self.peers.get(judge).and_then(|peer| peer.suspects.get(boot)).copied()
        };
        if self.config.objection {
            let judges: Vec<_> = members.iter().filter(|boot| !own(boot)).collect();
            let agreed =
                |boot: &&BootId| judges.iter().all(|judge| accused_by(judge, boot).is_some());
            let removed = members.iter().filter(|boot| own(boot) && agreed(boot));
            return removed.map(|boot| (*boot, self.reason(*boot))).collect();
        }
        let suspected = members.iter().filter(|boot| own(boot));
        let mut removed: BTreeMap<_, _> =
            suspected.map(|boot| (*boot, self.reason(*boot))).collect();
        for judge in &members {
            if accused_by(judge, &self.me).is_some() {
                removed.entry(*judge).or_insert(Reason::Accuser);
            } else if !removed.contains_key(judge) {
                for boot in &members {
                    if let Some(why) = accused_by(judge, boot) {
                        removed.entry(*boot).or_insert(why);
                    }
                }
            }
        }
        removed
    }

    /// Connected boots of the roster that are no members and may become some: one a node, and only those who reach all that
    /// stay, and each other. One that does not would be accused by whom it does not reach, as soon as it is in, and again
    /// when it returns. Who reaches most of the others goes first.
    fn joiners(&self, keep: &BTreeSet<BootId>) -> BTreeSet<BootId> {
        let candidates = self.candidates();
        let hears = |boot: &BootId, other: &BootId| {
            fault!(self.config, AdmitsUnheard)
                || self
                    .peers
                    .get(boot)
                    .and_then(|peer| peer.announced.as_ref())
                    .is_some_and(|said| said.hears.contains(other))
        };
        let reaches_members =
            |boot: &&BootId| keep.iter().all(|member| *member == self.me || hears(boot, member));
        let mut ranked: Vec<_> = candidates.iter().filter(reaches_members).copied().collect();
        ranked.sort_by_key(|boot| {
            std::cmp::Reverse(candidates.iter().filter(|other| hears(boot, other)).count())
        });
        let mut join = BTreeSet::new();
        for boot in ranked {
            if join.iter().all(|other| hears(&boot, other) && hears(other, &boot)) {
                join.insert(boot);
            }
        }
        join
    }

    /// Outsiders of the roster that this boot reaches, one a node.
    fn candidates(&self) -> BTreeSet<BootId> {
        let view = self.view();
        let mut of_node: BTreeMap<NodeId, BootId> = BTreeMap::new();
        for (boot, peer) in &self.peers {
            let outside = peer.announced.as_ref().is_some_and(|said| !said.member);
            if peer.connected
                && outside
                && view.roster.contains(&boot.node)
                && view.member(*boot).is_none()
                && !self.is_suspected(*boot)
            {
                of_node.insert(boot.node, *boot);
            }
        }
        of_node.into_values().collect()
    }

    fn quorum(&self) -> usize {
        if fault!(self.config, QuorumOfTheView) {
            return self.view().members.len() / 2 + 1;
        }
        self.view().quorum()
    }

    /// No member can be reached, and of the voters that can this one comes first: by the view it knows, then by name.
    fn leads_formation(&self) -> bool {
        if !self.durable.voter || !self.view().roster.contains(&self.me.node) {
            return false;
        }
        let rank = |installed: u64, node: NodeId| (std::cmp::Reverse(installed), node);
        let mine = rank(self.view().id.number, self.me.node);
        let mut voters = 1;
        for (boot, peer) in &self.peers {
            let Some(said) = peer.announced.as_ref().filter(|_| peer.connected) else {
                continue;
            };
            if self.is_suspected(*boot) || !self.view().roster.contains(&boot.node) {
                continue;
            }
            if said.member || (said.voter && rank(said.installed, boot.node) < mine) {
                return false;
            }
            voters += usize::from(said.voter);
        }
        voters >= self.quorum()
    }

    fn formation(&mut self, now: Instant) -> Option<Change> {
        if !self.leads_formation() {
            self.formation_since = None;
            return None;
        }
        let since = *self.formation_since.get_or_insert(now);
        let mut join = self.joiners(&BTreeSet::new());
        join.insert(self.me);
        // All configured nodes are there, or those that are not were waited for.
        let ripe =
            join.len() >= self.view().roster.len() || now >= since + self.config.formation_wait;
        ripe.then_some(Change { keep: BTreeSet::new(), join, left: BTreeMap::new() })
    }

    /// Phase one, with a ballot above all that are known here.
    fn propose(&mut self, changes: Vec<Change>) {
        let base = self.view().clone();
        let promised = self.durable.promised;
        let known = if promised.base == base.id.number { promised.round } else { 0 };
        let round = known.max(self.round_floor) + 1;
        let ballot = Ballot { base: base.id.number, round, node: self.me.node };
        let mut views = Vec::with_capacity(changes.len());
        let mut before = base.clone();
        for change in &changes {
            // Each attempt names its views anew: two cuts never belong to one view id.
            before = before.successor(
                ballot.nonce(self.me.nonce),
                &change.keep,
                &change.join,
                &change.left,
            );
            views.push(before.clone());
        }
        let phase = Phase::Collecting { acks: BTreeMap::new(), stalled: false };
        self.attempt = Some(Attempt { ballot, changes, views: views.clone(), phase });
        let propose = Message::Propose { ballot, base, views };
        for peer in self.connected() {
            self.say(peer, propose.clone());
        }
        self.say(self.me, propose);
    }

    pub(crate) fn on_ack(&mut self, from: BootId, ballot: Ballot, ack: Ack) {
        if let Some(attempt) = &mut self.attempt
            && attempt.ballot == ballot
            && let Phase::Collecting { acks, .. } = &mut attempt.phase
        {
            acks.insert(from, ack);
        }
    }

    pub(crate) fn on_nack(&mut self, now: Instant, ballot: Ballot, promised: Ballot) {
        if promised.base != self.view().id.number {
            return;
        }
        self.round_floor = self.round_floor.max(promised.round);
        match &mut self.attempt {
            Some(attempt) if attempt.ballot == ballot && ballot < promised => {
                if matches!(attempt.phase, Phase::Committing) {
                    return;
                }
                let rank = self.durable.installed.rank(self.me).unwrap_or_default();
                let turns = u32::try_from(rank + 1).unwrap_or(u32::MAX);
                let until = now + self.config.retry_backoff.saturating_mul(turns);
                attempt.phase = Phase::Waiting { until };
            }
            Some(_) => {}
            // A member gave up its own attempt because this boot leads, and waits.
            None => self.summoned = true,
        }
    }

    /// Phase one goes on: amend if a participant has failed, start over after a time without quorum, fix the extension when
    /// all have answered.
    fn collect(&mut self, now: Instant) {
        let quorum = self.quorum();
        let enough = self.voters_heard() >= quorum;
        let Some(Attempt { phase: Phase::Collecting { stalled, .. }, .. }) = &mut self.attempt
        else {
            return;
        };
        if !enough {
            *stalled = true;
            return;
        }
        if *stalled {
            self.attempt = None;
            self.manage(now);
            return;
        }
        let Some(Attempt { changes, views, phase: Phase::Collecting { acks, .. }, .. }) =
            &self.attempt
        else {
            return;
        };
        let members: BTreeSet<_> = views.last().into_iter().flat_map(View::boots).collect();
        let alive: BTreeSet<_> =
            members.iter().filter(|boot| !self.is_suspected(**boot)).copied().collect();
        if alive != members {
            let changes = amended(changes.clone(), alive, |boot| self.reason(boot));
            self.propose(changes);
            return;
        }
        let voters = acks.iter().filter(|(_, ack)| ack.voter).map(|(boot, _)| boot.node);
        let voters = voters.collect::<BTreeSet<_>>().len();
        if voters >= quorum && members.iter().all(|boot| acks.contains_key(boot)) {
            self.choose(now);
        }
    }

    /// What was accepted under the highest ballot is kept; if nothing was, the groups compute a cut.
    fn choose(&mut self, now: Instant) {
        let base = Box::new(self.view().clone());
        let attempt = self.attempt.as_mut().expect("collecting");
        let Phase::Collecting { acks, .. } = std::mem::replace(&mut attempt.phase, Phase::Cutting)
        else {
            return;
        };
        let accepted = acks.values().filter_map(|ack| ack.accepted.as_ref());
        let accepted = accepted.filter(|(ballot, _)| ballot.base == base.id.number);
        if let Some((_, extension)) = accepted.max_by_key(|(ballot, _)| *ballot) {
            let extension = extension.clone();
            self.hold(now, extension, true);
            return;
        }
        let views = attempt.views.clone();
        let states = acks.into_iter().map(|(boot, ack)| (boot, ack.state)).collect();
        self.put(Output::ComputeCut { base, views, states });
    }

    pub(crate) fn on_cut(&mut self, now: Instant, cut: Bytes, annex: Bytes) {
        let Some(Attempt { views, phase: Phase::Cutting, .. }) = &self.attempt else {
            return;
        };
        let mut views = views.clone();
        if let Some(last) = views.last_mut() {
            last.annex = annex;
        }
        self.hold(now, Extension { views, cut }, false);
    }

    /// Before anybody accepts, all members of the last view hold what the cut names: so an extension that anybody has
    /// accepted never names data that only a dead site had.
    fn hold(&mut self, now: Instant, extension: Extension, accepted: bool) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        let ballot = attempt.ballot;
        let held = BTreeSet::new();
        attempt.phase = Phase::Holding { extension: extension.clone(), held, accepted };
        for boot in extension.last().boots() {
            if boot == self.me || self.peers.contains_key(&boot) {
                self.say(boot, Message::Hold { ballot, extension: extension.clone() });
            }
        }
        self.rewatch(now);
        self.await_held(now);
    }

    pub(crate) fn on_member_held(&mut self, from: BootId, ballot: Ballot) {
        if let Some(attempt) = &mut self.attempt
            && attempt.ballot == ballot
            && let Phase::Holding { held, .. } = &mut attempt.phase
        {
            held.insert(from);
        }
    }

    /// A member that fails before all hold the cut makes it void, unless it was accepted before: then the others hold it.
    fn await_held(&mut self, now: Instant) {
        let Some(Attempt { changes, phase: Phase::Holding { extension, held, accepted }, .. }) =
            &self.attempt
        else {
            return;
        };
        let members: BTreeSet<_> = extension.last().boots().collect();
        let failed = |boot: &BootId| self.has_failed(*boot);
        if !accepted && members.iter().any(failed) {
            let alive = members.iter().filter(|boot| !failed(boot)).copied().collect();
            let changes = amended(changes.clone(), alive, |boot| self.reason(boot));
            if self.voters_heard() >= self.quorum() {
                self.propose(changes);
            }
        } else if members.iter().all(|boot| held.contains(boot) || failed(boot)) {
            let extension = extension.clone();
            self.fix(now, extension);
        }
    }

    /// Phase two.
    fn fix(&mut self, now: Instant, extension: Extension) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        let ballot = attempt.ballot;
        attempt.phase =
            Phase::Accepting { extension: extension.clone(), accepted: BTreeMap::new() };
        for peer in self.connected() {
            self.say(peer, Message::Accept { ballot, extension: extension.clone() });
        }
        self.say(self.me, Message::Accept { ballot, extension });
        self.rewatch(now);
    }

    pub(crate) fn on_accepted(&mut self, from: BootId, ballot: Ballot, voter: bool) {
        if let Some(attempt) = &mut self.attempt
            && attempt.ballot == ballot
            && let Phase::Accepting { accepted, .. } = &mut attempt.phase
        {
            accepted.insert(from, voter);
        }
    }

    /// Phase three: a quorum of voters and all members that are not suspected have it.
    fn try_commit(&mut self) {
        let Some(attempt) = &self.attempt else {
            return;
        };
        let Phase::Accepting { extension, accepted } = &attempt.phase else {
            return;
        };
        let voters = accepted.iter().filter(|(_, voter)| **voter).map(|(boot, _)| boot.node);
        let voters = voters.collect::<BTreeSet<_>>().len();
        let missing = |boot| !self.has_failed(boot) && !accepted.contains_key(&boot);
        if voters < self.quorum() || extension.last().members.iter().any(|m| missing(m.boot())) {
            return;
        }
        let (ballot, extension) = (attempt.ballot, extension.clone());
        self.attempt = Some(Attempt { phase: Phase::Committing, ..attempt.clone() });
        self.install(extension, Some(ballot));
    }
}

/// The changes without those who failed meanwhile. A member that failed leaves with one view more (MB-33); a joiner that
/// did is not admitted in the first place, so that no boot is ever in a view and out of it unawares.
fn amended(
    mut changes: Vec<Change>,
    alive: BTreeSet<BootId>,
    why: impl Fn(BootId) -> Reason,
) -> Vec<Change> {
    let has_joined =
        |changes: &[Change], boot: &BootId| changes.iter().any(|it| it.join.contains(boot));
    let last = changes.last().into_iter().flat_map(|it| it.keep.union(&it.join)).copied();
    let failed: Vec<_> = last.filter(|boot| !alive.contains(boot)).collect();
    let (joiners, members): (Vec<_>, Vec<_>) =
        failed.into_iter().partition(|boot| has_joined(&changes, boot));
    for change in &mut changes {
        change.join.retain(|boot| !joiners.contains(boot));
        change.keep.retain(|boot| !joiners.contains(boot));
    }
    if !members.is_empty() {
        let left = members.into_iter().map(|boot| (boot, why(boot))).collect();
        changes.push(Change { keep: alive, join: BTreeSet::new(), left });
    }
    changes
}
