//! Services in a simulated world, as they are: no adapter, no harness.
//!
//! A test says in a [`Setup`] what each node mounts, makes a [`World`](crate::World) of it, and gives commands. Nodes are
//! connected by what a link promises, keep a log and checkpoints on a simulated disk, install views of an [oracle](Views) if the
//! test wants, do jobs at drawn times, and are busy for as long as their turns count. The swarm, the schedule of faults, the
//! shrinker and crash points of the world serve them like any other [`Node`](crate::Node). [`explore`](crate::explore) takes a
//! [`Scope`] of one service.
//!
//! ```
//! use mainstay_base::service::{Class, Dest, In, Logged, Never, Out, Service, Start, Wire};
//! use mainstay_base::{BootId, Channel, ClusterId, Duration, Instance, Instant, Machine};
//! use mainstay_sim::service::{ServiceNode, Setup};
//! use mainstay_sim::{Options, Wire as Network, World};
//!
//! /// Answers each number with the next one.
//! #[derive(Default)]
//! struct Counting { out: Vec<Out<Self>>, heard: u64 }
//!
//! #[derive(Debug, serde::Serialize, serde::Deserialize)]
//! struct Number(u64);
//! impl Wire for Number {}
//!
//! impl Machine for Counting {
//!     type Input = In<Self>;
//!     type Output = Out<Self>;
//!     fn handle(&mut self, _: Instant, input: In<Self>) {
//!         let answer = match input {
//!             In::Command(to) => (to, Number(1)),
//!             In::Message { from, message: Number(number), .. } => {
//!                 self.heard = number;
//!                 (from, Number(number + 1))
//!             }
//!             _ => return,
//!         };
//!         if answer.1.0 <= 10 {
//!             self.out.push(Out::Send { to: Dest::Boot(answer.0), message: answer.1 });
//!         }
//!     }
//!     fn handle_timeout(&mut self, _: Instant) {}
//!     fn end_turn(&mut self, _: Instant) {}
//!     fn poll_output(&mut self) -> Option<Out<Self>> { self.out.pop() }
//!     fn poll_timeout(&self) -> Option<Instant> { None }
//! }
//!
//! impl Service for Counting {
//!     const CHANNEL: Channel = Channel(0x4000);
//!     const NAME: &'static str = "counting";
//!     const CLASS: Class = Class::Calls;
//!     type Message = Number;
//!     type Record = Never;
//!     type Command = BootId;
//!     type Event = Never;
//!     type Job = Never;
//!     type Done = Never;
//!     type Past = ();
//!     type Config = ();
//!     type Status = u64;
//!     fn fold((): &mut (), _: Logged<Never>) {}
//!     fn recover((): (), _: Start<()>) -> Self { Self::default() }
//!     fn work(job: Never) -> Never { match job {} }
//!     fn status(&self) -> u64 { self.heard }
//! }
//!
//! let instance = Instance::new(ClusterId::from_entropy(1), "counting");
//! let setup = Setup::new(move |node| node.mount::<Counting>(instance, ()));
//! let mut world: World<ServiceNode<()>> = World::new(7, 2, setup, Options::calm(Network::Channel));
//! world.run(Duration::from_millis(50))?;
//! let other = world.boot(1);
//! world.call(0, |node, now| node.command::<Counting>(now, instance, other));
//! world.run(Duration::from_millis(50))?;
//! let heard = |at: usize| world.node(at).and_then(|node| node.service::<Counting>(instance)).map(Service::status);
//! assert_eq!((heard(0), heard(1)), (Some(10), Some(9)));
//! # Ok::<(), mainstay_sim::Stuck>(())
//! ```

mod costs;
mod image;
mod line;
mod node;
mod oracle;
mod scope;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use mainstay_base::rack::{Mounted, Offered, Rack, fold};
use mainstay_base::service::{Address, ReaderId, Service, Start, Wire};
use mainstay_base::trace::What;
use mainstay_base::{BootId, Duration, Instance, Instant, NodeId, Rng};

pub use costs::Costs;
pub use image::{Image, Written};
pub use line::Packet;
pub use node::ServiceNode;
pub use oracle::Views;
pub use scope::{Judge, Scope, Step};

use crate::Clock;
use oracle::Oracle;

type Clocks = Rc<dyn Fn(usize) -> Clock>;
type Mount<E> = Rc<dyn Fn(&mut Mounting<'_, E>)>;

/// What a node of a world of services is made of. `E` is what the services tell the test.
pub struct Setup<E> {
    mount: Mount<E>,
    views: Option<Views>,
    window: usize,
    datagrams_lost: u64,
    turn_delay: Duration,
    clocks: Option<Clocks>,
    compact_after: u64,
    oracle: Rc<RefCell<Option<Oracle>>>,
    costs: Rc<RefCell<BTreeMap<Address, Costs>>>,
}

impl<E: 'static> Setup<E> {
    /// Nodes that mount what `mount` says, at each start of each of them.
    pub fn new(mount: impl Fn(&mut Mounting<'_, E>) + 'static) -> Self {
        Self {
            mount: Rc::new(mount),
            views: None,
            window: 64,
            datagrams_lost: 0,
            turn_delay: Duration::ZERO,
            clocks: None,
            compact_after: 1_000,
            oracle: Rc::default(),
            costs: Rc::default(),
        }
    }

    /// Nodes install views. Default: there are none.
    #[must_use]
    pub fn views(mut self, views: Views) -> Self {
        self.views = Some(views);
        self
    }

    /// Most messages of an instance on the way to one boot; beyond, they are refused. Default 64.
    #[must_use]
    pub fn window(mut self, messages: usize) -> Self {
        self.window = messages;
        self
    }

    /// Datagrams lost, in 1,000. Default 0.
    #[must_use]
    pub fn datagrams_lost(mut self, rate: u64) -> Self {
        self.datagrams_lost = rate;
        self
    }

    /// The clock of each node, by its index, when the world begins. Default: the time of the world.
    #[must_use]
    pub fn clocks(mut self, clock: impl Fn(usize) -> Clock + 'static) -> Self {
        self.clocks = Some(Rc::new(clock));
        self
    }

    /// The longest time that what came waits until the node takes it in. Default 0.
    #[must_use]
    pub fn turn_delay(mut self, longest: Duration) -> Self {
        self.turn_delay = longest;
        self
    }

    /// After so many records behind the oldest one that an instance keeps it is told to compact. Default 1,000.
    #[must_use]
    pub fn compact_after(mut self, records: u64) -> Self {
        self.compact_after = records;
        self
    }

    /// What all nodes of the world have spent so far, by instance. Keep a clone of it before the world is made.
    #[must_use]
    pub fn costs(&self) -> Rc<RefCell<BTreeMap<Address, Costs>>> {
        Rc::clone(&self.costs)
    }
}

/// A node that mounts its services.
pub struct Mounting<'a, E> {
    pub(crate) rack: &'a mut Rack,
    pub(crate) image: &'a Image,
    pub(crate) seeds: Rng,
    pub(crate) told: Rc<RefCell<Vec<Told<E>>>>,
    /// The boot.
    pub me: BootId,
    /// Its place in the roster.
    pub index: usize,
    /// All nodes, sorted.
    pub roster: &'a [NodeId],
    /// What the clock of the node says.
    pub now: Instant,
    pub(crate) twists: &'a mut Vec<Twist>,
}

/// What is done to the datagrams of a service on their way out.
pub(crate) struct Twist {
    pub(crate) of: Address,
    pub(crate) twist: Twister,
}

type Twister = Box<dyn FnMut(NodeId, Bytes, Bytes) -> Vec<(Bytes, Bytes)>>;

/// What a service tells the test, and the trace.
pub(crate) enum Told<E> {
    Event(E),
    Trace(What),
}

impl<E: 'static> Mounting<'_, E> {
    /// Mounts a service, recovered from its part of the disk.
    ///
    /// # Panics
    /// If its log has a record that is none of it, or if it cannot be mounted.
    pub fn mount<S: Service>(&mut self, instance: Instance, config: S::Config) {
        let past = fold::<S>(instance, &self.image.log).expect("the log is its own");
        let address = Address { channel: S::CHANNEL, instance };
        let mut seeds = self.seeds.stream(&format!("{address:?}"));
        let start = Start {
            me: self.me,
            instance,
            past,
            checkpoint: self.image.checkpoints.get(&address).map(|(position, _)| *position),
            now: self.now,
            seed: seeds.next_u64(),
        };
        self.rack.mount(Mounted::<S>::recover(config, start)).expect("there is a place for it");
    }

    /// Makes a traitor of a service: what it says to a node by a datagram is what `twist` makes of it, for each node anew, so that it can have
    /// two faces; nothing, or more than was said.
    pub fn twist<S: Service>(
        &mut self,
        instance: Instance,
        mut twist: impl FnMut(NodeId, S::Message) -> Vec<S::Message> + 'static,
    ) {
        let of = Address { channel: S::CHANNEL, instance };
        let twist = move |to, meta: Bytes, payload| {
            let said = S::Message::decode(&meta, payload).expect("the service has encoded it");
            twist(to, said).iter().map(Wire::encode).collect()
        };
        self.twists.push(Twist { of, twist: Box::new(twist) });
    }

    /// What `S` tells is told to `T` in the same turn.
    pub fn listen<S: Service, T: Service>(&mut self, of: Instance, to: Instance) {
        let of = Address { channel: S::CHANNEL, instance: of };
        self.rack.listen(of, Address { channel: T::CHANNEL, instance: to });
    }

    /// The test is told what `S` tells; see [`World::take_events`](crate::World::take_events).
    ///
    /// # Panics
    /// If it is not mounted.
    pub fn read<S: Service>(&mut self, instance: Instance, event: fn(S::Event) -> E) {
        self.on::<S>(instance, 1, move |it| Some(Told::Event(event(it))));
    }

    /// What `S` tells goes into the trace.
    ///
    /// # Panics
    /// If it is not mounted.
    pub fn trace<S: Service>(&mut self, instance: Instance, what: fn(S::Event) -> Option<What>) {
        self.on::<S>(instance, 2, move |it| what(it).map(Told::Trace));
    }

    fn on<S: Service>(
        &mut self,
        instance: Instance,
        id: u64,
        told: impl Fn(S::Event) -> Option<Told<E>> + 'static,
    ) {
        let into = Rc::clone(&self.told);
        let service = self.rack.get_mut::<S>(instance).expect("it is mounted");
        service.subscribe(ReaderId(id), move |events: Vec<S::Event>| {
            into.borrow_mut().extend(events.into_iter().filter_map(&told));
            Offered::Room
        });
    }
}
