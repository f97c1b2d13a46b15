//! Faults of a room by name: points of crashes, the model and what is beyond it, messages that come again, links with a rate,
//! clients.
#![cfg(feature = "actors")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::cell::RefCell;
use std::rc::Rc;

use mainstay_base::{ClusterId, ConnId, Duration, Frame, Instant, NodeId};
use mainstay_runtime::TransportEvent;
use mainstay_sim::live::{Beyond, Room, Start, Stuck};
use mainstay_sim::{Action, Atlas, Disk, Fault, FaultEvent, Moment, Options, Point, Wire};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(millis: u64, fault: Fault) -> FaultEvent {
    FaultEvent { at: Instant::ZERO + ms(millis), fault }
}

fn crash(node: usize, length: u64, moment: Moment) -> Fault {
    Fault::Crash { node, length: ms(length), disk: Disk::Kept, moment }
}

fn calm(down: usize) -> Options {
    Options { atlas: Atlas { down, lost: 0 }, ..Options::calm(Wire::Channel) }
}

/// What a boot of a beeper has heard: from which boot, and which number.
type Heard = Rc<RefCell<Vec<(u64, u32)>>>;

/// Dials all nodes above it and sends each a number every millisecond; tells what it hears.
fn beep(start: Start, nodes: usize, size: usize, boot: u64) -> Heard {
    let heard = Heard::default();
    let told = Rc::clone(&heard);
    start.restored.tell();
    let (mut transport, time) = (start.ports.transport, start.ports.time);
    let (events, mut happened) = mpsc::channel(64);
    tokio::task::spawn_local(async move {
        transport.start(Rc::new(events));
        let name = |node: usize| NodeId::new(ClusterId::from_entropy(1), &node.to_string());
        let addresses = Room::<Heard>::addresses(nodes);
        let dial = |transport: &mut Box<dyn mainstay_runtime::Transport>, node: usize| {
            transport.dial(name(node), addresses[node]).unwrap();
        };
        ((start.index + 1)..nodes).for_each(|node| dial(&mut transport, node));
        let mut conns: Vec<ConnId> = Vec::new();
        let mut seq = 0;
        let mut due = time.now() + ms(1);
        loop {
            tokio::select! {
                biased;
                event = happened.recv() => match event {
                    Some(TransportEvent::Opened { conn, dialled: Some(_) }) => conns.push(conn),
                    Some(TransportEvent::Received { frames, .. }) => {
                        let said = frames.iter().map(|frame| (frame.session, frame.seq));
                        told.borrow_mut().extend(said);
                    }
                    Some(TransportEvent::Closed { conn, .. }) => {
                        conns.retain(|it| *it != conn);
                        ((start.index + 1)..nodes).for_each(|node| dial(&mut transport, node));
                    }
                    Some(TransportEvent::Refused { .. } | TransportEvent::Unreachable { .. }) => {
                        ((start.index + 1)..nodes).for_each(|node| dial(&mut transport, node));
                    }
                    Some(_) => {}
                    None => return,
                },
                () = time.sleep_until(due) => {
                    due = due + ms(1);
                    seq += u32::from(!conns.is_empty());
                    let payload = vec![0; size].into();
                    let frame = Frame { session: boot, seq, payload, ..Frame::default() };
                    conns.iter().for_each(|conn| transport.send(*conn, frame.clone()));
                    transport.flush();
                }
            }
        }
    });
    heard
}

/// What each boot of each node has heard.
type All = Rc<RefCell<Vec<(usize, Heard)>>>;

fn room(nodes: usize, size: usize, options: Options, faults: Vec<FaultEvent>) -> (Room<()>, All) {
    let all = All::default();
    let boots = Rc::clone(&all);
    let begin = move |start: Start| {
        let mut boots = boots.borrow_mut();
        let boot = boots.len() as u64;
        boots.push((start.index, beep(start, nodes, size, boot)));
        Ok(())
    };
    (Room::new(1, nodes, options, faults, begin), all)
}

/// Checks OV-10: a script names a send, a receipt or a timer, and the node does what comes before it, and not that.
#[test]
fn a_node_crashes_at_a_point_of_its_run() {
    for number in 1..20 {
        let heard_of_boot = |node, action| {
            let point = Moment::At(Point { action, number });
            let (room, all) = room(2, 8, calm(1), vec![at(0, crash(node, 1_000, point))]);
            let mut room = room.strict();
            room.run(ms(100)).unwrap();
            assert_eq!((room.stats().crashes, room.points(node)[&action]), (1, number));
            let heard = all.borrow()[1].1.borrow().clone();
            heard.len() as u64
        };
        assert_eq!(heard_of_boot(0, Action::Send), number - 1);
        assert_eq!(heard_of_boot(1, Action::Receive), number - 1);
        // The first beep of a connection comes with some timer; from then on each timer is one beep.
        let heard = heard_of_boot(0, Action::Timer);
        assert!(heard < number && heard + 3 > number, "{heard} of {number}");
    }
}

/// Checks OV-1: what is beyond the model ends a strict room, with the fault and what is against it; in another one it is told.
#[test]
fn what_is_beyond_the_model_is_refused() {
    let twice = |node, other| {
        vec![at(10, crash(node, 500, Moment::Now)), at(20, crash(other, 500, Moment::Now))]
    };
    let empty = Fault::Crash { node: 0, length: ms(5), disk: Disk::Empty, moment: Moment::Now };
    let cases = [
        (twice(0, 1), Beyond::TooManyDown(1)),
        (twice(0, 0), Beyond::Down),
        (vec![at(10, empty)], Beyond::TooManyLost(0)),
        (vec![at(10, Fault::Reset { one: 0, other: 7 })], Beyond::Nobody),
        (vec![at(10, Fault::Pause { node: 3, length: ms(1) })], Beyond::Nobody),
    ];
    for (faults, why) in cases {
        let last = faults.last().unwrap().clone();
        let (strict, _) = room(3, 8, calm(1), faults.clone());
        let refused = Stuck::Beyond { fault: last.to_string(), why };
        assert_eq!(strict.strict().run(ms(100)), Err(refused));
        let (mut other, _) = room(3, 8, calm(1), faults);
        other.run(ms(100)).unwrap();
        assert_eq!(*other.left_out().borrow(), [(last, why)]);
        assert_eq!(other.stats().skipped, 1);
    }
    // A point cannot be left out: what the node was about to do is lost.
    let point = crash(0, 5, Moment::At(Point { action: Action::Send, number: 3 }));
    let (mut other, _) = room(3, 8, calm(1), vec![at(0, crash(1, 500, Moment::Now)), at(0, point)]);
    let refused = other.run(ms(100));
    assert!(
        matches!(refused, Err(Stuck::Beyond { why: Beyond::TooManyDown(1), .. })),
        "{refused:?}"
    );
}

/// Checks OV-11: a cut of one direction stops that one alone, and of three nodes two may be apart that both reach the third.
#[test]
fn cuts_are_per_direction_and_per_pair() {
    let length = ms(500);
    let heard = |fault| {
        let (mut room, all) = room(3, 8, calm(1), vec![at(20, fault)]);
        room.run(ms(19)).unwrap();
        let count = |all: &All| [0, 1, 2].map(|node| all.borrow()[node].1.borrow().len());
        let before = count(&all);
        room.run(ms(60)).unwrap();
        let after = count(&all);
        [0, 1, 2].map(|node| after[node] - before[node])
    };
    // Beeps go up alone: 1 hears 0, and 2 hears both.
    let [_, one, two] = heard(Fault::OneWayCut { from: 2, to: 0, length });
    assert!(one > 50 && two > 100, "the other way is open: {one} {two}");
    let [_, one, two] = heard(Fault::OneWayCut { from: 0, to: 2, length });
    assert!(one > 50 && (50..70).contains(&two), "{one} {two}");
    let [_, one, two] = heard(Fault::Cut { one: 0, other: 1, length });
    assert!(one < 5 && two > 100, "0 and 1 both reach 2: {one} {two}");
}

/// Checks OV-12: what was captured comes again when it is replayed, also to a later boot of the same node.
#[test]
fn what_was_captured_comes_again_to_a_later_boot() {
    let (mut room, all) = room(2, 8, calm(1), vec![at(30, crash(1, 20, Moment::Now))]);
    room.run(ms(10)).unwrap();
    room.capture();
    room.run(ms(90)).unwrap();
    let first = room.captured()[0].clone();
    assert_eq!((first.from, first.to, all.borrow()[2].0), (0, 1, 1));
    let old = (first.frames[0].session, first.frames[0].seq);
    let times = |boot: usize| {
        let heard = all.borrow()[boot].1.borrow().clone();
        heard.into_iter().filter(|it| *it == old).count()
    };
    assert_eq!((times(1), times(2)), (1, 0));
    assert!(room.replay(first.clone()));
    room.run(ms(10)).unwrap();
    assert_eq!((times(1), times(2)), (1, 1));
    assert!(
        !room.replay(mainstay_sim::live::Captured { to: 0, ..first }),
        "nobody sends to itself"
    );
}

/// Checks that a link carries so much in a second and no more, and that ways are apart.
#[test]
fn a_link_has_a_rate() {
    let heard = |rate| {
        let (limited, all) = room(2, 4_000, calm(1), Vec::new());
        let mut room = limited.rate(rate);
        room.run(ms(1_000)).unwrap();
        all.borrow()[1].1.borrow().len()
    };
    // A beep is a header of 32 bytes and 4,000 more.
    let (half, all) = (heard(4_032 * 500), heard(4_032 * 2_000));
    assert!((490..=500).contains(&half) && (990..1_000).contains(&all), "{half} {all}");
}

/// Checks that a client reaches a node by bytes, that a cut and a crash of the node reach it, and a later boot is there again.
#[test]
fn a_client_talks_to_nodes() {
    let begin = |start: Start| -> Result<(), String> {
        let mut listener = start.port.listen();
        tokio::task::spawn_local(async move {
            while let Ok(mut stream) = listener.accept().await {
                tokio::task::spawn_local(async move {
                    let mut bytes = [0; 3];
                    while stream.read_exact(&mut bytes).await.is_ok() {
                        bytes.reverse();
                        stream.write_all(&bytes).await.unwrap();
                    }
                });
            }
        });
        Ok(())
    };
    // The client is the process behind the two nodes.
    let faults = vec![
        at(100, Fault::Cut { one: 2, other: 0, length: ms(50) }),
        at(200, crash(0, 100, Moment::Now)),
    ];
    let mut room = Room::new(1, 2, calm(1), faults, begin).strict();
    let (nodes, mut ports) = (room.outside(), room.outside().client());
    let address = ports.endpoints["n0"];
    let talk = async move {
        let mut asked = Vec::new();
        let mut stream = ports.dialer.dial(address).await.unwrap();
        for millis in [0, 110, 180] {
            nodes
                .sleep(Instant::ZERO + ms(millis) - nodes.now().min(Instant::ZERO + ms(millis)))
                .await;
            let mut answer = [0; 3];
            stream.write_all(b"abc").await.unwrap();
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"cba");
            asked.push((nodes.now() - Instant::ZERO).as_millis());
        }
        // A machine without power says nothing: whoever sends learns of it when it is back.
        while stream.write_all(b"abc").await.is_ok() {
            nodes.sleep(ms(10)).await;
        }
        asked.push((nodes.now() - Instant::ZERO).as_millis());
        assert!(
            ports.dialer.dial(address).await.is_err() || nodes.now() >= Instant::ZERO + ms(300)
        );
        nodes.sleep(ms(150)).await;
        nodes.sleep(ms(150)).await;
        assert!(ports.dialer.dial(address).await.is_ok());
        asked
    };
    let asked = room.finish(talk, ms(5_000)).unwrap();
    assert!(asked[0] < 5 && (150..155).contains(&asked[1]) && asked[2] < 190, "{asked:?}");
    assert!(asked[3] >= 200, "{asked:?}");
}
