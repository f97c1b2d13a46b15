//! The machine: what it keeps, and where its inputs go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hash as _;

use mainstay_base::{
    BootId, Fingerprint, Fingerprinter, Instant, Machine, NodeId, Reason, ViewId, fault,
};

use crate::detector::Detector;
use crate::fault::Fault;
use crate::founding::Founding;
use crate::io::{Evidence, Input, Output, Role, Stats};
use crate::manager::{Ack, Attempt};
use crate::{Ballot, Config, Durable, Extension, Message, View};

/// What a peer said of itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Announced {
    pub(crate) installed: u64,
    pub(crate) member: bool,
    pub(crate) voter: bool,
    pub(crate) hears: BTreeSet<BootId>,
    pub(crate) founding: Option<Box<Founding>>,
}

#[derive(Clone, Default, Hash, Debug)]
pub(crate) struct Peer {
    pub(crate) connected: bool,
    pub(crate) announced: Option<Announced>,
    pub(crate) suspects: BTreeMap<BootId, Reason>,
}

/// What waits for a forced write.
#[derive(Clone, Hash, Debug)]
pub(crate) enum After {
    Say(BootId, Message),
    Install { base: Box<View>, extension: Box<Extension>, commit: Option<Ballot> },
}

/// A manager that waits until the groups here hold a cut.
#[derive(Clone, Copy, Hash, Debug)]
pub(crate) struct Holding {
    pub(crate) ballot: Ballot,
    pub(crate) manager: BootId,
    pub(crate) view: ViewId,
}

/// Messages kept while an install is being written.
const DEFERRED_MAX: usize = 1_024;

/// Detector, voter and view manager of one boot. See the crate's page.
#[derive(Clone, Debug)]
pub struct Membership {
    pub(crate) config: Config,
    pub(crate) me: BootId,
    pub(crate) role: Role,
    pub(crate) durable: Durable,
    pub(crate) peers: BTreeMap<BootId, Peer>,
    /// Boots that are not heard; withdrawn when they are. A view without them makes it final: they are isolated (MB-24).
    pub(crate) silent: BTreeSet<BootId>,
    /// Suspicions for good: gone and dropped boots, and those that the layer above wants out. While heard they still vote.
    pub(crate) condemned: BTreeSet<BootId>,
    /// What is held against each suspected boot.
    pub(crate) evidence: BTreeMap<BootId, Evidence>,
    /// What was last said in `Suspects`.
    pub(crate) accused: BTreeMap<BootId, Reason>,
    /// Whom all were last told that this boot hears.
    hears: BTreeSet<BootId>,
    detector: Detector,
    pub(crate) minority: bool,
    /// Since when there are too few votes, member or not. Only an operator wants to know.
    short_since: Option<Instant>,
    pub(crate) attempt: Option<Attempt>,
    /// To whom the answer to `Wedge` goes.
    pub(crate) flushing: Option<(Ballot, BootId)>,
    pub(crate) holding: Option<Holding>,
    pub(crate) formation_since: Option<Instant>,
    /// The highest round met on the installed view, beside the promised one.
    pub(crate) round_floor: u32,
    /// A member that cannot go on without a new view has asked for one.
    pub(crate) summoned: bool,
    io: u64,
    waiting: VecDeque<(u64, Vec<After>)>,
    pub(crate) installing: bool,
    deferred: VecDeque<(BootId, Message)>,
    /// What this boot says to itself as manager and voter.
    own: VecDeque<Message>,
    outputs: VecDeque<Output>,
    pub(crate) stats: Stats,
}

impl Membership {
    /// The machine of the boot `me` with what its disk holds: the only way to start, also for the first time.
    #[must_use]
    pub fn recover(config: Config, me: BootId, durable: Durable, now: Instant) -> Self {
        let detector = Detector::new(config.timeout);
        let mut durable = durable;
        durable.voter |= fault!(config, VotesWithoutPast);
        let mut membership = Self {
            config,
            me,
            role: Role::Outside,
            durable,
            peers: BTreeMap::new(),
            silent: BTreeSet::new(),
            condemned: BTreeSet::new(),
            evidence: BTreeMap::new(),
            accused: BTreeMap::new(),
            hears: BTreeSet::new(),
            detector,
            minority: false,
            short_since: None,
            attempt: None,
            flushing: None,
            holding: None,
            formation_since: None,
            round_floor: 0,
            summoned: false,
            io: 0,
            waiting: VecDeque::new(),
            installing: false,
            deferred: VecDeque::new(),
            own: VecDeque::new(),
            outputs: VecDeque::new(),
            stats: Stats::default(),
        };
        membership.rewatch(now);
        membership.count_votes(now);
        membership
    }

    /// The last committed view that this boot knows.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.durable.installed
    }

    /// Whether this boot takes part.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether this boot counts for quorums.
    #[must_use]
    pub fn is_voter(&self) -> bool {
        self.durable.voter
    }

    /// Whether this boot is a member and too few voters are heard for any view to follow.
    #[must_use]
    pub fn in_minority(&self) -> bool {
        self.minority
    }

    /// Since when too few voters are heard for any view to follow; `None` while there are enough. A boot that is no member
    /// yet waits for them, for as long as it takes.
    #[must_use]
    pub fn votes_missing_since(&self) -> Option<Instant> {
        self.short_since
    }

    /// Nodes of the roster whose votes are not to be had, and whether each is heard all the same: it has no past, and votes
    /// again when a view has admitted it. This node may be among them.
    pub fn votes_missing(&self) -> impl Iterator<Item = (NodeId, bool)> + '_ {
        let heard: BTreeSet<_> = self.heard().map(|boot| boot.node).chain([self.me.node]).collect();
        let votes = self.votes();
        let roster = self.view().roster.iter().copied();
        let missing = roster.filter(move |node| !votes.contains(node));
        missing.map(move |node| (node, heard.contains(&node)))
    }

    /// The oldest member that is not suspected here: who proposes the next view.
    #[must_use]
    pub fn manager(&self) -> Option<BootId> {
        self.view().boots().find(|boot| !self.is_suspected(*boot))
    }

    /// The boots that this one has met and that are not known to be gone.
    pub fn peers(&self) -> impl Iterator<Item = BootId> + '_ {
        self.peers.keys().copied()
    }

    /// Members and peers thought to have failed.
    pub fn suspected(&self) -> impl Iterator<Item = BootId> + '_ {
        self.silent.union(&self.condemned).copied()
    }

    pub(crate) fn is_suspected(&self, boot: BootId) -> bool {
        self.silent.contains(&boot) || self.condemned.contains(&boot)
    }

    /// What went wrong so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    pub(crate) fn put(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn say(&mut self, to: BootId, message: Message) {
        if to == self.me {
            self.own.push_back(message);
        } else {
            self.outputs.push_back(Output::Send { to, message });
        }
    }

    /// Writes the durable state; `after` happens when it is forced.
    pub(crate) fn force(&mut self, after: Vec<After>) {
        self.io += 1;
        self.outputs
            .push_back(Output::Persist { io: self.io, durable: Box::new(self.durable.clone()) });
        self.waiting.push_back((self.io, after));
    }

    /// Forces the durable state and then says `message`.
    pub(crate) fn force_then_say(&mut self, to: BootId, message: Message, skipped_by: Fault) {
        if self.config.fault == Some(skipped_by) {
            self.force(Vec::new());
            self.say(to, message);
        } else {
            self.force(vec![After::Say(to, message)]);
        }
    }

    fn on_persisted(&mut self, now: Instant, io: u64) {
        while self.waiting.front().is_some_and(|(number, _)| *number <= io) {
            let (_, after) = self.waiting.pop_front().expect("looked at");
            for action in after {
                match action {
                    After::Say(to, message) => self.say(to, message),
                    After::Install { base, extension, commit } => {
                        self.installed(now, base, extension, commit);
                    }
                }
            }
        }
    }

    /// Connected peers of the roster: those who vote and those who may join.
    pub(crate) fn connected(&self) -> Vec<BootId> {
        let roster = &self.view().roster;
        self.peers
            .iter()
            .filter(|(boot, peer)| peer.connected && roster.contains(&boot.node))
            .map(|(boot, _)| *boot)
            .collect()
    }

    pub(crate) fn announcement(&self) -> Message {
        Message::Announce {
            installed: self.durable.installed.clone(),
            member: self.role == Role::Member,
            voter: self.durable.voter,
            hears: self.heard().collect(),
            founding: self.own_founding().map(Box::new),
        }
    }

    /// Those that a session stands with and that are not silent.
    pub(crate) fn heard(&self) -> impl Iterator<Item = BootId> + '_ {
        let heard =
            |(boot, peer): &(&BootId, &Peer)| peer.connected && !self.silent.contains(*boot);
        self.peers.iter().filter(heard).map(|(boot, _)| *boot)
    }

    /// Members whom this boot must reach before it is admitted and does not. None as long as it hears of no working member:
    /// then it is not the way to one of them that is missing.
    pub fn unheard(&self) -> impl Iterator<Item = BootId> + '_ {
        let heard: BTreeSet<_> = self.heard().collect();
        let is_member = |peer: &Peer| peer.announced.as_ref().is_some_and(|said| said.member);
        let waits = self.role == Role::Outside
            && heard.iter().any(|boot| self.peers.get(boot).is_some_and(is_member));
        // Of a node that runs anew the former boot is not missed, nor of this one.
        let nodes: BTreeSet<_> = heard.iter().map(|boot| boot.node).chain([self.me.node]).collect();
        self.view().boots().filter(move |boot| waits && !nodes.contains(&boot.node))
    }

    pub(crate) fn announce(&mut self) {
        self.hears = self.heard().collect();
        let message = self.announcement();
        for peer in self.connected() {
            self.say(peer, message.clone());
        }
    }

    /// The detector watches the members, all peers, and those whose acceptance is awaited.
    pub(crate) fn rewatch(&mut self, now: Instant) {
        let me = self.me;
        let known = self.view().boots().chain(self.peers.keys().copied());
        let boots: BTreeSet<_> = known.chain(self.awaited()).collect();
        let condemned = &self.condemned;
        self.detector
            .watch(now, boots.into_iter().filter(|boot| *boot != me && !condemned.contains(boot)));
        self.detector.rearm(now);
    }

    /// Forgets suspicions of boots that no longer matter.
    pub(crate) fn settle_suspicions(&mut self) {
        let (view, peers) = (&self.durable.installed, &self.peers);
        let matters = |boot: &BootId| view.member(*boot).is_some() || peers.contains_key(boot);
        self.silent.retain(matters);
        self.condemned.retain(matters);
        let (silent, condemned) = (&self.silent, &self.condemned);
        self.evidence.retain(|boot, _| silent.contains(boot) || condemned.contains(boot));
        self.note_superseded();
    }

    /// A member whose node is known under another nonce only is dead.
    fn note_superseded(&mut self) {
        let superseded: Vec<_> =
            self.view().boots().filter(|boot| self.is_superseded(*boot)).collect();
        for boot in superseded {
            self.condemn(boot, Evidence::Restarted);
        }
    }

    /// A boot that was never met, of a node that runs under another nonce. A former boot that is suspected or was dropped
    /// by a view proves nothing: this may be the one that follows it.
    pub(crate) fn is_superseded(&self, boot: BootId) -> bool {
        let another = |other: &BootId| other.node == boot.node && *other != boot;
        let heard = |(other, peer): (&BootId, &Peer)| {
            another(other) && peer.connected && !self.is_suspected(*other)
        };
        !self.peers.contains_key(&boot) && (another(&self.me) || self.peers.iter().any(heard))
    }

    /// This boot has promised a ballot on the installed view.
    pub(crate) fn is_wedged(&self) -> bool {
        self.durable.promised.base == self.view().id.number && self.durable.promised.round > 0
    }

    /// As [`Input::Heard`]; whether it changed more than when the boot was heard. If not, nothing follows from it: the turn of the
    /// membership need not end.
    pub fn hear(&mut self, now: Instant, boot: BootId) -> bool {
        if self.role == Role::Killed {
            return false;
        }
        self.detector.on_heard(now, boot);
        let was_silent = self.silent.remove(&boot);
        let was_accused = !self.condemned.contains(&boot) && self.evidence.remove(&boot).is_some();
        was_silent || was_accused
    }

    fn on_up(&mut self, now: Instant, boot: BootId) {
        if boot.node == self.me.node {
            return;
        }
        self.peers.entry(boot).or_default().connected = true;
        self.note_superseded();
        self.rewatch(now);
        self.hear(now, boot);
        match self.role {
            Role::Outside => self.announce(),
            _ => self.say(boot, self.announcement()),
        }
        if self.role == Role::Member && !self.accused.is_empty() {
            self.say(boot, Message::Suspects(self.accused.clone()));
        }
        self.greet_with_attempt(boot);
    }

    fn on_down(&mut self, boot: BootId) {
        if let Some(peer) = self.peers.get_mut(&boot) {
            peer.connected = false;
        }
    }

    fn on_gone(&mut self, now: Instant, boot: BootId) {
        self.peers.remove(&boot);
        if self.view().member(boot).is_some() || self.attempt_names(boot) {
            self.condemn(boot, Evidence::Restarted);
        }
        self.rewatch(now);
    }

    /// Evidence against boots that were met here and are gone. It says nothing of one that a view has named meanwhile: the
    /// refusal may be older than that boot.
    fn on_refused(&mut self, node: NodeId) {
        let refused = self.peers.iter().filter(|(boot, peer)| boot.node == node && !peer.connected);
        let refused = refused.map(|(boot, _)| *boot).collect();
        self.suspect(refused, Evidence::Refused);
    }

    /// While an install is being written nothing that a peer says is looked at.
    pub(crate) fn defer(&mut self, from: BootId, message: Message) {
        if self.deferred.len() < DEFERRED_MAX {
            self.deferred.push_back((from, message));
        } else {
            self.stats.overrun += 1;
        }
    }

    fn on_message(&mut self, now: Instant, from: BootId, message: Message) {
        if self.installing {
            self.defer(from, message);
            return;
        }
        match message {
            Message::Announce { installed, member, voter, hears, founding } => {
                let installed_number = installed.id.number;
                let said =
                    Announced { installed: installed_number, member, voter, hears, founding };
                self.on_announce(now, from, &installed, said);
            }
            Message::Suspects(suspects) if suspects.contains_key(&from) => {
                self.condemn(from, Evidence::Closed);
            }
            Message::Suspects(suspects) => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.suspects = suspects;
                }
            }
            Message::Propose { ballot, base, views } => {
                self.on_propose(now, from, ballot, base, &views);
            }
            Message::Ack { ballot, accepted, state, voter } => {
                self.on_ack(from, ballot, Ack { accepted, state, voter });
            }
            Message::Nack { ballot, promised } => self.on_nack(now, ballot, promised),
            Message::Hold { ballot, extension } => self.on_hold(from, ballot, extension),
            Message::Held { ballot } => self.on_member_held(from, ballot),
            Message::Accept { ballot, extension } => self.on_accept(from, ballot, extension),
            Message::Accepted { ballot, voter } => self.on_accepted(from, ballot, voter),
            Message::Commit { ballot } => self.on_commit(ballot),
        }
    }

    /// Takes in what this boot said to itself, and what waited for an install.
    fn drain_own(&mut self, now: Instant) {
        while !self.installing && self.role != Role::Killed {
            if let Some((from, message)) = self.deferred.pop_front() {
                self.on_message(now, from, message);
            } else if let Some(message) = self.own.pop_front() {
                self.on_message(now, self.me, message);
            } else {
                return;
            }
        }
    }

    fn note_silence(&mut self, now: Instant) {
        let silent = self.detector.silent(now);
        self.suspect(silent, Evidence::Silence);
    }

    /// Tells all whom this boot hears, when that changed and it waits to be admitted.
    fn tell_who_is_heard(&mut self) {
        if self.role == Role::Outside && !self.heard().eq(self.hears.iter().copied()) {
            self.announce();
        }
    }

    fn count_votes(&mut self, now: Instant) {
        let short = self.voters_heard() < self.view().quorum();
        self.short_since = short.then(|| self.short_since.unwrap_or(now));
    }

    /// MB-11: without a quorum of voters within earshot a member does nothing that others cannot know.
    fn watch_minority(&mut self) {
        let on = self.role == Role::Member && self.short_since.is_some();
        if on != self.minority {
            self.minority = on;
            self.put(Output::Minority { on });
        }
    }

    /// How many votes can be had.
    pub(crate) fn voters_heard(&self) -> usize {
        self.votes().len()
    }

    /// Nodes of the roster whose votes can be had, own included. A session that is interrupted but not yet suspected counts.
    fn votes(&self) -> BTreeSet<NodeId> {
        let roster = &self.view().roster;
        let own = Some(self.me.node).filter(|me| self.durable.voter && roster.contains(me));
        let others = self
            .peers
            .iter()
            .filter(|(boot, peer)| {
                roster.contains(&boot.node)
                    && !self.silent.contains(boot)
                    && peer.announced.as_ref().is_some_and(|said| said.voter)
            })
            .map(|(boot, _)| boot.node);
        others.chain(own).collect()
    }

    /// Everything that follows from what is known now.
    fn review(&mut self, now: Instant) {
        if self.role == Role::Killed {
            return;
        }
        self.drain_own(now);
        if self.role == Role::Killed || self.installing {
            return;
        }
        self.accuse();
        self.tell_who_is_heard();
        self.found();
        self.count_votes(now);
        self.watch_minority();
        self.manage(now);
        self.drain_own(now);
    }

    pub(crate) fn kill(&mut self) {
        self.role = Role::Killed;
        self.attempt = None;
        self.own.clear();
        self.deferred.clear();
        self.waiting.clear();
        self.put(Output::Killed);
    }
}

impl Machine for Membership {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Instant, input: Input) {
        if self.role == Role::Killed {
            return;
        }
        match input {
            Input::Up { boot } => self.on_up(now, boot),
            Input::Down { boot } => self.on_down(boot),
            Input::Gone { boot } => self.on_gone(now, boot),
            Input::Refused { node } => self.on_refused(node),
            Input::Heard { boot } => {
                self.hear(now, boot);
            }
            Input::Suspect { boot } => self.condemn(boot, Evidence::Slow),
            Input::Dead => self.kill(),
            Input::Leave => self.leave(),
            Input::Renew => self.renew(),
            Input::Message { from, message } => self.on_message(now, from, message),
            Input::Persisted { io } => self.on_persisted(now, io),
            Input::Flushed { state } => self.on_flushed(state),
            Input::Cut { cut, annex } => self.on_cut(now, cut, annex),
            Input::Held { view } => self.on_held(view),
            Input::BecomeVoter => self.become_voter(),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.role != Role::Killed {
            self.note_silence(now);
        }
    }

    fn end_turn(&mut self, now: Instant) {
        self.review(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.role == Role::Killed {
            return None;
        }
        [self.detector.deadline(), self.management_deadline()].into_iter().flatten().min()
    }
}

impl Fingerprint for Membership {
    /// Deadlines and the last signs of life are left out: an explorer lets timeouts happen at any step.
    fn fingerprint(&self, into: &mut Fingerprinter) {
        self.me.hash(into);
        self.role.hash(into);
        self.durable.hash(into);
        self.peers.hash(into);
        (&self.silent, &self.condemned, &self.evidence, &self.accused, &self.hears, self.minority)
            .hash(into);
        self.attempt.hash(into);
        (&self.flushing, &self.holding, self.formation_since.is_some()).hash(into);
        (self.round_floor, self.summoned).hash(into);
        // Write numbers only have to match between here and the disk: they count from the oldest pending one.
        let first = self.waiting.front().map_or(self.io, |(io, _)| *io);
        (self.io - first).hash(into);
        for (io, after) in &self.waiting {
            (io - first, after).hash(into);
        }
        (self.installing, &self.deferred, &self.own).hash(into);
    }
}
