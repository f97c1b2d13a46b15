//! A service beside its node: it lives in an actor of its own, and a proxy has its place on the rack.
//!
//! The proxy gathers what the service is given and hands it on as one [`Batch`], never one by one. The other half is the [`Desk`]:
//! it owns the service, gives it the batch, turns it, and answers with one [`Report`]. The next batch leaves when the report on the
//! last one has come, so what waits is on the node's side, where it is bounded. What a report wants is carried out in the turn in which it
//! comes, in its order: its records are in the write of that turn. Both halves are pure; who carries the boxes is the host's business.

use std::any::Any;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use super::mounted::{Effect, Given, Mounted, Tenant, Turned};
use super::{Breach, ROUNDS_MAX};
use crate::service::{Address, Ask, Figure, Io, PeerChange, Service, Told};
use crate::{BootId, Duration, Instance, Instant, NodeId, ViewId, Work};

/// Most inputs of a batch: so a turn beside is bounded as one of the node is.
pub const BATCH_MAX: usize = 256;
/// Most inputs that wait for a service beside, messages apart: those are bounded by [`WAITING_BYTES_MAX`]. One that is that far behind is
/// ended as if it had panicked.
pub const WAITING_MAX: usize = 1 << 16;
/// Most bytes that wait for a service beside of what one node has to do with: messages and datagrams from it, and messages to it that
/// were given back (128 MiB). Granted windows of one boot hold a fraction of it; a node that starts again and again, or mounts its end anew,
/// is granted a window each time. One that is that far behind is ended as if it had panicked, and so is one that sends so much to a node
/// without a look at what is given back.
pub const WAITING_BYTES_MAX: usize = 128 << 20;
/// What an input counts for beyond its bytes: so the bound is one of their number as well.
const ITEM_COST: usize = 256;
/// So often a service beside says its figures, at most.
const FIGURES_EVERY: Duration = Duration::from_secs(1);
/// Most datagrams that wait for it; more are lost.
const DATAGRAMS_MAX: usize = 256;

/// Where a service beside its node runs. No service knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Placement {
    /// In an actor on the node's thread.
    Local,
    /// In an actor on a thread of its own. Where the node's clock is that of one thread only, as in a simulation, on the node's.
    Thread,
}

/// Makes the half of a service that runs in the actor; called there. A panic of it is one of the service.
pub type Open = Box<dyn FnOnce(Instant) -> Desk + Send>;

/// What the actor of a service beside is made of.
pub struct Opening {
    /// Where it runs.
    pub placement: Placement,
    /// The boot that the service belongs to.
    pub me: BootId,
    /// What its seed was drawn from.
    pub seed: u64,
    /// Makes it.
    pub open: Open,
}

/// What a proxy wants of its host and of the channels.
pub enum Aside {
    /// Start the actor.
    Open(Opening),
    /// Bring this to it; answered by one [`Given::Report`].
    Batch(Batch),
    /// The proxy has left the rack: the actor is to end.
    Gone(Ending),
    /// The actor has taken in so much more of what it was given, in order. What it sent before it did is in front of this, what it
    /// sends in that turn is behind.
    Taken {
        /// Messages.
        messages: usize,
        /// Words that a peer is up, or that a message was not taken.
        heard: u64,
    },
    /// What it sends and writes from here on it does knowing this view.
    Knows(ViewId),
}

enum Item {
    Given(Given),
    Asked(Ask),
    Told(Told),
}

impl Item {
    /// The bytes that it keeps, and the node that they are from or were for. `None`: it is one of those that are few.
    fn weight(&self) -> Option<(NodeId, usize)> {
        let (node, meta, payload) = match self {
            Self::Given(Given::Message { from, meta, payload, .. }) => (from.node, meta, payload),
            Self::Given(Given::Datagram { from, meta, payload, .. }) => (*from, meta, payload),
            Self::Given(Given::Full { to, meta, payload }) => (to.node, meta, payload),
            _ => return None,
        };
        Some((node, ITEM_COST + meta.len() + payload.len()))
    }
}

/// What a service beside is given at once.
pub struct Batch {
    items: Vec<Item>,
    /// So many services of the node listen to it.
    listeners: usize,
}

/// How a service beside has come to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// It was dismounted.
    Closed,
    /// It panicked, or was too far behind.
    Fallen,
    /// It broke this rule.
    Stopped(Breach),
}

/// What came of a turn of a service beside.
#[derive(Default)]
pub struct Report {
    effects: Vec<Effect>,
    asks: Vec<Ask>,
    told: Vec<Told>,
    /// It answers a batch.
    answers: bool,
    /// Of the batch: messages, and inputs that were none of the service.
    messages: usize,
    heard: u64,
    malformed: u64,
    view: Option<ViewId>,
    keeps: Option<Io>,
    figures: Option<Vec<Figure>>,
    ending: Option<Ending>,
}

impl Report {
    /// The actor has ended with a panic: the last report of it.
    #[must_use]
    pub fn fallen() -> Self {
        Self { ending: Some(Ending::Fallen), ..Self::default() }
    }
}

/// The half that owns the service. Its owner gives it batches and commands, turns it, and hands the reports on in their order.
pub struct Desk {
    tenant: Box<dyn Tenant>,
    listeners: usize,
    report: Report,
    /// It has taken something in since its last turn.
    touched: bool,
    again: bool,
    closing: bool,
    /// When it says its figures again.
    figures_at: Instant,
}

impl Desk {
    /// The service, begun.
    #[must_use]
    pub fn new<S: Service>(service: Mounted<S>) -> Self {
        let (tenant, report) = (Box::new(service), Report::default());
        Self {
            tenant,
            listeners: 0,
            report,
            touched: true,
            again: false,
            closing: false,
            figures_at: Instant::ZERO,
        }
    }

    /// Takes a batch in.
    pub fn take(&mut self, now: Instant, batch: Batch) {
        self.listeners = batch.listeners;
        (self.report.answers, self.touched) = (true, true);
        for item in batch.items {
            let taken = match item {
                Item::Given(given) => {
                    match &given {
                        Given::Message { .. } => self.report.messages += 1,
                        Given::Full { .. } | Given::Peer(PeerChange::Up { .. }) => {
                            self.report.heard += 1;
                        }
                        Given::View(view) => self.report.view = Some(view.id),
                        Given::Close => self.closing = true,
                        _ => {}
                    }
                    self.tenant.give(now, given)
                }
                Item::Asked(ask) => self.tenant.asked(now, ask),
                Item::Told(told) => {
                    self.tenant.told(now, told);
                    true
                }
            };
            self.report.malformed += u64::from(!taken);
        }
    }

    /// Commands of a user. False: they are none of this service.
    pub fn ask(&mut self, now: Instant, ask: Ask) -> bool {
        self.touched = true;
        self.tenant.asked(now, ask)
    }

    /// The service, if it is an `S`.
    pub fn get_mut<S: Service>(&mut self) -> Option<&mut Mounted<S>> {
        self.tenant.as_any_mut().downcast_mut()
    }

    /// Turns the service if something has touched it or it is due. `None`: nothing came of it.
    pub fn turn(&mut self, now: Instant) -> Option<Report> {
        let is_due = self.tenant.timeout().is_some_and(|due| due <= now);
        if !(self.touched || self.again || is_due) {
            return None;
        }
        self.again = false;
        for _ in 0..ROUNDS_MAX {
            self.touched = false;
            let mut turned = Turned::default();
            self.tenant.turn(now, self.listeners, &mut turned);
            if let Some(breach) = self.tenant.breach() {
                let ending = Some(Ending::Stopped(breach));
                return Some(Report { ending, ..Report::default() });
            }
            self.report.effects.append(&mut turned.effects);
            self.report.asks.append(&mut turned.asks);
            self.report.told.append(&mut turned.told);
            self.again |= turned.again;
            if !turned.touched {
                break;
            }
            // Nobody else is told in between: the words of one turn are for each listener.
            self.touched = true;
            if !self.report.told.is_empty() {
                break;
            }
        }
        let keeps = self.tenant.keeps();
        let ending = self.closing.then_some(Ending::Closed);
        let figures = (self.figures_at <= now).then(|| {
            self.figures_at = now + FIGURES_EVERY;
            self.tenant.figures().1
        });
        Some(Report { keeps: Some(keeps), figures, ending, ..std::mem::take(&mut self.report) })
    }

    /// When the next turn is due; the past if there is more to do at once.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.touched || self.again { Some(Instant::ZERO) } else { self.tenant.timeout() }
    }

    /// What the service did since the last call.
    pub fn take_work(&mut self) -> Work {
        self.tenant.take_work()
    }

    /// Panics if the service is not as it should be.
    pub fn check_invariants(&self) {
        self.tenant.check_invariants();
    }
}

/// The half that has a place on the rack.
pub struct Proxy {
    of: Address,
    agreed: u128,
    is_ask: fn(&Ask) -> bool,
    opening: Option<Opening>,
    waiting: VecDeque<Item>,
    /// Of what waits: datagrams, and what is no message.
    datagrams: usize,
    others: usize,
    /// Bytes of what waits, by the node that they are from or were for.
    bytes: BTreeMap<NodeId, usize>,
    /// A batch is away.
    away: bool,
    listeners: usize,
    /// What has come back and was not carried out.
    reports: VecDeque<Report>,
    keeps: Io,
    kind: &'static str,
    /// As it said last.
    figures: Vec<Figure>,
    ending: Option<Ending>,
}

impl Proxy {
    /// A service `S` whose settings have this hash.
    #[must_use]
    pub fn new<S: Service>(instance: Instance, agreed: u128, opening: Opening) -> Self {
        Self {
            of: Address { channel: S::CHANNEL, instance },
            agreed,
            is_ask: |ask| ask.commands.is::<Vec<S::Command>>(),
            opening: Some(opening),
            waiting: VecDeque::new(),
            datagrams: 0,
            others: 0,
            bytes: BTreeMap::new(),
            away: false,
            listeners: 0,
            reports: VecDeque::new(),
            // Until it has said what it needs it needs all.
            keeps: Io::ZERO,
            kind: S::NAME,
            figures: Vec::new(),
            ending: None,
        }
    }

    fn wait(&mut self, item: Item) {
        if self.ending.is_some() {
            return;
        }
        match &item {
            Item::Given(Given::Message { .. }) => {}
            Item::Given(Given::Datagram { .. }) if self.datagrams >= DATAGRAMS_MAX => return,
            Item::Given(Given::Datagram { .. }) => self.datagrams += 1,
            _ => self.others += 1,
        }
        let mut is_behind = self.others > WAITING_MAX;
        if let Some((node, weight)) = item.weight() {
            let bytes = self.bytes.entry(node).or_default();
            *bytes += weight;
            is_behind |= *bytes > WAITING_BYTES_MAX;
        }
        self.ending = is_behind.then_some(Ending::Fallen);
        self.waiting.push_back(item);
    }

    fn next_batch(&mut self) -> Batch {
        let count = self.waiting.len().min(BATCH_MAX);
        let items: Vec<Item> = self.waiting.drain(..count).collect();
        for item in &items {
            match item {
                Item::Given(Given::Message { .. }) => {}
                Item::Given(Given::Datagram { .. }) => self.datagrams -= 1,
                _ => self.others -= 1,
            }
            if let Some((node, weight)) = item.weight()
                && let Entry::Occupied(mut bytes) = self.bytes.entry(node)
            {
                *bytes.get_mut() -= weight;
                if *bytes.get() == 0 {
                    bytes.remove();
                }
            }
        }
        Batch { items, listeners: self.listeners }
    }

    fn carry_out(&mut self, report: Report, turned: &mut Turned) {
        let from = self.of;
        let aside = |word| Effect::Aside { from, word };
        turned.effects.extend(report.view.map(|view| aside(Aside::Knows(view))));
        let (messages, heard) = (report.messages, report.heard);
        if messages > 0 || heard > 0 {
            turned.effects.push(aside(Aside::Taken { messages, heard }));
        }
        turned.effects.extend(report.effects);
        (turned.asks, turned.told) = (report.asks, report.told);
        turned.malformed += report.malformed;
        self.away &= !report.answers;
        self.keeps = report.keeps.unwrap_or(self.keeps);
        if let Some(figures) = report.figures {
            self.figures = figures;
        }
        self.ending = self.ending.or(report.ending);
    }
}

impl Tenant for Proxy {
    fn address(&self) -> Address {
        self.of
    }

    fn agreed(&self) -> u128 {
        self.agreed
    }

    fn give(&mut self, _: Instant, given: Given) -> bool {
        match given {
            Given::Report(report) => self.reports.push_back(*report),
            given => self.wait(Item::Given(given)),
        }
        true
    }

    fn asked(&mut self, _: Instant, ask: Ask) -> bool {
        let is_ask = (self.is_ask)(&ask);
        if is_ask {
            self.wait(Item::Asked(ask));
        }
        is_ask
    }

    fn told(&mut self, _: Instant, told: Told) {
        self.wait(Item::Told(told));
    }

    fn turn(&mut self, _: Instant, listeners: usize, turned: &mut Turned) {
        let from = self.of;
        let is_news = self.opening.is_some() || self.listeners != listeners;
        self.listeners = listeners;
        if let Some(opening) = self.opening.take() {
            turned.effects.push(Effect::Aside { from, word: Aside::Open(opening) });
        }
        if self.breach().is_some() {
            self.reports.clear();
        }
        if let Some(report) = self.reports.pop_front() {
            self.carry_out(report, turned);
        }
        // One at a time: its words to those who listen are those of one turn.
        turned.touched |= !self.reports.is_empty();
        if let Some(ending) = self.ending {
            turned.effects.push(Effect::Aside { from, word: Aside::Gone(ending) });
        } else if !self.away && (is_news || !self.waiting.is_empty()) {
            self.away = true;
            let batch = self.next_batch();
            turned.effects.push(Effect::Aside { from, word: Aside::Batch(batch) });
        }
    }

    fn timeout(&self) -> Option<Instant> {
        None
    }

    /// The actor accounts for it where it is done.
    fn take_work(&mut self) -> Work {
        Work::default()
    }

    fn keeps(&self) -> Io {
        self.keeps
    }

    fn figures(&self) -> (&'static str, Vec<Figure>) {
        (self.kind, self.figures.clone())
    }

    fn is_over(&self, _closing: bool) -> bool {
        self.ending.is_some()
    }

    fn stop(&mut self, breach: Breach) {
        self.ending.get_or_insert(Ending::Stopped(breach));
    }

    fn breach(&self) -> Option<Breach> {
        match self.ending {
            Some(Ending::Stopped(breach)) => Some(breach),
            _ => None,
        }
    }

    fn check_invariants(&self) {
        assert!(self.datagrams <= DATAGRAMS_MAX, "what waits is bounded");
        assert!(self.datagrams + self.others <= self.waiting.len(), "what waits is counted");
        let bytes: usize = self.waiting.iter().filter_map(Item::weight).map(|it| it.1).sum();
        assert_eq!(bytes, self.bytes.values().sum::<usize>(), "what waits is weighed");
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
