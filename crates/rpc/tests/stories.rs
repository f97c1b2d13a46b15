//! What went wrong elsewhere, as users reported it: each story in all the ways that it could go.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use mainstay_base::Duration;
use mainstay_base::service::{In, Io};
use mainstay_rpc::fault::Fault;
use mainstay_rpc::{Carrier, Command, Config, Executed, Reason, Refusal};
use mainstay_sim::holds_but_with;
use support::hand::{Ask, Fate, Hand, MS, ONCE, WORK};

/// When the connection is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cut {
    BeforeItLeaves,
    BeforeTheHandler,
    InTheHandler,
    BeforeTheAnswer,
}

/// A call of 20 ms, whose connection is cut for a while; meanwhile the server may be restarted.
fn cut(cut: Cut, carrier: Carrier, is_stored: bool, restart: bool, fault: Option<Fault>) -> Hand {
    let mut hand = Hand::new(2, move |_, life| {
        let mut config = Config::new(life);
        (config.carrier, config.stored, config.fault) = (carrier, is_stored, fault);
        config.retry = 20 * MS;
        config.executions_max = 1;
        config
    });
    let call = |hand: &mut Hand| hand.call(0, 1, 1, ONCE);
    hand.takes = Some(20 * MS);
    match cut {
        Cut::BeforeItLeaves => {
            hand.part(0, 1);
            call(&mut hand);
        }
        Cut::BeforeTheHandler => {
            // Another one has the only place.
            hand.call(0, 1, 9, Ask { lane: None, ..ONCE });
            call(&mut hand);
            hand.run(10 * MS);
            assert_eq!(hand.count(1), 0);
            hand.part(0, 1);
        }
        Cut::InTheHandler => {
            call(&mut hand);
            hand.run(10 * MS);
            assert_eq!(hand.count(1), 1);
            hand.part(0, 1);
        }
        Cut::BeforeTheAnswer => {
            hand.rule = Box::new(|it| match it.says("Reply") && it.is_datagram() {
                true => Fate::Lose,
                false => Fate::Pass,
            });
            call(&mut hand);
            // The end is stable after 23 ms at the latest, and then the answer is on its way.
            let moment = if is_stored { 23_100 } else { 21_500 };
            hand.run(Duration::from_micros(moment));
            hand.part(0, 1);
            hand.rule = Box::new(|_| Fate::Pass);
        }
    }
    if restart {
        hand.restart(1);
    }
    hand.run(100 * MS);
    hand.join(0, 1);
    hand.run(Duration::from_secs(3));
    assert!(hand.count(1) <= 1, "{cut:?}, {carrier:?}: executed {} times", hand.count(1));
    hand
}

/// Checks RPC-2, RPC-3 and RPC-74: a connection fails at each moment of a call, and the server is restarted or not. What surely did not reach
/// the handler is repeated in silence, all else is answered from memory or told as unknown, and nothing is executed twice.
#[test]
fn a_call_that_was_retried_ran_twice() {
    let unknown = |hand: &Hand| {
        let restarted = Reason::Refused(Refusal::Restarted);
        let all = [restarted, Reason::ServerLost];
        matches!(hand.failed(1), Some((Executed::NotMoreThanOnce, why)) if all.contains(&why))
    };
    let scene = |fault| {
        for carrier in [Carrier::Link, Carrier::Datagrams] {
            for is_stored in [false, true] {
                for restart in [false, true] {
                    let is = format!("{carrier:?}, stored {is_stored}, restart {restart}");
                    let cut = |at| cut(at, carrier, is_stored, restart, fault);
                    assert!(cut(Cut::BeforeItLeaves).is_done(1), "{is}");
                    // Without a disk nobody knows whether it had begun.
                    let before = cut(Cut::BeforeTheHandler);
                    let is_lost = restart && !is_stored;
                    assert!(if is_lost { unknown(&before) } else { before.is_done(1) }, "{is}");
                    let within = cut(Cut::InTheHandler);
                    assert!(if restart { unknown(&within) } else { within.is_done(1) }, "{is}");
                    let after = cut(Cut::BeforeTheAnswer);
                    assert!(if is_lost { unknown(&after) } else { after.is_done(1) }, "{is}");
                }
            }
        }
    };
    let defects = [Fault::RepeatsAtNewServer, Fault::ForgetsStored, Fault::ForgetsCalls];
    holds_but_with(scene, &defects);
}

/// Checks RPC-3 and RPC-13: a call ends what it was for, and its answer is lost. Then the procedure is withdrawn, the log written again, and the
/// server restarted. Who asks again gets the first answer. Who asks after it has said that it has it gets none.
#[test]
fn the_memory_of_calls_does_not_end_with_what_was_called() {
    let scene = |fault| {
        for (withdrawn, compacted, restarted) in
            [(true, false, false), (true, true, true), (false, true, true), (true, false, true)]
        {
            let mut hand = Hand::new(2, move |_, life| {
                let mut config = Config::new(life);
                (config.carrier, config.stored) = (Carrier::Datagrams, true);
                (config.retry, config.fault) = (500 * MS, fault);
                config
            });
            hand.rule = Box::new(|it| match it {
                it if it.says("Reply") => Fate::Lose,
                it if it.says("Call") => Fate::Copy,
                _ => Fate::Pass,
            });
            hand.call(0, 1, 1, ONCE);
            hand.run(100 * MS);
            assert_eq!((hand.count(1), hand.outcome(1)), (1, None));
            let withdraw = |hand: &mut Hand| {
                if withdrawn {
                    hand.give(1, In::Command(Command::Withdraw { procedure: WORK }));
                }
            };
            withdraw(&mut hand);
            if compacted {
                let upto = Io(hand.sites[1].log.len() as u64);
                hand.give(1, In::Compact { upto });
                hand.run(50 * MS);
                hand.cut_log(1);
            }
            if restarted {
                hand.restart(1);
                withdraw(&mut hand);
            }
            hand.rule = Box::new(|_| Fate::Pass);
            hand.run(Duration::from_secs(3));
            assert!(hand.is_done(1), "{:?}", hand.outcome(1));
            // Beyond the memory: it is over for the client, and a copy is dropped.
            let said = hand.sent.len();
            hand.release_all();
            hand.run(Duration::from_secs(1));
            assert_eq!((hand.count(1), hand.sent.len()), (1, said));
        }
    };
    holds_but_with(scene, &[Fault::ForgetsStored, Fault::ForgetsCalls]);
}
