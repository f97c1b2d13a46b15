#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use super::*;
use crate::{Crash, Fault, MemoryMedium};

const OWNER: Owner = Owner(*b"the-node-in-here");

fn open(medium: &MemoryMedium) -> Cell {
    Cell::open(Arc::new(medium.clone()), "it", OWNER).unwrap()
}

fn written(value: &[u8]) -> MemoryMedium {
    let medium = MemoryMedium::new();
    open(&medium).write(value).unwrap();
    medium
}

/// Golden bytes, computed by an independent implementation of crc32c.
#[test]
fn the_layout_is_as_it_was() {
    let golden = [
        "4d53545343454c4c0100000000000000",
        "7468652d6e6f64652d696e2d68657265",
        "050000000000000000000000e6b027e3",
        "68656c6c6fdaa5e664",
    ];
    let bytes = &written(b"hello").image()["cell-it"];
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden.concat());
}

/// Checks ST-1: what was written is read until the next write, across crashes.
#[test]
fn a_value_stays() {
    let medium = MemoryMedium::new();
    assert_eq!(open(&medium).read().unwrap(), None);
    open(&medium).write(b"").unwrap();
    let medium = medium.crash(Crash::LOSE);
    assert_eq!(open(&medium).read().unwrap().as_deref(), Some(&b""[..]));
    open(&medium).write(b"next").unwrap();
    let medium = medium.crash(Crash::LOSE).crash(Crash::LOSE);
    assert_eq!(open(&medium).read().unwrap().as_deref(), Some(&b"next"[..]));
}

/// Checks ST-9: no flipped bit and no missing or added byte gives another value.
#[test]
fn damage_is_seen() {
    let medium = written(b"hello");
    let size = medium.len("cell-it").unwrap();
    for bit in 0..size * 8 {
        let copy = medium.crash(Crash::KEEP);
        copy.flip_bit("cell-it", bit / 8, (bit % 8) as u8).unwrap();
        open(&copy).read().unwrap_err();
    }
    for shorter in 0..size {
        let copy = medium.crash(Crash::KEEP);
        copy.truncate("cell-it", shorter).unwrap();
        assert!(matches!(open(&copy).read(), Err(ReadCellError::Damaged)), "{shorter}");
    }
    medium.write_at("cell-it", size, b"x").unwrap();
    assert!(matches!(open(&medium).read(), Err(ReadCellError::Damaged)));
    open(&medium).write(b"mended").unwrap();
    assert_eq!(open(&medium).read().unwrap().as_deref(), Some(&b"mended"[..]));
}

/// Checks ST-10: a failure before the rename leaves the old value and the cell usable, one after it poisons.
#[test]
fn failures_say_what_they_left() {
    let medium = written(b"old");
    let mut cell = open(&medium);
    medium.inject(Fault::SyncErrorAt(medium.calls().syncs));
    medium.inject(Fault::TornWriteAt { write: medium.calls().writes + 1, size: 7 });
    assert!(matches!(cell.write(b"new"), Err(WriteCellError::NotWritten(_))));
    assert!(matches!(cell.write(b"new"), Err(WriteCellError::NotWritten(_))));
    assert_eq!(cell.read().unwrap().as_deref(), Some(&b"old"[..]));
    cell.write(b"new").unwrap();
    assert_eq!(open(&medium.crash(Crash::LOSE)).read().unwrap().as_deref(), Some(&b"new"[..]));

    medium.inject(Fault::SyncDirErrorAt(medium.calls().dir_syncs));
    assert!(matches!(cell.write(b"newer"), Err(WriteCellError::Unknown(_))));
    assert!(matches!(cell.write(b"newer"), Err(WriteCellError::Poisoned)));
    assert!(matches!(cell.read(), Err(ReadCellError::Poisoned)));
    let known = open(&medium).read().unwrap();
    assert_eq!(open(&medium.crash(Crash::LOSE)).read().unwrap(), known);
}

/// Checks that a foreign cell, an unknown version and a bad name are refused by name, and the bound of a value.
#[test]
fn refusals_have_names() {
    let medium = written(b"old");
    let other = Cell::open(Arc::new(medium.clone()), "it", Owner([9; 16])).unwrap();
    assert!(matches!(other.read(), Err(ReadCellError::Foreign(OWNER))));
    medium.write_at("cell-it", 8, &[3]).unwrap();
    assert!(matches!(open(&medium).read(), Err(ReadCellError::Version(3))));
    let large = vec![0; VALUE_BYTES_MAX + 1];
    assert!(matches!(open(&medium).write(&large), Err(WriteCellError::TooLarge(_))));
    for name in ["a.tmp", "../a", "A", &"x".repeat(200)] {
        Cell::open(Arc::new(medium.clone()), name, OWNER).unwrap_err();
    }
}
