//! The disk of a whole node: directories in memory, and forced writes that take virtual time.
//!
//! At a crash the writes under way are carried out up to some call of the medium. Then a killed process leaves what it
//! wrote; a machine that loses power leaves what was synced, and of the rest some part that a crash may leave.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use mainstay_base::{Duration, Rng};
use mainstay_runtime::{
    Completed, Disk, IoId, LogDevice, LogError, LogOptions, Record, Store, StoreError,
};
use mainstay_stable::{Crash, Fault, FileMediumError, Medium, MemoryMedium};
use tokio::task::AbortHandle;

use super::kernel::{Alarm, Kernel};
use super::room::Kind;
use crate::schedule::{self, Action, nanos};

/// A crash lets writes under way go on for so many calls of the medium at most.
const CALLS_MAX: u64 = 8;
/// The name of the node's own directory.
const HOME: &str = "";

/// What a node keeps, and what is being written.
pub(super) struct Platter {
    kernel: Rc<Kernel>,
    node: usize,
    rng: Rng,
    boot: u64,
    directories: BTreeMap<String, MemoryMedium>,
    backup: BTreeMap<String, MemoryMedium>,
    /// The longest time of a forced write.
    longest: Duration,
    /// Slowed down by these many times, one entry for each fault under way.
    slow: Vec<u32>,
    lies: Arc<AtomicBool>,
    log: Option<Rc<RefCell<Work>>>,
    steps: BTreeMap<u64, Box<dyn FnOnce() + Send>>,
    last_step: u64,
}

impl Platter {
    pub(super) fn new(kernel: Rc<Kernel>, node: usize, rng: Rng, longest: Duration) -> Self {
        Self {
            kernel,
            node,
            rng,
            boot: 0,
            directories: BTreeMap::new(),
            backup: BTreeMap::new(),
            longest,
            slow: Vec::new(),
            lies: Arc::default(),
            log: None,
            steps: BTreeMap::new(),
            last_step: 0,
        }
    }

    /// From here on the disk says that it has forced what it has not.
    pub(super) fn lie(&self) {
        self.lies.store(true, Ordering::Relaxed);
    }

    /// Completes when a write that begins now is done.
    fn work_time(&mut self) -> Alarm {
        let longest = nanos(self.longest).max(1);
        let factor = u64::from(self.slow.iter().copied().max().unwrap_or(1));
        let time = self.rng.between(longest.div_ceil(10), longest).saturating_mul(factor);
        self.kernel.alarm(self.kernel.now() + Duration::from_nanos(time))
    }

    pub(super) fn slow_down(&mut self, factor: u32) {
        self.slow.push(factor);
    }

    pub(super) fn speed_up(&mut self, factor: u32) {
        if let Some(place) = self.slow.iter().position(|slow| *slow == factor) {
            self.slow.swap_remove(place);
        }
    }

    pub(super) fn heal(&mut self) {
        self.slow.clear();
    }

    pub(super) fn back_up(&mut self) {
        let copy =
            |(name, medium): (&String, &MemoryMedium)| (name.clone(), medium.crash(Crash::KEEP));
        self.backup = self.directories.iter().map(copy).collect();
    }

    /// Whether a forced write is under way.
    pub(super) fn is_writing(&self) -> bool {
        self.log.as_ref().is_some_and(|work| work.borrow().forcing > 0)
    }

    /// The boot is over; answers how many unfinished writes there were.
    pub(super) fn crash(&mut self, power: bool, found: schedule::Disk) -> usize {
        self.boot += 1;
        for medium in self.directories.values() {
            let calls = medium.calls().mutating + self.rng.below(CALLS_MAX);
            medium.inject(Fault::CrashAt(calls));
        }
        let mut unfinished = 0;
        if let Some(work) = self.log.take() {
            let mut work = work.borrow_mut();
            unfinished = work.requests.len();
            work.completed = None;
            work.force();
        }
        for (_, step) in std::mem::take(&mut self.steps) {
            step();
        }
        match found {
            schedule::Disk::Kept => {
                for medium in self.directories.values_mut() {
                    *medium = match power {
                        false => medium.restart(),
                        true if self.lies.load(Ordering::Relaxed) => medium.crash(Crash::LOSE),
                        true => {
                            let left = *self.rng.pick(&medium.crashes()).unwrap_or(&Crash::LOSE);
                            medium.crash(left)
                        }
                    };
                }
            }
            schedule::Disk::Empty => self.directories.clear(),
            schedule::Disk::Old => {
                let copy = |(name, medium): (&String, &MemoryMedium)| {
                    (name.clone(), medium.crash(Crash::KEEP))
                };
                self.directories = self.backup.iter().map(copy).collect();
            }
        }
        unfinished
    }
}

/// The disk of one boot. When the boot is over, nothing that it is asked for is carried out.
pub(super) struct LiveDisk {
    platter: Rc<RefCell<Platter>>,
    boot: u64,
}

impl LiveDisk {
    pub(super) fn new(platter: Rc<RefCell<Platter>>) -> Self {
        let boot = platter.borrow().boot;
        Self { platter, boot }
    }
}

impl fmt::Debug for LiveDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LiveDisk").field(&self.platter.borrow().node).finish()
    }
}

impl Disk for LiveDisk {
    fn open(&self, inner: Option<&str>) -> Result<Arc<dyn Medium>, FileMediumError> {
        let mut platter = self.platter.borrow_mut();
        if platter.boot != self.boot {
            let source = io::Error::other("the process has crashed");
            return Err(FileMediumError::Io { path: inner.unwrap_or(HOME).into(), source });
        }
        let lies = Arc::clone(&platter.lies);
        let medium = platter.directories.entry(inner.unwrap_or(HOME).to_owned()).or_default();
        Ok(Arc::new(Honest { medium: medium.clone(), lies }))
    }

    fn store(&self, device: Box<dyn LogDevice>) -> Box<dyn Store> {
        let work = Rc::new(RefCell::new(Work {
            device,
            requests: VecDeque::new(),
            forcing: 0,
            completed: None,
            poison: None,
            worker: None,
        }));
        let (platter, boot) = (Rc::clone(&self.platter), self.boot);
        Box::new(LiveStore { platter, boot, work, working: None })
    }

    /// # Panics
    /// Outside a `LocalSet`.
    fn run(&self, step: Box<dyn FnOnce() + Send>) {
        let platter = Rc::clone(&self.platter);
        let mut open = platter.borrow_mut();
        if open.boot != self.boot {
            return;
        }
        open.last_step += 1;
        let number = open.last_step;
        open.steps.insert(number, step);
        let alarm = open.work_time();
        drop(open);
        drop(tokio::task::spawn_local(async move {
            alarm.await;
            let step = platter.borrow_mut().steps.remove(&number);
            if let Some(step) = step {
                step();
            }
        }));
    }
}

/// What a store has to do.
struct Work {
    device: Box<dyn LogDevice>,
    requests: VecDeque<(IoId, Vec<Record>)>,
    /// Of the requests, those that the force under way covers.
    forcing: usize,
    completed: Option<Box<dyn FnMut(Completed) + Send>>,
    poison: Option<LogError>,
    /// Waits for requests.
    worker: Option<Waker>,
}

impl Work {
    /// Writes and forces what is being forced, and says so.
    fn force(&mut self) {
        let batch: Vec<(IoId, Vec<Record>)> = self.requests.drain(..self.forcing).collect();
        self.forcing = 0;
        let (numbers, records): (Vec<IoId>, Vec<Vec<Record>>) = batch.into_iter().unzip();
        if numbers.is_empty() {
            return;
        }
        if self.poison.is_none() {
            let records = records.into_iter().flatten().collect();
            let written = self.device.append(records).and_then(|()| self.device.force());
            let failed = |error: io::Error| LogError { reason: error.to_string().into() };
            self.poison = written.err().map(failed);
        }
        let result = self.poison.clone().map_or(Ok(()), Err);
        if let Some(completed) = &mut self.completed {
            numbers.into_iter().for_each(|io| completed(Completed::new(io, result.clone())));
        }
    }
}

/// A store that forces after a virtual delay; what comes meanwhile shares the next force.
struct LiveStore {
    platter: Rc<RefCell<Platter>>,
    boot: u64,
    work: Rc<RefCell<Work>>,
    working: Option<AbortHandle>,
}

impl Store for LiveStore {
    /// # Panics
    /// If called twice, or outside a `LocalSet`.
    fn start(&mut self, completed: Box<dyn FnMut(Completed) + Send>) {
        assert!(self.working.is_none(), "a store is started once");
        self.work.borrow_mut().completed = Some(completed);
        if self.platter.borrow().boot == self.boot {
            self.platter.borrow_mut().log = Some(Rc::clone(&self.work));
        }
        let (work, platter) = (Rc::clone(&self.work), Rc::clone(&self.platter));
        let working = tokio::task::spawn_local(async move {
            loop {
                requested(&work).await;
                let (kernel, node) = {
                    let platter = platter.borrow();
                    (Rc::clone(&platter.kernel), platter.node)
                };
                if kernel.reach(node, Action::Write) {
                    work.borrow_mut().forcing = 0;
                    return;
                }
                let alarm = platter.borrow_mut().work_time();
                alarm.await;
                let platter = platter.borrow();
                platter.kernel.note(Kind::Forced as u8, platter.node, work.borrow().forcing as u64);
                drop(platter);
                work.borrow_mut().force();
            }
        });
        self.working = Some(working.abort_handle());
    }

    fn persist(&mut self, io: IoId, records: Vec<Record>) -> Result<(), StoreError> {
        if self.working.is_none() {
            return Err(StoreError::NotRunning);
        }
        let mut work = self.work.borrow_mut();
        if let Some(error) = &work.poison {
            return Err(StoreError::Poisoned(error.clone()));
        }
        if work.requests.len() >= LogOptions::default().outstanding_max {
            return Err(StoreError::Full(records));
        }
        work.requests.push_back((io, records));
        let worker = work.worker.take();
        drop(work);
        if let Some(worker) = worker {
            worker.wake();
        }
        Ok(())
    }

    fn closing(self: Box<Self>) -> Box<dyn FnOnce() + Send> {
        // Forced writes take no time here when the process goes on without them.
        drop(self);
        Box::new(|| ())
    }
}

/// Until there are requests; then those are being forced.
async fn requested(work: &RefCell<Work>) {
    poll_fn(|context| {
        let mut work = work.borrow_mut();
        if work.requests.is_empty() {
            work.worker = Some(context.waker().clone());
            return Poll::Pending;
        }
        work.forcing = work.requests.len();
        Poll::Ready(())
    })
    .await;
}

impl Drop for LiveStore {
    fn drop(&mut self) {
        if let Some(working) = self.working.take() {
            working.abort();
        }
        let mut platter = self.platter.borrow_mut();
        if platter.boot == self.boot {
            platter.log = None;
            drop(platter);
            let mut work = self.work.borrow_mut();
            work.forcing = work.requests.len();
            work.force();
        }
    }
}

/// A medium that syncs when it says so, until it is told to lie: then no guarantee survives, and a test that does not
/// notice it proves nothing.
#[derive(Debug)]
struct Honest {
    medium: MemoryMedium,
    lies: Arc<AtomicBool>,
}

impl Medium for Honest {
    fn create(&self, name: &str) -> io::Result<()> {
        self.medium.create(name)
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        self.medium.len(name)
    }

    fn read_at(&self, name: &str, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        self.medium.read_at(name, offset, size)
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.medium.write_at(name, offset, bytes)
    }

    fn truncate(&self, name: &str, size: u64) -> io::Result<()> {
        self.medium.truncate(name, size)
    }

    fn sync_data(&self, name: &str) -> io::Result<()> {
        if self.lies.load(Ordering::Relaxed) { Ok(()) } else { self.medium.sync_data(name) }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.medium.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.medium.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.medium.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        if self.lies.load(Ordering::Relaxed) { Ok(()) } else { self.medium.sync_dir() }
    }
}
