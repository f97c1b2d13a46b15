//! The one trait of every protocol.

use crate::{Instant, Work};

/// A protocol as a pure state machine: inputs in, outputs out, no clock, no socket, no thread, no hidden randomness.
///
/// # Law of driving
/// A *turn* is any number of [`handle`](Self::handle), then one [`end_turn`](Self::end_turn), then
/// [`poll_output`](Self::poll_output) until it answers `None`; afterwards the host re-arms its one timer from
/// [`poll_timeout`](Self::poll_timeout). Calling `handle` between `end_turn` and the end of the drain is a bug of the
/// host. Sends, numbers, acknowledgements and writes are coalesced until `end_turn`: without turns there is no
/// batching. `now` never goes back.
///
/// # Determinism
/// Two machines made alike and driven by the same calls give the same outputs, for ever.
pub trait Machine {
    /// What happened: a message from a peer, a command from above, a completed write, a new view.
    type Input;
    /// What is to be done: send, persist, tell. One FIFO: order is meaning.
    type Output;

    /// Takes one input in.
    fn handle(&mut self, now: Instant, input: Self::Input);

    /// The deadline of [`poll_timeout`](Self::poll_timeout) has come. Early and spurious calls are harmless.
    fn handle_timeout(&mut self, now: Instant);

    /// Closes the turn: what was gathered since the last one is put into the outputs.
    fn end_turn(&mut self, now: Instant);

    /// The next output, in order.
    #[must_use]
    fn poll_output(&mut self) -> Option<Self::Output>;

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called; `None`: nothing to wait for.
    #[must_use]
    fn poll_timeout(&self) -> Option<Instant>;

    /// What was done since the last call. A turn is bounded in work whatever the size of the state behind it; the host
    /// asks once a turn, says so if a turn was long, and a simulator lets it take its time. Default: nothing is counted.
    #[must_use]
    fn take_work(&mut self) -> Work {
        Work::default()
    }

    /// How many bytes of inputs the next turn may take in, beyond the host's own bound. A machine that is behind with
    /// its work takes in no more than it works off. One input is always taken. Default: as many as there are.
    #[must_use]
    fn intake_bytes_max(&self) -> usize {
        usize::MAX
    }
}
