//! A replicated state machine on a group: the application of the group.

mod announcing;
mod intake;
mod outgoing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::{
    Duration, Instant, Level, MessageId, NodeId, Order, Position, SiteId, Work, codec,
};
use mainstay_multicast::{CastError, Delivery, Event};
use mainstay_paradigm::client::NotDone;
use mainstay_paradigm::{self as paradigm, Envelope, Replica, SnapshotStream, StateMachine};
use mainstay_runtime::drop_beside;
use mainstay_site::{AppPort, Application, CheckpointDone};

use crate::backlog::{Backlog, From, Look, Step};
use crate::history::{History, Rebuild};
use crate::outcome::{Answer, Fate};
use crate::queue::{Queue, Submitted};
use crate::status::ReplicaStatus;
use crate::waiting::Waiting;
use announcing::Announcing;
pub(crate) use intake::Inboxes;
use outgoing::{Sponsor, Writing};

/// What a read counts beside what the user's machine counts for it (1 us).
const READ: Duration = Duration::from_micros(1);

/// What is fixed for all boots.
pub(crate) struct Settings {
    pub(crate) me: NodeId,
    pub(crate) level: Level,
    pub(crate) deadline: Duration,
    pub(crate) replica: paradigm::Config,
    pub(crate) names: BTreeMap<NodeId, Arc<str>>,
    /// How much a turn may do, in nominal time.
    pub(crate) turn_work: Duration,
}

/// The application: a replica on a group, and all who wait for it.
pub(crate) struct Executor<S: StateMachine + 'static> {
    settings: Settings,
    make: Box<dyn FnMut() -> S>,
    intake: Inboxes<S>,
    replica: Replica<S>,
    /// This site, as its casts are named.
    site: Option<SiteId>,
    /// Commands that are not cast yet.
    queue: Queue,
    waiting: Waiting<S>,
    backlog: Backlog,
    /// It is said how this boot comes to its state.
    begun: bool,
    /// What the present state came from, and how far the replica has got with coming from it anew.
    history: History<S::Snapshot>,
    rebuild: Option<Rebuild<S::Snapshot>>,
    sponsor: Option<Sponsor<S::Snapshot>>,
    /// To be written as soon as the own log has all of it.
    checkpoint: Option<SnapshotStream<S::Snapshot>>,
    transferred: Option<Position>,
    writing: Writing,
    /// Of the newest checkpoint that this process has written.
    newest: Option<Position>,
    announcing: Announcing,
    minority: bool,
    blocked: bool,
    status: ReplicaStatus,
}

impl<S: StateMachine + 'static> Executor<S> {
    pub(crate) fn new(
        settings: Settings,
        mut make: Box<dyn FnMut() -> S>,
        intake: Inboxes<S>,
    ) -> Self {
        Self {
            replica: unknown(&settings, &mut make),
            settings,
            make,
            intake,
            site: None,
            queue: Queue::default(),
            waiting: Waiting::default(),
            backlog: Backlog::default(),
            begun: false,
            history: History::new(),
            rebuild: None,
            sponsor: None,
            checkpoint: None,
            transferred: None,
            writing: Writing::Nothing,
            newest: None,
            announcing: Announcing::default(),
            minority: false,
            blocked: false,
            status: ReplicaStatus::default(),
        }
    }

    /// Why nothing can be done here now.
    fn refusal(&self, port: &AppPort<'_>) -> Option<NotDone> {
        use paradigm::Status as Is;
        let halted = match self.replica.status() {
            Is::Poisoned { position } => Some(NotDone::Poisoned(position)),
            Is::Diverged { .. } => Some(NotDone::NoState),
            _ => None,
        };
        let reasons = [
            (!port.is_up(), NotDone::Restarting),
            (self.minority, NotDone::Minority),
            (self.blocked, NotDone::Blocked),
        ];
        reasons.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason).or(halted)
    }

    fn on_group(&mut self, event: Event, port: &mut AppPort<'_>) {
        match event {
            Event::Deliver(batch) => self.backlog.deliver(batch),
            Event::View(view) => {
                self.blocked = false;
                self.begin_fresh(port);
                self.backlog.push(Step::View(view.id.number, view.members, view.departures));
            }
            Event::Restored { from_checkpoint, checkpoint, entries } => {
                let chunks = port.take_checkpoint().unwrap_or_default();
                let chunks = if from_checkpoint { chunks } else { Vec::new() };
                self.begun = true;
                self.backlog.push(Step::BeginRestore);
                self.backlog.push(Step::Chunks(chunks.into_iter()));
                self.backlog.push(Step::Restored(checkpoint, From::Disk));
                self.backlog.push(Step::Entries(entries.into_iter()));
            }
            Event::RestoreChunk { position, offset, bytes, last } => {
                self.begun = true;
                if offset == 0 {
                    // The own one is of a past that the group went on without.
                    retire(port.take_checkpoint());
                    self.backlog.push(Step::BeginRestore);
                }
                self.backlog.push(Step::Part { position, offset, bytes });
                if last {
                    self.backlog.push(Step::Restored(position, From::Sponsor));
                }
            }
            Event::Blocked { view } => {
                tracing::warn!(?view, "the group stands still: it waits for what failed last");
                self.blocked = true;
            }
            Event::MaybeLost { from } => {
                tracing::error!(?from, "acknowledged commands may be lost");
                self.status.maybe_lost += 1;
            }
            Event::ReadReady { token, position } => {
                self.backlog.push(Step::Read(token, position));
            }
            Event::ReadFailed { token } => self.waiting.fail_read(token, NotDone::NotMember),
            Event::SnapshotWanted { position } => self.backlog.push(Step::Snapshot(position)),
            Event::ChunkWanted { position } => self.give_chunk(position, port),
            Event::Slow { site } => tracing::warn!(?site, "a member does not get on"),
            Event::SlowOver { .. } | Event::Reached { .. } | Event::Holding { .. } => {}
        }
    }

    /// Where the group is made there is nothing to be told: a first view with all the past begins with the empty state.
    fn begin_fresh(&mut self, port: &AppPort<'_>) {
        let whole = port.status().is_some_and(|group| group.whole);
        if whole && !std::mem::replace(&mut self.begun, true) {
            self.backlog.push(Step::BeginRestore);
            self.backlog.push(Step::Restored(Position::ZERO, From::Disk));
        }
    }

    fn run(&mut self, step: Step, port: &mut AppPort<'_>) {
        match step {
            Step::Deliver(delivery) => self.deliver(delivery),
            step => self.run_seldom(step, port),
        }
        self.drain(port);
    }

    /// What is no command: apart, for it takes much room on the thread's stack.
    #[inline(never)]
    fn run_seldom(&mut self, step: Step, port: &mut AppPort<'_>) {
        match step {
            Step::View(number, members, departures) => {
                let me = self.settings.me;
                self.announcing.begins(me, number, &members, &departures);
                let others: BTreeSet<_> = members.into_iter().filter(|it| it.node != me).collect();
                self.replica.set_members(&others);
            }
            Step::Read(token, position) => {
                let reached = self.replica.position() >= position;
                let state = self.replica.machine().filter(|_| reached);
                let bytes = self.waiting.answer_read(token, state);
                self.replica.charge(READ, bytes);
            }
            Step::Snapshot(position) => self.begin_sponsoring(position, port),
            Step::BeginRestore => {
                self.transferred = None;
                retire(self.checkpoint.take());
                drop_beside(std::mem::replace(&mut self.history, History::new()));
                drop_beside(self.replica.begin_restore((self.make)()));
            }
            Step::Chunk(chunk) => {
                self.restore(From::Disk, |replica| replica.restore_chunk(&chunk));
            }
            Step::Part { position, offset, bytes } => {
                if self.replica.status() != paradigm::Status::Restoring {
                    // A part before it could not be restored: another sponsor begins anew.
                    return;
                }
                self.restore(From::Sponsor, |replica| replica.restore_chunk(&bytes));
                let upto = offset + bytes.len() as u64;
                port.chunk_taken(position, upto);
            }
            Step::Restored(position, from) => {
                self.restore(from, |replica| replica.restored(position));
                let runs = self.replica.status() == paradigm::Status::Running;
                self.history = History::of(&mut self.replica);
                if from == From::Sponsor && runs {
                    self.transferred = Some(position);
                }
            }
            Step::Deliver(_) | Step::Chunks(_) | Step::Batch(_) | Step::Entries(_) => {
                unreachable!("the backlog gives them one by one, and deliveries go another way")
            }
        }
    }

    fn drain(&mut self, port: &mut AppPort<'_>) {
        while let Some(output) = self.replica.poll_output() {
            self.on_replica(output, port);
        }
    }

    /// # Panics
    /// If a position is missing: the order is broken, and the site halts.
    fn deliver(&mut self, delivery: Delivery) {
        let Delivery { message, position, payload, .. } = delivery;
        let Some(position) = position else {
            self.replica.charge(READ, payload.len());
            return self.on_hash(message.sender, &payload);
        };
        self.history.push(position, message, &payload);
        self.execute(position, message, payload);
        if self.history.is_long() && self.replica.status() == paradigm::Status::Running {
            self.history.renew(&mut self.replica);
        }
    }

    fn execute(&mut self, position: Position, message: MessageId, payload: Bytes) {
        let is_mine = self.site == Some(message.sender);
        match self.replica.deliver(position, message, payload, is_mine) {
            Ok(()) => {}
            Err(error @ paradigm::DeliverError::Gap { .. }) => {
                panic!("the group gave position {position:?}: {error}");
            }
            Err(_) => self.status.not_applied += 1,
        }
    }

    /// Why no command can be put into the order here now.
    fn refusal_of_writes(&self, port: &AppPort<'_>) -> Option<NotDone> {
        let short = self.status.disk_short.then_some(NotDone::DiskShort);
        self.refusal(port).or(short)
    }

    /// Casts what waits, as far as the group has room.
    fn cast_queued(&mut self, now: Instant, port: &mut AppPort<'_>) {
        if self.queue.len() == 0 {
            return;
        }
        if let Some(reason) = self.refusal_of_writes(port) {
            return self.queue.refuse(reason);
        }
        let Settings { level, deadline, .. } = self.settings;
        let used = |port: &AppPort<'_>| port.status().map_or(0, |group| group.unstable_bytes);
        while let Some(Submitted { payload, answer, .. }) = self.queue.next(now, || used(port)) {
            self.cast(payload, level, answer, now + deadline, port);
        }
    }

    fn cast(
        &mut self,
        payload: Bytes,
        level: Level,
        answer: Answer,
        until: Instant,
        port: &mut AppPort<'_>,
    ) {
        match port.cast(Order::Total, level, payload) {
            Ok(message) => {
                self.site = Some(message.sender);
                self.waiting.cast(message.sequence, answer, until);
            }
            Err(error) => answer.tell(Fate::NotDone(reason(&error))),
        }
    }

    /// Casts the skip, if this node stands at that very command and at nothing else.
    fn skip(
        &mut self,
        position: Position,
        answer: Answer,
        refusal: Option<NotDone>,
        until: Instant,
        port: &mut AppPort<'_>,
    ) {
        match refusal {
            Some(NotDone::Poisoned(poison)) if poison == position => {
                let payload = Envelope::Skip { position }.encode(&[]);
                self.cast(payload, self.settings.level, answer, until, port);
            }
            None | Some(NotDone::Poisoned(_)) => {
                answer.tell(Fate::NotDone(NotDone::NotPoisoned));
            }
            Some(reason) => answer.tell(Fate::NotDone(reason)),
        }
    }

    /// A member says which hash its state had; messages in FIFO order are nothing else.
    fn on_hash(&mut self, sender: SiteId, payload: &[u8]) {
        if let Ok((position, hash)) = codec::decode::<(Position, u128)>(payload)
            && self.site != Some(sender)
        {
            self.replica.hash_of(sender, position, hash);
        }
    }

    /// # Panics
    /// If the own checkpoint does not make a state: there is nothing to go on from, and the site halts.
    fn restore(
        &mut self,
        from: From,
        step: impl FnOnce(&mut Replica<S>) -> Result<(), paradigm::RestoreError>,
    ) {
        match (step(&mut self.replica), from) {
            (Ok(()), _) => {}
            (Err(error), From::Disk) => panic!("the checkpoint cannot be restored: {error}"),
            // The member stays without a state; the next view brings another sponsor.
            (Err(error), From::Sponsor) => {
                tracing::error!(%error, "the transferred state cannot be restored");
                self.status.restores_failed += 1;
            }
        }
    }

    fn on_replica(&mut self, output: paradigm::Output, port: &mut AppPort<'_>) {
        use paradigm::Output as Out;
        match output {
            Out::Reply { message, outcome, .. } => {
                self.waiting.answer(message.sequence, Fate::Ordered(outcome));
            }
            output => self.on_replica_seldom(output, port),
        }
    }

    #[inline(never)]
    fn on_replica_seldom(&mut self, output: paradigm::Output, port: &mut AppPort<'_>) {
        use paradigm::Output as Out;
        match output {
            Out::HashAt { position, hash } => {
                let payload = codec::encode(&(position, hash));
                // Nobody waits for it: one that is not cast is not compared.
                let _ = port.cast(Order::Fifo, Level::Delivered, payload);
            }
            Out::CheckpointWanted { .. } if self.settings.level == Level::Disk => {
                // One that is not even begun is replaced by the newer one.
                let newer = self.replica.snapshot().ok();
                retire(std::mem::replace(&mut self.checkpoint, newer));
            }
            Out::Diverged { position, verdict, sites } => {
                tracing::error!(?position, ?verdict, ?sites, "the states of the members differ");
                self.status.diverged += 1;
            }
            Out::Poisoned { position } => {
                tracing::error!(?position, "the execution of a command panicked: halted");
            }
            Out::Rebuild { skipping } => {
                tracing::warn!(?skipping, "a poison command is skipped: the state is rebuilt");
                self.begin_rebuild();
            }
            _ => {}
        }
    }

    /// # Panics
    /// If there is nothing to rebuild the state from: the site halts, and recovers with the next start.
    #[cold]
    fn begin_rebuild(&mut self) {
        let base = self.history.take_base().expect("a replica that executes came from a state");
        self.rebuild = Some(Rebuild::Restore(Box::new(base)));
        drop_beside(self.replica.begin_restore((self.make)()));
        retire(self.checkpoint.take());
    }

    /// The next step of a rebuild.
    #[cold]
    fn go_on_rebuilding(&mut self, rebuild: Rebuild<S::Snapshot>, port: &mut AppPort<'_>) {
        match rebuild {
            Rebuild::Restore(mut stream) => {
                let position = stream.position();
                let chunk = stream.next_chunk().expect("a snapshot keeps its contract");
                let whole = chunk.is_none();
                self.restore(From::Disk, |replica| match &chunk {
                    Some(chunk) => replica.restore_chunk(chunk),
                    None => replica.restored(position),
                });
                self.rebuild = Some(if whole {
                    self.history.set_base(&mut self.replica);
                    Rebuild::Replay(0)
                } else {
                    Rebuild::Restore(stream)
                });
            }
            Rebuild::Replay(index) => match self.history.get(index) {
                Some((position, message, payload)) => {
                    self.rebuild = Some(Rebuild::Replay(index + 1));
                    self.execute(position, message, payload);
                    // Another skip further on may begin the rebuild anew.
                    self.drain(port);
                }
                None => self.status.rebuilds += 1,
            },
        }
    }

    /// Answers the next local read that waits.
    fn look(&mut self) {
        let Some(Look(token, reason)) = self.backlog.looks.pop_front() else { return };
        let bytes = match self.replica.machine() {
            Some(machine) => self.waiting.answer_read(token, Some(machine)),
            None => {
                self.waiting.fail_read(token, reason);
                0
            }
        };
        self.replica.charge(READ, bytes);
    }
}

/// Frees on another thread what is over.
fn retire<T: Send + 'static>(over: Option<T>) {
    if let Some(over) = over {
        drop_beside(over);
    }
}

/// A replica whose state is not known yet.
fn unknown<S: StateMachine>(settings: &Settings, make: &mut dyn FnMut() -> S) -> Replica<S> {
    let replica = Replica::new(settings.replica.clone(), make());
    let mut replica = replica.turn_work(settings.turn_work).names(settings.names.clone());
    drop(replica.begin_restore(make()));
    replica
}

impl<S: StateMachine + 'static> Application for Executor<S> {
    fn on_event(&mut self, event: Event, port: &mut AppPort<'_>) {
        self.on_group(event, port);
    }

    fn woken(&mut self, port: &mut AppPort<'_>) {
        self.take_in(port);
    }

    fn compact(&mut self, _port: &mut AppPort<'_>) {
        let is_new = self.newest != Some(self.replica.position());
        if is_new && self.settings.level == Level::Disk && self.checkpoint.is_none() {
            self.checkpoint = self.replica.snapshot().ok();
        }
    }

    fn on_minority(&mut self, on: bool) {
        self.minority = on;
    }

    fn on_checkpoint(&mut self, done: CheckpointDone, port: &mut AppPort<'_>) {
        self.status.checkpoints += u64::from(done.written);
        self.status.checkpoint_failed = !done.written;
        self.newest = done.written.then_some(done.position).or(self.newest);
        let writing = std::mem::replace(&mut self.writing, Writing::Nothing);
        if writing == Writing::Transferred(done.position) {
            match done.written {
                true => port.restored(done.position),
                // There was no room.
                false => self.transferred = Some(done.position),
            }
        }
    }

    fn restarted(&mut self, _now: Instant) {
        let replica = unknown(&self.settings, &mut self.make);
        drop_beside(std::mem::replace(&mut self.replica, replica).retire());
        drop_beside(std::mem::take(&mut self.backlog));
        drop_beside((self.sponsor.take(), self.checkpoint.take(), self.rebuild.take()));
        drop_beside(std::mem::replace(&mut self.history, History::new()));
        self.queue.restarted();
        self.waiting.restarted();
        (self.site, self.transferred, self.begun) = (None, None, false);
        (self.minority, self.blocked) = (false, false);
        self.writing = Writing::Nothing;
        self.announcing = Announcing::default();
    }

    fn end_turn(&mut self, port: &mut AppPort<'_>) {
        let now = port.now();
        if self.intake.more {
            self.take_in(port);
        }
        if !port.is_spent() {
            self.backlog.begin_turn();
        }
        let mut first = true;
        // A step is always done, unless other groups of the node have done all that a turn may: nothing that is asked of this one
        // holds the replica up.
        while !port.is_spent() && (std::mem::take(&mut first) || !self.replica.is_spent()) {
            self.look();
            if let Some(rebuild) = self.rebuild.take() {
                self.go_on_rebuilding(rebuild, port);
            } else if let Some(step) = self.backlog.pop() {
                self.run(step, port);
            } else if self.backlog.is_empty() {
                break;
            }
        }
        if !self.backlog.is_empty() || self.rebuild.is_some() || self.intake.more {
            port.again();
        }
        self.announce(port);
        self.begin_checkpoint(port);
        self.history.release();
        self.cast_queued(now, port);
        self.queue.expire(now, self.settings.deadline);
        self.waiting.expire(now);
    }

    fn is_ready(&self) -> bool {
        self.replica.status() == paradigm::Status::Running && self.rebuild.is_none()
    }

    fn waits(&self) -> bool {
        self.queue.len() > 0 || self.checkpoint.is_some() || self.transferred.is_some()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let queued = self.queue.deadline(self.settings.deadline);
        [queued, self.waiting.deadline()].into_iter().flatten().min()
    }

    fn disk_short(&mut self, short: bool) {
        if short {
            tracing::error!("the disk is almost full: commands are refused until there is room");
            if self.settings.level == Level::Disk && self.checkpoint.is_none() {
                // What is behind it may be a good part of what is on the disk.
                self.checkpoint = self.replica.snapshot().ok();
            }
        } else {
            tracing::warn!("there is room on the disk again");
        }
        self.status.disk_short = short;
    }

    fn take_work(&mut self) -> Work {
        self.replica.take_work()
    }

    fn intake_bytes_max(&self) -> usize {
        self.backlog.intake_bytes_max()
    }
}

fn reason(error: &CastError) -> NotDone {
    match error {
        CastError::Full { .. } => NotDone::Full,
        CastError::NotMember => NotDone::NotMember,
        _ => NotDone::TooLarge,
    }
}
