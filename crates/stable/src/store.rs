//! A log and its checkpoints as one: what most users of stable storage want.
//!
//! A state is what the newest checkpoint says, and the records behind it. The positions of both are log sequence numbers, so there is
//! nothing to convert, and nothing to leave a gap by: the log is cut where the *oldest* kept checkpoint ends, and what is
//! recovered is checked to follow on the newest one without a hole.
//!
//! # Group commit
//! A force costs the same for one record and for a thousand. [`GroupCommit`] lets many threads append: the first one that finds nobody at
//! it forces all that is there, while the others append and wait; the next of them forces for the rest. No thread is needed for it,
//! and a lone writer waits for nobody.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use thiserror::Error;

use crate::checkpoint::{
    Checkpoints, OpenCheckpointsError, ReadCheckpointError, WriteCheckpointError,
};
use crate::format::Owner;
use crate::log::{
    AppendError, ForceError, Log, Lsn, OpenError, Options, Record, Recovered, TruncateError,
};
use crate::medium::Medium;

/// Why a store cannot be opened. Nothing that was forced is changed.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum OpenStoreError {
    /// The directory cannot be used, or another process uses it.
    #[cfg(unix)]
    #[error(transparent)]
    Directory(#[from] crate::FileMediumError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The checkpoints cannot be opened.
    #[error(transparent)]
    Checkpoints(#[from] OpenCheckpointsError),
    /// The checkpoints cannot be read.
    #[error(transparent)]
    Read(#[from] ReadCheckpointError),
    /// The log begins behind the newest readable checkpoint: records are missing. Only a copy elsewhere leads back.
    #[error("records {} to {} are missing between checkpoint and log", .from.0, .to.0)]
    Hole {
        /// The first that is missing.
        from: Lsn,
        /// The last that is missing.
        to: Lsn,
    },
    /// The log ends before the newest checkpoint: it is not the one that the checkpoint was made of.
    #[error("the log ends at record {}, the checkpoint is of record {}", .log.0, .checkpoint.0)]
    Behind {
        /// The last record of the log.
        log: Lsn,
        /// What the checkpoint covers.
        checkpoint: Lsn,
    },
}

/// Why there is no new checkpoint. The state on disk is as good as before: older checkpoints stand, and the log behind them.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum StoreCheckpointError {
    /// It could not be written. A retry is safe, unless the cause says otherwise.
    #[error(transparent)]
    Write(#[from] WriteCheckpointError),
    /// It is written; the log could not be cut behind it. A later checkpoint cuts it.
    #[error(transparent)]
    Cut(#[from] TruncateError),
    /// It is of records that are not forced yet, or not written. The caller's fault.
    #[error("record {} is not forced", .0.0)]
    NotForced(Lsn),
}

/// What a store holds when it is opened.
#[derive(Debug)]
pub struct StorePast {
    /// The newest checkpoint: up to which record, and its chunks. `None`: there is none, and the state begins empty.
    pub checkpoint: Option<(Lsn, Vec<Bytes>)>,
    /// The records behind it, in order and without a gap.
    pub tail: Vec<Record>,
    /// Bytes of a torn write at the end that were cut off: nothing of it was ever forced.
    pub discarded_bytes: u64,
}

/// A log and its checkpoints in one directory, of one owner. All calls block.
///
/// ```
/// use std::sync::Arc;
/// use mainstay_stable::{Lsn, MemoryMedium, Owner, Store};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let owner = Owner(*b"the-ledger------");
/// let medium = MemoryMedium::new();
/// let (mut store, past) = Store::on(Arc::new(medium.clone()), owner)?;
/// assert!(past.checkpoint.is_none() && past.tail.is_empty());
/// let mut balance = 0_u64;
/// for deposit in [5_u64, 7, 9] {
///     store.append(1, deposit.to_le_bytes().to_vec().into())?;
///     balance += deposit;
/// }
/// let last = store.force()?;
/// store.checkpoint(last, [balance.to_le_bytes()])?;
/// store.append(1, 4_u64.to_le_bytes().to_vec().into())?;
/// store.force()?;
/// drop(store);
///
/// let (_, past) = Store::on(Arc::new(medium), owner)?;
/// let (upto, chunks) = past.checkpoint.ok_or("there is one")?;
/// assert_eq!((upto, &chunks[0][..]), (Lsn(3), &21_u64.to_le_bytes()[..]));
/// assert_eq!(past.tail.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Store {
    log: Log,
    checkpoints: Checkpoints,
}

impl Store {
    /// Opens the store in a directory; makes it if it is missing, its parent must exist. Reads what is behind the newest checkpoint into
    /// memory.
    ///
    /// # Errors
    /// [`OpenStoreError`].
    #[cfg(unix)]
    pub fn open(
        directory: impl Into<PathBuf>,
        owner: Owner,
    ) -> Result<(Self, StorePast), OpenStoreError> {
        let medium = crate::FileMedium::open(directory.into())?;
        Self::on(Arc::new(medium), owner)
    }

    /// Opens the store on a medium.
    ///
    /// # Errors
    /// [`OpenStoreError`].
    pub fn on(medium: Arc<dyn Medium>, owner: Owner) -> Result<(Self, StorePast), OpenStoreError> {
        let checkpoints = Checkpoints::open(Arc::clone(&medium), owner)?;
        let newest = checkpoints.read_newest()?;
        let (log, recovered) = Log::open(medium, Options::new(owner))?;
        let checkpoint = newest.map(|newest| (Lsn(newest.position), newest.chunks));
        let upto = checkpoint.as_ref().map_or(Lsn(0), |(upto, _)| *upto);
        let first = log.first();
        if first > upto.next() {
            return Err(OpenStoreError::Hole { from: upto.next(), to: Lsn(first.0 - 1) });
        }
        if log.last() < upto {
            return Err(OpenStoreError::Behind { log: log.last(), checkpoint: upto });
        }
        let Recovered { records, discarded_bytes, .. } = recovered;
        let tail = records.into_iter().filter(|record| record.lsn > upto).collect();
        Ok((Self { log, checkpoints }, StorePast { checkpoint, tail, discarded_bytes }))
    }

    /// Appends a record of the caller's `kind`. It is stable when a [`force`](Self::force) after it has answered.
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn append(&mut self, kind: u8, payload: Bytes) -> Result<Lsn, AppendError> {
        self.log.append(kind, payload)
    }

    /// Makes all that was appended stable: one write, one sync. Answers the last one.
    ///
    /// # Errors
    /// [`ForceError`]: what was not forced before is uncertain, and the log takes nothing any more.
    pub fn force(&mut self) -> Result<Lsn, ForceError> {
        self.log.force()
    }

    /// Writes the state as of record `upto`, chunk by chunk, and cuts the log behind the oldest checkpoint that is kept.
    ///
    /// # Errors
    /// [`StoreCheckpointError`].
    pub fn checkpoint(
        &mut self,
        upto: Lsn,
        chunks: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<(), StoreCheckpointError> {
        if upto > self.log.forced() {
            return Err(StoreCheckpointError::NotForced(upto));
        }
        let mut writer = self.checkpoints.begin(upto.0)?;
        for chunk in chunks {
            if let Err(error) = writer.write(chunk.as_ref()) {
                // What is left of it is cleaned away when the store is opened.
                let _ = self.checkpoints.abandon(writer);
                return Err(error.into());
            }
        }
        self.checkpoints.commit(writer)?;
        if let Some(oldest) = self.checkpoints.positions().first() {
            self.log.truncate_before(Lsn(*oldest).next())?;
        }
        Ok(())
    }

    /// The last record that is stable.
    #[must_use]
    pub fn forced(&self) -> Lsn {
        self.log.forced()
    }

    /// The first record that is still in the log.
    #[must_use]
    pub fn first(&self) -> Lsn {
        self.log.first()
    }

    /// Shares the store among threads.
    #[must_use]
    pub fn into_group_commit(self) -> GroupCommit {
        let shared =
            Shared { store: Some(self), queue: Vec::new(), tickets: 0, done: BTreeMap::new() };
        GroupCommit { shared: Arc::new((Mutex::new(shared), Condvar::new())) }
    }

    /// Appends and forces a batch; answers for each what became of it.
    fn commit(&mut self, batch: Vec<(u8, Bytes)>) -> Vec<Result<Lsn, CommitError>> {
        let mut appended: Vec<Result<Lsn, CommitError>> = Vec::new();
        let mut failed = None;
        for (kind, payload) in batch {
            let mut one = self.append(kind, payload.clone());
            if matches!(one, Err(AppendError::Full)) && failed.is_none() {
                failed = self.force().err();
                one = self.append(kind, payload);
            }
            appended.push(one.map_err(|error| CommitError::NotAppended(error.to_string().into())));
        }
        if failed.is_none() {
            failed = self.force().err();
        }
        let Some(error) = failed else { return appended };
        let (forced, why) = (self.forced(), Arc::<str>::from(error.to_string()));
        let fate = |one: Result<Lsn, CommitError>| match one {
            Ok(lsn) if lsn > forced => Err(CommitError::Unknown(Arc::clone(&why))),
            one => one,
        };
        appended.into_iter().map(fate).collect()
    }
}

/// Why a record is not known to be stable.
#[derive(Error, Debug, Clone)]
#[non_exhaustive]
pub enum CommitError {
    /// It was not appended. The caller's fault, or the log takes nothing any more.
    #[error("not appended: {0}")]
    NotAppended(Arc<str>),
    /// The force failed: the record may be there after a restart, or not.
    #[error("nobody knows whether the record is stable: {0}")]
    Unknown(Arc<str>),
}

#[derive(Debug)]
struct Shared {
    /// Taken out by whoever is at it.
    store: Option<Store>,
    /// What came since, and how many came in all.
    queue: Vec<(u8, Bytes)>,
    tickets: u64,
    /// What became of each that has not been told yet.
    done: BTreeMap<u64, Result<Lsn, CommitError>>,
}

/// A store that many threads append to and force together: a force costs the same for one record and for a thousand. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GroupCommit {
    shared: Arc<(Mutex<Shared>, Condvar)>,
}

impl GroupCommit {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody is at the store, and does something with it while nobody holds the lock.
    fn at_store<T>(
        &self,
        mut shared: MutexGuard<'_, Shared>,
        work: impl FnOnce(&mut Store) -> T,
    ) -> T {
        let mut store = loop {
            match shared.store.take() {
                Some(store) => break store,
                None => shared = self.shared.1.wait(shared).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(shared);
        let result = work(&mut store);
        self.lock().store = Some(store);
        self.shared.1.notify_all();
        result
    }

    /// Appends a record and waits until it is stable, with those of all other threads that came meanwhile.
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn append_forced(&self, kind: u8, payload: Bytes) -> Result<Lsn, CommitError> {
        let mut shared = self.lock();
        let ticket = shared.tickets;
        shared.tickets += 1;
        shared.queue.push((kind, payload));
        loop {
            if let Some(result) = shared.done.remove(&ticket) {
                return result;
            }
            let Some(mut store) = shared.store.take() else {
                shared = self.shared.1.wait(shared).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            // This thread finds nobody at the store: it commits for all who are in the queue, itself among them.
            let batch = std::mem::take(&mut shared.queue);
            let first = shared.tickets - batch.len() as u64;
            drop(shared);
            let results = store.commit(batch);
            shared = self.lock();
            shared.store = Some(store);
            shared.done.extend((first..).zip(results));
            self.shared.1.notify_all();
        }
    }

    /// As [`Store::checkpoint`]; what comes meanwhile waits.
    ///
    /// # Errors
    /// [`StoreCheckpointError`].
    pub fn checkpoint(
        &self,
        upto: Lsn,
        chunks: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<(), StoreCheckpointError> {
        self.at_store(self.lock(), |store| store.checkpoint(upto, chunks))
    }

    /// The last record that is stable; waits while somebody is at the store.
    #[must_use]
    pub fn forced(&self) -> Lsn {
        self.at_store(self.lock(), |store| store.forced())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;
    use crate::{Crash, Fault, MemoryMedium};

    const OWNER: Owner = Owner(*b"the-node-in-here");

    fn payload(number: u64) -> Bytes {
        Bytes::copy_from_slice(&number.to_le_bytes())
    }

    /// What a store holds, as the numbers that were put into it.
    fn numbers(past: &StorePast) -> Vec<u64> {
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        let chunks = past.checkpoint.iter().flat_map(|(_, chunks)| chunks);
        let tail = past.tail.iter().map(|record| &record.payload);
        chunks.chain(tail).map(|bytes| number(bytes)).collect()
    }

    /// Crashes in every call of a script of appends and checkpoints: what was forced is there, in order and once, and nothing that
    /// was not appended.
    #[test]
    fn every_crash_leaves_what_was_forced() {
        let script = |medium: &MemoryMedium, forced: &mut u64| -> Result<(), ()> {
            let (mut store, _) = Store::on(Arc::new(medium.clone()), OWNER).map_err(drop)?;
            for number in 1..=9 {
                store.append(1, payload(number)).map_err(drop)?;
                if number % 3 == 0 {
                    let upto = store.force().map_err(drop)?;
                    *forced = number;
                    let state = (1..=number).map(payload);
                    store.checkpoint(upto, state).map_err(drop)?;
                }
            }
            Ok(())
        };
        let calls = {
            let medium = MemoryMedium::new();
            script(&medium, &mut 0).unwrap();
            medium.calls().mutating
        };
        assert!(calls > 20);
        for at in 0..calls {
            let medium = MemoryMedium::new();
            medium.inject(Fault::CrashAt(at));
            let mut forced = 0;
            let _ = script(&medium, &mut forced);
            for crash in [Crash::LOSE, Crash::KEEP] {
                let (_, past) = Store::on(Arc::new(medium.crash(crash)), OWNER).unwrap();
                let numbers = numbers(&past);
                assert!(numbers.len() as u64 >= forced, "crash {at}: {numbers:?}, {forced} forced");
                assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{at}: {numbers:?}");
            }
        }
    }

    /// Many threads append; each is told an lsn of its own, and all of them are there. Forces are fewer than records.
    #[test]
    fn threads_share_forces() {
        let medium = MemoryMedium::new();
        let (store, _) = Store::on(Arc::new(medium.clone()), OWNER).unwrap();
        let shared = store.into_group_commit();
        let lsns: Vec<Lsn> = std::thread::scope(|scope| {
            let append = |thread: u64| {
                let shared = shared.clone();
                move || -> Vec<Lsn> {
                    let numbers = (0..200).map(|number| thread * 200 + number);
                    numbers.map(|it| shared.append_forced(1, payload(it)).unwrap()).collect()
                }
            };
            let threads: Vec<_> = (0..8).map(|thread| scope.spawn(append(thread))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let distinct: std::collections::BTreeSet<_> = lsns.iter().collect();
        assert_eq!(distinct.len(), 1_600);
        assert_eq!(shared.forced(), Lsn(1_600));
        let (_, past) = Store::on(Arc::new(medium.crash(Crash::LOSE)), OWNER).unwrap();
        assert_eq!(past.tail.len(), 1_600);
    }

    /// A record that cannot be appended is refused alone; a force that fails leaves an unknown fate, for all that follow as well.
    #[test]
    fn whoever_is_refused_is_refused_alone() {
        let medium = MemoryMedium::new();
        let (store, _) = Store::on(Arc::new(medium.clone()), OWNER).unwrap();
        let shared = store.into_group_commit();
        let refused = shared.append_forced(255, payload(1));
        assert!(matches!(refused, Err(CommitError::NotAppended(_))), "{refused:?}");
        assert_eq!(shared.append_forced(1, payload(2)).unwrap(), Lsn(1));
        let early = shared.checkpoint(Lsn(2), [payload(2)]);
        assert!(matches!(early, Err(StoreCheckpointError::NotForced(Lsn(2)))), "{early:?}");
        shared.checkpoint(Lsn(1), [payload(2)]).unwrap();
    }
}
