//! Checkpoints that are written beside the turns of a node.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use mainstay_base::service::Chunks;
use mainstay_stable::{
    CheckpointWriter, Checkpoints, Medium, OpenCheckpointsError, Owner, WriteCheckpointError,
};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::beside::drop_beside;
use crate::ports::{Disk, Space};

/// Bytes of a checkpoint that are written before others get their turn on the thread beside (1 MiB).
const STEP_BYTES: usize = 1 << 20;
/// The reserve is no larger than this part of the disk.
const RESERVE_PART: u64 = 8;

/// There is enough again with this part of the reserve above it: a node at the limit would refuse and take commands in turn.
const MARGIN_PART: u64 = 8;

/// Whether less than the reserve is free: so many bytes, or an eighth of the disk if that is less. False where the disk does not
/// say.
#[must_use]
pub fn is_short(disk: &dyn Disk, reserve: u64) -> bool {
    disk.space().is_some_and(|space| space.free < limit(space, reserve))
}

/// Whether too little is free still, where it was too little: there is to be an eighth of the reserve above it.
#[must_use]
pub fn is_short_still(disk: &dyn Disk, reserve: u64) -> bool {
    let still = |space: Space| {
        let limit = limit(space, reserve);
        space.free < limit.saturating_add(limit / MARGIN_PART)
    };
    disk.space().is_some_and(still)
}

fn limit(space: Space, reserve: u64) -> u64 {
    reserve.min(space.total / RESERVE_PART)
}

/// Says that what is written for one boot of a node is to end: what comes of it is wanted no more. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From here on a state under this word has no further chunk.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The state, until the word is given.
    #[must_use]
    pub fn over(&self, source: Box<dyn Chunks>) -> Box<dyn Chunks> {
        Box::new(Stoppable { source, stop: self.clone() })
    }
}

struct Stoppable {
    source: Box<dyn Chunks>,
    stop: Stop,
}

impl Chunks for Stoppable {
    fn next_chunk(&mut self) -> Result<Option<Bytes>, String> {
        if self.stop.0.load(Ordering::Relaxed) {
            return Err("the boot has ended".to_owned());
        }
        self.source.next_chunk()
    }
}

/// The checkpoints of one owner. They are away while one is being written.
#[derive(Clone)]
pub struct Shelf {
    medium: Arc<dyn Medium>,
    owner: Owner,
    checkpoints: Rc<RefCell<Option<Checkpoints>>>,
}

impl Shelf {
    /// A shelf in that directory, which nobody has opened yet.
    #[must_use]
    pub fn new(medium: Arc<dyn Medium>, owner: Owner) -> Self {
        Self { medium, owner, checkpoints: Rc::default() }
    }

    /// Its directory.
    #[must_use]
    pub fn medium(&self) -> Arc<dyn Medium> {
        Arc::clone(&self.medium)
    }

    /// The checkpoints were opened. What still writes for a former boot keeps those that it had.
    pub fn fill(&mut self, opened: Checkpoints) {
        self.checkpoints = Rc::new(RefCell::new(Some(opened)));
    }

    /// What is to run on the node's thread to write a checkpoint. Nothing is written into the last `reserve` bytes of the disk,
    /// or into half of that once it has begun. `alone`: the older ones go first.
    ///
    /// # Errors
    /// [`CheckpointError`]: the older ones stand, unless they had to go first.
    pub fn write(
        &self,
        disk: Rc<dyn Disk>,
        reserve: u64,
        position: u64,
        alone: bool,
        source: Box<dyn Chunks>,
    ) -> impl Future<Output = Result<(), CheckpointError>> + use<> {
        let Self { medium, owner, checkpoints: shelf } = self.clone();
        let again = Arc::clone(&medium);
        async move {
            let taken = shelf.borrow_mut().take();
            let Some(mut checkpoints) = taken else {
                drop_beside(source);
                return Err(CheckpointError::Busy);
            };
            if is_short(&*disk, reserve / 2) {
                *shelf.borrow_mut() = Some(checkpoints);
                drop_beside(source);
                return Err(CheckpointError::NoRoom);
            }
            // Those that were there are gone then: there is no way back but a full disk.
            let reserve = if alone { 0 } else { reserve };
            if alone {
                checkpoints = blocking(&*disk, move || discard(medium, owner)).await??;
            }
            match write(&*disk, reserve, checkpoints, position, source).await {
                Ok((checkpoints, result)) => {
                    *shelf.borrow_mut() = Some(checkpoints);
                    result
                }
                Err(ended) => {
                    // A step panicked, the user's snapshot perhaps: what is on disk is looked at anew.
                    let opened = blocking(&*disk, move || Checkpoints::open(again, owner)).await?;
                    *shelf.borrow_mut() = Some(opened?);
                    Err(ended)
                }
            }
        }
    }
}

/// Why there is no checkpoint. The older ones stand, unless they had to go first.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum CheckpointError {
    /// One is being written.
    #[error("one is being written")]
    Busy,
    /// It would take of the reserve of the disk.
    #[error("the disk is almost full")]
    NoRoom,
    /// The state says so.
    #[error("the state cannot be written out: {0}")]
    Source(String),
    /// The medium failed, or the position is no newer one.
    #[error(transparent)]
    Write(#[from] WriteCheckpointError),
    /// The directory cannot be used any more.
    #[error(transparent)]
    Open(#[from] OpenCheckpointsError),
    /// The medium failed.
    #[error("the medium failed")]
    Io(#[from] std::io::Error),
    /// A step of it panicked.
    #[error("the writing task ended")]
    Ended(#[from] oneshot::error::RecvError),
}

/// Runs what blocks beside the turns.
///
/// # Errors
/// The step panicked, or the node ends.
pub async fn blocking<T: Send + 'static>(
    disk: &dyn Disk,
    step: impl FnOnce() -> T + Send + 'static,
) -> Result<T, oneshot::error::RecvError> {
    let (tell, told) = oneshot::channel();
    // Nobody waits any more: then nobody is told.
    disk.run(Box::new(move || drop(tell.send(step()))));
    told.await
}

fn discard(medium: Arc<dyn Medium>, owner: Owner) -> Result<Checkpoints, CheckpointError> {
    discard_checkpoints(&*medium)?;
    Ok(Checkpoints::open(medium, owner)?)
}

/// Removes all checkpoints of a directory.
///
/// # Errors
/// What the device says; some may be gone then, and a retry is safe.
pub fn discard_checkpoints(medium: &dyn Medium) -> std::io::Result<()> {
    for name in medium.list()?.iter().filter(|name| name.starts_with("checkpoint-")) {
        medium.remove(name)?;
    }
    medium.sync_dir()
}

type Written = (Checkpoints, Result<(), CheckpointError>);

/// Chunks are made and written beside the node's thread, some at a time.
async fn write(
    disk: &dyn Disk,
    reserve: u64,
    mut checkpoints: Checkpoints,
    position: u64,
    mut source: Box<dyn Chunks>,
) -> Result<Written, CheckpointError> {
    let begun;
    (checkpoints, begun) = blocking(disk, move || {
        let begun = checkpoints.begin(position);
        (checkpoints, begun)
    })
    .await?;
    let mut writer = match begun {
        Ok(writer) => writer,
        Err(error) => {
            drop_beside(source);
            return Ok((checkpoints, Err(error.into())));
        }
    };
    loop {
        let gone;
        (writer, source, gone) = blocking(disk, move || {
            let gone = write_some(&mut writer, &mut *source);
            (writer, source, gone)
        })
        .await?;
        let gone = match gone {
            // A checkpoint may be what frees the disk of the log: it has half of the reserve. The log needs the rest.
            Ok(false) if is_short(disk, reserve / 2) => Err(CheckpointError::NoRoom),
            gone => gone,
        };
        match gone {
            Ok(true) => break,
            Ok(false) => {}
            Err(failed) => {
                drop_beside(source);
                checkpoints = blocking(disk, move || {
                    // What cannot be removed now goes with the next opening.
                    let _ = checkpoints.abandon(writer);
                    checkpoints
                })
                .await?;
                return Ok((checkpoints, Err(failed)));
            }
        }
    }
    Ok(blocking(disk, move || {
        // The last word on a state of which only the snapshot was left frees it: here, where nobody waits.
        drop(source);
        let committed = checkpoints.commit(writer).map_err(CheckpointError::from);
        (checkpoints, committed)
    })
    .await?)
}

/// Writes up to [`STEP_BYTES`]; true after the last chunk.
fn write_some(
    writer: &mut CheckpointWriter,
    source: &mut dyn Chunks,
) -> Result<bool, CheckpointError> {
    let mut bytes = 0;
    while bytes < STEP_BYTES {
        let Some(chunk) = source.next_chunk().map_err(CheckpointError::Source)? else {
            return Ok(true);
        };
        writer.write(&chunk)?;
        bytes += chunk.len();
    }
    Ok(false)
}
