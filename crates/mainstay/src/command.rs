//! What goes from a handle to the site's thread.

use bytes::Bytes;
use mainstay_base::Position;
use mainstay_paradigm::client::NotDone;
use tokio::sync::oneshot;

use crate::outcome::{AcceptLossError, Answer, Fate};
use crate::status::ReplicaStatus;

/// Reads the state, or is told why it cannot.
/// Answers how many bytes it has made of the state, as far as that is known.
pub(crate) type ReadFn<S> = Box<dyn FnOnce(Result<&S, NotDone>) -> usize + Send>;

/// A command, on its way to the queue.
pub(crate) struct Submit {
    pub(crate) payload: Bytes,
    pub(crate) answer: Answer,
}

/// Everything else: it does not wait behind commands.
pub(crate) enum Ask<S: 'static> {
    Read { read: ReadFn<S>, local: bool },
    Skip { position: Position, answer: Answer },
    Status(oneshot::Sender<ReplicaStatus>),
    AcceptLoss(oneshot::Sender<Result<(), AcceptLossError>>),
}

impl<S: 'static> Ask<S> {
    /// Tells whoever asked that it was not taken.
    pub(crate) fn refuse(self, reason: NotDone) {
        match self {
            Self::Skip { answer, .. } => answer.tell(Fate::NotDone(reason)),
            Self::Read { read, .. } => drop(read(Err(reason))),
            Self::Status(_) | Self::AcceptLoss(_) => {}
        }
    }
}
