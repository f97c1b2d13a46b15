#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use super::*;
use crate::{Crash, Fault, FileMedium, MemoryMedium};

const OWNER: Owner = Owner(*b"the-node-in-here");

fn options() -> Options {
    Options { segment_bytes: 128, fill_bytes: 0, ..Options::new(OWNER) }
}

fn open(medium: &MemoryMedium) -> Result<(Log, Recovered), OpenError> {
    Log::open(Arc::new(medium.clone()), options())
}

fn payloads(recovered: &Recovered) -> Vec<&[u8]> {
    recovered.records.iter().map(|record| &record.payload[..]).collect()
}

/// A log with records `a`, `b`, `c`..., each forced on its own.
fn forced(payloads: &[&'static str]) -> MemoryMedium {
    let medium = MemoryMedium::new();
    let (mut log, _) = open(&medium).unwrap();
    for payload in payloads {
        log.append(1, Bytes::from_static(payload.as_bytes())).unwrap();
        log.force().unwrap();
    }
    medium
}

/// Checks that a log can be read while it is written: all that was forced and is not cut off, through all segments, and nothing is changed.
#[test]
fn a_log_that_is_written_can_be_read() {
    let medium = MemoryMedium::new();
    let (mut log, _) = open(&medium).unwrap();
    for number in 0..40_u8 {
        log.append(1, Bytes::from(vec![number; 10])).unwrap();
        log.force().unwrap();
        let image = medium.image();
        let records = Log::peek(&medium, options()).unwrap();
        let lsns: Vec<u64> = records.iter().map(|record| record.lsn.0).collect();
        let expected: Vec<u64> = (log.first().0..=u64::from(number) + 1).collect();
        assert_eq!(lsns, expected);
        assert!(records.iter().all(|it| u64::from(it.payload[0]) + 1 == it.lsn.0));
        assert_eq!(medium.image(), image, "nothing is changed");
        if number == 20 {
            log.truncate_before(Lsn(15)).unwrap();
            assert!(log.first() > Lsn(1));
        }
    }
    // A write that is under way is not there, and does no harm.
    let name = segment::name(log.segments[log.segments.len() - 1]);
    let end = medium.len(&name).unwrap();
    medium.write_at(&name, end, b"torn").unwrap();
    assert_eq!(Log::peek(&medium, options()).unwrap().last().unwrap().lsn, Lsn(40));
}

/// Golden bytes: header and one record, computed by an independent implementation of crc32c.
#[test]
fn the_layout_is_as_it_was() {
    let medium = MemoryMedium::new();
    let (mut log, _) = open(&medium).unwrap();
    log.append(7, Bytes::from_static(b"hello")).unwrap();
    log.force().unwrap();
    let golden = [
        "4d5354534c4f470a0100000000000000",
        "7468652d6e6f64652d696e2d68657265",
        "010000000000000000000000d56cb05a",
        "05000000870100000000000000d7720b",
        "dc68656c6c6f",
    ];
    let bytes = &medium.image()["log-0000000000000001"];
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden.concat());
}

/// Checks that space is filled ahead of small forces, so that the file seldom grows, and that zeros behind the records
/// are their end (ST-31): in the last segment, in one with another behind it, and at a large force that fills nothing.
#[test]
fn space_is_filled_ahead() {
    let medium = MemoryMedium::new();
    let filling = Options { segment_bytes: 400, fill_bytes: 160, ..Options::new(OWNER) };
    let open = |medium: &MemoryMedium| Log::open(Arc::new(medium.clone()), filling.clone());
    let (mut log, _) = open(&medium).unwrap();
    let sizes: Vec<u64> = (0..20)
        .map(|index| {
            log.append(1, Bytes::from(vec![index; 1])).unwrap();
            log.force().unwrap();
            medium.len(&segment::name(*log.segments.last().unwrap())).unwrap()
        })
        .collect();
    let (first, second) = (sizes.iter().filter(|it| **it == 160).count(), 400);
    assert!(first > 4 && sizes.contains(&320) && sizes.contains(&second), "{sizes:?}");
    assert!(log.segments.len() > 1 && medium.image()[&segment::name(Lsn(1))].ends_with(&[0; 4]));
    let (mut log, recovered) = open(&medium).unwrap();
    assert_eq!(recovered.discarded_bytes, 0);
    assert_eq!(recovered.records.len(), 20);
    log.append(1, Bytes::from(vec![1; 200])).unwrap();
    log.force().unwrap();
    assert_eq!(log.filled, log.size);
    drop(log);
    assert_eq!(open(&medium).unwrap().1.records.len(), 21);
    // What is not zero behind the last record of a segment that has another behind it was stable once.
    medium.flip_bit(&segment::name(Lsn(1)), 399, 0).unwrap();
    assert!(matches!(open(&medium), Err(OpenError::Damaged { .. })));
}

/// Checks ST-32: many appends, one write, one sync; forcing nothing costs nothing.
#[test]
fn a_group_is_one_write() {
    let medium = MemoryMedium::new();
    let wide = Options::new(OWNER);
    let (mut log, _) = Log::open(Arc::new(medium.clone()), wide).unwrap();
    let before = medium.calls();
    for _ in 0..1_000 {
        log.append(0, Bytes::from_static(b"0123456789")).unwrap();
    }
    assert_eq!(medium.calls(), before, "appending does not touch the medium");
    assert_eq!((log.forced(), log.last()), (Lsn::ZERO, Lsn(1_000)));
    assert_eq!(log.force().unwrap(), Lsn(1_000));
    assert_eq!(log.force().unwrap(), Lsn(1_000));
    let after = medium.calls();
    assert_eq!((after.writes, after.syncs), (before.writes + 1, before.syncs + 1));
}

/// Checks ST-9: a bit flipped anywhere in a log of several segments gives damage, or the records before the flip if it
/// may be a torn tail; never another value.
#[test]
fn a_flipped_bit_never_gives_another_value() {
    let written = ["first", "second", "a third record of some length", "fourth", "", "last"];
    let medium = forced(&written);
    let image = medium.image();
    assert!(image.len() > 1, "several segments");
    let mut damaged = 0;
    for (name, bytes) in &image {
        for bit in 0..bytes.len() * 8 {
            let copy = medium.crash(Crash::KEEP);
            copy.flip_bit(name, (bit / 8) as u64, (bit % 8) as u8).unwrap();
            match open(&copy) {
                Ok((_, found)) => {
                    let found = payloads(&found);
                    let kept = written.iter().take(found.len()).map(|text| text.as_bytes());
                    assert!(kept.eq(found.iter().copied()), "{name}, bit {bit}");
                    assert!(found.len() + 1 == written.len(), "only the last force is in doubt");
                }
                Err(OpenError::Damaged { segment, .. }) => {
                    damaged += 1;
                    assert!(segment >= *name, "{name}, bit {bit}: {segment}");
                }
                Err(OpenError::Version { .. }) => {}
                Err(error) => panic!("{name}, bit {bit}: {error}"),
            }
        }
    }
    assert!(damaged > 1_000, "{damaged}");
}

/// Checks ST-31: a record torn in the last force is cut with everything behind it, durably, and its lsn is used again.
#[test]
fn a_torn_tail_is_cut() {
    let medium = forced(&["a", "b"]);
    let (mut log, _) = open(&medium).unwrap();
    medium.inject(Fault::CrashAt(medium.calls().mutating));
    log.append(1, Bytes::from_static(b"torn")).unwrap();
    log.append(1, Bytes::from_static(b"x")).unwrap();
    log.force().unwrap_err();
    let torn = medium.crash(Crash { names: 0, bytes: crate::Kept::Hole { size: 20 } });
    let (mut log, found) = open(&torn).unwrap();
    assert_eq!(payloads(&found), [b"a", b"b"]);
    assert_eq!(found.discarded_bytes, 17 + 4 + 17 + 1);
    assert_eq!(log.append(1, Bytes::from_static(b"c")).unwrap(), Lsn(3));
    log.force().unwrap();
    let (_, found) = open(&torn.crash(Crash::LOSE)).unwrap();
    assert_eq!(payloads(&found), [b"a", b"b", b"c"]);
    assert_eq!(found.discarded_bytes, 0);
}

/// Checks that a bad record with a stable one behind it, in the same or in a later segment, is damage with its place;
/// and that a refusal changes nothing.
#[test]
fn damage_is_not_a_torn_tail() {
    let medium = forced(&["a", "b", "c", "a record that needs a segment of its own, nearly"]);
    assert_eq!(medium.image().len(), 2);
    let first = "log-0000000000000001";
    for (record, later) in [(0, true), (2, true), (0, false), (1, false)] {
        let copy = medium.crash(Crash::KEEP);
        let offset = 48 + 18 * record;
        copy.flip_bit(first, offset + 17, 0).unwrap();
        if !later {
            copy.remove("log-0000000000000004").unwrap();
        }
        let before = copy.image();
        let error = open(&copy).unwrap_err();
        assert!(
            matches!(&error, OpenError::Damaged { segment, offset: at } if segment == first && *at == offset),
            "{error}"
        );
        assert_eq!(copy.image(), before);
    }
    let gap = medium.crash(Crash::KEEP);
    gap.truncate(first, 48 + 18).unwrap();
    assert!(matches!(open(&gap), Err(OpenError::Damaged { .. })));
}

/// Checks ST-10: after a failed sync, write or directory sync every call answers that the log is poisoned, and nothing
/// that was acknowledged is lost.
#[test]
fn a_failure_poisons_for_ever() {
    let long = "a record that needs a segment of its own, nearly, and more";
    let faults = [
        (Fault::SyncErrorAt(4), "b"),
        (Fault::TornWriteAt { write: 4, size: 3 }, "b"),
        (Fault::SpaceBytes(48 + 18 + 48 + 18 + 18 + 5), "b"),
        (Fault::SyncDirErrorAt(3), long),
    ];
    for (fault, payload) in faults {
        let medium = forced(&["a"]);
        let (mut log, _) = open(&medium).unwrap();
        medium.inject(fault);
        for _ in 0..2 {
            if log.append(1, Bytes::from_static(payload.as_bytes())).is_ok() {
                let _ = log.force();
            }
        }
        let calls = medium.calls();
        assert!(log.is_poisoned(), "{fault:?}");
        assert_eq!(log.append(1, Bytes::new()), Err(AppendError::Poisoned));
        assert!(matches!(log.force(), Err(ForceError::Poisoned)));
        assert!(matches!(log.truncate_before(Lsn(9)), Err(TruncateError::Poisoned)));
        assert_eq!(medium.calls(), calls, "a poisoned log leaves the medium alone");
        let stable = log.forced();
        let (log, _) = open(&medium.crash(Crash::LOSE)).unwrap();
        assert_eq!(log.forced(), stable, "{fault:?}");
    }
}

/// Checks ST-1 after a failed sync: reads show records that are not on the device and that no sync would write; what a
/// new process is told about them stays true when the power fails.
#[test]
fn records_of_a_failed_sync_are_written_again() {
    let medium = forced(&["a"]);
    let (mut log, _) = open(&medium).unwrap();
    medium.inject(Fault::SyncErrorAt(medium.calls().syncs));
    log.append(1, Bytes::from_static(b"b")).unwrap();
    assert!(matches!(log.force(), Err(ForceError::Io(_))));
    let again = medium.restart();
    let (_, shown) = open(&again).unwrap();
    assert_eq!(payloads(&shown), [b"a", b"b"]);
    let (_, stable) = open(&again.crash(Crash::LOSE)).unwrap();
    assert_eq!(stable, shown);
}

/// Checks that a foreign log and an unknown version are refused by name, and the bounds of appends.
#[test]
fn refusals_have_names() {
    let medium = forced(&["a"]);
    let other = Options::new(Owner([9; 16]));
    let error = Log::open(Arc::new(medium.clone()), other).unwrap_err();
    assert!(matches!(&error, OpenError::Foreign { owner: OWNER, .. }), "{error}");
    medium.write_at("log-0000000000000001", 8, &[2]).unwrap();
    assert!(matches!(open(&medium), Err(OpenError::Version { version: 2, .. })));

    let small = Options { payload_bytes_max: 4, pending_bytes_max: 42, ..options() };
    let (mut log, _) = Log::open(Arc::new(MemoryMedium::new()), small).unwrap();
    assert_eq!(log.append(128, Bytes::new()), Err(AppendError::Kind(128)));
    let error = AppendError::TooLarge { size: 5, limit: 4 };
    assert_eq!(log.append(0, Bytes::from_static(b"12345")), Err(error));
    log.append(KIND_MAX, Bytes::from_static(b"1234")).unwrap();
    log.append(0, Bytes::from_static(b"1234")).unwrap();
    assert_eq!(log.append(0, Bytes::new()), Err(AppendError::Full));
    assert_eq!(log.force().unwrap(), Lsn(2));
    log.append(0, Bytes::new()).unwrap();
}

/// Checks that only whole segments go, from the front, never the last, and that lsns go on.
#[test]
fn the_front_is_cut_in_segments() {
    let medium = MemoryMedium::new();
    let (mut log, _) = open(&medium).unwrap();
    for _ in 0..8 {
        log.append(1, Bytes::from_static(&[5; 20])).unwrap();
    }
    log.force().unwrap();
    assert_eq!(medium.image().len(), 4);
    assert_eq!(log.truncate_before(Lsn(4)).unwrap(), Lsn(3));
    assert_eq!(log.truncate_before(Lsn(u64::MAX)).unwrap(), Lsn(7));
    let (log, found) = open(&medium.crash(Crash::LOSE)).unwrap();
    assert_eq!((log.first(), log.forced(), found.records.len()), (Lsn(7), Lsn(8), 2));
}

/// Checks the log on the file system: what one opening forced the next one finds.
#[test]
fn a_directory_of_files_serves() {
    let temp = tempfile::tempdir().unwrap();
    for round in 0..3_u64 {
        let medium = Arc::new(FileMedium::open(temp.path().join("site")).unwrap());
        let (mut log, found) = Log::open(medium.clone(), options()).unwrap();
        assert_eq!(found.records.len() as u64, round * 10);
        for index in 0..10 {
            log.append(3, Bytes::from(vec![index; 30])).unwrap();
        }
        assert_eq!(log.force().unwrap(), Lsn(10 * (round + 1)));
    }
    let medium = Arc::new(FileMedium::open(temp.path().join("site")).unwrap());
    let (mut log, _) = Log::open(medium.clone(), options()).unwrap();
    log.truncate_before(Lsn(30)).unwrap();
    assert_eq!(medium.list().unwrap().len(), 1);
}
