//! One connection.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use mainstay_base::{ConnId, Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

use super::inbox::Inbox;
use super::outbox::Outbox;
use super::{FLUSH_BYTES, Inner};
use crate::ports::{CloseReason, EventSink, TransportEvent};

/// What the transport and the connection's task share.
pub(super) struct Connection {
    conn: ConnId,
    queue: RefCell<VecDeque<Frame>>,
    /// Of the queue and of what is being written.
    queued_bytes: Cell<usize>,
    /// The writer has been told.
    flushed: Cell<bool>,
    work: Notify,
    finishing: Cell<bool>,
    finish: Notify,
    /// Set when the queue has overflowed: the connection is lost.
    lost: Cell<bool>,
    overflow: Notify,
}

impl Connection {
    pub(super) fn new(conn: ConnId) -> Self {
        Self {
            conn,
            queue: RefCell::default(),
            queued_bytes: Cell::new(0),
            flushed: Cell::new(false),
            work: Notify::new(),
            finishing: Cell::new(false),
            finish: Notify::new(),
            lost: Cell::new(false),
            overflow: Notify::new(),
        }
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes.get()
    }

    /// Queues a frame; beyond the bound the connection is lost and holds nothing any more.
    pub(super) fn push(&self, frame: Frame, bytes_max: usize) {
        if self.lost.get() || self.finishing.get() {
            return;
        }
        let bytes = self.queued_bytes.get() + frame.wire_len();
        if bytes > bytes_max {
            self.lost.set(true);
            self.queue.borrow_mut().clear();
            self.queued_bytes.set(0);
            self.overflow.notify_one();
            return;
        }
        self.queued_bytes.set(bytes);
        self.queue.borrow_mut().push_back(frame);
        if bytes >= FLUSH_BYTES {
            self.flush();
        }
    }

    pub(super) fn flush(&self) {
        if !self.flushed.get() && !self.queue.borrow().is_empty() {
            self.flushed.set(true);
            self.work.notify_one();
        }
    }

    /// Closes after what is queued has been written.
    pub(super) fn finish(&self) {
        if !self.finishing.replace(true) {
            self.flush();
            self.work.notify_one();
            self.finish.notify_one();
        }
    }

    /// Carries frames both ways until one way ends.
    pub(super) async fn run(
        &self,
        inner: &Inner,
        stream: TcpStream,
        events: &dyn EventSink,
    ) -> CloseReason {
        let (from, to) = stream.into_split();
        let finished = async {
            self.finish.notified().await;
            inner.time.sleep_until(inner.time.now() + inner.options.close_within).await;
        };
        tokio::select! {
            biased;
            () = self.overflow.notified() => CloseReason::SlowPeer,
            reason = self.write(inner, to) => reason,
            reason = self.read(inner, from, events) => reason,
            () = finished => CloseReason::Local,
        }
    }

    async fn read(
        &self,
        inner: &Inner,
        mut from: OwnedReadHalf,
        events: &dyn EventSink,
    ) -> CloseReason {
        let mut inbox = Inbox::default();
        let mut is_deaf = false;
        let mut patience =
            inner.time.sleep_until(inner.time.now() + inner.options.first_frame_within);
        loop {
            let read = if inbox.is_early() {
                tokio::select! {
                    biased;
                    read = from.read_buf(inbox.room()) => read,
                    () = &mut patience => return CloseReason::Silent,
                }
            } else {
                from.read_buf(inbox.room()).await
            };
            match read {
                Ok(0) if inbox.is_empty() => return CloseReason::Ended,
                Ok(0) => return CloseReason::Truncated,
                Ok(_) => {}
                Err(error) => return CloseReason::Io(error.kind()),
            }
            let (frames, garbage) = inbox.take_frames();
            if !frames.is_empty() {
                inner.count_read(frames.len() as u64);
                let received = TransportEvent::Received { conn: self.conn, frames };
                // The host takes in nothing any more. What it has said is still being written: to close now, or to leave unread
                // what has come, would lose that at the peer.
                is_deaf = is_deaf || events.deliver(received).await.is_err();
            }
            if let Some(error) = garbage {
                return CloseReason::Garbage(error);
            }
        }
    }

    async fn write(&self, inner: &Inner, mut to: OwnedWriteHalf) -> CloseReason {
        let mut outbox = Outbox::default();
        loop {
            if self.queue.borrow().is_empty() {
                if self.finishing.get() {
                    // The peer sees the end after the last frame; whether it could be said does not matter any more.
                    let _ = to.shutdown().await;
                    return CloseReason::Local;
                }
                self.work.notified().await;
            }
            self.flushed.set(false);
            let count = outbox.gather(&mut self.queue.borrow_mut());
            if count == 0 {
                continue;
            }
            inner.count_write(count);
            while !outbox.is_empty() {
                match to.write_buf(&mut outbox).await {
                    Ok(written) => {
                        self.queued_bytes.set(self.queued_bytes.get().saturating_sub(written));
                        inner.progress.notify_one();
                    }
                    Err(error) => return CloseReason::Io(error.kind()),
                }
            }
        }
    }
}
