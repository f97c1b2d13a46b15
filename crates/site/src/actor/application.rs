//! What runs on a site: the application, and what it may ask of the site.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use mainstay_base::service::Chunks;
use mainstay_base::trace::{Level, Order};
use mainstay_base::{GroupId, Instant, Position, Work};
use mainstay_multicast as multicast;

use super::machine::Output;
use crate::core;
use crate::stack::Stack;

/// A command to an application, from another task or thread.
pub trait Command: Send + 'static {
    /// The bytes that it counts for at the site's mailbox and in a turn.
    fn weight(&self) -> usize;
}

/// What stands on the groups of a site; one for each site, it tells the groups apart itself.
///
/// It is called within the turns of the site, on its thread, with no mailbox between: a call must not block and should
/// stay well under a millisecond. Work that is larger is cut into slices, see [`AppPort::again`]. A panic halts the site.
pub trait Application: 'static {
    /// What others may ask of it.
    type Command: Command;

    /// The core says something: `Cast`, `Group`, `View` and `Minority`; nothing else comes.
    fn on_output(&mut self, now: Instant, output: core::Output, port: &mut AppPort<'_>);

    /// Somebody asks for something. What follows from it goes into the same turn.
    fn on_command(&mut self, now: Instant, command: Self::Command, port: &mut AppPort<'_>);

    /// A checkpoint that [`AppPort::checkpoint`] began is forced, or was given up.
    fn on_checkpoint(&mut self, now: Instant, done: CheckpointDone, port: &mut AppPort<'_>);

    /// The former boot is dead and the site starts anew from its log: what was asked of the core is answered no more, and
    /// no state of a group is known until a group says so.
    fn restarted(&mut self, now: Instant);

    /// The turn ends: a place for work that was put off and for deadlines.
    fn end_turn(&mut self, now: Instant, port: &mut AppPort<'_>);

    /// When [`end_turn`](Self::end_turn) is wanted at the latest; `None`: nothing to wait for.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Less room is left on the disk than the reserve, or enough again. Until then everything new is to be refused: what
    /// the reserve is for is what the others cast. Default: nothing.
    fn disk_short(&mut self, short: bool) {
        let _ = short;
    }

    /// What it did since the last call; see [`Machine::take_work`](mainstay_base::Machine::take_work).
    fn take_work(&mut self) -> Work {
        Work::default()
    }

    /// See [`Machine::intake_bytes_max`](mainstay_base::Machine::intake_bytes_max).
    fn intake_bytes_max(&self) -> usize {
        usize::MAX
    }
}

/// What became of a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointDone {
    /// Of which group.
    pub group: GroupId,
    /// As of.
    pub position: Position,
    /// It is forced; otherwise the older ones stand.
    pub written: bool,
}

/// What an application may ask of its site. In a command it takes effect in the same turn, else in the next.
pub struct AppPort<'a> {
    pub(super) stack: Option<&'a Stack>,
    pub(super) fed: &'a mut VecDeque<core::Input>,
    pub(super) outputs: &'a mut VecDeque<Output>,
    pub(super) checkpoints: &'a mut BTreeMap<GroupId, Vec<Bytes>>,
    pub(super) again: &'a mut bool,
}

impl AppPort<'_> {
    /// Whether there is a boot to ask; not between a death and the recovery from it, when all but
    /// [`again`](Self::again) is of no effect.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.stack.is_some()
    }

    /// Casts; answered by `Output::Cast` with the same token, in the order of the calls.
    pub fn cast(&mut self, group: GroupId, token: u64, order: Order, level: Level, payload: Bytes) {
        self.fed.push_back(core::Input::Cast { group, token, order, level, payload });
    }

    /// Asks for a linearisable read; answered by `ReadReady` or `ReadFailed` of the group.
    pub fn read(&mut self, group: GroupId, token: u64) {
        self.fed.push_back(core::Input::Read { group, token });
    }

    /// A part of the state that `SnapshotWanted` or `ChunkWanted` asked for.
    pub fn snapshot_chunk(&mut self, group: GroupId, position: Position, chunk: Bytes, last: bool) {
        self.fed.push_back(core::Input::SnapshotChunk { group, position, chunk, last });
    }

    /// The part that `RestoreChunk` brought and that ends at `offset` is taken in: the sponsor may send the next one.
    pub fn chunk_taken(&mut self, group: GroupId, position: Position, offset: u64) {
        self.fed.push_back(core::Input::ChunkTaken { group, position, offset });
    }

    /// The state that came by `RestoreChunk` is in, and forced for a group of durability `Disk`.
    pub fn restored(&mut self, group: GroupId, position: Position) {
        self.fed.push_back(core::Input::Restored { group, position });
    }

    /// An operator accepts that acknowledged messages may be lost. It counts at the next view, and only where something
    /// waits: the group is blocked, or too few votes are to be had for a view to follow. False where that is not so, or
    /// where there is no boot to ask: nothing changed.
    #[must_use]
    pub fn accept_loss(&mut self, group: GroupId) -> bool {
        let is_blocked = self.group(group).is_some_and(|it| it.blocked);
        let is_short = |stack: &Stack| stack.core().membership().votes_missing_since().is_some();
        let waits = is_blocked || self.stack.is_some_and(is_short);
        if waits {
            self.fed.push_back(core::Input::AcceptLoss { group });
        }
        waits
    }

    /// Writes a checkpoint of a group of durability `Disk`, chunk by chunk beside the turns; answered by
    /// [`Application::on_checkpoint`], and the group is told. One at a time for each group. `position` must be forced
    /// in the own log ([`forced`](Self::forced)). With `alone` all older checkpoints go first: their states are not
    /// those of the group's past; a failure of such a one halts the site.
    pub fn checkpoint(
        &mut self,
        group: GroupId,
        position: Position,
        alone: bool,
        source: Box<dyn Chunks>,
    ) {
        self.outputs.push_back(Output::Checkpoint { group, position, alone, source });
    }

    /// The checkpoint that `Restored` refers to, once.
    #[must_use]
    pub fn take_checkpoint(&mut self, group: GroupId) -> Option<Vec<Bytes>> {
        self.checkpoints.remove(&group)
    }

    /// The own log has the group's messages up to here.
    #[must_use]
    pub fn forced(&self, group: GroupId) -> Position {
        let group = self.stack.and_then(|stack| stack.core().group(group));
        Position(group.map_or(0, |group| group.status().forced))
    }

    /// Where a group stands here.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<multicast::Status> {
        self.stack.and_then(|stack| stack.core().group(group)).map(multicast::Group::status)
    }

    /// Asks for another turn at once, after all else that is ready on the thread has run.
    pub fn again(&mut self) {
        *self.again = true;
    }
}
