//! Notice of the end of what a node serves: each watch ends once, and is told why.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use mainstay_base::Duration;
use mainstay_base::service::{In, Service as _};
use mainstay_rpc::fault::Fault;
use mainstay_rpc::{Command, Config, Parting, ProcedureId};
use mainstay_sim::holds_but_with;
use support::hand::{Hand, MS, WORK};

fn hand(fault: Option<Fault>) -> Hand {
    Hand::new(3, move |_, life| Config { fault, window: 4, ..Config::new(life) })
}

fn watch(hand: &mut Hand, at: usize, server: usize, token: u64) {
    let server = hand.node(server);
    hand.give(at, In::Command(Command::Watch { token, server, procedure: WORK }));
    hand.run(5 * MS);
}

fn serve(hand: &mut Hand, at: usize) {
    hand.give(at, In::Command(Command::Serve { procedure: WORK, versions: (1, 1) }));
}

/// Checks RPC-74 of watches: each is told what has become of the procedure, once; watchers at the node itself too.
#[test]
fn watchers_are_told_why() {
    let scene = |fault| {
        let mut hand = hand(fault);
        for (at, token) in [(0, 1), (1, 2), (2, 3)] {
            watch(&mut hand, at, 1, token);
        }
        hand.run(Duration::from_secs(60));
        assert_eq!(hand.parted, [], "nothing has ended");
        hand.give(1, In::Command(Command::Gone { procedure: ProcedureId(1) }));
        hand.give(1, In::Command(Command::Gone { procedure: WORK }));
        hand.run(5 * MS);
        hand.parted.sort_by_key(|it| it.0);
        assert_eq!(hand.parted, [1, 2, 3].map(|token| (token, Parting::Ended)));
        hand.parted.clear();
        for at in 0..2 {
            watch(&mut hand, at, 1, 4);
            assert_eq!(hand.parted.pop(), Some((4, Parting::NotServed)));
        }
        serve(&mut hand, 1);
        watch(&mut hand, 0, 1, 5);
        hand.give(1, In::Command(Command::Withdraw { procedure: WORK }));
        hand.run(5 * MS);
        assert_eq!(hand.parted, [(5, Parting::Withdrawn)]);
        assert_eq!(hand.rpc(0).status().watches, (0, 0));
        assert_eq!(hand.rpc(1).status().watches, (0, 0));
    };
    holds_but_with(scene, &[Fault::TellsNoEnds]);
}

/// Checks RPC-74 of watches when connections break: what ends meanwhile is told when they are back, and once.
#[test]
fn what_ends_while_nobody_hears_is_told_later() {
    let scene = |fault| {
        for serves_again in [false, true] {
            let mut hand = hand(fault);
            watch(&mut hand, 0, 1, 1);
            hand.part(0, 1);
            hand.run(Duration::from_secs(1));
            hand.give(1, In::Command(Command::Gone { procedure: WORK }));
            if serves_again {
                serve(&mut hand, 1);
            }
            hand.run(Duration::from_secs(1));
            assert_eq!(hand.parted, []);
            hand.join(0, 1);
            hand.run(Duration::from_secs(1));
            assert_eq!(hand.parted, [(1, Parting::Ended)]);
            assert_eq!(hand.rpc(1).status().watches, (0, 0));
        }
    };
    holds_but_with(scene, &[Fault::TellsNoEnds]);
}

/// A node that was restarted, has ended, or does not come back, and one that was never there; a connection that breaks ends nothing.
#[test]
fn lost_nodes_end_watches() {
    for step in 0..4 {
        let mut hand = hand(None);
        watch(&mut hand, 0, 1, 1);
        // With the patience of the default: 200 ms * (1 + 2 + 4 + 8 + 16 + 32 * 3).
        let (patience, why) = match step {
            0 => {
                hand.restart(1);
                (5 * MS, Parting::Lost)
            }
            1 => {
                hand.remount(1);
                (5 * MS, Parting::Lost)
            }
            2 => {
                hand.crash(1);
                (127 * 200 * MS, Parting::Unreachable)
            }
            _ => {
                hand.part(0, 1);
                hand.run(20_000 * MS);
                hand.join(0, 1);
                hand.run(60_000 * MS);
                assert_eq!(hand.parted, [], "it was away, and is back");
                hand.part(0, 1);
                (127 * 200 * MS, Parting::Unreachable)
            }
        };
        hand.run(patience - MS);
        if why == Parting::Unreachable {
            assert_eq!(hand.parted, []);
        }
        hand.run(MS);
        assert_eq!(hand.parted, [(1, why)], "{step}");
        // What is watched while nobody is there.
        if why == Parting::Unreachable {
            watch(&mut hand, 0, 1, 2);
            hand.run(127 * 200 * MS);
            assert_eq!(hand.parted.last(), Some(&(2, Parting::Unreachable)));
        }
    }
}

/// A node takes as many watches of another one as calls; those that were taken back make room. A client that greets anew has none.
#[test]
fn watches_are_bounded() {
    let mut hand = hand(None);
    for token in 1..=5 {
        watch(&mut hand, 0, 1, token);
    }
    assert_eq!(hand.parted, [(5, Parting::Full)]);
    hand.give(0, In::Command(Command::Unwatch { token: 1 }));
    watch(&mut hand, 0, 1, 6);
    watch(&mut hand, 2, 1, 7);
    assert_eq!((hand.parted.len(), hand.rpc(1).status().watches), (1, (0, 5)));
    hand.restart(0);
    hand.run(50 * MS);
    assert_eq!(hand.rpc(1).status().watches, (0, 1));
    hand.give(1, In::Command(Command::Gone { procedure: WORK }));
    hand.run(5 * MS);
    assert_eq!(hand.parted[1..], [(7, Parting::Ended)]);
}
