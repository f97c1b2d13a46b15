//! Adoption: whoever stands in for a node that has crashed in the middle of an execution has the results of what that had called.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use bytes::Bytes;
use mainstay_base::service::In;
use mainstay_base::{Duration, Machine as _, Rng};
use mainstay_rpc::fault::Fault;
use mainstay_rpc::{
    Carrier, Command, Config, ConfigError, Executed, Orphans, Outcome, Reason, Refusal, Ticket,
};
use mainstay_sim::holds_but_with;
use support::hand::{Ask, Fate, Hand, MS, ONCE};

/// The one who calls, the two that can do what it wants, and the one that both call.
const CLIENT: usize = 0;
const PRIMARY: usize = 1;
const SECONDARY: usize = 2;
const NESTED: usize = 3;
/// What the client wants, and what is called for that.
const ROOT: u64 = 100;
const PARTS: u64 = 3;
const KEEP: Duration = Duration::from_secs(60);
/// Of each part: it is called, its execution ends, its caller has acknowledged that. Then the root ends.
const STEPS: u64 = 3 * PARTS + 1;
const NAMED: Ask = Ask { name: Some(7), lane: None, deadline: Duration::from_secs(30), ..ONCE };

fn config(fault: Option<Fault>, carrier: Carrier) -> impl Fn(usize, u64) -> Config {
    move |_, life| {
        let mut config = Config::new(life);
        config.orphans = Orphans::Adoption { keep: KEEP, names_max: 16, bytes_max: 1 << 11 };
        (config.deadline_max, config.carrier, config.fault) = (KEEP / 2, carrier, fault);
        (config.retry, config.attempts) = (20 * MS, 20);
        config
    }
}

fn bytes(tag: u64) -> Bytes {
    Bytes::copy_from_slice(&tag.to_le_bytes())
}

/// One who does what the client wants: tokens of its calls are its own.
struct Doer {
    /// What a step takes at most.
    wait: Duration,
    node: usize,
    ticket: Ticket,
    tokens: u64,
}

impl Doer {
    /// The client's call with this token has come here.
    fn of(hand: &mut Hand, wait: Duration, node: usize, token: u64) -> Self {
        hand.call_with(CLIENT, node, token, NAMED, bytes(ROOT));
        hand.run(wait);
        let is = |run: &&support::hand::Run| run.node == node && run.ended.is_none();
        let run = hand.runs.iter().find(is).expect("it is executed");
        Self { wait, node, ticket: run.ticket, tokens: 1_000 * token }
    }

    fn step(&self, hand: &mut Hand, step: u64) {
        let part = step / 3 + 1;
        match step % 3 {
            _ if step + 1 == STEPS => {
                let is = |it: &support::hand::Run| it.ticket == self.ticket && it.ended.is_none();
                let index = hand.runs.iter().position(is).unwrap();
                hand.finish_run(index);
                hand.run(self.wait);
            }
            0 => {
                let ask = Ask { parent: Some(self.ticket), lane: Some(9), ..NAMED };
                let token = self.tokens + part;
                hand.call_with(self.node, NESTED, token, ask, bytes(part));
                hand.run(self.wait);
            }
            1 => {
                if hand.runs.iter().any(|run| run.tag == part && run.goes_on()) {
                    hand.finish(part);
                }
                hand.run(self.wait);
                let told = &hand.outcomes[&(self.tokens + part)];
                let (_, outcome) = &told[0];
                assert_eq!((told.len(), outcome), (1, &Outcome::Done(bytes(part))), "RPC-24");
            }
            _ => hand.run(self.wait),
        }
    }
}

fn hand(fault: Option<Fault>, carrier: Carrier) -> Hand {
    let mut hand = Hand::new(4, config(fault, carrier));
    hand.takes = None;
    hand
}

fn done(hand: &Hand, token: u64) -> bool {
    let told = hand.outcomes.get(&token);
    told.is_some_and(|told| told.len() == 1 && told[0].1 == Outcome::Done(bytes(ROOT)))
}

/// The primary crashes before each of its steps; the client calls again, at the secondary or at the primary's next life, under the same name.
fn crash_and_adopt(hand: &mut Hand, wait: Duration, crash: u64, second: usize) {
    let doer = Doer::of(hand, wait, PRIMARY, 1);
    (0..crash).for_each(|step| doer.step(hand, step));
    hand.restart(PRIMARY);
    hand.run(wait);
    assert_eq!(done(hand, 1), crash == STEPS);
    if crash == STEPS {
        return;
    }
    let doer = Doer::of(hand, wait, second, 2);
    (0..STEPS).for_each(|step| doer.step(hand, step));
    assert!(done(hand, 2), "RPC-24: the client has its result");
    for part in 1..=PARTS {
        assert_eq!(hand.count(part), 1, "RPC-72: {part} is executed once, crash before {crash}");
    }
    assert_eq!(hand.count(ROOT), 2);
    // Once more, and by another node: the same result, and no execution.
    hand.call_with(CLIENT, second, 3, NAMED, bytes(ROOT));
    hand.call_with(NESTED, second, 4, NAMED, bytes(ROOT));
    hand.run(wait);
    assert!(done(hand, 3) && done(hand, 4), "RPC-25");
    assert_eq!(hand.count(ROOT), 2, "RPC-25: it is not executed again");
}

/// Checks RPC-24, RPC-25 and RPC-72: whenever the primary crashes, the client has one result from who stands in for it, what the primary had called
/// is executed once in total, and a repeated call has the adopted result.
#[test]
fn calls_of_the_dead_are_adopted() {
    let scene = |fault| {
        for carrier in [Carrier::Link, Carrier::Datagrams] {
            for second in [SECONDARY, PRIMARY] {
                (0..=STEPS).for_each(|crash| {
                    crash_and_adopt(&mut hand(fault, carrier), 100 * MS, crash, second);
                });
            }
        }
    };
    holds_but_with(scene, &[Fault::EndsAdopted, Fault::ForgetsNames, Fault::NumbersAnew]);
}

/// Checks RPC-24, RPC-25 and RPC-72: the same while messages are lost, doubled and late, over seeds.
#[test]
fn calls_are_adopted_over_a_bad_network() {
    let scene = |fault| {
        for seed in mainstay_sim::seeds(0..200) {
            let mut hand = hand(fault, Carrier::Datagrams);
            let mut rng = Rng::new(seed);
            let (crash, second) = (rng.below(STEPS), 1 + rng.below(2) as usize);
            hand.rule = Box::new(move |it| match rng.below(8) {
                0 if it.is_datagram() => Fate::Lose,
                1 if it.is_datagram() => Fate::Twice,
                2 => Fate::Late(Duration::from_micros(rng.below(3_000))),
                _ => Fate::Pass,
            });
            crash_and_adopt(&mut hand, 1_500 * MS, crash, second);
        }
    };
    holds_but_with(scene, &[Fault::EndsAdopted, Fault::ForgetsNames, Fault::NumbersAnew]);
}

/// Checks RPC-6 and RPC-20: what nobody adopts ends at its deadline, and is not executed again under its name.
#[test]
fn an_orphan_that_nobody_adopts_ends_at_its_deadline() {
    let mut hand = hand(None, Carrier::Link);
    hand.call_with(CLIENT, PRIMARY, 1, NAMED, bytes(ROOT));
    hand.run(10 * MS);
    hand.crash(CLIENT);
    hand.run(NAMED.deadline - 100 * MS);
    assert_eq!(hand.going_on(), [ROOT]);
    hand.run(100 * MS);
    assert_eq!(hand.going_on(), [0; 0]);
    hand.start(CLIENT);
    hand.call_with(CLIENT, PRIMARY, 2, NAMED, bytes(ROOT));
    hand.run(10 * MS);
    let aborted = (Executed::NotMoreThanOnce, Reason::Refused(Refusal::Aborted));
    assert_eq!((hand.failed(2), hand.count(ROOT)), (Some(aborted), 1));
}

/// Checks RPC-6 and RPC-21: a call without a name dies with the life of its client, and so does what it has called.
#[test]
fn what_has_no_name_is_not_adopted() {
    let mut hand = hand(None, Carrier::Link);
    hand.call(CLIENT, PRIMARY, 1, Ask { name: None, ..NAMED });
    hand.run(10 * MS);
    let parent = Some(hand.runs[0].ticket);
    hand.call(PRIMARY, NESTED, 2, Ask { parent, ..ONCE });
    hand.run(10 * MS);
    assert_eq!(hand.going_on(), [1, 2]);
    hand.restart(CLIENT);
    hand.run(10 * MS);
    assert_eq!(hand.going_on(), [0; 0]);
}

/// Two callers of one name have one execution; one that gives up does not end it for the other one, and the last one does. The lane of the
/// one that gave up is taken until it has ended (RPC-5).
#[test]
fn callers_of_one_name_share_an_execution() {
    let ordered = Ask { lane: Some(1), ..NAMED };
    let begin = || {
        let mut hand = hand(None, Carrier::Link);
        hand.call_with(CLIENT, NESTED, 1, ordered, bytes(ROOT));
        hand.call_with(CLIENT, NESTED, 2, Ask { name: None, ..ordered }, bytes(2));
        hand.call_with(PRIMARY, NESTED, 3, NAMED, bytes(ROOT));
        hand.run(10 * MS);
        hand.give(CLIENT, In::Command(Command::Cancel { token: 1 }));
        hand.run(10 * MS);
        assert_eq!(hand.going_on(), [ROOT], "another one wants it, and the lane is taken");
        hand
    };
    let mut hand = begin();
    hand.finish(ROOT);
    hand.run(10 * MS);
    assert!(done(&hand, 3) && hand.going_on() == [2]);
    let mut hand = begin();
    hand.give(PRIMARY, In::Command(Command::Cancel { token: 3 }));
    hand.run(10 * MS);
    assert_eq!(hand.going_on(), [2]);
}

/// Callers that give up a named call while others wait for it are bounded: those without a lane are forgotten, and of the others a client has a window.
#[test]
fn callers_that_leave_are_bounded() {
    let scene = |fault| {
        let config = move |node, life| {
            let mut config = config(fault, Carrier::Link)(node, life);
            config.window = 4;
            config
        };
        let mut hand = Hand::new(4, config);
        hand.takes = None;
        hand.call_with(PRIMARY, NESTED, 1, NAMED, bytes(ROOT));
        hand.run(10 * MS);
        for (from, is_ordered) in [(100, false), (200, true)] {
            for token in from..from + 40 {
                let lane = is_ordered.then_some(token as u32);
                hand.call_with(CLIENT, NESTED, token, Ask { lane, ..NAMED }, bytes(ROOT));
                hand.run(10 * MS);
                let left = usize::try_from(token - from).unwrap();
                let busy = (Executed::NotAtAll, Reason::Refused(Refusal::Busy));
                let told = (is_ordered && left >= 4).then_some(busy);
                assert_eq!(hand.failed(token), told, "{token}");
                hand.give(CLIENT, In::Command(Command::Cancel { token }));
                hand.run(10 * MS);
            }
        }
        hand.finish(ROOT);
        hand.run(10 * MS);
        hand.call_with(CLIENT, NESTED, 300, Ask { lane: Some(201), ..NAMED }, bytes(ROOT));
        hand.run(10 * MS);
        assert!(done(&hand, 1) && done(&hand, 300));
        assert_eq!(hand.count(ROOT), 1);
    };
    holds_but_with(scene, &[Fault::CountsNoLeavers]);
}

/// A call that was refused and not executed may be made again under its name, wherever that was found: at its turn, or by whoever executes.
#[test]
fn what_was_not_executed_may_be_made_again() {
    let again = |hand: &mut Hand, why| {
        let refused = (Executed::NotAtAll, Reason::Refused(why));
        assert_eq!(hand.failed(1), Some(refused));
        hand.call_with(PRIMARY, NESTED, 2, NAMED, bytes(ROOT));
        hand.run(10 * MS);
        hand.finish(ROOT);
        hand.run(10 * MS);
        assert!(done(hand, 2), "it is executed");
    };
    let scene = |fault| {
        let mut hand = hand(fault, Carrier::Link);
        hand.call_with(CLIENT, NESTED, 1, NAMED, bytes(ROOT));
        hand.run(10 * MS);
        let ticket = hand.runs[0].ticket;
        hand.runs[0].ended = Some(hand.now);
        let result = mainstay_rpc::Finish::Denied;
        hand.give(NESTED, In::Command(Command::Finished { ticket, result }));
        hand.run(10 * MS);
        again(&mut hand, Refusal::Denied);
    };
    holds_but_with(scene, &[Fault::KeepsRefusals]);
    let scene = |fault| {
        let config = move |node, life| Config {
            executions_max: 1,
            ..config(fault, Carrier::Link)(node, life)
        };
        let mut hand = Hand::new(4, config);
        hand.takes = None;
        hand.call_with(CLIENT, NESTED, 9, Ask { name: None, ..NAMED }, bytes(9));
        let short = Ask { deadline: Duration::from_secs(1), ..NAMED };
        hand.call_with(CLIENT, NESTED, 1, short, bytes(ROOT));
        hand.run(10 * MS);
        // It has its turn when its time is over.
        hand.now = hand.rpc(NESTED).poll_timeout().unwrap();
        hand.finish(9);
        hand.run(10 * MS);
        assert_eq!(hand.count(ROOT), 0);
        again(&mut hand, Refusal::Late);
    };
    holds_but_with(scene, &[Fault::KeepsRefusals]);
}

/// A client has no more names than are free, so others have some.
#[test]
fn a_client_leaves_names_to_others() {
    let scene = |fault| {
        let mut hand = hand(fault, Carrier::Link);
        hand.takes = Some(MS);
        for tag in 1..=16 {
            hand.call(CLIENT, NESTED, tag, Ask { name: Some(tag.into()), ..NAMED });
        }
        hand.run(10 * MS);
        hand.call_with(PRIMARY, NESTED, 50, Ask { name: Some(50), ..NAMED }, bytes(50));
        hand.run(10 * MS);
        assert!(hand.is_done(50));
    };
    holds_but_with(scene, &[Fault::SharesNothing]);
}

/// Checks RPC-74: a call is given the execution of another one only if both were promised the same.
#[test]
fn a_name_is_for_one_promise() {
    let scene = |fault| {
        let mut hand = hand(fault, Carrier::Link);
        hand.call_with(CLIENT, NESTED, 1, NAMED, bytes(ROOT));
        hand.run(10 * MS);
        let semantics = mainstay_rpc::Semantics::AtMostOnce;
        hand.call_with(PRIMARY, NESTED, 2, Ask { semantics, ..NAMED }, bytes(ROOT));
        hand.run(10 * MS);
        let differs = (Executed::NotAtAll, Reason::Refused(Refusal::Differs));
        assert_eq!(hand.failed(2), Some(differs));
    };
    holds_but_with(scene, &[Fault::MixesPromises]);
}

/// What dead clients have left takes no more than half of the places.
#[test]
fn the_dead_leave_places_to_others() {
    let scene = |fault| {
        let config = move |node, life| Config {
            executions_max: 4,
            ..config(fault, Carrier::Link)(node, life)
        };
        let mut hand = Hand::new(4, config);
        hand.takes = None;
        for tag in 1..=4 {
            hand.call(CLIENT, NESTED, tag, Ask { name: Some(tag.into()), ..NAMED });
        }
        hand.run(10 * MS);
        hand.leave_out(CLIENT);
        hand.run(10 * MS);
        hand.call(PRIMARY, NESTED, 5, NAMED);
        hand.run(10 * MS);
        assert_eq!(hand.going_on(), [1, 2, 5]);
    };
    holds_but_with(scene, &[Fault::SparesBereaved]);
}

/// A refused call is remembered without its name.
#[test]
fn a_refused_call_leaves_no_name() {
    let scene = |fault| {
        let mut hand = hand(fault, Carrier::Link);
        let procedure = support::hand::WORK;
        hand.give(PRIMARY, In::Command(Command::Withdraw { procedure }));
        hand.call_with(CLIENT, PRIMARY, 1, NAMED, bytes(ROOT));
        hand.run(10 * MS);
        let refused = (Executed::NotAtAll, Reason::Refused(Refusal::Procedure));
        assert_eq!(hand.failed(1), Some(refused));
    };
    holds_but_with(scene, &[Fault::KeepsRefusedNames]);
}

/// A server that closes ends what has a name, and tells all that call by it at once: not another call of the client that has the number of a
/// call of its former life.
#[test]
fn a_server_that_closes_tells_all_callers_of_a_name() {
    let scene = |fault| {
        let mut hand = hand(fault, Carrier::Datagrams);
        hand.stops = Duration::from_secs(10);
        hand.call_with(CLIENT, NESTED, 1, NAMED, bytes(ROOT));
        hand.call_with(PRIMARY, NESTED, 3, NAMED, bytes(ROOT));
        hand.run(10 * MS);
        hand.restart(CLIENT);
        hand.run(10 * MS);
        hand.call_with(CLIENT, NESTED, 2, Ask { name: None, ..NAMED }, bytes(2));
        hand.run(10 * MS);
        assert_eq!(hand.going_on(), [ROOT, 2]);
        // It has a result, of which its client hears nothing yet.
        hand.rule =
            Box::new(
                |it| if it.from == NESTED && it.to == CLIENT { Fate::Lose } else { Fate::Pass },
            );
        hand.finish(2);
        hand.run(10 * MS);
        hand.give(NESTED, In::Command(Command::Close));
        hand.run(10 * MS);
        let aborted = (Executed::NotMoreThanOnce, Reason::Refused(Refusal::Aborted));
        assert_eq!(hand.failed(3), Some(aborted), "before its execution has stopped");
        hand.rule = Box::new(|_| Fate::Pass);
        hand.run(1_000 * MS);
        assert_eq!(hand.outcome(2), Some(Outcome::Done(bytes(2))));
    };
    holds_but_with(scene, &[Fault::AbortsByNumber]);
}

/// What is kept by names is bounded, in number, bytes and time; a name is for one call.
#[test]
fn names_are_bounded() {
    let mut hand = hand(None, Carrier::Link);
    (hand.takes, hand.result) = (Some(MS), 300);
    let named = |name| Ask { name: Some(name), ..NAMED };
    for tag in 1..=5 {
        hand.call(CLIENT, PRIMARY, tag, named(u128::from(tag)));
        hand.run(10 * MS);
        // Three results of 300 bytes are kept; a fourth one has no room, and is told all the same.
        assert!(hand.is_done(tag), "{tag}");
    }
    let again = |hand: &mut Hand, token, name, tag| {
        hand.call_with(CLIENT, PRIMARY, token, named(name), bytes(tag));
        hand.run(10 * MS);
        hand.outcomes[&token][0].1.clone()
    };
    let refused = |outcome, executed, why| {
        let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
        assert_eq!((failure.executed, failure.reason), (executed, Reason::Refused(why)));
    };
    assert!(matches!(again(&mut hand, 11, 1, 1), Outcome::Done(_)));
    let large = Refusal::ResultTooLarge;
    refused(again(&mut hand, 14, 4, 4), Executed::NotMoreThanOnce, large);
    refused(again(&mut hand, 12, 1, 2), Executed::NotAtAll, Refusal::Differs);
    (6..=8).for_each(|tag| drop(again(&mut hand, tag, tag.into(), tag)));
    refused(again(&mut hand, 9, 9, 9), Executed::NotAtAll, Refusal::Busy);
    assert_eq!((hand.count(4), hand.count(9)), (1, 0));
    // A lane full of calls by one name that is over does not nest turns.
    for token in 1_000..4_000 {
        let ask = Ask { lane: Some(1), ..named(1) };
        hand.call_with(CLIENT, PRIMARY, token, ask, bytes(1));
    }
    hand.run(100 * MS);
    assert_eq!((hand.count(1), hand.outcomes.len()), (1, 3_012));
    hand.run(KEEP);
    assert!(matches!(again(&mut hand, 20, 9, 9), Outcome::Done(_)), "there is room again");
    let mut config = Config::new(1);
    config.orphans = Orphans::Adoption { keep: KEEP, names_max: 8, bytes_max: 1 << 10 };
    assert_eq!(config.check(), Err(ConfigError::Adoption), "deadlines are longer");
    config.deadline_max = KEEP / 2 + MS;
    assert_eq!(config.check(), Err(ConfigError::Adoption), "who stands in has a second deadline");
    config.deadline_max = KEEP / 2;
    assert_eq!(config.check(), Ok(()));
    config.stored = true;
    assert_eq!(config.check(), Err(ConfigError::Adoption), "names are not stored");
}
