//! A service that knows nothing of where it is, on stations: real links, their channels, a simulated network and disks.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, dead_code, reason = "shared by tests")]
#[path = "../../sim/tests/support/client.rs"]
mod client;
#[allow(unreachable_pub, dead_code, reason = "shared by tests")]
#[path = "../../sim/tests/support/toy.rs"]
mod toy;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use client::{Client, Hosts};
use mainstay_base::rack::{Effect, Given, Mounted, Offered, fold};
use mainstay_base::service::{Address, Ask, ReaderId, Service as _, Start as Begin};
use mainstay_base::{
    ClusterId, Duration, Fingerprinter, Frame, Instance, Instant, Machine as _, Rng,
};
use mainstay_link as link;
use mainstay_service::{Input, Output, Request, Station, services};
use mainstay_sim::service::{Image, Written};
use mainstay_sim::{
    Atlas, Effects, FaultEvent, Node, Options, Peer, Refusal, Seen, Start, Wire, World, schedule,
};
use toy::{Command, Config, Event, Fault, Register};

const NODES: usize = 3;

fn instance() -> Instance {
    Instance::new(ClusterId::from_entropy(1), "register")
}

fn address() -> Address {
    Address { channel: Register::CHANNEL, instance: instance() }
}

/// A station in the world: what its outputs become.
struct StationNode {
    station: Station,
    image: Image,
    chunks: Option<VecDeque<Bytes>>,
    told: Rc<RefCell<Vec<Event>>>,
    /// Effects are carried out between turns: what comes of them.
    given: Vec<(Address, Given)>,
    writes: u64,
    /// Whom to tell of a write.
    due: BTreeMap<u64, Due>,
}

enum Due {
    Records(u64),
    Checkpoint(Address, u64),
}

impl StationNode {
    fn input(&mut self, now: Instant, input: Input) {
        self.station.handle(now, input);
    }

    fn effect(&mut self, effect: Effect, out: &mut Effects<Self>) {
        match effect {
            Effect::Work { from, work } => self.given.push((from, Given::Done(work()))),
            Effect::NextChunk { from } => {
                let image = &self.image;
                let chunks =
                    || image.checkpoints.get(&from).map(|(_, it)| it.iter().cloned().collect());
                let chunks = self.chunks.get_or_insert_with(|| chunks().unwrap_or_default());
                self.given.push((from, Given::Chunk(chunks.pop_front())));
            }
            Effect::Checkpoint { from, position, mut source, .. } => {
                let chunks = std::iter::from_fn(|| source.next_chunk().unwrap()).collect();
                let written = Written::Checkpoint { of: from, position, chunks };
                self.write(written, Due::Checkpoint(from, position), out);
            }
            Effect::Send { .. }
            | Effect::Datagram { .. }
            | Effect::Persist { .. }
            | Effect::Aside { .. } => {
                panic!("the station carries those out, and nobody is beside it");
            }
        }
    }

    fn write(&mut self, written: Written, due: Due, out: &mut Effects<Self>) {
        self.writes += 1;
        self.due.insert(self.writes, due);
        out.write(self.writes, written);
    }
}

impl Node for StationNode {
    type Setup = Option<Fault>;
    type Message = Frame;
    type Durable = Image;
    type Write = Written;
    type Event = Event;

    fn start(start: Start<'_, Self>) -> Self {
        let Start { boot, roster, setup, durable, now, seed, .. } = start;
        let mut rng = Rng::new(seed);
        let peers = roster.iter().copied().filter(|node| *node != boot.node).collect();
        let config = link::Config::lan(ClusterId::from_entropy(1), boot, peers).build().unwrap();
        let mut station = Station::new(config, rng.next_u64(), now);
        let config = Config { nodes: roster.to_vec(), fault: *setup, work: Duration::ZERO };
        let begin = Begin {
            me: boot,
            instance: instance(),
            past: fold::<Register>(instance(), &durable.log).unwrap(),
            checkpoint: durable.checkpoints.get(&address()).map(|(position, _)| *position),
            now,
            seed: rng.next_u64(),
        };
        let mut register = Mounted::<Register>::recover(config, begin);
        let told = Rc::new(RefCell::new(Vec::new()));
        let into = Rc::clone(&told);
        register.subscribe(ReaderId(1), move |events: Vec<Event>| {
            into.borrow_mut().extend(events);
            Offered::Room
        });
        station.services_mut().mount(now, register).unwrap();
        let (given, due) = (Vec::new(), BTreeMap::new());
        Self { station, image: durable, chunks: None, told, given, writes: 0, due }
    }

    fn receive(&mut self, now: Instant, from: Peer, frame: Frame) {
        self.input(now, Input::Link(link::Input::Received { conn: from.conn, frame }));
    }

    fn opened(&mut self, now: Instant, peer: Peer, dialled: bool) {
        let dialled = dialled.then_some(peer.boot.node);
        self.input(now, Input::Link(link::Input::Opened { conn: peer.conn, dialled }));
    }

    fn closed(&mut self, now: Instant, peer: Peer) {
        self.input(now, Input::Link(link::Input::Closed { conn: peer.conn }));
    }

    fn refused(&mut self, now: Instant, node: mainstay_base::NodeId, why: Refusal) {
        let input = match why {
            Refusal::Refused => link::Input::Refused { node },
            Refusal::Unreachable => link::Input::Unreachable { node },
        };
        self.input(now, Input::Link(input));
    }

    fn written(&mut self, now: Instant, io: u64) {
        let input = match self.due.remove(&io) {
            Some(Due::Records(io)) => Input::Written { io },
            Some(Due::Checkpoint(of, position)) => {
                let given = Given::Checkpointed { position, written: true };
                Input::Service(Request::Give(of, given))
            }
            None => return,
        };
        self.input(now, input);
    }

    fn timeout(&mut self, now: Instant) {
        self.station.handle_timeout(now);
    }

    fn end_turn(&mut self, now: Instant, out: &mut Effects<Self>) {
        for (to, given) in std::mem::take(&mut self.given) {
            self.input(now, Input::Service(Request::Give(to, given)));
        }
        self.station.end_turn(now);
        while let Some(output) = self.station.poll_output() {
            match output {
                Output::Dial { node } => out.dial(node),
                Output::Transmit { conn, frame } => out.send_on(conn, frame),
                Output::Close { conn } => out.close(conn),
                Output::Service(services::Output::Write { io, entries, keeps }) => {
                    self.write(Written::Records(entries), Due::Records(io), out);
                    // Behind the records that it relies on.
                    out.write(0, Written::Cut(keeps));
                }
                Output::Service(
                    services::Output::Written { .. }
                    | services::Output::Again(_)
                    | services::Output::Stopped { .. }
                    | services::Output::Dismounted { .. }
                    | services::Output::Late(_),
                ) => {}
                Output::Service(services::Output::Effect(effect)) => self.effect(effect, out),
            }
        }
        self.told.borrow_mut().drain(..).for_each(|event| out.event(event));
        self.station.services().check_invariants();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let due = (!self.given.is_empty()).then_some(Instant::ZERO);
        due.or_else(|| self.station.poll_timeout())
    }

    fn apply(durable: &mut Image, write: Written) {
        durable.apply(write);
    }

    fn hash_message(message: &Frame, into: &mut Fingerprinter) {
        std::hash::Hash::hash(message, into);
    }
}

impl Hosts for StationNode {
    fn register(&self) -> Option<&Register> {
        self.station.services().rack().get::<Register>(instance()).map(Mounted::service)
    }

    fn command(&mut self, now: Instant, command: Command) {
        let ask = Ask::of::<Register>(instance(), vec![command]);
        self.input(now, Input::Service(Request::Ask(ask)));
    }
}

fn options(seed: u64) -> Options {
    let wire = if seed.is_multiple_of(2) { Wire::Channel } else { Wire::Datagram };
    let mut options = Options::from_seed(seed, wire, Atlas { down: 1, lost: 0 });
    options.dials = true;
    options
}

fn run(
    seed: u64,
    fault: Option<Fault>,
    schedule: &[FaultEvent],
) -> Result<(u128, u64, Seen), String> {
    let rng = Rng::new(seed).stream("client");
    let world: World<StationNode> =
        World::with_schedule(seed, NODES, fault, options(seed), schedule.to_vec());
    let mut client = Client::new(world, NODES, rng);
    client.work(120, Duration::from_millis(35), Duration::from_secs(30))?;
    Ok((client.world.hash(), client.reads, client.world.seen().clone()))
}

/// Crashes, cuts and pauses cost no acknowledged value, and the healed nodes answer.
#[test]
fn a_register_on_stations_is_never_found_wrong() {
    let mut reads = 0;
    for seed in 0..150 {
        let schedule = schedule(seed, NODES, &options(seed));
        match run(seed, None, &schedule) {
            Ok((hash, read, _)) => {
                reads += read;
                if seed % 10 == 0 {
                    let again = run(seed, None, &schedule).unwrap();
                    assert_eq!(again.0, hash, "equal seeds are equal runs");
                }
            }
            Err(violation) => panic!("seed {seed}, {}: {violation}", options(seed)),
        }
    }
    println!("{reads} reads");
    assert!(reads > 1_500, "{reads}");
}

/// The check has teeth here as well.
#[test]
fn broken_registers_are_found_on_stations() {
    for fault in [Fault::AcksEarly, Fault::NoWriteBack, Fault::ForgetsPast] {
        let found = (0..2_000)
            .any(|seed| run(seed, Some(fault), &schedule(seed, NODES, &options(seed))).is_err());
        assert!(found, "{fault:?}");
    }
}
