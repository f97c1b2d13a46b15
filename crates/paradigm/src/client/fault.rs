//! Ways to break a client on purpose, so that tests can show that their checks notice.

use super::Client;

/// One deliberate defect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A command that is sent again gets a new number.
    NewNumberOnRetry,
    /// A command whose connection was lost counts as not done.
    NotDoneOnLoss,
}

impl Client {
    /// Breaks this client.
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    pub(super) fn says_not_done_of_lost(&self) -> bool {
        self.fault == Some(Fault::NotDoneOnLoss)
    }

    pub(super) fn forgets_places(&self) -> bool {
        self.fault == Some(Fault::NewNumberOnRetry)
    }
}
