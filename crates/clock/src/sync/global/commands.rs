//! Commands of the clock as messages.

use std::fmt;

use mainstay_base::Instant;
use mainstay_runtime::{ActorMessage, Carries, LocalFuture, Recipient};
use mainstay_service::ReachError;

use super::face::{AlarmId, ClockHandle, WaitError};
use crate::Time;

/// Have a message sent to an actor when the clock says `at`, as a message to the [`Porter`](mainstay_runtime::Porter) of a
/// [`ClockHandle`]; answered as [`ClockHandle::at`] is.
pub struct SetAlarm<M>
where
    M: ActorMessage + Send + 'static,
    M::Result: Send,
{
    /// When.
    pub at: Time,
    /// To whom.
    pub to: Recipient<M>,
    /// What.
    pub message: M,
}

impl<M> ActorMessage for SetAlarm<M>
where
    M: ActorMessage + Send + 'static,
    M::Result: Send,
{
    type Result = Result<AlarmId, WaitError>;
}

impl<M> Carries<SetAlarm<M>> for ClockHandle
where
    M: ActorMessage + Send + 'static,
    M::Result: Send,
{
    fn carry(&self, command: SetAlarm<M>) -> LocalFuture<Result<AlarmId, WaitError>> {
        let (clock, SetAlarm { at, to, message }) = (self.clone(), command);
        Box::pin(async move { clock.at(at, to, message).await })
    }
}

impl<M> fmt::Debug for SetAlarm<M>
where
    M: ActorMessage + Send + 'static,
    M::Result: Send,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetAlarm").field("at", &self.at).finish_non_exhaustive()
    }
}

/// Take a message back, as a message to the [`Porter`](mainstay_runtime::Porter) of a [`ClockHandle`]; answered as
/// [`ClockHandle::cancel`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CancelAlarm(pub AlarmId);

impl ActorMessage for CancelAlarm {
    type Result = bool;
}

impl Carries<CancelAlarm> for ClockHandle {
    fn carry(&self, CancelAlarm(id): CancelAlarm) -> LocalFuture<bool> {
        Box::pin(std::future::ready(self.cancel(id)))
    }
}

/// A reference of the node was read, as a message to the [`Porter`](mainstay_runtime::Porter) of a [`ClockHandle`]; answered as
/// [`ClockHandle::reference`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reference {
    /// The local time.
    pub at: Instant,
    /// What it said, in nanoseconds.
    pub value: i64,
}

impl ActorMessage for Reference {
    type Result = Result<(), ReachError>;
}

impl Carries<Reference> for ClockHandle {
    fn carry(&self, Reference { at, value }: Reference) -> LocalFuture<Result<(), ReachError>> {
        let clock = self.clone();
        Box::pin(async move { clock.reference(at, value).await })
    }
}
