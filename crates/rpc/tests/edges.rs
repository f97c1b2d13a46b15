//! Every edge case of remote procedure calls, one by one, between bare machines: the numbers are those of the list.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use bytes::Bytes;
use mainstay_base::Duration;
use mainstay_base::service::{In, Service as _};
use mainstay_rpc::fault::Fault;
use mainstay_rpc::{
    Carrier, Command, Config, ConfigError, Executed, Outcome, ProcedureId, Reason, Refusal,
    Semantics,
};
use mainstay_sim::holds_but_with;
use support::hand::{Ask, Fate, Hand, MS, ONCE, WORK};

const ATTEMPTS: u32 = 5;

fn config(carrier: Carrier, stored: bool, fault: Option<Fault>) -> impl Fn(usize, u64) -> Config {
    move |_, life| {
        let mut config = Config::new(life);
        (config.carrier, config.stored, config.fault) = (carrier, stored, fault);
        (config.retry, config.attempts) = (20 * MS, ATTEMPTS);
        config
    }
}

fn datagrams(fault: Option<Fault>) -> Hand {
    Hand::new(2, config(Carrier::Datagrams, false, fault))
}

fn stored(fault: Option<Fault>) -> Hand {
    Hand::new(2, config(Carrier::Datagrams, true, fault))
}

/// From now on the first so many messages that say this are lost.
fn lose(hand: &mut Hand, mut first: Vec<(&'static str, u32)>) {
    hand.rule = Box::new(move |it| {
        for (what, left) in &mut first {
            if it.is_datagram() && it.says(what) && *left > 0 {
                *left -= 1;
                return Fate::Lose;
            }
        }
        Fate::Pass
    });
}

/// Checks RPC-2 and RPC-16: edge cases 1, 2 and 3, one message less than the attempts is lost, in each way.
#[test]
fn edge_1_2_3_losses_in_a_row() {
    let scene = |fault| {
        for requests in 0..ATTEMPTS {
            let replies = ATTEMPTS - 1 - requests;
            let mut hand = datagrams(fault);
            lose(&mut hand, vec![("Call", requests), ("Reply", replies)]);
            hand.call(0, 1, 1, ONCE);
            hand.run(Duration::from_secs(4));
            assert!(hand.is_done(1), "{requests} requests lost, {replies} replies");
            assert_eq!(hand.count(1), 1);
        }
    };
    holds_but_with(scene, &[Fault::AsksOnce, Fault::ForgetsCalls]);
    for requests in 0..=ATTEMPTS {
        let mut hand = datagrams(None);
        lose(&mut hand, vec![("Call", requests), ("Reply", ATTEMPTS - requests)]);
        hand.call(0, 1, 1, ONCE);
        hand.run(Duration::from_secs(4));
        assert_eq!(hand.failed(1), Some((Executed::NotMoreThanOnce, Reason::Unreachable)));
        assert_eq!(hand.count(1), usize::from(requests < ATTEMPTS));
    }
}

/// Checks RPC-12: edge case 4, copies come while the call is executed.
#[test]
fn edge_4_an_early_copy() {
    let scene = |fault| {
        let mut hand = datagrams(fault);
        hand.takes = Some(300 * MS);
        hand.rule = Box::new(|it| if it.says("Call") { Fate::Twice } else { Fate::Pass });
        hand.call(0, 1, 1, ONCE);
        hand.run(Duration::from_secs(1));
        assert!(hand.is_done(1));
        assert_eq!(hand.count(1), 1);
        assert!(hand.said("Working") > 0);
    };
    holds_but_with(scene, &[Fault::ForgetsCalls]);
}

/// Checks RPC-13: edge case 4, a copy comes after the end, with the client ignorant of it. The answer is the same, byte for byte.
#[test]
fn edge_4_a_copy_after_the_end() {
    let scene = |fault| {
        let mut hand = datagrams(fault);
        lose(&mut hand, vec![("Reply", 3)]);
        hand.call(0, 1, 1, ONCE);
        hand.run(Duration::from_secs(1));
        assert!(hand.is_done(1));
        assert_eq!((hand.count(1), hand.said("Reply")), (1, 4));
        let replies = hand.sent.iter().filter(|(_, it)| it.says("Reply"));
        let mut texts: Vec<&str> = replies.map(|(_, it)| it.text.as_str()).collect();
        texts.dedup();
        assert_eq!(texts.len(), 1, "the same answer each time");
    };
    holds_but_with(scene, &[Fault::ForgetsCalls]);
}

/// Checks RPC-14: edge case 4, a copy comes after a later call.
#[test]
fn edge_4_a_late_copy() {
    let scene = |fault| {
        let mut hand = datagrams(fault);
        hand.check = false;
        hand.rule = Box::new(|it| if it.says("Call") { Fate::Copy } else { Fate::Pass });
        for tag in [1, 2] {
            hand.call(0, 1, tag, ONCE);
            hand.run(10 * MS);
        }
        hand.run(100 * MS);
        hand.release_all();
        hand.run(100 * MS);
        assert_eq!((hand.count(1), hand.count(2)), (1, 1));
    };
    holds_but_with(scene, &[Fault::RunsLateCalls]);
}

/// Checks RPC-3 and RPC-15: edge case 4, a copy comes after the server was restarted and has forgotten the call.
#[test]
fn edge_4_a_copy_after_a_restart() {
    let scene = |fault| {
        let mut hand = datagrams(fault);
        hand.rule = Box::new(|it| if it.says("Call") { Fate::Copy } else { Fate::Pass });
        hand.call(0, 1, 1, ONCE);
        hand.run(10 * MS);
        hand.restart(1);
        hand.run(10 * MS);
        hand.release_all();
        hand.run(100 * MS);
        assert!(hand.is_done(1));
        assert_eq!(hand.count(1), 1);
    };
    holds_but_with(scene, &[Fault::BelievesAnyBinding]);
}

/// Checks RPC-3: edge case 4, a copy comes after the server was restarted and has read what it wrote.
#[test]
fn edge_4_a_copy_after_a_restart_from_disk() {
    let scene = |fault| {
        let mut hand = stored(fault);
        hand.rule = Box::new(|it| match it {
            it if it.says("Call") => Fate::Copy,
            it if it.says("Reply") => Fate::Lose,
            _ => Fate::Pass,
        });
        hand.call(0, 1, 1, ONCE);
        hand.run(10 * MS);
        hand.restart(1);
        hand.rule = Box::new(|_| Fate::Pass);
        hand.release_all();
        hand.run(100 * MS);
        assert!(hand.is_done(1), "the first answer again");
        assert_eq!(hand.count(1), 1);
    };
    holds_but_with(scene, &[Fault::ForgetsStored]);
}

/// Checks RPC-9: edge case 5, the reply comes after the abnormal end.
#[test]
fn edge_5_a_reply_after_the_end() {
    let mut hand = datagrams(None);
    hand.rule = Box::new(|it| if it.says("Reply") { Fate::Late(300 * MS) } else { Fate::Pass });
    hand.call(0, 1, 1, Ask { deadline: 100 * MS, ..ONCE });
    hand.run(101 * MS);
    assert_eq!(hand.failed(1), Some((Executed::NotMoreThanOnce, Reason::Deadline)));
    hand.call(0, 1, 2, ONCE);
    hand.run(Duration::from_secs(2));
    assert!(hand.is_done(2) && hand.failed(1).is_some());
}

/// Checks RPC-8: edge case 5, the reply is to a former life of the client, which has a call with the same number open.
#[test]
fn edge_5_a_reply_to_a_former_life() {
    let scene = |fault| {
        let mut hand = datagrams(fault);
        hand.rule = Box::new(|it| if it.says("Reply") { Fate::Hold } else { Fate::Pass });
        hand.call(0, 1, 1, ONCE);
        hand.run(5 * MS);
        hand.restart(0);
        hand.run(20 * MS);
        hand.takes = None;
        hand.call(0, 1, 2, ONCE);
        hand.run(5 * MS);
        assert_eq!((hand.count(2), hand.held.len()), (1, 1));
        hand.release_all();
        assert_eq!(hand.outcome(2), None);
        hand.rule = Box::new(|_| Fate::Pass);
        hand.finish(2);
        hand.run(5 * MS);
        assert!(hand.is_done(2));
    };
    holds_but_with(scene, &[Fault::MatchesByNumber]);
}

/// Checks RPC-5: edge case 6, the first of two calls comes last. The second one waits for it, and for its end.
#[test]
fn edge_6_reordered_calls() {
    let scene = |fault| {
        let mut hand = datagrams(fault);
        hand.takes = Some(10 * MS);
        let mut late = true;
        hand.rule = Box::new(move |it| match it.says("Call") && std::mem::take(&mut late) {
            true => Fate::Late(5 * MS),
            false => Fate::Pass,
        });
        hand.call(0, 1, 1, ONCE);
        hand.call(0, 1, 2, ONCE);
        hand.call(0, 1, 3, Ask { lane: None, ..ONCE });
        hand.run(100 * MS);
        let run = |tag| hand.runs.iter().find(|run| run.tag == tag).unwrap();
        assert!(run(1).ended.unwrap() <= run(2).begun, "in order, one after the other");
        assert!(run(3).begun < run(1).begun, "what is in no lane does not wait");
    };
    holds_but_with(scene, &[Fault::IgnoresOrder]);
}

/// Checks RPC-2, RPC-3 and RPC-74: edge case 7, the server crashes at each moment of a call; without a disk and with one.
#[test]
fn edge_7_the_server_crashes() {
    let lost = Some((Executed::NotMoreThanOnce, Reason::ServerLost));
    let restarted = Some((Executed::NotMoreThanOnce, Reason::Refused(Refusal::Restarted)));
    let tenths = |tenths| tenths * MS / 10;
    // A call takes 10 ms, a message and a write take 1 ms.
    let scene = |moments: &[(u32, &str, bool, _)], is_stored, fault| {
        for (moment, when, is_reply_lost, expected) in moments {
            let mut hand = Hand::new(2, config(Carrier::Datagrams, is_stored, fault));
            hand.takes = Some(10 * MS);
            if *is_reply_lost {
                lose(&mut hand, vec![("Reply", 1)]);
            }
            hand.call(0, 1, 1, ONCE);
            hand.run(tenths(*moment));
            hand.restart(1);
            hand.run(Duration::from_secs(2));
            assert!(hand.count(1) <= 1, "{when}: executed {} times", hand.count(1));
            assert_eq!(hand.failed(1), *expected, "{when}, stored: {is_stored}");
        }
    };
    let volatile = [
        (5, "before it begins", false, lost),
        (50, "in the middle", false, lost),
        (115, "after its end, before the reply", true, lost),
        (125, "after the reply", false, None),
    ];
    let stable = [
        (5, "before it begins", false, None),
        (15, "before that it begins is stable", false, None),
        (50, "in the middle", false, restarted),
        (125, "after its end, before the reply", true, restarted),
        (135, "after its end is stable, before the reply", true, None),
        (145, "after the reply", false, None),
    ];
    holds_but_with(|fault| scene(&volatile, false, fault), &[Fault::RepeatsAtNewServer]);
    holds_but_with(|fault| scene(&stable, true, fault), &[Fault::ForgetsStored]);
}

/// Checks RPC-3: edge case 7, the server crashes in the middle and before that it has begun is stable.
#[test]
fn edge_7_the_server_crashes_before_the_beginning_is_stable() {
    let scene = |fault| {
        let mut hand = stored(fault);
        (hand.takes, hand.disk) = (Some(10 * MS), 4 * MS);
        hand.call(0, 1, 1, ONCE);
        hand.run(3 * MS);
        hand.restart(1);
        hand.run(Duration::from_secs(1));
        assert!(hand.is_done(1));
        assert_eq!(hand.count(1), 1);
    };
    holds_but_with(scene, &[Fault::BeginsUnwritten]);
}

/// Checks RPC-74: edge case 7, the server crashes after it has refused a call. A copy that comes late is not executed.
#[test]
fn edge_7_the_server_crashes_after_a_refusal() {
    let scene = |fault| {
        let mut hand = stored(fault);
        hand.disk = 4 * MS;
        hand.rule = Box::new(|it| if it.says("Call") { Fate::Copy } else { Fate::Pass });
        hand.give(1, In::Command(Command::Withdraw { procedure: WORK }));
        hand.call(0, 1, 1, ONCE);
        hand.run(3 * MS);
        hand.restart(1);
        hand.release_all();
        hand.run(Duration::from_secs(1));
        assert_eq!(hand.count(1), usize::from(hand.is_done(1)), "{:?}", hand.failed(1));
    };
    holds_but_with(scene, &[Fault::AnswersUnwritten]);
}

/// Checks RPC-18 and RPC-21: edge cases 8 and 19, the client crashes after it has sent, is restarted and calls again. The orphan has the lock:
/// the second call begins when it has let go.
#[test]
fn edge_8_19_the_client_crashes_and_calls_again() {
    let scene = |fault| {
        for carrier in [Carrier::Link, Carrier::Datagrams] {
            let mut hand = Hand::new(2, config(carrier, false, fault));
            (hand.takes, hand.stops) = (Some(Duration::from_secs(60)), 30 * MS);
            hand.call(0, 1, 1, ONCE);
            hand.run(5 * MS);
            hand.restart(0);
            hand.takes = Some(MS);
            hand.run(5 * MS);
            hand.call(0, 1, 2, Ask { lane: None, ..ONCE });
            hand.run(Duration::from_secs(1));
            let run = |tag| hand.runs.iter().find(|run| run.tag == tag).unwrap();
            assert!(run(1).ended.unwrap() <= run(2).begun, "the orphan has stopped");
            assert!(hand.is_done(2));
        }
    };
    holds_but_with(scene, &[Fault::SparesOrphans]);
}

/// Checks RPC-22: edge case 8, the client crashes before what it has sent arrives: that is of a life that is over.
#[test]
fn edge_8_a_call_of_a_former_life() {
    let scene = |fault| {
        let mut hand = datagrams(fault);
        hand.rule = Box::new(|it| if it.says("Call") { Fate::Hold } else { Fate::Pass });
        hand.call(0, 1, 1, ONCE);
        hand.restart(0);
        hand.run(5 * MS);
        hand.release_all();
        hand.run(Duration::from_secs(1));
        assert_eq!(hand.count(1), 0);
    };
    holds_but_with(scene, &[Fault::HearsTheDead]);
}

/// Checks RPC-3, RPC-21 and RPC-74: edge case 9, both crash, in either order.
#[test]
fn edge_9_both_crash() {
    for is_stored in [false, true] {
        for order in [[0, 1], [1, 0]] {
            let mut hand = Hand::new(2, config(Carrier::Datagrams, is_stored, None));
            hand.rule = Box::new(|it| if it.says("Call") { Fate::Copy } else { Fate::Pass });
            hand.takes = Some(10 * MS);
            hand.call(0, 1, 1, ONCE);
            hand.run(5 * MS);
            order.into_iter().for_each(|at| hand.crash(at));
            order.into_iter().for_each(|at| hand.start(at));
            hand.run(20 * MS);
            hand.release_all();
            hand.call(0, 1, 2, ONCE);
            hand.run(Duration::from_secs(1));
            assert_eq!((hand.count(1), hand.count(2)), (1, 1));
            assert!(hand.is_done(2) && hand.outcome(1).is_none());
        }
    }
}

/// Checks RPC-2: edge case 10, a partition in mid-call is healed before the deadline, or after it.
#[test]
fn edge_10_a_partition() {
    for carrier in [Carrier::Link, Carrier::Datagrams] {
        let mut hand = Hand::new(2, config(carrier, false, None));
        hand.takes = Some(10 * MS);
        hand.call(0, 1, 1, ONCE);
        hand.call(0, 1, 2, Ask { deadline: 200 * MS, lane: None, ..ONCE });
        hand.run(5 * MS);
        hand.part(0, 1);
        hand.run(Duration::from_secs(1));
        assert_eq!(hand.failed(2), Some((Executed::NotMoreThanOnce, Reason::Deadline)));
        hand.join(0, 1);
        hand.run(Duration::from_secs(2));
        assert!(hand.is_done(1));
        assert_eq!((hand.count(1), hand.count(2)), (1, 1));
    }
}

/// Checks RPC-20: edge case 11, the server is slow: it stops at the deadline, and the client is told after that.
#[test]
fn edge_11_a_slow_server() {
    let scene = |fault| {
        let mut hand = datagrams(fault);
        hand.takes = None;
        hand.call(0, 1, 1, Ask { deadline: 100 * MS, ..ONCE });
        hand.run(Duration::from_secs(1));
        let stopped = hand.runs[0].ended.expect("it is stopped");
        assert!(stopped < hand.over(1));
        let expired = Reason::Refused(Refusal::Expired);
        assert_eq!(hand.failed(1), Some((Executed::NotMoreThanOnce, expired)));
    };
    holds_but_with(scene, &[Fault::IgnoresDeadline]);
}

/// Edge case 13: who is called calls back, as deep as there are places; beyond, the deadline ends it.
#[test]
fn edge_13_recursion() {
    for (places, depth, is_done) in [(1, 2, true), (2, 4, true), (1, 4, false)] {
        let mut hand = Hand::new(2, move |at, life| {
            let config = config(Carrier::Link, false, None)(at, life);
            Config { executions_max: places, ..config }
        });
        hand.takes = None;
        let ask = Ask { deadline: Duration::from_secs(1), lane: None, ..ONCE };
        hand.call(0, 1, 1, ask);
        hand.run(5 * MS);
        for tag in 2..=depth {
            let Some(parent) = hand.runs.iter().find(|run| run.tag == tag - 1) else { break };
            let (node, parent) = (parent.node, Some(parent.ticket));
            hand.call(node, 1 - node, tag, Ask { parent, ..ask });
            hand.run(5 * MS);
        }
        for tag in (1..=depth).rev() {
            if hand.runs.iter().any(|run| run.tag == tag && run.ended.is_none()) && is_done {
                hand.finish(tag);
                hand.run(5 * MS);
            }
        }
        hand.run(Duration::from_secs(2));
        assert_eq!(hand.is_done(1), is_done);
        assert!(hand.runs.iter().all(|run| run.ended.is_some()));
    }
}

/// Checks RPC-74: edge case 14, a call that nobody answers is executed never or once, and its caller is told that it was sent.
#[test]
fn edge_14_one_way() {
    let maybe = Ask { semantics: Semantics::Maybe, lane: None, ..ONCE };
    let mut hand = datagrams(None);
    hand.call(0, 1, 1, maybe);
    assert_eq!(hand.outcome(1), Some(Outcome::Done(Bytes::new())));
    hand.run(5 * MS);
    hand.call(0, 1, 2, maybe);
    hand.restart(1);
    hand.run(Duration::from_secs(1));
    assert_eq!((hand.count(1), hand.count(2)), (1, 0));
    hand.crash(1);
    hand.call(0, 1, 3, Ask { deadline: 100 * MS, ..maybe });
    hand.run(Duration::from_secs(1));
    assert_eq!(hand.failed(3), Some((Executed::NotAtAll, Reason::Deadline)));
}

/// Checks RPC-20 and RPC-21: edge case 14, an execution that nobody waits for is stopped at its deadline, and for a new life of its client.
#[test]
fn edge_14_one_way_orphans() {
    let maybe = Ask { semantics: Semantics::Maybe, lane: None, ..ONCE };
    let mut hand = datagrams(None);
    (hand.takes, hand.stops) = (None, 30 * MS);
    hand.call(0, 1, 1, Ask { deadline: 100 * MS, ..maybe });
    hand.call(0, 1, 2, maybe);
    hand.run(99 * MS);
    assert!(!hand.runs[0].goes_on() && hand.runs[1].goes_on());
    hand.restart(0);
    hand.run(20 * MS);
    hand.call(0, 1, 3, maybe);
    hand.call(0, 1, 4, ONCE);
    hand.run(100 * MS);
    let run = |tag| hand.runs.iter().find(|run| run.tag == tag).unwrap();
    assert!(run(2).ended.unwrap() <= run(3).begun && run(2).ended.unwrap() <= run(4).begun);
}

/// Checks RPC-74: edge cases 15 and 18, what is called is not there any more, or never was, or is there in another version.
#[test]
fn edge_15_18_what_is_called_is_gone() {
    let scene = |fault| {
        let mut hand = datagrams(fault);
        hand.rule = Box::new(|it| if it.says("Call") { Fate::Copy } else { Fate::Pass });
        hand.give(1, In::Command(Command::Withdraw { procedure: WORK }));
        hand.call(0, 1, 1, ONCE);
        hand.run(5 * MS);
        let refused = |why| Some((Executed::NotAtAll, Reason::Refused(why)));
        assert_eq!(hand.failed(1), refused(Refusal::Procedure));
        hand.give(1, In::Command(Command::Serve { procedure: WORK, versions: (2, 3) }));
        hand.call(0, 1, 2, ONCE);
        hand.run(5 * MS);
        assert_eq!(hand.failed(2), refused(Refusal::Version));
        hand.give(1, In::Command(Command::Serve { procedure: WORK, versions: (1, 3) }));
        hand.release_all();
        hand.run(100 * MS);
        assert_eq!((hand.count(1), hand.count(2)), (0, 0), "a copy that comes late");
        hand.call(0, 1, 3, ONCE);
        hand.run(5 * MS);
        assert!(hand.is_done(3));
    };
    holds_but_with(scene, &[Fault::ForgetsRefusals]);
    assert_ne!(WORK, ProcedureId::new("test.other"));
}

/// Checks RPC-8, RPC-21 and RPC-22: edge case 16, lives, lanes and the names of calls are at their end, and the deadline is the longest. What is of the life before the last one is not taken
/// for one of the last. After that there is none: it is refused. The numbers of calls at their end are in `src/wire/tests/floods.rs`.
#[test]
fn edge_16_numbers_at_their_end() {
    let scene = |fault| {
        for is_stored in [false, true] {
            let config = config(Carrier::Datagrams, is_stored, fault);
            let last = move |at, start| Config { life: u64::MAX - 3 + start, ..config(at, start) };
            let ask = Ask { lane: Some(u32::MAX), deadline: Duration::MAX, ..ONCE };
            let mut hand = Hand::new(2, last);
            hand.takes = Some(10 * MS);
            hand.rule = Box::new(|it| if it.says("Call") { Fate::Copy } else { Fate::Pass });
            hand.call(0, 1, u64::MAX, ask);
            hand.run(5 * MS);
            hand.restart(0);
            hand.rule = Box::new(|_| Fate::Pass);
            hand.run(20 * MS);
            assert_eq!(hand.rpc(0).status().life, u64::MAX - 1);
            hand.release_all();
            hand.run(20 * MS);
            hand.call(0, 1, u64::MAX - 1, ask);
            hand.run(20 * MS);
            hand.restart(1);
            hand.run(20 * MS);
            hand.call(0, 1, u64::MAX - 2, ask);
            hand.run(Duration::from_secs(1));
            let counts = [0, 1, 2].map(|it| hand.count(u64::MAX - it));
            assert_eq!((counts, hand.going_on()), ([1, 1, 1], vec![]));
            assert!(hand.is_done(u64::MAX - 1) && hand.is_done(u64::MAX - 2));
        }
    };
    holds_but_with(scene, &[Fault::HearsTheDead]);
    assert_eq!(Config::new(u64::MAX).check(), Err(ConfigError::TooLong));
}

/// Checks RPC-2: edge case 17, what is larger than a packet does not travel in one, so no part of it is lost.
#[test]
fn edge_17_a_large_message() {
    let mut hand = datagrams(None);
    hand.rule = Box::new(|it| if it.is_datagram() { Fate::Lose } else { Fate::Pass });
    let mut body = vec![7; 100_000];
    body[..8].copy_from_slice(&1u64.to_le_bytes());
    hand.call_with(0, 1, 1, ONCE, body.into());
    hand.run(20 * MS);
    assert_eq!(hand.count(1), 1);
    hand.rule = Box::new(|_| Fate::Pass);
    hand.run(Duration::from_secs(1));
    assert!(hand.is_done(1));
}

/// Checks RPC-3 and RPC-74: edge case 20, the service of calls alone ends at the server's node, or at the client's, and is there again.
#[test]
fn edge_20_the_manager_alone_crashes() {
    for carrier in [Carrier::Link, Carrier::Datagrams] {
        let mut hand = Hand::new(2, config(carrier, false, None));
        hand.takes = Some(50 * MS);
        hand.call(0, 1, 1, ONCE);
        hand.run(5 * MS);
        hand.remount(1);
        hand.run(5 * MS);
        assert_eq!(hand.failed(1), Some((Executed::NotMoreThanOnce, Reason::ServerLost)));
        hand.call(0, 1, 2, ONCE);
        hand.run(20 * MS);
        hand.remount(0);
        hand.run(20 * MS);
        assert!(hand.runs.iter().all(|run| !run.goes_on()), "what it had called is ended");
        hand.call(0, 1, 3, ONCE);
        hand.run(Duration::from_secs(1));
        assert!(hand.is_done(3));
        assert_eq!(hand.runs.len(), 3);
    }
}

/// A client's boot that a view leaves out is gone for good, whether or not its node is there again: what it had called is ended.
#[test]
fn calls_of_a_boot_that_a_view_leaves_out_are_ended() {
    for carrier in [Carrier::Link, Carrier::Datagrams] {
        let mut hand = Hand::new(2, config(carrier, false, None));
        hand.takes = Some(50 * MS);
        hand.call(0, 1, 1, ONCE);
        hand.run(5 * MS);
        assert!(hand.runs[0].goes_on());
        hand.leave_out(0);
        hand.run(5 * MS);
        assert!(!hand.runs[0].goes_on(), "what it had called is ended");
    }
}
