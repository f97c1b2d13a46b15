//! The clock service: an algorithm, the adjusted clock that follows it, and what hangs on that clock.

use std::sync::Arc;

use mainstay_base::service::{Class, Figure, In, Io, Logged, Out, Outbox, Service, Start, Wire};
use mainstay_base::{Channel, Duration, Instant, Machine, NodeId};
use serde::{Deserialize, Serialize};

use super::adjusted::{Adjusted, Promise, Taken};
use super::alarms::Rung;
use super::clock::GlobalClock;
use super::figures;
use super::page::Sheet;
use super::references::{self, Look, Looked, ReferenceClock, References, Wanted};
use super::reserved::Reserved;
use super::rings::{Rings, Whose};
use super::words::{Command, Event, Status, Why};
use crate::Time;
use crate::sync::algorithm::Referred;
use crate::sync::config::{long, span};
use crate::sync::corrected::nanos;
use crate::sync::peer::Said;
use crate::sync::{self, Kind, Loss, Message, Mount, Origin, Plan, Rejected, Synced};
use crate::timers::Timers;

/// What a clock service is mounted with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The algorithm.
    pub mount: Mount,
    /// Where its readers look.
    pub clock: GlobalClock,
    /// The clock goes on above all readings of former processes (CLK-10): a reading so far ahead is stored, in steps, before the clock
    /// gets there. So one write is forced every half of it, and after a crash the clock waits for up to all of it until it is synchronised.
    /// Less than 1 ms is taken for 1 ms, more than 30 days for 30 days. `None`: nothing is stored. Default 10 s.
    pub reserve: Option<Duration>,
    /// Most timers at a time. Default 65,536.
    pub timers_max: usize,
    /// A reference that is read by the service itself. Default none: it is told with [`Command::Reference`], where one is needed.
    pub reference: Option<ReferenceClock>,
    /// Whether other nodes may follow this clock: it answers to any node that has this service, while it is synchronised. Default no: who asks
    /// is counted as unknown or foreign.
    pub answers: bool,
    /// A defect, for tests.
    #[cfg(feature = "test-util")]
    pub fault: Option<crate::fault::Fault>,
}

impl Config {
    /// With the defaults.
    ///
    /// # Errors
    /// [`sync::ConfigError`]: the corrections of the plan are too large to be walked off.
    pub fn new(mount: Mount, clock: GlobalClock) -> Result<Self, sync::ConfigError> {
        Promise::of(&mount.plan)?;
        Ok(Self {
            mount,
            clock,
            reserve: Some(Duration::from_secs(10)),
            timers_max: 1 << 16,
            reference: None,
            answers: false,
            #[cfg(feature = "test-util")]
            fault: None,
        })
    }
}

/// What is stored: the clock has said nothing later than this.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limit(pub Time);

impl Wire for Limit {}

/// What is left of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Past {
    limit: Time,
    last: Io,
}

/// The clock service of a node.
///
/// It has the algorithm's machine inside, and speaks for it. Its readers have a [`GlobalClock`].
pub struct Global {
    plan: Arc<Plan>,
    synced: Synced,
    adjusted: Adjusted,
    promise: Promise,
    clock: GlobalClock,
    reserved: Reserved,
    rings: Rings,
    references: References,
    answers: bool,
    /// What was told last; `None`: nothing yet.
    told: Option<Option<Why>>,
    loss: Loss,
    /// The algorithm's clock was moved, and the adjusted one does not follow it yet.
    moved: bool,
    /// The local time of the last correction of a synchronised clock.
    corrected: i64,
    written: Sheet,
    /// The local time of its last renewal.
    renewed: i64,
    status: Status,
    out: Outbox<Self>,
    #[cfg(feature = "test-util")]
    fault: Option<crate::fault::Fault>,
}

impl Global {
    /// The algorithm's clock and all that it knows.
    #[must_use]
    pub fn synced(&self) -> &Synced {
        &self.synced
    }

    /// What the adjusted clock says at `local`, in nanoseconds.
    #[must_use]
    pub fn nanos(&self, local: Instant) -> i64 {
        self.adjusted.course.nanos(nanos(local))
    }

    /// What the adjusted clock promises.
    #[must_use]
    pub fn promise(&self) -> Promise {
        self.promise
    }

    /// Why it is not synchronised at `now`.
    #[must_use]
    pub fn unsynchronised(&self, now: Instant) -> Option<Why> {
        let local = nanos(now);
        if !self.synced.algorithm().is_synchronised() {
            return Some(Why::Lost(self.loss));
        }
        if !self.adjusted.has_begun() || local < self.adjusted.near() {
            return Some(if self.adjusted.has_stepped() { Why::Stepped } else { Why::Ahead });
        }
        (self.adjusted.course.uncapped(local) >= self.adjusted.course.cap).then_some(Why::Unstored)
    }

    fn drain(&mut self, now: Instant) {
        self.synced.end_turn(now);
        while let Some(output) = self.synced.poll_output() {
            match output {
                Out::Datagram { to, message } => self.out.put(Out::Datagram { to, message }),
                Out::Event { event, .. } => {
                    let moved = self.on_event(now, event);
                    self.moved |= moved;
                }
                _ => unreachable!("an algorithm sends datagrams and tells"),
            }
        }
        // The clock never goes back: it does not go where nothing has confirmed that the time is.
        let is_confirmed = self.synced.algorithm().is_confirmed();
        if self.moved && (is_confirmed || mainstay_base::fault!(self, BelievesAtOnce)) {
            self.moved = false;
            self.status.steps += u64::from(self.follow(now) == Taken::Stepped);
        }
    }

    fn follow(&mut self, now: Instant) -> Taken {
        let target = *self.synced.algorithm().clock();
        self.adjusted.follow(now, &target)
    }

    /// Whether the clock has another course.
    fn on_event(&mut self, now: Instant, event: sync::Event) -> bool {
        match event {
            sync::Event::Resynced(correction) => {
                self.corrected = nanos(correction.at);
                self.status.corrections += 1;
                if self.told == Some(None) {
                    self.status.correction = correction.by;
                    let worst = self.status.correction_worst.max(correction.by.unsigned_abs());
                    self.status.correction_worst = worst;
                }
                self.out.tell(Event::Resynced(correction));
                true
            }
            // A clock that begins together with the others is right without a correction.
            sync::Event::Synchronised => {
                self.corrected = nanos(now);
                !self.adjusted.has_begun()
            }
            sync::Event::Unsynchronised(loss) => {
                self.loss = loss;
                false
            }
            sync::Event::MasterChanged(master) => {
                self.out.tell(Event::MasterChanged(master));
                false
            }
        }
    }

    fn on_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Reference { at, value } => {
                self.synced.handle(now, In::Command(sync::Command::Reference { at, value }));
            }
            Command::Timer { token, at } => self.on_timer(Whose::Token(token), at),
            Command::Alarm { id, at } => self.on_timer(Whose::Alarm(id), at),
            Command::Cancel { token } => self.rings.cancel(Whose::Token(token)),
            Command::Silence { id } => self.rings.cancel(Whose::Alarm(id)),
        }
    }

    fn on_timer(&mut self, whose: Whose, at: Time) {
        match (self.rings.set(whose, at), whose) {
            (true, Whose::Token(_)) => {}
            (true, Whose::Alarm(id)) => self.clock.alarms().placed(id),
            (false, Whose::Token(token)) => self.out.tell(Event::Refused { token }),
            (false, Whose::Alarm(id)) => self.clock.alarms().ring(id, Rung::Refused),
        }
    }

    fn fire(&mut self, now: Instant) {
        let reading = Time::from_nanos(u64::try_from(self.nanos(now)).unwrap_or(0));
        while let Some((at, whose)) = self.rings.fire(reading) {
            match whose {
                Whose::Token(token) => self.out.tell(Event::Fired { token, at }),
                Whose::Alarm(id) => self.clock.alarms().ring(id, Rung::Due),
            }
        }
    }

    fn on_datagram(&mut self, now: Instant, at: Instant, from: NodeId, message: Message) {
        match message {
            Message::PeerRequest { nonce } if self.answers => self.answer(now, at, from, nonce),
            Message::PeerReply { nonce, value, error, rate, held }
                if self.references.asks(from) && message.is_sane() =>
            {
                let said = Said { nonce, value, error, rate, held };
                let plan = Arc::clone(&self.plan);
                let rejected = self.synced.rejected_mut();
                if let Some(read) =
                    self.references.on_reply(&plan, (now, at.min(now)), &said, rejected)
                {
                    self.take_reference(now, read);
                }
            }
            message => self.synced.handle(now, In::Datagram { at, from, message }),
        }
    }

    /// Says the time to a node that follows this one. A clock that is not synchronised is silent.
    fn answer(&mut self, now: Instant, at: Instant, to: NodeId, nonce: u64) {
        let local = nanos(now);
        if self.unsynchronised(now).is_some() || !self.written.is_valid(local) {
            return;
        }
        let algorithm = self.synced.algorithm();
        // What it follows it knows best before a correction is walked off.
        let (value, error, follows) = match algorithm.error(now) {
            Some(error) => (algorithm.clock().nanos(now), error, Some(algorithm.runs())),
            // What it follows is not known yet: it is to be the true time.
            None if follows_truth(&self.plan) => return,
            None => (self.nanos(now), self.written.error(local), None),
        };
        let (error, rate) = references::stated(&self.plan, follows, error);
        let held = references::held(now, at);
        let message = Message::PeerReply { nonce, value, error, rate, held };
        self.out.put(Out::Datagram { to, message });
    }

    fn take_reference(&mut self, now: Instant, read: Referred) {
        let own = self.synced.algorithm().clock().nanos(read.at);
        self.references.note(&read, read.value.saturating_sub(own));
        self.synced.refer(now, read);
    }

    /// Reads the reference, if it is time.
    fn refer(&mut self, now: Instant) {
        match self.references.wanted(now, &self.plan) {
            Some(Wanted::Look(look)) => self.out.put(Out::Work(look)),
            Some(Wanted::Ask(to, message)) => self.out.put(Out::Datagram { to, message }),
            None => {}
        }
    }

    fn reserve(&mut self, now: Instant) {
        let (course, local) = (&self.adjusted.course, nanos(now));
        let waits = course.is_waiting(local) && !mainstay_base::fault!(self, ReservesWhileItWaits);
        let due = self.reserved.due(course, local, waits);
        if let Some(limit) = due.filter(|_| self.adjusted.has_begun()) {
            self.store(limit);
        }
    }

    fn store(&mut self, limit: i64) {
        let record = Limit(Time::from_nanos(u64::try_from(limit).unwrap_or(0)));
        let io = self.out.persist(record);
        self.reserved.stores(limit, io);
        if mainstay_base::fault!(self, ReadsBeforeStored) {
            self.adjusted.course.cap = limit;
        }
    }

    /// Tells whether it is synchronised, if that has changed.
    fn tell(&mut self, now: Instant) {
        let why = self.unsynchronised(now);
        let is_news = self.told.is_none_or(|told| told.is_some() != why.is_some());
        self.told = Some(why);
        if is_news {
            self.out.tell(why.map_or(Event::Synchronised, Event::Unsynchronised));
        }
    }

    /// What the page says from here on. A page that is not renewed for three periods counts no more: the service does not run.
    fn publish(&mut self, now: Instant) {
        let (local, algorithm) = (nanos(now), self.synced.algorithm());
        let config = algorithm.plan().config();
        let period = long(config.period);
        let is_valid = self.told == Some(None) || mainstay_base::fault!(self, NeverUnsynchronised);
        let (course, mut version) = (self.adjusted.course, algorithm.version());
        if mainstay_base::fault!(self, VersionsWrap) {
            version %= 4;
        }
        let is_fresh = match is_valid {
            true => self.written.valid > local && local - self.renewed < period,
            false => self.written.valid <= local,
        };
        if is_fresh && course == self.written.course && version == self.written.version {
            return;
        }
        let growth = 2 * i64::from(config.drift.parts());
        let (error, since) = match algorithm.error(now) {
            Some(error) => (error.saturating_add(long(self.promise.lag)), local),
            // What is promised holds until the next correction is due; a clock that misses it drifts away.
            None => {
                let round = long(algorithm.plan().bounds().round);
                let due = self.corrected.saturating_add(period).saturating_add(round);
                (long(self.promise.precision), due)
            }
        };
        let valid = if is_valid { local.saturating_add(3 * period) } else { i64::MIN };
        let floor = i64::MIN;
        let sheet = Sheet { course, floor, version, error, since, growth, valid };
        (self.written, self.renewed) = (sheet, local);
        let from = if mainstay_base::fault!(self, LegsTooEarly) { local - period } else { local };
        self.clock.write(from, sheet);
    }

    fn deadlines(&self) -> impl Iterator<Item = Instant> {
        let course = &self.adjusted.course;
        let timer = self.rings.earliest();
        let timer = timer.and_then(|at| course.when(i64::try_from(at.as_nanos()).ok()?));
        let half = self.adjusted.has_begun().then(|| self.reserved.deadline(course)).flatten();
        let is_near = !matches!(self.told, Some(Some(Why::Ahead | Why::Stepped)));
        let near = Some(self.adjusted.near()).filter(|near| !is_near && *near < i64::MAX);
        // Only a clock whose next limit is being written may reach the cap.
        let cap = (self.told == Some(None) && self.reserved.is_writing(course))
            .then(|| course.when(course.cap))
            .flatten();
        let period = long(self.plan.config().period);
        let renewal = (self.told == Some(None)).then(|| self.renewed.saturating_add(period));
        let local = [timer, half, near, cap, renewal].into_iter().flatten();
        local.map(|local| Instant::from_nanos(u64::try_from(local).unwrap_or(0)))
    }
}

/// Whether the clocks of a plan are to follow the true time.
fn follows_truth(plan: &Plan) -> bool {
    let kind = &plan.config().kind;
    matches!(kind, Kind::Hardware { master: Some(_), .. } | Kind::External { .. })
}

impl Machine for Global {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, now: Instant, input: In<Self>) {
        match input {
            In::Datagram { at, from, message } => self.on_datagram(now, at, from, message),
            In::Command(command) => self.on_command(now, command),
            In::Written(io) => {
                if let Some(cap) = self.reserved.written(io) {
                    self.adjusted.course.cap = cap;
                }
            }
            In::Compact { upto } => {
                if let Some(limit) = self.reserved.again(upto) {
                    self.store(limit);
                }
            }
            In::Done(looked) => {
                if let Some(read) = self.references.on_looked(looked) {
                    self.take_reference(now, read);
                }
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.synced.handle_timeout(now);
    }

    fn end_turn(&mut self, now: Instant) {
        self.refer(now);
        self.drain(now);
        self.reserve(now);
        self.tell(now);
        self.publish(now);
        self.fire(now);
    }

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let parts = [self.synced.poll_timeout(), self.references.deadline()];
        self.deadlines().chain(parts.into_iter().flatten()).min()
    }
}

impl Service for Global {
    const CHANNEL: Channel = Channel(0x0031);
    const NAME: &'static str = "clock";
    const CLASS: Class = Class::Views;
    type Message = Message;
    type Record = Limit;
    type Command = Command;
    type Event = Event;
    type Job = Look;
    type Done = Looked;
    type Past = Past;
    type Config = Config;
    type Status = Status;

    fn fold(past: &mut Past, logged: Logged<Limit>) {
        if let Logged::Record(io, Limit(limit)) = logged {
            *past = Past { limit: past.limit.max(limit), last: io };
        }
    }

    /// # Panics
    /// As [`Synced::recover`]; and if the plan makes no [`Promise`], which [`Config::new`] has checked.
    fn recover(mut config: Config, start: Start<Past>) -> Self {
        let Start { me, instance, past, checkpoint, now, seed } = start;
        let promise = Promise::of(&config.mount.plan).expect("it was checked");
        let plan = Arc::clone(&config.mount.plan);
        let mut stored = i64::try_from(past.limit.as_nanos()).unwrap_or(i64::MAX);
        if mainstay_base::fault!(config, ForgetsLimit) {
            stored = 0;
        }
        // A boot of the same process begins above its former one, stored or not.
        let floor = stored.max(config.clock.floor());
        // The common time has gone its own way since all began together.
        if let Origin::Together(offset) = config.mount.origin
            && floor > 0
            && !mainstay_base::fault!(config, TogetherAgain)
        {
            config.mount.origin = Origin::Apart(offset);
        }
        let mut adjusted = Adjusted::new(now, floor, &plan);
        let reserved = Reserved::new(config.reserve, floor, past.last);
        if reserved.caps() {
            adjusted.course.cap = floor;
        }
        let inner = Start { me, instance, past: (), checkpoint, now, seed };
        let synced = Synced::recover(config.mount, inner);
        let bounds = *synced.algorithm().plan().bounds();
        config.clock.promise(promise.precision);
        let timers = Timers::new(config.timers_max);
        #[cfg(feature = "test-util")]
        let timers = timers.broken(config.fault);
        #[cfg(feature = "test-util")]
        {
            adjusted.fault = config.fault;
        }
        Self {
            plan,
            synced,
            adjusted,
            promise,
            clock: config.clock,
            reserved,
            rings: Rings::new(timers),
            references: References::new(config.reference, now, seed),
            answers: config.answers,
            told: None,
            loss: Loss::Began,
            moved: false,
            corrected: nanos(now),
            written: Sheet::EMPTY,
            renewed: 0,
            status: Status {
                version: 0,
                unsynchronised: Some(Why::Lost(Loss::Began)),
                promise,
                bounds,
                error: None,
                correction: 0,
                correction_worst: 0,
                corrections: 0,
                steps: 0,
                sources: Vec::new(),
                timers: 0,
                writes: 0,
                references: 0,
                reference: None,
                rejected: Rejected::default(),
            },
            out: Outbox::new(past.last),
            #[cfg(feature = "test-util")]
            fault: config.fault,
        }
    }

    fn work(look: Look) -> Looked {
        look.work()
    }

    fn keeps(&self) -> Io {
        self.reserved.keeps()
    }

    fn figures(&self) -> Vec<Figure> {
        figures::of(&self.status(), self.synced.algorithm().plan().config().kind.name())
    }

    fn status(&self) -> Status {
        let local = nanos(self.synced.algorithm().last());
        let is_valid = self.told == Some(None) && self.written.is_valid(local);
        Status {
            version: self.synced.algorithm().version(),
            error: is_valid.then(|| span(self.written.error(local))),
            unsynchronised: self.told.unwrap_or(Some(Why::Lost(self.loss))),
            sources: self.synced.sources().collect(),
            timers: self.rings.len(),
            writes: self.reserved.writes(),
            references: self.references.reads(),
            reference: self.references.state(self.synced.algorithm()),
            rejected: self.synced.algorithm().rejected(),
            ..self.status.clone()
        }
    }
}

impl Drop for Global {
    /// Who waits is told that nobody will wake it.
    fn drop(&mut self) {
        self.clock.alarms().end();
    }
}
