//! One rule a test, two links wired by hand.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use bytes::Bytes;
use mainstay_base::frame::BODY_SIZE_MAX;
use mainstay_base::{BootId, BootNonce, ClusterId, ConnId, Frame, Instant, Machine, NodeId};
use mainstay_link::message::{self, Expectation, Hello, Message};
use mainstay_link::{Builder, Config, Event, Input, Link, Mismatch, NotSent, Output, Unsettled};
use support::{Nasty, World, cluster, config, ms, nodes, turn};

const CONN: ConnId = ConnId(1);

fn boot(node: NodeId, nonce: u128) -> BootId {
    BootId { node, nonce: BootNonce(nonce) }
}

fn pair() -> (BootId, BootId) {
    let nodes = nodes(2);
    (boot(nodes[0], 1), boot(nodes[1], 2))
}

fn link(me: BootId) -> Link {
    Link::new(config(me, &nodes(2)).build().unwrap(), 1, Instant::ZERO)
}

fn hello(from: BootId, to: BootId) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        cluster: cluster(),
        from,
        to: to.node,
        roster_version: 0,
        expectation: Some(Expectation { of: to.nonce, received: 0 }),
    }
}

fn receive(link: &mut Link, conn: ConnId, frame: Frame) -> Vec<Output> {
    turn(link, Instant::ZERO, Some(Input::Received { conn, frame }))
}

fn open(link: &mut Link, conn: ConnId, dialled: Option<NodeId>) -> Vec<Output> {
    turn(link, Instant::ZERO, Some(Input::Opened { conn, dialled }))
}

fn send(link: &mut Link, to: BootId, payload: Bytes) -> Vec<Output> {
    let input = Input::Send { to: to.node, boot: None, channel: 1, meta: Bytes::new(), payload };
    turn(link, Instant::ZERO, Some(input))
}

fn events(outputs: Vec<Output>) -> Vec<Event> {
    let event = |output| if let Output::Event(event) = output { Some(event) } else { None };
    outputs.into_iter().filter_map(event).collect()
}

fn frames(outputs: Vec<Output>) -> Vec<Frame> {
    let frame =
        |output| if let Output::Transmit { frame, .. } = output { Some(frame) } else { None };
    outputs.into_iter().filter_map(frame).collect()
}

fn messages(outputs: Vec<Output>) -> Vec<Message> {
    let frames = frames(outputs).into_iter().filter(|frame| frame.channel == 0);
    frames.map(|frame| mainstay_base::codec::decode(&frame.meta).unwrap()).collect()
}

/// A link that has accepted `from` on [`CONN`].
fn accepted(me: BootId, from: BootId) -> Link {
    let mut link = link(me);
    open(&mut link, CONN, None);
    let outputs = receive(&mut link, CONN, Message::Hello(hello(from, me)).frame(0));
    let up = Event::Up { boot: from, features: 0, version: 1, guest: false };
    assert_eq!(events(outputs), [up, Event::Heard { from }]);
    link
}

fn user(from: BootId, to: BootId, position: u32) -> Frame {
    Frame {
        channel: 1,
        session: message::session(from, to),
        seq: message::seq_origin(from, to).wrapping_add(position),
        meta: Bytes::new(),
        payload: Bytes::from_static(b"x"),
    }
}

/// A field of the hello that does not match closes the connection, and the reason is told and counted.
#[test]
fn each_mismatch_of_the_hello_has_its_reason() {
    let (a, b) = pair();
    let good = hello(a, b);
    let more = Some(Expectation { of: b.nonce, received: 1 });
    let stranger = NodeId::new(cluster(), "stranger");
    let table = [
        (Hello { cluster: ClusterId::from_entropy(2), ..good.clone() }, None, Mismatch::Cluster),
        (Hello { to: stranger, ..good.clone() }, None, Mismatch::Addressee),
        (Hello { from: boot(stranger, 1), ..good.clone() }, None, Mismatch::UnknownNode),
        (Hello { from: boot(b.node, 9), ..good.clone() }, None, Mismatch::UnknownNode),
        (Hello { version_min: 2, version_max: 3, ..good.clone() }, None, Mismatch::Version),
        (Hello { expectation: more, ..good.clone() }, None, Mismatch::Expectation),
        (Hello { expectation: None, ..good.clone() }, Some(a.node), Mismatch::Boot),
    ];
    for (hello, dialled, why) in table {
        let mut link = link(b);
        open(&mut link, CONN, dialled);
        let outputs = receive(&mut link, CONN, Message::Hello(hello).frame(0));
        assert!(outputs.contains(&Output::Close { conn: CONN }), "{why:?}");
        assert_eq!(events(outputs), [Event::Mismatch { conn: CONN, why }]);
        assert_eq!(link.boot(a.node), None);
        let stats = link.stats();
        let counted = [
            stats.hello_cluster,
            stats.hello_addressee,
            stats.hello_unknown_node,
            stats.hello_other_node,
            stats.hello_version,
            stats.hello_boot,
            stats.hello_expectation,
        ];
        assert_eq!(counted.iter().sum::<u64>(), 1);
    }
}

/// Another node answers than the one dialled.
#[test]
fn a_node_that_was_not_dialled_is_refused() {
    let nodes = nodes(3);
    let (a, b, c) = (boot(nodes[0], 1), boot(nodes[1], 2), boot(nodes[2], 3));
    let mut link = Link::new(config(a, &nodes).build().unwrap(), 1, Instant::ZERO);
    open(&mut link, CONN, Some(b.node));
    let outputs = receive(&mut link, CONN, Message::Hello(hello(c, a)).frame(0));
    assert_eq!(events(outputs), [Event::Mismatch { conn: CONN, why: Mismatch::OtherNode }]);
}

#[test]
fn versions_and_features_are_what_both_speak() {
    let (a, b) = pair();
    let config = config(b, &nodes(2)).versions(2, 5).features(0b110).build().unwrap();
    let mut link = Link::new(config, 1, Instant::ZERO);
    open(&mut link, CONN, None);
    let hello = Hello { version_min: 1, version_max: 4, features: 0b011, ..hello(a, b) };
    let outputs = receive(&mut link, CONN, Message::Hello(hello).frame(0));
    assert_eq!(
        events(outputs)[0],
        Event::Up { boot: a, features: 0b010, version: 4, guest: false }
    );
}

/// Checks MB-25: a frame for a former boot of this node, or from another boot of the peer, is dropped.
#[test]
fn frames_of_other_sessions_are_dropped_and_counted() {
    let (a, b) = pair();
    let mut link = accepted(b, a);
    for (from, to) in [(a, boot(b.node, 9)), (boot(a.node, 9), b)] {
        for position in 0..4 {
            let mut frame = user(a, b, position);
            frame.session = message::session(from, to);
            assert!(receive(&mut link, CONN, frame).is_empty());
        }
    }
    assert_eq!(link.stats().dropped_session, 8);
    assert!(matches!(events(receive(&mut link, CONN, user(a, b, 1)))[0], Event::Deliver { .. }));
}

/// Checks MB-25: a new nonce voids the session, and the frames of the old boot are answered *you are dead*, once.
#[test]
fn a_new_boot_replaces_the_old_one() {
    let (a, b) = pair();
    let again = boot(a.node, 3);
    let mut link = accepted(b, a);
    send(&mut link, a, Bytes::from_static(b"for the old one"));
    open(&mut link, ConnId(2), None);
    let hello =
        Input::Received { conn: ConnId(2), frame: Message::Hello(hello(again, b)).frame(0) };
    // It has been silent for long enough; the connection stands.
    turn(&mut link, Instant::ZERO + ms(100), None);
    turn(&mut link, Instant::ZERO + ms(200), None);
    let later = Instant::ZERO + ms(250);
    let outputs = turn(&mut link, later, Some(hello));
    assert!(frames(outputs.clone()).iter().all(|frame| frame.channel == 0));
    let sent = Event::Sent { to: a, upto: 1 };
    let unsettled = Unsettled { unknown: 1..2, void: 2..2 };
    let replaced = Event::Replaced { old: a, new: again, unsettled };
    assert_eq!(events(outputs)[..2], [sent, replaced]);
    let dead = Message::Dead { you: a.nonce, by: b };
    let speaks = || Some(Input::Received { conn: CONN, frame: user(a, b, 1) });
    assert_eq!(messages(turn(&mut link, later, speaks())), [dead]);
    assert!(turn(&mut link, later, speaks()).is_empty());
    assert_eq!(link.stats().dropped_dead, 2);
    assert_eq!(link.boot(a.node), Some(again));
}

/// Checks MB-25: a hello that lingers on a connection older than the one of the known boot replaces nobody.
#[test]
fn the_hello_of_a_former_boot_comes_too_late() {
    let (a, b) = pair();
    let former = boot(a.node, 3);
    let mut link = link(b);
    open(&mut link, ConnId(1), None);
    open(&mut link, ConnId(2), None);
    receive(&mut link, ConnId(2), Message::Hello(hello(a, b)).frame(0));
    let outputs = receive(&mut link, ConnId(1), Message::Hello(hello(former, b)).frame(0));
    assert_eq!(messages(outputs), [Message::Dead { you: former.nonce, by: b }]);
    assert_eq!(link.boot(a.node), Some(a));
}

/// Checks MB-26, MB-7 and MB-8: from the isolation on all is *sent*, nothing is delivered (not even what was delivered
/// earlier in the turn), and the boot is told on its next frame, on each of its connections once.
#[test]
fn an_isolated_boot_is_void_unheard_and_told() {
    let (a, b) = pair();
    let mut link = accepted(b, a);
    send(&mut link, a, Bytes::from_static(b"1"));
    link.handle(Instant::ZERO, Input::Received { conn: CONN, frame: user(a, b, 1) });
    let outputs = turn(&mut link, Instant::ZERO, Some(Input::Isolate { boot: a }));
    assert_eq!(events(outputs), [Event::Sent { to: a, upto: 1 }]);
    let dead = Message::Dead { you: a.nonce, by: b };
    let outputs = receive(&mut link, CONN, user(a, b, 2));
    assert_eq!((messages(outputs.clone()), events(outputs)), (vec![dead.clone()], vec![]));
    assert!(receive(&mut link, CONN, user(a, b, 3)).is_empty());
    open(&mut link, ConnId(2), None);
    let outputs = receive(&mut link, ConnId(2), Message::Hello(hello(a, b)).frame(0));
    assert_eq!(messages(outputs), [dead]);
    let refused = events(send(&mut link, a, Bytes::new()));
    assert!(matches!(refused[..], [Event::NotSent { why: NotSent::Isolated, .. }]));
}

/// Checks MB-7 at the other side.
#[test]
fn the_dead_one_learns_it_if_it_is_meant() {
    let (a, b) = pair();
    let mut link = accepted(b, a);
    let other = Message::Dead { you: BootNonce(99), by: a };
    assert!(receive(&mut link, CONN, other.frame(0)).is_empty());
    let dead = Message::Dead { you: b.nonce, by: a };
    let outputs = events(receive(&mut link, CONN, dead.frame(0)));
    assert_eq!(outputs, [Event::Dead { by: a }, Event::Down { boot: a }]);
}

/// A message beyond the window comes back whole, and `Ready` follows when half of the window is free.
#[test]
fn a_full_window_gives_the_message_back() {
    let (a, b) = pair();
    let mut link = accepted(b, a);
    for _ in 0..32 {
        assert_eq!(events(send(&mut link, a, Bytes::from_static(b"in"))), []);
    }
    let back = Event::NotSent {
        why: NotSent::Full,
        to: a.node,
        channel: 1,
        meta: Bytes::new(),
        payload: Bytes::from_static(b"out"),
    };
    assert_eq!(events(send(&mut link, a, Bytes::from_static(b"out"))), [back]);
    assert_eq!(link.status(a.node), Some((32, 0)));
    let session = message::session(a, b);
    let outputs = receive(&mut link, CONN, Message::Ack { received: 15 }.frame(session));
    assert!(!events(outputs).contains(&Event::Ready { to: a }));
    // There is a place, but a message must not pass the one that was refused.
    let passing = events(send(&mut link, a, Bytes::from_static(b"out")));
    assert!(matches!(passing[..], [Event::NotSent { why: NotSent::Full, .. }]), "{passing:?}");
    let outputs = events(receive(&mut link, CONN, Message::Ack { received: 16 }.frame(session)));
    assert!(outputs.contains(&Event::Ready { to: a }));
    assert!(outputs.contains(&Event::Sent { to: a, upto: 16 }));
    assert_eq!(events(send(&mut link, a, Bytes::from_static(b"in again"))), []);
}

#[test]
fn what_can_not_be_sent_comes_back_with_the_reason() {
    let (a, b) = pair();
    let mut link = link(b);
    let refusal = |link: &mut Link, to, nonce, channel, size| {
        let payload = Bytes::from(vec![0; size]);
        let input = Input::Send { to, boot: nonce, channel, meta: Bytes::new(), payload };
        match events(turn(link, Instant::ZERO, Some(input)))[..] {
            [Event::NotSent { why, .. }] => Some(why),
            _ => None,
        }
    };
    let stranger = NodeId::new(cluster(), "stranger");
    assert_eq!(refusal(&mut link, a.node, None, 1, 1), Some(NotSent::NoSession));
    assert_eq!(refusal(&mut link, stranger, None, 1, 1), Some(NotSent::UnknownNode));
    let mut link = accepted(b, a);
    assert_eq!(refusal(&mut link, a.node, None, 0, 1), Some(NotSent::Reserved));
    assert_eq!(refusal(&mut link, a.node, None, 1, BODY_SIZE_MAX + 1), Some(NotSent::TooLarge));
    let other = Some(BootNonce(9));
    assert_eq!(refusal(&mut link, a.node, other, 1, 1), Some(NotSent::OtherBoot));
    assert_eq!(refusal(&mut link, a.node, Some(a.nonce), 1, BODY_SIZE_MAX), None);
}

/// Bad bytes change nothing but counters.
#[test]
fn garbage_changes_nothing() {
    let (a, b) = pair();
    let mut bound = accepted(b, a);
    let mut awaiting = link(b);
    open(&mut awaiting, CONN, None);
    let session = message::session(a, b);
    for link in [&mut bound, &mut awaiting] {
        let before = print(link);
        let mut rng = mainstay_base::Rng::new(5);
        for _ in 0..2_000 {
            let size = rng.below(60);
            let meta: Vec<u8> = (0..size).map(|_| rng.next_u64() as u8).collect();
            let frame = Frame { channel: 0, session, meta: meta.into(), ..Frame::default() };
            assert!(receive(link, CONN, frame).is_empty());
        }
        let trailing = Frame {
            payload: Bytes::from_static(b"x"),
            ..Message::Ack { received: 0 }.frame(session)
        };
        assert!(receive(link, CONN, trailing).is_empty());
        assert!(receive(link, CONN, Message::Ack { received: 1 }.frame(session)).is_empty());
        assert!(receive(link, ConnId(77), user(a, b, 1)).is_empty());
        assert_eq!(print(link), before);
        assert!(link.stats().dropped_garbage > 2_000);
        assert_eq!(link.stats().dropped_stray, 1);
    }
    assert!(receive(&mut awaiting, CONN, user(a, b, 1)).is_empty());
}

fn print(link: &Link) -> u128 {
    let mut into = mainstay_base::Fingerprinter::new();
    mainstay_base::Fingerprint::fingerprint(link, &mut into);
    into.finish128()
}

/// The payload in the resend buffer is the user's own allocation, and so is the one sent again.
#[test]
fn the_resend_buffer_shares_the_payload() {
    let (a, b) = pair();
    let mut link = accepted(b, a);
    let payload = Bytes::from(vec![7; 1000]);
    let first = frames(send(&mut link, a, payload.clone())).remove(0);
    turn(&mut link, Instant::ZERO, Some(Input::Closed { conn: CONN }));
    open(&mut link, ConnId(2), None);
    let outputs = receive(&mut link, ConnId(2), Message::Hello(hello(a, b)).frame(0));
    let again = frames(outputs).pop().unwrap();
    assert_eq!(first, again);
    assert!(std::ptr::eq(&raw const payload[0], &raw const again.payload[0]));
}

/// Checks MB-27 over the wrap of the numbers.
#[test]
fn sequence_numbers_wrap() {
    let nodes = nodes(2);
    let (a, mut b) = (boot(nodes[0], 1), boot(nodes[1], 2));
    while message::seq_origin(a, b) < u32::MAX - 20_000 {
        b.nonce.0 += 1;
    }
    let mut link = accepted(b, a);
    let mut last = message::seq_origin(a, b);
    let mut wrapped = false;
    for position in 1..=30_000 {
        let frame = user(a, b, position);
        wrapped |= frame.seq < last;
        last = frame.seq;
        let stale = user(a, b, position.saturating_sub(3));
        let outputs = events(receive(&mut link, CONN, frame));
        assert!(matches!(outputs[0], Event::Deliver { .. }), "{position}");
        assert_eq!(events(receive(&mut link, CONN, stale)), [Event::Heard { from: a }]);
    }
    assert!(wrapped);
    assert_eq!(link.stats().delivered, 30_000);
}

/// Idle links say nothing but heartbeats, one each way every 50 ms, and dial nobody.
#[test]
fn idle_links_exchange_only_heartbeats() {
    let mut world = World::new(1, 2, Nasty::default(), |builder| builder.build().unwrap());
    world.run(ms(1_000));
    let before = [0, 1].map(|index: usize| world.sites[index].link.stats());
    world.keep_events = true;
    world.run(ms(10_000));
    for (index, before) in before.into_iter().enumerate() {
        let after = world.sites[index].link.stats();
        let sent = after.frames_sent - before.frames_sent;
        assert_eq!(sent, after.heartbeats_sent - before.heartbeats_sent);
        assert!((199..=201).contains(&sent), "{sent}");
        assert_eq!((after.dials, after.user_resent), (before.dials, 0));
    }
    assert!(world.events.iter().all(|(_, event)| matches!(event, Event::Heard { .. })));
}

/// On a faultless network the smaller node dials once, and no frame is sent twice.
#[test]
fn a_faultless_network_needs_no_repetition() {
    let mut world = World::new(1, 3, Nasty { fifo: true, ..Nasty::default() }, |builder| {
        builder.build().unwrap()
    });
    world.run(ms(100));
    for _ in 0..20 {
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            assert!(world.send(from, to));
        }
        world.run(ms(3));
    }
    world.run(ms(100));
    assert_eq!((world.violation.clone(), world.unmet()), (None, None));
    let stats = world.sites.iter().map(|site| site.link.stats());
    let stats: Vec<_> =
        stats.map(|stats| (stats.dials, stats.user_sent, stats.user_resent)).collect();
    assert_eq!(stats, [(2, 20, 0), (1, 20, 0), (0, 20, 0)]);
}

/// Many sends in a turn are acknowledged by one frame.
#[test]
fn acknowledgements_are_coalesced() {
    let (a, b) = pair();
    let mut link = accepted(b, a);
    for position in 1..=30 {
        link.handle(Instant::ZERO, Input::Received { conn: CONN, frame: user(a, b, position) });
    }
    link.end_turn(Instant::ZERO);
    let outputs: Vec<_> = std::iter::from_fn(|| link.poll_output()).collect();
    assert_eq!(messages(outputs.clone()), [Message::Ack { received: 30 }]);
    let heard = events(outputs).into_iter().filter(|event| matches!(event, Event::Heard { .. }));
    assert_eq!(heard.count(), 1);
}

/// Two connections of one pair of boots: both ends keep the one dialled by the smaller node, and nobody is down.
#[test]
fn of_two_crossing_connections_both_ends_keep_the_same() {
    let (a, b) = pair();
    let (mine, probe) = (ConnId(1), ConnId(2));
    // At the larger node: it probes, then the other side's connection comes.
    let mut larger = link(b);
    open(&mut larger, probe, Some(a.node));
    open(&mut larger, mine, None);
    let outputs = receive(&mut larger, mine, Message::Hello(hello(a, b)).frame(0));
    assert!(outputs.contains(&Output::Close { conn: probe }));
    assert!(larger.is_connected(a.node));
    // At the smaller node: the probe is answered first, then its own dial.
    let mut smaller = link(a);
    open(&mut smaller, probe, None);
    open(&mut smaller, mine, Some(b.node));
    receive(&mut smaller, probe, Message::Hello(hello(b, a)).frame(0));
    let outputs = receive(&mut smaller, mine, Message::Hello(hello(b, a)).frame(0));
    assert!(outputs.contains(&Output::Close { conn: probe }));
    assert!(!events(outputs).iter().any(|event| matches!(event, Event::Down { .. })));
    // And the other way round.
    let mut smaller = link(a);
    open(&mut smaller, mine, Some(b.node));
    receive(&mut smaller, mine, Message::Hello(hello(b, a)).frame(0));
    open(&mut smaller, probe, None);
    let outputs = receive(&mut smaller, probe, Message::Hello(hello(b, a)).frame(0));
    assert_eq!(outputs, [Output::Close { conn: probe }]);
}

/// A refused dial is told, any other failure is not; both are tried again within `redial_max`.
#[test]
fn dials_are_repeated_with_jitter() {
    let (a, b) = pair();
    let mut link = link(a);
    let mut waits = Vec::new();
    for round in 0..10 {
        let now = link.poll_timeout().unwrap();
        assert_eq!(turn(&mut link, now, None), [Output::Dial { node: b.node }]);
        assert_eq!(link.poll_timeout(), None);
        let node = b.node;
        let refused = round % 2 == 0;
        let input = if refused { Input::Refused { node } } else { Input::Unreachable { node } };
        let told = if refused { vec![Event::Refused { node }] } else { vec![] };
        assert_eq!(events(turn(&mut link, now, Some(input))), told);
        waits.push(link.poll_timeout().unwrap() - now);
    }
    assert!(waits[0] >= ms(5) && waits[0] <= ms(10), "{waits:?}");
    assert!(waits[9] >= ms(100) && waits[9] <= ms(200), "{waits:?}");
}

/// A connection on which nothing comes is closed; a node that itself was late reads first.
#[test]
fn silence_closes_the_connection_but_not_of_one_that_slept() {
    let (a, b) = pair();
    let mut awake = accepted(b, a);
    let mut slept = awake.clone();
    let mut closed_at = None;
    while closed_at.is_none() {
        let now = awake.poll_timeout().unwrap();
        let outputs = turn(&mut awake, now, None);
        closed_at = outputs.contains(&Output::Close { conn: CONN }).then_some(now);
    }
    assert_eq!(closed_at, Some(Instant::ZERO + ms(400)));
    let late = Instant::ZERO + ms(2_000);
    assert!(!turn(&mut slept, late, None).contains(&Output::Close { conn: CONN }));
    assert!(slept.is_connected(a.node));
}

/// Connections that say nothing are bounded in number and in time.
#[test]
fn silent_strangers_are_bounded() {
    let (_, b) = pair();
    let config: Config = config(b, &nodes(2)).tables(3, 1).build().unwrap();
    let mut link = Link::new(config, 1, Instant::ZERO);
    for conn in 0..5 {
        let outputs = open(&mut link, ConnId(conn), None);
        assert_eq!(outputs.is_empty(), conn < 3);
    }
    let now = link.poll_timeout().unwrap();
    let closed = turn(&mut link, now, None);
    let closed = closed.iter().filter(|output| matches!(output, Output::Close { .. }));
    assert_eq!(closed.count(), 3);
    assert_eq!((link.stats().conns_refused, link.stats().silent_closed), (2, 3));
}

/// A user that takes slowly closes the window of its peer.
#[test]
fn what_is_not_taken_is_not_acknowledged() {
    assert_eq!(support::slow_user(|config| config), Ok(()));
}

fn guest_of(node: BootId, name: &str, nonce: u128) -> (BootId, Hello) {
    let guest = boot(NodeId::new(cluster(), name), nonce);
    let hello = hello(guest, node);
    (guest, Hello { features: message::GUEST, expectation: None, ..hello })
}

/// A link with room for one guest, on channel 1.
fn host(configure: fn(Builder) -> Builder) -> (Link, BootId) {
    let (a, _) = pair();
    let settings = config(a, &nodes(2)).guests(1, [1], ms(50));
    let settings = configure(settings);
    (Link::new(settings.build().unwrap(), 1, Instant::ZERO), a)
}

fn greet(link: &mut Link, conn: ConnId, hello: &Hello) -> Vec<Output> {
    open(link, conn, None);
    receive(link, conn, Message::Hello(hello.clone()).frame(0))
}

/// Guests are admitted as far as there is room, and none has the name of a node; a node that admits none refuses them all.
#[test]
fn guests_are_admitted_up_to_a_bound() {
    let (mut link, node) = host(|it| it);
    let (guest, hello) = guest_of(node, "g", 7);
    let outputs = greet(&mut link, CONN, &hello);
    assert_eq!(events(outputs), [Event::Up { boot: guest, features: 0, version: 1, guest: true }]);
    assert!(link.is_guest(guest.node) && link.guests() == 1);
    let refused = |outputs: Vec<Output>, conn| {
        assert_eq!(events(outputs), [Event::Mismatch { conn, why: Mismatch::Guest }]);
    };
    let (_, second) = guest_of(node, "h", 8);
    refused(greet(&mut link, ConnId(2), &second), ConnId(2));
    // A guest with the name of a node.
    let (_, b) = pair();
    let impostor = Hello { from: boot(b.node, 9), ..second.clone() };
    refused(greet(&mut link, ConnId(3), &impostor), ConnId(3));
    assert_eq!(link.stats().hello_guest, 2);
    // It says that it is no guest now.
    let changed = Hello { features: 0, ..hello };
    let outputs = greet(&mut link, ConnId(4), &changed);
    assert_eq!(events(outputs), [Event::Mismatch { conn: ConnId(4), why: Mismatch::UnknownNode }]);
    let mut none = accepted(node, b);
    refused(greet(&mut none, ConnId(5), &second), ConnId(5));
}

/// A guest that is away for too long is forgotten: there is room for another one, and when it comes back with its session it is told that
/// this is over.
#[test]
fn a_guest_that_is_away_is_forgotten() {
    let (mut link, node) = host(|it| it);
    let (guest, hello) = guest_of(node, "g", 7);
    greet(&mut link, CONN, &hello);
    send(&mut link, guest, Bytes::from_static(b"void"));
    turn(&mut link, Instant::ZERO, Some(Input::Closed { conn: CONN }));
    assert_eq!(link.boot(guest.node), Some(guest));
    let outputs = turn(&mut link, Instant::ZERO + ms(50), None);
    let unsettled = Unsettled { unknown: 1..2, void: 2..2 };
    assert!(events(outputs).contains(&Event::Gone { boot: guest, unsettled }));
    assert_eq!((link.guests(), link.stats().guests_gone), (0, 1));
    let back = Hello { expectation: Some(Expectation { of: node.nonce, received: 0 }), ..hello };
    turn(&mut link, Instant::ZERO + ms(60), Some(Input::Opened { conn: ConnId(2), dialled: None }));
    let frame = Message::Hello(back.clone()).frame(0);
    let received = Input::Received { conn: ConnId(2), frame };
    let outputs = turn(&mut link, Instant::ZERO + ms(60), Some(received));
    assert_eq!(messages(outputs), [Message::Dead { you: guest.nonce, by: node }]);
    assert_eq!(link.guests(), 0);
}

/// The guest that is told so begins anew with the same node.
#[test]
fn a_guest_whose_session_is_over_begins_anew() {
    let (a, b) = pair();
    let mut link = Link::new(config(b, &nodes(2)).as_guest().build().unwrap(), 1, Instant::ZERO);
    let outputs = open(&mut link, CONN, Some(a.node));
    let [Message::Hello(said)] = &messages(outputs)[..] else { panic!("it greets") };
    assert!(said.features == message::GUEST && said.expectation.is_none());
    receive(&mut link, CONN, Message::Hello(hello(a, b)).frame(0));
    turn(&mut link, Instant::ZERO, Some(Input::Closed { conn: CONN }));
    let outputs = open(&mut link, ConnId(2), Some(a.node));
    let [Message::Hello(said)] = &messages(outputs)[..] else { panic!("it greets") };
    assert_eq!(said.expectation, Some(Expectation { of: a.nonce, received: 0 }));
    let dead = Message::Dead { you: b.nonce, by: a };
    let outputs = receive(&mut link, ConnId(2), dead.frame(0));
    let gone = Event::Gone { boot: a, unsettled: Unsettled { unknown: 1..1, void: 1..1 } };
    assert_eq!(events(outputs), [gone]);
    assert_eq!(link.boot(a.node), None);
    let outputs = open(&mut link, ConnId(3), Some(a.node));
    let [Message::Hello(said)] = &messages(outputs)[..] else { panic!("it greets") };
    assert!(said.expectation.is_none());
}

/// A guest is heard on the channels that are named for guests, and on no other.
fn guest_channels(configure: fn(Builder) -> Builder) -> (usize, u64) {
    let (mut link, node) = host(configure);
    let (guest, hello) = guest_of(node, "g", 7);
    greet(&mut link, CONN, &hello);
    let mut delivered = 0;
    for (position, channel) in [(1, 2), (2, 1), (3, 16)] {
        let frame = Frame { channel, ..user(guest, node, position) };
        let events = events(receive(&mut link, CONN, frame));
        delivered += events.iter().filter(|it| matches!(it, Event::Deliver { .. })).count();
    }
    (delivered, link.stats().dropped_guest)
}

#[test]
fn a_guest_speaks_on_its_channels_only() {
    assert_eq!(guest_channels(|it| it), (1, 2));
}

#[cfg(feature = "test-util")]
#[test]
fn hearing_guests_on_any_channel_is_noticed() {
    use mainstay_link::fault::Fault;

    assert_eq!(guest_channels(|it| it.fault(Fault::HearsGuestsAnywhere)), (3, 0));
}

/// Connections that say nothing keep nobody out: the oldest of them makes room for the next.
#[test]
fn silent_connections_make_room() {
    let (a, b) = pair();
    let settings = config(b, &nodes(2)).tables(4, 9).build().unwrap();
    let mut link = Link::new(settings, 1, Instant::ZERO);
    for conn in 1..=9 {
        let outputs = open(&mut link, ConnId(conn), None);
        let closed = outputs.contains(&Output::Close { conn: ConnId(conn.wrapping_sub(4)) });
        assert_eq!(closed, conn > 4);
    }
    let outputs = receive(&mut link, ConnId(9), Message::Hello(hello(a, b)).frame(0));
    assert!(matches!(events(outputs)[0], Event::Up { .. }));
}

/// What a node makes of a guest that says that it is dead.
fn guest_says_dead(configure: fn(Builder) -> Builder) -> Vec<Event> {
    let (mut link, node) = host(configure);
    let (guest, hello) = guest_of(node, "g", 7);
    greet(&mut link, CONN, &hello);
    let dead = Message::Dead { you: node.nonce, by: guest };
    events(receive(&mut link, CONN, dead.frame(0)))
}

/// A guest has no say in who lives.
#[test]
fn a_guest_that_says_dead_is_not_believed() {
    assert_eq!(guest_says_dead(|it| it), []);
}

#[cfg(feature = "test-util")]
#[test]
fn believing_guests_is_noticed() {
    use mainstay_link::fault::Fault;

    let told = guest_says_dead(|it| it.fault(Fault::BelievesGuests));
    assert!(told.iter().any(|it| matches!(it, Event::Dead { .. })), "{told:?}");
}

/// A hello that lingered on a connection older than the end of a guest's session begins none: the session would be there twice.
#[test]
fn a_hello_from_before_the_end_of_a_session_begins_none() {
    let (mut link, node) = host(|it| it);
    let (guest, hello) = guest_of(node, "g", 7);
    open(&mut link, ConnId(9), None);
    greet(&mut link, CONN, &hello);
    turn(&mut link, Instant::ZERO, Some(Input::Closed { conn: CONN }));
    turn(&mut link, Instant::ZERO + ms(50), None);
    let frame = Message::Hello(hello.clone()).frame(0);
    let late = Input::Received { conn: ConnId(9), frame };
    let outputs = turn(&mut link, Instant::ZERO + ms(51), Some(late));
    assert!(outputs.contains(&Output::Close { conn: ConnId(9) }) && link.guests() == 0);
    let conn = ConnId(10);
    turn(&mut link, Instant::ZERO + ms(52), Some(Input::Opened { conn, dialled: None }));
    let frame = Message::Hello(hello).frame(0);
    turn(&mut link, Instant::ZERO + ms(52), Some(Input::Received { conn, frame }));
    assert_eq!(link.boot(guest.node), Some(guest));
}

/// The user ends a guest's session: the guest is told, and there is room for it to begin anew.
#[test]
fn a_session_of_no_use_is_ended() {
    let (mut link, node) = host(|it| it);
    let (guest, hello) = guest_of(node, "g", 7);
    greet(&mut link, CONN, &hello);
    let outputs = turn(&mut link, Instant::ZERO, Some(Input::Forget { guest }));
    assert_eq!(messages(outputs), [Message::Dead { you: guest.nonce, by: node }]);
    assert_eq!(link.guests(), 0);
    greet(&mut link, ConnId(2), &hello);
    assert_eq!(link.guests(), 1);
}

/// Strangers whose connections are of the dead keep no peer out: the oldest of them makes room.
#[test]
fn connections_of_the_dead_make_room() {
    let (a, b) = pair();
    let settings = config(a, &nodes(2)).tables(2, 9).guests(1, [1], ms(50)).build().unwrap();
    let mut link = Link::new(settings, 1, Instant::ZERO);
    for conn in 1..=4 {
        let (_, hello) = guest_of(a, &format!("g{conn}"), 7);
        let expectation = Some(Expectation { of: a.nonce, received: 0 });
        let told = messages(greet(&mut link, ConnId(conn), &Hello { expectation, ..hello }));
        assert!(matches!(told[..], [Message::Dead { .. }]));
    }
    let outputs = open(&mut link, ConnId(9), None);
    assert_eq!(outputs, [Output::Close { conn: ConnId(1) }]);
    let outputs = receive(&mut link, ConnId(9), Message::Hello(hello(b, a)).frame(0));
    assert!(matches!(events(outputs)[0], Event::Up { .. }));
}
