//! Commands that diverge and commands that panic.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use bytes::Bytes;
use mainstay_base::{MessageId, Position};
use mainstay_paradigm::{
    Commands, Config, DeliverError, Envelope, Outcome, Output, Replica, RestoreError, Small, State,
    Status, Verdict,
};
use support::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A group whose members differ in their salt.
fn group(salts: &[u8]) -> Vec<Replica<Ledger>> {
    let mut group: Vec<_> = salts.iter().map(|salt| replica(*salt)).collect();
    for (index, replica) in group.iter_mut().enumerate() {
        let others = (0..salts.len()).filter(|other| *other != index).map(|i| site(NAMES[i]));
        replica.set_members(&others.collect());
    }
    group
}

/// Delivers to all and gives the hash that each one tells.
fn all(group: &mut [Replica<Ledger>], payloads: &[&str]) -> Vec<(Position, u128)> {
    let mut hashes = Vec::new();
    for replica in group {
        for payload in payloads {
            let position = replica.position().0 + 1;
            for output in deliver_at(replica, position, &anonymous(payload)) {
                if let Output::HashAt { position, hash } = output {
                    hashes.push((position, hash));
                }
            }
        }
    }
    hashes
}

fn verdicts(replica: &mut Replica<Ledger>) -> Vec<(Verdict, usize)> {
    let verdict = |output| match output {
        Output::Diverged { verdict, sites, .. } => Some((verdict, sites.len())),
        _ => None,
    };
    drain(replica).into_iter().filter_map(verdict).collect()
}

/// Tells every member the hash of every other, in the order of names.
fn exchange(group: &mut [Replica<Ledger>], hashes: &[(Position, u128)]) {
    for (index, replica) in group.iter_mut().enumerate() {
        for (other, (position, hash)) in hashes.iter().enumerate().filter(|(i, _)| *i != index) {
            replica.hash_of(site(NAMES[other]), *position, *hash);
        }
    }
}

/// Checks PD-34. The member that the majority contradicts halts, the others go on.
#[test]
fn a_command_that_is_not_deterministic_is_detected() {
    let mut group = group(&[1, 1, 2]);
    let hashes = all(&mut group, &["x", "dice", "y", "z"]);
    assert_eq!(hashes.len(), 3);
    assert!(hashes.iter().all(|(position, _)| *position == Position(4)));
    exchange(&mut group, &hashes);
    assert_eq!(verdicts(&mut group[0]), [(Verdict::Others, 1)]);
    assert_eq!(verdicts(&mut group[1]), [(Verdict::Others, 1)]);
    assert_eq!(verdicts(&mut group[2]), [(Verdict::Pending, 1), (Verdict::Own, 2)]);
    let halted = Status::Diverged { position: Position(4) };
    assert_eq!(group[2].status(), halted);
    assert!(group[2].machine().is_none(), "nothing is read from a wrong state");
    let message = MessageId { sender: site("a"), sequence: 1 };
    let refused = group[2].deliver(Position(5), message, anonymous("x"), true);
    assert_eq!(refused, Err(DeliverError::NotRunning(halted)));

    let snapshot = chunks(&mut group[0]);
    restore(&mut group[2], &snapshot, 4);
    let hashes = all(&mut group, &["x", "y", "z", "z"]);
    exchange(&mut group, &hashes);
    assert!(group.iter_mut().all(|replica| verdicts(replica).is_empty()));
}

/// Checks PD-34. No false alarm: equal members see no difference.
#[test]
fn deterministic_members_agree() {
    let mut group = group(&[1, 2, 3]);
    for _ in 0..5 {
        let hashes = all(&mut group, &["x", "y", "z", "x"]);
        exchange(&mut group, &hashes);
    }
    assert!(group.iter_mut().all(|replica| verdicts(replica).is_empty()));
}

/// Checks PD-34. Two minorities of four: nobody is right, all halt.
#[test]
fn a_split_halts_everybody() {
    let mut group = group(&[1, 1, 2, 2]);
    let hashes = all(&mut group, &["dice", "x", "y", "z"]);
    exchange(&mut group, &hashes);
    for replica in &mut group {
        assert_eq!(verdicts(replica).last(), Some(&(Verdict::Split, 2)));
        assert_eq!(replica.status(), Status::Diverged { position: Position(4) });
    }
}

/// Checks PD-34. A hash that comes before the own one is kept for it; a member that left counts no more.
#[test]
fn hashes_may_come_early_and_only_members_count() {
    let mut group = group(&[1, 1, 2]);
    let hashes = all(&mut group[..2], &["dice", "x", "y", "z"]);
    group[2].hash_of(site("a"), hashes[0].0, hashes[0].1);
    group[2].hash_of(site("b"), hashes[1].0, hashes[1].1);
    group[2].hash_of(site("b"), hashes[1].0, 77);
    group[2].hash_of(site("b"), Position(5), 77);
    group[2].hash_of(site("stranger"), Position(4), 77);
    assert_eq!(group[2].stats().hashes_dropped, 3);
    let mut left = group.pop().unwrap();
    left.set_members(&[site("b")].into());
    for (payload, position) in ["dice", "x", "y", "z"].iter().zip(1..) {
        let message = MessageId { sender: site("a"), sequence: position };
        left.deliver(Position(position), message, anonymous(payload), false).unwrap();
    }
    assert_eq!(verdicts(&mut left), [(Verdict::Split, 1)], "one against one");
}

/// Checks PD-34. A member whose machine was faulty once is right after a replay, and its old hash is forgotten.
#[test]
fn a_replay_mends_a_member_and_is_compared_again() {
    let payloads = ["x", "dice", "y", "z"];
    let mut group = group(&[0, 0, 2]);
    let hashes = all(&mut group, &payloads);
    exchange(&mut group, &hashes);
    let halted = &mut group[2];
    assert_eq!(verdicts(halted).last(), Some(&(Verdict::Own, 2)));
    restore(halted, &[], 0);
    for (payload, position) in payloads.iter().zip(1..) {
        assert_eq!(deliver_at(halted, position, &anonymous(payload)), []);
    }
    assert_eq!(halted.status(), Status::Running);
    assert_eq!(group[2].state_hash(), group[0].state_hash());
}

/// Messages with poison at the third position, a skip of it at the sixth.
fn poisoned() -> Vec<Bytes> {
    ["a", "b", "boom", "c", "d"]
        .map(anonymous)
        .into_iter()
        .chain([skip(3), anonymous("e")])
        .collect()
}

/// Drives a replica as a host does: from a checkpoint, through the log, rebuilding when told to.
fn drive(replica: &mut Replica<Ledger>, log: &[Bytes], checkpoint: (&[Bytes], u64)) -> Vec<Output> {
    let mut outputs = Vec::new();
    let mut position = replica.position().0 + 1;
    while let Some(payload) = log.get(position as usize - 1) {
        let new = deliver_at(replica, position, payload);
        position += 1;
        if new.iter().any(|output| matches!(output, Output::Rebuild { .. })) {
            restore(replica, checkpoint.0, checkpoint.1);
            position = checkpoint.1 + 1;
        }
        outputs.extend(new);
    }
    outputs
}

/// Checks PD-30, PD-31. The poison halts the group, the skip sets it going, and every message has one answer.
#[test]
fn poison_halts_until_it_is_skipped() {
    let mut replica = replica(0);
    let log = poisoned();
    let outputs = drive(&mut replica, &log[..2], (&[], 0));
    assert_eq!(outcomes(outputs).len(), 2);
    let checkpoint = chunks(&mut replica);
    assert_eq!(deliver_at(&mut replica, 3, &log[2]), [Output::Poisoned { position: Position(3) }]);
    assert_eq!(replica.status(), Status::Poisoned { position: Position(3) });
    assert!(replica.machine().is_none() && replica.snapshot().is_err());
    assert_eq!(deliver_at(&mut replica, 4, &log[3]), []);
    assert_eq!(deliver_at(&mut replica, 5, &skip(2)), [], "another position is no way out");
    assert_eq!(deliver_at(&mut replica, 6, &log[5]), [Output::Rebuild { skipping: Position(3) }]);
    restore(&mut replica, &checkpoint, 2);
    let outputs = drive(&mut replica, &log, (&checkpoint, 2));
    let answers: Vec<_> = outcomes(outputs);
    assert_eq!(
        answers,
        [
            (3, Outcome::Skipped),
            (4, done("3 c")),
            (5, done("4 d")),
            (6, Outcome::SkipAccepted),
            (7, done("5 e"))
        ]
    );
    assert_eq!(replica.machine().unwrap().lines, [b"a", b"b", b"c", b"d", b"e"]);
    assert_eq!((replica.stats().panics, replica.stats().held), (1, 3));
}

/// Checks PD-30. Wherever a replica starts from, the log with poison and skip leads to one state and one answer each.
#[test]
fn every_way_through_poison_ends_in_one_state() {
    let mut log = poisoned();
    log.extend([anonymous("boom"), anonymous("f"), skip(8), open(5), skip(3)]);
    let mut plain = replica(0);
    let first = outcomes(drive(&mut plain, &log, (&[], 0)));
    let positions: Vec<u64> = first.iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, (1..=12).collect::<Vec<_>>(), "each one once, in order");
    assert_eq!(first[11].1, Outcome::SkipAccepted, "a second skip of one position is harmless");
    for cut in [1, 2, 4, 5, 6, 7, 9, 10, 11] {
        // A checkpoint between poison and skip has the skip already; its log still has both.
        let mut sponsor = replica(0);
        drive(&mut sponsor, &log, (&[], 0));
        let mut rebuilt = replica(0);
        let upto = if cut < 3 { cut } else { 12 };
        drive(&mut rebuilt, &log[..upto], (&[], 0));
        let (checkpoint, at) = (chunks(&mut rebuilt), rebuilt.position().0);
        let mut restarted = replica(0);
        restore(&mut restarted, &checkpoint, at);
        drive(&mut restarted, &log, (&checkpoint, at));
        assert_eq!(restarted.state_hash(), plain.state_hash(), "from {cut}");
        assert_eq!(chunks(&mut restarted), chunks(&mut sponsor));
    }
}

/// Checks PD-35. What a transfer brought is not answered by a rebuild from before it.
#[test]
fn a_rebuild_answers_nothing_that_a_transfer_brought() {
    let (mut sponsor, mut joiner) = (replica(0), replica(0));
    let log = [&["a", "b", "boom"].map(anonymous)[..], &[skip(3), anonymous("c")]].concat();
    drive(&mut sponsor, &log[..2], (&[], 0));
    restore(&mut joiner, &chunks(&mut sponsor), 2);
    let answers = outcomes(drive(&mut joiner, &log, (&[], 0)));
    let positions: Vec<u64> = answers.iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, [3, 4, 5]);
    assert_eq!(joiner.machine().unwrap().lines, [b"a", b"b", b"c"]);
}

/// Checks PD-30. A skip is for poison only: who has executed the command keeps it.
#[test]
fn a_skip_of_a_healthy_command_changes_nothing() {
    let mut replica = replica(0);
    ask(&mut replica, &anonymous("a"));
    assert_eq!(ask(&mut replica, &skip(1)), Outcome::NotPoisoned);
    assert_eq!(ask(&mut replica, &skip(9)), Outcome::NotPoisoned);
    assert_eq!(replica.machine().unwrap().lines, [b"a"]);
}

#[test]
fn skips_are_bounded() {
    let mut replica = replica_with(small().skips_max(1), 0);
    let log = ["boom", "a", "boom"].map(anonymous);
    let log = [&log[..1], &[skip(1)], &log[1..], &[skip(4)]].concat();
    drive(&mut replica, &log, (&[], 0));
    assert_eq!(replica.status(), Status::Poisoned { position: Position(4) });
    assert_eq!(replica.stats().skips_refused, 1);
}

/// Checks PD-22. A command that was passed over keeps its number: no other copy of it is executed, so who is told
/// *skipped* may count on it.
#[test]
fn a_skipped_command_keeps_its_number() {
    let mut replica = replica(0);
    let session = opened(&mut replica, 1);
    let copy = command(session, 1, 0, "boom");
    let log = [open(1), copy.clone(), skip(2), copy, command(session, 1, 0, "better")];
    let answers = outcomes(drive(&mut replica, &log, (&[], 0)));
    assert_eq!(answers[0], (2, Outcome::Skipped));
    assert_eq!(answers[2], (4, Outcome::Skipped));
    assert_eq!(answers[3], (5, Outcome::Skipped));
    let snapshot = chunks(&mut replica);
    let mut other = support::replica(0);
    restore(&mut other, &snapshot, 5);
    assert_eq!(other.state_hash(), replica.state_hash());
    assert_eq!(ask(&mut other, &command(session, 1, 0, "boom")), Outcome::Skipped);
    assert_eq!(ask(&mut other, &command(session, 2, 1, "next")), done("1 next"));
}

/// The checks of the client notice a client that is broken on purpose.
#[cfg(feature = "test-util")]
mod clients {
    use super::support::clients::{Totals, run};
    use mainstay_paradigm::client::Fault;

    fn is_noticed(fault: Fault) -> bool {
        (0..2_000).any(|seed| run(seed, Some(fault), &mut Totals::default()).is_err())
    }

    #[test]
    fn a_new_number_for_each_try_is_noticed() {
        assert!(is_noticed(Fault::NewNumberOnRetry));
    }

    #[test]
    fn not_done_after_a_lost_connection_is_noticed() {
        assert!(is_noticed(Fault::NotDoneOnLoss));
    }
}

/// A part of a state whose hash is the user's code; true: it panics.
#[derive(Default)]
struct Fragile(bool);

impl State for Fragile {
    type Snapshot = Bytes;

    fn begin_snapshot(&mut self) -> Bytes {
        Bytes::new()
    }

    fn restore_chunk(&mut self, _: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }

    fn state_hash(&self) -> u128 {
        assert!(!self.0, "as told");
        1
    }
}

#[derive(Default)]
struct Growing {
    state: (Small<Vec<u8>>, Fragile),
}

#[derive(serde::Serialize, serde::Deserialize)]
enum Grow {
    By(usize),
    Break,
}

impl Commands for Growing {
    type Command = Grow;
    type Reply = usize;
    type State = (Small<Vec<u8>>, Fragile);

    fn execute(&mut self, _: Position, command: Grow) -> usize {
        let (bytes, fragile) = &mut self.state;
        match command {
            // One way to write it, and the other.
            Grow::By(more) if more > 5_000 => *bytes = Small::new(vec![7; bytes.len() + more]),
            Grow::By(more) => bytes.extend(vec![7; more]),
            Grow::Break => fragile.0 = true,
        }
        bytes.len()
    }

    fn state(&self) -> &Self::State {
        &self.state
    }

    fn state_mut(&mut self) -> &mut Self::State {
        &mut self.state
    }
}

/// Checks PD-30. What makes the state one that cannot be hashed is poison where it is executed, and never answered: the replicas
/// halt, and go on when it is passed over.
#[test]
fn a_state_that_cannot_be_hashed_is_poison() {
    let grow = |command| {
        Envelope::Anonymous.encode(&mainstay_paradigm::encode_command::<Growing>(&command))
    };
    let log = [
        grow(Grow::By(60_000)),
        grow(Grow::By(10_000)),
        skip(2),
        grow(Grow::By(1)),
        grow(Grow::Break),
        skip(5),
        grow(Grow::By(1)),
    ];
    let config = Config::builder().hashes(1, 3).build().unwrap();
    let mut replica = Replica::new(config, Growing::default());
    let mut told = Vec::new();
    let mut at = 1;
    while let Some(payload) = log.get(at as usize - 1) {
        let id = MessageId { sender: site("me"), sequence: at };
        replica.deliver(Position(at), id, payload.clone(), true).unwrap();
        at += 1;
        while let Some(output) = replica.poll_output() {
            match output {
                Output::Poisoned { position } => told.push((position.0, None)),
                Output::Reply { position, outcome, .. } => told.push((position.0, Some(outcome))),
                Output::Rebuild { .. } => {
                    drop(replica.begin_restore(Growing::default()));
                    replica.restored(Position::ZERO).unwrap();
                    at = 1;
                }
                _ => {}
            }
        }
    }
    let kinds: Vec<_> = told
        .iter()
        .map(|(at, outcome)| match outcome {
            None => (*at, "poison"),
            Some(Outcome::Done(_)) => (*at, "done"),
            Some(Outcome::Skipped) => (*at, "skipped"),
            Some(_) => (*at, "other"),
        })
        .collect();
    let expected = [
        (1, "done"),
        (2, "poison"),
        (2, "skipped"),
        (3, "other"),
        (4, "done"),
        (5, "poison"),
        (5, "skipped"),
        (6, "other"),
        (7, "done"),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(replica.machine().unwrap().state.0.len(), 60_002);
    assert!(replica.snapshot().is_ok());
}

/// Checks PD-30. Where the state was spoiled by a command that is answered already, the replica halts at the next hash and no skip sets it
/// going for ever anew.
#[test]
fn a_state_that_was_spoiled_before_is_not_rebuilt_in_a_loop() {
    let say = |command| {
        Envelope::Anonymous.encode(&mainstay_paradigm::encode_command::<Growing>(&command))
    };
    let config = Config::builder().hashes(4, 3).build().unwrap();
    let mut replica = Replica::new(config, Growing::default());
    let log =
        [say(Grow::By(1)), say(Grow::Break), say(Grow::By(1)), say(Grow::By(1)), skip(4), skip(4)];
    let (mut rebuilds, mut at) = (0, 1);
    while let Some(payload) = log.get(at - 1) {
        let id = MessageId { sender: site("me"), sequence: at as u64 };
        replica.deliver(Position(at as u64), id, payload.clone(), true).unwrap();
        at += 1;
        while let Some(output) = replica.poll_output() {
            if matches!(output, Output::Rebuild { .. }) {
                rebuilds += 1;
                assert!(rebuilds < 3, "it does not end");
                drop(replica.begin_restore(Growing::default()));
                replica.restored(Position::ZERO).unwrap();
                at = 1;
            }
        }
    }
    assert_eq!(rebuilds, 1);
    assert_eq!(replica.status(), Status::Poisoned { position: Position(4) });
    assert!(replica.stats().skips_refused >= 2);
}
