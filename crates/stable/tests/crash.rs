//! Every crash: a script of all operations is stopped inside every call of the medium, for every image that this may
//! leave, and again inside every call of the recovery.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use mainstay_stable::{
    Cell, Checkpoints, Crash, Fault, Log, Lsn, Medium, MemoryMedium, Options, Owner,
};

const OWNER: Owner = Owner(*b"the-node-in-here");

/// How the medium below is honest or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Honesty {
    Honest,
    SkipsSyncData,
    SkipsSyncDir,
    /// Answers that a file is renamed, but copies what is in it, so that the new file is not synced.
    RenamesByCopy,
}

/// A medium that may answer without having done its work.
#[derive(Debug)]
struct Suspect(MemoryMedium, Honesty);

impl Medium for Suspect {
    fn create(&self, name: &str) -> io::Result<()> {
        self.0.create(name)
    }
    fn len(&self, name: &str) -> io::Result<u64> {
        self.0.len(name)
    }
    fn read_at(&self, name: &str, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        self.0.read_at(name, offset, size)
    }
    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(name, offset, bytes)
    }
    fn truncate(&self, name: &str, size: u64) -> io::Result<()> {
        self.0.truncate(name, size)
    }
    fn sync_data(&self, name: &str) -> io::Result<()> {
        if self.1 == Honesty::SkipsSyncData { Ok(()) } else { self.0.sync_data(name) }
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if self.1 != Honesty::RenamesByCopy {
            return self.0.rename(from, to);
        }
        let bytes = self.0.read_at(from, 0, usize::MAX)?;
        match self.0.remove(to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.0.create(to)?,
        }
        self.0.write_at(to, 0, &bytes)?;
        self.0.remove(from)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn sync_dir(&self) -> io::Result<()> {
        if self.1 == Honesty::SkipsSyncDir { Ok(()) } else { self.0.sync_dir() }
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Append(usize),
    Force,
    Truncate(u64),
    Cell(&'static str),
    Checkpoint(u64),
    Reopen,
}

const SCRIPT: &[Op] = &[
    Op::Append(5),
    Op::Append(0),
    Op::Force,
    Op::Cell("one"),
    Op::Append(20),
    Op::Append(30),
    Op::Append(9),
    Op::Force,
    Op::Checkpoint(3),
    Op::Append(8),
    Op::Cell("a longer two"),
    Op::Force,
    Op::Append(40),
    Op::Force,
    Op::Checkpoint(6),
    Op::Truncate(4),
    Op::Append(3),
    Op::Reopen,
    Op::Append(33),
    Op::Append(34),
    Op::Append(35),
    Op::Append(36),
    Op::Force,
    Op::Checkpoint(9),
    Op::Truncate(9),
    Op::Cell(""),
    Op::Checkpoint(11),
    Op::Append(1),
    Op::Force,
];

type Content = Vec<Vec<u8>>;

/// What the caller may rely on, and what was under way.
#[derive(Clone, Default, Debug)]
struct Promise {
    appended: Content,
    forced: u64,
    /// The highest lsn that `truncate_before` was asked for.
    truncated: u64,
    cell: Option<Vec<u8>>,
    cell_next: Option<Vec<u8>>,
    checkpoint: Option<(u64, Content)>,
    checkpoint_next: Option<(u64, Content)>,
}

/// What a recovery finds.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    first: u64,
    records: Content,
    cell: Option<Vec<u8>>,
    checkpoint: Option<(u64, Content)>,
}

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

struct World {
    log: Log,
    cell: Cell,
    checkpoints: Checkpoints,
    records: Content,
}

fn open(medium: &MemoryMedium, honesty: Honesty) -> Fallible<World> {
    let medium = || Arc::new(Suspect(medium.clone(), honesty));
    // Small enough that the script crosses segments, and that segments are filled in steps.
    let options = Options { segment_bytes: 160, fill_bytes: 8 * 50, ..Options::new(OWNER) };
    let (log, recovered) = Log::open(medium(), options)?;
    let records: Content = recovered.records.iter().map(|r| r.payload.to_vec()).collect();
    assert!(recovered.records.iter().map(|r| r.lsn.0).eq(log.first().0..=log.forced().0));
    assert!(recovered.records.iter().all(|r| u64::from(r.kind) == r.lsn.0 % 100));
    let cell = Cell::open(medium(), "it", OWNER)?;
    Ok(World { log, cell, checkpoints: Checkpoints::open(medium(), OWNER)?, records })
}

fn recover(medium: &MemoryMedium, honesty: Honesty) -> Fallible<Seen> {
    let world = open(medium, honesty)?;
    let cell = world.cell.read()?.map(|value| value.to_vec());
    let checkpoint = world.checkpoints.read_newest()?.map(|found| {
        assert_eq!(found.damaged, []);
        (found.position, found.chunks.iter().map(|chunk| chunk.to_vec()).collect())
    });
    Ok(Seen { first: world.log.first().0, records: world.records, cell, checkpoint })
}

/// The state at a position, for a checkpoint.
fn chunks(position: u64) -> Content {
    (0..position % 4).map(|index| vec![position as u8; 3 * index as usize]).collect()
}

fn step(
    world: &mut World,
    op: Op,
    promise: &mut Promise,
    reopen: impl Fn() -> Fallible<World>,
) -> Fallible<()> {
    match op {
        Op::Append(size) => {
            let lsn = promise.appended.len() as u64 + 1;
            let payload = vec![lsn as u8 ^ 0x55; size];
            let appended = world.log.append((lsn % 100) as u8, payload.clone().into())?;
            assert_eq!(appended, Lsn(lsn));
            promise.appended.push(payload);
        }
        Op::Force => promise.forced = world.log.force()?.0,
        Op::Truncate(lsn) => {
            promise.truncated = lsn;
            world.log.truncate_before(Lsn(lsn))?;
        }
        Op::Cell(value) => {
            promise.cell_next = Some(value.as_bytes().to_vec());
            world.cell.write(value.as_bytes())?;
            promise.cell = promise.cell_next.take();
        }
        Op::Checkpoint(position) => {
            promise.checkpoint_next = Some((position, chunks(position)));
            let mut writer = world.checkpoints.begin(position)?;
            chunks(position).iter().try_for_each(|chunk| writer.write(chunk))?;
            world.checkpoints.commit(writer)?;
            promise.checkpoint = promise.checkpoint_next.take();
        }
        Op::Reopen => {
            *world = reopen()?;
            promise.forced = world.log.forced().0;
            promise.appended.truncate(promise.forced as usize);
        }
    }
    Ok(())
}

/// Runs the script until a call fails.
fn run(medium: &MemoryMedium, honesty: Honesty) -> (Promise, bool) {
    let mut promise = Promise::default();
    let Ok(mut world) = open(medium, honesty) else {
        return (promise, false);
    };
    for op in SCRIPT {
        if step(&mut world, *op, &mut promise, || open(medium, honesty)).is_err() {
            return (promise, false);
        }
    }
    (promise, true)
}

/// ST-1, ST-2, ST-8, ST-30, ST-31.
fn check_promise(promise: &Promise, seen: &Seen) -> Result<(), String> {
    let last = seen.first - 1 + seen.records.len() as u64;
    if last < promise.forced {
        return Err(format!("ST-30: forced to {}, found to {last}", promise.forced));
    }
    if seen.first > promise.truncated.max(1) {
        return Err(format!("ST-1: begins at {}, cut at {}", seen.first, promise.truncated));
    }
    let appended = promise.appended.iter().skip(seen.first as usize - 1);
    if last > promise.appended.len() as u64 || !appended.zip(&seen.records).all(|(a, b)| a == b) {
        return Err("ST-31: not a prefix of what was appended".to_owned());
    }
    if seen.cell != promise.cell && (seen.cell.is_none() || seen.cell != promise.cell_next) {
        return Err(format!("ST-2: cell {:?}", seen.cell));
    }
    let next = seen.checkpoint.is_some() && seen.checkpoint == promise.checkpoint_next;
    if seen.checkpoint != promise.checkpoint && !next {
        return Err(format!("ST-8: checkpoint {:?}", seen.checkpoint));
    }
    Ok(())
}

#[derive(Default, Debug)]
struct Counts {
    points: u64,
    images: usize,
    recovery_points: u64,
    recoveries: u64,
}

/// Recovers `found`; demands that the result is stable, keeps the promise, and stays the same when recovery crashes.
fn check_image(
    found: &MemoryMedium,
    honesty: Honesty,
    promise: &Promise,
    deep: bool,
    counts: &mut Counts,
) -> Result<(), String> {
    let again = |medium: &MemoryMedium| recover(medium, honesty).map_err(|e| format!("ST-2: {e}"));
    let first = found.restart();
    let seen = again(&first)?;
    counts.recoveries += 1;
    check_promise(promise, &seen)?;
    if again(&first.crash(Crash::LOSE))? != seen {
        return Err("ST-1: what recovery showed was not stable".to_owned());
    }
    let calls = first.calls().mutating;
    for call in (0..calls).filter(|_| deep) {
        counts.recovery_points += 1;
        let medium = found.restart();
        medium.inject(Fault::CrashAt(call));
        recover(&medium, honesty).unwrap_err();
        let mut images = BTreeSet::new();
        for crash in medium.crashes() {
            let left = medium.crash(crash);
            if images.insert(left.image()) {
                counts.recoveries += 1;
                if again(&left)? != seen {
                    return Err(format!("ST-5: recovery crashed at {call}, {crash:?}"));
                }
            }
        }
    }
    Ok(())
}

/// The crash-point check: all calls, all images.
fn check(honesty: Honesty) -> Result<Counts, String> {
    let medium = MemoryMedium::new();
    assert!(run(&medium, honesty).1, "without faults the script runs to its end");
    let mut counts = Counts { points: medium.calls().mutating, ..Counts::default() };
    let mut deep = BTreeSet::new();
    for call in 0..counts.points {
        let medium = MemoryMedium::new();
        medium.inject(Fault::CrashAt(call));
        let (promise, finished) = run(&medium, honesty);
        assert!(!finished || call + 1 == counts.points);
        let mut images = BTreeSet::new();
        for crash in medium.crashes() {
            let left = medium.crash(crash);
            let image = left.image();
            if images.insert(image.clone()) {
                let fresh = deep.insert(image);
                check_image(&left, honesty, &promise, fresh, &mut counts)
                    .map_err(|error| format!("call {call}, {crash:?}: {error}"))?;
            }
        }
        // The process alone is killed: what it wrote is shown, but not stable.
        check_image(&medium.restart(), honesty, &promise, false, &mut counts)
            .map_err(|error| format!("killed in call {call}: {error}"))?;
    }
    counts.images = deep.len();
    Ok(counts)
}

/// Checks ST-1, ST-2, ST-5, ST-8, ST-30 and ST-31 at every crash point.
#[test]
fn every_crash_keeps_every_promise() {
    let counts = check(Honesty::Honest).unwrap();
    assert!(counts.points > 80, "the script is long enough to mean something: {counts:?}");
    assert!(counts.images > 1_000, "{counts:?}");
    assert!(counts.recoveries > 40_000, "{counts:?}");
}

/// Checks the check: a medium that does not sync bytes breaks the promises, and that is seen.
#[test]
fn a_medium_that_skips_sync_data_is_caught() {
    let error = check(Honesty::SkipsSyncData).unwrap_err();
    assert!(error.contains("ST-"), "{error}");
}

/// Checks the check: a medium that does not sync names breaks the promises, and that is seen.
#[test]
fn a_medium_that_skips_sync_dir_is_caught() {
    let error = check(Honesty::SkipsSyncDir).unwrap_err();
    assert!(error.contains("ST-"), "{error}");
}

/// Checks the check: a medium whose rename is not atomic breaks ST-2, and that is seen.
#[test]
fn a_medium_that_renames_by_copy_is_caught() {
    let error = check(Honesty::RenamesByCopy).unwrap_err();
    assert!(error.contains("ST-"), "{error}");
}
