//! What the user of a replica writes.

use bytes::Bytes;
use mainstay_base::Position;

use crate::RestoreError;
use crate::views::MembersChanged;

/// A deterministic state machine: the state and the replies follow from the commands alone (PD-30, PD-67).
///
/// No clock, no randomness, no I/O, no order of a hash table. What must differ from run to run comes in as part of a
/// command.
///
/// It is `Send`, as its snapshots are: the host writes a snapshot out, and frees a state that is over, on other threads.
pub trait StateMachine: Send + 'static {
    /// What [`begin_snapshot`](Self::begin_snapshot) gives.
    type Snapshot: Snapshot;

    /// Executes one command; the reply is appended to `reply`, which is empty at the call.
    ///
    /// A command that makes no sense is answered, not refused: it is in the order already. A panic here is contained
    /// and halts the group at `at` (see [`Output::Poisoned`](crate::Output::Poisoned)); the state is rebuilt before it
    /// is looked at again.
    fn apply(&mut self, at: Position, command: &[u8], reply: &mut Vec<u8>);

    /// The members of the group are others: told in the order of the commands, at the same place at all replicas, and again
    /// when a log is replayed. Leases of those who left are given back here. As deterministic as [`apply`](Self::apply), and a
    /// panic is contained as there. Default: nothing.
    ///
    /// Members change when a site fails, or is thought to have failed, or comes back: whoever left may still believe that it
    /// has what it had. What it sends under its former number must be told from what others send (fencing).
    fn view(&mut self, at: Position, view: &MembersChanged) {
        let _ = (at, view);
    }

    /// The state as it is now, to be written out while later commands are applied. In O(1): persistent structures or
    /// copy-on-write, where a later command copies a bounded part. Do not copy the whole state: it blocks the node, and
    /// the others declare it dead.
    fn begin_snapshot(&mut self) -> Self::Snapshot;

    /// Takes in the next chunk of a snapshot; before the first one the machine is newly made.
    ///
    /// # Errors
    /// [`RestoreError::Chunk`] if the chunk is not one of its own. It comes from another site or from a disk: no bytes
    /// may make it panic. The state may be half restored; the replica begins anew with a new machine.
    fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError>;

    /// A hash of the state, kept up to date by `apply` so that it costs O(1) here. Equal states have equal hashes on
    /// all sites; different ones differ but for chance.
    fn state_hash(&self) -> u128;

    /// How much it has done so far, in nominal nanoseconds: a count that only grows, from any start. Count only costs that do
    /// not follow from the length of a command, a reply or a chunk: entries looked up (about 1,500 each in a large map, which no cache holds),
    /// parts copied behind a snapshot (about 80 an entry that counts references of its own). Reads count too, so keep it in a `Cell`. A
    /// turn of the node ends early when much was done; one that was long all the same is warned of in the log with what it counted: if
    /// that is far from the time at work, count more. Default: nothing is counted.
    fn work(&self) -> u64 {
        0
    }
}

/// A state of a [`StateMachine`] on its way out.
pub trait Snapshot: Send + 'static {
    /// The next chunk, of at most `max` bytes; `None` after the last one. The work is in proportion to `max`, whatever the
    /// size of the state.
    ///
    /// Equal states give equal chunks, whatever commands led there: another sponsor may go on in the middle (MB-80). Drop
    /// what you have given out, so that later commands need not copy it. A panic here, or a chunk that is too large, costs
    /// the checkpoint; a state that is not restored equal halts the node at its next start: test the round trip.
    fn next_chunk(&mut self, max: usize) -> Option<Bytes>;
}

/// A state that is encoded already, in chunks as large as may be.
impl Snapshot for Bytes {
    fn next_chunk(&mut self, max: usize) -> Option<Bytes> {
        (!self.is_empty()).then(|| self.split_to(max.min(self.len())))
    }
}

/// A small state that is encoded already. Each chunk moves what is left: one of many chunks is better as `Bytes`, which it
/// becomes with `into` and without a copy.
impl Snapshot for Vec<u8> {
    fn next_chunk(&mut self, max: usize) -> Option<Bytes> {
        let rest = self.split_off(max.min(self.len()));
        let chunk = std::mem::replace(self, rest);
        (!chunk.is_empty()).then(|| chunk.into())
    }
}
