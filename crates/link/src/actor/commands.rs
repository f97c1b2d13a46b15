//! Sends as messages.

use bytes::Bytes;
use mainstay_runtime::{ActorMessage, Carries, LocalFuture};

use super::event::Peer;
use super::handle::{LinkHandle, SendError, Sent, To};

/// A message to a node, as a message to the [`Porter`](super::Porter) of a [`LinkHandle`]; answered as [`LinkHandle::send_now`] is, after the
/// link's next turn at most. Messages to one porter are sent in the order in which they came to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SendCommand {
    /// The name of the node, in the roster.
    pub to: String,
    /// One boot of the node and no other; `None` is the one that the link knows when it accepts the message.
    pub boot: Option<Peer>,
    /// What; at most [`MESSAGE_BYTES_MAX`](super::MESSAGE_BYTES_MAX).
    pub payload: Bytes,
}

impl SendCommand {
    /// To a node, whichever boot of it is alive.
    #[must_use]
    pub fn new(to: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self { to: to.into(), boot: None, payload: payload.into() }
    }
}

impl ActorMessage for SendCommand {
    type Result = Result<Sent, SendError>;
}

impl Carries<SendCommand> for LinkHandle {
    fn carry(&self, command: SendCommand) -> LocalFuture<Result<Sent, SendError>> {
        let SendCommand { to, boot, payload } = command;
        let to = boot.as_ref().map_or(To::Node(&to), To::Boot);
        Box::pin(self.begin(to, payload))
    }
}
