//! Looking at the state: status, counters, fingerprint.

use std::hash::Hash;

use mainstay_base::{Fingerprint, Fingerprinter, SiteId, ViewId};

use super::Group;
use crate::config::Config;
use crate::stats::Stats;

/// Where a group stands at this member.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The last view of the group that this member installed.
    pub view: ViewId,
    /// Its members in rank order.
    pub members: Vec<SiteId>,
    /// Who gives out positions.
    pub sequencer: Option<SiteId>,
    /// Positions are known up to here.
    pub known: u64,
    /// Positions and data are here up to here.
    pub held: u64,
    /// Forced to the own log up to here.
    pub forced: u64,
    /// Delivered here up to here.
    pub delivered: u64,
    /// At a majority of the configured nodes up to here.
    pub majority: u64,
    /// At all members of the view up to here, and at a majority of the configured nodes.
    pub safe: u64,
    /// Forced at a majority of the configured nodes up to here.
    pub disk: u64,
    /// At all members (`Disk`: forced) and delivered here up to here; nothing of it is kept in memory.
    pub trimmed: u64,
    /// What own messages count that are queued or not known to be at all members.
    pub unstable_bytes: usize,
    /// This member has all the past of the group.
    pub whole: bool,
    /// The group stands still in the last site view.
    pub blocked: bool,
    /// The others have the group with other settings: this member takes no part in it.
    pub refused: bool,
    /// It accepts nothing of its view any more.
    pub wedged: bool,
    /// Members that keep the budget short.
    pub slow: Vec<SiteId>,
}

impl Group {
    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Where the group stands here.
    #[must_use]
    pub fn status(&self) -> Status {
        let members = self.current.iter().flat_map(|current| &current.members);
        let slow = members.filter(|known| known.slow.is_some()).map(|known| known.member.site);
        let sequencer = self.current.as_ref().map(|it| it.members[it.sequencer].member.site);
        Status {
            view: self.data.view,
            members: self.data.senders.clone(),
            sequencer,
            known: self.data.log.known(),
            held: self.data.held,
            forced: self.forced,
            delivered: self.delivered,
            majority: self.levels.majority,
            safe: self.levels.safe,
            disk: self.levels.disk,
            trimmed: self.data.log.trimmed(),
            unstable_bytes: self.own_bytes,
            whole: self.whole,
            blocked: self.blocked,
            refused: self.refused,
            wedged: self.wedged,
            slow: slow.collect(),
        }
    }
}

impl Fingerprint for Group {
    /// Deadlines are left out but for whether there is one; so are the counters.
    fn fingerprint(&self, into: &mut Fingerprinter) {
        (self.me, self.site, self.last_view, self.whole, self.live).hash(into);
        self.refused.hash(into);
        (self.wedged, self.paused, self.blocked, self.accept_loss, self.prompt).hash(into);
        if let Some(current) = &self.current {
            (current.id, current.me, current.sequencer, current.sponsor).hash(into);
            for it in &current.members {
                (it.member, it.received, it.forced, &it.fifo, it.whole).hash(into);
                (it.reported, it.fifo_delivered, it.probe, it.slow).hash(into);
            }
        }
        (&self.data, &self.old, &self.behind, self.learned, self.delivered).hash(into);
        (self.assigned, self.sent, &self.queue, self.own_bytes).hash(into);
        (self.levels, &self.own_runs, self.reached).hash(into);
        (&self.last_report, self.unreported, self.report_now).hash(into);
        (self.report_at.is_some(), self.pressed_since.is_some()).hash(into);
        (&self.reads, &self.sponsor, &self.restore, &self.aside).hash(into);
        self.hold.is_some().hash(into);
        if let Some(hold) = &self.hold {
            hold.fingerprint(self.me, self.next_io, into);
        }
        // Numbers of writes only have to match between here and the log: they count back from the next one.
        for (io, upto) in &self.writing {
            (self.next_io - io, upto).hash(into);
        }
        (self.writing.len(), self.persisted, self.forced).hash(into);
        self.whole_io.map(|io| self.next_io - io).hash(into);
        self.out.hash(into);
    }
}
