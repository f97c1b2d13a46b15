//! The hosted machine: the Stack of the present boot, and the applications on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::service::Chunks;
use mainstay_base::trace::Event;
use mainstay_base::{BootNonce, ConnId, GroupId, Instant, Machine, NodeId, Position, Work};
use mainstay_link as link;
use mainstay_membership::founding::WaitsFor;
use mainstay_membership::{Evidence, Role, View};
use mainstay_runtime::{Bell, Subscriber, drop_beside, halt};
use mainstay_service::actor::{Answer, Begun, Mount};
use mainstay_service::{MountError, Request, services};
use tokio::sync::{oneshot, watch};

use super::application::{AppPort, Application, CheckpointDone};
use super::parts::Plan;
use super::seats::{self, Seats};
use super::status::{Status, Suspicion, add};
use super::storage::Read;
use super::trace::Recording;
use super::views::{ViewChanged, Views};
use crate::core::{self, Past, Record};
use crate::stack::{self, Stack};

/// Suspicions that are kept for the status.
const SUSPICIONS_MAX: usize = 16;

/// What a boot is made of. `life` counts the boots of this process.
pub(super) struct Boot {
    pub(super) past: Past,
    pub(super) bootstrap: bool,
    pub(super) nonce: BootNonce,
    pub(super) seed: u64,
    pub(super) checkpoints: BTreeMap<GroupId, Vec<Bytes>>,
    /// The services.
    pub(super) mounts: Vec<Mount>,
}

/// What happened at a site.
pub(super) enum Input {
    /// On the transport: one frame or one change of a connection.
    Link(link::Input),
    /// The write with this number of this life is forced.
    Persisted { life: u64, io: u64 },
    /// The log has failed.
    LogFailed { life: u64, reason: String },
    /// An application asked for a turn.
    Again,
    /// The group holds the log back.
    Compact { life: u64, group: GroupId },
    /// A checkpoint that this life began has ended.
    Checkpoint { life: u64, group: GroupId, done: CheckpointDone, alone: bool },
    /// The log is read again for this life, after a death.
    LogRead { life: u64, read: Box<Read>, begun: Box<Begun> },
    /// The host's word to the services of this life.
    Answered { life: u64, answer: Answer },
    /// Somebody wants something of the services.
    Request(Request),
    /// What the log says, after a death.
    Recovered(Box<Boot>),
    /// Less than the reserve is free on the disk, or enough again.
    DiskShort(bool),
    /// The site is about to stop.
    Leave,
    /// Somebody wants to be told of the views.
    Views(Subscriber<Arc<ViewChanged>>),
    /// Somebody wants to know.
    Status(oneshot::Sender<Box<Status>>),
}

/// What is to be done outside.
pub(super) enum Output {
    /// `Dial`, `Transmit` and `Close`.
    Link(stack::Output),
    /// Append and force.
    Persist { io: u64, record: Box<Record> },
    /// Begin another turn.
    Again,
    /// Tell whoever asked, with what the transport has refused.
    Status(oneshot::Sender<Box<Status>>, Box<Status>),
    /// Write a checkpoint.
    Checkpoint { group: GroupId, position: Position, alone: bool, source: Box<dyn Chunks> },
    /// It is forced; `alone`: the older ones are gone. What the group writes for it follows.
    Checkpointed { group: GroupId, position: Position, alone: bool },
    /// The boot is dead: read the log again.
    Killed,
    /// Go on from what was read.
    Resume(Box<Read>, Box<Begun>),
    /// The services want something.
    Services(services::Output),
    /// What was done in this turn; there is something.
    Trace(Vec<Event>),
}

/// The machine. A dead boot's Stack is dropped; until the log is read again there is none.
pub(super) struct Site {
    plan: Plan,
    seats: Seats,
    /// Rung with the groups whose applications have something in their inboxes.
    bell: Bell<GroupId>,
    /// Behind a pointer: what handles it by value is seldom, and would take room on the thread's stack in every turn.
    stack: Option<Box<Stack>>,
    life: u64,
    nonce: BootNonce,
    /// Connections of this boot, and how many answers to its dials are awaited.
    conns: BTreeSet<ConnId>,
    dials: BTreeMap<NodeId, u32>,
    /// Answers to dials of former boots that are still to come.
    stale_dials: BTreeMap<NodeId, u32>,
    checkpoints: BTreeMap<GroupId, Vec<Bytes>>,
    /// What former boots of this process have refused, by reason.
    refused: BTreeMap<&'static str, u64>,
    suspicions: VecDeque<(Instant, NodeId, Evidence)>,
    views: Views,
    ready: Readiness,
    /// Applications gave the Stack something behind its turn.
    stack_given: bool,
    /// The trace of the last boot, if one is wanted.
    recording: Option<Recording>,
    outputs: VecDeque<Output>,
}

/// Whether the site is ready, and why it is not.
#[derive(Default)]
struct Readiness {
    told: watch::Sender<bool>,
    is: bool,
    /// What kept it from making the cluster when it was last looked at.
    waits: BTreeMap<NodeId, WaitsFor>,
}

impl Readiness {
    fn tell(&mut self, is: bool) {
        if std::mem::replace(&mut self.is, is) != is {
            self.told.send_replace(is);
        }
    }
}

impl Site {
    pub(super) fn new(
        plan: Plan,
        apps: impl IntoIterator<Item = (GroupId, Box<dyn Application>)>,
        bell: Bell<GroupId>,
        boot: Boot,
        now: Instant,
    ) -> Result<Self, MountError> {
        let views = Views::new(plan.roster());
        let mut site = Self {
            plan,
            seats: Seats::new(apps),
            bell,
            stack: None,
            life: 0,
            nonce: boot.nonce,
            conns: BTreeSet::new(),
            dials: BTreeMap::new(),
            stale_dials: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            refused: BTreeMap::new(),
            suspicions: VecDeque::new(),
            views,
            ready: Readiness::default(),
            stack_given: false,
            recording: None,
            outputs: VecDeque::new(),
        };
        site.begin(boot, now)?;
        Ok(site)
    }

    pub(super) fn views(&self) -> &Views {
        &self.views
    }

    pub(super) fn ready(&self) -> watch::Receiver<bool> {
        self.ready.told.subscribe()
    }

    /// Looks whether the site has come to be ready, or is it no more since an application is not.
    fn look_whether_ready(&mut self) {
        let was = self.ready.is;
        let Some(core) = self.stack.as_deref().map(Stack::core) else { return };
        let is_member = core.membership().role() == Role::Member;
        let is_here = |group: &mainstay_multicast::Group| {
            let status = group.status();
            status.whole && !status.refused
        };
        let is = self.seats.are_ready()
            && (was || is_member && core.groups().all(|(_, group)| is_here(group)));
        if !is {
            self.tell_founding();
        }
        self.ready.tell(is);
    }

    /// A cluster that is never made because its nodes differ is not left to be found out.
    fn tell_founding(&mut self) {
        let Some(core) = self.stack.as_deref().map(Stack::core) else { return };
        let waits = core.membership().founding_waits_for();
        self.ready.waits.retain(|node, why| {
            waits.get(node).is_none_or(|it| it == why || *it == WaitsFor::NotHeard)
        });
        for (node, why) in waits.into_iter().filter(|(_, why)| *why != WaitsFor::NotHeard) {
            let is_news = self.ready.waits.insert(node, why) != Some(why);
            let member = self.plan.name_of(node);
            match why {
                WaitsFor::OtherSettings if is_news => tracing::warn!(
                    member,
                    "no cluster is made with it: its nodes or groups are others, or their settings"
                ),
                WaitsFor::OtherFounders if is_news => tracing::warn!(
                    member,
                    "no cluster is made with it: it has begun one with a disk that is gone"
                ),
                _ => {}
            }
        }
    }

    #[cold]
    fn begin(&mut self, boot: Boot, now: Instant) -> Result<(), MountError> {
        self.nonce = boot.nonce;
        self.checkpoints = boot.checkpoints;
        let (link, core) = self.plan.configs(boot.nonce);
        if self.plan.is_traced() {
            self.recording = Some(Recording::begin(core.me, now));
        }
        let mut stack = Stack::recover(link, core, boot.past, boot.bootstrap, now, boot.seed);
        boot.mounts.into_iter().try_for_each(|mount| mount(stack.services_mut(), now))?;
        self.stack = Some(Box::new(stack));
        Ok(())
    }

    /// The boot is out: what it had outside is given up, and the application told.
    #[cold]
    fn killed(&mut self, now: Instant) {
        tracing::warn!(life = self.life, "declared dead by the others; starting anew from the log");
        add(&mut self.refused, self.stack.iter().flat_map(|stack| stack.refused()));
        // It has what the log has since the last checkpoint.
        drop_beside(self.stack.take().map(|stack| stack.into_core()));
        self.life += 1;
        drop_beside(std::mem::take(&mut self.checkpoints));
        for (node, count) in std::mem::take(&mut self.dials) {
            *self.stale_dials.entry(node).or_default() += count;
        }
        for conn in std::mem::take(&mut self.conns) {
            self.outputs.push_back(Output::Link(stack::Output::Close { conn }));
        }
        self.views.killed();
        self.ready.tell(false);
        self.seats.each(|app| app.restarted(now));
        self.outputs.push_back(Output::Killed);
    }

    /// Keeps from this boot what belongs to former ones.
    fn admit(&mut self, input: &link::Input) -> bool {
        use link::Input as In;
        match input {
            In::Opened { conn, dialled } => {
                let mine =
                    dialled.is_none_or(|node| self.answer_dial(node)) && self.stack.is_some();
                if mine {
                    self.conns.insert(*conn);
                } else {
                    self.outputs.push_back(Output::Link(stack::Output::Close { conn: *conn }));
                }
                mine
            }
            In::Received { conn, .. } => self.conns.contains(conn),
            In::Closed { conn } => self.conns.remove(conn),
            In::Refused { node } | In::Unreachable { node } => self.answer_dial(*node),
            _ => true,
        }
    }

    /// Whether the answer to a dial is for this boot: answers of one node come in any order, but none is missing.
    fn answer_dial(&mut self, node: NodeId) -> bool {
        let stale = take_one(&mut self.stale_dials, node);
        !stale && take_one(&mut self.dials, node)
    }

    /// The applications, and what of the site they are given a part of.
    fn parts(&mut self) -> (&mut Seats, seats::Parts<'_>) {
        let parts = seats::Parts {
            stack: self.stack.as_deref_mut(),
            recording: self.recording.as_mut(),
            outputs: &mut self.outputs,
            checkpoints: &mut self.checkpoints,
            stack_given: &mut self.stack_given,
        };
        (&mut self.seats, parts)
    }

    fn call(
        &mut self,
        now: Instant,
        group: GroupId,
        call: impl FnOnce(&mut dyn Application, &mut AppPort<'_>),
    ) {
        let (seats, parts) = self.parts();
        seats.call(now, group, parts, call);
    }

    /// What is in the inboxes belongs to the turn.
    fn take_rung(&mut self, now: Instant) {
        let mut rung = self.bell.take();
        rung.dedup();
        for group in rung {
            self.call(now, group, |app, port| app.woken(port));
        }
    }

    fn core(&mut self, now: Instant, input: core::Input) {
        if let Some(stack) = &mut self.stack {
            stack.handle(now, stack::Input::Core(input));
        }
    }

    /// What is for services that there are not is dropped: whoever asked is told so.
    #[inline(never)]
    fn on_request(&mut self, now: Instant, request: Request) {
        if let Some(stack) = &mut self.stack {
            stack.services_mut().on_request(now, request);
        }
    }

    #[inline(never)]
    fn on_answer(&mut self, now: Instant, answer: Answer) {
        let Some(stack) = &mut self.stack else { return };
        match answer {
            Answer::Given(to, given) => drop(stack.services_mut().give(now, to, given)),
            Answer::Written { io } => stack.services_mut().written(now, io),
            Answer::Change(change) => change(stack.services_mut(), now),
            Answer::Failed(reason) => halt(reason),
        }
    }

    #[cold]
    fn on_checkpoint(&mut self, now: Instant, group: GroupId, done: CheckpointDone, alone: bool) {
        if done.written {
            let position = done.position;
            self.outputs.push_back(Output::Checkpointed { group, position, alone });
            self.core(now, core::Input::Checkpointed { group, position });
        }
        self.call(now, group, |app, port| app.on_checkpoint(done, port));
    }

    fn on_core(&mut self, now: Instant, output: core::Output) {
        match output {
            core::Output::Persist { io, record } => {
                self.outputs.push_back(Output::Persist { io, record });
            }
            core::Output::Killed => self.killed(now),
            core::Output::Suspected { boot, evidence } => {
                self.on_suspected(now, boot.node, evidence);
            }
            core::Output::View { view, member } => {
                self.tell_view(&view, member);
                self.views.install(&view, member);
            }
            core::Output::Absent { group, node, why } => self.tell_absent(group, node, why),
            core::Output::Minority { on } => {
                self.views.minority(on);
                self.seats.each(|app| app.on_minority(on));
            }
            core::Output::Group { group, event } => {
                self.call(now, group, |app, port| app.on_event(event, port));
            }
            // The Stack carries them out, or nobody here asks for them.
            core::Output::Send { .. }
            | core::Output::Isolate { .. }
            | core::Output::Cast { .. } => {}
        }
    }

    fn on_stack(&mut self, now: Instant, output: stack::Output) {
        if let (Some(recording), Some(stack), stack::Output::Core(output)) =
            (&mut self.recording, &self.stack, &output)
        {
            recording.observe(now, stack.core(), output);
        }
        match output {
            stack::Output::Core(output) => self.on_core(now, output),
            stack::Output::Dial { node } => {
                *self.dials.entry(node).or_default() += 1;
                self.outputs.push_back(Output::Link(stack::Output::Dial { node }));
            }
            output => self.outputs.push_back(Output::Link(output)),
        }
    }

    #[cold]
    fn on_suspected(&mut self, now: Instant, node: NodeId, evidence: Evidence) {
        let name = self.plan.name_of(node);
        tracing::warn!(member = name, evidence = evidence.name(), "suspected");
        if self.suspicions.len() == SUSPICIONS_MAX {
            self.suspicions.pop_front();
        }
        self.suspicions.push_back((now, node, evidence));
    }

    #[cold]
    fn tell_absent(&self, group: GroupId, node: NodeId, why: core::Absence) {
        let (member, group) = (self.plan.name_of(node), self.plan.group_name(group));
        match why {
            core::Absence::Missing => {
                tracing::warn!(member, group, "it has no such group and takes no part in it");
            }
            core::Absence::OtherSettings => {
                tracing::warn!(
                    member,
                    group,
                    "it has other settings of the group and takes no part in it"
                );
            }
        }
    }

    #[cold]
    fn tell_view(&self, view: &View, member: bool) {
        let members: Vec<_> =
            view.members.iter().map(|member| self.plan.name_of(member.site.node)).collect();
        tracing::info!(view = view.id.number, members = members.join(" "), member, "new view");
    }

    #[cold]
    fn status(&self, now: Instant) -> Status {
        let refused = self.refused.clone();
        let suspicion = |(at, node, evidence): &(Instant, NodeId, Evidence)| {
            let ago = now.saturating_since(*at);
            Suspicion { node: *node, evidence: *evidence, ago }
        };
        let suspicions = self.suspicions.iter().map(suspicion).collect();
        let stack = self.stack.as_deref();
        Status::of(now, &self.plan, self.nonce, self.life, refused, suspicions, stack)
    }
}

fn take_one(counts: &mut BTreeMap<NodeId, u32>, node: NodeId) -> bool {
    let Some(count) = counts.get_mut(&node) else { return false };
    *count -= 1;
    if *count == 0 {
        counts.remove(&node);
    }
    true
}

impl Machine for Site {
    type Input = Input;
    type Output = Output;

    /// # Panics
    /// If the log has failed: what it holds is uncertain, and only a new start may look. So the host halts.
    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Link(input) => {
                if self.admit(&input)
                    && let Some(stack) = &mut self.stack
                {
                    stack.handle(now, stack::Input::Link(input));
                }
            }
            Input::Persisted { life, io } if life == self.life => {
                self.core(now, core::Input::Persisted { io });
            }
            Input::Checkpoint { life, group, done, alone } if life == self.life => {
                self.on_checkpoint(now, group, done, alone);
            }
            Input::Compact { life, group } if life == self.life => {
                self.call(now, group, |app, port| app.compact(port));
                // Its `Start` is written again, behind what holds the log back.
                let position = Position::ZERO;
                self.core(now, core::Input::Checkpointed { group, position });
            }
            Input::LogFailed { life, reason } if life == self.life => halt(reason),
            Input::LogRead { life, read, begun } if life == self.life => {
                self.outputs.push_back(Output::Resume(read, begun));
            }
            Input::Answered { life, answer } if life == self.life => self.on_answer(now, answer),
            Input::Request(request) => self.on_request(now, request),
            Input::Recovered(boot) => {
                if let Err(error) = self.begin(*boot, now) {
                    halt(format!("declared dead, and cannot begin anew: {error}"));
                }
            }
            Input::DiskShort(short) => self.seats.each(|app| app.disk_short(short)),
            Input::Leave => self.core(now, core::Input::Leave),
            Input::Views(subscriber) => self.views.subscribe(subscriber),
            Input::Status(asked) => {
                let status = Box::new(self.status(now));
                self.outputs.push_back(Output::Status(asked, status));
            }
            Input::Again
            | Input::Persisted { .. }
            | Input::LogRead { .. }
            | Input::Answered { .. }
            | Input::Checkpoint { .. }
            | Input::Compact { .. }
            | Input::LogFailed { .. } => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(stack) = &mut self.stack {
            stack.handle_timeout(now);
        }
    }

    fn end_turn(&mut self, now: Instant) {
        self.take_rung(now);
        // What was given before the Stack's turn is taken in by it.
        self.stack_given = false;
        if let Some(stack) = &mut self.stack {
            stack.end_turn(now);
        }
        while let Some(output) = self.stack.as_deref_mut().and_then(Machine::poll_output) {
            self.on_stack(now, output);
        }
        while let Some(output) = self.stack.as_mut().and_then(|it| it.services_mut().poll_output())
        {
            self.outputs.push_back(Output::Services(output));
        }
        while let Some(retired) = self.stack.as_deref_mut().and_then(Stack::take_retired) {
            drop_beside(retired);
        }
        let mut again = false;
        for group in self.seats.wanted(now) {
            let (seats, parts) = self.parts();
            again |= seats.end_turn(now, group, parts);
        }
        self.look_whether_ready();
        if std::mem::take(&mut self.stack_given) || again {
            self.outputs.push_back(Output::Again);
        }
        if let Some(events) = self.recording.as_mut().map(Recording::take)
            && !events.is_empty()
        {
            self.outputs.push_back(Output::Trace(events));
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let stack = self.stack.as_deref().and_then(Machine::poll_timeout);
        [stack, self.seats.poll_timeout()].into_iter().flatten().min()
    }

    fn take_work(&mut self) -> Work {
        let mut work = self.seats.take_work();
        work.add(self.stack.as_deref_mut().map(Machine::take_work).unwrap_or_default());
        work
    }

    fn intake_bytes_max(&self) -> usize {
        let stack = self.stack.as_deref().map_or(usize::MAX, Machine::intake_bytes_max);
        self.seats.intake_bytes_max().min(stack)
    }
}
