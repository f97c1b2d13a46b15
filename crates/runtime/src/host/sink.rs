//! Bridges from ports to hosts.

use std::fmt;
use std::rc::Rc;

use tokio::sync::mpsc;

use super::Hosted;
use super::handle::WeakHandle;
use crate::ports::{Completed, EventSink, LocalFuture, SinkClosed, TransportEvent};

/// Delivers the events of a transport to a host, as one batch of inputs each. It does not keep the host running.
pub struct HostSink<M: Hosted> {
    handle: WeakHandle<M>,
    convert: Rc<dyn Fn(TransportEvent) -> Vec<M::Input>>,
}

impl<M: Hosted> HostSink<M> {
    /// A sink to the host of `handle`; `convert` makes inputs of an event, in order.
    pub fn new(
        handle: WeakHandle<M>,
        convert: impl Fn(TransportEvent) -> Vec<M::Input> + 'static,
    ) -> Self {
        Self { handle, convert: Rc::new(convert) }
    }
}

impl<M: Hosted> fmt::Debug for HostSink<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostSink").finish_non_exhaustive()
    }
}

impl<M: Hosted> EventSink for HostSink<M> {
    fn deliver(&self, event: TransportEvent) -> LocalFuture<Result<(), SinkClosed>> {
        let inputs = (self.convert)(event);
        let handle = self.handle.clone();
        Box::pin(async move {
            if inputs.is_empty() {
                return Ok(());
            }
            let handle = handle.upgrade().ok_or(SinkClosed)?;
            handle.send_batch(inputs).await.map_err(|_| SinkClosed)
        })
    }
}

/// A callback for [`Store::start`](crate::Store::start) that sends completions to a host, in order.
///
/// It never waits on the store's thread: what the mailbox has no room for yet is held on the node's thread, bounded by
/// the store's bound on outstanding requests. It does not keep the host running.
///
/// # Panics
/// Outside a `LocalSet`.
pub fn completions<M: Hosted>(
    handle: WeakHandle<M>,
    convert: impl Fn(&Completed) -> M::Input + 'static,
) -> Box<dyn FnMut(Completed) + Send> {
    let (sender, mut receiver) = mpsc::unbounded_channel::<Completed>();
    drop(tokio::task::spawn_local(async move {
        while let Some(completed) = receiver.recv().await {
            let Some(handle) = handle.upgrade() else { return };
            if handle.send(convert(&completed)).await.is_err() {
                return;
            }
        }
    }));
    Box::new(move |completed| {
        if sender.send(completed).is_err() {
            tracing::debug!("a completion came after the host had closed");
        }
    })
}
