//! Any algorithm as a service: what it says to others are datagrams of one channel.

use std::sync::Arc;

use mainstay_base::service::{Class, In, Logged, Never, Out, Outbox, Service, Start};
use mainstay_base::{Channel, Instant, Machine, NodeId};

use super::algorithm::{Algorithm, Begin, Origin, Referred};
use super::bounds::Bounds;
use super::config::Plan;
use super::core::{Correction, Loss, Output, Rejected, Source};
use super::message::Message;
use crate::Time;

/// What a synchronised clock is mounted with.
#[derive(Clone, Debug)]
pub struct Mount {
    /// What to do.
    pub plan: Arc<Plan>,
    /// All nodes whose clocks are kept together, the same list everywhere.
    pub nodes: Arc<[NodeId]>,
    /// What the clock knows.
    pub origin: Origin,
    /// The keys, for algorithms with signatures.
    #[cfg(any(feature = "synchroniser", feature = "agreement"))]
    pub keys: Option<mainstay_agreement::sign::Keyring>,
}

/// What others of the node tell a clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// A reference of this node was read.
    Reference {
        /// When, by local time.
        at: Instant,
        /// What it said, in nanoseconds.
        value: i64,
    },
}

/// What a clock tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// It was corrected.
    Resynced(Correction),
    /// Its bounds hold from here on.
    Synchronised,
    /// They no longer do.
    Unsynchronised(Loss),
    /// Another clock is followed, or none.
    MasterChanged(Option<NodeId>),
}

/// How a clock is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// Of the last correction.
    pub version: u64,
    /// Whether the bounds hold.
    pub synchronised: bool,
    /// What is promised while they do.
    pub bounds: Bounds,
    /// What was refused.
    pub rejected: Rejected,
}

/// An [`Algorithm`] as a service.
#[derive(Clone)]
pub struct Synced {
    nodes: Arc<[NodeId]>,
    algorithm: Algorithm,
    out: Outbox<Self>,
}

impl Synced {
    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> &Algorithm {
        &self.algorithm
    }

    /// The corrected clock at `local`, with its version.
    #[must_use]
    pub fn now(&self, local: Instant) -> (Time, u64) {
        (self.algorithm.clock().read(local), self.algorithm.version())
    }

    /// The other clocks that were read.
    pub fn sources(&self) -> impl Iterator<Item = (NodeId, Source)> + '_ {
        self.algorithm.sources().map(|source| (self.nodes[source.place], source))
    }

    /// A reference was read that says its own error.
    pub(super) fn refer(&mut self, now: Instant, read: Referred) {
        self.algorithm.refer(now, read);
    }

    /// Where refused datagrams are counted.
    pub(super) fn rejected_mut(&mut self) -> &mut Rejected {
        self.algorithm.rejected_mut()
    }

    fn drain(&mut self) {
        while let Some(output) = self.algorithm.poll() {
            match output {
                Output::Send { to, message } => {
                    self.out.put(Out::Datagram { to: self.nodes[to], message });
                }
                Output::Correct(correction) => self.out.tell(Event::Resynced(correction)),
                Output::Synchronised => self.out.tell(Event::Synchronised),
                Output::Lost(why) => self.out.tell(Event::Unsynchronised(why)),
                Output::Master(master) => {
                    let master = master.map(|place| self.nodes[place]);
                    self.out.tell(Event::MasterChanged(master));
                }
            }
        }
    }
}

impl Machine for Synced {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, now: Instant, input: In<Self>) {
        match input {
            In::Datagram { at, from, message } => {
                match self.nodes.iter().position(|node| *node == from) {
                    Some(from) => self.algorithm.on_datagram(now, at, from, message),
                    None => self.algorithm.on_unknown(),
                }
            }
            In::Command(Command::Reference { at, value }) => {
                self.algorithm.on_reference(now, at, value);
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.algorithm.on_deadline(now);
    }

    fn end_turn(&mut self, _now: Instant) {
        self.drain();
    }

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.algorithm.deadline()
    }
}

impl Service for Synced {
    const CHANNEL: Channel = Channel(0x0030);
    const NAME: &'static str = "clock";
    const CLASS: Class = Class::Views;
    type Message = Message;
    type Record = Never;
    type Command = Command;
    type Event = Event;
    type Job = Never;
    type Done = Never;
    type Past = ();
    type Config = Mount;
    type Status = Status;

    fn fold((): &mut (), _: Logged<Never>) {}

    /// # Panics
    /// If the own node is none of the list, the list has not as many nodes as the plan, or keys are missing: what is mounted was not
    /// configured for this node.
    fn recover(config: Mount, start: Start<()>) -> Self {
        let place = config.nodes.iter().position(|node| *node == start.me.node);
        let begin = Begin {
            plan: config.plan,
            me: place.expect("the own node is one of those whose clocks are kept together"),
            origin: config.origin,
            now: start.now,
            seed: start.seed,
            #[cfg(any(feature = "synchroniser", feature = "agreement"))]
            keys: config.keys,
        };
        assert_eq!(begin.plan.config().nodes, config.nodes.len(), "the plan is for these nodes");
        let algorithm = Algorithm::new(begin).expect("the plan was checked for this build");
        Self { nodes: config.nodes, algorithm, out: Outbox::default() }
    }

    fn work(job: Never) -> Never {
        match job {}
    }

    fn check_invariants(&self) {
        self.algorithm.check_invariants();
    }

    fn status(&self) -> Status {
        Status {
            version: self.algorithm.version(),
            synchronised: self.algorithm.is_synchronised(),
            bounds: *self.algorithm.plan().bounds(),
            rejected: self.algorithm.rejected(),
        }
    }
}
