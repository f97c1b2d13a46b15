//! Clock services that begin again, and what their readers see: one service at a time, without a network.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_base::service::{In, Io, Logged, Out, Service, Start};
use mainstay_base::{BootId, BootNonce, ClusterId, Duration, Instance, Instant, Machine, NodeId};
use mainstay_clock::Time;
use mainstay_clock::fault::Fault as Broken;
use mainstay_clock::sync::global::{
    Command, Config, Event, Global, GlobalClock, Limit, Past, Promise, Why,
};
use mainstay_clock::sync::{self, Function, Kind, Loss, Message, Mount, Origin, Plan, Reading};

const MILLI: u64 = 1_000_000;
const SECOND: Duration = Duration::from_secs(1);

fn node(place: usize) -> NodeId {
    NodeId::new(ClusterId::from_entropy(1), &place.to_string())
}

/// A node with a clock service, its disk, and a hardware clock.
struct Node {
    plan: Arc<Plan>,
    reserve: Option<Duration>,
    answers: bool,
    broken: Option<Broken>,
    service: Option<Global>,
    clock: GlobalClock,
    local: Arc<AtomicU64>,
    past: Past,
    events: Vec<Event>,
    sent: Vec<(NodeId, Message)>,
    /// The disk does not answer, and owes the word that this is written.
    stalls: bool,
    owed: Option<Io>,
}

impl Node {
    fn new(config: sync::Config) -> Self {
        Self {
            plan: Arc::new(Plan::new(config).unwrap()),
            reserve: Some(Duration::from_secs(10)),
            answers: false,
            broken: None,
            service: None,
            clock: GlobalClock::new(),
            local: Arc::new(AtomicU64::new(0)),
            past: Past::default(),
            events: Vec::new(),
            sent: Vec::new(),
            stalls: false,
            owed: None,
        }
    }

    fn nodes(&self) -> Vec<NodeId> {
        (0..self.plan.config().nodes).map(node).collect()
    }

    /// Another process: what is left of the former one is on its disk.
    fn boot(&mut self, now: Instant, origin: Origin) {
        self.clock = GlobalClock::new();
        self.local.store(now.as_nanos(), Ordering::Relaxed);
        let local = Arc::clone(&self.local);
        self.clock.attach(Arc::new(move || Instant::from_nanos(local.load(Ordering::Relaxed))));
        let mount = Mount {
            plan: Arc::clone(&self.plan),
            nodes: self.nodes().into(),
            origin,
            #[cfg(any(feature = "synchroniser", feature = "agreement"))]
            keys: None,
        };
        let mut config = Config::new(mount, self.clock.clone()).unwrap();
        (config.reserve, config.answers) = (self.reserve, self.answers);
        config.fault = self.broken;
        let start = Start {
            me: BootId { node: node(0), nonce: BootNonce(u128::from(now.as_nanos())) },
            instance: Instance::new(ClusterId::from_entropy(1), "clock"),
            past: std::mem::take(&mut self.past),
            checkpoint: None,
            now,
            seed: now.as_nanos(),
        };
        self.past = start.past;
        self.service = Some(Global::recover(config, start));
        self.turn(now);
    }

    fn service(&self) -> &Global {
        self.service.as_ref().unwrap()
    }

    /// The end of a turn; what is written is stable at once.
    fn turn(&mut self, now: Instant) {
        self.local.store(now.as_nanos(), Ordering::Relaxed);
        let service = self.service.as_mut().unwrap();
        loop {
            service.end_turn(now);
            let mut written = None;
            while let Some(output) = service.poll_output() {
                match output {
                    Out::Persist { io, record } => {
                        Global::fold(&mut self.past, Logged::Record(io, record));
                        written = Some(io);
                    }
                    Out::Event { event, .. } => self.events.push(event),
                    Out::Datagram { to, message } => self.sent.push((to, message)),
                    _ => {}
                }
            }
            match written {
                Some(io) if self.stalls => self.owed = Some(io),
                Some(io) => service.handle(now, In::Written(io)),
                None => break,
            }
        }
    }

    fn input(&mut self, now: Instant, input: In<Global>) {
        self.local.store(now.as_nanos(), Ordering::Relaxed);
        self.service.as_mut().unwrap().handle(now, input);
        self.turn(now);
    }

    /// Time passes.
    fn until(&mut self, then: Instant) {
        let mut turns = 0;
        while let Some(due) = self.service().poll_timeout().filter(|due| *due <= then) {
            let now = due.max(Instant::from_nanos(self.local.load(Ordering::Relaxed)));
            self.service.as_mut().unwrap().handle_timeout(now);
            self.turn(now);
            turns += 1;
            assert!(
                turns < 1_000,
                "it asks for turns for ever at {now:?}: {:?} {:?}",
                self.service().unsynchronised(now),
                self.service().status()
            );
        }
        self.local.store(then.as_nanos(), Ordering::Relaxed);
    }

    /// A reference says the local time and so much.
    fn refer(&mut self, now: Instant, ahead: u64) {
        let command = Command::Reference { at: now, value: (now.as_nanos() + ahead) as i64 };
        self.input(now, In::Command(command));
    }
}

fn external(misses_max: u32) -> sync::Config {
    let mut config = sync::Config::lan(Kind::External { error: Duration::from_millis(1) }, 1, 0);
    config.misses_max = misses_max;
    config
}

fn midpoint(nodes: usize, faulty: usize) -> sync::Config {
    let kind = Kind::Averaging { function: Function::Midpoint, reading: Reading::ARRIVAL };
    sync::Config::lan(kind, nodes, faulty)
}

/// A process that begins again and again.
fn restarts(broken: Option<Broken>) -> Result<(), String> {
    let mut node = Node::new(external(10));
    node.broken = broken;
    let ahead = 1_000_000 * MILLI;
    let mut now = Instant::ZERO + SECOND;
    let mut highest = 0;
    for boot in 0..8 {
        node.boot(now, Origin::Apart(0));
        assert!(node.clock.now().0.as_nanos() >= highest, "CLK-10: boot {boot} goes back");
        for _ in 0..4 {
            now = now + Duration::from_millis(250);
            node.until(now);
            node.refer(now, ahead);
            node.refer(now + Duration::from_nanos(1), ahead);
            now = now + Duration::from_nanos(1);
        }
        highest = node.clock.now().0.as_nanos();
        let truth = now.as_nanos() + ahead;
        let said = highest.saturating_sub(truth);
        if said > 10_000 * MILLI + 10 * MILLI {
            return Err(format!("CLK-10: boot {boot} is {said} ahead"));
        }
    }
    // It finds back in that time.
    for _ in 0..44 {
        now = now + Duration::from_millis(250);
        node.until(now);
        node.refer(now, ahead);
    }
    assert!(node.clock.is_synchronised());
    Ok(())
}

/// Checks CLK-10: however often a process begins again, what is stored is no further ahead of the time than one `reserve`, so that it waits no longer.
#[test]
fn restarts_in_a_row_do_not_run_away() {
    restarts(None).unwrap();
    let error = restarts(Some(Broken::ReservesWhileItWaits)).unwrap_err();
    assert!(error.contains("CLK-10:"), "{error}");
}

/// Checks CLK-2: the wall clock of a process that comes back is not the common time, whatever it was at the first start.
#[test]
fn who_comes_back_learns_the_time_also_where_all_began_together() {
    for stored in [false, true] {
        let mut node = Node::new(midpoint(4, 1));
        let now = Instant::ZERO + SECOND * 100;
        if stored {
            let limit = Limit(Time::from_nanos(200_000 * MILLI));
            Global::fold(&mut node.past, Logged::Record(Io(1), limit));
        }
        node.boot(now, Origin::Together(186_000 * MILLI as i64));
        node.until(now + Duration::from_millis(10));
        let is_first = !stored;
        assert_eq!(node.clock.is_synchronised(), is_first, "CLK-2");
        assert_eq!(node.events.contains(&Event::Synchronised), is_first);
    }
}

/// Checks CLK-1: a time that is learnt and not confirmed is not followed: it would be stored, and never be taken back.
#[test]
fn a_time_that_is_not_confirmed_is_not_followed() {
    let mut node = Node::new(midpoint(4, 1));
    let now = Instant::ZERO + SECOND * 100;
    node.boot(now, Origin::Apart(0));
    let hour = 3_600_000 * MILLI;
    // Two of three say a time that is wrong; nobody confirms it.
    let at = now + Duration::from_millis(500);
    for from in [1, 2, 3] {
        let value = (at.as_nanos() + if from == 3 { 0 } else { hour }) / 1_000_000_000;
        let message = Message::Tick {
            round: value,
            value: (value * 1_000_000_000) as i64,
            sure: true,
            pull: None,
        };
        node.until(at);
        node.input(at, In::Datagram { at, from: crate::node(from), message });
    }
    node.until(at + Duration::from_millis(1_500));
    let learnt = node.events.iter().any(|it| matches!(it, Event::Resynced(_)));
    assert!(learnt, "{:?}", node.events);
    assert!(node.clock.now().0.as_nanos() < hour, "CLK-1: it has followed");
    assert!(!node.clock.is_synchronised());
}

/// Checks CLK-41: the page of a service that is synchronised, and has nothing to do for long, does not lapse.
#[test]
fn a_page_is_renewed_while_nothing_happens() {
    let mut node = Node::new(external(10));
    let mut now = Instant::ZERO + SECOND;
    node.reserve = None;
    node.boot(now, Origin::Together(0));
    for _ in 0..5 {
        node.refer(now, 0);
        for _ in 0..10 {
            now = now + Duration::from_millis(500);
            node.until(now);
            assert_eq!(node.service().unsynchronised(now), None);
            assert!(node.clock.is_synchronised(), "CLK-41: the page lapses at {now:?}");
        }
    }
}

/// Checks CLK-3, CLK-41: a reference that jumps is told, and the clock is not synchronised across the jump.
#[test]
fn a_jump_of_the_reference_is_told() {
    let mut node = Node::new(external(10));
    let mut now = Instant::ZERO + SECOND;
    node.boot(now, Origin::Apart(0));
    for step in 0..20u64 {
        now = now + Duration::from_millis(500);
        node.until(now);
        let before = node.clock.now_bounded().ok();
        let version = node.clock.now().1;
        node.refer(now, if step < 10 { 0 } else { 10_000 * MILLI });
        let is_on = before.is_some() && node.clock.is_synchronised();
        if step == 10 {
            assert!(node.events.contains(&Event::Unsynchronised(Why::Lost(Loss::Outside))));
            assert!(!is_on, "CLK-3: version {version} goes on across a jump");
        }
        // A reading that was made before the last one changes nothing.
        let then = node.clock.now();
        let command = Command::Reference { at: Instant::ZERO, value: 77 };
        node.input(now, In::Command(command));
        assert_eq!(node.clock.now(), then, "an old reading counts for nothing");
    }
    assert!(node.clock.is_synchronised());
    assert_eq!(node.clock.now().0.as_nanos(), now.as_nanos() + 10_000 * MILLI);
}

/// Checks CLK-2 between the turns: the bound that readers are told grows for as long as nobody corrects the clock.
#[test]
fn the_bound_grows_while_the_service_does_not_run() {
    let mut config = midpoint(4, 1);
    config.period = Duration::from_secs(60);
    let drift = u64::from(config.drift.parts());
    let mut node = Node::new(config);
    node.reserve = None;
    let now = Instant::ZERO + SECOND * 90;
    node.boot(now, Origin::Together(0));
    let precision = Promise::of(&node.plan).unwrap().precision.as_nanos() as u64;
    // No turn for nearly three periods: the hardware drifts away from those that are corrected.
    for second in [1, 60, 120, 170] {
        let at = now + SECOND * second;
        node.local.store(at.as_nanos(), Ordering::Relaxed);
        let bounded = node.clock.now_bounded().unwrap();
        let width = bounded.latest.saturating_since(bounded.earliest).as_nanos() as u64 / 2;
        let beyond = u64::from(second.saturating_sub(61)) * 1_000 * MILLI;
        let grown = 2 * beyond / 1_000_000_000 * drift;
        assert!(width >= precision + grown, "CLK-2: {width} after {second} s, {precision} planned");
    }
}

/// Checks CLK-4: who follows a clock is answered while that is synchronised, with its error, and only where it is to answer.
#[test]
fn who_follows_is_answered_by_a_synchronised_clock() {
    for answers in [false, true] {
        let mut node = Node::new(external(10));
        node.answers = answers;
        let now = Instant::ZERO + SECOND;
        node.boot(now, Origin::Apart(0));
        let asks = |node: &mut Node, now: Instant, at: Instant| {
            let message = Message::PeerRequest { nonce: 5 };
            node.input(now, In::Datagram { at, from: crate::node(7), message });
            std::mem::take(&mut node.sent)
        };
        assert_eq!(asks(&mut node, now, now), [], "it knows no time");
        let now = now + Duration::from_millis(1);
        node.refer(now, 0);
        let later = now + Duration::from_micros(100);
        let sent = asks(&mut node, later, now);
        let unknown = node.service().status().rejected.unknown;
        if !answers {
            assert_eq!((sent, unknown), (Vec::new(), 2));
            continue;
        }
        // 1 ms, what 100 ppm make of 100 us, and a rounding; it has waited for 100 us.
        let (value, error) = (later.as_nanos() as i64, MILLI + 10 + 1);
        let said = Message::PeerReply { nonce: 5, value, error, rate: 0, held: 100_000 };
        assert_eq!((sent, unknown), (vec![(crate::node(7), said)], 0));
    }
}

/// Checks CLK-10, CLK-41: a disk that does not answer stops the clock at what is stored, and that is told. When it answers the clock goes on.
#[test]
fn a_clock_stops_at_what_is_stored() {
    let mut node = Node::new(external(10));
    node.reserve = Some(SECOND * 2);
    let mut now = Instant::ZERO + SECOND;
    node.boot(now, Origin::Apart(0));
    let passes = |node: &mut Node, now: &mut Instant, quarters: u32| {
        for _ in 0..quarters {
            *now = *now + Duration::from_millis(250);
            node.until(*now);
            node.refer(*now, 0);
        }
    };
    passes(&mut node, &mut now, 8);
    assert_eq!(node.service().unsynchronised(now), None);
    node.stalls = true;
    passes(&mut node, &mut now, 16);
    assert!(node.owed.is_some());
    let unstored = Event::Unsynchronised(Why::Unstored);
    assert_eq!(
        node.events.iter().rfind(|it| !matches!(it, Event::Resynced(_))),
        Some(&unstored),
        "CLK-41: {:?}",
        node.events
    );
    assert!(!node.clock.is_synchronised());
    let then = node.clock.now().0;
    passes(&mut node, &mut now, 4);
    assert_eq!(node.clock.now().0, then, "CLK-10: it goes beyond what is stored");
    assert!(then < now_of(now));
    node.stalls = false;
    let io = node.owed.take().unwrap();
    node.input(now, In::Written(io));
    passes(&mut node, &mut now, 4);
    assert_eq!(node.events.iter().filter(|it| **it == Event::Synchronised).count(), 2);
    assert!(node.clock.is_synchronised());
    assert!(now_of(now).saturating_since(node.clock.now().0) < Duration::from_millis(2));
}

/// What a clock says that is right, where the reference is the local one.
fn now_of(local: Instant) -> Time {
    Time::from_nanos(local.as_nanos())
}

/// Checks CLK-5: the time since a reading at which the clock stood still counts from the first moment at which it said so.
#[test]
fn time_that_passed_at_a_standstill_counts() {
    let mut node = Node::new(external(10));
    let limit = Limit(Time::from_nanos(20_000 * MILLI));
    Global::fold(&mut node.past, Logged::Record(Io(1), limit));
    let begin = Instant::ZERO + SECOND * 2;
    node.boot(begin, Origin::Apart(0));
    node.refer(begin + Duration::from_nanos(1), 10_000 * MILLI);
    let mut now = begin;
    for _ in 0..5 {
        now = now + SECOND;
        node.until(now);
        node.refer(now, 10_000 * MILLI);
        // References differ a little, so that the course changes.
        node.refer(now + Duration::from_millis(100), 10_000 * MILLI + 5_000);
        now = now + Duration::from_millis(100);
    }
    let (time, _) = node.clock.now();
    assert_eq!(time.as_nanos(), 20_000 * MILLI, "it waits");
    let passed = node.clock.elapsed_since(time).unwrap();
    assert!(passed >= Duration::from_millis(5_400), "CLK-5: {passed:?} of 5.5 s");
}
