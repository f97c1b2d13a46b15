//! What the user of a replica writes.

use bytes::Bytes;
use mainstay_base::Position;

use crate::RestoreError;

/// A deterministic state machine: the state and the replies follow from the commands alone (PD-30, PD-67).
///
/// No clock, no randomness, no I/O, no order of a hash table. What must differ from run to run comes in as part of a
/// command.
pub trait StateMachine {
    /// What [`begin_snapshot`](Self::begin_snapshot) gives.
    type Snapshot: Snapshot;

    /// Executes one command; the reply is appended to `reply`, which is empty at the call.
    ///
    /// A command that makes no sense is answered, not refused: it is in the order already. A panic here is contained
    /// and halts the group at `at` (see [`Output::Poisoned`](crate::Output::Poisoned)); the state is rebuilt before it
    /// is looked at again.
    fn apply(&mut self, at: Position, command: &[u8], reply: &mut Vec<u8>);

    /// The state as it is now, to be written out while later commands are applied. In O(1): persistent structures or
    /// copy-on-write.
    fn begin_snapshot(&mut self) -> Self::Snapshot;

    /// Goes back to the state before the first command.
    fn reset(&mut self);

    /// Takes in the next chunk of a snapshot; the first one follows a [`reset`](Self::reset).
    ///
    /// # Errors
    /// [`RestoreError::Chunk`] if the chunk is not one of its own. It comes from another site or from a disk: no bytes
    /// may make it panic. The state may be half restored; the replica begins anew with a reset.
    fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError>;

    /// A hash of the state, kept up to date by `apply` so that it costs O(1) here. Equal states have equal hashes on
    /// all sites; different ones differ but for chance.
    fn state_hash(&self) -> u128;
}

/// A state of a [`StateMachine`] on its way out.
pub trait Snapshot {
    /// The next chunk, of at most `max` bytes; `None` after the last one.
    ///
    /// Equal states give equal chunks, whatever commands led there: another sponsor may go on in the middle (MB-80). What
    /// has been given out is best let go of: a large snapshot is read to its end to be freed in pieces.
    fn next_chunk(&mut self, max: usize) -> Option<Bytes>;
}
