//! Comparing the hashes of the members at equal positions (PD-34).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mainstay_base::{Position, SiteId};

/// Who is wrong when hashes of one position differ. A majority is one of the members, not of the hashes known so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// No hash has a majority yet, and some are still to come.
    Pending,
    /// A majority agrees with this replica; those that differ will halt.
    Others,
    /// A majority agrees on another hash; this replica has halted.
    Own,
    /// All hashes are known and none has a majority: nobody can say who is right, so all halt.
    Split,
}

/// A difference that was found.
pub(crate) struct Difference {
    pub(crate) verdict: Verdict,
    /// The members whose hash is not that of this replica.
    pub(crate) sites: Vec<SiteId>,
}

/// The newest hashes of one member, by ascending position.
type Recent = VecDeque<(Position, u128)>;

/// The last few hashes of each member.
pub(crate) struct Compare {
    kept_max: usize,
    own: Recent,
    others: BTreeMap<SiteId, Recent>,
}

impl Compare {
    pub(crate) fn new(kept_max: usize) -> Self {
        Self { kept_max, own: VecDeque::new(), others: BTreeMap::new() }
    }

    pub(crate) fn set_others(&mut self, sites: &BTreeSet<SiteId>) {
        self.others.retain(|site, _| sites.contains(site));
        for site in sites {
            self.others.entry(*site).or_default();
        }
    }

    /// The own state is replaced: its earlier hashes say nothing about it.
    pub(crate) fn forget_own(&mut self) {
        self.own.clear();
    }

    pub(crate) fn own(&mut self, position: Position, hash: u128) -> Option<Difference> {
        push(&mut self.own, self.kept_max, position, hash);
        self.judge(position)
    }

    /// `None` if the hash cannot be used: not of a member, or not newer than its last.
    pub(crate) fn other(
        &mut self,
        site: SiteId,
        position: Position,
        hash: u128,
    ) -> Option<Option<Difference>> {
        let recent = self.others.get_mut(&site)?;
        push(recent, self.kept_max, position, hash).then(|| self.judge(position))
    }

    fn judge(&self, position: Position) -> Option<Difference> {
        let own = at(&self.own, position)?;
        let known: Vec<(SiteId, u128)> = self
            .others
            .iter()
            .filter_map(|(site, recent)| at(recent, position).map(|hash| (*site, hash)))
            .collect();
        let sites: Vec<SiteId> =
            known.iter().filter(|(_, hash)| *hash != own).map(|(site, _)| *site).collect();
        if sites.is_empty() {
            return None;
        }
        let members = self.others.len() + 1;
        let has_majority = |hash: u128| {
            let others = known.iter().filter(|(_, other)| *other == hash).count();
            others + usize::from(hash == own) > members / 2
        };
        let verdict = if has_majority(own) {
            Verdict::Others
        } else if known.iter().any(|(_, hash)| has_majority(*hash)) {
            Verdict::Own
        } else if known.len() + 1 == members {
            Verdict::Split
        } else {
            Verdict::Pending
        };
        Some(Difference { verdict, sites })
    }
}

fn at(recent: &Recent, position: Position) -> Option<u128> {
    recent.iter().find(|(known, _)| *known == position).map(|(_, hash)| *hash)
}

/// Keeps the newest; false if the position is not above the last.
fn push(recent: &mut Recent, kept_max: usize, position: Position, hash: u128) -> bool {
    if recent.back().is_some_and(|(last, _)| *last >= position) {
        return false;
    }
    recent.push_back((position, hash));
    if recent.len() > kept_max {
        recent.pop_front();
    }
    true
}
