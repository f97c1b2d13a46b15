//! What stands on the groups of a site, and what it may ask of the site.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use mainstay_base::service::Chunks;
use mainstay_base::{GroupId, Instant, Level, MessageId, Order, Position, Work};
use mainstay_multicast::{self as multicast, CastError};

use super::machine::Output;
use super::trace::Recording;
use crate::core;
use crate::stack::{self, Stack};

/// What stands on one group of a site.
///
/// It is called within the turns of the site, on its thread, with no mailbox between: a call must not block and should
/// stay well under a millisecond. Work that is larger is cut into slices, see [`AppPort::again`]. A panic halts the site.
///
/// Whoever wants something of it puts it into an [`Inbox`](mainstay_runtime::Inbox) that rings the site's bell with the group.
pub trait Application: 'static {
    /// The group tells something.
    fn on_event(&mut self, event: multicast::Event, port: &mut AppPort<'_>);

    /// There is something in its inbox. What follows from it goes into the same turn.
    fn woken(&mut self, port: &mut AppPort<'_>);

    /// A checkpoint that [`AppPort::checkpoint`] began is forced, or was given up. Default: nothing.
    fn on_checkpoint(&mut self, done: CheckpointDone, port: &mut AppPort<'_>) {
        let _ = (done, port);
    }

    /// The group's records hold the log back, although it has little in it: a [checkpoint](AppPort::checkpoint) is due if there is
    /// anything that the last one lacks. Default: nothing.
    fn compact(&mut self, port: &mut AppPort<'_>) {
        let _ = port;
    }

    /// Too few voters are heard, so the group pauses; or enough again. Default: nothing.
    fn on_minority(&mut self, on: bool) {
        let _ = on;
    }

    /// The former boot is dead and the site starts anew from its log: what was asked of the group is answered no more, and
    /// no state is known until the group says so.
    fn restarted(&mut self, now: Instant);

    /// The turn ends: a place for work that was put off and for deadlines. Called if anything above was, if it is
    /// [due](Self::poll_timeout), asked to be called [again](AppPort::again), or [waits](Self::waits).
    fn end_turn(&mut self, port: &mut AppPort<'_>);

    /// When [`end_turn`](Self::end_turn) is wanted at the latest; `None`: nothing to wait for. Asked after each call of it.
    fn poll_timeout(&self) -> Option<Instant>;

    /// It waits for what nobody tells it, as room in the group or the progress of the log: each turn of the site is one of
    /// its own. Default: it does not.
    fn waits(&self) -> bool {
        false
    }

    /// It has the state of the group, and does what it is for. Default: always.
    fn is_ready(&self) -> bool {
        true
    }

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
    /// As of.
    pub position: Position,
    /// It is forced; otherwise the older ones stand.
    pub written: bool,
}

/// What an application may ask of its site, for its group. Within [`Application::end_turn`] it takes effect in the next turn, which
/// follows at once, elsewhere in the same.
pub struct AppPort<'a> {
    pub(super) now: Instant,
    pub(super) group: GroupId,
    pub(super) stack: Option<&'a mut Stack>,
    pub(super) recording: Option<&'a mut Recording>,
    pub(super) outputs: &'a mut VecDeque<Output>,
    pub(super) checkpoints: &'a mut BTreeMap<GroupId, Vec<Bytes>>,
    /// The Stack was given something, or the application wants another turn.
    pub(super) stack_given: &'a mut bool,
    pub(super) again: &'a mut bool,
    pub(super) is_spent: bool,
}

impl AppPort<'_> {
    /// The time of the turn.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The group.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.group
    }

    /// Whether there is a boot to ask; not between a death and the recovery from it, when all but
    /// [`again`](Self::again) is of no effect.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.stack.is_some()
    }

    /// Casts, at the end of the turn; see [`Group::cast`](multicast::Group::cast).
    ///
    /// # Errors
    /// [`CastError`]; nothing changed.
    pub fn cast(
        &mut self,
        order: Order,
        level: Level,
        payload: Bytes,
    ) -> Result<MessageId, CastError> {
        let Some(stack) = &mut self.stack else { return Err(CastError::NotMember) };
        let message = stack.cast(self.now, self.group, order, level, payload)?;
        *self.stack_given = true;
        if let Some(recording) = &mut self.recording {
            recording.cast(self.now, self.group, message, order);
        }
        Ok(message)
    }

    fn core(&mut self, input: core::Input) {
        if let Some(stack) = &mut self.stack {
            use mainstay_base::Machine as _;
            stack.handle(self.now, stack::Input::Core(input));
            *self.stack_given = true;
        }
    }

    /// Asks for a linearisable read; answered by `ReadReady` or `ReadFailed` of the group.
    pub fn read(&mut self, token: u64) {
        self.core(core::Input::Read { group: self.group, token });
    }

    /// A part of the state that `SnapshotWanted` or `ChunkWanted` asked for.
    pub fn snapshot_chunk(&mut self, position: Position, chunk: Bytes, last: bool) {
        self.core(core::Input::SnapshotChunk { group: self.group, position, chunk, last });
    }

    /// The part that `RestoreChunk` brought and that ends at `offset` is taken in: the sponsor may send the next one.
    pub fn chunk_taken(&mut self, position: Position, offset: u64) {
        self.core(core::Input::ChunkTaken { group: self.group, position, offset });
    }

    /// The state that came by `RestoreChunk` is in. For a group of durability `Disk` it has to be forced first: by a
    /// [`checkpoint`](Self::checkpoint) with `alone` that was written.
    pub fn restored(&mut self, position: Position) {
        self.core(core::Input::Restored { group: self.group, position });
    }

    /// An operator accepts that acknowledged messages may be lost. It counts at the next view, and only where something
    /// waits: the group is blocked, or too few votes are to be had for a view to follow. False where that is not so, or
    /// where there is no boot to ask: nothing changed.
    #[must_use]
    pub fn accept_loss(&mut self) -> bool {
        let is_blocked = self.status().is_some_and(|it| it.blocked);
        let is_short = |stack: &Stack| stack.core().membership().votes_missing_since().is_some();
        let waits = is_blocked || self.stack.as_deref().is_some_and(is_short);
        if waits {
            self.core(core::Input::AcceptLoss { group: self.group });
        }
        waits
    }

    /// Writes a checkpoint of a group of durability `Disk`, chunk by chunk beside the turns; answered by
    /// [`Application::on_checkpoint`], and the group is told. One at a time. `position` must be forced
    /// in the own log ([`forced`](Self::forced)). With `alone` all older checkpoints go first: their states are not
    /// those of the group's past; a failure of such a one halts the site.
    pub fn checkpoint(&mut self, position: Position, alone: bool, source: Box<dyn Chunks>) {
        let group = self.group;
        self.outputs.push_back(Output::Checkpoint { group, position, alone, source });
    }

    /// The checkpoint that `Restored` refers to, once.
    #[must_use]
    pub fn take_checkpoint(&mut self) -> Option<Vec<Bytes>> {
        self.checkpoints.remove(&self.group)
    }

    /// The own log has the group's messages up to here.
    #[must_use]
    pub fn forced(&self) -> Position {
        Position(self.status().map_or(0, |status| status.forced))
    }

    /// Where the group stands here.
    #[must_use]
    pub fn status(&self) -> Option<multicast::Status> {
        let stack = self.stack.as_deref()?;
        stack.core().group(self.group).map(multicast::Group::status)
    }

    /// Whether the applications of the site have done as much in this turn as they may together, by what they
    /// [say](Application::take_work): what waits, waits for [another turn](Self::again). Never so for the first that is turned, and that is
    /// another one each time.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// Asks for another turn at once, after all else that is ready on the thread has run.
    pub fn again(&mut self) {
        *self.again = true;
    }
}
