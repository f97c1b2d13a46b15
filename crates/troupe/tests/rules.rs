//! One property at a time, in calm worlds with one fault where it matters.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;

use mainstay_base::Duration;
use mainstay_rpc::Executed;
use mainstay_sim::holds_but_with;
use mainstay_sim::{Disk, Fault as Blow, Moment, Options, Wire};
use mainstay_troupe::fault::Fault;
use mainstay_troupe::{
    Begin, Collator, Command, Config, Failure, Outcome, Reason, Sequence, TroupeName,
};
use support::{Part, Play, setup, short, tag};

const SECOND: Duration = Duration::from_secs(1);
const CLIENT: usize = 1;

/// A troupe of three servers at nodes 1 to 3 and one of clients at 4 and 5, which make their calls one by one.
fn play(collator: Collator, fault: Option<Fault>) -> Play {
    let client = Part { collator, ..Part::client("client", &[4, 5], "server", 1) };
    with(vec![Part::server("server", &[1, 2, 3]), client], fault)
}

/// No faults but those that a test brings about.
fn calm() -> Options {
    let mut options = Options::calm(Wire::Channel);
    options.atlas.down = 3;
    options
}

fn with(parts: Vec<Part>, fault: Option<Fault>) -> Play {
    of(parts, calm(), move |config| Config { fault, ..short(config) })
}

fn of(parts: Vec<Part>, options: Options, config: impl Fn(Config) -> Config + 'static) -> Play {
    let setup = setup(config);
    let mut play = Play::new(1, 6, parts, setup, options, Vec::new());
    play.is_open = false;
    play.until("all are there", SECOND, Play::all_full).unwrap();
    play
}

/// So many calls are made and over at all replicas of the client.
fn calls(play: &mut Play, count: usize) -> Result<(), String> {
    let before = play.outcomes.len();
    play.is_open = true;
    play.until("the calls are made", 5 * SECOND, |it| it.outcomes.len() >= before + count)?;
    play.is_open = false;
    play.run(Duration::from_millis(300))
}

fn crash(play: &mut Play, node: usize, length: Duration) {
    let (disk, moment) = (Disk::Kept, Moment::Now);
    assert!(play.world.inject(Blow::Crash { node, length, disk, moment }));
}

fn fails(outcome: &Outcome, why: Reason) -> bool {
    *outcome == Outcome::Failed(Failure { executed: Executed::NotMoreThanOnce, reason: why })
}

/// Checks RPC-42: of three servers one lies. A majority masks it, unanimity says so, and the first answer may be the wrong one.
#[test]
fn a_wrong_server_is_masked_or_found() {
    holds_but_with(
        |fault| {
            let mut wrong = 0;
            for collator in [Collator::Majority, Collator::Unanimous, Collator::First] {
                let mut play = play(collator, fault);
                play.liar = Some(2);
                // Each of the two clients may hear another one first.
                play.is_random = collator == Collator::First;
                if collator == Collator::First {
                    play.is_random = false;
                    play.parts[CLIENT].nodes = vec![4];
                }
                let made = calls(&mut play, 20);
                for (tag, outcome) in &play.outcomes {
                    match collator {
                        Collator::Majority => {
                            let right = support::value(*tag, 0).to_le_bytes();
                            assert!(matches!(outcome, Outcome::Done(it) if it[..] == right));
                        }
                        Collator::Unanimous => assert!(fails(outcome, Reason::Differ)),
                        _ => {
                            let right = support::value(*tag, 0).to_le_bytes();
                            wrong += u64::from(*outcome != Outcome::Done(right.to_vec().into()));
                        }
                    }
                }
                if collator != Collator::First {
                    made.unwrap();
                }
            }
            assert!(wrong > 0, "the first answer is the wrong one now and then");
        },
        &[Fault::TakesFirst],
    );
}

/// Checks RPC-48: servers that are not deterministic are found by unanimity.
#[test]
fn servers_that_differ_are_found() {
    holds_but_with(
        |fault| {
            let mut play = play(Collator::Unanimous, fault);
            play.is_random = true;
            calls(&mut play, 20).unwrap();
            assert!(play.outcomes.values().all(|it| fails(it, Reason::Differ)));
        },
        &[Fault::TakesFirst],
    );
}

/// Checks RPC-41 and RPC-45: one server of three and one client of two survive, the other clients and servers crash in the middle of calls; calls
/// succeed, and the replicas of the client agree on all.
#[test]
fn one_survivor_on_either_side_is_enough() {
    holds_but_with(
        |fault| {
            for after in [1, 2, 3] {
                let mut play = play(Collator::First, fault);
                play.is_open = true;
                play.until("calls are made", SECOND, |it| it.outcomes.len() >= 5).unwrap();
                play.run(Duration::from_micros(500) * after).unwrap();
                for node in [1, 2, 5] {
                    crash(&mut play, node, Duration::from_secs(1_000));
                }
                let before = play.outcomes.len();
                let goes_on = |it: &Play| it.outcomes.len() >= before + 20;
                play.until("RPC-41: calls succeed", 2 * SECOND, goes_on).unwrap();
                assert!(play.outcomes.values().all(|it| matches!(it, Outcome::Done(_))));
            }
        },
        &[Fault::WaitsForAll, Fault::CallsOne],
    );
}

/// Checks RPC-41: with a majority collator two servers of three are enough, and one is not.
#[test]
fn a_majority_is_enough_for_a_majority() {
    let mut play = play(Collator::Majority, None);
    crash(&mut play, 1, Duration::from_secs(1_000));
    calls(&mut play, 20).unwrap();
    crash(&mut play, 2, Duration::from_secs(1_000));
    assert!(calls(&mut play, 5).is_err());
}

/// Checks RPC-45: a server that crashes while it answers has answered some replicas of the client and not others; others answer all.
#[test]
fn clients_agree_when_a_server_crashes_in_the_middle_of_its_answers() {
    holds_but_with(
        |fault| {
            for step in 0..12 {
                let mut play = play(Collator::First, fault);
                play.is_open = true;
                let both = |it: &Play| it.told.values().filter(|count| **count == 2).count() >= 3;
                play.until("both are told", SECOND, both).unwrap();
                play.run(Duration::from_micros(500) * step).unwrap();
                crash(&mut play, 1, Duration::from_millis(300));
                play.run(Duration::from_millis(200)).unwrap();
                play.finish().unwrap();
                assert!(play.told.values().all(|count| *count == 2), "each is told of each call");
            }
        },
        &[Fault::AnswersOne],
    );
}

/// Checks RPC-44: a replica of the client that is paused gets the results that were kept for it, and they are dropped then; one that joins goes on
/// from the state of the other one.
#[test]
fn late_and_new_clients_get_what_is_kept() {
    holds_but_with(
        |fault| {
            let mut play = play(Collator::First, fault);
            let length = Duration::from_millis(200);
            assert!(play.world.inject(Blow::Pause { node: 5, length }));
            play.is_open = true;
            play.run(Duration::from_millis(150)).unwrap();
            let kept: Vec<usize> = (1..4).map(|node| play.status(node).unwrap().kept).collect();
            assert!(kept.iter().all(|it| *it > 10), "results are kept for the late one: {kept:?}");
            play.run(SECOND).unwrap();
            let served = play.status(1).unwrap().served;
            assert!(served.retained > 10, "the late one got them: {served:?}");
            crash(&mut play, 5, Duration::from_millis(50));
            play.run(SECOND).unwrap();
            play.is_open = false;
            let dropped = |it: &Play| (1..4).all(|node| it.status(node).unwrap().kept == 0);
            play.until("all is dropped when all have it", 2 * SECOND, dropped).unwrap();
            play.finish().unwrap();
        },
        &[Fault::ForgetsResults, Fault::KeepsResults],
    );
}

/// Checks RPC-46: a call that names the troupe as it was is refused by all, and sent once more, to the troupe as it is; once each.
#[test]
fn a_stale_call_is_bound_again_once() {
    holds_but_with(
        |fault| {
            let mut parts =
                vec![Part::server("server", &[1, 2]), Part::client("client", &[4], "server", 1)];
            parts[0].nodes.push(3);
            let mut play = with(parts, fault);
            calls(&mut play, 3).unwrap();
            // The client does not hear of the new membership.
            let length = Duration::from_secs(100);
            let (one, other) = (0, 4);
            assert!(play.world.inject(Blow::Cut { one, other, length }));
            crash(&mut play, 3, Duration::from_millis(20));
            play.until("it is back", 2 * SECOND, Play::all_full).unwrap();
            let stale = |play: &Play| {
                (1..4).map(|node| play.status(node).unwrap().served.stale).sum::<u64>()
            };
            let (before, rebound) = (stale(&play), play.status(4).unwrap().rebound);
            calls(&mut play, 10).unwrap();
            assert_eq!(
                play.status(4).unwrap().rebound,
                rebound + 1,
                "one call is sent again, once"
            );
            assert_eq!(stale(&play), before + 2, "by all that it was sent to");
            let logs = play.logs("server");
            assert!(logs.iter().all(|log| *log == logs[0]), "also by the new one: {logs:x?}");
        },
        &[Fault::IgnoresVersion, Fault::NeverRebinds],
    );
}

/// Checks RPC-47: from a troupe of two through one of three into one of two, each replica at each level executes each call once.
#[test]
fn nested_calls_are_executed_once_at_each_level() {
    holds_but_with(
        |fault| {
            let front = Part { nests: Some("back"), ..Part::server("front", &[1, 2, 3]) };
            let client = Part::client("client", &[4, 5], "front", 2);
            let mut play = with(vec![front, Part::server("back", &[3, 4]), client], fault);
            calls(&mut play, 60).unwrap();
            play.finish().unwrap();
            let (front, back) = (play.logs("front"), play.logs("back"));
            assert!(front.iter().all(|log| log.len() >= 60) && front.len() == 3);
            assert!(back.iter().all(|log| log.len() == front[0].len() / 3) && back.len() == 2);
        },
        &[Fault::FlatIds],
    );
}

/// Checks RPC-40 and RPC-42 of the clients: one of three says something else. When all have to agree the call is refused; a majority masks it.
#[test]
fn a_wrong_client_is_masked_or_found() {
    for (begin, is_executed) in [(Begin::All, false), (Begin::Majority, true)] {
        let mut server = Part::server("server", &[1, 2]);
        server.serving.begin = begin;
        let mut play = with(vec![server, Part::client("client", &[3, 4, 5], "server", 1)], None);
        play.wrong_client = Some(5);
        play.is_random = true;
        calls(&mut play, 5).unwrap();
        let right = |log: &Vec<u64>| log.iter().all(|it| it & 1 << 38 == 0) && log.len() >= 5;
        let logs = play.logs("server");
        assert_eq!(logs.iter().all(right), is_executed, "{logs:x?}");
        assert!(is_executed || logs.iter().all(Vec::is_empty));
    }
}

/// Checks RPC-61 for troupes: without faults a logical call costs m calls to each of n servers, and as many answers; acknowledgements ride on later
/// calls.
#[test]
fn a_call_costs_as_many_messages_as_pairs_of_replicas() {
    let scene = |fault| {
        for (clients, servers) in [(1, 1), (2, 3), (3, 2)] {
            let nodes: Vec<usize> = (1..=5).collect();
            let server = Part::server("server", &nodes[..servers]);
            let client = Part::client("client", &nodes[servers..servers + clients], "server", 1);
            let mut play = with(vec![server, client], fault);
            calls(&mut play, 5).unwrap();
            let (before, made) = (play.sent(), play.outcomes.len());
            calls(&mut play, 200).unwrap();
            let made = (play.outcomes.len() - made) as u64;
            let pairs = (clients * servers) as u64;
            let sent = play.sent() - before;
            println!("{clients} clients, {servers} servers: {made} calls, {sent} messages");
            // The last acknowledgements go alone; replicas that are apart by more than the window of acknowledgements say them alone as well.
            assert!(sent >= 2 * pairs * made && sent <= 2 * pairs * made + made / 10 + 4 * pairs);
        }
    };
    holds_but_with(scene, &[Fault::AcksEach]);
}

/// A member that is not heard for long is taken out, and told so when it is back; the last one never is.
#[test]
fn silent_members_are_taken_out_and_come_back() {
    let parts = vec![Part::server("server", &[1, 2]), Part::client("client", &[4], "server", 1)];
    let setup = setup(|config| Config { patience: Duration::from_millis(200), ..short(config) });
    let mut play = Play::new(1, 6, parts, setup, calm(), Vec::new());
    play.is_open = false;
    play.until("all are there", SECOND, Play::all_full).unwrap();
    calls(&mut play, 5).unwrap();
    let length = Duration::from_millis(600);
    for other in [0, 2, 3, 4, 5] {
        assert!(play.world.inject(Blow::Cut { one: 1, other, length }));
    }
    play.is_open = true;
    play.run(Duration::from_millis(500)).unwrap();
    assert_eq!(play.status(4).unwrap().open, 1, "nothing waits for the one that was taken out");
    play.run(SECOND).unwrap();
    play.finish().unwrap();
}

/// Adds a replica of the first troupe at a node.
fn grow(play: &mut Play, node: usize) {
    play.parts[0].nodes.push(node);
}

/// Checks RPC-43: two members want the state at once and hear the order from different places on. Each is given a state that has all before its place.
#[test]
fn each_new_member_gets_a_state_that_its_order_goes_on_from() {
    holds_but_with(
        |fault| {
            for step in 0..10 {
                let mut server = Part::server("server", &[1]);
                server.serving.sequence = Sequence::Cast;
                let client = Part::client("client", &[4], "server", 16);
                let mut play = with(vec![server, client], fault);
                play.is_open = true;
                play.run(Duration::from_millis(20)).unwrap();
                // Both are heard when the member with the state goes on; it is behind its order by then.
                let cut = Blow::Cut { one: 1, other: 2, length: Duration::from_millis(30) };
                assert!(play.world.inject(cut));
                grow(&mut play, 2);
                play.run(Duration::from_millis(20) + Duration::from_micros(500) * step).unwrap();
                let length = Duration::from_millis(40);
                assert!(play.world.inject(Blow::Pause { node: 1, length }));
                grow(&mut play, 3);
                play.until("they are there", 2 * SECOND, Play::all_full).unwrap();
                play.run(Duration::from_millis(20)).unwrap();
                play.finish().unwrap();
            }
        },
        &[Fault::GivesEarly],
    );
}

/// Checks RPC-44: a replica of a client joins while calls are open; some of them end after the state was asked for, and before it is given. It makes all
/// that the state does not have.
#[test]
fn a_new_client_makes_the_calls_that_its_state_does_not_have() {
    holds_but_with(
        |fault| {
            for step in 0..40 {
                let client = Part::client("client", &[4], "server", 4);
                let parts = vec![client, Part::server("server", &[1])];
                let options = Options { spread: Duration::from_millis(2), ..calm() };
                let mut play = of(parts, options, move |it| Config { fault, ..short(it) });
                play.is_open = true;
                play.run(Duration::from_millis(20) + Duration::from_micros(500) * step).unwrap();
                grow(&mut play, 5);
                play.until("it is there", SECOND, Play::all_full).unwrap();
                play.run(Duration::from_millis(20)).unwrap();
                play.finish().unwrap();
            }
        },
        &[Fault::CarriesOpen],
    );
}

/// Checks RPC-46: a server that others do not wait for any more is taken out while calls are open, more than may be sent at a time. Those that were sent
/// are sent again before a new one is, so that the calls of a client stay in their order.
#[test]
fn calls_are_sent_again_in_their_order() {
    holds_but_with(
        |fault| {
            for step in 0..60 {
                let mut server = Part::server("server", &[1, 2, 3]);
                server.serving.begin = Begin::All;
                let client = Part::client("client", &[4, 5], "server", 4);
                let config = move |it| Config { fault, window: 2, ..short(it) };
                let mut play = of(vec![server, client], calm(), config);
                play.is_open = true;
                play.run(Duration::from_millis(20) + Duration::from_micros(500) * step).unwrap();
                crash(&mut play, 3, Duration::from_millis(30));
                play.run(Duration::from_millis(200)).unwrap();
                play.finish().unwrap();
            }
        },
        &[Fault::SendsNextFirst],
    );
}

/// Checks RPC-41: the oldest member that is left has no state, since it was cut off from the one that had it; a younger one got it in time. The oldest
/// one takes it from there, and does not begin anew.
#[test]
fn the_oldest_member_takes_the_state_of_a_younger_one() {
    holds_but_with(
        |fault| {
            let parts =
                vec![Part::server("server", &[1]), Part::client("client", &[4], "server", 1)];
            let mut play = with(parts, fault);
            calls(&mut play, 5).unwrap();
            let length = Duration::from_secs(100);
            assert!(play.world.inject(Blow::Cut { one: 1, other: 2, length }));
            grow(&mut play, 2);
            play.run(Duration::from_millis(50)).unwrap();
            grow(&mut play, 3);
            play.run(Duration::from_millis(50)).unwrap();
            let full: Vec<usize> =
                play.replicas.iter().filter(|it| it.is_full).map(|it| it.node).collect();
            assert_eq!(full, [1, 4, 3], "the younger one has the state, the older one has not");
            crash(&mut play, 1, Duration::from_millis(50));
            play.until("all are there", 2 * SECOND, Play::all_full).unwrap();
            assert!(play.lost.is_empty());
            play.finish().unwrap();
            let logs = play.logs("server");
            assert!(logs.iter().all(|log| *log == logs[0] && log.len() >= 5), "{logs:x?}");
        },
        &[Fault::AsksOlder],
    );
}

/// Checks RPC-41: the only replica is drained while others join. It leaves when they have its state, and they do not begin anew; it joins no more.
#[test]
fn a_node_that_leaves_hands_its_state_over() {
    holds_but_with(
        |fault| {
            for (step, news) in (0..8).flat_map(|step| [(step, 1), (step, 2)]) {
                let parts =
                    vec![Part::server("server", &[1]), Part::client("client", &[4], "server", 1)];
                let mut play = with(parts, fault);
                calls(&mut play, 5).unwrap();
                let executed = play.logs("server")[0].clone();
                (0..news).for_each(|at| grow(&mut play, 2 + at));
                let boot = play.world.boot(1);
                let is_known = |it: &Play| it.members.get(&(boot, 0)) == Some(&(1 + news));
                play.until("it knows the new ones", SECOND, is_known).unwrap();
                play.run(Duration::from_micros(500) * step).unwrap();
                play.parts[0].nodes.remove(0);
                play.give(1, boot, Command::Drain);
                play.until("it has left", SECOND, |it| it.drained == [1]).unwrap();
                let (troupe, serving) = (TroupeName::new("server"), play.parts[0].serving);
                play.give(1, boot, Command::Join { troupe, serving });
                play.until("the others are there", SECOND, Play::all_full).unwrap();
                assert!(play.lost.is_empty(), "the state is lost");
                assert!(play.logs("server").iter().all(|log| log.starts_with(&executed)));
                calls(&mut play, 5).unwrap();
                assert_eq!(play.members[&(play.world.boot(2), 0)], news);
                play.finish().unwrap();
            }
        },
        &[Fault::LeavesEarly, Fault::JoinsAgain],
    );
}

/// All replicas but one are drained at once: the oldest one goes last, and the state is there. With the last one it goes.
#[test]
fn of_nodes_that_leave_at_once_one_hands_the_state_over() {
    let parts = vec![Part::server("server", &[1, 2, 3]), Part::client("client", &[4], "server", 1)];
    let mut play = with(parts, None);
    calls(&mut play, 5).unwrap();
    grow(&mut play, 5);
    let (boots, all) = ([1, 2, 3].map(|node| (node, play.world.boot(node))), 4);
    let knows = move |it: &Play| boots.iter().all(|(_, boot)| it.members[&(*boot, 0)] == all);
    play.until("they know the new one", SECOND, knows).unwrap();
    play.parts[0].nodes = vec![5];
    for (node, boot) in boots {
        play.give(node, boot, Command::Drain);
    }
    play.until("they have left", SECOND, |it| it.drained.len() == 3).unwrap();
    play.until("the new one is there", SECOND, Play::all_full).unwrap();
    assert!(play.lost.is_empty(), "the state is lost");
    calls(&mut play, 5).unwrap();
    let boot = play.world.boot(5);
    play.give(5, boot, Command::Drain);
    play.until("the last one has left", SECOND, |it| it.drained.len() == 4).unwrap();
}

/// Checks RPC-41: a replica comes anew while the other one executes calls that call others, more than results are kept for one that does not fetch them.
/// It fetches none before it has a state, and the other one gives that when these calls are over: what is kept for the new one does not hold them up.
#[test]
fn results_for_new_members_hold_nothing_up() {
    holds_but_with(
        |fault| {
            let mut front = Part { nests: Some("back"), ..Part::server("front", &[1, 2]) };
            front.serving.at_once = 32;
            let client = Part::client("client", &[4, 5], "front", 24);
            let config = move |it| Config { fault, retained_max: 2, ..short(it) };
            let parts = vec![front, Part::server("back", &[3]), client];
            let mut play = of(parts, calm(), config);
            play.is_open = true;
            for _ in 0..10 {
                play.run(Duration::from_millis(50)).unwrap();
                crash(&mut play, 2, Duration::from_millis(5));
                play.run(Duration::from_millis(6)).unwrap();
                play.until("it is back", 2 * SECOND, Play::all_full).unwrap();
            }
            play.finish().unwrap();
        },
        &[Fault::HoldsUp],
    );
}

/// Checks RPC-41: both replicas of a troupe are to give their states, each to another new member. They are at calls of different clients, which call others
/// that wait for both. After a time each begins the call of the other one.
#[test]
fn members_that_give_their_states_do_not_wait_for_each_other() {
    holds_but_with(
        |fault| {
            let mut front = Part { nests: Some("back"), ..Part::server("front", &[1]) };
            front.serving.at_once = 32;
            let mut back = Part::server("back", &[5]);
            back.serving.begin = Begin::All;
            let one = Part::client("one", &[4], "front", 8);
            let two = Part::client("two", &[5], "front", 8);
            let mut play = with(vec![front, back, one, two], fault);
            grow(&mut play, 2);
            play.until("the second one is there", SECOND, Play::all_full).unwrap();
            // Each client is heard by one of them; the new member at node 3 by the younger one, that at node 0 by the older one.
            for (one, other) in [(4, 2), (5, 1), (3, 1)] {
                let length = Duration::from_millis(60);
                assert!(play.world.inject(Blow::Cut { one, other, length }));
            }
            play.run(Duration::from_millis(10)).unwrap();
            play.is_open = true;
            play.run(Duration::from_millis(20)).unwrap();
            grow(&mut play, 3);
            grow(&mut play, 0);
            play.until("they are there", 2 * SECOND, Play::all_full).unwrap();
            play.finish().unwrap();
        },
        &[Fault::StaysFrozen],
    );
}

/// The crates of this workspace that a manifest names, those for tests aside, and those that they name.
fn closure(text: &str, found: &mut BTreeSet<String>) {
    let mut section = String::new();
    for line in text.lines() {
        if line.starts_with('[') {
            section = line.to_owned();
        }
        let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
        let directory = name.strip_prefix("mainstay-").filter(|_| section == "[dependencies]");
        let Some(directory) = directory else { continue };
        if found.insert(directory.to_owned()) {
            closure(&manifest(directory), found);
        }
    }
}

fn manifest(directory: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(root.join("..").join(directory).join("Cargo.toml")).unwrap()
}

/// Checks RPC-49: nothing that troupes stand on is multicast or membership, whatever the features. The same look finds them where one dependency is added, and in
/// the facade.
#[test]
fn troupes_need_no_multicast_and_no_membership() {
    let of = |text: &str| {
        let mut found = BTreeSet::new();
        closure(text, &mut found);
        let above = ["multicast", "membership", "site", "paradigm"];
        above.into_iter().filter(|it| found.contains(*it)).collect::<Vec<_>>()
    };
    let own = manifest("troupe");
    assert_eq!(of(&own), Vec::<&str>::new());
    let broken =
        own.replacen("[dependencies]", "[dependencies]\nmainstay-multicast.workspace = true", 1);
    assert_eq!(of(&broken), ["multicast"]);
    assert_eq!(of(&manifest("mainstay")), ["multicast", "membership", "site", "paradigm"]);
}

/// A call of a troupe that nobody is a member of fails at its deadline, and was not executed.
#[test]
fn nobody_answers_for_nobody() {
    let mut play =
        with(vec![Part::server("server", &[1]), Part::client("client", &[4], "nobody", 1)], None);
    play.deadline = Duration::from_millis(50);
    calls(&mut play, 1).unwrap();
    let failure = Failure::not_at_all(Reason::NotBound);
    assert_eq!(play.outcomes[&tag(1, 0, 1)], Outcome::Failed(failure));
}
