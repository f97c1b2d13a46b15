//! The services of a node, and their channels to other nodes.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use mainstay_base::rack::beside::Aside;
use mainstay_base::rack::{
    self, Breach, Effect, Given, Left, LogEntry, Mounted, Proxy, Rack, Tenant as _,
};
use mainstay_base::service::{Address, Ask, Io, Kind, Service};
use mainstay_base::{BootId, Instant, View, ViewId, Work};
use mainstay_link as link;
use thiserror::Error;

use crate::mux::{CHANNEL, MOUNTED_MAX, Mux};

/// So often what services were given at the end of a turn is taken in by the same turn; what is left comes in the next one.
const ROUNDS_MAX: usize = 8;
/// While more than this is being written, no more is taken in (16 MiB).
const WRITING_BYTES: usize = 16 << 20;

/// Why a service is not mounted. Nothing changed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountError {
    /// It has no place on the rack.
    #[error(transparent)]
    Rack(#[from] rack::MountError),
    /// The node has as many as it may have.
    #[error("{MOUNTED_MAX} services are mounted")]
    TooMany,
}

/// Writes on their way to the disk.
#[derive(Default)]
struct Writes {
    issued: u64,
    /// Whom to tell when a write is stable, and its bytes.
    pending: VecDeque<(u64, BTreeMap<Address, Io>, usize)>,
    /// Of all that are pending.
    bytes: usize,
    /// The last record of each instance.
    last: BTreeMap<Address, Io>,
    /// What instances that are not mounted any more need of the log.
    gone: BTreeMap<Address, Io>,
}

impl Writes {
    /// Whether a service leaves out a number or uses one twice: its log would not fold.
    fn check(&mut self, of: Address, io: Io) -> Result<(), Breach> {
        match self.last.get(&of) {
            Some(last) if last.next() != io => Err(Breach::Number { io, last: *last }),
            _ => {
                self.last.insert(of, io);
                Ok(())
            }
        }
    }

    /// The next write, for the records of a turn.
    fn issue(&mut self, entries: Vec<LogEntry>, rack: &Rack) -> Option<Output> {
        if entries.is_empty() {
            return None;
        }
        let (mut whom, mut bytes) = (BTreeMap::new(), 0);
        for entry in &entries {
            let LogEntry::Record { of, io, meta, payload } = entry else { continue };
            bytes += meta.len() + payload.len();
            whom.insert(*of, *io);
        }
        self.issued += 1;
        self.bytes += bytes;
        self.pending.push_back((self.issued, whom, bytes));
        let keeps = self.gone.iter().map(|(of, io)| (*of, *io)).chain(rack.keeps()).collect();
        Some(Output::Write { io: self.issued, entries, keeps })
    }

    /// The write with this number is stable: up to where each instance is.
    fn written(&mut self, upto: u64) -> BTreeMap<Address, Io> {
        let mut stable = BTreeMap::new();
        while self.pending.front().is_some_and(|(io, ..)| *io <= upto) {
            let Some((_, whom, bytes)) = self.pending.pop_front() else { break };
            self.bytes -= bytes;
            stable.extend(whom);
        }
        stable
    }
}

/// What services want of their host, in this order.
pub enum Output {
    /// Append all of this to the log as one, force it, and tell [`Services::written`]. Without a disk: at once.
    Write {
        /// The running number.
        io: u64,
        /// The records of the turn, and before those of an instance the view that it knows, if that is another one than before.
        entries: Vec<LogEntry>,
        /// The oldest record that each instance needs, once this is stable.
        keeps: BTreeMap<Address, Io>,
    },
    /// The write with this number is known to be stable: what was needed before it only may go.
    Written {
        /// As in [`Output::Write`].
        io: u64,
    },
    /// A service wants something else: a checkpoint, a chunk of one, a job, a datagram outside the connections, what one beside the
    /// node wants of its actor.
    Effect(Effect),
    /// A service that has fallen is to be started again: all that it wrote is stable.
    Again(Again),
    /// A service was mounted late, or could not be.
    Late(Late),
    /// A user has dismounted a service.
    Dismounted {
        /// Which.
        of: Address,
    },
    /// A service broke a rule, and is mounted no more: an alarm for the operator.
    Stopped {
        /// Which.
        of: Address,
        /// The rule.
        breach: Breach,
    },
}

/// What became of a service that was to be [mounted late](Services::begin_late); what is in it is the host's business.
pub struct Late {
    /// Which.
    pub of: Address,
    /// What.
    pub found: Box<dyn Any + Send>,
}

/// How a service that has fallen is to be started again, or one is to be mounted late; what is in it is the host's business.
pub struct Again {
    /// Which.
    pub of: Address,
    /// How.
    pub plan: Box<dyn Any + Send>,
}

/// Changes what is mounted, or asks something of it, between two turns.
pub type Change = Box<dyn FnOnce(&mut Services, Instant) + Send>;

/// What the host or a user wants of the services.
pub enum Request {
    /// Commands for a service.
    Ask(Ask),
    /// Something for one service: a job is done, a reader has room.
    Give(Address, Given),
    /// A change of what is mounted.
    Change(Change),
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask(ask) => f.debug_tuple("Ask").field(ask).finish(),
            Self::Give(to, _) => f.debug_tuple("Give").field(to).finish(),
            Self::Change(_) => f.write_str("Change"),
        }
    }
}

/// The services of one node. Its owner tells it what the link says, turns it, and carries out what it puts out: frames for the
/// link first, then [`Output`]s.
#[derive(Default)]
pub struct Services {
    rack: Rack,
    mux: Mux,
    view: Option<Arc<View>>,
    /// The views that services beside the node know: in those they send and write.
    known: BTreeMap<Address, ViewId>,
    /// Who was stopped, and is not mounted again.
    stopped: BTreeMap<Address, Breach>,
    /// Who is to be mounted late, and is not yet.
    coming: BTreeSet<Address>,
    /// Who waits to be started again, or to be mounted late, until what it wrote is stable.
    again: Vec<Again>,
    /// The last view that the log names before records of each instance.
    marked: BTreeMap<Address, ViewId>,
    writes: Writes,
    /// The host carries datagrams, in place of the connections.
    outside: bool,
    disk_short: bool,
    /// There may be something to do at the end of the turn although nothing is mounted.
    has_news: bool,
    outputs: VecDeque<Output>,
}

impl Services {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Mounts a service. In its first turn it is told the view, and which peers are up. One that writes goes on behind the last
    /// record of its address: it is recovered from the log, and not mounted anew after it was dismounted.
    ///
    /// # Errors
    /// [`MountError`].
    pub fn mount<S: Service>(
        &mut self,
        now: Instant,
        service: Mounted<S>,
    ) -> Result<Address, MountError> {
        if self.mux.mounted() >= MOUNTED_MAX {
            return Err(MountError::TooMany);
        }
        let agreed = service.agreed();
        let of = self.rack.mount(service)?;
        self.mux.mount(of, S::CLASS, agreed);
        self.begin(now, of);
        Ok(of)
    }

    /// The same for a service `S` that lives [beside](rack::beside) the node.
    ///
    /// # Errors
    /// [`MountError`].
    pub fn mount_beside<S: Service>(
        &mut self,
        now: Instant,
        proxy: Proxy,
    ) -> Result<Address, MountError> {
        if self.mux.mounted() >= MOUNTED_MAX {
            return Err(MountError::TooMany);
        }
        let agreed = proxy.agreed();
        let of = self.rack.mount_beside::<S>(proxy)?;
        self.mux.mount_beside(of, S::CLASS, agreed);
        self.known.insert(of, ViewId::NONE);
        self.begin(now, of);
        Ok(of)
    }

    /// Whether it is mounted and lives beside the node.
    #[must_use]
    pub fn is_beside(&self, of: Address) -> bool {
        self.known.contains_key(&of)
    }

    fn begin(&mut self, now: Instant, of: Address) {
        self.has_news = true;
        self.writes.gone.remove(&of);
        self.marked.remove(&of);
        self.stopped.remove(&of);
        if let Some(view) = &self.view {
            self.rack.give(now, of, Given::View(Arc::clone(view)));
        }
        if self.disk_short {
            self.rack.give(now, of, Given::DiskShort(true));
        }
    }

    /// A service comes to its end: it is told so, turned once more, and gone; one beside the node when its actor has done that. False if
    /// there is none.
    pub fn dismount(&mut self, now: Instant, of: Address) -> bool {
        self.has_news = true;
        let is_there = self.rack.dismount(now, of);
        if is_there {
            self.outputs.push_back(Output::Dismounted { of });
        }
        is_there
    }

    /// Whether there is a place for a service now.
    ///
    /// # Errors
    /// [`MountError`].
    pub fn check_place<S: Service>(&self, of: Address) -> Result<(), MountError> {
        let mounted = self.rack.mounted().map(|(of, _)| of);
        let again = self.again.iter().map(|again| again.of);
        let all: Vec<Address> = mounted.chain(again).chain(self.coming.iter().copied()).collect();
        if all.len() >= MOUNTED_MAX {
            return Err(MountError::TooMany);
        }
        Ok(rack::check_place::<S, _>(of, || all.iter())?)
    }

    /// A service is to be mounted while the node runs: when what its address wrote before is stable the host is told
    /// ([`Output::Again`]), and says in the end what [came of it](Self::mounted_late).
    pub fn begin_late(&mut self, late: Again) {
        self.coming.insert(late.of);
        self.begin_again(late);
    }

    /// It is mounted, or will not be.
    pub fn mounted_late(&mut self, late: Late) {
        self.has_news = true;
        self.coming.remove(&late.of);
        self.outputs.push_back(Output::Late(late));
    }

    /// A service that has fallen is to be started again, from what the log has of it: when it is gone and that is stable the host is told.
    pub fn begin_again(&mut self, again: Again) {
        self.has_news = true;
        self.again.push(again);
    }

    /// What the log has of an instance does not count: without a disk nothing is kept for its next run.
    pub fn begin_anew(&mut self, of: Address) {
        self.writes.last.remove(&of);
    }

    /// The log has records of an instance that is to be mounted, the last of them with this number: it goes on behind that.
    pub fn begin_behind(&mut self, of: Address, last: Io) {
        self.writes.last.insert(of, last);
    }

    /// An instance cannot be mounted, or was stopped: what it has in the log stays there.
    pub fn refuse(&mut self, of: Address, breach: Breach) {
        self.has_news = true;
        self.writes.gone.insert(of, Io::ZERO);
        self.stopped.insert(of, breach);
        if self.stopped.len() > MOUNTED_MAX {
            self.stopped.pop_first();
        }
        self.outputs.push_back(Output::Stopped { of, breach });
    }

    /// Why an instance is mounted no more, if it broke a rule.
    #[must_use]
    pub fn breach(&self, of: Address) -> Option<Breach> {
        self.stopped.get(&of).copied()
    }

    /// The instances that are mounted no more since they broke a rule, and which rule.
    pub fn stopped(&self) -> impl Iterator<Item = (Address, Breach)> + '_ {
        self.stopped.iter().map(|(of, breach)| (*of, *breach))
    }

    /// Whether a service of this kind was stopped.
    #[must_use]
    pub fn has_stopped(&self, kind: Kind) -> bool {
        self.stopped.keys().any(|of| of.channel == kind.channel)
    }

    /// Hands on who can be started again now.
    fn release_again(&mut self) {
        let (writes, rack) = (&self.writes, &self.rack);
        let is_free = |again: &mut Again| {
            let is_pending = writes.pending.iter().any(|(_, it, _)| it.contains_key(&again.of));
            !is_pending && rack.mounted().all(|(of, _)| of != again.of)
        };
        self.outputs.extend(self.again.extract_if(.., is_free).map(Output::Again));
    }

    /// The last view that a service was told before what it wants now.
    fn knows(&self, of: Address) -> ViewId {
        let installed = || self.view.as_ref().map_or(ViewId::NONE, |view| view.id);
        self.known.get(&of).copied().unwrap_or_else(installed)
    }

    /// Carries out what a service wants; its records are gathered.
    fn carry_out(&mut self, now: Instant, effect: Effect, records: &mut Vec<LogEntry>) {
        match effect {
            Effect::Send { from, to, meta, payload, .. } => {
                let view = self.knows(from).number;
                self.mux.send(from, view, &to, &meta, &payload);
            }
            Effect::Datagram { from, to, meta, payload } if !self.outside => {
                self.mux.send_datagram(from, to, &meta, payload);
            }
            Effect::Persist { from, io, meta, payload } => {
                let view = self.knows(from);
                let marked = self.marked.entry(from).or_insert(ViewId::NONE);
                if std::mem::replace(marked, view) != view {
                    records.push(LogEntry::Installed { of: from, view });
                }
                records.push(LogEntry::Record { of: from, io, meta, payload });
            }
            Effect::Aside { from, word: Aside::Taken { messages, heard } } => {
                self.mux.took(now, from, messages, heard);
            }
            Effect::Aside { from, word: Aside::Knows(view) } => {
                self.known.insert(from, view);
            }
            other => {
                if let Effect::Aside { from, word: Aside::Open(_) } = &other {
                    // It is started: whoever wants that as well is told so.
                    self.again.retain(|again| again.of != *from);
                }
                self.outputs.push_back(Output::Effect(other));
            }
        }
    }

    /// From here on guests of the node hear an instance. Others they neither hear of nor reach.
    pub fn open_to_guests(&mut self, of: Address) {
        self.has_news = true;
        self.mux.open_to_guests(of);
    }

    /// This process is a guest of its peers: all that it mounts is theirs to hear.
    pub fn be_guest(&mut self) {
        self.mux.be_guest();
    }

    /// What the log has of an instance that is not mounted is needed no more.
    pub fn forget(&mut self, of: Address) {
        self.writes.gone.insert(of, Io::MAX);
    }

    /// From here on datagrams are effects for the host: they do not go over the connections.
    pub fn send_datagrams_outside(&mut self) {
        self.outside = true;
        self.mux.send_datagrams_outside();
    }

    /// So much is being written that no more is to be taken in.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.writes.bytes > WRITING_BYTES
    }

    /// Takes an event of the link. Those of a channel of its own are used up; others are for the rest of the node as well.
    pub fn on_link(&mut self, now: Instant, event: link::Event) -> Option<link::Event> {
        self.mux.on_link(now, &event);
        self.has_news |= !self.mux.is_idle();
        match event {
            link::Event::Deliver { channel: CHANNEL, .. }
            | link::Event::NotSent { channel: CHANNEL, .. } => None,
            other => Some(other),
        }
    }

    /// The node has installed a view.
    pub fn on_view(&mut self, now: Instant, view: &Arc<View>) {
        self.has_news = true;
        self.view = Some(Arc::clone(view));
        self.rack.view(now, view);
    }

    /// Less of the disk of the services than its reserve is free, or there is enough again.
    pub fn on_disk_short(&mut self, now: Instant, short: bool) {
        self.has_news = true;
        self.disk_short = short;
        self.rack.disk_short(now, short);
    }

    /// A boot was removed by a view: nothing comes from it any more.
    pub fn on_removed(&mut self, boot: BootId) {
        self.has_news = true;
        self.mux.forget(boot, None);
    }

    /// Commands for a service. False, and counted: there is none of that kind and instance.
    pub fn ask(&mut self, now: Instant, ask: Ask) -> bool {
        self.has_news = true;
        self.rack.ask(now, ask)
    }

    /// An input for one service, from the host.
    pub fn give(&mut self, now: Instant, to: Address, given: Given) -> bool {
        self.has_news = true;
        self.rack.give(now, to, given)
    }

    /// What the host or a user wants.
    pub fn on_request(&mut self, now: Instant, request: Request) {
        // What is for nobody is counted.
        match request {
            Request::Ask(ask) => drop(self.ask(now, ask)),
            Request::Give(to, given) => drop(self.give(now, to, given)),
            Request::Change(change) => change(self, now),
        }
    }

    /// The services, for their questions and their readers.
    #[must_use]
    pub fn rack(&self) -> &Rack {
        &self.rack
    }

    /// The same, to subscribe and to listen.
    pub fn rack_mut(&mut self) -> &mut Rack {
        self.has_news = true;
        &mut self.rack
    }

    /// The channels, for their questions.
    #[must_use]
    pub fn mux(&self) -> &Mux {
        &self.mux
    }

    /// Turns the services that were touched or are due, and takes what they send. A node that has none pays nothing for them.
    #[inline]
    pub fn end_turn(&mut self, now: Instant) {
        if self.is_wanted() {
            self.turn(now);
        }
    }

    /// Whether [`end_turn`](Self::end_turn) may have anything to do, or anything is due later.
    #[must_use]
    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.has_news || !self.rack.is_empty()
    }

    #[inline(never)]
    fn turn(&mut self, now: Instant) {
        let mut records = Vec::new();
        for _ in 0..ROUNDS_MAX {
            self.hand_out(now);
            let mut broken = BTreeMap::new();
            let effects = self.rack.turn(now);
            for effect in &effects {
                if let Effect::Persist { from, io, .. } = effect
                    && let Err(breach) = self.writes.check(*from, *io)
                {
                    broken.entry(*from).or_insert(breach);
                }
            }
            for effect in effects {
                if matches!(effect, Effect::Aside { .. }) || !broken.contains_key(&effect.of()) {
                    self.carry_out(now, effect, &mut records);
                }
            }
            for (of, breach) in &broken {
                self.rack.stop(*of, *breach);
            }
            self.mux.end_turn(now);
            for left in self.rack.take_left() {
                let breach = left.breach.or_else(|| broken.get(&left.of).copied());
                self.leave(now, Left { breach, ..left });
            }
            if !self.mux.has_given() && broken.is_empty() {
                break;
            }
        }
        self.hand_out(now);
        if !records.is_empty() {
            self.outputs.extend(self.writes.issue(records, &self.rack));
        }
        self.release_again();
        self.has_news = !(self.mux.is_idle() && self.again.is_empty());
    }

    /// The last messages of who has left are on their way, as far as they were granted.
    fn leave(&mut self, now: Instant, Left { of, keeps, breach }: Left) {
        self.mux.dismount(of);
        self.mux.end_turn(now);
        self.known.remove(&of);
        self.writes.gone.insert(of, keeps);
        if let Some(breach) = breach {
            // What it said that it needs may rely on what it could not write.
            self.refuse(of, breach);
        }
    }

    /// The write with this number, and all before it, are stable.
    pub fn written(&mut self, now: Instant, io: u64) {
        self.has_news = true;
        for (of, io) in self.writes.written(io) {
            self.rack.give(now, of, Given::Written(io));
        }
        self.outputs.push_back(Output::Written { io });
    }

    fn hand_out(&mut self, now: Instant) {
        while let Some((of, given)) = self.mux.poll_given() {
            self.rack.give(now, of, given);
        }
    }

    /// The next frame for the link, in order.
    pub fn poll_frame(&mut self) -> Option<link::Input> {
        if let Some(guest) = self.mux.poll_to_end() {
            return Some(link::Input::Forget { guest });
        }
        let frame = self.mux.poll_frame()?;
        Some(link::Input::Send {
            to: frame.to.node,
            boot: Some(frame.to.nonce),
            channel: CHANNEL,
            meta: frame.meta,
            payload: frame.payload,
        })
    }

    /// The next thing that the host is to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When the next turn is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.is_wanted() {
            return None;
        }
        [self.rack.poll_timeout(), self.mux.poll_timeout()].into_iter().flatten().min()
    }

    /// What the services did since the last call.
    pub fn take_work(&mut self) -> Work {
        self.rack.take_work()
    }

    /// Panics if something is not as it should be.
    pub fn check_invariants(&self) {
        self.rack.check_invariants();
        self.mux.check_invariants();
    }
}
