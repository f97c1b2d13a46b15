//! The room, with small actors in it.
#![cfg(feature = "actors")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::cell::RefCell;
use std::rc::Rc;

use mainstay_base::{Duration, Instant};
use mainstay_sim::live::{Room, Start, Stuck};
use mainstay_sim::{Atlas, Disk, Fault, FaultEvent, Moment, Options, Wire};

fn calm() -> Options {
    Options { atlas: Atlas { down: 1, lost: 0 }, ..Options::calm(Wire::Channel) }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Checks that a node whose timer is set for the past is found, in place of a run without end.
#[test]
fn a_node_that_spins_is_found() {
    let begin = |start: Start| -> Result<(), String> {
        tokio::task::spawn_local(async move {
            let time = start.ports.time;
            loop {
                time.sleep_until(time.now()).await;
                tokio::task::yield_now().await;
            }
        });
        Ok(())
    };
    let mut room = Room::new(1, 1, calm(), Vec::new(), begin);
    assert!(matches!(room.run(ms(10)), Err(Stuck::Spins { node: 0, .. })));
}

/// Counts its starts on the disk, synced or not, and tells what it found.
fn count(start: Start, synced: bool, found: &RefCell<Vec<u64>>) -> Result<(), String> {
    let disk = start.ports.disk.unwrap();
    let medium = disk.open(None).unwrap();
    let count = medium.len("starts").unwrap_or(0);
    found.borrow_mut().push(count);
    if start.first {
        medium.create("starts").unwrap();
        medium.sync_dir().unwrap();
    }
    medium.write_at("starts", count, b"x").unwrap();
    if synced {
        medium.sync_data("starts").unwrap();
    }
    Ok(())
}

fn crashes(times: u64) -> Vec<FaultEvent> {
    let fault = Fault::Crash { node: 0, length: ms(5), disk: Disk::Kept, moment: Moment::Now };
    (1..=times)
        .map(|at| FaultEvent { at: Instant::ZERO + ms(10 * at), fault: fault.clone() })
        .collect()
}

/// Checks that what is synced outlives every crash, and that what is not may be lost when the power fails, and only then.
#[test]
fn a_disk_keeps_what_is_synced() {
    let run = |seed, synced| {
        let found = Rc::new(RefCell::new(Vec::new()));
        let told = Rc::clone(&found);
        let begin = move |start: Start| count(start, synced, &told);
        let mut room = Room::new(seed, 1, calm(), crashes(6), begin);
        let outcome = room.run(ms(200));
        outcome.map(|()| (found.take(), room.stats().power))
    };
    let mut lost = 0;
    for seed in 0..20 {
        assert_eq!(run(seed, true).unwrap().0, [0, 1, 2, 3, 4, 5, 6]);
        let (found, power) = run(seed, false).unwrap();
        lost += u64::from(found != [0, 1, 2, 3, 4, 5, 6]);
        assert!(power > 0 || found == [0, 1, 2, 3, 4, 5, 6]);
    }
    assert!(lost > 5, "{lost}");
}

/// Checks that timers of tokio work beside those of the nodes, and that the time of a boot begins with it.
#[test]
fn all_timers_work() {
    let begin = |start: Start| {
        let told = Rc::new(RefCell::new(Vec::new()));
        let notes = Rc::clone(&told);
        tokio::task::spawn_local(async move {
            let time = start.ports.time;
            assert_eq!(time.now(), Instant::ZERO);
            tokio::time::sleep(ms(5)).await;
            notes.borrow_mut().push(time.now());
            time.sleep_until(Instant::ZERO + Duration::from_micros(5_700)).await;
            notes.borrow_mut().push(time.now());
        });
        Ok(told)
    };
    let mut room = Room::new(1, 1, calm(), crashes(1), begin);
    let outside = room.outside();
    let wanted = [Instant::ZERO + ms(5), Instant::ZERO + Duration::from_micros(5_700)];
    for _ in 0..2 {
        room.run(ms(9)).unwrap();
        assert_eq!(*outside.node(0).unwrap().borrow(), wanted);
        room.run(ms(7)).unwrap();
    }
}
