//! The resource: a store of results on a disk, which outlives all workers and checks their tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_stable::{Cell, Medium, OpenCellError, Owner, ReadCellError, WriteCellError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Planted;

/// Whose files they are.
const OWNER: Owner = Owner(*b"mainstay-leader.");

/// Why the store did not open. Nothing changed.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum OpenStoreError {
    /// The cell did not open. A retry is safe.
    #[error(transparent)]
    Open(#[from] OpenCellError),
    /// The cell could not be read.
    #[error(transparent)]
    Read(#[from] ReadCellError),
    /// The cell is whole, and holds no jobs. A retry is of no use.
    #[error("the cell has something else in it")]
    Content(#[from] serde_json::Error),
}

/// Why the store did not do what it was asked for.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// A later view has been here. Nothing changed; the same token never helps.
    #[error("token {token} is fenced off, the highest is {highest}")]
    Fenced {
        /// What came.
        token: u64,
        /// The highest that was ever seen.
        highest: u64,
    },
    /// The job was done before. Nothing changed; its result stands.
    #[error("job {0} is done already")]
    Done(u64),
    /// The content could not be encoded. Nothing changed.
    #[error(transparent)]
    Encode(#[from] serde_json::Error),
    /// The cell was not written; its error says whether a retry is safe.
    #[error(transparent)]
    Write(#[from] WriteCellError),
}

/// The effect of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Effect {
    /// Which job.
    pub job: u64,
    /// What came of it.
    pub result: u64,
    /// The token that it was written with.
    pub token: u64,
}

#[derive(Clone, Default, Debug, Serialize, Deserialize)]
struct Content {
    highest: u64,
    results: BTreeMap<u64, u64>,
}

/// Results of jobs, each with one effect, on one medium. It keeps the highest token that it has seen and refuses all lower ones.
/// What a call has answered outlives crashes. Bounded by the size of a cell: about 400,000 results.
#[derive(Debug)]
pub struct JobStore {
    cell: Cell,
    content: Content,
    planted: Option<Planted>,
}

impl JobStore {
    /// Opens the store of a medium; an empty medium is a store in which nothing is done. It may have a planted fault.
    ///
    /// # Errors
    /// [`OpenStoreError`].
    pub fn open(medium: Arc<dyn Medium>, planted: Option<Planted>) -> Result<Self, OpenStoreError> {
        let cell = Cell::open(medium, "jobs", OWNER)?;
        let content = cell.read()?.map(|bytes| serde_json::from_slice(&bytes)).transpose()?;
        Ok(Self { cell, content: content.unwrap_or_default(), planted })
    }

    /// The results, by job.
    #[must_use]
    pub fn results(&self) -> &BTreeMap<u64, u64> {
        &self.content.results
    }

    /// From here on all lower tokens are refused.
    ///
    /// # Errors
    /// [`StoreError`], never `Done`.
    pub fn fence(&mut self, token: u64) -> Result<(), StoreError> {
        self.check(token)?;
        self.write(token, None)
    }

    /// The effect of a job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put(&mut self, Effect { job, result, token }: Effect) -> Result<(), StoreError> {
        self.check(token)?;
        if self.content.results.contains_key(&job) && self.planted != Some(Planted::NoLook) {
            return Err(StoreError::Done(job));
        }
        self.write(token, Some((job, result)))
    }

    fn check(&self, token: u64) -> Result<(), StoreError> {
        let highest = self.content.highest;
        if token < highest && self.planted != Some(Planted::NoFence) {
            return Err(StoreError::Fenced { token, highest });
        }
        Ok(())
    }

    /// Memory follows the disk: after an error it is as it was.
    fn write(&mut self, token: u64, result: Option<(u64, u64)>) -> Result<(), StoreError> {
        let mut content = self.content.clone();
        content.highest = content.highest.max(token);
        content.results.extend(result);
        self.cell.write(&serde_json::to_vec(&content)?)?;
        self.content = content;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mainstay_stable::{Crash, MemoryMedium};

    use super::*;

    fn open(medium: &MemoryMedium) -> JobStore {
        JobStore::open(Arc::new(medium.clone()), None).expect("it opens")
    }

    /// Checks that a token and an effect that were acknowledged outlive a loss of power, and still fence.
    #[test]
    fn the_highest_token_outlives_a_crash() {
        let medium = MemoryMedium::new();
        let mut store = open(&medium);
        store.put(Effect { job: 1, result: 10, token: 3 }).expect("it is written");
        store.fence(7).expect("it is raised");
        drop(store);
        let medium = medium.crash(Crash::LOSE);
        let mut store = open(&medium);
        let refused = store.put(Effect { job: 2, result: 20, token: 6 });
        assert!(matches!(refused, Err(StoreError::Fenced { token: 6, highest: 7 })), "{refused:?}");
        assert!(matches!(store.fence(6), Err(StoreError::Fenced { .. })));
        let again = store.put(Effect { job: 1, result: 11, token: 8 });
        assert!(matches!(again, Err(StoreError::Done(1))), "{again:?}");
        store.put(Effect { job: 2, result: 20, token: 7 }).expect("the present view may write");
        assert_eq!(store.results(), &[(1, 10), (2, 20)].into());
    }
}
