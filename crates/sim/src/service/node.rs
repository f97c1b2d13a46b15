//! A node of the world: a rack of services on a simulated host.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::rack::{Effect, Given, LogEntry, Rack};
use mainstay_base::service::{Address, Ask, Dest, Io, PeerChange, Service};
use mainstay_base::trace::{MembershipWord, What};
use mainstay_base::{
    BootId, Duration, Fingerprinter, Instance, Instant, NodeId, Rng, View, ViewId,
};

use super::line::{Data, Kind, Line, Packet};
use super::oracle::Oracle;
use super::{Costs, Image, Mounting, Setup, Told, Twist, Written};
use crate::{Clock, Effects, Node, Peer, Start};

/// How often a node looks for a view.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A removed boot comes back so long after it has heard of it.
const BACK_AFTER: Duration = Duration::from_millis(1);
/// The longest time of a job, and until a chunk of a checkpoint is read.
const JOB_MAX: u64 = 5_000_000;
/// Writes of records between two cuts of the log.
const CUT_EVERY: u64 = 16;

/// A node with its services.
pub struct ServiceNode<E> {
    me: BootId,
    rack: Rack,
    net: Net,
    disk: Disk,
    views: Installed,
    jobs: Jobs,
    busy: Busy,
    told: Rc<RefCell<Vec<Told<E>>>>,
    costs: Rc<RefCell<BTreeMap<Address, Costs>>>,
    rng: Rng,
    clock: Rc<RefCell<Clock>>,
    twists: Vec<Twist>,
    turn_delay: Duration,
}

/// The boots that it knows.
struct Net {
    lines: BTreeMap<BootId, Line>,
    window: usize,
    datagrams_lost: u64,
    /// What is to be sent at the end of the turn.
    out: Vec<(BootId, Packet)>,
    /// Of the messages that this turn has taken in, the longest chain.
    depth: u32,
}

/// What it writes.
struct Disk {
    image: Image,
    issued: u64,
    /// Whom to tell when a write is stable.
    pending: VecDeque<(u64, Vec<(Address, Given)>)>,
    last: BTreeMap<Address, Io>,
    compacted: BTreeMap<Address, Io>,
    compact_after: u64,
    /// Chunks of checkpoints that are still to be read.
    reading: BTreeMap<Address, VecDeque<Bytes>>,
    uncut: u64,
}

struct Installed {
    oracle: Option<Rc<RefCell<Option<Oracle>>>>,
    view: Option<Arc<View>>,
    next_look: Instant,
    /// Since when a boot is not reached.
    apart: BTreeMap<BootId, Instant>,
    /// The last view that the log names before records of each instance.
    marked: BTreeMap<Address, ViewId>,
}

#[derive(Default)]
struct Jobs {
    due: BTreeMap<(Instant, u64), (Address, Work)>,
    number: u64,
}

type Work = Box<dyn FnOnce() -> Given>;

/// A node takes nothing in before its last turn is over.
#[derive(Default)]
struct Busy {
    until: Instant,
    inbox: VecDeque<Input>,
}

enum Input {
    /// A packet, and when it came, by local time.
    Packet(Peer, Packet, Instant),
    Opened(Peer),
    Closed(Peer),
    Written(u64),
    Ask(Ask),
}

impl<E: 'static> ServiceNode<E> {
    /// A command for a service; an ask of a test. It is taken in when the node is not busy.
    pub fn command<S: Service>(&mut self, now: Instant, instance: Instance, command: S::Command) {
        self.input(now, Input::Ask(Ask::of::<S>(instance, vec![command])));
    }

    /// A mounted service.
    #[must_use]
    pub fn service<S: Service>(&self, instance: Instance) -> Option<&S> {
        self.rack.get::<S>(instance).map(mainstay_base::rack::Mounted::service)
    }

    /// The rack, for its questions.
    #[must_use]
    pub fn rack(&self) -> &Rack {
        &self.rack
    }

    /// The last view that it has installed.
    #[must_use]
    pub fn view(&self) -> Option<&View> {
        self.views.view.as_deref()
    }

    /// What the clock of this node says.
    fn local(&self, now: Instant) -> Instant {
        self.clock.borrow().local(now)
    }

    fn input(&mut self, now: Instant, input: Input) {
        // What came earlier is taken in earlier.
        if now < self.busy.until || !self.busy.inbox.is_empty() {
            return self.busy.inbox.push_back(input);
        }
        self.take(now, input);
    }

    fn take(&mut self, now: Instant, input: Input) {
        match input {
            Input::Packet(peer, packet, at) => self.on_packet(now, peer, packet, at),
            Input::Opened(peer) => self.on_opened(now, peer),
            Input::Closed(peer) => self.on_closed(now, peer),
            Input::Written(io) => self.on_written(now, io),
            Input::Ask(ask) => drop(self.rack.ask(self.clock.borrow().local(now), ask)),
        }
    }

    fn is_removed(&self, boot: BootId) -> bool {
        let oracle = self.views.oracle.as_ref().map(|oracle| oracle.borrow());
        let removed = oracle.as_ref().and_then(|it| it.as_ref()).is_some_and(|it| it.is_dead(boot));
        // Others learn of a removal with the view that it brought about.
        removed && self.views.view.as_ref().is_some_and(|view| view.member(boot).is_none())
    }

    fn on_opened(&mut self, now: Instant, peer: Peer) {
        if self.is_removed(peer.boot) {
            return;
        }
        self.replace(now, peer.boot);
        let line = self.net.lines.entry(peer.boot).or_default();
        line.conn = Some(peer.conn);
        let hello = line.hello(self.rack.mounted().collect());
        self.net.out.push((peer.boot, hello));
        self.reached(now, peer.boot, true);
    }

    /// Another boot of the node is gone.
    fn replace(&mut self, now: Instant, new: BootId) {
        let is_former = |boot: &BootId| boot.node == new.node && *boot != new;
        let former: Vec<_> = self.net.lines.keys().copied().filter(is_former).collect();
        former.into_iter().for_each(|old| self.forget(now, old, Some(new)));
    }

    fn forget(&mut self, now: Instant, old: BootId, new: Option<BootId>) {
        self.views.apart.remove(&old);
        if self.net.lines.remove(&old).is_none() {
            return;
        }
        let all: Vec<_> = self.rack.mounted().map(|(of, _)| of).collect();
        for of in all {
            self.rack.peer(self.clock.borrow().local(now), of, PeerChange::Replaced { old, new });
        }
    }

    fn on_closed(&mut self, now: Instant, peer: Peer) {
        let Some(line) = self.net.lines.get_mut(&peer.boot) else { return };
        if line.conn != Some(peer.conn) {
            return;
        }
        line.conn = None;
        for of in std::mem::take(&mut line.up) {
            self.rack.peer(
                self.clock.borrow().local(now),
                of,
                PeerChange::Down { boot: peer.boot },
            );
        }
        self.reached(now, peer.boot, false);
    }

    fn on_packet(&mut self, now: Instant, peer: Peer, Packet(kind): Packet, at: Instant) {
        if let Kind::Datagram { of, meta, payload } = kind {
            let from = peer.boot.node;
            self.rack.give(
                self.clock.borrow().local(now),
                of,
                Given::Datagram { at, from, meta, payload },
            );
            return;
        }
        let Some(line) = self.net.lines.get_mut(&peer.boot) else { return };
        match kind {
            Kind::Hello { mounted, received } => self.on_hello(now, peer, &mounted, received),
            Kind::Data(data) => {
                if !line.receive(data.number) {
                    return;
                }
                self.net.depth = self.net.depth.max(data.depth);
                let Data { of, view, meta, payload, .. } = data;
                self.rack.give(
                    self.clock.borrow().local(now),
                    of,
                    Given::Message { from: peer.boot, view, meta, payload },
                );
            }
            Kind::Ack { received } => {
                let room = line.acked(received, self.net.window);
                self.give_room(now, peer.boot, room);
            }
            Kind::Datagram { .. } => {}
        }
    }

    fn on_hello(
        &mut self,
        now: Instant,
        peer: Peer,
        mounted: &BTreeMap<Address, u128>,
        received: u64,
    ) {
        // One that is said again on another connection says nothing.
        let line = self.net.lines.get_mut(&peer.boot).filter(|line| line.conn == Some(peer.conn));
        let Some(line) = line else { return };
        let is_equal = |(of, agreed): &(Address, u128)| mounted.get(of) == Some(agreed);
        let up: BTreeSet<Address> =
            self.rack.mounted().filter(is_equal).map(|(of, _)| of).collect();
        let (again, room) = line.greeted(up.clone(), received, self.net.window);
        self.net.out.extend(again.into_iter().map(|packet| (peer.boot, packet)));
        for of in up {
            self.rack.peer(self.clock.borrow().local(now), of, PeerChange::Up { boot: peer.boot });
        }
        self.give_room(now, peer.boot, room);
    }

    fn give_room(&mut self, now: Instant, to: BootId, room: Vec<Address>) {
        for of in room {
            self.rack.give(self.clock.borrow().local(now), of, Given::Room { to });
        }
    }

    fn on_written(&mut self, now: Instant, io: u64) {
        while self.disk.pending.front().is_some_and(|(at, _)| *at <= io) {
            let Some((_, whom)) = self.disk.pending.pop_front() else { break };
            for (of, given) in whom {
                self.rack.give(self.clock.borrow().local(now), of, given);
            }
        }
    }

    fn reached(&mut self, now: Instant, boot: BootId, is: bool) {
        if is {
            self.views.apart.remove(&boot);
            self.suspect(now, boot, false);
        } else {
            self.views.apart.insert(boot, now);
        }
    }

    fn suspect(&self, now: Instant, who: BootId, is: bool) {
        if let Some(oracle) = &self.views.oracle
            && let Some(oracle) = oracle.borrow_mut().as_mut()
        {
            oracle.suspects(now, self.me, who, is);
        }
    }

    /// Looks for views, and for the word that this boot is dead: true, if somebody that lives can tell.
    fn look(&mut self, now: Instant) -> bool {
        let Some(shared) = self.views.oracle.clone() else { return false };
        self.views.next_look = now + LOOK_EVERY;
        let mut oracle = shared.borrow_mut();
        let Some(oracle) = oracle.as_mut() else { return false };
        let apart: Vec<_> = self.views.apart.iter().map(|(who, since)| (*who, *since)).collect();
        for (who, since) in apart {
            if now.saturating_since(since) >= oracle.patience() && !oracle.is_dead(who) {
                oracle.suspects(now, self.me, who, true);
            }
        }
        if oracle.is_dead(self.me) {
            let alive =
                |(boot, line): (&BootId, &Line)| line.conn.is_some() && !oracle.is_dead(*boot);
            return self.net.lines.iter().any(alive);
        }
        let due: Vec<_> = std::iter::from_fn(|| oracle.look(now, self.me)).collect();
        due.into_iter().for_each(|view| self.install(now, view));
        false
    }

    fn install(&mut self, now: Instant, view: Arc<View>) {
        let former = self.views.view.replace(Arc::clone(&view));
        let gone = former.into_iter().flat_map(|it| it.boots().collect::<Vec<_>>());
        for boot in gone.filter(|boot| view.member(*boot).is_none()) {
            self.forget(now, boot, None);
        }
        self.rack.view(self.clock.borrow().local(now), &view);
        let members = view.members.iter().map(|member| member.site).collect();
        let roster = view.roster.iter().copied().collect();
        let what = What::Membership(MembershipWord::Installed { view: view.id, members, roster });
        self.told.borrow_mut().push(Told::Trace(what));
    }

    fn spend(&self, of: Address, spend: impl FnOnce(&mut Costs)) {
        spend(self.costs.borrow_mut().entry(of).or_default());
    }

    fn send(&mut self, now: Instant, of: Address, to: &Dest, meta: &Bytes, payload: &Bytes) {
        let view = self.views.view.as_ref().map_or(0, |view| view.id.number);
        let depth = self.net.depth + 1;
        for to in to.iter() {
            let (meta, payload) = (meta.clone(), payload.clone());
            let bytes = (meta.len() + payload.len()) as u64;
            let data = Data { number: 0, of, view, depth, meta, payload };
            let line = self.net.lines.get_mut(&to);
            let sent = match line {
                Some(line) => line.send(data, self.net.window).cloned(),
                None => Err(data),
            };
            match sent {
                Ok(data) => {
                    self.net.out.push((to, Packet(Kind::Data(data))));
                    self.spend(of, |costs| {
                        costs.messages += 1;
                        costs.bytes += bytes;
                        costs.rounds = costs.rounds.max(depth);
                    });
                }
                Err(Data { meta, payload, .. }) => {
                    self.rack.give(
                        self.clock.borrow().local(now),
                        of,
                        Given::Full { to, meta, payload },
                    );
                }
            }
        }
    }

    fn send_datagram(&mut self, of: Address, to: NodeId, meta: Bytes, payload: Bytes) {
        let twist = self.twists.iter_mut().find(|it| it.of == of);
        let all = match twist {
            Some(twist) => (twist.twist)(to, meta, payload),
            None => vec![(meta, payload)],
        };
        let line = self.net.lines.iter().find(|(boot, it)| boot.node == to && it.conn.is_some());
        let boot = line.map(|(boot, _)| *boot);
        for (meta, payload) in all {
            self.spend(of, |costs| costs.datagrams += 1);
            if let Some(boot) = boot
                && !self.rng.chance(self.net.datagrams_lost, 1_000)
            {
                self.net.out.push((boot, Packet(Kind::Datagram { of, meta, payload })));
            }
        }
    }

    fn on_effect(
        &mut self,
        now: Instant,
        effect: Effect,
        records: &mut Vec<LogEntry>,
        out: &mut Effects<Self>,
    ) {
        match effect {
            Effect::Send { from, to, meta, payload, .. } => {
                self.send(now, from, &to, &meta, &payload)
            }
            Effect::Datagram { from, to, meta, payload } => {
                self.send_datagram(from, to, meta, payload);
            }
            Effect::Persist { from, io, meta, payload } => {
                let last = self.disk.last.entry(from).or_default();
                if io != last.next() {
                    out.fail(format!("{from:?} persists {io:?} after {last:?}"));
                }
                *last = io;
                let view = self.views.view.as_ref().map_or(ViewId::NONE, |view| view.id);
                let marked = self.views.marked.entry(from).or_insert(ViewId::NONE);
                if std::mem::replace(marked, view) != view {
                    records.push(LogEntry::Installed { of: from, view });
                }
                records.push(LogEntry::Record { of: from, io, meta, payload });
            }
            Effect::Checkpoint { from, position, mut source, .. } => {
                let mut chunks = Vec::new();
                let written = loop {
                    match source.next_chunk() {
                        Ok(Some(chunk)) => chunks.push(chunk),
                        Ok(None) => break true,
                        Err(_) => break false,
                    }
                };
                let done = Given::Checkpointed { position, written };
                if written {
                    self.issue(
                        Written::Checkpoint { of: from, position, chunks },
                        vec![(from, done)],
                        out,
                    );
                } else {
                    self.rack.give(self.clock.borrow().local(now), from, done);
                }
            }
            Effect::NextChunk { from } => {
                let chunk = self.disk.next_chunk(from);
                self.later(now, from, Box::new(move || Given::Chunk(chunk)));
            }
            Effect::Work { from, work } => {
                self.later(now, from, Box::new(move || Given::Done(work())));
            }
            Effect::Aside { from, .. } => {
                out.fail(format!("{from:?} is beside its node, and this world has no actors"));
            }
        }
    }

    /// What runs beside the turns.
    fn later(&mut self, now: Instant, of: Address, work: Work) {
        let at = now + Duration::from_nanos(self.rng.below(JOB_MAX));
        self.jobs.number += 1;
        self.jobs.due.insert((at, self.jobs.number), (of, work));
    }

    fn issue(&mut self, write: Written, whom: Vec<(Address, Given)>, out: &mut Effects<Self>) {
        self.disk.issued += 1;
        self.disk.pending.push_back((self.disk.issued, whom));
        out.write(self.disk.issued, write);
    }

    fn write(&mut self, records: Vec<LogEntry>, out: &mut Effects<Self>) {
        let mut whom: BTreeMap<Address, Io> = BTreeMap::new();
        for record in &records {
            if let LogEntry::Record { of, io, .. } = record {
                whom.insert(*of, *io);
            }
        }
        if records.is_empty() {
            return;
        }
        for of in whom.keys() {
            self.spend(*of, |costs| costs.forced += 1);
        }
        let whom = whom.into_iter().map(|(of, io)| (of, Given::Written(io))).collect();
        self.issue(Written::Records(records), whom, out);
        self.disk.uncut += 1;
        if self.disk.uncut >= CUT_EVERY {
            self.disk.uncut = 0;
            let keeps = self.rack.keeps().collect();
            self.issue(Written::Cut(keeps), Vec::new(), out);
        }
    }

    /// Whoever pins the log is told so, once for each part of it.
    fn compact(&mut self, now: Instant) {
        let keeps: Vec<_> = self.rack.keeps().collect();
        for (of, keeps) in keeps {
            let last = self.disk.last.get(&of).copied().unwrap_or_default();
            let told = self.disk.compacted.entry(of).or_default();
            if last.0.saturating_sub(keeps.0) >= self.disk.compact_after && keeps > *told {
                *told = last;
                self.rack.give(self.clock.borrow().local(now), of, Given::Compact { upto: last });
            }
        }
    }
}

impl Disk {
    fn next_chunk(&mut self, of: Address) -> Option<Bytes> {
        let image = &self.image;
        let chunks =
            || image.checkpoints.get(&of).map(|(_, chunks)| chunks.iter().cloned().collect());
        self.reading.entry(of).or_insert_with(|| chunks().unwrap_or_default()).pop_front()
    }
}

impl<E: 'static> Node for ServiceNode<E> {
    type Setup = Setup<E>;
    type Message = Packet;
    type Durable = Image;
    type Write = Written;
    type Event = E;

    fn start(start: Start<'_, Self>) -> Self {
        let Start { boot, index, roster, setup, durable, clock, now, seed } = start;
        let mut twists = Vec::new();
        if let Some(clocks) = &setup.clocks
            && *clock.borrow() == Clock::default()
        {
            *clock.borrow_mut() = clocks(index);
        }
        let mut rng = Rng::new(seed);
        let told = Rc::new(RefCell::new(Vec::new()));
        let mut rack = Rack::new();
        (setup.mount)(&mut Mounting {
            rack: &mut rack,
            image: &durable,
            seeds: rng.stream("services"),
            told: Rc::clone(&told),
            me: boot,
            index,
            roster,
            now: clock.borrow().local(now),
            twists: &mut twists,
        });
        let views = setup.views.as_ref().map(|views| {
            let fresh = || Oracle::new(views.clone(), roster, rng.next_u64());
            setup.oracle.borrow_mut().get_or_insert_with(fresh).started(now, boot);
            Rc::clone(&setup.oracle)
        });
        Self {
            me: boot,
            rack,
            net: Net {
                lines: BTreeMap::new(),
                window: setup.window,
                datagrams_lost: setup.datagrams_lost,
                out: Vec::new(),
                depth: 0,
            },
            disk: Disk {
                last: durable.last.clone(),
                image: durable,
                issued: 0,
                pending: VecDeque::new(),
                compacted: BTreeMap::new(),
                compact_after: setup.compact_after,
                reading: BTreeMap::new(),
                uncut: 0,
            },
            views: Installed {
                oracle: views,
                view: None,
                next_look: now,
                apart: BTreeMap::new(),
                marked: BTreeMap::new(),
            },
            jobs: Jobs::default(),
            busy: Busy { until: now, inbox: VecDeque::new() },
            told,
            costs: Rc::clone(&setup.costs),
            rng,
            clock,
            twists,
            turn_delay: setup.turn_delay,
        }
    }

    fn receive(&mut self, now: Instant, from: Peer, message: Packet) {
        let at = self.local(now);
        if now >= self.busy.until && !self.turn_delay.is_zero() {
            let delay = self.turn_delay.as_nanos() as u64;
            self.busy.until = now + Duration::from_nanos(self.rng.below(delay + 1));
        }
        self.input(now, Input::Packet(from, message, at));
    }

    fn opened(&mut self, now: Instant, peer: Peer, _dialled: bool) {
        self.input(now, Input::Opened(peer));
    }

    fn closed(&mut self, now: Instant, peer: Peer) {
        self.input(now, Input::Closed(peer));
    }

    fn written(&mut self, now: Instant, io: u64) {
        self.input(now, Input::Written(io));
    }

    fn timeout(&mut self, _now: Instant) {}

    fn end_turn(&mut self, now: Instant, out: &mut Effects<Self>) {
        if now < self.busy.until {
            return;
        }
        while let Some(input) = self.busy.inbox.pop_front() {
            self.take(now, input);
        }
        if self.views.next_look <= now && self.look(now) {
            return out.exit(BACK_AFTER);
        }
        while let Some(first) = self.jobs.due.first_entry()
            && first.key().0 <= now
        {
            let (of, work) = first.remove();
            self.rack.give(self.clock.borrow().local(now), of, work());
        }
        let effects = self.rack.turn(self.clock.borrow().local(now));
        let mut records = Vec::new();
        for effect in effects {
            self.on_effect(now, effect, &mut records, out);
        }
        self.write(records, out);
        self.compact(now);
        for (to, packet) in self.net.out.drain(..) {
            out.send(to, packet);
        }
        for (to, line) in &mut self.net.lines {
            line.ack().into_iter().for_each(|ack| out.send(*to, ack));
        }
        self.net.depth = 0;
        for told in self.told.borrow_mut().drain(..) {
            match told {
                Told::Event(event) => out.event(event),
                Told::Trace(what) => out.trace(what),
            }
        }
        let work = self.rack.take_work();
        self.busy.until = now + work.nominal;
        self.rack.check_invariants();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let rest = (!self.busy.inbox.is_empty()).then_some(self.busy.until);
        let look = self.views.oracle.as_ref().map(|_| self.views.next_look);
        let job = self.jobs.due.first_key_value().map(|((at, _), _)| *at);
        let rack = self.rack.poll_timeout();
        let rack = rack.and_then(|due| self.clock.borrow().real(self.busy.until, due));
        let due = [rest, look, job, rack].into_iter().flatten().min();
        due.map(|due| due.max(self.busy.until))
    }

    fn apply(durable: &mut Image, write: Written) {
        durable.apply(write);
    }

    fn is_datagram(Packet(kind): &Packet) -> bool {
        matches!(kind, Kind::Datagram { .. })
    }

    fn hash_message(message: &Packet, into: &mut Fingerprinter) {
        message.write_hash(into);
    }
}

/// Nodes by name, for reports.
impl<E> std::fmt::Debug for ServiceNode<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines: Vec<(&NodeId, bool)> =
            self.net.lines.iter().map(|(boot, line)| (&boot.node, line.conn.is_some())).collect();
        f.debug_struct("ServiceNode")
            .field("me", &self.me)
            .field("lines", &lines)
            .finish_non_exhaustive()
    }
}
