//! How others reach a host.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Weak};

use actix::Recipient;
use thiserror::Error;

use super::gate::{Gate, NoEntry};
use super::turns::TurnStats;
use super::{Hosted, Inputs, Posted};

/// How a host ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Closed {
    /// It was asked to stop, or its last handle was dropped, and all that had been admitted was taken in.
    Stopped,
    /// It panicked, or called [`halt`](super::halt): the site has crashed, and only recovery from stable storage leads
    /// back.
    Halted {
        /// The panic's message, or what was given to `halt`.
        reason: Arc<str>,
    },
    /// Its `LocalSet` was dropped while it ran.
    Dropped,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped as asked"),
            Self::Halted { reason } => write!(f, "halted: {reason}"),
            Self::Dropped => f.write_str("dropped with its runtime"),
        }
    }
}

/// An input was not admitted; it comes back. The host's state has not changed.
#[derive(Error)]
pub enum SendError<T> {
    /// The mailbox is full: places or bytes. Try again later.
    #[error("the mailbox is full")]
    Full(T),
    /// The host stops, or has ended. Trying again is of no use.
    #[error("the host has closed")]
    Closed(T),
}

impl<T> SendError<T> {
    /// What was refused.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(refused) | Self::Closed(refused) => refused,
        }
    }

    fn new(entry: NoEntry, refused: T) -> Self {
        match entry {
            NoEntry::Full => Self::Full(refused),
            NoEntry::Closed => Self::Closed(refused),
        }
    }

    fn map<U>(self, change: impl FnOnce(T) -> U) -> SendError<U> {
        match self {
            Self::Full(refused) => SendError::Full(change(refused)),
            Self::Closed(refused) => SendError::Closed(change(refused)),
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

struct Shared<I: Send + 'static> {
    recipient: Recipient<Posted<I>>,
    gate: Arc<Gate>,
    weigh: fn(&I) -> usize,
}

impl<I: Send + 'static> Shared<I> {
    fn post(&self, posted: Posted<I>) -> Result<(), SendError<Inputs<I>>> {
        self.recipient.try_send(posted).map_err(|refused| match refused {
            actix::dev::SendError::Full(posted) => SendError::Full(posted.inputs),
            actix::dev::SendError::Closed(posted) => SendError::Closed(posted.inputs),
        })
    }
}

impl<I: Send + 'static> Drop for Shared<I> {
    fn drop(&mut self) {
        self.gate.stop();
    }
}

/// A handle to a host: cheap to clone, `Send` and `Sync`. When the last is dropped the host stops.
///
/// Inputs of one handle that are sent one after the other are taken in in that order; between senders there is no
/// order. `Ok` says that the input has been admitted: a host that halts before it takes it in drops it.
pub struct HostHandle<M: Hosted> {
    shared: Arc<Shared<M::Input>>,
}

impl<M: Hosted> HostHandle<M> {
    pub(super) fn new(
        recipient: Recipient<Posted<M::Input>>,
        gate: Arc<Gate>,
        weigh: fn(&M::Input) -> usize,
    ) -> Self {
        Self { shared: Arc::new(Shared { recipient, gate, weigh }) }
    }

    /// Sends an input; waits until there is a place and room for its bytes.
    ///
    /// # Errors
    /// [`SendError::Closed`] with the input.
    pub async fn send(&self, input: M::Input) -> Result<(), SendError<M::Input>> {
        match self.shared.gate.enter((self.shared.weigh)(&input)).await {
            Ok(admission) => self
                .shared
                .post(Posted { inputs: Inputs::One(input), admission })
                .map_err(|error| error.map(Inputs::into_one)),
            Err(entry) => Err(SendError::new(entry, input)),
        }
    }

    /// Sends an input if there is room now.
    ///
    /// # Errors
    /// [`SendError`] with the input.
    pub fn try_send(&self, input: M::Input) -> Result<(), SendError<M::Input>> {
        match self.shared.gate.try_enter((self.shared.weigh)(&input)) {
            Ok(admission) => self
                .shared
                .post(Posted { inputs: Inputs::One(input), admission })
                .map_err(|error| error.map(Inputs::into_one)),
            Err(entry) => Err(SendError::new(entry, input)),
        }
    }

    /// Sends inputs as one message, in order; waits until there is a place and room for all their bytes. A batch heavier
    /// than the whole mailbox is admitted when the mailbox is empty.
    ///
    /// # Errors
    /// [`SendError::Closed`] with the inputs.
    pub async fn send_batch(&self, inputs: Vec<M::Input>) -> Result<(), SendError<Vec<M::Input>>> {
        match self.shared.gate.enter(self.weigh(&inputs)).await {
            Ok(admission) => self
                .shared
                .post(Posted { inputs: Inputs::Many(inputs), admission })
                .map_err(|error| error.map(Inputs::into_many)),
            Err(entry) => Err(SendError::new(entry, inputs)),
        }
    }

    /// Sends inputs as one message, in order, if there is room for all of them now.
    ///
    /// # Errors
    /// [`SendError`] with the inputs.
    pub fn try_send_batch(&self, inputs: Vec<M::Input>) -> Result<(), SendError<Vec<M::Input>>> {
        match self.shared.gate.try_enter(self.weigh(&inputs)) {
            Ok(admission) => self
                .shared
                .post(Posted { inputs: Inputs::Many(inputs), admission })
                .map_err(|error| error.map(Inputs::into_many)),
            Err(entry) => Err(SendError::new(entry, inputs)),
        }
    }

    /// Asks for a turn, be the mailbox full or not. Several calls before it are one; a host that has closed has none.
    pub fn wake(&self) {
        self.shared.gate.want();
    }

    /// Asks the host to stop gracefully: inputs are refused from here on, those admitted are still taken in.
    pub fn stop(&self) {
        self.shared.gate.stop();
    }

    /// How the host ended, as soon as it has. The future holds no handle.
    pub fn closed(&self) -> impl Future<Output = Closed> + Send + use<M> {
        closed(Arc::clone(&self.shared.gate))
    }

    /// Whether inputs are refused.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.gate.is_closed()
    }

    /// Bytes admitted that the machine has not taken in.
    #[must_use]
    pub fn bytes_admitted(&self) -> usize {
        self.shared.gate.bytes_admitted()
    }

    /// Turns ended, and questions of the beacon answered.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.shared.gate.pulse.turns()
    }

    /// How long its turns took so far.
    #[must_use]
    pub fn turn_stats(&self) -> TurnStats {
        self.shared.gate.turns.stats()
    }

    /// A handle that does not keep the host running.
    #[must_use]
    pub fn downgrade(&self) -> WeakHandle<M> {
        let gate = Arc::clone(&self.shared.gate);
        WeakHandle { shared: Arc::downgrade(&self.shared), gate }
    }

    fn weigh(&self, inputs: &[M::Input]) -> usize {
        inputs.iter().map(self.shared.weigh).fold(0, usize::saturating_add)
    }
}

fn closed(gate: Arc<Gate>) -> impl Future<Output = Closed> + Send {
    let mut closed = gate.closed.subscribe();
    async move {
        let ended = closed.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        drop(gate);
        ended.unwrap_or(Closed::Dropped)
    }
}

impl<I> Inputs<I> {
    fn into_one(self) -> I {
        match self {
            Self::One(input) => input,
            Self::Many(_) => unreachable!("what was sent as one comes back as one"),
        }
    }

    fn into_many(self) -> Vec<I> {
        match self {
            Self::One(input) => vec![input],
            Self::Many(inputs) => inputs,
        }
    }
}

impl<M: Hosted> Clone for HostHandle<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<M: Hosted> fmt::Debug for HostHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostHandle")
            .field("turns", &self.turns())
            .field("bytes_admitted", &self.bytes_admitted())
            .field("closed", &self.is_closed())
            .finish()
    }
}

/// A handle that does not keep the host running, for what the host itself owns.
pub struct WeakHandle<M: Hosted> {
    shared: Weak<Shared<M::Input>>,
    gate: Arc<Gate>,
}

impl<M: Hosted> WeakHandle<M> {
    /// The handle, unless all were dropped.
    #[must_use]
    pub fn upgrade(&self) -> Option<HostHandle<M>> {
        self.shared.upgrade().map(|shared| HostHandle { shared })
    }

    /// How the host ended, as soon as it has.
    pub fn closed(&self) -> impl Future<Output = Closed> + Send + use<M> {
        closed(Arc::clone(&self.gate))
    }
}

impl<M: Hosted> Clone for WeakHandle<M> {
    fn clone(&self) -> Self {
        Self { shared: Weak::clone(&self.shared), gate: Arc::clone(&self.gate) }
    }
}

impl<M: Hosted> fmt::Debug for WeakHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakHandle").finish_non_exhaustive()
    }
}
