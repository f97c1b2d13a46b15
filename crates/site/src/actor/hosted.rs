//! The site in its host: what its outputs become, and where its inputs come from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::service::{Chunks, Service};
use mainstay_base::{BootId, BootNonce, GroupId, Instant, NodeId};
use mainstay_link::actor as link;
use mainstay_runtime::host::completions;
use mainstay_runtime::{
    CheckpointError, Closed, Completed, Entropy, EntropyError, Events, HostHandle, HostSink, IoId,
    LocalFuture, Perform, Port, Recipient, Room, Stop, Store, StoreError, Subscriber, TimeSource,
    Transport, WeakHandle, blocking, halt, host, with_causes,
};
use mainstay_service::actor::{Begun, Hosting};
use mainstay_service::{MountLateError, Mounting, Placement, Reach, ServiceHandle, ServicesError};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::application::{Application, CheckpointDone};
use super::log::{self, Ledger};
use super::machine::{Boot, Input, Output, Site};
use super::parts::{Founding, Plan, SiteParts, StartError};
use super::services::{Mounts, answered};
use super::status::{Status, add};
use super::storage::{Read, Recovered, Storage};
use super::trace::TraceSink;
use super::views::ViewChanged;
use crate::core::{Past, Record};
use crate::stack;

/// Starts a site on the caller's `LocalSet`, from what its directory holds. It stops when the last handle is dropped.
///
/// Each application stands on the group that it comes with; what a group without one tells is dropped. Reads the whole log
/// before it returns. A failed write to the log, a panic of a machine and a panic of an
/// application halt the site: [`SiteHandle::closed`] says why, and nothing that was not forced has been acknowledged. A site
/// that is declared dead by the others recovers from its log in this process, under a new nonce.
///
/// # Errors
/// [`StartError`].
///
/// # Panics
/// Outside a `LocalSet` of a tokio runtime.
pub fn start(
    parts: SiteParts,
    applications: impl IntoIterator<Item = (GroupId, Box<dyn Application>)>,
) -> Result<SiteHandle, StartError> {
    let mut plan = Plan::of(&parts)?;
    let SiteParts { cluster, name, roster, groups, disk, disk_reserve, founding, .. } = parts;
    let SiteParts { transport, time, mut entropy, options, trace, bell, services, reach, .. } =
        parts;
    let (datagrams, forgotten) = (parts.datagrams, parts.forgotten);
    let draw = Drawn::of(&mut *entropy)?;
    let mut mounts = Mounts {
        cluster,
        roster: plan.nodes().into_iter().collect(),
        local: time.reader(),
        mount: services,
    };
    let me = BootId { node: plan.me(), nonce: draw.nonce };
    let planned = mounts.plan(me, draw.seed).map_err(ServicesError::Mount)?;
    let groups = Plan::disk_groups(&groups).map(|group| group.group());
    let named = (cluster, &*name);
    let (bootstrap, fresh) = (founding == Founding::WithoutWaiting, entropy.draw()?);
    let founds = (bootstrap, fresh);
    let open =
        |disk| Storage::open(disk, disk_reserve, named, founds, plan.nodes(), (groups, forgotten));
    let mut storage = disk.map(open).transpose()?;
    plan.disk = storage.as_ref().map_or(fresh, Storage::name);
    let read = storage.as_ref().map(|storage| storage.reading()()).transpose()?;
    let recovered = match (&mut storage, read) {
        (Some(storage), Some(read)) => Some(storage.recover(read)?),
        _ => None,
    };
    let kept = storage.as_ref().filter(|_| mounts.mount.is_some());
    let kept = kept.map(|storage| storage.services(me.node)).transpose();
    let kept = kept.map_err(ServicesError::Disk)?;
    let mut hosting = Hosting::new(answered, &planned, kept, datagrams, &reach, Rc::clone(&time));
    if let Some(open) = storage.as_ref().map(|storage| storage.open_services(me.node)) {
        hosting.open_late(open);
    }
    let begun = hosting.reading(planned)?()?;
    let (mut boot, log) = boot(recovered, draw, Past::new(), bootstrap);
    boot.mounts = hosting.begin(begun);
    let node = |(name, address)| (NodeId::new(cluster, name), address);
    let addresses = roster.iter().map(|(name, address)| node((&**name, *address))).collect();
    let wiring = Wiring {
        transport,
        addresses,
        entropy,
        storage,
        log,
        life: 0,
        records: Vec::new(),
        io: 0,
        room: None,
        time: Rc::clone(&time),
        writing: JoinSet::new(),
        stop: Stop::default(),
        membership: None,
        trace,
        me: me.node,
        mounts,
        hosting,
        draw: None,
    };
    let site = Site::new(plan, applications, bell.clone(), boot, time.now());
    let site = site.map_err(ServicesError::Mount)?;
    let (views, ready) = (site.views().watch(), site.ready());
    let host = host::start(site, wiring, time, options);
    bell.hang(host.downgrade());
    reach.lead(host.downgrade(), Input::Request);
    Ok(SiteHandle { host, views, ready, reach })
}

/// The log, with what of it is needed.
type OpenLog = (Box<dyn Store>, Ledger);

/// What is drawn for a boot.
struct Drawn {
    nonce: BootNonce,
    seed: u64,
}

impl Drawn {
    fn of(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        let nonce = BootNonce(entropy.draw()?);
        Ok(Self { nonce, seed: entropy.draw()? as u64 })
    }
}

/// A boot from what was on disk, without its services; without a disk, `past` is all there is.
fn boot(
    recovered: Option<Recovered>,
    draw: Drawn,
    past: Past,
    bootstrap: bool,
) -> (Boot, Option<OpenLog>) {
    let Drawn { nonce, seed } = draw;
    let mounts = Vec::new();
    match recovered {
        None => {
            let checkpoints = BTreeMap::new();
            (Boot { past, bootstrap, nonce, seed, checkpoints, mounts }, None)
        }
        Some(Recovered { past, checkpoints, log, ledger }) => {
            // Whether it takes part in making the cluster is in the log.
            let boot = Boot { past, bootstrap: false, nonce, seed, checkpoints, mounts };
            (boot, Some((log, ledger)))
        }
    }
}

struct Wiring {
    transport: Box<dyn Transport>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    entropy: Box<dyn Entropy>,
    storage: Option<Storage>,
    log: Option<OpenLog>,
    life: u64,
    /// Of this turn, or held back because the log has enough to do; the last has number `io`.
    records: Vec<Bytes>,
    io: u64,
    /// `None` without a disk.
    room: Option<Room>,
    time: Rc<dyn TimeSource>,
    /// Checkpoints being written, or a log being read, and the word that they shall end.
    writing: JoinSet<()>,
    stop: Stop,
    /// Without a disk: what the membership would find there after a death in this process.
    membership: Option<Box<Record>>,
    trace: Option<Arc<dyn TraceSink>>,
    me: NodeId,
    mounts: Mounts,
    hosting: Hosting<Site>,
    /// Of the boot that is to begin when the log is read.
    draw: Option<Drawn>,
}

impl Wiring {
    fn start_logs(&mut self, port: &Port<'_, Site>) {
        self.hosting.start(port);
        let life = self.life;
        if let Some((log, _)) = &mut self.log {
            log.start(completions(port.handle(), move |done: &Completed| match &done.result {
                Ok(()) => Input::Persisted { life, io: done.io.0 },
                Err(error) => Input::LogFailed { life, reason: error.to_string() },
            }));
        }
    }

    fn persist(&mut self, io: u64, record: Box<Record>, port: &mut Port<'_, Site>) {
        self.io = io;
        if let Some((_, ledger)) = &mut self.log {
            let bytes = log::encode(&record);
            ledger.note(&record, &bytes);
            self.records.push(bytes);
            return;
        }
        if matches!(*record, Record::Membership(_)) {
            self.membership = Some(record);
        }
        port.feed(Input::Persisted { life: self.life, io });
    }

    /// Hands the records of the turn to the log as one write.
    fn write(&mut self, port: &mut Port<'_, Site>) {
        if self.records.is_empty() {
            return;
        }
        let Some((log, ledger)) = &mut self.log else { return };
        self.records.extend(ledger.cut().into_iter().flatten());
        for group in ledger.pinning() {
            port.feed(Input::Compact { life: self.life, group });
        }
        let bytes = self.records.iter().map(Bytes::len).sum();
        match log.persist(IoId(self.io), std::mem::take(&mut self.records)) {
            Ok(()) => {
                if let Some(room) = &mut self.room {
                    room.take(bytes);
                }
            }
            // The next completion begins a turn, and at its end there is a place.
            Err(StoreError::Full(records)) => self.records = records,
            Err(error) => {
                port.feed(Input::LogFailed { life: self.life, reason: error.to_string() });
            }
        }
    }

    /// The boot is dead. The next one begins when all of the log is read and folded, beside the turns: a site that knows
    /// a part of its past only must not say what it has.
    ///
    /// The host halts if there is no way back.
    fn recover(&mut self, port: &mut Port<'_, Site>) {
        self.life += 1;
        (self.records, self.io) = (Vec::new(), 0);
        let ended = self.hosting.end();
        let (draw, begin) = self.next_boot().unwrap_or_else(|error| halt(no_way_back(&error)));
        let closing = self.log.take().map(|(log, _)| log.closing());
        let Some(storage) = &self.storage else {
            let mut past = Past::new();
            past.extend(self.membership.as_deref().cloned());
            let begun = begin().unwrap_or_else(|error| halt(no_way_back(&error)));
            return self.resume(boot(None, draw, past, false), begun, port);
        };
        self.draw = Some(draw);
        // What the dead boot still writes ends first: its checkpoints are not those of the next one.
        self.stop.stop();
        self.stop = Stop::default();
        let mut writing = std::mem::take(&mut self.writing);
        let (reading, disk) = (storage.reading(), storage.disk());
        let (life, handle) = (self.life, port.handle());
        self.writing.spawn_local(async move {
            while writing.join_next().await.is_some() {}
            let closing = closing.into_iter().chain(ended.close().await);
            // What the logs were given is written before they are read.
            let read = blocking(&*disk, move || {
                closing.for_each(|close| close());
                let read = reading().map_err(|error| no_way_back(&error))?;
                Ok((read, begin().map_err(|error| no_way_back(&error))?))
            });
            let read = read.await;
            let Some(handle) = handle.upgrade() else { return };
            let input = match read.unwrap_or_else(|error| Err(no_way_back(&error))) {
                Ok((read, begun)) => {
                    Input::LogRead { life, read: Box::new(read), begun: Box::new(begun) }
                }
                Err(reason) => Input::LogFailed { life, reason },
            };
            // A host that has closed needs no log.
            let _ = handle.send(input).await;
        });
    }

    /// What the next boot draws, and what reads for its services.
    fn next_boot(
        &mut self,
    ) -> Result<(Drawn, impl FnOnce() -> Result<Begun, ServicesError> + Send + use<>), StartError>
    {
        let draw = Drawn::of(&mut *self.entropy)?;
        let me = BootId { node: self.me, nonce: draw.nonce };
        let planned = self.mounts.plan(me, draw.seed).map_err(ServicesError::Mount)?;
        Ok((draw, self.hosting.reading(planned)?))
    }

    /// Begins the next boot.
    fn resume(
        &mut self,
        (mut boot, log): (Boot, Option<OpenLog>),
        begun: Begun,
        port: &mut Port<'_, Site>,
    ) {
        self.log = log;
        boot.mounts = self.hosting.begin(begun);
        self.start_logs(port);
        port.feed(Input::Recovered(Box::new(boot)));
    }

    fn on_read(&mut self, read: Read, begun: Begun, port: &mut Port<'_, Site>) {
        let (Some(storage), Some(draw)) = (&mut self.storage, self.draw.take()) else { return };
        match storage.recover(read) {
            Ok(recovered) => {
                self.resume(boot(Some(recovered), draw, Past::new(), false), begun, port);
            }
            Err(error) => halt(no_way_back(&error)),
        }
    }

    fn checkpoint(
        &mut self,
        group: GroupId,
        done: CheckpointDone,
        alone: bool,
        source: Box<dyn Chunks>,
        port: &Port<'_, Site>,
    ) {
        let position = done.position;
        let Some(storage) = &self.storage else { return };
        let source = self.stop.over(source);
        let Some(writing) = storage.checkpoint(group, position, alone, source) else { return };
        while self.writing.try_join_next().is_some() {}
        let (life, handle) = (self.life, port.handle());
        self.writing.spawn_local(async move {
            let written = writing.await;
            let Some(handle) = handle.upgrade() else { return };
            let input = match written {
                Ok(()) => {
                    let done = CheckpointDone { written: true, ..done };
                    Input::Checkpoint { life, group, done, alone }
                }
                // Nothing is lost yet: the member learns on, and tries again when there is room.
                Err(CheckpointError::NoRoom) => Input::Checkpoint { life, group, done, alone },
                Err(error) if alone => {
                    let reason =
                        format!("no checkpoint of a transferred state: {}", with_causes(&error));
                    Input::LogFailed { life, reason }
                }
                Err(error) => {
                    let error = with_causes(&error);
                    tracing::warn!(?group, ?position, error, "no checkpoint");
                    Input::Checkpoint { life, group, done, alone }
                }
            };
            // A host that has closed needs no checkpoint.
            let _ = handle.send(input).await;
        });
    }

    /// What is not asked for in every turn: apart, for it takes much room on the thread's stack.
    #[inline(never)]
    fn perform_seldom(&mut self, output: Output, port: &mut Port<'_, Site>) {
        match output {
            Output::Link(stack::Output::Dial { node }) => {
                let failed = link::dial(&mut *self.transport, &self.addresses, node);
                failed.into_iter().for_each(|input| port.feed(Input::Link(input)));
            }
            Output::Link(stack::Output::Close { conn }) => self.transport.close(conn),
            Output::Status(asked, mut status) => {
                add(&mut status.refused, self.transport.refused());
                add(&mut status.refused, self.hosting.refused());
                // Nobody waits any more: then nobody is answered.
                let _ = asked.send(status);
            }
            Output::Checkpoint { group, position, alone, source } => {
                let done = CheckpointDone { position, written: false };
                self.checkpoint(group, done, alone, source, port);
            }
            Output::Checkpointed { group, position, alone } => {
                if let Some((_, ledger)) = &mut self.log {
                    ledger.checkpoint(group, position, alone);
                }
            }
            Output::Killed => self.recover(port),
            Output::Resume(read, begun) => self.on_read(*read, *begun, port),
            Output::Services(output) => self.hosting.perform(output, port),
            Output::Trace(events) => {
                if let Some(trace) = &self.trace {
                    trace.record(events);
                }
            }
            // The site keeps the former to itself, and the others are carried out at once.
            Output::Link(stack::Output::Core(_) | stack::Output::Transmit { .. })
            | Output::Persist { .. }
            | Output::Again => {}
        }
    }
}

fn no_way_back(error: &dyn std::error::Error) -> String {
    format!("declared dead, and cannot recover: {}", with_causes(error))
}

impl Perform<Site> for Wiring {
    fn started(&mut self, port: &mut Port<'_, Site>) {
        let convert = |event| link::inputs(event).into_iter().map(Input::Link).collect();
        self.transport.start(Rc::new(HostSink::new(port.handle(), convert)));
        self.start_logs(port);
        if let Some(storage) = &self.storage {
            let (disk, time) = (storage.disk(), Rc::clone(&self.time));
            self.room =
                Some(Room::watch(disk, storage.reserve(), time, port.handle(), Input::DiskShort));
        }
    }

    fn perform(&mut self, output: Output, port: &mut Port<'_, Site>) {
        match output {
            Output::Link(stack::Output::Transmit { conn, frame }) => {
                self.transport.send(conn, frame)
            }
            Output::Persist { io, record } => self.persist(io, record, port),
            Output::Again => port.feed(Input::Again),
            other => self.perform_seldom(other, port),
        }
    }

    fn turn_ended(&mut self, port: &mut Port<'_, Site>) {
        self.transport.flush();
        self.write(port);
        let bytes = self.hosting.turn_ended(port);
        if let Some(room) = &mut self.room {
            room.take(bytes);
        }
    }

    fn closing(&mut self, deadline: Instant) -> LocalFuture<()> {
        // What was handed to the log is written; without a handle nobody can be told any more.
        (self.log, self.storage) = (None, None);
        self.stop.stop();
        let hosted = self.hosting.closing();
        let mut writing = std::mem::take(&mut self.writing);
        let drained = self.transport.drain(deadline);
        Box::pin(async move {
            // The directory is free for the next one only when nobody writes there any more.
            while writing.join_next().await.is_some() {}
            hosted.await;
            if !drained.await {
                tracing::warn!("stopped with frames unwritten");
            }
        })
    }

    fn weigh(input: &Input) -> usize {
        size_of::<Input>() + if let Input::Link(input) = input { link::weight(input) } else { 0 }
    }
}

/// A handle to a site: cheap to clone, `Send` and `Sync`. When the last is dropped the site stops.
#[derive(Clone)]
pub struct SiteHandle {
    host: HostHandle<Site>,
    views: watch::Receiver<Arc<ViewChanged>>,
    ready: watch::Receiver<bool>,
    reach: Reach,
}

impl SiteHandle {
    /// How the site is; `None`: it has closed.
    pub async fn status(&self) -> Option<Status> {
        let (asked, answer) = oneshot::channel();
        self.host.send(Input::Status(asked)).await.ok()?;
        let status = *answer.await.ok()?;
        Some(Status { turns: self.host.turn_stats(), ..status })
    }

    /// The last view that the site has installed; before the first one the empty one with number 0. Whoever looks seldom sees
    /// the last one only.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Arc<ViewChanged>> {
        self.views.clone()
    }

    /// Whether the site is a member, has all the past of its groups, and their applications have their states.
    #[must_use]
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// From here on an actor is told each view, at once the last one. One that is told more while it has `unread_max` unread ones
    /// loses its subscription; the last message that it gets says so. False: the site has closed.
    pub async fn subscribe_views(
        &self,
        to: Recipient<Events<Arc<ViewChanged>>>,
        unread_max: usize,
    ) -> bool {
        let subscriber = Subscriber::new(to, unread_max, |_| 1);
        self.host.send(Input::Views(subscriber)).await.is_ok()
    }

    /// Mounts a service on the site while it runs, or beside it. See [`Reach::mount`].
    ///
    /// # Errors
    /// [`MountLateError`].
    pub async fn mount<S: Service>(
        &self,
        name: &str,
        placement: Option<Placement>,
        config: impl FnMut(&Mounting<'_>) -> S::Config + Send + 'static,
    ) -> Result<ServiceHandle<S>, MountLateError> {
        self.reach.mount(name, placement, config).await
    }

    /// The instance `name` of a mounted service. Whether it is mounted shows when it is used. The handle does not keep the site
    /// running, and outlives a boot that is declared dead; a subscription does not.
    #[must_use]
    pub fn service<S: Service>(&self, name: &str) -> ServiceHandle<S> {
        self.reach.service(name)
    }

    /// Whether it takes nothing any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.host.is_closed()
    }

    /// Asks the site to stop: what was admitted is still taken in. The other members are told, so that they need not miss it first; a
    /// site whose last handle is dropped tells them nothing.
    pub fn stop(&self) {
        // A full mailbox keeps it out: then they miss it.
        let _ = self.host.try_send(Input::Leave);
        self.host.stop();
    }

    /// How the site ended, as soon as it has. The future holds no handle.
    pub fn closed(&self) -> impl Future<Output = Closed> + Send + use<> {
        self.host.closed()
    }

    /// Turns ended so far.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.host.turns()
    }

    /// A handle that does not keep the site running.
    #[must_use]
    pub fn downgrade(&self) -> WeakSite {
        let (views, ready, reach) = (self.views.clone(), self.ready.clone(), self.reach.clone());
        WeakSite { host: self.host.downgrade(), views, ready, reach }
    }
}

impl fmt::Debug for SiteHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SiteHandle").field(&self.host).finish()
    }
}

/// A handle to a site that does not keep it running.
#[derive(Clone)]
pub struct WeakSite {
    host: WeakHandle<Site>,
    views: watch::Receiver<Arc<ViewChanged>>,
    ready: watch::Receiver<bool>,
    reach: Reach,
}

impl WeakSite {
    /// The handle, unless all were dropped.
    #[must_use]
    pub fn upgrade(&self) -> Option<SiteHandle> {
        let (views, ready, reach) = (self.views.clone(), self.ready.clone(), self.reach.clone());
        Some(SiteHandle { host: self.host.upgrade()?, views, ready, reach })
    }

    /// How the site ended, as soon as it has.
    pub fn closed(&self) -> impl Future<Output = Closed> + Send + use<> {
        self.host.closed()
    }
}

impl fmt::Debug for WeakSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WeakSite").field(&self.host).finish()
    }
}
