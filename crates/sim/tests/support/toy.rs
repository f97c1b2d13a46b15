//! Two services: a register that a majority keeps (after Attiya, Bar-Noy and Dolev 1995), and one that watches it.
//!
//! It keeps the highest value that was written. A write asks a majority for the highest one, then has a majority force that or its
//! own. A read asks a majority and has a majority force what it found before it answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hash as _;

use bytes::Bytes;
use mainstay_base::codec;
use mainstay_base::service::{
    Ask, Chunks, Class, In, Io, Kind, Logged, Never, Out, Outbox, PeerChange, Service, Start, Wire,
};
use mainstay_base::{
    BootId, BootNonce, Channel, Duration, Fingerprint, Fingerprinter, Instance, Instant, Machine,
    NodeId, Work,
};
use serde::{Deserialize, Serialize};

/// What a broken register does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Says that a value is forced before it is.
    AcksEarly,
    /// A read answers what it found, whoever has it.
    NoWriteBack,
    /// A boot begins with nothing.
    ForgetsPast,
    /// Gives its records up before a checkpoint has them.
    KeepsTooLittle,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub nodes: Vec<NodeId>,
    pub fault: Option<Fault>,
    /// What a message costs its turn.
    pub work: Duration,
}

/// The value, and who wrote it.
pub type Stamp = (u64, BootNonce);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Held {
    stamp: Stamp,
    value: u64,
}

/// When a question is asked again.
pub const RETRY: Duration = Duration::from_millis(100);
const NOTHING: Held = Held { stamp: (0, BootNonce(0)), value: 0 };

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Message {
    Ask {
        op: u64,
    },
    Answer {
        op: u64,
        held: Held,
    },
    Store {
        op: u64,
        held: Held,
    },
    Stored {
        op: u64,
    },
    /// By datagram: a value was stored.
    Hint {
        value: u64,
    },
}

impl Wire for Message {}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Set(Held);

impl Wire for Set {}

#[derive(Clone, Copy, Hash, Debug)]
pub enum Command {
    Write { op: u64, value: u64 },
    Read { op: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Written { op: u64, value: u64 },
    Read { op: u64, value: u64 },
}

#[derive(Default, Debug)]
pub struct Past {
    held: Option<Held>,
    last: Io,
}

#[derive(Clone)]
struct Op {
    number: u64,
    /// What is to be written; `None` for a read.
    write: Option<u64>,
    phase: Phase,
    said: BTreeSet<NodeId>,
    newest: Held,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Asking,
    Storing,
}

#[derive(Clone)]
pub struct Register {
    me: BootId,
    config: Config,
    up: BTreeMap<NodeId, BootId>,
    held: Held,
    /// The checkpoint is read.
    ready: bool,
    written: Io,
    keeps: Io,
    retry_at: Option<Instant>,
    writing: bool,
    /// Whom to tell when a record is forced.
    owed: VecDeque<(Io, BootId, u64)>,
    op: Option<Op>,
    queue: VecDeque<Command>,
    out: Outbox<Self>,
    hints: u64,
    views: u64,
    /// Writes wait for room.
    disk_short: bool,
    work: Duration,
}

/// The whole state in one chunk.
struct One(Option<Bytes>);

impl Chunks for One {
    fn next_chunk(&mut self) -> Result<Option<Bytes>, String> {
        Ok(self.0.take())
    }
}

impl Register {
    pub fn is_busy(&self) -> bool {
        self.op.is_some() || !self.queue.is_empty()
    }

    pub fn hints(&self) -> u64 {
        self.hints
    }

    pub fn views(&self) -> u64 {
        self.views
    }

    fn is(&self, fault: Fault) -> bool {
        self.config.fault == Some(fault)
    }

    fn send(&mut self, to: BootId, message: Message) {
        self.out.send(to, message);
    }

    fn begin(&mut self) {
        while self.op.is_none() && self.ready {
            let is_write = matches!(self.queue.front(), Some(Command::Write { .. }));
            if is_write && self.disk_short {
                return;
            }
            let Some(command) = self.queue.pop_front() else { return };
            let (number, write) = match command {
                Command::Write { op, value } => (op, Some(value)),
                Command::Read { op } => (op, None),
            };
            let said = BTreeSet::from([self.me.node]);
            self.op = Some(Op { number, write, phase: Phase::Asking, said, newest: self.held });
            self.say_to_all();
        }
    }

    fn question(&self) -> Option<Message> {
        let op = self.op.as_ref()?;
        Some(match op.phase {
            Phase::Asking => Message::Ask { op: op.number },
            Phase::Storing => Message::Store { op: op.number, held: op.newest },
        })
    }

    fn say_to_all(&mut self) {
        let Some(message) = self.question() else { return };
        self.out.send_all(self.up.values().copied(), message);
    }

    fn on_said(&mut self, from: NodeId, number: u64, phase: Phase, held: Option<Held>) {
        let majority = self.config.nodes.len() / 2 + 1;
        let Some(op) = &mut self.op else { return };
        if op.number != number || op.phase != phase {
            return;
        }
        op.newest = op.newest.max(held.unwrap_or(NOTHING));
        op.said.insert(from);
        if op.said.len() < majority {
            return;
        }
        let is_over = phase == Phase::Storing
            || (op.write.is_none() && self.config.fault == Some(Fault::NoWriteBack));
        if is_over {
            return self.finish();
        }
        if let Some(value) = op.write {
            let mine = Held { stamp: (value, self.me.nonce), value };
            op.newest = op.newest.max(mine);
        }
        (op.phase, op.said) = (Phase::Storing, BTreeSet::new());
        let (held, number, me) = (op.newest, op.number, self.me);
        self.store(me, number, held);
        self.say_to_all();
    }

    fn finish(&mut self) {
        let Some(Op { number: op, write, newest, .. }) = self.op.take() else { return };
        let value = newest.value;
        match write {
            Some(_) => {
                self.out.tell(Event::Written { op, value });
            }
            // What a user would have checked beside the turns.
            None => self.out.put(Out::Work((op, value))),
        }
        for to in self.config.nodes.clone() {
            self.out.put(Out::Datagram { to, message: Message::Hint { value } });
        }
        self.begin();
    }

    /// Keeps a value if it is newer, and says so when it is forced.
    fn store(&mut self, from: BootId, op: u64, held: Held) {
        if held > self.held {
            self.held = held;
            self.out.persist(Set(held));
        }
        if self.is(Fault::AcksEarly) {
            return self.stored(from, op);
        }
        // One that is older than what is on its way is there when that is.
        if self.out.last() <= self.written {
            return self.stored(from, op);
        }
        self.owed.push_back((self.out.last(), from, op));
    }

    fn stored(&mut self, to: BootId, op: u64) {
        if to == self.me {
            self.on_said(self.me.node, op, Phase::Storing, None);
        } else {
            self.send(to, Message::Stored { op });
        }
    }

    fn on_message(&mut self, from: BootId, message: Message) {
        if !self.ready {
            return;
        }
        match message {
            Message::Ask { op } => self.send(from, Message::Answer { op, held: self.held }),
            Message::Answer { op, held } => {
                self.on_said(from.node, op, Phase::Asking, Some(held));
            }
            Message::Store { op, held } => self.store(from, op, held),
            Message::Stored { op } => self.on_said(from.node, op, Phase::Storing, None),
            Message::Hint { .. } => {}
        }
    }

    fn on_peer(&mut self, change: PeerChange) {
        match change {
            PeerChange::Up { boot } => {
                self.up.insert(boot.node, boot);
                self.ask_again(boot);
            }
            PeerChange::Down { boot }
            | PeerChange::Ended { boot }
            | PeerChange::Replaced { old: boot, .. } => {
                self.up.retain(|_, up| *up != boot);
            }
        }
    }

    fn ask_again(&mut self, to: BootId) {
        if let Some(message) = self.question()
            && to != self.me
        {
            self.send(to, message);
        }
    }

    fn compact(&mut self) {
        if !std::mem::replace(&mut self.writing, true) {
            let source = Box::new(One(Some(codec::encode(&self.held))));
            let position = self.out.last().0;
            self.out.put(Out::Checkpoint { position, alone: false, source });
        }
    }
}

impl Machine for Register {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, _now: Instant, input: In<Self>) {
        match input {
            In::Peer(change) => self.on_peer(change),
            In::View(_) => self.views += 1,
            In::Message { from, message, .. } => {
                self.work += self.config.work;
                self.on_message(from, message);
            }
            In::Datagram { .. } => self.hints += 1,
            In::Full { .. } => {}
            In::Room { to } => self.ask_again(to),
            In::Written(io) => {
                self.written = io;
                while let Some((_, to, op)) = self.owed.front().copied().filter(|it| it.0 <= io) {
                    self.owed.pop_front();
                    self.stored(to, op);
                }
            }
            In::Compact { .. } => self.compact(),
            In::Chunk(Some(chunk)) => {
                let held = codec::decode(&chunk).expect("its own checkpoint");
                self.held = self.held.max(held);
                self.out.put(Out::NextChunk);
            }
            In::Chunk(None) => {
                self.ready = true;
                self.begin();
            }
            In::Checkpointed { position, written } => {
                self.writing = false;
                if written {
                    self.keeps = Io(position + 1);
                }
            }
            In::DiskShort(short) => {
                self.disk_short = short;
                self.begin();
            }
            In::Done((op, value)) => {
                self.out.tell(Event::Read { op, value });
            }
            In::Command(command) => {
                self.queue.push_back(command);
                self.begin();
            }
            In::Told(_) | In::Reader { .. } | In::Close => {}
        }
    }

    /// An answer was refused for want of room perhaps.
    fn handle_timeout(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.say_to_all();
        }
    }

    fn end_turn(&mut self, now: Instant) {
        let at = self.retry_at.unwrap_or(now + RETRY);
        self.retry_at = self.op.is_some().then_some(at);
    }

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }

    fn take_work(&mut self) -> Work {
        Work::step(std::mem::take(&mut self.work), 0)
    }
}

impl Service for Register {
    const CHANNEL: Channel = Channel(0x4001);
    const NAME: &'static str = "register";
    const CLASS: Class = Class::Calls;
    type Message = Message;
    type Record = Set;
    type Command = Command;
    type Event = Event;
    type Job = (u64, u64);
    type Done = (u64, u64);
    type Past = Past;
    type Config = Config;
    /// The value, and whether writes wait for room.
    type Status = (u64, bool);

    fn agreed(config: &Config) -> u128 {
        config.nodes.len() as u128
    }

    fn fold(past: &mut Past, logged: Logged<Set>) {
        if let Logged::Record(io, Set(held)) = logged {
            past.held = past.held.max(Some(held));
            past.last = past.last.max(io);
        }
    }

    fn recover(config: Config, start: Start<Past>) -> Self {
        let forgets = config.fault == Some(Fault::ForgetsPast);
        let held = start.past.held.filter(|_| !forgets).unwrap_or(NOTHING);
        let last = start.past.last.max(Io(start.checkpoint.unwrap_or(0)));
        let mut register = Self {
            me: start.me,
            config,
            up: BTreeMap::new(),
            held,
            ready: start.checkpoint.is_none() || forgets,
            written: last,
            retry_at: None,
            keeps: Io(start.checkpoint.unwrap_or(0) + 1),
            writing: false,
            owed: VecDeque::new(),
            op: None,
            queue: VecDeque::new(),
            out: Outbox::new(last),
            hints: 0,
            views: 0,
            disk_short: false,
            work: Duration::ZERO,
        };
        if !register.ready {
            register.out.put(Out::NextChunk);
        }
        register
    }

    fn work((op, value): (u64, u64)) -> (u64, u64) {
        (op, value)
    }

    fn keeps(&self) -> Io {
        if self.is(Fault::KeepsTooLittle) { self.out.last().next() } else { self.keeps }
    }

    fn status(&self) -> (u64, bool) {
        (self.held.value, self.disk_short)
    }

    fn check_invariants(&self) {
        assert!(self.keeps <= self.out.last().next(), "it keeps records that there are");
        assert!(self.owed.iter().is_sorted_by_key(|(io, ..)| io));
    }
}

impl Fingerprint for Register {
    fn fingerprint(&self, into: &mut Fingerprinter) {
        let Self { me, up, held, ready, written, keeps, retry_at, writing, owed, op, .. } = self;
        (me, up, held, ready, written, keeps, retry_at.is_some(), writing, owed).hash(into);
        self.out.last().hash(into);
        let op = op.as_ref();
        op.map(|op| (op.number, op.write, op.phase == Phase::Asking, &op.said, op.newest))
            .hash(into);
        self.queue.hash(into);
    }
}

/// Reads the register of its node whenever a view is installed, and remembers what was told.
pub struct Watcher {
    register: Instance,
    out: VecDeque<Out<Self>>,
    asked: u64,
    told: u64,
}

impl Watcher {
    /// Operations of its own have numbers from here on.
    pub const FIRST: u64 = 1 << 40;
}

impl Machine for Watcher {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, _now: Instant, input: In<Self>) {
        match input {
            In::View(_) => {
                self.asked += 1;
                let read = Command::Read { op: Self::FIRST + self.asked };
                self.out.push_back(Out::Ask(Ask::of::<Register>(self.register, vec![read])));
            }
            In::Told(told) => {
                if let Ok(events) = told.of::<Register>() {
                    self.told += events.len() as u64;
                }
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn end_turn(&mut self, _now: Instant) {}

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

impl Service for Watcher {
    const CHANNEL: Channel = Channel(0x4002);
    const NAME: &'static str = "watcher";
    const CLASS: Class = Class::Bulk;
    const NEEDS: &'static [Kind] = &[Kind::of::<Register>()];
    type Message = Never;
    type Record = Never;
    type Command = Never;
    type Event = Never;
    type Job = Never;
    type Done = Never;
    type Past = ();
    type Config = Instance;
    type Status = (u64, u64);

    fn fold((): &mut (), _: Logged<Never>) {}

    fn recover(register: Instance, _: Start<()>) -> Self {
        Self { register, out: VecDeque::new(), asked: 0, told: 0 }
    }

    fn work(job: Never) -> Never {
        match job {}
    }

    fn status(&self) -> (u64, u64) {
        (self.asked, self.told)
    }
}
