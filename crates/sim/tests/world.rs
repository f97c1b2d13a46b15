//! What the world promises to nodes and tests, seen by a node that talks all the time.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeMap;

use mainstay_base::trace::{ProcessWord, What};
use mainstay_base::{ConnId, Duration, Instant, NodeId};
use mainstay_sim::{
    Atlas, Disk, Effects, Fault, Moment, Node, Options, Peer, Refusal, Start, Stuck, Wire, World,
    schedule,
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Event {
    Opened(Peer, bool),
    Closed(Peer),
    Received(Peer, u64),
    Written(u64),
    Refused(NodeId, Refusal),
}

/// Sends numbers to all it is connected with, and writes numbers, as often as it is told.
struct Talker {
    every: Duration,
    next: Instant,
    open: BTreeMap<ConnId, u64>,
    dial: Option<NodeId>,
    hangs_up: bool,
    exit: bool,
    issued: u64,
    whole: bool,
    happened: Vec<Event>,
    speaks: bool,
}

impl Node for Talker {
    type Setup = Duration;
    type Message = u64;
    type Durable = Vec<u64>;
    type Write = u64;
    type Event = Event;

    fn start(start: Start<'_, Self>) -> Self {
        assert_eq!(start.roster[start.index], start.boot.node);
        Self {
            every: *start.setup,
            next: start.now + *start.setup,
            open: BTreeMap::new(),
            dial: None,
            hangs_up: false,
            exit: false,
            issued: start.durable.len() as u64,
            whole: start.now == Instant::ZERO || !start.durable.is_empty(),
            happened: Vec::new(),
            speaks: false,
        }
    }

    fn opened(&mut self, _: Instant, peer: Peer, dialled: bool) {
        assert_eq!(self.open.insert(peer.conn, 0), None, "a connection opens once");
        self.happened.push(Event::Opened(peer, dialled));
    }

    fn closed(&mut self, _: Instant, peer: Peer) {
        assert!(self.open.remove(&peer.conn).is_some(), "only what is open is closed");
        self.happened.push(Event::Closed(peer));
    }

    fn refused(&mut self, _: Instant, node: NodeId, why: Refusal) {
        self.happened.push(Event::Refused(node, why));
    }

    fn receive(&mut self, _: Instant, from: Peer, message: u64) {
        assert!(self.open.contains_key(&from.conn), "messages come over open connections");
        self.happened.push(Event::Received(from, message));
    }

    fn written(&mut self, _: Instant, io: u64) {
        self.whole = true;
        self.happened.push(Event::Written(io));
    }

    fn apply(durable: &mut Vec<u64>, write: u64) {
        durable.push(write);
    }

    fn timeout(&mut self, now: Instant) {
        self.next = now + self.every;
        self.speaks = true;
    }

    fn end_turn(&mut self, _: Instant, out: &mut Effects<Self>) {
        self.happened.drain(..).for_each(|event| out.event(event));
        if let Some(node) = self.dial.take() {
            out.dial(node);
        }
        if std::mem::take(&mut self.speaks) {
            for (conn, number) in &mut self.open {
                *number += 1;
                out.send_on(*conn, *number);
            }
            self.issued += 1;
            out.write(self.issued, self.issued);
        }
        if std::mem::take(&mut self.hangs_up) {
            self.open.keys().for_each(|conn| out.close(*conn));
            self.open.clear();
        }
        if self.exit {
            out.exit(ms(10));
            out.fail("nothing behind an exit is done");
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.next)
    }

    fn is_whole(&self) -> bool {
        self.whole
    }
}

fn crash(node: usize, length: Duration, disk: Disk) -> Fault {
    Fault::Crash { node, length, disk, moment: Moment::Now }
}

/// A world of three without faults, connected, the events so far taken.
fn calm(wire: Wire) -> World<Talker> {
    let atlas = Atlas { down: 3, lost: 3 };
    let mut world = World::new(7, 3, ms(1), Options { atlas, ..Options::calm(wire) });
    world.run(ms(50)).unwrap();
    world.take_events();
    world
}

/// How many messages the node received from the other, in the events of `world`.
fn received(events: &[(mainstay_base::BootId, Instant, Event)], at: NodeId, from: NodeId) -> usize {
    let is_it = |event: &Event| matches!(event, Event::Received(peer, _) if peer.boot.node == from);
    events.iter().filter(|(boot, _, event)| boot.node == at && is_it(event)).count()
}

/// In a channel, whatever breaks, what comes is a first part of what was sent, in order and once; both ends that live
/// are told; disks hold first parts of the writes, and all that were complete.
#[test]
fn channels_and_disks_keep_the_order_and_lose_from_some_point_on() {
    let mut broken = 0;
    for seed in 0..150 {
        let mut options = Options::from_seed(seed, Wire::Channel, Atlas { down: 2, lost: 0 });
        options.resets += 2;
        let mut world: World<Talker> = World::new(seed, 4, ms(3), options);
        world.run(ms(3_000)).unwrap();
        world.heal();
        world.run(ms(1_000)).unwrap();
        let mut last = BTreeMap::new();
        let mut written = BTreeMap::new();
        for (boot, _, event) in world.take_events() {
            match event {
                Event::Received(peer, number) => {
                    let before = last.insert((boot, peer.conn), number);
                    assert_eq!(before.unwrap_or(0) + 1, number, "seed {seed}");
                }
                Event::Written(number) => {
                    written.insert(boot.node, number);
                }
                _ => {}
            }
        }
        for node in 0..4 {
            let disk = world.durable(node);
            assert!(disk.iter().copied().eq(1..=disk.len() as u64), "seed {seed}");
            assert!(disk.len() as u64 >= written[&world.boot(node).node], "seed {seed}");
            assert_eq!(world.node(node).unwrap().open.len(), 3, "seed {seed}: all are connected");
        }
        broken += world.stats().broken;
    }
    assert!(broken > 500, "{broken}");
}

/// Datagrams are lost, repeated and reordered at the rates asked for.
#[test]
fn datagrams_suffer_as_asked() {
    let options = Options {
        loss: 100,
        duplication: 50,
        reordering: 200,
        spread: ms(5),
        ..Options::calm(Wire::Datagram)
    };
    let mut world: World<Talker> = World::new(1, 2, ms(1), options);
    world.run(ms(10_000)).unwrap();
    let stats = world.stats();
    let share = |part: u64| part * 1000 / stats.sent;
    assert!((80..120).contains(&share(stats.lost)), "{stats:?}");
    assert!((35..65).contains(&share(stats.duplicated)), "{stats:?}");
    let mut last: BTreeMap<_, u64> = BTreeMap::new();
    let mut late = 0;
    for (boot, _, event) in world.take_events() {
        if let Event::Received(peer, number) = event {
            let before = last.entry((boot, peer.conn)).or_default();
            late += u64::from(number < *before);
            *before = number.max(*before);
        }
    }
    assert!(late > stats.sent / 20, "{late} of {stats:?}");
}

/// A cut of one direction leaves the other open; a channel that is healed in time loses nothing.
#[test]
fn a_cut_has_a_direction_and_heals() {
    let mut world = calm(Wire::Datagram);
    let [a, b] = [world.roster()[0], world.roster()[1]];
    assert!(world.inject(Fault::OneWayCut { from: 0, to: 1, length: ms(100) }));
    world.run(ms(2)).unwrap();
    world.take_events();
    world.run(ms(90)).unwrap();
    let events = world.take_events();
    assert_eq!(received(&events, b, a), 0);
    assert!(received(&events, a, b) > 80);
    world.run(ms(100)).unwrap();
    assert!(received(&world.take_events(), b, a) > 80);

    let atlas = Atlas::default();
    let options = Options { atlas, telling: ms(1_000_000), ..Options::calm(Wire::Channel) };
    let mut world: World<Talker> = World::new(7, 3, ms(1), options);
    world.run(ms(50)).unwrap();
    world.take_events();
    world.inject(Fault::Partition { side: vec![0], length: ms(100) });
    world.run(ms(90)).unwrap();
    assert!(received(&world.take_events(), b, a) <= 2, "what was behind the cut");
    world.run(ms(110) + Duration::from_micros(500)).unwrap();
    let events = world.take_events();
    let last = events.iter().rev().find_map(|(boot, _, event)| match event {
        Event::Received(from, number) if boot.node == b && from.boot.node == a => {
            Some((from.conn, *number))
        }
        _ => None,
    });
    let (conn, number) = last.expect("what had stalled comes");
    assert_eq!(world.node(0).unwrap().open[&conn], number, "nothing is left behind");
    assert!(received(&events, b, a) > 180);
    assert!(!events.iter().any(|(_, _, event)| matches!(event, Event::Closed(_))));
}

/// A connection that a cut has stalled and that both ends close before it breaks is gone: it breaks no more, and nothing of
/// it is counted again.
#[test]
fn a_stalled_connection_that_both_ends_close_is_gone() {
    for seed in 0..50 {
        let options = Options { telling: ms(100), delay: ms(20), ..Options::calm(Wire::Channel) };
        let mut world: World<Talker> = World::new(seed, 2, ms(1), options);
        let met = |world: &World<Talker>| {
            (0..2).all(|node| world.node(node).is_some_and(|node| node.open.len() == 1))
        };
        world.run_until(met, ms(1_000)).unwrap();
        world.run(ms(10)).unwrap();
        world.inject(Fault::Cut { one: 0, other: 1, length: ms(500) });
        for node in 0..2 {
            world.call(node, |node, _| node.hangs_up = true).unwrap();
        }
        world.run(ms(400)).unwrap();
        let stats = world.stats();
        assert_eq!((stats.broken, stats.connected), (0, 1), "seed {seed}");
        assert_eq!(stats.sent, stats.delivered + stats.lost, "seed {seed}");
    }
}

/// A paused node does nothing; afterwards it does all that has come, in order.
#[test]
fn a_pause_delays_everything() {
    let mut world = calm(Wire::Channel);
    let paused = world.boot(1);
    world.inject(Fault::Pause { node: 1, length: ms(100) });
    assert!(!world.is_up(1) && world.call(1, |_, _| ()).is_none());
    world.run(ms(99)).unwrap();
    assert!(world.take_events().iter().all(|(boot, ..)| *boot != paused));
    world.run(ms(2)).unwrap();
    let events = world.take_events();
    assert!(received(&events, paused.node, world.roster()[0]) > 95);
    assert!(world.is_up(1));
}

/// The atlas is never broken: of five nodes two are down, or not whole, at most, and one disk is lost.
#[test]
fn the_atlas_bounds_the_faults() {
    let (mut down_max, mut lost_max, mut crashes) = (0, 0, 0);
    for seed in 0..100 {
        let atlas = Atlas { down: 2, lost: 1 };
        let mut options = Options::from_seed(seed, Wire::Datagram, atlas);
        (options.crashes, options.lost_disks) = (40, 500);
        // Faults begin when all disks hold something: an empty one is a lost one.
        let mut schedule = schedule(seed, 5, &options);
        schedule.iter_mut().for_each(|event| event.at = event.at + ms(50));
        let mut world: World<Talker> = World::with_schedule(seed, 5, ms(7), options, schedule);
        let check = |world: &World<Talker>| {
            let is_down = |node: &usize| world.node(*node).is_none_or(|node| !node.whole);
            let is_lost = |node: &usize| {
                world.node(*node).is_some_and(|node| !node.whole)
                    || (world.node(*node).is_none() && world.durable(*node).is_empty())
            };
            down_max = down_max.max((0..5).filter(is_down).count());
            lost_max = lost_max.max((0..5).filter(is_lost).count());
            false
        };
        assert!(matches!(world.run_until(check, ms(2_500)), Err(Stuck::TimedOut { .. })));
        crashes += world.stats().restarts;
    }
    assert_eq!((down_max, lost_max), (2, 1));
    assert!(crashes > 500, "{crashes}");
}

/// A healed core runs and is connected; the rest stays as it is for ever, until all is healed.
#[test]
fn a_healed_core_leaves_the_rest_broken() {
    let mut world = calm(Wire::Channel);
    world.inject(crash(0, ms(10), Disk::Kept));
    world.inject(Fault::Cut { one: 1, other: 2, length: ms(10) });
    world.inject(Fault::Pause { node: 2, length: ms(10) });
    world.heal_core(&[1]);
    world.run(ms(5_000)).unwrap();
    assert!(world.node(0).is_none() && world.is_up(1) && !world.is_up(2));
    assert!(world.report().contains("cut off from [2]"), "{}", world.report());
    world.heal_core(&[1, 2]);
    let met = |world: &World<Talker>| {
        [1, 2].iter().all(|node| world.node(*node).is_some_and(|node| node.open.len() == 1))
    };
    world.run_until(met, ms(100)).unwrap();
    assert!(world.node(0).is_none() && world.is_up(2));
    world.heal();
    let met = |world: &World<Talker>| {
        (0..3).all(|node| world.node(node).is_some_and(|node| node.open.len() == 2))
    };
    world.run_until(met, ms(100)).unwrap();
}

/// The disk that a node finds is the one that the crash says: kept, empty or of the last backup.
#[test]
fn a_disk_is_kept_or_emptied_or_old() {
    let mut world = calm(Wire::Channel);
    let before = world.durable(0).len();
    assert!(before > 30);
    assert!(world.inject(Fault::Backup { node: 0 }));
    world.run(ms(50)).unwrap();
    assert!(world.inject(crash(0, ms(10), Disk::Kept)));
    assert!(!world.inject(crash(0, ms(10), Disk::Kept)), "it is down already");
    assert!(world.durable(0).len() > before + 30);
    world.run(ms(50)).unwrap();
    assert!(world.inject(crash(0, ms(10), Disk::Old)));
    assert_eq!(world.durable(0).len(), before);
    world.run(ms(50)).unwrap();
    assert!(world.inject(crash(0, ms(10), Disk::Empty)));
    assert_eq!(world.durable(0).len(), 0);
    world.run(ms(50)).unwrap();
    assert!(world.durable(0).len() > 20 && world.stats().restarts == 3);
}

/// A crash in a write comes while a write is unfinished: something of the writes issued is missing, now and then.
#[test]
fn a_crash_in_a_write_finds_one_unfinished() {
    let mut lost = 0;
    for seed in 0..50 {
        let options =
            Options { atlas: Atlas { down: 1, lost: 0 }, batch: 0, ..Options::calm(Wire::Channel) };
        let mut world: World<Talker> = World::new(seed, 1, ms(20), options);
        world.run(ms(5)).unwrap();
        let moment = Moment::MidWrite;
        world.inject(Fault::Crash { node: 0, length: ms(5), disk: Disk::Kept, moment });
        world.run_until(|world| world.node(0).is_none(), ms(17)).unwrap();
        assert!(world.now() >= Instant::ZERO + ms(20));
        lost += usize::from(world.durable(0).is_empty());
    }
    assert!((10..40).contains(&lost), "{lost}");
}

/// The world names boots and numbers their events; a crash is the last event of a boot.
#[test]
fn the_trace_tells_starts_and_crashes() {
    let mut world = calm(Wire::Channel);
    let old = world.boot(1);
    world.inject(crash(1, ms(10), Disk::Kept));
    world.run(ms(20)).unwrap();
    let new = world.boot(1);
    assert!(old != new && old.node == new.node);
    let of = |boot| {
        let events = world.trace().iter().filter(move |event| event.boot == boot);
        events.map(|event| (event.number, event.what.clone())).collect::<Vec<_>>()
    };
    assert_eq!(
        of(old),
        [(0, What::Process(ProcessWord::Started)), (1, What::Process(ProcessWord::Crashed))]
    );
    assert_eq!(of(new), [(0, What::Process(ProcessWord::Started))]);
}

/// A node that exits is started again from its disk, and nothing behind the exit is done.
#[test]
fn an_exit_is_a_restart() {
    let mut world = calm(Wire::Channel);
    let old = world.boot(2);
    world.call(2, |node, _| node.exit = true).unwrap();
    assert!(world.node(2).is_none());
    world.run(ms(20)).unwrap();
    assert!(world.is_up(2) && world.boot(2) != old);
}

/// Where nodes dial, a dial ends in a connection, a refusal or silence.
#[test]
fn a_dial_has_an_end() {
    let atlas = Atlas { down: 1, lost: 0 };
    let options = Options { atlas, dials: true, ..Options::calm(Wire::Datagram) };
    let mut world: World<Talker> = World::new(3, 2, ms(1), options);
    let [a, b] = [world.boot(0), world.boot(1)];
    let mut dial = |fault: Option<Fault>| {
        assert!(fault.is_none_or(|fault| world.inject(fault)));
        world.take_events();
        world.call(0, |node, _| node.dial = Some(b.node)).unwrap();
        world.run(ms(10)).unwrap();
        let events = world.take_events().into_iter();
        events
            .filter(|(_, _, event)| !matches!(event, Event::Received(..) | Event::Written(_)))
            .map(|(boot, _, event)| (boot, event))
            .collect::<Vec<_>>()
    };
    let conn = ConnId(0);
    let mut opened = dial(None);
    opened.sort_by_key(|(boot, _)| *boot);
    assert_eq!(
        opened,
        [
            (a, Event::Opened(Peer { boot: b, conn }, true)),
            (b, Event::Opened(Peer { boot: a, conn }, false)),
        ]
    );
    let cut = Fault::Cut { one: 0, other: 1, length: ms(10) };
    assert_eq!(dial(Some(cut)), [(a, Event::Refused(b.node, Refusal::Unreachable))]);
    let events = dial(Some(crash(1, ms(1_000), Disk::Kept)));
    assert!(events.contains(&(a, Event::Refused(b.node, Refusal::Refused))));
    assert!(events.contains(&(a, Event::Closed(Peer { boot: b, conn }))));
}

/// A node whose deadline stays in the past is a violation, and a limit that is reached comes with a report.
#[test]
fn a_node_that_spins_is_found() {
    let options = Options::calm(Wire::Channel);
    let mut world: World<Talker> = World::new(1, 2, Duration::ZERO, options.clone());
    let stuck = world.run(ms(1)).unwrap_err();
    assert!(stuck.to_string().contains("time stands still"), "{stuck}");
    let mut world: World<Talker> = World::new(1, 2, ms(1), options);
    let stuck = world.run_until(|_| false, ms(10)).unwrap_err();
    assert!(stuck.to_string().contains("connected with [1]"), "{stuck}");
}

/// Checks OV-3: one message less elsewhere does not change which boot starts next.
#[test]
fn a_boot_is_named_by_seed_node_and_generation() {
    let start = |faults: &[Fault]| {
        let options = Options { atlas: Atlas { down: 3, lost: 0 }, ..Options::calm(Wire::Channel) };
        let mut world: World<Talker> = World::new(9, 3, ms(1), options);
        faults.iter().for_each(|fault| assert!(world.inject(fault.clone())));
        world.run(ms(50)).unwrap();
        world.boot(0)
    };
    let own = crash(0, ms(10), Disk::Kept);
    assert_eq!(start(std::slice::from_ref(&own)), start(&[crash(1, ms(5), Disk::Kept), own]));
}
