//! The log-writer thread: forced writes off the node's thread, with group commit.
//!
//! While one force runs, requests gather; the next force covers them all. A failed append or force poisons the log:
//! every request that it could have covered and every later one fails, since after a failed force nobody knows what is
//! on the medium.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::{fmt, io, mem, thread};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::causes::with_causes;
use crate::ports::{Completed, IoId, LogError, Record, Store, StoreError};

/// What the thread writes to: it may block, and only that thread touches it.
pub trait LogDevice: Send {
    /// Puts records at the end of the log, in order; they need not be stable yet.
    ///
    /// # Errors
    /// The device's; the log is poisoned.
    fn append(&mut self, records: Vec<Record>) -> io::Result<()>;

    /// Makes all that was appended stable.
    ///
    /// # Errors
    /// The device's; the log is poisoned.
    fn force(&mut self) -> io::Result<()>;
}

/// The bounds of a log writer.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LogOptions {
    /// Most requests that are neither refused nor consumed by their completion's owner. Default 1024.
    pub outstanding_max: usize,
    /// Most bytes of records under one force; a single larger request goes alone. Default 8 MiB.
    pub batch_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { outstanding_max: 1024, batch_bytes_max: 8 << 20 }
    }
}

struct Request {
    io: IoId,
    records: Vec<Record>,
    place: OwnedSemaphorePermit,
}

/// A [`Store`] over a [`LogDevice`] on a thread of its own. Dropping it completes what was taken and joins the thread.
pub struct LogWriter {
    options: LogOptions,
    device: Option<Box<dyn LogDevice>>,
    places: Arc<Semaphore>,
    poison: Arc<OnceLock<LogError>>,
    requests: Option<mpsc::SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter")
            .field("options", &self.options)
            .field("poison", &self.poison)
            .field("outstanding", &self.outstanding())
            .finish_non_exhaustive()
    }
}

impl LogWriter {
    /// A writer that will start with [`Store::start`].
    ///
    /// # Panics
    /// If `options` allow no request.
    #[must_use]
    pub fn new(device: Box<dyn LogDevice>, options: LogOptions) -> Self {
        assert!(options.outstanding_max > 0, "at least one request may be outstanding");
        Self {
            options,
            device: Some(device),
            places: Arc::new(Semaphore::new(options.outstanding_max)),
            poison: Arc::default(),
            requests: None,
            thread: None,
        }
    }

    /// Requests taken whose completion has not been dropped yet.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.options.outstanding_max - self.places.available_permits()
    }

    /// Completes what was taken, then ends and joins the thread. Later requests are refused.
    pub fn close(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the callback of the log writer panicked");
        }
    }
}

impl Store for LogWriter {
    /// # Panics
    /// If called twice, or if the operating system gives no thread.
    fn start(&mut self, completed: Box<dyn FnMut(Completed) + Send>) {
        let device = self.device.take().expect("a store is started once");
        // The places bound the channel: a request that has one always finds room.
        let (requests, taken) = mpsc::sync_channel(self.options.outstanding_max);
        let mut writer = Writer {
            device,
            batch_bytes_max: self.options.batch_bytes_max,
            poison: Arc::clone(&self.poison),
            completed,
        };
        let thread = thread::Builder::new()
            .name("mainstay-log".to_owned())
            .spawn(move || writer.run(&taken))
            .expect("the operating system gives a thread at start");
        self.requests = Some(requests);
        self.thread = Some(thread);
    }

    fn persist(&mut self, io: IoId, records: Vec<Record>) -> Result<(), StoreError> {
        if let Some(error) = self.poison.get() {
            return Err(StoreError::Poisoned(error.clone()));
        }
        let Some(requests) = &self.requests else { return Err(StoreError::NotRunning) };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(StoreError::Full(records));
        };
        match requests.try_send(Request { io, records, place }) {
            Ok(()) => Ok(()),
            Err(mpsc::TrySendError::Full(request)) => Err(StoreError::Full(request.records)),
            Err(mpsc::TrySendError::Disconnected(_)) => Err(StoreError::NotRunning),
        }
    }

    fn closing(self: Box<Self>) -> Box<dyn FnOnce() + Send> {
        Box::new(move || drop(self))
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.close();
    }
}

struct Writer {
    device: Box<dyn LogDevice>,
    batch_bytes_max: usize,
    poison: Arc<OnceLock<LogError>>,
    completed: Box<dyn FnMut(Completed) + Send>,
}

impl Writer {
    fn run(&mut self, taken: &mpsc::Receiver<Request>) {
        let mut next = taken.recv().ok();
        while let Some(first) = next.take() {
            let mut batch = vec![first];
            let mut bytes = size_of_records(&batch[0].records);
            while let Ok(request) = taken.try_recv() {
                let more = size_of_records(&request.records);
                if bytes + more > self.batch_bytes_max {
                    next = Some(request);
                    break;
                }
                bytes += more;
                batch.push(request);
            }
            self.commit(batch);
            if next.is_none() {
                next = taken.recv().ok();
            }
        }
    }

    fn commit(&mut self, mut batch: Vec<Request>) {
        let result = match self.poison.get() {
            Some(error) => Err(error.clone()),
            None => self.write(&mut batch),
        };
        for Request { io, place, .. } in batch {
            (self.completed)(Completed { io, result: result.clone(), place: Some(place) });
        }
    }

    fn write(&mut self, batch: &mut [Request]) -> Result<(), LogError> {
        let written = catch_unwind(AssertUnwindSafe(|| {
            let records = batch.iter_mut().flat_map(|request| mem::take(&mut request.records));
            self.device.append(records.collect())?;
            self.device.force()
        }));
        let reason: Arc<str> = match written {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => with_causes(&error).into(),
            Err(_) => "the log device panicked".into(),
        };
        // Whoever waits for a completion halts, and says it.
        tracing::info!(%reason, "the log is poisoned");
        Err(self.poison.get_or_init(|| LogError { reason }).clone())
    }
}

fn size_of_records(records: &[Record]) -> usize {
    records.iter().map(Record::len).sum()
}
