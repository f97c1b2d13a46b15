//! The medium of tests and of the simulator: a directory in memory that knows what a crash may leave.
//!
//! It keeps two directories: what reads show, and what is durable; and between them, in order, the changes that no sync
//! has covered yet. A crash keeps a part of those: any subset of the changes of names, and for bytes either nothing,
//! everything, a prefix cut at any byte, or everything with a hole at the front of the last write (sectors need not reach
//! the device in order). [`MemoryMedium::crashes`] enumerates these parts, so that a test can try them all.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Medium, check_name};

/// Writes up to this many bytes are cut at every byte by [`MemoryMedium::crashes`], longer ones at 16 places and at
/// both ends.
pub const CUT_SIZE_MAX: usize = 64;
/// At most this many un-synced changes of names are enumerated as subsets; of more, only the prefixes.
pub const SUBSET_COUNT_MAX: usize = 5;

/// A fault to inject. Calls are counted from 0 and from the moment the medium was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The machine stops inside the n-th mutating call: the call takes effect in the volatile state, a sync does not,
    /// and this call and all later ones fail.
    CrashAt(u64),
    /// The n-th write fails after its first `size` bytes (0: nothing is written).
    TornWriteAt {
        /// Which write.
        write: u64,
        /// How many of its bytes are written.
        size: usize,
    },
    /// The n-th `sync_data` fails, and what it should have made durable is dropped, although reads still show it.
    SyncErrorAt(u64),
    /// The n-th `sync_dir` fails; the changes stay un-synced.
    SyncDirErrorAt(u64),
    /// Only so many bytes can be written in all; the write that goes beyond writes what fits and fails.
    SpaceBytes(u64),
}

/// What a crash leaves of the bytes that were not synced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kept {
    /// The first `count` changes and the first `size` bytes of the one behind them.
    Prefix {
        /// Whole changes.
        count: usize,
        /// Bytes of the next one.
        size: usize,
    },
    /// All changes, but of the last write the first `size` bytes are missing: they read as before, or as 0 where the
    /// file has grown.
    Hole {
        /// Missing bytes.
        size: usize,
    },
}

/// What a crash leaves of everything that was not synced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Crash {
    /// Bit n: whether the n-th un-synced change of names is kept; bit 63 stands for all from the 63rd on.
    pub names: u64,
    /// What is kept of bytes.
    pub bytes: Kept,
}

impl Crash {
    /// Nothing un-synced survives.
    pub const LOSE: Self = Self { names: 0, bytes: Kept::Prefix { count: 0, size: 0 } };
    /// Everything survives.
    pub const KEEP: Self = Self { names: u64::MAX, bytes: Kept::Hole { size: 0 } };
}

/// How often each kind of call was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Calls {
    /// All calls that change something, syncs included.
    pub mutating: u64,
    /// Calls of `write_at`.
    pub writes: u64,
    /// Calls of `sync_data`.
    pub syncs: u64,
    /// Calls of `sync_dir`.
    pub dir_syncs: u64,
    /// Bytes written.
    pub bytes: u64,
}

type FileId = u64;

/// A change of the bytes of one file.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Truncate(u64),
}

/// A change of names, atomic: each name now means that file, or none.
type Renaming = Vec<(String, Option<FileId>)>;

#[derive(Clone, Debug, Default)]
struct Directory {
    names: BTreeMap<String, FileId>,
    files: BTreeMap<FileId, Vec<u8>>,
}

#[derive(Debug, Default)]
struct State {
    shown: Directory,
    durable: Directory,
    changes: Vec<(FileId, Change)>,
    renamings: Vec<Renaming>,
    next: FileId,
    calls: Calls,
    faults: Vec<Fault>,
    crashed: bool,
}

/// A directory in memory; clones are handles of the same one. Deterministic.
#[derive(Clone, Debug, Default)]
pub struct MemoryMedium(Arc<Mutex<State>>);

impl MemoryMedium {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// The calls so far.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.state().calls
    }

    /// Every crash that may happen now, each once; what it leaves may be the same for several.
    #[must_use]
    pub fn crashes(&self) -> Vec<Crash> {
        let state = self.state();
        let mut bytes = vec![Kept::Prefix { count: 0, size: 0 }];
        for (count, (_, change)) in state.changes.iter().enumerate() {
            if let Change::Write { bytes: written, .. } = change {
                bytes.extend(cuts(written.len()).map(|size| Kept::Prefix { count, size }));
            }
            bytes.push(Kept::Prefix { count: count + 1, size: 0 });
        }
        if let Some((_, Change::Write { bytes: written, .. })) = state.changes.last() {
            bytes.extend(cuts(written.len()).map(|size| Kept::Hole { size }));
            bytes.push(Kept::Hole { size: written.len() });
        }
        let count = state.renamings.len();
        let names: Vec<u64> = if count <= SUBSET_COUNT_MAX {
            (0..1 << count).collect()
        } else {
            (0..=count.min(63)).map(|kept| (1 << kept) - 1).collect()
        };
        let of = |bytes: &Kept| {
            let bytes = *bytes;
            names.iter().map(move |names| Crash { names: *names, bytes }).collect::<Vec<_>>()
        };
        bytes.iter().flat_map(of).collect()
    }

    /// What the machine finds after `crash`: a new medium without faults, everything in it durable. This one is left as
    /// it is.
    #[must_use]
    pub fn crash(&self, crash: Crash) -> Self {
        let state = self.state();
        let mut left = state.durable.clone();
        let last = state.changes.len().saturating_sub(1);
        for (index, (id, change)) in state.changes.iter().enumerate() {
            // A file made since the last sync has bytes, if only its name survives too.
            let file = left.files.entry(*id).or_default();
            match crash.bytes {
                Kept::Prefix { count, size } if index == count => apply(file, change, 0, size),
                Kept::Prefix { count, .. } if index > count => {}
                Kept::Hole { size } if index == last => apply(file, change, size, usize::MAX),
                Kept::Prefix { .. } | Kept::Hole { .. } => apply(file, change, 0, usize::MAX),
            }
        }
        for (index, renaming) in state.renamings.iter().enumerate() {
            if crash.names >> index.min(63) & 1 == 1 {
                rename(&mut left.names, renaming);
            }
        }
        drop(state);
        for id in left.names.values() {
            left.files.entry(*id).or_default();
        }
        left.files.retain(|id, _| left.names.values().any(|named| named == id));
        let next = left.files.keys().next_back().map_or(0, |id| id + 1);
        let state = State { shown: left.clone(), durable: left, next, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// What a new process finds after the old one was killed and the machine went on: what was shown is still shown,
    /// what was not durable is still not. The new medium has no faults; this one is left as it is.
    #[must_use]
    pub fn restart(&self) -> Self {
        let state = self.state();
        Self(Arc::new(Mutex::new(State {
            shown: state.shown.clone(),
            durable: state.durable.clone(),
            changes: state.changes.clone(),
            renamings: state.renamings.clone(),
            next: state.next,
            ..State::default()
        })))
    }

    /// Every file with its bytes, as reads show them.
    #[must_use]
    pub fn image(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let named = |(name, id): (&String, &FileId)| (name.clone(), state.shown.file(*id));
        state.shown.names.iter().map(named).collect()
    }

    /// Decay: flips one bit of a file, on the device and in what reads show.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidInput` if the file is shorter.
    pub fn flip_bit(&self, name: &str, byte: u64, bit: u8) -> io::Result<()> {
        let mut state = self.state();
        let id = state.shown.id(name)?;
        let at = usize::try_from(byte).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mask = 1_u8.checked_shl(u32::from(bit)).ok_or(io::ErrorKind::InvalidInput)?;
        let shown = state.shown.files.get_mut(&id).and_then(|file| file.get_mut(at));
        *shown.ok_or(io::ErrorKind::InvalidInput)? ^= mask;
        if let Some(durable) = state.durable.files.get_mut(&id).and_then(|file| file.get_mut(at)) {
            *durable ^= mask;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each call leaves the state whole, so a panic elsewhere cannot have left it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory {
    fn id(&self, name: &str) -> io::Result<FileId> {
        check_name(name)?;
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&self, id: FileId) -> Vec<u8> {
        self.files.get(&id).cloned().unwrap_or_default()
    }
}

impl State {
    fn check_alive(&self) -> io::Result<()> {
        if self.crashed { Err(io::Error::other("the machine has crashed")) } else { Ok(()) }
    }

    /// Counts a mutating call; `true` if the machine crashes inside it.
    fn count(&mut self) -> io::Result<bool> {
        self.check_alive()?;
        self.crashed = self.faults.contains(&Fault::CrashAt(self.calls.mutating));
        self.calls.mutating += 1;
        Ok(self.crashed)
    }

    fn change(&mut self, id: FileId, change: Change) {
        apply(self.shown.files.entry(id).or_default(), &change, 0, usize::MAX);
        self.changes.push((id, change));
    }

    fn rename(&mut self, renaming: Renaming) {
        rename(&mut self.shown.names, &renaming);
        self.renamings.push(renaming);
    }

    /// How many of `size` bytes the n-th write may write.
    fn allowance(&self, write: u64, size: usize) -> (usize, Option<io::ErrorKind>) {
        let mut allowed = (size, None);
        for fault in &self.faults {
            let (limit, kind) = match *fault {
                Fault::TornWriteAt { write: at, size } if at == write => {
                    (size, io::ErrorKind::Other)
                }
                Fault::SpaceBytes(space) => {
                    let left = usize::try_from(space.saturating_sub(self.calls.bytes));
                    let left = left.unwrap_or(usize::MAX);
                    if left >= size {
                        continue;
                    }
                    (left, io::ErrorKind::StorageFull)
                }
                _ => continue,
            };
            allowed = (limit.min(allowed.0), Some(kind));
        }
        allowed
    }
}

impl Medium for MemoryMedium {
    fn create(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.check_alive()?;
        match state.shown.id(name) {
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let crashed = state.count()?;
        let id = state.next;
        state.next += 1;
        state.shown.files.insert(id, Vec::new());
        state.rename(vec![(name.to_owned(), Some(id))]);
        answer(crashed)
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        let state = self.state();
        state.check_alive()?;
        let id = state.shown.id(name)?;
        Ok(state.shown.files.get(&id).map_or(0, Vec::len) as u64)
    }

    fn read_at(&self, name: &str, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        let state = self.state();
        state.check_alive()?;
        let bytes = state.shown.file(state.shown.id(name)?);
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(bytes.into_iter().skip(skip).take(size).collect())
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let id = state.shown.id(name)?;
        let crashed = state.count()?;
        let (size, error) = state.allowance(state.calls.writes, bytes.len());
        state.calls.writes += 1;
        state.calls.bytes += size as u64;
        state.change(id, Change::Write { offset, bytes: bytes[..size].to_vec() });
        error.map_or_else(|| answer(crashed), |kind| Err(kind.into()))
    }

    fn truncate(&self, name: &str, size: u64) -> io::Result<()> {
        let mut state = self.state();
        let id = state.shown.id(name)?;
        let crashed = state.count()?;
        state.change(id, Change::Truncate(size));
        answer(crashed)
    }

    fn sync_data(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let id = state.shown.id(name)?;
        let crashed = state.count()?;
        let failed = state.faults.contains(&Fault::SyncErrorAt(state.calls.syncs));
        state.calls.syncs += 1;
        answer(crashed)?;
        let (synced, others) =
            std::mem::take(&mut state.changes).into_iter().partition(|(of, _)| *of == id);
        state.changes = others;
        if failed {
            return Err(io::Error::other("injected: sync failed"));
        }
        let synced: Vec<(FileId, Change)> = synced;
        let file = state.durable.files.entry(id).or_default();
        synced.iter().for_each(|(_, change)| apply(file, change, 0, usize::MAX));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(to)?;
        let mut state = self.state();
        let id = state.shown.id(from)?;
        let crashed = state.count()?;
        state.rename(vec![(from.to_owned(), None), (to.to_owned(), Some(id))]);
        answer(crashed)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.check_alive()?;
        state.shown.id(name)?;
        let crashed = state.count()?;
        state.rename(vec![(name.to_owned(), None)]);
        answer(crashed)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.check_alive()?;
        Ok(state.shown.names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        let crashed = state.count()?;
        let failed = state.faults.contains(&Fault::SyncDirErrorAt(state.calls.dir_syncs));
        state.calls.dir_syncs += 1;
        answer(crashed)?;
        if failed {
            return Err(io::Error::other("injected: directory sync failed"));
        }
        state.durable.names = state.shown.names.clone();
        state.renamings.clear();
        Ok(())
    }
}

fn answer(crashed: bool) -> io::Result<()> {
    if crashed { Err(io::Error::other("the machine has crashed")) } else { Ok(()) }
}

fn rename(names: &mut BTreeMap<String, FileId>, renaming: &Renaming) {
    for (name, id) in renaming {
        match id {
            Some(id) => names.insert(name.clone(), *id),
            None => names.remove(name),
        };
    }
}

/// Applies the bytes `from..to` of a write; a truncation applies whole if `to` is not 0.
fn apply(file: &mut Vec<u8>, change: &Change, from: usize, to: usize) {
    match change {
        Change::Write { offset, bytes } => {
            let to = to.min(bytes.len());
            if to == 0 {
                return;
            }
            let offset = usize::try_from(*offset).expect("files in memory fit into memory");
            let from = from.min(to);
            if file.len() < offset + to {
                file.resize(offset + to, 0);
            }
            file[offset + from..][..to - from].copy_from_slice(&bytes[from..to]);
        }
        Change::Truncate(size) if to > 0 => {
            file.resize(usize::try_from(*size).expect("files in memory fit into memory"), 0);
        }
        Change::Truncate(_) => {}
    }
}

/// Where to cut a write of `size` bytes: at sizes between 0 and `size`, both excluded.
fn cuts(size: usize) -> impl Iterator<Item = usize> {
    let step = if size <= CUT_SIZE_MAX { 1 } else { size / 16 };
    (1..size).filter(move |cut| step == 1 || cut % step == 0 || *cut == 1 || cut + 1 == size)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    fn written() -> MemoryMedium {
        let medium = MemoryMedium::new();
        medium.create("a").unwrap();
        medium.write_at("a", 0, b"old").unwrap();
        medium.sync_data("a").unwrap();
        medium.sync_dir().unwrap();
        medium
    }

    /// Checks that the model loses names without `sync_dir` and bytes without `sync_data`, each on its own.
    #[test]
    fn what_is_not_synced_may_be_lost() {
        let medium = written();
        medium.create("b").unwrap();
        medium.write_at("b", 0, b"new").unwrap();
        let lost = medium.crash(Crash::LOSE).image();
        assert_eq!(lost, BTreeMap::from([("a".to_owned(), b"old".to_vec())]));
        let empty = medium.crash(Crash { names: 1, ..Crash::LOSE }).image();
        assert_eq!(empty["b"], b"");
        assert_eq!(medium.crash(Crash::KEEP).image()["b"], b"new");
        medium.sync_data("b").unwrap();
        assert_eq!(medium.crash(Crash::LOSE).image().len(), 1);
        assert_eq!(medium.crash(Crash { names: 1, ..Crash::LOSE }).image()["b"], b"new");
    }

    /// Checks the torn writes that are enumerated.
    #[test]
    fn writes_tear_at_every_byte() {
        let medium = written();
        medium.write_at("a", 1, b"xyz").unwrap();
        let images: Vec<_> = medium
            .crashes()
            .iter()
            .map(|crash| medium.crash(*crash).image()["a"].clone())
            .collect();
        let want: [&[u8]; 7] = [b"old", b"oxd", b"oxy", b"oxyz", b"olyz", b"oldz", b"old\0"];
        assert_eq!(images, want);
    }

    /// Checks that each fault does what it says.
    #[test]
    fn faults_happen() {
        let medium = written();
        medium.inject(Fault::SpaceBytes(5));
        let error = medium.write_at("a", 3, b"1234").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(medium.read_at("a", 0, 9).unwrap(), b"old12");

        let medium = written();
        medium.inject(Fault::TornWriteAt { write: 1, size: 1 });
        medium.inject(Fault::SyncErrorAt(1));
        medium.inject(Fault::SyncDirErrorAt(1));
        medium.write_at("a", 3, b"1234").unwrap_err();
        assert_eq!(medium.read_at("a", 0, 9).unwrap(), b"old1");
        medium.sync_data("a").unwrap_err();
        medium.sync_data("a").unwrap();
        medium.sync_dir().unwrap_err();

        let medium = written();
        medium.inject(Fault::CrashAt(medium.calls().mutating));
        medium.rename("a", "b").unwrap_err();
        medium.list().unwrap_err();
        assert!(medium.crash(Crash::KEEP).image().contains_key("b"));
        assert!(medium.crash(Crash::LOSE).image().contains_key("a"));
        medium.crash(Crash::KEEP).flip_bit("b", 0, 8).unwrap_err();
    }

    /// Checks that after a failed sync reads show what is lost: the trap that a retried sync falls into.
    #[test]
    fn a_failed_sync_drops_what_reads_show() {
        let medium = written();
        medium.inject(Fault::SyncErrorAt(1));
        medium.write_at("a", 0, b"new").unwrap();
        medium.sync_data("a").unwrap_err();
        let again = medium.restart();
        again.sync_data("a").unwrap();
        assert_eq!(again.image()["a"], b"new");
        assert_eq!(again.crash(Crash::KEEP).image()["a"], b"old");
    }
}
