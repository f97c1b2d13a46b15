//! States that the crate brings along: maps, small values, bytes, and tuples of them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstay_paradigm::{
    ENTRY_BYTES_MAX, EntryTooLarge, Map, RestoreError, Small, Snapshot, State,
};
use proptest::prelude::*;

fn chunks(mut snapshot: impl Snapshot, max: usize) -> Vec<Bytes> {
    let chunks: Vec<Bytes> = std::iter::from_fn(|| snapshot.next_chunk(max)).collect();
    assert!(chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= max));
    chunks
}

fn restored<S: State + Default>(chunks: &[Bytes]) -> S {
    let mut state = S::default();
    chunks.iter().for_each(|chunk| state.restore_chunk(chunk).unwrap());
    state
}

type Words = Map<u16, String>;

fn contents(map: &Words) -> BTreeMap<u16, String> {
    map.iter().map(|(key, value)| (*key, value.clone())).collect()
}

proptest! {
    /// It is a map, against another one; while it changes, snapshots stand still, and each makes an equal map with an
    /// equal hash and equal chunks.
    #[test]
    fn a_map_is_a_map_and_its_snapshots_stand_still(
        writes in prop::collection::vec((0..4_u8, 0..60_u16, ".{0,20}"), 0..300),
        max in 1..100_usize,
    ) {
        let (mut map, mut model, mut frozen) = (Words::new(), BTreeMap::new(), Vec::new());
        for (what, key, value) in writes {
            match what {
                0 => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                1 => {
                    let wanted = model.get_mut(&key).map(|old| old.push_str(&value));
                    prop_assert_eq!(map.update(&key, |old| old.push_str(&value)), wanted);
                }
                _ => prop_assert_eq!(map.insert(key, value.clone()), model.insert(key, value)),
            }
            prop_assert_eq!((map.len(), map.get(&key)), (model.len(), model.get(&key)));
            if key % 8 == 0 {
                frozen.push((map.begin_snapshot(), map.state_hash(), model.clone()));
            }
        }
        frozen.push((map.begin_snapshot(), map.state_hash(), model));
        for (snapshot, hash, model) in frozen {
            let chunks = chunks(snapshot, max);
            let mut other: Words = restored(&chunks);
            prop_assert_eq!((other.state_hash(), contents(&other)), (hash, model));
            prop_assert_eq!(self::chunks(other.begin_snapshot(), max), chunks);
        }
    }

    /// The hash follows from the contents alone: not from their history, and not from the order of the writes.
    #[test]
    fn equal_maps_have_equal_hashes_and_other_maps_others(
        model in prop::collection::btree_map(any::<u16>(), ".{0,5}", 0..100),
        detour in prop::collection::vec((any::<u16>(), ".{0,5}"), 0..100),
    ) {
        let (mut straight, mut winding) = (Words::new(), Words::new());
        for (key, value) in &model {
            straight.insert(*key, value.clone());
        }
        for (key, value) in &detour {
            winding.insert(*key, value.clone());
        }
        for (key, value) in model.iter().rev() {
            winding.insert(*key, value.clone());
        }
        let equal = contents(&winding) == model;
        prop_assert_eq!(winding.state_hash() == straight.state_hash(), equal);
        for (key, _) in detour {
            if !model.contains_key(&key) {
                winding.remove(&key);
            }
        }
        prop_assert_eq!(winding.state_hash(), straight.state_hash());
        let all = |map: &mut Words| chunks(map.begin_snapshot(), 50);
        prop_assert_eq!(all(&mut winding), all(&mut straight));
    }

    /// No bytes make a restore panic.
    #[test]
    fn what_is_no_snapshot_is_refused_without_a_panic(chunks: Vec<Vec<u8>>) {
        let (mut map, mut tuple) = (Words::new(), <(Words, Small<u64>)>::default());
        for chunk in chunks {
            let _ = (map.restore_chunk(&chunk), tuple.restore_chunk(&chunk));
        }
    }

    #[test]
    fn bytes_come_in_chunks(bytes: Vec<u8>, max in 1..20_usize) {
        for chunks in [chunks(Bytes::from(bytes.clone()), max), chunks(bytes.clone(), max)] {
            prop_assert_eq!(chunks.len(), bytes.len().div_ceil(max));
            prop_assert_eq!(chunks.concat(), &bytes[..]);
        }
    }

    /// A tuple is restored whatever the size of the chunks, parts that are empty included.
    #[test]
    fn a_tuple_goes_out_and_in(
        words in prop::collection::btree_map(any::<u16>(), ".{0,9}", 0..50),
        number: u64,
        max in 2..60_usize,
    ) {
        type Three = (Words, Small<(u64, String)>, Words);
        let mut state = Three::default();
        let empty = state.state_hash();
        for (key, value) in &words {
            state.2.insert(*key, value.clone());
        }
        *state.1 = (number, words.into_values().collect());
        let other: Three = restored(&chunks(state.begin_snapshot(), max));
        prop_assert_eq!(other.state_hash(), state.state_hash());
        prop_assert_eq!((&other.1, contents(&other.2)), (&state.1, contents(&state.2)));
        prop_assert_ne!(other.state_hash() == empty, number > 0);
    }
}

/// A snapshot that lacks its end, or has a part twice, is noticed by the refusal or by the hash.
#[test]
fn what_is_torn_or_doubled_is_noticed() {
    type Two = (Words, Small<u64>);
    let mut state = Two::default();
    (0..40).for_each(|key| drop(state.0.insert(key, "word".to_owned())));
    *state.1 = 7_000_000_000;
    let whole = chunks(state.begin_snapshot(), 64);
    for cut in 0..whole.len() {
        let other: Two = restored(&whole[..cut]);
        assert_ne!(other.state_hash(), state.state_hash());
    }
    let mut other = Two::default();
    whole.iter().for_each(|chunk| other.restore_chunk(chunk).unwrap());
    let doubled: Result<Vec<_>, _> = whole.iter().map(|chunk| other.restore_chunk(chunk)).collect();
    assert_eq!(doubled, Err(RestoreError::Chunk("a key that is there twice")));
    assert_eq!(
        Two::default().restore_chunk(&[9, 1]),
        Err(RestoreError::Chunk("no part of this state"))
    );
}

/// What is too large for an entry is refused before it changes anything.
#[test]
fn an_entry_has_a_bound() {
    let mut map = Map::<u8, String>::new();
    map.insert(1, "old".to_owned());
    let (before, large) = (map.state_hash(), "x".repeat(ENTRY_BYTES_MAX));
    assert!(
        matches!(map.try_insert(1, large), Err(EntryTooLarge { size }) if size > ENTRY_BYTES_MAX)
    );
    assert_eq!((map.state_hash(), map.get(&1).unwrap().as_str()), (before, "old"));
    let most = "x".repeat(ENTRY_BYTES_MAX - 7);
    assert_eq!(map.try_insert(1, most.clone()), Ok(Some("old".to_owned())));
    let other: Map<u8, String> = restored(&chunks(map.begin_snapshot(), 1_000));
    assert_eq!((other.get(&1), other.state_hash()), (Some(&most), map.state_hash()));
}

/// A write behind a snapshot counts a bounded amount of work, however many entries there are.
#[test]
fn a_write_behind_a_snapshot_costs_no_more_in_a_large_map() {
    let mut map = Map::<u64, u64>::new();
    for key in 0..100_000 {
        map.insert(key, key);
    }
    let mut worst = 0;
    for key in 0..1_000 {
        let snapshot = map.begin_snapshot();
        let before = map.work();
        map.insert(key, 0);
        worst = worst.max(map.work() - before);
        drop(snapshot);
    }
    assert!((2_000..30_000).contains(&worst), "{worst}");
}
