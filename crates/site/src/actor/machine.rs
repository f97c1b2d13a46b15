//! The hosted machine: the Stack of the present boot, and the application on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mainstay_base::service::Chunks;
use mainstay_base::trace::Event;
use mainstay_base::{BootNonce, ConnId, GroupId, Instant, Machine, NodeId, Position, Work};
use mainstay_link as link;
use mainstay_membership::{Evidence, View};
use mainstay_runtime::{drop_beside, halt};
use tokio::sync::oneshot;

use super::application::{AppPort, Application, CheckpointDone, Command};
use super::parts::Plan;
use super::status::{Status, Suspicion, add};
use super::storage::Read;
use super::trace::Recording;
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
}

/// What happened at a site.
pub(super) enum Input<C> {
    /// On the transport: one frame or one change of a connection.
    Link(link::Input),
    /// The write with this number of this life is forced.
    Persisted { life: u64, io: u64 },
    /// The log has failed.
    LogFailed { life: u64, reason: String },
    /// The application asked this of the core of this life.
    Fed { life: u64, input: core::Input },
    /// The application asked for a turn.
    Again,
    /// A checkpoint that this life began has ended.
    Checkpoint { life: u64, done: CheckpointDone, alone: bool },
    /// The log is read again for this life, after a death.
    LogRead { life: u64, read: Box<Read> },
    /// What the log says, after a death.
    Recovered(Box<Boot>),
    /// Less than the reserve is free on the disk, or enough again.
    DiskShort(bool),
    /// For the application.
    Command(C),
    /// Somebody wants to know.
    Status(oneshot::Sender<Box<Status>>),
}

/// What is to be done outside.
pub(super) enum Output {
    /// `Dial`, `Transmit` and `Close`.
    Link(stack::Output),
    /// Append and force.
    Persist { io: u64, record: Box<Record> },
    /// Hand this back in the next turn.
    Fed(core::Input),
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
    Resume(Box<Read>),
    /// What was done in this turn; there is something.
    Trace(Vec<Event>),
}

/// The machine. A dead boot's Stack is dropped; until the log is read again there is none.
pub(super) struct Site<C> {
    plan: Plan,
    app: Box<dyn Application<Command = C>>,
    stack: Option<Stack>,
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
    fed: VecDeque<core::Input>,
    again: bool,
    /// The trace of the last boot, if one is wanted.
    recording: Option<Recording>,
    outputs: VecDeque<Output>,
}

impl<C: Command> Site<C> {
    pub(super) fn new(
        plan: Plan,
        app: Box<dyn Application<Command = C>>,
        boot: Boot,
        now: Instant,
    ) -> Self {
        let mut site = Self {
            plan,
            app,
            stack: None,
            life: 0,
            nonce: boot.nonce,
            conns: BTreeSet::new(),
            dials: BTreeMap::new(),
            stale_dials: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            refused: BTreeMap::new(),
            suspicions: VecDeque::new(),
            fed: VecDeque::new(),
            again: false,
            recording: None,
            outputs: VecDeque::new(),
        };
        site.begin(boot, now);
        site
    }

    fn begin(&mut self, boot: Boot, now: Instant) {
        self.nonce = boot.nonce;
        self.checkpoints = boot.checkpoints;
        let (link, core) = self.plan.configs(boot.nonce);
        if self.plan.is_traced() {
            self.recording = Some(Recording::begin(core.me, now));
        }
        self.stack = Some(Stack::recover(link, core, boot.past, boot.bootstrap, now, boot.seed));
    }

    /// The boot is out: what it had outside is given up, and the application told.
    fn killed(&mut self, now: Instant) {
        tracing::warn!(life = self.life, "declared dead by the others; starting anew from the log");
        add(&mut self.refused, self.stack.iter().flat_map(Stack::refused));
        // It has what the log has since the last checkpoint.
        drop_beside(self.stack.take().map(Stack::into_core));
        self.life += 1;
        self.fed.clear();
        drop_beside(std::mem::take(&mut self.checkpoints));
        for (node, count) in std::mem::take(&mut self.dials) {
            *self.stale_dials.entry(node).or_default() += count;
        }
        for conn in std::mem::take(&mut self.conns) {
            self.outputs.push_back(Output::Link(stack::Output::Close { conn }));
        }
        self.app.restarted(now);
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

    fn app(&mut self) -> (&mut dyn Application<Command = C>, AppPort<'_>) {
        let port = AppPort {
            stack: self.stack.as_ref(),
            fed: &mut self.fed,
            outputs: &mut self.outputs,
            checkpoints: &mut self.checkpoints,
            again: &mut self.again,
        };
        (&mut *self.app, port)
    }

    /// What the application asked for before the end of the turn belongs to the turn.
    fn take_fed(&mut self, now: Instant) {
        while let Some(input) = self.fed.pop_front() {
            self.core(now, input);
        }
    }

    fn core(&mut self, now: Instant, input: core::Input) {
        if let Some(stack) = &mut self.stack {
            stack.handle(now, stack::Input::Core(input));
        }
    }

    fn on_checkpoint(&mut self, now: Instant, done: CheckpointDone, alone: bool) {
        if done.written {
            let CheckpointDone { group, position, .. } = done;
            self.outputs.push_back(Output::Checkpointed { group, position, alone });
            self.core(now, core::Input::Checkpointed { group, position });
        }
        let (app, mut port) = self.app();
        app.on_checkpoint(now, done, &mut port);
        self.take_fed(now);
    }

    fn on_stack(&mut self, now: Instant, output: stack::Output) {
        if let (Some(recording), Some(stack), stack::Output::Core(output)) =
            (&mut self.recording, &self.stack, &output)
        {
            recording.observe(now, stack.core(), output);
        }
        match output {
            stack::Output::Core(core::Output::Persist { io, record }) => {
                self.outputs.push_back(Output::Persist { io, record });
            }
            stack::Output::Core(core::Output::Killed) => self.killed(now),
            stack::Output::Core(core::Output::Suspected { boot, evidence }) => {
                self.on_suspected(now, boot.node, evidence);
            }
            stack::Output::Core(output) => {
                if let core::Output::View { view, member } = &output {
                    self.tell_view(view, *member);
                }
                let (app, mut port) = self.app();
                app.on_output(now, output, &mut port);
            }
            stack::Output::Dial { node } => {
                *self.dials.entry(node).or_default() += 1;
                self.outputs.push_back(Output::Link(stack::Output::Dial { node }));
            }
            output => self.outputs.push_back(Output::Link(output)),
        }
    }

    fn on_suspected(&mut self, now: Instant, node: NodeId, evidence: Evidence) {
        let name = self.plan.name_of(node);
        tracing::warn!(member = name, evidence = evidence.name(), "suspected");
        if self.suspicions.len() == SUSPICIONS_MAX {
            self.suspicions.pop_front();
        }
        self.suspicions.push_back((now, node, evidence));
    }

    fn tell_view(&self, view: &View, member: bool) {
        let members: Vec<_> =
            view.members.iter().map(|member| self.plan.name_of(member.site.node)).collect();
        tracing::info!(view = view.id.number, members = members.join(" "), member, "new view");
    }

    fn status(&self, now: Instant) -> Status {
        let refused = self.refused.clone();
        let suspicion = |(at, node, evidence): &(Instant, NodeId, Evidence)| {
            let ago = now.saturating_since(*at);
            Suspicion { node: *node, evidence: *evidence, ago }
        };
        let suspicions = self.suspicions.iter().map(suspicion).collect();
        let stack = self.stack.as_ref();
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

impl<C: Command> Machine for Site<C> {
    type Input = Input<C>;
    type Output = Output;

    /// # Panics
    /// If the log has failed: what it holds is uncertain, and only a new start may look. So the host halts.
    fn handle(&mut self, now: Instant, input: Input<C>) {
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
            Input::Fed { life, input } if life == self.life => self.core(now, input),
            Input::Checkpoint { life, done, alone } if life == self.life => {
                self.on_checkpoint(now, done, alone);
            }
            Input::LogFailed { life, reason } if life == self.life => halt(reason),
            Input::LogRead { life, read } if life == self.life => {
                self.outputs.push_back(Output::Resume(read));
            }
            Input::Recovered(boot) => self.begin(*boot, now),
            Input::DiskShort(short) => self.app.disk_short(short),
            Input::Command(command) => {
                let (app, mut port) = self.app();
                app.on_command(now, command, &mut port);
                self.take_fed(now);
            }
            Input::Status(asked) => {
                let status = Box::new(self.status(now));
                self.outputs.push_back(Output::Status(asked, status));
            }
            Input::Again
            | Input::Persisted { .. }
            | Input::Fed { .. }
            | Input::LogRead { .. }
            | Input::Checkpoint { .. }
            | Input::LogFailed { .. } => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(stack) = &mut self.stack {
            stack.handle_timeout(now);
        }
    }

    fn end_turn(&mut self, now: Instant) {
        if let Some(stack) = &mut self.stack {
            stack.end_turn(now);
        }
        while let Some(output) = self.stack.as_mut().and_then(Machine::poll_output) {
            self.on_stack(now, output);
        }
        while let Some(retired) = self.stack.as_mut().and_then(Stack::take_retired) {
            drop_beside(retired);
        }
        self.again = false;
        let (app, mut port) = self.app();
        app.end_turn(now, &mut port);
        self.outputs.extend(self.fed.drain(..).map(Output::Fed));
        if self.again {
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
        let stack = self.stack.as_ref().and_then(Machine::poll_timeout);
        [stack, self.app.poll_timeout()].into_iter().flatten().min()
    }

    fn take_work(&mut self) -> Work {
        self.app.take_work()
    }

    fn intake_bytes_max(&self) -> usize {
        self.app.intake_bytes_max()
    }
}
