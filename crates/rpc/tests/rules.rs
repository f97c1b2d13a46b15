//! Rules of remote procedure calls that take a scene of their own: clocks, counts, bounds, nested calls, bytes.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use mainstay_base::service::{In, Io, PeerChange, Service, Wire};
use mainstay_base::{Duration, Rng};
use mainstay_rpc::fault::Fault;
use mainstay_rpc::{
    Carrier, Command, Config, Executed, Message, Orphans, Outcome, ProcedureId, Reason, Refusal,
    Semantics,
};
use mainstay_sim::Clock;
use mainstay_sim::holds_but_with;
use proptest::prelude::*;
use support::hand::{Ask, Fate, Hand, MS, ONCE};

fn config(carrier: Carrier, fault: Option<Fault>) -> impl Fn(usize, u64) -> Config + Clone {
    move |_, life| {
        let mut config = Config::new(life);
        (config.carrier, config.fault) = (carrier, fault);
        config
    }
}

/// A server is drained when those that are connected have what was executed for them: a result that is lost is asked for again.
#[test]
fn a_drained_server_has_answered() {
    let scene = |fault| {
        let mut hand = Hand::new(2, config(Carrier::Datagrams, fault));
        let mut is_lost = false;
        hand.rule =
            Box::new(move |it| match it.says("Reply") && !std::mem::replace(&mut is_lost, true) {
                true => Fate::Lose,
                false => Fate::Pass,
            });
        hand.takes = Some(50 * MS);
        hand.call(0, 1, 1, ONCE);
        hand.run(10 * MS);
        hand.give(1, In::Command(Command::Drain));
        hand.run(Duration::from_secs(2));
        assert!(hand.is_done(1));
        let (at, node) = hand.drained[0];
        assert_eq!((node, hand.drained.len()), (1, 1));
        assert!(at > hand.over(1), "its client has the result");
    };
    holds_but_with(scene, &[Fault::DrainsEarly]);
}

/// A server that drains lets the streams of accepted calls be read, and takes nothing else; one that is closed takes nothing.
#[test]
fn a_draining_server_lets_streams_be_read() {
    let scene = |fault| {
        let mut hand = Hand::new(2, config(Carrier::Link, fault));
        let pull = ProcedureId::new("mainstay.stream.pull");
        hand.give(1, In::Command(Command::Serve { procedure: pull, versions: (1, 1) }));
        hand.call(0, 1, 1, ONCE);
        hand.run(5 * MS);
        let refused = Some((Executed::NotAtAll, Reason::Refused(Refusal::Draining)));
        for (step, command) in
            [Command::Drain, Command::Drain, Command::Close].into_iter().enumerate()
        {
            hand.give(1, In::Command(command));
            let tag = 10 * (step as u64 + 1);
            hand.call_of(pull, 0, 1, tag, ONCE);
            hand.call(0, 1, tag + 1, ONCE);
            hand.run(Duration::from_secs(1));
            if step < 2 {
                assert!(hand.is_done(tag), "a stream is read");
            } else {
                assert_eq!(hand.failed(tag), refused);
            }
            assert_eq!(hand.failed(tag + 1), refused);
            assert_eq!(hand.drained.len(), step + 1);
        }
    };
    holds_but_with(scene, &[Fault::CutsStreams]);
}

/// A client that is met again while it is about to be forgotten is not.
#[test]
fn a_client_that_is_met_again_is_not_forgotten() {
    let scene = |fault| {
        let stored = move |node, life| {
            let mut config = config(Carrier::Link, fault)(node, life);
            config.stored = true;
            config
        };
        let mut hand = Hand::new(2, stored);
        (hand.takes, hand.stops) = (None, MS / 2);
        hand.call(0, 1, 1, ONCE);
        hand.run(10 * MS);
        let old = hand.sites[0].boot;
        hand.give(1, In::Peer(PeerChange::Replaced { old, new: None }));
        // Its hello is on its way when what was executed for it has stopped.
        hand.join(0, 1);
        hand.run(10 * MS);
        hand.takes = Some(MS);
        hand.call(0, 1, 2, Ask { lane: Some(2), ..ONCE });
        hand.run(Duration::from_secs(1));
        assert!(hand.is_done(2));
    };
    holds_but_with(scene, &[Fault::ForgetsTheMet]);
}

/// Checks RPC-20: edge case 12, the clocks say different times and differ in their rates as much as they may, the server's slow or fast. It has
/// stopped strictly before its client gives up, if messages keep their bound, and nobody is stopped early.
#[test]
fn edge_12_clocks() {
    let scene = |fault| {
        // Parts of a billion: together 200 millionths.
        for (client, server) in [((0, 100_000), (0, -99_000)), ((0, -99_000), (0, 100_000))] {
            for offset in [0, 7, 900] {
                for is_ahead in [false, true] {
                    let (mut client, mut server) = (client, server);
                    *(if is_ahead { &mut server.0 } else { &mut client.0 }) = offset;
                    let clock = |(secs, drift)| Clock::new(Duration::from_secs(secs), drift);
                    let clocks = move |at| if at == 0 { clock(client) } else { clock(server) };
                    let config = config(Carrier::Datagrams, fault);
                    let mut hand = Hand::with_clocks(2, config, clocks);
                    hand.transit = 5 * MS;
                    let ask = Ask { deadline: Duration::from_secs(100), lane: None, ..ONCE };
                    (hand.takes, hand.check) = (None, false);
                    hand.call(0, 1, 1, ask);
                    hand.call(0, 1, 2, ask);
                    hand.run(Duration::from_secs(99));
                    assert_eq!(hand.going_on(), [1, 2], "there is time");
                    hand.finish(1);
                    // That the other one has expired is not heard: the client gives up by itself.
                    hand.rule = Box::new(|it| match it.says("Refused") {
                        true => Fate::Lose,
                        false => Fate::Pass,
                    });
                    hand.run(Duration::from_secs(3));
                    assert!(hand.is_done(1));
                    let gave_up = (Executed::NotMoreThanOnce, Reason::Deadline);
                    assert_eq!(hand.failed(2), Some(gave_up));
                    let stopped = hand.runs[1].told.expect("it was told to stop");
                    assert!(stopped < hand.over(2), "{stopped:?} {:?}", hand.over(2));
                }
            }
        }
    };
    holds_but_with(scene, &[Fault::SharesClock, Fault::IgnoresDeadline]);
}

/// Checks RPC-61: 2 messages a call in steady state, and 2 more at most for each message that is lost.
#[test]
fn messages_are_counted() {
    let steady = |fault| {
        for carrier in [Carrier::Link, Carrier::Datagrams] {
            let mut hand = Hand::new(2, config(carrier, fault));
            for tag in 1..=100 {
                hand.call(0, 1, tag, ONCE);
                hand.run(5 * MS);
            }
            assert_eq!(hand.sent.len(), 200);
            hand.run(Duration::from_secs(10));
            assert_eq!(hand.sent.len(), 201, "the last result is acknowledged");
            println!("{carrier:?}: 201 messages for 100 calls");
        }
    };
    holds_but_with(steady, &[Fault::AcksEach]);
    let scene = |fault| {
        for what in ["Call", "Reply"] {
            let mut hand = Hand::new(2, config(Carrier::Datagrams, fault));
            let mut left = 1;
            hand.rule = Box::new(move |it| match it.says(what) && std::mem::take(&mut left) > 0 {
                true => Fate::Lose,
                false => Fate::Pass,
            });
            hand.call(0, 1, 1, ONCE);
            hand.run(Duration::from_secs(1));
            assert!(hand.is_done(1));
            let acknowledged = hand.sent.len() - 1;
            assert_eq!(acknowledged, if what == "Call" { 3 } else { 4 }, "{what} lost");
        }
    };
    holds_but_with(scene, &[Fault::AsksOnce]);
}

/// Checks RPC-17: a server keeps no more of a client than the window, whatever it calls; all calls come to their end.
#[test]
fn what_is_kept_is_bounded() {
    let scene = |fault| {
        for carrier in [Carrier::Link, Carrier::Datagrams] {
            let mut hand = Hand::new(2, move |at, life| {
                let config = config(carrier, fault)(at, life);
                Config { window: 4, ..config }
            });
            hand.takes = None;
            hand.call(0, 1, 1, Ask { lane: None, ..ONCE });
            hand.run(5 * MS);
            hand.takes = Some(MS);
            for tag in 2..=100 {
                hand.call(0, 1, tag, Ask { lane: None, ..ONCE });
            }
            for _ in 0..1_000 {
                hand.run(MS / 2);
                let kept = hand.rpc(1).status().kept;
                assert!(kept <= 4, "{kept} kept");
            }
            assert!((2..=100).all(|tag| hand.is_done(tag)));
        }
    };
    holds_but_with(scene, &[Fault::KeepsResults]);
}

/// Datagrams keep to their size although one slow call keeps the results of many others from being acknowledged by a floor, and although
/// many calls are open or were given up.
#[test]
fn datagrams_are_bounded() {
    let mut hand = Hand::new(2, config(Carrier::Datagrams, None));
    hand.takes = None;
    hand.call(0, 1, 1, Ask { lane: None, ..ONCE });
    hand.run(5 * MS);
    hand.takes = Some(MS);
    for tag in 2..=3_000 {
        let lane = (tag % 2 == 0).then_some(1);
        hand.call(0, 1, tag, Ask { lane, ..ONCE });
        hand.run(MS);
    }
    let losing = |hand: &mut Hand| {
        hand.rule = Box::new(|it| match it.is_datagram() {
            true => Fate::Lose,
            false => Fate::Pass,
        })
    };
    losing(&mut hand);
    for tag in 3_001..=4_000 {
        hand.call(0, 1, tag, Ask { deadline: Duration::from_secs(1), ..ONCE });
    }
    hand.run(Duration::from_secs(2));
    hand.rule = Box::new(|_| Fate::Pass);
    hand.call(0, 1, 4_001, Ask { lane: None, ..ONCE });
    hand.run(Duration::from_secs(1));
    assert!(hand.is_done(4_001));
    let sizes = hand.sent.iter().filter(|(_, it)| it.is_datagram()).map(|(_, it)| it.bytes());
    let largest = sizes.max().unwrap();
    println!("{} messages, the largest datagram has {largest} bytes", hand.sent.len());
    assert!(largest <= 1_400, "{largest}");
}

/// Checks RPC-70: a nested call has no more time than is left to its parent.
#[test]
fn nested_calls_have_less_time() {
    let scene = |fault| {
        let mut hand = Hand::new(3, config(Carrier::Link, fault));
        hand.takes = None;
        hand.call(0, 1, 1, Ask { deadline: 200 * MS, ..ONCE });
        hand.run(100 * MS);
        let parent = Some(hand.runs[0].ticket);
        hand.call(1, 2, 2, Ask { parent, deadline: Duration::from_secs(10), ..ONCE });
        hand.run(10 * MS);
        let (parent, nested) = (&hand.runs[0], &hand.runs[1]);
        assert!(nested.begun + nested.left < parent.begun + parent.left);
        hand.run(Duration::from_secs(1));
        assert!(hand.over(2) <= hand.over(1), "the nested call was over before");
    };
    holds_but_with(scene, &[Fault::NestsBeyond]);
}

/// Checks RPC-23: a call that is taken back takes back what it has called, and that what it has called; a nested call of what is over is not sent.
#[test]
fn what_is_taken_back_takes_back() {
    let scene = |fault| {
        let mut hand = Hand::new(4, config(Carrier::Datagrams, fault));
        hand.takes = None;
        let mut parent = None;
        for at in 0..3 {
            let tag = at as u64 + 1;
            hand.call(at, at + 1, tag, Ask { parent, ..ONCE });
            hand.run(5 * MS);
            parent = Some(hand.runs.iter().find(|run| run.tag == tag).unwrap().ticket);
        }
        let parent = hand.runs[0].ticket;
        hand.give(0, In::Command(Command::Cancel { token: 1 }));
        hand.run(4 * MS);
        assert_eq!(hand.going_on(), [0; 0]);
        let orphan = Some((Executed::NotMoreThanOnce, Reason::Orphan));
        assert_eq!((hand.failed(2), hand.failed(3)), (orphan, orphan));
        hand.call(1, 2, 4, Ask { parent: Some(parent), ..ONCE });
        assert_eq!(hand.failed(4), Some((Executed::NotAtAll, Reason::Orphan)));
    };
    holds_but_with(scene, &[Fault::SparesChildren]);
}

/// Checks RPC-5: a call that was given up takes no effect after a later one of its lane, though it comes after it.
#[test]
fn what_is_given_up_takes_no_effect_later() {
    let scene = |fault| {
        let mut hand = Hand::new(2, config(Carrier::Datagrams, fault));
        // The call, and that it was taken back, are late.
        let late = |it: &support::hand::Flying| match it.says("Call") || it.says("Cancel") {
            true => Fate::Hold,
            false => Fate::Pass,
        };
        hand.rule = Box::new(late);
        hand.call(0, 1, 2, Ask { lane: None, ..ONCE });
        hand.call(0, 1, 3, ONCE);
        hand.give(0, In::Command(Command::Cancel { token: 3 }));
        hand.rule = Box::new(|_| Fate::Pass);
        hand.call(0, 1, 4, ONCE);
        hand.run(10 * MS);
        hand.release_all();
        hand.run(5 * MS);
        assert_eq!((hand.count(3), hand.count(4)), (0, 1));
    };
    holds_but_with(scene, &[Fault::ForgetsGivenUp]);
}

/// Checks RPC-1: an idempotent call is sent again until there is a result, to a server that was restarted too.
#[test]
fn at_least_once_goes_on() {
    let ask = Ask { semantics: Semantics::AtLeastOnce, ..ONCE };
    let mut hand = Hand::new(2, config(Carrier::Datagrams, None));
    hand.takes = Some(20 * MS);
    hand.call(0, 1, 1, ask);
    hand.run(10 * MS);
    hand.restart(1);
    hand.run(Duration::from_secs(1));
    assert!(hand.is_done(1));
    assert_eq!(hand.count(1), 2);
}

/// Checks RPC-3 and RPC-13: the log is written again in parts, and the server crashes between two of them: nothing is forgotten.
#[test]
fn a_crash_while_the_log_is_written_again() {
    for stable in [0, 1, 20, 40] {
        let mut hand = Hand::new(2, |at, life| {
            let config = config(Carrier::Link, None)(at, life);
            Config { stored: true, ..config }
        });
        hand.result = 100_000;
        hand.rule = Box::new(|it| if it.says("Reply") { Fate::Hold } else { Fate::Pass });
        for tag in 1..=40 {
            hand.call(0, 1, tag, Ask { deadline: Duration::from_secs(60), ..ONCE });
        }
        hand.run(Duration::from_secs(1));
        let before = hand.sites[1].log.len();
        hand.give(1, In::Compact { upto: Io(before as u64) });
        while hand.sites[1].log.len() < before + stable {
            hand.run(MS);
        }
        let wanted = before + stable;
        hand.crash(1);
        hand.sites[1].log.truncate(wanted);
        hand.start(1);
        hand.rule = Box::new(|_| Fate::Pass);
        hand.run(Duration::from_secs(1));
        for tag in 1..=40 {
            assert!(hand.is_done(tag), "{stable}: {:?}", hand.outcome(tag));
            assert_eq!(hand.count(tag), 1);
        }
    }
}

fn stored(clients_max: usize, fault: Option<Fault>) -> impl Fn(usize, u64) -> Config {
    move |_, life| {
        let config = config(Carrier::Link, fault)(0, life);
        Config { stored: true, clients_max, ..config }
    }
}

/// While the disk is short no call is taken in that is to be written: such calls wait for room, or for their deadline. A short
/// record says that one was given up. Those that write nothing go on.
#[test]
fn calls_to_be_written_wait_for_room_on_the_disk() {
    let mut hand = Hand::new(2, stored(16, None));
    hand.call(0, 1, 1, ONCE);
    hand.run(50 * MS);
    hand.give(1, In::DiskShort(true));
    hand.run(MS);
    let before = hand.sites[1].log.len();
    hand.call(0, 1, 2, Ask { deadline: Duration::from_secs(60), ..ONCE });
    hand.call(0, 1, 3, Ask { deadline: Duration::from_millis(200), ..ONCE });
    hand.run(Duration::from_secs(5));
    let again = Ask { semantics: Semantics::AtLeastOnce, lane: None, ..ONCE };
    hand.call(0, 1, 4, again);
    hand.run(50 * MS);
    assert!(hand.is_done(1) && hand.outcome(2).is_none() && hand.outcome(3).is_some());
    assert!(hand.is_done(4));
    assert_eq!((hand.count(2), hand.count(3)), (0, 0));
    let written = hand.sites[1].log[before..].iter();
    let written: usize = written.map(|(_, meta, payload)| meta.len() + payload.len()).sum();
    assert!(written < 64, "{written}");
    hand.give(1, In::DiskShort(false));
    hand.run(Duration::from_secs(20));
    assert!(hand.is_done(2));
    assert_eq!((hand.count(2), hand.count(3)), (1, 0));

    let mut hand = Hand::new(2, config(Carrier::Link, None));
    hand.give(1, In::DiskShort(true));
    hand.call(0, 1, 1, ONCE);
    hand.run(50 * MS);
    assert!(hand.is_done(1));
}

/// Checks RPC-3 and RPC-17: a server that stores results remembers no more clients than it may. One that was forgotten, also by a server that was restarted meanwhile, is told so when it
/// comes back, and nothing is executed twice.
#[test]
fn clients_that_are_remembered_are_bounded() {
    let scene = |fault| {
        for restarts in [false, true] {
            let mut hand = Hand::new(6, stored(3, fault));
            hand.call(1, 0, 1, ONCE);
            hand.run(50 * MS);
            // It does not hear of its second call.
            hand.rule = Box::new(|it| if it.to == 1 { Fate::Lose } else { Fate::Pass });
            hand.call(1, 0, 2, ONCE);
            hand.run(20 * MS);
            hand.rule = Box::new(|_| Fate::Pass);
            (1..6).for_each(|node| hand.part(0, node));
            for node in 2..6 {
                hand.join(0, node);
                hand.call(node, 0, 10 + node as u64, ONCE);
                hand.run(50 * MS);
                assert!(hand.is_done(10 + node as u64));
                hand.part(0, node);
            }
            if restarts {
                hand.restart(0);
                hand.run(50 * MS);
            }
            hand.join(0, 1);
            hand.run(Duration::from_secs(2));
            assert_eq!(hand.count(2), 1, "RPC-3: it is not executed again");
            assert_eq!(hand.failed(2), Some((Executed::NotMoreThanOnce, Reason::ServerLost)));
            hand.call(1, 0, 3, ONCE);
            hand.run(50 * MS);
            assert!(hand.is_done(3), "it is a client as others are");
            assert!(hand.rpc(0).status().clients <= 3);
        }
    };
    holds_but_with(scene, &[Fault::KeepsMemory]);
}

/// Checks RPC-3 and RPC-17: of a client whose boot is gone for good nothing is kept, nor is it after a restart; the same boot, if it comes back, is told so.
#[test]
fn a_client_that_is_gone_is_forgotten_though_results_are_stored() {
    let scene = |fault| {
        let mut hand = Hand::new(2, stored(100, fault));
        hand.takes = None;
        hand.call(1, 0, 1, ONCE);
        hand.run(20 * MS);
        let boots = [hand.sites[0].boot, hand.sites[1].boot];
        for (at, old) in [(0, boots[1]), (1, boots[0])] {
            hand.give(at, In::Peer(PeerChange::Replaced { old, new: None }));
        }
        hand.run(20 * MS);
        assert_eq!((hand.going_on(), hand.rpc(0).status().clients), (vec![], 0));
        hand.join(0, 1);
        hand.run(Duration::from_secs(1));
        assert_eq!(hand.count(1), 1, "RPC-3: it is not executed again");
        assert_eq!(hand.failed(1), Some((Executed::NotMoreThanOnce, Reason::ServerLost)));
    };
    holds_but_with(scene, &[Fault::KeepsMemory]);
}

/// Checks RPC-10: arguments and results of any size come as they were given, many of them in one batch.
#[test]
fn bodies_come_as_they_were_given() {
    let scene = |fault| {
        for carrier in [Carrier::Link, Carrier::Datagrams] {
            let mut hand = Hand::new(2, config(carrier, fault));
            let mut rng = Rng::new(1);
            let mut given = Vec::new();
            for tag in 1..=200u64 {
                let mut bytes = tag.to_le_bytes().to_vec();
                bytes.extend((0..rng.below(3_000)).map(|_| rng.next_u64() as u8));
                let arguments = Bytes::from(bytes);
                given.push((tag, arguments.clone()));
                hand.call_with(0, 1, tag, Ask { lane: None, ..ONCE }, arguments);
            }
            hand.run(Duration::from_secs(1));
            let mut came: Vec<_> =
                hand.runs.iter().map(|run| (run.tag, run.arguments.clone())).collect();
            came.sort();
            assert!(came == given, "RPC-10: arguments come as they were given");
            assert!(given.iter().all(|(tag, _)| hand.is_done(*tag)));
        }
    };
    holds_but_with(scene, &[Fault::CutsArguments]);
}

/// Checks RPC-10: any bytes are a message or none, and a machine bears what comes of messages whose bytes were changed.
#[test]
fn bytes_of_a_peer_do_no_harm() {
    let mut rng = Rng::new(1);
    let (mut taken, mut dropped) = (0, 0);
    for round in 0..200 {
        let carrier = if round % 2 == 0 { Carrier::Link } else { Carrier::Datagrams };
        let mut hand = Hand::new(2, config(carrier, None));
        let real: Rc<RefCell<Vec<(Bytes, Bytes)>>> = Rc::default();
        let into = Rc::clone(&real);
        hand.rule = Box::new(move |it| {
            into.borrow_mut().push((it.meta.clone(), it.payload.clone()));
            Fate::Pass
        });
        for tag in 1..=5 {
            hand.call(0, 1, tag, ONCE);
            hand.run(MS);
        }
        hand.rule = Box::new(|_| Fate::Pass);
        let all = real.borrow().clone();
        for (bytes, payload) in &all {
            let mut bytes = bytes.to_vec();
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
            match Message::decode(&bytes, payload.clone()) {
                Ok(message) => {
                    taken += 1;
                    for to in 0..2 {
                        let at = hand.local(to);
                        let from = hand.node(1 - to);
                        let message = message.clone();
                        hand.give(to, In::Datagram { at, from, message });
                    }
                }
                Err(_) => dropped += 1,
            }
        }
        hand.run(Duration::from_secs(1));
    }
    println!("{taken} messages taken, {dropped} dropped");
    assert!(taken > 100 && dropped > 1_000);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Checks RPC-10: no bytes make the decoder panic.
    #[test]
    fn garbage_is_no_message(meta in prop::collection::vec(any::<u8>(), 0..200), body in prop::collection::vec(any::<u8>(), 0..50)) {
        let _ = Message::decode(&meta, body.into());
    }
}

/// Checks RPC-9: a reply and the word that a call is taken back cross: there is one outcome.
#[test]
fn a_reply_and_a_cancel_cross() {
    let mut hand = Hand::new(2, config(Carrier::Link, None));
    hand.call(0, 1, 1, ONCE);
    hand.run(Duration::from_micros(2_500));
    hand.give(0, In::Command(Command::Cancel { token: 1 }));
    hand.run(Duration::from_secs(1));
    assert_eq!(hand.failed(1), Some((Executed::NotMoreThanOnce, Reason::Cancelled)));
    hand.call(0, 1, 2, ONCE);
    hand.run(Duration::from_secs(1));
    assert!(matches!(hand.outcome(2), Some(Outcome::Done(_))));
}

/// Checks RPC-5: a call that is refused, and comes after the next one of its lane, holds that up no longer.
#[test]
fn a_refused_call_does_not_hold_up_its_lane() {
    let mut hand = Hand::new(2, |at, life| {
        let config = config(Carrier::Datagrams, None)(at, life);
        Config { body_bytes_max: [1_000, 500][at], ..config }
    });
    let mut late = true;
    hand.rule = Box::new(move |it| match it.says("Call") && std::mem::take(&mut late) {
        true => Fate::Late(5 * MS),
        false => Fate::Pass,
    });
    hand.call_with(0, 1, 1, ONCE, vec![0; 800].into());
    hand.call(0, 1, 2, ONCE);
    hand.run(5 * MS);
    assert_eq!(hand.count(2), 0, "the first one may come");
    hand.run(3 * MS);
    let why = Reason::Refused(Refusal::TooLarge);
    assert_eq!(hand.failed(1), Some((Executed::NotAtAll, why)));
    assert_eq!(hand.count(2), 1);
}

/// Checks RPC-13 and RPC-74: a copy of a former epoch is of a call that is known, or it is refused; who was executed is not told that it was not.
#[test]
fn a_copy_of_a_former_epoch() {
    let hand = || {
        let mut hand = Hand::new(3, |at, life| {
            let config = config(Carrier::Datagrams, None)(at, life);
            Config { orphans: Orphans::Reincarnation, ..config }
        });
        hand.rule = Box::new(|it| match it {
            it if it.says("Call") => Fate::Copy,
            it if it.says("Reply") => Fate::Lose,
            _ => Fate::Pass,
        });
        hand
    };
    let mut known = hand();
    known.call(0, 1, 1, ONCE);
    known.run(5 * MS);
    known.restart(2);
    known.run(5 * MS);
    known.rule = Box::new(|_| Fate::Pass);
    known.release_all();
    known.run(5 * MS);
    assert!(known.is_done(1), "{:?}", known.outcome(1));
    let mut new = hand();
    new.rule = Box::new(|it| if it.says("Call") { Fate::Hold } else { Fate::Pass });
    new.call(0, 1, 1, ONCE);
    new.restart(2);
    new.run(5 * MS);
    new.release_all();
    new.run(5 * MS);
    let refused = Reason::Refused(Refusal::Epoch);
    assert_eq!((new.failed(1), new.count(1)), (Some((Executed::NotAtAll, refused)), 0));
}
