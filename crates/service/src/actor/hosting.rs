//! What services put out, carried out for the node that hosts them: its log, checkpoints, jobs, readers.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::rack::beside::{Aside, Ending};
use mainstay_base::rack::{Effect, Given};
use mainstay_base::service::{Address, Chunks, ReaderChange, ReaderId};
use mainstay_runtime::host::completions;
use mainstay_runtime::{
    Arrived, Bell, Completed, Datagrams, Hosted, IoId, LocalFuture, Port, Room, Stop, StoreError,
    TimeSource, blocking, caught, halt,
};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::beside::{Claim, Line};
use super::datagrams;
use super::disk::{Reading, ServiceDisk, ServiceRead, ServiceStorage};
use super::late::{Latecomers, OpenStorage};
use super::mounting::{Mount, Next, Origin, Planned, ServicesError};
use super::reach::Reach;
use crate::Services;
use crate::services::{Again, Change, Output};

/// What a node's host has to say to the services of a boot. What is of a former boot is not for the next one.
pub enum Answer {
    /// Something for one service.
    Given(Address, Given),
    /// The write with this number, and all before it, are stable.
    Written {
        /// As in [`Output::Write`].
        io: u64,
    },
    /// A change of what is mounted.
    Change(Change),
    /// What cannot go on: the node is to halt. Nothing that is not stable was told to be.
    Failed(String),
}

/// What is to come of a service that is started again.
pub(super) struct Restart {
    pub(super) next: Next,
    pub(super) asker: Asker,
}

/// Who wants a service to be started again. Dropped: it is not.
pub(super) struct Asker {
    /// Given back before it is told: it may try again at once.
    pub(super) claim: Claim,
    pub(super) tell: oneshot::Sender<Result<(), ServicesError>>,
}

impl Asker {
    fn tell(self, begun: Result<(), ServicesError>) {
        match &begun {
            Ok(()) => self.claim.used(),
            Err(_) => drop(self.claim),
        }
        // Nobody waits any more: it runs all the same.
        drop(self.tell.send(begun));
    }
}

/// What of a boot has to end before the next one reads what it wrote.
pub struct Ended {
    close: Option<Box<dyn FnOnce() + Send>>,
    writing: BTreeMap<Address, JoinSet<()>>,
    reading: JoinSet<()>,
}

impl Ended {
    /// When no checkpoint of it is written any more: what is to be run, beside the turns, to close its log.
    pub async fn close(mut self) -> Option<Box<dyn FnOnce() + Send>> {
        while self.reading.join_next().await.is_some() {}
        for mut writing in self.writing.into_values() {
            while writing.join_next().await.is_some() {}
        }
        self.close
    }
}

/// The hosting half of the services of a node. Its owner is the performer of the machine that has them.
pub struct Hosting<M: Hosted> {
    pub(super) input: fn(u64, Answer) -> M::Input,
    /// The boots of the process are counted.
    pub(super) life: u64,
    pub(super) storage: Option<ServiceStorage>,
    /// Opens it when it is needed.
    pub(super) open: Option<OpenStorage>,
    /// Of the present boot.
    pub(super) origin: Origin,
    pub(super) late: Latecomers,
    /// `None`: they go over the connections.
    datagrams: Option<Box<dyn Datagrams>>,
    /// The present boot, for what comes from outside.
    present: Rc<Cell<Option<u64>>>,
    /// `None`: what services write is stable at once, and gone with the boot.
    pub(super) disk: Option<ServiceDisk>,
    room: Option<Room>,
    /// Of this turn, or held back because the log has enough to do; the last is of write `io`.
    records: Vec<Bytes>,
    io: u64,
    /// Checkpoints being written, and the word that they shall end.
    pub(super) writing: BTreeMap<Address, JoinSet<()>>,
    stop: Stop,
    jobs: JoinSet<()>,
    reach: Reach,
    bell: Bell<(Address, ReaderId)>,
    beside: Bell<Address>,
    /// Of services beside the node.
    lines: BTreeMap<Address, Arc<Line>>,
    time: Rc<dyn TimeSource>,
}

impl<M: Hosted> Hosting<M> {
    /// `input` makes an answer for the boot with this number, from 0, an input of the machine. `reach` leads to the services;
    /// `time` is the node's clock. `planned` is what the first boot [mounts](Self::reading).
    #[must_use]
    pub fn new(
        input: fn(u64, Answer) -> M::Input,
        planned: &Planned,
        storage: Option<ServiceStorage>,
        datagrams: Option<Box<dyn Datagrams>>,
        reach: &Reach,
        time: Rc<dyn TimeSource>,
    ) -> Self {
        let (reach, bell, beside) = (reach.clone(), reach.bell(), reach.beside());
        Self {
            input,
            life: 0,
            storage,
            open: None,
            origin: planned.origin().clone(),
            late: Latecomers::default(),
            datagrams,
            present: Rc::default(),
            disk: None,
            room: None,
            records: Vec::new(),
            io: 0,
            writing: BTreeMap::new(),
            stop: Stop::default(),
            jobs: JoinSet::new(),
            reach,
            bell,
            beside,
            lines: BTreeMap::new(),
            time,
        }
    }

    /// Opens the place where services keep what they write when the first one is mounted: for a node that begins without any.
    pub fn open_late(&mut self, open: OpenStorage) {
        self.open = Some(open);
    }

    /// What is to be run, beside the turns, before a boot [begins](Self::begin): it reads what the disk has for it, if there is one.
    ///
    /// # Errors
    /// [`ServicesError`].
    pub fn reading(
        &mut self,
        mut planned: Planned,
    ) -> Result<impl FnOnce() -> Result<Begun, ServicesError> + Send + use<M>, ServicesError> {
        self.late.plan(&mut planned);
        self.origin = planned.origin().clone();
        let reading: Reading<Option<ServiceRead>> = match &mut self.storage {
            Some(storage) => {
                let reading = storage.reading(planned, false)?;
                Box::new(move || reading().map(|(read, mounts)| (Some(read), mounts)))
            }
            None => Box::new(move || Ok((None, planned.fold(&[], &BTreeMap::new())))),
        };
        Ok(move || reading().map(|(read, mounts)| Begun { read, mounts }))
    }

    /// A boot begins, on what was read for it; what is to be mounted in it.
    pub fn begin(&mut self, begun: Begun) -> Vec<Mount> {
        let Begun { read, mounts } = begun;
        let storage = self.storage.as_ref();
        self.disk = read.and_then(|read| storage.map(|storage| storage.begin(read)));
        if self.datagrams.is_none() {
            return mounts;
        }
        let outside: Mount = Box::new(|services: &mut Services, _| {
            services.send_datagrams_outside();
            Ok(())
        });
        std::iter::once(outside).chain(mounts).collect()
    }

    /// The host runs, or runs for the boot that has begun: its log may be written.
    pub fn start(&mut self, port: &Port<'_, M>) {
        self.start_log(port);
        let (life, input) = (self.life, self.input);
        let is_first = self.present.replace(Some(life)).is_none();
        if let Some(datagrams) = self.datagrams.as_mut().filter(|_| is_first) {
            let (handle, present) = (port.handle(), Rc::clone(&self.present));
            datagrams.start(Box::new(move |arrived| {
                let Arrived { at, from, body } = arrived;
                let Some((of, meta, payload)) = datagrams::decode(body) else { return };
                let given = Given::Datagram { at, from, meta, payload };
                if let Some((handle, life)) = handle.upgrade().zip(present.get()) {
                    // One that finds no room is lost, as datagrams may be.
                    drop(handle.try_send(input(life, Answer::Given(of, given))));
                }
            }));
        }
    }

    pub(super) fn start_log(&mut self, port: &Port<'_, M>) {
        let (life, input) = (self.life, self.input);
        if let Some(disk) = &mut self.disk {
            let answer = |done: &Completed| match &done.result {
                Ok(()) => Answer::Written { io: done.io.0 },
                Err(error) => Answer::Failed(error.to_string()),
            };
            disk.log().start(completions(port.handle(), move |done| input(life, answer(done))));
            let short = move |short| {
                let tell = move |services: &mut Services, now| services.on_disk_short(now, short);
                input(life, Answer::Change(Box::new(tell)))
            };
            let (on, reserve, time) = (disk.disk(), disk.reserve(), Rc::clone(&self.time));
            self.room = Some(Room::watch(on, reserve, time, port.handle(), short));
        }
    }

    /// What was refused of datagrams outside the connections, by reason.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.datagrams.as_ref().map(|it| it.refused()).unwrap_or_default()
    }

    /// Carries out what the services want.
    pub fn perform(&mut self, output: Output, port: &mut Port<'_, M>) {
        match output {
            Output::Effect(effect) => self.effect(effect, port),
            Output::Again(again) => self.again(again, port),
            Output::Late(late) => self.end_late(late, port),
            Output::Dismounted { of } => self.late.forget(of),
            Output::Stopped { of, breach } => {
                tracing::error!(?of, %breach, "a service was stopped: its records pin the log");
            }
            Output::Written { io } => {
                if let Some(disk) = &mut self.disk {
                    disk.written(io);
                }
            }
            Output::Write { io, entries, keeps } => {
                self.io = io;
                let Some(disk) = &mut self.disk else {
                    return self.feed(Answer::Written { io }, port);
                };
                let (records, compact) = disk.note(io, &entries, &keeps);
                self.records.extend(records);
                for (of, upto) in compact {
                    self.feed(Answer::Given(of, Given::Compact { upto }), port);
                }
            }
        }
    }

    fn feed(&self, answer: Answer, port: &mut Port<'_, M>) {
        port.feed((self.input)(self.life, answer));
    }

    fn effect(&mut self, effect: Effect, port: &mut Port<'_, M>) {
        match effect {
            Effect::Work { from, work } => {
                self.work(from, port, work, Given::Done);
            }
            Effect::NextChunk { from } => {
                let chunk = self.disk.as_mut().and_then(|disk| disk.next_chunk(from));
                self.feed(Answer::Given(from, Given::Chunk(chunk)), port);
            }
            Effect::Checkpoint { from, position, alone, source } => {
                self.checkpoint(from, position, alone, source, port);
            }
            Effect::Aside { from, word } => self.aside(from, word),
            Effect::Datagram { from, to, meta, payload } => {
                if let Some(datagrams) = &mut self.datagrams {
                    datagrams.send(to, &datagrams::encode(from, &meta, &payload));
                }
            }
            Effect::Send { .. } | Effect::Persist { .. } => {
                unreachable!("the services themselves carry those out")
            }
        }
    }

    /// What the proxy of a service beside the node wants.
    fn aside(&mut self, of: Address, word: Aside) {
        match word {
            Aside::Open(opening) => {
                let line = Line::open(of, opening, self.beside.clone(), &self.time);
                self.reach.enter(Arc::clone(&line));
                self.lines.insert(of, line);
            }
            Aside::Batch(batch) => {
                if let Some(line) = self.lines.get(&of) {
                    line.bring(batch);
                }
            }
            Aside::Gone(ending) => {
                let Some(line) = self.lines.remove(&of) else { return };
                match ending {
                    // Whoever asks is told that it has fallen, until it is started again.
                    Ending::Fallen => line.give_up(None),
                    Ending::Stopped(breach) => line.give_up(Some(breach)),
                    Ending::Closed => {
                        self.reach.leave(of);
                        line.end();
                    }
                }
            }
            Aside::Taken { .. } | Aside::Knows(_) => {
                unreachable!("the services themselves carry those out")
            }
        }
    }

    /// Reads what the log has of a service that has fallen, beside the turns, and mounts it again.
    fn again(&mut self, Again { of, plan }: Again, port: &Port<'_, M>) {
        let restart = match plan.downcast::<Restart>() {
            Ok(restart) => restart,
            Err(plan) => return self.begin_late(Again { of, plan }, port),
        };
        let Restart { next, asker } = *restart;
        let read = match (&self.storage, &self.disk) {
            (Some(storage), Some(disk)) => {
                Ok((storage.reading_again(of, next), disk.disk(), disk.chunks()))
            }
            _ => Err(next),
        };
        let mut writing = self.writing.remove(&of).unwrap_or_default();
        let (handle, life, input) = (port.handle(), self.life, self.input);
        while self.jobs.try_join_next().is_some() {}
        self.jobs.spawn_local(async move {
            let is_kept = read.is_ok();
            let mount = match read {
                Err(next) => next.fold(&[], &BTreeMap::new()),
                Ok((reading, disk, chunks)) => {
                    // Its last run wrote a checkpoint perhaps.
                    while writing.join_next().await.is_some() {}
                    // The node ends.
                    let Ok(read) = blocking(&*disk, reading).await else { return };
                    read.map(|(read, mount)| {
                        chunks.borrow_mut().insert(of, read);
                        mount
                    })
                }
            };
            let mount = match mount {
                Ok(mount) => mount,
                Err(error) => return asker.tell(Err(error)),
            };
            let change = Box::new(move |services: &mut Services, now| {
                if !is_kept {
                    services.begin_anew(of);
                }
                let mounted = mount(services, now);
                asker.tell(mounted.map_err(ServicesError::Mount));
            });
            if let Some(handle) = handle.upgrade() {
                // A host that has closed needs nothing any more.
                let _ = handle.send(input(life, Answer::Change(change))).await;
            }
        });
    }

    /// Does something of a service on another thread, and hands in what comes of it. A panic there is one of the service: a crash of the
    /// node, or of that service if it is beside the node.
    fn work<T: Send + 'static>(
        &mut self,
        of: Address,
        port: &Port<'_, M>,
        work: impl FnOnce() -> T + Send + 'static,
        answer: impl FnOnce(T) -> Given + 'static,
    ) {
        let (handle, line) = (port.handle(), self.lines.get(&of).cloned());
        let (life, input, run) = (self.life, self.input, self.late.mark(of));
        let disk = self.disk.as_ref().map(ServiceDisk::disk);
        while self.jobs.try_join_next().is_some() {}
        self.jobs.spawn_local(async move {
            let work = move || caught(work);
            // A disk knows how what blocks is run there; a simulated one too.
            let done = match disk {
                Some(disk) => blocking(&*disk, work).await.map_err(|error| error.to_string()),
                None => tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string()),
            };
            // It is not for the next run of the service.
            if line.as_ref().is_some_and(|line| !line.is_on()) || !run.is_present() {
                return;
            }
            let answer = match (done.flatten(), line) {
                (Ok(done), _) => Answer::Given(of, answer(done)),
                (Err(error), Some(line)) => return line.fell(&error),
                (Err(error), None) => {
                    Answer::Failed(format!("what a service does beside its turns ended: {error}"))
                }
            };
            if let Some(handle) = handle.upgrade() {
                // A host that has closed needs nothing any more.
                let _ = handle.send(input(life, answer)).await;
            }
        });
    }

    fn checkpoint(
        &mut self,
        of: Address,
        position: u64,
        alone: bool,
        source: Box<dyn Chunks>,
        port: &mut Port<'_, M>,
    ) {
        let done = move |written| Given::Checkpointed { position, written };
        let Some(disk) = &self.disk else {
            // It is made all the same: a state that cannot be written out shows without a disk as well.
            let make = move || read(source);
            return self.work(of, port, make, move |made| done(made.is_ok()));
        };
        let source = self.stop.over(source);
        let Some(writing) = disk.checkpoint(of, position, alone, source) else {
            return self.feed(Answer::Given(of, done(false)), port);
        };
        let (handle, line) = (port.handle(), self.lines.get(&of).cloned());
        let (life, input) = (self.life, self.input);
        let all = self.writing.entry(of).or_default();
        while all.try_join_next().is_some() {}
        all.spawn_local(async move {
            let written = writing.await;
            if let Err(error) = &written {
                tracing::warn!(?of, position, %error, "no checkpoint");
            }
            // It is not for the next run of the service.
            let is_wanted = line.is_none_or(|line| line.is_on());
            if let Some(handle) = handle.upgrade().filter(|_| is_wanted) {
                // A host that has closed needs no checkpoint.
                let _ = handle.send(input(life, Answer::Given(of, done(written.is_ok())))).await;
            }
        });
    }

    /// A turn has ended: its records go to the log, and readers that have room again are told of. So many bytes are to be
    /// written.
    pub fn turn_ended(&mut self, port: &mut Port<'_, M>) -> usize {
        let (readers, beside) = (self.bell.take(), self.beside.take());
        if !readers.is_empty() || !beside.is_empty() {
            self.feed_rung(readers, beside, port);
        }
        self.write()
    }

    /// Readers have room, or services beside the node have reported.
    #[inline(never)]
    fn feed_rung(
        &self,
        readers: Vec<(Address, ReaderId)>,
        beside: Vec<Address>,
        port: &mut Port<'_, M>,
    ) {
        for (of, reader) in readers {
            let change = ReaderChange::Room;
            self.feed(Answer::Given(of, Given::Reader { reader, change }), port);
        }
        for of in beside {
            let reports = self.lines.get(&of).map(|line| line.take_reports());
            for report in reports.into_iter().flatten() {
                self.feed(Answer::Given(of, Given::Report(Box::new(report))), port);
            }
        }
    }

    /// Hands the records of the turn to the log.
    fn write(&mut self) -> usize {
        let Some(disk) = self.disk.as_mut().filter(|_| !self.records.is_empty()) else { return 0 };
        let bytes = self.records.iter().map(Bytes::len).sum();
        match disk.log().persist(IoId(self.io), std::mem::take(&mut self.records)) {
            Ok(()) => {
                self.room.iter_mut().for_each(|room| room.take(bytes));
                bytes
            }
            // The next completion begins a turn, and at its end there is a place.
            Err(StoreError::Full(records)) => {
                self.records = records;
                0
            }
            Err(error) => halt(format!("the log of the services takes nothing any more: {error}")),
        }
    }

    /// Nobody beside the node is needed any more.
    fn end_lines(&mut self) {
        for (of, line) in std::mem::take(&mut self.lines) {
            self.reach.leave(of);
            line.end();
        }
    }

    /// The boot is over. Nothing that comes of what it began is for the next one.
    pub fn end(&mut self) -> Ended {
        self.life += 1;
        self.end_lines();
        (self.records, self.io, self.room) = (Vec::new(), 0, None);
        self.stop.stop();
        self.stop = Stop::default();
        let close = self.disk.take().map(ServiceDisk::closing);
        let (reading, writing) = (self.late.end(), std::mem::take(&mut self.writing));
        Ended { close, writing, reading }
    }

    /// The node ends. Completes when what was handed to the log is written, and nobody writes there any more.
    pub fn closing(&mut self) -> LocalFuture<()> {
        let on = self.disk.as_ref().map(ServiceDisk::disk);
        let (ended, storage) = (self.end(), self.storage.take());
        let mut jobs = std::mem::take(&mut self.jobs);
        Box::pin(async move {
            while jobs.join_next().await.is_some() {}
            if let (Some(on), Some(close)) = (on, ended.close().await) {
                // The node ends: then it is closed where it is dropped.
                let _ = blocking(&*on, close).await;
            }
            // The directories are free for the next one only now.
            drop(storage);
        })
    }
}

/// A node that has crashed, or is dropped, leaves nobody behind.
impl<M: Hosted> Drop for Hosting<M> {
    fn drop(&mut self) {
        self.end_lines();
    }
}

/// What was read for a boot, and what is to be mounted in it.
pub struct Begun {
    /// `None`: there is no disk.
    read: Option<ServiceRead>,
    mounts: Vec<Mount>,
}

/// Reads a state to its end.
fn read(mut source: Box<dyn Chunks>) -> Result<(), String> {
    while source.next_chunk()?.is_some() {}
    Ok(())
}
