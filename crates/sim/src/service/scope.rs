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

/// Nodes with one service each, every two of them connected, without views, datagrams and full windows. Jobs and chunks of
/// checkpoints are done at once. A crashed node is back at once, under another boot, with some first ones of its unfinished
/// writes.
pub struct Scope<S: Service, J> {
    config: Rc<dyn Fn(usize) -> S::Config>,
    nodes: Vec<Site<S>>,
    /// From one to the other.
    ways: BTreeMap<(usize, usize), VecDeque<(Bytes, Bytes)>>,
    /// At which node; given in this order.
    commands: VecDeque<(usize, S::Command)>,
    crashes: u32,
    timeouts: u32,
    judge: J,
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
    /// So many nodes that were just started; `config` says what each is made with.
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
            ways: BTreeMap::new(),
            commands: VecDeque::new(),
            crashes: 0,
            timeouts: 0,
            judge,
        };
        for one in 0..scope.nodes.len() {
            scope.connect(one);
        }
        scope
    }

    /// This command is given at a node, behind those before it.
    #[must_use]
    pub fn command(mut self, node: usize, command: S::Command) -> Self {
        self.commands.push_back((node, command));
        self
    }

    /// So many crashes, and so many timeouts, are part of the scope.
    #[must_use]
    pub fn faults(mut self, crashes: u32, timeouts: u32) -> Self {
        (self.crashes, self.timeouts) = (crashes, timeouts);
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
        let (me, now, seed) = (boot, Instant::ZERO, 1);
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

impl<S: Service, J: Judge<S>> Scope<S, J> {
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
                    Out::Event { event, .. } => self.judge.told(at, &event)?,
                    Out::Again => more = true,
                    Out::Datagram { .. } | Out::Ask(_) => {}
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

    fn crash(&mut self, node: usize, kept: usize) -> Result<(), String> {
        self.crashes -= 1;
        self.ways.retain(|(from, to), _| *from != node && *to != node);
        let site = &mut self.nodes[node];
        let stable: Vec<_> = site.pending.drain(..).take(kept).collect();
        stable.into_iter().for_each(|write| site.write(write));
        let old = site.boot;
        let new = BootId { nonce: BootNonce(old.nonce.0 + 1), ..old };
        *site = Site::start((self.config)(node), new, std::mem::take(&mut site.disk));
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
            Step::Written { node } => {
                let site = &mut self.nodes[node];
                let Some(write) = site.pending.pop_front() else { return Ok(()) };
                let told = match &write {
                    Write::Records(records) => records.iter().rev().find_map(|it| match it {
                        LogEntry::Record { io, .. } => Some(In::Written(*io)),
                        LogEntry::Installed(_) => None,
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
            nodes: self.nodes.clone(),
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
