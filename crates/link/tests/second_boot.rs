//! A second process under the name of a node that lives is turned away, and let in when the first one is gone.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use bytes::Bytes;
use mainstay_base::{BootId, BootNonce, ConnId, Frame, Instant, Machine, NodeId};
use mainstay_link::message::{self, Expectation, Hello, Message};
use mainstay_link::{Event, Input, Link, Output, Unsettled};
use support::{cluster, config, ms, nodes, second::second, turn};

const FIRST: ConnId = ConnId(1);
const OTHER: ConnId = ConnId(2);

fn boot(node: NodeId, nonce: u128) -> BootId {
    BootId { node, nonce: BootNonce(nonce) }
}

/// Two nodes in the order of their ids, and a second boot of the first of them.
fn boots() -> (BootId, BootId, BootId) {
    let nodes = nodes(2);
    (boot(nodes[0], 1), boot(nodes[1], 2), boot(nodes[0], 3))
}

/// Nothing was under way to `old`.
fn replaced(old: BootId, new: BootId) -> Event {
    Event::Replaced { old, new, unsettled: Unsettled { unknown: 1..1, void: 1..1 } }
}

fn link(me: BootId) -> Link {
    Link::new(config(me, &nodes(2)).build().unwrap(), 1, Instant::ZERO)
}

fn hello(from: BootId, to: BootId) -> Frame {
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        cluster: cluster(),
        from,
        to: to.node,
        roster_version: 0,
        expectation: Some(Expectation { of: to.nonce, received: 0 }),
    };
    Message::Hello(hello).frame(0)
}

fn user(from: BootId, to: BootId, position: u32) -> Frame {
    let seq = message::seq_origin(from, to).wrapping_add(position);
    let payload = Bytes::from_static(b"x");
    Frame { channel: 1, session: message::session(from, to), seq, meta: Bytes::new(), payload }
}

fn opened(link: &mut Link, at: u64, conn: ConnId, dialled: Option<NodeId>) -> Vec<Output> {
    turn(link, Instant::ZERO + ms(at), Some(Input::Opened { conn, dialled }))
}

fn received(link: &mut Link, at: u64, conn: ConnId, frame: Frame) -> Vec<Output> {
    turn(link, Instant::ZERO + ms(at), Some(Input::Received { conn, frame }))
}

/// Lets the link take the turns that its deadlines ask for, between these moments.
fn runs(link: &mut Link, from: u64, to: u64) {
    let [from, to] = [from, to].map(|at| Instant::ZERO + ms(at));
    while let Some(due) = link.poll_timeout().filter(|due| *due <= to) {
        turn(link, due.max(from), None);
    }
}

fn taken(you: BootId, by: BootId) -> Frame {
    Message::Taken { you: you.nonce, by }.frame(0)
}

/// What a hello of a second boot is answered.
fn turned_away(conn: ConnId, you: BootId, by: BootId) -> [Output; 2] {
    [Output::Transmit { conn, frame: taken(you, by) }, Output::Close { conn }]
}

/// A link that has accepted `from` at the beginning.
fn accepted(me: BootId, from: BootId) -> Link {
    let mut link = link(me);
    opened(&mut link, 0, FIRST, None);
    received(&mut link, 0, FIRST, hello(from, me));
    assert!(link.is_connected(from.node));
    link
}

fn events(outputs: Vec<Output>) -> Vec<Event> {
    let event = |output| if let Output::Event(event) = output { Some(event) } else { None };
    outputs.into_iter().filter_map(event).collect()
}

/// While the first boot speaks, the second one is told that its name is taken, its connection is closed, and nothing else
/// happens: the session of the first goes on.
#[test]
fn a_second_boot_is_turned_away_while_the_first_lives() {
    let (a, b, again) = boots();
    let mut link = accepted(b, a);
    for round in 1..20_u32 {
        let (at, conn) = (u64::from(round) * 100, ConnId(10 + u64::from(round)));
        runs(&mut link, at - 100, at);
        let outputs = events(received(&mut link, at, FIRST, user(a, b, round)));
        assert!(matches!(outputs[0], Event::Deliver { .. }));
        assert_eq!(opened(&mut link, at, conn, None), []);
        assert_eq!(received(&mut link, at, conn, hello(again, b)), turned_away(conn, again, b));
    }
    assert_eq!((link.boot(a.node), link.stats().taken_sent), (Some(a), 19));
}

/// When the connection of the first boot is gone, the second one is let in at once.
#[test]
fn it_is_let_in_when_the_connection_of_the_first_is_gone() {
    let (a, b, again) = boots();
    let mut link = accepted(b, a);
    opened(&mut link, 10, OTHER, None);
    turn(&mut link, Instant::ZERO + ms(10), Some(Input::Closed { conn: FIRST }));
    let outputs = events(received(&mut link, 10, OTHER, hello(again, b)));
    assert_eq!(outputs[0], replaced(a, again));
}

/// When the first boot is silent for as long as it takes to suspect it, the second one is let in, though the connection of
/// the first stands; one moment earlier it is not.
#[test]
fn it_is_let_in_when_the_first_is_silent() {
    let (a, b, again) = boots();
    for (at, is_let_in) in [(249, false), (250, true)] {
        let mut link = accepted(b, a);
        runs(&mut link, 0, at);
        opened(&mut link, at, OTHER, None);
        let outputs = received(&mut link, at, OTHER, hello(again, b));
        let replaced = Output::Event(replaced(a, again));
        assert_eq!(outputs.contains(&replaced), is_let_in);
        assert_eq!(outputs == turned_away(OTHER, again, b), !is_let_in);
    }
}

/// An isolated boot holds its name no more.
#[test]
fn it_is_let_in_when_the_first_is_isolated() {
    let (a, b, again) = boots();
    let mut link = accepted(b, a);
    turn(&mut link, Instant::ZERO, Some(Input::Isolate { boot: a }));
    opened(&mut link, 0, OTHER, None);
    let outputs = events(received(&mut link, 0, OTHER, hello(again, b)));
    let unsettled = Unsettled::default();
    assert!(outputs.contains(&Event::Replaced { old: a, new: again, unsettled }));
}

/// A node that was late itself gives the first boot a fresh period, and no more than one.
#[test]
fn one_that_slept_listens_first() {
    let (a, b, again) = boots();
    let mut link = accepted(b, a);
    opened(&mut link, 1_000, OTHER, None);
    let outputs = received(&mut link, 1_000, OTHER, hello(again, b));
    assert_eq!(outputs, turned_away(OTHER, again, b));
    runs(&mut link, 1_000, 1_250);
    opened(&mut link, 1_250, ConnId(3), None);
    let outputs = events(received(&mut link, 1_250, ConnId(3), hello(again, b)));
    assert!(outputs.contains(&replaced(a, again)));
}

/// A second process that answers at the address where the first one was dialled is turned away as well.
#[test]
fn an_answer_of_a_second_boot_is_turned_away() {
    let (a, b, _) = boots();
    let again = boot(b.node, 3);
    let mut link = link(a);
    opened(&mut link, 0, FIRST, None);
    received(&mut link, 0, FIRST, hello(b, a));
    // It was dialled before the first one came.
    opened(&mut link, 0, OTHER, Some(b.node));
    let outputs = received(&mut link, 0, OTHER, hello(again, a));
    assert_eq!(outputs, turned_away(OTHER, again, a));
    assert_eq!((link.boot(b.node), link.is_connected(b.node)), (Some(b), true));
}

/// The one that is turned away closes, knows by whom, and asks again after the usual wait; what is not meant for it is
/// garbage. It is said of a peer until that peer takes it, or does not answer.
#[test]
fn it_knows_by_whom_and_asks_again() {
    let (a, b, again) = boots();
    let refused = |link: &Link| link.refused_by().collect::<Vec<_>>();
    let mut link = link(again);
    turn(&mut link, Instant::ZERO, None);
    opened(&mut link, 0, FIRST, Some(b.node));
    for frame in [taken(a, b), taken(again, a), taken(again, boot(a.node, 9))] {
        assert_eq!(received(&mut link, 0, FIRST, frame), []);
    }
    assert_eq!((refused(&link), link.stats().dropped_garbage), (vec![], 3));
    let mut conn = FIRST;
    for round in 1..10 {
        let outputs = received(&mut link, round * 1_000, conn, taken(again, b));
        assert_eq!(outputs, [Output::Close { conn }]);
        assert_eq!(refused(&link), [b.node]);
        let due = link.poll_timeout().unwrap();
        assert!(due <= Instant::ZERO + ms(round * 1_000 + 500));
        assert_eq!(turn(&mut link, due, None), [Output::Dial { node: b.node }]);
        conn = ConnId(10 + round);
        opened(&mut link, round * 1_000 + 500, conn, Some(b.node));
        assert_eq!(refused(&link), [b.node], "asking changes nothing");
    }
    let mut silent = link.clone();
    let mut unanswered = link.clone();
    received(&mut link, 10_000, conn, hello(b, again));
    assert!(refused(&link).is_empty() && link.is_connected(b.node));
    turn(&mut unanswered, Instant::ZERO + ms(10_000), Some(Input::Closed { conn }));
    assert_eq!(refused(&unanswered), [b.node], "its last word stands");
    turn(&mut unanswered, Instant::ZERO + ms(10_000), Some(Input::Refused { node: b.node }));
    assert!(refused(&unanswered).is_empty());
    assert_eq!(turn(&mut silent, Instant::ZERO + ms(10_000), None)[0], Output::Close { conn });
    assert!(refused(&silent).is_empty());
    assert_eq!(unanswered.stats().taken_received, 9);
}

/// One that answered before it was turned away is down with that peer.
#[test]
fn it_may_be_turned_away_after_its_answer() {
    let (a, b, _) = boots();
    let mut link = accepted(b, a);
    let outputs = received(&mut link, 1, FIRST, taken(b, a));
    assert_eq!(outputs, [Output::Close { conn: FIRST }, Output::Event(Event::Down { boot: a })]);
    assert_eq!(link.refused_by().collect::<Vec<_>>(), [a.node]);
}

/// The side that is dialled asks by itself when nobody has come for long: a second process would not learn otherwise
/// that the others dial the first one.
#[test]
fn one_that_nobody_dials_asks() {
    let (a, b, _) = boots();
    let mut link = link(b);
    assert_eq!(link.poll_timeout(), Some(Instant::ZERO + ms(400)));
    assert_eq!(turn(&mut link, Instant::ZERO + ms(400), None), [Output::Dial { node: a.node }]);
    turn(&mut link, Instant::ZERO + ms(400), Some(Input::Refused { node: a.node }));
    let again = link.poll_timeout().unwrap();
    assert_eq!(turn(&mut link, again, None), [Output::Dial { node: a.node }]);
    let mut dialled = accepted(b, a);
    dialled.handle_timeout(Instant::ZERO + ms(100));
    dialled.end_turn(Instant::ZERO + ms(100));
    let outputs: Vec<_> = std::iter::from_fn(|| dialled.poll_output()).collect();
    assert!(!outputs.contains(&Output::Dial { node: a.node }));
    assert_eq!(dialled.stats().dials, 0);
}

/// Over many networks: while the first process lives nobody replaces it (also checked at every event), the second is
/// turned away by all; when the first crashes or stands still the second takes its place, and then keeps it against the
/// first.
#[test]
fn of_two_processes_under_one_name_the_first_stays_while_it_lives() {
    for seed in 0..300 {
        let run = second(seed, |builder| builder.build().unwrap());
        assert_eq!(run, Ok(()), "seed {seed}");
    }
}
