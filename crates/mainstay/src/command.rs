//! What goes from a handle to the site's thread.

use mainstay_base::Position;
use mainstay_paradigm::client::NotDone;
use mainstay_site as site;
use tokio::sync::oneshot;

use crate::outcome::{AcceptLossError, Answer};
use crate::queue::Submitted;
use crate::status::ReplicaStatus;

/// Reads the state, or is told why it cannot.
pub(crate) type ReadFn<S> = Box<dyn FnOnce(Result<&S, NotDone>) + Send>;

pub(crate) enum Command<S: 'static> {
    Submit(Submitted),
    Read { read: ReadFn<S>, local: bool },
    Skip { position: Position, answer: Answer },
    Status(oneshot::Sender<ReplicaStatus>),
    AcceptLoss(oneshot::Sender<Result<(), AcceptLossError>>),
}

impl<S: 'static> site::Command for Command<S> {
    fn weight(&self) -> usize {
        match self {
            Self::Submit(submitted) => submitted.payload.len(),
            Self::Read { .. } | Self::Skip { .. } | Self::Status(_) | Self::AcceptLoss(_) => 0,
        }
    }
}
