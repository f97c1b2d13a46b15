//! Channels step by step: refusals and room, datagrams, boots that are not met yet.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use bytes::Bytes;
use mainstay_base::rack::Given;
use mainstay_base::service::{Address, Class, Dest, PeerChange};
use mainstay_base::{BootId, BootNonce, Channel, ClusterId, Duration, Instance, Instant, NodeId};
use mainstay_link::{Event, NotSent};
use mainstay_service::mux::{CHANNEL, Frame, GUEST_WINDOW, LINK_BYTES, PART_BYTES, window};
use mainstay_service::{Mux, Services};

fn boot(name: &str) -> BootId {
    BootId { node: NodeId::new(ClusterId::from_entropy(1), name), nonce: BootNonce(1) }
}

fn of() -> Address {
    let instance = Instance::new(ClusterId::from_entropy(1), "i");
    Address { channel: Channel(20), instance }
}

/// What a service was told, in short.
fn told(mux: &mut Mux) -> Vec<String> {
    let name = |given| match given {
        Given::Peer(PeerChange::Up { .. }) => "up".to_owned(),
        Given::Peer(PeerChange::Down { .. }) => "down".to_owned(),
        Given::Peer(PeerChange::Ended { .. }) => "ended".to_owned(),
        Given::Peer(PeerChange::Replaced { .. }) => "replaced".to_owned(),
        Given::Full { meta, .. } => format!("full {}", String::from_utf8_lossy(&meta)),
        Given::Room { .. } => "room".to_owned(),
        Given::Message { meta, .. } => String::from_utf8_lossy(&meta).into_owned(),
        Given::Datagram { .. } => "datagram".to_owned(),
        _ => "else".to_owned(),
    };
    std::iter::from_fn(|| mux.poll_given()).map(|(_, given)| name(given)).collect()
}

/// Two ends, and a link between them that loses nothing.
struct Pair {
    ends: [Mux; 2],
    boots: [BootId; 2],
    now: Instant,
}

impl Pair {
    fn new(agreed: [u128; 2]) -> Self {
        let (mut ends, boots) = ([Mux::new(), Mux::new()], [boot("a"), boot("b")]);
        for (end, agreed) in ends.iter_mut().zip(agreed) {
            assert!(end.mount(of(), Class::Calls, agreed));
        }
        Self { ends, boots, now: Instant::ZERO }
    }

    fn connect(&mut self) {
        for at in 0..2 {
            let boot = self.boots[1 - at];
            self.ends[at]
                .on_link(self.now, &Event::Up { boot, features: 0, version: 1, guest: false });
        }
    }

    fn frames(&mut self, at: usize) -> Vec<Frame> {
        self.ends[at].end_turn(self.now);
        std::iter::from_fn(|| self.ends[at].poll_frame()).collect()
    }

    fn deliver(&mut self, from: usize, frames: Vec<Frame>) {
        for Frame { meta, payload, .. } in frames {
            let event = Event::Deliver { from: self.boots[from], channel: CHANNEL, meta, payload };
            self.ends[1 - from].on_link(self.now, &event);
        }
    }

    /// Until both ends know of each other.
    fn settle(&mut self) {
        for _ in 0..4 {
            for at in 0..2 {
                let frames = self.frames(at);
                self.deliver(at, frames);
            }
            self.now = self.now + Duration::from_millis(10);
        }
    }

    fn send(&mut self, name: &'static str, bytes: usize) {
        let (to, payload) = (Dest::Boot(self.boots[1]), Bytes::from(vec![0; bytes]));
        self.ends[0].send(of(), 0, &to, &Bytes::from_static(name.as_bytes()), &payload);
    }
}

#[test]
fn there_is_room_only_after_the_refusal_was_heard() {
    let mut pair = Pair::new([1, 1]);
    pair.connect();
    pair.settle();
    assert_eq!(told(&mut pair.ends[0]), ["up"]);
    pair.send("large", 1 << 20);
    pair.send("refused", 10);
    // The queue is soon free; what is sent before the refusal is heard is refused all the same.
    let frames = pair.frames(0);
    pair.deliver(0, frames);
    pair.settle();
    pair.send("too early", 10);
    assert_eq!(told(&mut pair.ends[0]), ["full refused", "full too early"]);
    pair.settle();
    assert_eq!(told(&mut pair.ends[0]), ["room"]);
    pair.send("refused", 10);
    pair.settle();
    assert_eq!(told(&mut pair.ends[1]), ["up", "large", "refused"]);
}

#[test]
fn who_was_refused_before_it_met_a_boot_is_told_of_room() {
    let mut pair = Pair::new([1, 1]);
    pair.send("early", 10);
    assert_eq!(told(&mut pair.ends[0]), ["full early"]);
    pair.connect();
    pair.send("early still", 10);
    pair.settle();
    assert_eq!(told(&mut pair.ends[0]), ["full early still", "up"]);
    pair.settle();
    assert_eq!(told(&mut pair.ends[0]), ["room"]);
}

#[test]
fn datagrams_are_bounded_and_lost_beyond() {
    let mut pair = Pair::new([1, 1]);
    pair.connect();
    pair.settle();
    let (to, payload) = (pair.boots[1].node, Bytes::from(vec![0; 60_000]));
    for round in 1..4 {
        (0..200).for_each(|_| pair.ends[0].send_datagram(of(), to, &Bytes::new(), payload.clone()));
        let frames = pair.frames(0);
        let bytes: usize = frames.iter().map(|it| it.meta.len() + it.payload.len()).sum();
        assert!(bytes > 0 && bytes < LINK_BYTES / 8, "{bytes}");
        assert_eq!(pair.ends[0].stats().lost, round * (200 - frames.len() as u64));
        pair.deliver(0, frames);
        pair.settle();
    }
    assert_eq!(told(&mut pair.ends[1]).iter().filter(|it| *it == "datagram").count(), 12);
}

#[test]
fn ends_with_other_settings_hear_nothing_of_each_other() {
    let mut pair = Pair::new([1, 2]);
    pair.connect();
    pair.settle();
    pair.send("message", 10);
    pair.ends[0].send_datagram(of(), pair.boots[1].node, &Bytes::new(), Bytes::new());
    pair.settle();
    assert_eq!(told(&mut pair.ends[1]), Vec::<String>::new());
    assert_eq!(pair.ends[1].stats().stray, 1);
}

/// The instance of a peer that lives on ends, and is mounted there again; a boot that is gone for good is told of in other words.
#[test]
fn the_end_of_an_instance_is_not_that_of_its_boot() {
    let mut pair = Pair::new([1, 1]);
    pair.connect();
    pair.settle();
    pair.ends[1].dismount(of());
    pair.settle();
    assert_eq!(told(&mut pair.ends[0]), ["up", "ended"]);
    assert!(pair.ends[1].mount(of(), Class::Calls, 1));
    pair.settle();
    assert_eq!(told(&mut pair.ends[0]), ["up"]);
    // It is another one by the time that the peer hears of it.
    assert!(pair.ends[1].mount(of(), Class::Calls, 1));
    pair.settle();
    assert_eq!(told(&mut pair.ends[0]), ["ended", "up"]);
    let boot = pair.boots[1];
    pair.ends[0].forget(boot, None);
    assert_eq!(told(&mut pair.ends[0]), ["replaced"]);
}

/// A peer that acknowledges nothing fills the link: it is given up, for its streams have a hole.
#[test]
fn a_peer_that_the_link_has_no_room_for_is_given_up() {
    let mut pair = Pair::new([1, 1]);
    pair.connect();
    pair.settle();
    let to = pair.boots[1].node;
    let (meta, payload, channel) = (Bytes::new(), Bytes::new(), CHANNEL);
    let event = Event::NotSent { why: NotSent::Full, to, channel, meta, payload };
    pair.ends[0].on_link(pair.now, &event);
    pair.send("in vain", 10);
    assert_eq!(told(&mut pair.ends[0]), ["up", "replaced", "full in vain"]);
    pair.connect();
    pair.settle();
    assert_eq!(told(&mut pair.ends[0]), Vec::<String>::new());
    assert_eq!(pair.ends[0].stats().overflow, 1);
    pair.ends[0].check_invariants();
}

/// A peer that sends more than it was granted is not heard beyond that, until it is told that there is room.
#[test]
fn what_was_not_granted_is_dropped() {
    let mut pair = Pair::new([1, 1]);
    pair.connect();
    pair.settle();
    pair.send("message", 60_000);
    let frames = pair.frames(0);
    assert_eq!((told(&mut pair.ends[1]).len(), frames.len()), (1, 1));
    for _ in 0..100 {
        pair.deliver(0, frames.clone());
    }
    let heard = told(&mut pair.ends[1]).len() as u64;
    assert!((10..20).contains(&heard), "{heard}");
    assert_eq!(pair.ends[1].stats().overrun, 100 - heard);
    pair.frames(1);
    pair.deliver(0, frames);
    assert_eq!(told(&mut pair.ends[1]), ["message"]);
}

/// Any bytes in a frame are dropped and counted.
#[test]
fn garbage_in_frames_does_no_harm() {
    let mut pair = Pair::new([1, 1]);
    pair.connect();
    pair.settle();
    pair.send("message", 70_000);
    let frames = pair.frames(0);
    for Frame { meta, payload, .. } in &frames {
        for end in 0..meta.len() {
            for flip in [0, 1, 0x80] {
                let mut bytes = meta.to_vec();
                bytes[end] ^= flip;
                bytes.truncate(end + usize::from(flip > 0) * meta.len());
                let event = Event::Deliver {
                    from: pair.boots[0],
                    channel: CHANNEL,
                    meta: bytes.into(),
                    payload: payload.clone(),
                };
                pair.ends[1].on_link(pair.now, &event);
                pair.ends[1].end_turn(pair.now);
                pair.ends[1].check_invariants();
            }
        }
    }
    let stats = pair.ends[1].stats();
    assert!(stats.malformed > 50, "{stats:?}");
}

/// What was sent to boots that are gone for ever, by one that did not know, takes no place of boots that are to come.
#[test]
fn room_follows_whatever_was_sent_to_boots_that_are_gone() {
    let at = |name, nonce| BootId { nonce: BootNonce(nonce), ..boot(name) };
    let send = |mux: &mut Mux, to| mux.send(of(), 0, &Dest::Boot(to), &Bytes::new(), &Bytes::new());
    let (mut mux, mut peer, now) = (Mux::new(), Mux::new(), Instant::ZERO);
    assert!(mux.mount(of(), Class::Calls, 1) && peer.mount(of(), Class::Calls, 1));
    for nonce in 1..5_000 {
        let (old, new) = (at("b", nonce), at("b", nonce + 1));
        mux.on_link(now, &Event::Up { boot: old, features: 0, version: 1, guest: false });
        mux.on_link(now, &Event::Replaced { old, new, unsettled: Default::default() });
        send(&mut mux, old);
        assert_eq!(told(&mut mux), ["replaced", "full "]);
    }
    let next = boot("c");
    send(&mut mux, next);
    assert_eq!(told(&mut mux), ["full "]);
    mux.on_link(now, &Event::Up { boot: next, features: 0, version: 1, guest: false });
    peer.on_link(now, &Event::Up { boot: boot("a"), features: 0, version: 1, guest: false });
    peer.end_turn(now);
    while let Some(Frame { meta, payload, .. }) = peer.poll_frame() {
        mux.on_link(now, &Event::Deliver { from: next, channel: CHANNEL, meta, payload });
    }
    mux.end_turn(now);
    assert_eq!(told(&mut mux), ["up"]);
    mux.end_turn(now);
    assert_eq!(told(&mut mux), ["room"]);
}

/// A stream that nobody takes in stops itself: others of its class go on, small messages and such as go in parts.
#[test]
fn a_stream_that_is_stuck_stops_no_other_of_its_class() {
    for (round, size) in [10_000, 100_000].into_iter().enumerate() {
        let mut pair = Pair::new([1, 1]);
        let other = Address { channel: Channel(21), ..of() };
        assert!(pair.ends[1].mount_beside(of(), Class::Calls, 1));
        for end in &mut pair.ends {
            assert!(end.mount(other, Class::Calls, 1));
        }
        pair.connect();
        pair.settle();
        let count = |mux: &mut Mux, which| {
            let given = std::iter::from_fn(|| mux.poll_given());
            let is_it = |(of, given): &(Address, Given)| {
                *of == which && matches!(given, Given::Message { .. })
            };
            given.filter(is_it).count()
        };
        // The actor has heard that the peer is up, and takes in nothing from here on.
        count(&mut pair.ends[0], other);
        let mut stuck = 0;
        for _ in 0..300 {
            pair.send("stuck", size);
            pair.settle();
            stuck += count(&mut pair.ends[1], of());
        }
        let window = window(Class::Calls) as usize;
        assert!((window * 8 / 10..=window + size).contains(&(stuck * size)), "{round}: {stuck}");
        for sent in 1..=40 {
            let (to, payload) = (Dest::Boot(pair.boots[1]), Bytes::from(vec![0; 100_000]));
            pair.ends[0].send(other, 0, &to, &Bytes::new(), &payload);
            pair.settle();
            assert_eq!(count(&mut pair.ends[1], other), 1, "round {round}: number {sent} comes");
            pair.ends[0].check_invariants();
        }
        assert_eq!(count(&mut pair.ends[1], of()), 0, "it is stuck still");
    }
}

/// Where datagrams have a way of their own, one that comes by a connection is of somebody who has proved nothing.
#[test]
fn a_datagram_over_a_connection_is_dropped_where_they_go_elsewhere() {
    let mut pair = Pair::new([1, 1]);
    pair.connect();
    pair.settle();
    pair.ends[1].send_datagrams_outside();
    let to = pair.boots[1].node;
    pair.ends[0].send_datagram(of(), to, &Bytes::new(), Bytes::new());
    pair.settle();
    assert_eq!(told(&mut pair.ends[1]), ["up"]);
    assert_eq!(pair.ends[1].stats().stray, 1);
}

/// A datagram that is larger than one may be is of no protocol.
#[test]
fn a_datagram_that_is_too_large_is_dropped() {
    let mut pair = Pair::new([1, 1]);
    pair.connect();
    pair.settle();
    let (to, payload) = (pair.boots[1].node, Bytes::from(vec![0; PART_BYTES]));
    pair.ends[0].send_datagram(of(), to, &Bytes::new(), payload);
    let mut frames = pair.frames(0);
    pair.deliver(0, frames.clone());
    assert_eq!(told(&mut pair.ends[1]), ["up", "datagram"]);
    frames[0].payload = Bytes::from(vec![0; PART_BYTES + 1]);
    pair.deliver(0, frames);
    assert_eq!(told(&mut pair.ends[1]), Vec::<String>::new());
    assert_eq!(pair.ends[1].stats().malformed, 1);
}

/// A node without services has no turn for them, but for what a peer has mounted: that it has seen, and it says so at once.
#[test]
fn a_node_without_services_answers_and_is_left_alone() {
    let (mut node, mut peer) = (Services::new(), Mux::new());
    let (here, there, now) = (boot("a"), boot("b"), Instant::ZERO);
    assert!(peer.mount(of(), Class::Calls, 1));
    peer.on_link(now, &Event::Up { boot: here, features: 0, version: 1, guest: false });
    assert!(!node.is_wanted());
    node.on_link(now, Event::Up { boot: there, features: 0, version: 1, guest: false });
    node.on_link(now, Event::Heard { from: there });
    assert!(!node.is_wanted());
    peer.end_turn(now);
    let list = peer.poll_frame().unwrap();
    let Frame { meta, payload, .. } = list;
    let event = Event::Deliver { from: there, channel: CHANNEL, meta, payload };
    assert_eq!(node.on_link(now, event), None);
    assert!(node.is_wanted());
    node.end_turn(now);
    assert!(node.poll_frame().is_some());
    node.end_turn(now);
    assert!(node.poll_frame().is_none() && !node.is_wanted());
    assert_eq!(node.poll_timeout(), None);
}

/// A node and a guest of it, which have two instances; guests hear the first, at the guest all are open.
struct Visit {
    pair: Pair,
    other: Address,
}

impl Visit {
    fn new(configure: fn(&mut Mux)) -> Self {
        let mut pair = Pair::new([1, 1]);
        let other = Address { channel: Channel(21), ..of() };
        for end in &mut pair.ends {
            assert!(end.mount(other, Class::Calls, 1));
        }
        pair.ends[0].open_to_guests(of());
        pair.ends[1].be_guest();
        configure(&mut pair.ends[0]);
        for at in 0..2 {
            let boot = pair.boots[1 - at];
            let up = Event::Up { boot, features: 0, version: 1, guest: true };
            pair.ends[at].on_link(pair.now, &up);
        }
        pair.settle();
        Self { pair, other }
    }

    /// Who was told that the other end is up, at the node.
    fn heard(&mut self) -> Vec<Address> {
        let given = std::iter::from_fn(|| self.pair.ends[0].poll_given());
        let up = given.filter(|(_, it)| matches!(it, Given::Peer(PeerChange::Up { .. })));
        up.map(|(of, _)| of).collect()
    }
}

/// A guest hears of what is open to guests, and of nothing else, whatever it says that it has.
#[test]
fn a_guest_meets_what_is_open() {
    assert_eq!(Visit::new(|_| {}).heard(), [of()]);
    let mut visit = Visit::new(|_| {});
    let (to, empty) = (Dest::Boot(visit.pair.boots[0]), Bytes::new());
    visit.pair.ends[1].send(visit.other, 0, &to, &empty, &empty);
    visit.pair.ends[1].send(of(), 0, &to, &empty, &empty);
    visit.pair.settle();
    let messages = std::iter::from_fn(|| visit.pair.ends[0].poll_given());
    let messages = messages.filter(|(_, it)| matches!(it, Given::Message { .. }));
    assert_eq!(messages.map(|(of, _)| of).collect::<Vec<_>>(), [of()]);
    // What is opened later is met later.
    let mut visit = Visit::new(|_| {});
    visit.heard();
    let other = visit.other;
    visit.pair.ends[0].open_to_guests(other);
    visit.pair.settle();
    assert_eq!(visit.heard(), [other]);
}

#[cfg(feature = "test-util")]
#[test]
fn being_open_to_all_is_noticed() {
    let mut visit = Visit::new(|node| node.break_it(mainstay_service::fault::Fault::OpenToAll));
    assert_eq!(visit.heard(), [of(), visit.other]);
}

/// What is on the way to a guest is bounded by the smaller window, and what guests have begun to send by one number for all of them.
#[test]
fn a_guest_has_a_small_window() {
    let mut visit = Visit::new(|_| {});
    let to = Dest::Boot(visit.pair.boots[1]);
    let payload = Bytes::from(vec![0; 60 << 10]);
    for _ in 0..16 {
        visit.pair.ends[0].send(of(), 0, &to, &Bytes::new(), &payload);
    }
    let frames = visit.pair.frames(0);
    let bytes: usize = frames.iter().map(|it| it.meta.len() + it.payload.len()).sum();
    assert!(bytes > 100 << 10 && bytes as u64 <= GUEST_WINDOW, "{bytes}");
}

/// Of the guests that begin large messages and never end them the one with the most goes when there is too much; who sends little is served.
#[test]
fn what_guests_begin_is_bounded() {
    const SENT: usize = 14 << 20;
    let mut node = Mux::new();
    assert!(node.mount(of(), Class::Calls, 1));
    node.open_to_guests(of());
    let mut to_end = Vec::new();
    for number in 0..6 {
        let mut guest = Mux::new();
        assert!(guest.mount(of(), Class::Calls, 1));
        guest.be_guest();
        let boots = [boot("a"), boot(&format!("guest {number}"))];
        let mut pair = Pair { ends: [node, guest], boots, now: Instant::ZERO };
        for at in 0..2 {
            let boot = pair.boots[1 - at];
            let up = Event::Up { boot, features: 0, version: 1, guest: true };
            pair.ends[at].on_link(pair.now, &up);
        }
        pair.settle();
        let (to, large) = (Dest::Boot(pair.boots[0]), Bytes::from(vec![0; SENT + (1 << 20)]));
        pair.ends[1].send(of(), 0, &to, &Bytes::new(), &large);
        let mut sent = 0;
        while sent < SENT - number * PART_BYTES && pair.ends[0].stats().overflow == 0 {
            let frames = pair.frames(1);
            sent += frames.iter().map(|it| it.payload.len()).sum::<usize>();
            pair.deliver(1, frames);
            let frames = pair.frames(0);
            pair.deliver(0, frames);
            pair.now = pair.now + Duration::from_millis(10);
        }
        let [back, _] = pair.ends;
        node = back;
        to_end.extend(std::iter::from_fn(|| node.poll_to_end()));
    }
    assert_eq!(to_end, [boot("guest 0")], "it has the most");
    assert_eq!(node.stats().overflow, 1);
    node.check_invariants();
}

/// A list of what is mounted that comes before the last one was answered is dropped.
#[test]
fn lists_come_one_at_a_time() {
    let mut pair = Pair::new([1, 1]);
    pair.connect();
    let frames = pair.frames(1);
    pair.deliver(1, frames.clone());
    pair.deliver(1, frames);
    assert_eq!(pair.ends[0].stats().malformed, 1);
}
