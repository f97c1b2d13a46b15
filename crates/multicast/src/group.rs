//! The machine.

mod cast;
mod hold;
mod install;
mod persist;
mod read;
mod receive;
mod report;
mod retired;
mod state;
mod transfer;
mod turn;

use std::collections::VecDeque;

use bytes::Bytes;
use mainstay_base::{BootId, Instant, Member, Order, Position, SiteId, ViewId, fault};

use crate::config::Config;
use crate::epoch::Epoch;
use crate::event::{Delivery, Event, Output};
use crate::flush::{FlushState, Settings, Standing};
use crate::message::Message;
use crate::replay::Recovered;
use crate::stats::Stats;

use hold::Hold;
use read::Reads;
use report::{Levels, OwnRun, Said};
pub use retired::Retired;
pub use state::Status;
use transfer::{Restore, Sponsor};

/// What a member begins with.
#[derive(Clone, Debug)]
pub enum Start {
    /// The group is new here, and the empty state is the right one: only where a cluster is made.
    Fresh,
    /// The state is not known: it must come from others.
    Empty,
    /// The log of a former boot.
    Recovered(Recovered),
}

/// Another member, or this one, as seen in the current view.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Known {
    member: Member,
    /// As it reported.
    received: u64,
    forced: u64,
    fifo: Vec<u64>,
    whole: bool,
    /// It has reported in this view.
    reported: bool,
    /// Of its messages in FIFO order so many are delivered here.
    fifo_delivered: u64,
    /// A probe of it that is not answered yet.
    probe: Option<u64>,
    /// When its report moved last.
    moved_at: Instant,
    /// It was called slow, and will not be when it gets here.
    slow: Option<(u64, u64)>,
}

/// The state as the layer above has it, and what followed.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Behind {
    checkpoint: Position,
    past: Vec<Delivery>,
}

/// The current view.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Current {
    id: ViewId,
    members: Vec<Known>,
    me: usize,
    sequencer: usize,
    /// Who gives the state to joiners.
    sponsor: usize,
}

impl Current {
    fn rank(&self, boot: BootId) -> Option<usize> {
        self.members.iter().position(|known| known.member.boot() == boot)
    }
}

/// One process group at one site: the machine. See the crate's documentation.
#[derive(Clone, Debug)]
pub struct Group {
    config: Config,
    me: BootId,
    /// Which site this boot is; known from the first view of the group on.
    site: Option<SiteId>,
    /// The last site view, also one in which the group stands still.
    last_view: ViewId,
    current: Option<Current>,
    /// The messages of the last view of the group that this member was in.
    data: Epoch,
    /// Those of the view before, for members that still fetch.
    old: Option<Epoch>,
    /// This member has all the past up to `data`.
    whole: bool,
    /// It is so because it was there, and not from a log.
    live: bool,
    /// What the layer above is to be told when a view admits this member: it was not there, but has the past.
    behind: Option<Behind>,
    /// The view in which the boot before was still learning the past when it ended; `None` once this one is in a view.
    learned: Option<ViewId>,
    wedged: bool,
    paused: bool,
    blocked: bool,
    /// The others have it with other settings.
    refused: bool,
    accept_loss: bool,
    /// Delivered in total order up to here.
    delivered: u64,
    /// The last sequence numbers given to own casts, per lane: total, FIFO.
    assigned: [u64; 2],
    /// Sent up to here, per lane.
    sent: [u64; 2],
    /// Casts that wait for the next view.
    queue: VecDeque<(Order, Bytes)>,
    /// What own messages count that are queued or not at all members.
    own_bytes: usize,
    prompt: bool,
    levels: Levels,
    own_runs: VecDeque<OwnRun>,
    reached: [u64; 4],
    /// The last report sent, and what has come since.
    last_report: Option<Said>,
    unreported: usize,
    report_now: bool,
    report_at: Option<Instant>,
    /// There is more to deliver, in the next turn.
    more_at: Option<Instant>,
    reads: Reads,
    hold: Option<Hold>,
    sponsor: Option<Sponsor>,
    restore: Option<Restore>,
    /// Frames of views that are not installed here yet.
    aside: VecDeque<(BootId, Message)>,
    aside_bytes: usize,
    next_io: u64,
    /// Writes on their way, and the positions that they force.
    writing: VecDeque<(u64, u64)>,
    /// Asked to be forced up to here, and forced.
    persisted: u64,
    forced: u64,
    /// The write that makes a restored joiner whole.
    whole_io: Option<u64>,
    /// Since when the budget is short.
    pressed_since: Option<Instant>,
    out: VecDeque<Output>,
    retired: Vec<Retired>,
    stats: Stats,
}

impl Group {
    /// A group at boot `me`, in no view yet: wedged until the first [`install`](Self::install).
    #[must_use]
    pub fn new(config: Config, me: BootId, start: Start) -> Self {
        let learned = match &start {
            Start::Recovered(recovered) => recovered.learning,
            Start::Fresh | Start::Empty => None,
        };
        let (data, whole, behind) = match start {
            Start::Fresh => (Epoch::empty(), true, None),
            Start::Empty => (Epoch::empty(), false, None),
            Start::Recovered(Recovered { epoch: Some(epoch), checkpoint, past, .. }) => {
                (*epoch, true, Some(Behind { checkpoint, past }))
            }
            Start::Recovered(_) => (Epoch::empty(), false, None),
        };
        let held = data.held;
        Self {
            config,
            me,
            site: None,
            last_view: data.view,
            current: None,
            old: None,
            live: behind.is_none(),
            behind,
            learned,
            whole,
            wedged: true,
            paused: false,
            blocked: false,
            refused: false,
            accept_loss: false,
            delivered: held,
            assigned: [0; 2],
            sent: [0; 2],
            queue: VecDeque::new(),
            own_bytes: 0,
            prompt: false,
            levels: Levels::default(),
            own_runs: VecDeque::new(),
            reached: [0; 4],
            last_report: None,
            unreported: 0,
            report_now: false,
            report_at: None,
            more_at: None,
            reads: Reads::default(),
            hold: None,
            sponsor: None,
            restore: None,
            aside: VecDeque::new(),
            aside_bytes: 0,
            next_io: 1,
            writing: VecDeque::new(),
            persisted: held,
            forced: held,
            whole_io: None,
            pressed_since: None,
            out: VecDeque::new(),
            retired: Vec::new(),
            stats: Stats::default(),
            data,
        }
    }

    /// Stops softly, as a minority must: from here on nothing is ordered, delivered, acknowledged or answered. What
    /// others send is still taken in.
    pub fn pause(&mut self, _now: Instant) {
        self.paused = true;
    }

    /// Goes on after [`pause`](Self::pause), in the same view.
    pub fn resume(&mut self, _now: Instant) {
        self.paused = false;
    }

    /// Ends the view: from here on nothing of it is accepted, and casts wait for the next one.
    pub fn wedge(&mut self) {
        self.wedged = true;
        let old = self.old.take();
        self.retire(old, Vec::new());
        self.reads.restart();
    }

    /// What this member knows, for the acknowledgement of a proposed view.
    ///
    /// # Panics
    /// If the group is not wedged: what it says could be overtaken.
    #[must_use]
    pub fn flush(&self) -> FlushState {
        assert!(self.wedged, "only a wedged group can say what it knows");
        let data = &self.data;
        let standing = self.whole.then(|| Standing {
            as_of: data.view,
            live: self.live,
            senders: data.senders.clone(),
            trimmed: data.log.trimmed(),
            ordered: data.log.ordered().to_vec(),
            runs: data.log.runs(),
            total: data.received(Order::Total),
            fifo: data.received(Order::Fifo),
        });
        FlushState {
            group: self.config.group,
            settings: Settings {
                nodes: self.config.nodes.clone(),
                durability: self.config.durability,
                deliver_at: self.config.deliver_at,
                stateful: self.config.stateful,
                application: self.config.application,
            },
            accept_loss: self.accept_loss,
            own: self.own_gone(),
            learning: match &self.current {
                Some(current) => Some(current.id).filter(|_| !self.whole),
                None => self.learned,
            },
            standing,
        }
    }

    /// This site, and in both lanes the last own message that is not here any more.
    fn own_gone(&self) -> Option<(SiteId, u64, u64)> {
        let site = self.site?;
        let me = self.data.senders.iter().position(|sender| *sender == site)?;
        Some((site, self.data.total[me].gone(), self.data.fifo[me].gone()))
    }

    /// An operator's word: rather go on than wait for those that may have more. It counts at the next view change and
    /// is used up by it.
    pub fn accept_loss(&mut self) {
        self.accept_loss = true;
    }

    /// Such a word was said, and the group is blocked all the same: no view has counted it yet.
    #[must_use]
    pub fn is_loss_accepted(&self) -> bool {
        self.accept_loss && self.blocked
    }

    /// The deadline of [`poll_timeout`](Self::poll_timeout) has come. Early and spurious calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.retry_fetches(now);
    }

    /// The next output, in order.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout), and then the end of a turn, are wanted; `None`: nothing to wait
    /// for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let active = self.is_active();
        let report = self.report_at.filter(|_| active);
        let slow = self.slow_deadline().filter(|_| active);
        let more = self.more_at.filter(|_| active);
        [report, more, slow, self.fetch_deadline()].into_iter().flatten().min()
    }

    /// In a view, neither wedged nor paused.
    fn is_active(&self) -> bool {
        self.current.is_some() && !self.is_wedged() && !self.paused
    }

    fn is_wedged(&self) -> bool {
        self.wedged && !(fault!(self.config, NoWedge) && self.current.is_some())
    }

    fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    fn send(&mut self, to: BootId, message: Message) {
        self.out.push_back(Output::Send { to, message });
    }

    /// Sends to all other members of the view.
    fn broadcast(&mut self, message: &Message) {
        let Some(current) = &self.current else { return };
        for (rank, known) in current.members.iter().enumerate() {
            if rank != current.me {
                let (to, message) = (known.member.boot(), message.clone());
                self.out.push_back(Output::Send { to, message });
            }
        }
    }

    fn deliver(&mut self, batch: Vec<Delivery>) {
        if !batch.is_empty() {
            self.stats.delivered += batch.len() as u64;
            self.event(Event::Deliver(batch));
        }
    }

    fn position(&self) -> Position {
        Position(self.delivered)
    }
}
