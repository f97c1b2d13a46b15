//! Bounds: *full* and *busy* are answers, and true ones; what was refused may be called again.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use bytes::Bytes;
use mainstay_base::service::Service as _;
use mainstay_rpc::fault::Fault;
use mainstay_rpc::{Carrier, Config, Executed, Reason, Refusal};
use mainstay_sim::holds_but_with;
use support::hand::{Ask, Hand, MS, ONCE};

const APART: Ask = Ask { lane: None, ..ONCE };

/// Checks RPC-74 of a client that has as many open calls as it may: one more is not sent, and there is room when one is over.
#[test]
fn a_client_is_full() {
    let scene = |fault| {
        let mut hand =
            Hand::new(2, move |_, life| Config { fault, calls_max: 3, ..Config::new(life) });
        hand.takes = None;
        (1..=4).for_each(|tag| hand.call(0, 1, tag, APART));
        hand.run(5 * MS);
        assert_eq!(hand.failed(4), Some((Executed::NotAtAll, Reason::Full)));
        assert_eq!((hand.going_on().len(), hand.count(4), hand.rpc(0).status().open), (3, 0, 3));
        hand.finish(1);
        hand.run(5 * MS);
        hand.call(0, 1, 5, APART);
        hand.run(5 * MS);
        assert_eq!((hand.is_done(1), hand.count(5)), (true, 1));
    };
    holds_but_with(scene, &[Fault::NeverFull]);
}

/// Checks RPC-17 and RPC-74 of a server that has as many bytes of a client as it takes: one more call is refused and not executed, another client's is taken, and there
/// is room when a result is acknowledged.
#[test]
fn a_server_is_busy() {
    let scene = |fault| {
        let mut hand = Hand::new(3, move |_, life| Config {
            fault,
            executions_max: 1,
            body_bytes_max: 1_000,
            client_bytes_max: 1_000,
            ..Config::new(life)
        });
        hand.takes = None;
        let large = |tag: u64| {
            let mut bytes = tag.to_le_bytes().to_vec();
            bytes.resize(600, 0);
            Bytes::from(bytes)
        };
        for (client, tag) in [(0, 1), (0, 2), (0, 3), (2, 4)] {
            // The first one is executed: its arguments are not kept.
            hand.call_with(client, 1, tag, APART, large(tag));
            hand.run(5 * MS);
        }
        assert_eq!(hand.failed(3), Some((Executed::NotAtAll, Reason::Refused(Refusal::Busy))));
        assert_eq!(hand.rpc(1).status().served.refused, 1);
        for tag in [1, 2, 4] {
            hand.finish(tag);
            hand.run(5 * MS);
            assert!(hand.is_done(tag));
        }
        hand.call_with(0, 1, 5, APART, large(5));
        hand.run(5 * MS);
        assert_eq!((hand.count(3), hand.going_on()), (0, vec![5]));
    };
    holds_but_with(scene, &[Fault::NeverBusy]);
}

/// Checks RPC-74 of calls of the largest size: the ids of a trace do not count, so that a call is made whether or not there are spans. With a byte more it
/// is not.
#[test]
fn a_trace_takes_no_room() {
    for (larger, is_done) in [(0, true), (1, false)] {
        for carrier in [Carrier::Link, Carrier::Datagrams] {
            let mut hand = Hand::new(2, move |_, life| Config {
                carrier,
                body_bytes_max: 1_000,
                client_bytes_max: 1_000,
                ..Config::new(life)
            });
            hand.context = vec![1; 25].into();
            let mut arguments = 1u64.to_le_bytes().to_vec();
            arguments.resize(1_000 + larger, 0);
            hand.call_with(0, 1, 1, APART, arguments.into());
            hand.run(100 * MS);
            assert_eq!((hand.is_done(1), hand.count(1)), (is_done, usize::from(is_done)));
            let too_large = (!is_done).then_some((Executed::NotAtAll, Reason::TooLarge));
            assert_eq!(hand.failed(1), too_large);
        }
    }
}
