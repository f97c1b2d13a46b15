//! The replica: one state machine, its sessions, and what it tells its host.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hasher as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::{Duration, Fingerprinter, MessageId, NodeId, Position, SiteId, Work, codec};

use crate::account::{Account, CHUNK_BYTE, COMMAND};
use crate::compare::{Compare, Difference, Verdict};
use crate::config::Config;
use crate::envelope::{Envelope, Session};
use crate::sessions::{Admission, Answer, Sessions};
use crate::snapshot::{Restore, RestoreError, SnapshotStream};
use crate::stats::Stats;
use crate::user::StateMachine;
use crate::views::{Members, Names};

mod told;

pub use told::{DeliverError, Outcome, Output, SnapshotError, Status};

/// What is replicated beside the user's state.
pub(crate) struct State {
    pub(crate) position: Position,
    pub(crate) sessions: Sessions,
    /// The poison commands passed over.
    pub(crate) skipped: BTreeSet<Position>,
    pub(crate) members: Members,
    /// Bytes of messages since a checkpoint was last wanted.
    pub(crate) bytes_since: u64,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            position: Position::ZERO,
            sessions: Sessions::new(),
            skipped: BTreeSet::new(),
            members: Members::default(),
            bytes_since: 0,
        }
    }
}

/// The user's code panicked.
struct Panicked;

/// What is due behind a message.
struct Due {
    hash: Option<u128>,
    checkpoint: bool,
}

/// A state that is over. To free a large one takes long: drop it where nobody waits.
#[must_use = "a large state is best dropped on another thread"]
pub struct Retired<S> {
    _machine: S,
    _state: State,
    _restore: Option<Restore>,
}

/// A replica of a state machine.
///
/// One replica serves one membership of its site in its group: a site that comes back makes a new one. Outputs are
/// bounded by the calls of a turn: at most four for each.
pub struct Replica<S: StateMachine> {
    config: Config,
    config_hash: u128,
    machine: S,
    state: State,
    status: Status,
    /// For the views that the machine is told.
    names: Names,
    restore: Option<Restore>,
    /// To be passed over when they come again; learnt while the replica stood at them.
    passes: BTreeSet<Position>,
    /// The outcomes up to here have been told.
    told: Position,
    compare: Compare,
    /// Where `apply` writes; kept for its capacity.
    reply: Vec<u8>,
    outputs: VecDeque<Output>,
    stats: Stats,
    account: Account,
}

impl<S: StateMachine> Replica<S> {
    /// A replica before the first command; `machine` is in its initial state.
    #[must_use]
    pub fn new(config: Config, machine: S) -> Self {
        let mut hasher = Fingerprinter::new();
        hasher.write(&codec::encode(&config));
        let compare = Compare::new(config.hashes_max);
        Self {
            config_hash: hasher.finish128(),
            config,
            machine,
            state: State::new(),
            status: Status::Running,
            names: Names::default(),
            restore: None,
            passes: BTreeSet::new(),
            told: Position::ZERO,
            compare,
            reply: Vec::new(),
            outputs: VecDeque::new(),
            stats: Stats::default(),
            account: Account::default(),
        }
    }

    /// Sets how much a turn may do, in nominal time. Default [`TURN_WORK`](crate::TURN_WORK).
    #[must_use]
    pub fn turn_work(mut self, most: Duration) -> Self {
        self.account.most = most;
        self
    }

    /// What the nodes are called, for the views that the state machine is told. The same at all replicas. Default: nobody has a name.
    #[must_use]
    pub fn names(mut self, names: BTreeMap<NodeId, Arc<str>>) -> Self {
        self.names = Names::new(names);
        self
    }

    /// Whether this turn has done as much as a turn may: what is left is for the next one. Counted since
    /// [`take_work`](Self::take_work) was last called, that is once a turn.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.account.is_spent()
    }

    /// What was done since the last call.
    pub fn take_work(&mut self) -> Work {
        self.account.take()
    }

    /// Counts what the host did with the state: a chunk of a snapshot made, a read.
    pub fn charge(&mut self, nominal: Duration, bytes: usize) {
        self.account.add(nominal, bytes, self.machine.work());
    }

    /// Executes the message at the next position; `is_mine` asks for an [`Output::Reply`].
    ///
    /// A position that the state contains already is passed over. While the replica is poisoned it only looks for the
    /// skip: what comes then has to come again after the rebuild.
    ///
    /// # Errors
    /// [`DeliverError`]; nothing changed.
    pub fn deliver(
        &mut self,
        position: Position,
        message: MessageId,
        payload: Bytes,
        is_mine: bool,
    ) -> Result<(), DeliverError> {
        match self.status {
            Status::Running => {}
            Status::Poisoned { position: poison } => {
                self.charge(COMMAND, payload.len());
                self.on_held(poison, &payload);
                return Ok(());
            }
            _ => {
                self.charge(COMMAND, payload.len());
                return Err(DeliverError::NotRunning(self.status));
            }
        }
        if position <= self.state.position {
            self.charge(COMMAND, payload.len());
            self.stats.stale += 1;
            return Ok(());
        }
        let expected = self.state.position.next();
        if position != expected {
            return Err(DeliverError::Gap { expected });
        }
        let fresh = position > self.told;
        let executed = self.execute(position, &payload, is_mine);
        self.charge(COMMAND, payload.len() + self.reply.len());
        // A command whose state cannot be hashed is not answered: it is the one that will be passed over.
        let executed =
            executed.and_then(|outcome| Ok((outcome, self.advance(position, payload.len())?)));
        let Ok((outcome, due)) = executed else {
            self.stats.panics += 1;
            self.status = Status::Poisoned { position };
            self.outputs.push_back(Output::Poisoned { position });
            return Ok(());
        };
        self.told = self.told.max(position);
        if let Some(outcome) = outcome.filter(|_| is_mine && fresh) {
            self.outputs.push_back(Output::Reply { message, position, outcome });
        }
        self.tell(position, due, fresh);
        Ok(())
    }

    /// The state as of [`position`](Self::position), in O(1); the replica goes on at once.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing changed.
    pub fn snapshot(&mut self) -> Result<SnapshotStream<S::Snapshot>, SnapshotError> {
        if self.status != Status::Running {
            return Err(SnapshotError::NotRunning(self.status));
        }
        let hash = self.hash();
        let user = self.machine.begin_snapshot();
        Ok(SnapshotStream::new(&self.config, &self.state, user, hash))
    }

    /// Gives up the state for that of `machine`, which is newly made; [`restore_chunk`](Self::restore_chunk) is next.
    /// Allowed at any time, also to begin anew.
    pub fn begin_restore(&mut self, machine: S) -> Retired<S> {
        let _machine = std::mem::replace(&mut self.machine, machine);
        let _state = std::mem::replace(&mut self.state, State::new());
        let _restore = self.restore.replace(Restore::new());
        self.account.restart(self.machine.work());
        self.compare.forget_own();
        self.status = Status::Restoring;
        Retired { _machine, _state, _restore }
    }

    /// The end of a replica whose boot is over.
    pub fn retire(self) -> Retired<S> {
        Retired { _machine: self.machine, _state: self.state, _restore: self.restore }
    }

    /// Takes the next chunk of a snapshot in. Chunks may come from different sponsors if all are of one position.
    ///
    /// # Errors
    /// [`RestoreError`]; the replica is [`Status::Empty`] then: begin anew.
    pub fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        let mut restore = self.restore.take().ok_or(RestoreError::NotRestoring)?;
        self.status = Status::Empty;
        let taken = restore.chunk(&self.config, &mut self.machine, chunk);
        self.charge(CHUNK_BYTE.saturating_mul(chunk.len() as u32), chunk.len());
        taken?;
        self.restore = Some(restore);
        self.status = Status::Restoring;
        Ok(())
    }

    /// All chunks of the snapshot of `position` are in: the replica runs, and `position.next()` is to be delivered.
    ///
    /// Without any chunk and with [`Position::ZERO`] it starts from the beginning. Messages of this site up to
    /// `position` that had no answer here get none: a retry in their session finds it.
    ///
    /// # Errors
    /// [`RestoreError`]; the replica is [`Status::Empty`] then: begin anew.
    pub fn restored(&mut self, position: Position) -> Result<(), RestoreError> {
        let restore = self.restore.take().ok_or(RestoreError::NotRestoring)?;
        self.status = Status::Empty;
        let (state, hash) = restore.finish(position)?;
        self.state = state;
        if hash.is_some_and(|hash| hash != self.hash()) {
            return Err(RestoreError::Hash);
        }
        self.passes.retain(|pass| *pass > position);
        self.told = self.told.max(position);
        self.status = Status::Running;
        Ok(())
    }

    /// Sets who the other members of the group are; their hashes alone count.
    pub fn set_members(&mut self, others: &BTreeSet<SiteId>) {
        self.compare.set_others(others);
    }

    /// Another member says which hash its state had at `position` ([`Output::HashAt`]).
    pub fn hash_of(&mut self, site: SiteId, position: Position, hash: u128) {
        let usable = position.0.is_multiple_of(self.config.hash_every);
        match usable.then(|| self.compare.other(site, position, hash)).flatten() {
            None => self.stats.hashes_dropped += 1,
            Some(None) => {}
            Some(Some(difference)) => self.on_difference(position, difference),
        }
    }

    /// The next output, in order.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The state is as of here.
    #[must_use]
    pub fn position(&self) -> Position {
        self.state.position
    }

    /// Whether the replica executes.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// The user's machine, to be read; `None` while the replica does not run.
    ///
    /// A linearisable read first makes sure that [`position`](Self::position) has reached what a majority knows.
    #[must_use]
    pub fn machine(&self) -> Option<&S> {
        (self.status == Status::Running).then_some(&self.machine)
    }

    /// The hash of the replicated state: the user's and the replica's own; `None` while the replica does not run, or if the
    /// state machine panics.
    #[must_use]
    pub fn state_hash(&self) -> Option<u128> {
        (self.status == Status::Running).then(|| self.try_hash().ok()).flatten()
    }

    /// How many sessions are open.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.state.sessions.len()
    }

    /// The number of the view that is in the order up to [`position`](Self::position), 0 before the first; `None` while
    /// the replica does not run.
    #[must_use]
    pub fn view_number(&self) -> Option<u64> {
        (self.status == Status::Running).then_some(self.state.members.number)
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The outcome of the message; `None` for one that nobody here asked for and that is not saved either.
    fn execute(
        &mut self,
        at: Position,
        payload: &[u8],
        is_mine: bool,
    ) -> Result<Option<Outcome>, Panicked> {
        if self.passes.contains(&at) {
            self.pass(at, payload);
            return Ok(Some(Outcome::Skipped));
        }
        let outcome = match Envelope::decode(payload) {
            Err(_) => {
                self.stats.malformed += 1;
                Outcome::Malformed
            }
            Ok((Envelope::Anonymous, command)) => {
                self.apply(at, command)?;
                return Ok(is_mine.then(|| self.done()));
            }
            Ok((Envelope::Command { session, number, acked_upto }, command)) => {
                self.on_command(at, session, number, acked_upto, command)?
            }
            Ok((Envelope::Open { id }, _)) => {
                let session = self.state.sessions.open(at, id);
                self.evict();
                Outcome::Opened(session)
            }
            Ok((Envelope::Close { session }, _)) if self.state.sessions.close(session) => {
                Outcome::Closed
            }
            Ok((Envelope::Close { .. }, _)) => Outcome::SessionExpired,
            Ok((Envelope::Skip { position }, _)) if self.state.skipped.contains(&position) => {
                Outcome::SkipAccepted
            }
            Ok((Envelope::Skip { .. }, _)) => Outcome::NotPoisoned,
            Ok((Envelope::View { number }, members)) => self.on_view(at, number, members)?,
        };
        Ok(Some(outcome))
    }

    fn on_command(
        &mut self,
        at: Position,
        session: Session,
        number: u64,
        acked_upto: u64,
        command: &[u8],
    ) -> Result<Outcome, Panicked> {
        let sessions = &mut self.state.sessions;
        Ok(match sessions.admit(&self.config, at, session, number, acked_upto) {
            Admission::Execute => {
                self.apply(at, command)?;
                self.state.sessions.save(&self.config, session.id, number, &self.reply);
                self.evict();
                self.done()
            }
            Admission::Duplicate(answer) => {
                self.stats.duplicates += 1;
                match answer {
                    Answer::Done(reply) => Outcome::Done(reply),
                    Answer::NotSaved => Outcome::AnswerNotSaved,
                    Answer::Skipped => Outcome::Skipped,
                }
            }
            Admission::Expired => {
                self.stats.expired += 1;
                Outcome::SessionExpired
            }
            Admission::Acknowledged => Outcome::Acknowledged,
            Admission::Beyond => Outcome::TooManyOutstanding,
        })
    }

    /// Tells the user's code the view, unless it is an old one.
    fn on_view(&mut self, at: Position, number: u64, members: &[u8]) -> Result<Outcome, Panicked> {
        let Ok((sites, departures)) = Envelope::decode_members(members) else {
            self.stats.malformed += 1;
            return Ok(Outcome::Malformed);
        };
        let next = Members { number, sites };
        if let Some(change) = self.state.members.change_to(&next, &departures, &self.names) {
            let machine = &mut self.machine;
            catch_unwind(AssertUnwindSafe(|| machine.view(at, &change))).map_err(|_| Panicked)?;
            self.state.members = next;
        }
        Ok(Outcome::ViewNoted)
    }

    /// Passes over the poison at `at`; a copy of it further on is passed over too.
    fn pass(&mut self, at: Position, payload: &[u8]) {
        let State { skipped, sessions, members, .. } = &mut self.state;
        skipped.insert(at);
        match Envelope::decode(payload) {
            Ok((Envelope::Command { session, number, acked_upto }, _)) => {
                if let Admission::Execute =
                    sessions.admit(&self.config, at, session, number, acked_upto)
                {
                    sessions.put(session.id, number, Answer::Skipped);
                }
            }
            Ok((Envelope::View { number }, sites)) => {
                if let Ok((sites, _)) = Envelope::decode_members(sites)
                    && number > members.number
                {
                    *members = Members { number, sites };
                }
            }
            _ => {}
        }
    }

    /// Runs the user's code. What a panic leaves behind is never read: the state is rebuilt first.
    fn apply(&mut self, at: Position, command: &[u8]) -> Result<(), Panicked> {
        self.stats.applied += 1;
        self.reply.clear();
        let (machine, reply) = (&mut self.machine, &mut self.reply);
        catch_unwind(AssertUnwindSafe(|| machine.apply(at, command, reply))).map_err(|_| Panicked)
    }

    fn done(&self) -> Outcome {
        Outcome::Done(Bytes::copy_from_slice(&self.reply))
    }

    fn evict(&mut self) {
        self.stats.evicted += self.state.sessions.evict(&self.config);
    }

    /// Counts the message in. What is due at its position: the hash, and whether it is one for a checkpoint.
    fn advance(&mut self, position: Position, bytes: usize) -> Result<Due, Panicked> {
        let before = std::mem::replace(&mut self.state.position, position);
        self.state.bytes_since = self.state.bytes_since.saturating_add(bytes as u64);
        let checkpoint = self.state.bytes_since > self.config.checkpoint_bytes;
        if checkpoint {
            self.state.bytes_since = 0;
        }
        let is_hashed = position.0.is_multiple_of(self.config.hash_every);
        let hash = is_hashed.then(|| self.try_hash()).transpose();
        let hash = hash.inspect_err(|_| self.state.position = before)?;
        Ok(Due { hash, checkpoint })
    }

    fn tell(&mut self, position: Position, Due { hash, checkpoint }: Due, fresh: bool) {
        if let Some(hash) = hash {
            if fresh {
                self.outputs.push_back(Output::HashAt { position, hash });
            }
            if let Some(difference) = self.compare.own(position, hash) {
                self.on_difference(position, difference);
            }
        }
        if checkpoint && fresh {
            self.outputs.push_back(Output::CheckpointWanted { position });
        }
    }

    /// A message while the replica is poisoned: the skip, or one that has to come again.
    fn on_held(&mut self, poison: Position, payload: &[u8]) {
        self.stats.held += 1;
        let skip = Envelope::Skip { position: poison };
        if !Envelope::decode(payload).is_ok_and(|(envelope, _)| envelope == skip) {
            return;
        }
        // It is passed over already, and its position is one at which the state cannot be hashed: that state is of earlier commands.
        let is_passed = self.passes.contains(&poison);
        if is_passed || self.state.skipped.len() >= self.config.skips_max {
            self.stats.skips_refused += 1;
            return;
        }
        self.passes.insert(poison);
        self.status = Status::Empty;
        self.outputs.push_back(Output::Rebuild { skipping: poison });
    }

    fn on_difference(&mut self, position: Position, difference: Difference) {
        let Difference { verdict, sites } = difference;
        let halts = matches!(verdict, Verdict::Own | Verdict::Split);
        if halts && self.status == Status::Running {
            self.status = Status::Diverged { position };
        }
        self.outputs.push_back(Output::Diverged { position, verdict, sites });
    }

    fn try_hash(&self) -> Result<u128, Panicked> {
        catch_unwind(AssertUnwindSafe(|| self.hash())).map_err(|_| Panicked)
    }

    fn hash(&self) -> u128 {
        let mut hasher = Fingerprinter::new();
        hasher.write_u128(self.config_hash);
        hasher.write_u64(self.state.position.0);
        hasher.write_u64(self.state.bytes_since);
        for skipped in &self.state.skipped {
            hasher.write_u64(skipped.0);
        }
        self.state.members.hash(&mut hasher);
        hasher.write_u128(self.state.sessions.sum());
        hasher.write_u128(self.machine.state_hash());
        hasher.finish128()
    }
}
