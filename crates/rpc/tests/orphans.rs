//! Each way to find orphans leaves none after its bound, and spares who is no orphan.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use mainstay_base::Duration;
use mainstay_base::service::In;
use mainstay_rpc::fault::Fault;
use mainstay_rpc::{Carrier, Command, Config, Executed, Orphans, Reason, Refusal, Semantics};
use mainstay_sim::holds_but_with;
use support::Mix;
use support::hand::{Ask, Fate, Hand, MS, ONCE};
use support::kind::{Kind, POLICIES};

const PERIOD: Duration = Duration::from_millis(100);
const LEASE: Duration = Duration::from_millis(300);
const TERMINATOR: Orphans = Orphans::Terminator { period: PERIOD, lease: LEASE };
const QUANTUM: Duration = Duration::from_millis(200);
const EXPIRATION: Orphans = Orphans::Expiration { quantum: QUANTUM };
const PATIENCE: Duration = Duration::from_millis(100);
const GENTLE: Orphans = Orphans::Gentle { patience: PATIENCE };
/// An hour would be too long to wait for.
const LONG: Ask = Ask { deadline: Duration::from_secs(60), ..ONCE };

fn hand(nodes: usize, orphans: Orphans, fault: Option<Fault>) -> Hand {
    let mut hand = Hand::new(nodes, move |_, life| {
        let mut config = Config::new(life);
        (config.orphans, config.fault) = (orphans, fault);
        config.carrier = Carrier::Datagrams;
        config
    });
    hand.takes = None;
    hand
}

/// Node 0 calls node 1, which calls node 2, which calls node 3: nothing of it ends by itself.
fn chain(hand: &mut Hand) {
    let mut parent = None;
    for at in 0..3 {
        hand.call(at, at + 1, at as u64 + 1, Ask { parent, ..LONG });
        hand.run(5 * MS);
        let run = hand.runs.iter().find(|run| run.tag == at as u64 + 1);
        parent = Some(run.expect("it is executed").ticket);
    }
    assert_eq!(hand.going_on(), [1, 2, 3]);
}

/// Checks RPC-6, RPC-23, RPC-71 and RPC-73: a client that vanishes for good leaves nothing behind after a period and a lease, and neither do its
/// orphans.
#[test]
fn the_terminator_ends_orphans() {
    let scene = |fault| {
        let mut hand = hand(4, TERMINATOR, fault);
        chain(&mut hand);
        hand.crash(0);
        hand.run(PERIOD + LEASE + 5 * MS);
        assert_eq!(hand.going_on(), [0; 0]);
    };
    holds_but_with(scene, &[Fault::NoTerminator, Fault::SparesChildren]);
}

/// Checks RPC-71: what was made for a client is let go when the client is dead, though nothing is executed for it: after a period and a lease of silence where
/// there is a terminator, at the greeting of its next life in any case. A client that lives and calls nobody keeps it.
#[test]
fn what_was_made_for_a_client_goes_with_it() {
    let scene = |orphans, restarts, fault| {
        let mut hand = hand(2, orphans, fault);
        hand.call(0, 1, 1, LONG);
        hand.run(5 * MS);
        let client = hand.node(0);
        hand.give(1, In::Command(Command::Host { client, life: 1 }));
        hand.finish(1);
        hand.run(10 * LEASE);
        assert_eq!(hand.forsaken, [], "it lives");
        hand.crash(0);
        if restarts {
            hand.start(0);
        }
        hand.run(PERIOD + LEASE + 5 * MS);
        assert_eq!(hand.forsaken, [(1, client)]);
        hand.run(10 * LEASE);
        assert_eq!(hand.forsaken.len(), 1, "it is told once");
        // What is made for a life that is over is over.
        hand.give(1, In::Command(Command::Host { client, life: u64::MAX }));
        assert_eq!(hand.forsaken.len(), 2);
    };
    let silent = [Fault::SparesHosted, Fault::NoTerminator];
    holds_but_with(|fault| scene(TERMINATOR, false, fault), &silent);
    for orphans in POLICIES {
        holds_but_with(|fault| scene(orphans, true, fault), &[Fault::SparesHosted]);
    }
}

/// Checks RPC-71: nobody is asked on behalf of what is gone.
#[test]
fn nobody_is_asked_when_nothing_is_made() {
    let mut hand = hand(2, TERMINATOR, None);
    hand.call(0, 1, 1, LONG);
    hand.run(5 * MS);
    let client = hand.node(0);
    hand.give(1, In::Command(Command::Host { client, life: 1 }));
    hand.finish(1);
    hand.run(10 * PERIOD);
    let asked = hand.said("Check { life: 1 }");
    assert!(asked > 8, "{asked}");
    hand.give(1, In::Command(Command::Unhost { client, life: 1 }));
    hand.run(10 * PERIOD);
    assert!(hand.said("Check { life: 1 }") <= asked + 1);
}

/// Checks RPC-6: what was ended counts for nothing, though it gives a result; a client that was cut off is told so.
#[test]
fn what_the_terminator_ended_counts_for_nothing() {
    let scene = |fault| {
        let mut hand = hand(2, TERMINATOR, fault);
        (hand.stops, hand.is_deaf) = (50 * MS, true);
        hand.call(0, 1, 1, LONG);
        hand.run(5 * MS);
        hand.part(0, 1);
        hand.run(PERIOD + LEASE + 100 * MS);
        assert_eq!(hand.going_on(), [0; 0]);
        hand.join(0, 1);
        hand.run(Duration::from_secs(1));
        let aborted = Reason::Refused(Refusal::Aborted);
        assert_eq!(hand.failed(1), Some((Executed::NotMoreThanOnce, aborted)));
    };
    holds_but_with(scene, &[Fault::KeepsOrphans]);
}

/// Checks RPC-6, RPC-23 and RPC-73: a client that vanishes for good leaves nothing behind after a quantum.
#[test]
fn expiration_ends_orphans() {
    let scene = |fault| {
        let mut hand = hand(4, EXPIRATION, fault);
        chain(&mut hand);
        hand.crash(0);
        hand.run(QUANTUM + 5 * MS);
        assert_eq!(hand.going_on(), [0; 0]);
    };
    holds_but_with(scene, &[Fault::NeverExpires, Fault::SparesChildren]);
}

/// Checks RPC-6, RPC-23 and RPC-73: a client that comes back has all of its orphans ended, and theirs.
#[test]
fn extermination_reaches_orphans_of_orphans() {
    let scene = |fault| {
        let mut hand = hand(4, Orphans::Extermination, fault);
        chain(&mut hand);
        hand.restart(0);
        hand.run(5 * MS);
        assert_eq!(hand.going_on(), [0; 0]);
    };
    holds_but_with(scene, &[Fault::SparesOrphans, Fault::SparesChildren]);
}

/// Checks RPC-6, RPC-23 and RPC-73: a restart, of whomever, ends all that was called before it, whoever has called.
#[test]
fn reincarnation_ends_former_epochs() {
    let scene = |fault| {
        let mut hand = hand(5, Orphans::Reincarnation, fault);
        chain(&mut hand);
        hand.call(3, 1, 9, Ask { lane: None, ..LONG });
        hand.run(5 * MS);
        hand.crash(0);
        hand.run(Duration::from_secs(1));
        assert_eq!(hand.going_on(), [1, 2, 3, 9], "nobody was restarted");
        hand.restart(4);
        hand.run(5 * MS);
        assert_eq!(hand.going_on(), [0; 0]);
    };
    holds_but_with(scene, &[Fault::SparesEpochs]);
}

/// Checks RPC-6, RPC-23 and RPC-73: after a restart, of whomever, what nobody owns up to is ended, and what somebody does goes on.
#[test]
fn gentle_reincarnation_spares_the_living() {
    let scene = |fault| {
        let mut hand = hand(5, GENTLE, fault);
        chain(&mut hand);
        hand.call(3, 1, 9, Ask { lane: None, ..LONG });
        hand.run(5 * MS);
        hand.crash(0);
        hand.run(5 * MS);
        hand.restart(4);
        hand.run(PATIENCE + 5 * MS);
        assert_eq!(hand.going_on(), [9]);
        hand.finish(9);
        hand.run(5 * MS);
        assert!(hand.is_done(9));
    };
    holds_but_with(scene, &[Fault::SparesEpochs, Fault::SparesChildren]);
}

/// Checks RPC-73: a client that lives is never taken for dead, though all datagrams are lost once what it has called runs.
#[test]
fn the_living_are_spared() {
    for orphans in POLICIES {
        let mut hand = hand(2, orphans, None);
        hand.call(0, 1, 1, LONG);
        hand.run(5 * MS);
        hand.rule = Box::new(|it| if it.is_datagram() { Fate::Lose } else { Fate::Pass });
        hand.run(Duration::from_secs(1));
        hand.rule = Box::new(|_| Fate::Pass);
        hand.run(Duration::from_secs(9));
        assert_eq!(hand.going_on(), [1], "{orphans:?}");
        hand.finish(1);
        hand.run(5 * MS);
        assert!(hand.is_done(1), "{orphans:?}");
    }
}

/// Checks RPC-6 and RPC-20: whatever else fails, an orphan ends at its deadline.
#[test]
fn the_deadline_ends_all() {
    let scene = |fault| {
        let mut hand = hand(2, Orphans::Extermination, fault);
        hand.call(0, 1, 1, Ask { deadline: Duration::from_secs(1), ..LONG });
        hand.run(5 * MS);
        hand.crash(0);
        hand.run(Duration::from_secs(1));
        assert_eq!(hand.going_on(), [0; 0]);
    };
    holds_but_with(scene, &[Fault::IgnoresDeadline]);
}

fn endless(orphans: Orphans) -> Mix {
    let mut semantics = Mix::default().semantics;
    if !matches!(orphans, Orphans::Terminator { .. }) {
        // What nobody answers ends at its deadline.
        semantics.retain(|it| *it != Semantics::Maybe);
    }
    let (deadline, lanes, nested) = ((5_000, 20_000), 300, 400);
    Mix { semantics, endless: 300, deadline, lanes, nested, ..Mix::default() }
}

fn bound(orphans: Orphans) -> Duration {
    // A message, a restart and a turn, in a world that was healed.
    let slack = Duration::from_millis(200);
    slack
        + match orphans {
            Orphans::Terminator { period, lease } => period + lease,
            Orphans::Expiration { quantum } => quantum,
            Orphans::Gentle { patience } => patience,
            _ => Duration::ZERO,
        }
}

fn no_orphans(seed: u64, orphans: Orphans, fault: Option<Fault>) -> Result<usize, String> {
    let mix = Some(endless(orphans));
    let kind = Kind { orphans: Some(orphans), fault, mix, ..Kind::default() };
    kind.play(seed)?.leave_orphans(orphans, bound(orphans))
}

/// Checks RPC-21, RPC-71 and RPC-73: over seeds, with all faults before, nothing is executed for a client that is dead once the bound has passed.
#[test]
fn no_orphan_outlives_its_bound() {
    let broken = [
        Fault::NoTerminator,
        Fault::SparesOrphans,
        Fault::NeverExpires,
        Fault::SparesEpochs,
        Fault::SparesEpochs,
    ];
    for (orphans, broken) in POLICIES.into_iter().zip(broken) {
        let mut ended = 0;
        let seeds = mainstay_sim::seeds(0..100);
        let runs = seeds.end - seeds.start;
        for seed in seeds {
            match no_orphans(seed, orphans, None) {
                Ok(orphans) => ended += orphans,
                Err(what) => panic!("{orphans:?}, seed {seed}: {what}"),
            }
        }
        println!("{orphans:?}: {runs} runs, {ended} orphans ended");
        assert!(ended as u64 > 3 * runs, "{orphans:?}: {ended}");
        let found = (0..100).find_map(|seed| no_orphans(seed, orphans, Some(broken)).err());
        println!("{broken:?}: {}", found.expect("it is noticed"));
    }
}

/// Two words that each execution at one node changes, one when it begins and the other when it ends: by its result, or undone by whoever stops it.
/// What an execution has seen in which they differ.
fn torn(hand: &Hand, node: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    for run in hand.runs.iter().filter(|run| run.node == node) {
        let is_open = |other: &&support::hand::Run| {
            let is_before = other.node == node && other.begun < run.begun;
            is_before && other.ended.is_none_or(|at| at > run.begun)
        };
        seen.extend(hand.runs.iter().find(is_open).map(|_| run.tag));
    }
    seen
}

/// Checks RPC-7, as far as it holds without transactions: what a client calls in its new life, or after it has given a call up, begins when the orphan has
/// stopped, and so never sees its data half written; nor does what is nested in it, in one lane.
#[test]
fn nobody_sees_what_an_orphan_has_half_written() {
    let scene = |fault, restarts| {
        let mut hand = hand(3, Orphans::Extermination, fault);
        hand.stops = 50 * MS;
        for life in 0..3 {
            let (outer, inner) = (10 * life + 1, 10 * life + 2);
            hand.call(0, 1, outer, LONG);
            hand.run(100 * MS);
            let of = hand.runs.iter().find(|run| run.tag == outer).expect("it is executed");
            let parent = Some(of.ticket);
            hand.call(1, 2, inner, Ask { parent, ..LONG });
            hand.run(20 * MS);
            match restarts {
                true => hand.restart(0),
                false => hand.give(0, In::Command(Command::Cancel { token: outer })),
            }
        }
        hand.run(200 * MS);
        assert_eq!((hand.going_on(), hand.runs.len()), (vec![], 6));
        for node in [1, 2] {
            assert_eq!(torn(&hand, node), [0; 0], "RPC-7: seen by these, at node {node}");
        }
    };
    holds_but_with(|fault| scene(fault, true), &[Fault::SparesOrphans, Fault::SparesChildren]);
    holds_but_with(|fault| scene(fault, false), &[Fault::IgnoresOrder, Fault::SparesChildren]);
}
