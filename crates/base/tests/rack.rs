//! The rack: who is turned, who is told, and what cannot be mounted.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use mainstay_base::rack::beside::{Aside, Desk, Ending, Opening, Report, WAITING_BYTES_MAX};
use mainstay_base::rack::{
    BadRecord, Effect, Given, LogEntry, MountError, Mounted, Offered, Placement, Proxy, ROUNDS_MAX,
    Rack, fold,
};
use mainstay_base::service::{
    Address, Ask, Class, Dest, In, Io, Kind, Logged, Never, Out, PeerChange, ReaderChange,
    ReaderId, Readers, Service, Start, Wire,
};
use mainstay_base::{
    BootId, BootNonce, Channel, ClusterId, Duration, Instance, Instant, Machine, NodeId, ViewId,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Text {
    kind: u8,
    #[serde(skip)]
    body: Bytes,
}

impl Wire for Text {
    fn payload(&self) -> Bytes {
        self.body.clone()
    }

    fn with_payload(mut self, payload: Bytes) -> Option<Self> {
        self.body = payload;
        Some(self)
    }
}

/// Does what it is told, and writes down what it gets.
#[derive(Default)]
struct Puppet {
    got: Vec<String>,
    out: Vec<Out<Self>>,
    turns: usize,
    due: Option<Instant>,
    /// Asks this one back whenever it is told something.
    echo: Option<Instance>,
    ends: bool,
}

type Act = Box<dyn FnOnce(&mut Puppet) + Send>;

impl Machine for Puppet {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, _: Instant, input: In<Self>) {
        match input {
            In::Command(act) => act(self),
            In::Message { message, .. } => {
                self.got.push(format!("{} {:?}", message.kind, message.body));
            }
            In::Full { message, .. } => self.got.push(format!("full {:?}", message.body)),
            In::Done(done) => self.got.push(format!("done {done}")),
            In::Told(told) => {
                let events = told.of::<Self>().unwrap();
                self.got.push(format!("told {events:?}"));
                if let Some(to) = self.echo {
                    self.out.push(Out::Ask(Ask::of::<Self>(to, vec![say(0)])));
                }
            }
            In::Close => self.ends = true,
            other => self.got.push(format!("{other:?}")),
        }
    }

    fn handle_timeout(&mut self, _: Instant) {
        self.due = None;
        self.got.push("timeout".into());
    }

    fn end_turn(&mut self, _: Instant) {
        self.turns += 1;
        self.out.reverse();
    }

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

impl Service for Puppet {
    const CHANNEL: Channel = Channel(0x4000);
    const NAME: &'static str = "puppet";
    const CLASS: Class = Class::Groups;
    type Message = Text;
    type Record = Text;
    type Command = Act;
    type Event = u32;
    type Job = u32;
    type Done = u32;
    type Past = Vec<String>;
    type Config = ();
    type Status = usize;

    fn fold(past: &mut Vec<String>, logged: Logged<Text>) {
        past.push(match logged {
            Logged::Record(io, text) => format!("{} {:?}", io.0, text.body),
            Logged::Installed(view) => format!("{view:?}"),
        });
    }

    fn recover((): (), start: Start<Vec<String>>) -> Self {
        Self { got: start.past, ..Self::default() }
    }

    fn work(job: u32) -> u32 {
        job * 2
    }

    fn status(&self) -> usize {
        self.turns
    }
}

/// Stands on a puppet.
struct Above;

impl Machine for Above {
    type Input = In<Self>;
    type Output = Out<Self>;
    fn handle(&mut self, _: Instant, _: In<Self>) {}
    fn handle_timeout(&mut self, _: Instant) {}
    fn end_turn(&mut self, _: Instant) {}
    fn poll_output(&mut self) -> Option<Out<Self>> {
        None
    }
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

impl Service for Above {
    const CHANNEL: Channel = Channel(0x4001);
    const NAME: &'static str = "above";
    const CLASS: Class = Class::Bulk;
    const NEEDS: &'static [Kind] = &[Kind::of::<Puppet>()];
    type Message = Never;
    type Record = Never;
    type Command = Never;
    type Event = Never;
    type Job = Never;
    type Done = Never;
    type Past = ();
    type Config = ();
    type Status = ();
    fn fold((): &mut (), _: Logged<Never>) {}
    fn recover((): (), _: Start<()>) -> Self {
        Self
    }
    fn work(job: Never) -> Never {
        match job {}
    }
    fn status(&self) {}
}

const NOW: Instant = Instant::ZERO;

fn named(name: &str) -> Instance {
    Instance::new(ClusterId::from_entropy(1), name)
}

fn at(name: &str) -> Address {
    Address { channel: Puppet::CHANNEL, instance: named(name) }
}

fn boot() -> BootId {
    BootId { node: NodeId::new(ClusterId::from_entropy(1), "n"), nonce: BootNonce(1) }
}

fn start<P: Default>(name: &str) -> Start<P> {
    let (me, past) = (boot(), P::default());
    Start { me, instance: named(name), past, checkpoint: None, now: NOW, seed: 1 }
}

fn puppet(rack: &mut Rack, name: &str) {
    rack.mount(Mounted::<Puppet>::recover((), start(name))).unwrap();
}

fn act(rack: &mut Rack, name: &str, act: impl FnOnce(&mut Puppet) + Send + 'static) {
    assert!(rack.ask(NOW, Ask::of::<Puppet>(named(name), vec![Box::new(act) as Act])));
}

fn say(event: u32) -> Act {
    Box::new(move |puppet| puppet.out.push(Out::Event { to: Readers::All, event }))
}

fn of<'a>(rack: &'a Rack, name: &str) -> &'a Puppet {
    rack.get::<Puppet>(named(name)).unwrap().service()
}

fn text(kind: u8, body: &'static str) -> Text {
    Text { kind, body: body.into() }
}

#[test]
fn what_is_said_twice_or_stands_on_nothing_is_not_mounted() {
    let mut rack = Rack::new();
    let above = |rack: &mut Rack| rack.mount(Mounted::<Above>::recover((), start("a")));
    let missing = MountError::Missing { of: Kind::of::<Above>(), needs: Kind::of::<Puppet>() };
    assert_eq!(above(&mut rack), Err(missing));
    assert_eq!(
        missing.to_string(),
        "above (channel 0x4001) needs puppet (channel 0x4000), and none is mounted"
    );
    puppet(&mut rack, "a");
    assert!(above(&mut rack).is_ok());
    let again = rack.mount(Mounted::<Puppet>::recover((), start("a")));
    assert_eq!(again, Err(MountError::Taken { of: Kind::of::<Puppet>(), instance: named("a") }));
    puppet(&mut rack, "b");
    assert_eq!(rack.mounted().count(), 3);
}

#[test]
fn outputs_are_effects_and_come_back_with_their_types() {
    let mut rack = Rack::new();
    puppet(&mut rack, "a");
    act(&mut rack, "a", |it| {
        it.out.push(Out::Send { to: Dest::Boot(boot()), message: text(1, "hello") });
        it.out.push(Out::Persist { io: Io(1), record: text(2, "kept") });
        it.out.push(Out::Work(21));
    });
    let mut effects = rack.turn(NOW).into_iter();
    let Some(Effect::Send { from, class, to, meta, payload }) = effects.next() else { panic!() };
    assert_eq!((from, class, to), (at("a"), Class::Groups, Dest::Boot(boot())));
    assert_eq!(payload, "hello");
    let Some(Effect::Persist { io, meta: record, payload: kept, .. }) = effects.next() else {
        panic!()
    };
    let Some(Effect::Work { work, .. }) = effects.next() else { panic!() };
    let message = Given::Message { from: boot(), view: 3, meta: meta.clone(), payload };
    assert!(rack.give(NOW, at("a"), message));
    assert!(rack.give(NOW, at("a"), Given::Done(work())));
    let refused = Given::Full { to: boot(), meta, payload: "hello".into() };
    assert!(rack.give(NOW, at("a"), refused));
    rack.turn(NOW);
    assert_eq!(of(&rack, "a").got, ["1 b\"hello\"", "done 42", "full b\"hello\""]);

    let log = [
        LogEntry::Record { of: at("b"), io: Io(1), meta: record.clone(), payload: "other".into() },
        LogEntry::Record { of: at("a"), io, meta: record, payload: kept },
        LogEntry::Installed { of: at("a"), view: ViewId { number: 7, nonce: 0 } },
        LogEntry::Installed { of: at("b"), view: ViewId { number: 8, nonce: 0 } },
    ];
    assert_eq!(fold::<Puppet>(named("a"), &log).unwrap(), ["1 b\"kept\"", "view 7"]);
    let garbage =
        [LogEntry::Record { of: at("a"), io: Io(9), meta: "?".into(), payload: Bytes::new() }];
    let bad = fold::<Puppet>(named("a"), &garbage);
    assert!(matches!(bad, Err(BadRecord { io: Io(9), .. })));
}

#[test]
fn what_is_for_nobody_is_counted() {
    let mut rack = Rack::new();
    puppet(&mut rack, "a");
    let change = PeerChange::Down { boot: boot() };
    assert!(!rack.peer(NOW, at("z"), change));
    let garbage =
        Given::Message { from: boot(), view: 1, meta: "garbage".into(), payload: Bytes::new() };
    assert!(!rack.give(NOW, at("a"), garbage));
    assert!(!rack.ask(NOW, Ask::of::<Puppet>(named("z"), Vec::new())));
    rack.turn(NOW);
    let stats = rack.stats();
    assert_eq!((stats.unknown, stats.malformed, stats.unasked), (1, 1, 1));
    assert_eq!(of(&rack, "a").got, [] as [&str; 0]);
}

/// Asks and tells are heard in the same turn, and those who were not touched are not turned.
#[test]
fn asks_and_tells_are_of_one_turn() {
    let mut rack = Rack::new();
    for name in ["a", "b", "c", "idle"] {
        puppet(&mut rack, name);
    }
    rack.turn(NOW);
    rack.listen(at("a"), at("b"));
    rack.listen(at("a"), at("c"));
    rack.listen(at("a"), at("c"));
    act(&mut rack, "b", |it| {
        it.out.push(Out::Ask(Ask::of::<Puppet>(named("a"), vec![say(1), say(2)])));
    });
    rack.turn(NOW);
    assert_eq!(of(&rack, "b").got, ["told [1, 2]"]);
    assert_eq!(of(&rack, "c").got, ["told [1, 2]"]);
    assert_eq!(of(&rack, "idle").turns, 1);
    assert_eq!(rack.poll_timeout(), None);
}

/// Two that answer each other for ever do not keep the node: the turn ends, and the next one goes on.
#[test]
fn a_turn_has_an_end() {
    let mut rack = Rack::new();
    puppet(&mut rack, "a");
    puppet(&mut rack, "b");
    rack.listen(at("a"), at("b"));
    act(&mut rack, "b", |it| it.echo = Some(named("a")));
    act(&mut rack, "a", |it| say(0)(it));
    rack.turn(NOW);
    let told = of(&rack, "b").got.len();
    assert!((1..=ROUNDS_MAX).contains(&told), "{told}");
    assert!(rack.poll_timeout().is_some());
    rack.turn(NOW);
    assert!(of(&rack, "b").got.len() > told);
}

#[test]
fn whoever_is_due_is_turned() {
    let mut rack = Rack::new();
    puppet(&mut rack, "a");
    puppet(&mut rack, "b");
    let due = NOW + Duration::from_millis(5);
    act(&mut rack, "a", move |it| it.due = Some(due));
    act(&mut rack, "b", |it| it.out.push(Out::Again));
    rack.turn(NOW);
    assert_eq!(rack.poll_timeout(), Some(Instant::ZERO), "there is more to do");
    rack.turn(NOW);
    assert_eq!((of(&rack, "b").turns, rack.poll_timeout()), (2, Some(due)));
    rack.turn(due);
    assert_eq!((of(&rack, "a").got.len(), of(&rack, "b").turns), (1, 2));
    assert_eq!(rack.poll_timeout(), None);
}

#[test]
fn a_reader_that_is_full_and_told_more_is_gone() {
    let mut rack = Rack::new();
    puppet(&mut rack, "a");
    let read = Rc::new(RefCell::new(Vec::new()));
    let into = Rc::clone(&read);
    let mounted = rack.get_mut::<Puppet>(named("a")).unwrap();
    mounted.subscribe(ReaderId(5), move |events: Vec<u32>| {
        into.borrow_mut().extend(events);
        Offered::Full
    });
    let room = |change| Given::Reader { reader: ReaderId(5), change };
    act(&mut rack, "a", |it| say(1)(it));
    act(&mut rack, "a", |it| it.out.push(Out::Event { to: Readers::One(ReaderId(6)), event: 9 }));
    rack.turn(NOW);
    assert!(rack.give(NOW, at("a"), room(ReaderChange::Room)));
    act(&mut rack, "a", |it| say(2)(it));
    rack.turn(NOW);
    act(&mut rack, "a", |it| say(3)(it));
    rack.turn(NOW);
    act(&mut rack, "a", |it| say(4)(it));
    rack.turn(NOW);
    assert_eq!(*read.borrow(), [1, 2]);
    let changes = ["Full", "Room", "Full", "Gone"].map(|it| format!("Reader(5, {it})"));
    assert_eq!(of(&rack, "a").got, changes);
    assert!(!rack.give(NOW, at("a"), room(ReaderChange::Room)), "there is none");
}

#[test]
fn a_dismounted_service_is_turned_once_more() {
    let mut rack = Rack::new();
    puppet(&mut rack, "a");
    rack.turn(NOW);
    assert!(rack.dismount(NOW, at("a")));
    act(&mut rack, "a", |it| {
        assert!(it.ends);
        it.out.push(Out::Persist { io: Io(1), record: text(0, "last") });
        it.out.push(Out::Again);
        it.due = Some(NOW);
    });
    assert_eq!(rack.turn(NOW).len(), 1);
    assert!(rack.get::<Puppet>(named("a")).is_none());
    assert_eq!(rack.poll_timeout(), None);
    assert!(!rack.dismount(NOW, at("a")));
    puppet(&mut rack, "a");
}

/// A puppet beside the node whose actor has its first batch and answers nothing: what it is given waits.
fn stuck(rack: &mut Rack) {
    let open = Box::new(|_| Desk::new(Mounted::<Puppet>::recover((), start("a"))));
    let opening = Opening { placement: Placement::Local, me: boot(), seed: 1, open };
    rack.mount_beside::<Puppet>(Proxy::new::<Puppet>(named("a"), 0, opening)).unwrap();
    assert_eq!(rack.turn(NOW).len(), 2, "it is opened, and has a batch");
}

/// So many are given in a row, until it has fallen: how many it took.
fn given_until_it_falls(most: usize, given: impl Fn(usize) -> Given) -> usize {
    let mut rack = Rack::new();
    stuck(&mut rack);
    for number in 0..most {
        assert!(rack.give(NOW, at("a"), given(number)));
        if number.is_power_of_two() {
            rack.check_invariants();
        }
        if let Some(effect) = rack.turn(NOW).pop() {
            let Effect::Aside { word: Aside::Gone(ending), .. } = effect else { panic!() };
            assert_eq!(ending, Ending::Fallen);
            assert_eq!(rack.mounted().count(), 0, "it has left the rack");
            return number;
        }
    }
    most
}

/// What waits for a service beside that is stuck is bounded in bytes for each node, however often that node begins anew.
#[test]
fn a_stuck_service_beside_falls_when_too_many_bytes_wait() {
    let at_boot = |nonce: usize, name| {
        let nonce = BootNonce(nonce as u128);
        BootId { nonce, node: NodeId::new(ClusterId::from_entropy(1), name) }
    };
    let payload = Bytes::from(vec![0; 1 << 20]);
    let message = |from, payload| Given::Message { from, view: 0, meta: Bytes::new(), payload };
    let refused = |to, payload| Given::Full { to, meta: Bytes::new(), payload };
    let most = WAITING_BYTES_MAX >> 20;
    // Each of another boot of one node, granted anew.
    let taken = given_until_it_falls(2 * most, |boot| message(at_boot(boot, "n"), payload.clone()));
    assert_eq!(taken, most - 1);
    let taken = given_until_it_falls(2 * most, |boot| refused(at_boot(boot, "n"), payload.clone()));
    assert_eq!(taken, most - 1);
    // Messages without a byte count as well.
    let taken = given_until_it_falls(2 * WAITING_BYTES_MAX / 256, |_| {
        message(at_boot(1, "n"), Bytes::new())
    });
    assert_eq!(taken, WAITING_BYTES_MAX / 256);
    // No node takes the place of another one; datagrams are lost before.
    let names = ["a", "b", "c", "d"];
    let of_each = |number: usize| message(at_boot(1, names[number % 4]), payload.clone());
    assert_eq!(given_until_it_falls(3 * most, of_each), 3 * most);
    let datagram = |_| Given::Datagram {
        at: NOW,
        from: at_boot(1, "n").node,
        meta: Bytes::new(),
        payload: Bytes::from(vec![0; 64 << 10]),
    };
    assert_eq!(given_until_it_falls(4_000, datagram), 4_000);
}

/// What a service beside has been handed waits no more.
#[test]
fn bytes_that_were_handed_on_do_not_count() {
    let mut rack = Rack::new();
    stuck(&mut rack);
    let payload = Bytes::from(vec![0; 1 << 20]);
    for _ in 0..4 * (WAITING_BYTES_MAX >> 20) {
        let refused = Given::Full { to: boot(), meta: Bytes::new(), payload: payload.clone() };
        assert!(rack.give(NOW, at("a"), refused));
        assert!(rack.give(NOW, at("a"), Given::Report(Box::new(answer()))));
        let effects = rack.turn(NOW);
        rack.check_invariants();
        let is_batch = |it: &Effect| matches!(it, Effect::Aside { word: Aside::Batch(_), .. });
        assert!(effects.iter().any(is_batch), "the next batch leaves");
    }
}

/// What an actor says of a batch.
fn answer() -> Report {
    let mut rack = Rack::new();
    let open = Box::new(|_| Desk::new(Mounted::<Puppet>::recover((), start("a"))));
    let opening = Opening { placement: Placement::Local, me: boot(), seed: 1, open };
    rack.mount_beside::<Puppet>(Proxy::new::<Puppet>(named("a"), 0, opening)).unwrap();
    let mut desk = None;
    for effect in rack.turn(NOW) {
        match effect {
            Effect::Aside { word: Aside::Open(opening), .. } => desk = Some((opening.open)(NOW)),
            Effect::Aside { word: Aside::Batch(batch), .. } => {
                desk.as_mut().unwrap().take(NOW, batch);
            }
            _ => panic!(),
        }
    }
    desk.unwrap().turn(NOW).unwrap()
}
