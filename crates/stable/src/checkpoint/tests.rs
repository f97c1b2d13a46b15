#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use super::*;
use crate::{Crash, Fault, MemoryMedium};

const OWNER: Owner = Owner(*b"the-node-in-here");

fn open(medium: &MemoryMedium) -> Checkpoints {
    Checkpoints::open(Arc::new(medium.clone()), OWNER).unwrap()
}

fn commit(checkpoints: &mut Checkpoints, position: u64, chunks: &[&[u8]]) {
    let mut writer = checkpoints.begin(position).unwrap();
    chunks.iter().for_each(|chunk| writer.write(chunk).unwrap());
    checkpoints.commit(writer).unwrap();
}

/// Golden bytes, computed by an independent implementation of crc32c.
#[test]
fn the_layout_is_as_it_was() {
    let medium = MemoryMedium::new();
    commit(&mut open(&medium), 9, &[b"hello", b""]);
    let golden = [
        "4d535453434b50540100000000000000",
        "7468652d6e6f64652d696e2d68657265",
        "090000000000000000000000bdaeb979",
        "05000000e67ca94968656c6c6f000000",
        "003ac33a61ffffffffc357b20b020000",
        "0000000000",
    ];
    let bytes = &medium.image()["checkpoint-0000000000000009"];
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden.concat());
}

/// Checks that the newest two are kept, that the newest is read, and that it is stable.
#[test]
fn the_two_newest_are_kept() {
    let medium = MemoryMedium::new();
    let mut checkpoints = open(&medium);
    assert_eq!(checkpoints.read_newest().unwrap(), None);
    for position in [0, 5, 6, 9] {
        commit(&mut checkpoints, position, &[b"at", &[position as u8]]);
    }
    assert_eq!(checkpoints.positions(), [6, 9]);
    assert_eq!(medium.list().unwrap().len(), 2);
    let medium = medium.crash(Crash::LOSE);
    let found = open(&medium).read_newest().unwrap().unwrap();
    assert_eq!((found.position, &found.chunks[..]), (9, &[Bytes::from("at"), vec![9].into()][..]));
    assert_eq!(open(&medium).positions(), [6, 9]);
    assert_eq!(medium.list().unwrap().len(), 2);
}

/// Checks that a large checkpoint goes to the disk in parts.
#[test]
fn a_large_one_is_synced_as_it_grows() {
    let medium = MemoryMedium::new();
    let mut checkpoints = open(&medium);
    let mut writer = checkpoints.begin(1).unwrap();
    let (chunk, before) = (vec![7; 1 << 20], medium.calls().syncs);
    (0..33).for_each(|_| writer.write(&chunk).unwrap());
    assert_eq!(medium.calls().syncs - before, 4);
    checkpoints.commit(writer).unwrap();
    assert_eq!(medium.calls().syncs - before, 5, "and the rest");
    assert_eq!(open(&medium).read_newest().unwrap().unwrap().chunks.len(), 33);
}

/// Checks ST-9: no flipped bit and no missing or added byte gives another state; the older checkpoint serves instead.
#[test]
fn damage_is_seen() {
    let medium = MemoryMedium::new();
    let mut checkpoints = open(&medium);
    commit(&mut checkpoints, 1, &[b"old"]);
    commit(&mut checkpoints, 2, &[b"hello", b"", b"x"]);
    let name = "checkpoint-0000000000000002";
    let size = medium.len(name).unwrap();
    let older = |medium: &MemoryMedium| match open(medium).read_newest() {
        Ok(found) => {
            let found = found.unwrap();
            assert_eq!((found.position, &found.damaged[..]), (1, &[2][..]));
        }
        Err(ReadCheckpointError::Version { position: 2, .. }) => {}
        Err(error) => panic!("{error}"),
    };
    for bit in 0..size * 8 {
        let copy = medium.crash(Crash::KEEP);
        copy.flip_bit(name, bit / 8, (bit % 8) as u8).unwrap();
        older(&copy);
    }
    for shorter in 0..size {
        let copy = medium.crash(Crash::KEEP);
        copy.truncate(name, shorter).unwrap();
        older(&copy);
    }
    medium.write_at(name, size, b"x").unwrap();
    older(&medium);
    medium.flip_bit("checkpoint-0000000000000001", 50, 1).unwrap();
    assert!(matches!(open(&medium).read_newest(), Err(ReadCheckpointError::Damaged(2))));
}

/// Checks that an unfinished checkpoint is not there, and is tidied up.
#[test]
fn what_is_not_committed_is_not_there() {
    let medium = MemoryMedium::new();
    let mut checkpoints = open(&medium);
    let mut writer = checkpoints.begin(4).unwrap();
    assert_eq!(writer.position(), 4);
    assert!(matches!(checkpoints.begin(4), Err(WriteCheckpointError::InProgress(4))));
    writer.write(b"half").unwrap();
    let killed = medium.restart();
    assert_eq!(open(&killed).newest(), None);
    assert!(killed.list().unwrap().is_empty());
    checkpoints.abandon(writer).unwrap();
    commit(&mut checkpoints, 4, &[b"whole"]);
    let error = checkpoints.begin(4).unwrap_err();
    assert!(matches!(error, WriteCheckpointError::NotNewer { position: 4, newest: 4 }), "{error}");
}

/// Checks ST-10: a failure before the rename leaves the older ones, one after it poisons.
#[test]
fn failures_say_what_they_left() {
    let medium = MemoryMedium::new();
    let mut checkpoints = open(&medium);
    commit(&mut checkpoints, 1, &[b"old"]);
    medium.inject(Fault::SyncErrorAt(medium.calls().syncs));
    let writer = checkpoints.begin(2).unwrap();
    assert!(matches!(checkpoints.commit(writer), Err(WriteCheckpointError::NotWritten(_))));
    medium.inject(Fault::TornWriteAt { write: medium.calls().writes + 1, size: 2 });
    let mut writer = checkpoints.begin(3).unwrap();
    assert!(matches!(writer.write(b"torn"), Err(WriteCheckpointError::NotWritten(_))));
    assert!(matches!(checkpoints.commit(writer), Err(WriteCheckpointError::NotWritten(_))));
    assert_eq!(checkpoints.read_newest().unwrap().unwrap().position, 1);
    medium.inject(Fault::SyncDirErrorAt(medium.calls().dir_syncs));
    let writer = checkpoints.begin(4).unwrap();
    assert!(matches!(checkpoints.commit(writer), Err(WriteCheckpointError::Unknown(_))));
    assert!(matches!(checkpoints.begin(5), Err(WriteCheckpointError::Poisoned)));
    assert!(matches!(checkpoints.read_newest(), Err(ReadCheckpointError::Poisoned)));
    assert_eq!(open(&medium).newest(), Some(4));
    // What the opening has shown is stable, although the sync of the commit had failed.
    assert_eq!(open(&medium.crash(Crash::LOSE)).newest(), Some(4));
    assert_eq!(medium.list().unwrap().len(), 2);
}

/// Checks that foreign checkpoints and unknown versions are refused by name, and the bound of a chunk.
#[test]
fn refusals_have_names() {
    let medium = MemoryMedium::new();
    let mut checkpoints = open(&medium);
    commit(&mut checkpoints, 1, &[]);
    let other = Checkpoints::open(Arc::new(medium.clone()), Owner([9; 16])).unwrap();
    let error = other.read_newest().unwrap_err();
    assert!(matches!(error, ReadCheckpointError::Foreign { position: 1, owner: OWNER }), "{error}");
    medium.write_at("checkpoint-0000000000000001", 8, &[2]).unwrap();
    let error = checkpoints.read_newest().unwrap_err();
    assert!(matches!(error, ReadCheckpointError::Version { position: 1, version: 2 }), "{error}");
    let mut writer = checkpoints.begin(2).unwrap();
    let error = writer.write(&vec![0; CHUNK_BYTES_MAX + 1]).unwrap_err();
    assert!(matches!(error, WriteCheckpointError::TooLarge(_)), "{error}");
    checkpoints.abandon(writer).unwrap();
}
