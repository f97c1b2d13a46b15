//! The log-writer thread over the stable log, on a medium that loses what was not synced.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::sync::{Arc, mpsc};

use bytes::Bytes;
use mainstay_runtime::{IoId, LogOptions, LogWriter, StableLog, Store};
use mainstay_stable::{Crash, Fault, Log, MemoryMedium, Options, Owner};

const KIND: u8 = 1;

fn open(medium: &MemoryMedium) -> (Log, Vec<Bytes>) {
    let (log, found) = Log::open(Arc::new(medium.clone()), Options::new(Owner([7; 16]))).unwrap();
    (log, found.records.into_iter().map(|record| record.payload).collect())
}

/// The completions of `count` requests of one record each, in order, and how many of them succeeded.
fn persist(log: Log, count: u64) -> (Vec<Bytes>, usize) {
    let mut writer = LogWriter::new(Box::new(StableLog::new(log, KIND)), LogOptions::default());
    let (completed, completions) = mpsc::channel();
    writer.start(Box::new(move |done| completed.send((done.io, done.result.is_ok())).unwrap()));
    let records: Vec<Bytes> = (0..count).map(|n| Bytes::from(format!("record {n}"))).collect();
    let mut begun = 0;
    for (n, record) in records.iter().enumerate() {
        if writer.persist(IoId(n as u64), vec![record.clone()]).is_err() {
            break;
        }
        begun += 1;
    }
    let done: Vec<_> = completions.iter().take(begun).collect();
    assert!(done.iter().zip(0..).all(|((io, _), n)| *io == IoId(n)), "completions in order");
    (records, done.iter().filter(|(_, stable)| *stable).count())
}

/// Checks ST-1, ST-32.
#[test]
fn what_was_completed_survives_the_loss_of_everything_unsynced() {
    let medium = MemoryMedium::new();
    let (log, found) = open(&medium);
    assert!(found.is_empty());
    let (records, stable) = persist(log, 100);
    assert_eq!(stable, 100);
    assert_eq!(open(&medium.crash(Crash::LOSE)).1, records);
}

/// Checks ST-10: a failed sync completes as failed, and nothing is completed as stable that is not.
#[test]
fn a_failed_sync_is_never_completed_as_stable() {
    let medium = MemoryMedium::new();
    let (log, _) = open(&medium);
    medium.inject(Fault::SyncErrorAt(medium.calls().syncs));
    let (records, stable) = persist(log, 100);
    assert!(stable < 100, "the fault was met");
    let found = open(&medium.crash(Crash::LOSE)).1;
    assert!(found.len() >= stable);
    assert_eq!(found, records[..found.len()]);
}
