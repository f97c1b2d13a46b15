//! What goes over the wire: round trips, golden vectors, and whatever else a peer may send.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use bytes::Bytes;
use mainstay_base::codec::DecodeError;
use mainstay_base::service::Wire;
use mainstay_base::{Incarnation, Rng, ViewId};
use mainstay_clock::graph::{Config, Graph, Id, Links, ReceiveError, Received};
use mainstay_clock::multipart::{PartsError, Table, Timestamp};
use mainstay_clock::vector::{self, Counting, Packed, Packer, UnpackError, Unpacker};
use mainstay_clock::{COUNT_MAX, MEMBERS_MAX, Rank, Relation, Time, hybrid, scalar};
use proptest::prelude::*;
use support::rules::{sites, table};

fn bytes<T: Wire>(value: &T) -> Bytes {
    value.encode().0
}

fn decoded<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::decode(bytes, Bytes::new())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn links(before: Vec<Id>) -> Links {
    Links { sender: Rank(1), incarnation: Incarnation(1), number: 5, null: false, before }
}

fn id(rank: u16, number: u64) -> Id {
    Id { rank: Rank(rank), number }
}

/// The golden vectors: they may never change.
#[test]
fn the_wire_forms_are_frozen() {
    let view = ViewId { number: 3, nonce: 9 };
    let whole = Packed::Whole { view, counts: vec![1, 300, 0] };
    assert_eq!(hex(&bytes(&whole)), "81a557686f6c65929203099301cd012c00");
    let changes = Packed::Changes { since: 7, grown: vec![(Rank(2), 1)] };
    assert_eq!(hex(&bytes(&changes)), "81a74368616e676573920791920201");
    let moment = hybrid::Moment { time: Time::from_nanos(1 << 40), count: 2 };
    assert_eq!(hex(&bytes(&moment)), "92cf000001000000000002");
    let named = links(vec![id(0, 4), id(1, 4)]);
    assert_eq!(hex(&bytes(&named)), "95010105c29292000492".to_owned() + "0104");
    let stamp = scalar::Stamp { counter: 4, site: sites(1)[0] };
    assert!(hex(&bytes(&stamp)).starts_with("9204"));
    let parts: Timestamp = decoded(&[0x92, 1, 2]).unwrap();
    assert_eq!((parts.parts(), hex(&bytes(&parts))), (&[1, 2][..], "920102".to_owned()));
}

/// A difference is small: what one message costs in a conversation of 16.
#[test]
fn a_difference_is_shorter_than_the_whole() {
    let members = table(16);
    let mut clock = vector::Clock::new(members, sites(16)[3], Counting::Events).unwrap();
    let mut packer = Packer::new(Rank(3));
    let whole = bytes(&packer.pack(&clock.send()));
    let difference = bytes(&packer.pack(&clock.send()));
    assert!(difference.len() < 16 && whole.len() >= 26, "{} {}", difference.len(), whole.len());
}

/// Every stamp comes over a channel that loses, repeats and reorders, or is refused; none comes as another.
#[test]
fn a_packed_stamp_comes_as_it_was_or_not_at_all() {
    let (mut refused, mut small) = (0, 0);
    for seed in mainstay_sim::seeds(0..100) {
        let mut rng = Rng::new(seed);
        let members = table(8);
        let clock = |at: usize| vector::Clock::new(members.clone(), sites(8)[at], Counting::Events);
        let mut clocks: Vec<_> = (0..8).map(|at| clock(at).unwrap()).collect();
        let mut packer = Packer::new(Rank(0));
        let mut unpacker = Unpacker::new(members.clone(), Rank(0));
        let mut flying = Vec::new();
        for _ in 0..200 {
            let other = rng.between(1, 7) as usize;
            let heard = clocks[other].send();
            if rng.chance(1, 3) {
                clocks[0].receive(&heard).unwrap();
            }
            let sent = clocks[0].send();
            flying.push((packer.pack(&sent), sent));
            let chosen =
                if rng.chance(9, 10) { 0 } else { rng.below(flying.len() as u64) as usize };
            let (packed, sent) = flying[chosen].clone();
            if rng.chance(19, 20) {
                flying.remove(chosen);
            }
            small += usize::from(matches!(packed, Packed::Changes { .. }));
            match unpacker.unpack(decoded(&bytes(&packed)).unwrap()) {
                Ok(stamp) => assert_eq!(stamp, sent),
                Err(UnpackError::Base { .. }) => {
                    refused += 1;
                    packer.restart();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(refused > 500 && small > 5_000, "{refused} {small}");
}

/// What does not fit is refused by name.
#[test]
fn packed_stamps_of_others_are_refused() {
    let members = table(3);
    let view = members.view();
    let mut unpacker = Unpacker::new(members.clone(), Rank(0));
    let other = ViewId { nonce: 8, ..view };
    let mut refused = |packed| unpacker.unpack(packed).unwrap_err();
    let whole = |view, counts: &[u64]| Packed::Whole { view, counts: counts.to_vec() };
    assert!(matches!(refused(whole(other, &[1, 2, 3])), UnpackError::OtherView(_)));
    assert_eq!(refused(whole(view, &[1, 2])), UnpackError::Length(2));
    assert_eq!(refused(whole(view, &[0; 100_000])), UnpackError::Length(100_000));
    assert_eq!(refused(whole(view, &[0, COUNT_MAX + 1, 0])), UnpackError::TooLarge(Rank(1)));
    let changes = |since, grown: &[(u16, u64)]| {
        let grown = grown.iter().map(|(rank, by)| (Rank(*rank), *by)).collect();
        Packed::Changes { since, grown }
    };
    assert_eq!(refused(changes(0, &[])), UnpackError::Base { since: 0, last: None });
    unpacker.unpack(whole(view, &[4, 0, 0])).unwrap();
    let mut refused = |packed| unpacker.unpack(packed).unwrap_err();
    assert_eq!(refused(changes(3, &[])), UnpackError::Base { since: 3, last: Some(4) });
    assert_eq!(refused(changes(4, &[(3, 1)])), UnpackError::Rank(Rank(3)));
    assert_eq!(refused(changes(4, &[(1, 1), (1, 1)])), UnpackError::Rank(Rank(1)));
    assert_eq!(refused(changes(4, &[(0, u64::MAX)])), UnpackError::TooLarge(Rank(0)));
    assert_eq!(refused(changes(4, &[(0, COUNT_MAX)])), UnpackError::TooLarge(Rank(0)));
    assert_eq!(unpacker.unpack(changes(4, &[(1, 2)])).unwrap().counts(), [4, 2, 0]);
}

/// Timestamps of another number of replicas are refused, and none is made that is too large.
#[test]
fn timestamps_that_do_not_fit_are_refused() {
    let (two, mut three) = (Timestamp::zero(2).unwrap(), Timestamp::zero(3).unwrap());
    let refused = PartsError::Count { ours: 3, theirs: 2 };
    assert_eq!(three.merge(&two), Err(refused));
    assert_eq!(three.relation(&two), Err(refused));
    assert!(Timestamp::zero(0).is_err() && Timestamp::zero(MEMBERS_MAX + 1).is_err());
    let large: Timestamp = decoded(&[0x91, 0xcf, 255, 255, 255, 255, 255, 255, 255, 255]).unwrap();
    let mut table = Table::new(1).unwrap();
    assert_eq!(table.record(Rank(0), &large), Err(PartsError::TooLarge(Rank(0))));
    assert_eq!(table.record(Rank(1), &large), Err(PartsError::Rank(Rank(1))));
}

/// Each way in which the links of a message can be wrong has its name, and leaves the graph as it was.
#[test]
fn wrong_links_are_refused_by_name() {
    let members = table(3);
    let new = |at: usize| Graph::new(Config::default(), &members, sites(3)[at]).unwrap();
    let (mut a, mut b, mut c) = (new(0), new(1), new(2));
    let a1 = a.send(1).unwrap();
    b.receive(a1.clone(), 1).unwrap();
    c.receive(a1.clone(), 1).unwrap();
    let b1 = b.send(2).unwrap();
    c.receive(b1.clone(), 2).unwrap();
    let good = Links { sender: Rank(0), number: 2, ..links(vec![id(0, 1)]) };
    let with = |before: &[Id]| Links { before: before.to_vec(), ..good.clone() };
    let before = format!("{c:?}");
    let mut refused = |links| c.receive(links, 0).unwrap_err();
    let malformed = [
        Links { sender: Rank(3), ..good.clone() },
        Links { number: 0, ..good.clone() },
        Links { number: COUNT_MAX + 1, ..good.clone() },
        with(&[id(3, 1)]),
        with(&[id(0, 0)]),
        with(&[id(0, 2)]),
        with(&[id(1, 1), id(0, 1)]),
        with(&[id(1, 1), id(1, 1)]),
        with(&[id(1, u64::MAX)]),
    ];
    for links in malformed {
        assert_eq!(refused(links), ReceiveError::Malformed);
    }
    assert_eq!(refused(with(&[])), ReceiveError::Unordered(id(0, 1)));
    assert_eq!(refused(with(&[id(0, 1), id(1, 1)])), ReceiveError::NotALeaf(id(0, 1)));
    let second = Links { incarnation: Incarnation(2), ..good.clone() };
    let (ours, theirs) = (Incarnation(1), Incarnation(2));
    assert_eq!(refused(second), ReceiveError::Incarnation { rank: Rank(0), ours, theirs });
    let ahead = Links { number: 1 << 40, ..with(&[id(1, 1)]) };
    let expected = ReceiveError::Ahead { rank: Rank(0), number: 1 << 40, newest: 1 };
    assert_eq!(refused(ahead), expected);
    let ahead = with(&[id(2, 1 << 40)]);
    assert!(matches!(refused(ahead), ReceiveError::Ahead { rank: Rank(2), .. }));
    assert_eq!(format!("{c:?}"), before);
    assert_eq!(c.receive(good, 3), Ok(Received::Attached(1)));
}

fn stamp(counts: [u64; 4]) -> vector::Stamp {
    let members = table(4);
    let view = members.view();
    let packed = Packed::Whole { view, counts: counts.to_vec() };
    Unpacker::new(members, Rank(0)).unpack(packed).unwrap()
}

fn merged(one: &vector::Stamp, other: &vector::Stamp) -> vector::Stamp {
    let mut merged = one.clone();
    merged.merge(other).unwrap();
    merged
}

/// CLK-34 of three stamps: a partial order, and a merge that is the least upper bound.
fn lattice(
    [a, b, c]: [&vector::Stamp; 3],
    merged: impl Fn(&vector::Stamp, &vector::Stamp) -> vector::Stamp,
) -> Result<(), String> {
    let before = |one: &vector::Stamp, other: &vector::Stamp| {
        one.relation(other).unwrap() == Relation::Before
    };
    let holds = |holds: bool, what: &str| {
        if holds { Ok(()) } else { Err(format!("CLK-34: {what} for {a:?}, {b:?}, {c:?}")) }
    };
    holds(!before(a, a), "not irreflexive")?;
    holds(!(before(a, b) && before(b, c)) || before(a, c), "not transitive")?;
    holds(!(before(a, b) && before(b, a)), "not antisymmetric")?;
    let both = merged(a, b);
    holds(&merged(a, a) == a, "not idempotent")?;
    holds(both == merged(b, a), "not commutative")?;
    holds(merged(&both, c) == merged(a, &merged(b, c)), "not associative")?;
    let is_covered =
        |one: &vector::Stamp, by: &vector::Stamp| one.relation(by).unwrap().is_covered();
    holds(is_covered(a, &both) && is_covered(b, &both), "no upper bound")?;
    let covers = is_covered(a, c) && is_covered(b, c);
    holds(covers == is_covered(&both, c), "not the least upper bound")
}

/// Checks that the check of CLK-34 has teeth: merges that are none.
#[test]
fn merges_that_are_none_are_noticed() {
    let all: Vec<vector::Stamp> =
        (0..81_u64).map(|it| stamp([it % 3, it / 3 % 3, it / 9 % 3, it / 27 % 3])).collect();
    let each = |of: fn(u64, u64) -> u64| {
        let merged = move |one: &vector::Stamp, other: &vector::Stamp| {
            let both = |at: usize| of(one.counts()[at], other.counts()[at]);
            stamp([both(0), both(1), both(2), both(3)])
        };
        let threes = all.iter().flat_map(|a| all.iter().map(move |b| (a, b)));
        threes.map(|(a, b)| lattice([a, b, &all[80]], merged)).find_map(Result::err)
    };
    assert_eq!(each(u64::max), None);
    for broken in
        [|_, other| other, |one: u64, other: u64| one + other, u64::min] as [fn(u64, u64) -> u64; 3]
    {
        let found = each(broken).expect("it is noticed");
        assert!(found.starts_with("CLK-34: "), "{found}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(mainstay_sim::seeds(0..256).count() as u32))]

    /// Checks CLK-34: a partial order, and a merge that is the least upper bound.
    #[test]
    fn vectors_are_a_lattice(counts in prop::array::uniform3(prop::array::uniform4(0_u64..4))) {
        let [a, b, c] = counts.map(stamp);
        prop_assert_eq!(lattice([&a, &b, &c], merged), Ok(()));
    }

    #[test]
    fn what_is_encoded_is_decoded(
        counts: Vec<u64>, since: u64, grown: Vec<(u16, u64)>, before: Vec<(u16, u64)>, null: bool
    ) {
        let view = ViewId { number: since, nonce: 1 };
        let whole = Packed::Whole { view, counts };
        prop_assert_eq!(decoded::<Packed>(&bytes(&whole)).unwrap(), whole);
        let grown = grown.into_iter().map(|(rank, by)| (Rank(rank), by)).collect();
        let changes = Packed::Changes { since, grown };
        let whole = bytes(&changes);
        prop_assert_eq!(decoded::<Packed>(&whole).unwrap(), changes);
        let before = before.into_iter().map(|(rank, number)| id(rank, number)).collect();
        let links = Links { null, ..links(before) };
        prop_assert_eq!(decoded::<Links>(&bytes(&links)).unwrap(), links);
        for end in 0..whole.len() {
            prop_assert!(decoded::<Packed>(&whole[..end]).is_err());
        }
    }

    #[test]
    fn no_bytes_make_anything_panic(bytes: Vec<u8>) {
        let mut unpacker = Unpacker::new(table(3), Rank(1));
        let _ = decoded::<Packed>(&bytes).map(|packed| unpacker.unpack(packed));
        let mut one = Table::new(2).unwrap();
        let _ = decoded::<Timestamp>(&bytes).map(|parts| one.record(Rank(0), &parts));
        let mut hybrid = hybrid::Clock::new(sites(1)[0], mainstay_base::Duration::MAX, hybrid::Moment::ZERO);
        let _ = decoded::<hybrid::Moment>(&bytes).map(|moment| hybrid.observe(Time::ZERO, moment));
        let _ = decoded::<hybrid::Stamp>(&bytes);
        let _ = decoded::<scalar::Stamp>(&bytes);
        let _ = decoded::<Links>(&bytes);
    }

    /// Links of any kind, small numbers and large ones, in any order: no panic, no broken invariant, no growth.
    #[test]
    fn no_links_make_a_graph_panic(
        messages in prop::collection::vec(
            (0_u16..4, 0_u64..6, prop::collection::vec((0_u16..4, 0_u64..6), 0..4), any::<bool>()),
            0..60,
        ),
    ) {
        let members = table(3);
        let mut graph = Graph::new(Config::default().window(2), &members, sites(3)[0]).unwrap();
        for (sender, number, before, null) in messages {
            let before = before.into_iter().map(|(rank, number)| id(rank, number)).collect();
            let links = Links { sender: Rank(sender), number, null, ..links(before) };
            let _ = graph.receive(links, 0_u8);
            graph.check_invariants();
            let _ = graph.acknowledge(0);
            while graph.poll_attached().is_some() {}
        }
        let stats = graph.stats();
        prop_assert!(stats.attached + stats.held <= 2 * 3 * 12);
    }
}
