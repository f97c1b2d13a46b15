//! A small scope of one service, for the explorer: every order of commands, deliveries, completed writes, timeouts and crashes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::{Hash as _, Hasher as _};
use std::rc::Rc;

use bytes::Bytes;
use mainstay_base::rack::{LogEntry, fold};
use mainstay_base::service::{Address, Dest, In, Io, Out, PeerChange, Service, Start, Wire as _};
use mainstay_base::{
    BootId, BootNonce, ClusterId, Fingerprint, Fingerprinter, Instance, Instant, NodeId,
};

use crate::Model;

/// What a scope is judged by. It hears of everything that users see.
pub trait Judge<S: Service>: Clone {
    /// A command is given at a node.
    fn commanded(&mut self, node: usize, command: &S::Command);

    /// A node told its readers something.
    ///
    /// # Errors
    /// The violated property.
    fn told(&mut self, node: usize, event: &S::Event) -> Result<(), String>;

    /// What the readers of a node answer to what they were told. Each of these commands is a step of its own, at any later time and in
    /// any order, until the node crashes. Default: nothing.
    fn answer(&mut self, _node: usize, _event: &S::Event) -> Vec<S::Command> {
        Vec::new()
    }

    /// One of these is given. Default: nothing.
    fn answered(&mut self, _node: usize, _command: &S::Command) {}

    /// A node crashes. Default: nothing.
    fn crashed(&mut self, _node: usize) {}

    /// Nothing more can happen. Default: that is right.
    ///
    /// # Errors
    /// The violated property.
    fn ended(&self) -> Result<(), String> {
        Ok(())
    }

    /// Writes all that can influence a later verdict.
    fn fingerprint(&self, into: &mut Fingerprinter);
}

/// Nodes with one service each, every two of them connected, without views and full windows, and without
/// [datagrams](Self::datagrams) unless they are asked for. Jobs and chunks of checkpoints are done at once. A crashed node is back at
/// once, under another boot, with some first ones of its unfinished writes.
pub struct Scope<S: Service, J> {
    config: Rc<dyn Fn(usize) -> S::Config>,
    each_start: EachStart<S>,
    nodes: Vec<Site<S>>,
    /// From one to the other.
    ways: BTreeMap<(usize, usize), VecDeque<(Bytes, Bytes)>>,
    /// At which node; given in this order.
    commands: VecDeque<(usize, S::Command)>,
    /// Given at each start of a node, before all else.
    first: Vec<(usize, S::Command)>,
    /// Commands that readers answer with.
    answers: Vec<(usize, S::Command)>,
    /// On their way, sorted; `None`: there are none in this scope.
    datagrams: Option<Vec<Datagram>>,
    losses: u32,
    copies: u32,
    crashes: u32,
    timeouts: u32,
    judge: J,
}

type EachStart<S> = Rc<dyn Fn(&mut <S as Service>::Config, u64)>;

/// From one node to another, whatever boots they are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Datagram {
    from: usize,
    to: usize,
    meta: Bytes,
    payload: Bytes,
}

struct Site<S> {
    boot: BootId,
    service: S,
    now: Instant,
    disk: Disk,
    pending: VecDeque<Write>,
}

#[derive(Clone, Default)]
struct Disk {
    log: Vec<LogEntry>,
    checkpoint: Option<(u64, Vec<Bytes>)>,
}

#[derive(Clone, Hash)]
enum Write {
    Records(Vec<LogEntry>),
    Checkpoint(u64, Vec<Bytes>),
}

/// One step of a [`Scope`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Step {
    /// The next command is given.
    Command,
    /// The oldest message on a way arrives.
    Deliver {
        /// Its sender.
        from: usize,
        /// Its receiver.
        to: usize,
    },
    /// A reader gives its answer.
    Answer {
        /// Its place among those that are to be given.
        at: usize,
    },
    /// A datagram arrives, late or not, and at another boot perhaps.
    Datagram {
        /// Its place among those on their way.
        at: usize,
    },
    /// A datagram arrives, and a copy of it may come later.
    Copy {
        /// Its place among those on their way.
        at: usize,
    },
    /// A datagram is lost.
    Lose {
        /// Its place among those on their way.
        at: usize,
    },
    /// The oldest unfinished write of a node is stable.
    Written {
        /// Which.
        node: usize,
    },
    /// The timer of a node is due.
    Timeout {
        /// Which.
        node: usize,
    },
    /// A node crashes, and is back.
    Crash {
        /// Which.
        node: usize,
        /// So many of its unfinished writes are stable.
        kept: usize,
    },
}

fn instance() -> Instance {
    Instance::new(ClusterId::from_entropy(1), "scope")
}

impl<S: Service, J> Scope<S, J> {
    /// This command is given at a node, behind those before it.
    #[must_use]
    pub fn command(mut self, node: usize, command: S::Command) -> Self {
        self.commands.push_back((node, command));
        self
    }

    /// This command is given at each start of a node, before it hears of anything.
    ///
    /// # Panics
    /// If the node is not there.
    #[must_use]
    pub fn first(mut self, node: usize, command: S::Command) -> Self
    where
        S::Command: Clone,
    {
        let site = &mut self.nodes[node];
        site.service.handle(site.now, In::Command(command.clone()));
        self.first.push((node, command));
        self
    }

    /// So many crashes, and so many timeouts, are part of the scope.
    #[must_use]
    pub fn faults(mut self, crashes: u32, timeouts: u32) -> Self {
        (self.crashes, self.timeouts) = (crashes, timeouts);
        self
    }

    /// Datagrams are part of the scope, in any order and as late as can be: each may outlive its sender and its receiver. So many are lost, and so
    /// many come once more.
    #[must_use]
    pub fn datagrams(mut self, losses: u32, copies: u32) -> Self {
        (self.datagrams, self.losses, self.copies) = (Some(Vec::new()), losses, copies);
        self
    }

    /// What is different at each start of a node after the first; starts are counted from 1.
    #[must_use]
    pub fn each_start(mut self, change: impl Fn(&mut S::Config, u64) + 'static) -> Self {
        self.each_start = Rc::new(change);
        self
    }

    /// Both ends of all ways of a node are told.
    fn connect(&mut self, one: usize) {
        let boots: Vec<_> = self.nodes.iter().map(|site| site.boot).collect();
        for (at, site) in self.nodes.iter_mut().enumerate() {
            let up = boots
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != at && (at == one || *other == one));
            for (_, boot) in up {
                site.service.handle(site.now, In::Peer(PeerChange::Up { boot: *boot }));
            }
        }
    }
}

impl<S: Service> Site<S> {
    fn start(config: S::Config, boot: BootId, disk: Disk) -> Self {
        let past = fold::<S>(instance(), &disk.log).expect("the log is its own");
        let checkpoint = disk.checkpoint.as_ref().map(|(position, _)| *position);
        let (me, now, seed) = (boot, Instant::ZERO, boot.nonce.0 as u64);
        let start = Start { me, instance: instance(), past, checkpoint, now, seed };
        Self { boot, service: S::recover(config, start), now, disk, pending: VecDeque::new() }
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Records(records) => self.disk.log.extend(records),
            Write::Checkpoint(position, chunks) => self.disk.checkpoint = Some((position, chunks)),
        }
    }
}

impl<S: Service, J: Judge<S>> Scope<S, J>
where
    S::Command: Clone,
{
    /// So many nodes that were just started; `config` says what each is made with.
    ///
    /// # Panics
    /// If the judge finds fault with the start.
    pub fn new(
        nodes: usize,
        config: impl Fn(usize, &[NodeId]) -> S::Config + 'static,
        judge: J,
    ) -> Self {
        let cluster = ClusterId::from_entropy(1);
        let mut roster: Vec<_> =
            (0..nodes).map(|index| NodeId::new(cluster, &format!("n{index}"))).collect();
        roster.sort();
        let all = roster.clone();
        let config: Rc<dyn Fn(usize) -> S::Config> = Rc::new(move |index| config(index, &all));
        let boots = roster.iter().map(|node| BootId { node: *node, nonce: BootNonce(1) });
        let nodes =
            boots.enumerate().map(|(at, boot)| Site::start(config(at), boot, Disk::default()));
        let mut scope = Self {
            nodes: nodes.collect(),
            config,
            each_start: Rc::new(|_, _| {}),
            ways: BTreeMap::new(),
            commands: VecDeque::new(),
            first: Vec::new(),
            answers: Vec::new(),
            datagrams: None,
            losses: 0,
            copies: 0,
            crashes: 0,
            timeouts: 0,
            judge,
        };
        for one in 0..scope.nodes.len() {
            scope.connect(one);
        }
        let starts = (0..scope.nodes.len()).try_for_each(|at| scope.turn(at));
        starts.expect("nothing is wrong at the start");
        scope
    }

    /// Ends the turns of a node until it has nothing more to say.
    fn turn(&mut self, at: usize) -> Result<(), String> {
        let mut reading: Option<VecDeque<Bytes>> = None;
        let mut more = true;
        while std::mem::take(&mut more) {
            let now = self.nodes[at].now;
            self.nodes[at].service.end_turn(now);
            let mut records = Vec::new();
            while let Some(output) = self.nodes[at].service.poll_output() {
                match output {
                    Out::Send { to, message } => self.send(at, &to, &message),
                    Out::Persist { io, record } => records.push(Self::record(io, &record)),
                    Out::Checkpoint { position, mut source, .. } => {
                        let chunks = std::iter::from_fn(|| source.next_chunk().transpose());
                        let chunks = chunks.collect::<Result<_, _>>()?;
                        self.nodes[at].pending.push_back(Write::Checkpoint(position, chunks));
                    }
                    Out::NextChunk => {
                        let site = &mut self.nodes[at];
                        let chunks =
                            || site.disk.checkpoint.iter().flat_map(|it| it.1.clone()).collect();
                        let chunk = reading.get_or_insert_with(chunks).pop_front();
                        site.service.handle(now, In::Chunk(chunk));
                        more = true;
                    }
                    Out::Work(job) => {
                        self.nodes[at].service.handle(now, In::Done(S::work(job)));
                        more = true;
                    }
                    Out::Event { event, .. } => {
                        self.judge.told(at, &event)?;
                        let answers = self.judge.answer(at, &event);
                        self.answers.extend(answers.into_iter().map(|answer| (at, answer)));
                    }
                    Out::Again => more = true,
                    Out::Datagram { to, message } => self.send_datagram(at, to, &message),
                    Out::Ask(_) => {}
                }
            }
            if !records.is_empty() {
                self.nodes[at].pending.push_back(Write::Records(records));
            }
        }
        self.nodes[at].service.check_invariants();
        Ok(())
    }

    fn record(io: Io, record: &S::Record) -> LogEntry {
        let (meta, payload) = record.encode();
        let of = Address { channel: S::CHANNEL, instance: instance() };
        LogEntry::Record { of, io, meta, payload }
    }

    fn send(&mut self, from: usize, to: &Dest, message: &S::Message) {
        let parts = message.encode();
        for boot in to.iter() {
            // What is for a former boot is void.
            if let Some(to) = self.nodes.iter().position(|site| site.boot == boot) {
                self.ways.entry((from, to)).or_default().push_back(parts.clone());
            }
        }
    }

    fn send_datagram(&mut self, from: usize, to: NodeId, message: &S::Message) {
        let to = self.nodes.iter().position(|site| site.boot.node == to);
        if let (Some(to), Some(datagrams)) = (to, &mut self.datagrams) {
            let (meta, payload) = message.encode();
            let datagram = Datagram { from, to, meta, payload };
            let place = datagrams.partition_point(|it| *it < datagram);
            datagrams.insert(place, datagram);
        }
    }

    /// A datagram arrives; it goes on being on its way if another copy of it is to come.
    fn receive_datagram(&mut self, at: usize, is_copied: bool) -> Result<usize, String> {
        let datagrams = self.datagrams.iter_mut();
        let datagram =
            datagrams.map(|all| if is_copied { all[at].clone() } else { all.remove(at) });
        let Some(Datagram { from, to, meta, payload }) = datagram.last() else { return Ok(0) };
        let message = S::Message::decode(&meta, payload).map_err(|it| it.to_string())?;
        let from = self.nodes[from].boot.node;
        let site = &mut self.nodes[to];
        site.service.handle(site.now, In::Datagram { at: site.now, from, message });
        Ok(to)
    }

    /// Gives what is given at each start.
    fn begin(&mut self, node: usize) {
        let site = &mut self.nodes[node];
        for (_, command) in self.first.iter().filter(|(at, _)| *at == node) {
            site.service.handle(site.now, In::Command(command.clone()));
        }
    }

    fn crash(&mut self, node: usize, kept: usize) -> Result<(), String> {
        self.crashes -= 1;
        self.judge.crashed(node);
        self.answers.retain(|(at, _)| *at != node);
        self.ways.retain(|(from, to), _| *from != node && *to != node);
        let site = &mut self.nodes[node];
        let stable: Vec<_> = site.pending.drain(..).take(kept).collect();
        stable.into_iter().for_each(|write| site.write(write));
        let old = site.boot;
        let new = BootId { nonce: BootNonce(old.nonce.0 + 1), ..old };
        let mut config = (self.config)(node);
        (self.each_start)(&mut config, new.nonce.0 as u64);
        *site = Site::start(config, new, std::mem::take(&mut site.disk));
        self.begin(node);
        for (_, other) in self.nodes.iter_mut().enumerate().filter(|(at, _)| *at != node) {
            let replaced = PeerChange::Replaced { old, new: Some(new) };
            other.service.handle(other.now, In::Peer(replaced));
        }
        self.connect(node);
        (0..self.nodes.len()).try_for_each(|at| self.turn(at))
    }
}

impl<S, J> Model for Scope<S, J>
where
    S: Service + Clone + Fingerprint,
    S::Command: Clone + fmt::Debug,
    J: Judge<S>,
{
    type Step = Step;

    fn steps(&self, into: &mut Vec<Step>) {
        into.extend((!self.commands.is_empty()).then_some(Step::Command));
        into.extend(
            self.ways
                .iter()
                .filter(|(_, way)| !way.is_empty())
                .map(|((from, to), _)| Step::Deliver { from: *from, to: *to }),
        );
        into.extend((0..self.answers.len()).map(|at| Step::Answer { at }));
        let datagrams = self.datagrams.as_deref().unwrap_or_default();
        for (at, it) in datagrams.iter().enumerate() {
            // Of equal ones it does not matter which.
            if at > 0 && datagrams[at - 1] == *it {
                continue;
            }
            into.push(Step::Datagram { at });
            into.extend((self.copies > 0).then_some(Step::Copy { at }));
            into.extend((self.losses > 0).then_some(Step::Lose { at }));
        }
        for (node, site) in self.nodes.iter().enumerate() {
            into.extend((!site.pending.is_empty()).then_some(Step::Written { node }));
            let is_due = self.timeouts > 0 && site.service.poll_timeout().is_some();
            into.extend(is_due.then_some(Step::Timeout { node }));
            if self.crashes > 0 {
                into.extend((0..=site.pending.len()).map(|kept| Step::Crash { node, kept }));
            }
        }
    }

    fn apply(&mut self, step: &Step) -> Result<(), String> {
        let at = match *step {
            Step::Command => {
                let Some((node, command)) = self.commands.pop_front() else { return Ok(()) };
                self.judge.commanded(node, &command);
                let site = &mut self.nodes[node];
                site.service.handle(site.now, In::Command(command));
                node
            }
            Step::Deliver { from, to } => {
                let message = self.ways.get_mut(&(from, to)).and_then(VecDeque::pop_front);
                let Some((meta, payload)) = message else { return Ok(()) };
                let message = S::Message::decode(&meta, payload).map_err(|it| it.to_string())?;
                let from = self.nodes[from].boot;
                let site = &mut self.nodes[to];
                site.service.handle(site.now, In::Message { from, view: 0, message });
                to
            }
            Step::Answer { at } => {
                let (node, command) = self.answers.remove(at);
                self.judge.answered(node, &command);
                let site = &mut self.nodes[node];
                site.service.handle(site.now, In::Command(command));
                node
            }
            Step::Datagram { at } => self.receive_datagram(at, false)?,
            Step::Copy { at } => {
                self.copies -= 1;
                self.receive_datagram(at, true)?
            }
            Step::Lose { at } => {
                self.losses -= 1;
                self.datagrams.iter_mut().for_each(|all| drop(all.remove(at)));
                return Ok(());
            }
            Step::Written { node } => {
                let site = &mut self.nodes[node];
                let Some(write) = site.pending.pop_front() else { return Ok(()) };
                let told = match &write {
                    Write::Records(records) => records.iter().rev().find_map(|it| match it {
                        LogEntry::Record { io, .. } => Some(In::Written(*io)),
                        LogEntry::Installed { .. } => None,
                    }),
                    Write::Checkpoint(position, _) => {
                        Some(In::Checkpointed { position: *position, written: true })
                    }
                };
                site.write(write);
                told.into_iter().for_each(|told| site.service.handle(site.now, told));
                node
            }
            Step::Timeout { node } => {
                self.timeouts -= 1;
                let site = &mut self.nodes[node];
                site.now = site.service.poll_timeout().unwrap_or(site.now).max(site.now);
                site.service.handle_timeout(site.now);
                node
            }
            Step::Crash { node, kept } => return self.crash(node, kept),
        };
        self.turn(at)
    }

    fn fingerprint(&self) -> u128 {
        let mut into = Fingerprinter::new();
        for site in &self.nodes {
            site.service.fingerprint(&mut into);
            (site.boot, &site.disk.log, &site.disk.checkpoint, &site.pending).hash(&mut into);
        }
        let ways = self.ways.iter().filter(|(_, way)| !way.is_empty());
        ways.for_each(|way| way.hash(&mut into));
        into.write_u64(self.commands.len() as u64);
        for (node, answer) in &self.answers {
            (node, format!("{answer:?}")).hash(&mut into);
        }
        (&self.datagrams, self.losses, self.copies).hash(&mut into);
        (self.crashes, self.timeouts).hash(&mut into);
        self.judge.fingerprint(&mut into);
        into.finish128()
    }

    fn check_end(&self) -> Result<(), String> {
        self.judge.ended()
    }
}

impl<S: Service + Clone, J: Clone> Clone for Scope<S, J>
where
    S::Command: Clone,
{
    fn clone(&self) -> Self {
        Self {
            config: Rc::clone(&self.config),
            each_start: Rc::clone(&self.each_start),
            first: self.first.clone(),
            nodes: self.nodes.clone(),
            answers: self.answers.clone(),
            datagrams: self.datagrams.clone(),
            losses: self.losses,
            copies: self.copies,
            ways: self.ways.clone(),
            commands: self.commands.clone(),
            crashes: self.crashes,
            timeouts: self.timeouts,
            judge: self.judge.clone(),
        }
    }
}

impl<S: Clone> Clone for Site<S> {
    fn clone(&self) -> Self {
        let (service, disk, pending) =
            (self.service.clone(), self.disk.clone(), self.pending.clone());
        Self { boot: self.boot, service, now: self.now, disk, pending }
    }
}
