//! Where what the network brings to a process waits until it is read.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use mainstay_runtime::TransportEvent;

/// Takes in what the network brings to a process.
pub(super) trait Mailbox {
    /// `read` is given back when the event has been read.
    fn push(&self, event: TransportEvent, read: Option<Read>);
}

/// What a process has not read yet.
#[derive(Default)]
pub(super) struct Inbox {
    events: RefCell<VecDeque<(TransportEvent, Option<Read>)>>,
    reader: RefCell<Option<Waker>>,
}

/// What reading an event gives free: bytes that an end has sent.
pub(super) struct Read {
    pub(super) conn: u64,
    pub(super) end: usize,
    pub(super) bytes: usize,
}

impl Mailbox for Inbox {
    fn push(&self, event: TransportEvent, read: Option<Read>) {
        self.events.borrow_mut().push_back((event, read));
        let reader = self.reader.borrow_mut().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Inbox {
    pub(super) async fn next(&self) -> (TransportEvent, Option<Read>) {
        poll_fn(|context| match self.events.borrow_mut().pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                *self.reader.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}
