//! An oracle that agrees on views, in place of membership: it knows all suspicions at once, and is right about everything but
//! whom it removes.
//!
//! A boot that the others cannot reach for a while is removed, if those that are left are a quorum of the roster; one that
//! was removed ends as soon as it hears of it, and comes back under another name. Members install a view at different
//! times.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use mainstay_base::{
    BootId, Duration, Incarnation, Instant, Member, NodeId, Rng, SiteId, View, ViewId,
};

/// When views come about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Views {
    /// How long a boot is not reached before it is suspected.
    pub patience: Duration,
    /// The longest time until a member has installed an agreed view.
    pub delay: Duration,
    /// Chance in 1,000, at each look of a node, that a member which did nothing wrong is removed.
    pub unjust: u64,
}

impl Default for Views {
    fn default() -> Self {
        let (patience, delay) = (Duration::from_millis(250), Duration::from_millis(20));
        Self { patience, delay, unjust: 0 }
    }
}

pub(super) struct Oracle {
    views: Views,
    rng: Rng,
    view: View,
    incarnations: BTreeMap<NodeId, Incarnation>,
    /// The newest boot of each node, in the order of their starts.
    started: Vec<BootId>,
    dead: BTreeSet<BootId>,
    /// Who, in whose eyes.
    suspected: BTreeSet<(BootId, BootId)>,
    due: BTreeMap<BootId, VecDeque<(Instant, Arc<View>)>>,
}

impl Oracle {
    pub(super) fn new(views: Views, roster: &[NodeId], seed: u64) -> Self {
        Self {
            views,
            rng: Rng::new(seed).stream("oracle"),
            view: View::empty(roster.iter().copied()),
            incarnations: BTreeMap::new(),
            started: Vec::new(),
            dead: BTreeSet::new(),
            suspected: BTreeSet::new(),
            due: BTreeMap::new(),
        }
    }

    pub(super) fn patience(&self) -> Duration {
        self.views.patience
    }

    pub(super) fn is_dead(&self, boot: BootId) -> bool {
        self.dead.contains(&boot)
    }

    pub(super) fn started(&mut self, now: Instant, boot: BootId) {
        let former = self.started.iter().position(|it| it.node == boot.node);
        if let Some(former) = former {
            let former = self.started.remove(former);
            self.dead.insert(former);
            self.due.remove(&former);
            self.suspected.retain(|(who, by)| *who != former && *by != former);
        }
        self.started.push(boot);
        self.agree(now);
    }

    pub(super) fn suspects(&mut self, now: Instant, by: BootId, who: BootId, is: bool) {
        let changed = match is {
            true => self.suspected.insert((who, by)),
            false => self.suspected.remove(&(who, by)),
        };
        if changed {
            self.agree(now);
        }
    }

    /// The views that `boot` is to install now, each at its time; sometimes somebody is removed for no reason.
    pub(super) fn look(&mut self, now: Instant, boot: BootId) -> Option<Arc<View>> {
        if self.views.unjust > 0 && self.rng.chance(self.views.unjust, 1_000) {
            let victim = *self.rng.pick(&self.started)?;
            let left = self.view.members.iter().filter(|it| it.boot() != victim).count();
            if self.view.member(victim).is_some() && left >= self.view.quorum() {
                self.dead.insert(victim);
                self.agree(now);
            }
        }
        let due = self.due.get_mut(&boot)?;
        let is_due = due.front().is_some_and(|(at, _)| *at <= now);
        is_due.then(|| due.pop_front().map(|(_, view)| view))?
    }

    /// Agrees on a view if another one than the last is right now. Who came first is believed.
    fn agree(&mut self, now: Instant) {
        let mut members: Vec<BootId> = Vec::new();
        let old = self.view.boots().filter(|boot| self.started.contains(boot));
        let new = self.started.iter().copied().filter(|boot| self.view.member(*boot).is_none());
        for boot in old.chain(new).filter(|boot| !self.dead.contains(boot)) {
            let apart = |other: &BootId| {
                self.suspected.contains(&(boot, *other)) || self.suspected.contains(&(*other, boot))
            };
            if !members.iter().any(apart) {
                members.push(boot);
            }
        }
        let is_same = members.iter().copied().eq(self.view.boots());
        if is_same || members.len() < self.view.quorum() {
            return;
        }
        let removed: Vec<_> = self.view.boots().filter(|boot| !members.contains(boot)).collect();
        self.dead.extend(removed);
        let mut next = Vec::new();
        for boot in members {
            next.push(match self.view.member(boot) {
                Some(member) => *member,
                None => {
                    let incarnation = self.incarnations.entry(boot.node).or_default();
                    *incarnation = incarnation.next();
                    let site = SiteId { node: boot.node, incarnation: *incarnation };
                    Member { site, nonce: boot.nonce }
                }
            });
        }
        self.view.id = ViewId { number: self.view.id.number + 1, nonce: self.rng.next_u64() };
        self.view.members = next;
        let view = Arc::new(self.view.clone());
        for boot in view.boots() {
            let wait = self.rng.below(self.views.delay.as_nanos().max(1) as u64);
            let due = self.due.entry(boot).or_default();
            let after = due.back().map_or(now, |(at, _)| *at);
            due.push_back((after.max(now + Duration::from_nanos(wait)), Arc::clone(&view)));
        }
    }
}
