//! What a member knows when its view ends, and the cut made of what the members know.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use mainstay_base::{BootId, GroupId, Level, Member, NodeId, SiteId, View, ViewId};
use serde::{Deserialize, Serialize};

use crate::config::Durability;
use crate::order::{Log, Run, split};
use crate::view::of_group;

/// The settings of a group that must be the same at all its members.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The configured nodes.
    pub nodes: BTreeSet<NodeId>,
    /// What a restart leaves.
    pub durability: Durability,
    /// The level at which it delivers.
    pub deliver_at: Level,
    /// Joiners need the state.
    pub stateful: bool,
    /// What stands on it.
    pub application: u16,
}

/// What a wedged member knows of its group: its part of the acknowledgement of a proposed view.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct FlushState {
    /// The group.
    pub group: GroupId,
    /// The sender's settings of it.
    pub settings: Settings,
    /// An operator accepts that messages may be lost.
    pub accept_loss: bool,
    /// The site that this boot is, if it is one, with the sequence numbers in both lanes behind which it still has what
    /// it cast.
    pub own: Option<(SiteId, u64, u64)>,
    /// The view that it is a member of without having all the past, or that its former boot was, as the log says: there it
    /// never counted for a majority.
    pub learning: Option<ViewId>,
    /// What it has, if it has all the past of the group up to a view.
    pub standing: Option<Standing>,
}

impl FlushState {
    /// Whether the group has had a view, as far as the sender knows.
    fn has_past(&self) -> bool {
        let is_past = |standing: &Standing| standing.as_of != ViewId::NONE;
        self.learning.is_some() || self.standing.as_ref().is_some_and(is_past)
    }

    /// Whether the sender, though a member of the group's latest view, was in no majority there: it is still learning the
    /// past of that view; or with the `settings` of that view nothing is told before it is forced, and its log, which it
    /// started from, ends before that view.
    fn never_counted_in(&self, latest: ViewId, settings: &Settings) -> bool {
        let Settings { durability, deliver_at, .. } = *settings;
        let forced_first = durability == Durability::Disk && deliver_at == Level::Disk;
        let is_before = |view: ViewId| forced_first && view.number < latest.number;
        match &self.standing {
            Some(standing) => !standing.live && is_before(standing.as_of),
            None => self.learning.is_some_and(|view| view == latest || is_before(view)),
        }
    }
}

/// What a whole member has of the last view of the group that it was in.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Standing {
    /// That view; [`ViewId::NONE`] before the first.
    pub as_of: ViewId,
    /// It has not restarted since.
    pub live: bool,
    /// The members of that view in rank order.
    pub senders: Vec<SiteId>,
    /// All members of that view have everything up to this position.
    pub trimmed: u64,
    /// Per rank the last sequence number at or before `trimmed`.
    pub ordered: Vec<u64>,
    /// The order from `trimmed + 1` on, as far as it is known.
    pub runs: Vec<Run>,
    /// Per rank the last message in total order received.
    pub total: Vec<u64>,
    /// Per rank the last message in FIFO order received.
    pub fifo: Vec<u64>,
}

impl Standing {
    /// Whether the parts fit together; what a peer sends need not.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let ranks = self.senders.len();
        let sized = [&self.ordered, &self.total, &self.fifo].iter().all(|it| it.len() == ranks);
        sized
            && ranks <= usize::from(u16::MAX)
            && self.ordered.iter().zip(&self.total).all(|(ordered, total)| ordered <= total)
            && self.total.iter().chain(&self.fifo).all(|last| *last < u64::MAX)
            && self.order().is_some()
    }

    fn order(&self) -> Option<Log> {
        replay(self.trimmed, &self.ordered, &self.runs)
    }
}

/// The order that `runs` make behind a position; `None` if they do not join on.
fn replay(start: u64, ordered: &[u64], runs: &[Run]) -> Option<Log> {
    let mut log = Log::after(start, ordered.to_vec());
    for run in runs {
        let rank = usize::from(run.rank);
        let next = log.numbered(rank).checked_add(1)?;
        if run.count == 0 || run.first != next || !log.append(rank, u64::from(run.count)) {
            return None;
        }
    }
    Some(log)
}

/// Whether a group goes on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Verdict {
    /// It may be that nobody at hand has what was acknowledged, or a minority of the nodes carry the group: it stands still
    /// in the new view.
    Blocked,
    /// All members of the old view that go on deliver up to the cut and then install.
    Install,
}

/// The latest view of a group: agreed together with the site views.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Agreed {
    /// That view; [`ViewId::NONE`] before the first.
    pub as_of: ViewId,
    /// The nodes of its members.
    pub members: BTreeSet<NodeId>,
    /// The settings that the group had there; `None` before the first view.
    pub settings: Option<Settings>,
}

impl Agreed {
    /// Before the first view of a group of `nodes`. [`Cut::compute`] takes the nodes of the settings that the group gets
    /// instead: these are only what is known until then.
    #[must_use]
    pub fn first(nodes: &BTreeSet<NodeId>) -> Self {
        Self { as_of: ViewId::NONE, members: nodes.clone(), settings: None }
    }

    /// Whether some contributors that `count` are in every quorum of members of this view; `learners` never were in one.
    fn is_covered(
        &self,
        contributors: &[(BootId, &Standing)],
        learners: &BTreeSet<NodeId>,
        quorum: usize,
        count: impl Fn(&Standing) -> bool,
    ) -> bool {
        let some = contributors.iter().filter(|(_, it)| it.as_of == self.as_of && count(it));
        let nodes: BTreeSet<NodeId> = some.map(|(boot, _)| boot.node).collect();
        let missing = self.members.difference(&nodes).filter(|node| !learners.contains(node));
        !nodes.is_empty() && missing.count() < quorum
    }
}

/// The state whose settings are those of the group. What it had in its latest view stays as long as a member has it; otherwise
/// it is what most of the configured nodes have, and of two that as many have, what the oldest member has.
fn prevailing<'a>(
    states: &[&'a (BootId, FlushState)],
    agreed: &Agreed,
    last: &View,
) -> Option<&'a FlushState> {
    let stand = |settings: &Settings| agreed.settings.as_ref() == Some(settings);
    let votes = |settings: &Settings| {
        let same = states.iter().filter(|(_, state)| state.settings == *settings);
        same.filter(|(boot, _)| settings.nodes.contains(&boot.node)).count()
    };
    let rank = |boot: BootId| last.members.iter().position(|member| member.boot() == boot);
    let first = states.iter().min_by_key(|(boot, state)| {
        let settings = &state.settings;
        (!stand(settings), Reverse(votes(settings)), rank(*boot))
    });
    first.map(|(_, state)| state)
}

/// Those who have the past up to view `as_of`, and its beginning as far as nobody keeps it any more.
fn of_view<'a>(all: &[(BootId, &'a Standing)], as_of: ViewId) -> Vec<(BootId, &'a Standing)> {
    let some = all.iter().filter(|(_, it)| it.as_of == as_of);
    // Of one view all know the same senders; who does not contradicts himself.
    let senders = some.clone().next().map(|(_, it)| &it.senders);
    let start = some.clone().map(|(_, it)| it.trimmed).max().unwrap_or(0);
    let reaches = |it: &Standing| it.order().is_some_and(|order| order.known() >= start);
    some.filter(|(_, it)| Some(&it.senders) == senders && reaches(it)).copied().collect()
}

/// Who has what of the old view.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// A whole member that contributed.
    pub boot: BootId,
    /// Per rank the last message in total order it has.
    pub total: Vec<u64>,
    /// Per rank the last message in FIFO order it has.
    pub fifo: Vec<u64>,
}

/// Where the old view of a group ends. All members of the new view get the same one.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Cut {
    /// The group.
    pub group: GroupId,
    /// The old view.
    pub as_of: ViewId,
    /// The settings that the group has from here on.
    pub settings: Settings,
    /// The members of the last view that carry the group with its settings: those of the view of the group.
    pub carriers: BTreeSet<BootId>,
    /// Members of the last view that carry it with other settings. They are no members of the group.
    pub refused: BTreeSet<BootId>,
    /// Whether the group goes on.
    pub verdict: Verdict,
    /// The members of the old view in rank order.
    pub senders: Vec<SiteId>,
    /// All contributors have everything up to this position.
    pub start: u64,
    /// Per rank the last sequence number at or before `start`.
    pub ordered: Vec<u64>,
    /// Up to here the old view's positions stand.
    pub kept: u64,
    /// The last position of the old view.
    pub end: u64,
    /// The order from `start + 1` to `end`.
    pub runs: Vec<Run>,
    /// Per rank the last message in total order of the old view.
    pub total: Vec<u64>,
    /// Per rank the last message in FIFO order of the old view.
    pub fifo: Vec<u64>,
    /// Who contributed, and what they have.
    pub holders: Vec<Holder>,
    /// Sites that are no such members but have cast before, with the last sequence number of both lanes that is gone.
    pub others: Vec<(SiteId, u64, u64)>,
    /// Messages may be lost that were acknowledged.
    pub loss: bool,
}

impl Cut {
    /// The cut of one group from the states of the members of `last`, the last of the proposed views; `agreed` says which
    /// view of the group is the latest. States of other boots do not count, nor what is not well-formed in them.
    ///
    /// The group is *whole*, and so nothing acknowledged is lost, if every majority of the configured nodes among the
    /// members of that view has a contributor. Members that are still learning its past are in no such majority. It goes on if
    /// it is whole or has had no view yet, and a majority of its nodes carries it; if all its nodes do, those of its latest view too; or on an
    /// operator's word.
    ///
    /// It is a pure function, but only the one who fixes the cut computes it; the others are told.
    ///
    /// # Panics
    /// If `states` is empty.
    #[must_use]
    pub fn compute(states: &[(BootId, FlushState)], agreed: &Agreed, last: &View) -> Self {
        let (_, any) = states.first().expect("a cut is made of at least one state");
        let present: Vec<_> = states.iter().filter(|(boot, _)| last.has(*boot)).collect();
        let common = prevailing(&present, agreed, last).unwrap_or(any);
        let nodes = &common.settings.nodes;
        let (states, others): (Vec<_>, Vec<_>) = present.into_iter().partition(|(boot, state)| {
            state.settings == common.settings && nodes.contains(&boot.node)
        });
        let standings = states.iter().filter_map(|(boot, state)| {
            let standing = state.standing.as_ref()?;
            standing.is_well_formed().then_some((*boot, standing))
        });
        let standings: Vec<_> = standings.collect();
        // Who is in the first view of a group, the settings say that it has from there on.
        let first = Agreed { members: nodes.clone(), ..agreed.clone() };
        let agreed = if agreed.settings.is_some() { agreed } else { &first };
        let mut contributors = of_view(&standings, agreed.as_of);
        // What was acknowledged was so with these.
        let former = agreed.settings.as_ref().unwrap_or(&common.settings);
        let quorum = former.nodes.len() / 2 + 1;
        let learners =
            states.iter().filter(|(_, state)| state.never_counted_in(agreed.as_of, former));
        let learners: BTreeSet<NodeId> = learners.map(|(boot, _)| boot.node).collect();
        let whole = agreed.is_covered(&contributors, &learners, quorum, |_| true);
        let present: BTreeSet<NodeId> = states.iter().map(|(boot, _)| boot.node).collect();
        let accepted = states.iter().any(|(_, state)| state.accept_loss);
        // What fewer have nobody may be told of.
        let is_enough = present.len() > nodes.len() / 2;
        let are_all = present.is_superset(nodes) && present.is_superset(&former.nodes);
        // Before its first view the group had no messages: there is nothing that a majority could lack.
        let mut all = states.iter().chain(&others);
        let is_new = agreed.as_of == ViewId::NONE && !all.any(|(_, it)| it.has_past());
        let goes_on = accepted || are_all || (is_enough && (whole || is_new));
        if goes_on && !whole && is_new {
            contributors.clear();
        } else if goes_on && !whole {
            // Rather an older past than none.
            let newest = standings.iter().map(|(_, it)| it.as_of).max();
            contributors = of_view(&standings, newest.unwrap_or(ViewId::NONE));
        }
        let as_of = contributors.first().map_or(ViewId::NONE, |(_, it)| it.as_of);
        let mut cut = Self::joined(common, as_of, &contributors);
        cut.carriers = states.iter().map(|(boot, _)| *boot).collect();
        cut.refused = others.iter().map(|(boot, _)| *boot).collect();
        cut.add_own(states.iter().filter_map(|(_, state)| state.own));
        if goes_on {
            cut.verdict = Verdict::Install;
            // What only memories had is gone with a restart, unless nothing is told before it is forced.
            let forced_first = former.deliver_at == Level::Disk;
            let remembered = agreed.is_covered(&contributors, &learners, quorum, |it| it.live);
            cut.loss = !is_new && (!whole || !(forced_first || remembered));
        }
        if cut.loss {
            cut.drop_tail();
        }
        cut
    }

    /// Where sites go on that cast before but did not contribute.
    fn add_own(&mut self, all: impl Iterator<Item = (SiteId, u64, u64)>) {
        for own in all {
            match self.senders.iter().position(|sender| *sender == own.0) {
                // Logs know nothing of messages in FIFO order; who cast them does.
                Some(rank) => self.fifo[rank] = self.fifo[rank].max(own.2),
                None => self.others.push(own),
            }
        }
    }

    /// Where messages may be lost, positions behind the kept part may have been delivered otherwise by those that are
    /// gone: nobody gets one in the old view. Who cast a message of the tail casts it again in the new one.
    fn drop_tail(&mut self) {
        let Some(order) = self.order() else { return };
        let mut kept = Log::after(self.start, self.ordered.clone());
        for run in order.range(self.start + 1, self.kept) {
            kept.append(run.rank, run.count);
        }
        self.end = self.kept;
        self.runs = kept.runs();
        self.total = (0..self.senders.len()).map(|rank| kept.numbered(rank)).collect();
        for holder in &mut self.holders {
            holder.total.iter_mut().zip(&self.total).for_each(|(it, most)| *it = (*it).min(*most));
        }
    }

    /// What the contributors have together; blocked until somebody says otherwise.
    fn joined(common: &FlushState, as_of: ViewId, contributors: &[(BootId, &Standing)]) -> Self {
        let senders = contributors.first().map_or_else(Vec::new, |(_, it)| it.senders.clone());
        let most = |vector: fn(&Standing) -> &Vec<u64>| -> Vec<u64> {
            let of = |rank: usize| contributors.iter().map(move |(_, it)| vector(it)[rank]);
            (0..senders.len()).map(|rank| of(rank).max().unwrap_or(0)).collect()
        };
        let (total, fifo) = (most(|it| &it.total), most(|it| &it.fifo));
        let base = contributors.iter().map(|(_, it)| *it).max_by_key(|it| it.trimmed);
        let start = base.map_or(0, |it| it.trimmed);
        let ordered = base.map_or_else(Vec::new, |it| it.ordered.clone());
        let orders = contributors.iter().filter_map(|(_, it)| it.order());
        let longest = orders.max_by_key(Log::known);
        let mut log = Log::after(start, ordered.clone());
        let placed = longest.iter().flat_map(|it| it.range(start + 1, it.known()));
        for run in placed {
            let have = total[run.rank].saturating_sub(log.numbered(run.rank)).min(run.count);
            log.append(run.rank, have);
            if have < run.count {
                break;
            }
        }
        let kept = log.known();
        for (rank, last) in total.iter().enumerate() {
            log.append(rank, last.saturating_sub(log.numbered(rank)));
        }
        let holder = |(boot, it): &(BootId, &Standing)| Holder {
            boot: *boot,
            total: it.total.clone(),
            fifo: it.fifo.clone(),
        };
        Self {
            group: common.group,
            as_of,
            settings: common.settings.clone(),
            carriers: BTreeSet::new(),
            refused: BTreeSet::new(),
            verdict: Verdict::Blocked,
            senders,
            start,
            ordered,
            kept,
            end: log.known(),
            runs: log.range(start + 1, log.known()).flat_map(split).collect(),
            total,
            fifo,
            holders: contributors.iter().map(holder).collect(),
            others: Vec::new(),
            loss: false,
        }
    }

    /// Whether the parts fit together; what a peer sends need not.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let ranks = self.senders.len();
        let sized = |vector: &Vec<u64>| vector.len() == ranks;
        let has = |vector: &Vec<u64>, most: &Vec<u64>| {
            sized(vector) && vector.iter().zip(most).all(|(it, most)| it <= most)
        };
        let nodes = self.settings.nodes.len();
        ranks <= usize::from(u16::MAX)
            && [&self.ordered, &self.total, &self.fifo].into_iter().all(sized)
            && self.fifo.iter().all(|last| *last < u64::MAX)
            && self.others.iter().all(|(_, total, fifo)| *total.max(fifo) < u64::MAX)
            && self.others.len() <= nodes
            && self.carriers.len() <= nodes
            && self.holders.len() <= nodes
            && (0..ranks).all(|rank| {
                // What the cut orders, somebody has.
                let have = self.holders.iter().map(|it| it.total.get(rank).copied().unwrap_or(0));
                have.max() == Some(self.total[rank])
            })
            && self
                .holders
                .iter()
                .all(|it| has(&it.total, &self.total) && has(&it.fifo, &self.fifo))
            && (self.start..=self.end).contains(&self.kept)
            && self.order().is_some_and(|log| {
                log.known() == self.end
                    && (0..ranks).all(|rank| log.numbered(rank) == self.total[rank])
            })
    }

    /// The latest view of the group once `last` is installed with this cut; `None` if the group is blocked, and the one
    /// before stays the latest.
    #[must_use]
    pub fn agreed(&self, last: &View) -> Option<Agreed> {
        let members = self.members(last).into_iter().map(|member| member.site.node);
        (!self.is_blocked()).then(|| Agreed {
            as_of: last.id,
            members: members.collect(),
            settings: Some(self.settings.clone()),
        })
    }

    /// The members of the group in one of the views that the cut leads to, in rank order: who carries it, or has carried it.
    pub(crate) fn members(&self, view: &View) -> Vec<Member> {
        let mut members = of_group(view, &self.settings.nodes);
        members.retain(|member| {
            self.carriers.contains(&member.boot()) || self.senders.contains(&member.site)
        });
        members
    }

    /// Nodes among the members of `last` that do not take part in the group though it is configured for them: they do not carry it, or
    /// (true) with other settings.
    pub fn absent(&self, last: &View) -> impl Iterator<Item = (NodeId, bool)> {
        let configured = of_group(last, &self.settings.nodes).into_iter();
        let absent = configured.filter(|member| !self.carriers.contains(&member.boot()));
        absent.map(|member| (member.site.node, self.refused.contains(&member.boot())))
    }

    /// The last sequence numbers of a site in both lanes; none if it is new.
    pub(crate) fn ends_of(&self, site: SiteId) -> (u64, u64) {
        if let Some(rank) = self.senders.iter().position(|sender| *sender == site) {
            return (self.total[rank], self.fifo[rank]);
        }
        let other = self.others.iter().find(|(other, ..)| *other == site);
        other.map_or((0, 0), |(_, total, fifo)| (*total, *fifo))
    }

    /// Whether `boot` contributed, so that it goes on without state transfer.
    #[must_use]
    pub fn is_contributor(&self, boot: BootId) -> bool {
        self.holders.iter().any(|holder| holder.boot == boot)
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.verdict == Verdict::Blocked
    }

    /// The order from `start` to `end`.
    pub(crate) fn order(&self) -> Option<Log> {
        replay(self.start, &self.ordered, &self.runs)
    }
}
