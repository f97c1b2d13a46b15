//! Equal states at equal positions, and how a state gets from one replica to another.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use bytes::Bytes;
use mainstay_base::{MessageId, Position};
use mainstay_paradigm::{
    CHUNK_BYTES_MAX, DeliverError, NextChunkError, Outcome, Output, RestoreError, SnapshotError,
    Status,
};
use proptest::prelude::*;
use support::*;

/// A replica that has delivered the history up to a position.
fn after(count: usize) -> mainstay_paradigm::Replica<Ledger> {
    let mut replica = replica(0);
    for (payload, position) in history().iter().take(count).zip(1..) {
        deliver_at(&mut replica, position, payload);
    }
    replica
}

/// Checks PD-30, PD-31. At each position: equal states, equal outcomes, equal bytes of the snapshot.
#[test]
fn replicas_are_equal_at_equal_positions() {
    let (mut a, mut b) = (replica(1), replica(2));
    let mut hashes = vec![a.state_hash()];
    for (payload, position) in history().iter().zip(1..) {
        assert_eq!(deliver_at(&mut a, position, payload), deliver_at(&mut b, position, payload));
        assert_eq!(a.state_hash(), b.state_hash());
        assert_eq!(chunks(&mut a), chunks(&mut b));
        assert!(!hashes.contains(&a.state_hash()), "each position has its own hash");
        hashes.push(a.state_hash());
    }
}

/// Checks PD-31. The outcomes, so that a change of them is seen.
#[test]
fn the_history_has_these_outcomes() {
    let mut replica = replica(0);
    let all: Vec<Outcome> = history().iter().map(|payload| ask(&mut replica, payload)).collect();
    let at = |position: usize| all[position - 1].clone();
    assert_eq!(at(2), done("1 a"));
    assert_eq!(at(6), done("1 a"));
    assert_eq!(at(7), Outcome::Malformed);
    assert_eq!(at(11), Outcome::SessionExpired, "a fourth session evicted the first");
    assert_eq!(at(12), Outcome::Closed);
    assert_eq!(at(14), Outcome::NotPoisoned);
    assert_eq!(at(15), done("6 f"));
}

/// Checks PD-35. Reintegrated at every index: what follows is the same, and what the state has is not executed again.
#[test]
fn a_restored_replica_goes_on_like_the_others() {
    let history = history();
    for cut in 0..=history.len() {
        let (mut old, mut new) = (after(cut), replica(0));
        restore(&mut new, &chunks(&mut old), cut as u64);
        for (payload, position) in history.iter().zip(1..) {
            let outputs = deliver_at(&mut new, position, payload);
            if position <= cut as u64 {
                assert_eq!(outputs, [], "in the state already");
            } else {
                assert_eq!(outputs, deliver_at(&mut old, position, payload));
                assert_eq!(new.state_hash(), old.state_hash());
            }
        }
        assert_eq!(new.stats().stale, cut as u64);
        assert_eq!(chunks(&mut new), chunks(&mut old));
    }
}

/// Checks PD-35. A lost message is seen.
#[test]
fn a_gap_is_refused_and_a_restoring_replica_takes_nothing() {
    let mut replica = after(3);
    let message = MessageId { sender: site("me"), sequence: 5 };
    let early = replica.deliver(Position(5), message, anonymous("x"), true);
    assert_eq!(early, Err(DeliverError::Gap { expected: Position(4) }));
    drop(replica.begin_restore(Ledger::default()));
    let status = Status::Restoring;
    let early = replica.deliver(Position(1), message, anonymous("x"), true);
    assert_eq!(early, Err(DeliverError::NotRunning(status)));
    assert_eq!(replica.snapshot().err(), Some(SnapshotError::NotRunning(status)));
    assert!(replica.machine().is_none() && replica.state_hash().is_none());
}

/// Checks MB-80. The sponsor crashes after each chunk and another goes on with the next one.
#[test]
fn another_sponsor_goes_on_in_the_middle() {
    let count = history().len();
    let (mut first, mut other) = (after(count), replica(9));
    restore(&mut other, &chunks(&mut after(5)), 5);
    for (payload, position) in history().iter().zip(1..).skip(5) {
        deliver_at(&mut other, position, payload);
    }
    let length = chunks(&mut first).len();
    assert!(length > 5);
    for cut in 0..=length {
        let mut joiner = replica(0);
        let mut stream = chunks(&mut first)[..cut].to_vec();
        stream.extend_from_slice(&chunks(&mut other)[cut..]);
        restore(&mut joiner, &stream, count as u64);
        assert_eq!(joiner.state_hash(), first.state_hash());
    }
}

/// Checks MB-81.
#[test]
fn two_joiners_get_equal_states() {
    let mut sponsor = after(12);
    let snapshot = chunks(&mut sponsor);
    let mut joiners = [replica(1), replica(2)];
    for joiner in &mut joiners {
        restore(joiner, &snapshot, 12);
    }
    let [a, b] = &mut joiners;
    assert_eq!(chunks(a), chunks(b));
    assert_eq!(a.state_hash(), sponsor.state_hash());
}

/// Checks MB-82. A restore that broke off at any chunk leaves nothing behind.
#[test]
fn a_restore_begun_anew_keeps_nothing_of_the_old_one() {
    let (mut sponsor, mut later) = (after(9), after(15));
    let snapshot = chunks(&mut sponsor);
    for cut in 0..snapshot.len() {
        let mut joiner = replica(0);
        drop(joiner.begin_restore(Ledger::default()));
        for chunk in &snapshot[..cut] {
            joiner.restore_chunk(chunk).unwrap();
        }
        restore(&mut joiner, &chunks(&mut later), 15);
        assert_eq!(joiner.state_hash(), later.state_hash());
    }
}

/// The state in a stream is the one of its beginning, whatever is applied while it is written.
#[test]
fn a_snapshot_does_not_follow_later_commands() {
    let mut replica = after(8);
    let expected = chunks(&mut replica);
    let mut stream = replica.snapshot().unwrap();
    assert_eq!(stream.position(), Position(8));
    let mut got = Vec::new();
    for (payload, position) in history().iter().zip(1..).skip(8) {
        got.extend(stream.next_chunk().unwrap());
        deliver_at(&mut replica, position, payload);
    }
    got.extend(std::iter::from_fn(|| stream.next_chunk().unwrap()));
    assert_eq!(got, expected);
}

#[test]
fn records_larger_than_a_chunk_are_cut_and_joined() {
    let config = || small().answer_bytes(600_000, 3_000_000);
    let (mut old, mut new) = (replica_with(config(), 0), replica_with(config(), 0));
    let session = opened(&mut old, 1);
    for number in 1..=4 {
        ask(&mut old, &command(session, number, 0, "big 600000"));
    }
    let snapshot = chunks(&mut old);
    assert!(snapshot.len() > 2_400_000 / CHUNK_BYTES_MAX);
    assert!(snapshot.iter().all(|chunk| chunk.len() <= CHUNK_BYTES_MAX));
    restore(&mut new, &snapshot, 5);
    assert_eq!(new.state_hash(), old.state_hash());
    let retry = command(session, 3, 0, "big 600000");
    assert_eq!(ask(&mut new, &retry), Outcome::Done(vec![b'x'; 600_000].into()));
}

#[test]
fn a_stream_that_is_not_whole_is_refused() {
    let snapshot = chunks(&mut after(12));
    let attempt = |stream: &[Bytes], position: u64| {
        let mut joiner = replica(0);
        drop(joiner.begin_restore(Ledger::default()));
        let result = stream
            .iter()
            .try_for_each(|chunk| joiner.restore_chunk(chunk))
            .and_then(|()| joiner.restored(Position(position)));
        let expected = if result.is_ok() { Status::Running } else { Status::Empty };
        assert!(joiner.status() == expected, "{:?} {result:?}", joiner.status());
        result
    };
    assert_eq!(attempt(&snapshot, 12), Ok(()));
    assert_eq!(attempt(&snapshot, 11), Err(RestoreError::Position(Position(12))));
    assert_eq!(attempt(&[], 0), Ok(()), "the beginning needs no chunks");
    assert!(attempt(&[], 12).is_err());
    for index in 0..snapshot.len() {
        let mut missing = snapshot.clone();
        missing.remove(index);
        assert!(attempt(&missing, 12).is_err(), "without chunk {index}");
        assert!(attempt(&snapshot[..index], 12).is_err(), "up to chunk {index}");
        let mut doubled = snapshot.clone();
        doubled.insert(index, snapshot[index].clone());
        assert!(attempt(&doubled, 12).is_err(), "chunk {index} twice");
    }
    let version: Bytes = [&snapshot[0][..2], &[9], &snapshot[0][3..]].concat().into();
    assert_eq!(attempt(&[version], 12), Err(RestoreError::Version(9)));
    let mut other = replica_with(small().answers_max(5), 0);
    assert_eq!(attempt(&chunks(&mut other), 0), Err(RestoreError::Config));
    let bad = [&snapshot[..2], &[Bytes::from_static(b"\x02bad")]].concat();
    assert_eq!(attempt(&bad, 12), Err(RestoreError::Chunk("bad")));
    assert_eq!(replica(0).restore_chunk(&snapshot[0]), Err(RestoreError::NotRestoring));
    assert_eq!(replica(0).restored(Position(0)), Err(RestoreError::NotRestoring));
}

#[test]
fn a_user_who_gives_too_large_a_chunk_is_told() {
    let mut replica = after(0);
    ask(&mut replica, &anonymous("oversize"));
    let mut stream = replica.snapshot().unwrap();
    stream.next_chunk().unwrap();
    let max = CHUNK_BYTES_MAX - 1;
    assert_eq!(stream.next_chunk(), Err(NextChunkError::TooLarge { size: max + 1, max }));
}

/// Checks PD-30. Checkpoints are wanted at the same positions by all, also by one restored in between.
#[test]
fn checkpoints_are_wanted_by_bytes() {
    let config = || small().checkpoint_bytes(100);
    let wanted = |outputs: Vec<Output>| {
        outputs.into_iter().find_map(|output| match output {
            Output::CheckpointWanted { position } => Some(position.0),
            _ => None,
        })
    };
    let payload = anonymous("1234567890123456789");
    assert_eq!(payload.len(), 30);
    let (mut old, mut new) = (replica_with(config(), 0), replica_with(config(), 0));
    let mut positions = Vec::new();
    for position in 1..=12 {
        let at = wanted(deliver_at(&mut old, position, &payload));
        positions.extend(at);
        if position == 6 {
            restore(&mut new, &chunks(&mut old), 6);
        } else if position > 6 {
            assert_eq!(wanted(deliver_at(&mut new, position, &payload)), at);
        }
    }
    assert_eq!(positions, [4, 8, 12]);
}

proptest! {
    /// Checks PD-31. Any bytes have an outcome, the same at all replicas, and none panics.
    #[test]
    fn any_payload_has_one_outcome(payloads: Vec<Vec<u8>>) {
        let (mut a, mut b) = (replica(1), replica(2));
        for (payload, position) in payloads.into_iter().zip(1..) {
            let payload = Bytes::from(payload);
            let outputs = deliver_at(&mut a, position, &payload);
            prop_assert_eq!(&outputs, &deliver_at(&mut b, position, &payload));
            prop_assert_eq!(outcomes(outputs).len(), 1);
        }
        prop_assert_eq!(a.state_hash(), b.state_hash());
    }

    /// A damaged stream does not panic, and is refused or harmless.
    #[test]
    fn a_damaged_stream_gives_no_wrong_state(which: prop::sample::Index, at: prop::sample::Index, byte: u8) {
        let mut sponsor = after(13);
        let mut snapshot = chunks(&mut sponsor);
        let chunk = which.index(snapshot.len());
        let mut damaged = snapshot[chunk].to_vec();
        let place = at.index(damaged.len());
        damaged[place] = byte;
        snapshot[chunk] = damaged.into();
        let mut joiner = replica(0);
        drop(joiner.begin_restore(Ledger::default()));
        let whole = snapshot.iter().try_for_each(|chunk| joiner.restore_chunk(chunk));
        if whole.and_then(|()| joiner.restored(Position(13))).is_ok() {
            prop_assert_eq!(joiner.state_hash(), sponsor.state_hash());
        }
    }

    /// Bytes that are no stream at all do not panic.
    #[test]
    fn no_chunk_makes_it_panic(bodies in prop::collection::vec((0..5u8, any::<Vec<u8>>()), 0..8)) {
        let mut joiner = replica(0);
        drop(joiner.begin_restore(Ledger::default()));
        let _ = joiner.restore_chunk(&chunks(&mut after(13))[0]);
        for (kind, body) in bodies {
            let _ = joiner.restore_chunk(&[&[kind][..], &body].concat());
        }
        let _ = joiner.restored(Position(13));
    }
}
