//! The simulated network as a node sees it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::ready;
use std::net::SocketAddr;
use std::rc::Rc;

use mainstay_base::frame::{BODY_SIZE_MAX, HEADER_SIZE};
use mainstay_base::{ConnId, Frame, Instant, NodeId};
use mainstay_runtime::{DialError, EventSink, LocalFuture, Transport};
use tokio::task::AbortHandle;

use super::inbox::Inbox;
use super::net::{Gone, Net};

/// The transport of one boot. When the boot is over, all that it is asked for is of no effect.
pub(super) struct LiveTransport {
    net: Rc<RefCell<Net>>,
    node: usize,
    boot: u64,
    inbox: Rc<Inbox>,
    reading: Option<AbortHandle>,
    draining: bool,
}

impl LiveTransport {
    pub(super) fn new(net: Rc<RefCell<Net>>, node: usize) -> Self {
        let inbox = Rc::<Inbox>::default();
        let boot = net.borrow_mut().attach(node, Rc::<Inbox>::clone(&inbox));
        Self { net, node, boot, inbox, reading: None, draining: false }
    }

    /// Does something to the network, unless the boot is over.
    fn act(&self, act: impl FnOnce(&mut Net)) {
        let mut net = self.net.borrow_mut();
        if net.is_current(self.node, self.boot) {
            act(&mut net);
        }
    }
}

impl Transport for LiveTransport {
    /// # Panics
    /// If called twice, or outside a `LocalSet`.
    fn start(&mut self, events: Rc<dyn EventSink>) {
        assert!(self.reading.is_none(), "a transport is started once");
        self.act(|net| net.listen(self.node, true));
        let (net, inbox) = (Rc::clone(&self.net), Rc::clone(&self.inbox));
        let reading = tokio::task::spawn_local(async move {
            loop {
                let (event, read) = inbox.next().await;
                if events.deliver(event).await.is_err() {
                    return;
                }
                if let Some(read) = read {
                    net.borrow_mut().was_read(read);
                }
            }
        });
        self.reading = Some(reading.abort_handle());
    }

    fn dial(&mut self, node: NodeId, addr: SocketAddr) -> Result<(), DialError> {
        if self.draining || self.reading.is_none() {
            return Err(DialError::NotRunning);
        }
        self.act(|net| net.dial(self.node, self.boot, node, addr));
        Ok(())
    }

    fn send(&mut self, conn: ConnId, frame: Frame) {
        assert!(
            frame.wire_len() <= HEADER_SIZE + BODY_SIZE_MAX,
            "senders split what does not fit a frame"
        );
        self.act(|net| net.queue(conn, frame));
    }

    fn flush(&mut self) {
        self.act(|net| net.flush(self.node));
    }

    fn close(&mut self, conn: ConnId) {
        self.act(|net| net.close(conn));
    }

    /// All that the room carries is frames.
    fn refused(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::new()
    }

    fn drain(&mut self, _deadline: Instant) -> LocalFuture<bool> {
        self.draining = true;
        self.act(|net| net.listen(self.node, false));
        self.flush();
        Box::pin(ready(true))
    }
}

impl Drop for LiveTransport {
    fn drop(&mut self) {
        if let Some(reading) = self.reading.take() {
            reading.abort();
        }
        self.act(|net| net.detach(self.node, Gone::Closed));
    }
}
